//! Lines for the person that wait for a place between the app's own.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

/// A longer line is cut into several.
const LINE_BYTES_MAX: usize = 8 << 10;
/// With more than this waiting, the agent's pipe is not read.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// Lines remembered to tell repetitions.
const REMEMBERED_MAX: usize = 256;
/// How long a line of ours waits for the app to end its own, before it begins a fresh one.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Whole lines that wait, and the piece of one that is yet to end.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: Vec<u8>,
    since: Option<Instant>,
    partial: Vec<u8>,
    /// Hash of each line shown, and the incarnation of the agent that said it first. An agent that is started again greets again.
    shown: HashMap<u64, u32>,
}

impl Notices {
    /// Takes bytes from the agent's pipe; `incarnation` counts how often the agent was started.
    pub(super) fn push(&mut self, bytes: &[u8], incarnation: u32, now: Instant) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.len() >= LINE_BYTES_MAX && !self.partial.ends_with(b"\n") {
                self.partial.push(b'\n');
            }
            if self.partial.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                if !self.was_shown_before(&line, incarnation) {
                    self.push_line(&line, now);
                }
            }
        }
    }

    /// Takes a line of the launcher's own, line feed included.
    pub(super) fn push_line(&mut self, line: &[u8], now: Instant) {
        self.waiting.extend_from_slice(line);
        self.since.get_or_insert(now);
    }

    /// When the lines that wait have waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// No more should be read from the agent yet.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_BYTES_MAX
    }

    /// All lines that wait.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.since = None;
        std::mem::take(&mut self.waiting)
    }

    fn was_shown_before(&mut self, line: &[u8], incarnation: u32) -> bool {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        if self.shown.len() >= REMEMBERED_MAX {
            self.shown.retain(|_, first| *first == incarnation);
            if self.shown.len() >= REMEMBERED_MAX {
                self.shown.clear();
            }
        }
        *self.shown.entry(hasher.finish()).or_insert(incarnation) != incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_come_out() {
        let now = Instant::now();
        let mut notices = Notices::default();
        notices.push(b"a\nb", 1, now);
        assert_eq!(notices.take(), b"a\n");
        assert!(notices.is_empty());
        assert_eq!(notices.deadline(), None);
        notices.push(b"c\n", 1, now);
        assert_eq!(notices.deadline(), Some(now + PATIENCE));
        assert_eq!(notices.take(), b"bc\n");
    }

    #[test]
    fn a_restarted_agent_does_not_repeat_itself() {
        let now = Instant::now();
        let mut notices = Notices::default();
        notices.push(b"hello\nhello\n", 1, now);
        assert_eq!(notices.take(), b"hello\nhello\n", "one agent may say a thing twice");
        notices.push(b"hello\nnews\n", 2, now);
        notices.push(b"hello\nnews\n", 3, now);
        assert_eq!(notices.take(), b"news\n");
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut notices = Notices::default();
        notices.push(&[b'x'; 3 * LINE_BYTES_MAX], 1, now);
        assert_eq!(notices.partial.len(), 0, "one piece is cut once");
        for n in 0..10 * REMEMBERED_MAX {
            notices.push(format!("{n}\n").as_bytes(), 1, now);
        }
        assert!(notices.shown.len() <= REMEMBERED_MAX);
        assert!(notices.is_full() || notices.waiting.len() < WAITING_BYTES_MAX);
    }
}
