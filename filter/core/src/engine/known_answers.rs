//! What a host has to get right before it is asked: signatures whose verdict is known.
//!
//! The elliptic keys and their signatures are those of RFC 6979 §A.2.5 and §A.2.6. The RSA key was made for
//! this file, and its private half was thrown away.

use super::{ForeignFunctions, signature_of};
use crate::der;
use crate::jws::Algorithm;
use crate::public_key::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use serde_json::{Map, Value, json};

/// What is signed, and what is not.
const SIGNED: &[u8] = b"sample";
const OTHER: &[u8] = b"test";

const P256_X: &str = "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y";
const P256_Y: &str = "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk";
const P256_D: &str = "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE";
const P384_X: &str = "7DpOQVtOGaRWhhgCn0J_pdqai8SukuAuBqrlKGswDGTe-PDqkFWGYGSiVFFUgLwT";
const P384_Y: &str = "gBXZty19VyROqO-awMYhiWcIpZNn-d-59UyoSz8cnbEoiyMcOuDU_nNE_SUzJkcg";
const N: &str = "\
    itA31Q7oo8PDPx0zYGNL1-bF3vskCmrCTlLuajSkT0GRbrvkTkNhoAwgNQA90RFLlqVYRR8Oixazbdrl8DH0lc\
    mYTiLI3Irl7nFssNqRBQC5DHfVn-LGDrocg6TA2lyEBA4Td8L5vC22xwZhwanWluBle8iYGO5R7FLP2J8xhs4z\
    nWXFi_va8jgSQewFmF4vEOtzyzoF95OnHv1e2edJP6iuY5UStc_jQbBXrSyU90ii_tJ-x6TaECPJwspcIhnYcI\
    R49ZN10zcw5CVOr4f4oIBgBsF-n3gDA5ElF57OAfy5Q0MDrZ3xyFMfEyqpjzu7xdvVvvCb0WeE385TopGE9w";
const RS256: &str = "\
    A22ARZqOuEMhyO1IzEeUQVvuthwLKk2YOSu9jjb8Dz-UMK7nPyDU7gMKw3P75joac0DNbmRS2hkUMHIQwzD9Pe\
    3OVmMdmXk-peuHZVSssflsn9Ogu-PbWzgqgjCg0vj1dhK0jIFj28qNnP2_xxV50_QD1lRf86MNJW15O-z9ZEgu\
    eBFQSbpY5AF8jt4U-Kjl2gS_4NwAneHMf4FQETz6qKlHs6xF055GvNH9PqUKUwyUfB6XxKT926LMWaAUk0_vvA\
    AcYvXj2ogHoP8Y7J1qSOVFS8sxEgt8a5IeGZi0syt3tr9OKn1A2_wufUlpAwM2d60EhHf08DPe7C1ERmQa0Q";
const RS384: &str = "\
    LcJllY-ONN5EJaA0iCJ-b6sC0npML9wto0jaHchNSGeV_wD9Hg8l-toxv6HjtcsUiilpvn3YpMJBilfuHpNwNq\
    hScBL8qxBtOtfUqJQKxrleXlqamtTjlf4QBUjdIRfdKQ3Z4KrmBr_mClJCbLz_mwuAEGs-XddmKNs-Iu-4ehub\
    ZSkzXCo6_RhbZKQR9QeBvnTvk3sfp-fCHws-NWYA6T2Who3C9v8TYBJ3_IQdSKBW47X1gu8V_ypGJgJjzPGrUF\
    gbetmDerwJ2imzYn69__kA6ChvBG5qkC5d3aFya19kN_NeyBeuA_tiY33zPIuC9dhVUy9PufTG8u9e2bvdoA";
const RS512: &str = "\
    bEUgKj207Rz-nN5dKirG9TKN8iVlLFZNMltgvKPsDhGq4bcRypienBs3Ujo8uqHYhvGIzh0V14TVzs65cH6oFC\
    QKX3UCd7-kGYil0UI4zrrTlzVnFEbBdqaMyUL9IAB2o0pD3vdLOOAYAE4e9cj1iIGequn3r7xUzAmuPy0IAh_r\
    mSHPusnCasdU72xv3Po9TQ8n0XVa5WmIuY9YM0AAXLStp3WqUSrzWjG3S2O5SmdwCED4szGKxIuGwS7GkwGEbU\
    QJT-5qI3iVaREXgGA7KZJ7gVXlNC9ZvsOsPHzLDKQHQM7O_IITt0LMUM-fTPpgAp4vy8s6yWOZlHRxGQwXUA";
const ES256: &str =
    "79SLKqy2qP0RQN2c1F6B1p0sh3tWqvmRw00OqE6vNxb3yxyULWV8QdQ2x6G24p9l8-kA27mv9AZNxKsvhDrNqA";
const ES384: &str = "\
    lO27kqXsuKrUc25WxpGRaz-IFAZmzp-nPWTE6pWtEzyBpkgVLkSs-W423R6A-r5Gme9K6xXxeM6h_kDbJgMTjx\
    MOdAoZYkUmIDtjUdCjqU-jKcFFeG5nnnuCxxo4YorI";

const ANSWERS: [(Algorithm, &str); 5] = [
    (Algorithm::RS256, RS256),
    (Algorithm::RS384, RS384),
    (Algorithm::RS512, RS512),
    (Algorithm::ES256, ES256),
    (Algorithm::ES384, ES384),
];

/// The algorithms that `host` verifies right: it takes the good signature, and neither takes it over
/// another text nor takes another one.
pub(super) fn verified(host: &dyn ForeignFunctions) -> Vec<Algorithm> {
    let known = ANSWERS.into_iter().filter(|(algorithm, signature)| {
        let (Some(key), Ok(mut signature)) =
            (PublicKey::of_jwk(&jwk(*algorithm)), URL_SAFE_NO_PAD.decode(signature))
        else {
            return false;
        };
        let says = |text, signature: &[u8]| key.ask(host, *algorithm, text, signature);
        let good = says(SIGNED, &signature) == Some(true);
        let over_another = says(OTHER, &signature);
        if let Some(last) = signature.last_mut() {
            *last ^= 1;
        }
        good && over_another == Some(false) && says(SIGNED, &signature) == Some(false)
    });
    known.map(|(algorithm, _)| algorithm).collect()
}

/// Whether `host` signs right: portable code takes its signatures over two texts, and it makes none
/// with what is no key. A number that both have in common would give the key away.
pub(super) fn signs(host: &dyn ForeignFunctions) -> bool {
    let scalar: Option<[u8; 32]> =
        URL_SAFE_NO_PAD.decode(P256_D).ok().and_then(|d| d.try_into().ok());
    let secret = scalar.and_then(|scalar| p256::SecretKey::from_slice(&scalar).ok());
    let (Some(scalar), Some(secret)) = (scalar, secret) else {
        return false;
    };
    let key = p256::ecdsa::VerifyingKey::from(secret.public_key());
    let point = key.to_encoded_point(false);
    let private_key = der::p256_private_key(&scalar, point.as_bytes());
    let signed = |text| {
        signature_of(host, &private_key, text)
            .filter(|signature| key.verify(text, signature).is_ok())
    };
    let (Some(one), Some(other)) = (signed(SIGNED), signed(OTHER)) else {
        return false;
    };
    one.split_bytes().0 != other.split_bytes().0 && host.sign("sha256", b"no key", SIGNED).is_none()
}

fn jwk(algorithm: Algorithm) -> Map<String, Value> {
    let jwk = match algorithm {
        Algorithm::ES256 => json!({ "kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_Y }),
        Algorithm::ES384 => json!({ "kty": "EC", "crv": "P-384", "x": P384_X, "y": P384_Y }),
        _ => json!({ "kty": "RSA", "n": N, "e": "AQAB" }),
    };
    match jwk {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn portable_code_knows_the_answers_too() {
        for (algorithm, signature) in ANSWERS {
            let key = PublicKey::of_jwk(&jwk(algorithm)).unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();

            let [good, bad] = [SIGNED, OTHER]
                .map(|text| key.verifies(&Engine::portable(), algorithm, text, &signature));

            assert!(good && !bad, "{algorithm:?}");
        }
    }

    #[test]
    fn portable_code_signs_as_the_standard_shows() {
        use p256::ecdsa::signature::Signer;
        let scalar = URL_SAFE_NO_PAD.decode(P256_D).unwrap();
        let key = p256::ecdsa::SigningKey::from_slice(&scalar).unwrap();

        let signature: p256::ecdsa::Signature = key.sign(SIGNED);

        assert_eq!(URL_SAFE_NO_PAD.encode(signature.to_bytes()), ES256);
    }
}
