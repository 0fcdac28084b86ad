//! Which of the configured endpoints a request is for.

mod index;

pub use index::Index;

use crate::config::{Config, Guard, Resource};
use crate::error::Error;
use crate::http::Request;
use crate::metadata;
use crate::reply::Reply;
use crate::resource_server::{Edits, credential_headers};
use crate::revocation_endpoints::Endpoint;
use index::{Fixed, Host};
use std::rc::Rc;

/// What a request is for.
pub enum Route {
    /// A public document, or the refusal of one.
    Document(Reply),
    /// The token endpoint.
    TokenEndpoint,
    /// An endpoint that takes revocations.
    Revocation(Endpoint),
    /// The token endpoint of another authorization server, which we guard.
    Guard(Rc<Guard>),
    /// Another path of such a server, or metadata of a resource that we do not speak for: it goes on
    /// unjudged, but for these edits.
    Unjudged(Edits),
    /// A resource.
    Resource(Rc<Resource>),
}

/// Finds what `request` is for. What is not configured does not exist.
///
/// Only the authority and the path decide, never a header that a client could set beside them.
pub fn route(config: &Config, request: &Request) -> Result<Route, Error> {
    let path = request.path();
    if is_ambiguous(path) {
        return Err(Error::AmbiguousPath);
    }
    let host = config.routes.host(request.authority()).ok_or(Error::NotFound)?;
    match host.fixed(path) {
        Some(Fixed::Document(reply)) => public(request, reply),
        Some(Fixed::Refusal(reply)) => Ok(Route::Document(reply.clone())),
        Some(Fixed::TokenEndpoint) => Ok(Route::TokenEndpoint),
        Some(Fixed::Revocation(endpoint)) => Ok(Route::Revocation(*endpoint)),
        Some(Fixed::Guard(guard)) => Ok(Route::Guard(guard.clone())),
        Some(Fixed::Unjudged) => Ok(Route::Unjudged(Edits::default())),
        Some(Fixed::MetadataBehind) => metadata_behind(host, request),
        None if host.is_guarded => Err(Error::NotFound),
        None => host.resource(path).cloned().map(Route::Resource).ok_or(Error::NotFound),
    }
}

/// Paths that another parser could read as other paths.
pub fn is_ambiguous(path: &str) -> bool {
    // As nearly all are: nothing in it that needs a closer look.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_');
    if path.bytes().all(plain) {
        let mut pairs = path.bytes().zip(path.bytes().skip(1));
        return !path.starts_with('/') || pairs.any(|pair| pair == (b'/', b'/'));
    }
    !path.starts_with('/')
        || path.contains(['\\', ';', '\0', '#'])
        || path.contains("//")
        || path.split('%').skip(1).any(is_escaped_for_nothing)
        || path.split('/').any(|segment| segment == "." || segment == "..")
}

/// Whether the two digits after a `%` stand for a letter, a digit, or what separates: something that other
/// parsers write out (RFC 3986 §2.3, §2.4), or no two digits at all.
fn is_escaped_for_nothing(rest: &str) -> bool {
    let byte = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"-._~/\\;\0%".contains(&byte))
}

/// The metadata of a resource that is the server's behind. It is public: no credential goes along.
fn metadata_behind(host: &Host, request: &Request) -> Result<Route, Error> {
    let remove = credential_headers(request, &host.presented);
    match request.method() {
        "GET" | "HEAD" => Ok(Route::Unjudged(Edits { remove, set: Vec::new() })),
        _ => Err(Error::MethodNotAllowed("GET, HEAD")),
    }
}

fn public(request: &Request, reply: &Reply) -> Result<Route, Error> {
    match request.method() {
        // Envoy leaves the body out of the answer to a HEAD, and tells its length.
        "GET" | "HEAD" => Ok(Route::Document(reply.clone())),
        "OPTIONS" => Ok(Route::Document(metadata::document_preflight())),
        _ => Err(Error::MethodNotAllowed("GET, HEAD")),
    }
}
