//! Security event tokens that an identity provider pushes (RFC 8417, RFC 8935), of which one kind is
//! acted upon: that a user's sessions are revoked (OpenID CAEP §3.1).

use crate::claims;
use crate::json;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, HeaderRules, Jws};
use crate::subject_id::{Malformed, SubjectId};
use serde_json::{Map, Value};

/// JOSE `typ` of a security event token (RFC 8417 §2.3).
const TYP: &str = "secevent+jwt";
/// The event that is acted upon (OpenID CAEP §3.1).
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// Why a security event token is not acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The token does not pass.
    Token(jws::Fault),
    /// `iat` is longer ago than any token of ours lives.
    Stale,
    /// `events` is not an object of exactly one event whose payload is an object.
    Events,
    /// A sound event of another type. No error: there is nothing to do.
    Ignored,
    /// `sub_id` does not pass.
    Subject(Malformed),
    /// `sub_id` names a user of another issuer.
    ForeignSubject,
}

impl From<jws::Fault> for Fault {
    fn from(fault: jws::Fault) -> Self {
        Self::Token(fault)
    }
}

impl Fault {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Token(fault) => fault.code(),
            Self::Stale => "event_stale",
            Self::Events => "events",
            Self::Ignored => "event_ignored",
            Self::Subject(malformed) => malformed.code(),
            Self::ForeignSubject => "sub_id_issuer",
        }
    }

    /// `err` of the answer (RFC 8935 §2.4), or `None` where the answer is 202 all the same.
    pub fn err(self) -> Option<&'static str> {
        use jws::Fault::{AlgorithmNotAllowed, Audience, Issuer, KeyUnknown, Signature};
        Some(match self {
            Self::Ignored => return None,
            Self::Token(KeyUnknown | AlgorithmNotAllowed) => "invalid_key",
            Self::Token(Signature) => "authentication_failed",
            Self::Token(Issuer) => "invalid_issuer",
            Self::Token(Audience) => "invalid_audience",
            Self::ForeignSubject => "access_denied",
            Self::Token(_) | Self::Stale | Self::Events | Self::Subject(_) => "invalid_request",
        })
    }
}

/// What an event is checked against.
pub struct Expected<'a> {
    /// Issuer identifier of the identity provider the key set belongs to.
    pub issuer: &'a str,
    /// Our name at that provider's event stream.
    pub audience: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
    /// How old an event may be, in seconds: as long as a token of ours lives at most.
    pub max_age: u64,
}

/// The sessions of a user have been revoked. Only [`Received::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRevoked {
    /// Whatever we issued up to here is revoked, in seconds since the epoch: `iat` plus skew,
    /// since the issuer's clock may be behind ours, but not beyond now.
    pub before: u64,
    /// Whose sessions.
    pub subject: SubjectId,
}

/// A security event token whose form is sound and whose signature is still to be checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

impl<'a> Received<'a> {
    /// Form and header of `token`: compact JWS, strict JSON, `typ` `secevent+jwt`, no `crit`, no key in
    /// the header, an allowed `alg`.
    pub fn parse(token: &'a [u8], algorithms: &[Algorithm]) -> Result<Self, Fault> {
        let rules = HeaderRules {
            // RFC 8417 §2.3 recommends it, the OpenID Shared Signals Framework demands it.
            typ: |typ| typ.is_some_and(|typ| jws::is_media_type(typ, TYP)),
            algorithms,
            forbid_keys: true,
        };
        Ok(Self(jws::parse(token, &rules)?))
    }

    /// The unverified `iss`, good only for choosing whose keys to verify with.
    pub fn issuer(&self) -> Result<&str, Fault> {
        Ok(claims::identifier(&self.0.claims, "iss")?)
    }

    /// Whether `algorithms` has this token's `alg`.
    pub fn is_signed_with_one_of(&self, algorithms: &[Algorithm]) -> bool {
        algorithms.contains(&self.0.algorithm)
    }

    /// Whether `keys` has a key for this token.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(&self.0)
    }

    /// Signature, `iss`, `aud`, times, `jti`, then the event and its `sub_id`. An issuer speaks for
    /// its own users only. [`Fault::Ignored`] once all but the event's type is right.
    ///
    /// Does *not* check that the event was not seen before. It need not be: [`SessionRevoked::before`]
    /// is the event's own time, so seeing it again revokes nothing new once the skew has passed.
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<SessionRevoked, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;
        if claims::identifier(claims, "iss")? != expected.issuer {
            return Err(jws::Fault::Issuer.into());
        }
        // RFC 8417 §2.2: one event may be for several recipients.
        let audiences = json::strings(claims, "aud").map_err(|_| jws::Fault::ClaimType("aud"))?;
        if !audiences.ok_or(jws::Fault::Missing("aud"))?.contains(&expected.audience) {
            return Err(jws::Fault::Audience.into());
        }
        let issued_at = issued_at(claims, expected)?;
        claims::identifier(claims, "jti")?;
        only_session_revoked(claims)?;
        let subject = claims.get("sub_id").ok_or(Fault::Subject(Malformed::Missing))?;
        let subject = SubjectId::parse(subject).map_err(Fault::Subject)?;
        if subject.issuer != expected.issuer {
            return Err(Fault::ForeignSubject);
        }
        let before = issued_at.saturating_add(expected.skew).min(expected.now);
        Ok(SessionRevoked { before, subject })
    }
}

/// `iat`, which must be there. An event is about the past and does not expire (RFC 8417 §2.2), but
/// where it says when it ends, that is honoured.
fn issued_at(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<u64, Fault> {
    let time = |name| json::seconds(claims, name).map_err(|_| jws::Fault::ClaimType(name));
    let iat = time("iat")?.ok_or(jws::Fault::Missing("iat"))?;
    let Expected { now, skew, max_age, .. } = *expected;
    let latest = now.saturating_add(skew);
    if time("exp")?.is_some_and(|exp| now >= exp.saturating_add(skew)) {
        return Err(jws::Fault::Expired.into());
    }
    if time("nbf")?.is_some_and(|nbf| nbf > latest) {
        return Err(jws::Fault::NotYetValid.into());
    }
    if iat > latest {
        return Err(jws::Fault::IssuedInFuture.into());
    }
    if now > iat.saturating_add(max_age).saturating_add(skew) {
        return Err(Fault::Stale);
    }
    Ok(iat)
}

/// One event a token, and this one. Of several, none is acted upon: taking a revocation for something
/// to ignore would tell its sender that it was heard.
fn only_session_revoked(claims: &Map<String, Value>) -> Result<(), Fault> {
    let events = claims.get("events").and_then(Value::as_object).ok_or(Fault::Events)?;
    let mut events = events.iter();
    match (events.next(), events.next()) {
        (Some((name, Value::Object(_))), None) if name == SESSION_REVOKED => Ok(()),
        (Some((_, Value::Object(_))), None) => Err(Fault::Ignored),
        _ => Err(Fault::Events),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;
    use p256::pkcs8::EncodePrivateKey;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 1_800_000_000;
    const IDP: &str = "https://acme.idp.example";
    const US: &str = "https://mcp.acme.example/events";

    fn key(seed: u8) -> SigningKey {
        let secret = p256::SecretKey::from_slice(&[seed; 32]).unwrap();
        let pem = secret.to_pkcs8_pem(Default::default()).unwrap();
        SigningKey::from_pem(&pem, Some(&format!("key-{seed}"))).unwrap()
    }

    fn claims(change: Value) -> Value {
        let mut claims = json!({
            "iss": IDP, "aud": US, "iat": NOW - 100, "jti": "1",
            "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "alice" },
            "events": { SESSION_REVOKED: { "event_timestamp": NOW - 110 } },
        });
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    fn verify(token: &str) -> Result<SessionRevoked, Fault> {
        let keys = json!({ "keys": [key(1).public_jwk()] }).to_string();
        let keys = KeySet::parse(keys.as_bytes()).unwrap();
        let expected = Expected { issuer: IDP, audience: US, now: NOW, skew: 60, max_age: 300 };
        Received::parse(token.as_bytes(), &[Algorithm::ES256])?.verify(&keys, &expected)
    }

    fn changed(change: Value) -> Result<SessionRevoked, Fault> {
        verify(&key(1).sign(TYP, &claims(change)))
    }

    #[test]
    fn a_revoked_session_ends_what_was_issued_up_to_its_time() {
        let event = changed(json!({})).unwrap();

        assert_eq!((&*event.subject.subject, event.before), ("alice", NOW - 40));
    }

    #[test]
    fn a_sound_event_is_taken() {
        let user = json!({ "format": "iss_sub", "iss": IDP, "sub": "alice" });
        let accepted = [
            ("for several", json!({ "aud": ["https://other.example", US] })),
            ("with an end", json!({ "exp": NOW - 59 })),
            ("as old as may be", json!({ "iat": NOW - 360 })),
            ("as new as may be", json!({ "iat": NOW + 60 })),
            ("a complex subject", json!({ "sub_id": { "format": "complex", "user": user } })),
            ("an empty payload", json!({ "events": { SESSION_REVOKED: {} } })),
        ];

        for (what, change) in accepted {
            let event = changed(change).unwrap();
            assert!(event.before <= NOW, "{what}");
        }
        assert!(verify(&key(1).sign("application/SecEvent+JWT", &claims(json!({})))).is_ok());
    }

    #[test]
    fn an_event_of_another_type_is_ignored_once_all_else_is_right() {
        let other = "https://schemas.openid.net/secevent/ssf/event-type/verification";
        let stream = json!({ "format": "opaque", "id": "stream-1" });
        let verification = json!({ "events": { other: { "state": "x" } }, "sub_id": stream });
        let forged = key(2).sign(TYP, &claims(verification.clone()));

        assert_eq!(changed(verification), Err(Fault::Ignored));
        assert_eq!(Fault::Ignored.err(), None);
        assert_eq!(verify(&forged), Err(Fault::Token(jws::Fault::KeyUnknown)));
    }

    #[test]
    fn an_unsound_event_is_refused_with_the_word_of_its_standard() {
        use jws::Fault as Jwt;
        let request = "invalid_request";
        let foreign = json!({ "format": "iss_sub", "iss": "https://idp.example", "sub": "alice" });
        let two = json!({ SESSION_REVOKED: {}, "https://other.example/event": {} });
        let cases = [
            (json!({ "iss": "https://idp.example" }), Fault::Token(Jwt::Issuer), "invalid_issuer"),
            (json!({ "iss": null }), Fault::Token(Jwt::Missing("iss")), request),
            (
                json!({ "aud": "https://a.example" }),
                Fault::Token(Jwt::Audience),
                "invalid_audience",
            ),
            (json!({ "aud": [] }), Fault::Token(Jwt::Audience), "invalid_audience"),
            (json!({ "aud": null }), Fault::Token(Jwt::Missing("aud")), request),
            (json!({ "aud": [US, 1] }), Fault::Token(Jwt::ClaimType("aud")), request),
            (json!({ "iat": null }), Fault::Token(Jwt::Missing("iat")), request),
            (json!({ "iat": "1" }), Fault::Token(Jwt::ClaimType("iat")), request),
            (json!({ "iat": NOW + 61 }), Fault::Token(Jwt::IssuedInFuture), request),
            (json!({ "iat": u64::MAX }), Fault::Token(Jwt::IssuedInFuture), request),
            (json!({ "iat": NOW - 361 }), Fault::Stale, request),
            (json!({ "exp": NOW - 60 }), Fault::Token(Jwt::Expired), request),
            (json!({ "nbf": NOW + 61 }), Fault::Token(Jwt::NotYetValid), request),
            (json!({ "jti": null }), Fault::Token(Jwt::Missing("jti")), request),
            (json!({ "jti": 1 }), Fault::Token(Jwt::ClaimType("jti")), request),
            (json!({ "events": null }), Fault::Events, request),
            (json!({ "events": {} }), Fault::Events, request),
            (json!({ "events": [SESSION_REVOKED] }), Fault::Events, request),
            (json!({ "events": { SESSION_REVOKED: null } }), Fault::Events, request),
            (json!({ "events": two }), Fault::Events, request),
            (json!({ "sub_id": null }), Fault::Subject(Malformed::Missing), request),
            (json!({ "sub_id": "alice" }), Fault::Subject(Malformed::Member), request),
            (json!({ "sub_id": foreign }), Fault::ForeignSubject, "access_denied"),
        ];

        for (change, fault, err) in cases {
            assert_eq!(changed(change.clone()), Err(fault), "{change}");
            assert_eq!(fault.err(), Some(err), "{change}");
        }
    }

    #[test]
    fn what_the_provider_did_not_sign_as_an_event_is_none() {
        use jws::Fault as Jwt;
        let sound = key(1).sign(TYP, &claims(json!({})));
        let other = key(1).sign(TYP, &claims(json!({ "jti": "2" })));
        let mixed = [&sound[..sound.rfind('.').unwrap()], &other[other.rfind('.').unwrap()..]];
        let cases = [
            (key(1).sign("JWT", &claims(json!({}))), Jwt::Typ, "invalid_request"),
            (key(1).sign("logout+jwt", &claims(json!({}))), Jwt::Typ, "invalid_request"),
            (key(2).sign(TYP, &claims(json!({}))), Jwt::KeyUnknown, "invalid_key"),
            (mixed.concat(), Jwt::Signature, "authentication_failed"),
            ("{}".to_owned(), Jwt::Charset, "invalid_request"),
        ];

        for (token, fault, err) in cases {
            assert_eq!(verify(&token), Err(Fault::Token(fault)), "{token}");
            assert_eq!(Fault::Token(fault).err(), Some(err), "{token}");
        }
    }
}
