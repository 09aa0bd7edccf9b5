//! `kubectl port-forward` to the gate: unmodified clients go through it, and no refusal breaks it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::process::{Outcome, Process, run};
use goscope_e2e::{go, wait};
use tempfile::TempDir;

use crate::pod::{Pod, USUAL};

/// A running `kubectl port-forward`.
pub(crate) struct Tunnel {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Tunnel {
    pub(crate) fn open(namespace: &Namespace, pod: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = namespace.command(&["port-forward", &format!("pod/{pod}"), ":6061"]);
        let process = Process::spawn(&mut command, folder.path(), "port-forward")?;
        let port = process.until("the tunnel's port", || {
            let said = std::fs::read_to_string(folder.path().join("port-forward.stdout")).ok()?;
            let (_, rest) = said.split_once("Forwarding from 127.0.0.1:")?;
            rest.split_once(" -> 6061")?.0.parse().ok()
        })?;
        Ok(Self { process, folder, port })
    }

    fn url(&self, user: &str, path: &str) -> String {
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

    fn pprof(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        // The Go tool is found from here; its connections are made in the node's network.
        let mut tool = go::command(go::USUAL);
        tool.args(["env", "GOROOT"]);
        let root = node::succeed(tool)?;
        let go = Path::new(root.trim()).join("bin/go").display().to_string();
        let mut command: Command = node::net(&[&[go.as_str(), "tool", "pprof"], args].concat());
        command.env("GOTOOLCHAIN", "local").env("PPROF_TMPDIR", self.folder.path());
        run(&mut command)
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.process.stderr_so_far().unwrap_or_default()).into_owned()
    }
}

#[test]
fn go_tool_pprof_goes_through_the_tunnel_with_a_token_of_the_secret() -> anyhow::Result<()> {
    let namespace = Namespace::create("tunnel-pprof")?;
    let pod = Pod { name: "shop-pprof", args: &["-fault", "cpu-spin"], ..USUAL };
    pod.ready(&namespace)?;
    let tunnel = Tunnel::open(&namespace, pod.name)?;

    let refused = tunnel.pprof(&["-top", &tunnel.url("", "heap")])?;
    ensure!(refused.code() != Some(0) && refused.err().contains("401"), "{}", refused.err());

    let user = format!("alice:{}@", namespace.token);
    for (path, expected) in [
        ("heap", "Type: inuse_space"),
        ("goroutine", "Type: goroutine"),
        ("profile?seconds=2", "example.com/shop/internal/fault.spin"),
    ] {
        let top = tunnel.pprof(&["-top", &tunnel.url(&user, path)])?;
        ensure!(top.code() == Some(0) && top.out().contains(expected), "{path}: {}{}", top.out(), top.err());
    }
    ensure!(!tunnel.process.has_ended(), "{}", tunnel.log());
    ensure!(!namespace.agent_log(pod.name).contains(&namespace.token), "the token stands in the agent's log");
    Ok(())
}

#[test]
fn a_hundred_wrong_tokens_do_not_break_the_tunnel() -> anyhow::Result<()> {
    let namespace = Namespace::create("tunnel-wrong")?;
    let pod = Pod { name: "shop-wrong", ..USUAL };
    pod.ready(&namespace)?;
    let tunnel = Tunnel::open(&namespace, pod.name)?;
    let mut counts = BTreeMap::new();
    for status in tunnel.status("gsc_wrong", "heap", 100)? {
        *counts.entry(status).or_insert(0) += 1;
    }
    println!("a hundred wrong tokens: {counts:?}");
    ensure!(counts.values().sum::<i32>() == 100 && counts.keys().all(|s| s == "401" || s == "429"), "{counts:?}");
    ensure!(counts.contains_key("401"), "{counts:?}");
    // The same tunnel, so the same source: as soon as its limit allows.
    wait::until("an answer for the right token", || {
        let status = tunnel.status(&namespace.token, "heap", 1).ok()?;
        (status == ["200"]).then_some(())
    })
    .with_context(|| tunnel.log())?;
    ensure!(!tunnel.process.has_ended(), "{}", tunnel.log());
    Ok(())
}

#[test]
fn twenty_aborted_downloads_do_not_break_the_tunnel() -> anyhow::Result<()> {
    let namespace = Namespace::create("tunnel-aborted")?;
    let pod = Pod { name: "shop-aborted", ..USUAL };
    pod.ready(&namespace)?;
    let tunnel = Tunnel::open(&namespace, pod.name)?;
    let authorization = format!("Authorization: Bearer {}", namespace.token);
    let mut aborted = 0;
    wait::until("twenty aborted downloads", || {
        let url = tunnel.url("", "profile?seconds=30");
        let answer = node::curl(&["-f", "--max-time", "0.3", "-o", "/dev/null", "-H", &authorization, &url]).ok()?;
        // 28: cut off while it waited for the profile; else it was refused by a limit.
        aborted += usize::from(answer.code() == Some(28));
        (aborted == 20).then_some(())
    })
    .with_context(|| format!("{aborted} aborted\n{}", tunnel.log()))?;
    wait::until("an answer", || (tunnel.status(&namespace.token, "heap", 1).ok()? == ["200"]).then_some(()))
        .with_context(|| tunnel.log())?;
    ensure!(!tunnel.process.has_ended(), "{}", tunnel.log());
    Ok(())
}
