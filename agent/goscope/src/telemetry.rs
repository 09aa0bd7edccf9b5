//! The agent's own log: one JSON object per line, `{"timestamp":…,"level":"INFO","message":…,"target":…}` and the event's fields beside them.
//!
//! Messages are constants in lower case, values are fields, so that a line can be searched by its message and its values by name. ERROR means
//! that an operator must act. No token, header or query value is ever a field. The level is one of `off error warn info debug trace`, `info` if unset.
//!
//! In a container the lines go to standard error. Beside an app on one machine (`goscope run`) standard error belongs to the app and its user, so they
//! go to a file in the data folder that is bounded by [`capped_file`].

use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use self::capped_file::CappedFile;

pub mod capped_file;

/// The environment variable that holds the level.
pub const LEVEL_VARIABLE: &str = "GOSCOPE_LOG";
/// The log's name in the data folder.
pub const FILE_NAME: &str = "agent.log";
/// Bytes of the log file; one older generation of the same size stands beside it.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Standard error.
    Stderr,
    /// [`FILE_NAME`] in this folder, which must exist.
    File(&'a Path),
}

/// Sets up the process's log, once, before the first event. `level` is the value of [`LEVEL_VARIABLE`]; one that is not understood is replaced by
/// `info` and complained about in the log, since a mistyped level is no reason to record nothing.
///
/// # Errors
/// The log file cannot be opened.
///
/// # Panics
/// The log was set up before.
pub fn init(destination: Destination<'_>, level: Option<&str>) -> io::Result<()> {
    let parsed = parse_level(level);
    let level_filter = parsed.unwrap_or(LevelFilter::INFO);
    match destination {
        Destination::Stderr => install(io::stderr, level_filter),
        Destination::File(folder) => {
            install(Mutex::new(CappedFile::open(folder.join(FILE_NAME), FILE_BYTES_MAX)?), level_filter);
        }
    }
    if parsed.is_none() {
        tracing::warn!(variable = LEVEL_VARIABLE, value = level, "log level not understood");
    }
    Ok(())
}

/// Lets `say` log on standard error in a process that otherwise has no log and may still set one up.
pub fn aside(level: Option<&str>, say: impl FnOnce()) {
    tracing::subscriber::with_default(subscriber(io::stderr, parse_level(level).unwrap_or(LevelFilter::INFO)), say);
}

/// An error with all its sources, for the field `error`: `cannot connect to the target: connection reset by peer`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn install<W>(writer: W, level: LevelFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing::subscriber::set_global_default(subscriber(writer, level)).expect("the log is set up once");
}

/// Failures to write a line are not reported: there is no better place to report them to.
fn subscriber<W>(writer: W, level: LevelFilter) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_current_span(true)
        .with_max_level(level)
        .log_internal_errors(false)
        .with_writer(writer)
        .finish()
}

/// `None` for a word that names no level.
fn parse_level(value: Option<&str>) -> Option<LevelFilter> {
    match value.unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "" | "info" => Some(LevelFilter::INFO),
        "off" => Some(LevelFilter::OFF),
        "error" => Some(LevelFilter::ERROR),
        "warn" => Some(LevelFilter::WARN),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_and_info_is_the_default() {
        for (value, expected) in [
            (None, Some(LevelFilter::INFO)),
            (Some(""), Some(LevelFilter::INFO)),
            (Some("DEBUG"), Some(LevelFilter::DEBUG)),
            (Some(" warn "), Some(LevelFilter::WARN)),
            (Some("off"), Some(LevelFilter::OFF)),
            (Some("verbose"), None),
            (Some("goscope=debug"), None),
        ] {
            assert_eq!(parse_level(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_chain_names_every_source() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the spool")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "cannot open the spool: disk on fire");
        assert_eq!(chain(&error.0), "disk on fire");
    }

    #[test]
    fn an_event_is_one_json_line_with_its_fields_beside_the_message() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        let file = CappedFile::open(path.clone(), FILE_BYTES_MAX).expect("opened");
        tracing::subscriber::with_default(subscriber(Mutex::new(file), LevelFilter::INFO), || {
            tracing::info!(goroutines = 7, path = "a\nb", "target answered");
            tracing::debug!("left out");
        });
        let text = std::fs::read_to_string(path).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(line["message"], "target answered");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["goroutines"], 7);
        assert_eq!(line["path"], "a\nb");
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }
}
