//! The commands that need no running service, their exit codes, and the binary itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::elf;
use goscope_e2e::fault;
use goscope_e2e::process::{Outcome, run};
use goscope_e2e::session::{Setup, goscope};
use serde_json::Value;

fn cli(args: &[&str]) -> anyhow::Result<Outcome> {
    run(Command::new(goscope()?).args(args).env_remove("GOSCOPE_CONFIG").current_dir(std::env::temp_dir()))
}

/// Writes the stderr of a real crash to a file.
fn crash(folder: &Path) -> anyhow::Result<String> {
    let nil = fault::named("nil");
    let (outcome, _) = Setup::fault(&nil, "1.27.3").bare()?.finish_fault(&nil)?;
    let file = folder.join("crash.txt");
    fs::write(&file, &outcome.stderr)?;
    Ok(file.display().to_string())
}

#[test]
fn analyze_explains_a_real_crash_as_text() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let outcome = cli(&["analyze", &crash(folder.path())?])?;
    ensure!(outcome.code() == Some(0), "{}", outcome.err());
    for expected in ["panic", "invalid memory address or nil pointer dereference", "fault.nilDereference", "fault.go:"]
    {
        ensure!(outcome.out().contains(expected), "no {expected:?} in {}", outcome.out());
    }
    ensure!(!outcome.out().contains('\u{1b}'), "colour in a file");
    Ok(())
}

#[test]
fn analyze_explains_a_real_crash_as_json() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = crash(folder.path())?;
    let outcome = cli(&["analyze", "--format", "json", &file])?;
    ensure!(outcome.code() == Some(0), "{}", outcome.err());
    let document: Value = serde_json::from_slice(&outcome.stdout).with_context(|| outcome.out())?;
    ensure!(document["schema"] == "goscope.analysis/v1", "{document}");
    let described = &document["files"][0];
    ensure!(described["path"] == file.as_str() && described["detected"] == "stderr", "{described}");
    let bytes = fs::read(&file)?;
    ensure!(described["bytes"].as_u64() == u64::try_from(bytes.len()).ok(), "{described}");
    let incidents = described["incidents"].as_array().context("no incidents")?;
    ensure!(incidents.len() == 1, "{incidents:?}");
    let incident = &incidents[0];
    ensure!(
        incident["kind"] == "panic" && incident["complete"] == true && incident["traceback"] == "all",
        "{incident}"
    );
    ensure!(incident["chain"][0]["signal"]["name"] == "SIGSEGV", "{incident}");
    ensure!(incident["fingerprint"].as_str().is_some_and(|f| f.starts_with("v1:")), "{incident}");
    let start = usize::try_from(incident["span"][0].as_u64().context("no span")?)?;
    ensure!(bytes[start..].starts_with(b"panic: runtime error: invalid memory address"), "{incident}");
    let frames = incident["goroutines"][0]["frames"].as_array().context("no frames")?;
    let frame =
        frames.iter().find(|f| f["func"] == "example.com/shop/internal/fault.nilDereference").context("no frame")?;
    ensure!(frame["file"] == "example.com/shop/internal/fault/fault.go" && frame["line"].as_u64() > Some(0), "{frame}");
    Ok(())
}

#[test]
fn analyze_reads_standard_input_and_finds_nothing_in_a_log() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("log.txt");
    fs::write(&file, goscope_e2e::noise::lines(1000))?;
    let output =
        Command::new(goscope()?).args(["analyze", "--format", "json", "-"]).stdin(fs::File::open(&file)?).output()?;
    ensure!(output.status.code() == Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(document["files"][0]["incidents"].as_array().is_some_and(Vec::is_empty), "{document}");
    Ok(())
}

#[test]
fn calls_that_cannot_be_used_exit_with_2() -> anyhow::Result<()> {
    for args in [
        &["frobnicate"][..],
        &["analyze", "/no/such/file"],
        &["run"],
        &["analyze", "--format", "klingon", "x"],
        &["token"],
    ] {
        let outcome = cli(args)?;
        ensure!(outcome.code() == Some(2), "{args:?}: {:?}", outcome.status);
        ensure!(outcome.stdout.is_empty() && !outcome.stderr.is_empty(), "{args:?}: {}", outcome.out());
    }
    Ok(())
}

#[test]
fn run_mirrors_what_a_shell_says_of_commands_that_do_not_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let not_executable = folder.path().join("notes.txt");
    fs::write(&not_executable, "text")?;
    fs::set_permissions(&not_executable, fs::Permissions::from_mode(0o644))?;
    let setup = Setup::new(&[]);
    let (place, _) = setup.prepare(true)?;
    let (config, data) = (place.config().display().to_string(), place.data().display().to_string());
    let run = |words: &[&str]| cli(&[&["run", "--quiet", "--config", &config, "--data", &data, "--"], words].concat());
    ensure!(run(&["/no/such/command"])?.code() == Some(127));
    ensure!(run(&[&not_executable.display().to_string()])?.code() == Some(126));
    ensure!(run(&["sh", "-c", "exit 7"])?.code() == Some(7));
    let killed = run(&["sh", "-c", "kill -9 $$"])?;
    ensure!(killed.signal() == Some(9), "{:?}", killed.status);
    // Standard input, output and error are the command's own.
    let echoed = run(&["sh", "-c", "echo out; echo err >&2; pwd >&2"])?;
    ensure!(echoed.out() == "out\n" && echoed.err().starts_with("err\n"), "{}{}", echoed.out(), echoed.err());
    Ok(())
}

#[test]
fn token_new_prints_a_token_once() -> anyhow::Result<()> {
    let outcome = cli(&["token", "new", "--name", "alice"])?;
    ensure!(outcome.code() == Some(0), "{}", outcome.err());
    let text = outcome.out() + &outcome.err();
    let tokens: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("gsc_")).collect();
    ensure!(tokens.len() == 1 && tokens[0].len() == 42, "{text}");
    let other = cli(&["token", "new", "--name", "alice"])?;
    ensure!(!other.out().contains(tokens[0]), "the same token twice");
    Ok(())
}

#[test]
fn default_configuration_is_accepted_by_check() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let defaults = cli(&["config", "default"])?;
    ensure!(defaults.code() == Some(0), "{}", defaults.err());
    let file = folder.path().join("goscope.yaml");
    fs::write(&file, &defaults.stdout)?;
    let checked = cli(&["config", "check", &file.display().to_string()])?;
    ensure!(checked.code() == Some(0), "{}{}", checked.out(), checked.err());
    let shown = cli(&["config", "show", &file.display().to_string()])?;
    ensure!(shown.code() == Some(0) && shown.out().contains("127.0.0.1:6060"), "{}{}", shown.out(), shown.err());
    Ok(())
}

#[test]
fn every_mistake_of_a_configuration_is_reported_in_one_go() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("goscope.yaml");
    fs::write(&file, "target: { address: nowhere }\nlisten: { debug: 127.0.0.1:999999 }\ngate: { alow: [] }\n")?;
    let checked = cli(&["config", "check", &file.display().to_string()])?;
    ensure!(checked.code() == Some(1), "{:?} {}{}", checked.status, checked.out(), checked.err());
    let text = checked.out() + &checked.err();
    for path in ["target.address", "listen.debug", "alow"] {
        ensure!(text.contains(path), "{path} is not reported in {text}");
    }
    Ok(())
}

#[test]
fn health_tells_a_running_agent_from_none() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    let address = format!("127.0.0.1:{}", session.place.metrics_port);
    let health = |flag: &str| cli(&["health", flag, "--address", &address]);
    ensure!(health("--live")?.code() == Some(0) && health("--ready")?.code() == Some(0));
    session.shop_get("/fault/exit").ok();
    let (_, place) = session.finish()?;
    place.settled_incidents()?;
    let gone = goscope_e2e::wait::until("the agent's end", || health("--live").ok().filter(|o| o.code() != Some(0)))?;
    ensure!(gone.code() == Some(1), "{:?} {}", gone.status, gone.err());
    Ok(())
}

#[test]
fn version_says_what_this_is() -> anyhow::Result<()> {
    let outcome = cli(&["--version"])?;
    ensure!(outcome.code() == Some(0), "{}", outcome.err());
    let text = outcome.out();
    ensure!(text.starts_with("goscope ") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    ensure!(text.contains("commit ") && text.contains("x86_64-unknown-linux-gnu") && text.contains("tls "), "{text}");
    Ok(())
}

#[test]
fn binary_is_static_and_small() -> anyhow::Result<()> {
    let path = goscope()?;
    let types = elf::program_header_types(&fs::read(&path)?)?;
    ensure!(!types.contains(&elf::PT_INTERP), "{} asks for a dynamic loader", path.display());
    if path.components().any(|part| part.as_os_str() == "release") {
        let size = fs::metadata(&path)?.len();
        ensure!(size <= 15 << 20, "{size} bytes");
    }
    Ok(())
}

#[test]
fn binary_runs_in_an_empty_root() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    fs::copy(goscope()?, root.path().join("goscope"))?;
    // As root in its own user namespace, or as the root that the tests may already run as.
    let own = run(Command::new("unshare").args(["--user", "--map-root-user", "true"]))?;
    let program =
        if own.code() == Some(0) { &["unshare", "--user", "--map-root-user", "chroot"][..] } else { &["chroot"] };
    let outcome = run(Command::new(program[0]).args(&program[1..]).arg(root.path()).args(["/goscope", "--version"]))?;
    ensure!(outcome.code() == Some(0) && outcome.out().starts_with("goscope "), "{}", outcome.err());
    Ok(())
}
