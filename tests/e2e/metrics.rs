//! What a scraper sees.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use goscope_e2e::session::{Debug, Session, Setup};
use goscope_e2e::{http, wait};

fn scrape(session: &Session) -> anyhow::Result<String> {
    let answer = http::get(session.place.metrics_port, "/metrics", &[])?;
    ensure!(answer.status == 200, "{}", answer.head);
    Ok(answer.text())
}

/// The value of a series, written with its labels.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits for the first sample of the target, then lets promtool judge the text.
fn check(debug: Debug) -> anyhow::Result<String> {
    let mut setup = Setup::new(&["-fault", "goroutine-leak"]);
    setup.debug = debug;
    setup.release = "1.27.3";
    let session = setup.under_goscope()?;
    session.await_ready()?;
    let sampled = || {
        let text = scrape(&session).ok()?;
        (value(&text, "go_goroutines")? >= 1000.0 && text.contains("\ngo_info{")).then_some(text)
    };
    let text = if debug == Debug::None {
        scrape(&session)?
    } else {
        wait::until("a sample with the leak and go_info", sampled)
            .with_context(|| scrape(&session).unwrap_or_default())?
    };
    let file = session.place.folder().join("metrics.txt");
    fs::write(&file, &text)?;
    let judged =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::from(fs::File::open(&file)?)).output();
    let judged = judged.context("promtool is missing; tests/run.sh installs it")?;
    ensure!(
        judged.status.success(),
        "{}{}\n{text}",
        String::from_utf8_lossy(&judged.stdout),
        String::from_utf8_lossy(&judged.stderr)
    );
    ensure!(text.contains("\ngoscope_build_info{"), "{text}");
    Ok(text)
}

#[test]
fn go_series_of_a_target_on_tcp() -> anyhow::Result<()> {
    target_series(Debug::Tcp)
}

#[test]
fn go_series_of_a_target_on_a_unix_socket() -> anyhow::Result<()> {
    target_series(Debug::Unix)
}

fn target_series(debug: Debug) -> anyhow::Result<()> {
    let text = check(debug)?;
    ensure!(value(&text, "goscope_target_up") == Some(1.0), "{text}");
    ensure!(value(&text, "go_threads").is_some_and(|n| n >= 2.0), "{text}");
    ensure!(value(&text, "go_info{version=\"go1.27.3\"}") == Some(1.0), "{text}");
    Ok(())
}

#[test]
fn a_target_that_does_not_listen_is_down() -> anyhow::Result<()> {
    let text = check(Debug::None)?;
    ensure!(value(&text, "goscope_target_up") == Some(0.0), "{text}");
    ensure!(value(&text, "go_goroutines").is_none(), "a series without a source\n{text}");
    Ok(())
}

#[test]
fn requests_and_incidents_are_counted() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    let bearer = format!("Bearer {}", session.place.token()?);
    ensure!(http::get(session.place.gate_port, "/debug/pprof/heap", &[("Authorization", &bearer)])?.status == 200);
    ensure!(http::get(session.place.gate_port, "/debug/pprof/heap", &[])?.status == 401);
    session.shop_get("/fault/handler").ok();
    let counted =
        || scrape(&session).ok().filter(|t| value(t, "goscope_incidents_total{kind=\"http_panic\"}") == Some(1.0));
    let text =
        wait::until("the incident in the metrics", counted).with_context(|| scrape(&session).unwrap_or_default())?;
    let heap: Vec<&str> = text
        .lines()
        .filter(|l| {
            l.starts_with("goscope_gate_requests_total{") && l.contains("profile=\"heap\"") && l.ends_with(" 1")
        })
        .collect();
    ensure!(heap.len() == 2, "one admitted, one refused: {heap:?}\n{text}");
    Ok(())
}

#[test]
fn probes_answer_and_nothing_else_does() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    let port = session.place.metrics_port;
    ensure!(http::get(port, "/livez", &[])?.status == 200);
    for path in ["/", "/debug/pprof/", "/debug/vars", "/api/v1/info"] {
        ensure!(http::get(port, path, &[])?.status == 404, "{path} on the metrics listener");
    }
    ensure!(http::get(session.place.gate_port, "/metrics", &[])?.status == 404, "/metrics on the debug listener");
    Ok(())
}
