//! Who does the arithmetic of signatures: the host, for the algorithms that it has shown to do right, or
//! portable code.
//!
//! The host is much faster, and judges nothing but arithmetic: keys and signatures pass every check of
//! form before either is asked. What the host cannot do it loses, call by call: that costs time, never
//! a verdict.

mod known_answers;

use crate::jws::Algorithm;
use core::fmt;
use std::rc::Rc;

/// The signature functions of a host. Envoy has them as the foreign functions `verify_signature` and
/// `sign` of proxy-wasm.
///
/// `hash` is `sha256`, `sha384` or `sha512`. Keys and ECDSA signatures are DER.
pub trait ForeignFunctions {
    /// Whether `signature` is that of the key in `public_key`, a SubjectPublicKeyInfo, over `text`: RSA
    /// with PKCS #1 v1.5, or ECDSA.
    ///
    /// `None` if the host did not come to a verdict: it has no such function, or cannot use the
    /// arguments.
    fn verify_signature(
        &self,
        hash: &str,
        public_key: &[u8],
        signature: &[u8],
        text: &[u8],
    ) -> Option<bool>;

    /// The ECDSA signature over `text` by the key in `private_key`, in PKCS#8.
    ///
    /// `None` if the host makes none.
    fn sign(&self, hash: &str, private_key: &[u8], text: &[u8]) -> Option<Vec<u8>>;
}

/// Which signatures are the host's work. A clone is the same engine.
#[derive(Clone, Default)]
pub struct Engine(Option<Rc<Native>>);

struct Native {
    host: Box<dyn ForeignFunctions>,
    verifies: Vec<Algorithm>,
    signs: bool,
}

impl Engine {
    /// The engine that asks no host.
    pub fn portable() -> Self {
        Self::default()
    }

    /// The engine that asks `host` for what it does right: for each algorithm it is given signatures that
    /// are good and such that are not, and two texts to sign. A wrong answer, or none, leaves that
    /// algorithm to portable code for good.
    ///
    /// Does *not* protect from a host that means ill: it has our memory anyway.
    pub fn probe(host: Box<dyn ForeignFunctions>) -> Self {
        let verifies = known_answers::verified(&*host);
        let signs = known_answers::signs(&*host);
        Self(Some(Rc::new(Native { host, verifies, signs })))
    }

    /// How many kinds of work the host does: one for each algorithm that it verifies, one for signing
    /// ES256. So 0 to 6.
    pub fn natives(&self) -> usize {
        let count = |native: &Rc<Native>| native.verifies.len() + usize::from(native.signs);
        self.0.as_ref().map_or(0, count)
    }

    /// The host, if it verifies `algorithm`.
    pub(crate) fn verifier(&self, algorithm: Algorithm) -> Option<&dyn ForeignFunctions> {
        let native = self.0.as_ref().filter(|native| native.verifies.contains(&algorithm))?;
        Some(&*native.host)
    }

    /// Whether the host signs ES256.
    pub(crate) fn signs(&self) -> bool {
        self.0.as_ref().is_some_and(|native| native.signs)
    }

    /// The host's ES256 signature over `text` by the key in `private_key`, in PKCS#8.
    ///
    /// `None` if it signs none, or if that is no ECDSA-Sig-Value in strict DER of two numbers below the
    /// curve's order. Does *not* verify it.
    pub(crate) fn sign(&self, private_key: &[u8], text: &[u8]) -> Option<p256::ecdsa::Signature> {
        let native = self.0.as_ref().filter(|native| native.signs)?;
        signature_of(&*native.host, private_key, text)
    }
}

/// For the log.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(native) = self.0.as_ref().filter(|_| self.natives() > 0) else {
            return f.write_str("all portable");
        };
        let names: Vec<_> = native.verifies.iter().map(|algorithm| algorithm.name()).collect();
        let signed = if native.signs { "ES256" } else { "nothing" };
        write!(f, "the host verifies {} and signs {signed}, the rest is portable", names.join(", "))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({self})")
    }
}

fn signature_of(
    host: &dyn ForeignFunctions,
    private_key: &[u8],
    text: &[u8],
) -> Option<p256::ecdsa::Signature> {
    p256::ecdsa::Signature::from_der(&host.sign("sha256", private_key, text)?).ok()
}
