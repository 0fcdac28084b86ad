//! Keys that a token brings along: their thumbprints, and sets of one (RFC 7638, RFC 7517).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use jagway_core::jwk::{KeySet, thumbprint};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The key of RFC 7638 §3.1.
const N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR\
                 1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4\
                 QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOp\
                 bISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCu\
                 r-kEgU8awapJzKnqDKgw";
/// The keys of RFC 9449 §4.1 and RFC 8037 A.2.
const X: &str = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
const Y: &str = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";
const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn thumbprint_of(jwk: &Value) -> Option<String> {
    thumbprint(jwk.as_object().unwrap())
}

#[test]
fn thumbprints_are_those_of_the_standards() {
    let known = [
        (
            json!({ "kty": "RSA", "n": N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29" }),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        ),
        (
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "d": X }),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        ),
        (
            json!({ "kty": "OKP", "crv": "Ed25519", "x": ED }),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        ),
    ];

    for (jwk, expected) in known {
        assert_eq!(thumbprint_of(&jwk).as_deref(), Some(expected), "{jwk}");
    }
}

#[test]
fn a_key_that_could_be_written_in_another_way_has_no_thumbprint() {
    let bad = [
        json!({}),
        json!({ "kty": "oct", "k": X }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": X, "y": Y }),
        json!({ "kty": "EC", "crv": "P-384", "x": X, "y": Y }),
        json!({ "kty": "EC", "crv": "P-256", "x": X }),
        json!({ "kty": "EC", "crv": "P-256", "x": X, "y": 1 }),
        json!({ "kty": "EC", "crv": "P-256", "x": X, "y": format!("{Y}=") }),
        json!({ "kty": "EC", "crv": "P-256", "x": X, "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDB" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": ED }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "" }),
        json!({ "kty": "RSA", "n": N, "e": "" }),
        json!({ "kty": "RSA", "n": N, "e": "AAEAAQ" }),
        json!({ "kty": "RSA", "n": N, "e": "AQAB\",\"" }),
        json!({ "kty": "RSA", "n": N, "e": "AQAB", "crv": "P-256" }),
    ];

    for jwk in bad {
        assert_eq!(thumbprint_of(&jwk), None, "{jwk}");
    }
}

#[test]
fn only_a_public_signature_key_makes_a_set() {
    let with = |name: &str, value: Value| {
        let mut jwk = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y });
        jwk[name] = value;
        KeySet::of_jwk(jwk.as_object().unwrap()).map(|set| set.len())
    };

    assert_eq!(with("ext", true.into()), Some(1));
    assert_eq!(with("key_ops", json!(["verify"])), Some(1));
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert_eq!(with(private, Value::Null), None, "{private}");
    }
    for (name, value) in [
        ("kty", json!("oct")),
        ("crv", json!("P-384")),
        ("y", json!(X)),
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("alg", json!("HS256")),
    ] {
        assert_eq!(with(name, value.clone()), None, "{name} {value}");
    }
}
