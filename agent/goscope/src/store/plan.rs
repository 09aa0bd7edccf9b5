//! Which artifacts have to go: a pure function over the inventory.

use jiff::Timestamp;

use crate::config::StoreConfig;
use crate::model::ArtifactId;

/// One stored artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: ArtifactId,
    pub kind: String,
    pub bytes: u64,
    pub pinned: bool,
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

/// The artifacts to delete, in order: first what is too old, then the oldest until the rest fits. `free` is what the volume has left, where known.
///
/// Pinned artifacts and `keep` are never among them, even where the quota then does not hold.
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
    let mut held: u64 = entries.iter().map(|e| e.bytes).sum();
    let mut free = free;
    let mut gone = Vec::new();
    for entry in entries {
        if entry.pinned || Some(&entry.id) == keep {
            continue;
        }
        let age = entry.id.time().map(|time| now.duration_since(time).unsigned_abs());
        let too_old = age.is_some_and(|age| age > config.max_age) && entry.id.time().is_some_and(|time| time < now);
        let reason = if too_old {
            Reason::Age
        } else if held > config.max_bytes {
            Reason::Bytes
        } else if free.is_some_and(|free| free < config.reserve_bytes) {
            Reason::Reserve
        } else {
            continue;
        };
        held = held.saturating_sub(entry.bytes);
        free = free.map(|free| free.saturating_add(entry.bytes));
        gone.push((entry.id.clone(), entry.kind.clone(), reason));
    }
    gone
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
        Entry { id: ArtifactId::new(time, &minute.to_string()), kind: "incidents".into(), bytes, pinned }
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

    proptest! {
        #[test]
        fn eviction_ends_under_quota_or_with_only_pinned_left(sizes in prop::collection::vec((0_u64..100, any::<bool>()), 0..50), quota in 0_u64..1000) {
            let inventory: Vec<Entry> = sizes.iter().enumerate().map(|(i, &(bytes, pinned))| entry(i as u32, bytes, pinned)).collect();
            let gone = evictions(&inventory, &config(quota, 0), None, now(), None);
            let left: Vec<&Entry> = inventory.iter().filter(|e| !gone.iter().any(|(id, ..)| *id == e.id)).collect();
            let bytes: u64 = left.iter().map(|e| e.bytes).sum();
            prop_assert!(bytes <= quota || left.iter().all(|e| e.pinned));
            prop_assert!(gone.iter().all(|(id, ..)| inventory.iter().any(|e| e.id == *id && !e.pinned)));
        }
    }
}
