//! Unmodified clients through the gate: `go tool pprof` with the token in the URL's userinfo, and curl.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use goscope_e2e::go;
use goscope_e2e::process::{Outcome, run};
use goscope_e2e::session::{Debug, Session, Setup};

fn pprof(session: &Session, args: &[&str]) -> anyhow::Result<Outcome> {
    // Without a HOME of its own pprof would keep each profile in the user's ~/pprof.
    run(go::command(go::USUAL).args(["tool", "pprof"]).args(args).env("PPROF_TMPDIR", session.place.folder()))
}

fn start(debug: Debug, args: &[&str]) -> anyhow::Result<Session> {
    let mut setup = Setup::new(args);
    setup.debug = debug;
    let session = setup.under_goscope()?;
    session.await_ready()?;
    for i in 0..20 {
        session.shop_get(&format!("/cart?customer=c{i}&sku=sku-0001&quantity=1"))?;
        session.shop_get("/catalogue")?;
    }
    Ok(session)
}

/// Fetches a profile as a file, then lets the Go tool read the file.
fn profile(session: &Session, path: &str) -> anyhow::Result<String> {
    let file = session.place.folder().join("fetched.pb.gz").display().to_string();
    let fetched = pprof(session, &["-proto", "-output", &file, &session.place.gate_url(path)?])?;
    ensure!(fetched.code() == Some(0), "{path}: {}\n{}", fetched.err(), session.place.agent_log());
    let top = pprof(session, &["-top", &file])?;
    ensure!(top.code() == Some(0), "{path}: {}", top.err());
    std::fs::remove_file(file)?;
    Ok(top.out())
}

fn every_profile(debug: Debug) -> anyhow::Result<()> {
    let session = start(debug, &[])?;
    for (name, expected) in [
        ("heap", "Type: inuse_space"),
        ("allocs", "Type: alloc_space"),
        ("goroutine", "Type: goroutine"),
        ("threadcreate", "Type: threadcreate"),
        ("mutex", "Type: delay"),
        ("block", "Type: delay"),
    ] {
        let top = profile(&session, &format!("/debug/pprof/{name}"))?;
        ensure!(top.contains(expected) && top.contains("flat%"), "{name}: {top}");
    }
    // The same in one step, as a person types it.
    let top = pprof(&session, &["-top", &session.place.gate_url("/debug/pprof/goroutine")?])?;
    ensure!(top.code() == Some(0) && top.out().contains("runtime.gopark"), "{}{}", top.out(), top.err());
    Ok(())
}

#[test]
fn pprof_reads_every_profile_of_a_tcp_target() -> anyhow::Result<()> {
    every_profile(Debug::Tcp)
}

#[test]
fn pprof_reads_every_profile_of_a_unix_target() -> anyhow::Result<()> {
    every_profile(Debug::Unix)
}

#[test]
fn pprof_reads_a_cpu_profile_and_sees_who_burns_the_time() -> anyhow::Result<()> {
    let session = start(Debug::Tcp, &["-fault", "cpu-spin"])?;
    let top = profile(&session, "/debug/pprof/profile?seconds=2")?;
    ensure!(top.contains("Type: cpu") && top.contains("example.com/shop/internal/fault.spin"), "{top}");
    Ok(())
}

#[test]
fn curl_fetches_a_trace_that_the_go_tool_reads() -> anyhow::Result<()> {
    for debug in [Debug::Tcp, Debug::Unix] {
        let session = start(debug, &[])?;
        let file = session.place.folder().join("trace.out");
        let fetched = curl(&[
            "-fsS",
            "-o",
            &file.display().to_string(),
            &session.place.gate_url("/debug/pprof/trace?seconds=1")?,
        ])?;
        ensure!(fetched.code() == Some(0), "{}\n{}", fetched.err(), session.place.agent_log());
        let events = run(go::command(go::USUAL).args(["tool", "trace", "-d=parsed"]).arg(&file))?;
        ensure!(events.code() == Some(0) && events.out().contains("GoID="), "{}", events.err());
        let latency = run(go::command(go::USUAL).args(["tool", "trace", "-pprof=sched"]).arg(&file))?;
        ensure!(latency.code() == Some(0) && latency.stdout.starts_with(&[0x1f, 0x8b]), "{}", latency.err());
    }
    Ok(())
}

#[test]
fn without_a_token_pprof_prints_our_sentence() -> anyhow::Result<()> {
    let session = start(Debug::Tcp, &[])?;
    let port = session.place.gate_port;
    let url = format!("http://127.0.0.1:{port}/debug/pprof/heap");
    let answer = curl(&["-sS", "-D", "-", &url])?.out();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let head = head.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 401 ") && head.contains("x-go-pprof: 1"), "{head}");
    ensure!(head.contains("content-type: text/plain"), "{head}");
    ensure!(head.contains("x-goscope-audit-id: "), "{head}");
    let sentence = body.lines().next().unwrap_or_default();
    ensure!(sentence.contains("token"), "{body:?}");
    let refused = pprof(&session, &["-top", &url])?;
    ensure!(refused.code() != Some(0) && refused.err().contains("401"), "{}", refused.err());
    ensure!(refused.err().contains(sentence), "{sentence:?} is not in {}", refused.err());
    Ok(())
}

/// 400, 401, 403, 404 and 429 are told apart, and none of them reaches the app.
#[test]
fn refusals_are_told_apart() -> anyhow::Result<()> {
    let mut setup = Setup::new(&[]);
    setup.gate = "{ allow: [\"!127.0.0.2/32\", 127.0.0.0/8] }".to_owned();
    let session = setup.under_goscope()?;
    session.await_ready()?;
    let before = std::fs::read(session.place.record()).unwrap_or_default();
    let status = |args: &[&str], path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", session.place.gate_port);
        Ok::<_, anyhow::Error>(
            curl(&[&["-sS", "-o", "/dev/null", "-w", "%{http_code}"], args, &[&url]].concat())?.out(),
        )
    };
    let bearer = format!("Authorization: Bearer {}", session.place.token()?);
    ensure!(status(&["-H", &bearer], "/debug/pprof/unheard-of")? == "404");
    ensure!(status(&["-H", &bearer], "/debug/pprof/profile?seconds=3600")? == "400");
    ensure!(status(&["-H", "Authorization: Bearer gsc_wrong"], "/debug/pprof/heap")? == "401");
    ensure!(status(&["--interface", "127.0.0.2", "-H", &bearer], "/debug/pprof/heap")? == "403");
    let seen = std::fs::read(session.place.record()).unwrap_or_default();
    ensure!(
        !String::from_utf8_lossy(&seen[before.len()..]).contains("GET /debug/pprof/heap"),
        "a refused request reached the app"
    );
    // The burst is five; these come much faster than the one a second that is allowed.
    let mut last = String::new();
    for _ in 0..40 {
        last = status(&["-H", &bearer], "/debug/pprof/heap")?;
        if last == "429" {
            break;
        }
    }
    ensure!(last == "429", "forty requests, the last was answered {last}");
    Ok(())
}

fn curl(args: &[&str]) -> anyhow::Result<Outcome> {
    run(Command::new("curl").args(["--noproxy", "*", "-q"]).args(args).current_dir(Path::new("/")))
}
