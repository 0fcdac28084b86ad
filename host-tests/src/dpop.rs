//! A client's key, and proofs that it holds it (RFC 9449), made by the world's own code.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::keys::{SigningKey, base64url, random_text};
use crate::now;

/// A P-256 key that signs proofs.
pub struct DpopKey(SigningKey);

impl DpopKey {
    /// A new key.
    pub fn new() -> Self {
        Self(SigningKey::es256("unused"))
    }

    /// The thumbprint of the key (RFC 7638), which tokens bound to it carry as `cnf.jkt`.
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let members = ["crv", "kty", "x", "y"].map(|name| format!("\"{name}\":{}", jwk[name]));
        base64url(&Sha256::digest(format!("{{{}}}", members.join(","))))
    }

    /// A new proof for one request (§4.2), with `ath` if an access token goes along.
    pub fn proof(
        &self,
        method: &str,
        uri: &str,
        token: Option<&str>,
        nonce: Option<&str>,
    ) -> String {
        let mut claims = json!({"jti": random_text(), "htm": method, "htu": uri, "iat": now()});
        if let Some(token) = token {
            claims["ath"] = json!(base64url(&Sha256::digest(token)));
        }
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        self.0.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}), &claims)
    }

    fn jwk(&self) -> Value {
        let jwk = self.0.jwk();
        json!({"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]})
    }
}

impl Default for DpopKey {
    fn default() -> Self {
        Self::new()
    }
}
