//! Every reason for which a request does not go on.
//!
//! A reason says what is so. What the caller may read of it is decided in [`crate::reply`]; what the
//! log reads is [`Error::code`] and `Debug`. No reason ever holds a credential.

use crate::authorization_details::Refusal;
use crate::dpop;
use crate::form;
use crate::job::JobError;
use crate::jws::Fault;
use crate::mcp;
use crate::saml;
use crate::security_event;
use crate::subject_id::Malformed;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    // --- any request ---
    /// The path has escaped slashes, dot segments, `;`, a backslash or a NUL.
    AmbiguousPath,
    /// Nothing is configured under this authority and path.
    NotFound,
    /// The method is not one this endpoint has.
    MethodNotAllowed(&'static str),
    /// More header fields than the host hands over.
    HeadersTooLarge,
    /// The flow was lost, or a value that must be there is not. A fault of ours.
    Internal(&'static str),
    /// No answer in time.
    Deadline,
    /// Too many requests wait already.
    Overloaded,

    // --- token endpoint, in the order of its checks ---
    /// The token endpoint takes nothing from the query.
    QueryAtTokenEndpoint,
    /// The body is not a form.
    ContentType,
    /// The body is encoded.
    ContentEncoding,
    /// The body is larger than 64 KiB.
    BodyTooLarge,
    /// Too many requests from this source or of this client.
    RateLimited,
    /// The form cannot be read in one way only.
    Form(form::Fault),
    /// A required parameter is absent.
    MissingParameter(&'static str),
    /// `assertion` is longer than any token read.
    AssertionTooLarge,
    /// A grant type that is not offered.
    UnsupportedGrantType,
    /// More than one method of client authentication.
    SeveralClientAuthentications,
    /// The client is unknown or did not prove who it is.
    Client(ClientFault),
    /// The client's metadata document, or its keys, cannot be had now.
    ClientMetadataUnavailable,
    /// The client's metadata does not list the grant it uses.
    UnauthorizedClient,
    /// `scope` is no list of scope tokens.
    ScopeSyntax,
    /// `authorization_details` is no list of details.
    AuthorizationDetails,
    /// The DPoP proof does not pass.
    Dpop {
        /// Why.
        fault: dpop::Fault,
        /// A nonce of ours for the next proof, if that is what was missing.
        nonce: Option<String>,
    },
    /// The ID-JAG does not pass.
    IdJag(Fault),
    /// The keys of the ID-JAG's issuer cannot be had.
    KeysUnavailable,
    /// A client that proves nothing, with a grant that is bound to no key.
    PublicClientUnbound,
    /// The authorization details of the request, or those of the ID-JAG, cannot be granted.
    AuthorizationDetailsRefused(Refusal),
    /// The requested `resource` is not one, not governed here, or not in the grant.
    Target,
    /// The user authenticated too weakly, or too long ago (RFC 9470, ID-JAG §9.2).
    InsufficientAuthentication {
        /// Classes of which one would do, space-separated.
        acr_values: Option<String>,
        /// Longest time since the authentication, in seconds.
        max_age: Option<u64>,
    },
    /// Nothing of what was asked may be granted.
    NoScopeLeft,
    /// The client may not have tokens for this resource, or nothing at the backend is for this user.
    Denied {
        /// Status of `access_denied`; `None`: it is told as `invalid_grant`.
        status: Option<u16>,
    },
    /// Single use cannot be guaranteed: the store is full or does not answer.
    ReplayStore,

    // --- MCP requests to a resource that is accepted for ---
    /// A browser on a page that is not allowed.
    Origin,
    /// The request wants another protocol.
    Upgrade,
    /// A token in the query.
    TokenInQuery,
    /// No credentials.
    NoToken,
    /// `Authorization` is there twice or is not well-formed.
    MalformedAuthorization,
    /// A token with another scheme than its binding asks for.
    WrongScheme,
    /// The access token does not pass.
    AccessToken(Fault),
    /// The message, its headers or its session does not pass.
    Mcp(mcp::Fault),
    /// A version of MCP that is not accepted here; those that are.
    ProtocolVersion(Vec<String>),
    /// The token has not all of this scope, which the operation needs.
    InsufficientScope(String),
    /// Nothing at the backend is for this user any more.
    NoBackendCredential,
    /// There is no token to be had for the backend.
    Backend(JobError),

    // --- revocation ---
    /// Nobody knows what is revoked, or no more can be: the store does not answer or is full.
    RevocationStore,
    /// The token to revoke was issued to another client (RFC 7009 §2.1).
    TokenOfAnotherClient,
    /// The bearer token is neither the operator's nor an identity provider's that passes.
    RevocationToken(Fault),
    /// The body does not name a user.
    RevocationSubject(Malformed),
    /// The user is not of the identity provider that asks, or of none that is trusted here.
    ForeignSubject,
    /// The security event does not pass.
    SecurityEvent(security_event::Fault),

    // --- requests to a resource that is upgraded for ---
    /// No credential that any caller of this resource has.
    NoCredential,
    /// More than one credential.
    SeveralCredentials,
    /// The API key is nobody's, or the password, or a token of a kind that no caller has.
    UnknownApiKey,
    /// The ID Token, or another JWT that the caller presents, does not pass.
    IdToken(Fault),
    /// The SAML assertion or response does not pass.
    Saml(saml::Fault),
    /// The workload is none of those that are let in.
    UnknownWorkload,
    /// There is no access token to be had.
    Exchange(JobError),
    /// The server did not answer a request that was sent to it once more, or answered too much.
    Resend,
}

/// What is wrong with a client's authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFault {
    /// `Authorization` is not well-formed Basic.
    MalformedBasic,
    /// No credential at all: a public client.
    NoCredential,
    /// A method that is not offered.
    MethodNotOffered,
    /// A method that is offered, but not the one this client is registered for.
    MethodNotRegistered,
    /// The client assertion does not pass.
    Assertion(Fault),
    /// Not registered, or the wrong secret: one reason for both.
    NotAuthenticated,
    /// `client_id` is another client's.
    Mismatch,
    /// The metadata document that the `client_id` names is not there, or not sound.
    Metadata,
}

impl Error {
    /// Stable code for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AmbiguousPath => "ambiguous_path",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Internal(_) => "internal",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::QueryAtTokenEndpoint => "query_parameters",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::BodyTooLarge => "body_too_large",
            Self::RateLimited => "rate_limited",
            Self::Form(form::Fault::Syntax) => "form_syntax",
            Self::Form(form::Fault::Repeated) => "parameter_repeated",
            Self::Form(form::Fault::TooMany) => "too_many_parameters",
            Self::MissingParameter(_) => "parameter_missing",
            Self::AssertionTooLarge => "assertion_too_large",
            Self::UnsupportedGrantType => "grant_type",
            Self::SeveralClientAuthentications => "several_client_authentications",
            Self::Client(ClientFault::MalformedBasic) => "client_basic_malformed",
            Self::Client(ClientFault::NoCredential) => "client_public",
            Self::Client(ClientFault::MethodNotOffered) => "client_method",
            Self::Client(ClientFault::MethodNotRegistered) => "client_method_not_registered",
            Self::Client(ClientFault::Assertion(fault)) => fault.code(),
            Self::Client(ClientFault::NotAuthenticated) => "client_not_authenticated",
            Self::Client(ClientFault::Mismatch) => "client_id_mismatch",
            Self::Client(ClientFault::Metadata) => "client_metadata",
            Self::ClientMetadataUnavailable => "client_metadata_unavailable",
            Self::UnauthorizedClient => "client_grant_type",
            Self::PublicClientUnbound => "public_client_unbound",
            Self::AuthorizationDetailsRefused(refusal) => refusal.code(),
            Self::ScopeSyntax => "scope_syntax",
            Self::AuthorizationDetails => "authorization_details",
            Self::Dpop { fault, .. } => fault.code(),
            Self::IdJag(fault) | Self::AccessToken(fault) | Self::IdToken(fault) => fault.code(),
            Self::KeysUnavailable => "keys_unavailable",
            Self::Target => "target",
            Self::InsufficientAuthentication { .. } => "insufficient_authentication",
            Self::NoScopeLeft => "no_scope_left",
            Self::Denied { .. } => "not_entitled",
            Self::ReplayStore => "replay_store",
            Self::Origin => "origin",
            Self::Upgrade => "upgrade",
            Self::TokenInQuery => "token_in_query",
            Self::NoToken => "no_token",
            Self::MalformedAuthorization => "authorization_malformed",
            Self::WrongScheme => "authorization_scheme",
            Self::Mcp(fault) => fault.code(),
            Self::ProtocolVersion(_) => mcp::Fault::UnsupportedVersion.code(),
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::NoBackendCredential => "no_backend_credential",
            Self::Backend(JobError::Unavailable | JobError::Throttled(_)) => "backend_unavailable",
            Self::Backend(_) => "backend_refused",
            Self::RevocationStore => "revocation_store",
            Self::TokenOfAnotherClient => "token_of_another_client",
            Self::RevocationToken(fault) => fault.code(),
            Self::RevocationSubject(malformed) => malformed.code(),
            Self::ForeignSubject => "sub_id_issuer",
            Self::SecurityEvent(fault) => fault.code(),
            Self::NoCredential => "no_credential",
            Self::SeveralCredentials => "several_credentials",
            Self::UnknownApiKey => "api_key_unknown",
            Self::Saml(fault) => fault.code(),
            Self::UnknownWorkload => "workload_unknown",
            Self::Exchange(JobError::Unavailable) => "exchange_unavailable",
            Self::Exchange(JobError::Throttled(_)) => "exchange_throttled",
            Self::Exchange(JobError::BadAnswer) => "exchange_bad_answer",
            Self::Exchange(JobError::Misconfigured) => "exchange_misconfigured",
            Self::Exchange(JobError::SubjectRejected) => "subject_rejected",
            Self::Exchange(JobError::Forbidden) => "exchange_forbidden",
            Self::Exchange(JobError::StepUp { .. }) => "step_up",
            Self::Resend => "resend",
        }
    }
}
