//! The node: commands for it and on its network, and what its processes look like from here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::process::{Outcome, command_line, pid, run};

/// `kubectl` as administrator.
#[must_use]
pub fn kubectl(args: &[&str]) -> Command {
    script("kubectl", args)
}

/// A command in the node's network.
#[must_use]
pub fn net(args: &[&str]) -> Command {
    script("net", args)
}

/// The folder of the node's state, as `node.sh` has it.
///
/// # Errors
/// There is no home directory.
pub fn state() -> anyhow::Result<PathBuf> {
    Ok(match std::env::var_os("GOSCOPE_CLUSTER_RUN") {
        Some(run) => PathBuf::from(run),
        None => Path::new(&std::env::var_os("HOME").context("no HOME")?).join(".cache/goscope-cluster/run"),
    })
}

/// What the API server answers the administrator to a GET. For what is asked again and again: a start of kubectl costs four times as much.
///
/// # Errors
/// There is no such object, or the node is not up.
pub fn api(path: &str) -> anyhow::Result<Value> {
    let pki = state()?.join("pki");
    let [ca, certificate, key] = ["ca.crt", "admin.crt", "admin.key"].map(|file| pki.join(file).display().to_string());
    let url = format!("https://127.0.0.1{path}");
    let answer = curl(&["-f", "--cacert", &ca, "--cert", &certificate, "--key", &key, &url])?;
    ensure!(answer.code() == Some(0), "{path}: {}", answer.err());
    Ok(serde_json::from_slice(&answer.stdout)?)
}

/// Imports an OCI archive.
///
/// # Errors
/// containerd refused it.
pub fn load(archive: &Path) -> anyhow::Result<()> {
    succeed(script("load", &[&archive.display().to_string()])).map(drop)
}

/// Gives an image of the node a further name.
///
/// # Errors
/// There is no such image.
pub fn tag(image: &str, name: &str) -> anyhow::Result<()> {
    succeed(script("tag", &[image, name])).map(drop)
}

/// Runs a command that must end with status 0, and returns its standard output.
///
/// # Errors
/// It did not; its messages are in the error.
pub fn succeed(mut command: Command) -> anyhow::Result<String> {
    let outcome = run(&mut command)?;
    ensure!(outcome.code() == Some(0), "{:?}: {}{}", command.get_args(), outcome.out(), outcome.err());
    Ok(outcome.out())
}

/// `curl` in the node's network, without proxies and configuration files.
///
/// # Errors
/// It cannot be started. A refusal by the other side is none.
pub fn curl(args: &[&str]) -> anyhow::Result<Outcome> {
    run(&mut net(&[&["curl", "-q", "-sS", "--noproxy", "*"], args].concat()))
}

/// A process of a container, by its pod and its first word, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerProcess(u32);

impl ContainerProcess {
    /// The only such process.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn find(pod: &str, words: &[&str]) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if command_line(id).iter().map(String::as_str).take(words.len()).eq(words.iter().copied())
                && fs::read(format!("/proc/{id}/environ")).is_ok_and(|all| is_of(&all, pod))
            {
                found.push(id);
            }
        }
        ensure!(found.len() == 1, "{} processes {words:?} of pod {pod}", found.len());
        Ok(Self(found[0]))
    }

    /// Sends a signal from outside the pod, as the kernel and the kubelet do.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(pid(self.0)?, signal)?)
    }

    /// The container's files as its processes see them. Gone when the process has ended.
    #[must_use]
    pub fn root(self) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join("root")
    }

    /// TCP ports that the pod listens on, whichever container opened them.
    ///
    /// # Errors
    /// The process has ended.
    pub fn listening(self) -> anyhow::Result<BTreeSet<u16>> {
        let mut ports = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            let text = fs::read_to_string(format!("/proc/{}/net/{table}", self.0))?;
            for line in text.lines().skip(1) {
                // Number, own address, the other's, state.
                let words: Vec<&str> = line.split_whitespace().collect();
                let (Some(own), Some(&"0A")) = (words.get(1), words.get(3)) else { continue };
                let (_, port) = own.rsplit_once(':').context("no port")?;
                ports.insert(u16::from_str_radix(port, 16)?);
            }
        }
        Ok(ports)
    }

    /// Its folder in the hierarchy that accounts for memory.
    ///
    /// # Errors
    /// The process has ended, or the kernel accounts for nothing.
    pub fn memory_cgroup(self) -> anyhow::Result<PathBuf> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.0))?;
        let path = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let root = match controllers {
                "" if kills_whole_containers() => "/sys/fs/cgroup",
                "memory" => "/sys/fs/cgroup/memory",
                _ => return None,
            };
            Some(Path::new(root).join(path.trim_start_matches('/')))
        };
        groups.lines().find_map(path).with_context(|| format!("no group for memory in {groups}"))
    }

    /// Makes it the kernel's first choice when its container's memory is used up.
    ///
    /// # Errors
    /// The process has ended.
    pub fn offer_to_the_kernel(self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/oom_score_adj", self.0), "1000")?)
    }

    /// Makes it the kernel's choice by its size alone, among processes that it has nothing else to judge by.
    ///
    /// # Errors
    /// The process has ended.
    pub fn weigh_by_size(self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/oom_score_adj", self.0), "0")?)
    }

    /// Resident memory, in KiB.
    ///
    /// # Errors
    /// The process has ended.
    pub fn resident_kib(self) -> anyhow::Result<u64> {
        self.kib("status", "VmRSS:")
    }

    /// Memory that no other process has, in KiB: what it costs beside others of the same executable.
    ///
    /// # Errors
    /// The process has ended.
    pub fn private_kib(self) -> anyhow::Result<u64> {
        Ok(self.kib("smaps_rollup", "Private_Clean:")? + self.kib("smaps_rollup", "Private_Dirty:")?)
    }

    fn kib(self, file: &str, name: &str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    }
}

/// Whether the kernel kills a container as a whole when its memory is used up, which the kubelet asks for on cgroup v2 only.
#[must_use]
pub fn kills_whole_containers() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn is_of(environment: &[u8], pod: &str) -> bool {
    environment.split(|b| *b == 0).any(|variable| variable.strip_prefix(b"HOSTNAME=") == Some(pod.as_bytes()))
}

fn script(verb: &str, args: &[&str]) -> Command {
    let mut command = Command::new(folder().join("node.sh"));
    command.arg(verb).args(args);
    command
}

/// `tests/cluster`.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}
