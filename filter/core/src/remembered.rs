//! What a worker remembers by tag: bounded in number and in bytes.

use lru::LruCache;
use std::rc::Rc;

/// Values by tag ([`crate::digest::Tagger`]). What was not asked for longest makes room.
pub struct Remembered<T> {
    most: usize,
    most_bytes: usize,
    bytes: usize,
    kept: LruCache<u128, (Rc<T>, usize)>,
}

impl<T> Remembered<T> {
    /// None yet; at most `most` at a time, of `most_bytes` in all.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, bytes: 0, kept: LruCache::unbounded() }
    }

    /// What is remembered under `tag`.
    pub fn get(&mut self, tag: u128) -> Option<Rc<T>> {
        self.kept.get(&tag).map(|(value, _)| value.clone())
    }

    /// Remembers `value`, which has so many bytes, under `tag`.
    pub fn keep(&mut self, tag: u128, value: Rc<T>, bytes: usize) {
        self.forget(tag);
        self.bytes = self.bytes.saturating_add(bytes);
        self.kept.put(tag, (value, bytes));
        while self.kept.len() > self.most || self.bytes > self.most_bytes {
            let Some((_, (_, bytes))) = self.kept.pop_lru() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Forgets what is under `tag`.
    pub fn forget(&mut self, tag: u128) {
        if let Some((_, bytes)) = self.kept.pop(&tag) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn remembered(tags: &[(u128, usize)]) -> Remembered<u128> {
        let mut remembered = Remembered::new(3, 100);
        for (tag, bytes) in tags {
            remembered.keep(*tag, Rc::new(*tag), *bytes);
        }
        remembered
    }

    fn tags(mut remembered: Remembered<u128>) -> Vec<u128> {
        (0..10).filter(|tag| remembered.get(*tag).is_some()).collect()
    }

    #[test]
    fn what_was_not_asked_for_longest_makes_room_for_number_and_for_bytes() {
        let mut asked = remembered(&[(1, 1), (2, 1), (3, 1)]);
        asked.get(1);
        asked.keep(4, Rc::new(4), 1);

        assert_eq!(tags(asked), [1, 3, 4]);
        assert_eq!(tags(remembered(&[(1, 50), (2, 50), (3, 1)])), [2, 3]);
        assert_eq!(tags(remembered(&[(1, 1), (2, 101)])), []);
    }

    #[test]
    fn what_is_kept_again_or_forgotten_gives_its_bytes_back() {
        let again = remembered(&[(1, 60), (1, 60), (2, 40)]);
        let mut forgotten = remembered(&[(1, 60)]);
        forgotten.forget(1);
        forgotten.keep(2, Rc::new(2), 100);

        assert_eq!(tags(again), [1, 2]);
        assert_eq!(tags(forgotten), [2]);
    }
}
