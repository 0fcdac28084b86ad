//! What all workers of a process share: bytes under fixed keys, with compare-and-swap.
//!
//! Two implementations: the host's shared data (in the filter) and [`Memory`] (simulations, tests).
//! There is no delete and no expiry, so nothing here may use a key per request.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// Shared bytes under fixed keys.
pub trait Store {
    /// The value under `key` and the version to hand to [`Store::swap`]; version 0 and no bytes if
    /// it was never set.
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable>;

    /// Sets `value` if the version under `key` is still `version`. `Ok(false)` if it is not.
    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable>;
}

/// The store did not answer, or stayed contended for longer than we try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// How often a contended update is tried again.
const TRIES: usize = 256;

/// Reads the value under `key`, lets `change` turn it into the next one (or none, to leave it) and
/// a result, and writes; again from the start if another worker was faster.
pub fn update<T>(
    store: &dyn Store,
    key: &str,
    mut change: impl FnMut(&[u8]) -> (Option<Vec<u8>>, T),
) -> Result<T, Unavailable> {
    for _ in 0..TRIES {
        let (value, version) = store.get(key)?;
        let (next, result) = change(&value);
        match next {
            None => return Ok(result),
            Some(next) if store.swap(key, &next, version)? => return Ok(result),
            Some(_) => {}
        }
    }
    Err(Unavailable)
}

/// A store in memory, for simulations of several workers.
#[derive(Default)]
pub struct Memory(RefCell<BTreeMap<String, (Vec<u8>, u32)>>);

impl Store for Memory {
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        Ok(self.0.borrow().get(key).cloned().unwrap_or_default())
    }

    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
        let mut map = self.0.borrow_mut();
        let slot = map.entry(key.to_owned()).or_default();
        if slot.1 != version {
            return Ok(false);
        }
        *slot = (value.to_vec(), version + 1);
        Ok(true)
    }
}
