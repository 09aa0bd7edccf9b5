//! `goscope drain`: hidden; started by the launcher, see [`launcher::drain`].

use std::process::ExitCode;

use crate::launcher;

#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    #[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        launcher::drain();
        Ok(ExitCode::SUCCESS)
    }
}
