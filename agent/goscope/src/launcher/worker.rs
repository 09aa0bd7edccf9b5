//! Process 1 of the agent's container: starts the agent as its child, and stays.
//!
//! Kubernetes counts a native sidecar into the pod's readiness. Were the agent itself process 1, each of its deaths would end the container, and Services
//! would leave out a pod whose app is well. So the agent is a *worker*: one that dies by a signal or a fault is started again within the same container,
//! at once after a minute of life, else after 1 s, doubling up to 15 s. One that ends by itself, or because its configuration cannot be used, ends
//! the container, so that the kubelet shows it. In between, the liveness probe sees that nobody answers.
//!
//! One thread, which passes on what asks to end, and reaps whatever the kernel gives to process 1. The worker dies with it.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::agent::start_worker;
use super::signals::{asks_to_end, name};
use super::sys::{self, Mask, Signals, State};
use super::{leave, timespec};
use crate::cli::EXIT_UNUSABLE;
use crate::config::check::process_environment;
use crate::telemetry;

/// A worker that lived this long was well; its death is followed by no pause.
const WELL: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Shorter than the 60 s that a liveness probe of 3 times 20 s allows, so that it finds a worker which lives long enough to answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What is passed on, and SIGCHLD.
const TAKEN: [i32; 5] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGCHLD];

/// Keeps a worker that is called as we were, until one ends for good, and returns its status; where a signal ended it after a stop was asked for, the
/// same ends this process. `None` where no worker can be started: this process must do the work itself, and is as it was before.
#[must_use]
pub fn keep_worker() -> Option<ExitCode> {
    let mask = Mask::current();
    let signals = Signals::take(TAKEN).ok()?;
    match start(mask) {
        Ok(pid) => {
            Some(Watch { mask, signals, phase: Phase::up(pid), pause: Duration::ZERO, is_stop_asked: false }.run())
        }
        Err(error) => {
            mask.restore();
            say(|| tracing::error!(%error, "no second process can be started; the agent runs without"));
            None
        }
    }
}

fn start(mask: Mask) -> io::Result<i32> {
    start_worker(std::env::args_os().skip(1).collect::<Vec<OsString>>(), mask)
}

fn say(line: impl FnOnce()) {
    telemetry::aside(process_environment(telemetry::LEVEL_VARIABLE).as_deref(), line);
}

struct Watch {
    mask: Mask,
    signals: Signals,
    phase: Phase,
    /// The last one; zero if there was none, or the worker was well since.
    pause: Duration,
    is_stop_asked: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    Up {
        pid: i32,
        since: Instant,
    },
    /// `last` is how the worker ended.
    Down {
        last: State,
        until: Instant,
    },
}

impl Phase {
    fn up(pid: i32) -> Self {
        Self::Up { pid, since: Instant::now() }
    }
}

impl Watch {
    fn run(mut self) -> ExitCode {
        loop {
            self.wait();
            while let Some(received) = self.signals.next() {
                if !asks_to_end(received.signal) {
                    continue;
                }
                self.is_stop_asked = true;
                match self.phase {
                    Phase::Up { pid, .. } => sys::send(pid, received.signal),
                    Phase::Down { last, .. } => return leave(Some(last)),
                }
            }
            while let Some(change) = sys::wait_any() {
                if let Phase::Up { pid, since } = self.phase
                    && pid == change.pid
                    && matches!(change.state, State::Exited(_) | State::Killed { .. })
                {
                    let lived = since.elapsed();
                    match next(change.state, self.is_stop_asked, lived, self.pause) {
                        Next::Leave => return leave(Some(change.state)),
                        Next::Start { after } => self.pause_for(after, change.state, lived),
                    }
                }
            }
            self.start_if_due();
        }
    }

    /// Until a signal arrives, or it is time to start the worker.
    fn wait(&self) {
        let timeout = match self.phase {
            Phase::Up { .. } => None,
            Phase::Down { until, .. } => Some(timespec(until.saturating_duration_since(Instant::now()))),
        };
        // An interrupted wait is a short one.
        poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], timeout.as_ref()).ok();
    }

    fn pause_for(&mut self, pause: Duration, last: State, lived: Duration) {
        self.pause = pause;
        self.phase = Phase::Down { last, until: Instant::now() + pause };
        let (status, signal) = match last {
            State::Exited(status) => (Some(status), None),
            State::Killed { signal, .. } => (None, Some(name(signal))),
            State::Stopped(_) | State::Continued => (None, None),
        };
        let (lived, pause) = (lived.as_secs(), pause.as_secs());
        say(|| {
            tracing::error!(
                status,
                signal = signal.as_deref(),
                lived_seconds = lived,
                pause_seconds = pause,
                "agent died and is started again"
            );
        });
    }

    fn start_if_due(&mut self) {
        let Phase::Down { last, until } = self.phase else { return };
        if until > Instant::now() {
            return;
        }
        match start(self.mask) {
            Ok(pid) => self.phase = Phase::up(pid),
            Err(error) => {
                self.pause = pause_after(Duration::ZERO, self.pause);
                self.phase = Phase::Down { last, until: Instant::now() + self.pause };
                say(|| tracing::error!(%error, pause_seconds = self.pause.as_secs(), "agent cannot be started yet"));
            }
        }
    }
}

/// What follows the end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// End as it ended.
    Leave,
    Start {
        after: Duration,
    },
}

/// `lived` is how long the worker ran, `pause` what was waited before it.
fn next(ended: State, is_stop_asked: bool, lived: Duration, pause: Duration) -> Next {
    let is_final = match ended {
        State::Exited(status) => status == 0 || status == i32::from(EXIT_UNUSABLE),
        _ => false,
    };
    if is_stop_asked || is_final { Next::Leave } else { Next::Start { after: pause_after(lived, pause) } }
}

fn pause_after(lived: Duration, pause: Duration) -> Duration {
    if lived >= WELL { Duration::ZERO } else { (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_an_end() {
        const KILLED: State = State::Killed { signal: libc::SIGKILL, core: false };
        const ASKED: bool = true;
        const YOUNG: u64 = 59_999;
        const OLD: u64 = 60_000;
        let leave = None;
        for (ended, is_stop_asked, lived_ms, pause, expected) in [
            // As it was asked to, whichever way.
            (State::Exited(0), ASKED, OLD, 0, leave),
            (State::Exited(101), ASKED, YOUNG, 8, leave),
            (KILLED, ASKED, OLD, 0, leave),
            // By itself, or because it was called wrongly.
            (State::Exited(0), !ASKED, YOUNG, 0, leave),
            (State::Exited(2), !ASKED, 0, 0, leave),
            (State::Exited(2), !ASKED, OLD, 15, leave),
            // By a fault.
            (State::Exited(1), !ASKED, OLD, 0, Some(0)),
            (State::Exited(101), !ASKED, OLD, 15, Some(0)),
            (KILLED, !ASKED, OLD, 4, Some(0)),
            (KILLED, !ASKED, YOUNG, 0, Some(1)),
            (State::Exited(101), !ASKED, 0, 1, Some(2)),
            (State::Exited(1), !ASKED, YOUNG, 2, Some(4)),
            (KILLED, !ASKED, 0, 4, Some(8)),
            (KILLED, !ASKED, YOUNG, 8, Some(15)),
            (KILLED, !ASKED, YOUNG, 15, Some(15)),
        ] {
            let got = next(ended, is_stop_asked, Duration::from_millis(lived_ms), Duration::from_secs(pause));
            let expected = expected.map_or(Next::Leave, |s| Next::Start { after: Duration::from_secs(s) });
            assert_eq!(got, expected, "{ended:?}, asked: {is_stop_asked}, {lived_ms} ms, pause {pause} s");
        }
    }
}
