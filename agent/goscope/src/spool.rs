//! The spool: the folder through which the launcher hands everything to the agent. Both sides name its files here and nowhere else.
//!
//! ```text
//! SPOOL/<run>/start.json              written by the launcher before the app starts (staged as .tmp, renamed); held by its flock while it lives
//! SPOOL/<run>/buildinfo               written by `goscope exec` when the app has started (staged, renamed): a copy from its executable, empty for no Go program
//! SPOOL/<run>/stderr.<offset>         segment: bytes of the app's stderr from <offset> on, 20 decimal digits
//! SPOOL/<run>/exit.json               written by the launcher when the app has ended and its stderr was drained (staged, renamed)
//! SPOOL/<run>/checkpoint.json         written by the agent: how far the stream is handled (staged, renamed)
//! SPOOL/<run>/report.txt              written by the agent when the run is handled to its end: what to tell the person (staged, renamed)
//! ```
//!
//! `<run>` is `<UTC time>-<8 hex digits>`, for example `2026-11-23T08-57-04Z-1f2e3d4c`, so that runs sort by time. The launcher appends to the newest
//! segment only. It deletes the oldest segments when the run holds more than its cap, and at its start those of the oldest finished runs when the spool would
//! hold more than its total; the agent deletes those it has handled; what neither has is a gap, visible because the next segment's name is past the end of the
//! one before, or because `exit.json` knows of more bytes. A run whose `exit.json` is there and whose stream is handled to its end is deleted by the agent.
//!
//! Folders are 0700 and files 0600: launcher and agent are one user. In a spool that is setgid and open to its group (a Kubernetes volume with an
//! `fsGroup`) they are 2770 and 0640, so that they may be two users of that group.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub const START: &str = "start.json";
pub const EXIT: &str = "exit.json";
/// Build information of a Go program: from the mark of the linker on, as it stands in the executable.
pub const BUILD_INFO: &str = "buildinfo";
pub const CHECKPOINT: &str = "checkpoint.json";
pub const REPORT: &str = "report.txt";
/// A segment's file name is this and 20 decimal digits.
pub const SEGMENT_PREFIX: &str = "stderr.";
/// The launcher begins a new segment when the newest has reached this size.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Bytes of segments that one run holds at most, unless `exec --spool-max` says otherwise.
pub const RUN_BYTES_MAX: u64 = 256 << 20;
/// All runs hold together at most so many times what one may hold, unless `exec --spool-total` says otherwise.
pub const TOTAL_RUNS: u64 = 3;

/// `start.json`: what the launcher knew when it started the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// Unix time in milliseconds.
    pub started_unix_ms: i64,
    /// The command line, secrets masked.
    pub command: Vec<String>,
    /// The executable as found by PATH, if it was found; absolute.
    pub executable: Option<PathBuf>,
    pub working_directory: Option<PathBuf>,
    /// Environment switches that matter to Go: GODEBUG GOTRACEBACK GOGC GOMEMLIMIT GOMAXPROCS GORACE, as the app gets them.
    pub environment: Vec<(String, String)>,
}

/// `exit.json`: how the app ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 0 where the app could not be started.
    pub pid: u32,
    /// Exit status, where the app ended by itself; 126 or 127 where it could not be started.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `SIGKILL` and the like.
    pub signal_name: Option<String>,
    pub core_dumped: bool,
    /// Signals that the launcher passed on to the app, in order, at most 16; a death after TERM, INT or HUP was asked for.
    pub forwarded: Vec<String>,
    /// Signals from the terminal (Ctrl-C, Ctrl-\) that launcher and app both received.
    pub from_terminal: Vec<String>,
    /// Unix time in milliseconds.
    pub started_unix_ms: i64,
    pub ended_unix_ms: i64,
    /// Peak resident set, in bytes.
    pub max_rss_bytes: u64,
    pub cpu_user_ms: u64,
    pub cpu_system_ms: u64,
    /// Bytes of stderr that came from the app: the end offset of the stream.
    pub stderr_bytes: u64,
    /// Bytes of them that never reached the spool (it was full, gone or read-only) or were deleted again by the cap.
    pub unspooled_bytes: u64,
    /// Why the app could not be started.
    pub start_error: Option<String>,
    /// Bytes of stderr of earlier runs that no agent had read when their last trace was deleted at this start, to keep the spool within its total.
    #[serde(default)]
    pub forgotten_bytes: u64,
    /// Why the spool could not be kept within its total.
    #[serde(default)]
    pub clear_error: Option<String>,
}

/// Whether a folder of the spool has the name of a run.
#[must_use]
pub fn is_run_name(name: &str) -> bool {
    let shape = "dddd-dd-ddTdd-dd-ddZ-xxxxxxxx";
    name.len() == shape.len()
        && name.bytes().zip(shape.bytes()).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            b'x' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            _ => byte == expected,
        })
}

/// Whether no launcher is behind `run` any more. A launcher holds `start.json` by `flock` for as long as it lives, so that a run whose launcher was
/// killed does not stay open for ever.
#[must_use]
pub fn launcher_is_gone(run: &Path) -> bool {
    std::fs::File::open(run.join(START))
        .is_ok_and(|file| rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok())
}

/// `stderr.00000000000000000000`.
#[must_use]
pub fn segment_name(offset: u64) -> String {
    format!("{SEGMENT_PREFIX}{offset:020}")
}

/// The offset in a segment's file name; `None` for any other file.
#[must_use]
pub fn segment_offset(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The segments of a run, lowest offset first.
///
/// # Errors
/// The folder cannot be read.
pub fn segments(run: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(run)? {
        let entry = entry?;
        if let Some(offset) = entry.file_name().to_str().and_then(segment_offset) {
            found.push((offset, entry.path()));
        }
    }
    found.sort_unstable_by_key(|(offset, _)| *offset);
    Ok(found)
}
