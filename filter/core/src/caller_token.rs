//! The checks of tokens that callers bring and that stand for themselves, before anything is spent on them.

use crate::caller::{Known, SubjectToken, stands_for};
use crate::config::{IdentityProvider, Presents, Upgrade, Workload};
use crate::error::Error;
use crate::flow::Ctx;
use crate::job::JobError;
use crate::json;
use crate::jws::Fault;
use crate::secret::Secret;
use crate::site::Site;
use crate::token_exchange::decoded;
use crate::{id_token, provider_access_token, saml, workload_token};
use std::rc::Rc;

/// Clock skew allowed, in seconds.
const SKEW: u64 = 60;

/// What is known of a caller once its token has passed.
pub struct Verified {
    /// The caller, with what stands for it at the identity provider.
    pub caller: Known,
    /// Its `sub` at the identity provider, if that is known.
    pub subject: Option<String>,
    /// When what stands for it ends, if it says: seconds since the epoch.
    pub expires_at: Option<u64>,
    /// What must be used by nobody else, once the identity provider has taken it.
    pub assertion_id: Option<String>,
}

/// Verifies what `known` brings. What the operator bound it to is only read: it is as good as the
/// configuration.
///
/// Does *not* verify the signature of SAML assertions, nor refresh tokens beyond their form: the identity
/// provider that takes them does.
pub async fn verify(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Upgrade,
    known: &Known,
) -> Result<Verified, Error> {
    let presents = upgrade.callers.get(known.index).map(|caller| &caller.presents);
    let mut verified =
        Verified { caller: known.clone(), subject: None, expires_at: None, assertion_id: None };
    match (&known.subject, presents) {
        (SubjectToken::IdToken(token), _) if known.is_own => {
            let provider = &upgrade.identity_provider;
            let (subject, ends) = id_token(ctx, site, provider, upgrade, token).await?;
            (verified.subject, verified.expires_at) = (Some(subject), Some(ends));
        }
        (SubjectToken::IdToken(token), _) => bound(ctx, site, token, &mut verified)?,
        (SubjectToken::AccessToken(token), Some(Presents::AccessToken { audience, untyped })) => {
            let provider = &upgrade.identity_provider;
            let (subject, ends) =
                access_token(ctx, site, provider, (audience, *untyped), token).await?;
            (verified.subject, verified.expires_at) = (Some(subject), Some(ends));
        }
        (SubjectToken::Workload(token), Some(Presents::Workload(first))) => {
            let (index, ends) = workload(ctx, site, upgrade, first, token).await?;
            let caller = upgrade.callers.get(index).ok_or(Error::UnknownWorkload)?;
            verified.caller.name = caller.name.clone();
            verified.caller.subject = stands_for(&caller.subject, token);
            verified.expires_at = Some(ends);
            if let SubjectToken::IdToken(token) = &verified.caller.subject {
                let token = token.clone();
                bound(ctx, site, &token, &mut verified)?;
            }
        }
        (SubjectToken::Saml(text), Some(Presents::Saml { issuer, audience, .. })) => {
            let rules = &upgrade.identity_provider.exchange;
            let expected = saml::Expected {
                issuer,
                audience,
                now: ctx.now(),
                skew: SKEW,
                payload: rules.saml_payload,
            };
            let text = text.expose().as_bytes();
            let assertion = saml::check(text, &expected).map_err(Error::Saml)?;
            verified.caller.subject = SubjectToken::Saml(assertion.encode(rules.saml_encoding));
            verified.expires_at = Some(assertion.expires_at.max(ctx.now().saturating_add(1)));
            verified.assertion_id = Some(assertion.id);
        }
        (SubjectToken::RefreshToken { original, presented: true }, _) => {
            // RFC 6749 appendix A.17: visible characters.
            let visible = original.expose().bytes().all(|byte| byte.is_ascii_graphic());
            if original.expose().is_empty() || !visible {
                return Err(Error::UnknownApiKey);
            }
        }
        (SubjectToken::RefreshToken { .. } | SubjectToken::ClientCredentials(_), _) => {}
        _ => return Err(Error::Internal("a caller of another kind")),
    }
    Ok(verified)
}

/// Reads the ID Token that the operator bound a caller to: whose it is, and whether it ends before what the caller
/// presented.
fn bound(ctx: &Ctx, site: &Site, token: &Secret, verified: &mut Verified) -> Result<(), Error> {
    let claims = decoded(token.expose()).map(|(_, claims)| claims).unwrap_or_default();
    verified.subject = json::string(&claims, "sub").ok().flatten().map(str::to_owned);
    let ends = json::seconds(&claims, "exp").ok().flatten();
    if ends.is_some_and(|ends| ends <= ctx.now()) {
        let name = &verified.caller.name;
        site.warn(format!("the ID token that {name:?} is bound to has expired"));
        return Err(Error::Exchange(JobError::Misconfigured));
    }
    verified.expires_at = ends.into_iter().chain(verified.expires_at).min();
    Ok(())
}

/// Whose an ID Token is, and when it ends.
async fn id_token(
    ctx: &Ctx,
    site: &Rc<Site>,
    provider: &IdentityProvider,
    upgrade: &Upgrade,
    token: &Secret,
) -> Result<(String, u64), Error> {
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
    Ok((token.subject, token.expires_at.max(ctx.now().saturating_add(1))))
}

/// Whose an access token of the identity provider is, and when it ends.
async fn access_token(
    ctx: &Ctx,
    site: &Rc<Site>,
    provider: &IdentityProvider,
    (audience, untyped): (&str, bool),
    token: &Secret,
) -> Result<(String, u64), Error> {
    let token = token.expose().as_bytes();
    let received = provider_access_token::Received::parse(token, &provider.algorithms, untyped);
    let received = received.map_err(Error::IdToken)?;
    let keys = site.keys(ctx, &provider.party, |keys| received.is_known_to(keys)).await?;
    let expected = provider_access_token::Expected {
        issuer: provider.party.issuer.as_str(),
        audience,
        now: ctx.now(),
        skew: SKEW,
    };
    let token = received.verify(&keys, &expected).map_err(Error::IdToken)?;
    Ok((token.subject, token.expires_at.max(ctx.now().saturating_add(1))))
}

/// Which caller a workload is, by what its verified claims say: the first one that they fit. And when its
/// token ends.
async fn workload(
    ctx: &Ctx,
    site: &Rc<Site>,
    upgrade: &Upgrade,
    first: &Workload,
    token: &Secret,
) -> Result<(usize, u64), Error> {
    let token = token.expose().as_bytes();
    let issuer = &first.issuer;
    for (index, caller) in upgrade.callers.iter().enumerate() {
        let Presents::Workload(workload) = &caller.presents else {
            continue;
        };
        if !Rc::ptr_eq(&workload.issuer, issuer) {
            continue;
        }
        let received = workload_token::Received::parse(token, &issuer.algorithms);
        let received = received.map_err(Error::IdToken)?;
        let keys = site.keys(ctx, &issuer.party, |keys| received.is_known_to(keys)).await?;
        let expected = workload_token::Expected {
            issuer: issuer.party.issuer.as_str(),
            audience: &workload.audience,
            max_lifetime: workload.max_lifetime,
            now: ctx.now(),
            skew: SKEW,
        };
        let verified = received.verify(&keys, &expected);
        match verified.map(|token| token.workload(&workload.rules)) {
            Ok(Some(workload)) => {
                return Ok((index, workload.expires_at.max(ctx.now().saturating_add(1))));
            }
            // Another entry may be for another audience, or take longer tokens.
            Ok(None) | Err(Fault::Audience | Fault::Lifetime) => {}
            Err(fault) => return Err(Error::IdToken(fault)),
        }
    }
    Err(Error::UnknownWorkload)
}
