//! Requests to a resource whose authorization server wants ID-JAGs, from callers who have none.

use crate::caller::{self, Known, SubjectToken};
use crate::config::Upgrade;
use crate::digest::Key;
use crate::error::Error;
use crate::exchange::{self, Exchange};
use crate::flow::Ctx;
use crate::http::Request;
use crate::id_token;
use crate::job::{Job, JobError, Want};
use crate::resource_server::{Edits, credential_headers, has_token_in_query};
use crate::secret::Secret;
use crate::site::{Site, Token};
use crate::token_exchange::decoded;
use crate::token_response;
use std::rc::Rc;

/// Clock skew allowed for ID Tokens, in seconds.
const SKEW: u64 = 60;

/// A request that goes on, and the token it goes on with.
#[derive(Debug)]
pub struct Upgraded {
    /// What becomes of its head.
    pub edits: Edits,
    /// Key of the token, to drop it if the server refuses it.
    pub key: Key,
    /// When the token was got.
    pub made_at: u64,
}

/// Identifies the caller, gets the access token for it (from the cache if there is one), and swaps
/// the credential.
pub async fn handle(
    ctx: Ctx,
    site: Rc<Site>,
    upgrade: Rc<Upgrade>,
    request: Request,
) -> Result<Upgraded, Error> {
    if has_token_in_query(&request) {
        return Err(Error::TokenInQuery);
    }
    let known = caller::identify(&upgrade, &request)?;
    let (key, token) = token(&ctx, &site, &upgrade, known, upgrade.scope.clone()).await?;
    let remove = credential_headers(&request, &caller::headers(&upgrade));
    let bearer = Secret::new(format!("Bearer {}", token.access_token.expose()));
    let edits = Edits { remove, set: vec![("authorization".to_owned(), bearer)] };
    Ok(Upgraded { edits, key, made_at: token.made_at })
}

/// The access token of `known` with `scope`, and its key.
async fn token(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Rc<Upgrade>,
    known: Known,
    scope: String,
) -> Result<(Key, Rc<Token>), Error> {
    let key = exchange::key(upgrade, &known, &scope);
    if let Some(token) = site.token(&key, ctx.now()).filter(|token| ctx.now() < token.refresh_at) {
        // The same credential passed every check when this token was got, and still is in time.
        return Ok((key, token));
    }
    let (subject, subject_expires_at) = subject(ctx, site, upgrade, &known).await?;
    let exchange = Rc::new(Exchange {
        key,
        upgrade: upgrade.clone(),
        caller: known,
        scope,
        subject_expires_at,
        subject,
    });
    let value = match upgrade.caches {
        true => ctx.job(Job::Exchange(exchange), Want::Usable).await,
        // Nothing is kept, so nothing is shared: this request goes the whole way itself.
        false => exchange::run(ctx.clone(), site.clone(), exchange).await,
    };
    let value = value.map_err(Error::Exchange)?;
    let token = token_response::token(&value).ok_or(Error::Exchange(JobError::BadAnswer))?;
    Ok((key, if upgrade.caches { site.keep_token(key, token) } else { Rc::new(token) }))
}

/// Who the caller's subject token says it is, and when that ends. What a caller brings itself is verified
/// before anything is spent on it; what the operator bound is only read.
async fn subject(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Upgrade,
    known: &Known,
) -> Result<(Option<String>, Option<u64>), Error> {
    match &known.subject {
        SubjectToken::IdToken(token) if known.is_own => {
            let (subject, ends) = verify(ctx, site, upgrade, token).await?;
            Ok((Some(subject), Some(ends)))
        }
        SubjectToken::IdToken(token) => {
            let claims = decoded(token.expose()).map(|(_, claims)| claims);
            let claim = claims.as_ref().and_then(|claims| claims.get("sub")?.as_str());
            Ok((claim.map(str::to_owned), None))
        }
        SubjectToken::RefreshToken { .. } | SubjectToken::ClientCredentials(_) => Ok((None, None)),
    }
}

/// Verifies an ID Token; returns whose it is and when it expires.
async fn verify(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Upgrade,
    token: &Secret,
) -> Result<(String, u64), Error> {
    let provider = &upgrade.identity_provider;
    let token = token.expose().as_bytes();
    let received =
        id_token::Received::parse(token, &provider.algorithms).map_err(Error::IdToken)?;
    let keys = site.keys(ctx, &provider.party, |keys| received.is_known_to(keys)).await?;
    let expected = id_token::Expected {
        issuer: provider.party.issuer.as_str(),
        client_id: &upgrade.idp_client.id,
        now: ctx.now(),
        skew: SKEW,
    };
    let token = received.verify(&keys, &expected).map_err(Error::IdToken)?;
    // Skew forgives clocks; it does not lengthen the life of what is cached.
    Ok((token.subject, token.expires_at.max(ctx.now().saturating_add(1))))
}
