//! Key sets of issuers (RFC 7517), and the choice of a key for a token; the thumbprint of a key (RFC 7638).

use crate::digest::{base64url, sha256};
use crate::engine::Engine;
use crate::json;
use crate::jws::{Algorithm, Fault, Jws};
use crate::public_key::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    engine: Engine,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

impl KeySet {
    /// The set in `bytes`, verifying by portable code. A key that cannot be used here (private or symmetric, for encryption,
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
        Some(Self { keys, engine: Engine::portable() })
    }

    /// The set of just this key: of a token that brings its own.
    ///
    /// `None` if [`KeySet::parse`] would leave it out, for one because it has a private member. Does
    /// *not* say that the key is anybody's.
    pub fn of_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        Key::parse(jwk).map(|key| Self { keys: vec![key], engine: Engine::portable() })
    }

    /// The same set, verifying by `engine`.
    pub fn with_engine(self, engine: &Engine) -> Self {
        Self { engine: engine.clone(), ..self }
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
            if key.verifies(&self.engine, jws) {
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
        Some(Self { kid, algorithm, public: PublicKey::of_jwk(jwk)? })
    }

    fn verifies(&self, engine: &Engine, jws: &Jws<'_>) -> bool {
        self.public.verifies(engine, jws.algorithm, jws.signing_input, &jws.signature)
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
