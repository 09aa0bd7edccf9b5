//! Each way in which a container dies: the incident is on the volume, whole, once, and the container's end is what it would have been alone.

use anyhow::ensure;
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node::{ContainerProcess, kills_whole_containers};
use goscope_e2e::incident::Stored;
use goscope_e2e::wait;
use rustix::process::Signal;
use serde_json::Value;

use crate::pod::{Pod, USUAL, raise};

/// How the shop's container ended, as the kubelet has it.
fn terminated(namespace: &Namespace, pod: &str) -> anyhow::Result<Value> {
    namespace.await_pod(pod, "the end of the shop's container", |pod| {
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        state.is_object().then(|| state.clone())
    })
}

fn is_exit(stored: &Stored, reason: &str, signal: &str) -> bool {
    stored.kind() == "exit"
        && stored.reason() == reason
        && stored.exit.as_ref().is_some_and(|exit| exit["signal_name"] == signal)
}

#[test]
fn panic() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-panic")?;
    let pod = Pod { name: "shop-panic", args: &["-noise", "lines:2000", "-fault", "nil"], ..USUAL };
    pod.with_goscope(&namespace)?;
    // The sidecar ends after the app, when it has read the spool to its end.
    namespace.await_phase(pod.name, "Failed")?;
    ensure!(terminated(&namespace, pod.name)?["exitCode"] == 2);
    let stored = namespace.only_incident()?;
    ensure!(stored.kind() == "panic", "{}", stored.incident);
    ensure!(
        stored.reason() == "runtime error: invalid memory address or nil pointer dereference",
        "{}",
        stored.incident
    );
    ensure!(stored.incident["complete"] == true && stored.incident["host"] == pod.name, "{}", stored.incident);
    let told = &stored.incident["pod"];
    let object = namespace.object("pod", pod.name)?;
    ensure!(told["name"] == pod.name && told["namespace"] == namespace.name.as_str(), "{told}");
    ensure!(told["uid"] == object["metadata"]["uid"] && told["node"] == object["spec"]["nodeName"], "{told}");
    ensure!(told["container"] == "shop" && told["image"] == "localhost/shop:test", "{told}");
    // From the executable, which the agent cannot read in another container.
    let program = &stored.incident["program"];
    ensure!(program["module"] == "example.com/shop", "{program}");
    ensure!(program["go_version"].as_str().is_some_and(|version| version.starts_with("go1.")), "{program}");
    let logs = namespace.logs(pod.name, &[])?;
    let exit = stored.exit.as_ref().expect("a death has an exit record");
    ensure!(exit["status"] == 2 && exit["unspooled_bytes"] == 0, "{exit}");
    ensure!(exit["stderr_bytes"].as_u64() == u64::try_from(logs.len()).ok(), "{exit}, {} bytes of log", logs.len());
    ensure!([stored.before.as_slice(), &stored.stderr].concat() == logs, "kubectl logs differ from the incident");
    Ok(())
}

#[test]
fn memory_limit() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-oom")?;
    let pod = Pod { name: "shop-oom", memory: "64Mi", ..USUAL };
    let address = pod.ready(&namespace)?;
    raise(&address, "oom")?;
    let end = terminated(&namespace, pod.name)?;
    ensure!(end["exitCode"] == 137 && end["reason"] == "OOMKilled", "{end}");
    namespace.await_phase(pod.name, "Failed")?;
    let stored = namespace.only_incident()?;
    if kills_whole_containers() {
        ensure!(stored.reason() == "killed together with its launcher", "{}", stored.incident);
    } else {
        ensure!(is_exit(&stored, "killed by SIGKILL", "SIGKILL"), "{}", stored.incident);
        let peak = stored.exit.as_ref().and_then(|exit| exit["max_rss_bytes"].as_u64());
        ensure!(peak.is_some_and(|bytes| bytes > 32 << 20), "peak memory {peak:?}");
    }
    Ok(())
}

#[test]
fn kill_of_the_app() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-kill")?;
    let pod = Pod { name: "shop-kill", restart: "Always", ..USUAL };
    pod.ready(&namespace)?;
    ContainerProcess::find(pod.name, &["/shop"])?.signal(Signal::KILL)?;
    let stored = namespace.await_incident(pod.name)?;
    ensure!(is_exit(&stored, "killed by SIGKILL", "SIGKILL"), "{}", stored.incident);
    // The kubelet starts the app again, not the sidecar, and the next life is no incident.
    namespace.await_pod(pod.name, "a second life", |pod| {
        let shop = &pod["status"]["containerStatuses"][0];
        (shop["restartCount"] == 1 && shop["ready"] == true).then_some(())
    })?;
    let sidecar = &namespace.object("pod", pod.name)?["status"]["initContainerStatuses"][0];
    ensure!(sidecar["restartCount"] == 0, "{sidecar}");
    namespace.only_incident().map(drop)
}

/// What the kubelet does when a grace period is over, and the kernel on cgroup v2 when memory is used up.
#[test]
fn kill_of_the_whole_container() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-container")?;
    let pod = Pod { name: "shop-container", ..USUAL };
    pod.ready(&namespace)?;
    wait::until("the shop's first line", || namespace.logs(pod.name, &[]).ok().filter(|log| !log.is_empty()))?;
    ContainerProcess::find(pod.name, &["/var/lib/goscope/bin/goscope", "exec"])?.signal(Signal::KILL)?;
    ensure!(terminated(&namespace, pod.name)?["exitCode"] == 137);
    namespace.await_phase(pod.name, "Failed")?;
    let stored = namespace.only_incident()?;
    ensure!(stored.reason() == "killed together with its launcher" && stored.exit.is_none(), "{}", stored.incident);
    ensure!(!stored.stderr.is_empty(), "what it wrote before is there");
    Ok(())
}

#[test]
fn deletion_of_the_pod() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-delete")?;
    let pod = Pod { name: "shop-delete", ..USUAL };
    pod.ready(&namespace)?;
    namespace.delete_pod(pod.name)?;
    let incidents = namespace.incidents()?;
    ensure!(incidents.is_empty(), "it was asked to end and did: {}", incidents[0].incident);
    Ok(())
}

#[test]
fn deletion_of_a_pod_that_does_not_end_when_asked() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-hung")?;
    let pod = Pod { name: "shop-hung", ..USUAL };
    pod.ready(&namespace)?;
    ContainerProcess::find(pod.name, &["/shop"])?.signal(Signal::STOP)?;
    namespace.delete_pod(pod.name)?;
    let stored = namespace.only_incident()?;
    ensure!(stored.reason() == "killed together with its launcher", "{}", stored.incident);
    Ok(())
}
