//! The guard: grants of another authorization server's token endpoint, validated before it sees them.
//!
//! A JWT bearer grant passes the same checks as at our own endpoint, tenants and single use included,
//! and goes on byte for byte. The server behind authenticates the client (again), decides and issues.

use crate::authorization_details::{self, Refusal};
use crate::client_authentication::authenticate;
use crate::config::Guard;
use crate::dpop;
use crate::error::Error;
use crate::flow::Ctx;
use crate::form::{self, Form};
use crate::grant::{self, Presenter, Spent};
use crate::http::{Request, Url};
use crate::id_jag::{self, IdJag};
use crate::names;
use crate::possession;
use crate::site::Site;
use crate::token_endpoint::{self, scope_tokens};
use serde_json::Value;
use std::rc::Rc;

/// What can be said before the body is there, as at our own token endpoint.
pub fn check_head(site: &Site, request: &Request, now: u64) -> Result<(), Error> {
    token_endpoint::check_post(site, request, names::FORM, now)
}

/// Judges a token request whose head has passed [`check_head`]. `Ok`: it goes on, as it came.
///
/// Returns what was spent: if the server behind issues nothing for it because the client did not prove
/// itself there, or because it wants a nonce of its own, the grant is to be released. Does *not* decide
/// what is granted.
pub async fn check(
    ctx: &Ctx,
    site: &Rc<Site>,
    guard: &Guard,
    request: &Request,
    body: &[u8],
) -> Result<Option<Spent>, Error> {
    if body.len() > token_endpoint::MAX_FORM {
        return Err(Error::BodyTooLarge);
    }
    let form = Form::parse(body).map_err(Error::Form)?;
    // Once a separator of parameters as good as `&`.
    if body.contains(&b';') {
        return Err(Error::Form(form::Fault::Syntax));
    }
    if !form.names().all(is_read_alike) {
        return Err(Error::Form(form::Fault::Syntax));
    }
    match form.get("grant_type") {
        None => return Err(Error::MissingParameter("grant_type")),
        Some(names::GRANT_JWT_BEARER | names::GRANT_JWT_DPOP) => {}
        // An ID-JAG under another name would be one that nobody has judged.
        Some(other)
            if guard.passes_other_grants
                && !JUDGED.contains(&&*other.trim().to_ascii_lowercase())
                && !form.values().any(id_jag::is_named_one) =>
        {
            return Ok(None);
        }
        Some(_) => return Err(Error::UnsupportedGrantType),
    }
    let endpoint = &guard.endpoint;
    let client = authenticate(ctx, site, endpoint, request, &form).await?;
    let assertion = form.get("assertion").ok_or(Error::MissingParameter("assertion"))?;
    if form.get("scope").is_some_and(|scope| scope_tokens(scope).is_none()) {
        return Err(Error::ScopeSyntax);
    }
    let uri = endpoint.url.as_str();
    if client.registration.dpop_bound && dpop::proof(&request.headers) == Ok(None) {
        return Err(Error::Dpop { fault: dpop::Fault::Missing, nonce: None });
    }
    let proof = possession::proof(site, None, request, uri, None, (ctx.now(), possession::WINDOW))?;

    let presenter = Presenter {
        client_id: &client.id,
        trusts: &client.registration.identity_providers,
        proof: proof.as_ref(),
        certificate: None,
    };
    let own = &client.registration.resources;
    let allowed = if own.is_empty() { &guard.resources } else { own };
    let governed = |name: &str| allowed.contains(name);
    let rules = &endpoint.rules;
    let grant = grant::verify(ctx, site, rules, &presenter, assertion, &governed).await?;
    check_request(&governed, &form, &grant.id_jag)?;
    grant::authenticated_enough(&grant, ctx.now(), rules.skew)?;
    grant::subject(&grant)?;
    grant::check_revocation(site, &grant, ctx.now())?;
    let spent = grant::spend(ctx, site, rules, endpoint.issuer.as_str(), &grant).await?;
    site.done("guarded", format!("passed client={:?} issuer={:?}", client.id, grant.id.issuer));
    Ok(spent)
}

/// Grant types that are judged, however the server behind may take them.
const JUDGED: [&str; 2] = [names::GRANT_JWT_BEARER, names::GRANT_JWT_DPOP];

/// Parameters that mean something here. Some servers read other names as theirs.
const MEANT: [&str; 9] = [
    "assertion",
    "authorization_details",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "resource",
    "scope",
];

/// Whether no server could take the parameter `name` for another: one of letters, digits, `-` and `_`, and
/// none that differs by case or `-` only from one that means something.
fn is_read_alike(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let folded = name.to_ascii_lowercase().replace('-', "_");
    name.bytes().all(plain) && (MEANT.contains(&name) || !MEANT.contains(&&*folded))
}

/// Nothing is asked for that the grant does not hold: the server behind may not look. A grant without
/// `scope` delegates none.
fn check_request(governed: &dyn Fn(&str) -> bool, form: &Form, grant: &IdJag) -> Result<(), Error> {
    let claimed = grant.resources.as_deref().unwrap_or_default();
    for resource in form.all("resource") {
        let in_grant = claimed.is_empty() || claimed.iter().any(|other| other == resource);
        if Url::parse(resource).is_none() || !governed(resource) || !in_grant {
            return Err(Error::Target);
        }
    }
    if let Some(scope) = form.get("scope") {
        let granted: Vec<&str> = grant.scope.as_deref().unwrap_or_default().split(' ').collect();
        if !scope.split(' ').all(|token| granted.contains(&token)) {
            return Err(Error::NoScopeLeft);
        }
    }
    if let Some(details) = form.get("authorization_details") {
        authorization_details::requested(details).map_err(|_| Error::AuthorizationDetails)?;
        let asked: Vec<Value> = serde_json::from_str(details).unwrap_or_default();
        let claimed = grant.claims.get("authorization_details").and_then(Value::as_array);
        if !asked.iter().all(|one| claimed.is_some_and(|claimed| claimed.contains(one))) {
            return Err(Error::AuthorizationDetailsRefused(Refusal::Request));
        }
    }
    Ok(())
}
