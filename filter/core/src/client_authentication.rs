//! Authentication of clients at our token endpoint (RFC 6749 §2.3): `client_secret_basic`,
//! `client_secret_post`, `private_key_jwt`, `tls_client_auth` and `self_signed_tls_client_auth`; `none`
//! for clients with metadata that say so.

use crate::client_assertion::{Expected, Received};
use crate::client_certificate::ClientCertificate;
use crate::client_discovery::{self, Described};
use crate::config::{RegisteredClient, RegisteredCredential, TokenEndpoint};
use crate::digest::sha256;
use crate::error::{ClientFault, Error};
use crate::flow::Ctx;
use crate::form::{self, Form};
use crate::http::Request;
use crate::jwk::KeySet;
use crate::jws::{Algorithm, Fault};
use crate::names;
use crate::replay::{self, Spend};
use crate::secret::same_digest;
use crate::site::Site;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::rc::Rc;

/// Algorithms that client assertions may be signed with, as published in our metadata.
pub const CLIENT_ASSERTION_ALGORITHMS: &[Algorithm] =
    &[Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA];

/// A client that proved who it is, unless it [`Client::is_public`] or proves that to a guarded server
/// only.
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// Its registration, or what its metadata document says in the place of one.
    pub registration: Rc<RegisteredClient>,
    /// Whether it may use the JWT bearer grant: its document may list other grants only.
    pub may_use_jwt_bearer: bool,
}

impl Client {
    /// Whether it proved nothing: whoever has a grant of its may be anybody.
    pub fn is_public(&self) -> bool {
        matches!(self.registration.credential, RegisteredCredential::Public)
    }

    fn registered((id, registration): (&String, &Rc<RegisteredClient>)) -> Self {
        let (id, registration) = (id.clone(), registration.clone());
        Self { id, registration, may_use_jwt_bearer: true }
    }

    fn described(id: &str, Described { registration, may_use_jwt_bearer }: Described) -> Self {
        Self { id: id.to_owned(), registration, may_use_jwt_bearer }
    }
}

/// The client that sent this request.
///
/// Exactly one method, the one it is registered for; well-formed; a client that is registered, or
/// whose metadata document is at a listed host, and that proves itself; and a `client_id` parameter, if
/// there is one, that names the same client. A request without any credential comes from a public
/// client, which is refused unless its document and the configuration let it be one.
///
/// A client assertion is spent by this: it counts once, until it ends. Does *not* check that the client
/// may use a grant, nor that a public client's grant is bound to a key.
pub async fn authenticate(
    ctx: &Ctx,
    site: &Site,
    endpoint: &TokenEndpoint,
    request: &Request,
    form: &Form,
) -> Result<Client, Error> {
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
        _ if assertion.is_some() => by_assertion(ctx, site, endpoint, form).await?,
        (Some(header), _) => {
            let (id, secret) = basic(header).ok_or(Error::Client(ClientFault::MalformedBasic))?;
            match secret.as_str() {
                // RFC 6749 §2.3.1: a client without a secret may send an empty one.
                "" if !endpoint.clients.contains_key(&id) => {
                    by_nothing(ctx, site, endpoint, &id).await?
                }
                secret => by_secret(&id, secret, endpoint)?,
            }
        }
        (None, Some(secret)) => {
            let id = form.get("client_id").ok_or(Error::Client(ClientFault::NoCredential))?;
            by_secret(id, secret, endpoint)?
        }
        (None, None) => {
            let named = form.get("client_id").unwrap_or_default();
            match by_certificate(named, request.certificate.as_ref(), endpoint)? {
                Some(client) => client,
                None => by_nothing(ctx, site, endpoint, named).await?,
            }
        }
    };
    if form.get("client_id").is_some_and(|named| named != client.id) {
        return Err(Error::Client(ClientFault::Mismatch));
    }
    Ok(client)
}

/// A public client. Nothing is fetched where none is admitted.
async fn by_nothing(
    ctx: &Ctx,
    site: &Site,
    endpoint: &TokenEndpoint,
    id: &str,
) -> Result<Client, Error> {
    let documents = endpoint.client_documents.as_ref();
    let admitted = documents.is_some_and(|documents| documents.allow_public)
        && !endpoint.clients.contains_key(id);
    let fetch = client_discovery::find(endpoint, id).filter(|_| admitted);
    let fetch = fetch.ok_or(Error::Client(ClientFault::NoCredential))?;
    let client =
        Client::described(id, client_discovery::described(ctx, site, &fetch, &|_| true).await?);
    match client.is_public() {
        true => Ok(client),
        false => Err(Error::Client(ClientFault::MethodNotRegistered)),
    }
}

fn by_secret(id: &str, secret: &str, endpoint: &TokenEndpoint) -> Result<Client, Error> {
    let registered = endpoint.clients.get_key_value(id);
    // An unknown client costs the same work as a wrong secret.
    let expected = match registered.map(|(_, client)| &client.credential) {
        Some(RegisteredCredential::SecretSha256(digest)) => *digest,
        _ => [0; 32],
    };
    let proven = same_digest(&sha256(secret.as_bytes()), &expected);
    match registered {
        Some(registered) if proven || proves_elsewhere(registered.1) => {
            Ok(Client::registered(registered))
        }
        _ => Err(Error::Client(ClientFault::NotAuthenticated)),
    }
}

/// Whether it is the server behind that this client proves itself to.
fn proves_elsewhere(client: &RegisteredClient) -> bool {
    matches!(client.credential, RegisteredCredential::Elsewhere)
}

/// RFC 8705 §2: the client names itself, and the connection's certificate is the one it is registered
/// with. `None` if it is not registered for that: a certificate alone is no request to be known by it.
fn by_certificate(
    named: &str,
    certificate: Option<&ClientCertificate>,
    endpoint: &TokenEndpoint,
) -> Result<Option<Client>, Error> {
    let Some(client) = endpoint.clients.get_key_value(named) else {
        return Ok(None);
    };
    if proves_elsewhere(client.1) {
        return Ok(Some(Client::registered(client)));
    }
    let RegisteredCredential::Certificate(registered) = &client.1.credential else {
        return Ok(None);
    };
    match certificate.is_some_and(|certificate| registered.matches(certificate)) {
        true => Ok(Some(Client::registered(client))),
        false => Err(Error::Client(ClientFault::NotAuthenticated)),
    }
}

/// RFC 7521 §4.2, RFC 7523 §2.2. Whatever is wrong with the assertion is `invalid_client`, never
/// `invalid_grant` (RFC 7523 §3.2).
async fn by_assertion(
    ctx: &Ctx,
    site: &Site,
    endpoint: &TokenEndpoint,
    form: &Form,
) -> Result<Client, Error> {
    let fault = |fault| Error::Client(ClientFault::Assertion(fault));
    if form.get("client_assertion_type") != Some(names::CLIENT_ASSERTION_TYPE) {
        return Err(Error::Client(ClientFault::MethodNotOffered));
    }
    let assertion = form.get("client_assertion").unwrap_or_default().as_bytes();
    let received = Received::parse(assertion, CLIENT_ASSERTION_ALGORITHMS).map_err(fault)?;
    let id = received.subject().map_err(fault)?;
    let client = match endpoint.clients.get_key_value(id) {
        Some(registered) => Client::registered(registered),
        None => {
            let fetch = client_discovery::find(endpoint, id);
            let fetch = fetch.ok_or(Error::Client(ClientFault::NotAuthenticated))?;
            let knows = |keys: &KeySet| received.is_known_to(keys);
            Client::described(id, client_discovery::described(ctx, site, &fetch, &knows).await?)
        }
    };
    let keys = match &client.registration.credential {
        RegisteredCredential::Keys(keys) => keys,
        RegisteredCredential::Elsewhere => return Ok(client),
        _ => return Err(Error::Client(ClientFault::MethodNotRegistered)),
    };
    let expected = Expected {
        client_id: &client.id,
        issuer: endpoint.issuer.as_str(),
        token_endpoint: endpoint.accept_token_endpoint_audience.then_some(endpoint.url.as_str()),
        now: ctx.now(),
        skew: endpoint.rules.skew,
    };
    let once = received.verify(keys, &expected).map_err(fault)?;
    let until = once.expires_at.saturating_add(endpoint.rules.skew).saturating_add(1);
    let kind = replay::Kind::ClientAssertion;
    let name = replay::name(endpoint.issuer.as_str(), &client.id, &once.jti, 0);
    match replay::spend(&*site.store, kind, &name, until, ctx.now()) {
        Ok(Spend::First) => Ok(client),
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
