//! Request limits with the arithmetic of nginx's `limit_req`.
//!
//! A key has an excess, counted in thousandths of a request. It shrinks by the rate as time passes and grows by 1000 with each admitted request; a
//! request is refused when it would lift the excess above the burst. The first request of a key is free. [`Limiter::check`] changes nothing
//! but the key's age, [`Limiter::charge`] books: so all limits of a request are checked before any is charged, and a refusal charges none.
//!
//! State is bounded: at most [`KEYS_MAX`] keys. A new key pushes out up to two keys from the old end whose excess has run off and which were
//! quiet for a minute; when all places are taken, the oldest goes by force.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::config::LimitConfig;

/// Keys that one limiter remembers.
pub const KEYS_MAX: usize = 10_000;
/// A key that was seen within this time is forgotten only by force.
const QUIET_MS: u64 = 60_000;

/// What a limit says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on after this delay, which is zero with `nodelay`.
    Pass { delay: Duration },
    /// Refused; the same request is admitted after this time if none comes before it.
    Refuse { retry_after: Duration },
    /// Would have been refused, were this not a dry run. Nothing is to be charged.
    RefuseDryRun,
}

/// One limit over many keys. Time is passed in as milliseconds of a clock that never goes back.
#[derive(Debug)]
pub struct Limiter<K> {
    config: LimitConfig,
    keys_max: usize,
    index: HashMap<K, usize>,
    nodes: Vec<Node<K>>,
    /// Ends of the list through `nodes`, ordered by last sight; `NONE` when it is empty.
    newest: usize,
    oldest: usize,
}

#[derive(Debug)]
struct Node<K> {
    key: K,
    /// Thousandths of a request.
    excess: u64,
    last_ms: u64,
    newer: usize,
    older: usize,
}

const NONE: usize = usize::MAX;

impl<K: Hash + Eq + Clone> Limiter<K> {
    #[must_use]
    pub fn new(config: LimitConfig) -> Self {
        Self::with_keys_max(config, KEYS_MAX)
    }

    fn with_keys_max(config: LimitConfig, keys_max: usize) -> Self {
        Self { config, keys_max, index: HashMap::new(), nodes: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// What this limit says, charging nothing.
    pub fn check<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, now_ms: u64) -> Verdict
    where
        K: Borrow<Q>,
    {
        let Some(&at) = self.index.get(key) else {
            return Verdict::Pass { delay: Duration::ZERO };
        };
        self.unlink(at);
        self.link_newest(at);
        let node = &self.nodes[at];
        let passed_ms = now_ms.saturating_sub(node.last_ms);
        let excess = self.excess_after(node.excess, passed_ms);
        if excess <= self.burst() {
            return Verdict::Pass { delay: self.delay(excess) };
        }
        if self.config.dry_run {
            return Verdict::RefuseDryRun;
        }
        // Admitted again when the rate has taken off what is too much, counted from the last charge as excess_after counts it.
        let too_much = (node.excess + 1000).saturating_sub(self.burst());
        let needed_ms = too_much.saturating_mul(1000).div_ceil(self.rate());
        Verdict::Refuse { retry_after: Duration::from_millis(needed_ms.saturating_sub(passed_ms)) }
    }

    /// Books one admitted request.
    pub fn charge(&mut self, key: &K, now_ms: u64) {
        if let Some(&at) = self.index.get(key) {
            let node = &self.nodes[at];
            let passed_ms = now_ms.saturating_sub(node.last_ms);
            let excess = self.excess_after(node.excess, passed_ms);
            let node = &mut self.nodes[at];
            node.excess = excess;
            node.last_ms = node.last_ms.max(now_ms);
            return;
        }
        self.forget_quiet(now_ms);
        let at = if self.nodes.len() < self.keys_max {
            self.nodes.push(Node { key: key.clone(), excess: 0, last_ms: now_ms, newer: NONE, older: NONE });
            self.nodes.len() - 1
        } else {
            let at = self.oldest;
            self.unlink(at);
            self.index.remove(&self.nodes[at].key);
            self.nodes[at] = Node { key: key.clone(), excess: 0, last_ms: now_ms, newer: NONE, older: NONE };
            at
        };
        self.index.insert(key.clone(), at);
        self.link_newest(at);
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn rate(&self) -> u64 {
        self.config.rate_per_kilosecond.max(1)
    }

    fn burst(&self) -> u64 {
        u64::from(self.config.burst) * 1000
    }

    /// The excess if a request is admitted now.
    fn excess_after(&self, excess: u64, passed_ms: u64) -> u64 {
        let run_off = self.rate().saturating_mul(passed_ms) / 1000;
        (excess + 1000).saturating_sub(run_off)
    }

    fn delay(&self, excess: u64) -> Duration {
        if self.config.nodelay { Duration::ZERO } else { Duration::from_millis(excess * 1000 / self.rate()) }
    }

    fn forget_quiet(&mut self, now_ms: u64) {
        for _ in 0..2 {
            let Some(node) = self.nodes.get(self.oldest) else { return };
            let passed_ms = now_ms.saturating_sub(node.last_ms);
            if passed_ms < QUIET_MS || node.excess > self.rate().saturating_mul(passed_ms) / 1000 {
                return;
            }
            self.remove(self.oldest);
        }
    }

    /// Takes a node out; the last one moves into its place.
    fn remove(&mut self, at: usize) {
        self.unlink(at);
        let gone = self.nodes.swap_remove(at);
        self.index.remove(&gone.key);
        let Some(moved) = self.nodes.get(at) else { return };
        let (newer, older) = (moved.newer, moved.older);
        if let Some(place) = self.index.get_mut(&moved.key) {
            *place = at;
        }
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = at,
            None => self.newest = at,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: usize) {
        let (newer, older) = (self.nodes[at].newer, self.nodes[at].older);
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, at: usize) {
        let next = self.newest;
        self.nodes[at].newer = NONE;
        self.nodes[at].older = next;
        match self.nodes.get_mut(next) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests;
