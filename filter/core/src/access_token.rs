//! The access tokens we issue and accept (RFC 9068).

use crate::claims;
use crate::confirmation::Confirmation;
use crate::digest::base64url;
use crate::id_jag::Authentication;
use crate::json;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use crate::names;
use crate::signing::SigningKey;
use crate::subject::Subject;
use crate::subject_id::SubjectId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Algorithms we sign with, hence the only ones accepted.
const ALGORITHMS: &[Algorithm] = &[Algorithm::EdDSA, Algorithm::ES256];

/// What goes into a new token.
pub struct Grant<'a> {
    /// Our issuer identifier.
    pub issuer: &'a str,
    /// The one resource the token opens.
    pub resource: &'a str,
    /// The user.
    pub subject: &'a Subject,
    /// The client that redeemed the grant.
    pub client_id: &'a str,
    /// Granted scope, space-separated; empty for none.
    pub scope: &'a str,
    /// Granted authorization details (RFC 9396 §9.1); empty for none.
    pub authorization_details: &'a [Value],
    /// How the user authenticated at the identity provider.
    pub authentication: &'a Authentication,
    /// What the token is bound to.
    pub confirmation: Option<&'a Confirmation>,
    /// Unique identifier: 128 random bits.
    pub jti: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Life in seconds.
    pub lifetime: u64,
}

/// Signs an access token for `grant` (RFC 9068 §2).
pub fn issue(key: &SigningKey, grant: &Grant<'_>) -> String {
    let mut claims = json!({
        "iss": grant.issuer,
        "aud": grant.resource,
        "sub": base64url(&grant.subject.local.key()),
        "sub_id": grant.subject.id.to_value(),
        "client_id": grant.client_id,
        "iat": grant.now,
        "exp": grant.now.saturating_add(grant.lifetime),
        "jti": grant.jti,
    });
    let Authentication { acr, auth_time, amr, act } = grant.authentication;
    let groups = &grant.subject.groups;
    let details = grant.authorization_details;
    let optional = [
        ("scope", (!grant.scope.is_empty()).then(|| grant.scope.into())),
        ("acr", acr.as_deref().map(Value::from)),
        ("auth_time", auth_time.map(Value::from)),
        ("amr", amr.clone().map(Value::from)),
        ("act", act.clone()),
        ("cnf", grant.confirmation.map(Confirmation::to_claim)),
        ("authorization_details", (!details.is_empty()).then(|| details.into())),
        ("groups", (!groups.is_empty()).then(|| groups.clone().into())),
    ];
    if let Some(claims) = claims.as_object_mut() {
        let present = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
        claims.extend(present.map(|(name, value)| (name.to_owned(), value)));
    }
    key.sign(names::TYP_ACCESS_TOKEN, &claims)
}

/// An access token that we have signed. Only [`verify`] makes one; what it is good for, [`AccessToken::check`]
/// says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// Our name for the user.
    pub subject: String,
    /// The identity provider's name for the user.
    pub id: SubjectId,
    /// The groups of the user that count here.
    pub groups: Vec<String>,
    /// The client it was issued to.
    pub client_id: String,
    /// The one resource it opens.
    pub audience: String,
    /// Granted scope, space-separated; empty for none.
    pub scope: String,
    /// Granted authorization details (RFC 9396); empty for none.
    pub authorization_details: Vec<Value>,
    /// Unique identifier.
    pub jti: String,
    /// Seconds since the epoch.
    pub issued_at: u64,
    /// Seconds since the epoch.
    pub expires_at: u64,
    /// Seconds since the epoch, if it says.
    pub not_before: Option<u64>,
    /// How the user authenticated at the identity provider.
    pub authentication: Authentication,
    /// What must be shown to be held along with it.
    pub confirmation: Option<Confirmation>,
}

/// Whether `token` says that it is one of `issuer`: nothing in it has been verified. A token that does not
/// is none of our business, where a resource has authorization servers of its own.
pub fn is_ours(token: &[u8], issuer: &str) -> bool {
    let payload = token.split(|byte| *byte == b'.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).ok();
    let claims = payload.and_then(|payload| json::object(&payload));
    claims.is_some_and(|claims| json::string(&claims, "iss") == Ok(Some(issuer)))
}

impl AccessToken {
    /// Whether it is good for `resource` at `now` (RFC 9068 §4): `aud` equal to this resource, `exp`, `nbf`,
    /// `iat`, with `skew` seconds of grace.
    ///
    /// Does *not* check scope, revocation or proof of possession.
    pub fn check(&self, resource: &str, now: u64, skew: u64) -> Result<(), Fault> {
        if self.audience != resource {
            return Err(Fault::Audience);
        }
        let Self { issued_at, expires_at, not_before, .. } = *self;
        claims::in_time((issued_at, expires_at, not_before), now, skew)
    }
}

/// Verifies that `token` is ours (RFC 9068 §4): `typ`, `alg`, a key of ours, signature, `iss`, one `aud`; and
/// reads it.
///
/// Does *not* check that it is good for anything, see [`AccessToken::check`].
pub fn verify(token: &[u8], keys: &KeySet, issuer: &str) -> Result<AccessToken, Fault> {
    let jws = signed(token, keys, issuer)?;
    let claims = &jws.claims;
    let audience = claims::only_audience(claims)?;
    let (issued_at, expires_at, not_before) = claims::read_times(claims)?;
    let groups = json::strings(claims, "groups").map_err(|_| Fault::ClaimType("groups"))?;
    let id = claims.get("sub_id").ok_or(Fault::Missing("sub_id"))?;
    let scope = json::string(claims, "scope").map_err(|_| Fault::ClaimType("scope"))?;
    let details = match claims.get("authorization_details") {
        None => Vec::new(),
        Some(Value::Array(details)) => details.clone(),
        Some(_) => return Err(Fault::ClaimType("authorization_details")),
    };
    Ok(AccessToken {
        subject: claims::identifier(claims, "sub")?.to_owned(),
        id: SubjectId::parse(id).map_err(|_| Fault::ClaimType("sub_id"))?,
        groups: groups.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        client_id: claims::identifier(claims, "client_id")?.to_owned(),
        audience: audience.to_owned(),
        scope: scope.unwrap_or_default().to_owned(),
        authorization_details: details,
        jti: claims::identifier(claims, "jti")?.to_owned(),
        issued_at,
        expires_at,
        not_before,
        authentication: Authentication::parse(claims)?,
        confirmation: Confirmation::parse(claims)?,
    })
}

/// A token that we issued, for whatever resource and however long ago. Only [`identify`] makes one; it
/// opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Unique identifier.
    pub jti: String,
    /// The client it was issued to.
    pub client_id: String,
    /// Seconds since the epoch.
    pub expires_at: u64,
}

/// Which token of ours `token` is: `typ`, `alg`, a key of ours, signature, `iss`.
///
/// Does *not* check that it is good for anything: neither `aud` nor times nor revocation.
pub fn identify(token: &[u8], keys: &KeySet, issuer: &str) -> Result<Issued, Fault> {
    let jws = signed(token, keys, issuer)?;
    let claims = &jws.claims;
    let exp = json::seconds(claims, "exp").map_err(|_| Fault::ClaimType("exp"))?;
    Ok(Issued {
        jti: claims::identifier(claims, "jti")?.to_owned(),
        client_id: claims::identifier(claims, "client_id")?.to_owned(),
        expires_at: exp.ok_or(Fault::Missing("exp"))?,
    })
}

/// `token`, if we have signed it as `issuer`.
fn signed<'a>(token: &'a [u8], keys: &KeySet, issuer: &str) -> Result<Jws<'a>, Fault> {
    let rules = HeaderRules {
        typ: |typ| typ.is_some_and(|typ| jws::is_media_type(typ, names::TYP_ACCESS_TOKEN)),
        algorithms: ALGORITHMS,
        forbid_keys: true,
    };
    let jws = jws::parse(token, &rules)?;
    // Every token of ours has a `kid`; without one this is not ours.
    if jws.kid.is_none() {
        return Err(Fault::KeyUnknown);
    }
    keys.verify(&jws)?;
    if claims::identifier(&jws.claims, "iss")? != issuer {
        return Err(Fault::Issuer);
    }
    Ok(jws)
}
