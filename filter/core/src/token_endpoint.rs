//! The token endpoint of our Resource AS: an ID-JAG in, an access token out (RFC 6749 §3.2, RFC 7523
//! §2.1, ID-JAG §4.4).
//!
//! The order of the checks: cheap ones first; the client before any work on the grant; nothing of
//! the payload is believed before the signature; single use is spent last, so that nobody can burn
//! a grant that is not theirs.

use crate::access_token;
use crate::client_authentication::{Client, authenticate};
use crate::config::{Accept, AuthorizationServer, Config, IdentityProvider, Kind};
use crate::digest::{base64url, short_digest};
use crate::error::Error;
use crate::flow::Ctx;
use crate::form::Form;
use crate::http::Request;
use crate::id_jag::{self, IdJag};
use crate::jws::{Fault, MAX_TOKEN};
use crate::names;
use crate::replay::{self, Spend};
use crate::reply::Reply;
use crate::site::Site;
use serde_json::json;
use std::rc::Rc;

/// Largest form read.
pub const MAX_FORM: usize = 64 * 1024;
/// Most scope tokens in one list.
const MAX_SCOPE: usize = 100;

/// What can be said before the body is there: method, query, content type and encoding, rate limit.
pub fn check_head(site: &Site, request: &Request, now: u64) -> Result<(), Error> {
    let server = server(&site.config)?;
    if request.method() != "POST" {
        return Err(Error::MethodNotAllowed("POST"));
    }
    // RFC 6749 §2.3.1: credentials must not be in the URI. Neither must anything else.
    if request.query().is_some_and(|query| !query.is_empty()) {
        return Err(Error::QueryAtTokenEndpoint);
    }
    let media_type = request.headers.text("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(names::FORM) {
        return Err(Error::ContentType);
    }
    let mut encodings = request.headers.all("content-encoding");
    if !encodings.all(|encoding| encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Error::ContentEncoding);
    }
    let length = request.headers.text("content-length").and_then(|n| n.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_FORM) {
        return Err(Error::BodyTooLarge);
    }
    let address = request.source.rsplit_once(':').map_or(&*request.source, |(address, _)| address);
    let source: &[&[u8]] = &[b"source", address.as_bytes()];
    if !site.limits.borrow_mut().admit(source, server.per_source_per_minute, now) {
        return Err(Error::RateLimited);
    }
    Ok(())
}

/// Handles a token request whose head has passed [`check_head`].
pub async fn handle(
    ctx: Ctx,
    site: Rc<Site>,
    request: Request,
    body: Vec<u8>,
) -> Result<Reply, Error> {
    let server = server(&site.config)?;
    if body.len() > MAX_FORM {
        return Err(Error::BodyTooLarge);
    }
    let form = Form::parse(&body).map_err(Error::Form)?;
    match form.get("grant_type") {
        None => return Err(Error::MissingParameter("grant_type")),
        Some(names::GRANT_JWT_BEARER) => {}
        Some(_) => return Err(Error::UnsupportedGrantType),
    }

    let client = authenticate(&request.headers, &form, server, &*site.store, ctx.now())?;
    let limit = server.per_client_per_minute;
    let who: &[&[u8]] = &[b"client", client.id.as_bytes()];
    if !site.limits.borrow_mut().admit(who, limit, ctx.now()) {
        return Err(Error::RateLimited);
    }

    let assertion = form.get("assertion").ok_or(Error::MissingParameter("assertion"))?;
    if assertion.len() > MAX_TOKEN {
        return Err(Error::AssertionTooLarge);
    }
    let requested = requested(&form)?;

    let (grant, provider) = verify(&ctx, &site, server, &client, assertion).await?;

    let (resource, accept) = target(&site.config, &grant, &requested)?;
    authenticated_enough(provider, &grant, ctx.now(), server.skew)?;
    let scope = granted_scope(accept, &grant, &requested)?;

    let until = grant.expires_at.saturating_add(server.skew).saturating_add(1);
    let audience = server.issuer.as_str();
    let store = &*site.store;
    match replay::spend(
        store,
        replay::Kind::Grant,
        audience,
        &grant.issuer,
        &grant.jti,
        until,
        ctx.now(),
    ) {
        Ok(Spend::First) => {}
        Ok(Spend::Again) => return Err(Error::IdJag(Fault::Replayed)),
        Ok(Spend::Full) | Err(_) => return Err(Error::ReplayStore),
    }

    let random = ctx.random();
    let token = access_token::issue(
        &server.signing_key,
        &access_token::Grant {
            issuer: server.issuer.as_str(),
            resource,
            subject_issuer: &grant.issuer,
            tenant: grant.tenant.as_deref(),
            subject: &grant.subject,
            client_id: client.id,
            scope: &scope,
            authentication: &grant.authentication,
            jti: &base64url(random.split_at(16).0),
            now: ctx.now(),
            lifetime: server.access_token_lifetime,
        },
    );
    // Who, for what, on whose word; the grant and the user by digests, which tell nobody anything but
    // let the identity provider's log be matched.
    site.info(format!(
        "issued client={:?} issuer={:?} resource={resource:?} scope={scope:?} jti={} sub={}",
        client.id,
        grant.issuer,
        short_digest(&grant.jti),
        short_digest(&grant.subject),
    ));
    // RFC 6749 §5.1; ID-JAG §4.4.2: scope and resource always, a refresh token never.
    Ok(Reply::json(
        200,
        &json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": server.access_token_lifetime,
            "scope": scope,
            "resource": resource,
        }),
    ))
}

/// The scope tokens in `text` (RFC 6749 §3.3); `None` if it is no list of them.
pub fn scope_tokens(text: &str) -> Option<Vec<&str>> {
    let allowed = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    let tokens: Vec<&str> = text.split(' ').collect();
    let sound = tokens.iter().all(|token| !token.is_empty() && token.bytes().all(allowed));
    (sound && tokens.len() <= MAX_SCOPE).then_some(tokens)
}

/// The optional parameters of the grant.
struct Requested<'a> {
    scope: Option<Vec<&'a str>>,
    resources: Vec<&'a str>,
}

fn server(config: &Config) -> Result<&AuthorizationServer, Error> {
    config.authorization_server.as_ref().ok_or(Error::NotFound)
}

fn requested(form: &Form) -> Result<Requested<'_>, Error> {
    let scope = match form.get("scope") {
        None => None,
        Some(text) => Some(scope_tokens(text).ok_or(Error::ScopeSyntax)?),
    };
    let resources: Vec<&str> = form.all("resource").collect();
    if resources.iter().any(|resource| crate::http::Url::parse(resource).is_none()) {
        return Err(Error::Target);
    }
    if form.get("authorization_details").is_some() {
        return Err(Error::AuthorizationDetails);
    }
    Ok(Requested { scope, resources })
}

/// The ID-JAG in `assertion`, verified with the keys of the issuer it names, which must be one of
/// ours and one of this client's.
async fn verify<'a>(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &'a AuthorizationServer,
    client: &Client<'_>,
    assertion: &str,
) -> Result<(IdJag, &'a IdentityProvider), Error> {
    let providers = &server.identity_providers;
    let algorithms: Vec<_> =
        providers.iter().flat_map(|provider| provider.algorithms.iter().copied()).collect();
    let received =
        id_jag::Received::parse(assertion.as_bytes(), &algorithms).map_err(Error::IdJag)?;

    let issuer = received.issuer().map_err(Error::IdJag)?;
    let provider = providers
        .iter()
        .find(|provider| provider.party.issuer.as_str() == issuer)
        .ok_or(Error::IdJag(Fault::Issuer))?;
    if !received.is_signed_with_one_of(&provider.algorithms) {
        return Err(Error::IdJag(Fault::AlgorithmNotAllowed));
    }
    let keys = site.keys(ctx, &provider.party, |keys| received.is_known_to(keys)).await?;

    let expected = id_jag::Expected {
        issuer: provider.party.issuer.as_str(),
        audience: server.issuer.as_str(),
        client_id: client.id,
        max_lifetime: provider.max_id_jag_lifetime,
        now: ctx.now(),
        skew: server.skew,
    };
    let grant = received.verify(&keys, &expected).map_err(Error::IdJag)?;
    may_speak_for(provider, client)?;
    Ok((grant, provider))
}

fn may_speak_for(provider: &Rc<IdentityProvider>, client: &Client<'_>) -> Result<(), Error> {
    let approved = &client.registration.identity_providers;
    match approved.iter().any(|other| Rc::ptr_eq(other, provider)) {
        true => Ok(()),
        false => Err(Error::IdJag(Fault::IssuerNotForClient)),
    }
}

/// The user authenticated as the issuer's entry in the configuration asks: in one of these ways, and
/// not too long ago. A grant that does not say is not enough.
fn authenticated_enough(
    provider: &IdentityProvider,
    grant: &IdJag,
    now: u64,
    skew: u64,
) -> Result<(), Error> {
    let IdentityProvider { required_acr, max_auth_age, .. } = provider;
    let acr = grant.authentication.acr.as_ref();
    let strong = required_acr.is_empty() || acr.is_some_and(|acr| required_acr.contains(acr));
    let recent = max_auth_age.is_none_or(|age| {
        let since = grant.authentication.auth_time.map(|time| now.saturating_sub(time));
        since.is_some_and(|since| since <= age.saturating_add(skew))
    });
    if strong && recent {
        return Ok(());
    }
    Err(Error::InsufficientAuthentication {
        acr_values: (!required_acr.is_empty()).then(|| required_acr.join(" ")),
        max_age: *max_auth_age,
    })
}

/// The one resource the token will open (RFC 8707 §2). Everything the grant names must be governed
/// here; the request may choose among it.
fn target<'a>(
    config: &'a Config,
    grant: &IdJag,
    requested: &Requested<'_>,
) -> Result<(&'a str, &'a Accept), Error> {
    let governed = || {
        config.resources.iter().filter_map(|resource| match &resource.kind {
            Kind::Accept(accept) => Some((resource.resource.as_str(), accept)),
            Kind::Upgrade(_) => None,
        })
    };
    let find = |name: &str| governed().find(|(resource, _)| *resource == name);

    let claimed = grant.resources.as_deref().unwrap_or_default();
    if claimed.iter().any(|name| find(name).is_none()) {
        return Err(Error::IdJag(Fault::Resource));
    }
    let in_grant =
        |name: &str| grant.resources.is_none() || claimed.iter().any(|claimed| claimed == name);
    match (requested.resources.as_slice(), claimed) {
        ([first, rest @ ..], _) => {
            let one = rest.iter().all(|other| other == first) && in_grant(first);
            find(first).filter(|_| one).ok_or(Error::Target)
        }
        ([], [only]) => find(only).ok_or(Error::Target),
        ([], []) => {
            let mut all = governed();
            all.next().filter(|_| all.next().is_none()).ok_or(Error::Target)
        }
        ([], _) => Err(Error::Target),
    }
}

/// Requested ∩ granted ∩ offered, in the order of the grant. A grant without `scope` delegates the
/// configured defaults, never everything.
fn granted_scope(
    accept: &Accept,
    grant: &IdJag,
    requested: &Requested<'_>,
) -> Result<String, Error> {
    let claimed: Vec<&str> = match &grant.scope {
        Some(scope) => scope.split(' ').filter(|token| !token.is_empty()).collect(),
        None => accept.default_scopes.iter().map(String::as_str).collect(),
    };
    let wanted = |token: &&&str| match &requested.scope {
        Some(scope) => scope.contains(*token),
        None => true,
    };
    let offered = |token: &&&str| accept.scopes.iter().any(|scope| scope == **token);
    let granted: Vec<&str> =
        claimed.iter().filter(wanted).filter(offered).take(MAX_SCOPE).copied().collect();
    let asked = requested.scope.is_some() || !claimed.is_empty();
    if granted.is_empty() && asked {
        return Err(Error::NoScopeLeft);
    }
    Ok(granted.join(" "))
}
