//! Leaving a server alone that is down or throttles us (RFC 9110 §10.2.3, RFC 6585 §4): one memory for
//! all workers.

use crate::config::Party;
use crate::digest::{Key, hex};
use crate::http::Answer;
use crate::store::{Store, Unavailable, update};

/// Shortest and longest pause that a server can ask for, in seconds.
const BOUNDS: (u64, u64) = (1, 300);
/// Longest pause that a server does not ask for, in seconds.
const LONGEST_UNASKED: u64 = 60;
/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// How long the server asks to be left alone, in seconds: `Retry-After` of `answer`, at least 1 s and at
/// most 300 s after `now` (seconds since the epoch).
///
/// `None` if there is no such field, more than one, or one that is neither whole seconds nor a date as
/// RFC 9110 §5.6.7 has them written today: its two obsolete forms are not read. Does *not* look at the
/// status.
pub fn retry_after(answer: &Answer, now: u64) -> Option<u64> {
    let (shortest, longest) = BOUNDS;
    let text = answer.headers.text("retry-after")?;
    let seconds = match number(text) {
        Some(seconds) => seconds,
        None => http_date(text)?.saturating_sub(now),
    };
    Some(seconds.clamp(shortest, longest))
}

/// The key under which the pause of `party` lies, for all or for callers that nobody here can prove: twice as
/// many as there are parties in the configuration.
pub fn place(party: &Party, is_unproven: bool) -> String {
    let kind = if is_unproven { "pause of unproven" } else { "pause" };
    format!("jagway/pause/{}", hex(&party.document_key(kind)))
}

/// How many seconds the server at `place` is still to be left alone at `now` (seconds since the epoch).
///
/// `None` if it may be asked, or if nobody knows: a store that is down is no reason to stop.
pub fn until(store: &dyn Store, place: &str, now: u64) -> Option<u64> {
    let (bytes, _) = store.get(place).ok()?;
    Some(Record::read(&bytes).left(now)).filter(|left| *left > 0)
}

/// Writes down that the server at `place` did not serve us: 429, 5xx, or no answer, at `now` (seconds
/// since the epoch).
///
/// With [`retry_after`], it is left alone so long. Without, from the second failure in a row on, for 1, 2,
/// 4 and so on up to 60 s, of which `random` takes off up to a half: proxies that failed together shall
/// not come back together. What fails during a pause was sent before it, and does not count again.
///
/// [`Unavailable`] if it cannot be written down: then there is no pause.
pub fn failed(
    store: &dyn Store,
    place: &str,
    retry_after: Option<u64>,
    random: &Key,
    now: u64,
) -> Result<(), Unavailable> {
    change(store, place, &mut |old| {
        let is_paused = old.left(now) > 0;
        let failures = if is_paused { old.failures } else { old.failures.saturating_add(1) };
        let pause = match retry_after {
            Some(asked) => asked.clamp(BOUNDS.0, BOUNDS.1),
            None if is_paused => 0,
            None => unasked(failures, random),
        };
        let until = now.saturating_add(pause).max(if is_paused { old.until } else { 0 });
        Record { failures, until }
    })
}

/// Writes down that the server at `place` has served us; nothing, if nothing is held against it. A pause
/// that is on goes on: what was served was sent before it.
///
/// [`Unavailable`] if it cannot be written down: then the next failure counts as one more in a row.
pub fn succeeded(store: &dyn Store, place: &str) -> Result<(), Unavailable> {
    change(store, place, &mut |old| Record { failures: 0, ..old })
}

/// How long a server is left alone that has not said, in seconds.
fn unasked(failures: u32, random: &Key) -> u64 {
    let Some(doublings) = failures.checked_sub(2) else {
        return 0;
    };
    let longest = 1u64.checked_shl(doublings).map_or(LONGEST_UNASKED, |s| s.min(LONGEST_UNASKED));
    let chance = random.iter().take(4).fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    longest.saturating_sub(chance % (longest / 2 + 1))
}

/// What lies in the store: four bytes of failures, eight of time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    /// In a row.
    failures: u32,
    /// When the pause ends, in seconds since the epoch.
    until: u64,
}

impl Record {
    /// Anything but what we write is no record.
    fn read(bytes: &[u8]) -> Self {
        let parts = bytes.split_first_chunk::<4>();
        let until = parts.and_then(|(_, until)| until.try_into().ok());
        match (parts, until) {
            (Some((failures, _)), Some(until)) => {
                Self { failures: u32::from_be_bytes(*failures), until: u64::from_be_bytes(until) }
            }
            _ => Self { failures: 0, until: 0 },
        }
    }

    /// Seconds to the end of the pause. None if it is further away than any can be: the clock was set
    /// back, or somebody else wrote this.
    fn left(self, now: u64) -> u64 {
        let left = self.until.saturating_sub(now);
        if left > BOUNDS.1 { 0 } else { left }
    }
}

fn change(
    store: &dyn Store,
    place: &str,
    next: &mut dyn FnMut(Record) -> Record,
) -> Result<(), Unavailable> {
    update(store, place, |bytes| {
        let old = Record::read(bytes);
        let new = next(old);
        let bytes = || [&new.failures.to_be_bytes()[..], &new.until.to_be_bytes()].concat();
        ((new != old).then(bytes), ())
    })
}

/// A number of digits alone; one that is larger than any is as large as there is.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The seconds since the epoch of an IMF-fixdate, as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
/// Does *not* check that the day of the week is that of the date.
fn http_date(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.splitn(7, ' ').collect();
    let [weekday, day, month, year, time, "GMT"] = parts.as_slice() else {
        return None;
    };
    ["Mon,", "Tue,", "Wed,", "Thu,", "Fri,", "Sat,", "Sun,"].contains(weekday).then_some(())?;
    let digits = |text: &str, length| number(text).filter(|_| text.len() == length);
    let (day, year) = (digits(day, 2)?, digits(year, 4)?);
    let clock: Vec<u64> = time.splitn(4, ':').map(|part| digits(part, 2)).collect::<Option<_>>()?;
    let [hour @ ..24, minute @ ..60, second @ ..=60] = clock.as_slice() else {
        return None;
    };
    let seconds = hour * 3600 + minute * 60 + second;
    days(year, month, day)?.checked_mul(DAY)?.checked_add(seconds)
}

/// The days from the epoch to a date of the Gregorian calendar, which must not be before it.
fn days(year: u64, month: &str, day: u64) -> Option<u64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, 28 + u64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let names =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = names.iter().position(|name| *name == month)?;
    if day == 0 || day > *lengths.get(month)? {
        return None;
    }
    let before = year.checked_sub(1)?;
    let leap_days = (before / 4 + before / 400).checked_sub(before / 100 + 477)?;
    let months: u64 = lengths.iter().take(month).sum();
    Some(year.checked_sub(1970)? * 365 + leap_days + months + day - 1)
}
