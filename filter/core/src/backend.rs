//! The credential that the server behind knows, in the place of the client's token (MCP
//! authorization, token passthrough; RFC 6749 §4.4; RFC 8693).
//!
//! It is chosen by what the verified access token says, never by the request. The client's token
//! goes nowhere.

use crate::access_token::AccessToken;
use crate::config::{
    Accept, AuthorizationServer, BackendAs, Credential, Holder, IdentityHeader, Resource,
};
use crate::digest::{Key, base64url, of_fields};
use crate::error::Error;
use crate::flow::Ctx;
use crate::job::{Job, JobError, Value, Want};
use crate::names;
use crate::secret::Secret;
use crate::site::{Site, Token};
use crate::token_call;
use crate::token_response::{self, Granted, error_code, success};
use serde_json::json;
use std::rc::Rc;

/// Life of a JWT that tells who calls, in seconds.
const IDENTITY_LIFETIME: u64 = 60;
/// Longest time a token of the backend's authorization server is used, in seconds.
const MAX_AGE: u64 = 300;

/// How a bearer token for a backend is got.
#[derive(Debug)]
pub struct Fetch {
    /// Digest of everything that makes the token what it is.
    pub key: Key,
    /// From where.
    pub backend: Rc<BackendAs>,
    /// On whose behalf, if the token is a user's: a JWT of ours for that authorization server.
    pub subject_token: Option<Secret>,
}

/// What the server behind gets.
#[derive(Debug, Default)]
pub struct Swapped {
    /// Header fields.
    pub set: Vec<(String, Secret)>,
    /// The token among them that comes from the backend's authorization server: its key, and when it
    /// was got.
    pub token: Option<(Key, u64)>,
}

/// The credential for the holder of `token`, and the header that tells who it is.
///
/// [`Error::NoBackendCredential`] if nothing is for this holder: nobody goes on without a credential.
pub async fn swap(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &AuthorizationServer,
    resource: &Resource,
    accept: &Accept,
    token: &AccessToken,
) -> Result<Swapped, Error> {
    let (mut swapped, backend) = configured(accept, token)?;
    if let Some(backend) = backend {
        let fetched = fetched(ctx, site, server, backend, token).await?;
        swapped.set.push(("authorization".to_owned(), fetched.1.sent.clone()));
        swapped.token = Some((fetched.0, fetched.1.made_at));
    }
    if let Some(header) = &accept.identity_header {
        let jwt = identity_header(ctx, site, server, resource, header, token);
        swapped.set.push((header.name.clone(), jwt));
    }
    Ok(swapped)
}

/// As [`swap`], if all of it is at hand: `None` if something must be got or made.
pub fn at_hand(
    site: &Site,
    resource: &Resource,
    accept: &Accept,
    token: &AccessToken,
    now: u64,
) -> Result<Option<Swapped>, Error> {
    let (mut swapped, backend) = configured(accept, token)?;
    if backend.is_some() {
        return Ok(None);
    }
    if let Some(header) = &accept.identity_header {
        let Some(kept) = site.token(&identity_key(resource, header, token), now) else {
            return Ok(None);
        };
        swapped.set.push((header.name.clone(), kept.sent.clone()));
    }
    Ok(Some(swapped))
}

/// What the configuration has for the holder of `token`: a credential, or where a token has to be got.
fn configured<'a>(
    accept: &'a Accept,
    token: &AccessToken,
) -> Result<(Swapped, Option<&'a Rc<BackendAs>>), Error> {
    let holder = holder(token);
    let mut swapped = Swapped::default();
    match accept.credentials.first(&holder).ok_or(Error::NoBackendCredential)? {
        Credential::None => {}
        Credential::Header(name, value) => swapped.set.push((name.clone(), value.clone())),
        Credential::Token(backend) => return Ok((swapped, Some(backend))),
    }
    Ok((swapped, None))
}

/// What a credential is chosen by.
pub fn holder(token: &AccessToken) -> Holder<'_> {
    Holder {
        subject: &token.subject,
        issuer: &token.id.issuer,
        groups: &token.groups,
        scope: &token.scope,
    }
}

/// The JWT that tells the server behind who calls: kept for half its life.
fn identity_header(
    ctx: &Ctx,
    site: &Site,
    server: &AuthorizationServer,
    resource: &Resource,
    header: &IdentityHeader,
    token: &AccessToken,
) -> Secret {
    let key = identity_key(resource, header, token);
    let now = ctx.now();
    if let Some(kept) = site.token(&key, now) {
        return kept.sent.clone();
    }
    let sent = identity(ctx, server, &header.audience, token);
    let usable_until = now.saturating_add(IDENTITY_LIFETIME / 2);
    let made = Token {
        sent,
        begins: 0,
        bound: false,
        made_at: now,
        refresh_at: usable_until,
        usable_until,
        proof_key: Default::default(),
    };
    site.keep_token(key, made).sent.clone()
}

/// What such a JWT is kept under.
fn identity_key(resource: &Resource, header: &IdentityHeader, token: &AccessToken) -> Key {
    of_fields(&[
        b"identity",
        resource.resource.as_str().as_bytes(),
        header.audience.as_bytes(),
        token.jti.as_bytes(),
        token.subject.as_bytes(),
        &token.id.key(),
    ])
}

/// A JWT of ours that says to `audience` who the holder of `token` is. Its `typ` is no other token's.
fn identity(
    ctx: &Ctx,
    server: &AuthorizationServer,
    audience: &str,
    token: &AccessToken,
) -> Secret {
    let now = ctx.now();
    let mut claims = json!({
        "iss": server.issuer.as_str(),
        "aud": audience,
        "sub": token.subject,
        "sub_id": token.id.to_value(),
        "client_id": token.client_id,
        "scope": token.scope,
        "iat": now,
        "exp": now.saturating_add(IDENTITY_LIFETIME),
        "jti": base64url(ctx.random().split_at(16).0),
    });
    if let Some(claims) = claims.as_object_mut().filter(|_| !token.authorization_details.is_empty())
    {
        claims.insert("authorization_details".into(), token.authorization_details.clone().into());
    }
    Secret::new(server.signing_key.sign(names::TYP_IDENTITY, &claims))
}

/// The token of the backend's authorization server: from the cache, or fetched once for the process.
async fn fetched(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &AuthorizationServer,
    backend: &Rc<BackendAs>,
    token: &AccessToken,
) -> Result<(Key, Rc<Token>), Error> {
    let key = key(backend, token);
    if let Some(token) = site.token(&key, ctx.now()).filter(|token| ctx.now() < token.refresh_at) {
        return Ok((key, token));
    }
    let audience = backend.party.issuer.as_str();
    let subject_token = backend.on_behalf.then(|| identity(ctx, server, audience, token));
    let job = Job::Backend(Rc::new(Fetch { key, backend: backend.clone(), subject_token }));
    let value = ctx.job(job, Want::Usable).await.map_err(Error::Backend)?;
    let token = token_response::token(&value).ok_or(Error::Backend(JobError::BadAnswer))?;
    Ok((key, site.keep_token(key, token)))
}

/// Never shared between users, clients or what they were granted, if the token is on their behalf.
fn key(backend: &BackendAs, token: &AccessToken) -> Key {
    let BackendAs { party, client, scope, resource, on_behalf } = backend;
    let endpoint = party.token_endpoint.as_ref().map_or("", |url| url.as_str());
    let resource = resource.as_ref().map_or("", |url| url.as_str());
    let details = json!(token.authorization_details).to_string();
    let mut fields: Vec<&[u8]> = vec![
        b"backend",
        party.issuer.as_str().as_bytes(),
        party.cluster.as_bytes(),
        endpoint.as_bytes(),
        client.id.as_bytes(),
        scope.as_bytes(),
        resource.as_bytes(),
    ];
    // Two identity providers may mean one user here; the JWT that is exchanged names one of the two.
    let who: &[u8] = &token.id.key();
    if *on_behalf {
        fields.extend([
            token.subject.as_bytes(),
            who,
            token.client_id.as_bytes(),
            token.scope.as_bytes(),
            details.as_bytes(),
        ]);
    }
    of_fields(&fields)
}

/// Gets the token: a client credentials grant, or an exchange of the JWT that names the user.
pub async fn run(ctx: Ctx, site: Rc<Site>, fetch: Rc<Fetch>) -> Result<Value, JobError> {
    let BackendAs { party, client, scope, resource, .. } = &*fetch.backend;
    let mut fields = match &fetch.subject_token {
        None => vec![("grant_type", names::GRANT_CLIENT_CREDENTIALS)],
        Some(token) => vec![
            ("grant_type", names::GRANT_TOKEN_EXCHANGE),
            ("subject_token", token.expose()),
            ("subject_token_type", names::TOKEN_TYPE_JWT),
            ("requested_token_type", names::TOKEN_TYPE_ACCESS_TOKEN),
        ],
    };
    if !scope.is_empty() {
        fields.push(("scope", scope));
    }
    fields.extend(resource.iter().map(|url| ("resource", url.as_str())));
    let answer = token_call::post(&ctx, &site, party, client, &fields, None, false).await?;

    let granted = success(&answer).and_then(|body| Granted::bearer(&body));
    let value = granted.map(|granted| granted.to_value(ctx.now(), MAX_AGE, ctx.random()[0]));
    value.map_err(|error| {
        let (path, status, code) = (&party.path, answer.status, error_code(&answer));
        site.warn(format!("{path}: {status} {code}: {error:?}"));
        // Whatever it is, it is between that server and us.
        if error.is_refusal() { JobError::Misconfigured } else { error }
    })
}
