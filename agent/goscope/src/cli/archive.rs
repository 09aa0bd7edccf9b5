//! `goscope archive`: what is on the volume, when the pods are gone.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::app::archive;
use crate::config::check::{load, process_environment};
use crate::config::{Config, ENV_CONFIG};

/// Serve the incidents and artifacts of a volume, read-only
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: goscope archive --data ./goscope-data
         curl -H \"Authorization: Bearer $(cat goscope-data/token)\" http://localhost:6061/api/v1/incidents")]
pub struct Args {
    /// Configuration file; without it $GOSCOPE_CONFIG, without that the defaults. store.path is the volume
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What `goscope run` kept below this folder, with its token; in place of the configured store.path
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Args {
    /// # Errors
    /// The configuration is wrong, or a listener cannot be opened.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let defaults = self.data.as_deref().map_or_else(Config::sidecar, Config::embedded);
        let path = self.config.or_else(|| process_environment(ENV_CONFIG).map(PathBuf::from));
        let mut config = load(path.as_deref(), defaults, &process_environment)?;
        if let Some(data) = &self.data {
            config.keep_below(data);
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let ended = runtime.block_on(archive::main(config));
        // A volume that does not answer may hold up the thread that reads from it, but not our end.
        runtime.shutdown_background();
        ended?;
        Ok(ExitCode::SUCCESS)
    }
}
