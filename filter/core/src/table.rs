//! Results of jobs in the shared store, and the leases that make each job run once per process.

use crate::digest::{Key, base64url};
use crate::job::{Job, JobError, Place, Value, Want};
use crate::seal::Seal;
use crate::store::{Store, Unavailable, update};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// How long a leader may take, in seconds. After that another worker may lead.
pub const LEASE: u64 = 20;
/// Shortest time between two tries for something newer if the first brought nothing new, in seconds:
/// an unknown `kid` must not become a way to make us fetch.
const COOL_DOWN: u64 = 30;

/// How many more leases than results a bucket may hold.
const LEASES_PER_WAY: usize = 8;

/// The shared results, as one worker sees them.
pub struct Table<'a> {
    /// The store they lie in.
    pub store: &'a dyn Store,
    /// What seals them.
    pub seal: &'a Seal,
    /// The worker that looks: a random number.
    pub owner: u64,
    /// Now, in seconds since the epoch.
    pub now: u64,
}

/// What a look at the table says to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Here it is.
    Ready(Value),
    /// Here it is, and this worker now holds the lease to make it anew.
    Refresh(Value),
    /// This worker now holds the lease: run the job.
    Lead,
    /// Another worker runs the job.
    Wait,
    /// It was tried a moment ago and failed.
    Failed(JobError),
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    leased_by: u64,
    leased_until: u64,
    tried_at: u64,
    dropped_at: u64,
    value: Option<Stored>,
    failure: Option<(JobError, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    sealed: String,
    made_at: u64,
    refresh_at: u64,
    usable_until: u64,
}

impl Table<'_> {
    /// Looks for a result of `job` that is as good as `want`, taking the lease if there is none and
    /// nobody is at it.
    pub fn look(&self, job: &Job, want: Want) -> Result<Look, Unavailable> {
        let key = self.seal.key_of(&job.key());
        let place = job.place(&key);
        update(self.store, &place.key, |bytes| {
            let mut entries = decode(bytes);
            let name = base64url(&key);
            let found = entries.iter_mut().find(|entry| entry.key == name);
            if let Some(look) = found.as_ref().and_then(|entry| self.read(&key, entry, want)) {
                return (None, Ok(look));
            }
            let old = found.as_ref().and_then(|entry| self.usable(&key, entry));
            match found {
                Some(entry) => self.lease(entry, want),
                None => {
                    let mut entry = Entry {
                        key: name,
                        leased_by: 0,
                        leased_until: 0,
                        tried_at: 0,
                        dropped_at: 0,
                        value: None,
                        failure: None,
                    };
                    self.lease(&mut entry, want);
                    if !self.make_room(&mut entries, &place) {
                        return (None, Err(Unavailable));
                    }
                    entries.push(entry);
                }
            }
            let look = match (old, want) {
                (Some(value), Want::Usable) => Look::Refresh(value),
                _ => Look::Lead,
            };
            (Some(encode(&entries)), Ok(look))
        })?
    }

    /// Writes the result of a job this worker led and gives the lease back. A failure leaves an
    /// older value that is still usable in place; a refusal does not. Of what is not kept, nothing is
    /// written. `random` must never repeat.
    pub fn publish(
        &self,
        job: &Job,
        result: &Result<Value, JobError>,
        random: &Key,
    ) -> Result<(), Unavailable> {
        let key = self.seal.key_of(&job.key());
        let name = base64url(&key);
        update(self.store, &job.place(&key).key, |bytes| {
            let mut entries = decode(bytes);
            if !job.is_kept() {
                entries.retain(|entry| entry.key != name);
                return (Some(encode(&entries)), ());
            }
            let Some(entry) = entries.iter_mut().find(|entry| entry.key == name) else {
                return (None, ());
            };
            if entry.leased_by == self.owner {
                entry.leased_until = 0;
            }
            match result {
                Ok(value) => {
                    // It was not in vain: an identity provider that has changed its keys may do so again.
                    // A client's document may be made so that it is never twice the same.
                    let changed = |old: Value| old.data != value.data;
                    if matches!(job, Job::Keys(_)) && self.usable(&key, entry).is_some_and(changed)
                    {
                        entry.tried_at = 0;
                    }
                    entry.failure = None;
                    entry.value = self.seal.close(&key, &value.data, random).map(|sealed| Stored {
                        sealed: base64url(&sealed),
                        made_at: value.made_at,
                        refresh_at: value.refresh_at,
                        usable_until: value.usable_until,
                    });
                }
                Err(error) => {
                    if error.is_refusal() {
                        entry.value = None;
                    } else if let Some(value) = &mut entry.value {
                        value.refresh_at = self.now.saturating_add(COOL_DOWN);
                    }
                    let until = self.now.saturating_add(error.remembered_for());
                    entry.failure = Some((error.clone(), until));
                }
            }
            (Some(encode(&entries)), ())
        })
    }

    /// Drops the token under `key` if it is the one made at `made_at`, at most once in
    /// 30 seconds: a server that refuses every token must not make us ask for one with
    /// every request.
    pub fn forget_token(
        &self,
        key: &Key,
        is_unproven: bool,
        made_at: u64,
    ) -> Result<(), Unavailable> {
        let key = self.seal.key_of(key);
        let name = base64url(&key);
        update(self.store, &Place::of_token(&key, is_unproven).key, |bytes| {
            let mut entries = decode(bytes);
            let cooled = |entry: &Entry| self.now >= entry.dropped_at.saturating_add(COOL_DOWN);
            match entries.iter_mut().find(|entry| entry.key == name) {
                Some(entry) if made_at_or_before(entry, made_at) && cooled(entry) => {
                    entry.value = None;
                    entry.dropped_at = self.now;
                    (Some(encode(&entries)), ())
                }
                _ => (None, ()),
            }
        })
    }

    fn read(&self, key: &Key, entry: &Entry, want: Want) -> Option<Look> {
        let value = self.usable(key, entry);
        let leased = entry.leased_until > self.now;
        if let Some(value) = value {
            let good = match want {
                Want::Usable => self.now < value.refresh_at || leased,
                Want::NewerThan(made_at) => value.made_at > made_at,
            };
            // What was made this very second is as new as can be.
            let tried =
                value.made_at >= self.now || self.now < entry.tried_at.saturating_add(COOL_DOWN);
            let cooling = tried && !leased;
            match (&entry.failure, want) {
                _ if good => return Some(Look::Ready(value)),
                // The last try failed: that is our outage, not a fault of the one who asks.
                (Some((error, _)), Want::NewerThan(_)) if cooling => {
                    return Some(Look::Failed(error.clone()));
                }
                (None, Want::NewerThan(_)) if cooling => return Some(Look::Ready(value)),
                _ => {}
            }
        } else if let Some((error, until)) = &entry.failure
            && *until > self.now
        {
            return Some(Look::Failed(error.clone()));
        }
        leased.then_some(Look::Wait)
    }

    fn usable(&self, key: &Key, entry: &Entry) -> Option<Value> {
        let stored = entry.value.as_ref().filter(|stored| self.now < stored.usable_until)?;
        let sealed = URL_SAFE_NO_PAD.decode(&stored.sealed).ok()?;
        Some(Value {
            data: self.seal.open(key, &sealed)?,
            made_at: stored.made_at,
            refresh_at: stored.refresh_at,
            usable_until: stored.usable_until,
        })
    }

    fn lease(&self, entry: &mut Entry, want: Want) {
        entry.leased_by = self.owner;
        entry.leased_until = self.now.saturating_add(LEASE);
        // What is fetched in its turn is no try for something newer.
        if want != Want::Usable {
            entry.tried_at = self.now;
        }
    }

    /// Makes room for one more: what has ended goes first, then what ends soonest. What is leased
    /// stays.
    fn make_room(&self, entries: &mut Vec<Entry>, place: &Place) -> bool {
        let ends = |entry: &Entry| entry.value.as_ref().map_or(0, |value| value.usable_until);
        let remembered = |entry: &Entry| {
            let failure = entry.failure.as_ref().map_or(0, |(_, until)| *until);
            let cooling = entry.dropped_at.saturating_add(COOL_DOWN);
            ends(entry).max(failure).max(cooling).max(entry.leased_until)
        };
        entries.retain(|entry| remembered(entry) > self.now);
        while entries.len() >= place.ways {
            let soonest = entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.leased_until <= self.now)
                .min_by_key(|(_, entry)| ends(entry))
                .map(|(index, _)| index);
            match soonest {
                Some(index) => drop(entries.swap_remove(index)),
                // Leases are small and short; only a flood of them is refused.
                None => return entries.len() < place.ways * LEASES_PER_WAY,
            }
        }
        true
    }
}

fn made_at_or_before(entry: &Entry, made_at: u64) -> bool {
    entry.value.as_ref().is_some_and(|value| value.made_at <= made_at)
}

/// What another module may have written there counts as nothing.
fn decode(bytes: &[u8]) -> Vec<Entry> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    serde_json::to_vec(entries).unwrap_or_default()
}
