//! From the document as written to the configuration as used: every check there is, at load.

use super::{
    Accept, AuthorizationServer, Caller, Client, ClientCredential, Config, ConfigError,
    IdentityProvider, Kind, Party, RegisteredClient, Resource, Upgrade, document, raw,
};
use crate::digest::{self, Key};
use crate::http::Url;
use crate::jwk::KeySet;
use crate::jws::Algorithm;
use crate::names;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::signing::SigningKey;
use crate::token_endpoint::scope_tokens;
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

type Result<T> = core::result::Result<T, ConfigError>;

const DEFAULT_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::PS256];

pub(super) fn config(document: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    let Some(document) = document::parse(document) else {
        return fail("(document)", "is neither one JSON object nor a Struct");
    };
    let document = serde_json::Value::Object(document);
    let raw: raw::Document = serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        ConfigError { path, problem: error.into_inner().to_string() }
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
    check_references(&raw, &resources, authorization_server.as_ref())?;

    let secrets = reading.secrets.into_inner();
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.expose().as_bytes()).collect();
    Ok(Config {
        authorization_server,
        resources,
        warnings: reading.warnings.into_inner(),
        seal: Seal::new(&secrets),
    })
}

struct Reading<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    allow_http: bool,
    secrets: RefCell<Vec<Secret>>,
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
        let client = match &raw.client {
            None => None,
            Some(client) => Some(Rc::new(self.client(&format!("{path}.client"), client)?)),
        };
        Ok(IdentityProvider {
            party: Rc::new(Party {
                issuer: self.issuer(path, &raw.issuer)?,
                cluster: cluster(path, &raw.cluster)?,
                token_endpoint: self.optional_url(path, "token_endpoint", &raw.token_endpoint)?,
                jwks_uri: self.optional_url(path, "jwks_uri", &raw.jwks_uri)?,
                allow_http: self.allow_http,
            }),
            algorithms,
            max_id_jag_lifetime,
            client,
        })
    }

    fn client(&self, path: &str, raw: &raw::Client) -> Result<Client> {
        not_empty(&format!("{path}.id"), &raw.id)?;
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
        let Some(signing_key) = keys.into_iter().next() else {
            return fail(format!("{path}.signing_keys"), "needs at least one key");
        };

        let access_token_lifetime = raw.access_token_lifetime.unwrap_or(300);
        within(&format!("{path}.access_token_lifetime"), access_token_lifetime, 1, 3600)?;
        let skew = raw.clock_skew.unwrap_or(60);
        within(&format!("{path}.clock_skew"), skew, 0, 300)?;
        let limits = raw.rate_limits.as_ref();
        let mut clients = BTreeMap::new();
        for (id, client) in &raw.clients {
            let path = format!("{path}.clients.{id}");
            not_empty(&path, id)?;
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
            secret_sha256: self.digest(&format!("{path}.secret_sha256"), &raw.secret_sha256)?,
            identity_providers: chosen,
        })
    }

    fn resource(
        &self,
        path: &str,
        raw: &raw::Resource,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<Resource> {
        let resource = self.url(&format!("{path}.resource"), &raw.resource)?;
        if resource.path_and_query().contains('?') {
            return fail(format!("{path}.resource"), "must have no query");
        }
        match (&raw.upgrade, &raw.accept) {
            (Some(upgrade), None) => {
                let path = format!("{path}.upgrade");
                let url = match &upgrade.url {
                    None => resource.clone(),
                    Some(url) => self.url(&format!("{path}.url"), url)?,
                };
                let upgrade = self.upgrade(&path, upgrade, &resource, providers)?;
                Ok(Resource { resource, url, kind: Kind::Upgrade(Rc::new(upgrade)) })
            }
            (None, Some(accept)) => {
                let accept = self.accept(&format!("{path}.accept"), accept)?;
                Ok(Resource { url: resource.clone(), resource, kind: Kind::Accept(accept) })
            }
            _ => fail(path, "needs exactly one of `upgrade` and `accept`"),
        }
    }

    fn upgrade(
        &self,
        path: &str,
        raw: &raw::Upgrade,
        resource: &Url,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<Upgrade> {
        let field = format!("{path}.identity_provider");
        let provider = named(&field, &raw.identity_provider, providers)?;
        let Some(idp_client) = &provider.client else {
            let problem = format!(
                "identity_providers.{}.client is needed to exchange tokens there",
                raw.identity_provider
            );
            return fail(field, problem);
        };
        let server = &raw.authorization_server;
        let server_path = format!("{path}.authorization_server");
        let issuer = self.issuer(&server_path, &server.issuer)?;
        if issuer == provider.party.issuer {
            // ID-JAG §9.3: a grant must cross a trust domain.
            return fail(format!("{server_path}.issuer"), "is the identity provider itself");
        }
        let mut callers: Vec<Caller> = Vec::new();
        for (index, caller) in raw.callers.iter().enumerate() {
            let path = format!("{path}.callers[{index}]");
            let caller = self.caller(&path, caller)?;
            if callers.iter().any(|other| same_caller(other, &caller)) {
                return fail(path, "the same caller again: this entry would never be used");
            }
            callers.push(caller);
        }
        if callers.is_empty() {
            return fail(format!("{path}.callers"), "nobody could ever call");
        }
        let max_token_age = raw.max_token_age.unwrap_or(300);
        within(&format!("{path}.max_token_age"), max_token_age, 1, 3600)?;
        Ok(Upgrade {
            resource: resource.clone(),
            identity_provider: provider.clone(),
            idp_client: idp_client.clone(),
            resource_as: Rc::new(Party {
                issuer,
                cluster: cluster(&server_path, &server.cluster)?,
                token_endpoint: self.optional_url(
                    &server_path,
                    "token_endpoint",
                    &server.token_endpoint,
                )?,
                jwks_uri: None,
                allow_http: self.allow_http,
            }),
            resource_as_client: Rc::new(
                self.client(&format!("{server_path}.client"), &server.client)?,
            ),
            scope: scopes(&format!("{path}.scopes"), &raw.scopes)?.join(" "),
            callers,
            max_token_age,
        })
    }

    fn caller(&self, path: &str, raw: &raw::Caller) -> Result<Caller> {
        match (&raw.id_token, &raw.api_key, &raw.subject) {
            (Some(raw::NoSettings {}), None, None) => Ok(Caller::IdToken),
            (None, Some(key), Some(subject)) => Ok(Caller::ApiKey {
                header: header_name(&format!("{path}.api_key.header"), &key.header)?,
                sha256: self.digest(&format!("{path}.api_key.sha256"), &key.sha256)?,
                refresh_token: self
                    .secret(&format!("{path}.subject.refresh_token"), &subject.refresh_token)?,
            }),
            (None, Some(_), None) => {
                fail(format!("{path}.subject"), "an API key is nobody until it is bound to a user")
            }
            (Some(_), None, Some(_)) => {
                fail(format!("{path}.subject"), "an ID Token is its own subject")
            }
            _ => fail(path, "needs exactly one of `id_token` and `api_key`"),
        }
    }

    fn accept(&self, path: &str, raw: &raw::Accept) -> Result<Accept> {
        let granted = scopes(&format!("{path}.scopes"), &raw.scopes)?;
        let default_scopes = scopes(&format!("{path}.default_scopes"), &raw.default_scopes)?;
        if let Some(unknown) = default_scopes.iter().find(|scope| !granted.contains(scope)) {
            let problem = format!("`{unknown}` is not in `scopes`");
            return fail(format!("{path}.default_scopes"), problem);
        }
        for (index, origin) in raw.allowed_origins.iter().enumerate() {
            let path = format!("{path}.allowed_origins[{index}]");
            let url = self.url(&path, origin)?;
            if url.origin() != origin {
                return fail(path, "must be an origin: scheme, host and port, no path");
            }
        }
        Ok(Accept {
            name: raw.name.clone(),
            scopes: granted,
            default_scopes,
            allowed_origins: raw.allowed_origins.clone(),
            credential_header: header_name(
                &format!("{path}.credential.header"),
                &raw.credential.header,
            )?,
            credential: self.secret(&format!("{path}.credential.value"), &raw.credential.value)?,
        })
    }

    /// A variable's value without the newline that files of secrets end in. Never empty.
    fn secret(&self, path: &str, reference: &raw::Reference) -> Result<Secret> {
        let name = &reference.env;
        let Some(value) = (self.env)(name) else {
            let problem = format!("environment variable `{name}` is not set in the VM");
            return fail(format!("{path}.env"), problem);
        };
        let value = value.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return fail(format!("{path}.env"), format!("environment variable `{name}` is empty"));
        }
        let secret = Secret::new(value);
        self.secrets.borrow_mut().push(secret.clone());
        Ok(secret)
    }

    fn signing_key(
        &self,
        path: &str,
        key: &raw::Reference,
        kid: Option<&str>,
    ) -> Result<SigningKey> {
        let pem = self.secret(&format!("{path}.key"), key)?;
        match SigningKey::from_pem(pem.expose(), kid) {
            Some(key) => Ok(key),
            None => fail(
                format!("{path}.key"),
                "must be a private key in PKCS#8 PEM, Ed25519 or P-256 (RSA is not signed with)",
            ),
        }
    }

    fn digest(&self, path: &str, raw: &raw::Digest) -> Result<Key> {
        let text = match raw {
            raw::Digest::Literal(text) => text.clone(),
            raw::Digest::Reference(reference) => self.secret(path, reference)?.expose().to_owned(),
        };
        match digest::from_hex(&text) {
            Some(key) if key == digest::sha256(b"") => fail(path, "is the digest of nothing"),
            Some(key) => Ok(key),
            None => fail(path, "must be 64 hexadecimal digits, or `{ env: NAME }`"),
        }
    }

    fn url(&self, path: &str, text: &str) -> Result<Url> {
        match Url::parse(text) {
            None => fail(path, "must be an absolute URL in normal form, without fragment"),
            Some(url) if !url.is_https() && !self.allow_http => {
                fail(path, "must be https (or set `allow_insecure_http` for a trial)")
            }
            Some(url) => Ok(url),
        }
    }

    fn optional_url(&self, path: &str, name: &str, text: &Option<String>) -> Result<Option<Url>> {
        text.as_ref().map(|text| self.url(&format!("{path}.{name}"), text)).transpose()
    }

    /// RFC 8414 §2: an issuer identifier has no query and no fragment.
    fn issuer(&self, path: &str, text: &str) -> Result<Url> {
        let path = format!("{path}.issuer");
        let url = self.url(&path, text)?;
        if url.path_and_query().contains('?') {
            return fail(path, "must have no query");
        }
        Ok(url)
    }

    fn warn(&self, path: &str, problem: &str) {
        self.warnings.borrow_mut().push(format!("{path}: {problem}"));
    }
}

/// What can only be seen with the whole document in view: duplicates, and entries nothing uses.
fn check_references(
    raw: &raw::Document,
    resources: &[Rc<Resource>],
    server: Option<&AuthorizationServer>,
) -> Result<()> {
    if resources.is_empty() {
        return fail("resources", "needs at least one entry");
    }
    let mut urls = BTreeSet::new();
    for (index, resource) in resources.iter().enumerate() {
        if !urls.insert(resource.url.as_str()) {
            return fail(format!("resources[{index}]"), "the same URL again");
        }
    }
    let accepts = resources.iter().any(|resource| matches!(resource.kind, Kind::Accept(_)));
    match (accepts, server) {
        (true, None) => return fail("authorization_server", "is needed for `accept`"),
        (false, Some(_)) => return fail("authorization_server", "no resource has `accept`"),
        _ => {}
    }
    let mut issuers = BTreeSet::new();
    for (name, provider) in &raw.identity_providers {
        let path = format!("identity_providers.{name}");
        if !issuers.insert(provider.issuer.as_str()) {
            return fail(format!("{path}.issuer"), "the same issuer again");
        }
        if server.is_some_and(|server| server.issuer.as_str() == provider.issuer) {
            // ID-JAG §9.3: an ID-JAG of our own making is never accepted.
            return fail(format!("{path}.issuer"), "is our own `authorization_server.issuer`");
        }
        let upgrades = raw.resources.iter().filter_map(|resource| resource.upgrade.as_ref());
        let used_by_upgrade = upgrades.clone().any(|upgrade| upgrade.identity_provider == *name);
        let clients = raw.authorization_server.iter().flat_map(|server| server.clients.values());
        let mut used_by_client = clients.flat_map(|client| &client.identity_providers);
        if !used_by_upgrade && !used_by_client.any(|used| used == name) {
            return fail(path, "nothing uses this identity provider");
        }
    }
    Ok(())
}

fn named<'a>(
    path: &str,
    name: &str,
    providers: &'a BTreeMap<String, Rc<IdentityProvider>>,
) -> Result<&'a Rc<IdentityProvider>> {
    match providers.get(name) {
        Some(provider) => Ok(provider),
        None => fail(path, format!("`{name}` is not in `identity_providers`")),
    }
}

fn same_caller(a: &Caller, b: &Caller) -> bool {
    match (a, b) {
        (Caller::IdToken, Caller::IdToken) => true,
        (
            Caller::ApiKey { header, sha256, .. },
            Caller::ApiKey { header: other, sha256: other_sha256, .. },
        ) => header == other && sha256 == other_sha256,
        _ => false,
    }
}

fn algorithms(path: &str, names: &[String]) -> Result<Vec<Algorithm>> {
    let mut algorithms = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match Algorithm::named(name) {
            Some(algorithm) => algorithms.push(algorithm),
            None => return fail(format!("{path}[{index}]"), "no asymmetric algorithm we offer"),
        }
    }
    if algorithms.is_empty() {
        return fail(path, "needs at least one algorithm");
    }
    Ok(algorithms)
}

fn scopes(path: &str, raw: &[String]) -> Result<Vec<String>> {
    for (index, scope) in raw.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if scope_tokens(scope).is_none_or(|tokens| tokens.len() != 1) {
            return fail(path, "must be one scope token (RFC 6749 section 3.3)");
        }
        if raw.iter().take(index).any(|other| other == scope) {
            return fail(path, "named twice");
        }
    }
    Ok(raw.to_vec())
}

/// A field name in lower case, as Envoy gives it; none that steers the proxy or is our own.
fn header_name(path: &str, name: &str) -> Result<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let name = name.to_ascii_lowercase();
    let steering = ["host", "content-length", "transfer-encoding", "connection", "content-type"];
    if name.is_empty() || !name.bytes().all(token) || steering.contains(&name.as_str()) {
        return fail(path, "is not the name of a header that can carry a credential");
    }
    if name.starts_with(names::OWN_HEADER_PREFIX) || name.starts_with("x-envoy-") {
        return fail(path, "is a name that the proxy keeps for itself");
    }
    Ok(name)
}

fn cluster(path: &str, name: &str) -> Result<String> {
    not_empty(&format!("{path}.cluster"), name)?;
    Ok(name.to_owned())
}

fn not_empty(path: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return fail(path, "must not be empty");
    }
    Ok(())
}

fn within(path: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if !(least..=most).contains(&value) {
        return fail(path, format!("must be {least} to {most} seconds"));
    }
    Ok(())
}

fn fail<T>(path: impl Into<String>, problem: impl Into<String>) -> Result<T> {
    Err(ConfigError { path: path.into(), problem: problem.into() })
}
