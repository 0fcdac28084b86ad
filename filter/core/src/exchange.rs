//! The whole way from a subject to an access token: both legs of EMA, run once per process. The first one is in
//! [`crate::first_leg`].

use crate::caller::{Known, SubjectToken};
use crate::config::{Bound, Ema, ResourceAs, Upgrade};
use crate::digest::{Key, of_fields, short_digest};
use crate::discovery::token_endpoint;
use crate::dpop_proof::ProofKey;
use crate::first_leg;
use crate::flow::Ctx;
use crate::http::Answer;
use crate::job::{Job, JobError, Value, Want};
use crate::jwt_bearer;
use crate::names;
use crate::site::Site;
use crate::token_call;
use crate::token_exchange::Assertion;
use crate::token_response::{Granted, error_code};
use crate::upgrade;
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
    /// Identifier of the SAML assertion, if it is one.
    pub assertion_id: Option<String>,
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
    let key = match upgrade.dpop {
        Bound::No => None,
        Bound::Preferred | Bound::Required => {
            let key = upgrade::proof_key(&site, upgrade, &exchange.caller);
            Some(key.ok_or(JobError::Unavailable)?)
        }
    };
    let plain = match upgrade.ema {
        Ema::Required => false,
        Ema::Never => true,
        Ema::Preferred => !site.metadata(&ctx, &server.party).await?.speaks_id_jag,
    };
    if plain {
        let granted = client_credentials(&ctx, &site, &exchange, &server, key.as_ref()).await?;
        record(&site, "client_credentials", &exchange, &server);
        return Ok(value(&ctx, &exchange, &granted));
    }
    // Before anything is spent, both servers are who they should be, and one redeems what the other grants, now.
    token_call::may_be_asked(&ctx, &site, &server.party, false)?;
    token_endpoint(&ctx, &site, &upgrade.identity_provider.party).await?;
    let grant = grant(&ctx, &site, &server, key.is_some()).await?;
    let way = Way { ctx: &ctx, site: &site, exchange: &exchange, server: &server, key, grant };
    let result = match legs(&way).await {
        Err((Leg::Redemption, JobError::SubjectRejected)) => legs(&way).await,
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
    let value = granted.to_value(now, left.unwrap_or(most).min(most), ctx.random()[0]);
    let rules = &exchange.upgrade.identity_provider.exchange;
    match &exchange.caller.subject {
        // Many providers take an assertion once: what was got with it is used to its end.
        SubjectToken::Saml(_) if !rules.saml_for_refresh_token => {
            Value { refresh_at: value.usable_until, ..value }
        }
        _ => value,
    }
}

/// Who was behind it, and what for.
fn record(site: &Site, kind: &'static str, exchange: &Exchange, server: &ResourceAs) {
    let upgrade = &exchange.upgrade;
    let line = format!(
        "{kind} caller={:?} sub={} resource={:?} issuer={:?} authorization_server={:?} scope={:?}",
        exchange.caller.name,
        exchange.subject.as_deref().map(short_digest).unwrap_or_default(),
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

/// The `grant_type` with which ID-JAGs are redeemed at `server`: that for JWTs that are bound to a key, if it
/// has one.
async fn grant(
    ctx: &Ctx,
    site: &Rc<Site>,
    server: &ResourceAs,
    is_bound: bool,
) -> Result<&'static str, JobError> {
    token_endpoint(ctx, site, &server.party).await?;
    if server.party.token_endpoint.is_some() {
        return Ok(names::GRANT_JWT_BEARER);
    }
    let metadata = site.metadata(ctx, &server.party).await?;
    if metadata.takes_jwt_bearer == Some(false) && !metadata.speaks_id_jag {
        site.warn(format!("{:?} has no grant for ID-JAGs", server.party.issuer));
        return Err(JobError::Misconfigured);
    }
    Ok(match is_bound && metadata.takes_jwt_dpop {
        true => names::GRANT_JWT_DPOP,
        false => names::GRANT_JWT_BEARER,
    })
}

#[derive(Debug, Clone, Copy)]
enum Leg {
    Exchange,
    Redemption,
}

/// All that both legs need.
pub struct Way<'a> {
    /// The flow that goes it.
    pub ctx: &'a Ctx,
    /// Its place.
    pub site: &'a Rc<Site>,
    /// Who goes it, and where to.
    pub exchange: &'a Exchange,
    /// The Resource AS.
    pub server: &'a ResourceAs,
    /// Our key, if tokens are to be bound.
    pub key: Option<ProofKey>,
    /// `grant_type` of the redemption.
    grant: &'static str,
}

impl Way<'_> {
    /// Posts `fields` to the identity provider.
    pub async fn at_provider(
        &self,
        fields: &[(&str, &str)],
        key: Option<&ProofKey>,
    ) -> Result<Answer, JobError> {
        let upgrade = &self.exchange.upgrade;
        let (party, client) = (&upgrade.identity_provider.party, &upgrade.idp_client);
        let is_unproven = self.exchange.caller.is_unproven;
        token_call::post(self.ctx, self.site, party, client, fields, key, is_unproven).await
    }

    /// Logs what the identity provider answered instead of a token.
    pub fn at_fault(&self, answer: &Answer, error: JobError) -> JobError {
        let issuer = &self.exchange.upgrade.identity_provider.party.issuer;
        let (status, code) = (answer.status, error_code(answer));
        let caller = &self.exchange.caller.name;
        let line = format!("{status} {code}: {error:?} caller={caller:?}");
        self.site.warn(format!("token exchange at {issuer:?}: {line}"));
        error
    }
}

async fn legs(way: &Way<'_>) -> Result<Granted, (Leg, JobError)> {
    let assertion = first_leg::id_jag(way).await.map_err(|error| (Leg::Exchange, error))?;
    redeemed(way, &assertion).await.map_err(|error| (Leg::Redemption, error))
}

/// The scope that the Resource AS was asked for: in words of its own, or by the ID-JAG.
fn asked<'a>(way: &'a Way<'_>, assertion: &'a Assertion) -> &'a str {
    match way.exchange.upgrade.redemption_scope.as_str() {
        "" => assertion.scope.as_deref().unwrap_or(&way.exchange.scope),
        scope => scope,
    }
}

/// Second leg: an access token for the ID-JAG.
async fn redeemed(way: &Way<'_>, assertion: &Assertion) -> Result<Granted, JobError> {
    let (ctx, site, server, upgrade) = (way.ctx, way.site, way.server, &way.exchange.upgrade);
    let scope = &way.exchange.scope;
    let fields = jwt_bearer::fields(upgrade, server, way.grant, assertion, scope);
    let key = way.key.as_ref();
    let answer =
        token_call::post(ctx, site, &server.party, &server.client, &fields, key, false).await?;
    granted(site, upgrade, server, asked(way, assertion), &answer)
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
    let granted = jwt_bearer::response(upgrade, asked, answer, &mut log).map_err(|error| {
        let (status, code) = (answer.status, error_code(answer));
        site.warn(format!("redemption at {issuer:?}: {status} {code}: {error:?}"));
        error
    })?;
    let is_expected = match upgrade.dpop {
        Bound::No => !granted.bound,
        Bound::Preferred => true,
        Bound::Required => granted.bound,
    };
    if !is_expected {
        let line = "the token is not bound to our key as `dpop` says";
        site.warn(format!("redemption at {issuer:?}: {line}"));
        return Err(JobError::BadAnswer);
    }
    Ok(granted)
}

/// A server that does not speak EMA: our own client's token, which is nobody's in particular (RFC 6749 §4.4).
async fn client_credentials(
    ctx: &Ctx,
    site: &Rc<Site>,
    exchange: &Exchange,
    server: &ResourceAs,
    key: Option<&ProofKey>,
) -> Result<Granted, JobError> {
    let upgrade = &exchange.upgrade;
    let mut fields = vec![("grant_type", names::GRANT_CLIENT_CREDENTIALS)];
    if server.sends_resource {
        fields.push(("resource", upgrade.resource.as_str()));
    }
    if !exchange.scope.is_empty() {
        fields.push(("scope", &exchange.scope));
    }
    let answer =
        token_call::post(ctx, site, &server.party, &server.client, &fields, key, false).await?;
    // It is not the caller who is refused here.
    let granted = granted(site, upgrade, server, &exchange.scope, &answer);
    granted.map_err(|error| match error {
        JobError::SubjectRejected | JobError::StepUp { .. } => JobError::Misconfigured,
        error => error,
    })
}
