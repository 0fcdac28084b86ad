//! Text that must not print: secrets, tokens, keys.

use core::fmt;
use std::rc::Rc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret or a token. It does not print, is not compared with `==`, and is wiped when the last of its clones is
/// dropped, which are one piece of memory (best effort: the host keeps its own copies of headers and bodies).
#[derive(Clone)]
pub struct Secret(Rc<Zeroizing<String>>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Rc::new(Zeroizing::new(text.into())))
    }

    /// The text itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether two digests are equal, in constant time. Secrets are hashed first, so that neither
/// content nor length shows in the time taken.
pub fn same_digest(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
