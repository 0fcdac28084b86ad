//! One public key, and whether a signature is its (RFC 7518 §3.3 to §3.5, §6; RFC 8037).

use crate::der::{self, without_leading_zeros};
use crate::engine::{Engine, ForeignFunctions};
use crate::json;
use crate::jws::Algorithm;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use rsa::traits::SignatureScheme;
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// A key that is sound, once for each engine.
#[derive(Debug)]
pub(crate) struct PublicKey {
    kind: Kind,
    /// The key for a host, as a SubjectPublicKeyInfo; empty where none is asked.
    info: Vec<u8>,
}

/// An algorithm is bound to its kind of key (RFC 8725 §3.1).
#[derive(Debug)]
enum Kind {
    /// With its modulus, big-endian.
    Rsa(RsaPublicKey, Vec<u8>),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl PublicKey {
    /// The key in `jwk`. `None` if it is unknown, too weak or off its curve. Looks at `kty`, `crv` and the
    /// numbers only.
    pub(crate) fn of_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name| json::string(jwk, name).ok().flatten();
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        match (text("kty")?, text("crv")) {
            ("RSA", None) => Self::rsa(&bytes("n")?, &bytes("e")?),
            ("EC", Some("P-256")) => Self::p256(&point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => Self::p384(&point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", Some("Ed25519")) => Self::ed25519(&bytes("x")?),
            _ => None,
        }
    }

    /// 2048 to 4096 bits, odd modulus, odd exponent from 65537 to 2^33 (the `rsa` crate has no lower
    /// bound of its own).
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let n = without_leading_zeros(n);
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        let exponent = without_leading_zeros(e);
        if exponent.len() > 5 {
            return None;
        }
        let exponent_value =
            exponent.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let sound = (2048..=4096).contains(&bits)
            && n.last()? % 2 == 1
            && exponent_value % 2 == 1
            && (65537..1 << 33).contains(&exponent_value);
        if !sound {
            return None;
        }
        let key = RsaPublicKey::new(BigUint::from_bytes_be(n), BigUint::from_bytes_be(exponent));
        let info = der::rsa_public_key(n, exponent);
        Some(Self { kind: Kind::Rsa(key.ok()?, n.to_vec()), info })
    }

    /// RFC 8725 §3.4: the point must lie on its curve.
    fn p256(point: &[u8]) -> Option<Self> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
        Some(Self { kind: Kind::P256(key), info: der::p256_public_key(point) })
    }

    /// As [`PublicKey::p256`].
    fn p384(point: &[u8]) -> Option<Self> {
        let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
        Some(Self { kind: Kind::P384(key), info: der::p384_public_key(point) })
    }

    fn ed25519(x: &[u8]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(x.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self { kind: Kind::Ed25519(key), info: Vec::new() })
    }

    /// Whether this kind of key is for `algorithm`.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::*;
        match self.kind {
            Kind::Rsa(..) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Kind::P256(_) => algorithm == ES256,
            Kind::P384(_) => algorithm == ES384,
            Kind::Ed25519(_) => algorithm == EdDSA,
        }
    }

    /// Whether `signature` is this key's over `text` by `algorithm`, which [`PublicKey::fits`].
    ///
    /// Its form is checked first, whoever does the rest: a signature has one length (RFC 7518 §3.3, §3.4;
    /// RFC 8032 §5.1.6), an RSA signature is a number below the modulus (RFC 8017 §5.2.2), and the halves
    /// of an ECDSA signature are from 1 to below the order of the curve.
    pub(crate) fn verifies(
        &self,
        engine: &Engine,
        algorithm: Algorithm,
        text: &[u8],
        signature: &[u8],
    ) -> bool {
        let host = || self.ask(engine.verifier(algorithm)?, algorithm, text, signature);
        match &self.kind {
            Kind::Rsa(key, modulus) => {
                let sound = signature.len() == modulus.len() && signature < modulus.as_slice();
                let portable = || rsa_verifies(key, algorithm, text, signature);
                sound && host().unwrap_or_else(portable)
            }
            Kind::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|sound| host().unwrap_or_else(|| key.verify(text, &sound).is_ok())),
            Kind::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|sound| host().unwrap_or_else(|| key.verify(text, &sound).is_ok())),
            Kind::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(text, &signature).is_ok()),
        }
    }

    /// What `host` says to a signature whose form is sound. `None` if it does not say, or cannot be asked
    /// about `algorithm`.
    pub(crate) fn ask(
        &self,
        host: &dyn ForeignFunctions,
        algorithm: Algorithm,
        text: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        use Algorithm::*;
        let verify = |hash, signature| host.verify_signature(hash, &self.info, signature, text);
        match algorithm {
            RS256 => verify("sha256", signature),
            RS384 => verify("sha384", signature),
            RS512 => verify("sha512", signature),
            ES256 => verify("sha256", &der::ecdsa_signature(signature)),
            ES384 => verify("sha384", &der::ecdsa_signature(signature)),
            PS256 | PS384 | PS512 | EdDSA => None,
        }
    }
}

fn rsa_verifies(key: &RsaPublicKey, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
    use Algorithm::*;
    let digest = match algorithm {
        RS256 | PS256 => Sha256::digest(text).to_vec(),
        RS384 | PS384 => Sha384::digest(text).to_vec(),
        RS512 | PS512 => Sha512::digest(text).to_vec(),
        _ => return false,
    };
    let pkcs1 = |scheme: Pkcs1v15Sign| scheme.verify(key, &digest, signature);
    let pss = |scheme: Pss| scheme.verify(key, &digest, signature);
    let verified = match algorithm {
        RS256 => pkcs1(Pkcs1v15Sign::new::<Sha256>()),
        RS384 => pkcs1(Pkcs1v15Sign::new::<Sha384>()),
        RS512 => pkcs1(Pkcs1v15Sign::new::<Sha512>()),
        PS256 => pss(Pss::new::<Sha256>()),
        PS384 => pss(Pss::new::<Sha384>()),
        PS512 => pss(Pss::new::<Sha512>()),
        _ => return false,
    };
    verified.is_ok()
}

/// An uncompressed point (SEC 1 §2.3.3) of coordinates of `length` bytes each (RFC 7518 §6.2.1.2).
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}
