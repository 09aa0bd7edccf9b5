//! A network namespace with nothing but its own loopback, as a pod has one. Processes in it see no listener of the machine.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

/// The namespace; it ends with this and the last process in it.
#[derive(Debug)]
pub struct Network {
    holder: Child,
    /// How others enter it.
    enter: &'static [&'static str],
}

impl Network {
    /// A new one; without root by a user namespace.
    ///
    /// # Errors
    /// The system lets nobody make one.
    pub fn new() -> anyhow::Result<Self> {
        let ways: [(&[&str], &[&str]); 2] = [
            (&["--net"], &["--net"]),
            (&["--user", "--map-root-user", "--net"], &["--user", "--preserve-credentials", "--net"]),
        ];
        let may = |flags: &[&str]| {
            Command::new("unshare").args(flags).arg("true").output().is_ok_and(|output| output.status.success())
        };
        let (make, enter) = ways.into_iter().find(|(make, _)| may(make)).context("no network namespace may be made")?;
        let mut holder = Command::new("unshare")
            .args(make)
            .args(["sh", "-c", "ip link set lo up && echo up && exec sleep infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().context("piped")?).read_line(&mut said)?;
        let network = Self { holder, enter };
        ensure!(said == "up\n", "no loopback in a new network namespace");
        Ok(network)
    }

    /// `program`, to be run in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string()]).args(self.enter).arg("--").arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
