//! The configuration as the request path uses it: checked, resolved, nothing left to doubt.

mod authorization_details;
mod build;
mod client_documents;
mod credentials;
mod document;
mod fields;
mod guard;
mod mcp;
mod raw;
mod references;
mod resources;
mod revocation;
mod server;

pub use mcp::Mcp;
pub use raw::AssertionAudience;
pub use revocation::{ProviderRevocation, Revocation, SecurityEvents};

use crate::authorization_details::Types;
use crate::client_certificate::RegisteredCertificate;
use crate::digest::{Key, of_fields};
use crate::dpop::Nonces;
use crate::http::Url;
use crate::job::Job;
use crate::jwk::KeySet;
use crate::jws::Algorithm;
use crate::replay_store::ReplayStore;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::session::Sessions;
use crate::signing::SigningKey;
use crate::subject::SubjectRules;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Everything one plugin configuration says.
pub struct Config {
    /// Jagway as Resource AS, if there is a resource to accept for.
    pub authorization_server: Option<AuthorizationServer>,
    /// The resources, each under its own URL.
    pub resources: Vec<Rc<Resource>>,
    /// The token endpoints that are guarded.
    pub guards: Vec<Rc<Guard>>,
    /// What to tell the operator although it is allowed.
    pub warnings: Vec<String>,
    /// Seals what workers share.
    pub seal: Seal,
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
    /// Reads and checks a configuration. `env` looks up a variable; secrets come from there.
    ///
    /// Does *not* check that the Envoy clusters exist: Envoy may load them later.
    pub fn parse(
        document: &[u8],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        build::config(document, env)
    }
}

impl Config {
    /// Every Envoy cluster that requests may make Jagway call, each with its path in the
    /// configuration.
    pub fn clusters(&self) -> Vec<(String, String)> {
        let trusted = self.endpoints().flat_map(|endpoint| &endpoint.rules.identity_providers);
        let mut parties: Vec<&Party> = trusted.map(|provider| &*provider.party).collect();
        for resource in &self.resources {
            match &resource.kind {
                Kind::Upgrade(upgrade) => {
                    parties.extend([&*upgrade.identity_provider.party, &*upgrade.resource_as]);
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
        parties.extend(documents.flat_map(|all| &all.hosts).map(|host| &*host.party));
        let named = |party: &Party| (format!("{}.cluster", party.path), party.cluster.clone());
        let mut clusters: Vec<_> = parties.into_iter().map(named).collect();
        let stores = self.endpoints().filter_map(|endpoint| endpoint.rules.replay_store.as_ref());
        clusters.extend(stores.map(|store| (store.path.clone(), store.cluster.clone())));
        clusters
    }

    /// The documents of other servers that requests will need.
    pub fn documents(&self) -> Vec<Job> {
        let trusted = self.endpoints().flat_map(|endpoint| &endpoint.rules.identity_providers);
        let mut jobs: Vec<Job> =
            trusted.map(|provider| Job::Keys(provider.party.clone())).collect();
        for upgrade in self.upgrades() {
            let provider = &upgrade.identity_provider.party;
            if upgrade.callers.iter().any(|caller| matches!(caller, Caller::IdToken)) {
                jobs.push(Job::Keys(provider.clone()));
            }
            for party in [provider, &upgrade.resource_as] {
                if party.token_endpoint.is_none() {
                    jobs.push(Job::Metadata(party.clone()));
                }
            }
        }
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

/// An authorization server that Jagway calls: an identity provider or a Resource AS.
#[derive(Debug)]
pub struct Party {
    /// Where it stands in the configuration, for the log.
    pub path: String,
    /// Its issuer identifier.
    pub issuer: Url,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    /// Its token endpoint, if not to be discovered.
    pub token_endpoint: Option<Url>,
    /// Its key set, if not to be discovered.
    pub jwks_uri: Option<Url>,
    /// Whether endpoints may be plain `http`.
    pub allow_http: bool,
}

impl Party {
    /// The key under which `kind` of document of this party is shared.
    pub fn document_key(&self, kind: &str) -> Key {
        let text = |url: &Option<Url>| url.as_ref().map_or("", Url::as_str).to_owned();
        of_fields(&[
            kind.as_bytes(),
            self.issuer.as_str().as_bytes(),
            self.cluster.as_bytes(),
            text(&self.jwks_uri).as_bytes(),
            &[u8::from(self.allow_http)],
        ])
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
    /// How it may have its users' tokens revoked.
    pub revocation: ProviderRevocation,
    /// Our registration there.
    pub client: Option<Rc<Client>>,
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
    /// Trusted issuers: those that may speak for at least one client.
    pub identity_providers: Vec<Rc<IdentityProvider>>,
    /// Where single use holds for the whole fleet, not only for this process.
    pub replay_store: Option<Rc<ReplayStore>>,
}

/// An identity provider that may speak for a client.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The identity provider.
    pub provider: Rc<IdentityProvider>,
    /// The tenants of it that may; empty: all that it may speak of.
    pub tenants: Vec<String>,
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
    /// `private_key_jwt`.
    PrivateKey {
        /// The key registered there.
        key: Box<SigningKey>,
        /// Whom the assertion is addressed to.
        audience: AssertionAudience,
    },
}

/// Jagway as Resource AS.
pub struct AuthorizationServer {
    /// Our issuer identifier.
    pub issuer: Url,
    /// The token endpoint.
    pub endpoint: TokenEndpoint,
    /// The key set's URL.
    pub jwks_uri: Url,
    /// Our keys; the first one signs.
    pub signing_key: SigningKey,
    /// What MCP sessions are bound by: a secret of each of our keys.
    pub sessions: Sessions,
    /// The public halves of all our keys, as published.
    pub published_keys: serde_json::Value,
    /// The same, for verifying.
    pub keys: KeySet,
    /// Life of an access token, in seconds.
    pub access_token_lifetime: u64,
    /// Where revocations are taken.
    pub revocation: Revocation,
    /// Status of `access_denied` for what policy refuses; `None`: it is `invalid_grant` then.
    pub access_denied_status: Option<u16>,
    /// What is asked of DPoP proofs.
    pub dpop: Dpop,
    /// Whether client certificates are read: the listener asks for them.
    pub reads_certificates: bool,
    /// Whether to publish an authorization endpoint that always refuses.
    pub compat_authorization_endpoint: bool,
    /// Requests a minute from one source and of one client, per worker; `None`: no limit.
    pub per_source_per_minute: Option<u32>,
    /// See `per_source_per_minute`.
    pub per_client_per_minute: Option<u32>,
    /// Whether a claimed authorization detail that is not understood refuses the grant.
    pub strict_authorization_details: bool,
}

/// A token endpoint, ours or one that we guard, and what is taken there from whom.
pub struct TokenEndpoint {
    /// Issuer identifier of the Resource AS.
    pub issuer: Url,
    /// Its URL.
    pub url: Url,
    /// Which ID-JAGs are taken.
    pub rules: GrantRules,
    /// Whether client assertions may be addressed to the token endpoint.
    pub accept_token_endpoint_audience: bool,
    /// Clients by `client_id`.
    pub clients: BTreeMap<String, Rc<RegisteredClient>>,
    /// Clients besides, whose `client_id` is the URL of their metadata.
    pub client_documents: Option<ClientDocuments>,
}

/// The token endpoint of another authorization server, which sees sound ID-JAGs only.
pub struct Guard {
    /// The endpoint.
    pub endpoint: TokenEndpoint,
    /// Resources that its ID-JAGs may name.
    pub resources: Vec<String>,
    /// Whether other grants go on to it, unjudged.
    pub passes_other_grants: bool,
    /// Other paths of the same host that go on, unjudged.
    pub paths: Vec<String>,
}

/// Whose Client ID Metadata Documents are read.
pub struct ClientDocuments {
    /// The hosts: no other is ever called.
    pub hosts: Vec<Rc<DocumentHost>>,
    /// Whether a client that proves nothing may redeem a grant that is bound to a key.
    pub allow_public: bool,
    /// Whether URLs may be plain `http`, and name addresses and ports.
    pub allow_http: bool,
}

/// A host that clients have their metadata at, and what holds for them all.
#[derive(Debug)]
pub struct DocumentHost {
    /// How to reach it; it issues nothing, so its origin stands for an issuer identifier.
    pub party: Rc<Party>,
    /// The identity providers that may speak for its clients.
    pub identity_providers: Vec<Trust>,
    /// Resources they may have tokens for; empty: all.
    pub resources: Vec<String>,
}

/// How DPoP (RFC 9449) is offered. Proofs are honoured in any case.
#[derive(Default)]
pub struct Dpop {
    /// Whether metadata and challenges say so.
    pub advertised: bool,
    /// `Some`: proofs must have a nonce of these.
    pub nonces: Option<Nonces>,
    /// Whether the grant type `jwt-dpop` is taken.
    pub jwt_dpop_grant: bool,
}

/// A client registered at our Resource AS.
pub struct RegisteredClient {
    /// How it proves itself.
    pub credential: RegisteredCredential,
    /// The identity providers that may speak for it.
    pub identity_providers: Vec<Trust>,
    /// Resources it may have tokens for; empty: all.
    pub resources: Vec<String>,
    /// `dpop_bound_access_tokens` (RFC 9449 §5.2): it gets no token that is not bound.
    pub dpop_bound: bool,
}

/// How a client proves itself at our token endpoint.
pub enum RegisteredCredential {
    /// With a secret, of which this is the SHA-256 (`client_secret_basic`, `client_secret_post`).
    SecretSha256(Key),
    /// With an assertion signed by one of these (`private_key_jwt`).
    Keys(KeySet),
    /// With a certificate (`tls_client_auth`, `self_signed_tls_client_auth`).
    Certificate(RegisteredCertificate),
    /// Not at all (`none`), as its metadata document says.
    Public,
    /// To the authorization server behind, not to us.
    Elsewhere,
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

/// How callers of a resource are upgraded.
pub struct Upgrade {
    /// Resource identifier of the MCP server.
    pub resource: Url,
    /// Who issues the ID-JAG.
    pub identity_provider: Rc<IdentityProvider>,
    /// Our registration there.
    pub idp_client: Rc<Client>,
    /// Who redeems it.
    pub resource_as: Rc<Party>,
    /// Our registration there.
    pub resource_as_client: Rc<Client>,
    /// Scope to ask for.
    pub scope: String,
    /// Who may call.
    pub callers: Vec<Caller>,
    /// Longest time an access token is used without asking the identity provider again, seconds.
    pub max_token_age: u64,
}

/// Who may call a resource that is upgraded, and as whom.
#[derive(Debug)]
pub enum Caller {
    /// The bearer of an ID Token of the identity provider, issued to our client: as that user.
    IdToken,
    /// The holder of an API key: as the user that the operator bound it to.
    ApiKey {
        /// Header that carries the key.
        header: String,
        /// SHA-256 of the key.
        sha256: Key,
        /// The bound user's refresh token.
        refresh_token: Secret,
    },
}

/// How a resource that knows nothing of EMA is fronted.
pub struct Accept {
    /// Its name for people.
    pub name: Option<String>,
    /// Scopes that may be granted.
    pub scopes: Vec<String>,
    /// Scopes granted if the ID-JAG has none.
    pub default_scopes: Vec<String>,
    /// Browser origins allowed besides the resource's own.
    pub allowed_origins: Vec<String>,
    /// The authorization details it understands (RFC 9396).
    pub authorization_details: Types,
    /// Credentials of the backend, and whom each is for: the first that fits counts.
    pub credentials: Vec<MappedCredential>,
    /// Header that tells the backend who calls.
    pub identity_header: Option<IdentityHeader>,
    /// What is looked at in calls; `None`: bodies are not looked at.
    pub mcp: Option<Mcp>,
    /// Authentication context classes of which a token must have one; empty: any.
    pub required_acr: Vec<String>,
    /// Longest time since the user authenticated, in seconds.
    pub max_auth_age: Option<u64>,
    /// What its tokens must be bound to.
    pub binding: Option<Binding>,
    /// Authorization servers of its own, whose tokens it checks itself.
    pub other_authorization_servers: Vec<Url>,
    /// Whether metadata names those before us.
    pub others_first: bool,
    /// Whether its metadata is at the root of its host too.
    pub metadata_at_root: bool,
}

/// What a token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// A key of the client's (RFC 9449).
    Dpop,
    /// A certificate of the client's (RFC 8705).
    Certificate,
}

impl Accept {
    /// Whether membership in `group` of `issuer` decides which credential a user gets.
    pub fn asks_for_group(&self, issuer: &str, group: &str) -> bool {
        self.credentials.iter().any(|mapped| match &mapped.whom {
            Whom::Group(of, name) => of == issuer && name == group,
            _ => false,
        })
    }

    /// Names of the header fields that we set for the backend.
    pub fn own_headers(&self) -> Vec<&str> {
        let credentials = self.credentials.iter().filter_map(|mapped| mapped.credential.header());
        credentials.chain(self.identity_header.iter().map(|header| header.name.as_str())).collect()
    }
}

/// A credential of the backend, and whom it is for.
pub struct MappedCredential {
    /// Whom it is for.
    pub whom: Whom,
    /// The credential.
    pub credential: Credential,
}

/// Whom a credential is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Whom {
    /// Everybody.
    Anyone,
    /// The user with this name ([`crate::subject::LocalSubject::key`], as base64url).
    Subject(String),
    /// The members of a group of this issuer.
    Group(String, String),
    /// Whoever was granted this scope.
    Scope(String),
}

/// A credential of the backend.
pub enum Credential {
    /// A header with a fixed value.
    Header(String, Secret),
    /// A bearer token from the backend's own authorization server.
    Token(Rc<BackendAs>),
    /// None: the identity header is enough.
    None,
}

impl Credential {
    /// The header it stands in.
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name, _) => Some(name),
            Self::Token(_) => Some("authorization"),
            Self::None => None,
        }
    }
}

/// How bearer tokens for a backend are got from its authorization server.
#[derive(Debug)]
pub struct BackendAs {
    /// The authorization server.
    pub party: Rc<Party>,
    /// Our registration there.
    pub client: Client,
    /// Scope to ask for, space-separated; may be empty.
    pub scope: String,
    /// `resource` to ask for (RFC 8707).
    pub resource: Option<Url>,
    /// Whether the token is for the user (RFC 8693) and not for us (RFC 6749 §4.4).
    pub on_behalf: bool,
}

/// A header that tells the backend who calls: a JWT of ours, for it alone, for a minute.
#[derive(Debug)]
pub struct IdentityHeader {
    /// Its name.
    pub name: String,
    /// `aud` of the JWT.
    pub audience: String,
}

/// What a credential is chosen by: nothing but what the access token says.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The user's name here.
    pub subject: &'a str,
    /// The identity provider.
    pub issuer: &'a str,
    /// The user's groups there.
    pub groups: &'a [String],
    /// Granted scope, space-separated.
    pub scope: &'a str,
}

impl MappedCredential {
    /// Whether it is for this holder.
    pub fn is_for(&self, holder: &Holder<'_>) -> bool {
        match &self.whom {
            Whom::Anyone => true,
            Whom::Subject(name) => name == holder.subject,
            Whom::Group(issuer, group) => {
                issuer == holder.issuer && holder.groups.iter().any(|other| other == group)
            }
            Whom::Scope(scope) => holder.scope.split(' ').any(|other| other == scope),
        }
    }
}
