//! `goscope exec`: the launcher alone, as the first process of the app's container.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::launcher::{Launch, SPOOL_MIN, launch};
use crate::spool::TOTAL_RUNS;

const SPOOL_DEFAULT: &str = "/var/lib/goscope/spool";

/// Run a program with its stderr recorded for the agent
///
/// The program gets our stdin, stdout, working directory, environment (with GOTRACEBACK=all unless set) and signals; its stderr appears on
/// ours unchanged. Ends with its status, or by the signal that ended it; 126 and 127 as a shell has them.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, before_help = "Example: goscope exec --spool /var/lib/goscope/spool -- ./app serve")]
pub struct Args {
    /// Folder shared with the agent [default: $GOSCOPE_SPOOL, else /var/lib/goscope/spool]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Most that this run keeps there, the oldest goes first; for example 64MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = spool_bytes)]
    spool_max: u64,
    /// Most that all runs keep there together: at the start the oldest finished ones make room for this one [default: three times --spool-max]
    #[arg(long, value_name = "SIZE", value_parser = spool_bytes)]
    spool_total: Option<u64>,
    /// Say nothing, even if the recording fails
    #[arg(long)]
    quiet: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    #[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let spool =
            self.spool.or_else(|| std::env::var_os("GOSCOPE_SPOOL").filter(|s| !s.is_empty()).map(PathBuf::from));
        Ok(launch(Launch {
            command: self.command,
            spool: spool.unwrap_or_else(|| PathBuf::from(SPOOL_DEFAULT)),
            spool_bytes_max: self.spool_max,
            spool_total_bytes: self.spool_total.unwrap_or_else(|| self.spool_max.saturating_mul(TOTAL_RUNS)),
            agent: None,
            is_quiet: self.quiet,
        }))
    }
}

/// `64MiB`, `1GiB`, `100000`.
fn spool_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        unit => return Err(format!("unknown unit {unit:?}; write for example 64MiB")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a whole number and a unit, for example 64MiB".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    if bytes < SPOOL_MIN { Err(format!("at least {}KiB", SPOOL_MIN >> 10)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::RUN_BYTES_MAX;

    #[test]
    fn sizes() {
        assert_eq!(spool_bytes("256MiB"), Ok(RUN_BYTES_MAX), "the default of the command line");
        assert_eq!(spool_bytes("65536"), Ok(65536));
        assert_eq!(spool_bytes("64KiB"), Ok(65536));
        assert_eq!(spool_bytes("1GiB"), Ok(1 << 30));
        for bad in ["", "MiB", "1", "63KiB", "1.5GiB", "-1MiB", "1TB", "1 GiB", "99999999999GiB"] {
            assert!(spool_bytes(bad).is_err(), "{bad}");
        }
    }
}
