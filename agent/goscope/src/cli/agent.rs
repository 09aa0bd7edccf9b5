//! `goscope agent`: the sidecar, and the second process of `goscope run`.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::app::{self, Embedded, RecorderEnded, Start};
use crate::config::check::{load, parse_target, process_environment, salvage};
use crate::config::units::parse_duration;
use crate::config::{Config, ENV_CONFIG};
use crate::launcher;
use crate::notice::Audience;

/// Run the gate, the recorder and the metrics beside an app
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: goscope agent --config /etc/goscope/goscope.yaml")]
pub struct Args {
    /// Configuration file; without it $GOSCOPE_CONFIG, without that the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the Go process serves pprof, in place of the configured target.address
    #[arg(long, value_name = "URL")]
    target: Option<String>,
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
    /// Keep what is recorded and captured below this folder, and delete the folder at the end
    #[arg(long, hide = true, value_name = "DIR", requires = "lifetime", conflicts_with = "embedded")]
    scratch: Option<PathBuf>,
    /// Do what process 1 of a container does: leave the work to a second process, and start that again when it dies
    #[arg(long, hide = true, conflicts_with = "embedded")]
    supervise: bool,
    /// Started by such a process
    #[arg(long, hide = true)]
    worker: bool,
}

/// Kubernetes sets it in every container.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";
/// How often a configuration that cannot be used is looked at again.
const REPAIR_PERIOD: Duration = Duration::from_secs(5);

impl Args {
    /// In a pod nothing that is wrong with the configuration or an address ends the agent: the app is not started before it, and would not be ready without it.
    ///
    /// # Errors
    /// Elsewhere, the configuration is wrong, or a listener cannot be opened.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        // Before there is a thread or a runtime, so that who only waits holds next to no memory.
        if !self.worker
            && !self.embedded
            && (self.supervise || getpid() == Pid::INIT)
            && let Some(ended) = launcher::keep_worker()
        {
            return Ok(ended);
        }
        let embedded =
            self.data.filter(|_| self.embedded).map(|data| Embedded { data, run: self.run, audience: self.notices });
        // In a pod the app is not started before its sidecar has been, and does not count as ready while that is down.
        // An attached agent is no part of that.
        let is_sidecar = self.lifetime.is_none() && process_environment(IN_A_POD).is_some();
        let stays = embedded.is_some() || is_sidecar;
        let defaults = embedded.as_ref().map_or_else(Config::sidecar, |e| Config::embedded(&e.data));
        let path = self.config.or_else(|| process_environment(ENV_CONFIG).map(PathBuf::from));
        let target = self.target.as_deref().map(parse_target).transpose();
        let (mut config, mistakes) = salvage(path.as_deref(), defaults, &process_environment);
        let mut misconfigured = mistakes.map(anyhow::Error::from);
        let repair = (misconfigured.is_some() && embedded.is_none() && target.is_ok()).then(|| path.clone());
        match target {
            Ok(Some(target)) => config.target = target,
            Ok(None) => {}
            Err(mistake) => misconfigured = misconfigured.or_else(|| Some(anyhow::anyhow!("--target: {mistake}"))),
        }
        if let Some(error) = misconfigured.take_if(|_| !stays) {
            return Err(error);
        }
        if let Some(embedded) = &embedded {
            config.keep_below(&embedded.data);
        }
        // Dropped after the runtime, when nothing is written any more.
        let scratch = self.scratch.map(Scratch::make).transpose()?;
        if let Some(Scratch(folder)) = &scratch {
            config.intake.spool = folder.join("spool");
            config.store.path = folder.join("data");
        }
        let start = Start { embedded, stays, misconfigured: misconfigured.map(|error| format!("{error:#}")) };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let ended = runtime.block_on(async {
            if let Some(lifetime) = self.lifetime {
                tokio::spawn(end_after(lifetime));
            }
            if let Some(path) = repair {
                tokio::spawn(end_when_usable(path));
            }
            app::main(config, start).await
        });
        // A volume that does not answer may hold up the thread that reads from it, but not our end.
        runtime.shutdown_background();
        match ended {
            Err(error) if error.is::<RecorderEnded>() => {
                tracing::error!(%error, "agent stopped by a fault of its own");
                Ok(ExitCode::FAILURE)
            }
            ended => ended.map(|()| ExitCode::SUCCESS),
        }
    }
}

/// A folder that goes with this process, unless that is killed.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder. One that is there is another's, and is neither used nor deleted.
    fn make(folder: PathBuf) -> anyhow::Result<Self> {
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make the folder {} (--scratch)", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::error!(path = %self.0.display(), %error, "cannot delete the scratch folder");
        }
    }
}

/// Stops this process as whoever started it would.
async fn end_after(lifetime: Duration) {
    tokio::time::sleep(lifetime).await;
    tracing::info!("the agent's time is up");
    stop_ourselves();
}

/// Ends the agent of a pod when the configuration that it could not use can be used: the kubelet starts it again, with that.
async fn end_when_usable(path: Option<PathBuf>) {
    loop {
        tokio::time::sleep(REPAIR_PERIOD).await;
        let path = path.clone();
        let read = move || load(path.as_deref(), Config::sidecar(), &process_environment).is_ok();
        if tokio::task::spawn_blocking(read).await.unwrap_or(false) {
            tracing::info!("configuration can be used now: the agent ends, to be started again");
            stop_ourselves();
            return;
        }
    }
}

/// As whoever started this process would.
fn stop_ourselves() {
    // The process is our own.
    kill_process(getpid(), Signal::TERM).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_scratch_folder_is_private_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("goscope-1");
        let scratch = Scratch::make(path.clone()).expect("made");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o700);
        fs::create_dir_all(path.join("data/heap")).expect("a folder");
        fs::write(path.join("data/heap/content.gz"), "x").expect("a file");
        assert!(Scratch::make(path.clone()).is_err(), "the folder of another");
        drop(scratch);
        assert!(!path.exists());
    }
}
