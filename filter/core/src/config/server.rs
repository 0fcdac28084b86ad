//! Jagway as Resource AS: its keys, its clients, and what it takes.

use super::build::Reading;
use super::fields::{Result, cluster, fail, identifier, named, within};
use super::{
    AuthorizationServer, Dpop, GrantRules, IdentityProvider, RegisteredClient,
    RegisteredCredential, TokenEndpoint, Trusts, algorithms_of, raw,
};
use crate::client_certificate::RegisteredCertificate;
use crate::digest::from_hex;
use crate::dpop::Nonces;
use crate::http::Url;
use crate::jwk::KeySet;
use crate::replay_store::{Front, ReplayStore};
use crate::session::Sessions;
use crate::signing::SigningKey;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How many verified access tokens a worker remembers.
const VERDICT_CACHE: u64 = 10_000;

impl Reading<'_> {
    pub(super) fn authorization_server(
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
        let sessions = keys.iter().map(|key| key.derive("mcp-session")).collect();
        let verifying = KeySet::parse(published_keys.to_string().as_bytes()).unwrap_or_default();
        if verifying.len() != keys.len() {
            return fail(format!("{path}.signing_keys"), "are more than one key set may have");
        }
        let nonce_keys = keys.iter().map(|key| key.derive("dpop-nonce")).collect();
        let Some(signing_key) = keys.into_iter().next() else {
            return fail(format!("{path}.signing_keys"), "needs at least one key");
        };

        let access_token_lifetime = raw.access_token_lifetime.unwrap_or(300);
        within(&format!("{path}.access_token_lifetime"), access_token_lifetime, 1, 3600)?;
        let most = raw.verdict_cache.unwrap_or(VERDICT_CACHE);
        within(&format!("{path}.verdict_cache"), most, 0, 1_000_000)?;
        let skew = raw.clock_skew.unwrap_or(60);
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
            clients.insert(
                id.clone(),
                Rc::new(self.registered_client(&path, client, providers, false)?),
            );
        }
        let client_documents = match &raw.client_id_metadata_documents {
            None => None,
            Some(documents) => Some(self.client_documents(documents, providers)?),
        };
        if clients.is_empty() && client_documents.is_none() {
            return fail(format!("{path}.clients"), "no client could ever get a token");
        }
        let hosts = client_documents.iter().flat_map(|documents| documents.hosts.values());
        let trusts = clients.values().map(|client| &*client.identity_providers);
        let trusts = trusts.chain(hosts.map(|host| &*host.identity_providers));
        let identity_providers = used(trusts, providers);
        let store = raw.replay_store.as_ref();
        let rules = self.grant_rules(
            path,
            &raw.accepted_audiences,
            store,
            &issuer,
            skew,
            identity_providers,
        )?;
        if raw.access_denied_status.is_some_and(|status| !matches!(status, 400 | 403)) {
            return fail(format!("{path}.access_denied_status"), "must be 400 or 403");
        }
        for (id, client) in &raw.clients {
            let path = format!("{path}.clients.{id}");
            let chain = raw.mutual_tls.as_ref().map(|tls| &tls.chain);
            if client.tls_client_auth.is_some() && chain != Some(&raw::Chain::Verified) {
                // RFC 8705 §2.1: a name says something only where somebody vouches for it.
                let problem = "needs `authorization_server.mutual_tls: { chain: verified }`";
                return fail(format!("{path}.tls_client_auth"), problem);
            }
            if client.self_signed_tls_client_auth.is_some() && chain.is_none() {
                let problem = "needs `authorization_server.mutual_tls`";
                return fail(format!("{path}.self_signed_tls_client_auth"), problem);
            }
        }
        let dpop = match &raw.dpop {
            None => Dpop::default(),
            Some(dpop) => Dpop {
                advertised: true,
                nonces: dpop.nonces.then(|| Nonces::new(nonce_keys)),
                jwt_dpop_grant: dpop.jwt_dpop_grant,
            },
        };
        let revocation = raw.revocation.as_ref();
        let revocation = self.revocation(revocation, &issuer, &rules, access_token_lifetime)?;
        let base = issuer.path().trim_end_matches('/');
        Ok(AuthorizationServer {
            endpoint: TokenEndpoint {
                issuer: issuer.clone(),
                url: issuer.with_path(&format!("{base}/token")),
                rules,
                accept_token_endpoint_audience: raw.accept_token_endpoint_audience.unwrap_or(true),
                clients,
                client_documents,
            },
            jwks_uri: issuer.with_path(&format!("{base}/.well-known/jagway/jwks.json")),
            issuer,
            signing_key,
            sessions: Sessions::new(sessions),
            published_keys,
            keys: verifying.with_engine(&self.engine),
            access_token_lifetime,
            verdict_cache: raw
                .verdict_cache
                .unwrap_or(VERDICT_CACHE)
                .try_into()
                .unwrap_or_default(),
            revocation,
            access_denied_status: raw.access_denied_status,
            dpop,
            reads_certificates: raw.mutual_tls.is_some(),
            compat_authorization_endpoint: raw.compat_authorization_endpoint,
            per_source_per_minute: limits.and_then(|limits| limits.per_source_per_minute),
            per_client_per_minute: limits.and_then(|limits| limits.per_client_per_minute),
            strict_authorization_details: raw.strict_authorization_details,
        })
    }

    fn registered_credential(
        &self,
        path: &str,
        raw: &raw::RegisteredClient,
    ) -> Result<RegisteredCredential> {
        let raw::RegisteredClient { secret_sha256, private_key_jwt, tls_client_auth, .. } = raw;
        let self_signed = &raw.self_signed_tls_client_auth;
        match (secret_sha256, private_key_jwt, tls_client_auth, self_signed) {
            (Some(digest), None, None, None) => {
                let digest = self.digest(&format!("{path}.secret_sha256"), digest)?;
                Ok(RegisteredCredential::SecretSha256(digest))
            }
            (None, None, Some(name), None) => {
                let (name, certificate) = match name {
                    raw::TlsClientAuth::SubjectDn(name) => {
                        (name, RegisteredCertificate::SubjectDn(name.clone()))
                    }
                    raw::TlsClientAuth::SanUri(name) => {
                        (name, RegisteredCertificate::SanUri(name.clone()))
                    }
                    raw::TlsClientAuth::SanDns(name) => {
                        (name, RegisteredCertificate::SanDns(name.clone()))
                    }
                };
                identifier(&format!("{path}.tls_client_auth"), name)?;
                Ok(RegisteredCredential::Certificate(certificate))
            }
            (None, None, None, Some(registered)) => {
                let path = format!("{path}.self_signed_tls_client_auth.certificate_sha256");
                let digests = registered.certificate_sha256.iter().map(|text| from_hex(text));
                match digests.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty()) {
                    Some(all) => {
                        Ok(RegisteredCredential::Certificate(RegisteredCertificate::Sha256(all)))
                    }
                    None => fail(path, "must be SHA-256 digests, 64 hexadecimal digits each"),
                }
            }
            (None, Some(registered), None, None) => {
                let path = format!("{path}.private_key_jwt.jwks");
                let written = registered.jwks.get("keys").and_then(|keys| keys.as_array());
                let jwks = serde_json::Value::Object(registered.jwks.clone());
                let keys = KeySet::parse(jwks.to_string().as_bytes());
                match keys.filter(|keys| !keys.is_empty()) {
                    Some(keys) if written.is_some_and(|all| all.len() == keys.len()) => {
                        Ok(RegisteredCredential::Keys(keys.with_engine(&self.engine)))
                    }
                    _ => fail(path, "must be a key set of public keys, all of which can be used"),
                }
            }
            _ => fail(
                path,
                "needs exactly one of `secret_sha256`, `private_key_jwt`, `tls_client_auth` and \
                 `self_signed_tls_client_auth`",
            ),
        }
    }

    pub(super) fn registered_client(
        &self,
        path: &str,
        raw: &raw::RegisteredClient,
        providers: &BTreeMap<String, Rc<IdentityProvider>>,
        guarded: bool,
    ) -> Result<RegisteredClient> {
        if raw.cluster.is_some() {
            return fail(format!("{path}.cluster"), "a registered client is never called");
        }
        let identity_providers = trusts(path, &raw.identity_providers, providers)?;
        Ok(RegisteredClient {
            credential: match guarded && raw.proves_nothing() {
                true => RegisteredCredential::Elsewhere,
                false => self.registered_credential(path, raw)?,
            },
            identity_providers: Rc::new(identity_providers),
            resources: resources(&raw.resources),
            dpop_bound: raw.dpop_bound_access_tokens,
        })
    }

    pub(super) fn grant_rules(
        &self,
        path: &str,
        accepted_audiences: &[String],
        replay_store: Option<&raw::ReplayStore>,
        issuer: &Url,
        skew: u64,
        identity_providers: BTreeMap<String, Rc<IdentityProvider>>,
    ) -> Result<GrantRules> {
        within(&format!("{path}.clock_skew"), skew, 0, 300)?;
        let mut audiences = vec![issuer.as_str().to_owned()];
        for (index, audience) in accepted_audiences.iter().enumerate() {
            identifier(&format!("{path}.accepted_audiences[{index}]"), audience)?;
            audiences.push(audience.clone());
        }
        let replay_store = match replay_store {
            None => None,
            Some(store) => Some(Rc::new(self.redis(&format!("{path}.replay_store"), store)?)),
        };
        let algorithms = algorithms_of(identity_providers.values());
        Ok(GrantRules { audiences, skew, identity_providers, algorithms, replay_store })
    }

    /// A Redis that is reached over HTTP.
    pub(super) fn redis(&self, path: &str, raw: &raw::ReplayStore) -> Result<ReplayStore> {
        let timeout = raw.timeout_ms.unwrap_or(500);
        if !(10..=2000).contains(&timeout) {
            return fail(format!("{path}.timeout_ms"), "must be 10 to 2000 milliseconds");
        }
        let front = match (&raw.webdis, &raw.rest) {
            (Some(webdis), None) => {
                let path = format!("{path}.webdis.authorization");
                let value = webdis.authorization.as_ref();
                Front::Webdis(value.map(|value| self.header_secret(&path, value)).transpose()?)
            }
            (None, Some(rest)) => {
                let path = format!("{path}.rest");
                let url = self.url(&format!("{path}.url"), &rest.url)?;
                Front::Rest(url, self.header_secret(&format!("{path}.token"), &rest.token)?)
            }
            _ => return fail(path, "needs exactly one of `webdis` and `rest`"),
        };
        let cluster = cluster(path, &raw.cluster)?;
        Ok(ReplayStore { path: format!("{path}.cluster"), cluster, timeout, front })
    }
}

/// Those of the `providers`, by issuer identifier, that may speak for anybody by `trusts`.
pub(super) fn used<'a>(
    trusts: impl Iterator<Item = &'a Trusts>,
    providers: &BTreeMap<String, Rc<IdentityProvider>>,
) -> BTreeMap<String, Rc<IdentityProvider>> {
    let (mut all, mut used) = (BTreeMap::new(), BTreeMap::new());
    for provider in providers.values() {
        all.insert(provider.party.issuer.as_str().to_owned(), provider.clone());
    }
    for issuer in trusts.flat_map(BTreeMap::keys) {
        if let Some(provider) = all.get(issuer) {
            used.insert(issuer.clone(), provider.clone());
        }
    }
    used
}

/// The resources in a list, to be found.
pub(super) fn resources(list: &[String]) -> Rc<BTreeSet<String>> {
    let mut resources = BTreeSet::new();
    for resource in list {
        resources.insert(resource.clone());
    }
    Rc::new(resources)
}

/// Who may speak for the client or clients at `path`.
pub(super) fn trusts(
    path: &str,
    raw: &[raw::Trust],
    providers: &BTreeMap<String, Rc<IdentityProvider>>,
) -> Result<Trusts> {
    let field = format!("{path}.identity_providers");
    let mut chosen = Trusts::new();
    let mut names = BTreeSet::new();
    for (index, trust) in raw.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let provider = named(&field, trust.name(), providers)?;
        if !names.insert(trust.name()) {
            return fail(field, "named twice");
        }
        let tenants = match trust {
            raw::Trust::Whole(_) => Vec::new(),
            raw::Trust::Tenants(trust) => {
                let known = &provider.subjects.tenants;
                let unknown = trust.tenants.iter().find(|tenant| !known.contains(tenant));
                if trust.tenants.is_empty() || unknown.is_some() {
                    let problem = "must be tenants that the identity provider may speak of";
                    return fail(format!("{field}.tenants"), problem);
                }
                trust.tenants.clone()
            }
        };
        chosen.insert(provider.party.issuer.as_str().to_owned(), tenants);
    }
    if chosen.is_empty() {
        return fail(field, "no identity provider could ever speak for this client");
    }
    Ok(chosen)
}
