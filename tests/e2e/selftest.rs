//! The self-test: an agent in a sidecar finds ways around its gate, and one under `goscope run` asks nobody.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, ensure};
use goscope_e2e::network::Network;
use goscope_e2e::process::{Outcome, Process, run};
use goscope_e2e::session::{Setup, goscope};
use goscope_e2e::{go, http, wait};
use serde_json::Value;

/// A pod's agent beside a shop that serves pprof on every address.
struct Sidecar {
    // Before the namespace, so that they end first.
    agent: Process,
    shop: Process,
    network: Network,
    folder: tempfile::TempDir,
    token: String,
}

impl Sidecar {
    fn start() -> anyhow::Result<Self> {
        let (network, folder) = (Network::new()?, tempfile::tempdir()?);
        let path = |name: &str| folder.path().join(name);
        let tokens = path("tokens.yaml");
        let new = ["token", "new", "--name", "me", "--tier", "basic", "--file"];
        let token = run(std::process::Command::new(goscope()?).args(new).arg(&tokens))?.out().trim().to_owned();
        let config = format!(
            "gate: {{ tokens: {{ files: [{tokens:?}] }} }}\nintake: {{ spool: {:?} }}\nstore: {{ path: {:?} }}\nselftest: {{ every: 10s }}\n",
            path("spool"),
            path("data")
        );
        fs::write(path("goscope.yaml"), config)?;
        let mut shop = network.command(go::shop(go::USUAL, go::Flavour::Plain)?);
        shop.args(["-listen", "0.0.0.0:8080", "-debug", "0.0.0.0:6060", "-record-debug"]).arg(path("requests.txt"));
        let mut agent = network.command(goscope()?);
        agent.arg("agent").arg("--config").arg(path("goscope.yaml")).env_remove("GOSCOPE_CONFIG");
        let (shop, agent) =
            (Process::spawn(&mut shop, folder.path(), "shop")?, Process::spawn(&mut agent, folder.path(), "agent")?);
        Ok(Self { agent, shop, network, folder, token })
    }

    fn curl(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        run(self.network.command("curl").args(["--silent", "--show-error"]).args(arguments))
    }

    fn await_found(&self, loopback: u32, network: u32) -> anyhow::Result<()> {
        let lines = [("loopback", loopback), ("network", network)]
            .map(|(reach, ports)| format!("goscope_bypass_found{{reach=\"{reach}\"}} {ports}\n"));
        let found = || {
            let text = self.curl(&["http://127.0.0.1:9464/metrics"]).ok()?.out();
            lines.iter().all(|line| text.contains(line)).then_some(())
        };
        self.agent.until(&format!("{lines:?}"), found).with_context(|| self.log())
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.agent.stderr_so_far().unwrap_or_default()).into_owned()
    }

    /// The agent's log lines with this message, as reach and address.
    fn told(&self, message: &str) -> Vec<(String, String)> {
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let field = |name: &str| Some(line[name].as_str()?.to_owned());
            (line["message"] == message).then(|| Some((field("reach")?, field("address")?)))?
        };
        self.log().lines().filter_map(line).collect()
    }
}

fn requests_of_the_self_test(record: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(record)?.replace("\r\n", "\n");
    let requests = text.split("\n\n").filter(|request| request.contains("User-Agent: goscope-selftest/"));
    Ok(requests.map(|request| request.lines().next().unwrap_or_default().to_owned()).collect())
}

#[test]
fn a_sidecar_finds_an_exposed_port_and_tells_when_it_is_gone() -> anyhow::Result<()> {
    let mut sidecar = Sidecar::start()?;
    sidecar.await_found(0, 1)?;
    let place = [("network".to_owned(), "[::]:6060".to_owned())];
    ensure!(sidecar.told("pprof answers without the gate") == place, "{}", sidecar.log());

    let authorization = format!("Authorization: Bearer {}", sidecar.token);
    let info = sidecar.curl(&["--header", &authorization, "http://127.0.0.1:6061/api/v1/info"])?;
    let info: Value = serde_json::from_slice(&info.stdout).with_context(|| info.out())?;
    let [finding] = info["findings"].as_array().context("no findings")?.as_slice() else {
        anyhow::bail!("not one finding: {info}")
    };
    ensure!(finding["id"] == "bypass" && finding["severity"] == "error", "{finding}");
    ensure!(finding["claim"].as_str().is_some_and(|claim| claim.contains("[::]:6060")), "{finding}");
    ensure!(finding["evidence"].as_array().is_some_and(|evidence| evidence.len() == 2), "pprof and expvar: {finding}");
    ensure!(finding["next"].as_str().is_some_and(|next| next.contains("sealed.enabled=true")), "{finding}");

    let requests = requests_of_the_self_test(&sidecar.folder.path().join("requests.txt"))?;
    ensure!(
        requests.get(..2).is_some_and(|two| two == ["GET /debug/pprof/ HTTP/1.1", "GET /debug/vars HTTP/1.1"]),
        "{requests:?}"
    );

    sidecar.shop.signal(rustix::process::Signal::KILL)?;
    sidecar.await_found(0, 0)?;
    ensure!(sidecar.told("pprof does not answer without the gate any more") == place, "{}", sidecar.log());
    sidecar.agent.signal(rustix::process::Signal::TERM)?;
    ensure!(sidecar.agent.ends_within(wait::DEADLINE), "it does not end\n{}", sidecar.log());
    Ok(())
}

/// By the second sample of the target, which comes [`INTERVAL`](goscope::target::sampler::INTERVAL) after the first, a self-test would long have begun.
#[test]
fn under_goscope_run_no_port_of_the_machine_is_asked() -> anyhow::Result<()> {
    let witness = TcpListener::bind("127.0.0.1:0")?;
    witness.set_nonblocking(true)?;
    let session = Setup::new(&[]).under_goscope()?;
    session.await_ready()?;
    let record = session.place.record();
    let samples = || {
        let text = fs::read_to_string(&record).ok()?;
        (text.matches("User-Agent: goscope/").count() >= 2).then_some(())
    };
    session.process().until("two samples of the target", samples).with_context(|| session.place.agent_log())?;
    let connection = witness.accept().map_err(|error| error.kind());
    ensure!(matches!(connection, Err(std::io::ErrorKind::WouldBlock)), "{connection:?}");
    ensure!(requests_of_the_self_test(&record)?.is_empty(), "{}", fs::read_to_string(&record)?);
    let metrics = http::get(session.place.metrics_port, "/metrics", &[])?.text();
    ensure!(!metrics.contains("goscope_bypass_found"), "what was not tested has no series\n{metrics}");

    let bearer = format!("Bearer {}", session.place.token()?);
    let info = http::get(session.place.gate_port, "/api/v1/info", &[("Authorization", &bearer)])?;
    let info: Value = serde_json::from_slice(&info.body).with_context(|| info.text())?;
    let target = session.place.debug_address.clone().context("the shop serves pprof")?;
    let finding = &info["findings"][0];
    ensure!(finding["id"] == "bypass" && finding["severity"] == "info", "{info}");
    ensure!(finding["claim"].as_str().is_some_and(|claim| claim.contains(&target)), "{info}");
    Ok(())
}
