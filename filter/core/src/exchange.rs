//! The whole way from a subject token to an access token: both legs of EMA, run once per process.

use crate::config::Upgrade;
use crate::digest::{Key, of_fields, sha256, short_digest};
use crate::discovery::no_answer;
use crate::flow::Ctx;
use crate::http::Url;
use crate::job::{JobError, Value};
use crate::jwt_bearer::{self, Granted};
use crate::secret::Secret;
use crate::site::Site;
use crate::token_exchange::{self, SubjectToken};
use crate::token_response::error_code;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// An access token without a stated life is not cached; requests that wait for it now share it.
const UNSTATED_LIFE: u64 = 2;
/// A token is not used in its last seconds: it has to survive the way to the server.
const MARGIN: u64 = 5;

/// One subject's way to one resource.
pub struct Exchange {
    /// Digest of everything that makes the resulting token what it is.
    pub key: Key,
    /// The way.
    pub upgrade: Rc<Upgrade>,
    /// Who goes it.
    pub subject: SubjectToken,
    /// When the subject token ends, if it says: no access token is used longer. Seconds since the
    /// epoch.
    pub subject_expires_at: Option<u64>,
}

impl core::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Exchange({})", self.upgrade.resource.as_str())
    }
}

/// The key of the token that `subject` gets through `upgrade`: issuer, credential, clients,
/// audience, resource and scope. Never shared between subjects.
pub fn key(upgrade: &Upgrade, subject: &SubjectToken) -> Key {
    let party = &upgrade.identity_provider.party;
    let endpoint = |url: &Option<Url>| url.as_ref().map_or("", Url::as_str).to_owned();
    of_fields(&[
        b"exchange",
        party.issuer.as_str().as_bytes(),
        party.cluster.as_bytes(),
        upgrade.idp_client.id.as_bytes(),
        upgrade.resource_as.issuer.as_str().as_bytes(),
        upgrade.resource_as.cluster.as_bytes(),
        upgrade.resource_as_client.id.as_bytes(),
        upgrade.resource.as_str().as_bytes(),
        upgrade.scope.as_bytes(),
        &upgrade.max_token_age.to_be_bytes(),
        endpoint(&party.token_endpoint).as_bytes(),
        endpoint(&upgrade.resource_as.token_endpoint).as_bytes(),
        subject.token_type().as_bytes(),
        &sha256(subject.secret().expose().as_bytes()),
    ])
}

/// The result as workers share it.
#[derive(Serialize, Deserialize)]
struct Shared {
    access_token: String,
}

/// The access token in a shared result.
pub fn access_token(value: &Value) -> Option<Secret> {
    let shared: Shared = serde_json::from_slice(&value.data).ok()?;
    Some(Secret::new(shared.access_token))
}

/// Goes both legs. An ID-JAG is redeemed once; if the Resource AS does not take it, one new ID-JAG
/// is fetched and tried.
pub async fn run(ctx: Ctx, site: Rc<Site>, exchange: Rc<Exchange>) -> Result<Value, JobError> {
    let result = match legs(&ctx, &site, &exchange).await {
        Err((Leg::Redemption, JobError::SubjectRejected)) => legs(&ctx, &site, &exchange).await,
        result => result,
    };
    match result {
        Ok(granted) => {
            let upgrade = &exchange.upgrade;
            site.info(format!(
                "exchanged resource={:?} issuer={:?} subject_token={}",
                upgrade.resource,
                upgrade.identity_provider.party.issuer,
                short_digest(exchange.subject.secret().expose()),
            ));
            Ok(value(ctx.now(), &exchange, &granted))
        }
        // The caller's credential was good; it is the two servers that do not agree.
        Err((Leg::Redemption, JobError::SubjectRejected)) => Err(JobError::BadAnswer),
        Err((_, error)) => Err(error),
    }
}

#[derive(Debug, Clone, Copy)]
enum Leg {
    Exchange,
    Redemption,
}

async fn legs(ctx: &Ctx, site: &Rc<Site>, exchange: &Exchange) -> Result<Granted, (Leg, JobError)> {
    let upgrade = &exchange.upgrade;
    let provider = &upgrade.identity_provider.party;

    let endpoint = token_endpoint(ctx, site, provider).await.map_err(|e| (Leg::Exchange, e))?;
    let (now, random) = (ctx.now(), ctx.random());
    let callout = token_exchange::request(upgrade, &endpoint, &exchange.subject, now, &random);
    let answer = ctx
        .call(callout)
        .await
        .map_err(|failed| (Leg::Exchange, no_answer(site, provider, failed)))?;
    let assertion = token_exchange::response(upgrade, &answer, ctx.now(), &mut |line| {
        site.warn(format!("token exchange at {:?}: {line}", provider.issuer));
    })
    .map_err(|error| {
        let (issuer, status, code) = (&provider.issuer, answer.status, error_code(&answer));
        site.warn(format!("token exchange at {issuer:?}: {status} {code}: {error:?}"));
        (Leg::Exchange, error)
    })?;

    let server = &upgrade.resource_as;
    let endpoint = token_endpoint(ctx, site, server).await.map_err(|e| (Leg::Redemption, e))?;
    let (now, random) = (ctx.now(), ctx.random());
    let callout = jwt_bearer::request(upgrade, &endpoint, &assertion, now, &random);
    let answer = ctx
        .call(callout)
        .await
        .map_err(|failed| (Leg::Redemption, no_answer(site, server, failed)))?;
    jwt_bearer::response(upgrade, &answer).map_err(|error| {
        let (issuer, status, code) = (&server.issuer, answer.status, error_code(&answer));
        site.warn(format!("redemption at {issuer:?}: {status} {code}: {error:?}"));
        (Leg::Redemption, error)
    })
}

async fn token_endpoint(
    ctx: &Ctx,
    site: &Rc<Site>,
    party: &Rc<crate::config::Party>,
) -> Result<Url, JobError> {
    if let Some(url) = &party.token_endpoint {
        return Ok(url.clone());
    }
    site.metadata(ctx, party).await?.token_endpoint.clone().ok_or_else(|| {
        site.warn(format!("{:?} names no token_endpoint on its own host", party.issuer));
        JobError::BadAnswer
    })
}

fn value(now: u64, exchange: &Exchange, granted: &Granted) -> Value {
    let stated = granted.expires_in.map(|life| life.saturating_sub(MARGIN.min(life / 2)));
    let life = stated.unwrap_or(UNSTATED_LIFE).min(exchange.upgrade.max_token_age);
    let life = match exchange.subject_expires_at {
        Some(end) => life.min(end.saturating_sub(now)),
        None => life,
    };
    let shared = Shared { access_token: granted.access_token.expose().to_owned() };
    Value {
        data: serde_json::to_vec(&shared).unwrap_or_default(),
        made_at: now,
        // Ahead of time, so that nobody waits for the refresh.
        refresh_at: now.saturating_add(life - life / 5),
        usable_until: now.saturating_add(life),
    }
}
