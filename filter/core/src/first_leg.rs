//! First leg: whatever stands for a caller becomes an ID-JAG at the identity provider (ID-JAG §4.3, §4.5).

use crate::caller::SubjectToken;
use crate::client_credential;
use crate::config::{Actor, Bound, Upgrade};
use crate::digest::{hex, sha256};
use crate::discovery::token_endpoint;
use crate::exchange::Way;
use crate::flow::Ctx;
use crate::http::Answer;
use crate::job::JobError;
use crate::json;
use crate::names;
use crate::refresh_record::{Place, Record};
use crate::replay::{self, Spend};
use crate::rotation::Rotation;
use crate::secret::Secret;
use crate::site::Site;
use crate::token_exchange::{self, Assertion, Expected, Typed, decoded, is_issued};
use crate::token_response::{Granted, success};
use std::rc::Rc;

/// Longest refresh token that is taken in the place of another.
const MAX_REFRESH_TOKEN: usize = 8 * 1024;

/// An ID-JAG for whatever stands for the caller.
///
/// [`JobError`] as the provider's answer says, or what was known before it was asked.
pub async fn id_jag(way: &Way<'_>) -> Result<Assertion, JobError> {
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
