//! Proofs that we hold the key an access token is bound to: DPoP (RFC 9449) from the client's side.

use crate::digest::{Key, base64url, hmac_sha256, sha256};
use crate::engine::Engine;
use crate::http::{Headers, Url};
use crate::names;
use crate::signing::SigningKey;
use serde_json::json;
use zeroize::Zeroizing;

/// Longest nonce of a server that is sent back, in bytes.
const MAX_NONCE: usize = 512;
/// How many scalars are tried. One in 2^32 is none of the curve's.
const TRIES: u8 = 16;

/// A key that access tokens are bound to. It is never stored: whoever has the secret derives it.
#[derive(Debug)]
pub struct ProofKey(SigningKey);

impl ProofKey {
    /// The P-256 key that belongs to `secret`, the same wherever it is derived: the first of
    /// HMAC-SHA-256 under `secret` over a counter that is a scalar of the curve (as FIPS 186-5 §A.2.2,
    /// so that no scalar is likelier than another).
    ///
    /// `None` if 16 in a row are not, which no secret that can be found does. Does *not* tell users and
    /// resources apart: `secret` has to be another one for each pair.
    pub fn derive(secret: &Key) -> Option<Self> {
        (0..TRIES).find_map(|counter| {
            let scalar = Zeroizing::new(hmac_sha256(secret, &[b"dpop proof key", &[counter]]));
            SigningKey::from_p256_scalar(&scalar).map(Self)
        })
    }

    /// The same key, signing by `engine`.
    pub fn with_engine(self, engine: &Engine) -> Self {
        Self(self.0.with_engine(engine))
    }

    /// The RFC 7638 thumbprint of the public half: `cnf.jkt` of what is bound to it (RFC 9449 §6.1),
    /// and `dpop_jkt`.
    pub fn thumbprint(&self) -> &str {
        self.0.kid()
    }

    /// A proof (RFC 9449 §4.2) for one request: `method` to `uri`, of which the query is left out, at
    /// `now` (seconds since the epoch). `random` becomes the `jti`: it must never repeat, and must be
    /// used for nothing else. With the `access_token` that the request carries, if any, and the `nonce`
    /// that the server gave last, if any ([`nonce`]).
    pub fn proof(
        &self,
        method: &str,
        uri: &Url,
        now: u64,
        random: &Key,
        access_token: Option<&str>,
        nonce: Option<&str>,
    ) -> String {
        let htu = [uri.origin(), uri.path()].concat();
        let mut claims = json!({ "jti": base64url(random), "htm": method, "htu": htu, "iat": now });
        if let Some(members) = claims.as_object_mut() {
            let ath = access_token.map(|token| base64url(&sha256(token.as_bytes())));
            members.extend(ath.map(|ath| ("ath".to_owned(), ath.into())));
            members.extend(nonce.map(|nonce| ("nonce".to_owned(), nonce.into())));
        }
        self.0.sign_with_jwk(names::TYP_DPOP, &claims)
    }
}

/// The nonce for the next proof in an answer's `DPoP-Nonce` (RFC 9449 §8.1, §8.2).
///
/// `None` if there is none, more than one, or one that is empty, longer than 512 bytes, or not of
/// `NQCHAR`s. Does *not* look at the answer's status: any answer may bring one.
pub fn nonce(headers: &Headers) -> Option<String> {
    // RFC 6749 §A.
    let allowed = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    let nonce = headers.text("dpop-nonce")?;
    let sound = (1..=MAX_NONCE).contains(&nonce.len()) && nonce.bytes().all(allowed);
    sound.then(|| nonce.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpop::{Expected, Fault, Nonces, verify};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 1_800_000_000;
    const URI: &str = "https://mcp.acme.example/token";

    fn expected() -> Expected<'static> {
        Expected {
            method: "POST",
            uri: URI,
            access_token: None,
            now: NOW,
            window: 0,
            nonces: None,
            engine: None,
        }
    }

    fn key(secret: u8) -> ProofKey {
        ProofKey::derive(&[secret; 32]).unwrap()
    }

    fn uri(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_proof_for_a_token_request_passes_our_own_checks() {
        let key = key(1);

        let proof = key.proof("POST", &uri(URI), NOW, &[7; 32], None, None);

        let verified = verify(proof.as_bytes(), &expected()).unwrap();
        assert_eq!(verified.thumbprint, key.thumbprint());
        assert_eq!(verified.jti, base64url(&[7; 32]));
    }

    #[test]
    fn a_proof_with_an_access_token_is_good_with_that_token_only() {
        let of = |token| Expected { access_token: Some(token), ..expected() };

        let proof = key(1).proof("POST", &uri(URI), NOW, &[7; 32], Some("token"), None);

        assert!(verify(proof.as_bytes(), &of(b"token")).is_ok());
        assert_eq!(verify(proof.as_bytes(), &of(b"other")).err(), Some(Fault::AccessToken));
        assert_eq!(verify(proof.as_bytes(), &expected()).err(), Some(Fault::AccessToken));
    }

    #[test]
    fn a_proof_carries_the_nonce_of_the_server() {
        let nonces = Nonces::new(vec![[1; 32]]);
        let demanded = Expected { nonces: Some(&nonces), ..expected() };
        let fresh = nonces.fresh(NOW);
        let headers = Headers::new(vec![("dpop-nonce".into(), fresh.into())]);

        let nonce = nonce(&headers);
        let with = key(1).proof("POST", &uri(URI), NOW, &[7; 32], None, nonce.as_deref());
        let without = key(1).proof("POST", &uri(URI), NOW, &[7; 32], None, None);

        assert!(verify(with.as_bytes(), &demanded).is_ok());
        assert_eq!(verify(without.as_bytes(), &demanded).err(), Some(Fault::Nonce));
    }

    #[test]
    fn the_uri_of_a_proof_has_no_query() {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let cases = [
            ("https://a.example/mcp?x=y?z", "https://a.example/mcp"),
            ("https://a.example:8443/mcp", "https://a.example:8443/mcp"),
            ("https://a.example", "https://a.example/"),
        ];

        for (url, htu) in cases {
            let proof = key(1).proof("GET", &uri(url), NOW, &[7; 32], None, None);
            let claims = proof.split('.').nth(1).unwrap();
            let claims = crate::json::object(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            assert_eq!(claims["htu"], htu);
        }
    }

    #[test]
    fn a_secret_has_one_key_and_another_secret_another() {
        assert_eq!(key(1).thumbprint(), key(1).thumbprint());
        assert_ne!(key(1).thumbprint(), key(2).thumbprint());
        assert_eq!(key(1).thumbprint().len(), 43);
    }

    #[test]
    fn a_key_does_not_print_more_than_its_thumbprint() {
        let key = key(1);

        assert_eq!(format!("{key:?}"), format!("ProofKey(SigningKey(ES256 {}))", key.thumbprint()));
    }

    #[test]
    fn what_is_no_scalar_of_the_curve_is_no_key() {
        let mut order = [0xff; 32];
        order[4..8].fill(0);

        assert!(SigningKey::from_p256_scalar(&[0; 32]).is_none());
        assert!(SigningKey::from_p256_scalar(&[0xff; 32]).is_none());
        assert!(SigningKey::from_p256_scalar(&order).is_none(), "above the curve's order");
        assert!(SigningKey::from_p256_scalar(&[1; 32]).is_some());
    }

    #[test]
    fn only_one_nonce_of_sound_form_is_taken() {
        let of = |values: &[&[u8]]| {
            let field = |value: &&[u8]| ("dpop-nonce".to_owned(), value.to_vec());
            nonce(&Headers::new(values.iter().map(field).collect()))
        };
        let long = vec![b'a'; 512];
        let too_long = vec![b'a'; 513];
        let bad: [&[&[u8]]; 12] = [
            &[],
            &[b""],
            &[b"a", b"b"],
            &[b"a", b"a"],
            &[b"a b"],
            &[b"a, b"],
            &[b" a"],
            &[b"a\"b"],
            &[b"a\\b"],
            &[b"a\r\nb"],
            &["ä".as_bytes()],
            &[&too_long],
        ];

        for bad in bad {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(of(&[b"!#[]~-eyJ.x"]).as_deref(), Some("!#[]~-eyJ.x"));
        assert_eq!(of(&[&long]).map(|nonce| nonce.len()), Some(512));
    }
}
