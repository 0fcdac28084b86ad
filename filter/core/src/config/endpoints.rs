//! Token endpoints and their clients: our Resource AS, and those that are guarded.

use super::{GrantRules, Party, Revocation, Trusts};
use crate::client_certificate::RegisteredCertificate;
use crate::digest::Key;
use crate::dpop::Nonces;
use crate::http::Url;
use crate::jwk::KeySet;
use crate::session::Sessions;
use crate::signing::SigningKey;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

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
    /// Most verified access tokens that a worker remembers.
    pub verdict_cache: usize,
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
    pub resources: Rc<BTreeSet<String>>,
    /// Whether other grants go on to it, unjudged.
    pub passes_other_grants: bool,
    /// Other paths of the same host that go on, unjudged.
    pub paths: Vec<String>,
}

/// Whose Client ID Metadata Documents are read.
pub struct ClientDocuments {
    /// The hosts by name: no other is ever called.
    pub hosts: BTreeMap<String, Rc<DocumentHost>>,
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
    pub identity_providers: Rc<Trusts>,
    /// Resources they may have tokens for; empty: all.
    pub resources: Rc<BTreeSet<String>>,
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
    pub identity_providers: Rc<Trusts>,
    /// Resources it may have tokens for; empty: all.
    pub resources: Rc<BTreeSet<String>>,
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
