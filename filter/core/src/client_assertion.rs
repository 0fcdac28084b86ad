//! Clients that prove who they are with a signed assertion: `private_key_jwt` (RFC 7523 §2.2 and §3,
//! rfc7523bis).

use crate::claims;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use crate::names;

/// Longest time an assertion may still run, in seconds.
const MAX_LIFETIME: u64 = 300;

/// A client assertion whose form is sound and whose signature is still to be checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

/// What an assertion is checked against.
pub struct Expected<'a> {
    /// The client whose keys these are.
    pub client_id: &'a str,
    /// Our issuer identifier, the audience the standard asks for.
    pub issuer: &'a str,
    /// Our token endpoint, if it may be addressed: many clients still do.
    pub token_endpoint: Option<&'a str>,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
}

/// What is to be remembered of an assertion, so that it counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Its unique identifier.
    pub jti: String,
    /// When it ends, in seconds since the epoch.
    pub expires_at: u64,
}

impl<'a> Received<'a> {
    /// Form and header of `assertion`. `typ` may be absent, `JWT`, or `client-authentication+jwt`; a
    /// token that says it is anything else is no client assertion (RFC 8725 §3.12).
    pub fn parse(assertion: &'a [u8], algorithms: &[Algorithm]) -> Result<Self, Fault> {
        let rules = HeaderRules {
            typ: |typ| {
                let known = ["JWT", names::TYP_CLIENT_ASSERTION];
                typ.is_none_or(|typ| known.iter().any(|name| jws::is_media_type(typ, name)))
            },
            algorithms,
            forbid_keys: true,
        };
        jws::parse(assertion, &rules).map(Self)
    }

    /// The unverified `sub`, good only for choosing whose keys to verify with.
    pub fn subject(&self) -> Result<&str, Fault> {
        claims::identifier(&self.0.claims, "sub")
    }

    /// Whether `keys` has a key that could have signed it.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(&self.0)
    }

    /// Signature and claims (RFC 7523 §3): issued by the client about itself, for us alone, near its
    /// end, with a `jti`.
    ///
    /// Does *not* check that the assertion was not used before: that is the caller's, with what this
    /// returns.
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<Once, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;
        if claims::identifier(claims, "iss")? != expected.client_id
            || claims::identifier(claims, "sub")? != expected.client_id
        {
            return Err(Fault::ClientMismatch);
        }
        // One audience, never a list that mixes values (rfc7523bis, against audience injection).
        claims::sole_audience_of(claims, |audience| {
            audience == expected.issuer || Some(audience) == expected.token_endpoint
        })?;
        let expires_at = claims::near_end(claims, expected.now, expected.skew, MAX_LIFETIME)?;
        let jti = claims::identifier(claims, "jti")?.to_owned();
        Ok(Once { jti, expires_at })
    }
}
