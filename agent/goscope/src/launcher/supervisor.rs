//! When the agent is started again: a state machine that is told the time.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// An agent that lived this long was well; its death starts the pauses anew.
const WELL: Duration = Duration::from_secs(10);

/// Knows whether the agent runs, and else when to start it: after 100 ms, doubling up to 5 s while it keeps dying young.
#[derive(Debug)]
pub(super) struct Supervisor {
    phase: Phase,
    /// The pause after the next early death.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Up { since: Instant },
    Down { until: Instant },
}

impl Supervisor {
    /// An agent that is to be started now.
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Down { until: now }, pause: FIRST_PAUSE }
    }

    /// When to start it; `None` while it runs.
    pub(super) fn start_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Up { .. } => None,
            Phase::Down { until } => Some(until),
        }
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.phase = Phase::Up { since: now };
    }

    /// It ended, or could not be started.
    pub(super) fn ended(&mut self, now: Instant) {
        if let Phase::Up { since } = self.phase
            && now.saturating_duration_since(since) >= WELL
        {
            self.pause = FIRST_PAUSE;
        }
        self.phase = Phase::Down { until: now + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Its work is waiting: a pause ends now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Phase::Down { .. } = self.phase {
            self.phase = Phase::Down { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses_after(lives: &[Duration]) -> Vec<u128> {
        let mut now = Instant::now();
        let mut supervisor = Supervisor::new(now);
        assert_eq!(supervisor.start_at(), Some(now), "at once");
        let mut pauses = Vec::new();
        for life in lives {
            supervisor.started(now);
            assert_eq!(supervisor.start_at(), None);
            now += *life;
            supervisor.ended(now);
            let start = supervisor.start_at().expect("it is down");
            pauses.push((start - now).as_millis());
            now = start;
        }
        pauses
    }

    #[test]
    fn pauses_double_up_to_five_seconds() {
        assert_eq!(pauses_after(&[Duration::ZERO; 9]), [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn a_long_life_starts_anew() {
        let s = Duration::from_secs;
        assert_eq!(pauses_after(&[s(0), s(0), s(9), s(10), s(0), s(3600)]), [100, 200, 400, 100, 200, 100]);
    }

    #[test]
    fn hurry_ends_a_pause_and_nothing_else() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(now);
        supervisor.started(now);
        supervisor.hurry(now);
        assert_eq!(supervisor.start_at(), None);
        supervisor.ended(now);
        supervisor.hurry(now);
        assert_eq!(supervisor.start_at(), Some(now));
        supervisor.ended(now);
        assert_eq!(
            supervisor.start_at(),
            Some(now + Duration::from_millis(200)),
            "a failed start lengthens the next pause"
        );
    }
}
