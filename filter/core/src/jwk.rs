//! Key sets of issuers and the verification of signatures with them (RFC 7517, RFC 7518, RFC 8037);
//! the thumbprint of a key (RFC 7638).

use crate::digest::{base64url, sha256};
use crate::json;
use crate::jws::{Algorithm, Fault, Jws};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use rsa::traits::{PublicKeyParts, SignatureScheme};
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Largest key set read, in bytes.
pub const MAX_KEY_SET: usize = 256 * 1024;
/// Most keys one set may have.
const MAX_KEYS: usize = 64;
/// Most keys tried for a token without `kid`.
const MAX_TRIED: usize = 8;

/// The usable public keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    public: Public,
}

/// The key itself. An algorithm is bound to its kind of key (RFC 8725 §3.1).
#[derive(Debug)]
enum Public {
    Rsa(RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl KeySet {
    /// The set in `bytes`. A key that cannot be used here (private or symmetric, for encryption,
    /// too weak, off its curve, unknown) is left out; the others stay.
    ///
    /// `None` if this is no key set at all, is larger than 256 KiB or has more than 64 keys.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_KEY_SET {
            return None;
        }
        let document = json::object(bytes)?;
        let keys = document.get("keys")?.as_array()?;
        if keys.len() > MAX_KEYS {
            return None;
        }
        let keys = keys.iter().filter_map(Value::as_object).filter_map(Key::parse).collect();
        Some(Self { keys })
    }

    /// The set of just this key: of a token that brings its own.
    ///
    /// `None` if [`KeySet::parse`] would leave it out, for one because it has a private member. Does
    /// *not* say that the key is anybody's.
    pub fn of_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        Key::parse(jwk).map(|key| Self { keys: vec![key] })
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether any key could verify a token with this `kid` and algorithm.
    pub fn knows(&self, jws: &Jws<'_>) -> bool {
        self.candidates(jws).next().is_some()
    }

    /// Verifies the signature of `jws`.
    ///
    /// [`Fault::KeyUnknown`] if no key fits, [`Fault::Signature`] if none verifies. Does *not*
    /// check any claim.
    pub fn verify(&self, jws: &Jws<'_>) -> Result<(), Fault> {
        let mut fault = Fault::KeyUnknown;
        for key in self.candidates(jws).take(MAX_TRIED) {
            if key.verifies(jws) {
                return Ok(());
            }
            fault = Fault::Signature;
        }
        Err(fault)
    }

    fn candidates<'a>(&'a self, jws: &'a Jws<'_>) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            let kid_fits = jws.kid.is_none() || key.kid == jws.kid;
            kid_fits
                && key.algorithm.is_none_or(|algorithm| algorithm == jws.algorithm)
                && key.public.fits(jws.algorithm)
        })
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name| json::string(jwk, name).ok().flatten();
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| jwk.contains_key(*name))
        {
            return None;
        }
        if jwk.contains_key("use") && text("use") != Some("sig") {
            return None;
        }
        if jwk.contains_key("key_ops")
            && !json::strings(jwk, "key_ops").ok().flatten()?.contains(&"verify")
        {
            return None;
        }
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::named(name.as_str()?)?),
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str()?.to_owned()),
        };
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let public = match (text("kty")?, text("crv")) {
            ("RSA", None) => Public::Rsa(rsa(&bytes("n")?, &bytes("e")?)?),
            ("EC", Some("P-256")) => Public::p256(&point(&bytes("x")?, &bytes("y")?, 32)?)?,
            ("EC", Some("P-384")) => Public::p384(&point(&bytes("x")?, &bytes("y")?, 48)?)?,
            ("OKP", Some("Ed25519")) => Public::ed25519(&bytes("x")?)?,
            _ => return None,
        };
        Some(Self { kid, algorithm, public })
    }

    fn verifies(&self, jws: &Jws<'_>) -> bool {
        URL_SAFE_NO_PAD
            .decode(jws.signature)
            .is_ok_and(|signature| self.public.verifies(jws, &signature))
    }
}

impl Public {
    /// RFC 8725 §3.4: the point must lie on its curve.
    fn p256(point: &[u8]) -> Option<Self> {
        p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(Self::P256)
    }

    /// As [`Public::p256`].
    fn p384(point: &[u8]) -> Option<Self> {
        p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(Self::P384)
    }

    fn ed25519(x: &[u8]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(x.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self::Ed25519(key))
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::*;
        match self {
            Self::Rsa(_) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256(_) => algorithm == ES256,
            Self::P384(_) => algorithm == ES384,
            Self::Ed25519(_) => algorithm == EdDSA,
        }
    }

    /// Whether `signature` is this key's over `jws`, whose algorithm [`Public::fits`]. A signature has one
    /// length (RFC 7518 §3.3, §3.4; RFC 8032 §5.1.6).
    fn verifies(&self, jws: &Jws<'_>, signature: &[u8]) -> bool {
        let input = jws.signing_input;
        match self {
            Self::Rsa(key) => rsa_verifies(key, jws.algorithm, input, signature),
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(input, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(input, &signature).is_ok()),
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(input, &signature).is_ok()),
        }
    }
}

fn rsa_verifies(key: &RsaPublicKey, algorithm: Algorithm, input: &[u8], signature: &[u8]) -> bool {
    use Algorithm::*;
    let digest = match algorithm {
        RS256 | PS256 => Sha256::digest(input).to_vec(),
        RS384 | PS384 => Sha384::digest(input).to_vec(),
        RS512 | PS512 => Sha512::digest(input).to_vec(),
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
    signature.len() == key.size() && verified.is_ok()
}

/// The RFC 7638 thumbprint of `jwk`: the SHA-256 of its required members, 43 digits of base64url.
/// What else the key has (`kid`, `use`, a private half) is left out of it (§3.2).
///
/// `None` for any key but P-256, P-384, RSA and Ed25519, and for one that is not written in the one
/// way RFC 7518 §6 allows: the same key would have two thumbprints. Does *not* check that the key is
/// sound, see [`KeySet::of_jwk`].
pub fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let text = |name| json::string(jwk, name).ok().flatten();
    // In the order in which they are hashed (§3.3). A coordinate has the length of its field.
    let (names, length): (&[&str], _) = match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => (&["crv", "kty", "x", "y"], Some(32)),
        ("EC", Some("P-384")) => (&["crv", "kty", "x", "y"], Some(48)),
        ("OKP", Some("Ed25519")) => (&["crv", "kty", "x"], Some(32)),
        ("RSA", None) => (&["e", "kty", "n"], None),
        _ => return None,
    };
    let mut members = Map::new();
    for &name in names {
        let value = text(name)?;
        if !matches!(name, "crv" | "kty") {
            let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
            let minimal = bytes.first().is_some_and(|first| *first != 0);
            if !length.map_or(minimal, |length| bytes.len() == length) {
                return None;
            }
        }
        members.insert(name.to_owned(), value.into());
    }
    Some(base64url(&sha256(Value::Object(members).to_string().as_bytes())))
}

/// 2048 to 4096 bits, odd modulus, odd exponent from 65537 to 2^33 (the `rsa` crate has no lower
/// bound of its own).
fn rsa(n: &[u8], e: &[u8]) -> Option<RsaPublicKey> {
    let n = without_leading_zeros(n);
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let exponent = without_leading_zeros(e);
    if exponent.len() > 5 {
        return None;
    }
    let exponent_value = exponent.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let sound = (2048..=4096).contains(&bits)
        && n.last()? % 2 == 1
        && exponent_value % 2 == 1
        && (65537..1 << 33).contains(&exponent_value);
    if !sound {
        return None;
    }
    RsaPublicKey::new(BigUint::from_bytes_be(n), BigUint::from_bytes_be(exponent)).ok()
}

/// An uncompressed point (SEC 1 §2.3.3) of coordinates of `length` bytes each (RFC 7518 §6.2.1.2).
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
