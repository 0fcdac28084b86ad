//! The configuration as the request path uses it: checked, resolved, nothing left to doubt.

mod accept;
mod authorization_details;
mod build;
mod callers;
mod client_documents;
mod credentials;
mod document;
mod endpoints;
mod fields;
mod guard;
mod mcp;
mod party;
mod raw;
mod raw_upgrade;
mod read;
mod references;
mod resources;
mod revocation;
mod server;
mod upgrade;
mod upgrades;

pub use accept::*;
pub use endpoints::*;
pub use mcp::Mcp;
pub use party::Party;
pub use revocation::{ProviderRevocation, Revocation, SecurityEvents};
pub use upgrade::*;

use crate::engine::Engine;
use crate::http::Url;
use crate::job::Job;
use crate::jws::Algorithm;
use crate::redis::Redis;
use crate::replay_store::ReplayStore;
use crate::routes::Index;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::signing::SigningKey;
use crate::subject::SubjectRules;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Everything one plugin configuration says.
pub struct Config {
    /// Jagway as Resource AS, if there is a resource to accept for.
    pub authorization_server: Option<AuthorizationServer>,
    /// The resources, each under its own URL.
    pub resources: Vec<Rc<Resource>>,
    /// The token endpoints that are guarded.
    pub guards: Vec<Rc<Guard>>,
    /// Where all of these are.
    pub routes: Index,
    /// The resources accepted for, by resource identifier.
    pub accepted: BTreeMap<String, Rc<Accept>>,
    /// Where refresh tokens that are renewed are kept for the whole fleet.
    pub refresh_token_store: Option<Rc<Redis>>,
    /// What to tell the operator although it is allowed.
    pub warnings: Vec<String>,
    /// Seals what workers share.
    pub seal: Seal,
    /// Verifies and signs.
    pub engine: Engine,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The field, as a path: `resources[0].upgrade.scopes`.
    pub path: String,
    /// What is wrong with it. Never has a secret in it.
    pub problem: String,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl Config {
    /// Reads and checks a configuration. `env` looks up a variable; secrets come from there. Signatures
    /// are left to portable code.
    ///
    /// Does *not* check that the Envoy clusters exist: Envoy may load them later.
    pub fn parse(
        document: &[u8],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        build::config(document, env, &Engine::portable)
    }

    /// As [`Config::parse`], with the engine that `probe` finds, unless the configuration says
    /// `native_signatures: false`.
    pub fn parse_with(
        document: &[u8],
        env: &dyn Fn(&str) -> Option<String>,
        probe: &dyn Fn() -> Engine,
    ) -> Result<Self, ConfigError> {
        build::config(document, env, probe)
    }

    /// A line for the log: who verifies and signs.
    pub fn about_signatures(&self) -> String {
        let own = self.authorization_server.as_ref().map(|server| server.signing_key.algorithm());
        let hint = match self.engine.signs() && own == Some("EdDSA") {
            true => "; our own key is EdDSA, and ES256 would be faster here",
            false => "",
        };
        format!("signatures: {}{hint}", self.engine)
    }
}

impl Config {
    /// Every Envoy cluster that requests may make Jagway call, each with its path in the
    /// configuration.
    pub fn clusters(&self) -> Vec<(String, String)> {
        let trusted =
            self.endpoints().flat_map(|endpoint| endpoint.rules.identity_providers.values());
        let mut parties: Vec<&Party> = trusted.map(|provider| &*provider.party).collect();
        for resource in &self.resources {
            match &resource.kind {
                Kind::Upgrade(upgrade) => {
                    parties.push(&upgrade.identity_provider.party);
                    parties.extend(upgrade.workload_issuers().map(|issuer| &*issuer.party));
                    parties.extend(upgrade.servers.iter().map(|server| &*server.party));
                }
                Kind::Accept(accept) => {
                    parties.extend(accept.credentials.iter().filter_map(|mapped| {
                        match &mapped.credential {
                            Credential::Token(backend) => Some(&*backend.party),
                            _ => None,
                        }
                    }));
                }
            }
        }
        let documents = self.endpoints().filter_map(|endpoint| endpoint.client_documents.as_ref());
        parties.extend(documents.flat_map(|all| all.hosts.values()).map(|host| &*host.party));
        let named = |party: &Party| (format!("{}.cluster", party.path), party.cluster.clone());
        let mut clusters: Vec<_> = parties.into_iter().map(named).collect();
        let discoveries = self.upgrades().filter_map(|upgrade| upgrade.discovery.as_ref());
        clusters.extend(
            discoveries.map(|found| (format!("{}.cluster", found.path), found.cluster.clone())),
        );
        let stores = self.endpoints().filter_map(|endpoint| endpoint.rules.replay_store.as_ref());
        let stores = stores.chain(&self.refresh_token_store);
        clusters.extend(stores.map(|store| (store.path.clone(), store.cluster.clone())));
        clusters
    }

    /// Whether anybody is known by the certificate of its connection.
    pub fn reads_certificates(&self) -> bool {
        let by_certificate = |caller: &Caller| matches!(caller.presents, Presents::Certificate(_));
        self.authorization_server.as_ref().is_some_and(|server| server.reads_certificates)
            || self.upgrades().any(|upgrade| upgrade.callers.iter().any(by_certificate))
    }

    /// Whether requests may have to be sent once more.
    pub fn sends_again(&self) -> bool {
        self.upgrades().next().is_some()
    }

    /// The documents of other servers that requests will need, each once.
    pub fn documents(&self) -> Vec<Job> {
        let trusted =
            self.endpoints().flat_map(|endpoint| endpoint.rules.identity_providers.values());
        let mut jobs: Vec<Job> =
            trusted.map(|provider| Job::Keys(provider.party.clone())).collect();
        for upgrade in self.upgrades() {
            let provider = &upgrade.identity_provider.party;
            jobs.extend(upgrade.callers.iter().filter_map(|caller| match &caller.presents {
                Presents::IdToken | Presents::AccessToken { .. } => {
                    Some(Job::Keys(provider.clone()))
                }
                Presents::Workload(workload) => Some(Job::Keys(workload.issuer.party.clone())),
                _ => None,
            }));
            // Which of several servers it will be is found with the first request.
            let servers = upgrade.servers.iter().filter(|_| upgrade.discovery.is_none());
            let parties = servers.map(|server| &server.party).chain([provider]);
            let discovered = parties.filter(|party| party.token_endpoint.is_none());
            jobs.extend(discovered.map(|party| Job::Metadata(party.clone())));
        }
        let mut seen = BTreeSet::new();
        jobs.retain(|job| seen.insert(job.key()));
        jobs
    }

    /// The token endpoints: ours and those that are guarded.
    fn endpoints(&self) -> impl Iterator<Item = &TokenEndpoint> {
        let own = self.authorization_server.iter().map(|server| &server.endpoint);
        own.chain(self.guards.iter().map(|guard| &guard.endpoint))
    }

    fn upgrades(&self) -> impl Iterator<Item = &Rc<Upgrade>> {
        self.resources.iter().filter_map(|resource| match &resource.kind {
            Kind::Upgrade(upgrade) => Some(upgrade),
            Kind::Accept(_) => None,
        })
    }
}

/// A trusted issuer of ID-JAGs and ID Tokens.
#[derive(Debug)]
pub struct IdentityProvider {
    /// How to reach it.
    pub party: Rc<Party>,
    /// Signature algorithms accepted from it.
    pub algorithms: Vec<Algorithm>,
    /// Longest life of an ID-JAG of its, in seconds.
    pub max_id_jag_lifetime: u64,
    /// Authentication context classes of which its ID-JAGs must have one; empty: any.
    pub required_acr: Vec<String>,
    /// Longest time since the user authenticated there, in seconds.
    pub max_auth_age: Option<u64>,
    /// What it is believed about its users.
    pub subjects: SubjectRules,
    /// How often an ID-JAG of its may be redeemed.
    pub replay: Replay,
    /// The part of what is spent that is its own ([`partition`](crate::replay::partition)).
    pub partition: u32,
    /// How it may have its users' tokens revoked.
    pub revocation: ProviderRevocation,
    /// Our registration there.
    pub client: Option<Rc<Client>>,
    /// What it wants of token exchanges.
    pub exchange: ExchangeRules,
}

/// How often an ID-JAG may be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Once.
    SingleUse,
    /// Once, and so many times more.
    Bounded(u32),
    /// Until it expires.
    Off,
}

/// Which ID-JAGs are taken, wherever they are.
pub struct GrantRules {
    /// Issuer identifier of the Resource AS they are for, and other exact strings that count as it.
    pub audiences: Vec<String>,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
    /// Trusted issuers, by issuer identifier: those that may speak for at least one client.
    pub identity_providers: BTreeMap<String, Rc<IdentityProvider>>,
    /// What any of them signs with.
    pub algorithms: Vec<Algorithm>,
    /// Where single use holds for the whole fleet, not only for this process.
    pub replay_store: Option<Rc<ReplayStore>>,
}

/// The identity providers that may speak for a client, by issuer identifier, and the tenants of each that
/// may; empty: all that it may speak of.
pub type Trusts = BTreeMap<String, Vec<String>>;

/// What any of the `providers` signs with.
fn algorithms_of<'a>(providers: impl Iterator<Item = &'a Rc<IdentityProvider>>) -> Vec<Algorithm> {
    let mut algorithms = Vec::new();
    for algorithm in providers.flat_map(|provider| &provider.algorithms) {
        if !algorithms.contains(algorithm) {
            algorithms.push(*algorithm);
        }
    }
    algorithms
}

/// Our registration at an authorization server.
#[derive(Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// How we authenticate.
    pub credential: ClientCredential,
}

/// How we authenticate at a token endpoint.
#[derive(Debug)]
pub enum ClientCredential {
    /// `client_secret_basic`.
    Secret(Secret),
    /// `client_secret_post`.
    SecretInBody(Secret),
    /// `tls_client_auth`: the Envoy cluster shows the certificate.
    Certificate,
    /// `private_key_jwt`.
    PrivateKey {
        /// The key registered there.
        key: Box<SigningKey>,
        /// Whom the assertion is addressed to.
        audience: AssertionAudience,
    },
}

/// One MCP server.
pub struct Resource {
    /// Its resource identifier (RFC 9728).
    pub resource: Url,
    /// Where clients reach it through this proxy.
    pub url: Url,
    /// What Jagway does for it.
    pub kind: Kind,
}

/// Which gap Jagway closes for a resource.
pub enum Kind {
    /// Its authorization server wants ID-JAGs; the callers have none.
    Upgrade(Rc<Upgrade>),
    /// It knows nothing of EMA.
    Accept(Rc<Accept>),
}
