//! Authentication of clients at our token endpoint (RFC 6749 §2.3): `client_secret_basic` and
//! `client_secret_post`.

use crate::config::{AuthorizationServer, RegisteredClient};
use crate::digest::sha256;
use crate::error::{ClientFault, Error};
use crate::form::{self, Form};
use crate::http::Headers;
use crate::secret::same_digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A client that proved who it is.
pub struct Client<'a> {
    /// Its `client_id`.
    pub id: &'a str,
    /// Its registration.
    pub registration: &'a RegisteredClient,
}

/// The client that sent this request.
///
/// Exactly one method; a well-formed header; a registered client; the right secret; and a
/// `client_id` parameter, if there is one, that names the same client. A request without any
/// credential comes from a public client, which is refused.
pub fn authenticate<'a>(
    headers: &Headers,
    form: &Form,
    server: &'a AuthorizationServer,
) -> Result<Client<'a>, Error> {
    let header = headers.all("authorization").collect::<Vec<_>>();
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
    if assertion.is_some() {
        return Err(Error::Client(ClientFault::MethodNotOffered));
    }
    let (id, secret) = match (header.first(), secret) {
        (Some(header), _) => basic(header).ok_or(Error::Client(ClientFault::MalformedBasic))?,
        (None, Some(secret)) => {
            let id = form.get("client_id").ok_or(Error::Client(ClientFault::NoCredential))?;
            (id.to_owned(), secret.to_owned())
        }
        (None, None) => return Err(Error::Client(ClientFault::NoCredential)),
    };

    let registered = server.clients.get_key_value(&id);
    // An unknown client costs the same work as a wrong secret.
    let expected = registered.map_or([0; 32], |(_, client)| client.secret_sha256);
    let proven = same_digest(&sha256(secret.as_bytes()), &expected);
    match registered {
        Some((id, registration)) if proven => {
            if form.get("client_id").is_some_and(|named| named != id) {
                return Err(Error::Client(ClientFault::Mismatch));
            }
            Ok(Client { id, registration })
        }
        _ => Err(Error::Client(ClientFault::NotAuthenticated)),
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
