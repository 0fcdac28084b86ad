//! Verification by the world's own servers: the `jsonwebtoken` crate, with keys fetched over HTTP.

use std::sync::Mutex;

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

/// The published keys of one issuer, kept until an unknown `kid` turns up.
pub struct KeySource {
    uri: String,
    http: reqwest::Client,
    keys: Mutex<JwkSet>,
}

impl KeySource {
    /// Keys found at `jwks_uri`, fetched in the name of `who`.
    pub fn new(jwks_uri: &str, who: &str) -> Self {
        Self {
            uri: jwks_uri.into(),
            http: http_client(who),
            keys: Mutex::new(JwkSet { keys: vec![] }),
        }
    }

    /// Checks signature, `typ`, `exp`, `iss` and that `aud` is exactly this audience; gives the claims.
    pub async fn verify(
        &self,
        token: &str,
        typ: &str,
        issuer: &str,
        audience: &str,
    ) -> Result<Value, String> {
        let header = decode_header(token).map_err(|error| error.to_string())?;
        if header.typ.as_deref() != Some(typ) {
            return Err(format!("typ is {:?}, not {typ}", header.typ));
        }
        let key = self.key(header.kid.as_deref().ok_or("no kid")?).await?;

        let claims = verify_with(&key, token)?;

        if claims["iss"] != issuer {
            return Err(format!("issued by {}, not {issuer}", claims["iss"]));
        }
        if claims["aud"] != audience && claims["aud"] != serde_json::json!([audience]) {
            return Err(format!("meant for {}, not {audience}", claims["aud"]));
        }
        Ok(claims)
    }

    async fn key(&self, kid: &str) -> Result<Jwk, String> {
        if let Some(key) = self.keys.lock().unwrap().find(kid) {
            return Ok(key.clone());
        }
        let answer = self.http.get(&self.uri).send().await.map_err(|error| error.to_string())?;
        let set: JwkSet = answer.json().await.map_err(|error| error.to_string())?;
        let found = set.find(kid).cloned().ok_or_else(|| format!("unknown kid {kid}"));
        *self.keys.lock().unwrap() = set;
        found
    }
}

/// Checks signature and `exp` against one key. Audience, issuer and `typ` are the caller's to check.
pub fn verify_with(key: &Jwk, token: &str) -> Result<Value, String> {
    let algorithm = match key.common.key_algorithm {
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
        other => return Err(format!("no use for a key of algorithm {other:?}")),
    };
    let mut checks = Validation::new(algorithm);
    checks.leeway = 0;
    checks.validate_aud = false;
    checks.validate_nbf = true;

    let key = DecodingKey::from_jwk(key).map_err(|error| error.to_string())?;
    let token = decode::<Value>(token, &key, &checks).map_err(|error| error.to_string())?;

    Ok(token.claims)
}

/// A plain HTTP client that gives its name, follows nothing and ignores proxies: all peers are on this machine.
pub fn http_client(who: &str) -> reqwest::Client {
    let builder = reqwest::Client::builder().user_agent(who).no_proxy();
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}
