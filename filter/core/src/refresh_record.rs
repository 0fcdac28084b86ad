//! What one process remembers of a refresh token that its provider renews (RFC 6749 §6: "the client
//! MUST discard the old refresh token and replace it with the new"): the newest one, and whose turn it is.
//!
//! Lies in the shared store, sealed with a key made of the original token alone: whoever has that can
//! read it, whatever else the configuration says, and nobody else. A restart of the process forgets it.

use crate::digest::{Key, base64url, hex, of_fields};
use crate::job::Place as Bucket;
use crate::seal::Seal;
use crate::secret::Secret;
use crate::store::{Store, Unavailable, update};
use zeroize::Zeroizing;

/// How long a turn lasts at most, in seconds. After that another may take it over.
pub const LEASE: u64 = 20;
/// How many renewed tokens that callers present a bucket holds; there are 256 buckets.
const WAYS: usize = 16;
/// How many records in all: those without a renewed token are small, and end with their turn.
const RECORDS: usize = 8 * WAYS;

/// Where the original token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The configuration: there are as many records as it says, and none makes room for another.
    Bound,
    /// A caller: there is a fixed number of buckets, and what was not used for longest makes room.
    Presented,
}

/// The record of one original token, wherever it lies.
pub struct Record {
    name: Key,
    seal: Seal,
    bucket: Bucket,
    /// Where the original comes from.
    pub place: Place,
    original: Secret,
}

/// A token that is current, or was.
#[derive(Debug, Clone)]
pub struct Current {
    /// The token.
    pub token: Secret,
    /// How often it was renewed: 0 is the original.
    pub sequence: u64,
    /// When it came, in seconds since the epoch.
    pub at: u64,
}

impl Current {
    /// What came later is newer; if two came of the same, the later of these.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.sequence, self.at) > (other.sequence, other.at)
    }
}

/// What [`Record::take`] says.
#[derive(Debug)]
pub enum Taken {
    /// It is the asker's turn, with this token.
    Mine(Current),
    /// It is somebody else's.
    Busy,
}

impl Record {
    /// The record of `original`, which `issuer` gave to the client `client_id`.
    pub fn new(issuer: &str, client_id: &str, original: &Secret, place: Place) -> Self {
        let token = original.expose().as_bytes();
        let name = of_fields(&[b"refresh", issuer.as_bytes(), client_id.as_bytes(), token]);
        let bucket = match place {
            Place::Bound => Bucket { key: format!("jagway/refresh/{}", hex(&name)), ways: 1 },
            Place::Presented => {
                let number = name.first().copied().unwrap_or_default();
                Bucket { key: format!("jagway/refresh-{number:x}"), ways: WAYS }
            }
        };
        let seal = Seal::new(&[b"refresh", token]);
        Self { name, seal, bucket, place, original: original.clone() }
    }

    /// The name, as text that is safe everywhere.
    pub fn name(&self) -> String {
        base64url(&self.name)
    }

    /// Takes the turn for `owner`, a random number that nobody else has, at `now` (seconds since the
    /// epoch), for [`LEASE`] seconds. Atomic: of any number that try, one gets it.
    ///
    /// [`Unavailable`]: the store does not answer, or has no room for one more.
    pub fn take(&self, store: &dyn Store, owner: u64, now: u64) -> Result<Taken, Unavailable> {
        update(store, &self.bucket.key, |bytes| {
            let mut entries = decode(bytes);
            let found = entries.iter_mut().find(|entry| entry.name == self.name);
            if found.as_ref().is_some_and(|entry| entry.is_leased(now)) {
                return (None, Ok(Taken::Busy));
            }
            let current = self.current(found.as_deref());
            match found {
                Some(entry) => entry.lease(owner, now),
                None => {
                    entries.retain(|entry| entry.is_renewed() || entry.is_leased(now));
                    if entries.len() >= RECORDS {
                        return (None, Err(Unavailable));
                    }
                    let mut entry = Entry::new(self.name);
                    entry.lease(owner, now);
                    entries.push(entry);
                }
            }
            (Some(encode(&entries)), Ok(Taken::Mine(current)))
        })?
    }

    /// Ends the turn of `owner`, and puts `new` in the place of the older token, in one step. `random`
    /// must never repeat.
    ///
    /// If the turn was over already and somebody else put a newer token, that one stays.
    /// [`Unavailable`]: nothing was written; the turn ends by itself, but `new` is not remembered.
    pub fn put_back(
        &self,
        store: &dyn Store,
        owner: u64,
        new: Option<&Current>,
        now: u64,
        random: &Key,
    ) -> Result<(), Unavailable> {
        let sealed = new.map(|new| self.close(new, random).ok_or(Unavailable)).transpose()?;
        update(store, &self.bucket.key, |bytes| {
            let mut entries = decode(bytes);
            let found = entries.iter().position(|entry| entry.name == self.name);
            let mut entry = match found {
                Some(index) => entries.swap_remove(index),
                None => Entry::new(self.name),
            };
            let is_ours = entry.owner == owner && entry.until > 0;
            if is_ours {
                entry.until = 0;
            }
            let old = self.current(Some(&entry));
            if let (Some(new), Some(sealed)) = (new, &sealed)
                && !old.is_newer_than(new)
            {
                entry.sealed.clone_from(sealed);
                entry.used_at = now;
                make_room(&mut entries, self.bucket.ways, now);
            }
            if entry.is_renewed() || entry.is_leased(now) {
                entries.push(entry);
            }
            (Some(encode(&entries)), ())
        })
    }

    /// The newest token that this process knows of, whosever turn it is.
    pub fn newest(&self, store: &dyn Store) -> Result<Current, Unavailable> {
        let (bytes, _) = store.get(&self.bucket.key)?;
        let entries = decode(&bytes);
        Ok(self.current(entries.iter().find(|entry| entry.name == self.name)))
    }

    /// `current` sealed under the name of this record; see [`Seal::close`].
    pub fn close(&self, current: &Current, random: &Key) -> Option<Vec<u8>> {
        let (sequence, at) = (current.sequence.to_be_bytes(), current.at.to_be_bytes());
        let token = current.token.expose().as_bytes();
        let plain = Zeroizing::new([&sequence, &at, token].concat());
        self.seal.close(&self.name, &plain, random)
    }

    /// What [`Record::close`] sealed for this same record; `None` for all else.
    pub fn open(&self, sealed: &[u8]) -> Option<Current> {
        let plain = Zeroizing::new(self.seal.open(&self.name, sealed)?);
        let (sequence, rest) = plain.split_first_chunk()?;
        let (at, token) = rest.split_first_chunk()?;
        let token = Secret::new(core::str::from_utf8(token).ok()?);
        let (sequence, at) = (u64::from_be_bytes(*sequence), u64::from_be_bytes(*at));
        Some(Current { token, sequence, at })
    }

    /// What cannot be opened counts as nothing: the original is current then.
    fn current(&self, entry: Option<&Entry>) -> Current {
        let renewed = entry.and_then(|entry| self.open(&entry.sealed));
        renewed.unwrap_or_else(|| Current { token: self.original.clone(), sequence: 0, at: 0 })
    }
}

struct Entry {
    name: Key,
    owner: u64,
    until: u64,
    used_at: u64,
    /// Empty as long as the original is current.
    sealed: Vec<u8>,
}

impl Entry {
    fn new(name: Key) -> Self {
        Self { name, owner: 0, until: 0, used_at: 0, sealed: Vec::new() }
    }

    fn lease(&mut self, owner: u64, now: u64) {
        self.owner = owner;
        self.until = now.saturating_add(LEASE);
        self.used_at = now;
    }

    /// A lease that ends too far ahead is none: the clock was set back.
    fn is_leased(&self, now: u64) -> bool {
        self.until > now && self.until <= now.saturating_add(2 * LEASE)
    }

    fn is_renewed(&self) -> bool {
        !self.sealed.is_empty()
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (name, rest) = bytes.split_first_chunk()?;
        let (owner, rest) = rest.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        let (used_at, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (sealed, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let [owner, until, used_at] = [owner, until, used_at].map(|word| u64::from_be_bytes(*word));
        Some((Self { name: *name, owner, until, used_at, sealed: sealed.to_vec() }, rest))
    }
}

/// Makes room for one more renewed token: the one not used for longest goes. What is somebody's turn
/// stays; [`Record::take`] bounds those.
fn make_room(entries: &mut Vec<Entry>, ways: usize, now: u64) {
    while entries.iter().filter(|entry| entry.is_renewed()).count() >= ways {
        let idle = |(_, entry): &(usize, &Entry)| entry.is_renewed() && !entry.is_leased(now);
        let oldest = entries.iter().enumerate().filter(idle).min_by_key(|(_, entry)| entry.used_at);
        let Some(index) = oldest.map(|(index, _)| index) else {
            return;
        };
        entries.swap_remove(index);
    }
}

/// What another module may have written there counts as nothing.
fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((entry, rest)) = Entry::read(bytes) {
        entries.push(entry);
        bytes = rest;
    }
    entries
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&entry.name);
        for word in [entry.owner, entry.until, entry.used_at] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        // Sealed tokens are far shorter than 4 GB.
        bytes.extend_from_slice(&(entry.sealed.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&entry.sealed);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn record(original: &str, place: Place) -> Record {
        Record::new("https://idp", "client", &Secret::new(original), place)
    }

    fn renewed(token: &str, sequence: u64, at: u64) -> Current {
        Current { token: Secret::new(token), sequence, at }
    }

    fn random(number: u64) -> Key {
        of_fields(&[&number.to_be_bytes()])
    }

    fn taken(record: &Record, store: &Memory, owner: u64, now: u64) -> Option<(String, u64)> {
        match record.take(store, owner, now).unwrap() {
            Taken::Mine(current) => Some((current.token.expose().to_owned(), current.sequence)),
            Taken::Busy => None,
        }
    }

    #[test]
    fn a_turn_is_one_owners_until_it_is_given_up_or_over() {
        let (store, record) = (Memory::default(), record("first", Place::Bound));

        assert_eq!(taken(&record, &store, 1, 100), Some(("first".into(), 0)));
        assert_eq!(taken(&record, &store, 2, 119), None);
        record.put_back(&store, 2, None, 119, &random(0)).unwrap();
        assert_eq!(taken(&record, &store, 2, 119), None, "only its owner gives it up");
        record.put_back(&store, 1, Some(&renewed("second", 1, 119)), 119, &random(1)).unwrap();
        assert_eq!(taken(&record, &store, 2, 119), Some(("second".into(), 1)));
        assert_eq!(taken(&record, &store, 3, 139), Some(("second".into(), 1)), "it was over");
        assert_eq!(taken(&record, &store, 4, 20), Some(("second".into(), 1)), "the clock was set");
    }

    #[test]
    fn who_comes_late_does_not_undo_what_is_newer() {
        let (store, record) = (Memory::default(), record("first", Place::Bound));
        taken(&record, &store, 1, 100);
        taken(&record, &store, 2, 120);
        record.put_back(&store, 2, Some(&renewed("second", 1, 121)), 121, &random(1)).unwrap();
        taken(&record, &store, 3, 121);
        record.put_back(&store, 3, Some(&renewed("third", 2, 122)), 122, &random(2)).unwrap();

        record.put_back(&store, 1, Some(&renewed("late", 1, 123)), 123, &random(3)).unwrap();

        assert_eq!(record.newest(&store).unwrap().token.expose(), "third");
    }

    #[test]
    fn whatever_the_interleaving_the_newest_token_that_was_put_is_the_next_one_got() {
        for seed in 0..100u64 {
            let place = if seed % 2 == 0 { Place::Bound } else { Place::Presented };
            let (store, record) = (Memory::default(), record("first", place));
            let mut draws = 0;
            let mut draw = |below: u64| {
                draws += 1;
                u64::from(of_fields(&[&[seed as u8], &u64::to_be_bytes(draws + seed)])[0]) % below
            };
            let mut actors: Vec<Option<Current>> = vec![None; 4];
            let (mut now, mut best) = (1_000, renewed("first", 0, 0));

            for step in 0..80 {
                now += draw(8);
                let owner = draw(4);
                let random = random(step);
                match (actors[owner as usize].take(), draw(4)) {
                    (None, _) => match record.take(&store, owner, now).unwrap() {
                        Taken::Mine(current) => {
                            assert_eq!(current.token.expose(), best.token.expose(), "{seed}");
                            actors[owner as usize] = Some(current);
                        }
                        Taken::Busy => {}
                    },
                    // It died.
                    (Some(_), 0) => {}
                    (Some(_), 1) => record.put_back(&store, owner, None, now, &random).unwrap(),
                    (Some(used), _) => {
                        let new = renewed(&format!("token-{step}"), used.sequence + 1, now);
                        record.put_back(&store, owner, Some(&new), now, &random).unwrap();
                        if !best.is_newer_than(&new) {
                            best = new;
                        }
                    }
                }
            }

            assert_eq!(record.newest(&store).unwrap().token.expose(), best.token.expose());
        }
    }

    #[test]
    fn what_lies_in_the_store_tells_no_token_and_opens_for_its_own_original_only() {
        let (store, own) = (Memory::default(), record("first-token", Place::Presented));
        taken(&own, &store, 1, 100);
        own.put_back(&store, 1, Some(&renewed("second-token", 1, 100)), 100, &random(1)).unwrap();
        let (bytes, _) = store.get(&own.bucket.key).unwrap();
        let sealed = own.close(&renewed("third-token", 2, 100), &random(2)).unwrap();

        for needle in ["first-token", "second-token"] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle.as_bytes()));
        }
        assert_eq!(own.open(&sealed).unwrap().token.expose(), "third-token");
        let original = Secret::new("first-token");
        for other in [
            record("another-token", Place::Presented),
            Record::new("https://other", "client", &original, Place::Presented),
            Record::new("https://idp", "other", &original, Place::Presented),
        ] {
            assert_ne!(other.name(), own.name());
            assert!(other.open(&sealed).is_none());
        }
        assert!(own.open(&sealed[..20]).is_none() && own.open(b"").is_none());
    }

    #[test]
    fn presented_tokens_have_bounded_room_and_only_renewed_ones_take_it_from_others() {
        let store = Memory::default();
        let same_bucket = |record: &Record| record.name[0] == 7;
        let all = (0..).map(|n| record(&format!("token-{n}"), Place::Presented));
        let records: Vec<Record> = all.filter(same_bucket).take(RECORDS + WAYS + 1).collect();
        let (kept, others) = records.split_at(WAYS);
        for (index, record) in kept.iter().enumerate() {
            let now = 100 + index as u64;
            taken(record, &store, 1, now).unwrap();
            record.put_back(&store, 1, Some(&renewed("new", 1, now)), now, &random(now)).unwrap();
        }

        for record in &others[..RECORDS - WAYS] {
            assert!(taken(record, &store, 2, 200).is_some());
        }
        assert_eq!(others.last().unwrap().take(&store, 2, 200).err(), Some(Unavailable), "full");
        for record in &others[1..] {
            record.put_back(&store, 2, None, 201, &random(201)).unwrap();
        }
        assert!(kept.iter().all(|record| record.newest(&store).unwrap().sequence == 1));
        taken(&kept[0], &store, 3, 202).unwrap();
        others[0].put_back(&store, 2, Some(&renewed("new", 1, 203)), 203, &random(203)).unwrap();

        let sequences = records.iter().map(|record| record.newest(&store).unwrap().sequence);
        let lost: Vec<usize> =
            sequences.take(WAYS + 1).enumerate().filter(|(_, n)| *n == 0).map(|(i, _)| i).collect();
        assert_eq!(lost, [1], "what is in use stays; the one not used for longest goes");
    }

    #[test]
    fn what_another_module_wrote_counts_as_nothing() {
        let record = record("first", Place::Bound);
        let sealed = record.close(&renewed("second", 1, 1), &random(1)).unwrap();
        let mut entry = Entry::new(record.name);
        entry.sealed = sealed;
        let whole = encode(&[entry]);

        for bytes in [
            &b"[]"[..],
            &[0xff; 200],
            &whole[..whole.len() - 1],
            &[&whole[..40], &[0xff; 64]].concat(),
        ] {
            let store = Memory::default();
            assert!(store.swap(&record.bucket.key, bytes, 0).unwrap());

            assert_eq!(taken(&record, &store, 1, 100), Some(("first".into(), 0)));
        }
    }
}
