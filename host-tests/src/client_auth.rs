//! Client authentication at a token endpoint (RFC 6749 §2.3, RFC 7523 §2.2).

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::jwk::Jwk;
use serde_json::Value;

use crate::jwks::verify_with;
use crate::names::CLIENT_ASSERTION_JWT;
use crate::oauth::{Form, OauthError};

/// The ways in which a client can prove itself here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// `client_secret_basic`
    Basic,
    /// `client_secret_post`
    Post,
    /// `private_key_jwt`, ES256
    PrivateKeyJwt,
}

/// A registered client.
#[derive(Clone)]
pub struct Client {
    /// Its identifier.
    pub id: String,
    /// Its secret, for the methods that need one.
    pub secret: String,
    /// Its public key, for `private_key_jwt`.
    pub key: Option<Value>,
    /// What it may use.
    pub methods: Vec<AuthMethod>,
}

/// The clients of one authorization server.
pub struct Registry {
    audiences: [String; 2],
    clients: Mutex<HashMap<String, Client>>,
    seen: Mutex<HashSet<String>>,
    used: Mutex<Vec<AuthMethod>>,
}

impl Registry {
    /// A registry that takes client assertions made out to the issuer or to the token endpoint.
    pub fn new(issuer: &str, token_endpoint: &str) -> Self {
        let audiences = [issuer.into(), token_endpoint.into()];
        Self {
            audiences,
            clients: Mutex::default(),
            seen: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// Registers a client, or changes its registration.
    pub fn register(&self, client: Client) {
        self.clients.lock().unwrap().insert(client.id.clone(), client);
    }

    /// The methods used so far, in order of the requests that passed.
    pub fn methods_used(&self) -> Vec<AuthMethod> {
        self.used.lock().unwrap().clone()
    }

    /// Finds out which client sent this request, or refuses.
    pub fn authenticate(&self, headers: &HeaderMap, form: &Form) -> Result<Client, OauthError> {
        let basic = basic_credentials(headers)?;
        let methods = [
            basic.is_some(),
            form.get("client_secret").is_some(),
            form.get("client_assertion").is_some(),
        ];
        if methods.iter().filter(|used| **used).count() > 1 {
            return Err(OauthError::new(
                "invalid_request",
                "more than one way of client authentication",
            ));
        }

        let (client, method) = if let Some((id, secret)) = basic {
            (self.by_secret(&id, &secret)?, AuthMethod::Basic)
        } else if let Some(secret) = form.get("client_secret") {
            (self.by_secret(form.need("client_id")?, secret)?, AuthMethod::Post)
        } else if let Some(assertion) = form.get("client_assertion") {
            (self.by_assertion(form, assertion)?, AuthMethod::PrivateKeyJwt)
        } else {
            return Err(refused("no client authentication"));
        };

        if form.get("client_id").is_some_and(|id| id != client.id) {
            return Err(refused("client_id is not the client that authenticated"));
        }
        if !client.methods.contains(&method) {
            return Err(refused("not the registered way of client authentication"));
        }
        self.used.lock().unwrap().push(method);
        Ok(client)
    }

    fn find(&self, id: &str) -> Result<Client, OauthError> {
        self.clients.lock().unwrap().get(id).cloned().ok_or_else(|| refused("unknown client"))
    }

    fn by_secret(&self, id: &str, secret: &str) -> Result<Client, OauthError> {
        let client = self.find(id)?;
        // The empty secret is that of a client which has none.
        if secret.is_empty() || client.secret != secret {
            return Err(refused("wrong secret"));
        }
        Ok(client)
    }

    fn by_assertion(&self, form: &Form, assertion: &str) -> Result<Client, OauthError> {
        if form.need("client_assertion_type")? != CLIENT_ASSERTION_JWT {
            return Err(OauthError::new("invalid_request", "unknown client_assertion_type"));
        }
        let unproven: Value =
            insecure_decode_claims(assertion).map_err(|_| refused("not a JWT"))?;
        let client = self.find(unproven["sub"].as_str().unwrap_or_default())?;
        let key: Jwk =
            serde_json::from_value(client.key.clone().ok_or_else(|| refused("no key registered"))?)
                .unwrap();

        let claims = verify_with(&key, assertion).map_err(|error| refused(&error))?;

        if claims["iss"] != client.id.as_str() || claims["sub"] != client.id.as_str() {
            return Err(refused("the assertion's iss and sub must be the client"));
        }
        if !self.audiences.iter().any(|audience| claims["aud"] == audience.as_str()) {
            return Err(refused("the assertion is meant for somebody else"));
        }
        let jti = claims["jti"].as_str().ok_or_else(|| refused("the assertion has no jti"))?;
        if !self.seen.lock().unwrap().insert(jti.into()) {
            return Err(refused("the assertion was used before"));
        }
        Ok(client)
    }
}

fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, OauthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let decoded = || {
        let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (id, secret) = text.split_once(':')?;
        Some((form_decoded(id), form_decoded(secret)))
    };
    decoded().map(Some).ok_or_else(|| refused("malformed Basic credentials"))
}

/// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
fn form_decoded(text: &str) -> String {
    form_urlencoded::parse(text.as_bytes())
        .map(|(name, _)| name.into_owned())
        .next()
        .unwrap_or_default()
}

fn refused(why: &str) -> OauthError {
    OauthError::new("invalid_client", why)
}
