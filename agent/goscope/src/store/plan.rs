//! Which artifacts have to go: a pure function over the inventory.

use jiff::Timestamp;

use super::meta::Meta;
use crate::config::StoreConfig;
use crate::model::ArtifactId;

/// What people asked for may hold one part in so many of `store.maxBytes` before it gives way first: incidents are never pushed out by captures alone.
const HAND_MADE_PART: u64 = 2;

/// One stored artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: ArtifactId,
    pub kind: String,
    pub bytes: u64,
    pub pinned: bool,
    /// A person asked for it.
    pub hand_made: bool,
}

impl Entry {
    /// What the inventory keeps of an artifact.
    #[must_use]
    pub fn new(id: ArtifactId, kind: String, meta: &Meta) -> Self {
        Self { id, kind, bytes: meta.bytes, pinned: meta.pinned, hand_made: meta.is_hand_made() }
    }
}

/// Why one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Older than `store.maxAge`.
    Age,
    /// All together hold more than `store.maxBytes`.
    Bytes,
    /// The volume has less than `store.reserveBytes` left.
    Reserve,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Age, Self::Bytes, Self::Reserve];

    /// As in the `reason` label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::Reserve => "reserve",
        }
    }
}

/// The artifacts to delete, in order, until the rest fits. `free` is what the volume has left, where known.
///
/// First goes what is too old. Then what people asked for, as far as it holds more than its part of the quota; then what nobody asked for; then the
/// rest of what people asked for; each oldest first. Pinned artifacts and `keep` are never among them, even where the quota then does not hold.
#[must_use]
pub fn evictions(
    inventory: &[Entry],
    config: &StoreConfig,
    free: Option<u64>,
    now: Timestamp,
    keep: Option<&ArtifactId>,
) -> Vec<(ArtifactId, String, Reason)> {
    let mut entries: Vec<&Entry> = inventory.iter().collect();
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    let is_old = |entry: &Entry| {
        entry.id.time().is_some_and(|time| time < now && now.duration_since(time).unsigned_abs() > config.max_age)
    };
    let may_go = |entry: &Entry| !entry.pinned && Some(&entry.id) != keep;
    let (old, young): (Vec<&Entry>, Vec<&Entry>) = entries.into_iter().partition(|e| may_go(e) && is_old(e));
    let mut held: u64 = young.iter().map(|e| e.bytes).sum();
    let mut free = free.map(|free| old.iter().fold(free, |free, e| free.saturating_add(e.bytes)));
    let mut gone: Vec<_> = old.into_iter().map(|e| (e.id.clone(), e.kind.clone(), Reason::Age)).collect();

    let mut asked_for: u64 = young.iter().filter(|e| e.hand_made).map(|e| e.bytes).sum();
    let part = config.max_bytes / HAND_MADE_PART;
    // Stable, so that within each rank the oldest stays first.
    let mut ranked: Vec<(u8, &Entry)> =
        young.into_iter().filter(|e| may_go(e)).map(|e| (rank(e, &mut asked_for, part), e)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    for (_, entry) in ranked {
        let reason = if held > config.max_bytes {
            Reason::Bytes
        } else if free.is_some_and(|free| free < config.reserve_bytes) {
            Reason::Reserve
        } else {
            break;
        };
        held = held.saturating_sub(entry.bytes);
        free = free.map(|free| free.saturating_add(entry.bytes));
        gone.push((entry.id.clone(), entry.kind.clone(), reason));
    }
    gone
}

/// Asked oldest first; `asked_for` is what is left of what people asked for once those asked before are gone.
fn rank(entry: &Entry, asked_for: &mut u64, part: u64) -> u8 {
    if !entry.hand_made {
        return 1;
    }
    if *asked_for <= part {
        return 2;
    }
    *asked_for = asked_for.saturating_sub(entry.bytes);
    0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn config(max_bytes: u64, reserve_bytes: u64) -> StoreConfig {
        StoreConfig { path: "/data".into(), max_bytes, max_age: Duration::from_secs(3600), reserve_bytes }
    }

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn entry(minute: u32, bytes: u64, pinned: bool) -> Entry {
        let time: Timestamp = format!("2026-11-23T11:{minute:02}:00Z").parse().unwrap();
        Entry {
            id: ArtifactId::new(time, &minute.to_string()),
            kind: "incidents".into(),
            bytes,
            pinned,
            hand_made: false,
        }
    }

    fn asked(minute: u32, bytes: u64) -> Entry {
        Entry { kind: "heap".into(), hand_made: true, ..entry(minute, bytes, false) }
    }

    fn minutes(gone: &[(ArtifactId, String, Reason)]) -> Vec<(String, Reason)> {
        gone.iter().map(|(id, _, reason)| (id.as_str()[14..16].to_owned(), *reason)).collect()
    }

    #[test]
    fn oldest_go_until_the_rest_fits() {
        let inventory = [entry(30, 10, false), entry(10, 10, false), entry(20, 10, false)];
        let gone = evictions(&inventory, &config(15, 0), None, now(), None);
        assert_eq!(minutes(&gone), [("10".to_owned(), Reason::Bytes), ("20".to_owned(), Reason::Bytes)]);
        assert_eq!(evictions(&inventory, &config(30, 0), None, now(), None), []);
    }

    #[test]
    fn age_goes_before_size() {
        let mut old = entry(1, 10, false);
        old.id = ArtifactId::new("2026-11-23T10:59:59Z".parse().unwrap(), "old");
        let gone = evictions(&[entry(10, 10, false), old], &config(10, 0), None, now(), None);
        assert_eq!(minutes(&gone), [("59".to_owned(), Reason::Age)]);
    }

    #[test]
    fn a_volume_below_its_reserve_gives_back() {
        let inventory = [entry(10, 10, false), entry(20, 10, false)];
        let gone = evictions(&inventory, &config(100, 64), Some(60), now(), None);
        assert_eq!(minutes(&gone), [("10".to_owned(), Reason::Reserve)]);
    }

    #[test]
    fn pinned_and_the_newest_stay() {
        let keep = entry(30, 50, false);
        let inventory = [entry(10, 50, true), keep.clone(), entry(20, 50, false)];
        let gone = evictions(&inventory, &config(10, 0), None, now(), Some(&keep.id));
        assert_eq!(minutes(&gone), [("20".to_owned(), Reason::Bytes)]);
    }

    #[test]
    fn what_somebody_asked_for_goes_after_what_nobody_did() {
        let inventory = [asked(10, 10), entry(20, 10, false), entry(30, 10, false)];
        let gone = |quota| {
            minutes(&evictions(&inventory, &config(quota, 0), None, now(), None))
                .into_iter()
                .map(|(m, _)| m)
                .collect::<Vec<_>>()
        };
        assert_eq!(gone(30), [""; 0]);
        assert_eq!(gone(29), ["20"]);
        assert_eq!(gone(20), ["20"]);
        // Ten of nineteen are more than half.
        assert_eq!(gone(19), ["10", "20"]);
    }

    #[test]
    fn what_people_asked_for_gives_way_first_beyond_its_part() {
        let inventory = [entry(10, 30, false), asked(20, 20), asked(30, 20), asked(40, 30), entry(50, 10, false)];
        let gone = |quota| {
            minutes(&evictions(&inventory, &config(quota, 0), None, now(), None))
                .into_iter()
                .map(|(m, _)| m)
                .collect::<Vec<_>>()
        };
        // 70 of 110 were asked for: 20 of them go, then 50 are within their part of 100.
        assert_eq!(gone(100), ["20"]);
        assert_eq!(gone(89), ["20", "30"]);
        assert_eq!(gone(60), ["20", "30", "10"]);
        // 30 are more than its part of 59.
        assert_eq!(gone(59), ["20", "30", "40"]);
    }

    #[test]
    fn age_spares_nobody_but_the_pinned() {
        let old = |hand_made, pinned| Entry {
            id: ArtifactId::new("2026-11-23T10:59:59Z".parse().unwrap(), &format!("{hand_made}{pinned}")),
            hand_made,
            ..entry(1, 10, pinned)
        };
        let inventory = [old(true, false), old(false, false), old(true, true), old(false, true)];
        assert_eq!(evictions(&inventory, &config(1000, 0), None, now(), None).len(), 2);
    }

    proptest! {
        #[test]
        fn eviction_ends_under_quota_or_with_only_pinned_left(sizes in prop::collection::vec((0_u64..100, any::<bool>(), any::<bool>()), 0..50), quota in 0_u64..1000) {
            let inventory: Vec<Entry> = sizes.iter().enumerate().map(|(i, &(bytes, pinned, hand_made))| Entry { hand_made, ..entry(i as u32, bytes, pinned) }).collect();
            let gone = evictions(&inventory, &config(quota, 0), None, now(), None);
            let left: Vec<&Entry> = inventory.iter().filter(|e| !gone.iter().any(|(id, ..)| *id == e.id)).collect();
            let bytes: u64 = left.iter().map(|e| e.bytes).sum();
            prop_assert!(bytes <= quota || left.iter().all(|e| e.pinned));
            prop_assert!(gone.iter().all(|(id, ..)| inventory.iter().any(|e| e.id == *id && !e.pinned)));
            // While anything is left that nobody asked for, what people asked for keeps its part.
            let asked: u64 = left.iter().filter(|e| e.hand_made).map(|e| e.bytes).sum();
            let went = inventory.iter().filter(|e| e.hand_made && gone.iter().any(|(id, ..)| *id == e.id)).map(|e| e.bytes).max();
            let spared = left.iter().any(|e| !e.hand_made && !e.pinned);
            prop_assert!(!spared || went.is_none_or(|largest| asked + largest > quota / HAND_MADE_PART));
        }
    }
}
