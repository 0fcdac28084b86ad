//! Authentication of clients at our token endpoint (RFC 6749 §2.3): `client_secret_basic`,
//! `client_secret_post`, `private_key_jwt`,
//! `tls_client_auth` and `self_signed_tls_client_auth`.

use crate::client_assertion::{Expected, Received};
use crate::client_certificate::ClientCertificate;
use crate::config::{AuthorizationServer, RegisteredClient, RegisteredCredential};
use crate::digest::sha256;
use crate::error::{ClientFault, Error};
use crate::form::{self, Form};
use crate::http::Request;
use crate::jws::{Algorithm, Fault};
use crate::names;
use crate::replay::{self, Spend};
use crate::secret::same_digest;
use crate::store::Store;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Algorithms that client assertions may be signed with, as published in our metadata.
pub const CLIENT_ASSERTION_ALGORITHMS: &[Algorithm] =
    &[Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA];

/// A client that proved who it is.
pub struct Client<'a> {
    /// Its `client_id`.
    pub id: &'a str,
    /// Its registration.
    pub registration: &'a RegisteredClient,
}

/// The client that sent this request.
///
/// Exactly one method, the one it is registered for; well-formed; a registered client that proves
/// itself; and a `client_id` parameter, if there is one, that names the same client. A request
/// without any credential comes from a public client, which is refused.
///
/// A client assertion is spent by this: it counts once, until it ends.
pub fn authenticate<'a>(
    request: &Request,
    form: &Form,
    server: &'a AuthorizationServer,
    store: &dyn Store,
    now: u64,
) -> Result<Client<'a>, Error> {
    let header = request.headers.all("authorization").collect::<Vec<_>>();
    let secret = form.get("client_secret");
    let assertion = form.get("client_assertion").or(form.get("client_assertion_type"));
    // Envoy joins two fields into one with a comma, which neither Basic nor Bearer has.
    if header.iter().any(|value| value.contains(&b',')) {
        return Err(Error::SeveralClientAuthentications);
    }
    let methods = header.len() + usize::from(secret.is_some()) + usize::from(assertion.is_some());
    if methods > 1 {
        return Err(Error::SeveralClientAuthentications);
    }
    let client = match (header.first(), secret) {
        _ if assertion.is_some() => by_assertion(form, server, store, now)?,
        (Some(header), _) => {
            let (id, secret) = basic(header).ok_or(Error::Client(ClientFault::MalformedBasic))?;
            by_secret(&id, &secret, server)?
        }
        (None, Some(secret)) => {
            let id = form.get("client_id").ok_or(Error::Client(ClientFault::NoCredential))?;
            by_secret(id, secret, server)?
        }
        (None, None) => by_certificate(form, request.certificate.as_ref(), server)?,
    };
    if form.get("client_id").is_some_and(|named| named != client.id) {
        return Err(Error::Client(ClientFault::Mismatch));
    }
    Ok(client)
}

fn by_secret<'a>(
    id: &str,
    secret: &str,
    server: &'a AuthorizationServer,
) -> Result<Client<'a>, Error> {
    let registered = server.clients.get_key_value(id);
    // An unknown client costs the same work as a wrong secret.
    let expected = match registered.map(|(_, client)| &client.credential) {
        Some(RegisteredCredential::SecretSha256(digest)) => *digest,
        _ => [0; 32],
    };
    let proven = same_digest(&sha256(secret.as_bytes()), &expected);
    match registered {
        Some((id, registration)) if proven => Ok(Client { id, registration }),
        _ => Err(Error::Client(ClientFault::NotAuthenticated)),
    }
}

/// RFC 8705 §2: the client names itself, and the connection's certificate is the one it is registered
/// with. Only clients that are registered for that are looked at: a certificate alone is no request
/// to be known by it.
fn by_certificate<'a>(
    form: &Form,
    certificate: Option<&ClientCertificate>,
    server: &'a AuthorizationServer,
) -> Result<Client<'a>, Error> {
    let (Some(named), Some(certificate)) = (form.get("client_id"), certificate) else {
        return Err(Error::Client(ClientFault::NoCredential));
    };
    match server.clients.get_key_value(named) {
        Some((id, registration)) => match &registration.credential {
            RegisteredCredential::Certificate(registered) if registered.matches(certificate) => {
                Ok(Client { id, registration })
            }
            RegisteredCredential::Certificate(_) => {
                Err(Error::Client(ClientFault::NotAuthenticated))
            }
            _ => Err(Error::Client(ClientFault::NoCredential)),
        },
        None => Err(Error::Client(ClientFault::NoCredential)),
    }
}

/// RFC 7521 §4.2, RFC 7523 §2.2. Whatever is wrong with the assertion is `invalid_client`, never
/// `invalid_grant` (RFC 7523 §3.2).
fn by_assertion<'a>(
    form: &Form,
    server: &'a AuthorizationServer,
    store: &dyn Store,
    now: u64,
) -> Result<Client<'a>, Error> {
    let fault = |fault| Error::Client(ClientFault::Assertion(fault));
    if form.get("client_assertion_type") != Some(names::CLIENT_ASSERTION_TYPE) {
        return Err(Error::Client(ClientFault::MethodNotOffered));
    }
    let assertion = form.get("client_assertion").unwrap_or_default().as_bytes();
    let received = Received::parse(assertion, CLIENT_ASSERTION_ALGORITHMS).map_err(fault)?;
    let registered = server.clients.get_key_value(received.subject().map_err(fault)?);
    let Some((id, registration)) = registered else {
        return Err(Error::Client(ClientFault::NotAuthenticated));
    };
    let RegisteredCredential::Keys(keys) = &registration.credential else {
        return Err(Error::Client(ClientFault::MethodNotRegistered));
    };
    let expected = Expected {
        client_id: id,
        issuer: server.issuer.as_str(),
        token_endpoint: server
            .accept_token_endpoint_audience
            .then_some(server.token_endpoint.as_str()),
        now,
        skew: server.rules.skew,
    };
    let once = received.verify(keys, &expected).map_err(fault)?;
    let until = once.expires_at.saturating_add(server.rules.skew).saturating_add(1);
    let kind = replay::Kind::ClientAssertion;
    let name = replay::name(server.issuer.as_str(), id, &once.jti, 0);
    match replay::spend(store, kind, &name, until, now) {
        Ok(Spend::First) => Ok(Client { id, registration }),
        Ok(Spend::Again) => Err(fault(Fault::Replayed)),
        Ok(Spend::Full) | Err(_) => Err(Error::ReplayStore),
    }
}

/// RFC 6749 §2.3.1: identifier and secret are each form-encoded before they are joined.
fn basic(header: &[u8]) -> Option<(String, String)> {
    let header = core::str::from_utf8(header).ok()?;
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = STANDARD.decode(credentials.trim_matches(' ')).ok()?;
    let credentials = String::from_utf8(credentials).ok()?;
    let (id, secret) = credentials.split_once(':')?;
    Some((form::decode(id)?, form::decode(secret)?))
}
