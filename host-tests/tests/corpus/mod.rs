//! ID-JAGs: sound ones, and each of them spoilt in one way.

mod bytes;
mod claims;
mod headers;
mod keys;
mod texts;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use host_tests::keys::{SigningKey, base64url};
use p256::ecdsa::signature::Signer;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Every case is judged at this moment.
pub const NOW: u64 = 1_800_000_000;
pub const ISSUER: &str = "https://acme.idp.example";
pub const AUDIENCE: &str = "https://mcp.acme.example";
pub const CLIENT: &str = "claude";

/// A token with its name, and the key set it is judged by.
pub struct Case {
    pub name: String,
    pub token: String,
    pub jwks: Value,
}

/// An issuer with one key that is the same in every run, and two more.
pub struct Issuer {
    es256: p256::ecdsa::SigningKey,
    eddsa: SigningKey,
    rs256: SigningKey,
}

impl Issuer {
    pub fn new() -> Self {
        Self {
            es256: p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap(),
            eddsa: SigningKey::eddsa("ed-1"),
            rs256: SigningKey::rs256("rsa-1"),
        }
    }

    fn es256_jwk(&self) -> Value {
        let point = self.es256.verifying_key().to_encoded_point(false);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "ec-1",
            "x": base64url(point.x().unwrap()), "y": base64url(point.y().unwrap()),
        })
    }

    fn jwks(&self) -> Value {
        json!([self.es256_jwk(), self.eddsa.jwk(), self.rs256.jwk()])
    }

    /// Signs two parts, whatever they are, as the ES256 key would.
    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{header}.{payload}");
        let signature: p256::ecdsa::Signature = self.es256.sign(signed.as_bytes());
        format!("{signed}.{}", base64url(&signature.to_bytes()))
    }

    /// Signs two texts, JSON or not.
    fn sign_texts(&self, header: &[u8], payload: &[u8]) -> String {
        self.sign(&base64url(header), &base64url(payload))
    }

    fn case(&self, name: impl Into<String>, token: String) -> Case {
        Case { name: name.into(), token, jwks: self.jwks() }
    }

    fn with_header(
        &self,
        name: impl Into<String>,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Case {
        let mut header = header();
        change(header.as_object_mut().unwrap());
        let token = self.sign_texts(header.to_string().as_bytes(), claims().to_string().as_bytes());
        self.case(name, token)
    }

    fn with_claims(
        &self,
        name: impl Into<String>,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Case {
        let mut claims = claims();
        change(claims.as_object_mut().unwrap());
        let token = self.sign_texts(header().to_string().as_bytes(), claims.to_string().as_bytes());
        self.case(name, token)
    }

    fn sound(&self) -> String {
        self.sign_texts(header().to_string().as_bytes(), claims().to_string().as_bytes())
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "typ": "oauth-id-jag+jwt", "kid": "ec-1"})
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "client_id": CLIENT, "jti": "jti-1",
        "iat": NOW, "exp": NOW + 300, "resource": "https://mcp.acme.example/warehouse",
        "scope": "stock.read", "auth_time": NOW - 60, "acr": "urn:example:mfa", "amr": ["pwd", "otp"],
        "act": {"sub": "agent"}, "email": "alice@acme.example", "tenant": "acme",
    })
}

/// One of every type, and the empty one of each.
fn retyped() -> Vec<(&'static str, Value)> {
    vec![
        ("null", Value::Null),
        ("true", json!(true)),
        ("false", json!(false)),
        ("zero", json!(0)),
        ("a negative number", json!(-1)),
        ("a fraction", json!(1_800_000_100.5)),
        ("an empty string", json!("")),
        ("a string", json!("other")),
        ("a number as a string", json!((NOW + 100).to_string())),
        ("an empty list", json!([])),
        ("a list of one", json!(["other"])),
        ("a list of lists", json!([[ISSUER]])),
        ("an empty object", json!({})),
        ("an object", json!({"a": "b"})),
    ]
}

/// Every case there is.
pub fn cases(issuer: &Issuer) -> Vec<Case> {
    let kinds = [
        sound,
        headers::header_members,
        headers::added_header_members,
        claims::claim_types,
        claims::claim_values,
        claims::times,
        texts::json_texts,
        bytes::signatures,
        bytes::encodings,
        bytes::shapes,
        keys::keys,
    ];
    kinds.into_iter().flat_map(|kind| kind(issuer)).collect()
}

fn sound(issuer: &Issuer) -> Vec<Case> {
    let other = |key: &SigningKey| {
        let name = format!("sound: {}", key.alg());
        issuer.case(name, key.sign(&key.header("oauth-id-jag+jwt"), &claims()))
    };
    let bare = ["resource", "scope", "auth_time", "acr", "amr", "act", "email", "tenant"];
    vec![
        issuer.case("sound: ES256", issuer.sound()),
        other(&issuer.eddsa),
        other(&issuer.rs256),
        issuer.with_claims("sound: only what must be there", |claims| {
            claims.retain(|name, _| !bare.contains(&name.as_str()));
        }),
        issuer.with_claims("sound: unknown claims", |claims| {
            claims.insert("anything".into(), json!({"a": [1, 2.5, null]}));
        }),
    ]
}
