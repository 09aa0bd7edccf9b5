//! When to read the app's pipe again.
//!
//! Go writes a crash with one write(2) for each operand, a million of them for ten thousand goroutines. A reader that waits in the pipe is
//! woken by each write that finds the pipe empty, and the waking is paid by the dying app. So after a read the pipe is left alone for as
//! long as a very fast writer would need to fill it; the first bytes after a quiet time are read at once.

use std::time::{Duration, Instant};

/// Faster than any program writes through a pipe: bytes per microsecond.
const FASTEST_WRITER: usize = 1024;

/// Remembers the last read.
#[derive(Debug)]
pub(super) struct Pacer {
    pause: Duration,
    /// A read this large says that the writer is fast: the next one follows at once.
    large: usize,
    rest_until: Option<Instant>,
}

impl Pacer {
    /// `capacity`: bytes that the pipe holds.
    pub(super) fn new(capacity: usize) -> Self {
        let micros = u64::try_from(capacity / FASTEST_WRITER).unwrap_or(u64::MAX).min(1_000);
        Self { pause: Duration::from_micros(micros), large: (capacity / 16).max(1), rest_until: None }
    }

    /// How long to leave the pipe alone yet.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.rest_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    pub(super) fn read(&mut self, bytes: usize, now: Instant) {
        self.rest_until = (bytes < self.large).then(|| now + self.pause);
    }

    /// Nothing more is to come from the writer: no rest from now on.
    pub(super) fn stop(&mut self) {
        self.pause = Duration::ZERO;
        self.rest_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_after_small_reads_only() {
        let now = Instant::now();
        let mut pacer = Pacer::new(1 << 20);
        assert_eq!(pacer.rest(now), Duration::ZERO, "the first read is at once");
        pacer.read(100, now);
        assert_eq!(pacer.rest(now), Duration::from_millis(1));
        assert_eq!(pacer.rest(now + Duration::from_micros(400)), Duration::from_micros(600));
        assert_eq!(
            pacer.rest(now + Duration::from_secs(1)),
            Duration::ZERO,
            "a line after a quiet time is read at once"
        );
        pacer.read(64 << 10, now);
        assert_eq!(pacer.rest(now), Duration::ZERO, "a fast writer is not kept waiting");
        pacer.read(1, now);
        pacer.stop();
        assert_eq!(pacer.rest(now), Duration::ZERO);
        pacer.read(1, now);
        assert_eq!(pacer.rest(now), Duration::ZERO);
    }

    #[test]
    fn a_small_pipe_gets_a_short_rest() {
        let now = Instant::now();
        for (capacity, micros) in [(4096, 4), (64 << 10, 64), (1 << 20, 1000), (64 << 20, 1000)] {
            let mut pacer = Pacer::new(capacity);
            pacer.read(1, now);
            assert_eq!(pacer.rest(now), Duration::from_micros(micros), "{capacity}");
        }
    }
}
