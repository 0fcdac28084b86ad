//! The endpoints of our Resource AS that take revocations: of one token, by the client it was issued to
//! (RFC 7009); of all that came of a user, by the identity provider or the operator (Global Token
//! Revocation) or by an event that the identity provider pushes (RFC 8935, OpenID CAEP).
//!
//! Who asks is known before what is asked is believed, and an answer of success means that every
//! worker of this process knows.

use crate::access_token;
use crate::client_assertion::Once;
use crate::client_authentication::authenticate;
use crate::config::{AuthorizationServer, IdentityProvider};
use crate::digest::{Key, sha256, short_digest};
use crate::error::Error;
use crate::flow::Ctx;
use crate::form::Form;
use crate::global_token_revocation as global;
use crate::http::{Request, Url};
use crate::jws::Fault;
use crate::names;
use crate::replay::{self, Spend};
use crate::reply::{Reply, Surface};
use crate::resource_server::bearer;
use crate::revocation::{self, Recorded};
use crate::secret::same_digest;
use crate::security_event;
use crate::site::Site;
use crate::store::Unavailable;
use crate::subject_id::SubjectId;
use crate::token_endpoint::{MAX_FORM, check_post};
use std::rc::Rc;

/// One of the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Of one token (RFC 7009).
    Token,
    /// Of one user (Global Token Revocation).
    User,
    /// For security events (RFC 8935).
    Events,
}

/// The endpoints of `server` that there are, each with its URL.
pub fn all(server: &AuthorizationServer) -> impl Iterator<Item = (&Url, Endpoint)> {
    let revocation = &server.revocation;
    let user = revocation.user.iter().map(|url| (url, Endpoint::User));
    let events = revocation.events.iter().map(|url| (url, Endpoint::Events));
    core::iter::once((&revocation.token, Endpoint::Token)).chain(user).chain(events)
}

/// The form of refusals at `endpoint`.
pub fn surface(endpoint: Endpoint, server: &AuthorizationServer) -> Surface {
    match endpoint {
        // RFC 7009 §2.2.1: "The error presentation conforms to the definition in Section 5.2 of [RFC6749]."
        Endpoint::Token => Surface::TokenEndpoint(server.issuer.as_str().to_owned()),
        Endpoint::User => Surface::GlobalTokenRevocation,
        Endpoint::Events => Surface::SecurityEvents,
    }
}

/// What can be said before the body is there: as at the token endpoint, and that there is a bearer
/// token where one is needed.
pub fn check_head(
    site: &Site,
    endpoint: Endpoint,
    request: &Request,
    now: u64,
) -> Result<(), Error> {
    let media_type = match endpoint {
        Endpoint::Token => names::FORM,
        Endpoint::User => names::JSON,
        Endpoint::Events => names::SECURITY_EVENT,
    };
    check_post(site, request, media_type, now)?;
    match endpoint {
        Endpoint::User => bearer(request).map(drop),
        Endpoint::Token | Endpoint::Events => Ok(()),
    }
}

/// Handles a request whose head has passed [`check_head`].
pub async fn handle(
    ctx: Ctx,
    site: Rc<Site>,
    endpoint: Endpoint,
    request: Request,
    body: Vec<u8>,
) -> Result<Reply, Error> {
    let server = site.config.authorization_server.as_ref().ok_or(Error::NotFound)?;
    if body.len() > MAX_FORM {
        return Err(Error::BodyTooLarge);
    }
    match endpoint {
        Endpoint::Token => token(&ctx, &site, server, &request, &body).await,
        Endpoint::User => user(&ctx, &site, server, &request, &body).await,
        Endpoint::Events => event(&ctx, &site, server, &body).await,
    }
}

/// RFC 7009 §2.1. `token_type_hint` is not needed: there is one type.
async fn token(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &AuthorizationServer,
    request: &Request,
    body: &[u8],
) -> Result<Reply, Error> {
    let form = Form::parse(body).map_err(Error::Form)?;
    let client = authenticate(ctx, site, &server.endpoint, request, &form).await?;
    let who: &[&[u8]] = &[b"client", client.id.as_bytes()];
    if !site.client_limits.borrow_mut().admit(who, server.per_client_per_minute, ctx.now()) {
        return Err(Error::RateLimited);
    }
    let token = form.get("token").ok_or(Error::MissingParameter("token"))?;
    // §2.2: "invalid tokens do not cause an error response since the client cannot handle such an
    // error in a reasonable way."
    let issuer = server.issuer.as_str();
    let Ok(issued) = access_token::identify(token.as_bytes(), &server.keys, issuer) else {
        return Ok(empty(200));
    };
    // §2.1: the server "verifies whether the token was issued to the client making the revocation
    // request. If this validation fails, the request is refused".
    if issued.client_id != client.id {
        return Err(Error::TokenOfAnotherClient);
    }
    let until = issued.expires_at.saturating_add(server.endpoint.rules.skew).saturating_add(1);
    recorded(revocation::revoke_token(&*site.store, &issued.jti, until, ctx.now()))?;
    let jti = short_digest(&issued.jti);
    site.done("revoked", format!("revoked token={jti} client={:?}", client.id));
    Ok(empty(200))
}

/// Global Token Revocation (draft-parecki-oauth-global-token-revocation §3).
async fn user(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &AuthorizationServer,
    request: &Request,
    body: &[u8],
) -> Result<Reply, Error> {
    let caller = caller(ctx, site, server, bearer(request)?).await?;
    let subject = global::subject(body).map_err(Error::RevocationSubject)?;
    let (by, provider) = match &caller {
        Caller::Operator => ("operator", trusted(server, &subject.issuer)),
        Caller::Provider(provider, _) => ("identity_provider", Some(*provider)),
    };
    // An identity provider speaks for its own users only.
    let speaks_for = |provider: &&Rc<_>| is_of(&subject, provider);
    let provider = provider.filter(speaks_for).ok_or(Error::ForeignSubject)?;
    let spent = match &caller {
        Caller::Provider(_, once) => Some(spend(ctx, site, server, provider, once)?),
        Caller::Operator => None,
    };
    let done = revoke_user(ctx, site, server, provider, &subject, ctx.now(), by);
    if let (Err(_), Some(name)) = (&done, &spent) {
        // Nothing was done for it: the provider may come again with the same token.
        let _ = replay::release(&*site.store, replay::Kind::Event, name);
    }
    done.map(|()| empty(204))
}

/// Who asks for a user's tokens to be revoked.
enum Caller<'a> {
    Operator,
    Provider(&'a Rc<IdentityProvider>, Once),
}

async fn caller<'a>(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &'a AuthorizationServer,
    token: &[u8],
) -> Result<Caller<'a>, Error> {
    let revocation = &server.revocation;
    if revocation.operator_token_sha256.is_some_and(|known| same_digest(&sha256(token), &known)) {
        return Ok(Caller::Operator);
    }
    let may_ask = |provider: &IdentityProvider| provider.revocation.global_token_revocation;
    let received = global::Received::parse(token, &revocation.user_algorithms)
        .map_err(Error::RevocationToken)?;
    let issuer = received.issuer().map_err(Error::RevocationToken)?;
    let provider = trusted(server, issuer)
        .filter(|provider| may_ask(provider))
        .ok_or(Error::RevocationToken(Fault::Issuer))?;
    if !received.is_signed_with_one_of(&provider.algorithms) {
        return Err(Error::RevocationToken(Fault::AlgorithmNotAllowed));
    }
    let keys = site.keys(ctx, &provider.party, |keys| received.is_known_to(keys)).await?;
    let endpoint = revocation.user.as_ref().ok_or(Error::NotFound)?;
    let expected = global::Expected {
        issuer: provider.party.issuer.as_str(),
        endpoint: endpoint.as_str(),
        now: ctx.now(),
        skew: server.endpoint.rules.skew,
    };
    let once = received.verify(&keys, &expected).map_err(Error::RevocationToken)?;
    Ok(Caller::Provider(provider, once))
}

/// Spends the token that authenticated `provider`: sent again, it would revoke what was issued since.
fn spend(
    ctx: &Ctx,
    site: &Site,
    server: &AuthorizationServer,
    provider: &IdentityProvider,
    once: &Once,
) -> Result<Key, Error> {
    let issuer = provider.party.issuer.as_str();
    let name = replay::name(server.issuer.as_str(), issuer, &once.jti, 0);
    let until = once.expires_at.saturating_add(server.endpoint.rules.skew).saturating_add(1);
    match replay::spend(&*site.store, replay::Kind::Event, &name, until, ctx.now()) {
        Ok(Spend::First) => Ok(name),
        Ok(Spend::Again) => Err(Error::RevocationToken(Fault::Replayed)),
        Ok(Spend::Full) | Err(Unavailable) => Err(Error::ReplayStore),
    }
}

/// A security event (RFC 8935 §2). One that is sound and none of ours to act upon is received all the
/// same.
async fn event(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &AuthorizationServer,
    body: &[u8],
) -> Result<Reply, Error> {
    let fault = |fault: Fault| Error::SecurityEvent(fault.into());
    let may_push = |provider: &IdentityProvider| provider.revocation.security_events.is_some();
    let algorithms = &server.revocation.event_algorithms;
    let received =
        security_event::Received::parse(body, algorithms).map_err(Error::SecurityEvent)?;
    let issuer = received.issuer().map_err(Error::SecurityEvent)?;
    let provider = trusted(server, issuer).filter(|provider| may_push(provider));
    let provider = provider.ok_or(fault(Fault::Issuer))?;
    if !received.is_signed_with_one_of(&provider.algorithms) {
        return Err(fault(Fault::AlgorithmNotAllowed));
    }
    let keys = site.keys(ctx, &provider.party, |keys| received.is_known_to(keys)).await?;
    let stream = provider.revocation.security_events.as_ref();
    let audience = stream.and_then(|stream| stream.audience.as_deref());
    let expected = security_event::Expected {
        issuer: provider.party.issuer.as_str(),
        audience: audience.unwrap_or(server.issuer.as_str()),
        now: ctx.now(),
        skew: server.endpoint.rules.skew,
        max_age: server.revocation.longest_life,
    };
    match received.verify(&keys, &expected) {
        Ok(event) => {
            revoke_user(ctx, site, server, provider, &event.subject, event.before, "event")?;
        }
        Err(security_event::Fault::Ignored) => {
            let issuer = provider.party.issuer.as_str();
            site.done("event_ignored", format!("ignored event issuer={issuer:?}"));
        }
        Err(fault) => return Err(Error::SecurityEvent(fault)),
    }
    Ok(empty(202))
}

/// Revokes what was issued to `subject` up to the second `before`.
fn revoke_user(
    ctx: &Ctx,
    site: &Site,
    server: &AuthorizationServer,
    provider: &IdentityProvider,
    subject: &SubjectId,
    before: u64,
    by: &str,
) -> Result<(), Error> {
    // A provider without tenants of its own to tell apart may name one here and none in its grants.
    let has_tenants = !provider.subjects.tenants.is_empty();
    let tenant = subject.tenant.as_deref().filter(|_| has_tenants);
    let origin = revocation::origin(&subject.issuer, tenant, &subject.subject);
    let now = ctx.now();
    let life = server.revocation.longest_life.saturating_add(server.endpoint.rules.skew);
    let until = now.saturating_add(life).saturating_add(1);
    recorded(revocation::revoke_origin(&*site.store, &origin, before, until, now))?;
    let (issuer, sub) = (provider.party.issuer.as_str(), short_digest(&subject.subject));
    site.done("revoked", format!("revoked issuer={issuer:?} sub={sub} by={by}"));
    Ok(())
}

fn trusted<'a>(server: &'a AuthorizationServer, issuer: &str) -> Option<&'a Rc<IdentityProvider>> {
    server.endpoint.rules.identity_providers.get(issuer)
}

fn is_of(subject: &SubjectId, provider: &IdentityProvider) -> bool {
    subject.issuer == provider.party.issuer.as_str()
}

fn recorded(result: Result<Recorded, Unavailable>) -> Result<(), Error> {
    match result {
        Ok(Recorded::Listed) => Ok(()),
        Ok(Recorded::Full) | Err(Unavailable) => Err(Error::RevocationStore),
    }
}

fn empty(status: u16) -> Reply {
    let headers = vec![("cache-control", "no-store".to_owned())];
    Reply { status, headers, body: String::new() }
}
