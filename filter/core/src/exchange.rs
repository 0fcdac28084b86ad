//! The whole way from a subject token to an access token: both legs of EMA, run once per process.

use crate::config::Upgrade;
use crate::digest::{Key, of_fields, sha256, short_digest};
use crate::discovery::{no_answer, token_endpoint};
use crate::flow::Ctx;
use crate::http::Url;
use crate::job::{JobError, Value};
use crate::jwt_bearer;
use crate::site::Site;
use crate::token_exchange::{self, SubjectToken};
use crate::token_response::{Granted, error_code};
use std::rc::Rc;

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
            site.done(
                "exchanged",
                format!(
                    "exchanged resource={:?} issuer={:?} subject_token={}",
                    upgrade.resource,
                    upgrade.identity_provider.party.issuer,
                    short_digest(exchange.subject.secret().expose()),
                ),
            );
            let now = ctx.now();
            let most = upgrade.max_token_age;
            let left = exchange.subject_expires_at.map(|end| end.saturating_sub(now));
            Ok(granted.to_value(now, left.unwrap_or(most).min(most)))
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
