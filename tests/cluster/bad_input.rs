//! What people get wrong: the app runs in each case, and one sentence says what to do.

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::wait;
use serde_json::Value;

use crate::chart;
use crate::helm::Helm;
use crate::tunnel::Tunnel;

/// Waits until the metrics page of a pod holds `line`.
pub(crate) fn await_metric(address: &str, line: &str) -> anyhow::Result<()> {
    let url = format!("http://{address}:9464/metrics");
    wait::until(line, || {
        node::curl(&["-f", &url]).ok()?.out().lines().any(|found| found.starts_with(line)).then_some(())
    })
}

/// The port on which nothing listens, and one that serves something else than pprof: the pod is ready, and whoever asks for a profile is told.
#[test]
fn a_target_that_serves_no_pprof() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("bad-target")?;
    let shop = helm.shop();
    let mut verb = "install";
    for (target, metric, status, sentence, problem) in [
        (
            "127.0.0.1:6999",
            "goscope_target_samples_total{result=\"not_listening\"}",
            "502",
            "nothing answers at 127.0.0.1:6999",
            "nothing listens at 127.0.0.1:6999",
        ),
        (
            "127.0.0.1:8080",
            "goscope_target_samples_total{result=\"no_pprof\"}",
            "404",
            "page not found",
            "127.0.0.1:8080 answers, but not with the index page of pprof",
        ),
    ] {
        let value = format!("debug-sidecar.target={target}");
        helm.succeed(&chart::with_values(&[verb], &shop, &namespace, &[&value]))?;
        verb = "upgrade";
        let pod = chart::pod(&namespace)?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let address = namespace.await_ready(name)?;
        await_metric(&address, "goscope_target_up 0")?;
        await_metric(&address, metric)?;
        let tunnel = Tunnel::open(&namespace, name)?;
        let (answered, said) = tunnel.ask(&namespace.token, "/debug/pprof/heap")?;
        println!("target {target}: {answered} {said}");
        ensure!(answered == status && said.contains(sentence), "{target}: {answered} {said}");
        // What kubectl goscope status shows.
        let (_, info) = tunnel.ask(&namespace.token, "/api/v1/info")?;
        let info: Value = serde_json::from_str(&info)?;
        ensure!(info["target"]["up"] == false && info["target"]["problem"] == problem, "{info}");
        let sidecar = &namespace.object("pod", name)?["status"]["initContainerStatuses"][0];
        ensure!(sidecar["restartCount"] == 0, "{sidecar}");
    }
    Ok(())
}

/// A claim that is not there: the pods of before go on, the new one says what it waits for, and so do the notes.
#[test]
fn a_claim_that_is_missing() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("bad-claim")?;
    let shop = helm.shop();
    helm.succeed(&chart::with_values(&["install"], &shop, &namespace, &[]))?;
    let before = chart::pod(&namespace)?;
    let before = before["metadata"]["name"].as_str().context("no name")?;
    let mut upgrade = chart::with_values(
        &["upgrade"],
        &shop,
        &namespace,
        &["debug-sidecar.data.existingClaim=nowhere", "debug-sidecar.remote.enabled=true"],
    );
    // It would wait for a pod that cannot start.
    upgrade.retain(|arg| !matches!(*arg, "--wait" | "--timeout" | "2m"));
    let said = helm.succeed(&[&upgrade[..], &["--render-subchart-notes"]].concat())?;
    ensure!(said.contains("There is no PersistentVolumeClaim nowhere"), "{said}");
    ensure!(said.contains("There is no Secret goscope-tls yet"), "{said}");
    wait::until("the sentence of the scheduler", || {
        // As the notes say to ask.
        let events = namespace.kubectl(&["get", "events", "--field-selector", "reason=FailedScheduling"]).ok()?;
        events.contains("persistentvolumeclaim \"nowhere\" not found").then_some(())
    })
    .with_context(|| namespace.kubectl(&["get", "events"]).unwrap_or_default())?;
    let still = namespace.object("pod", before)?;
    ensure!(still["metadata"]["deletionTimestamp"].is_null() && still["status"]["phase"] == "Running", "{still}");
    let address = still["status"]["podIP"].as_str().context("no address")?;
    ensure!(node::curl(&["-f", &format!("http://{address}:8080/healthz")])?.code() == Some(0));
    Ok(())
}

/// The listener is on and has no certificate: the app is ready, the port-forward works, connections from the network are refused.
#[test]
fn a_certificate_that_is_missing() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("bad-certificate")?;
    helm.succeed(&chart::with_values(&["install"], &helm.shop(), &namespace, &["debug-sidecar.remote.enabled=true"]))?;
    let pod = chart::pod(&namespace)?;
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    let address = namespace.await_ready(name)?;
    await_metric(&address, "goscope_remote_certificate_broken 1")?;
    ensure!(node::curl(&["-k", &format!("https://{address}:6062/debug/pprof/heap")])?.code() != Some(0));
    let tunnel = Tunnel::open(&namespace, name)?;
    ensure!(tunnel.status(&namespace.token, "heap", 1)? == ["200"]);
    ensure!(namespace.agent_log(name).contains("/etc/goscope/tls/tls.crt"), "{}", namespace.agent_log(name));
    Ok(())
}
