//! Sealing of what lies in the shared store, which other modules of the same VM can read and write.

use crate::digest::{Key, hmac_sha256, of_fields};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

/// A key that every worker with the same configuration has, and nobody else.
#[derive(Clone)]
pub struct Seal {
    cipher: ChaCha20Poly1305,
    name: Key,
    root: Key,
}

impl Seal {
    /// Derives the key from all `secrets` of the configuration.
    pub fn new(secrets: &[&[u8]]) -> Self {
        let fields: Vec<&[u8]> =
            [b"jagway seal".as_slice()].iter().chain(secrets).copied().collect();
        let key = of_fields(&fields);
        let name = of_fields(&[b"jagway seal's name", &key]);
        let root = of_fields(&[b"jagway seal's secrets", &key]);
        Self { cipher: ChaCha20Poly1305::new(&key.into()), name, root }
    }

    /// `key` in the name space of this seal: configurations with other secrets, which could not open
    /// each other's values, do not meet in the shared store.
    pub fn key_of(&self, key: &Key) -> Key {
        of_fields(&[&self.name, key])
    }

    /// A secret for `purpose` that every worker with the same configuration has, and nobody else.
    pub fn secret_of(&self, purpose: &[u8]) -> Key {
        hmac_sha256(&self.root, &[purpose])
    }

    /// `plain`, encrypted and bound to `name`. `random` must never repeat.
    pub fn close(&self, name: &Key, plain: &[u8], random: &Key) -> Option<Vec<u8>> {
        let (nonce, _) = random.split_at_checked(12)?;
        let payload = Payload { msg: plain, aad: name };
        let sealed = self.cipher.encrypt(Nonce::from_slice(nonce), payload).ok()?;
        Some([nonce, &sealed].concat())
    }

    /// What was closed under `name`; `None` if it was not, or not by us.
    pub fn open(&self, name: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(12)?;
        let payload = Payload { msg: sealed, aad: name };
        self.cipher.decrypt(Nonce::from_slice(nonce), payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_sealed_value_opens_under_its_own_name_and_key_only() {
        let seal = Seal::new(&[b"secret"]);
        let sealed = seal.close(&[1; 32], b"token", &[9; 32]).unwrap();

        assert_eq!(seal.open(&[1; 32], &sealed).unwrap(), b"token");
        assert_eq!(seal.open(&[2; 32], &sealed), None);
        assert_eq!(Seal::new(&[b"other"]).open(&[1; 32], &sealed), None);
        assert_eq!(seal.open(&[1; 32], b"short"), None);
        assert!(!sealed.windows(5).any(|window| window == b"token"));
    }
}
