//! The agent as a second process: its command line and the three pipes that join it to the launcher.
//!
//! Standard input is the doorbell: a byte says that the run has ended, end of file that the launcher is gone. Standard error carries lines for
//! the person. The pipes are made once and given to each incarnation, so that nothing is lost between two of them.
//!
//! The agent of a container needs no pipes: it is started by [`start_worker`], stands where its process 1 stands, and dies with it.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};

use super::sys::{ChildSetup, Mask, prepare_child};

/// How the agent is called by `goscope run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// The data folder; its `spool` is where the run is recorded.
    pub data: PathBuf,
    pub config: Option<PathBuf>,
    /// As written; the agent checks it.
    pub target: Option<String>,
    pub notices: Notices,
}

/// For whom the agent words its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notices {
    Terminal,
    Log,
    Quiet,
}

impl Notices {
    fn argument(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Log => "log",
            Self::Quiet => "quiet",
        }
    }
}

/// Starts incarnations of the agent.
#[derive(Debug)]
pub(super) struct Agent {
    options: AgentOptions,
    /// Name of the run's folder, where there is one.
    run: Option<String>,
    doorbell: OwnedFd,
    button: OwnedFd,
    /// `None` where the agent is to be quiet.
    voice: Option<OwnedFd>,
}

impl Agent {
    /// Makes the pipes; returns also the end from which the agent's lines are read, non-blocking.
    pub(super) fn new(options: AgentOptions, run: Option<String>) -> io::Result<(Self, Option<OwnedFd>)> {
        let (doorbell, button) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&button, true)?;
        let (ear, voice) = if options.notices == Notices::Quiet {
            (None, None)
        } else {
            let (ear, voice) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ear, true)?;
            // While we are stopped, or nobody takes our stderr, an agent that spoke would otherwise stop recording.
            rustix::io::ioctl_fionbio(&voice, true)?;
            (Some(ear), Some(voice))
        };
        Ok((Self { options, run, doorbell, button, voice }, ear))
    }

    /// Starts one and returns its process id. `mask` is the signal mask that we were started with.
    pub(super) fn start(&self, mask: Mask) -> io::Result<i32> {
        let mut command = own_command();
        command.arg("agent").arg("--embedded").arg("--data").arg(&self.options.data);
        if let Some(run) = &self.run {
            command.arg("--run").arg(run);
        }
        if let Some(config) = &self.options.config {
            command.arg("--config").arg(config);
        }
        if let Some(target) = &self.options.target {
            command.arg("--target").arg(target);
        }
        command.arg("--notices").arg(self.options.notices.argument());
        command.stdin(Stdio::from(self.doorbell.try_clone()?)).stdout(Stdio::null());
        command.stderr(match &self.voice {
            Some(voice) => Stdio::from(voice.try_clone()?),
            None => Stdio::null(),
        });
        spawn_apart(command, ChildSetup { mask, as_given: false, dies_with_us: false, gotraceback: false })
    }

    /// The run has ended.
    pub(super) fn ring(&self) {
        // A full pipe has rung already.
        rustix::io::write(&self.button, b"\n").ok();
    }
}

/// Starts `goscope drain`, which reads the app's pipe to its end on behalf of those who still write to it, onto our stderr.
pub(super) fn start_drain(app: OwnedFd, mask: Mask) -> io::Result<i32> {
    rustix::io::ioctl_fionbio(&app, false)?;
    let mut command = own_command();
    command.arg("drain").stdin(Stdio::from(app)).stdout(Stdio::null()).current_dir("/");
    spawn_apart(command, ChildSetup { mask, as_given: false, dies_with_us: false, gotraceback: false })
}

/// The first word of the agent that a container's process 1 has started, by which it can be told from that process.
const WORKER: &str = "goscope-agent";

/// Starts the agent as we were called ourselves, `arguments` without our name, and returns its process id.
pub(super) fn start_worker(arguments: impl IntoIterator<Item = OsString>, mask: Mask) -> io::Result<i32> {
    let mut command = own_command();
    command.arg0(WORKER).args(worker_arguments(arguments));
    spawn_apart(command, ChildSetup { mask, as_given: true, dies_with_us: true, gotraceback: false })
}

/// The same arguments with the mark of a worker behind the command's name, because an option at the end might stand behind `--`.
fn worker_arguments(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    arguments.next().into_iter().chain(["--worker".into()]).chain(arguments).collect()
}

/// This program, even if its file was replaced meanwhile.
fn own_command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("goscope");
    command
}

/// In a process group of its own, which the terminal's signals do not reach.
fn spawn_apart(mut command: Command, setup: ChildSetup) -> io::Result<i32> {
    command.process_group(0);
    prepare_child(&mut command, setup);
    let child = command.spawn()?;
    Ok(i32::try_from(child.id()).expect("a process id fits pid_t, where it came from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_called_as_we_were_and_marked() {
        let check = |given: &[&str], expected: &[&str]| {
            assert_eq!(worker_arguments(given.iter().map(OsString::from)), expected);
        };
        check(&["agent"], &["agent", "--worker"]);
        check(&["agent", "--config", "a b", "--"], &["agent", "--worker", "--config", "a b", "--"]);
    }

    #[test]
    fn an_agent_that_nobody_listens_to_is_not_held_up() {
        let options = AgentOptions { data: PathBuf::new(), config: None, target: None, notices: Notices::Log };
        let (agent, _ear) = Agent::new(options, None).expect("pipes");
        let voice = agent.voice.expect("a voice");
        let full = std::iter::repeat_with(|| rustix::io::write(&voice, &[b'x'; 4096])).find_map(Result::err);
        assert_eq!(full, Some(rustix::io::Errno::AGAIN));
    }
}
