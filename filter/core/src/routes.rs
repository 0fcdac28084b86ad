//! Which of the configured endpoints a request is for.

use crate::caller;
use crate::config::{Config, Guard, Kind, Resource, Upgrade};
use crate::error::Error;
use crate::http::{Request, Url};
use crate::metadata;
use crate::names;
use crate::reply::Reply;
use crate::resource_server::{Edits, credential_headers};
use crate::revocation_endpoints::{self, Endpoint};
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
    if let Some(route) = own_endpoint(config, request, path)? {
        return Ok(route);
    }
    let authority = request.authority();
    if let Some(guard) = config.guards.iter().find(|guard| guard.endpoint.url.is_at(authority)) {
        return match path {
            path if path == guard.endpoint.url.path() => Ok(Route::Guard(guard.clone())),
            path if guard.paths.iter().any(|other| other == path) => {
                Ok(Route::Unjudged(Edits::default()))
            }
            _ => Err(Error::NotFound),
        };
    }
    if let Some(route) = metadata_behind(config, request, path)? {
        return Ok(route);
    }
    // The longest path wins, so that one resource may lie below another.
    config
        .resources
        .iter()
        .filter(|resource| resource.url.is_at(request.authority()))
        .filter(|resource| is_below(path, resource.url.path()))
        .max_by_key(|resource| resource.url.path().len())
        .map(|resource| Route::Resource(resource.clone()))
        .ok_or(Error::NotFound)
}

/// Paths that another parser could read as other paths.
pub fn is_ambiguous(path: &str) -> bool {
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

fn is_below(path: &str, base: &str) -> bool {
    let base = base.trim_end_matches('/');
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn own_endpoint(config: &Config, request: &Request, path: &str) -> Result<Option<Route>, Error> {
    let Some(server) = &config.authorization_server else {
        return Ok(None);
    };
    let document = |body, max_age| public(request, &metadata::document(&body, max_age));
    if server.issuer.is_at(request.authority()) {
        if path == server.endpoint.url.path() {
            return Ok(Some(Route::TokenEndpoint));
        }
        if let Some(endpoint) = revocation_endpoints::at(server, path) {
            return Ok(Some(Route::Revocation(endpoint)));
        }
        if path == server.jwks_uri.path() {
            return document(server.published_keys.clone(), 300).map(Some);
        }
        let well_known = server.issuer.with_well_known(names::WELL_KNOWN_AUTHORIZATION_SERVER);
        if path == well_known.path() {
            let scopes = scopes(config);
            let details = detail_types(config);
            let body = metadata::authorization_server(server, &scopes, &details);
            return document(body, 3600).map(Some);
        }
        if server.compat_authorization_endpoint
            && path == metadata::authorization_endpoint_path(server)
        {
            let body = serde_json::json!({ "error": "unsupported_response_type" });
            return Ok(Some(Route::Document(Reply::json(400, &body))));
        }
    }
    for resource in &config.resources {
        let well_known = resource.resource.with_well_known(names::WELL_KNOWN_PROTECTED_RESOURCE);
        if let Kind::Accept(accept) = &resource.kind
            && resource.resource.is_at(request.authority())
            && (path == well_known.path()
                || accept.metadata_at_root && path == names::WELL_KNOWN_PROTECTED_RESOURCE)
        {
            let body = metadata::protected_resource(server, resource, accept);
            return document(body, 3600).map(Some);
        }
    }
    Ok(None)
}

/// The metadata of a resource whose EMA clients pass untouched: the server behind has it, and they need it to
/// find their way (RFC 9728 §3.1; MCP, Protected Resource Metadata: or at the root). It is public: no credential
/// goes along.
fn metadata_behind(config: &Config, request: &Request, path: &str) -> Result<Option<Route>, Error> {
    let root = names::WELL_KNOWN_PROTECTED_RESOURCE;
    let here: Vec<&Upgrade> = config
        .resources
        .iter()
        .filter_map(|resource| match &resource.kind {
            Kind::Upgrade(upgrade) if upgrade.url.is_at(request.authority()) => Some(&**upgrade),
            _ => None,
        })
        .collect();
    let is_at = |url: &Url| path == root || path == url.with_well_known(root).path();
    if !here.iter().any(|upgrade| upgrade.passes_ema_clients && is_at(&upgrade.url)) {
        return Ok(None);
    }
    let presented: Vec<&str> = here.into_iter().flat_map(caller::headers).collect();
    let remove = credential_headers(request, &presented);
    match request.method() {
        "GET" | "HEAD" => Ok(Some(Route::Unjudged(Edits { remove, set: Vec::new() }))),
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

fn scopes(config: &Config) -> Vec<&str> {
    let mut scopes = Vec::new();
    for resource in &config.resources {
        if let Kind::Accept(accept) = &resource.kind {
            scopes.extend(accept.scopes.iter().map(String::as_str));
        }
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

fn detail_types(config: &Config) -> Vec<&str> {
    let mut types = Vec::new();
    for resource in &config.resources {
        if let Kind::Accept(accept) = &resource.kind {
            types.extend(accept.authorization_details.names());
        }
    }
    types.sort_unstable();
    types.dedup();
    types
}
