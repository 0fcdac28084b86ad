//! Access tokens of the identity provider that callers present (RFC 9068 §4). No profile names them as
//! what an ID-JAG is got with: whoever takes them has chosen to.

use crate::claims;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use crate::names;

/// Claims of an ID Token (OIDC Core §3.1.3.6, §3.3.2.11) and of a security event (RFC 8417 §2.2), which
/// no access token has.
const OF_OTHER_KINDS: [&str; 3] = ["at_hash", "c_hash", "events"];

/// An access token that has passed every check made here. Only [`Received::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderAccessToken {
    /// The user or the client it stands for, in the issuer's name space.
    pub subject: String,
    /// The client it was issued to, if it says so: `client_id` (RFC 8693 §4.3), or else `azp`.
    pub client_id: Option<String>,
    /// Seconds since the epoch.
    pub expires_at: u64,
}

/// What an access token is checked against.
pub struct Expected<'a> {
    /// Issuer identifier of the identity provider.
    pub issuer: &'a str,
    /// The audience that must be among the token's. Never the identifier of a client, which is the
    /// audience of ID Tokens.
    pub audience: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
}

/// An access token whose form is sound and whose signature is still to be checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

impl<'a> Received<'a> {
    /// Form and header of `token`. `typ` must be `at+jwt` (RFC 9068 §2.1); with `untyped`, `JWT` or none
    /// will do as well, for providers that write no other. A token that says it is anything else is no
    /// access token.
    pub fn parse(token: &'a [u8], algorithms: &[Algorithm], untyped: bool) -> Result<Self, Fault> {
        let typed = |typ: Option<&str>| {
            typ.is_some_and(|typ| jws::is_media_type(typ, names::TYP_ACCESS_TOKEN))
        };
        let any = |typ: Option<&str>| {
            let known = ["JWT", names::TYP_ACCESS_TOKEN];
            typ.is_none_or(|typ| known.iter().any(|name| jws::is_media_type(typ, name)))
        };
        // Real providers put `x5t` into the header; it is ignored, keys come from the issuer only.
        let typ = if untyped { any } else { typed };
        jws::parse(token, &HeaderRules { typ, algorithms, forbid_keys: false }).map(Self)
    }

    /// Whether `keys` has a key for this token.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(&self.0)
    }

    /// Signature, then `iss`, `aud`, `exp`, `iat`, `nbf`, `sub`, `client_id`. A token that is bound to a
    /// key (`cnf`) is refused, and one with claims that only other kinds of token have.
    ///
    /// Does *not* check: `scope`; whether the token was revoked; whether the subject is a user or the
    /// client itself; which client it was issued to. The last two are the caller's to decide on.
    pub fn verify(
        self,
        keys: &KeySet,
        expected: &Expected<'_>,
    ) -> Result<ProviderAccessToken, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;
        claims::issued_by(claims, expected.issuer)?;
        claims::audiences(claims, expected.audience)?;
        if OF_OTHER_KINDS.iter().any(|name| claims.contains_key(*name)) {
            return Err(Fault::Typ);
        }
        claims::is_bearer(claims)?;
        let (_, expires_at) = claims::times(claims, expected.now, expected.skew)?;
        let client = |name| match claims.contains_key(name) {
            true => claims::identifier(claims, name).map(Some),
            false => Ok(None),
        };
        let (client_id, azp) = (client("client_id")?, client("azp")?);
        if client_id.is_some() && azp.is_some() && client_id != azp {
            return Err(Fault::ClientMismatch);
        }
        Ok(ProviderAccessToken {
            subject: claims::identifier(claims, "sub")?.to_owned(),
            client_id: client_id.or(azp).map(str::to_owned),
            expires_at,
        })
    }
}
