//! Tokens that a platform gives to what runs on it: GitHub Actions, GitLab CI, Kubernetes service
//! accounts (RFC 7519, RFC 8725). Their issuers serve everybody, so rules about claims tell whom we mean.

use crate::claim_rule::ClaimRule;
use crate::claims;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use serde_json::{Map, Value};

/// A workload that is one of those meant. Only [`WorkloadToken::workload`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The workload, in the issuer's name space.
    pub subject: String,
    /// When its token ends, in seconds since the epoch.
    pub expires_at: u64,
}

/// A token that has passed every check but whose workload it is. Only [`Received::verify`] makes one.
#[derive(Debug)]
pub struct WorkloadToken {
    workload: Workload,
    claims: Map<String, Value>,
}

impl WorkloadToken {
    /// The workload, if the claims are as all of `rules` say. `None` as well if there are no rules.
    pub fn workload(&self, rules: &[ClaimRule]) -> Option<Workload> {
        ClaimRule::all_match(rules, &self.claims).then(|| self.workload.clone())
    }
}

/// What a token is checked against.
pub struct Expected<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The one audience it must have.
    pub audience: &'a str,
    /// Longest `exp` - `iat`, in seconds.
    pub max_lifetime: u64,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
}

/// A token whose form is sound and whose signature is still to be checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

impl<'a> Received<'a> {
    /// Form and header of `token`. `typ` may be absent (Kubernetes) or `JWT`; a token that says it is
    /// anything else is not a workload's (RFC 8725 §3.12).
    pub fn parse(token: &'a [u8], algorithms: &[Algorithm]) -> Result<Self, Fault> {
        let rules = HeaderRules {
            typ: |typ| typ.is_none_or(|typ| jws::is_media_type(typ, "JWT")),
            algorithms,
            // GitHub puts `x5t` here; it is ignored, keys come from the issuer only.
            forbid_keys: false,
        };
        jws::parse(token, &rules).map(Self)
    }

    /// Whether `keys` has a key for this token.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(&self.0)
    }

    /// Signature, then `iss`, `aud` (us alone: a token for several could be used here by any of them),
    /// `exp`, `iat`, `nbf`, lifetime, `sub`. A token that is bound to a key (`cnf`) is refused.
    ///
    /// Does *not* check: which workload it is, see [`WorkloadToken::workload`]; `jti`, a workload may
    /// present its token as often as it likes; whether what the token is for still runs.
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<WorkloadToken, Fault> {
        keys.verify(&self.0)?;
        let claims = self.0.claims;
        claims::issued_by(&claims, expected.issuer)?;
        claims::sole_audience(&claims, expected.audience)?;
        claims::is_bearer(&claims)?;
        let (issued_at, expires_at) = claims::times(&claims, expected.now, expected.skew)?;
        if expires_at.saturating_sub(issued_at) > expected.max_lifetime {
            return Err(Fault::Lifetime);
        }
        let subject = claims::identifier(&claims, "sub")?.to_owned();
        Ok(WorkloadToken { workload: Workload { subject, expires_at }, claims })
    }
}
