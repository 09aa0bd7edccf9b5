//! Waiting for a condition. No test asserts how long something took; each states how long it is willing to wait.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Long enough for a loaded machine, short enough that a hang is seen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks `probe` until it has an answer.
///
/// # Errors
/// [`DEADLINE`] has passed; names `what` was waited for.
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    until_within(DEADLINE, what, probe)
}

/// As [`until`], with a deadline of its own.
///
/// # Errors
/// `deadline` has passed; names `what` was waited for.
pub fn until_within<T>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("waited {deadline:?} in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
