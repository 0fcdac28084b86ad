//! What a request shows to hold besides its token: a key (DPoP, RFC 9449) or a certificate (RFC 8705).

use crate::access_token::AccessToken;
use crate::config::{Accept, AuthorizationServer, Binding, Resource};
use crate::confirmation::Confirmation;
use crate::dpop::{self, Fault, Nonces, Proof};
use crate::error::Error;
use crate::grant::Grant;
use crate::http::Request;
use crate::jws;
use crate::replay::{self, Spend};
use crate::site::Site;

/// How far the `iat` of a proof may be from now, in seconds.
pub const WINDOW: u64 = 60;
/// The same where the proof must be for the body too: what the MCP extension for DPoP demands.
const WINDOW_WITH_BODY: u64 = 300;

/// The DPoP proof of `request`, if there is one, good for `uri` and, at a resource, for `token`. It is
/// spent: a proof counts once for its key and URI. With `nonces` it must have one of those; its `iat`
/// is at most `window` seconds from `now`.
pub fn proof(
    site: &Site,
    nonces: Option<&Nonces>,
    request: &Request,
    uri: &str,
    token: Option<&[u8]>,
    (now, window): (u64, u64),
) -> Result<Option<Proof>, Error> {
    let fault = |fault| {
        let wants_nonce = fault == Fault::Nonce;
        let fresh = nonces.filter(|_| wants_nonce).map(|nonces| nonces.fresh(now));
        Error::Dpop { fault, nonce: fresh }
    };
    let Some(proof) = dpop::proof(&request.headers).map_err(fault)? else {
        return Ok(None);
    };
    let (method, engine) = (request.method(), Some(&site.config.engine));
    let expected = dpop::Expected { method, uri, access_token: token, now, window, nonces, engine };
    let proof = dpop::verify(proof, &expected).map_err(fault)?;
    let name = replay::name(uri, &proof.thumbprint, &proof.jti, 0);
    match replay::spend(&*site.store, replay::Kind::Proof, &name, proof.until, now) {
        Ok(Spend::First) => Ok(Some(proof)),
        Ok(Spend::Again) => Err(fault(Fault::Replayed)),
        Ok(Spend::Full) | Err(_) => Err(Error::ReplayStore),
    }
}

/// What a token for this grant is bound to (ID-JAG §9.8.1.2): to the key of the proof if there is one,
/// to the certificate if the grant is or the resource asks for it, to both if so.
///
/// A grant that is bound itself must be presented with what it is bound to, and a resource that takes
/// bound tokens only gets no other: [`jws::Fault::Confirmation`].
pub fn binding(
    grant: &Grant<'_>,
    accept: &Accept,
    request: &Request,
    proof: Option<&Proof>,
) -> Result<Option<Confirmation>, Error> {
    let certificate = request.certificate.as_ref();
    let by_certificate = accept.binding == Some(Binding::Certificate)
        || grant.confirmation.as_ref().is_some_and(|cnf| cnf.x5t_s256.is_some());
    let jkt = proof.map(|proof| proof.thumbprint.clone());
    let x5t_s256 = certificate.filter(|_| by_certificate).map(|shown| shown.x5t_s256());
    let enough = match accept.binding {
        None => true,
        Some(Binding::Dpop) => jkt.is_some(),
        Some(Binding::Certificate) => x5t_s256.is_some(),
    };
    if !enough {
        return Err(Error::IdJag(jws::Fault::Confirmation));
    }
    Ok((jkt.is_some() || x5t_s256.is_some()).then_some(Confirmation { jkt, x5t_s256 }))
}

/// Whether `request` shows what `token` is bound to (RFC 9449 §7, RFC 8705 §3): a token bound to a key
/// comes with the DPoP scheme and a proof of that key, any other with the Bearer scheme, and a
/// resource that takes bound tokens only gets no other.
pub fn check(
    site: &Site,
    server: &AuthorizationServer,
    at: (&Resource, &Accept),
    request: &Request,
    (token, presented, scheme): (&AccessToken, &[u8], Scheme),
    now: u64,
) -> Result<(), Error> {
    let (resource, accept) = at;
    let jkt = token.confirmation.as_ref().is_some_and(|cnf| cnf.jkt.is_some());
    let x5t = token.confirmation.as_ref().is_some_and(|cnf| cnf.x5t_s256.is_some());
    if jkt != (scheme == Scheme::Dpop) {
        return Err(Error::WrongScheme);
    }
    let proof = match jkt {
        false => None,
        true => {
            // RFC 9449 §4.3 (9): the URI as the client addressed it, by configuration, and not by
            // headers.
            let uri = format!("{}{}", resource.url.origin(), request.path());
            let nonces = server.dpop.nonces.as_ref();
            let covers_body = accept.mcp.as_ref().is_some_and(|mcp| mcp.content_digest);
            let window = if covers_body { WINDOW_WITH_BODY } else { WINDOW };
            proof(site, nonces, request, &uri, Some(presented), (now, window))?
        }
    };
    let certificate = request.certificate.as_ref().map(|certificate| &certificate.sha256);
    let holds = |cnf: &Confirmation| cnf.holds(proof.as_ref(), certificate);
    let enough = match accept.binding {
        None => true,
        Some(Binding::Dpop) => jkt,
        Some(Binding::Certificate) => x5t,
    };
    match enough && token.confirmation.as_ref().is_none_or(holds) {
        true => Ok(()),
        false => Err(Error::AccessToken(jws::Fault::Confirmation)),
    }
}

/// The scheme a token came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750 §2.1.
    Bearer,
    /// RFC 9449 §7.1.
    Dpop,
}
