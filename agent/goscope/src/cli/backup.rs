//! `goscope backup`: copies a store to another volume.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::EXIT_BAD;
use crate::config::check::parse_age;
use crate::store::backup::{Backup, Plan, Summary};
use crate::telemetry::chain;

/// Copy the incidents and artifacts of a store to another folder
///
/// Copies what is whole and not there yet, of all hosts, and checks every file against its SHA-256. The copy is a store itself: read it as you read the
/// first. Nothing is deleted at --from, which may be read-only and in use; a backup that was stopped goes on when it is run again. Prints what it did.
/// Exit 1 if something was not copied because it is damaged, 2 if the backup had to stop.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    before_help = "Example: goscope backup --from /var/lib/goscope/data --to /backup --keep 90d"
)]
pub struct Args {
    /// The store, store.path of its agents
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Where the copy is; the folder must exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Remove from the copy, and do not copy, what is older than this and not pinned, as 90d; without it all is kept
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    keep: Option<Duration>,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = Timestamp::now();
        let keep_since = match self.keep {
            Some(keep) => Some(now.checked_sub(SignedDuration::try_from(keep)?)?),
            None => None,
        };
        let plan = Plan { from: self.from, to: self.to, keep_since };
        let backup = Backup::open(plan, now)?;
        let mut summary = Summary::default();
        let ended = backup.run(&mut summary, &mut |path, flaw| {
            // Nothing is left to tell if standard error is gone.
            drop(writeln!(io::stderr(), "goscope: {} is damaged: {}", path.display(), chain(flaw)));
        });
        writeln!(io::stdout(), "{}", Shown(&summary))?;
        ended?;
        Ok(if summary.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BAD) })
    }
}

/// The answer: one line, every count in it.
struct Shown<'a>(&'a Summary);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { copied, copied_bytes, there_already, vanished, too_old, damaged, removed } = self.0;
        write!(f, "copied {copied} ({copied_bytes} bytes), there already {there_already}, ")?;
        write!(f, "skipped {vanished} gone meanwhile and {too_old} too old, damaged {damaged}, removed {removed}")
    }
}
