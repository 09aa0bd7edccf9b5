//! Process 1 of the agent's container, played by `--supervise`: it stays, whatever becomes of the agent.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use super::agent::{command, free_address, get, terminate, until};
use super::said;

/// A configuration that keeps everything in the folder.
fn config(folder: &Path) -> PathBuf {
    let path = |name: &str| folder.join(name);
    let text = format!("intake: {{ spool: {:?} }}\nstore: {{ path: {:?} }}\n", path("spool"), path("data"));
    std::fs::write(path("goscope.yaml"), text).expect("written");
    path("goscope.yaml")
}

/// Starts process 1 and waits for its worker to serve.
fn supervised(folder: &Path, metrics: SocketAddr) -> (Child, Pid) {
    let mut first = command(free_address(), metrics);
    let first = first.args(["agent", "--supervise", "--config"]).arg(config(folder)).spawn().expect("it starts");
    until("/livez answers", || is_live(metrics).then_some(()));
    let worker = worker_of(&first).expect("a worker");
    (first, worker)
}

fn is_live(metrics: SocketAddr) -> bool {
    get(metrics, "/livez").is_some_and(|said| said.starts_with("HTTP/1.1 200 "))
}

/// The only child, if it is called as a worker.
fn worker_of(first: &Child) -> Option<Pid> {
    let parent = first.id().to_string();
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Name in parentheses, state, parent.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(parent.as_str()))
    };
    let pids = std::fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children: Vec<i32> = pids.filter(is_child).collect();
    let [child] = children[..] else { return None };
    let line = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
    line.starts_with(b"goscope-agent\0agent\0--worker\0").then(|| Pid::from_raw(child))?
}

fn kill(pid: Pid, signal: Signal) {
    kill_process(pid, signal).expect("it lives");
}

/// How process 1 ended, and the lines of the log.
fn end(first: Child) -> (ExitStatus, Vec<Value>) {
    let output = first.wait_with_output().expect("it ended");
    let text = String::from_utf8(output.stderr).expect("text");
    (output.status, text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

#[test]
fn a_worker_that_is_killed_is_started_again_below_the_same_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = free_address();
    let (first, worker) = supervised(folder.path(), metrics);
    kill(worker, Signal::KILL);
    let next = until("another worker", || worker_of(&first).filter(|next| *next != worker));
    until("/livez answers again", || is_live(metrics).then_some(()));
    assert_eq!(worker_of(&first), Some(next));
    terminate(&first);
    let (status, log) = end(first);
    assert!(status.success(), "{status} {log:?}");
    let died: Vec<&Value> = log.iter().filter(|line| line["message"] == "agent died and is started again").collect();
    let [died] = died[..] else { panic!("{log:?}") };
    assert_eq!(died["signal"], "SIGKILL");
    assert_eq!(died["level"], "ERROR");
    assert_eq!(log.iter().filter(|line| line["message"] == "agent stopped").count(), 1, "{log:?}");
}

#[test]
fn a_stop_ends_both_as_it_ends_the_agent_alone() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, worker) = supervised(folder.path(), free_address());
        kill(Pid::from_child(&first), signal);
        let (status, log) = end(first);
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert_eq!(log.last().map(|line| &line["message"]), Some(&Value::from("agent stopped")), "{log:?}");
        assert!(test_kill_process(worker).is_err(), "the worker lives on");
    }
}

#[test]
fn a_stop_that_comes_with_a_death_starts_nothing_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, worker) = supervised(folder.path(), free_address());
    let pid = Pid::from_child(&first);
    // It finds both when it goes on.
    kill(pid, Signal::STOP);
    kill(worker, Signal::KILL);
    terminate(&first);
    kill(pid, Signal::CONT);
    let (status, log) = end(first);
    assert_eq!(status.signal(), Some(9), "as the worker ended: {log:?}");
    assert!(log.iter().all(|line| line["message"] != "agent died and is started again"), "{log:?}");
}

#[test]
fn what_cannot_be_used_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("goscope.yaml");
    std::fs::write(&wrong, "intak: {}\n").expect("written");
    let agent = |options: &[&str]| {
        let mut agent = command(free_address(), free_address());
        said(agent.arg("agent").args(options).arg("--config").arg(&wrong).output().expect("it runs"))
    };
    let (status, out, err) = agent(&["--supervise"]);
    assert_eq!(status, Some(2), "{err}");
    assert_eq!((status, out, err), agent(&[]), "the same without");
}

#[test]
fn a_worker_does_not_outlive_process_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = free_address();
    let (mut first, worker) = supervised(folder.path(), metrics);
    first.kill().expect("it lives");
    first.wait().expect("it ended");
    // Whoever takes in orphans may not be quick to reap: what counts is that nobody serves.
    until("nobody serves", || get(metrics, "/livez").is_none().then_some(()));
    until("its sockets and memory are gone", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.as_raw_nonzero())).unwrap_or_default();
        (!status.contains("VmRSS")).then_some(())
    });
}
