//! The API as people use it: the README's commands as they stand there, and the archive on a volume that nobody may write to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::http::{self, Answer};
use goscope_e2e::process::{Process, run};
use goscope_e2e::session::{Place, Setup, goscope};
use goscope_e2e::{fault, incident, ports, wait};
use serde_json::Value;

/// The commands of the README's section, with the ports of this test in the place of the usual ones. Comments say nothing to a shell.
fn readme(heading: &str, port: u16) -> anyhow::Result<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let (_, section) = text.split_once(&format!("\n### {heading}\n")).context("the section is there")?;
    let section = section.split("\n### ").next().unwrap_or_default();
    let commands: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    ensure!(commands.len() > 2, "{heading} has commands");
    Ok(commands.join("\n").replace("127.0.0.1:6061", &format!("127.0.0.1:{port}")))
}

/// Runs commands as a person would, in the folder of `place`, with goscope in the path.
fn shell(place: &Place, commands: &str, listen: (u16, u16)) -> anyhow::Result<String> {
    let bin = goscope()?;
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", bin.parent().context("a folder")?.display());
    let script = format!("set -e\n{commands}\n");
    let ended = run(Command::new("sh")
        .args(["-c", &script])
        .current_dir(place.folder())
        .env("PATH", path)
        .env("GOSCOPE_LISTEN_DEBUG", format!("127.0.0.1:{}", listen.0))
        .env("GOSCOPE_LISTEN_METRICS", format!("127.0.0.1:{}", listen.1)))?;
    ensure!(ended.code() == Some(0), "{script}\n{}\n{}\n{}", ended.out(), ended.err(), place.agent_log());
    Ok(ended.out())
}

fn ask(port: u16, path: &str, token: &str) -> anyhow::Result<Answer> {
    http::get(port, path, &[("Authorization", &format!("Bearer {token}"))])
}

fn json(answer: &Answer) -> anyhow::Result<Value> {
    serde_json::from_slice(&answer.body).with_context(|| answer.text())
}

/// Status and code, after a look at the shape.
fn problem(answer: &Answer) -> anyhow::Result<(u16, String)> {
    let (head, body) = (answer.head.to_ascii_lowercase(), json(answer)?);
    ensure!(head.contains("\r\ncontent-type: application/problem+json"), "{head}");
    ensure!(head.contains("\r\nx-goscope-audit-id: "), "{head}");
    ensure!(body["status"] == answer.status && body["title"].is_string() && body["detail"].is_string(), "{body}");
    let code = body["code"].as_str().context("a code")?.to_owned();
    ensure!(head.contains(&format!("\r\nx-goscope-code: {code}")), "{head}");
    Ok((answer.status, code))
}

/// Every file below a folder, with what says whether it was touched.
fn snapshot(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, (u64, std::time::SystemTime)>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            found.insert(path.clone(), (meta.len(), meta.modified()?));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

#[test]
fn the_commands_of_the_readme_work_on_a_service_that_runs() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    // A handler that panics is an incident, and the service goes on.
    drop(session.shop_get("/fault/handler"));
    let (port, token) = (session.place.gate_port, session.place.token()?);
    // Looking as often as this through the API would be too often for it.
    let stored = || incident::stored(&session.place.data()).ok().filter(|all| !all.is_empty());
    wait::until("the incident is stored", stored).with_context(|| session.place.agent_log())?;
    let answer = ask(port, "/api/v1/incidents", &token)?;
    let first = json(&answer)?["items"][0].clone();
    ensure!(first["kind"] == "http_panic" && first["count"] == 1, "{first}");
    ensure!(first["fingerprint"].as_str().is_some_and(|print| print.starts_with("v1:")), "{first}");

    let said = shell(&session.place, &readme("The API", port)?, (0, 0))?;
    for expected in [
        r#""schema":"goscope.info/v1""#,
        r#""mode":"run""#,
        r#""up":true"#,
        r#""schema": "goscope.incident/v1""#,
        r#""repeats":0"#,
        r#""pinned":true"#,
    ] {
        ensure!(said.contains(expected), "{expected} is not in\n{said}");
    }
    // The download has the name that the answer gave it, and is what was recorded.
    let named = |name: &str| name.contains("-incident-") && name.ends_with("-stderr.txt");
    let downloads: Vec<_> = fs::read_dir(session.place.folder())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| named(name))
        .collect();
    ensure!(downloads.len() == 1, "{downloads:?}");
    let text = fs::read_to_string(session.place.folder().join(&downloads[0]))?;
    ensure!(text.contains("http: panic serving"), "{text}");
    // The last of the commands deletes it.
    let answer = ask(port, &format!("/api/v1/incidents/{}", first["latest"].as_str().unwrap_or_default()), &token)?;
    ensure!(problem(&answer)? == (404, "not_found".to_owned()), "{}", answer.text());
    let metrics = http::get(session.place.metrics_port, "/metrics", &[])?.text();
    ensure!(metrics.contains("\ngoscope_store_deleted_total 1\n"), "{metrics}");
    ensure!(
        metrics.contains("goscope_api_requests_total{decision=\"answered\",operation=\"artifact_pin\"} 1\n"),
        "{metrics}"
    );
    // Lines are gathered for a moment before they are written.
    let log = wait::until("the deletion is in the audit trail", || {
        let log = fs::read_to_string(session.place.data().join("audit.log")).ok()?;
        log.contains(r#""operation":"artifact_delete""#).then_some(log)
    })?;
    ensure!(!log.contains(&token), "{log}");
    Ok(())
}

#[test]
fn the_commands_of_the_readme_read_a_death_from_the_archive() -> anyhow::Result<()> {
    let nil = fault::named("nil");
    let (_, place) = Setup::fault(&nil, goscope_e2e::go::USUAL).under_goscope()?.finish_fault(&nil)?;
    ensure!(place.settled_incidents()?.len() == 1, "one death");
    let listen = (ports::free(), ports::free());
    let said = shell(&place, &readme("The archive", listen.0)?, listen)?;
    for expected in [r#""mode":"archive""#, r#""count":1"#, "nil pointer dereference", "/main.go"] {
        ensure!(said.contains(expected), "{expected} is not in\n{said}");
    }
    Ok(())
}

#[test]
fn the_archive_serves_a_volume_that_nobody_may_write_to() -> anyhow::Result<()> {
    let nil = fault::named("nil");
    let (_, place) = Setup::fault(&nil, goscope_e2e::go::USUAL).under_goscope()?.finish_fault(&nil)?;
    ensure!(place.settled_incidents()?.len() == 1, "one death");
    let token = place.token()?;
    let tokens = place.folder().join("basic.yaml");
    let made = run(Command::new(goscope()?)
        .args(["token", "new", "--name", "basic", "--tier", "basic", "--file"])
        .arg(&tokens))?;
    ensure!(made.code() == Some(0), "{}", made.err());
    let basic = made.out().trim().to_owned();
    let (port, metrics_port) = (ports::free(), ports::free());
    let config = place.folder().join("archive.yaml");
    fs::write(
        &config,
        format!(
            "listen: {{ debug: \"127.0.0.1:{port}\", metrics: \"127.0.0.1:{metrics_port}\" }}\n\
             gate: {{ tokens: {{ files: [{:?}] }}, limits: {{ api: {{ rate: 1/m, burst: 60 }} }} }}\n",
            tokens.display()
        ),
    )?;
    let volume = place.data().join("data");
    let before = snapshot(&volume)?;
    // A mount namespace of its own, in which the data folder is read-only, also for root.
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && ! touch \"$1/x\" 2>/dev/null && exec \"$0\" archive --config \"$2\" --data \"$1\"";
    let unshare =
        if rustix::process::getuid().is_root() { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] };
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script]).args([&goscope()?, &place.data(), &config]);
    let archive = Process::spawn(command.env_remove("GOSCOPE_CONFIG"), place.folder(), "archive")?;
    let ready = || (http::get(metrics_port, "/readyz", &[]).ok()?.text() == "ready\n").then_some(());
    archive.until("the archive is ready", ready)?;

    let incidents = json(&ask(port, "/api/v1/incidents", &token)?)?;
    let id = incidents["items"][0]["latest"].as_str().context("an incident")?.to_owned();
    let told = json(&ask(port, &format!("/api/v1/incidents/{id}"), &token)?)?;
    ensure!(told["kind"] == "panic" && told["exit"].is_object() && told["artifact"]["id"] == id.as_str(), "{told}");
    let content = format!("/api/v1/artifacts/{id}/content");
    let text = ask(port, &content, &token)?;
    ensure!(text.status == 200 && text.text().contains("nil pointer dereference"), "{}", text.head);
    let bearer = format!("Bearer {token}");
    let part = http::get(port, &content, &[("Authorization", &bearer), ("Range", "bytes=0-4")])?;
    ensure!((part.status, &part.body[..]) == (206, &text.body[..5]), "{}", part.head);

    // What is refused, and how.
    let beyond = http::get(port, &content, &[("Authorization", &bearer), ("Range", "bytes=999999999-")])?;
    ensure!(problem(&beyond)? == (416, "range_not_satisfiable".to_owned()), "{}", beyond.head);
    let gone = ask(port, "/api/v1/artifacts/2026-11-23T08-57-04Z-0123456789", &token)?;
    ensure!(problem(&gone)? == (404, "not_found".to_owned()), "{}", gone.head);
    let tier = ask(port, "/api/v1/incidents", &basic)?;
    ensure!(problem(&tier)? == (403, "tier_missing".to_owned()), "{}", tier.head);
    ensure!(ask(port, "/api/v1/info", &basic)?.status == 200, "the token is good for this");
    let pin = run(Command::new("curl")
        .args(["-sS", "-X", "PUT", "-H", &format!("Authorization: {bearer}")])
        .arg(format!("http://127.0.0.1:{port}/api/v1/artifacts/{id}/pin")))?;
    ensure!(pin.out().contains(r#""code":"read_only""#), "{}", pin.out());
    let gate = ask(port, "/debug/pprof/heap", &token)?;
    ensure!(gate.status == 404 && gate.text().starts_with("goscope: this is the archive"), "{}", gate.text());
    ensure!(gate.head.to_ascii_lowercase().contains("\r\ncontent-type: text/plain"), "{}", gate.head);
    let limited = wait::until("the limit is reached", || {
        ask(port, "/api/v1/info", &token).ok().filter(|answer| answer.status != 200)
    })?;
    ensure!(
        problem(&limited)?.0 == 429 && limited.head.to_ascii_lowercase().contains("\r\nretry-after: "),
        "{}",
        limited.head
    );

    let store = wait::until("the volume is counted", || {
        let metrics = http::get(metrics_port, "/metrics", &[]).ok()?.text();
        let held = metrics
            .lines()
            .find_map(|line| line.strip_prefix("goscope_store_bytes{kind=\"incidents\"} ")?.parse::<u64>().ok());
        held.filter(|held| *held > 0)
    })?;
    ensure!(Some(store) == told["artifact"]["bytes"].as_u64(), "{store} {told}");
    archive.signal(rustix::process::Signal::TERM)?;
    let ended = archive.finish()?;
    ensure!(ended.code() == Some(0), "{}", ended.err());
    ensure!(!ended.out().contains(&token) && ended.out().contains(r#""operation":"incident""#), "{}", ended.out());
    ensure!(snapshot(&volume)? == before, "the archive changed something");
    Ok(())
}
