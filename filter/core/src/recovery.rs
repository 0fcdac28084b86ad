//! What becomes of a request whose access token the server refuses, although its caller's credential is good
//! (RFC 6750 §3.1, RFC 9470 §3, RFC 9449 §9): it is sent once more, with a token that may do better.

use crate::challenge::{self, Scheme};
use crate::dpop_proof;
use crate::error::Error;
use crate::exchange;
use crate::flow::Ctx;
use crate::http::{Answer, Callout, Headers, MAX_ANSWER};
use crate::job::{Job, JobError, Want};
use crate::resend::Resend;
use crate::secret::Secret;
use crate::site::Site;
use crate::upgrade::{self, Sent};
use crate::worker::Verdict;
use std::rc::Rc;

/// Longest time the answer to a request that is sent once more may take, in milliseconds.
const TIMEOUT: u32 = 30_000;
/// What Envoy adds to each answer of a server.
const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// Why a server refused a request, as far as something can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The token is good no longer.
    Token,
    /// The proof needs a nonce, which is known by now.
    Nonce,
    /// The token's scope is too narrow; this one, which we may ask for, would do.
    Scope(String),
    /// The user has to authenticate again, or better: a new token would not help.
    Authentication(JobError),
}

impl Refusal {
    /// Stable code for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Nonce => "nonce",
            Self::Scope(_) => "scope",
            Self::Authentication(_) => "authentication",
        }
    }
}

/// Why the server refused what was `sent`, by the head of its answer; `None` if it did not, or nothing can be
/// done.
pub fn refusal(sent: &Sent, headers: &Headers) -> Option<Refusal> {
    let status = headers.text(":status")?;
    if status != "401" && status != "403" {
        return None;
    }
    let challenges = challenge::read(headers);
    let about = |error: &str| {
        let mut ours = challenges.iter().filter(|challenge| challenge.scheme != Scheme::Other);
        ours.find(|challenge| challenge.error() == Some(error))
    };
    if status == "403" {
        let asked = about("insufficient_scope")?.scope()?;
        return wider(sent, asked).map(Refusal::Scope);
    }
    if let Some(challenge) = about("insufficient_user_authentication") {
        return Some(Refusal::Authentication(JobError::StepUp {
            acr_values: challenge.acr_values().map(str::to_owned),
            max_age: challenge.max_age(),
        }));
    }
    let wants_nonce = sent.token.bound && about("use_dpop_nonce").is_some();
    match wants_nonce && dpop_proof::nonce(headers).is_some() {
        true => Some(Refusal::Nonce),
        false => Some(Refusal::Token),
    }
}

/// The union of what was granted and what is `asked` for, if that is more and the operator allows it. What is
/// more is in the operator's order and once each: the text is part of a token's key, and a server that writes
/// the same scope in ever other words must not make us ask the identity provider every time.
fn wider(sent: &Sent, asked: &str) -> Option<String> {
    let has = |scope: &str| sent.scope.split(' ').any(|other| other == scope);
    let is_asked = |scope: &str| asked.split(' ').any(|other| other == scope);
    let allowed = &sent.upgrade.step_up_scopes;
    let may = asked.split(' ').all(|scope| has(scope) || allowed.iter().any(|one| one == scope));
    let more = allowed.iter().map(String::as_str).filter(|one| is_asked(one) && !has(one));
    let more: Vec<&str> = more.collect();
    (may && !more.is_empty())
        .then(|| format!("{} {}", sent.scope, more.join(" ")).trim_start().to_owned())
}

/// Sends a request once more, with another token or proof; its answer is the client's. If there is no other
/// token to be had, the first answer goes on.
///
/// [`Error::Exchange`] if the caller is refused one, [`Error::Resend`] if the server does not answer or
/// answers more than is read at once (256 KiB).
pub async fn again(
    ctx: Ctx,
    site: Rc<Site>,
    sent: Rc<Sent>,
    refusal: Refusal,
    resend: Resend,
) -> Result<Verdict, Error> {
    let token = match &refusal {
        Refusal::Authentication(error) => return Err(Error::Exchange(error.clone())),
        Refusal::Nonce => sent.token.clone(),
        Refusal::Token => {
            ask_resource_anew(&ctx, &sent).await;
            let (known, scope) = (&sent.caller.known, &sent.scope);
            let token = upgrade::token(&ctx, &site, &sent.upgrade, known, scope, sent.key).await?;
            if token.access_token() == sent.token.access_token() {
                return Ok(Verdict::Pass);
            }
            token
        }
        Refusal::Scope(scope) => {
            let known = &sent.caller.known;
            let key = exchange::key(&sent.upgrade, known, scope);
            match upgrade::token(&ctx, &site, &sent.upgrade, known, scope, key).await {
                Ok(token) => {
                    site.widen(sent.caller.base, scope);
                    token
                }
                // The server's own words say best what is missing.
                Err(_) => return Ok(Verdict::Pass),
            }
        }
    };
    let credential = upgrade::credential(
        &ctx,
        &site,
        &sent.upgrade,
        &sent.caller.known,
        &token,
        &resend.headers,
    );
    let Some(callout) = callout(resend, credential) else {
        return Ok(Verdict::Pass);
    };
    site.done("sent_again", format!("sent again resource={:?} {refusal:?}", sent.upgrade.resource));
    let answer = ctx.call(callout).await.map_err(|_| Error::Resend)?;
    // Envoy answers in the place of a server that does not, and only what a server answered has its time.
    let is_envoys = matches!(answer.status, 502..=504) && !answer.headers.has(SERVICE_TIME);
    // A status that no final answer has would leave the client waiting for one.
    let is_final = (200..=599).contains(&answer.status);
    if is_envoys || !is_final || answer.body.len() > MAX_ANSWER {
        return Err(Error::Resend);
    }
    // RFC 9449 §8.2: a nonce may come with any answer, and it is the next request's.
    if let Some(nonce) = dpop_proof::nonce(&answer.headers).filter(|_| token.bound) {
        site.keep_nonce(sent.upgrade.way, nonce);
    }
    Ok(Verdict::Answer(shown(answer)))
}

/// RFC 9728 §5.2: a 401 may mean that the resource's metadata has changed, its authorization server included. The
/// table sees to it that this is asked once in 30 s at most; if there is no answer, the last one holds.
async fn ask_resource_anew(ctx: &Ctx, sent: &Sent) {
    if let Some(discovery) = &sent.upgrade.discovery {
        let want = Want::NewerThan(sent.token.made_at);
        let _ = ctx.job(Job::Resource(discovery.clone()), want).await;
    }
}

/// The request with `credential` in the place of its own. `None` if it has a method or a value that cannot be
/// sent this way.
fn callout(resend: Resend, credential: Vec<(String, Secret)>) -> Option<Callout> {
    let methods = ["POST", "GET", "DELETE", "PUT", "PATCH"];
    let method = resend.headers.text(":method")?;
    let left_out = |name: &str| {
        name.starts_with(':') && name != ":scheme"
            || name.starts_with("x-envoy-")
            || matches!(name, "content-length" | "transfer-encoding" | "connection" | "expect")
            // Those of the first try: the next token may be of another kind.
            || matches!(name, "authorization" | "dpop")
    };
    let mut headers = Vec::new();
    for name in resend.headers.distinct() {
        for value in resend.headers.all(name).filter(|_| !left_out(name)) {
            let value = core::str::from_utf8(value).ok()?;
            headers.push((name.to_owned().into(), Secret::new(value)));
        }
    }
    headers.extend(credential.into_iter().map(|(name, value)| (name.into(), value)));
    Some(Callout {
        method: methods.into_iter().find(|known| *known == method)?,
        authority: resend.authority,
        path: resend.path,
        cluster: resend.cluster,
        headers,
        body: Secret::new(String::from_utf8(resend.body).ok()?),
        timeout: TIMEOUT,
    })
}

/// What of an answer the client gets: no field of the connection, and no challenge, which would send it to an
/// authorization server that is none of its business.
fn shown(answer: Answer) -> Answer {
    let hidden = |name: &str| {
        name.starts_with(':')
            || name.starts_with("x-envoy-")
            || matches!(
                name,
                "content-length"
                    | "transfer-encoding"
                    | "connection"
                    | "keep-alive"
                    | "www-authenticate"
                    | "dpop-nonce"
            )
    };
    Answer { headers: answer.headers.without(hidden), ..answer }
}
