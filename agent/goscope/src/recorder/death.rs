//! What an exit record says about how the app died: pure.

use crate::spool::ExitRecord;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Status 0, or never started: nothing to record.
    Quiet,
    /// Somebody asked it to end, and it did.
    Asked,
    /// The incident that its stderr told is its death.
    Told,
    /// It died without a word of the Go runtime: a status other than 0, or a signal. The reason says which.
    Wordless(String),
}

/// What the run's stderr showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A panic, fatal error or signal dump stands at its end, not stored yet.
    pub pending: bool,
    /// Panics, fatal errors and signal dumps, from the beginning on.
    pub deaths: u64,
    /// Race reports.
    pub races: u64,
}

/// Why a run has no exit record.
const UNRECORDED: &str = "killed together with its launcher";

/// The status with which a program ends that the race detector found fault with (GORACE `exitcode`).
const RACE_STATUS: i32 = 66;

/// Judges one ending.
///
/// A death told at the end of stderr goes with any bad ending (a wrapper's status may differ from its child's). One told long before goes only with
/// what the Go runtime ends with, status 2 or SIGABRT: one death is never two incidents, and a later one is not lost.
#[must_use]
pub fn judge(exit: &ExitRecord, seen: Seen) -> Ending {
    if exit.start_error.is_some() || (exit.status == Some(0) && exit.signal.is_none()) {
        return Ending::Quiet;
    }
    if seen.pending || (seen.deaths > 0 && is_runtime_ending(exit)) {
        return Ending::Told;
    }
    if seen.races > 0 && exit.status == Some(RACE_STATUS) {
        return Ending::Quiet;
    }
    if was_asked(exit) {
        return Ending::Asked;
    }
    Ending::Wordless(reason(exit))
}

/// Judges the end of a run whose launcher is gone without an exit record: everything in its container was killed at once, as the kernel does when the
/// container's memory is used up (cgroup v2, `memory.oom.group`) and the kubelet when the grace period is over, or the node went down.
#[must_use]
pub fn judge_unrecorded(seen: Seen) -> Ending {
    if seen.pending { Ending::Told } else { Ending::Wordless(UNRECORDED.to_owned()) }
}

/// As the Go runtime ends after a panic, a fatal error or a signal dump: status 2, or SIGABRT at GOTRACEBACK=crash (134 as PID 1 since Go 1.27).
#[must_use]
pub fn is_runtime_ending(exit: &ExitRecord) -> bool {
    matches!(exit.status, Some(2 | 134)) || exit.signal_name.as_deref() == Some("SIGABRT")
}

/// `exit status 3`, `killed by SIGKILL`.
#[must_use]
pub fn reason(exit: &ExitRecord) -> String {
    match (exit.signal, &exit.signal_name) {
        (Some(_), Some(name)) => format!("killed by {name}"),
        (Some(number), None) => format!("killed by signal {number}"),
        (None, _) => format!("exit status {}", exit.status.unwrap_or_default()),
    }
}

/// A terminating signal was passed on and the app ended, in whichever way. HUP counts only if it killed: many programs read their configuration again.
fn was_asked(exit: &ExitRecord) -> bool {
    let requests =
        || exit.forwarded.iter().chain(&exit.from_terminal).map(|name| name.strip_prefix("SIG").unwrap_or(name));
    let killed_by = exit.signal_name.as_deref().map(|name| name.strip_prefix("SIG").unwrap_or(name));
    match killed_by {
        Some(name) => requests().any(|request| request == name),
        None => requests().any(|request| matches!(request, "TERM" | "INT" | "QUIT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: Option<i32>, signal: Option<&str>, forwarded: &[&str]) -> ExitRecord {
        ExitRecord {
            pid: 1,
            status,
            signal: signal.map(|_| 1),
            signal_name: signal.map(str::to_owned),
            core_dumped: false,
            forwarded: forwarded.iter().map(|&s| s.to_owned()).collect(),
            from_terminal: Vec::new(),
            started_unix_ms: 0,
            ended_unix_ms: 0,
            max_rss_bytes: 0,
            cpu_user_ms: 0,
            cpu_system_ms: 0,
            stderr_bytes: 0,
            unspooled_bytes: 0,
            start_error: None,
            forgotten_bytes: 0,
            clear_error: None,
        }
    }

    #[test]
    fn endings() {
        let wordless = |reason: &str| Ending::Wordless(reason.to_owned());
        let none = Seen::default();
        let death = Seen { pending: true, deaths: 1, races: 0 };
        let earlier = Seen { pending: false, deaths: 1, races: 0 };
        let race = Seen { pending: false, deaths: 0, races: 1 };
        for (exit, seen, expected) in [
            (exit(Some(0), None, &[]), none, Ending::Quiet),
            (exit(Some(0), None, &[]), death, Ending::Quiet),
            (exit(Some(2), None, &[]), death, Ending::Told),
            (exit(None, Some("SIGABRT"), &[]), death, Ending::Told),
            (exit(Some(2), None, &["SIGQUIT"]), death, Ending::Told),
            (exit(Some(1), None, &[]), death, Ending::Told),
            (exit(Some(2), None, &[]), earlier, Ending::Told),
            (exit(None, Some("SIGABRT"), &[]), earlier, Ending::Told),
            (exit(None, Some("SIGKILL"), &[]), earlier, wordless("killed by SIGKILL")),
            (exit(Some(66), None, &[]), race, Ending::Quiet),
            (exit(Some(66), None, &[]), none, wordless("exit status 66")),
            (exit(Some(3), None, &[]), race, wordless("exit status 3")),
            (exit(Some(1), None, &[]), none, wordless("exit status 1")),
            (exit(None, Some("SIGKILL"), &[]), none, wordless("killed by SIGKILL")),
            (exit(None, Some("SIGTERM"), &["SIGTERM"]), none, Ending::Asked),
            (exit(None, Some("SIGTERM"), &[]), none, wordless("killed by SIGTERM")),
            (exit(Some(143), None, &["SIGTERM"]), none, Ending::Asked),
            (exit(Some(2), None, &["SIGTERM"]), none, Ending::Asked),
            (exit(Some(1), None, &["SIGHUP"]), none, wordless("exit status 1")),
            (exit(None, Some("SIGHUP"), &["SIGHUP"]), none, Ending::Asked),
            (exit(None, Some("SIGKILL"), &["SIGTERM"]), none, wordless("killed by SIGKILL")),
        ] {
            assert_eq!(judge(&exit, seen), expected, "{exit:?} {seen:?}");
        }
    }

    #[test]
    fn a_launcher_that_is_gone_without_a_record_was_killed() {
        let wordless = Ending::Wordless("killed together with its launcher".to_owned());
        assert_eq!(judge_unrecorded(Seen::default()), wordless);
        assert_eq!(judge_unrecorded(Seen { pending: true, deaths: 1, races: 0 }), Ending::Told);
        assert_eq!(judge_unrecorded(Seen { pending: false, deaths: 1, races: 0 }), wordless, "that was an earlier one");
    }

    #[test]
    fn an_app_that_never_started_is_no_incident() {
        let mut exit = exit(Some(127), None, &[]);
        exit.start_error = Some("not found".into());
        assert_eq!(judge(&exit, Seen::default()), Ending::Quiet);
    }
}
