//! `goscope run`: the whole product on one machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::check::parse_target;
use crate::launcher::{AgentOptions, Launch, Notices, launch};
use crate::spool::{RUN_BYTES_MAX, TOTAL_RUNS};

/// Run a Go program with pprof behind a token and its crashes recorded and explained
///
/// The program runs as if started bare; its stderr appears on ours unchanged. Beside it runs the agent, with its data in ./goscope-data.
/// Ends with the program's status, or by the signal that ended it; 126 and 127 as a shell has them.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, before_help = "Example: goscope run -- ./app serve")]
pub struct Args {
    /// Configuration of the agent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "goscope-data")]
    data: PathBuf,
    /// Where the program serves /debug/pprof/ [default: 127.0.0.1:6060]; or unix:///path/to/socket
    #[arg(long, value_name = "URL", value_parser = target)]
    target: Option<String>,
    /// Nothing on stderr but what the program writes
    #[arg(long)]
    quiet: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Refuses a target that the agent could not use before anything is started; it is handed on as written.
fn target(text: &str) -> Result<String, String> {
    parse_target(text).map(|_| text.to_owned())
}

impl Args {
    #[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let notices = if self.quiet {
            Notices::Quiet
        } else if rustix::termios::isatty(std::io::stderr()) {
            Notices::Terminal
        } else {
            Notices::Log
        };
        Ok(launch(Launch {
            command: self.command,
            spool: self.data.join("spool"),
            spool_bytes_max: RUN_BYTES_MAX,
            spool_total_bytes: TOTAL_RUNS * RUN_BYTES_MAX,
            agent: Some(AgentOptions { data: self.data, config: self.config, target: self.target, notices }),
            is_quiet: self.quiet,
        }))
    }
}
