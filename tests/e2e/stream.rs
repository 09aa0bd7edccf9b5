//! What the app writes comes out on the other side, whatever it is, and noise is no incident.

use anyhow::ensure;
use goscope_e2e::noise;
use goscope_e2e::session::{Debug, Setup};

fn check(spec: &str, expected: &[u8]) -> anyhow::Result<()> {
    // Without customers the restocking job has nothing to say, and with this interval the state report neither.
    let mut setup = Setup::new(&["-noise", spec, "-report", "1h"]);
    setup.debug = Debug::None;
    let (outcome, place) = setup.under_goscope()?.finish()?;
    ensure!(outcome.code() == Some(0), "{:?}", outcome.status);
    ensure!(outcome.stdout.is_empty(), "on standard output: {}", outcome.out());
    let differs = outcome.stderr.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(
        outcome.stderr == expected,
        "{} bytes of {}, first difference at {differs:?}",
        outcome.stderr.len(),
        expected.len()
    );
    let incidents = place.settled_incidents()?;
    ensure!(incidents.is_empty(), "{}", incidents[0].incident);
    Ok(())
}

#[test]
fn a_hundred_thousand_random_bytes() -> anyhow::Result<()> {
    check("random:100000", &noise::random(100_000))
}

#[test]
fn a_million_log_lines() -> anyhow::Result<()> {
    check("lines:1000000", noise::lines(1_000_000).as_bytes())
}
