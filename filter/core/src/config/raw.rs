//! The configuration as it is written: one document, every unknown field refused.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub allow_insecure_http: bool,
    #[serde(default)]
    pub identity_providers: BTreeMap<String, IdentityProvider>,
    pub authorization_server: Option<AuthorizationServer>,
    #[serde(default)]
    pub resources: Vec<Resource>,
    #[serde(default)]
    pub guards: Vec<Guard>,
}

/// The token endpoint of another authorization server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guard {
    pub issuer: String,
    pub token_endpoint: String,
    pub clients: BTreeMap<String, RegisteredClient>,
    pub resources: Vec<String>,
    pub clock_skew: Option<u64>,
    #[serde(default)]
    pub accepted_audiences: Vec<String>,
    pub replay_store: Option<ReplayStore>,
    #[serde(default)]
    pub other_grants: OtherGrants,
    #[serde(default)]
    pub paths: Vec<String>,
}

/// What becomes of grants that are no ID-JAGs.
#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum OtherGrants {
    #[default]
    Refuse,
    Pass,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityProvider {
    pub issuer: String,
    pub cluster: String,
    pub jwks_uri: Option<String>,
    pub token_endpoint: Option<String>,
    pub algorithms: Option<Vec<String>>,
    pub max_id_jag_lifetime: Option<u64>,
    #[serde(default)]
    pub required_acr: Vec<String>,
    pub max_auth_age: Option<u64>,
    #[serde(default)]
    pub replay: Replay,
    #[serde(default)]
    pub tenants: Vec<String>,
    #[serde(default)]
    pub subjects: Subjects,
    pub revocation: Option<serde_json::Value>,
    pub client: Option<serde_json::Value>,
    pub token_exchange: Option<serde_json::Value>,
}

/// How often one ID-JAG may be redeemed.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(super) enum Replay {
    #[default]
    SingleUse,
    /// So many times more than once.
    Bounded(u32),
    Off,
}

/// What an issuer is believed about its users.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Subjects {
    #[serde(default)]
    pub aud_sub: bool,
    #[serde(default)]
    pub aud_tenants: Vec<String>,
    pub saml: Option<Saml>,
    #[serde(default)]
    pub email_domains: Vec<String>,
    #[serde(default)]
    pub groups: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saml {
    pub issuers: Vec<String>,
    pub identified_by: Option<Vec<String>>,
}

/// A secret by reference: never by value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a reference: { env: NAME }")]
pub(super) struct Reference {
    pub env: String,
}

/// A digest, which may stand in the document.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be 64 hexadecimal digits, or a reference: { env: NAME }")]
pub(super) enum Digest {
    Literal(String),
    Reference(Reference),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthorizationServer {
    pub issuer: String,
    pub signing_keys: Vec<SigningKey>,
    pub access_token_lifetime: Option<u64>,
    pub clock_skew: Option<u64>,
    #[serde(default)]
    pub compat_authorization_endpoint: bool,
    pub rate_limits: Option<RateLimits>,
    #[serde(default)]
    pub accepted_audiences: Vec<String>,
    pub access_denied_status: Option<u16>,
    pub accept_token_endpoint_audience: Option<bool>,
    pub replay_store: Option<ReplayStore>,
    pub dpop: Option<Dpop>,
    pub mutual_tls: Option<MutualTls>,
    pub revocation: Option<serde_json::Value>,
    #[serde(default)]
    pub strict_authorization_details: bool,
    #[serde(default)]
    pub clients: BTreeMap<String, RegisteredClient>,
    pub client_id_metadata_documents: Option<ClientDocuments>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientDocuments {
    pub hosts: BTreeMap<String, RegisteredClient>,
    #[serde(default)]
    pub allow_public: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dpop {
    #[serde(default)]
    pub nonces: bool,
    #[serde(default)]
    pub jwt_dpop_grant: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MutualTls {
    pub chain: Chain,
}

/// Whether the listener verifies the chain of client certificates.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Chain {
    Verified,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`.
    Untrusted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayStore {
    pub cluster: String,
    pub timeout_ms: Option<u32>,
    pub webdis: Option<Webdis>,
    pub rest: Option<Rest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webdis {
    pub authorization: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rest {
    pub url: String,
    pub token: Reference,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SigningKey {
    pub key: Reference,
    pub kid: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimits {
    pub per_source_per_minute: Option<u32>,
    pub per_client_per_minute: Option<u32>,
}

/// One client, or all whose metadata is at one host: those have no credential here, but a cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisteredClient {
    pub cluster: Option<String>,
    pub secret_sha256: Option<Digest>,
    pub private_key_jwt: Option<RegisteredKeys>,
    pub tls_client_auth: Option<TlsClientAuth>,
    pub self_signed_tls_client_auth: Option<SelfSigned>,
    #[serde(default)]
    pub dpop_bound_access_tokens: bool,
    pub identity_providers: Vec<Trust>,
    #[serde(default)]
    pub resources: Vec<String>,
}

/// The one name the client's certificate must have (RFC 8705 §2.1.2).
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum TlsClientAuth {
    SubjectDn(String),
    SanUri(String),
    SanDns(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SelfSigned {
    pub certificate_sha256: Vec<String>,
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
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a name, or { name, tenants }")]
pub(super) enum Trust {
    Whole(String),
    Tenants(TrustInTenants),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustInTenants {
    pub name: String,
    pub tenants: Vec<String>,
}

impl Trust {
    pub(super) fn name(&self) -> &String {
        match self {
            Self::Whole(name) | Self::Tenants(TrustInTenants { name, .. }) => name,
        }
    }
}

/// Public keys: they may stand in the document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisteredKeys {
    pub jwks: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub resource: String,
    pub upgrade: Option<serde_json::Value>,
    pub accept: Option<Accept>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoSettings {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accept {
    pub name: Option<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub default_scopes: Vec<String>,
    #[serde(default)]
    pub allowed_origins: Vec<String>,
    /// By type, then by member: `"any"`, or a list of values.
    #[serde(default)]
    pub authorization_details: serde_json::Map<String, serde_json::Value>,
    pub credential: Option<Credential>,
    #[serde(default)]
    pub credentials: Vec<Credential>,
    pub identity_header: Option<IdentityHeader>,
    pub mcp: Option<Mcp>,
    #[serde(default)]
    pub required_acr: Vec<String>,
    pub max_auth_age: Option<u64>,
    pub bound_tokens: Option<Binding>,
    #[serde(default)]
    pub other_authorization_servers: Vec<String>,
    #[serde(default)]
    pub others_first: bool,
    #[serde(default)]
    pub metadata_at_root: bool,
}

/// What the tokens of a resource must be bound to.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(super) enum Binding {
    Dpop,
    Certificate,
}

/// What is looked at in calls.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mcp {
    pub max_body: Option<usize>,
    #[serde(default)]
    pub scopes: Vec<McpScope>,
    #[serde(default)]
    pub unlisted: Unlisted,
    #[serde(default)]
    pub sessions: Sessions,
    #[serde(default)]
    pub content_digest: bool,
    pub revisions: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct McpScope {
    pub method: String,
    pub name: Option<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// What becomes of operations that no entry is about.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unlisted {
    #[default]
    Allow,
    Deny,
}

/// What becomes of sessions.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sessions {
    #[default]
    Bind,
    Ignore,
}

/// A credential of the backend: exactly one way, and whom it is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub header: Option<String>,
    pub value: Option<Reference>,
    pub bearer: Option<Reference>,
    pub basic: Option<Basic>,
    pub client_credentials: Option<BackendAs>,
    pub token_exchange: Option<BackendAs>,
    pub none: Option<NoSettings>,
    #[serde(rename = "for")]
    pub whom: Option<Whom>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Basic {
    pub user: String,
    pub password: Reference,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendAs {
    pub issuer: String,
    pub cluster: String,
    pub token_endpoint: Option<String>,
    pub client: serde_json::Value,
    #[serde(default)]
    pub scopes: Vec<String>,
    pub resource: Option<String>,
}

/// A user, a group of an identity provider, or a scope.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    pub identity_provider: Option<String>,
    pub tenant: Option<String>,
    pub sub: Option<String>,
    pub group: Option<String>,
    pub aud_sub: Option<String>,
    pub aud_tenant: Option<String>,
    pub saml: Option<BTreeMap<String, String>>,
    pub email: Option<String>,
    pub scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityHeader {
    pub name: String,
    pub audience: Option<String>,
}
