//! `goscope run` where its configuration or the machine is not as the other tests have it.

use std::fs;
use std::net::TcpListener;

use anyhow::{Context, ensure};
use goscope_e2e::process::run;
use goscope_e2e::session::{Debug, Setup, goscope};
use goscope_e2e::{go, http, wait};

/// A port that is taken is waited for, because an agent of before may be about to leave it; the report must not wait with it.
#[test]
fn a_death_is_reported_while_the_ports_are_taken() -> anyhow::Result<()> {
    let mut setup = Setup::new(&["-fault", "nil"]);
    setup.quiet = false;
    let (place, mut command) = setup.prepare(true)?;
    let _gate = TcpListener::bind(("127.0.0.1", place.gate_port))?;
    let _metrics = TcpListener::bind(("127.0.0.1", place.metrics_port))?;
    let outcome = run(&mut command)?;
    ensure!(outcome.code() == Some(2), "{:?}", outcome.status);
    ensure!(outcome.err().contains("kept in"), "no report: {}", outcome.err());
    ensure!(place.settled_incidents()?.len() == 1, "{}", place.agent_log());
    Ok(())
}

/// What `goscope config default` prints is for a pod; under `goscope run` it must not take run, incidents and token elsewhere.
#[test]
fn the_printed_defaults_serve_goscope_run_as_they_are() -> anyhow::Result<()> {
    let defaults = run(std::process::Command::new(goscope()?).args(["config", "default"]))?.out();
    let setup = Setup::new(&[]);
    let (place, mut command) = setup.prepare(true)?;
    let target = place.debug_address.clone().context("the shop serves pprof")?;
    let ports = [
        ("127.0.0.1:6060", target),
        ("127.0.0.1:6061", format!("127.0.0.1:{}", place.gate_port)),
        ("0.0.0.0:9464", format!("127.0.0.1:{}", place.metrics_port)),
    ];
    let written =
        ports.iter().fold(defaults, |text, (from, to)| text.replace(&format!("{from:?}"), &format!("{to:?}")));
    fs::write(place.config(), written)?;
    let session = setup.start_prepared(place, &mut command)?;
    session.await_ready()?;
    let token = session.place.token()?;
    let answer = wait::until("the gate answers", || {
        http::get(session.place.gate_port, "/debug/pprof/", &[("X-Debug-Token", &token)]).ok()
    })?;
    ensure!(answer.status == 200, "{}", answer.head);
    session.shop_get("/fault/nil").ok();
    let (_, place) = session.finish()?;
    ensure!(place.settled_incidents()?.len() == 1, "{}", place.agent_log());
    Ok(())
}

/// A token file that cannot be used closes the gate and nothing else.
#[test]
fn a_damaged_token_file_does_not_stop_the_recording() -> anyhow::Result<()> {
    let mut setup = Setup::new(&["-fault", "nil"]);
    setup.quiet = false;
    let (place, mut command) = setup.prepare(true)?;
    fs::create_dir_all(place.data())?;
    fs::write(place.data().join("token"), "damaged\n")?;
    let session = setup.start_prepared(place, &mut command)?;
    let (outcome, place) = session.finish()?;
    ensure!(outcome.err().contains("cannot keep a token") && outcome.err().contains("kept in"), "{}", outcome.err());
    ensure!(place.settled_incidents()?.len() == 1, "{}", place.agent_log());
    Ok(())
}

/// Where nothing listens, three lines of Go are shown; they must compile as they stand.
#[test]
fn the_lines_that_open_a_target_compile() -> anyhow::Result<()> {
    for address in ["127.0.0.1:1", "unix:///nowhere/debug.sock"] {
        let mut setup = Setup::new(&[]);
        setup.quiet = false;
        setup.debug = Debug::None;
        let (place, mut command) = setup.prepare(true)?;
        let config = fs::read_to_string(place.config())?;
        let (_, rest) = config.split_once('\n').context("a configuration of lines")?;
        fs::write(place.config(), format!("target: {{ address: \"{address}\" }}\n{rest}"))?;
        let session = setup.start_prepared(place, &mut command)?;
        session.process().await_stderr("first line")?;
        session.shop_get("/fault/exit").ok();
        let (outcome, _) = session.finish()?;
        let text = outcome.err();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("goscope: target:     "));
        let (imports, statements): (Vec<_>, Vec<_>) = lines.by_ref().partition(|line| line.starts_with("import"));
        ensure!(imports.len() + statements.len() == 3, "{text}");
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("go.mod"), "module example.com/opening\n\ngo 1.18\n")?;
        let program = format!(
            "package main\n\n{}\n\nfunc main() {{\n{}\nselect {{}}\n}}\n",
            imports.join("\n"),
            statements.join("\n")
        );
        fs::write(folder.path().join("main.go"), &program)?;
        let vetted = run(go::command(go::USUAL).arg("vet").arg(".").current_dir(folder.path()))?;
        ensure!(vetted.code() == Some(0), "{program}\n{}", vetted.err());
    }
    Ok(())
}

/// A configuration that cannot be used closes the gate, is told with its mistakes, and takes nothing from the recording.
#[test]
fn a_wrong_configuration_does_not_stop_the_recording() -> anyhow::Result<()> {
    let mut setup = Setup::new(&["-fault", "nil"]);
    setup.quiet = false;
    let (place, mut command) = setup.prepare(true)?;
    fs::write(place.config(), "target: { adress: 127.0.0.1:6060 }\nstore: { maxAge: soon }\n")?;
    let outcome = run(&mut command)?;
    ensure!(outcome.code() == Some(2), "{:?}", outcome.status);
    for expected in
        ["target.adress: unknown key (line 1)", "store.maxAge: expected a duration", "gate stays closed", "kept in"]
    {
        ensure!(outcome.err().contains(expected), "{expected:?} is missing: {}", outcome.err());
    }
    ensure!(place.settled_incidents()?.len() == 1, "{}", place.agent_log());
    Ok(())
}

/// What the call itself gets wrong is told before anything is started.
#[test]
fn a_target_that_is_no_address_starts_nothing() -> anyhow::Result<()> {
    let outcome =
        run(std::process::Command::new(goscope()?).args(["run", "--target", "ftp://x", "--", "echo", "started"]))?;
    ensure!(outcome.code() == Some(2), "{:?}", outcome.status);
    ensure!(
        outcome.out().is_empty() && outcome.err().contains("expected an address such as 127.0.0.1:6060"),
        "{}",
        outcome.err()
    );
    Ok(())
}
