//! Each fault on each release: one incident, of the right kind and reason, its bytes as the app wrote them, the exit status as when run bare.

use anyhow::{Context, ensure};
use goscope_e2e::evidence;
use goscope_e2e::fault::{self, Fault};
use goscope_e2e::incident::Stored;
use goscope_e2e::process::Outcome;
use goscope_e2e::session::Setup;
use goscope_e2e::text;

macro_rules! releases {
    ($($module:ident = $release:literal),+) => {
        $(mod $module {
            super::cases! { $release;
                nil = "nil", index = "index", custom_error = "custom-error", repanic = "repanic", chain = "chain", multiline = "multiline",
                handler = "handler", map_writes = "map-writes", deadlock = "deadlock", stack_overflow = "stack-overflow",
                goroutine_leak = "goroutine-leak", lock = "lock", oom = "oom", gc_pressure = "gc-pressure", cpu_spin = "cpu-spin",
                exit = "exit", log_fatal = "log-fatal", cgo_segv = "cgo-segv", race = "race"
            }
        })+
    };
}

macro_rules! cases {
    ($release:literal; $($test:ident = $fault:literal),+) => {
        $(#[test]
        fn $test() -> anyhow::Result<()> {
            crate::faults::check($fault, $release)
        })+
    };
}
use cases;

releases! { go1_21 = "1.21.13", go1_24 = "1.24.11", go1_26 = "1.26.8", go1_27 = "1.27.3" }

fn check(name: &str, release: &'static str) -> anyhow::Result<()> {
    let fault = fault::named(name);
    let (bare, _) = Setup::fault(&fault, release).bare()?.finish_fault(&fault)?;
    let (watched, place) = Setup::fault(&fault, release).under_goscope()?.finish_fault(&fault)?;
    same_end(&fault, &bare, &watched)?;
    let incidents = place.settled_incidents()?;
    ensure!(incidents.len() == 1, "{} incidents, {:?}\n{}", incidents.len(), kinds(&incidents), place.agent_log());
    evidence::check(&fault, &incidents[0], &watched.stderr, watched.code())
        .with_context(|| format!("{}\n{}", incidents[0].incident, place.agent_log()))
}

fn kinds(incidents: &[Stored]) -> Vec<(&str, &str)> {
    incidents.iter().map(|i| (i.kind(), i.reason())).collect()
}

/// The app ends under goscope as it ends alone, and says the same.
fn same_end(fault: &Fault, bare: &Outcome, watched: &Outcome) -> anyhow::Result<()> {
    ensure!(
        bare.code() == watched.code() && bare.signal() == watched.signal(),
        "{:?} bare, {:?} watched",
        bare.status,
        watched.status
    );
    ensure!(watched.stdout == bare.stdout, "standard output differs: {}", watched.out());
    if fault.deterministic {
        let heads = [bare, watched].map(|outcome| text::head_of_death(&outcome.err()).map(|head| text::shape(&head)));
        ensure!(heads[0].is_some() && heads[0] == heads[1], "{:?}\n{:?}", heads[0], heads[1]);
    }
    Ok(())
}

/// Not our own word for it: a process between the app and the launcher writes down what the app wrote, and the store must hold the same.
#[test]
fn witness_saw_the_same_bytes() -> anyhow::Result<()> {
    for name in ["nil", "map-writes"] {
        let fault = fault::named(name);
        let mut setup = Setup::fault(&fault, "1.27.3");
        setup.witness = true;
        let (watched, place) = setup.under_goscope()?.finish_fault(&fault)?;
        let seen = std::fs::read(place.witness())?;
        ensure!(watched.stderr == seen, "{name}: {} bytes seen, {} passed on", seen.len(), watched.stderr.len());
        let incidents = place.settled_incidents()?;
        ensure!(incidents.len() == 1, "{:?}", kinds(&incidents));
        ensure!(
            [incidents[0].before.as_slice(), &incidents[0].stderr].concat() == seen,
            "{name}: the store holds something else"
        );
    }
    Ok(())
}

/// A panic in a handler is told while the service goes on; the next one is another incident or counts up, and the service still sells.
#[test]
fn recovered_panic_is_told_while_the_service_runs() -> anyhow::Result<()> {
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    session.shop_get("/fault/handler").ok();
    let data = session.place.data();
    let first = goscope_e2e::wait::until("the incident", || {
        goscope_e2e::incident::stored(&data).ok().filter(|all| all.len() == 1)
    })?;
    ensure!(first[0].kind() == "http_panic", "{}", first[0].incident);
    ensure!(session.shop_get("/catalogue?sku=sku-0001")?.status == 200);
    Ok(())
}
