//! Single use of grants (RFC 7523 §3 (7)), client assertions, DPoP proofs and events, by issuer and
//! `jti`, across all workers of one process.
//!
//! A fixed number of buckets in the shared store, each a bounded list of digests with expiry. A live
//! entry is never pushed out: a full bucket refuses.

use crate::digest::{Key, of_fields, sha256};
use crate::store::{Store, Unavailable, update};

/// How many buckets each kind has, and for grants each issuer: 63 MB when all are full.
const BUCKETS: u16 = 16384;
/// How many live entries a bucket holds. Names are digests, so they fall into buckets by chance. Of a million
/// live ones a bucket has 61 on average, 1.5 kB to copy, and that any of them has more than 160 is a matter of
/// 1 to 10^21; of 1.44 million, which are 4,000 a second for six minutes, of 1 to 10^7.
const ENTRIES: usize = 160;
/// Bytes of one entry: 16 of digest, 8 of expiry.
const ENTRY: usize = 24;

/// Result of [`spend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spend {
    /// First use; it is spent now.
    First,
    /// Used before.
    Again,
    /// No room to remember it, so it must not be accepted.
    Full,
}

/// What is spent. Each kind has buckets of its own, so that one cannot fill another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ID-JAG; its issuer is the identity provider with this [`partition`]. None can fill another's
    /// buckets.
    Grant(u32),
    /// A client assertion; its issuer is a client.
    ClientAssertion,
    /// A DPoP proof; its issuer is a key.
    Proof,
    /// What an identity provider tells of its users.
    Event,
    /// A SAML assertion that a caller presented.
    SamlAssertion,
}

/// The part of the store that belongs to the identity provider `issuer`, which must be a configured one:
/// there are as many parts as there are of those.
pub fn partition(issuer: &str) -> u32 {
    sha256(issuer.as_bytes()).iter().take(4).fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// What is remembered of one use: who issued `jti`, for which Resource AS `audience`, and which of
/// the uses that a grant may have this is, from 0.
pub fn name(audience: &str, issuer: &str, jti: &str, nth: u32) -> Key {
    of_fields(&[b"jti", audience.as_bytes(), issuer.as_bytes(), jti.as_bytes(), &nth.to_be_bytes()])
}

/// Spends what has this `name`, to be remembered until `until` (seconds since the epoch; at least
/// `exp` plus skew).
///
/// Atomic: of any number of workers that try at once, one gets [`Spend::First`].
pub fn spend(
    store: &dyn Store,
    kind: Kind,
    name: &Key,
    until: u64,
    now: u64,
) -> Result<Spend, Unavailable> {
    let (id, _) = name.split_at(16);
    update(store, &place(kind, name), |bucket| {
        let mut next = Vec::with_capacity(bucket.len().saturating_add(ENTRY));
        for entry in bucket.chunks_exact(ENTRY).filter(|entry| expiry(entry) > now) {
            if entry.starts_with(id) {
                return (None, Spend::Again);
            }
            next.extend_from_slice(entry);
        }
        if next.len() >= ENTRIES * ENTRY {
            return (None, Spend::Full);
        }
        next.extend_from_slice(id);
        next.extend_from_slice(&until.to_be_bytes());
        (Some(next), Spend::First)
    })
}

/// Forgets what has this `name`: whoever spent it got nothing for it, and may not have been the one it
/// was for.
pub fn release(store: &dyn Store, kind: Kind, name: &Key) -> Result<(), Unavailable> {
    let (id, _) = name.split_at(16);
    update(store, &place(kind, name), |bucket| {
        let others = bucket.chunks_exact(ENTRY).filter(|entry| !entry.starts_with(id));
        (Some(others.collect::<Vec<_>>().concat()), ())
    })
}

/// The bucket of what has this `name`.
fn place(kind: Kind, name: &Key) -> String {
    let (_, rest) = name.split_at(16);
    let bucket = rest.iter().take(2).fold(0u16, |value, byte| value << 8 | u16::from(*byte));
    let bucket = bucket % BUCKETS;
    match kind {
        Kind::Grant(issuer) => format!("jagway/jti-{issuer:x}/{bucket:x}"),
        Kind::ClientAssertion => format!("jagway/client-jti/{bucket:x}"),
        Kind::Proof => format!("jagway/dpop-jti/{bucket:x}"),
        Kind::Event => format!("jagway/event-jti/{bucket:x}"),
        Kind::SamlAssertion => format!("jagway/saml-jti/{bucket:x}"),
    }
}

fn expiry(entry: &[u8]) -> u64 {
    entry.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_grant_is_spent_once_until_its_entry_ends() {
        let store = Memory::default();
        let spend = |issuer, jti, now| {
            spend(&store, Kind::Grant(1), &name("as", issuer, jti, 0), 1_000, now).unwrap()
        };

        assert_eq!(spend("idp", "1", 900), Spend::First);
        assert_eq!(spend("idp", "1", 999), Spend::Again);
        assert_eq!(spend("other", "1", 999), Spend::First);
        assert_eq!(spend("idp", "2", 999), Spend::First);
        assert_eq!(spend("idp", "1", 1_000), Spend::First);
    }

    #[test]
    fn a_full_bucket_refuses_and_keeps_what_it_has() {
        let store = Memory::default();
        let mut full = None;
        // A bucket fills when enough grants hash into it; write all full by hand.
        for bucket in 0..BUCKETS {
            let entries = (0..ENTRIES as u64).flat_map(|n| [n.to_be_bytes(), [7; 8], [0xff; 8]]);
            let bytes: Vec<u8> = entries.flatten().collect();
            assert!(store.swap(&format!("jagway/jti-1/{bucket:x}"), &bytes, 0).unwrap());
            full = Some(bytes);
        }

        let name = name("as", "idp", "1", 0);
        assert_eq!(spend(&store, Kind::Grant(1), &name, 1_000, 900), Ok(Spend::Full));
        for other in [Kind::Grant(2), Kind::ClientAssertion] {
            let other = spend(&store, other, &name, 1_000, 900);
            assert_eq!(other, Ok(Spend::First), "another issuer, and another kind, have room");
        }
        assert_eq!(store.get("jagway/jti-1/0").unwrap().0, full.unwrap());
    }
}
