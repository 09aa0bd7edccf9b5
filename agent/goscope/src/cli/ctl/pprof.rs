//! `pprof`: takes a profile, fetches it and opens `go tool pprof` on the file; of a trace, `go tool trace`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use super::capture::{Outcome, Wanted, fetch_told};
use super::{EXIT_INTERRUPTED, Place, say};
use crate::cli::EXIT_BAD;
use crate::notice::pasteable;

/// Take a profile, fetch it, and open `go tool pprof` on the file
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  kubectl goscope pprof heap deploy/shop\n  kubectl goscope pprof cpu deploy/shop --seconds 30 -- -http=:8000"
)]
pub(super) struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Where the file is kept. Without it the agent's name for it, here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// For go tool pprof, as -top or -http=:8000
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        if self.wanted.debug.is_some_and(|debug| debug > 0) {
            bail!("--debug makes a text, which go tool pprof does not read; `capture` fetches it");
        }
        let mut api = place.api(self.wanted.target.as_ref()).await?;
        let artifact = match self.wanted.take(&mut api).await? {
            Outcome::Stored(artifact) => artifact,
            Outcome::Failed => return Ok(ExitCode::from(EXIT_BAD)),
            Outcome::Interrupted => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        };
        let Some(fetched) = fetch_told(&mut api, &artifact, self.output.as_deref(), self.force).await? else {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        };
        let path = fetched.context("go tool pprof needs a file, not standard output")?;
        drop(api);
        say(&path.display().to_string());
        let tool = if self.wanted.kind == "trace" { "trace" } else { "pprof" };
        open(tool, &self.arguments, &path)
    }
}

/// Runs the Go tool in the foreground, and ends as it ended.
fn open(tool: &str, arguments: &[OsString], path: &PathBuf) -> anyhow::Result<ExitCode> {
    match Command::new("go").args(["tool", tool]).args(arguments).arg(path).status() {
        Ok(status) => Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or_else(|| ExitCode::from(EXIT_BAD), ExitCode::from)),
        Err(error) => {
            bail!("go cannot be started here ({error}); where Go is installed: go tool {tool} {}", pasteable(path))
        }
    }
}
