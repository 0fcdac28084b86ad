//! Our own keys: access tokens and client assertions are signed here (RFC 7515, RFC 7638).
//!
//! Ed25519 or P-256 only. RSA private keys are refused: RUSTSEC-2023-0071 has no fixed release.

use crate::der;
use crate::digest::{base64url, hmac_sha256, sha256};
use crate::engine::Engine;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A private key of ours, with the `kid` it is published under.
pub struct SigningKey {
    kid: String,
    key: Key,
    engine: Engine,
}

enum Key {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    /// With the key for a host, in PKCS#8 DER.
    P256(Box<p256::ecdsa::SigningKey>, Zeroizing<Vec<u8>>),
}

impl Key {
    fn p256(key: p256::ecdsa::SigningKey) -> Self {
        let scalar: Zeroizing<[u8; 32]> = Zeroizing::new(key.to_bytes().into());
        let point = key.verifying_key().to_encoded_point(false);
        let private_key = der::p256_private_key(&scalar, point.as_bytes());
        Self::P256(Box::new(key), private_key)
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({} {})", self.algorithm(), self.kid)
    }
}

impl SigningKey {
    /// The key in a PKCS#8 PEM, Ed25519 or P-256. `kid` defaults to the RFC 7638 thumbprint.
    ///
    /// `None` if the PEM holds anything else.
    pub fn from_pem(pem: &str, kid: Option<&str>) -> Option<Self> {
        let pem = pem.trim();
        let key = match ed25519_dalek::SigningKey::from_pkcs8_pem(pem) {
            Ok(key) => Key::Ed25519(Box::new(key)),
            Err(_) => {
                let secret = p256::SecretKey::from_pkcs8_pem(pem).ok()?;
                Key::p256(secret.into())
            }
        };
        let mut key = Self { kid: String::new(), key, engine: Engine::portable() };
        key.kid = kid.map_or_else(|| key.thumbprint(), str::to_owned);
        Some(key)
    }

    /// The P-256 key with this private scalar, big-endian. Its `kid` is the RFC 7638 thumbprint.
    ///
    /// `None` if that is no scalar of the curve: zero, or not below its order.
    pub fn from_p256_scalar(scalar: &[u8; 32]) -> Option<Self> {
        let secret = p256::SecretKey::from_slice(scalar).ok()?;
        let key = Key::p256(secret.into());
        let mut key = Self { kid: String::new(), key, engine: Engine::portable() };
        key.kid = key.thumbprint();
        Some(key)
    }

    /// The same key, signing by `engine`.
    pub fn with_engine(self, engine: &Engine) -> Self {
        Self { engine: engine.clone(), ..self }
    }

    /// The `kid` under which the public half is published.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The `alg` this key signs with.
    pub fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Ed25519(_) => "EdDSA",
            Key::P256(..) => "ES256",
        }
    }

    /// A secret that everyone with this private key can derive, and nobody else, for `purpose` alone.
    pub fn derive(&self, purpose: &'static str) -> [u8; 32] {
        let private: Zeroizing<[u8; 32]> = match &self.key {
            Key::Ed25519(key) => Zeroizing::new(key.to_bytes()),
            Key::P256(key, _) => Zeroizing::new(key.to_bytes().into()),
        };
        hmac_sha256(&private[..], &[purpose.as_bytes()])
    }

    /// A compact JWS over `claims` with this `typ`.
    ///
    /// Portable code makes ECDSA nonces deterministic (RFC 6979), so a weak random source cannot leak the
    /// key; a host makes its own.
    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        self.sign_under(typ, "kid", self.kid.as_str().into(), claims)
    }

    /// As [`SigningKey::sign`], with the public half itself in place of its `kid` (RFC 9449 §4.2): only
    /// for a token that may bring its own key.
    pub fn sign_with_jwk(&self, typ: &str, claims: &Value) -> String {
        self.sign_under(typ, "jwk", self.required_members(), claims)
    }

    fn sign_under(&self, typ: &str, name: &str, key: Value, claims: &Value) -> String {
        let header = json!({ "typ": typ, "alg": self.algorithm(), name: key });
        let header = base64url(header.to_string().as_bytes());
        let payload = base64url(claims.to_string().as_bytes());
        let input = format!("{header}.{payload}");
        let signature = match &self.key {
            Key::Ed25519(key) => base64url(&key.sign(input.as_bytes()).to_bytes()),
            Key::P256(key, private_key) => {
                let input = input.as_bytes();
                let by_host = self.engine.sign(private_key, input);
                let signature: p256::ecdsa::Signature = by_host.unwrap_or_else(|| key.sign(input));
                base64url(&signature.to_bytes())
            }
        };
        format!("{input}.{signature}")
    }

    /// The public half as a JWK (RFC 7517): public members, `kid`, `use`, `alg`.
    pub fn public_jwk(&self) -> Value {
        let mut jwk = self.required_members();
        if let Value::Object(members) = &mut jwk {
            members.insert("kid".into(), self.kid.clone().into());
            members.insert("use".into(), "sig".into());
            members.insert("alg".into(), self.algorithm().into());
        }
        jwk
    }

    fn required_members(&self) -> Value {
        match &self.key {
            Key::Ed25519(key) => {
                let x = base64url(key.verifying_key().as_bytes());
                json!({ "crv": "Ed25519", "kty": "OKP", "x": x })
            }
            Key::P256(key, _) => {
                let point = key.verifying_key().to_encoded_point(false);
                let x = base64url(point.x().map(|x| x.as_slice()).unwrap_or_default());
                let y = base64url(point.y().map(|y| y.as_slice()).unwrap_or_default());
                json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y })
            }
        }
    }

    /// RFC 7638 §3: the required members in lexicographic order, hashed. `serde_json` keeps its
    /// objects in that order.
    fn thumbprint(&self) -> String {
        base64url(&sha256(self.required_members().to_string().as_bytes()))
    }
}
