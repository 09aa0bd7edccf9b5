//! The workload itself, without goscope: what the other tests take for granted.

use anyhow::ensure;
use goscope_e2e::fault::{self, End, Fault};
use goscope_e2e::go::{self, Flavour};
use goscope_e2e::noise;
use goscope_e2e::session::{Debug, Setup};

/// The shop builds with the oldest release and sells something.
#[test]
fn oldest_release_builds_and_serves() -> anyhow::Result<()> {
    let mut setup = Setup::new(&[]);
    setup.release = go::OLDEST;
    let session = setup.bare()?;
    ensure!(session.shop_get("/catalogue?sku=sku-0007")?.text().contains("\"name\":\"teapot\""));
    ensure!(session.shop_get("/cart?customer=ann&sku=sku-0007&quantity=2")?.status == 200);
    ensure!(session.shop_get("/checkout?customer=ann")?.text().contains("\"cents\":916"));
    session.process().await_stderr("msg=receipt customer=ann")?;
    ensure!(session.shop_get("/fault/unheard-of")?.status == 404);
    Ok(())
}

/// Every fault ends the bare shop as the table says, with its reason on stderr, on the release that changed least and on the one that changed most.
#[test]
fn every_fault_ends_the_bare_shop_as_the_table_says() -> anyhow::Result<()> {
    for fault in fault::ALL {
        for release in [go::OLDEST, go::RELEASES[3]] {
            // Building the shop twice more with cgo and the race detector shows nothing that the newest release does not.
            if fault.flavour == Flavour::Plain || release == go::RELEASES[3] {
                check(&fault, release)?;
            }
        }
    }
    Ok(())
}

fn check(fault: &Fault, release: &'static str) -> anyhow::Result<()> {
    let (outcome, _) = Setup::fault(fault, release).bare()?.finish_fault(fault)?;
    let (name, text) = (fault.name, outcome.err());
    match fault.end {
        End::Status(status) => {
            ensure!(outcome.code() == Some(status), "{name} {release}: {:?}\n{text}", outcome.status);
        }
        End::Quit(_) => {
            ensure!(outcome.code() == Some(2) && text.contains("\nSIGQUIT: quit\n"), "{name} {release}: {text}");
        }
        // The race detector has its say at an exit only; a signal's default action is no exit.
        End::Term(_) => ensure!(outcome.signal() == Some(15), "{name} {release}: {:?}\n{text}", outcome.status),
    }
    ensure!(text.contains(fault.function), "{name} {release}: no {}\n{text}", fault.function);
    Ok(())
}

/// The deadlock needs every listener, connection and timer gone; here it must work from a request too, with a unix socket and with TCP.
#[test]
fn deadlock_is_noticed_although_servers_ran() -> anyhow::Result<()> {
    for debug in [Debug::Tcp, Debug::Unix] {
        let mut setup = Setup::new(&[]);
        setup.debug = debug;
        let session = setup.bare()?;
        // The server is gone before the answer may be whole.
        session.shop_get("/fault/deadlock").ok();
        let (outcome, _) = session.finish()?;
        ensure!(outcome.code() == Some(2), "{}", outcome.err());
        ensure!(outcome.err().contains("fatal error: all goroutines are asleep - deadlock!\n"), "{}", outcome.err());
    }
    Ok(())
}

/// What the harness believes the noise to be is what the shop writes.
#[test]
fn noise_is_as_defined() -> anyhow::Result<()> {
    let mut setup = Setup::new(&["-noise", "random:5000", "-report", "1h"]);
    setup.debug = Debug::None;
    let (outcome, _) = setup.bare()?.finish()?;
    ensure!(outcome.code() == Some(0) && outcome.stderr == noise::random(5000));
    Ok(())
}
