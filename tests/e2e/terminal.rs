//! What a person sees and what the terminal does: `script` gives each session a terminal of its own.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use goscope_e2e::process::contains;
use goscope_e2e::session::{Place, Setup};
use goscope_e2e::{fault, wait};

/// A session whose standard streams are a terminal; its standard output is a file apart, where asked for.
struct Terminal {
    place: Place,
    child: Child,
}

impl Terminal {
    fn start(setup: &Setup, stdout: Option<&str>) -> anyhow::Result<Self> {
        let (place, command) = setup.prepare(true)?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        // `exec`: a shell that stayed would get the terminal's signals too, and die of them.
        let mut line = "exec".to_owned();
        for word in words {
            line.push_str(&format!(" '{}'", word.to_string_lossy().replace('\'', "'\\''")));
        }
        if let Some(file) = stdout {
            line.push_str(&format!(" > '{}'", place.folder().join(file).display()));
        }
        let typescript = place.folder().join("typescript");
        let child = Command::new("script")
            .args(["-qefc", &line])
            .arg(&typescript)
            .current_dir(place.folder())
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("script is missing; it belongs to util-linux")?;
        Ok(Self { place, child })
    }

    /// What stood on the screen so far, without the lines that `script` adds.
    fn screen(&self) -> String {
        let bytes = std::fs::read(self.place.folder().join("typescript")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().filter(|l| !l.starts_with("Script ")).collect::<Vec<_>>().join("\n")
    }

    fn await_text(&self, text: &str) -> anyhow::Result<()> {
        wait::until(&format!("{text:?} on the screen"), || self.screen().contains(text).then_some(()))
            .with_context(|| self.screen())
    }

    fn press(&mut self, key: u8) -> anyhow::Result<()> {
        let keyboard = self.child.stdin.as_mut().context("no keyboard")?;
        keyboard.write_all(&[key])?;
        Ok(keyboard.flush()?)
    }

    fn finish(&mut self) -> anyhow::Result<Option<i32>> {
        let status = wait::until("the end of the session", || self.child.try_wait().transpose())
            .with_context(|| self.screen())??;
        Ok(status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal goes with script; the app behind it gets SIGHUP as from any closed window.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const CTRL_C: u8 = 3;
const CTRL_BACKSLASH: u8 = 28;

#[test]
fn ctrl_c_reaches_the_app_once() -> anyhow::Result<()> {
    let mut terminal = Terminal::start(&Setup::new(&["-graceful"]), None)?;
    wait::until("the shop listens", || terminal.place.shop()).with_context(|| terminal.screen())?;
    terminal.await_text("msg=state")?;
    terminal.press(CTRL_C)?;
    let status = terminal.finish()?;
    let screen = terminal.screen();
    ensure!(screen.matches("msg=\"shutting down\" signal=interrupt").count() == 1, "{screen}");
    ensure!(!screen.contains("one more signal"), "the signal came twice\n{screen}");
    ensure!(status == Some(0), "{status:?}");
    ensure!(terminal.place.settled_incidents()?.is_empty());
    Ok(())
}

#[test]
fn ctrl_backslash_makes_a_dump_and_an_incident() -> anyhow::Result<()> {
    let mut terminal = Terminal::start(&Setup::new(&[]), None)?;
    terminal.await_text("msg=state")?;
    terminal.press(CTRL_BACKSLASH)?;
    ensure!(terminal.finish()? == Some(2));
    let incidents = terminal.place.settled_incidents()?;
    ensure!(incidents.len() == 1 && incidents[0].reason() == "SIGQUIT: quit", "{incidents:?}");
    Ok(())
}

#[test]
fn a_terminal_gets_the_friendly_block_and_the_report() -> anyhow::Result<()> {
    let mut setup = Setup::fault(&fault::named("nil"), "1.27.3");
    setup.quiet = false;
    // The fault comes by request, so that the block has its time.
    setup.shop.clear();
    let mut terminal = Terminal::start(&setup, Some("stdout.txt"))?;
    terminal.await_text("go tool pprof")?;
    let (_, port) = wait::until("the shop listens", || terminal.place.shop())?;
    let screen = terminal.screen();
    for expected in [
        format!("127.0.0.1:{}/debug/pprof/heap", terminal.place.gate_port),
        format!("127.0.0.1:{}/metrics", terminal.place.metrics_port),
        "goscope-data".to_owned(),
    ] {
        ensure!(screen.contains(&expected), "no {expected:?} in {screen}");
    }
    goscope_e2e::http::get(port, "/fault/nil", &[]).ok();
    ensure!(terminal.finish()? == Some(2));
    told_twice(&terminal.screen())?;
    ensure!(std::fs::read(terminal.place.folder().join("stdout.txt"))?.is_empty(), "something on standard output");
    Ok(())
}

#[test]
fn a_file_gets_log_lines_without_colour() -> anyhow::Result<()> {
    let nil = fault::named("nil");
    let mut setup = Setup::fault(&nil, "1.27.3");
    setup.quiet = false;
    setup.shop.clear();
    let session = setup.under_goscope()?;
    session.await_ready()?;
    session.process().await_stderr("go tool pprof")?;
    session.shop_get("/fault/nil").ok();
    let (outcome, place) = session.finish()?;
    place.settled_incidents()?;
    ensure!(outcome.code() == Some(2) && outcome.stdout.is_empty());
    ensure!(!contains(&outcome.stderr, b"\x1b["), "colour in a file: {}", outcome.err());
    told_twice(&outcome.err())?;
    Ok(())
}

/// Once by the runtime, once by our report, which also says where the evidence is and what shows the rest.
fn told_twice(text: &str) -> anyhow::Result<()> {
    for expected in ["invalid memory address or nil pointer dereference", "fault.nilDereference"] {
        ensure!(text.matches(expected).count() >= 2, "{expected:?} is not in the report: {text}");
    }
    ensure!(text.contains("/incidents/") && text.contains("goscope analyze "), "{text}");
    Ok(())
}

#[test]
fn quiet_adds_nothing() -> anyhow::Result<()> {
    let mut setup = Setup::new(&["-noise", "lines:1000", "-report", "1h"]);
    setup.quiet = true;
    let mut terminal = Terminal::start(&setup, None)?;
    ensure!(terminal.finish()? == Some(0));
    let expected = goscope_e2e::noise::lines(1000);
    // The terminal turns LF into CR LF; lines() takes both.
    ensure!(terminal.screen().lines().eq(expected.lines()), "{}", terminal.screen());
    Ok(())
}
