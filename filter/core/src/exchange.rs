//! The whole way from a subject to an access token: both legs of EMA, run once per process.

use crate::caller::{Known, SubjectToken};
use crate::client_credential;
use crate::config::{Actor, Bound, Ema, ResourceAs, Upgrade};
use crate::digest::{Key, hex, of_fields, sha256, short_digest};
use crate::discovery::token_endpoint;
use crate::dpop_proof::ProofKey;
use crate::flow::Ctx;
use crate::http::Answer;
use crate::job::{Job, JobError, Value, Want};
use crate::json;
use crate::jwt_bearer;
use crate::names;
use crate::refresh_record::{Place, Record};
use crate::replay::{self, Spend};
use crate::rotation::Rotation;
use crate::secret::Secret;
use crate::site::Site;
use crate::token_call;
use crate::token_exchange::{self, Assertion, Expected, Typed, decoded, is_issued};
use crate::token_response::{Granted, error_code, success};
use crate::upgrade;
use std::rc::Rc;

/// Longest refresh token that is taken in the place of another.
const MAX_REFRESH_TOKEN: usize = 8 * 1024;

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
struct Way<'a> {
    ctx: &'a Ctx,
    site: &'a Rc<Site>,
    exchange: &'a Exchange,
    server: &'a ResourceAs,
    key: Option<ProofKey>,
    /// `grant_type` of the redemption.
    grant: &'static str,
}

impl Way<'_> {
    async fn at_provider(
        &self,
        fields: &[(&str, &str)],
        key: Option<&ProofKey>,
    ) -> Result<Answer, JobError> {
        let upgrade = &self.exchange.upgrade;
        let (party, client) = (&upgrade.identity_provider.party, &upgrade.idp_client);
        let is_unproven = self.exchange.caller.is_unproven;
        token_call::post(self.ctx, self.site, party, client, fields, key, is_unproven).await
    }

    fn at_fault(&self, answer: &Answer, error: JobError) -> JobError {
        let issuer = &self.exchange.upgrade.identity_provider.party.issuer;
        let (status, code) = (answer.status, error_code(answer));
        let caller = &self.exchange.caller.name;
        let line = format!("{status} {code}: {error:?} caller={caller:?}");
        self.site.warn(format!("token exchange at {issuer:?}: {line}"));
        error
    }
}

async fn legs(way: &Way<'_>) -> Result<Granted, (Leg, JobError)> {
    let assertion = id_jag(way).await.map_err(|error| (Leg::Exchange, error))?;
    redeemed(way, &assertion).await.map_err(|error| (Leg::Redemption, error))
}

/// First leg: an ID-JAG for whatever stands for the caller.
async fn id_jag(way: &Way<'_>) -> Result<Assertion, JobError> {
    let exchange = way.exchange;
    let typed = |token: &Secret, kind| Typed { token: token.clone(), kind };
    let subject = match &exchange.caller.subject {
        SubjectToken::IdToken(token) => typed(token, names::TOKEN_TYPE_ID_TOKEN),
        SubjectToken::AccessToken(token) => typed(token, names::TOKEN_TYPE_ACCESS_TOKEN),
        SubjectToken::RefreshToken { original, presented } => {
            return with_refresh_token(way, original, *presented, false).await;
        }
        SubjectToken::Saml(assertion) => {
            let taken = match way.exchange.upgrade.identity_provider.exchange.saml_for_refresh_token
            {
                true => with_refresh_token(way, assertion, true, true).await?,
                false => {
                    let subject = typed(assertion, names::TOKEN_TYPE_SAML2);
                    exchanged(way, &subject, None).await.0?
                }
            };
            used_by_one(way, assertion)?;
            return Ok(taken);
        }
        SubjectToken::JwtBearer(token, scope) => {
            let mut fields =
                vec![("grant_type", names::GRANT_JWT_BEARER), ("assertion", token.expose())];
            if !scope.is_empty() {
                fields.push(("scope", scope.as_str()));
            }
            typed(&own_access_token(way, &fields).await?, names::TOKEN_TYPE_ACCESS_TOKEN)
        }
        // Told from others before this.
        SubjectToken::Workload(_) => return Err(JobError::SubjectRejected),
        SubjectToken::ClientCredentials(scope) => {
            let mut fields = vec![("grant_type", names::GRANT_CLIENT_CREDENTIALS)];
            if !scope.is_empty() {
                fields.push(("scope", scope.as_str()));
            }
            typed(&own_access_token(way, &fields).await?, names::TOKEN_TYPE_ACCESS_TOKEN)
        }
    };
    exchanged(way, &subject, exchange.subject.as_deref()).await.0
}

/// The access token that the identity provider gives for `fields`, as a subject token of ours.
async fn own_access_token(way: &Way<'_>, fields: &[(&str, &str)]) -> Result<Secret, JobError> {
    let answer = way.at_provider(fields, None).await?;
    let granted = success(&answer).and_then(|body| Granted::bearer(&body));
    let granted = granted.map_err(|error| way.at_fault(&answer, error))?;
    Ok(granted.access_token)
}

/// The identity provider has taken `assertion`: from now on another one with the same identifier is refused.
fn used_by_one(way: &Way<'_>, assertion: &Secret) -> Result<(), JobError> {
    let (id, until) = (&way.exchange.assertion_id, way.exchange.subject_expires_at);
    let id = id.as_deref().unwrap_or_default();
    let provider = way.exchange.upgrade.identity_provider.party.issuer.as_str();
    let (store, now) = (&*way.site.store, way.ctx.now());
    let until = until.unwrap_or(now).saturating_add(1);
    let kind = replay::Kind::SamlAssertion;
    let name = |about: &str| replay::name(about, provider, id, 0);
    let first = |name| replay::spend(store, kind, &name, until, now);
    let own = name(&hex(&sha256(assertion.expose().as_bytes())));
    match (first(name("")), first(own)) {
        (Ok(Spend::First), Ok(Spend::First | Spend::Again)) => Ok(()),
        // The same one once more.
        (Ok(Spend::Again), Ok(Spend::Again)) => Ok(()),
        (Ok(Spend::Again), Ok(Spend::First)) => {
            // Another one, and so it will be the next time.
            let released = replay::release(store, kind, &own);
            Err(released.map_or(JobError::Unavailable, |()| JobError::SubjectRejected))
        }
        _ => Err(JobError::Unavailable),
    }
}

/// As [`id_jag`], with the newest of what a refresh token became: one at a time, since providers that renew
/// it take the old one for stolen.
async fn with_refresh_token(
    way: &Way<'_>,
    original: &Secret,
    presented: bool,
    is_saml: bool,
) -> Result<Assertion, JobError> {
    let (ctx, site, upgrade) = (way.ctx, way.site, &way.exchange.upgrade);
    let provider = &upgrade.identity_provider;
    let place = if presented { Place::Presented } else { Place::Bound };
    let client_id = &upgrade.idp_client.id;
    let record = Record::new(provider.party.issuer.as_str(), client_id, original, place);
    let redis = site.config.refresh_token_store.as_deref();
    let rotation = Rotation { store: &*site.store, redis, record: &record };
    let turn = rotation.begin(ctx).await;
    let mut turn = turn.map_err(|fault| {
        site.warn(format!("refresh token of {:?}: {}", way.exchange.caller.name, fault.code()));
        JobError::Unavailable
    })?;
    let (mut used, mut renewed) = match is_saml && turn.sequence() == 0 {
        true => use_saml(way, turn.token()).await,
        false => use_refresh_token(way, turn.token()).await,
    };
    if matches!(used, Err(JobError::SubjectRejected)) && turn.reload(ctx).await {
        (used, renewed) = use_refresh_token(way, turn.token()).await;
    }
    if turn.end(ctx, renewed).await.is_err() {
        let line = "a renewed refresh token is remembered by this process only";
        site.warn(format!("{:?}: {line}", way.exchange.caller.name));
    }
    match used {
        Ok(Used::Exchanged(assertion)) => Ok(assertion),
        Ok(Used::Refreshed(id_token)) => {
            let claims = decoded(id_token.expose()).map(|(_, claims)| claims).unwrap_or_default();
            let subject = json::string(&claims, "sub").ok().flatten();
            let typed = Typed { token: id_token, kind: names::TOKEN_TYPE_ID_TOKEN };
            exchanged(way, &typed, subject).await.0
        }
        Err(JobError::SubjectRejected) => {
            let line = match presented {
                true => "what it presented is not taken",
                false => "its refresh token is taken no longer: it has to be bound anew",
            };
            site.warn(format!("{:?}: {line}", way.exchange.caller.name));
            Err(JobError::SubjectRejected)
        }
        Err(error) => Err(error),
    }
}

/// What a refresh token was good for.
enum Used {
    Exchanged(Assertion),
    Refreshed(Secret),
}

/// The first use of a SAML assertion: for a refresh token (ID-JAG §4.5), which takes its place from then on.
async fn use_saml(way: &Way<'_>, assertion: &Secret) -> (Result<Used, JobError>, Option<Secret>) {
    let fields = [
        ("grant_type", names::GRANT_TOKEN_EXCHANGE),
        ("requested_token_type", names::TOKEN_TYPE_REFRESH_TOKEN),
        ("subject_token", assertion.expose()),
        ("subject_token_type", names::TOKEN_TYPE_SAML2),
        ("scope", "openid offline_access"),
    ];
    let answer = match way.at_provider(&fields, None).await {
        Ok(answer) => answer,
        Err(error) => return (Err(error), None),
    };
    let token = success(&answer).and_then(|body| {
        // The refresh token is in `access_token` (RFC 8693 §2.2.1).
        let token = json::string(&body, "access_token").ok().flatten();
        let token =
            token.filter(|token| is_issued(&body, names::TOKEN_TYPE_REFRESH_TOKEN) && fits(token));
        token.map(Secret::new).ok_or(JobError::BadAnswer)
    });
    match token {
        Err(error) => (Err(way.at_fault(&answer, error)), None),
        Ok(token) => {
            let (used, renewed) = use_refresh_token(way, &token).await;
            (used, Some(renewed.unwrap_or(token)))
        }
    }
}

/// One use of `token`: for an ID-JAG, or for an ID Token where the provider exchanges only these. Also
/// what replaces it, whatever became of the use.
async fn use_refresh_token(
    way: &Way<'_>,
    token: &Secret,
) -> (Result<Used, JobError>, Option<Secret>) {
    if !way.exchange.upgrade.identity_provider.exchange.refreshes_id_token {
        let subject = Typed { token: token.clone(), kind: names::TOKEN_TYPE_REFRESH_TOKEN };
        let (assertion, renewed) = exchanged(way, &subject, None).await;
        return (assertion.map(Used::Exchanged), renewed);
    }
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token.expose())];
    let answer = match way.at_provider(&fields, None).await {
        Ok(answer) => answer,
        Err(error) => return (Err(error), None),
    };
    let id_token = success(&answer).and_then(|body| {
        let id_token = json::string(&body, "id_token").ok().flatten();
        id_token.map(Secret::new).ok_or(JobError::BadAnswer)
    });
    let used = id_token.map(Used::Refreshed).map_err(|error| way.at_fault(&answer, error));
    (used, renewed(&answer))
}

/// The refresh token that replaces the one that was used.
fn renewed(answer: &Answer) -> Option<Secret> {
    let body = success(answer).ok()?;
    let token = json::string(&body, "refresh_token").ok().flatten()?;
    fits(token).then(|| Secret::new(token))
}

fn fits(token: &str) -> bool {
    !token.is_empty() && token.len() <= MAX_REFRESH_TOKEN
}

/// An ID-JAG for `subject`, who is the user `about` if that is known; and what a refresh token was
/// replaced by, which is so whatever is wrong with the rest.
async fn exchanged(
    way: &Way<'_>,
    subject: &Typed,
    about: Option<&str>,
) -> (Result<Assertion, JobError>, Option<Secret>) {
    let (ctx, site, upgrade) = (way.ctx, way.site, &way.exchange.upgrade);
    let scope = &way.exchange.scope;
    let answer = async {
        let actor = actor(ctx, site, upgrade).await?;
        let fields = token_exchange::fields(upgrade, way.server, subject, actor.as_ref(), scope);
        way.at_provider(&fields, way.key.as_ref()).await
    };
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => return (Err(error), None),
    };
    let pairwise = upgrade.identity_provider.exchange.pairwise_subjects;
    let key = way.key.as_ref();
    let expected = Expected {
        upgrade,
        server: way.server,
        subject: about.filter(|_| !pairwise),
        key: key.map(|key| (key.thumbprint(), upgrade.dpop == Bound::Preferred)),
        scope,
        now: ctx.now(),
    };
    let issuer = &upgrade.identity_provider.party.issuer;
    let assertion = token_exchange::response(&expected, &answer, &mut |line| {
        site.warn(format!("token exchange at {issuer:?}: {line}"));
    });
    (assertion.map_err(|error| way.at_fault(&answer, error)), renewed(&answer))
}

async fn actor(ctx: &Ctx, site: &Rc<Site>, upgrade: &Upgrade) -> Result<Option<Typed>, JobError> {
    Ok(match &upgrade.actor {
        None => None,
        Some(Actor::Token(token, kind)) => Some(Typed { token: token.clone(), kind }),
        Some(Actor::ClientAssertion) => {
            let party = &upgrade.identity_provider.party;
            let endpoint = token_endpoint(ctx, site, party).await?;
            let client = &upgrade.idp_client;
            // Another one than authenticates us: each counts once.
            let (now, random) = (ctx.now(), ctx.random());
            let made = client_credential::assertion(party, &endpoint, client, now, &random);
            Some(Typed { token: made.ok_or(JobError::Misconfigured)?, kind: names::TOKEN_TYPE_JWT })
        }
    })
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
