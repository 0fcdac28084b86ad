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
    pub resources: Vec<Resource>,
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
    pub client: Option<Client>,
}

/// Our registration at an authorization server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    pub id: String,
    pub secret: Option<Reference>,
    pub private_key_jwt: Option<PrivateKeyJwt>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrivateKeyJwt {
    pub key: Reference,
    pub kid: Option<String>,
    #[serde(default)]
    pub audience: AssertionAudience,
}

/// Whom a client assertion is addressed to.
#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    /// The authorization server's issuer identifier (rfc7523bis).
    #[default]
    Issuer,
    /// Its token endpoint, which some servers still ask for.
    TokenEndpoint,
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
    pub clients: BTreeMap<String, RegisteredClient>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisteredClient {
    pub secret_sha256: Option<Digest>,
    pub private_key_jwt: Option<RegisteredKeys>,
    pub identity_providers: Vec<String>,
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
    pub upgrade: Option<Upgrade>,
    pub accept: Option<Accept>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upgrade {
    pub url: Option<String>,
    pub identity_provider: String,
    pub authorization_server: ResourceAs,
    #[serde(default)]
    pub scopes: Vec<String>,
    pub callers: Vec<Caller>,
    pub max_token_age: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceAs {
    pub issuer: String,
    pub cluster: String,
    pub token_endpoint: Option<String>,
    pub client: Client,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    pub id_token: Option<NoSettings>,
    pub api_key: Option<ApiKey>,
    pub subject: Option<Subject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoSettings {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKey {
    pub header: String,
    pub sha256: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    pub refresh_token: Reference,
}

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
    pub credential: Credential,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub header: String,
    pub value: Reference,
}
