//! Tokens of the attack table: sound ones, and every way to get one wrong.

use super::request::place;
use super::{Scene, names, over};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer;
use p256::pkcs8::DecodePrivateKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

impl Scene {
    /// A token of this kind, sound but for what `spec` says; text is taken as it stands.
    pub(super) fn token(&self, kind: &str, spec: &Value, input: &Value) -> String {
        if let Some(text) = spec.as_str() {
            return self.expand(text, &[]);
        }
        let kind = spec["kind"].as_str().unwrap_or(kind);
        let (key, typ, claims) = sound(kind, input);
        let signer = spec["key"].as_str().unwrap_or(key);
        let (alg, kid) = match signer {
            "rsa" => ("RS256", "rsa-1"),
            _ => ("ES256", self.key(key).0),
        };
        let jti = format!("$JTI-{}", input["step"]);
        let mut claims = over(&over(&claims, &json!({ "jti": jti })), &spec["claims"]);
        for index in 0..spec["members"].as_u64().unwrap_or(0) {
            claims[format!("m{index}")] = json!(1);
        }
        let usual = match kind {
            "dpop" => json!({ "typ": typ, "alg": alg, "jwk": { "key_of": signer } }),
            _ => json!({ "typ": typ, "alg": alg, "kid": kid }),
        };
        let header = over(&usual, &spec["header"]);
        let header = self.segment(spec, "header", header);
        let payload = self.segment(spec, "payload", claims);
        let input = format!("{header}.{payload}");
        let signature = self.signature(signer, &spec["signature"], input.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let twin = spare_bits_set(&signature);
        let parts = [("H", &*header), ("P", &*payload), ("S", &*signature), ("T", &*twin)];
        self.expand(spec["compact"].as_str().unwrap_or("$H.$P.$S"), &parts)
    }

    /// A DPoP proof for the request with this access token (RFC 9449).
    pub(super) fn proof(&self, spec: &Value, bearer: &str, input: &Value) -> String {
        let mut scene = self.clone();
        scene.names.push(("ATH", URL_SAFE_NO_PAD.encode(Sha256::digest(bearer))));
        scene.token("dpop", spec, input)
    }

    /// RFC 7638.
    pub(super) fn thumbprint(&self, name: &str) -> String {
        let key = self.jwk(name);
        let members = json!({ "crv": key["crv"], "kty": key["kty"], "x": key["x"], "y": key["y"] });
        URL_SAFE_NO_PAD.encode(Sha256::digest(members.to_string()))
    }

    fn segment(&self, spec: &Value, part: &str, sound: Value) -> String {
        let without = match part {
            "header" => names(&spec["without_header"]),
            _ => names(&spec["without"]),
        };
        let mut value = self.value(&sound);
        value.as_object_mut().expect("an object").retain(|name, _| !without.contains(name));
        let bytes = match (&spec[format!("{part}_text")], &spec[format!("{part}_hex")]) {
            (Value::String(text), _) => self.expand(text, &[]).into_bytes(),
            (_, Value::String(hex)) => unhex(hex),
            _ => value.to_string().into_bytes(),
        };
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn signature(&self, signer: &str, spec: &Value, input: &[u8]) -> Vec<u8> {
        let mut bytes = match spec.as_object() {
            None => self.signed(signer, input),
            Some(spec) if spec.contains_key("hex") => {
                unhex(&self.expand(spec["hex"].as_str().unwrap(), &[]))
            }
            Some(spec) if spec.contains_key("mac") => {
                hmac(&self.public(signer, spec["mac"].as_str().unwrap()), input)
            }
            Some(spec) if spec.contains_key("block") => {
                rsa_power(&block(spec["block"].as_str().unwrap(), input))
            }
            Some(spec) if spec.contains_key("salt") => {
                rsa_power(&pss_block(input, spec["salt"].as_u64().unwrap() as usize))
            }
            Some(spec) if spec.contains_key("n_minus") => {
                let n = rsa::BigUint::from_bytes_be(&rsa_number("n"));
                (n - spec["n_minus"].as_u64().unwrap()).to_bytes_be()
            }
            Some(spec) if spec.contains_key("n_plus") => {
                let n = rsa::BigUint::from_bytes_be(&rsa_number("n"));
                let signature = rsa::BigUint::from_bytes_be(&self.signed(signer, input));
                (n + signature).to_bytes_be()
            }
            Some(spec) if spec.contains_key("der") => {
                let signature = Signature::from_slice(&self.signed(signer, input)).unwrap();
                signature.to_der().as_bytes().to_vec()
            }
            Some(spec) if spec.contains_key("high_s") => {
                let signature = Signature::from_slice(&self.signed(signer, input)).unwrap();
                let (r, s) = signature.normalize_s().unwrap_or(signature).split_scalars();
                Signature::from_scalars(r, -s).unwrap().to_bytes().to_vec()
            }
            Some(_) => self.signed(signer, input),
        };
        bytes.truncate(bytes.len() - spec["cut"].as_u64().unwrap_or(0) as usize);
        [
            unhex(spec["lead"].as_str().unwrap_or("")),
            bytes,
            unhex(spec["trail"].as_str().unwrap_or("")),
        ]
        .concat()
    }

    fn signed(&self, signer: &str, input: &[u8]) -> Vec<u8> {
        if signer == "rsa" {
            return rsa_power(&block("0001 FILL 00 DIGESTINFO SHA256", input));
        }
        let key = p256::ecdsa::SigningKey::from_pkcs8_pem(self.key(signer).1).unwrap();
        let signature: Signature = key.sign(input);
        signature.to_bytes().to_vec()
    }

    fn key(&self, name: &str) -> (&str, &str) {
        let (_, kid, pem) = self.keys.iter().find(|(other, ..)| *other == name).expect("a key");
        (kid, pem)
    }

    /// The public key in a form that somebody could take for a secret.
    fn public(&self, name: &str, form: &str) -> Vec<u8> {
        let key = p256::ecdsa::SigningKey::from_pkcs8_pem(self.key(name).1).unwrap();
        let point = key.verifying_key().to_encoded_point(false);
        let der =
            [&unhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), point.as_bytes()];
        let der = der.concat();
        let text = STANDARD.encode(&der);
        let (first, rest) = text.split_at(64);
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{first}\n{rest}\n-----END PUBLIC KEY-----\n");
        match form {
            "pem" => pem.into_bytes(),
            "trimmed pem" => pem.trim().as_bytes().to_vec(),
            "der" => der,
            "jwk" => self.jwk(name).to_string().into_bytes(),
            _ => Vec::new(),
        }
    }

    pub(super) fn jwk(&self, name: &str) -> Value {
        if name == "rsa" {
            let n = URL_SAFE_NO_PAD.encode(rsa_number("n"));
            return json!({ "kty": "RSA", "n": n, "e": "AQAB", "kid": "rsa-1" });
        }
        let (kid, pem) = self.key(name);
        let key = p256::ecdsa::SigningKey::from_pkcs8_pem(pem).unwrap();
        let point = key.verifying_key().to_encoded_point(false);
        let coordinate = |bytes: Option<&p256::FieldBytes>| URL_SAFE_NO_PAD.encode(bytes.unwrap());
        let (x, y) = (coordinate(point.x()), coordinate(point.y()));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig" })
    }
}

/// Who signs a token of this kind, its `typ`, and its claims.
fn sound(kind: &str, input: &Value) -> (&'static str, &'static str, Value) {
    let by_robot = !input["client_assertion"].is_null();
    let usual = if by_robot { "robot" } else { "claude" };
    let client = input["client"].as_str().unwrap_or(usual);
    let resource = match place(input) {
        ("token" | "revoke" | "logout" | "events", ..) => "$MCP".to_owned(),
        (to, ..) => format!("${}", to.to_uppercase()),
    };
    let user =
        |issuer: &str, name: &str| json!({ "format": "iss_sub", "iss": issuer, "sub": name });
    let claims = match kind {
        "id_jag" => json!({
            "iss": input["by"].as_str().unwrap_or("$IDP"), "sub": "alice", "aud": "$AS",
            "client_id": client, "exp": "$NOW+300", "resource": "$MCP",
            "scope": "stock.read stock.write",
        }),
        "client_assertion" => {
            let client = input["client"].as_str().unwrap_or("robot");
            json!({ "iss": client, "sub": client, "aud": "$AS", "exp": "$NOW+60" })
        }
        "access_token" => json!({
            "iss": "$AS", "sub": "s", "aud": resource, "client_id": client, "exp": "$NOW+300",
            "scope": "stock.read", "sub_id": user("$IDP", "alice"),
        }),
        "dpop" if place(input).0 == "token" => json!({ "htm": "POST", "htu": "$AS/token" }),
        "dpop" => json!({ "htm": "POST", "htu": resource, "ath": "$ATH" }),
        "revocation_token" => json!({
            "iss": "$LOGOUT", "sub": "jagway", "aud": "$AS/global-token-revocation",
            "exp": "$NOW+300",
        }),
        "event" => {
            let name = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
            json!({
                "iss": "$LOGOUT", "aud": "$AS", "sub_id": user("$LOGOUT", "$JTI"),
                "events": { name: { "event_timestamp": "$NOW" } },
            })
        }
        other => panic!("no such kind of token: {other}"),
    };
    let (key, typ) = match kind {
        "id_jag" if !input["by"].is_null() => ("beta", "oauth-id-jag+jwt"),
        "id_jag" => ("idp", "oauth-id-jag+jwt"),
        "client_assertion" => ("robot", "client-authentication+jwt"),
        "access_token" => ("own", "at+jwt"),
        "dpop" => ("prover", "dpop+jwt"),
        "revocation_token" => ("beta", "global-token-revocation+jwt"),
        _ => ("beta", "secevent+jwt"),
    };
    (key, typ, over(&json!({ "iat": "$NOW" }), &claims))
}

/// The same bytes in another spelling: a bit set that base64url leaves unused.
fn spare_bits_set(text: &str) -> String {
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let Some(last) = text.chars().last() else { return String::new() };
    let twin = letters.chars().nth(letters.find(last).unwrap() ^ 1).unwrap();
    format!("{}{twin}", text.strip_suffix(last).unwrap())
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hmac(key: &[u8], input: &[u8]) -> Vec<u8> {
    let mut padded = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    padded.resize(64, 0);
    let with = |pad: u8| padded.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let inner = Sha256::digest([&with(0x36), input].concat());
    Sha256::digest([&with(0x5c), &inner[..]].concat()).to_vec()
}

/// A number of the RSA key that exists for this table alone.
fn rsa_number(name: &str) -> Vec<u8> {
    let key: Value = serde_json::from_str(include_str!("rsa.json")).unwrap();
    unhex(key[name].as_str().unwrap())
}

fn rsa_power(block: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| rsa::BigUint::from_bytes_be(bytes);
    let signature = number(block).modpow(&number(&rsa_number("d")), &number(&rsa_number("n")));
    let bytes = signature.to_bytes_be();
    [vec![0; 256 - bytes.len()], bytes].concat()
}

/// A block of 256 bytes in the manner of RFC 8017 §9.2, of the pieces named.
fn block(pieces: &str, input: &[u8]) -> Vec<u8> {
    let piece = |name: &str| match name {
        "FILL" => Vec::new(),
        "DIGESTINFO" => unhex("3031300d060960864801650304020105000420"),
        "DIGESTINFO512" => unhex("3051300d060960864801650304020305000440"),
        "SHA256" => Sha256::digest(input).to_vec(),
        "SHA512" => Sha512::digest(input).to_vec(),
        hex => unhex(hex),
    };
    let length: usize = pieces.split(' ').map(|name| piece(name).len()).sum();
    let fill = |name: &str| match name {
        "FILL" => vec![0xff; 256 - length],
        name => piece(name),
    };
    pieces.split(' ').flat_map(fill).collect()
}

/// EMSA-PSS-ENCODE for SHA-256 and a modulus of 2048 bits (RFC 8017 §9.1.1), the salt all zeros.
fn pss_block(input: &[u8], salt: usize) -> Vec<u8> {
    let salted = [&[0; 8][..], &Sha256::digest(input), &vec![0; salt]].concat();
    let hash = Sha256::digest(salted);
    let length = 256 - 32 - 1;
    let mask =
        (0u32..7).flat_map(|n| Sha256::digest([&hash[..], &n.to_be_bytes()].concat()).to_vec());
    let data = [vec![0; length - salt - 1], vec![1], vec![0; salt]].concat();
    let mut block: Vec<u8> = data.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    block[0] &= 0x7f;
    [&block[..], &hash, &[0xbc]].concat()
}
