//! The one place that turns a reason into what the caller may read.
//!
//! Texts are a small fixed set. None tells which issuer, user, client or key exists, and none
//! repeats anything the caller sent.

use crate::authorization_details::Refusal;
use crate::dpop;
use crate::error::Error;
use crate::form;
use crate::job::JobError;
use crate::mcp;
use crate::possession::Scheme;
use serde_json::{Value, json};
use std::rc::Rc;

/// An answer given by Jagway itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
}

impl core::fmt::Debug for Reply {
    /// The body only if it is an error: else it may be a token.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let body = if self.status >= 400 { self.body.as_str() } else { "***" };
        write!(f, "Reply({} {:?} {body})", self.status, self.headers)
    }
}

/// Where the request was going: it decides the form of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surface {
    /// The token endpoint of our Resource AS, with its issuer (RFC 6749 §5.2).
    TokenEndpoint(String),
    /// A resource we accept for (RFC 6750 §3, RFC 9728 §5.1).
    Resource {
        /// URL of its metadata.
        resource_metadata: Rc<str>,
        /// Scope to ask for, space-separated.
        scope: Rc<str>,
        /// The page that asks, if it is one that may read the answer.
        origin: Option<String>,
        /// With which schemes a token may come.
        schemes: &'static [Scheme],
        /// `id` of the JSON-RPC request, once it has been read.
        id: Option<Value>,
    },
    /// The endpoint where a user's tokens are revoked, which takes bearer tokens.
    GlobalTokenRevocation,
    /// The endpoint that security events are pushed to (RFC 8935 §2.3).
    SecurityEvents,
    /// A resource we upgrade for.
    Upgrade,
    /// Anything else.
    Other,
}

impl Reply {
    /// A JSON answer that nobody may store (RFC 6749 §5.1).
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![
                ("content-type", crate::names::JSON.to_owned()),
                ("cache-control", "no-store".to_owned()),
                ("pragma", "no-cache".to_owned()),
            ],
            body: body.to_string(),
        }
    }

    /// The refusal for `error` on `surface`.
    pub fn refusal(error: &Error, surface: &Surface) -> Self {
        let Words { mut status, code, description } = words(error);
        if *surface == Surface::SecurityEvents && status == 400 {
            return event_refusal(code, description);
        }
        if let (Error::Dpop { .. }, Surface::Resource { .. }) = (error, surface) {
            // RFC 9449 §7.1, §9: at a resource the proof is part of the authorization.
            status = 401;
        }
        let mut body = json!({ "error": code, "error_description": description });
        if let (Error::InsufficientAuthentication { acr_values, max_age }, Some(members)) =
            (error, body.as_object_mut())
        {
            let acr_values =
                acr_values.as_deref().map(|values| ("acr_values".into(), values.into()));
            members.extend(acr_values);
            members.extend(max_age.map(|seconds| ("max_age".into(), seconds.into())));
        }
        // RFC 9470 §3: what does not do at a resource is the token.
        let weak = matches!(error, Error::InsufficientAuthentication { .. });
        let status = if weak && matches!(surface, Surface::Resource { .. }) { 401 } else { status };
        let body = message(error, surface, status, description).unwrap_or(body);
        let mut reply = Self::json(status, &body);
        let challenges = challenges(error, surface, status, code).into_iter();
        reply.headers.extend(challenges.map(|challenge| ("www-authenticate", challenge)));
        if let Error::Dpop { nonce: Some(nonce), .. } = error {
            reply.headers.push(("dpop-nonce", nonce.clone()));
        }
        if let Surface::Resource { origin: Some(origin), .. } = surface {
            reply.headers.extend(cors(origin));
        }
        match error {
            Error::MethodNotAllowed(allow) | Error::Mcp(mcp::Fault::MethodNotAllowed(allow)) => {
                reply.headers.push(("allow", (*allow).to_owned()));
            }
            Error::Exchange(JobError::Throttled(seconds))
            | Error::Backend(JobError::Throttled(seconds)) => {
                reply.headers.push(("retry-after", seconds.to_string()));
            }
            Error::RateLimited => reply.headers.push(("retry-after", "60".to_owned())),
            _ if status == 503 => reply.headers.push(("retry-after", "5".to_owned())),
            _ => {}
        }
        reply
    }
}

/// Lets a page of `origin` read an answer of a resource (Fetch standard, CORS protocol).
pub fn cors(origin: &str) -> [(&'static str, String); 3] {
    [
        ("access-control-allow-origin", origin.to_owned()),
        (
            "access-control-expose-headers",
            "WWW-Authenticate, Mcp-Session-Id, DPoP-Nonce".to_owned(),
        ),
        ("vary", "Origin".to_owned()),
    ]
}

/// RFC 8935 §2.3: "The response MUST include a Content-Language header field".
fn event_refusal(err: &str, description: &str) -> Reply {
    let mut reply = Reply::json(400, &json!({ "err": err, "description": description }));
    reply.headers.push(("content-language", "en".to_owned()));
    reply
}

struct Words {
    status: u16,
    code: &'static str,
    description: &'static str,
}

fn words(error: &Error) -> Words {
    let (status, code, description) = match error {
        Error::AmbiguousPath => (400, "invalid_request", "ambiguous path"),
        Error::NotFound => (404, "not_found", "nothing is here"),
        Error::MethodNotAllowed(_) => (405, "invalid_request", "method not allowed"),
        Error::HeadersTooLarge => (431, "invalid_request", "too many header fields"),
        Error::Internal(_) => (500, "server_error", "internal error"),
        Error::Deadline => (503, "temporarily_unavailable", "no answer in time"),
        Error::Overloaded => (503, "temporarily_unavailable", "try again later"),

        Error::QueryAtTokenEndpoint => (400, "invalid_request", "parameters go in the body"),
        Error::ContentType => (400, "invalid_request", "the body has another media type"),
        Error::ContentEncoding => (415, "invalid_request", "the body must not be encoded"),
        Error::BodyTooLarge | Error::Form(form::Fault::TooMany) => {
            (413, "invalid_request", "the request is too large")
        }
        Error::RateLimited => (429, "temporarily_unavailable", "too many requests"),
        Error::Form(form::Fault::Syntax) => (400, "invalid_request", "malformed form"),
        Error::Form(form::Fault::Repeated) => {
            (400, "invalid_request", "a parameter is there more than once")
        }
        Error::MissingParameter("grant_type") => (400, "invalid_request", "grant_type is missing"),
        Error::MissingParameter("assertion") => (400, "invalid_request", "assertion is missing"),
        Error::MissingParameter(_) => (400, "invalid_request", "a parameter is missing"),
        Error::AssertionTooLarge => (400, "invalid_request", "the assertion is too large"),
        Error::UnsupportedGrantType => {
            (400, "unsupported_grant_type", "this grant type is not offered")
        }
        Error::SeveralClientAuthentications => {
            (400, "invalid_request", "more than one client authentication")
        }
        Error::Client(_) => (401, "invalid_client", "client authentication failed"),
        Error::UnauthorizedClient => {
            (400, "unauthorized_client", "this client's metadata does not list this grant type")
        }
        Error::ScopeSyntax => (400, "invalid_scope", "malformed scope"),
        Error::AuthorizationDetails | Error::AuthorizationDetailsRefused(Refusal::Request) => {
            (400, "invalid_authorization_details", "these authorization_details cannot be granted")
        }
        Error::Dpop { nonce: Some(_), .. } => {
            (400, "use_dpop_nonce", "the proof must have the nonce given here")
        }
        Error::Dpop { .. } => (400, "invalid_dpop_proof", "the DPoP proof is not acceptable"),
        Error::Denied { status: Some(status) } => {
            (*status, "access_denied", "this user or client may not have this")
        }
        Error::IdJag(_)
        | Error::PublicClientUnbound
        | Error::AuthorizationDetailsRefused(Refusal::Claim)
        | Error::Denied { status: None } => {
            (400, "invalid_grant", "the assertion is not acceptable")
        }
        Error::KeysUnavailable | Error::ClientMetadataUnavailable | Error::ReplayStore => {
            (503, "temporarily_unavailable", "try again later")
        }
        Error::Target => (400, "invalid_target", "the resource is not acceptable"),
        Error::InsufficientAuthentication { .. } => (
            400,
            "insufficient_user_authentication",
            "the user has to authenticate again at the identity provider",
        ),
        Error::NoScopeLeft => (400, "invalid_scope", "nothing of this scope can be granted"),

        Error::Origin => (403, "forbidden", "this origin is not allowed"),
        Error::Upgrade => (403, "forbidden", "other protocols are not offered here"),
        Error::TokenInQuery => (400, "invalid_request", "tokens go in the Authorization header"),
        Error::NoToken => (401, "unauthorized", "an access token is needed"),
        Error::MalformedAuthorization => (400, "invalid_request", "malformed Authorization"),
        Error::WrongScheme | Error::AccessToken(_) => {
            (401, "invalid_token", "the access token is not acceptable")
        }

        // Worded by `mcp`.
        Error::Mcp(fault) => (fault.status(), "invalid_request", ""),
        Error::ProtocolVersion(_) => (400, "invalid_request", ""),
        Error::InsufficientScope(_) => {
            (403, "insufficient_scope", "the access token has not the scope that this needs")
        }
        Error::NoBackendCredential => (403, "access_denied", "nothing here is for this user"),
        Error::Backend(JobError::Unavailable | JobError::Throttled(_)) => {
            (503, "temporarily_unavailable", "try again later")
        }
        Error::Backend(_) => (502, "bad_gateway", "the server behind gives no access"),

        Error::RevocationStore => (503, "temporarily_unavailable", "try again later"),
        // RFC 6749 §5.2: it "was issued to another client".
        Error::TokenOfAnotherClient => {
            (400, "invalid_grant", "the token was issued to another client")
        }
        Error::RevocationToken(_) => (401, "invalid_token", "the bearer token is not acceptable"),
        Error::RevocationSubject(_) => (400, "invalid_request", "the body names no user"),
        Error::ForeignSubject => (403, "access_denied", "this user is not yours"),
        Error::SecurityEvent(fault) => {
            (400, fault.err().unwrap_or("invalid_request"), "the security event is not acceptable")
        }

        Error::NoCredential => (401, "unauthorized", "a credential is needed"),
        Error::SeveralCredentials => (400, "invalid_request", "more than one credential"),
        Error::UnknownApiKey
        | Error::IdToken(_)
        | Error::Saml(_)
        | Error::UnknownWorkload
        | Error::Exchange(JobError::SubjectRejected) => {
            (401, "invalid_token", "the credential is not acceptable")
        }
        Error::Exchange(JobError::Unavailable | JobError::Throttled(_)) => {
            (503, "temporarily_unavailable", "try again later")
        }
        Error::Exchange(JobError::BadAnswer | JobError::Misconfigured) => {
            (502, "bad_gateway", "the authorization servers did not agree")
        }
        Error::Resend => (502, "bad_gateway", "the server did not answer"),
        Error::Exchange(JobError::Forbidden) => {
            (403, "access_denied", "the identity provider or the resource does not allow this")
        }
        Error::Exchange(JobError::StepUp { .. }) => (
            401,
            "insufficient_user_authentication",
            "the user has to authenticate again at the identity provider",
        ),
    };
    Words { status, code, description }
}

/// The JSON-RPC error that a caller of MCP reads: for what is wrong with its message, and for all else
/// once its request has an `id` to be answered by.
fn message(error: &Error, surface: &Surface, status: u16, description: &str) -> Option<Value> {
    let Surface::Resource { id, .. } = surface else {
        return None;
    };
    let id = id.as_ref();
    match error {
        Error::Mcp(fault) => Some(mcp::refusal_body(*fault, &[], id)),
        Error::ProtocolVersion(supported) => {
            Some(mcp::refusal_body(mcp::Fault::UnsupportedVersion, supported, id))
        }
        _ if id.is_none() => None,
        // JSON-RPC 2.0 §5.1: Internal error, and one of those left to the server.
        _ => Some(mcp::error_body(if status >= 500 { -32603 } else { -32001 }, description, id)),
    }
}

/// The challenges of a 401, of a 400 for a token, and of a lack of scope (RFC 6750 §3, RFC 9449 §7.1): one
/// for each scheme that would do, Bearer first, since some clients read no further.
fn challenges(error: &Error, surface: &Surface, status: u16, code: &str) -> Vec<String> {
    match surface {
        Surface::Resource { schemes, .. } => {
            let dpop_only = matches!(error, Error::Dpop { .. });
            let schemes: &[Scheme] = if dpop_only { &[Scheme::Dpop] } else { schemes };
            let schemes = schemes.iter();
            let schemes =
                schemes.filter_map(|scheme| challenge(error, surface, *scheme, status, code));
            schemes.collect()
        }
        _ => challenge(error, surface, Scheme::Bearer, status, code).into_iter().collect(),
    }
}

fn challenge(
    error: &Error,
    surface: &Surface,
    scheme: Scheme,
    status: u16,
    code: &str,
) -> Option<String> {
    match surface {
        Surface::TokenEndpoint(issuer) if status == 401 => {
            Some(format!("Basic realm=\"{}\"", quoted(issuer)))
        }
        Surface::Resource { resource_metadata, scope, .. } => {
            let scope = match error {
                // The token is not what is wrong.
                Error::Mcp(_) | Error::ProtocolVersion(_) => return None,
                // MCP, Scope Challenge Handling: all that this operation needs, at once.
                Error::InsufficientScope(needed) => needed.as_str(),
                _ if matches!(status, 400 | 401) => &**scope,
                _ => return None,
            };
            let mut challenge = match scheme {
                Scheme::Bearer => "Bearer realm=\"mcp\"".to_owned(),
                Scheme::Dpop => format!("DPoP algs=\"{}\"", dpop::algorithm_names().join(" ")),
            };
            // RFC 6750 §3.1: no error code when no credentials were sent.
            if *error != Error::NoToken {
                challenge.push_str(&format!(", error=\"{code}\""));
            }
            challenge.push_str(&format!(", resource_metadata=\"{}\"", quoted(resource_metadata)));
            if !scope.is_empty() {
                challenge.push_str(&format!(", scope=\"{}\"", quoted(scope)));
            }
            if let Error::InsufficientAuthentication { acr_values, max_age } = error {
                push_step_up(&mut challenge, acr_values.as_deref(), *max_age);
            }
            Some(challenge)
        }
        Surface::GlobalTokenRevocation if status == 401 => Some(match error {
            Error::NoToken => "Bearer realm=\"revocation\"".to_owned(),
            _ => format!("Bearer realm=\"revocation\", error=\"{code}\""),
        }),
        Surface::Upgrade if status == 401 => {
            let mut challenge = "Bearer realm=\"mcp\"".to_owned();
            if *error != Error::NoCredential {
                challenge.push_str(&format!(", error=\"{code}\""));
            }
            // What the identity provider asked for.
            if let Error::Exchange(JobError::StepUp { acr_values, max_age }) = error {
                push_step_up(&mut challenge, acr_values.as_deref(), *max_age);
            }
            Some(challenge)
        }
        _ => None,
    }
}

/// RFC 9470 §3: how the user has to authenticate.
fn push_step_up(challenge: &mut String, acr_values: Option<&str>, max_age: Option<u64>) {
    if let Some(values) = acr_values {
        challenge.push_str(&format!(", acr_values=\"{}\"", quoted(values)));
    }
    if let Some(seconds) = max_age {
        challenge.push_str(&format!(", max_age=\"{seconds}\""));
    }
}

/// `text` as the inside of a quoted-string (RFC 9110 §5.6.4): printable ASCII, escaped.
fn quoted(text: &str) -> String {
    let printable = text.chars().filter(|letter| (' '..='~').contains(letter));
    printable.fold(String::new(), |mut quoted, letter| {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
        quoted
    })
}
