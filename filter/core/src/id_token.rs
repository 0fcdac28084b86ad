//! ID Tokens that callers present (OpenID Connect Core §2, §3.1.3.7).

use crate::claims;
use crate::json;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};

/// An ID Token that has passed every check made here. Only [`Received::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdToken {
    /// The user, in the issuer's name space.
    pub subject: String,
    /// Seconds since the epoch.
    pub expires_at: u64,
}

/// What an ID Token is checked against.
pub struct Expected<'a> {
    /// Issuer identifier of the identity provider.
    pub issuer: &'a str,
    /// The relying party it must have been issued to: our client at that provider.
    pub client_id: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
}

/// An ID Token whose form is sound and whose signature is still to be checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

impl<'a> Received<'a> {
    /// Form and header of `token`. `typ` may be absent or `JWT`; a token that says it is anything
    /// else is not an ID Token (RFC 8725 §3.12).
    pub fn parse(token: &'a [u8], algorithms: &[Algorithm]) -> Result<Self, Fault> {
        let rules = HeaderRules {
            typ: |typ| typ.is_none_or(|typ| jws::is_media_type(typ, "JWT")),
            algorithms,
            // Real providers put `x5t` here; it is ignored, keys come from the issuer only.
            forbid_keys: false,
        };
        jws::parse(token, &rules).map(Self)
    }

    /// Whether `keys` has a key for this token.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(&self.0)
    }

    /// Signature, then `iss`, `aud`, `azp`, `exp`, `iat`, `nbf`, `sub`.
    ///
    /// Does *not* check `nonce` or `at_hash`: those bind the token to a login this filter did not
    /// make. The identity provider checks the token again when it is exchanged.
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<IdToken, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;
        claims::issued_by(claims, expected.issuer)?;
        let audiences = claims::audiences(claims, expected.client_id)?;
        // OIDC Core §3.1.3.7 (4), (5): with several audiences `azp` says who the token is for.
        let azp = json::string(claims, "azp").map_err(|_| Fault::ClaimType("azp"))?;
        if azp.map_or(audiences.len() > 1, |azp| azp != expected.client_id) {
            return Err(Fault::Audience);
        }
        let (_, expires_at) = claims::times(claims, expected.now, expected.skew)?;
        let subject = claims::identifier(claims, "sub")?.to_owned();
        Ok(IdToken { subject, expires_at })
    }
}
