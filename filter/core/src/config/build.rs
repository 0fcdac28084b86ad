//! From the document as written to the configuration as used: every check there is, at load.

use super::fields::{Result, algorithms, authentication, cluster, fail, identifier, within};
use super::read::read;
use super::{Accept, Config, IdentityProvider, Kind, Party, Replay, Resource};
use super::{document, raw, references, revocation};
use crate::engine::Engine;
use crate::jws::Algorithm;
use crate::replay::partition;
use crate::routes::Index;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::subject::{SAML_MEMBERS, SamlRules, SubjectRules};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const DEFAULT_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::PS256];

pub(super) fn config(
    document: &[u8],
    env: &dyn Fn(&str) -> Option<String>,
    probe: &dyn Fn() -> Engine,
) -> Result<Config> {
    let Some(document) = document::parse(document) else {
        return fail("(document)", "is neither one JSON object nor a Struct");
    };
    let raw: raw::Document = read(&serde_json::Value::Object(document))?;
    let reading = Reading {
        env,
        allow_http: raw.allow_insecure_http,
        engine: if raw.native_signatures.unwrap_or(true) { probe() } else { Engine::portable() },
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
    let mut guards = Vec::new();
    for (index, guard) in raw.guards.iter().enumerate() {
        guards.push(Rc::new(reading.guard(&format!("guards[{index}]"), guard, &providers)?));
    }
    let refresh_token_store = match &raw.refresh_token_store {
        None => None,
        Some(store) => Some(Rc::new(reading.redis("refresh_token_store", store)?)),
    };
    let idle = references::check(&raw, &resources, authorization_server.as_ref(), &guards)?;
    reading.warnings.borrow_mut().extend(idle);

    if let Some(secret) = &raw.sealing_secret {
        reading.secret("sealing_secret", secret)?;
    }
    let secrets = reading.secrets.into_inner();
    let upgrades = resources.iter().any(|resource| matches!(resource.kind, Kind::Upgrade(_)));
    if secrets.is_empty() && upgrades {
        // Whoever knows the rest of the configuration could open what workers share.
        let problem = "is needed: nothing else here is secret, and tokens are sealed with what is";
        return fail("sealing_secret", problem);
    }
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.expose().as_bytes()).collect();
    Ok(Config {
        routes: Index::new(authorization_server.as_ref(), &resources, &guards),
        accepted: accepted(&resources),
        authorization_server,
        resources,
        guards,
        refresh_token_store,
        warnings: reading.warnings.into_inner(),
        seal: Seal::new(&secrets),
        engine: reading.engine,
    })
}

fn accepted(resources: &[Rc<Resource>]) -> BTreeMap<String, Rc<Accept>> {
    let mut accepted = BTreeMap::new();
    for resource in resources {
        if let Kind::Accept(accept) = &resource.kind {
            accepted.insert(resource.resource.as_str().to_owned(), accept.clone());
        }
    }
    accepted
}

/// The reading of one document.
pub(super) struct Reading<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) allow_http: bool,
    pub(super) engine: Engine,
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
        authentication(path, &raw.required_acr, raw.max_auth_age)?;
        let client = match &raw.client {
            None => None,
            Some(client) => Some(Rc::new(self.client(&format!("{path}.client"), client)?)),
        };
        Ok(IdentityProvider {
            party: self.party(
                path,
                (&raw.issuer, &raw.cluster),
                &raw.token_endpoint,
                &raw.jwks_uri,
            )?,
            algorithms,
            max_id_jag_lifetime,
            required_acr: raw.required_acr.clone(),
            max_auth_age: raw.max_auth_age,
            subjects: subjects(path, raw)?,
            partition: partition(&raw.issuer),
            replay: match raw.replay {
                raw::Replay::SingleUse => Replay::SingleUse,
                raw::Replay::Bounded(more @ 1..=16) => Replay::Bounded(more),
                raw::Replay::Bounded(_) => {
                    return fail(format!("{path}.replay.bounded"), "must be 1 to 16");
                }
                raw::Replay::Off => {
                    let path = format!("{path}.replay");
                    self.warn(&path, "whoever gets hold of an ID-JAG may redeem it until it ends");
                    Replay::Off
                }
            },
            revocation: revocation::of_provider(path, raw.revocation.as_ref())?,
            client,
            exchange: self.exchange_rules(path, raw.token_exchange.as_ref())?,
        })
    }

    /// An authorization server at `path`: its issuer identifier and cluster, and what is not to be discovered.
    pub(super) fn party(
        &self,
        path: &str,
        (issuer, name): (&str, &str),
        token_endpoint: &Option<String>,
        jwks_uri: &Option<String>,
    ) -> Result<Rc<Party>> {
        Ok(Rc::new(Party::new(
            path,
            self.issuer(path, issuer)?,
            cluster(path, name)?,
            self.optional_url(path, "token_endpoint", token_endpoint)?,
            self.optional_url(path, "jwks_uri", jwks_uri)?,
            self.allow_http,
        )))
    }

    pub(super) fn warn(&self, path: &str, problem: &str) {
        self.warnings.borrow_mut().push(format!("{path}: {problem}"));
    }
}

fn subjects(path: &str, raw: &raw::IdentityProvider) -> Result<SubjectRules> {
    let raw::Subjects { aud_sub, aud_tenants, saml, email_domains, groups } = &raw.subjects;
    for (field, names) in [("tenants", &raw.tenants), ("subjects.aud_tenants", aud_tenants)] {
        for (index, name) in names.iter().enumerate() {
            identifier(&format!("{path}.{field}[{index}]"), name)?;
        }
    }
    let path = format!("{path}.subjects");
    for (index, domain) in email_domains.iter().enumerate() {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        if domain.is_empty() || !domain.bytes().all(plain) {
            return fail(
                format!("{path}.email_domains[{index}]"),
                "must be a domain in lower case",
            );
        }
    }
    let saml = match saml {
        None => None,
        Some(raw) => {
            let path = format!("{path}.saml");
            if raw.issuers.is_empty() {
                return fail(format!("{path}.issuers"), "needs at least one SAML issuer");
            }
            let identified_by = match &raw.identified_by {
                None => SAML_MEMBERS.map(str::to_owned).to_vec(),
                Some(members) => members.clone(),
            };
            let unknown = |member: &&String| !SAML_MEMBERS.contains(&member.as_str());
            if identified_by.iter().any(|member| unknown(&member)) {
                let problem = "must be optional members of a saml-nameid (ID-JAG section 3.2.2)";
                return fail(format!("{path}.identified_by"), problem);
            }
            Some(SamlRules { issuers: raw.issuers.clone(), identified_by })
        }
    };
    Ok(SubjectRules {
        tenants: raw.tenants.clone(),
        aud_sub: *aud_sub,
        aud_tenants: aud_tenants.clone(),
        saml,
        email_domains: email_domains.clone(),
        groups: *groups,
    })
}
