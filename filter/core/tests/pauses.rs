//! Leaving servers alone: what `Retry-After` may say, and how long a server that fails is not asked.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use jagway_core::http::{Answer, Headers};
use jagway_core::pauses::{failed, retry_after, succeeded, until};
use jagway_core::store::{Memory, Store, Unavailable};
use std::cell::Cell;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW: u64 = 1_800_000_000;
const PLACE: &str = "jagway/pause/1";

fn asked(values: &[&str]) -> Option<u64> {
    let field = |value: &&str| ("retry-after".to_owned(), value.as_bytes().to_vec());
    let headers = Headers::new(values.iter().map(field).collect());
    retry_after(&Answer { status: 503, headers, body: Vec::new() }, NOW)
}

#[test]
fn a_server_asks_for_seconds_or_until_a_date() {
    let cases = [
        ("1", 1),
        ("0", 1),
        ("007", 7),
        ("300", 300),
        ("301", 300),
        ("99999999999999999999999999", 300),
        // NOW is 2027-01-15 08:00:00.
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("Fri, 15 Jan 2027 08:00:00 GMT", 1),
        ("Fri, 15 Jan 2027 09:00:00 GMT", 300),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 1),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:60 GMT", 300),
    ];

    for (value, seconds) in cases {
        assert_eq!(asked(&[value]), Some(seconds), "{value}");
    }
}

#[test]
fn what_is_neither_seconds_nor_a_date_is_not_read() {
    let cases = [
        "",
        " 1",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "1 s",
        "1, 2",
        "0x1",
        "٣",
        "soon",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 2023 08:49:37 GMT",
        "Mon, 29 Feb 2100 08:49:37 GMT",
        "Sun, 06 Nov 1969 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 19940 08:49:37 GMT",
        "Sun, 06 Nov -199 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 08:49:37:00 GMT",
        "Sun, 06 Nov 1994 +8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT GMT",
    ];

    for value in cases {
        assert_eq!(asked(&[value]), None, "{value}");
    }
    assert_eq!((asked(&[]), asked(&["1", "1"])), (None, None));
}

#[test]
fn a_date_is_so_many_seconds_after_the_epoch() {
    let cases = [
        ("Thu, 01 Jan 1970 00:05:00 GMT", 300),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
        ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
        ("Fri, 15 Jan 2027 08:00:00 GMT", NOW),
        ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
    ];

    for (text, seconds) in cases {
        let headers = Headers::new(vec![("retry-after".into(), text.into())]);
        let answer = Answer { status: 429, headers, body: Vec::new() };
        let left = [7, 299].map(|before| retry_after(&answer, seconds - before));
        assert_eq!(left, [Some(7), Some(299)], "{text}");
    }
}

fn fail(store: &Memory, retry_after: Option<u64>, now: u64) -> Option<u64> {
    failed(store, PLACE, retry_after, &[0; 32], now).unwrap();
    until(store, PLACE, now)
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let store = Memory::default();

    assert_eq!(fail(&store, Some(30), NOW), Some(30));
    assert_eq!(until(&store, PLACE, NOW + 29), Some(1));
    assert_eq!(until(&store, PLACE, NOW + 30), None);
    assert_eq!(until(&store, "jagway/pause/2", NOW), None);
    assert_eq!(fail(&store, Some(u64::MAX), NOW + 30), Some(300));
}

#[test]
fn a_server_that_fails_again_and_again_is_left_alone_ever_longer() {
    let store = Memory::default();
    let mut now = NOW;

    let pauses: Vec<u64> = (0..40)
        .map(|_| {
            let pause = fail(&store, None, now).unwrap_or_default();
            now += pause;
            pause
        })
        .collect();

    assert_eq!(pauses[..10], [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(pauses[39], 60);
}

#[test]
fn chance_takes_off_up_to_a_half() {
    let longest = [1, 2, 4, 8, 16, 32, 60, 60];

    for byte in 0..=255 {
        let (store, mut now) = (Memory::default(), NOW);
        fail(&store, None, now);
        for longest in longest {
            failed(&store, PLACE, None, &[byte; 32], now).unwrap();
            let pause = until(&store, PLACE, now).unwrap();
            assert!((longest - longest / 2..=longest).contains(&pause), "{longest} {byte}");
            now += pause;
        }
        assert_eq!(until(&store, PLACE, now), None);
    }
}

#[test]
fn what_fails_during_a_pause_does_not_count_again() {
    let store = Memory::default();
    fail(&store, None, NOW);
    fail(&store, None, NOW);

    let meanwhile = [(); 9].map(|()| fail(&store, None, NOW));
    let next = fail(&store, None, NOW + 1);

    assert_eq!((meanwhile, next), ([Some(1); 9], Some(2)));
}

#[test]
fn a_pause_is_made_longer_but_never_shorter() {
    let store = Memory::default();

    let pauses = [Some(30), Some(5), None, Some(40)].map(|asked| fail(&store, asked, NOW));

    assert_eq!(pauses, [Some(30), Some(30), Some(30), Some(40)]);
}

#[test]
fn a_success_ends_the_row_and_not_the_pause() {
    let store = Memory::default();
    for asked in [1, 1, 1, 10] {
        fail(&store, Some(asked), NOW + 1);
    }

    succeeded(&store, PLACE).unwrap();

    assert_eq!(until(&store, PLACE, NOW + 1), Some(10));
    assert_eq!(fail(&store, None, NOW + 11), None, "the first in a row");
    assert_eq!(fail(&store, None, NOW + 11), Some(1));
}

#[test]
fn what_we_did_not_write_is_no_pause() {
    let record =
        |failures: u32, until: u64| [&failures.to_be_bytes()[..], &until.to_be_bytes()].concat();
    let cases = [
        vec![],
        vec![0xff; 3],
        vec![0xff; 11],
        vec![0xff; 12],
        vec![0xff; 13],
        b"{\"until\":1800000100}".to_vec(),
        record(u32::MAX, NOW + 301),
        record(0, NOW),
    ];

    for bytes in cases {
        let store = Memory::default();
        store.swap(PLACE, &bytes, 0).unwrap();
        assert_eq!(until(&store, PLACE, NOW), None, "{bytes:?}");
        assert_eq!(fail(&store, Some(7), NOW), Some(7), "{bytes:?}");
    }
}

/// A store that counts, and that may be down.
#[derive(Default)]
struct Counted {
    inner: Memory,
    swaps: Cell<u32>,
    is_down: Cell<bool>,
}

impl Store for Counted {
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        if self.is_down.get() { Err(Unavailable) } else { self.inner.get(key) }
    }

    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
        self.swaps.set(self.swaps.get() + 1);
        self.inner.swap(key, value, version)
    }
}

#[test]
fn a_success_writes_only_if_something_is_held_against_the_server() {
    let store = Counted::default();

    (0..3).for_each(|_| succeeded(&store, PLACE).unwrap());
    let at_first = store.swaps.get();
    failed(&store, PLACE, None, &[0; 32], NOW).unwrap();
    (0..3).for_each(|_| succeeded(&store, PLACE).unwrap());

    assert_eq!((at_first, store.swaps.get()), (0, 2));
}

#[test]
fn without_a_store_there_is_no_pause() {
    let store = Counted::default();
    store.is_down.set(true);

    assert_eq!(failed(&store, PLACE, Some(9), &[0; 32], NOW), Err(Unavailable));
    assert_eq!(succeeded(&store, PLACE), Err(Unavailable));
    assert_eq!(until(&store, PLACE, NOW), None);
}
