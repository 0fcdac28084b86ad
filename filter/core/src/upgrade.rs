//! Requests to a resource whose authorization server wants ID-JAGs, from callers who have none.

use crate::caller::{self, Known};
use crate::caller_token::{self, Verified};
use crate::config::Upgrade;
use crate::digest::{Key, of_fields};
use crate::dpop_proof::ProofKey;
use crate::error::Error;
use crate::exchange::{self, Exchange};
use crate::flow::Ctx;
use crate::http::{Headers, Request, RequestId, Url};
use crate::job::{Job, JobError, Want};
use crate::resend::is_kept;
use crate::resource_server::{Edits, credential_headers, has_token_in_query};
use crate::secret::Secret;
use crate::site::{Site, Token};
use crate::token_response;
use std::rc::Rc;

/// A request that goes on.
pub struct Upgraded {
    /// What becomes of its head.
    pub edits: Edits,
    /// What it goes on with; `None`: it passes as it came.
    pub sent: Option<Rc<Sent>>,
    /// Its head as it goes on, if it may be sent once more.
    pub went: Option<Headers>,
}

/// A caller, and what is made of its credential once.
pub struct Caller {
    /// Who it is.
    pub known: Known,
    /// Key of its token without any scope.
    pub base: Key,
    /// Key of its token with the scope that is configured.
    key: Key,
}

/// What a request went on with: enough to do better if the server refuses it.
pub struct Sent {
    /// The way.
    pub upgrade: Rc<Upgrade>,
    /// Who calls.
    pub caller: Rc<Caller>,
    /// Scope that was asked for.
    pub scope: String,
    /// Key of the token.
    pub key: Key,
    /// The token.
    pub token: Rc<Token>,
    /// The proxy's identifier of the request.
    pub request_id: RequestId,
}

impl core::fmt::Debug for Sent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Sent({})", self.upgrade.resource.as_str())
    }
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
    if upgrade.passes_ema_clients && caller::speaks_ema(&upgrade, &request) {
        return Ok(Upgraded { edits: passed(&upgrade, &request), sent: None, went: None });
    }
    let tag = tag(&site, &upgrade, &request);
    let caller = match site.caller(tag) {
        Some(caller) => caller,
        None => Rc::new(identify(&upgrade, &request)?),
    };
    let Caller { known, base, key } = &*caller;
    let widened = match upgrade.step_up_scopes.is_empty() {
        true => None,
        false => site.widened(base),
    };
    let got = match &widened {
        None => None,
        Some(scope) => {
            let wider = exchange::key(&upgrade, known, scope);
            match token(&ctx, &site, &upgrade, known, scope, wider).await {
                Ok(token) => Some((token, scope.clone(), wider)),
                // What was configured may still be had.
                Err(_) => {
                    site.narrow(base);
                    None
                }
            }
        }
    };
    let (token, scope, key) = match got {
        Some(got) => got,
        None => {
            let token = token(&ctx, &site, &upgrade, known, &upgrade.scope, *key).await?;
            (token, upgrade.scope.clone(), *key)
        }
    };
    // Only who got a token: nobody else makes others' places in the cache rare.
    if upgrade.caches {
        site.keep_caller(tag, &caller);
    }
    let set = credential(&ctx, &site, &upgrade, known, &token, &request.headers);
    let request_id = request.id();
    let sent = Sent { upgrade, caller, scope, key, token, request_id };
    Ok(swapped(&request, sent, set))
}

/// As [`handle`], if all of it is at hand: the caller got a token before, which still serves. `None` if something
/// must be judged, got or made.
pub fn at_hand(
    site: &Site,
    upgrade: &Rc<Upgrade>,
    request: &Request,
    now: u64,
) -> Option<Upgraded> {
    let plain = upgrade.step_up_scopes.is_empty() && !upgrade.passes_ema_clients;
    if !plain || has_token_in_query(request) {
        return None;
    }
    let caller = site.caller(tag(site, upgrade, request))?;
    let token = site.token(&caller.key, now).filter(|token| now < token.refresh_at)?;
    if token.bound {
        return None;
    }
    let set = vec![("authorization".to_owned(), token.sent.clone())];
    let (upgrade, scope, key) = (upgrade.clone(), upgrade.scope.clone(), caller.key);
    let sent = Sent { upgrade, caller, scope, key, token, request_id: request.id() };
    Some(swapped(request, sent, set))
}

/// `request`, which goes on with `set` in the place of what it presented.
fn swapped(request: &Request, sent: Sent, set: Vec<(String, Secret)>) -> Upgraded {
    let remove = credential_headers(request, &sent.upgrade.presented);
    let went =
        is_kept(&sent.upgrade, &request.headers).then(|| request.headers.edited(&remove, &set));
    Upgraded { edits: Edits { remove, set }, sent: Some(Rc::new(sent)), went }
}

/// Who the one credential of `request` stands for, and the keys of its tokens.
fn identify(upgrade: &Upgrade, request: &Request) -> Result<Caller, Error> {
    let known = caller::identify(upgrade, request)?;
    let base = exchange::key(upgrade, &known, "");
    let key = exchange::key(upgrade, &known, &upgrade.scope);
    Ok(Caller { known, base, key })
}

/// The name of all that [`caller::identify`] looks at.
fn tag(site: &Site, upgrade: &Upgrade, request: &Request) -> u128 {
    let mut tagger = site.tagger.clone();
    tagger.field(&upgrade.way);
    if let Some(certificate) = &request.certificate {
        tagger.field(&certificate.sha256);
    }
    for name in &upgrade.presented {
        for value in request.headers.all(name) {
            tagger.field(name.as_bytes());
            tagger.field(value);
        }
    }
    tagger.tag()
}

/// Of a request that passes untouched, nothing is removed but what only a caller of ours would present, and
/// what is ours.
fn passed(upgrade: &Upgrade, request: &Request) -> Edits {
    let mut remove = credential_headers(request, &upgrade.presented);
    remove.retain(|name| !matches!(name.as_str(), "authorization" | "dpop" | "cookie"));
    Edits { remove, set: Vec::new() }
}

/// The header fields that carry `token`, for a request with `headers`.
pub fn credential(
    ctx: &Ctx,
    site: &Site,
    upgrade: &Upgrade,
    known: &Known,
    token: &Token,
    headers: &Headers,
) -> Vec<(String, Secret)> {
    let authorization = ("authorization".to_owned(), token.sent.clone());
    let key = token.bound.then(|| token.proof_key(|| proof_key(site, upgrade, known)));
    let Some(key) = key.flatten() else {
        return vec![authorization];
    };
    let method = headers.text(":method").unwrap_or_default();
    let path = headers.text(":path").unwrap_or_default().split('?').next().unwrap_or_default();
    // What the server knows itself by: the resource, and what of the path is below it.
    let base = upgrade.url.path();
    let below = path.strip_prefix(base.trim_end_matches('/')).unwrap_or_default();
    let uri = match below {
        "" => None,
        _ if path == base => None,
        below => Url::parse(&format!("{}{below}", upgrade.resource.as_str().trim_end_matches('/'))),
    };
    let uri = uri.as_ref().unwrap_or(&upgrade.resource);
    let nonce = site.nonce(&upgrade.way);
    let text = Some(token.access_token());
    let proof = key.proof(method, uri, ctx.now(), &ctx.random(), text, nonce.as_deref());
    vec![authorization, ("dpop".to_owned(), Secret::new(proof))]
}

/// Our key for one caller of one resource: the same in every worker, and nowhere else.
pub fn proof_key(site: &Site, upgrade: &Upgrade, known: &Known) -> Option<ProofKey> {
    let purpose = of_fields(&[b"dpop", &upgrade.way, &known.key]);
    let key = ProofKey::derive(&site.config.seal.secret_of(&purpose))?;
    Some(key.with_engine(&site.config.engine))
}

/// The access token of `known` with `scope`, whose key ([`exchange::key`]) is `key`.
pub async fn token(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Rc<Upgrade>,
    known: &Known,
    scope: &str,
    key: Key,
) -> Result<Rc<Token>, Error> {
    if let Some(token) = site.token(&key, ctx.now()).filter(|token| ctx.now() < token.refresh_at) {
        // The same credential passed every check when this token was got, and still is in time.
        return Ok(token);
    }
    let Verified { caller, subject, expires_at, assertion_id } =
        caller_token::verify(ctx, site, upgrade, known).await?;
    // What is not kept is not shared either. A job it is nevertheless: it goes on when the client is gone,
    // and keeps what a refresh token is replaced by.
    let run = match upgrade.caches {
        true => key,
        false => of_fields(&[&key, &ctx.random()]),
    };
    let exchange = Rc::new(Exchange {
        key: run,
        upgrade: upgrade.clone(),
        caller,
        scope: scope.to_owned(),
        subject_expires_at: expires_at,
        subject,
        assertion_id,
    });
    let value = ctx.job(Job::Exchange(exchange), Want::Usable).await.map_err(Error::Exchange)?;
    let token = token_response::token(&value).ok_or(Error::Exchange(JobError::BadAnswer))?;
    Ok(if upgrade.caches { site.keep_token(key, token) } else { Rc::new(token) })
}
