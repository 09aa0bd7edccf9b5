//! Which repetitions of an alarm are stored in full: pure.
//!
//! A handler that panics a thousand times a second must not fill the volume. Deaths are always stored: there is at most one a run.

use std::collections::HashMap;
use std::time::Duration;

use goscope_formats::Timestamp;

/// Alarms of one fingerprint that are stored in full before they are thinned.
pub const FULL: u64 = 8;
/// After that, one is stored in full each so often.
pub const EVERY: Duration = Duration::from_secs(60);
/// Alarms of all fingerprints together that are stored in full within [`EVERY`]: a program whose every alarm is worded anew must not push the
/// deaths out of the store.
pub const ALL_FULL: u64 = 64;
/// Fingerprints that are remembered. Past it, the one seen longest ago is forgotten.
pub const FINGERPRINTS_MAX: usize = 1024;

/// Remembers what was seen, in bounded memory.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: HashMap<String, Seen>,
    /// Since when `stored` counts.
    since: Timestamp,
    /// Alarms stored in full since then.
    stored: u64,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    /// Of them stored in full.
    full: u64,
    last: Timestamp,
    stored: Timestamp,
}

/// What to do with one alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Store it in full.
    pub store: bool,
    /// How often this fingerprint was seen, this time included.
    pub count: u64,
}

impl Repeats {
    /// What to do with one alarm more. Counts nothing: it may not be possible to store it now.
    #[must_use]
    pub fn judge(&self, fingerprint: &str, now: Timestamp) -> Verdict {
        let is_within_all = self.stored < ALL_FULL || is_over(EVERY, self.since, now);
        let Some(seen) = self.seen.get(fingerprint) else { return Verdict { store: is_within_all, count: 1 } };
        let count = seen.count + 1;
        let is_within_own = seen.full < FULL || is_over(EVERY, seen.stored, now);
        Verdict { store: is_within_own && is_within_all, count }
    }

    /// Counts one alarm that was handled as judged.
    pub fn count(&mut self, fingerprint: &str, verdict: Verdict, now: Timestamp) {
        if verdict.store {
            if self.stored >= ALL_FULL || is_over(EVERY, self.since, now) {
                self.since = now;
                self.stored = 0;
            }
            self.stored += 1;
        }
        let full = u64::from(verdict.store);
        if let Some(seen) = self.seen.get_mut(fingerprint) {
            seen.count = verdict.count;
            seen.full += full;
            seen.last = now;
            if verdict.store {
                seen.stored = now;
            }
            return;
        }
        if self.seen.len() >= FINGERPRINTS_MAX
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, seen)| seen.last).map(|(key, _)| key.clone())
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(fingerprint.to_owned(), Seen { count: verdict.count, full, last: now, stored: now });
    }
}

fn is_over(time: Duration, since: Timestamp, now: Timestamp) -> bool {
    u128::try_from(now.0.saturating_sub(since.0)).is_ok_and(|passed| passed >= time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn see(repeats: &mut Repeats, fingerprint: &str, now: Timestamp) -> Verdict {
        let verdict = repeats.judge(fingerprint, now);
        repeats.count(fingerprint, verdict, now);
        verdict
    }

    #[test]
    fn the_first_are_stored_then_one_a_minute() {
        let mut repeats = Repeats::default();
        let stored = (0..1000).filter(|i| see(&mut repeats, "v1:a", Timestamp(i * SECOND / 10)).store).count();
        // 100 s: eight at once, the next 60 s after the eighth.
        assert_eq!(stored, 9);
        assert_eq!(see(&mut repeats, "v1:a", Timestamp(100 * SECOND)).count, 1001);
        assert!(see(&mut repeats, "v1:b", Timestamp(0)).store);
    }

    #[test]
    fn a_storm_of_new_fingerprints_is_thinned_as_well() {
        let mut repeats = Repeats::default();
        let start = 1_000 * SECOND;
        let storm = |repeats: &mut Repeats, from: i64| {
            (0..500)
                .filter(|i| see(repeats, &(from + i).to_string(), Timestamp(start + (from + i) * SECOND / 100)).store)
                .count() as u64
        };
        assert_eq!(storm(&mut repeats, 0), ALL_FULL);
        assert_eq!(storm(&mut repeats, 500), 0, "five more seconds");
        assert_eq!(storm(&mut repeats, 6_000), ALL_FULL, "a minute later");
        // What the storm kept from being stored has lost none of its own places.
        assert!(see(&mut repeats, "499", Timestamp(start + 200 * SECOND)).store);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let mut repeats = Repeats::default();
        for i in 0..=FINGERPRINTS_MAX {
            see(&mut repeats, &i.to_string(), Timestamp(i64::try_from(i).unwrap()));
        }
        assert_eq!(repeats.seen.len(), FINGERPRINTS_MAX);
        assert!(!repeats.seen.contains_key("0") && repeats.seen.contains_key("1"));
    }
}
