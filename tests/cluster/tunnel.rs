//! `kubectl port-forward` to a service that has the chart as a part of its own: unmodified clients go through it, no refusal breaks it, and in sealed
//! mode no port leads around it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node::{self, ContainerProcess};
use goscope_e2e::process::{Outcome, Process, run_within};
use goscope_e2e::{go, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::chart;
use crate::helm::Helm;

/// The gate.
const GATE: u16 = 6061;
/// Where the shop serves pprof, unless it is sealed.
const UNSEALED: u16 = 6060;
/// The example chart's Deployment.
const DEPLOYMENT: &str = "deploy/shop";

/// A running `kubectl port-forward`.
pub(crate) struct Tunnel {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Tunnel {
    /// To the gate of a pod.
    pub(crate) fn open(namespace: &Namespace, pod: &str) -> anyhow::Result<Self> {
        Self::to(namespace, &format!("pod/{pod}"), GATE)
    }

    pub(crate) fn to(namespace: &Namespace, target: &str, port: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = namespace.command(&["port-forward", target, &format!(":{port}")]);
        let process = Process::spawn(&mut command, folder.path(), "port-forward")?;
        let port = process.until("the tunnel's port", || {
            let said = std::fs::read_to_string(folder.path().join("port-forward.stdout")).ok()?;
            let (_, rest) = said.split_once("Forwarding from 127.0.0.1:")?;
            rest.split_once(" -> ")?.0.parse().ok()
        })?;
        Ok(Self { process, folder, port })
    }

    pub(crate) fn url(&self, user: &str, path: &str) -> String {
        format!("http://{user}127.0.0.1:{}/debug/pprof/{path}", self.port)
    }

    /// Status by curl, each on a connection of its own.
    pub(crate) fn status(&self, token: &str, path: &str, times: usize) -> anyhow::Result<Vec<String>> {
        let url = self.url("", path);
        let authorization = format!("Authorization: Bearer {token}");
        let mut args = vec!["-w", "%{http_code}\n", "-o", "/dev/null", "-H", "Connection: close", "-H", &authorization];
        for _ in 1..times {
            args.extend([url.as_str(), "-o", "/dev/null"]);
        }
        args.push(&url);
        let answers = node::curl(&args)?;
        ensure!(answers.code() == Some(0), "{}{}", answers.err(), self.log());
        Ok(answers.out().lines().map(str::to_owned).collect())
    }

    /// Status and text of one answer on any path.
    pub(crate) fn ask(&self, token: &str, path: &str) -> anyhow::Result<(String, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let answer = node::curl(&["-w", "\n%{http_code}", "-H", &format!("Authorization: Bearer {token}"), &url])?;
        ensure!(answer.code() == Some(0), "{}{}", answer.err(), self.log());
        let said = answer.out();
        let (text, status) = said.rsplit_once('\n').context("no status")?;
        Ok((status.to_owned(), text.to_owned()))
    }

    /// `go tool pprof`, again where nothing but the limit of one request a second was in the way.
    fn pprof(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        // The Go tool is found from here; its connections are made in the node's network.
        let mut tool = go::command(go::USUAL);
        tool.args(["env", "GOROOT"]);
        let root = node::succeed(tool)?;
        let go = Path::new(root.trim()).join("bin/go").display().to_string();
        wait::until("pprof is within the limit", || {
            let mut command: Command = node::net(&[&[go.as_str(), "tool", "pprof"], args].concat());
            command.env("GOTOOLCHAIN", "local").env("PPROF_TMPDIR", self.folder.path());
            match run_within(go::TOOL_DEADLINE, &mut command) {
                Ok(outcome) if outcome.err().contains("429") => None,
                answer => Some(answer),
            }
        })?
    }

    /// It is the same tunnel as in the beginning, and leads to the gate.
    fn is_unbroken(&self, token: &str) -> anyhow::Result<()> {
        wait::until("an answer for the right token, as soon as the limit allows", || {
            (self.status(token, "heap", 1).ok()? == ["200"]).then_some(())
        })
        .with_context(|| self.log())?;
        ensure!(!self.process.has_ended(), "{}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.process.stderr_so_far().unwrap_or_default()).into_owned()
    }
}

#[test]
fn through_a_deployment() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("tunnel")?;
    helm.succeed(&chart::with_values(&["install"], &helm.shop(), &namespace, &[]))?;
    let pod = chart::pod(&namespace)?;
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    namespace.await_ready(name)?;
    {
        let tunnel = Tunnel::to(&namespace, DEPLOYMENT, GATE)?;
        every_profile(&tunnel, &namespace.token)?;
        a_trace(&tunnel, &namespace.token)?;
        a_hundred_wrong_tokens(&tunnel)?;
        tunnel.is_unbroken(&namespace.token)?;
        twenty_aborted_downloads(&tunnel, &namespace.token)?;
        tunnel.is_unbroken(&namespace.token)?;
        ensure!(!namespace.agent_log(name).contains(&namespace.token), "the token stands in the agent's log");
    }
    // Who may forward to the gate may forward to the app: an unsealed app's own port leads around.
    let open = ways_around(&namespace, &pod)?;
    ensure!(open == [format!("port-forward to {UNSEALED}")], "{open:?}");

    let sealed = ["debug-sidecar.sealed.enabled=true", "debugAddress=unix:///run/goscope/debug.sock"];
    helm.succeed(&chart::with_values(&["upgrade"], &helm.shop(), &namespace, &sealed))?;
    let pod = chart::pod(&namespace)?;
    let open = ways_around(&namespace, &pod)?;
    ensure!(open.is_empty(), "{open:?}");
    Tunnel::to(&namespace, DEPLOYMENT, GATE)?.is_unbroken(&namespace.token)
}

fn every_profile(tunnel: &Tunnel, token: &str) -> anyhow::Result<()> {
    let refused = tunnel.pprof(&["-top", &tunnel.url("", "heap")])?;
    ensure!(refused.code() != Some(0) && refused.err().contains("401"), "{}", refused.err());
    let user = format!("alice:{token}@");
    for (path, expected) in [
        ("heap", "Type: inuse_space"),
        ("allocs", "Type: alloc_space"),
        ("block", "Type: delay"),
        ("mutex", "Type: delay"),
        ("goroutine", "Type: goroutine"),
        ("goroutineleak", "Type: goroutineleak"),
        ("threadcreate", "Type: threadcreate"),
        ("profile?seconds=1", "Type: cpu"),
        ("heap?seconds=1", "Type: inuse_space"),
    ] {
        let top = tunnel.pprof(&["-top", &tunnel.url(&user, path)])?;
        ensure!(top.code() == Some(0) && top.out().contains(expected), "{path}: {}{}", top.out(), top.err());
    }
    Ok(())
}

/// By curl, because `go tool trace` reads files only.
fn a_trace(tunnel: &Tunnel, token: &str) -> anyhow::Result<()> {
    let file = tunnel.folder.path().join("trace.out").display().to_string();
    let authorization = format!("Authorization: Bearer {token}");
    let url = tunnel.url("", "trace?seconds=1");
    wait::until("a trace, as soon as the limit allows", || {
        let fetched = node::curl(&["-f", "-o", &file, "-H", &authorization, &url]).ok()?;
        (fetched.code() == Some(0)).then_some(())
    })?;
    let mut read = go::command(go::NEWEST);
    let events = run_within(go::TOOL_DEADLINE, read.args(["tool", "trace", "-d=parsed", &file]))?;
    ensure!(events.code() == Some(0) && events.out().contains("GoID="), "{}", events.err());
    Ok(())
}

fn a_hundred_wrong_tokens(tunnel: &Tunnel) -> anyhow::Result<()> {
    let mut counts = BTreeMap::new();
    for status in tunnel.status("gsc_wrong", "heap", 100)? {
        *counts.entry(status).or_insert(0) += 1;
    }
    println!("a hundred wrong tokens: {counts:?}");
    ensure!(counts.values().sum::<i32>() == 100 && counts.keys().all(|s| s == "401" || s == "429"), "{counts:?}");
    ensure!(counts.contains_key("401"), "{counts:?}");
    Ok(())
}

fn twenty_aborted_downloads(tunnel: &Tunnel, token: &str) -> anyhow::Result<()> {
    let authorization = format!("Authorization: Bearer {token}");
    let mut aborted = 0;
    wait::until("twenty aborted downloads", || {
        let url = tunnel.url("", "profile?seconds=30");
        let answer = node::curl(&["-f", "--max-time", "0.3", "-o", "/dev/null", "-H", &authorization, &url]).ok()?;
        // 28: cut off while it waited for the profile; else it was refused by a limit.
        aborted += usize::from(answer.code() == Some(28));
        (aborted == 20).then_some(())
    })
    .with_context(|| format!("{aborted} aborted\n{}", tunnel.log()))
}

/// Where pprof's index is to be had without a token: from the node's network and through port-forward, on each port that the pod listens on.
fn ways_around(namespace: &Namespace, pod: &Value) -> anyhow::Result<Vec<String>> {
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    let address = namespace.await_ready(name)?;
    let mut ports = ContainerProcess::find(name, &["/shop"])?.listening()?;
    ensure!(ports.contains(&GATE), "{ports:?}");
    ports.insert(UNSEALED);
    let is_index = |url: &str| {
        anyhow::Ok(node::curl(&["-f", "--max-time", "10", url])?.out().contains("Types of profiles available"))
    };
    let mut open = Vec::new();
    for port in ports {
        if is_index(&format!("http://{address}:{port}/debug/pprof/"))? {
            open.push(format!("network to {port}"));
        }
        if is_index(&Tunnel::to(namespace, &format!("pod/{name}"), port)?.url("", ""))? {
            open.push(format!("port-forward to {port}"));
        }
    }
    Ok(open)
}
