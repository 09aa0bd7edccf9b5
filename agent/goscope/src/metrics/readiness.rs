//! Ready when every latch is dropped, not when a flag is set: whoever starts last makes the agent ready, and a part that never got so far is named.

use std::sync::{Arc, Mutex, PoisonError};

/// Whether the agent is ready to serve; clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Names of the latches that are held, in the order in which they were taken.
    held: Vec<&'static str>,
    stopping: bool,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Ready,
    /// The parts that are not ready yet; never empty.
    Waiting(Vec<&'static str>),
    /// Shutting down; final.
    Stopping,
}

impl Readiness {
    /// Holds readiness back until the latch is dropped. `name` says what is waited for, in one word; the same name may be taken more than once.
    #[must_use = "readiness is held back only as long as the latch is kept"]
    pub fn latch(&self, name: &'static str) -> Latch {
        self.state(|state| state.held.push(name));
        Latch { readiness: self.clone(), name }
    }

    /// Unready from here on, whatever the latches say: the first step of shutting down.
    pub fn stop(&self) {
        self.state(|state| state.stopping = true);
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.state(|state| match (state.stopping, state.held.as_slice()) {
            (true, _) => Status::Stopping,
            (false, []) => Status::Ready,
            (false, held) => Status::Waiting(held.to_vec()),
        })
    }

    /// Each use leaves the state whole, so one that panicked in between does not matter.
    fn state<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Holds readiness back until it is dropped.
#[derive(Debug)]
pub struct Latch {
    readiness: Readiness,
    name: &'static str,
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.state(|state| {
            if let Some(position) = state.held.iter().position(|held| *held == self.name) {
                state.held.remove(position);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_latch_is_dropped() {
        let readiness = Readiness::default();
        assert_eq!(readiness.status(), Status::Ready);
        let (gate, spool, spool_again) = (readiness.latch("gate"), readiness.latch("spool"), readiness.latch("spool"));
        assert_eq!(readiness.status(), Status::Waiting(vec!["gate", "spool", "spool"]));
        drop(spool);
        assert_eq!(readiness.status(), Status::Waiting(vec!["gate", "spool"]));
        drop(gate);
        drop(spool_again);
        assert_eq!(readiness.status(), Status::Ready);
    }

    #[test]
    fn stopping_is_final() {
        let readiness = Readiness::default();
        let latch = readiness.latch("gate");
        readiness.clone().stop();
        assert_eq!(readiness.status(), Status::Stopping);
        drop(latch);
        assert_eq!(readiness.status(), Status::Stopping);
    }
}
