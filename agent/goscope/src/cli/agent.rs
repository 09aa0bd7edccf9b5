//! `goscope agent`: the sidecar, and the second process of `goscope run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Signal, getpid, kill_process};

use crate::app::{self, Embedded};
use crate::config::check::{load, parse_target, process_environment};
use crate::config::units::parse_duration;
use crate::config::{Config, ENV_CONFIG, TargetAddress};
use crate::notice::Audience;

/// Run the gate, the recorder and the metrics beside an app
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: goscope agent --config /etc/goscope/goscope.yaml")]
pub struct Args {
    /// Configuration file; without it $GOSCOPE_CONFIG, without that the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the Go process serves pprof, in place of the configured target.address
    #[arg(long, value_name = "URL", value_parser = parse_target)]
    target: Option<TargetAddress>,
    /// Started by `goscope run`: everything below --data, standard input is the launcher's doorbell
    #[arg(long, hide = true, requires = "data")]
    embedded: bool,
    #[arg(long, hide = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "NAME")]
    run: Option<String>,
    #[arg(long, hide = true, default_value = "quiet")]
    notices: Audience,
    /// End after this time: for an agent that was attached to a pod, where nobody could remove it
    #[arg(long = "for", hide = true, value_name = "DURATION", value_parser = parse_duration)]
    lifetime: Option<Duration>,
}

impl Args {
    /// # Errors
    /// The configuration is wrong, or a listener cannot be opened.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut embedded = self.data.filter(|_| self.embedded).map(|data| Embedded {
            data,
            run: self.run,
            audience: self.notices,
            misconfigured: None,
        });
        let defaults = embedded.as_ref().map_or_else(Config::sidecar, |e| Config::embedded(&e.data));
        let path = self.config.or_else(|| process_environment(ENV_CONFIG).map(PathBuf::from));
        let mut config = match (load(path.as_deref(), defaults.clone(), &process_environment), &mut embedded) {
            (Ok(config), _) => config,
            // The app runs already: its death is recorded in any case, and the gate stays closed.
            (Err(error), Some(embedded)) => {
                embedded.misconfigured = Some(format!("{:#}", anyhow::Error::from(error)));
                defaults
            }
            (Err(error), None) => return Err(error.into()),
        };
        if let Some(embedded) = &embedded {
            config.keep_below(&embedded.data);
        }
        if let Some(target) = self.target {
            config.target = target;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let ended = runtime.block_on(async {
            if let Some(lifetime) = self.lifetime {
                tokio::spawn(end_after(lifetime));
            }
            app::main(config, embedded).await
        });
        // A volume that does not answer may hold up the thread that reads from it, but not our end.
        runtime.shutdown_background();
        ended?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Stops this process as whoever started it would.
async fn end_after(lifetime: Duration) {
    tokio::time::sleep(lifetime).await;
    tracing::info!("the agent's time is up");
    // The process is our own.
    kill_process(getpid(), Signal::TERM).ok();
}
