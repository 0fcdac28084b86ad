//! Key sets of issuers and the verification of signatures with them (RFC 7517, RFC 7518, RFC 8037);
//! the thumbprint of a key (RFC 7638).

use crate::digest::{base64url, sha256};
use crate::json;
use crate::jws::{Algorithm, Fault, Jws};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Engineered, DecodingKey};
use serde_json::{Map, Value};

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
    kind: Kind,
    engine: DecodingKey,
}

/// What a key can verify: an algorithm is bound to its kind of key (RFC 8725 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With the modulus' length in bytes.
    Rsa(usize),
    P256,
    P384,
    Ed25519,
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
                && key.kind.fits(jws.algorithm)
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
        let (kind, engine) = match (text("kty")?, text("crv")) {
            ("RSA", None) => rsa(&bytes("n")?, &bytes("e")?)?,
            ("EC", Some("P-256")) => ec(&bytes("x")?, &bytes("y")?, Kind::P256, 32)?,
            ("EC", Some("P-384")) => ec(&bytes("x")?, &bytes("y")?, Kind::P384, 48)?,
            ("OKP", Some("Ed25519")) => ed25519(&bytes("x")?)?,
            _ => return None,
        };
        Some(Self { kid, algorithm, kind, engine })
    }

    fn verifies(&self, jws: &Jws<'_>) -> bool {
        let length = jws.signature.len() * 3 / 4;
        if length != self.kind.signature_length() {
            return false;
        }
        let algorithm = engineered(jws.algorithm);
        jsonwebtoken::crypto::verify(jws.signature, jws.signing_input, &self.engine, algorithm)
            .unwrap_or(false)
    }
}

impl Kind {
    fn fits(self, algorithm: Algorithm) -> bool {
        use Algorithm::*;
        match self {
            Self::Rsa(_) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256 => algorithm == ES256,
            Self::P384 => algorithm == ES384,
            Self::Ed25519 => algorithm == EdDSA,
        }
    }

    fn signature_length(self) -> usize {
        match self {
            Self::Rsa(length) => length,
            Self::P256 | Self::Ed25519 => 64,
            Self::P384 => 96,
        }
    }
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
fn rsa(n: &[u8], e: &[u8]) -> Option<(Kind, DecodingKey)> {
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
    sound.then(|| (Kind::Rsa(n.len()), DecodingKey::from_rsa_raw_components(n, exponent)))
}

fn ec(x: &[u8], y: &[u8], kind: Kind, length: usize) -> Option<(Kind, DecodingKey)> {
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [&[4], x, y].concat();
    // RFC 8725 §3.4: the point must lie on its curve. P-384 points are checked by the engine at
    // each use.
    if kind == Kind::P256 {
        p256::PublicKey::from_sec1_bytes(&point).ok()?;
    }
    Some((kind, DecodingKey::from_ec_der(&point)))
}

fn ed25519(x: &[u8]) -> Option<(Kind, DecodingKey)> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(x.try_into().ok()?).ok()?;
    (!key.is_weak()).then(|| (Kind::Ed25519, DecodingKey::from_ed_der(x)))
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn engineered(algorithm: Algorithm) -> Engineered {
    match algorithm {
        Algorithm::RS256 => Engineered::RS256,
        Algorithm::RS384 => Engineered::RS384,
        Algorithm::RS512 => Engineered::RS512,
        Algorithm::PS256 => Engineered::PS256,
        Algorithm::PS384 => Engineered::PS384,
        Algorithm::PS512 => Engineered::PS512,
        Algorithm::ES256 => Engineered::ES256,
        Algorithm::ES384 => Engineered::ES384,
        Algorithm::EdDSA => Engineered::EdDSA,
    }
}
