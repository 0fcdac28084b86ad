//! What has been revoked before its time, for all workers of one process: single tokens (RFC 7009) and
//! everything that came of one user of an identity provider (CAEP, Global Token Revocation).
//!
//! A fixed number of buckets in the shared store, each a bounded list of digests with expiry: 21 MB
//! for tokens, and 21 MB for the users of each identity provider, when all are full. A live entry is never pushed out: a full bucket takes no more.

use crate::digest::{Key, of_fields, short_digest};
use crate::store::{Store, Unavailable, update};
use core::num::NonZeroU32;

/// How many buckets each of the two tables has.
const BUCKETS: u16 = 8192;
/// How many live entries a bucket holds: 655360 in a table.
const ENTRIES: usize = 80;
/// Bytes of one entry: 16 of name, then 8 each of the second up to which tokens are revoked and of
/// the second at which the entry ends.
const ENTRY: usize = 32;

/// An entry without content, which is written whenever something is revoked: its version is the state. To hand over
/// memory is most of what a read costs.
const STATE: &str = "jagway/revoked";
const TOKENS: &str = "token";
const ORIGINS: &str = "origin";

/// Result of [`revoke_token`] and [`revoke_origin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is listed, or there is nothing left to list.
    Listed,
    /// No room to remember it: it is *not* revoked.
    Full,
}

/// A user of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Each issuer has buckets of its own: none can fill those of another's users.
    table: String,
    key: Key,
}

/// Where a token comes from: `subject` at the identity provider `issuer`, in its `tenant` if the grant
/// named one. The same user has the same key.
///
/// The first half names the user in any tenant, the second in this one; without a tenant both are
/// the first. So what is revoked without a tenant is revoked in all of them.
pub fn origin(issuer: &str, tenant: Option<&str>, subject: &str) -> Origin {
    let user = [b"origin", issuer.as_bytes(), subject.as_bytes()];
    let anywhere = of_fields(&user);
    let here = tenant.map(|tenant| {
        let [label, issuer, subject] = user;
        of_fields(&[label, issuer, subject, tenant.as_bytes()])
    });
    let table = format!("{ORIGINS}-{}", short_digest(issuer));
    Origin { table, key: halves(&anywhere, &here.unwrap_or(anywhere)) }
}

/// Revokes the token `jti` of ours (RFC 7009 §2.1), to be remembered until `until` (seconds since
/// the epoch; at least its `exp` plus skew).
///
/// Does *not* check that the token is ours, nor that whoever asks may revoke it.
/// [`Unavailable`] if the store does not answer: it is not revoked.
pub fn revoke_token(
    store: &dyn Store,
    jti: &str,
    until: u64,
    now: u64,
) -> Result<Recorded, Unavailable> {
    // Whenever it was issued.
    record(store, TOKENS, &token(jti), u64::MAX, until, now)
}

/// Revokes every token of `origin` that was issued up to and including the second `before`, to be
/// remembered until `until` (seconds since the epoch; at least `before` plus the longest life of a
/// token plus skew). Of two revocations of one origin the later `before` and `until` stay.
///
/// Does *not* check that whoever asks may speak for the origin, nor that `before` is not in the future.
/// [`Unavailable`] if the store does not answer: nothing is revoked.
pub fn revoke_origin(
    store: &dyn Store,
    origin: &Origin,
    before: u64,
    until: u64,
    now: u64,
) -> Result<Recorded, Unavailable> {
    record(store, &origin.table, &origin.key, before, until, now)
}

/// The state of all lists: a number that changes with every revocation. What was not revoked in one state is
/// not as long as it lasts. `None` as long as nothing at all has been revoked.
///
/// [`Unavailable`] if the store does not answer.
pub fn state(store: &dyn Store) -> Result<Option<NonZeroU32>, Unavailable> {
    store.get(STATE).map(|(_, version)| NonZeroU32::new(version))
}

/// Whether a token issued at `issued_at` (seconds since the epoch) to `origin` is revoked, by its `jti`
/// or by where it comes from. Reads the store twice at most.
///
/// [`Unavailable`] if the store does not answer: then nobody knows, and the token must not pass.
pub fn is_revoked(
    store: &dyn Store,
    jti: Option<&str>,
    origin: &Origin,
    issued_at: u64,
    now: u64,
) -> Result<bool, Unavailable> {
    if let Some(jti) = jti
        && lists(store, TOKENS, &token(jti), issued_at, now)?
    {
        return Ok(true);
    }
    lists(store, &origin.table, &origin.key, issued_at, now)
}

fn token(jti: &str) -> Key {
    let name = of_fields(&[b"revoked", jti.as_bytes()]);
    halves(&name, &name)
}

/// The first 16 bytes of each.
fn halves(wide: &Key, narrow: &Key) -> Key {
    let mut key = *wide;
    for (byte, other) in key.iter_mut().skip(16).zip(narrow) {
        *byte = *other;
    }
    key
}

fn record(
    store: &dyn Store,
    table: &str,
    key: &Key,
    before: u64,
    until: u64,
    now: u64,
) -> Result<Recorded, Unavailable> {
    if until <= now {
        return Ok(Recorded::Listed);
    }
    let (_, name) = key.split_at(16);
    let recorded = update(store, &bucket(table, key), |entries| {
        let (mut before, mut until) = (before, until);
        let mut next = Vec::with_capacity(entries.len() + ENTRY);
        for entry in live(entries, now) {
            if entry.starts_with(name) {
                before = before.max(up_to(entry));
                until = until.max(expiry(entry));
            } else {
                next.extend_from_slice(entry);
            }
        }
        if next.len() >= ENTRIES * ENTRY {
            return (None, Recorded::Full);
        }
        next.extend_from_slice(name);
        next.extend_from_slice(&before.to_be_bytes());
        next.extend_from_slice(&until.to_be_bytes());
        (Some(next), Recorded::Listed)
    })?;
    if recorded == Recorded::Listed {
        // Last: who reads the new state finds the entry.
        update(store, STATE, |_| (Some(Vec::new()), ()))?;
    }
    Ok(recorded)
}

fn lists(
    store: &dyn Store,
    table: &str,
    key: &Key,
    issued_at: u64,
    now: u64,
) -> Result<bool, Unavailable> {
    let (wide, narrow) = key.split_at(16);
    let (entries, _) = store.get(&bucket(table, key))?;
    Ok(live(&entries, now).any(|entry| {
        (entry.starts_with(narrow) || entry.starts_with(wide)) && issued_at <= up_to(entry)
    }))
}

/// The bucket of `key`, chosen by its first half, which all tenants of a user share.
fn bucket(table: &str, key: &Key) -> String {
    let number = key.iter().take(2).fold(0u16, |value, byte| value << 8 | u16::from(*byte));
    format!("jagway/revoked-{table}/{:x}", number % BUCKETS)
}

fn live(entries: &[u8], now: u64) -> impl Iterator<Item = &[u8]> {
    entries.chunks_exact(ENTRY).filter(move |entry| expiry(entry) > now)
}

fn up_to(entry: &[u8]) -> u64 {
    number(entry, 16)
}

fn expiry(entry: &[u8]) -> u64 {
    number(entry, 24)
}

fn number(entry: &[u8], at: usize) -> u64 {
    entry.iter().skip(at).take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    use std::cell::Cell;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A store that counts what is asked of it and may be out of order.
    #[derive(Default)]
    struct Counted {
        memory: Memory,
        gets: Cell<usize>,
        swaps: Cell<usize>,
        is_down: Cell<bool>,
    }

    impl Store for Counted {
        fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
            self.gets.set(self.gets.get() + 1);
            if self.is_down.get() { Err(Unavailable) } else { self.memory.get(key) }
        }

        fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
            self.swaps.set(self.swaps.get() + 1);
            self.memory.swap(key, value, version)
        }
    }

    fn alice() -> Origin {
        origin("https://idp", None, "alice")
    }

    #[test]
    fn a_revoked_token_is_revoked_until_its_entry_ends_and_others_are_not() {
        let store = Memory::default();
        let is_revoked = |jti, now| is_revoked(&store, jti, &alice(), 800, now).unwrap();

        let recorded = revoke_token(&store, "1", 1_000, 900);

        assert_eq!(recorded, Ok(Recorded::Listed));
        assert!(is_revoked(Some("1"), 900) && is_revoked(Some("1"), 999));
        assert!(!is_revoked(Some("1"), 1_000));
        assert!(!is_revoked(Some("2"), 900) && !is_revoked(None, 900));
    }

    #[test]
    fn an_origin_is_revoked_for_what_was_issued_so_far() {
        let store = Memory::default();
        let is_revoked = |origin, issued_at, now| {
            is_revoked(&store, Some("1"), &origin, issued_at, now).unwrap()
        };

        let recorded = revoke_origin(&store, &alice(), 900, 1_200, 905);

        assert_eq!(recorded, Ok(Recorded::Listed));
        assert!(is_revoked(alice(), 0, 905) && is_revoked(alice(), 900, 1_199));
        assert!(!is_revoked(alice(), 901, 905), "issued since");
        assert!(!is_revoked(alice(), 900, 1_200), "the entry has ended");
        assert!(!is_revoked(origin("https://idp", None, "bob"), 900, 905));
    }

    #[test]
    fn an_earlier_revocation_that_comes_later_takes_nothing_back() {
        let cases = [[(900, 1_200), (800, 1_100)], [(800, 1_100), (900, 1_200)]];
        let crossed = [[(900, 1_100), (800, 1_200)], [(800, 1_200), (900, 1_100)]];

        for order in cases.into_iter().chain(crossed) {
            let store = Counted::default();
            for (before, until) in order {
                revoke_origin(&store, &alice(), before, until, 905).unwrap();
            }
            let is_revoked =
                |issued_at, now| is_revoked(&store, None, &alice(), issued_at, now).unwrap();
            assert!(is_revoked(900, 1_199), "{order:?}");
            assert!(!is_revoked(901, 905) && !is_revoked(900, 1_200), "{order:?}");
            let entries = store.get(&bucket(&alice().table, &alice().key)).unwrap().0;
            assert_eq!(entries.len(), ENTRY, "one entry an origin");
        }
    }

    #[test]
    fn users_are_told_apart_by_issuer_tenant_and_subject() {
        let keys = [
            origin("a", None, "b"),
            origin("ab", None, ""),
            origin("", None, "ab"),
            origin("a", Some(""), "b"),
            origin("a", Some("b"), "b"),
            origin("a", Some("c"), "b"),
            origin("a", Some("b"), "c"),
            origin("b", Some("b"), "a"),
        ];

        for (index, key) in keys.iter().enumerate() {
            assert!(!keys.iter().skip(index + 1).any(|other| other == key), "{index}");
        }
        assert_eq!(origin("a", Some("b"), "c"), origin("a", Some("b"), "c"));
    }

    #[test]
    fn a_revocation_without_a_tenant_is_for_all_of_them_and_one_with_it_for_that_one() {
        let tenant = |tenant| origin("https://idp", tenant, "alice");
        let revoked_by = |revoked: Origin, token: Origin| {
            let store = Memory::default();
            revoke_origin(&store, &revoked, 900, 1_200, 905).unwrap();
            is_revoked(&store, None, &token, 900, 905).unwrap()
        };

        assert!(revoked_by(tenant(None), tenant(Some("one"))));
        assert!(revoked_by(tenant(Some("one")), tenant(Some("one"))));
        assert!(!revoked_by(tenant(Some("one")), tenant(Some("two"))));
        assert!(!revoked_by(tenant(Some("one")), tenant(None)));
    }

    #[test]
    fn a_full_bucket_takes_no_more_and_keeps_what_it_has() {
        let store = Memory::default();
        let own = [alice().key.split_at(16).1, &[0; 8], &[0xff; 8]].concat();
        let others = (1..ENTRIES as u64).flat_map(|n| [[7; 8], n.to_be_bytes(), [0; 8], [0xff; 8]]);
        let full = [own, others.flatten().collect()].concat();
        // Somebody else in the same bucket.
        let mut bob = alice();
        bob.key[2..].fill(1);
        store.swap(&bucket(&alice().table, &alice().key), &full, 0).unwrap();

        let refused = revoke_origin(&store, &bob, 900, 1_200, 905);
        let known = revoke_origin(&store, &alice(), 900, 1_200, 905);

        assert_eq!(refused, Ok(Recorded::Full));
        assert_eq!(known, Ok(Recorded::Listed), "it has its entry already");
        let kept = store.get(&bucket(&alice().table, &alice().key)).unwrap().0;
        assert_eq!(kept.len(), full.len());
        assert!(is_revoked(&store, None, &alice(), 900, 905).unwrap());
        assert!(!is_revoked(&store, None, &bob, 900, 905).unwrap());
    }

    #[test]
    fn no_issuer_fills_the_buckets_of_anothers_users() {
        let (ours, theirs) = (origin("a", None, "alice"), origin("b", None, "alice"));

        assert_ne!(ours.table, theirs.table);
    }

    #[test]
    fn entries_that_have_ended_make_room() {
        let store = Memory::default();
        let ended = [[7; 16], [0; 16]].concat().repeat(ENTRIES);
        store.swap(&bucket(&alice().table, &alice().key), &ended, 0).unwrap();

        let recorded = revoke_origin(&store, &alice(), 900, 1_200, 905);

        assert_eq!(recorded, Ok(Recorded::Listed));
        assert_eq!(store.get(&bucket(&alice().table, &alice().key)).unwrap().0.len(), ENTRY);
    }

    #[test]
    fn what_has_ended_already_is_not_written_down() {
        let store = Counted::default();

        let token = revoke_token(&store, "1", 900, 900);
        let origin = revoke_origin(&store, &alice(), 900, 899, 900);

        assert_eq!((token, origin), (Ok(Recorded::Listed), Ok(Recorded::Listed)));
        assert_eq!(store.swaps.get(), 0);
    }

    #[test]
    fn a_token_is_judged_with_two_reads_and_no_write() {
        let store = Counted::default();

        let revoked = is_revoked(&store, Some("1"), &alice(), 900, 905);

        assert_eq!(revoked, Ok(false));
        assert_eq!((store.gets.get(), store.swaps.get()), (2, 0));
    }

    #[test]
    fn without_a_store_nobody_knows() {
        let store = Counted::default();
        store.is_down.set(true);

        assert_eq!(is_revoked(&store, Some("1"), &alice(), 900, 905), Err(Unavailable));
        assert_eq!(is_revoked(&store, None, &alice(), 900, 905), Err(Unavailable));
        assert_eq!(revoke_token(&store, "1", 1_000, 900), Err(Unavailable));
        assert_eq!(revoke_origin(&store, &alice(), 900, 1_000, 900), Err(Unavailable));
    }
}
