//! The whole way from a subject to an access token: both legs of EMA, run once per process.

use crate::caller::{Known, SubjectToken};
use crate::config::{Actor, Ema, ResourceAs, Upgrade};
use crate::digest::{Key, of_fields};
use crate::flow::Ctx;
use crate::http::Answer;
use crate::job::{Job, JobError, Value, Want};
use crate::jwt_bearer;
use crate::names;
use crate::secret::Secret;
use crate::site::Site;
use crate::token_call;
use crate::token_exchange::{self, Assertion, Expected, Typed};
use crate::token_response::{Granted, error_code, success};
use std::rc::Rc;

/// One caller's way to one resource.
pub struct Exchange {
    /// Digest of everything that makes the resulting token what it is.
    pub key: Key,
    /// The way.
    pub upgrade: Rc<Upgrade>,
    /// Who goes it.
    pub caller: Known,
    /// Scope to ask for.
    pub scope: String,
    /// When the subject token ends, if it says: no access token is used longer. Seconds since the
    /// epoch.
    pub subject_expires_at: Option<u64>,
    /// The user it is about, if that is known.
    pub subject: Option<String>,
}

impl core::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Exchange({})", self.upgrade.resource.as_str())
    }
}

/// The key of the token that `caller` gets through `upgrade` with `scope`: the way as configured (issuer,
/// clients, audience, resource ...), the caller, its credential, and what that stands for. Never shared
/// between callers.
pub fn key(upgrade: &Upgrade, caller: &Known, scope: &str) -> Key {
    of_fields(&[b"exchange", &upgrade.way, &caller.key, scope.as_bytes()])
}

/// Goes both legs. An ID-JAG is redeemed once; if the Resource AS does not take it, one new ID-JAG
/// is fetched and tried.
pub async fn run(ctx: Ctx, site: Rc<Site>, exchange: Rc<Exchange>) -> Result<Value, JobError> {
    let upgrade = &exchange.upgrade;
    let server = server(&ctx, upgrade).await?;
    let plain = match upgrade.ema {
        Ema::Required => false,
        Ema::Never => true,
        Ema::Preferred => !site.metadata(&ctx, &server.party).await?.speaks_id_jag,
    };
    if plain {
        let granted = client_credentials(&ctx, &site, &exchange, &server).await?;
        record(&site, "client_credentials", &exchange, &server);
        return Ok(value(&ctx, &exchange, &granted));
    }
    let result = match legs(&ctx, &site, &exchange, &server).await {
        Err((Leg::Redemption, JobError::SubjectRejected)) => {
            legs(&ctx, &site, &exchange, &server).await
        }
        result => result,
    };
    match result {
        Ok(granted) => {
            record(&site, "exchanged", &exchange, &server);
            Ok(value(&ctx, &exchange, &granted))
        }
        // The caller's credential was good; it is the two servers that do not agree.
        Err((Leg::Redemption, JobError::SubjectRejected)) => Err(JobError::BadAnswer),
        Err((_, error)) => Err(error),
    }
}

fn value(ctx: &Ctx, exchange: &Exchange, granted: &Granted) -> Value {
    let now = ctx.now();
    let most = exchange.upgrade.max_token_age;
    let left = exchange.subject_expires_at.map(|end| end.saturating_sub(now));
    granted.to_value(now, left.unwrap_or(most).min(most), ctx.random()[0])
}

/// Who was behind it, and what for.
fn record(site: &Site, kind: &'static str, exchange: &Exchange, server: &ResourceAs) {
    let upgrade = &exchange.upgrade;
    let line = format!(
        "{kind} caller={:?} sub={:?} resource={:?} issuer={:?} authorization_server={:?} scope={:?}",
        exchange.caller.name,
        exchange.subject.as_deref().unwrap_or_default(),
        upgrade.resource,
        upgrade.identity_provider.party.issuer,
        server.party.issuer,
        exchange.scope,
    );
    site.done(kind, line);
}

/// The authorization server of the resource: the one that is given, or the one that the resource names.
async fn server(ctx: &Ctx, upgrade: &Upgrade) -> Result<Rc<ResourceAs>, JobError> {
    let found = match &upgrade.discovery {
        None => upgrade.servers.first(),
        Some(discovery) => {
            let found = ctx.job(Job::Resource(discovery.clone()), Want::Usable).await?;
            let is = |server: &&Rc<ResourceAs>| {
                server.party.issuer.as_str().as_bytes() == found.data.as_slice()
            };
            upgrade.servers.iter().find(is)
        }
    };
    found.cloned().ok_or(JobError::Misconfigured)
}

#[derive(Debug, Clone, Copy)]
enum Leg {
    Exchange,
    Redemption,
}

async fn legs(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    server: &ResourceAs,
) -> Result<Granted, (Leg, JobError)> {
    let assertion =
        id_jag(ctx, site, exchange, server).await.map_err(|error| (Leg::Exchange, error))?;
    redeemed(ctx, site, exchange, server, &assertion)
        .await
        .map_err(|error| (Leg::Redemption, error))
}

/// First leg: an ID-JAG for whatever stands for the caller.
async fn id_jag(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    server: &ResourceAs,
) -> Result<Assertion, JobError> {
    match &exchange.caller.subject {
        SubjectToken::IdToken(token) => {
            let subject = Typed { token: token.clone(), kind: names::TOKEN_TYPE_ID_TOKEN };
            exchanged(ctx, site, exchange, server, &subject).await.map(|(assertion, _)| assertion)
        }
        SubjectToken::RefreshToken { original, .. } => {
            let subject = Typed { token: original.clone(), kind: names::TOKEN_TYPE_REFRESH_TOKEN };
            exchanged(ctx, site, exchange, server, &subject).await.map(|(assertion, _)| assertion)
        }
        SubjectToken::ClientCredentials(scope) => {
            let mut fields = vec![("grant_type", names::GRANT_CLIENT_CREDENTIALS)];
            if !scope.is_empty() {
                fields.push(("scope", scope.as_str()));
            }
            let answer = at_provider(ctx, site, exchange, &fields).await?;
            let granted = success(&answer).and_then(|body| Granted::bearer(&body));
            let granted = granted.map_err(|error| at_fault(site, exchange, &answer, error))?;
            let token = granted.access_token;
            let subject = Typed { token, kind: names::TOKEN_TYPE_ACCESS_TOKEN };
            exchanged(ctx, site, exchange, server, &subject).await.map(|(assertion, _)| assertion)
        }
    }
}

/// An ID-JAG for `subject`, and what a refresh token was replaced by.
async fn exchanged(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    server: &ResourceAs,
    subject: &Typed,
) -> Result<(Assertion, Option<Secret>), JobError> {
    let upgrade = &exchange.upgrade;
    let actor = actor(ctx, site, upgrade).await?;
    let scope = &exchange.scope;
    let fields = token_exchange::fields(upgrade, server, subject, actor.as_ref(), scope);
    let answer = at_provider(ctx, site, exchange, &fields).await?;
    let expected = Expected {
        upgrade,
        server,
        subject: exchange
            .subject
            .as_deref()
            .filter(|_| !upgrade.identity_provider.exchange.pairwise_subjects),
        key: None,
        scope,
        now: ctx.now(),
    };
    let issuer = &upgrade.identity_provider.party.issuer;
    let assertion = token_exchange::response(&expected, &answer, &mut |line| {
        site.warn(format!("token exchange at {issuer:?}: {line}"));
    });
    let assertion = assertion.map_err(|error| at_fault(site, exchange, &answer, error))?;
    Ok((assertion, None))
}

async fn actor(ctx: &Ctx, site: &Rc<Site>, upgrade: &Upgrade) -> Result<Option<Typed>, JobError> {
    Ok(match &upgrade.actor {
        None => None,
        Some(Actor::Token(token, kind)) => Some(Typed { token: token.clone(), kind }),
        Some(Actor::ClientAssertion) => {
            let party = &upgrade.identity_provider.party;
            let endpoint = crate::discovery::token_endpoint(ctx, site, party).await?;
            let client = &upgrade.idp_client;
            // Another one than authenticates us: each counts once.
            let (now, random) = (ctx.now(), ctx.random());
            let made = crate::client_credential::assertion(party, &endpoint, client, now, &random);
            Some(Typed { token: made.ok_or(JobError::Misconfigured)?, kind: names::TOKEN_TYPE_JWT })
        }
    })
}

async fn at_provider(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    fields: &[(&str, &str)],
) -> Result<Answer, JobError> {
    let upgrade = &exchange.upgrade;
    token_call::post(ctx, site, &upgrade.identity_provider.party, &upgrade.idp_client, fields).await
}

fn at_fault(site: &Site, exchange: &Exchange, answer: &Answer, error: JobError) -> JobError {
    let issuer = &exchange.upgrade.identity_provider.party.issuer;
    let (status, code) = (answer.status, error_code(answer));
    site.warn(format!("token exchange at {issuer:?}: {status} {code}: {error:?}"));
    error
}

/// Second leg: an access token for the ID-JAG.
async fn redeemed(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    server: &ResourceAs,
    assertion: &Assertion,
) -> Result<Granted, JobError> {
    let upgrade = &exchange.upgrade;
    let fields = jwt_bearer::fields(upgrade, assertion, &exchange.scope);
    let answer = token_call::post(ctx, site, &server.party, &server.client, &fields).await?;
    let asked = assertion.scope.as_deref().unwrap_or(&exchange.scope);
    granted(site, upgrade, server, asked, &answer)
}

fn granted(
    site: &Site,
    upgrade: &Upgrade,
    server: &ResourceAs,
    asked: &str,
    answer: &Answer,
) -> Result<Granted, JobError> {
    let issuer = &server.party.issuer;
    let mut log = |line| site.warn(format!("redemption at {issuer:?}: {line}"));
    jwt_bearer::response(upgrade, asked, answer, &mut log).map_err(|error| {
        let (status, code) = (answer.status, error_code(answer));
        site.warn(format!("redemption at {issuer:?}: {status} {code}: {error:?}"));
        error
    })
}

/// A server that does not speak EMA: our own client's token, which is nobody's in particular (RFC 6749 §4.4).
async fn client_credentials(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    server: &ResourceAs,
) -> Result<Granted, JobError> {
    let upgrade = &exchange.upgrade;
    let mut fields = vec![
        ("grant_type", names::GRANT_CLIENT_CREDENTIALS),
        ("resource", upgrade.resource.as_str()),
    ];
    if !exchange.scope.is_empty() {
        fields.push(("scope", &exchange.scope));
    }
    let answer = token_call::post(ctx, site, &server.party, &server.client, &fields).await?;
    // It is not the caller who is refused here.
    granted(site, upgrade, server, &exchange.scope, &answer).map_err(|error| match error {
        JobError::SubjectRejected | JobError::StepUp { .. } => JobError::Misconfigured,
        error => error,
    })
}
