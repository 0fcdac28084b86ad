//! Rate limits of one worker: a fixed table of counters, each for one minute.

use crate::digest::{Key, hmac_sha256};

/// How many counters there are. Two sources that share one share its limit.
const SLOTS: usize = 4096;

/// Counters of requests by source or client.
pub struct Limits {
    /// Known to nobody outside, so that nobody can look for a name that shares a counter with another.
    salt: Key,
    slots: Vec<(u64, u32)>,
}

impl Limits {
    /// No counts yet. `salt` is a secret.
    pub fn new(salt: Key) -> Self {
        Self { salt, slots: Vec::new() }
    }

    /// Counts a request of `who` at `now` (seconds since the epoch). `false` if there were already
    /// `per_minute` in this minute; `None` is no limit.
    pub fn admit(&mut self, who: &[&[u8]], per_minute: Option<u32>, now: u64) -> bool {
        let Some(limit) = per_minute else {
            return true;
        };
        self.slots.resize(SLOTS, (0, 0));
        let minute = now / 60;
        let digest = hmac_sha256(&self.salt, who);
        let slot =
            digest.iter().take(4).fold(0usize, |value, byte| value << 8 | usize::from(*byte));
        match self.slots.get_mut(slot % SLOTS) {
            Some((counted, count)) if *counted == minute => {
                *count = count.saturating_add(1);
                *count <= limit
            }
            Some(slot) => {
                *slot = (minute, 1);
                limit > 0
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_source_is_counted_by_the_minute() {
        let mut limits = Limits::new([7; 32]);
        let mut admit = |who: &[u8], now| limits.admit(&[who], Some(2), now);

        assert!(admit(b"a", 60) && admit(b"a", 61));
        assert!(!admit(b"a", 119));
        assert!(admit(b"b", 119));
        assert!(admit(b"a", 120));
    }
}
