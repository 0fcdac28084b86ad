//! A request to another server's token endpoint, as one of our clients there.

use crate::client_credential::token_request;
use crate::config::{Client, Party};
use crate::discovery::{no_answer, token_endpoint};
use crate::dpop_proof::{self, ProofKey};
use crate::flow::Ctx;
use crate::http::{Answer, Url};
use crate::job::JobError;
use crate::pauses;
use crate::secret::Secret;
use crate::site::Site;
use crate::token_response::error_code;
use std::rc::Rc;

/// Posts `fields` to the token endpoint of `party`, authenticated as `client`, and waits for the answer,
/// whatever it says. With a `key`, a proof of it goes along (RFC 9449 §5).
///
/// A server that throttles us or is down is left alone for a while, by all workers:
/// [`JobError::Throttled`]. A proof that was refused is made once more, with the server's nonce if there is
/// one (§8). An endpoint that is no longer where the metadata said is looked up anew, once.
///
/// What a caller that nobody here can prove brings about (`is_unproven`) keeps only the likes of it waiting.
pub async fn post(
    ctx: &Ctx,
    site: &Rc<Site>,
    party: &Rc<Party>,
    client: &Client,
    fields: &[(&str, &str)],
    key: Option<&ProofKey>,
    is_unproven: bool,
) -> Result<Answer, JobError> {
    may_be_asked(ctx, site, party, is_unproven)?;
    let endpoint = token_endpoint(ctx, site, party).await?;
    let place = pauses::place(party, is_unproven);
    let answer = tried(ctx, site, party, client, endpoint, fields, key).await;
    match answer {
        Ok(answer) => paced(ctx, site, party, &place, answer),
        Err(error) => {
            // A store that fails keeps nothing back, which is no worse than before.
            let _ = pauses::failed(&*site.store, &place, None, &ctx.random(), ctx.now());
            Err(error)
        }
    }
}

/// Once, and once more for each of the reasons there are.
async fn tried(
    ctx: &Ctx,
    site: &Rc<Site>,
    party: &Rc<Party>,
    client: &Client,
    mut endpoint: Url,
    fields: &[(&str, &str)],
    key: Option<&ProofKey>,
) -> Result<Answer, JobError> {
    let mut answer = once(ctx, site, party, client, &endpoint, fields, key).await?;
    if is_gone(answer.status) && party.token_endpoint.is_none() {
        let newer = site.newer_metadata(ctx, party).await?.token_endpoint.clone();
        if let Some(newer) = newer.filter(|newer| *newer != endpoint) {
            endpoint = newer;
            answer = once(ctx, site, party, client, &endpoint, fields, key).await?;
        }
    }
    if key.is_some() && wants_another_proof(&answer) {
        answer = once(ctx, site, party, client, &endpoint, fields, key).await?;
    }
    Ok(answer)
}

/// [`JobError::Throttled`] if `party` is left alone for a while: by all, or by those that nobody here can prove.
pub fn may_be_asked(
    ctx: &Ctx,
    site: &Site,
    party: &Party,
    is_unproven: bool,
) -> Result<(), JobError> {
    let left = |of: bool| pauses::until(&*site.store, &pauses::place(party, of), ctx.now());
    match left(false).max(left(true).filter(|_| is_unproven)) {
        Some(left) => Err(JobError::Throttled(left)),
        None => Ok(()),
    }
}

/// RFC 9110: nothing was done there.
fn is_gone(status: u16) -> bool {
    (300..400).contains(&status) || matches!(status, 404 | 405 | 410)
}

fn wants_another_proof(answer: &Answer) -> bool {
    matches!(&*error_code(answer), "use_dpop_nonce" | "invalid_dpop_proof")
        && matches!(answer.status, 400 | 401)
}

async fn once(
    ctx: &Ctx,
    site: &Rc<Site>,
    party: &Party,
    client: &Client,
    endpoint: &Url,
    fields: &[(&str, &str)],
    key: Option<&ProofKey>,
) -> Result<Answer, JobError> {
    let nonces = party.document_key("nonce");
    let (now, random) = (ctx.now(), ctx.random());
    let mut callout = token_request(party, endpoint, client, fields, now, &random);
    if let Some(key) = key {
        let nonce = site.nonce(&nonces);
        let proof = key.proof("POST", endpoint, now, &ctx.random(), None, nonce.as_deref());
        callout.headers.push(("dpop".into(), Secret::new(proof)));
    }
    match ctx.call(callout).await {
        Ok(answer) => {
            if let Some(nonce) = dpop_proof::nonce(&answer.headers).filter(|_| key.is_some()) {
                site.keep_nonce(nonces, nonce);
            }
            Ok(answer)
        }
        Err(failed) => Err(no_answer(site, party, failed)),
    }
}

/// Takes note of a server that is down, or up again.
fn paced(
    ctx: &Ctx,
    site: &Site,
    party: &Party,
    place: &str,
    answer: Answer,
) -> Result<Answer, JobError> {
    if answer.status != 429 && answer.status < 500 {
        let _ = pauses::succeeded(&*site.store, place);
        return Ok(answer);
    }
    let wait = pauses::retry_after(&answer, ctx.now());
    let _ = pauses::failed(&*site.store, place, wait, &ctx.random(), ctx.now());
    site.warn(format!("{}: {} from {:?}", party.path, answer.status, party.issuer));
    match wait {
        Some(seconds) => Err(JobError::Throttled(seconds)),
        None => Ok(answer),
    }
}
