//! The agent as a second process: its command line and the three pipes that join it to the launcher.
//!
//! Standard input is the doorbell: a byte says that the run has ended, end of file that the launcher is gone. Standard error carries lines for
//! the person. The pipes are made once and given to each incarnation, so that nothing is lost between two of them.

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
        spawn_apart(command, mask)
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
    spawn_apart(command, mask)
}

/// This program, even if its file was replaced meanwhile.
fn own_command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("goscope");
    command
}

/// In a process group of its own, which the terminal's signals do not reach.
fn spawn_apart(mut command: Command, mask: Mask) -> io::Result<i32> {
    command.process_group(0);
    prepare_child(&mut command, ChildSetup { mask, as_given: false, dies_with_us: false, gotraceback: false });
    let child = command.spawn()?;
    Ok(i32::try_from(child.id()).expect("a process id fits pid_t, where it came from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_nobody_listens_to_is_not_held_up() {
        let options = AgentOptions { data: PathBuf::new(), config: None, target: None, notices: Notices::Log };
        let (agent, _ear) = Agent::new(options, None).expect("pipes");
        let voice = agent.voice.expect("a voice");
        let full = std::iter::repeat_with(|| rustix::io::write(&voice, &[b'x'; 4096])).find_map(Result::err);
        assert_eq!(full, Some(rustix::io::Errno::AGAIN));
    }
}
