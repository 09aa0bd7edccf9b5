//! The agent is killed again and again; the app never notices and its death is recorded once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use goscope_e2e::process;
use goscope_e2e::session::{Setup, goscope};
use goscope_e2e::{noise, wait};
use rustix::process::{Signal, kill_process};

/// Agents below the launcher, by their command line.
fn agents(launcher: u32) -> anyhow::Result<Vec<u32>> {
    let ours = |id: &u32| process::command_line(*id).get(1..3).is_some_and(|w| w == ["agent", "--embedded"]);
    Ok(process::tree(launcher)?.into_iter().filter(ours).collect())
}

/// SIGKILL every 300 ms for 10 s; the panic comes in the middle of it.
#[test]
fn app_is_not_disturbed_and_its_death_recorded_once() -> anyhow::Result<()> {
    let session = Setup::new(&["-noise", "steady:1ms", "-report", "1h"]).under_goscope()?;
    session.await_shop()?;
    let launcher = session.process().id();
    wait::until("the agent", || agents(launcher).ok().filter(|a| !a.is_empty()))?;
    let app_is_dead = AtomicBool::new(false);
    let (outcome, place, kills) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0_u32;
            for _ in 0..33 {
                for agent in agents(launcher).unwrap_or_default() {
                    kills += u32::from(process::pid(agent).is_ok_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
                }
                if app_is_dead.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(300));
            }
            kills
        });
        std::thread::sleep(Duration::from_secs(9));
        session.shop_get("/fault/nil").ok();
        let (outcome, place) = session.finish()?;
        app_is_dead.store(true, Ordering::Relaxed);
        anyhow::Ok((outcome, place, killer.join().expect("the killer does not panic")))
    })?;
    ensure!(kills >= 3, "the agent was killed {kills} times only: it is not started again");
    ensure!(outcome.code() == Some(2), "{:?}", outcome.status);

    // The next start handles what a dead agent left, so the spool need not be empty yet.
    let mut again = std::process::Command::new(goscope()?);
    again.args(["run", "--quiet", "--config"]).arg(place.config()).arg("--data").arg(place.data()).args(["--", "true"]);
    ensure!(process::run(&mut again)?.code() == Some(0));
    let incidents = place.settled_incidents()?;
    ensure!(incidents.len() == 1, "{} incidents\n{}", incidents.len(), place.agent_log());
    let stored = &incidents[0];
    ensure!(stored.kind() == "panic" && stored.incident["complete"] == true, "{}", stored.incident);
    ensure!(
        stored.incident["count"].as_u64().is_none_or(|count| count == 1),
        "counted more than once: {}",
        stored.incident
    );
    let (start, end) = stored.span().context("no span")?;
    ensure!(outcome.stderr.get(start..end) == Some(&stored.stderr), "the incident's bytes are not the app's");
    ensure!(outcome.stderr[..start].ends_with(&stored.before) && !stored.before.is_empty(), "nor is what came before");
    whole_log(&outcome.err())
}

/// Every line of the log arrived, once and in order, up to the panic.
fn whole_log(stderr: &str) -> anyhow::Result<()> {
    let (log, _) = stderr.split_once("panic: runtime error").context("no panic")?;
    let mut expected = String::new();
    let mut count = 0;
    for line in log.lines().filter(|line| line.starts_with("seq=")) {
        expected.clear();
        noise::line(&mut expected, count);
        ensure!(line == expected.trim_end(), "line {count} is {line:?}");
        count += 1;
    }
    ensure!(count > 1000, "{count} lines only");
    Ok(())
}
