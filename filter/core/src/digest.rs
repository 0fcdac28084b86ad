//! SHA-256 over length-prefixed fields: names for things whose parts must not run into each other.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// A SHA-256 digest used as a key. Raw credentials never become keys; their digests do.
pub type Key = [u8; 32];

/// What makes a short name for something of a caller's, for the caches of one worker.
///
/// SipHash-2-4 with 128 bits under a key that nobody outside has, which is a message authentication code: no
/// one can make another thing that has the same. Nine times as fast as SHA-256, which would be half of what a
/// warm request costs. Good for nothing that leaves the worker.
#[derive(Clone)]
pub struct Tagger(SipHasher24);

impl Tagger {
    /// A tagger under `secret`.
    pub fn new(secret: &Key) -> Self {
        let mut key = [0; 16];
        key.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        Self(SipHasher24::new_with_key(&key))
    }

    /// One more field, preceded by its length as in [`of_fields`].
    pub fn field(&mut self, field: &[u8]) {
        self.0.write(&(field.len() as u64).to_be_bytes());
        self.0.write(field);
    }

    /// The name of all fields so far.
    pub fn tag(&self) -> u128 {
        self.0.finish128().as_u128()
    }

    /// The name of this one field.
    pub fn of(&self, field: &[u8]) -> u128 {
        let mut tagger = self.clone();
        tagger.field(field);
        tagger.tag()
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

/// SHA-256 over all `fields`, each preceded by its length, so that `["ab", "c"]` and `["a", "bc"]`
/// differ.
pub fn of_fields(fields: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// HMAC-SHA256 (RFC 2104) under `key`, of any length, over all `fields`, each preceded by its length
/// as in [`of_fields`]. Say in the first field what the tag is for: then it is good for nothing else.
/// The comparison, in constant time, is the caller's.
pub fn hmac_sha256(key: &[u8], fields: &[&[u8]]) -> Key {
    // RFC 2104 §2: longer than a block is hashed first, shorter is filled up with zeros. Done here,
    // because a whole block is what the library takes without a way to fail.
    let mut block = [0; 64];
    let hashed = sha256(key);
    let key = if key.len() > block.len() { &hashed } else { key };
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as Mac>::new(&block.into());
    for field in fields {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac.finalize().into_bytes().into()
}

/// The first eight hexadecimal digits of the SHA-256 of `text`: enough to match lines of a log.
pub fn short_digest(text: &str) -> String {
    let [a, b, c, d, ..] = sha256(text.as_bytes());
    hex(&[a, b, c, d])
}

/// `bytes` as base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `key` as lower-case hexadecimal.
pub fn hex(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len() * 2);
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
    text
}

/// The digest that 64 hexadecimal digits spell, in either case.
pub fn from_hex(text: &str) -> Option<Key> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| (digit as char).to_digit(16).map(|value| value as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [high, low] => Some(high << 4 | low),
            _ => None,
        })
        .collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(of_fields(&[b"ab", b"c"]), of_fields(&[b"a", b"bc"]));
    }

    #[test]
    fn a_tag_is_what_any_other_hmac_makes_of_the_same_bytes() {
        let long = [b'k'; 65];

        let short_key = hmac_sha256(b"key", &[b"nonce", b"x"]);
        let long_key = hmac_sha256(&long, &[b"ab", b"c"]);

        assert!(hex(&short_key).starts_with("f2bd5c5987c6c7b5d6f75e817110b12c59feea53"));
        assert!(hex(&long_key).starts_with("e8de4fd899fc173f3f0c1068f0f6272a010869ae"));
        assert_ne!(long_key, hmac_sha256(&long, &[b"a", b"bc"]));
    }

    #[test]
    fn hexadecimal_is_read_back_and_nothing_else_is() {
        let key = sha256(b"x");

        assert_eq!(from_hex(&hex(&key)), Some(key));
        assert_eq!(from_hex("zz"), None);
        assert_eq!(from_hex(&"a".repeat(63)), None);
        assert_eq!(from_hex(&"ä".repeat(32)), None);
    }
}
