//! From the document as written to the configuration as used: every check there is, at load.

use super::fields::{Result, algorithms, cluster, fail, identifier, named, within};
use super::{
    AuthorizationServer, Client, ClientCredential, Config, ConfigError, IdentityProvider, Party,
    RegisteredClient, RegisteredCredential, document, raw, references,
};
use crate::jwk::KeySet;
use crate::jws::Algorithm;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::signing::SigningKey;
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const DEFAULT_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::PS256];

pub(super) fn config(document: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    let Some(document) = document::parse(document) else {
        return fail("(document)", "is neither one JSON object nor a Struct");
    };
    let document = serde_json::Value::Object(document);
    let raw: raw::Document = serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        ConfigError { path, problem: without_values(&error.into_inner().to_string()) }
    })?;
    let reading = Reading {
        env,
        allow_http: raw.allow_insecure_http,
        secrets: RefCell::default(),
        warnings: RefCell::default(),
    };
    if raw.allow_insecure_http {
        reading.warn("allow_insecure_http", "tokens may travel in the clear: for trials only");
    }

    let mut providers = BTreeMap::new();
    for (name, provider) in &raw.identity_providers {
        let path = format!("identity_providers.{name}");
        providers.insert(name.clone(), Rc::new(reading.identity_provider(&path, provider)?));
    }
    let authorization_server = match &raw.authorization_server {
        None => None,
        Some(server) => Some(reading.authorization_server(server, &providers)?),
    };
    let mut resources = Vec::new();
    for (index, resource) in raw.resources.iter().enumerate() {
        let path = format!("resources[{index}]");
        resources.push(Rc::new(reading.resource(&path, resource, &providers)?));
    }
    let idle = references::check(&raw, &resources, authorization_server.as_ref())?;
    reading.warnings.borrow_mut().extend(idle);

    let secrets = reading.secrets.into_inner();
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.expose().as_bytes()).collect();
    Ok(Config {
        authorization_server,
        resources,
        warnings: reading.warnings.into_inner(),
        seal: Seal::new(&secrets),
    })
}

/// The reading of one document.
pub(super) struct Reading<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) allow_http: bool,
    pub(super) secrets: RefCell<Vec<Secret>>,
    warnings: RefCell<Vec<String>>,
}

impl Reading<'_> {
    fn identity_provider(
        &self,
        path: &str,
        raw: &raw::IdentityProvider,
    ) -> Result<IdentityProvider> {
        let algorithms = match &raw.algorithms {
            None => DEFAULT_ALGORITHMS.to_vec(),
            Some(names) => algorithms(&format!("{path}.algorithms"), names)?,
        };
        let max_id_jag_lifetime = raw.max_id_jag_lifetime.unwrap_or(600);
        within(&format!("{path}.max_id_jag_lifetime"), max_id_jag_lifetime, 1, 3600)?;
        for (index, acr) in raw.required_acr.iter().enumerate() {
            let plain = acr.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
            if acr.is_empty() || !plain {
                return fail(format!("{path}.required_acr[{index}]"), "must be one acr value");
            }
        }
        if raw.max_auth_age == Some(0) {
            return fail(format!("{path}.max_auth_age"), "must be 1 second or more");
        }
        let client = match &raw.client {
            None => None,
            Some(client) => Some(Rc::new(self.client(&format!("{path}.client"), client)?)),
        };
        Ok(IdentityProvider {
            party: Rc::new(Party {
                path: path.to_owned(),
                issuer: self.issuer(path, &raw.issuer)?,
                cluster: cluster(path, &raw.cluster)?,
                token_endpoint: self.optional_url(path, "token_endpoint", &raw.token_endpoint)?,
                jwks_uri: self.optional_url(path, "jwks_uri", &raw.jwks_uri)?,
                allow_http: self.allow_http,
            }),
            algorithms,
            max_id_jag_lifetime,
            required_acr: raw.required_acr.clone(),
            max_auth_age: raw.max_auth_age,
            client,
        })
    }

    pub(super) fn client(&self, path: &str, raw: &raw::Client) -> Result<Client> {
        identifier(&format!("{path}.id"), &raw.id)?;
        let credential = match (&raw.secret, &raw.private_key_jwt) {
            (Some(secret), None) => {
                ClientCredential::Secret(self.secret(&format!("{path}.secret"), secret)?)
            }
            (None, Some(jwt)) => {
                let path = format!("{path}.private_key_jwt");
                let key = self.signing_key(&path, &jwt.key, jwt.kid.as_deref())?;
                if key.algorithm() != "ES256" {
                    return fail(format!("{path}.key"), "must be a P-256 key (ES256)");
                }
                ClientCredential::PrivateKey { key: Box::new(key), audience: jwt.audience }
            }
            _ => return fail(path, "needs exactly one of `secret` and `private_key_jwt`"),
        };
        Ok(Client { id: raw.id.clone(), credential })
    }

    fn authorization_server(
        &self,
        raw: &raw::AuthorizationServer,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<AuthorizationServer> {
        let path = "authorization_server";
        let issuer = self.issuer(path, &raw.issuer)?;
        let mut keys = Vec::new();
        for (index, key) in raw.signing_keys.iter().enumerate() {
            let path = format!("{path}.signing_keys[{index}]");
            let key = self.signing_key(&path, &key.key, key.kid.as_deref())?;
            if keys.iter().any(|other: &SigningKey| other.kid() == key.kid()) {
                return fail(format!("{path}.kid"), "used twice");
            }
            keys.push(key);
        }
        let jwks: Vec<_> = keys.iter().map(SigningKey::public_jwk).collect();
        let published_keys = json!({ "keys": jwks });
        let verifying = KeySet::parse(published_keys.to_string().as_bytes()).unwrap_or_default();
        if verifying.len() != keys.len() {
            return fail(format!("{path}.signing_keys"), "are more than one key set may have");
        }
        let Some(signing_key) = keys.into_iter().next() else {
            return fail(format!("{path}.signing_keys"), "needs at least one key");
        };

        let access_token_lifetime = raw.access_token_lifetime.unwrap_or(300);
        within(&format!("{path}.access_token_lifetime"), access_token_lifetime, 1, 3600)?;
        let skew = raw.clock_skew.unwrap_or(60);
        within(&format!("{path}.clock_skew"), skew, 0, 300)?;
        let limits = raw.rate_limits.as_ref();
        if let Some(raw::RateLimits {
            per_source_per_minute: source,
            per_client_per_minute: client,
        }) = limits
            && (*source == Some(0) || *client == Some(0) || source.or(*client).is_none())
        {
            return fail(format!("{path}.rate_limits"), "must limit something, and not to nothing");
        }
        let mut clients = BTreeMap::new();
        for (id, client) in &raw.clients {
            let path = format!("{path}.clients.{id}");
            identifier(&path, id)?;
            clients.insert(id.clone(), self.registered_client(&path, client, providers)?);
        }
        if clients.is_empty() {
            return fail(format!("{path}.clients"), "no client could ever get a token");
        }
        let used = |provider: &&Rc<IdentityProvider>| {
            let mut all = clients.values().flat_map(|client| &client.identity_providers);
            all.any(|other| Rc::ptr_eq(other, provider))
        };
        let identity_providers = providers.values().filter(used).cloned().collect();
        let base = issuer.path().trim_end_matches('/');
        Ok(AuthorizationServer {
            token_endpoint: issuer.with_path(&format!("{base}/token")),
            jwks_uri: issuer.with_path(&format!("{base}/.well-known/jagway/jwks.json")),
            issuer,
            signing_key,
            published_keys,
            keys: verifying,
            access_token_lifetime,
            skew,
            identity_providers,
            compat_authorization_endpoint: raw.compat_authorization_endpoint,
            per_source_per_minute: limits.and_then(|limits| limits.per_source_per_minute),
            per_client_per_minute: limits.and_then(|limits| limits.per_client_per_minute),
            clients,
        })
    }

    fn registered_credential(
        &self,
        path: &str,
        raw: &raw::RegisteredClient,
    ) -> Result<RegisteredCredential> {
        match (&raw.secret_sha256, &raw.private_key_jwt) {
            (Some(digest), None) => {
                let digest = self.digest(&format!("{path}.secret_sha256"), digest)?;
                Ok(RegisteredCredential::SecretSha256(digest))
            }
            (None, Some(registered)) => {
                let path = format!("{path}.private_key_jwt.jwks");
                let written = registered.jwks.get("keys").and_then(|keys| keys.as_array());
                let jwks = serde_json::Value::Object(registered.jwks.clone());
                let keys = KeySet::parse(jwks.to_string().as_bytes());
                match keys.filter(|keys| !keys.is_empty()) {
                    Some(keys) if written.is_some_and(|all| all.len() == keys.len()) => {
                        Ok(RegisteredCredential::Keys(keys))
                    }
                    _ => fail(path, "must be a key set of public keys, all of which can be used"),
                }
            }
            _ => fail(path, "needs exactly one of `secret_sha256` and `private_key_jwt`"),
        }
    }

    fn registered_client(
        &self,
        path: &str,
        raw: &raw::RegisteredClient,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<RegisteredClient> {
        let field = format!("{path}.identity_providers");
        let mut chosen: Vec<Rc<IdentityProvider>> = Vec::new();
        for (index, name) in raw.identity_providers.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let provider = named(&field, name, providers)?;
            if chosen.iter().any(|other| Rc::ptr_eq(other, provider)) {
                return fail(field, "named twice");
            }
            chosen.push(provider.clone());
        }
        if chosen.is_empty() {
            return fail(field, "no identity provider could ever speak for this client");
        }
        Ok(RegisteredClient {
            credential: self.registered_credential(path, raw)?,
            identity_providers: chosen,
        })
    }

    fn warn(&self, path: &str, problem: &str) {
        self.warnings.borrow_mut().push(format!("{path}: {problem}"));
    }
}

/// serde's words without the values they quote: one may be a secret that somebody wrote down.
fn without_values(problem: &str) -> String {
    let quotes_no_value = ["missing field", "unknown field", "duplicate field", "must be "];
    if quotes_no_value.iter().any(|start| problem.starts_with(start)) {
        return problem.to_owned();
    }
    match problem.rsplit_once(", expected ") {
        Some((_, expected)) => {
            let plain = match expected {
                "u32" | "u64" => "a whole number",
                "a sequence" => "a list",
                "a map" => "an object",
                expected if expected.starts_with("struct ") => "an object",
                expected => expected,
            };
            format!("must be {plain}")
        }
        None => "is not of the form it must have".to_owned(),
    }
}
