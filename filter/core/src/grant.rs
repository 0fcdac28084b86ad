//! An ID-JAG as a grant: every check between its form and its use (ID-JAG §4.4.1), the same for our
//! token endpoint and for one that we guard.
//!
//! Nothing of the payload is believed before the signature, and single use is spent last, so that
//! nobody can burn a grant that is not theirs.

use crate::client_certificate::ClientCertificate;
use crate::config::{GrantRules, IdentityProvider, Replay, Trusts};
use crate::confirmation::Confirmation;
use crate::digest::Key;
use crate::dpop::Proof;
use crate::error::Error;
use crate::flow::Ctx;
use crate::id_jag::{self, IdJag};
use crate::jws::{Fault, MAX_TOKEN};
use crate::replay::{self, Spend};
use crate::replay_store::ReplayStore;
use crate::revocation::{self, Origin};
use crate::site::Site;
use crate::store::Unavailable;
use crate::subject::{self, Subject};
use crate::subject_id::SubjectId;
use serde_json::{Map, Value};
use std::rc::Rc;

/// Who presents a grant.
pub struct Presenter<'a> {
    /// The client that authenticated.
    pub client_id: &'a str,
    /// Who may speak for it.
    pub trusts: &'a Trusts,
    /// The DPoP proof it sent along.
    pub proof: Option<&'a Proof>,
    /// The certificate it showed.
    pub certificate: Option<&'a ClientCertificate>,
}

/// An ID-JAG that has passed every check that does not depend on what is asked for.
pub struct Grant<'a> {
    /// The ID-JAG.
    pub id_jag: IdJag,
    /// Its issuer.
    pub provider: &'a Rc<IdentityProvider>,
    /// Its user, as the issuer names them.
    pub id: SubjectId,
    /// The same, as they are revoked.
    pub origin: Origin,
    /// What it is bound to; this was shown.
    pub confirmation: Option<Confirmation>,
}

/// Checks `assertion`, in this order: its form; its issuer, whose keys verify it; audience, times and
/// client; whether this issuer may speak for this client; tenants; whether what it is bound to was shown;
/// and whether all its resources are governed here.
///
/// Does *not* resolve the user ([`subject()`]), judge how they authenticated
/// ([`authenticated_enough`]), ask whether they were revoked ([`check_revocation`]) or spend the grant ([`spend`]): those come after the target is chosen.
pub async fn verify<'a>(
    ctx: &Ctx,
    site: &Rc<Site>,
    rules: &'a GrantRules,
    presenter: &Presenter<'_>,
    assertion: &str,
    governed: &dyn Fn(&str) -> bool,
) -> Result<Grant<'a>, Error> {
    if assertion.len() > MAX_TOKEN {
        return Err(Error::AssertionTooLarge);
    }
    let mut received =
        id_jag::Received::parse(assertion.as_bytes(), &rules.algorithms).map_err(Error::IdJag)?;

    let issuer = received.issuer().map_err(Error::IdJag)?;
    let provider = rules.identity_providers.get(issuer).ok_or(Error::IdJag(Fault::Issuer))?;
    if !received.is_signed_with_one_of(&provider.algorithms) {
        return Err(Error::IdJag(Fault::AlgorithmNotAllowed));
    }
    let keys = site.keys(ctx, &provider.party, |keys| received.is_known_to(keys)).await?;

    let expected = id_jag::Expected {
        issuer: provider.party.issuer.as_str(),
        audiences: &rules.audiences,
        client_id: presenter.client_id,
        max_lifetime: provider.max_id_jag_lifetime,
        now: ctx.now(),
        skew: rules.skew,
    };
    let told = |fault, claims: &Map<String, Value>| {
        // Signed by a trusted issuer, and no secret; what we expect is in our metadata.
        if matches!(fault, Fault::Audience | Fault::Resource) {
            let own = rules.audiences.first().map(String::as_str).unwrap_or_default();
            let (path, addresses) = (&provider.party.path, id_jag::addresses(claims));
            site.warn(format!("{path}: an ID-JAG has {addresses} at {own:?}"));
        }
        Error::IdJag(fault)
    };
    let id_jag = received.verify(&keys, &expected);
    let id_jag = id_jag.map_err(|fault| told(fault, received.claims()))?;
    if !is_approved(presenter, &id_jag) {
        return Err(Error::IdJag(Fault::IssuerNotForClient));
    }
    let tenant = subject::tenant(&id_jag.claims, &provider.subjects).map_err(Error::IdJag)?;
    let confirmation = Confirmation::parse(&id_jag.claims).map_err(Error::IdJag)?;
    let certificate = presenter.certificate.map(|certificate| &certificate.sha256);
    if !confirmation.as_ref().is_none_or(|cnf| cnf.holds(presenter.proof, certificate)) {
        return Err(Error::IdJag(Fault::Confirmation));
    }
    let claimed = id_jag.resources.as_deref().unwrap_or_default();
    if !claimed.iter().all(|resource| governed(resource)) {
        return Err(told(Fault::Resource, &id_jag.claims));
    }
    let id = SubjectId { issuer: id_jag.issuer.clone(), tenant, subject: id_jag.subject.clone() };
    let origin = revocation::origin(&id.issuer, id.tenant.as_deref(), &id.subject);
    Ok(Grant { id_jag, provider, id, origin, confirmation })
}

/// Trust is (issuer, tenant, client): each approved together, or not at all.
fn is_approved(presenter: &Presenter<'_>, id_jag: &IdJag) -> bool {
    let tenant = id_jag.claims.get("tenant").and_then(|tenant| tenant.as_str());
    presenter.trusts.get(&id_jag.issuer).is_some_and(|tenants| {
        tenants.is_empty()
            || tenant.is_some_and(|tenant| tenants.iter().any(|other| other == tenant))
    })
}

/// The user authenticated as the issuer's entry in the configuration asks: in one of these ways, and
/// not too long ago. A grant that does not say is not enough.
pub fn authenticated_enough(grant: &Grant<'_>, now: u64, skew: u64) -> Result<(), Error> {
    let IdentityProvider { required_acr, max_auth_age, .. } = &**grant.provider;
    grant.id_jag.authentication.suffices(required_acr, *max_auth_age, now, skew)
}

/// The grant's user, as this Resource AS names them.
pub fn subject(grant: &Grant<'_>) -> Result<Subject, Error> {
    subject::resolve(&grant.id_jag.claims, &grant.provider.subjects, grant.id.clone())
        .map_err(Error::IdJag)
}

/// Whether the grant's user has not been revoked since it was issued, as of `now` (seconds since the
/// epoch): the login it stands for is over then.
pub fn check_revocation(site: &Site, grant: &Grant<'_>, now: u64) -> Result<(), Error> {
    match revocation::is_revoked(&*site.store, None, &grant.origin, grant.id_jag.issued_at, now) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::IdJag(Fault::Revoked)),
        Err(Unavailable) => Err(Error::RevocationStore),
    }
}

/// What a spent grant is remembered by.
pub type Spent = (replay::Kind, Key);

/// Spends the grant at the Resource AS `audience`: once, or as often as its issuer's entry allows, in
/// the fleet's store if there is one and else in this process. Returns what this process remembers it
/// by, if it does.
pub async fn spend(
    ctx: &Ctx,
    site: &Site,
    rules: &GrantRules,
    audience: &str,
    grant: &Grant<'_>,
) -> Result<Option<Spent>, Error> {
    let uses = match grant.provider.replay {
        Replay::Off => return Ok(None),
        Replay::SingleUse => 1,
        Replay::Bounded(more) => more.saturating_add(1),
    };
    let IdJag { issuer, jti, expires_at, .. } = &grant.id_jag;
    let until = expires_at.saturating_add(rules.skew).saturating_add(1);
    for nth in 0..uses {
        let name = replay::name(audience, issuer, jti, nth);
        let kind = replay::Kind::Grant(grant.provider.partition);
        let spent = match &rules.replay_store {
            None => replay::spend(&*site.store, kind, &name, until, ctx.now()).ok(),
            Some(store) => {
                let life = until.saturating_sub(ctx.now());
                let answer = ctx.call(store.request(&name, life)).await;
                let spent = answer.as_ref().ok().and_then(|answer| store.response(answer));
                if spent.is_none() {
                    let ReplayStore { path, cluster, .. } = &**store;
                    site.warn(format!("{path}: `{cluster}` does not say who is first: {answer:?}"));
                }
                spent
            }
        };
        match spent {
            Some(Spend::First) => return Ok(rules.replay_store.is_none().then_some((kind, name))),
            Some(Spend::Again) => {}
            Some(Spend::Full) | None => return Err(Error::ReplayStore),
        }
    }
    Err(Error::IdJag(Fault::Replayed))
}
