//! The workers of a process: a list of their queues in the shared store, each with a sign of life.

use crate::store::{Store, Unavailable, update};
use serde::{Deserialize, Serialize};

/// Where the list lies.
const KEY: &str = "jagway/peers";
/// Most workers known. A proxy has a worker a core.
const MAX_PEERS: usize = 512;
/// A worker not heard of for so long, in seconds, is taken for dead (its VM was reloaded).
const DEAD_AFTER: u64 = 60;
/// How often, in seconds, a worker gives a sign of life.
pub const SIGN_OF_LIFE: u64 = 15;

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Peer {
    queue: Option<u32>,
    owner: u64,
    seen: u64,
}

/// Takes a place in the list for the worker `owner`: its own, or that of a dead one if there is any. A place's
/// number names its queue, so a process makes only as many queues as workers ever lived at once.
///
/// `None` if all places are taken.
pub fn take_place(store: &dyn Store, owner: u64, now: u64) -> Result<Option<usize>, Unavailable> {
    update(store, KEY, |bytes| {
        let mut peers = decode(bytes);
        let peer = Peer { queue: None, owner, seen: now };
        let dead = peers.iter().position(|peer| peer.seen.saturating_add(DEAD_AFTER) < now);
        let own = peers.iter().position(|peer| peer.owner == owner);
        let place = own.or(dead).unwrap_or(peers.len());
        match peers.get_mut(place) {
            Some(slot) => *slot = peer,
            None if place < MAX_PEERS => peers.push(peer),
            None => return (None, None),
        }
        (Some(encode(&peers)), Some(place))
    })
}

/// A sign of life of the worker `owner` at `place`, with the queue it listens to. `Ok(false)` if
/// the place has been given to another worker meanwhile.
pub fn alive(
    store: &dyn Store,
    place: usize,
    owner: u64,
    queue: u32,
    now: u64,
) -> Result<bool, Unavailable> {
    update(store, KEY, |bytes| {
        let mut peers = decode(bytes);
        match peers.get_mut(place) {
            Some(peer) if peer.owner == owner => {
                *peer = Peer { queue: Some(queue), owner, seen: now };
                (Some(encode(&peers)), true)
            }
            _ => (None, false),
        }
    })
}

/// The queues of all workers that live.
pub fn queues(store: &dyn Store, now: u64) -> Result<Vec<u32>, Unavailable> {
    let peers = decode(&store.get(KEY)?.0);
    let live = peers.iter().filter(|peer| peer.seen.saturating_add(DEAD_AFTER) >= now);
    Ok(live.filter_map(|peer| peer.queue).collect())
}

fn decode(bytes: &[u8]) -> Vec<Peer> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn encode(peers: &[Peer]) -> Vec<u8> {
    serde_json::to_vec(peers).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_dead_workers_place_is_taken_over_and_it_notices() {
        let store = Memory::default();
        assert_eq!(take_place(&store, 1, 100), Ok(Some(0)));
        assert_eq!(take_place(&store, 2, 100), Ok(Some(1)));
        assert_eq!(alive(&store, 0, 1, 70, 100), Ok(true));
        assert_eq!(alive(&store, 1, 2, 71, 100), Ok(true));
        assert_eq!(queues(&store, 100), Ok(vec![70, 71]));

        assert_eq!(alive(&store, 1, 2, 71, 155), Ok(true));
        assert_eq!(queues(&store, 161), Ok(vec![71]));
        assert_eq!(take_place(&store, 3, 161), Ok(Some(0)));
        assert_eq!(alive(&store, 0, 1, 70, 162), Ok(false));
    }
}
