//! Hosts with signature functions, right and wrong ones.
#![allow(dead_code)]

use jagway_core::engine::ForeignFunctions;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey};
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::cell::Cell;
use std::rc::Rc;

/// A host that does everything right, by what it reads out of the DER that it is given.
pub struct Right;

impl ForeignFunctions for Right {
    fn verify_signature(
        &self,
        hash: &str,
        public_key: &[u8],
        signature: &[u8],
        text: &[u8],
    ) -> Option<bool> {
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(public_key) {
            let signature = p256::ecdsa::Signature::from_der(signature).unwrap();
            assert_eq!(hash, "sha256");
            return Some(key.verify(text, &signature).is_ok());
        }
        if let Ok(key) = p384::ecdsa::VerifyingKey::from_public_key_der(public_key) {
            let signature = p384::ecdsa::Signature::from_der(signature).unwrap();
            assert_eq!(hash, "sha384");
            return Some(key.verify(text, &signature).is_ok());
        }
        let key = RsaPublicKey::from_public_key_der(public_key).ok()?;
        let (scheme, digest) = match hash {
            "sha256" => (Pkcs1v15Sign::new::<Sha256>(), Sha256::digest(text).to_vec()),
            "sha384" => (Pkcs1v15Sign::new::<Sha384>(), Sha384::digest(text).to_vec()),
            "sha512" => (Pkcs1v15Sign::new::<Sha512>(), Sha512::digest(text).to_vec()),
            _ => return None,
        };
        Some(key.verify(scheme, &digest, signature).is_ok())
    }

    fn sign(&self, hash: &str, private_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(hash, "sha256");
        let key = p256::ecdsa::SigningKey::from_pkcs8_der(private_key).ok()?;
        let signature: p256::ecdsa::Signature = key.sign(text);
        Some(signature.to_der().as_bytes().to_vec())
    }
}

/// For a [`Host`] that verifies right.
pub fn rightly(_: usize, right: &dyn Fn() -> Option<bool>) -> Option<bool> {
    right()
}

/// For a [`Host`] that signs right.
pub fn right(_: usize, private_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    Right.sign("sha256", private_key, text)
}

/// How often a host was asked.
#[derive(Default)]
pub struct Asked {
    pub verify: Cell<usize>,
    pub sign: Cell<usize>,
}

impl Asked {
    /// To verify, and to sign.
    pub fn both(&self) -> (usize, usize) {
        (self.verify.get(), self.sign.get())
    }
}

/// A host that answers by these functions, which are told how often they were asked before.
pub struct Host<V, S> {
    pub asked: Rc<Asked>,
    pub verify: V,
    pub sign: S,
}

impl<V, S> ForeignFunctions for Host<V, S>
where
    V: Fn(usize, &dyn Fn() -> Option<bool>) -> Option<bool>,
    S: Fn(usize, &[u8], &[u8]) -> Option<Vec<u8>>,
{
    fn verify_signature(
        &self,
        hash: &str,
        public_key: &[u8],
        signature: &[u8],
        text: &[u8],
    ) -> Option<bool> {
        let before = self.asked.verify.replace(self.asked.verify.get() + 1);
        (self.verify)(before, &|| Right.verify_signature(hash, public_key, signature, text))
    }

    fn sign(&self, _: &str, private_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let before = self.asked.sign.replace(self.asked.sign.get() + 1);
        (self.sign)(before, private_key, text)
    }
}
