//! What the launcher notes about a run: at its start and at its end.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use super::app::App;
use super::clear::Cleared;
use super::mask::masked;
use super::signals;
use super::sys::{State, Usage};
use crate::spool::{ExitRecord, StartRecord};

/// Environment switches of the Go runtime that say how to read its output.
const SWITCHES: [&str; 6] = ["GODEBUG", "GOTRACEBACK", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GORACE"];
/// Signals noted in one record.
const SIGNALS_MAX: usize = 16;

/// The record of a start at `now`.
pub(super) fn start(app: &App<'_>, command: &[OsString], now: SystemTime) -> StartRecord {
    let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let environment = SWITCHES
        .iter()
        .filter_map(|name| {
            let value = match std::env::var_os(name) {
                Some(value) => value.to_string_lossy().into_owned(),
                None if *name == "GOTRACEBACK" && app.gotraceback => "all".to_owned(),
                None => return None,
            };
            Some(((*name).to_owned(), value))
        })
        .collect();
    StartRecord {
        started_unix_ms: unix_ms(now),
        command: masked(words.iter().map(String::as_str)),
        executable: app.executable(),
        working_directory: std::env::current_dir().ok(),
        environment,
    }
}

/// `2026-11-23T08-57-04Z-1f2e3d4c`.
pub(super) fn run_name(now: SystemTime, random: u32) -> String {
    let time = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}-{random:08x}", time.strftime("%Y-%m-%dT%H-%M-%SZ"))
}

/// Notes what happens to a run, and makes its exit record.
#[derive(Debug)]
pub(super) struct Exit {
    record: ExitRecord,
}

impl Exit {
    pub(super) fn new(started: SystemTime) -> Self {
        Self {
            record: ExitRecord {
                pid: 0,
                status: None,
                signal: None,
                signal_name: None,
                core_dumped: false,
                forwarded: Vec::new(),
                from_terminal: Vec::new(),
                started_unix_ms: unix_ms(started),
                ended_unix_ms: unix_ms(started),
                max_rss_bytes: 0,
                cpu_user_ms: 0,
                cpu_system_ms: 0,
                stderr_bytes: 0,
                unspooled_bytes: 0,
                start_error: None,
                forgotten_bytes: 0,
                clear_error: None,
            },
        }
    }

    pub(super) fn forwarded(&mut self, signal: i32) {
        note(&mut self.record.forwarded, signal);
    }

    pub(super) fn sent_by_terminal(&mut self, signal: i32) {
        note(&mut self.record.from_terminal, signal);
    }

    pub(super) fn not_started(&mut self, status: u8, error: &str, now: SystemTime) {
        self.record.status = Some(i32::from(status));
        self.record.start_error = Some(error.to_owned());
        self.record.ended_unix_ms = unix_ms(now);
    }

    pub(super) fn ended(&mut self, pid: i32, state: State, usage: Usage, now: SystemTime) {
        let record = &mut self.record;
        record.pid = pid.unsigned_abs();
        match state {
            State::Exited(status) => record.status = Some(status),
            State::Killed { signal, core } => {
                record.signal = Some(signal);
                record.signal_name = Some(signals::name(signal));
                record.core_dumped = core;
            }
            State::Stopped(_) | State::Continued => {}
        }
        record.ended_unix_ms = unix_ms(now);
        record.max_rss_bytes = usage.max_rss_bytes;
        record.cpu_user_ms = millis(usage.user);
        record.cpu_system_ms = millis(usage.system);
    }

    /// The record, with the figures of the stream, and what was done about the other runs.
    pub(super) fn record(&self, stderr_bytes: u64, unspooled_bytes: u64, cleared: Cleared) -> ExitRecord {
        ExitRecord {
            stderr_bytes,
            unspooled_bytes,
            forgotten_bytes: cleared.forgotten_bytes,
            clear_error: cleared.error,
            ..self.record.clone()
        }
    }
}

fn note(list: &mut Vec<String>, signal: i32) {
    if list.len() < SIGNALS_MAX {
        list.push(signals::name(signal));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(time: SystemTime) -> i64 {
    // A clock before 1970 is no clock.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_names_sort_by_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(run_name(at(1_795_424_224), 0x1f2e_3d4c), "2026-11-23T08-57-04Z-1f2e3d4c");
        assert_eq!(run_name(at(0), 1), "1970-01-01T00-00-00Z-00000001");
        assert!(run_name(at(9_999_999), 9) < run_name(at(10_000_000), 0));
    }

    #[test]
    fn an_exit_record_tells_how_it_ended() {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let mut exit = Exit::new(started);
        for _ in 0..40 {
            exit.forwarded(libc::SIGTERM);
        }
        exit.sent_by_terminal(libc::SIGINT);
        let usage = Usage { max_rss_bytes: 4096, user: Duration::from_micros(2500), system: Duration::from_secs(1) };
        exit.ended(7, State::Killed { signal: libc::SIGABRT, core: true }, usage, started + Duration::from_millis(20));
        let cleared = Cleared { forgotten_bytes: 5, error: Some("Permission denied".to_owned()) };
        let record = exit.record(100, 10, cleared);
        assert_eq!(record.forwarded, vec!["SIGTERM"; SIGNALS_MAX]);
        assert_eq!(record.from_terminal, ["SIGINT"]);
        assert_eq!((record.pid, record.status, record.signal), (7, None, Some(6)));
        assert_eq!(record.signal_name.as_deref(), Some("SIGABRT"));
        assert!(record.core_dumped);
        assert_eq!((record.started_unix_ms, record.ended_unix_ms), (5000, 5020));
        assert_eq!((record.cpu_user_ms, record.cpu_system_ms, record.max_rss_bytes), (2, 1000, 4096));
        assert_eq!((record.stderr_bytes, record.unspooled_bytes, record.forgotten_bytes), (100, 10, 5));
        assert_eq!(record.clear_error.as_deref(), Some("Permission denied"));
    }
}
