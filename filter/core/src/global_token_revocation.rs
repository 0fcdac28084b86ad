//! An identity provider asks for all tokens of a user to be revoked (Global Token Revocation,
//! draft-parecki-oauth-global-token-revocation-06; Okta calls it Universal Logout).

use crate::claims;
use crate::client_assertion::Once;
use crate::json;
use crate::jwk::KeySet;
use crate::jws::{self, Algorithm, Fault, HeaderRules, Jws};
use crate::subject_id::{Malformed, SubjectId};

/// JOSE `typ` of the token that authenticates a request. The draft names none; Okta sends it.
const TYP: &str = "global-token-revocation+jwt";
/// Longest time such a token may still run, in seconds (draft §3.5).
const MAX_LIFETIME: u64 = 300;

/// The user in `body`, an `application/json` document: `sub_id` (draft §3.2), or `subject`, as it was
/// called before. Not both: two readers could take either.
///
/// [`Malformed`] says what is wrong; each is a 400 (draft §3.4.2). Does *not* check the content type,
/// nor that the caller is the issuer that [`SubjectId::issuer`] names: that one speaks for its own users
/// only, and the caller is known by [`Received::verify`].
pub fn subject(body: &[u8]) -> Result<SubjectId, Malformed> {
    let members = json::object(body).ok_or(Malformed::Json)?;
    match (members.get("sub_id"), members.get("subject")) {
        (Some(subject), None) | (None, Some(subject)) => SubjectId::parse(subject),
        _ => Err(Malformed::Missing),
    }
}

/// The token that authenticates a request, whose form is sound and whose signature is still to be
/// checked.
#[derive(Debug)]
pub struct Received<'a>(Jws<'a>);

/// What it is checked against.
pub struct Expected<'a> {
    /// Issuer identifier of the identity provider the key set belongs to.
    pub issuer: &'a str,
    /// The URL of our revocation endpoint: the one audience.
    pub endpoint: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
}

impl<'a> Received<'a> {
    /// Form and header of `token`. `typ` may be absent, `JWT`, or `global-token-revocation+jwt`; a token
    /// that says it is anything else is none (RFC 8725 §3.12).
    pub fn parse(token: &'a [u8], algorithms: &[Algorithm]) -> Result<Self, Fault> {
        let rules = HeaderRules {
            typ: |typ| {
                typ.is_none_or(|typ| ["JWT", TYP].iter().any(|name| jws::is_media_type(typ, name)))
            },
            algorithms,
            forbid_keys: true,
        };
        jws::parse(token, &rules).map(Self)
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

    /// Signature and claims (draft §3.5): of the identity provider, for this endpoint alone, near its
    /// end, with all that must be there. `sub` is our name at the provider, which nobody need have told
    /// us: it must be there and may be anything.
    ///
    /// Does *not* check that the token was not used before (draft §3.5: SHOULD): that is the caller's,
    /// with what this returns.
    pub fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<Once, Fault> {
        keys.verify(&self.0)?;
        let claims = &self.0.claims;
        if claims::identifier(claims, "iss")? != expected.issuer {
            return Err(Fault::Issuer);
        }
        // "This MUST be the exact endpoint URL." An access token of that provider may have our issuer
        // identifier as its audience and no `typ`; whoever holds one must not log everybody out.
        claims::sole_audience(claims, expected.endpoint)?;
        let expires_at = claims::near_end(claims, expected.now, expected.skew, MAX_LIFETIME)?;
        if !claims.contains_key("iat") {
            return Err(Fault::Missing("iat"));
        }
        claims::identifier(claims, "sub")?;
        let jti = claims::identifier(claims, "jti")?.to_owned();
        Ok(Once { jti, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;
    use p256::pkcs8::EncodePrivateKey;
    use serde_json::{Value, json};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 1_800_000_000;
    const IDP: &str = "https://acme.idp.example";
    const ENDPOINT: &str = "https://mcp.acme.example/global-token-revocation";

    fn key(seed: u8) -> SigningKey {
        let secret = p256::SecretKey::from_slice(&[seed; 32]).unwrap();
        let pem = secret.to_pkcs8_pem(Default::default()).unwrap();
        SigningKey::from_pem(&pem, Some(&format!("key-{seed}"))).unwrap()
    }

    fn claims() -> Value {
        json!({
            "iss": IDP, "sub": "our-client-id", "aud": ENDPOINT, "jti": "1",
            "iat": NOW, "nbf": NOW - 300, "exp": NOW + 300,
        })
    }

    fn changed(change: Value) -> String {
        let mut claims = claims();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        key(1).sign(TYP, &claims)
    }

    fn verify(token: &str) -> Result<Once, Fault> {
        let keys = json!({ "keys": [key(1).public_jwk()] }).to_string();
        let keys = KeySet::parse(keys.as_bytes()).unwrap();
        let expected = Expected { issuer: IDP, endpoint: ENDPOINT, now: NOW, skew: 60 };
        Received::parse(token.as_bytes(), &[Algorithm::ES256])?.verify(&keys, &expected)
    }

    #[test]
    fn an_identity_provider_proves_itself_with_a_token_for_this_endpoint() {
        let accepted = [
            ("Okta's typ", changed(json!({}))),
            ("with its prefix", key(1).sign(&format!("application/{TYP}"), &claims())),
            ("typ JWT", key(1).sign("JWT", &claims())),
            ("an audience in an array", changed(json!({ "aud": [ENDPOINT] }))),
            ("no nbf", changed(json!({ "nbf": null }))),
        ];

        for (what, token) in accepted {
            let once = Once { jti: "1".to_owned(), expires_at: NOW + 300 };
            assert_eq!(verify(&token), Ok(once), "{what}");
        }
        let received = changed(json!({}));
        let received = Received::parse(received.as_bytes(), &[Algorithm::ES256]).unwrap();
        assert_eq!(received.issuer(), Ok(IDP));
    }

    #[test]
    fn whatever_else_the_provider_signed_does_not_prove_it() {
        let cases = [
            ("an ID-JAG", key(1).sign("oauth-id-jag+jwt", &claims()), Fault::Typ),
            ("an access token", key(1).sign("at+jwt", &claims()), Fault::Typ),
            ("an event", key(1).sign("secevent+jwt", &claims()), Fault::Typ),
            (
                "for our issuer",
                changed(json!({ "aud": "https://mcp.acme.example" })),
                Fault::Audience,
            ),
            ("for others too", changed(json!({ "aud": [ENDPOINT, IDP] })), Fault::Audience),
            ("a query", changed(json!({ "aud": format!("{ENDPOINT}?a=b") })), Fault::Audience),
            ("no aud", changed(json!({ "aud": null })), Fault::Missing("aud")),
            ("another issuer", changed(json!({ "iss": format!("{IDP}/") })), Fault::Issuer),
            ("no iss", changed(json!({ "iss": null })), Fault::Missing("iss")),
            ("no sub", changed(json!({ "sub": null })), Fault::Missing("sub")),
            ("no jti", changed(json!({ "jti": null })), Fault::Missing("jti")),
            ("no iat", changed(json!({ "iat": null })), Fault::Missing("iat")),
            ("no exp", changed(json!({ "exp": null })), Fault::Missing("exp")),
            ("exp as text", changed(json!({ "exp": "1" })), Fault::ClaimType("exp")),
            ("expired", changed(json!({ "exp": NOW - 60 })), Fault::Expired),
            ("too long to go", changed(json!({ "exp": NOW + 361 })), Fault::Lifetime),
            ("not yet", changed(json!({ "nbf": NOW + 61 })), Fault::NotYetValid),
            ("from the future", changed(json!({ "iat": NOW + 61 })), Fault::IssuedInFuture),
            ("another key", key(2).sign(TYP, &claims()), Fault::KeyUnknown),
            ("opaque", "f5641763544a7b24b08e4f74045".to_owned(), Fault::Format),
        ];

        for (what, token, fault) in cases {
            assert_eq!(verify(&token), Err(fault), "{what}");
        }
    }

    #[test]
    fn the_user_is_in_sub_id_or_as_older_drafts_have_it_in_subject() {
        let user = json!({ "format": "iss_sub", "iss": IDP, "sub": "alice" });

        for body in [json!({ "sub_id": user }), json!({ "subject": user })] {
            let subject = subject(body.to_string().as_bytes()).unwrap();
            assert_eq!((&*subject.issuer, &*subject.subject), (IDP, "alice"), "{body}");
        }
    }

    #[test]
    fn a_body_that_names_no_user_or_two_is_malformed() {
        let user = r#"{"format":"iss_sub","iss":"https://idp","sub":"alice"}"#;
        let cases = [
            (String::new(), Malformed::Json),
            ("null".to_owned(), Malformed::Json),
            (format!("[{user}]"), Malformed::Json),
            (format!(r#"{{"sub_id":{user},"sub_id":{user}}}"#), Malformed::Json),
            (format!(r#"{{"sub_id":{user}}} "#).repeat(2), Malformed::Json),
            ("{}".to_owned(), Malformed::Missing),
            (user.to_owned(), Malformed::Missing),
            (format!(r#"{{"sub_id":{user},"subject":{user}}}"#), Malformed::Missing),
            (r#"{"sub_id":null}"#.to_owned(), Malformed::Member),
            (
                r#"{"sub_id":{"format":"email","email":"alice@acme.example"}}"#.to_owned(),
                Malformed::Unsupported,
            ),
        ];

        for (body, malformed) in cases {
            assert_eq!(subject(body.as_bytes()), Err(malformed), "{body}");
        }
    }
}
