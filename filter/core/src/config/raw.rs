//! The configuration as it is written: one document, every unknown field refused.

use super::raw_upgrade::{Client, TokenExchange, Upgrade, Written};
use super::read::{Named, Read, Reader, object, words};
use serde_json::{Map, Value};

object! {
    pub(super) struct Document {
        pub allow_insecure_http: bool = default,
        pub native_signatures: Option<bool>,
        pub identity_providers: Named<IdentityProvider> = default,
        pub authorization_server: Option<AuthorizationServer>,
        pub sealing_secret: Option<Reference>,
        pub refresh_token_store: Option<ReplayStore>,
        pub resources: Vec<Resource> = default,
        pub guards: Vec<Guard> = default,
    }
}

object! {
    /// The token endpoint of another authorization server.
    pub(super) struct Guard {
        pub issuer: String,
        pub token_endpoint: String,
        pub clients: Named<RegisteredClient>,
        pub resources: Vec<String>,
        pub clock_skew: Option<u64>,
        pub accepted_audiences: Vec<String> = default,
        pub replay_store: Option<ReplayStore>,
        pub other_grants: OtherGrants = default,
        pub paths: Vec<String> = default,
    }
}

words! {
    /// What becomes of grants that are no ID-JAGs.
    #[derive(Default, PartialEq)]
    pub(super) enum OtherGrants {
        #[default]
        Refuse = "refuse",
        Pass = "pass",
    }
}

object! {
    pub(super) struct IdentityProvider {
        pub issuer: String,
        pub cluster: String,
        pub jwks_uri: Option<String>,
        pub token_endpoint: Option<String>,
        pub algorithms: Option<Vec<String>>,
        pub max_id_jag_lifetime: Option<u64>,
        pub required_acr: Vec<String> = default,
        pub max_auth_age: Option<u64>,
        pub replay: Replay = default,
        pub tenants: Vec<String> = default,
        pub subjects: Subjects = default,
        pub revocation: Option<Value>,
        pub client: Option<Client>,
        pub token_exchange: Option<TokenExchange>,
    }
}

/// How often one ID-JAG may be redeemed.
#[derive(Default)]
pub(super) enum Replay {
    #[default]
    SingleUse,
    /// So many times more than once.
    Bounded(u32),
    Off,
}

impl Read for Replay {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        match value {
            Value::String(word) if word == "single_use" => Self::SingleUse,
            Value::String(word) if word == "off" => Self::Off,
            Value::Object(members) if members.contains_key("bounded") => {
                reader.object(value, &["bounded"]);
                Self::Bounded(reader.member(value, "bounded"))
            }
            _ => {
                reader.refuse_all_but(&["single_use", "bounded", "off"]);
                Self::Off
            }
        }
    }
}

object! {
    /// What an issuer is believed about its users.
    #[derive(Default)]
    pub(super) struct Subjects {
        pub aud_sub: bool = default,
        pub aud_tenants: Vec<String> = default,
        pub saml: Option<Saml>,
        pub email_domains: Vec<String> = default,
        pub groups: bool = default,
    }
}

object! {
    pub(super) struct Saml {
        pub issuers: Vec<String>,
        pub identified_by: Option<Vec<String>>,
    }
}

/// A secret by reference: never by value.
pub(super) struct Reference {
    pub env: String,
}

impl Read for Reference {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        if !value.is_object() {
            reader.refuse("must be a reference: { env: NAME }");
        }
        reader.object(value, &["env"]);
        Self { env: reader.member(value, "env") }
    }
}

/// A digest, which may stand in the document.
pub(super) enum Digest {
    Literal(String),
    Reference(Reference),
}

impl Read for Digest {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        match value {
            Value::String(text) => return Self::Literal(text.clone()),
            Value::Object(_) => return Self::Reference(Reference::read(value, reader)),
            _ => reader.refuse("must be 64 hexadecimal digits, or a reference: { env: NAME }"),
        }
        Self::Literal(String::new())
    }
}

object! {
    pub(super) struct AuthorizationServer {
        pub issuer: String,
        pub signing_keys: Vec<SigningKey>,
        pub access_token_lifetime: Option<u64>,
        pub verdict_cache: Option<u64>,
        pub clock_skew: Option<u64>,
        pub compat_authorization_endpoint: bool = default,
        pub rate_limits: Option<RateLimits>,
        pub accepted_audiences: Vec<String> = default,
        pub access_denied_status: Option<u16>,
        pub accept_token_endpoint_audience: Option<bool>,
        pub replay_store: Option<ReplayStore>,
        pub dpop: Option<Dpop>,
        pub mutual_tls: Option<MutualTls>,
        pub revocation: Option<Value>,
        pub strict_authorization_details: bool = default,
        pub clients: Named<RegisteredClient> = default,
        pub client_id_metadata_documents: Option<ClientDocuments>,
    }
}

object! {
    pub(super) struct ClientDocuments {
        pub hosts: Named<RegisteredClient>,
        pub allow_public: bool = default,
    }
}

object! {
    pub(super) struct Dpop {
        pub nonces: bool = default,
        pub jwt_dpop_grant: bool = default,
    }
}

object! {
    pub(super) struct MutualTls {
        pub chain: Chain,
    }
}

words! {
    /// Whether the listener verifies the chain of client certificates.
    #[derive(PartialEq)]
    pub(super) enum Chain {
        Verified = "verified",
        /// `trust_chain_verification: ACCEPT_UNTRUSTED`.
        Untrusted = "untrusted",
    }
}

object! {
    pub(super) struct ReplayStore {
        pub cluster: String,
        pub timeout_ms: Option<u32>,
        pub webdis: Option<Webdis>,
        pub rest: Option<Rest>,
    }
}

object! {
    pub(super) struct Webdis {
        pub authorization: Option<Reference>,
    }
}

object! {
    pub(super) struct Rest {
        pub url: String,
        pub token: Reference,
    }
}

object! {
    pub(super) struct SigningKey {
        pub key: Reference,
        pub kid: Option<String>,
    }
}

object! {
    pub(super) struct RateLimits {
        pub per_source_per_minute: Option<u32>,
        pub per_client_per_minute: Option<u32>,
    }
}

object! {
    /// One client, or all whose metadata is at one host: those have no credential here, but a cluster.
    pub(super) struct RegisteredClient {
        pub cluster: Option<String>,
        pub secret_sha256: Option<Digest>,
        pub private_key_jwt: Option<RegisteredKeys>,
        pub tls_client_auth: Option<TlsClientAuth>,
        pub self_signed_tls_client_auth: Option<SelfSigned>,
        pub dpop_bound_access_tokens: bool = default,
        pub identity_providers: Vec<Trust>,
        pub resources: Vec<String> = default,
    }
}

/// The one name the client's certificate must have (RFC 8705 §2.1.2).
pub(super) enum TlsClientAuth {
    SubjectDn(String),
    SanUri(String),
    SanDns(String),
}

impl Read for TlsClientAuth {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        let names = ["subject_dn", "san_uri", "san_dns"];
        reader.object(value, &names);
        match names.map(|name| reader.member(value, name)) {
            [Some(name), None, None] => Self::SubjectDn(name),
            [None, Some(name), None] => Self::SanUri(name),
            [None, None, Some(name)] => Self::SanDns(name),
            _ => {
                reader.refuse_all_but(&names);
                Self::SanDns(String::new())
            }
        }
    }
}

object! {
    pub(super) struct SelfSigned {
        pub certificate_sha256: Vec<String>,
    }
}

impl RegisteredClient {
    pub(super) fn proves_nothing(&self) -> bool {
        self.secret_sha256.is_none()
            && self.private_key_jwt.is_none()
            && self.tls_client_auth.is_none()
            && self.self_signed_tls_client_auth.is_none()
    }
}

/// An identity provider by name, or with those of its tenants that count.
pub(super) enum Trust {
    Whole(String),
    Tenants(TrustInTenants),
}

impl Read for Trust {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        match value {
            Value::String(name) => return Self::Whole(name.clone()),
            Value::Object(_) => return Self::Tenants(TrustInTenants::read(value, reader)),
            _ => reader.refuse("must be a name, or { name, tenants }"),
        }
        Self::Whole(String::new())
    }
}

object! {
    pub(super) struct TrustInTenants {
        pub name: String,
        pub tenants: Vec<String>,
    }
}

impl Trust {
    pub(super) fn name(&self) -> &String {
        match self {
            Self::Whole(name) | Self::Tenants(TrustInTenants { name, .. }) => name,
        }
    }
}

object! {
    /// Public keys: they may stand in the document.
    pub(super) struct RegisteredKeys {
        pub jwks: Map<String, Value>,
    }
}

object! {
    pub(super) struct Resource {
        pub resource: String,
        pub upgrade: Option<Written<Upgrade>>,
        pub accept: Option<Accept>,
    }
}

object! {
pub(super) struct NoSettings {}
}

object! {
    pub(super) struct Accept {
        pub name: Option<String>,
        pub scopes: Vec<String> = default,
        pub default_scopes: Vec<String> = default,
        pub allowed_origins: Vec<String> = default,
        /// By type, then by member: `"any"`, or a list of values.
        pub authorization_details: Map<String, Value> = default,
        pub credential: Option<Credential>,
        pub credentials: Vec<Credential> = default,
        pub identity_header: Option<IdentityHeader>,
        pub mcp: Option<Mcp>,
        pub required_acr: Vec<String> = default,
        pub max_auth_age: Option<u64>,
        pub bound_tokens: Option<Binding>,
        pub other_authorization_servers: Vec<String> = default,
        pub others_first: bool = default,
        pub metadata_at_root: bool = default,
    }
}

words! {
    /// What the tokens of a resource must be bound to.
    #[derive(Clone, Copy)]
    pub(super) enum Binding {
        Dpop = "dpop",
        Certificate = "certificate",
    }
}

object! {
    /// What is looked at in calls.
    pub(super) struct Mcp {
        pub max_body: Option<usize>,
        pub scopes: Vec<McpScope> = default,
        pub unlisted: Unlisted = default,
        pub sessions: Sessions = default,
        pub content_digest: bool = default,
        pub revisions: Option<Vec<String>>,
    }
}

object! {
    pub(super) struct McpScope {
        pub method: String,
        pub name: Option<String>,
        pub scopes: Vec<String> = default,
    }
}

words! {
    /// What becomes of operations that no entry is about.
    #[derive(Default)]
    pub(super) enum Unlisted {
        #[default]
        Allow = "allow",
        Deny = "deny",
    }
}

words! {
    /// What becomes of sessions.
    #[derive(Default)]
    pub(super) enum Sessions {
        #[default]
        Bind = "bind",
        Ignore = "ignore",
    }
}

object! {
    /// A credential of the backend: exactly one way, and whom it is for.
    pub(super) struct Credential {
        pub header: Option<String>,
        pub value: Option<Reference>,
        pub bearer: Option<Reference>,
        pub basic: Option<Basic>,
        pub client_credentials: Option<BackendAs>,
        pub token_exchange: Option<BackendAs>,
        pub none: Option<NoSettings>,
        pub whom: Option<Whom> as "for",
    }
}

object! {
    pub(super) struct Basic {
        pub user: String,
        pub password: Reference,
    }
}

object! {
    pub(super) struct BackendAs {
        pub issuer: String,
        pub cluster: String,
        pub token_endpoint: Option<String>,
        pub client: Client,
        pub scopes: Vec<String> = default,
        pub resource: Option<String>,
    }
}

object! {
    /// A user, a group of an identity provider, or a scope.
    pub(super) struct Whom {
        pub identity_provider: Option<String>,
        pub tenant: Option<String>,
        pub sub: Option<String>,
        pub group: Option<String>,
        pub aud_sub: Option<String>,
        pub aud_tenant: Option<String>,
        pub saml: Option<Named<String>>,
        pub email: Option<String>,
        pub scope: Option<String>,
    }
}

object! {
    pub(super) struct IdentityHeader {
        pub name: String,
        pub audience: Option<String>,
    }
}
