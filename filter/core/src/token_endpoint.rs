//! The token endpoint of our Resource AS: an ID-JAG in, an access token out (RFC 6749 §3.2, RFC 7523
//! §2.1, ID-JAG §4.4).
//!
//! The order of the checks: cheap ones first; the client before any work on the grant; nothing of
//! the payload is believed before the signature; single use is spent last, so that nobody can burn
//! a grant that is not theirs.

use crate::access_token;
use crate::authorization_details::{self, Detail};
use crate::client_authentication::{Client, authenticate};
use crate::config::{Accept, AuthorizationServer, Config, Holder};
use crate::digest::{base64url, short_digest};
use crate::dpop;
use crate::error::Error;
use crate::flow::Ctx;
use crate::form::Form;
use crate::grant::{self, Presenter};
use crate::http::Request;
use crate::id_jag::IdJag;
use crate::jws::{Fault, MAX_TOKEN};
use crate::names;
use crate::possession;
use crate::reply::Reply;
use crate::site::Site;
use crate::subject::{LocalSubject, Subject};
use serde_json::{Value, json};
use std::rc::Rc;

/// Largest form read.
pub const MAX_FORM: usize = 64 * 1024;
/// Most scope tokens in one list.
const MAX_SCOPE: usize = 100;

/// What can be said before the body is there: method, query, content type and encoding, rate limit.
pub fn check_head(site: &Site, request: &Request, now: u64) -> Result<(), Error> {
    check_post(site, request, names::FORM, now)
}

/// As [`check_head`], for a body of this `media_type`.
pub fn check_post(site: &Site, request: &Request, media_type: &str, now: u64) -> Result<(), Error> {
    if request.method() != "POST" {
        return Err(Error::MethodNotAllowed("POST"));
    }
    // RFC 6749 §2.3.1: credentials must not be in the URI. Neither must anything else.
    if request.query().is_some_and(|query| !query.is_empty()) {
        return Err(Error::QueryAtTokenEndpoint);
    }
    let sent = request.headers.text("content-type").unwrap_or_default();
    let (sent, parameter) = sent.split_once(';').unwrap_or((sent, ""));
    let parameter = parameter.trim().to_ascii_lowercase().replace('"', "");
    // In another character set the same bytes are other parameters.
    if !sent.trim().eq_ignore_ascii_case(media_type)
        || !matches!(parameter.as_str(), "" | "charset=utf-8")
    {
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
    let server = site.config.authorization_server.as_ref();
    let limit = server.and_then(|server| server.per_source_per_minute);
    if !site.limits.borrow_mut().admit(source, limit, now) {
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
    let must_be_bound = match form.get("grant_type") {
        None => return Err(Error::MissingParameter("grant_type")),
        Some(names::GRANT_JWT_BEARER) => false,
        Some(names::GRANT_JWT_DPOP) if server.dpop.jwt_dpop_grant => true,
        Some(_) => return Err(Error::UnsupportedGrantType),
    };

    let client = authenticate(&ctx, &site, &server.endpoint, &request, &form).await?;
    if !client.may_use_jwt_bearer {
        return Err(Error::UnauthorizedClient);
    }
    let limit = server.per_client_per_minute;
    let who: &[&[u8]] = &[b"client", client.id.as_bytes()];
    if !site.client_limits.borrow_mut().admit(who, limit, ctx.now()) {
        return Err(Error::RateLimited);
    }

    let assertion = form.get("assertion").ok_or(Error::MissingParameter("assertion"))?;
    if assertion.len() > MAX_TOKEN {
        return Err(Error::AssertionTooLarge);
    }
    let requested = requested(&form)?;

    let uri = server.endpoint.url.as_str();
    let proof = possession::proof(
        &site,
        server.dpop.nonces.as_ref(),
        &request,
        uri,
        None,
        (ctx.now(), possession::WINDOW),
    )?;
    let proof = proof.as_ref();
    if client.registration.dpop_bound && proof.is_none() {
        // RFC 9449 §5.2
        return Err(Error::Dpop { fault: dpop::Fault::Missing, nonce: None });
    }

    let rules = &server.endpoint.rules;
    let trusts = &client.registration.identity_providers;
    let certificate = request.certificate.as_ref();
    let presenter = Presenter { client_id: &client.id, trusts, proof, certificate };
    let governed = |name: &str| site.config.accepted.contains_key(name);
    let grant = grant::verify(&ctx, &site, rules, &presenter, assertion, &governed).await?;
    // ID-JAG §9.1: anybody can name the URL of a public client; the key says that it is this one.
    if client.is_public() && !grant.id_jag.claims.contains_key("cnf") {
        return Err(Error::PublicClientUnbound);
    }

    if must_be_bound && grant.confirmation.as_ref().is_none_or(|cnf| cnf.jkt.is_none()) {
        return Err(Error::IdJag(Fault::Confirmation));
    }

    let (resource, accept) = target(&site.config, &grant.id_jag, &requested)?;
    let confirmation = possession::binding(&grant, accept, &request, proof)?;
    grant::authenticated_enough(&grant, ctx.now(), rules.skew)?;
    let subject = grant::subject(&grant)?;
    let details = granted_details(&site, server, resource, accept, &grant.id_jag, &requested)?;
    let scope = granted_scope(accept, &grant.id_jag, &requested)?;
    let subject = entitled(server, &client, resource, accept, subject, &scope)?;

    grant::check_revocation(&site, &grant, ctx.now())?;
    grant::spend(&ctx, &site, rules, server.issuer.as_str(), &grant).await?;
    // Spending may have waited for the fleet's store.
    grant::check_revocation(&site, &grant, ctx.now())?;

    let random = ctx.random();
    let token = access_token::issue(
        &server.signing_key,
        &access_token::Grant {
            issuer: server.issuer.as_str(),
            resource,
            subject: &subject,
            client_id: &client.id,
            scope: &scope,
            authorization_details: &details,
            authentication: &grant.id_jag.authentication,
            confirmation: confirmation.as_ref(),
            jti: &base64url(random.split_at(16).0),
            now: ctx.now(),
            lifetime: server.access_token_lifetime,
        },
    );
    // Who, for what, on whose word; the grant and the user by digests, which tell nobody anything but
    // let the identity provider's log be matched.
    site.done(
        "issued",
        format!(
            "issued client={:?} issuer={:?} resource={resource:?} scope={scope:?} jti={} sub={}",
            client.id,
            grant.id_jag.issuer,
            short_digest(&grant.id_jag.jti),
            short_digest(&grant.id_jag.subject),
        ),
    );
    // RFC 6749 §5.1; ID-JAG §4.4.2: scope and resource always, a refresh token never.
    let mut body = json!({
        "access_token": token,
        "token_type": if proof.is_some() { "DPoP" } else { "Bearer" },
        "expires_in": server.access_token_lifetime,
        "scope": scope,
        "resource": resource,
    });
    // RFC 9396 §7: as granted.
    if let Some(members) = body.as_object_mut().filter(|_| !details.is_empty()) {
        members.insert("authorization_details".into(), details.into());
    }
    Ok(Reply::json(200, &body))
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
    details: Option<Vec<Detail>>,
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
    let details = match form.get("authorization_details") {
        None => None,
        Some(text) => {
            let details = authorization_details::requested(text);
            Some(details.map_err(|_| Error::AuthorizationDetails)?)
        }
    };
    Ok(Requested { scope, resources, details })
}

/// The one resource the token will open (RFC 8707 §2). Everything the grant names is governed here;
/// the request may choose among it.
fn target<'a>(
    config: &'a Config,
    grant: &IdJag,
    requested: &Requested<'_>,
) -> Result<(&'a String, &'a Rc<Accept>), Error> {
    let find = |name: &str| config.accepted.get_key_value(name);
    let claimed = grant.resources.as_deref().unwrap_or_default();
    let in_grant =
        |name: &str| grant.resources.is_none() || claimed.iter().any(|claimed| claimed == name);
    match (requested.resources.as_slice(), claimed) {
        ([first, rest @ ..], _) => {
            let one = rest.iter().all(|other| other == first) && in_grant(first);
            find(first).filter(|_| one).ok_or(Error::Target)
        }
        ([], [only]) => find(only).ok_or(Error::Target),
        ([], []) => {
            let mut all = config.accepted.iter();
            all.next().filter(|_| all.next().is_none()).ok_or(Error::Target)
        }
        ([], _) => Err(Error::Target),
    }
}

/// Whether this client may have tokens for this resource, and whether there is a credential of the
/// backend for this user. A user whom only a linked e-mail address finds goes by that.
fn entitled(
    server: &AuthorizationServer,
    client: &Client,
    resource: &str,
    accept: &Accept,
    mut subject: Subject,
    scope: &str,
) -> Result<Subject, Error> {
    let denied = Error::Denied { status: server.access_denied_status };
    let allowed = &client.registration.resources;
    if !allowed.is_empty() && !allowed.contains(resource) {
        return Err(denied);
    }
    // Only groups that decide anything here go into the token.
    subject.groups.retain(|group| accept.credentials.ask_for_group(&subject.id.issuer, group));
    // The first entry that fits counts, by whichever name the user has.
    let email = subject.email.take();
    let (issuer, groups) = (subject.id.issuer.as_str(), subject.groups.as_slice());
    let place = |user: &LocalSubject| {
        let subject = &base64url(&user.key());
        accept.credentials.place(&Holder { subject, issuer, groups, scope })
    };
    match (place(&subject.local), email.as_ref().and_then(place), email) {
        (Some(own), linked, _) if linked.is_none_or(|linked| own <= linked) => Ok(subject),
        (_, Some(_), Some(email)) => Ok(Subject { local: email, ..subject }),
        _ => Err(denied),
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

/// The details to grant for `resource` (ID-JAG §4.4.1, RFC 9396 §5). A claim that is no list of details
/// is refused, whoever asks for what.
fn granted_details(
    site: &Site,
    server: &AuthorizationServer,
    resource: &str,
    accept: &Accept,
    grant: &IdJag,
    requested: &Requested<'_>,
) -> Result<Vec<Value>, Error> {
    const NAME: &str = "authorization_details";
    let types = &accept.authorization_details;
    let claimed = grant.claims.get(NAME).map(authorization_details::claimed).transpose();
    let claimed = claimed.map_err(|_| Error::IdJag(Fault::ClaimType(NAME)))?;
    let strict = server.strict_authorization_details;
    let details = requested.details.as_deref();
    let granted = authorization_details::granted(types, claimed.as_deref(), details, strict)
        .map_err(Error::AuthorizationDetailsRefused)?;
    let claimed = claimed.unwrap_or_default();
    let left_out = authorization_details::left_out(types, &claimed);
    if left_out > 0 {
        let (issuer, all) = (&grant.issuer, claimed.len());
        site.warn(format!(
            "{left_out} of {all} {NAME} of an ID-JAG of {issuer:?} are nothing to {resource:?}"
        ));
    }
    Ok(granted)
}
