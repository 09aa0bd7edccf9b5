//! Child processes: output into files, ends awaited with a deadline, nothing left behind.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// What a process left when it had ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Exit status, where it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A child whose output goes to two files. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with an empty standard input, writing `NAME.stdout` and `NAME.stderr` in `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (stdout, stderr) = (folder.join(format!("{name}.stdout")), folder.join(format!("{name}.stderr")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, stdout, stderr })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(pid(self.id())?, signal)?)
    }

    /// What has come on standard error so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stderr_so_far(&self) -> anyhow::Result<Vec<u8>> {
        Ok(fs::read(&self.stderr)?)
    }

    /// Whether it has ended; it may still have to be waited for.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    /// As [`wait::until`], but gives up as soon as the process has ended without an answer.
    ///
    /// # Errors
    /// The deadline passed, or the process ended.
    pub fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        wait::until(what, || {
            let had_ended = self.has_ended();
            match probe() {
                None if had_ended => Some(Err(anyhow::anyhow!("the process ended before: {what}"))),
                answer => answer.map(Ok),
            }
        })?
    }

    /// Waits for a text on standard error.
    ///
    /// # Errors
    /// The deadline passed, or the process ended without it.
    pub fn await_stderr(&self, text: &str) -> anyhow::Result<()> {
        let found = || contains(&self.stderr_so_far().ok()?, text.as_bytes()).then_some(());
        self.until(&format!("{text:?} on standard error"), found)
            .with_context(|| String::from_utf8_lossy(&self.stderr_so_far().unwrap_or_default()).into_owned())
    }

    /// Whether it ends by itself before the deadline.
    pub fn ends_within(&mut self, deadline: Duration) -> bool {
        wait::until_within(deadline, "the end of the process", || self.child.try_wait().transpose()).is_ok()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The deadline passed; the process is killed.
    pub fn finish(self) -> anyhow::Result<Outcome> {
        self.finish_within(wait::DEADLINE)
    }

    /// As [`finish`](Self::finish), with a deadline of its own.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub fn finish_within(mut self, deadline: Duration) -> anyhow::Result<Outcome> {
        let ended = wait::until_within(deadline, "the end of the process", || self.child.try_wait().transpose());
        let status = ended
            .with_context(|| String::from_utf8_lossy(&self.stderr_so_far().unwrap_or_default()).into_owned())??;
        Ok(Outcome { status, stdout: fs::read(&self.stdout)?, stderr: fs::read(&self.stderr)? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Runs a command to its end and collects its output.
///
/// # Errors
/// It cannot be started, or the deadline passed.
pub fn run(command: &mut Command) -> anyhow::Result<Outcome> {
    run_within(wait::DEADLINE, command)
}

/// As [`run`], with a deadline of its own.
///
/// # Errors
/// As for [`run`].
pub fn run_within(deadline: Duration, command: &mut Command) -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    Process::spawn(command, folder.path(), "run").and_then(|process| process.finish_within(deadline)).with_context(
        || {
            // The words tell which of many calls it was; a token among them is nobody's business.
            let words = command.get_args().map(|word| word.to_string_lossy()).filter(|word| !word.contains("gsc_"));
            format!("{} {:?}", command.get_program().display(), words.collect::<Vec<_>>())
        },
    )
}

/// A process id that is known to be one.
///
/// # Errors
/// The number is 0 or too large.
pub fn pid(id: u32) -> anyhow::Result<Pid> {
    Pid::from_raw(i32::try_from(id)?).context("process id 0")
}

/// The process and all below it, as `/proc` shows them now.
///
/// # Errors
/// `/proc` cannot be read.
pub fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // Field 4, behind the command's name, which ends with the last parenthesis.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).and_then(|p| p.parse().ok());
        parents.push((id, parent.unwrap_or(0_u32)));
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(id, _)| *id));
        next += 1;
    }
    Ok(family)
}

/// The words of a process's command line; empty once it has ended.
#[must_use]
pub fn command_line(id: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).filter(|w| !w.is_empty()).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

/// Whether `needle` occurs in `haystack`.
#[must_use]
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|w| w == needle)
}
