//! Keys made at random, published as JWKs (RFC 7517) and signing compact JWS (RFC 7515).
//!
//! Signing takes any header and any claims, so that a test can make every hostile token with a real key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use p256::pkcs8::EncodePrivateKey;
use rand_core::{OsRng, RngCore};
use rsa::signature::{SignatureEncoding, Signer};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};

/// A private key with its name.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Es256(p256::ecdsa::SigningKey),
    Rs256(Box<rsa::RsaPrivateKey>),
    EdDsa(Box<ed25519_dalek::SigningKey>),
}

impl SigningKey {
    /// A new EC P-256 key.
    pub fn es256(kid: &str) -> Self {
        Self { kid: kid.into(), inner: Inner::Es256(p256::ecdsa::SigningKey::random(&mut OsRng)) }
    }

    /// A new RSA key of 2048 bits. Slow to make without optimisation: ask for it only where it matters.
    pub fn rs256(kid: &str) -> Self {
        let key = rsa::RsaPrivateKey::new(&mut OsRng, 2048).unwrap();
        Self { kid: kid.into(), inner: Inner::Rs256(Box::new(key)) }
    }

    /// A new Ed25519 key.
    pub fn eddsa(kid: &str) -> Self {
        Self {
            kid: kid.into(),
            inner: Inner::EdDsa(Box::new(ed25519_dalek::SigningKey::generate(&mut OsRng))),
        }
    }

    /// The key's name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JOSE algorithm it signs with.
    pub fn alg(&self) -> &'static str {
        match self.inner {
            Inner::Es256(_) => "ES256",
            Inner::Rs256(_) => "RS256",
            Inner::EdDsa(_) => "EdDSA",
        }
    }

    /// The public half.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.inner {
            Inner::Es256(key) => {
                let point = key.verifying_key().to_encoded_point(false);
                json!({"kty": "EC", "crv": "P-256", "x": base64url(point.x().unwrap()), "y": base64url(point.y().unwrap())})
            }
            Inner::Rs256(key) => {
                json!({"kty": "RSA", "n": base64url(&key.n().to_bytes_be()), "e": base64url(&key.e().to_bytes_be())})
            }
            Inner::EdDsa(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.verifying_key().as_bytes())})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.alg());
        jwk["use"] = json!("sig");
        jwk
    }

    /// The private half as PKCS#8 PEM.
    pub fn pem(&self) -> String {
        let pem = match &self.inner {
            Inner::Es256(key) => p256::SecretKey::from(key).to_pkcs8_pem(LineEnding::LF),
            Inner::Rs256(key) => key.to_pkcs8_pem(LineEnding::LF),
            Inner::EdDsa(key) => key.to_pkcs8_pem(LineEnding::LF),
        };
        pem.unwrap().to_string()
    }

    /// The honest header for a token of this `typ`.
    pub fn header(&self, typ: &str) -> Value {
        json!({"alg": self.alg(), "typ": typ, "kid": self.kid})
    }

    /// Signs whatever header and claims it is given, truthful or not.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = match &self.inner {
            Inner::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(signed.as_bytes());
                signature.to_bytes().to_vec()
            }
            Inner::Rs256(key) => {
                let key = rsa::pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new((**key).clone());
                key.sign(signed.as_bytes()).to_vec()
            }
            Inner::EdDsa(key) => key.sign(signed.as_bytes()).to_bytes().to_vec(),
        };
        format!("{signed}.{}", base64url(&signature))
    }
}

/// 192 random bits as text, for secrets, codes and identifiers.
pub fn random_text() -> String {
    let mut bytes = [0; 24];
    OsRng.fill_bytes(&mut bytes);
    base64url(&bytes)
}

/// Base64url without padding (RFC 7515 §2).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// SHA-256 in hex, as the configuration writes it.
pub fn sha256_hex(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
