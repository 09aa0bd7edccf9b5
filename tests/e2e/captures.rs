//! Captures by the API, as curl asks for them, of a real Go program; what is stored is read by the Go tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::process::{Outcome, run};
use goscope_e2e::session::{Session, Setup};
use goscope_e2e::{go, process, wait};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// An answer of the API: status, headers, body.
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

fn curl(session: &Session, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
    let url = format!("http://127.0.0.1:{}{path}", session.place.gate_port);
    let bearer = format!("Authorization: Bearer {}", session.place.token()?);
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--noproxy", "*", "-i", "-X", method, "-H", &bearer]);
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let outcome = run(command.arg(&url))?;
    ensure!(outcome.code() == Some(0), "{}\n{}", outcome.err(), session.place.agent_log());
    let text = outcome.out();
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let body = serde_json::from_str(body).with_context(|| text.clone())?;
    Ok(Answer { status, head: head.to_owned(), body })
}

/// Begins a capture; returns its path.
fn begin(session: &Session, wish: &Value) -> anyhow::Result<String> {
    let answer = curl(session, "POST", "/api/v1/captures", Some(wish))?;
    ensure!(answer.status == 202, "{wish}: {}\n{}", answer.head, answer.body);
    let mut headers = answer.head.lines().filter_map(|line| line.split_once(": "));
    let location = headers.find(|(name, _)| name.eq_ignore_ascii_case("location")).context("no Location")?.1;
    ensure!(location == format!("/api/v1/captures/{}", answer.body["id"].as_str().unwrap_or_default()), "{location}");
    Ok(location.to_owned())
}

fn state(session: &Session, path: &str) -> anyhow::Result<Value> {
    let answer = curl(session, "GET", path, None)?;
    ensure!(answer.status == 200, "{}", answer.body);
    Ok(answer.body)
}

fn until(session: &Session, path: &str, condition: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let found = wait::until(path, || state(session, path).map(|state| condition(&state).then_some(state)).transpose());
    found.with_context(|| session.place.agent_log())?
}

fn until_ended(session: &Session, path: &str) -> anyhow::Result<Value> {
    until(session, path, |state| !matches!(state["state"].as_str(), Some("queued" | "running")))
}

fn until_running(session: &Session, path: &str) -> anyhow::Result<Value> {
    until(session, path, |state| state["state"] == "running")
}

/// This machine's folder on the volume.
fn root(session: &Session) -> anyhow::Result<PathBuf> {
    let mut hosts = fs::read_dir(session.place.data().join("data"))?;
    Ok(hosts.next().context("no folder of a host")??.path())
}

/// Captures and returns the state and the folder of what is stored.
fn capture(session: &Session, wish: &Value) -> anyhow::Result<(Value, PathBuf)> {
    let path = begin(session, wish)?;
    let state = until_ended(session, &path)?;
    ensure!(state["state"] == "stored", "{state}\n{}", session.place.agent_log());
    let kind = state["kind"].as_str().context("no kind")?;
    let folder = root(session)?.join(kind).join(state["artifact"].as_str().context("no artifact")?);
    let meta: Value = serde_json::from_slice(&fs::read(folder.join("meta.json"))?)?;
    ensure!(meta["requested_by"] == "me" && meta["trigger"] == "api" && meta["kind"] == kind, "{meta}");
    ensure!(meta["reason"] == wish["reason"] && meta["bytes"] == state["bytes"], "{meta}\n{state}");
    let sum = run(Command::new("sha256sum").arg(folder.join("content.gz")))?.out();
    ensure!(meta["files"][0]["sha256"].as_str() == sum.split(' ').next(), "{meta}\n{sum}");
    Ok((state, folder))
}

fn go_tool(args: &[&str]) -> anyhow::Result<Outcome> {
    run(go::command(go::USUAL).arg("tool").args(args))
}

fn start(args: &[&str]) -> anyhow::Result<Session> {
    let session = Setup::new(args).under_goscope()?;
    session.await_ready()?;
    Ok(session)
}

#[test]
fn every_kind_is_stored_so_that_the_go_tools_read_it() -> anyhow::Result<()> {
    let session = start(&["-fault", "cpu-spin"])?;
    for (kind, expected) in [
        ("heap", "Type: inuse_space"),
        ("allocs", "Type: alloc_space"),
        ("goroutine", "Type: goroutine"),
        ("threadcreate", "Type: threadcreate"),
        ("mutex", "Type: delay"),
        ("block", "Type: delay"),
    ] {
        let (_, folder) = capture(&session, &json!({ "kind": kind, "reason": "to see that it works" }))?;
        let top = go_tool(&["pprof", "-top", &folder.join("content.gz").display().to_string()])?;
        ensure!(top.code() == Some(0) && top.out().contains(expected), "{kind}: {}{}", top.out(), top.err());
    }
    let (state, folder) = capture(&session, &json!({ "kind": "cpu", "seconds": 1 }))?;
    ensure!(state["kind"] == "profile" && state["seconds"] == 1.0 && state["started"].is_string(), "{state}");
    let top = go_tool(&["pprof", "-top", &folder.join("content.gz").display().to_string()])?;
    ensure!(top.out().contains("example.com/shop/internal/fault.spin"), "{}{}", top.out(), top.err());

    let (_, folder) = capture(&session, &json!({ "kind": "trace", "seconds": 0.5 }))?;
    let trace = session.place.folder().join("trace.out");
    let inflated = run(Command::new("zcat").arg(folder.join("content.gz")))?;
    ensure!(inflated.code() == Some(0), "{}", inflated.err());
    fs::write(&trace, &inflated.stdout)?;
    let events = go_tool(&["trace", "-d=parsed", &trace.display().to_string()])?;
    ensure!(events.code() == Some(0) && events.out().contains("GoID="), "{}", events.err());

    let (_, folder) = capture(&session, &json!({ "kind": "goroutine", "debug": 2 }))?;
    let text = run(Command::new("zcat").arg(folder.join("content.gz")))?;
    ensure!(text.code() == Some(0) && text.out().starts_with("goroutine "), "{}{}", text.out(), text.err());

    // This release has no such profile, and Go's word for that is passed on.
    let leak = until_ended(&session, &begin(&session, &json!({ "kind": "goroutineleak" }))?)?;
    let error = leak["error"].as_str().unwrap_or_default();
    ensure!(leak["state"] == "failed" && error.contains("404") && error.contains("Unknown profile"), "{leak}");
    Ok(())
}

#[test]
fn the_same_request_is_joined_and_a_cancelled_one_frees_the_profiler() -> anyhow::Result<()> {
    let session = start(&[])?;
    let wish = json!({ "kind": "profile", "seconds": 50 });
    let first = begin(&session, &wish)?;
    ensure!(begin(&session, &wish)? == first);
    until_running(&session, &first)?;
    let second = begin(&session, &json!({ "kind": "profile", "seconds": 1 }))?;
    ensure!(second != first && state(&session, &second)?["state"] == "queued");
    let cancelled = curl(&session, "DELETE", &first, None)?;
    ensure!(cancelled.status == 200 && cancelled.body["state"] == "cancelled", "{}", cancelled.body);
    let stored = until_ended(&session, &second)?;
    ensure!(stored["state"] == "stored", "{stored}");
    ensure!(state(&session, &first)?["state"] == "cancelled");
    ensure!(fs::read_dir(root(&session)?.join("profile"))?.count() == 1);

    // Somebody profiles through the gate: Go has one profiler, and says so.
    let url = session.place.gate_url("/debug/pprof/profile?seconds=49")?;
    let mut gate = Command::new("curl");
    gate.args(["-q", "-sS", "--noproxy", "*", "-o", "/dev/null", &url]);
    let gate = process::Process::spawn(&mut gate, session.place.folder(), "gate")?;
    wait::until("Go is asked", || {
        let seen = fs::read(session.place.record()).unwrap_or_default();
        process::contains(&seen, b"GET /debug/pprof/profile?seconds=49 ").then_some(())
    })?;
    let busy = until_ended(&session, &begin(&session, &json!({ "kind": "profile", "seconds": 1 }))?)?;
    ensure!(busy["error"].as_str().is_some_and(|error| error.contains("cpu profiling already in use")), "{busy}");
    drop(gate);
    Ok(())
}

#[test]
fn what_may_not_be_asked_for_is_refused_in_words() -> anyhow::Result<()> {
    let session = start(&[])?;
    for (wish, code, word) in [
        (json!({ "kind": "profile", "seconds": 3600 }), "over_cap", "gate.caps.cpuSeconds"),
        (json!({ "kind": "trace", "seconds": 31 }), "over_cap", "gate.caps.traceSeconds"),
        (json!({ "kind": "cmdline" }), "bad_body", "goroutineleak"),
        (json!({ "kind": "heap", "seconds": 1.5 }), "bad_body", "positive decimal integer"),
        (json!({ "kind": "trace", "debug": 1 }), "bad_body", "does not take debug"),
        (json!({ "kind": "heap", "who": "me" }), "bad_body", "who"),
        (json!({ "kind": "heap", "reason": "two\nlines" }), "bad_body", "one line"),
    ] {
        let answer = curl(&session, "POST", "/api/v1/captures", Some(&wish))?;
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        ensure!(
            answer.status == 400 && answer.body["code"] == code && detail.contains(word),
            "{wish}: {}",
            answer.body
        );
    }
    let answer = curl(&session, "GET", "/api/v1/captures/2026-11-23T08-57-04Z-0123456789", None)?;
    ensure!(answer.status == 404 && answer.body["code"] == "not_found", "{}", answer.body);
    Ok(())
}

/// The commands of a section of the README, each in one line.
fn commands(section: &str) -> anyhow::Result<Vec<String>> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let text = readme.split_once(&format!("\n### {section}\n")).context("no such section")?.1;
    let text = text.split("\n### ").next().unwrap_or_default().replace("\\\n", " ");
    Ok(text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect())
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() -> anyhow::Result<()> {
    let session = start(&["-fault", "cpu-spin"])?;
    let ports = format!("127.0.0.1:{}", session.place.gate_port);
    let [begin, look, read] = &commands("Captures")?[..] else { anyhow::bail!("other commands than are tested here") };
    let shell = |line: &str| {
        let mut command = go::command(go::USUAL);
        // The environment of Go's own tools, for whichever command it is.
        let environment: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        command = Command::new("sh");
        command.args(["-c", &line.replace("127.0.0.1:6061", &ports)]).envs(environment).env("NO_PROXY", "*");
        run(command.current_dir(session.place.folder()))
    };
    let begun: Value = serde_json::from_slice(&shell(&begin.replace("\"seconds\":10", "\"seconds\":1"))?.stdout)?;
    let id = begun["id"].as_str().context("no id")?;
    until_ended(&session, &format!("/api/v1/captures/{id}"))?;
    let looked: Value = serde_json::from_slice(&shell(&look.replace("ID", id))?.stdout)?;
    ensure!(looked["state"] == "stored" && looked["reason"] == "slow since noon", "{looked}");
    let top = shell(read)?;
    ensure!(top.code() == Some(0) && top.out().contains("fault.spin"), "{}{}", top.out(), top.err());
    Ok(())
}

/// The agents below the launcher.
fn agents(session: &Session) -> anyhow::Result<Vec<u32>> {
    let ours = |id: &u32| process::command_line(*id).get(1..3).is_some_and(|w| w == ["agent", "--embedded"]);
    Ok(process::tree(session.process().id())?.into_iter().filter(ours).collect())
}

#[test]
fn an_agent_that_is_killed_in_the_middle_leaves_no_half_of_it() -> anyhow::Result<()> {
    let session = start(&[])?;
    // A trace comes as it is taken, so there is something in the staging folder soon.
    until_running(&session, &begin(&session, &json!({ "kind": "trace", "seconds": 30 }))?)?;
    let staging = root(&session)?.join(".staging");
    let written = || {
        let file = Command::new("find").arg(&staging).args(["-name", "content.gz"]).output().ok()?;
        (!file.stdout.is_empty()).then(|| String::from_utf8_lossy(&file.stdout).trim().to_owned())
    };
    let half = wait::until("something is written", written)?;
    let killed = agents(&session)?;
    for agent in &killed {
        kill_process(process::pid(*agent)?, Signal::KILL)?;
    }
    wait::until("another agent", || agents(&session).ok().filter(|a| !a.is_empty() && a != &killed))?;
    session.await_ready()?;
    wait::until("the half is swept", || (!fs::exists(&half).unwrap_or(true)).then_some(()))?;
    ensure!(!root(&session)?.join("trace").exists(), "half a trace is no artifact");
    // The connection went with the agent, so Go's tracer is free.
    capture(&session, &json!({ "kind": "trace", "seconds": 1 }))?;
    ensure!(session.shop_get("/catalogue")?.status == 200);
    Ok(())
}

/// A volume of 1 MiB, in a mount namespace of the session's own.
#[test]
fn on_a_full_volume_a_capture_fails_and_the_app_does_not_notice() -> anyhow::Result<()> {
    let setup = Setup::new(&[]);
    let (place, bare) = setup.prepare(true)?;
    let data = place.data().join("data");
    fs::create_dir_all(&data)?;
    fs::write(place.config(), fs::read_to_string(place.config())? + "store: { reserveBytes: 0B }\n")?;
    let mount = "mount -t tmpfs -o size=1m goscope-test \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount]).arg(&data);
    command.arg(bare.get_program()).args(bare.get_args()).current_dir(place.folder());
    command.env_remove("GOSCOPE_CONFIG").env("GOTRACEBACK", "all");
    let session = setup.start_prepared(place, &mut command)?;
    session.await_ready()?;
    // Not compressible enough for 1 MiB: half a minute of everything that happens to a busy shop.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                session.shop_get("/catalogue").ok();
            }
        });
        let state =
            begin(&session, &json!({ "kind": "trace", "seconds": 30 })).and_then(|path| until_ended(&session, &path));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let state = state?;
        let error = state["error"].as_str().unwrap_or_default();
        ensure!(state["state"] == "failed" && error.contains("No space left on device"), "{state}");
        anyhow::Ok(())
    })?;
    ensure!(session.shop_get("/catalogue")?.status == 200);
    // What had been written is gone, so there is room for a small one.
    let state = until_ended(&session, &begin(&session, &json!({ "kind": "heap" }))?)?;
    ensure!(state["state"] == "stored", "{state}\n{}", session.place.agent_log());
    Ok(())
}
