//! MCP requests to a resource we accept for: our token in, the backend's credential out (RFC 6750,
//! RFC 9068 §4, MCP authorization).

use crate::access_token;
use crate::config::{Accept, AuthorizationServer, Binding, Resource};
use crate::error::Error;
use crate::form;
use crate::http::Request;
use crate::jws::Fault;
use crate::names;
use crate::possession::{self, Scheme};
use crate::reply::{Reply, Surface, cors};
use crate::secret::Secret;
use crate::site::Site;
use crate::store::{Store, Unavailable};
use crate::verdicts::{Name, Verdict};
use std::rc::Rc;

/// What becomes of a request's head before it goes upstream.
#[derive(Debug, Default)]
pub struct Edits {
    /// Header fields to remove.
    pub remove: Vec<String>,
    /// What to put in, after the removal.
    pub set: Vec<(String, Secret)>,
}

/// How a request to an accepted resource goes on after its head.
pub enum Head {
    /// It is good for this token.
    Passed(Rc<Verdict>),
    /// It has a token of one of the resource's own authorization servers, or says so: the resource is
    /// asked to judge it.
    Foreign,
    /// A CORS preflight, answered here.
    Preflight(Reply),
}

/// Where refusals of this resource point the client to.
pub fn surface(
    server: Option<&AuthorizationServer>,
    resource: &Resource,
    accept: &Accept,
    request: &Request,
) -> Surface {
    let advertised = server.is_some_and(|server| server.dpop.advertised);
    let schemes: &[Scheme] = match accept.binding {
        Some(Binding::Dpop) => &[Scheme::Dpop],
        _ if advertised => &[Scheme::Bearer, Scheme::Dpop],
        _ => &[Scheme::Bearer],
    };
    Surface::Resource {
        resource_metadata: accept.resource_metadata.clone(),
        scope: accept.scope.clone(),
        origin: allowed_origin(resource, accept, request).map(str::to_owned),
        schemes,
        id: None,
    }
}

/// The page that asks, if there is one and it is allowed.
pub fn allowed_origin<'a>(
    resource: &Resource,
    accept: &Accept,
    request: &'a Request,
) -> Option<&'a str> {
    let origin = request.headers.text("origin")?;
    let mut allowed = accept.allowed_origins.iter().map(String::as_str);
    (origin == resource.resource.origin() || allowed.any(|other| other == origin)).then_some(origin)
}

/// Checks the head of a request in order: origin, preflight, no token in the query, one bearer token,
/// which is ours, for this resource, now; whether it was revoked; and what it is bound to.
///
/// Does *not* look at the body and does not judge scope against what the request does.
pub fn check_head(
    site: &Site,
    server: &AuthorizationServer,
    (resource, accept): (&Resource, &Accept),
    request: &Request,
    now: u64,
) -> Result<Head, Error> {
    // MCP transport: a browser page on another site must not reach the server.
    let origin = allowed_origin(resource, accept, request);
    if origin.is_none() && request.headers.has("origin") {
        return Err(Error::Origin);
    }
    if request.method() == "OPTIONS" && request.headers.has("access-control-request-method") {
        return Ok(Head::Preflight(preflight(origin)));
    }
    if has_token_in_query(request) {
        return Err(Error::TokenInQuery);
    }
    let (scheme, presented) = presented(request)?;
    let name = site.verdicts.borrow().name(presented);
    let known = site.verdicts.borrow_mut().get(name);
    let verdict = match known {
        Some(known) => known,
        None => {
            let issuer = server.issuer.as_str();
            let may_be_foreign = !accept.other_authorization_servers.is_empty();
            if may_be_foreign && !access_token::is_ours(presented, issuer) {
                return check_token68(presented).map(|()| Head::Foreign);
            }
            // What is ours is of that form.
            let verified = verify(site, server, presented, name);
            verified.or_else(|error| check_token68(presented).and(Err(error)))?
        }
    };
    let (token, audience) = (&verdict.token, resource.resource.as_str());
    if let Err(fault) = token.check(audience, now, server.endpoint.rules.skew) {
        // One that has ended takes no more room; one for another resource may be good there.
        if fault == Fault::Expired {
            site.verdicts.borrow_mut().forget(name);
        }
        return Err(Error::AccessToken(fault));
    }
    check_revocation(&*site.store, &verdict, now)?;
    // After an upgrade nothing is judged any more.
    if request.headers.has("upgrade") || request.headers.has(":protocol") {
        return Err(Error::Upgrade);
    }
    let shown = (token, presented, scheme);
    possession::check(site, server, (resource, accept), request, shown, now)?;
    Ok(Head::Passed(verdict))
}

/// Verifies a token, and remembers the verdict under `name`.
fn verify(
    site: &Site,
    server: &AuthorizationServer,
    token: &[u8],
    name: Name,
) -> Result<Rc<Verdict>, Error> {
    let verified = access_token::verify(token, &server.keys, server.issuer.as_str());
    let verdict = Rc::new(Verdict::new(verified.map_err(Error::AccessToken)?));
    site.verdicts.borrow_mut().keep(name, verdict.clone());
    Ok(verdict)
}

/// Whether a verified token has not been revoked at `now` (seconds since the epoch), by itself or with
/// its user.
pub fn check_revocation(store: &dyn Store, verdict: &Verdict, now: u64) -> Result<(), Error> {
    match verdict.is_revoked(store, now) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::AccessToken(Fault::Revoked)),
        Err(Unavailable) => Err(Error::RevocationStore),
    }
}

/// What becomes of the head of a request that goes on with what `swapped` says: no credential of the
/// client's travels on, nor anything it put where one of ours could stand.
pub fn edits(accept: &Accept, request: &Request, swapped: Vec<(String, Secret)>) -> Edits {
    Edits { remove: credential_headers(request, &accept.own_headers), set: swapped }
}

/// What becomes of the head of a request with a foreign token: the token stays, and nothing the client
/// put where a credential of ours could stand.
pub fn foreign_edits(accept: &Accept, request: &Request) -> Edits {
    let mut edits = edits(accept, request, Vec::new());
    edits.remove.retain(|name| !matches!(name.as_str(), "authorization" | "dpop" | "cookie"));
    edits
}

/// The fields of `request` that must not travel on: credentials, those named in `more`, and names
/// that are ours; in the spelling with `_` too, which many servers take for `-`.
pub fn credential_headers(request: &Request, more: &[String]) -> Vec<String> {
    let fixed = ["authorization", "cookie", "dpop", "proxy-authorization"];
    let all = || fixed.into_iter().chain(more.iter().map(String::as_str));
    // A bit for each length that is looked for: of nearly all names there is nothing more to look at.
    let lengths = all().fold(0u64, |bits, name| bits | 1 << (name.len() % 64));
    let mut remove = Vec::new();
    for (name, _) in request.headers.parts() {
        let is_of_that_length = lengths >> (name.len() % 64) & 1 == 1;
        let is_held_back = is_of_that_length
            && all().any(|other| is_read_alike(other.as_bytes(), name))
            || is_own(name);
        if is_held_back {
            // No proxy lets a name through that is no text.
            remove.extend(core::str::from_utf8(name).map(str::to_owned));
        }
    }
    remove.sort_unstable();
    remove.dedup();
    remove
}

/// Whether many servers read `name` as one of ours.
#[inline(always)]
fn is_own(name: &[u8]) -> bool {
    let prefix = names::OWN_HEADER_PREFIX.as_bytes();
    name.first() == prefix.first()
        && name.get(..prefix.len()).is_some_and(|own| is_read_alike(own, prefix))
}

/// Whether many servers read one name of a field as the other.
fn is_read_alike(one: &[u8], other: &[u8]) -> bool {
    let alike = |(a, b): (&u8, &u8)| a == b || matches!((a, b), (b'-', b'_') | (b'_', b'-'));
    one.len() == other.len() && one.iter().zip(other).all(alike)
}

/// Whether there is a token in the query, which no MCP server takes (RFC 6750 §2.3 is forbidden
/// there) and logs would keep.
pub fn has_token_in_query(request: &Request) -> bool {
    let is_token = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        form::decode(name).is_some_and(|name| name.eq_ignore_ascii_case("access_token"))
    };
    request.query().is_some_and(|query| query.split('&').any(is_token))
}

/// The bearer token of a request that takes no other kind (RFC 6750 §2.1).
pub fn bearer(request: &Request) -> Result<&[u8], Error> {
    match presented(request)? {
        (Scheme::Bearer, token) => check_token68(token).map(|()| token),
        (Scheme::Dpop, _) => Err(Error::WrongScheme),
    }
}

/// What is in the place of the access token: exactly one `Authorization`, of the Bearer or DPoP scheme.
///
/// Does *not* check its form, see [`check_token68`].
fn presented(request: &Request) -> Result<(Scheme, &[u8]), Error> {
    let mut headers = request.headers.all("authorization");
    let header = headers.next().ok_or(Error::NoToken)?;
    if headers.next().is_some() {
        return Err(Error::MalformedAuthorization);
    }
    let space = header.iter().position(|byte| *byte == b' ').unwrap_or(header.len());
    let (scheme, rest) = header.split_at(space);
    let token = rest.trim_ascii();
    let known = [(&b"bearer"[..], Scheme::Bearer), (b"dpop", Scheme::Dpop)];
    let known = known.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    let Some((_, known)) = known else {
        // RFC 6750 §3.1: a method we do not know is no authentication information.
        let is_scheme = scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        let known = is_scheme && !scheme.is_empty() && !token.is_empty();
        return Err(if known { Error::NoToken } else { Error::MalformedAuthorization });
    };
    Ok((*known, token))
}

/// RFC 6750 §2.1: a token is of the form `token68` (RFC 9110 §11.2).
fn check_token68(token: &[u8]) -> Result<(), Error> {
    let token68 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    match !token.is_empty() && token.iter().all(token68) {
        true => Ok(()),
        false => Err(Error::MalformedAuthorization),
    }
}

fn preflight(origin: Option<&str>) -> Reply {
    let mut headers = vec![
        ("access-control-allow-methods", "GET, POST, DELETE".to_owned()),
        (
            "access-control-allow-headers",
            "Authorization, DPoP, Content-Type, Accept, Last-Event-ID, MCP-Protocol-Version, \
             Mcp-Session-Id, Mcp-Method, Mcp-Name"
                .to_owned(),
        ),
    ];
    headers.extend(origin.into_iter().flat_map(cors));
    Reply { status: 204, headers, body: String::new() }
}
