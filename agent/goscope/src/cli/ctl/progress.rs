//! A bar on the terminal while something comes or is waited for. Where nobody looks, nothing is printed.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use super::is_watched;
use super::text::size;

/// Between two drawings.
const EVERY: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 24;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Seconds,
}

/// A bar, cleared when dropped.
pub(super) struct Progress {
    label: String,
    unit: Unit,
    total: Option<u64>,
    /// `None` where nobody looks, or before the first drawing is due.
    drawn: Option<Instant>,
    is_watched: bool,
}

impl Progress {
    /// Nothing is drawn before the first [`Self::at`].
    pub(super) fn new(label: &str, unit: Unit, total: Option<u64>) -> Self {
        Self { label: label.to_owned(), unit, total, drawn: None, is_watched: is_watched() }
    }

    /// So far `done` of the total.
    pub(super) fn at(&mut self, done: u64) {
        let now = Instant::now();
        if !self.is_watched || self.drawn.is_some_and(|drawn| now.duration_since(drawn) < EVERY) {
            return;
        }
        self.drawn = Some(now);
        write(&format!("\r\x1b[K{}", line(&self.label, self.unit, self.total, done)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            write("\r\x1b[K");
        }
    }
}

fn line(label: &str, unit: Unit, total: Option<u64>, done: u64) -> String {
    let shown = |count: u64| match unit {
        Unit::Bytes => size(count),
        Unit::Seconds => format!("{count} s"),
    };
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let done = done.min(total);
            let filled = u128::from(done) * u128::from(WIDTH) / u128::from(total);
            let bar: String = (0..u128::from(WIDTH)).map(|cell| if cell < filled { '#' } else { '.' }).collect();
            format!("{label} [{bar}] {} of {}", shown(done), shown(total))
        }
        None => format!("{label} {}", shown(done)),
    }
}

fn write(text: &str) {
    // Nobody is left to tell if standard error is gone.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        for (unit, total, done, expected) in [
            (Unit::Seconds, Some(30), 0, "cpu [........................] 0 s of 30 s"),
            (Unit::Seconds, Some(30), 15, "cpu [############............] 15 s of 30 s"),
            (Unit::Seconds, Some(30), 99, "cpu [########################] 30 s of 30 s"),
            (Unit::Bytes, Some(u64::MAX), u64::MAX, "cpu [########################] 16777215 TiB of 16777215 TiB"),
            (Unit::Bytes, None, 2048, "cpu 2.0 KiB"),
            (Unit::Bytes, Some(0), 5, "cpu 5 B"),
        ] {
            assert_eq!(line("cpu", unit, total, done), expected);
        }
    }
}
