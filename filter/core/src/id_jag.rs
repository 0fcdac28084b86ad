//! The Identity Assertion JWT Authorization Grant (ID-JAG draft §3, §4.4.1; RFC 7523 §3).

use crate::claims;
use crate::error::Error;
use crate::json;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use crate::names;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// An ID-JAG that has passed every check made here. Only [`Received::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdJag {
    /// The identity provider that issued it.
    pub issuer: String,
    /// The user, in the issuer's name space.
    pub subject: String,
    /// The client's identifier at this Resource AS.
    pub client_id: String,
    /// Unique identifier, with `issuer` the key of single use.
    pub jti: String,
    /// Seconds since the epoch.
    pub issued_at: u64,
    /// Seconds since the epoch.
    pub expires_at: u64,
    /// `resource`, if the grant names any (RFC 8707).
    pub resources: Option<Vec<String>>,
    /// `scope`, if the grant has it: the upper bound of what may be issued.
    pub scope: Option<String>,
    /// How the user authenticated, and who acts for them.
    pub authentication: Authentication,
    /// All claims, for what only some issuers are asked for.
    pub claims: Map<String, Value>,
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
    /// Whether the user authenticated in one of the ways `required_acr` (empty: any) and at most
    /// `max_auth_age` seconds ago, with `skew` seconds of grace. What is not said is not so.
    pub fn suffices(
        &self,
        required_acr: &[String],
        max_auth_age: Option<u64>,
        now: u64,
        skew: u64,
    ) -> Result<(), Error> {
        let strong = required_acr.is_empty()
            || self.acr.as_ref().is_some_and(|acr| required_acr.contains(acr));
        let recent = max_auth_age.is_none_or(|age| {
            let since = self.auth_time.map(|time| now.saturating_sub(time));
            since.is_some_and(|since| since <= age.saturating_add(skew))
        });
        if strong && recent {
            return Ok(());
        }
        Err(Error::InsufficientAuthentication {
            acr_values: (!required_acr.is_empty()).then(|| required_acr.join(" ")),
            max_age: max_auth_age,
        })
    }

    /// The authentication claims in `claims`, of an ID-JAG or of an access token of ours.
    pub fn parse(claims: &Map<String, Value>) -> Result<Self, Fault> {
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

/// Whether `text` is a JWT that says it is an ID-JAG. Nothing in it has been verified.
pub fn is_named_one(text: &str) -> bool {
    let header = text.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let header = header.and_then(|header| json::object(&header));
    let typ = header.as_ref().and_then(|header| json::string(header, "typ").ok().flatten());
    typ.is_some_and(|typ| jws::is_media_type(typ, names::TYP_ID_JAG))
}

/// What an ID-JAG is checked against.
pub struct Expected<'a> {
    /// Issuer identifier of the identity provider the key set belongs to.
    pub issuer: &'a str,
    /// Our own issuer identifier, the one audience, and other exact strings that count as it.
    pub audiences: &'a [String],
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

    /// `aud` and `resource` as they are written, for the log: a slash more or less is the usual mistake.
    pub fn addresses(&self) -> String {
        let text = |name| self.0.claims.get(name).map(Value::to_string).unwrap_or_default();
        let text = format!("aud {}, resource {}", text("aud"), text("resource"));
        text.chars().filter(|letter| !letter.is_control()).take(512).collect()
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
    /// Does *not* check: that the issuer may speak for the client, tenants, `cnf`, that `resource` is
    /// governed here, scope, and single use. Those need more than the token; see [`crate::grant`].
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<IdJag, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;

        // RFC 7523 §3 (1), by simple string comparison.
        let issuer = claims::identifier(claims, "iss")?;
        if issuer != expected.issuer {
            return Err(Fault::Issuer);
        }
        // ID-JAG §4.4.1: the audience is this authorization server's issuer, alone.
        let is_us = |audience: &str| expected.audiences.iter().any(|own| own == audience);
        claims::sole_audience_of(claims, is_us)?;
        // RFC 7523 §3 (4), (5), (6); ID-JAG §3.1 demands `iat`.
        let (issued_at, expires_at) = claims::times(claims, expected.now, expected.skew)?;
        if expires_at - issued_at > expected.max_lifetime {
            return Err(Fault::Lifetime);
        }
        let subject = claims::identifier(claims, "sub")?;
        let client_id = claims::identifier(claims, "client_id")?;
        let jti = claims::identifier(claims, "jti")?;
        // ID-JAG §4.4.1: `client_id` is the client that authenticated.
        if client_id != expected.client_id {
            return Err(Fault::ClientMismatch);
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
            client_id: client_id.to_owned(),
            jti: jti.to_owned(),
            issued_at,
            expires_at,
            resources: resources.map(|all| all.into_iter().map(str::to_owned).collect()),
            scope: scope.map(str::to_owned),
            authentication: Authentication::parse(claims)?,
            claims: self.0.claims,
        })
    }
}
