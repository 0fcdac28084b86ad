//! The key or certificate a token is bound to: its `cnf` claim (RFC 7800 §3, RFC 9449 §6, RFC 8705
//! §3.1).

use crate::digest::base64url;
use crate::dpop::Proof;
use crate::json;
use crate::jwk;
use crate::jws::Fault;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// What must be shown to be held along with a token. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// RFC 7638 thumbprint of a key, shown by a DPoP proof: `jkt`.
    pub jkt: Option<String>,
    /// SHA-256 of a client certificate's DER, base64url, shown by mutual TLS: `x5t#S256`.
    pub x5t_s256: Option<String>,
}

impl Confirmation {
    /// The `cnf` of `claims`; `Ok(None)` if there is none. A `jwk` (RFC 7800 §3.2) counts as its
    /// thumbprint.
    ///
    /// [`Fault::Confirmation`] if it is no object, says nothing, names two keys, or has a member that
    /// is malformed or not known: what cannot be checked must not be ignored (RFC 7800 §3.1).
    pub fn parse(claims: &Map<String, Value>) -> Result<Option<Self>, Fault> {
        let Some(cnf) = claims.get("cnf") else {
            return Ok(None);
        };
        cnf.as_object().and_then(Self::of_members).map(Some).ok_or(Fault::Confirmation)
    }

    fn of_members(cnf: &Map<String, Value>) -> Option<Self> {
        if !cnf.keys().all(|name| matches!(name.as_str(), "jkt" | "jwk" | "x5t#S256")) {
            return None;
        }
        let jkt = digest(cnf, "jkt")?;
        let of_jwk = match cnf.get("jwk") {
            None => None,
            Some(jwk) => Some(jwk::thumbprint(jwk.as_object()?)?),
        };
        if jkt.is_some() && of_jwk.is_some() && jkt != of_jwk {
            return None;
        }
        let jkt = jkt.or(of_jwk);
        let x5t_s256 = digest(cnf, "x5t#S256")?;
        (jkt.is_some() || x5t_s256.is_some()).then_some(Self { jkt, x5t_s256 })
    }

    /// The value of `cnf` that says this, for a token of ours.
    pub fn to_claim(&self) -> Value {
        let mut cnf = Map::new();
        for (name, value) in [("jkt", &self.jkt), ("x5t#S256", &self.x5t_s256)] {
            if let Some(value) = value {
                cnf.insert(name.to_owned(), value.as_str().into());
            }
        }
        Value::Object(cnf)
    }

    /// Whether everything named here was shown: `jkt` by the key of `proof`, `x5t#S256` by the client
    /// certificate of the connection, whose DER has the SHA-256 `certificate_sha256`. If nothing is
    /// named, nothing holds.
    ///
    /// Does *not* ask with which scheme the token came (RFC 9449 §7.2).
    pub fn holds(&self, proof: Option<&Proof>, certificate_sha256: Option<&[u8; 32]>) -> bool {
        let key = |jkt: &String| proof.is_some_and(|proof| proof.thumbprint == *jkt);
        let certificate =
            |x5t: &String| certificate_sha256.is_some_and(|der| base64url(der) == *x5t);
        (self.jkt.is_some() || self.x5t_s256.is_some())
            && self.jkt.as_ref().is_none_or(key)
            && self.x5t_s256.as_ref().is_none_or(certificate)
    }
}

/// The member `name`, a SHA-256 in its 43 digits of base64url: `Some(None)` if absent, `None` if it is
/// anything else.
fn digest(cnf: &Map<String, Value>, name: &str) -> Option<Option<String>> {
    let Some(text) = json::string(cnf, name).ok()? else {
        return Some(None);
    };
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    (bytes.len() == 32).then(|| Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Thumbprint of the key of RFC 9449 §4.1.
    const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    /// `x5t#S256` of the certificate of RFC 8705 appendix A.
    const X5T: &str = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";

    fn jwk() -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        })
    }

    fn parse(cnf: Value) -> Result<Option<Confirmation>, Fault> {
        Confirmation::parse(json!({ "sub": "x", "cnf": cnf }).as_object().unwrap())
    }

    fn proof(thumbprint: &str) -> Proof {
        Proof { thumbprint: thumbprint.to_owned(), jti: "1".to_owned(), until: 0 }
    }

    #[test]
    fn a_token_without_confirmation_is_bound_to_nothing() {
        let claims = json!({ "sub": "x" });

        assert_eq!(Confirmation::parse(claims.as_object().unwrap()), Ok(None));
    }

    #[test]
    fn what_is_read_is_what_is_written() {
        for (cnf, written) in [
            (json!({ "jkt": JKT }), json!({ "jkt": JKT })),
            (json!({ "jwk": jwk() }), json!({ "jkt": JKT })),
            (json!({ "jkt": JKT, "jwk": jwk() }), json!({ "jkt": JKT })),
            (json!({ "x5t#S256": X5T }), json!({ "x5t#S256": X5T })),
            (json!({ "jkt": JKT, "x5t#S256": X5T }), json!({ "jkt": JKT, "x5t#S256": X5T })),
        ] {
            let confirmation = parse(cnf.clone()).unwrap().unwrap();

            assert_eq!(confirmation.to_claim(), written, "{cnf}");
            assert_eq!(parse(written), Ok(Some(confirmation)), "{cnf}");
        }
    }

    #[test]
    fn a_confirmation_that_cannot_be_checked_is_refused() {
        for cnf in [
            json!(null),
            json!([]),
            json!(JKT),
            json!({}),
            json!({ "jkt": null }),
            json!({ "jkt": [JKT] }),
            json!({ "jkt": "" }),
            json!({ "jkt": format!("{JKT}=") }),
            json!({ "jkt": format!("{JKT}A") }),
            json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J" }),
            json!({ "jkt": "0ZcOCORZNYy+DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
            json!({ "jkt": JKT, "kid": "1" }),
            json!({ "jkt": JKT, "x5t#S256": 1 }),
            json!({ "jkt": X5T, "jwk": jwk() }),
            json!({ "jkt": JKT, "jwk": null }),
            json!({ "jwk": "x" }),
            json!({ "jwk": { "kty": "oct", "k": JKT } }),
            json!({ "x5t": X5T }),
            json!({ "x5t#s256": X5T }),
            json!({ "kid": "1" }),
            json!({ "jwe": "x" }),
            json!({ "jku": "https://x.example", "kid": "1" }),
        ] {
            assert_eq!(parse(cnf.clone()), Err(Fault::Confirmation), "{cnf}");
        }
    }

    #[test]
    fn everything_that_is_named_must_be_shown() {
        let (own, other) = (proof(JKT), proof(X5T));
        let certificate: [u8; 32] = URL_SAFE_NO_PAD.decode(X5T).unwrap().try_into().unwrap();
        let (jkt, x5t_s256) = (Some(JKT.to_owned()), Some(X5T.to_owned()));
        let by_key = Confirmation { jkt: jkt.clone(), x5t_s256: None };
        let by_certificate = Confirmation { jkt: None, x5t_s256: x5t_s256.clone() };
        let by_both = Confirmation { jkt, x5t_s256 };

        assert!(by_key.holds(Some(&own), None));
        assert!(by_key.holds(Some(&own), Some(&[0; 32])));
        assert!(by_certificate.holds(None, Some(&certificate)));
        assert!(by_certificate.holds(Some(&other), Some(&certificate)));
        assert!(by_both.holds(Some(&own), Some(&certificate)));
        for (confirmation, proof, certificate) in [
            (&by_key, None, Some(&certificate)),
            (&by_key, Some(&other), Some(&certificate)),
            (&by_certificate, Some(&own), None),
            (&by_certificate, Some(&own), Some(&[0; 32])),
            (&by_both, Some(&own), None),
            (&by_both, None, Some(&certificate)),
            (&by_both, Some(&other), Some(&certificate)),
        ] {
            assert!(!confirmation.holds(proof, certificate), "{confirmation:?} {proof:?}");
        }
    }

    #[test]
    fn a_confirmation_of_nothing_never_holds() {
        let nothing = Confirmation { jkt: None, x5t_s256: None };

        assert!(!nothing.holds(Some(&proof(JKT)), Some(&[0; 32])));
    }
}
