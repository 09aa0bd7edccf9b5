//! Goroutines grouped by stack: what a person can read of a dump of ten thousand.

use std::collections::BTreeMap;

use goscope_formats::{Goroutines, Stack};

/// Goroutines that stand at the same place, arguments ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// How many.
    pub count: u64,
    /// State → how many are in it; most frequent first, then by name.
    pub states: Vec<(&'a str, u64)>,
    /// The longest wait in whole minutes; 0 where none was printed.
    pub oldest_wait_minutes: u32,
    /// Ids, in the order of the text; at most [`IDS_MAX`].
    pub ids: Vec<u64>,
    /// How many are locked to their thread.
    pub locked: u64,
    /// Where they stand.
    pub stack: &'a Stack,
}

/// Ids that a group names; its `count` is exact.
pub const IDS_MAX: usize = 16;

/// Groups `goroutines` by stack, the largest first; equal counts stay in the order of the text.
///
/// Goroutines that a bound dropped are in no group: compare [`Goroutines::total`].
#[must_use]
pub fn group(goroutines: &Goroutines) -> Vec<Group<'_>> {
    struct Open<'a> {
        count: u64,
        states: BTreeMap<&'a str, u64>,
        oldest_wait_minutes: u32,
        ids: Vec<u64>,
        locked: u64,
    }
    let mut by_stack: BTreeMap<usize, Open<'_>> = BTreeMap::new();
    for goroutine in &goroutines.list {
        let open = by_stack.entry(goroutine.stack).or_insert_with(|| Open {
            count: 0,
            states: BTreeMap::new(),
            oldest_wait_minutes: 0,
            ids: Vec::new(),
            locked: 0,
        });
        open.count += 1;
        *open.states.entry(&goroutine.state).or_default() += 1;
        open.oldest_wait_minutes = open.oldest_wait_minutes.max(goroutine.wait_minutes);
        open.locked += u64::from(goroutine.locked);
        if open.ids.len() < IDS_MAX {
            open.ids.push(goroutine.id);
        }
    }
    let mut groups: Vec<Group<'_>> = by_stack
        .into_iter()
        .filter_map(|(stack, open)| {
            let mut states: Vec<_> = open.states.into_iter().collect();
            states.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
            Some(Group {
                count: open.count,
                states,
                oldest_wait_minutes: open.oldest_wait_minutes,
                ids: open.ids,
                locked: open.locked,
                stack: goroutines.stacks.get(stack)?,
            })
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

#[cfg(test)]
mod tests {
    use goscope_formats::{Frame, Goroutine};

    use super::*;

    fn goroutine(id: u64, state: &str, wait_minutes: u32, stack: usize) -> Goroutine {
        Goroutine { id, state: state.into(), wait_minutes, stack, ..Goroutine::default() }
    }

    fn stack(func: &str) -> Stack {
        Stack { frames: vec![Frame { func: func.into(), ..Frame::default() }], ..Stack::default() }
    }

    #[test]
    fn largest_group_first_with_states_and_oldest_wait() {
        let goroutines = Goroutines {
            stacks: vec![stack("main.main"), stack("main.worker")],
            list: vec![
                goroutine(1, "running", 0, 0),
                goroutine(7, "chan receive", 3, 1),
                goroutine(8, "chan receive", 12, 1),
                goroutine(9, "select", 0, 1),
            ],
            dropped: 0,
        };
        let groups = group(&goroutines);
        assert_eq!(groups.len(), 2);
        let first = &groups[0];
        assert_eq!(
            (first.count, first.oldest_wait_minutes, first.stack.frames[0].func.as_str()),
            (3, 12, "main.worker")
        );
        assert_eq!(first.states, [("chan receive", 2), ("select", 1)]);
        assert_eq!(first.ids, [7, 8, 9]);
        assert_eq!(groups[1].ids, [1]);
    }

    #[test]
    fn a_group_names_a_bounded_number_of_ids_and_counts_all() {
        let goroutines = Goroutines {
            stacks: vec![stack("main.worker")],
            list: (0..1000).map(|id| goroutine(id, "sleep", 0, 0)).collect(),
            dropped: 5,
        };
        let groups = group(&goroutines);
        assert_eq!((groups[0].count, groups[0].ids.len()), (1000, IDS_MAX));
        assert_eq!(goroutines.total(), 1005);
    }
}
