//! Requests to a resource whose authorization server wants ID-JAGs, from callers who have none.

use crate::config::{Caller, Upgrade};
use crate::digest::{Key, sha256};
use crate::error::Error;
use crate::exchange::{self, Exchange};
use crate::flow::Ctx;
use crate::http::Request;
use crate::id_token;
use crate::job::{Job, JobError, Want};
use crate::resource_server::{Edits, credential_headers, has_token_in_query};
use crate::secret::{Secret, same_digest};
use crate::site::{Site, Token};
use crate::token_exchange::SubjectToken;
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
    let subject = caller(&upgrade, &request)?;
    let key = exchange::key(&upgrade, &subject);
    let token = match site.token(&key, ctx.now()) {
        // The same credential passed every check when this token was got, and still is in time.
        Some(token) if ctx.now() < token.refresh_at => token,
        _ => exchanged(&ctx, &site, &upgrade, subject, key).await?,
    };
    let keys = upgrade.callers.iter().filter_map(|caller| match caller {
        Caller::ApiKey { header, .. } => Some(header.as_str()),
        Caller::IdToken => None,
    });
    let remove = credential_headers(&request, &keys.collect::<Vec<_>>());
    let bearer = Secret::new(format!("Bearer {}", token.access_token.expose()));
    let edits = Edits { remove, set: vec![("authorization".to_owned(), bearer)] };
    Ok(Upgraded { edits, key, made_at: token.made_at })
}

/// The one credential of the request, as the subject it stands for.
///
/// An API key is compared by digest, in constant time, with every key there is. An ID Token is not
/// yet verified here.
fn caller(upgrade: &Upgrade, request: &Request) -> Result<SubjectToken, Error> {
    let mut headers: Vec<&str> = vec!["authorization"];
    for caller in &upgrade.callers {
        if let Caller::ApiKey { header, .. } = caller
            && !headers.contains(&header.as_str())
        {
            headers.push(header);
        }
    }
    let presented: Vec<(&str, &[u8])> = headers
        .iter()
        .flat_map(|name| request.headers.all(name).map(move |value| (*name, value)))
        .collect();
    let (name, value) = match presented.as_slice() {
        [] => return Err(Error::NoCredential),
        [only] => *only,
        _ => return Err(Error::SeveralCredentials),
    };
    let value = if name == "authorization" {
        // Envoy joins two fields into one with a comma, which no bearer token has.
        if value.contains(&b',') {
            return Err(Error::SeveralCredentials);
        }
        let (scheme, token) = value.split_at_checked(7).ok_or(Error::NoCredential)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Error::NoCredential);
        }
        token.trim_ascii()
    } else {
        value
    };

    let digest = sha256(value);
    let mut bound = None;
    for caller in &upgrade.callers {
        if let Caller::ApiKey { header, sha256, refresh_token } = caller
            && same_digest(sha256, &digest)
            && header == name
        {
            bound = Some(SubjectToken::RefreshToken(refresh_token.clone()));
        }
    }
    let takes_id_tokens = upgrade.callers.iter().any(|caller| matches!(caller, Caller::IdToken));
    match bound {
        Some(subject) => Ok(subject),
        None if name == "authorization" && takes_id_tokens => {
            let text = core::str::from_utf8(value)
                .map_err(|_| Error::IdToken(crate::jws::Fault::Charset))?;
            Ok(SubjectToken::IdToken(Secret::new(text)))
        }
        None => Err(Error::UnknownApiKey),
    }
}

/// The access token for `subject`, from the exchange that runs once for the whole process. An ID
/// Token is verified before anything is spent on it.
async fn exchanged(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Rc<Upgrade>,
    subject: SubjectToken,
    key: Key,
) -> Result<Rc<Token>, Error> {
    let subject_expires_at = match &subject {
        SubjectToken::RefreshToken(_) => None,
        SubjectToken::IdToken(token) => Some(verify(ctx, site, upgrade, token).await?),
    };
    let exchange = Exchange { key, upgrade: upgrade.clone(), subject, subject_expires_at };
    let job = Job::Exchange(Rc::new(exchange));
    let value = ctx.job(job, Want::Usable).await.map_err(Error::Exchange)?;
    let token = token_response::token(&value).ok_or(Error::Exchange(JobError::BadAnswer))?;
    Ok(site.keep_token(key, token))
}

/// Verifies an ID Token; returns when it expires.
async fn verify(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Upgrade,
    token: &Secret,
) -> Result<u64, Error> {
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
    Ok(token.expires_at.max(ctx.now().saturating_add(1)))
}
