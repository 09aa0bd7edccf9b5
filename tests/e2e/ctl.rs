//! `goscope ctl` without a cluster: an agent at hand, asked by its address. Also under the name by which kubectl finds it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::process::{Outcome, Process, run};
use goscope_e2e::session::{Session, Setup, goscope};
use goscope_e2e::{go, wait};
use rustix::process::Signal;
use serde_json::Value;

/// `goscope ctl` in the folder of the session, with its token unless `args` say otherwise.
fn ctl(session: &Session, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(goscope()?);
    command.arg("ctl").args(args).current_dir(session.place.folder());
    command.env_remove("GOSCOPE_TOKEN_FILE").env("KUBECONFIG", "/nowhere");
    Ok(command)
}

fn place(session: &Session) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}", session.place.gate_port);
    ["--url", &url, "--token-file", "goscope-data/token"].map(str::to_owned).to_vec()
}

fn succeed(session: &Session, args: &[&str]) -> anyhow::Result<Outcome> {
    let place = place(session);
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    // Flags of the tool behind -- stay last.
    let (own, rest) = args.split_at(args.iter().position(|arg| *arg == "--").unwrap_or(args.len()));
    let mut command = ctl(session, &[own, &place, rest].concat())?;
    let go_root = run(go::command(go::USUAL).args(["env", "GOROOT"]))?.out();
    let path = format!("{}/bin:{}", go_root.trim(), std::env::var("PATH").unwrap_or_default());
    let outcome = run(command.env("PATH", path).env("GOTOOLCHAIN", "local"))?;
    ensure!(outcome.code() == Some(0), "{args:?}: {}{}{}", outcome.out(), outcome.err(), session.place.agent_log());
    ensure!(!(outcome.out() + &outcome.err()).contains(&session.place.token()?), "the token is shown");
    Ok(outcome)
}

#[test]
fn an_agent_at_hand_is_asked_by_its_address() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    let status = wait::until("the target is up", || {
        let said = succeed(&session, &["status"]).ok()?.out();
        said.contains("target     up at 127.0.0.1:").then_some(said)
    })?;
    ensure!(status.contains("(run)\n") && status.contains("you        me: basic"), "{status}");
    let document: Value = serde_json::from_str(&succeed(&session, &["status", "-o", "json"])?.out())?;
    ensure!(document["identity"]["name"] == "me", "{document}");

    let file = succeed(&session, &["capture", "heap", "--reason", "a test"])?.out();
    let file = session.place.folder().join(file.trim());
    ensure!(fs::read(&file)?.starts_with(&[0x1f, 0x8b]), "{} is no profile", file.display());
    let top = succeed(&session, &["pprof", "goroutine", "-o", "goroutine.pb.gz", "--", "-top"])?.out();
    ensure!(top.contains("Type: goroutine"), "{top}");
    let id = succeed(&session, &["capture", "goroutine", "--debug", "2", "--keep-remote"])?.out();
    let text =
        succeed(&session, &["fetch", id.trim(), "-o", "stacks"]).map(|_| session.place.folder().join("stacks"))?;
    ensure!(fs::metadata(&text)?.len() > 0);
    let listed = succeed(&session, &["artifacts"])?.out();
    ensure!(listed.lines().count() == 4 && listed.contains(id.trim()) && listed.contains("heap"), "{listed}");
    ensure!(succeed(&session, &["incidents"])?.err().contains("no incidents"));

    // Ctrl-C cancels on the agent.
    let place = place(&session);
    let args: Vec<&str> =
        ["capture", "cpu", "--seconds", "30"].into_iter().chain(place.iter().map(String::as_str)).collect();
    let process = Process::spawn(&mut ctl(&session, &args)?, session.place.folder(), "capture")?;
    process.await_stderr("waiting for cpu")?;
    process.signal(Signal::INT)?;
    process.await_stderr("cancelled")?;
    Ok(())
}

/// As `attach` starts it: it ends by itself or is told to, and leaves nothing in the memory that it shares with the app.
#[test]
fn an_attached_agent_takes_its_folder_with_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, lifetime, is_told) in [("told", "10m", true), ("timed", "3s", false)] {
        let scratch = folder.path().join(name);
        let mut command = Command::new(goscope()?);
        command.args(["agent", "--for", lifetime, "--target", "127.0.0.1:9", "--scratch"]).arg(&scratch);
        command.env_remove("GOSCOPE_CONFIG");
        command.env("GOSCOPE_LISTEN_DEBUG", "127.0.0.1:0").env("GOSCOPE_LISTEN_METRICS", "127.0.0.1:0");
        let process = Process::spawn(&mut command, folder.path(), &format!("agent-{name}"))?;
        process.until("the store", || scratch.join("data").is_dir().then_some(()))?;
        if is_told {
            process.signal(Signal::TERM)?;
        }
        wait::until("the end", || process.has_ended().then_some(()))?;
        ensure!(!scratch.exists(), "{name}: {} is left", scratch.display());
    }
    Ok(())
}

#[test]
fn what_cannot_be_used_is_told_in_a_sentence() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    fs::write(session.place.folder().join("wrong"), "gsc_hunter2")?;
    let url = format!("http://127.0.0.1:{}", session.place.gate_port);
    for (args, expected) in [
        (vec!["status"], "say which pod"),
        (vec!["status", "pod/a"], "there is no kubeconfig /nowhere"),
        (vec!["status", "cronjob/a"], "has no pods that could be found"),
        (vec!["status", "--url", &url, "--token-file", "wrong"], "holds no token"),
        (vec!["status", "--url", &url, "--token-file", "nowhere"], "cannot read the token file nowhere"),
        (vec!["status", "--url", "http://10.0.0.1:1"], "sent in clear"),
        (vec!["status", "pod/a", "--url", &url], "--url stands in place of TARGET"),
        (vec!["forward", "--url", &url, "--token-file", "goscope-data/token"], "nothing to forward"),
        (vec!["fetch", "nowhere", "--url", &url, "--token-file", "goscope-data/token"], "status 4"),
    ] {
        let outcome = run(&mut ctl(&session, &args)?)?;
        ensure!(outcome.code() == Some(2) && outcome.out().is_empty(), "{args:?}: {}{}", outcome.out(), outcome.err());
        ensure!(outcome.err().contains(expected) && !outcome.err().contains("hunter2"), "{args:?}: {}", outcome.err());
    }
    Ok(())
}

#[test]
fn kubectl_finds_it_by_its_name() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("kubectl-goscope");
    symlink(goscope()?, &plugin)?;
    let help = run(Command::new(&plugin).arg("--help"))?.out();
    ensure!(help.contains("Usage: kubectl goscope "), "{help}");
    let ours = run(Command::new(goscope()?).args(["help", "ctl"]))?.out();
    ensure!(ours.starts_with("Example:\n  kubectl goscope status deploy/shop\n"), "{ours}");
    for verb in ["status", "incidents", "artifacts", "fetch", "capture", "pprof", "forward", "attach"] {
        let help = run(Command::new(&plugin).args(["help", verb]))?;
        ensure!(help.code() == Some(0) && help.out().starts_with("Example:\n"), "{verb}: {}{}", help.out(), help.err());
    }
    let version = run(Command::new(&plugin).arg("--version"))?.out();
    ensure!(version.starts_with("kubectl-goscope "), "{version}");
    let first = version.lines().next().context("a line")?;
    ensure!(first.contains(env!("CARGO_PKG_VERSION")), "{version}");
    Ok(())
}
