//! The Identity Assertion JWT Authorization Grant (ID-JAG draft §3, §4.4.1; RFC 7523 §3).

use crate::claims;
use crate::json;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use crate::names;
use serde_json::{Map, Value};

/// An ID-JAG that has passed every check made here. Only [`Received::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdJag {
    /// The identity provider that issued it.
    pub issuer: String,
    /// The user, in the issuer's name space.
    pub subject: String,
    /// The tenant of the issuer in which `subject` is unique, if the grant names one.
    pub tenant: Option<String>,
    /// The client's identifier at this Resource AS.
    pub client_id: String,
    /// Unique identifier, with `issuer` the key of single use.
    pub jti: String,
    /// Seconds since the epoch.
    pub expires_at: u64,
    /// `resource`, if the grant names any (RFC 8707).
    pub resources: Option<Vec<String>>,
    /// `scope`, if the grant has it: the upper bound of what may be issued.
    pub scope: Option<String>,
    /// How the user authenticated, and who acts for them.
    pub authentication: Authentication,
}

/// What the grant says of the authentication behind it (ID-JAG §3.1; RFC 8693 §4.1). It is copied into
/// the access token, so that a resource can ask for more (RFC 9470).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// `acr`: the authentication context class.
    pub acr: Option<String>,
    /// `auth_time`, in seconds since the epoch.
    pub auth_time: Option<u64>,
    /// `amr`: the methods used.
    pub amr: Option<Vec<String>>,
    /// `act`: who acts for the user. Data, never authority.
    pub act: Option<Value>,
}

impl Authentication {
    fn parse(claims: &Map<String, Value>) -> Result<Self, Fault> {
        let act = claims.get("act");
        if act.is_some_and(|act| !act.is_object()) {
            return Err(Fault::ClaimType("act"));
        }
        let amr = match claims.get("amr") {
            None => None,
            Some(Value::Array(_)) => {
                let amr = json::strings(claims, "amr").map_err(|_| Fault::ClaimType("amr"))?;
                amr.map(|amr| amr.into_iter().map(str::to_owned).collect())
            }
            Some(_) => return Err(Fault::ClaimType("amr")),
        };
        let acr = json::string(claims, "acr").map_err(|_| Fault::ClaimType("acr"))?;
        Ok(Self {
            acr: acr.map(str::to_owned),
            auth_time: json::seconds(claims, "auth_time")
                .map_err(|_| Fault::ClaimType("auth_time"))?,
            amr,
            act: act.cloned(),
        })
    }
}

/// What an ID-JAG is checked against.
pub struct Expected<'a> {
    /// Issuer identifier of the identity provider the key set belongs to.
    pub issuer: &'a str,
    /// Our own issuer identifier: the one audience.
    pub audience: &'a str,
    /// The client that authenticated this request.
    pub client_id: &'a str,
    /// Longest `exp` - `iat`, in seconds.
    pub max_lifetime: u64,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
}

/// An ID-JAG whose form is sound and whose signature is still to be checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

impl<'a> Received<'a> {
    /// Form and header of `assertion`: compact JWS, strict JSON, `typ`, no `crit`, no key in the
    /// header, an allowed `alg`.
    pub fn parse(assertion: &'a [u8], algorithms: &[Algorithm]) -> Result<Self, Fault> {
        let rules = HeaderRules {
            typ: |typ| typ.is_some_and(|typ| jws::is_media_type(typ, names::TYP_ID_JAG)),
            algorithms,
            forbid_keys: true,
        };
        jws::parse(assertion, &rules).map(Self)
    }

    /// The unverified `iss`, good only for choosing whose keys to verify with.
    pub fn issuer(&self) -> Result<&str, Fault> {
        claims::identifier(&self.0.claims, "iss")
    }

    /// Whether `algorithms` has this token's `alg`.
    pub fn is_signed_with_one_of(&self, algorithms: &[Algorithm]) -> bool {
        algorithms.contains(&self.0.algorithm)
    }

    /// Whether `keys` has a key for this token.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(&self.0)
    }

    /// Signature and claims, in the order of the profile.
    ///
    /// Does *not* check: that the issuer may speak for the client, that `resource` is governed
    /// here, scope, and single use. Those need more than the token; see [`crate::token_endpoint`].
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<IdJag, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;

        // RFC 7523 §3 (1), by simple string comparison.
        let issuer = claims::identifier(claims, "iss")?;
        if issuer != expected.issuer {
            return Err(Fault::Issuer);
        }
        // ID-JAG §4.4.1: the audience is this authorization server's issuer, alone.
        claims::sole_audience(claims, expected.audience)?;
        // RFC 7523 §3 (4), (5), (6); ID-JAG §3.1 demands `iat`.
        let (iat, expires_at) = claims::times(claims, expected.now, expected.skew)?;
        if expires_at - iat > expected.max_lifetime {
            return Err(Fault::Lifetime);
        }
        let subject = claims::identifier(claims, "sub")?;
        let client_id = claims::identifier(claims, "client_id")?;
        let jti = claims::identifier(claims, "jti")?;
        // ID-JAG §4.4.1: `client_id` is the client that authenticated.
        if client_id != expected.client_id {
            return Err(Fault::ClientMismatch);
        }
        // We host no tenants, so a grant made for one of somebody's tenants is not for us.
        if claims.contains_key("aud_tenant") {
            return Err(Fault::Tenant);
        }
        let tenant = match claims.contains_key("tenant") {
            true => Some(claims::identifier(claims, "tenant")?),
            false => None,
        };
        // RFC 7800 §3.1: a confirmation that cannot be checked must not be ignored.
        if claims.contains_key("cnf") {
            return Err(Fault::Confirmation);
        }
        let resources =
            json::strings(claims, "resource").map_err(|_| Fault::ClaimType("resource"))?;
        if resources.as_ref().is_some_and(Vec::is_empty) {
            return Err(Fault::ClaimType("resource"));
        }
        let scope = json::string(claims, "scope").map_err(|_| Fault::ClaimType("scope"))?;
        Ok(IdJag {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            tenant: tenant.map(str::to_owned),
            client_id: client_id.to_owned(),
            jti: jti.to_owned(),
            expires_at,
            resources: resources.map(|all| all.into_iter().map(str::to_owned).collect()),
            scope: scope.map(str::to_owned),
            authentication: Authentication::parse(claims)?,
        })
    }
}
