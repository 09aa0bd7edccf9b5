//! Ways in which a container is ended from outside: the incident is on the volume, whole, once, and the container's end is what it would have been alone.

use std::time::Duration;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node::{ContainerProcess, kills_whole_containers};
use goscope_e2e::incident::Stored;
use goscope_e2e::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pod::{Pod, USUAL, raise};

/// Process 1 of the app's container.
pub(crate) const LAUNCHER: [&str; 2] = ["/var/lib/goscope/bin/goscope", "exec"];
/// What kills the launcher as well leaves no exit record; this is the reason then.
const TOGETHER: &str = "killed together with its launcher";
/// The kubelet looks at the use of volumes every ten seconds, at numbers that may be a minute old.
const EVICTION_DEADLINE: Duration = Duration::from_secs(180);

/// The exit code of the shop's container.
pub(crate) fn exit_code(pod: &Value) -> anyhow::Result<i64> {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    state["terminated"]["exitCode"].as_i64().with_context(|| format!("it has not ended: {state}"))
}

/// The incident names the pod that it came from, and the program.
pub(crate) fn tells_its_pod(stored: &Stored, pod: &Value) -> anyhow::Result<()> {
    let (told, meta) = (&stored.incident["pod"], &pod["metadata"]);
    ensure!(stored.incident["host"] == meta["name"], "{}", stored.incident);
    for part in ["name", "namespace", "uid"] {
        ensure!(told[part] == meta[part] && told[part].is_string(), "{part}: {told}");
    }
    ensure!(told["node"] == pod["spec"]["nodeName"], "{told}");
    ensure!(told["container"] == "shop" && told["image"] == "localhost/shop:test", "{told}");
    // From the executable, which the agent cannot read in another container.
    let program = &stored.incident["program"];
    ensure!(program["module"] == "example.com/shop", "{program}");
    ensure!(program["go_version"].as_str().is_some_and(|version| version.starts_with("go1.")), "{program}");
    Ok(())
}

fn is_exit(stored: &Stored, reason: &str, signal: &str) -> bool {
    stored.kind() == "exit"
        && stored.reason() == reason
        && stored.exit.as_ref().is_some_and(|exit| exit["signal_name"] == signal)
}

/// The whole stream stands in the incident: it ends with what the app wrote last, and nothing was lost on the way.
fn is_whole(stored: &Stored) -> anyhow::Result<()> {
    let exit = stored.exit.as_ref().context("no exit record")?;
    ensure!(exit["unspooled_bytes"] == 0 && stored.incident["complete"] == true, "{exit} {}", stored.incident);
    let (start, end) = stored.span().context("no span")?;
    ensure!(stored.stderr.len() == end - start, "{} bytes of {start}..{end}", stored.stderr.len());
    ensure!(stored.before.len() == start.min(256 << 10), "before.txt holds {} of {start} bytes", stored.before.len());
    Ok(())
}

/// More stderr than one segment of the incident holds, then a death: the log is the same, and the incident holds its end.
#[test]
fn a_long_log_before_the_panic() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-panic")?;
    let pod = Pod { name: "shop-panic", args: &["-noise", "lines:40000", "-fault", "nil"], ..USUAL };
    pod.with_goscope(&namespace)?;
    // The sidecar ends after the app, when it has read the spool to its end.
    namespace.await_phase(pod.name, "Failed")?;
    let stored = namespace.only_incident()?;
    is_whole(&stored)?;
    let logs = namespace.logs(pod.name, &[])?;
    let exit = stored.exit.as_ref().context("no exit record")?;
    ensure!(exit["stderr_bytes"].as_u64() == u64::try_from(logs.len()).ok(), "{exit}, {} bytes of log", logs.len());
    let (start, end) = stored.span().context("no span")?;
    ensure!(start > 256 << 10, "the noise is shorter than what is kept before an incident");
    ensure!(logs[start..end] == stored.stderr && logs[..start].ends_with(&stored.before), "kubectl logs differ");
    Ok(())
}

/// By the kernel when memory is used up, of the app alone, and of the whole container, which is what the kubelet does when a grace period is over.
#[test]
fn kills() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-kills")?;
    let hungry = Pod { name: "shop-oom", memory: "64Mi", ..USUAL };
    let killed = Pod { name: "shop-kill", restart: "Always", ..USUAL };
    let container = Pod { name: "shop-container", ..USUAL };
    Pod::all_with_goscope(&[hungry, killed, container], &namespace)?;
    let address = namespace.await_ready(hungry.name)?;
    for pod in [killed, container] {
        namespace.await_ready(pod.name)?;
        wait::until("the shop's first line", || namespace.logs(pod.name, &[]).ok().filter(|log| !log.is_empty()))?;
    }
    raise(&address, "oom")?;
    ContainerProcess::find(killed.name, &["/shop"])?.signal(Signal::KILL)?;
    ContainerProcess::find(container.name, &LAUNCHER)?.signal(Signal::KILL)?;

    let ended = namespace
        .await_pods(&[hungry.name, container.name], "both have ended", |p| p["status"]["phase"] == "Failed")?;
    for pod in &ended {
        ensure!(exit_code(pod)? == 137, "{}", pod["status"]);
    }
    let end = &ended[0]["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(end["reason"] == "OOMKilled", "{end}");
    let stored = namespace.only_incident_of(hungry.name)?;
    tells_its_pod(&stored, &ended[0])?;
    if kills_whole_containers() {
        ensure!(stored.reason() == TOGETHER, "{}", stored.incident);
    } else {
        ensure!(is_exit(&stored, "killed by SIGKILL", "SIGKILL"), "{}", stored.incident);
        is_whole(&stored)?;
        ensure!(stored.stderr == namespace.logs(hungry.name, &[])?, "kubectl logs differ from the incident");
        let peak = stored.exit.as_ref().and_then(|exit| exit["max_rss_bytes"].as_u64());
        ensure!(peak.is_some_and(|bytes| bytes > 32 << 20), "peak memory {peak:?}");
    }

    let stored = namespace.only_incident_of(container.name)?;
    ensure!(stored.reason() == TOGETHER && stored.exit.is_none(), "{}", stored.incident);
    ensure!(stored.stderr == namespace.logs(container.name, &[])?, "kubectl logs differ from the incident");
    tells_its_pod(&stored, &ended[1])?;

    // The kubelet starts the app again, not the sidecar, and the next life is no incident.
    let again = namespace.await_pod(killed.name, "a second life", |pod| {
        let shop = &pod["status"]["containerStatuses"][0];
        (shop["restartCount"] == 1 && shop["ready"] == true).then_some(pod)
    })?;
    let sidecar = &again["status"]["initContainerStatuses"][0];
    ensure!(sidecar["restartCount"] == 0, "{sidecar}");
    let stored = namespace.only_incident_of(killed.name)?;
    ensure!(is_exit(&stored, "killed by SIGKILL", "SIGKILL"), "{}", stored.incident);
    is_whole(&stored)?;
    ensure!(stored.stderr == namespace.logs(killed.name, &["--previous"])?, "kubectl logs differ from the incident");
    tells_its_pod(&stored, &again)
}

/// What a pod does when it is told to end: its name, its arguments, and what must be on the volume then, as kind and reason.
type Farewell = (&'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

const FAREWELLS: [Farewell; 5] = [
    // It was asked to end, and did.
    ("shop-quiet", &[], None),
    ("shop-status", &["-on-term", "exit"], None),
    // Nobody asked for these.
    ("shop-panic", &["-on-term", "index"], Some(("panic", "runtime error: index out of range [7] with length 3"))),
    ("shop-dump", &["-on-term", "dump"], Some(("stack", ""))),
    ("shop-hung", &[], Some(("exit", TOGETHER))),
];

/// `kubectl delete pod` and the API's eviction, which is a deletion that may be refused.
#[test]
fn deletions() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-delete")?;
    let evicted = Pod { name: "shop-evicted", args: &["-on-term", "index"], ..USUAL };
    let mut pods: Vec<Pod<'_>> = FAREWELLS.iter().map(|(name, args, _)| Pod { name, args, ..USUAL }).collect();
    pods.push(evicted);
    Pod::all_with_goscope(&pods, &namespace)?;
    let names: Vec<&str> = pods.iter().map(|pod| pod.name).collect();
    let ready = namespace
        .await_pods(&names, "every pod is ready", |pod| pod["status"]["containerStatuses"][0]["ready"] == true)?;
    for name in &names {
        wait::until("the shop's first line", || namespace.logs(name, &[]).ok().filter(|log| !log.is_empty()))?;
    }
    ContainerProcess::find("shop-hung", &["/shop"])?.signal(Signal::STOP)?;
    evict(&namespace, evicted.name)?;
    namespace.kubectl(&[&["delete", "pod", "--timeout=50s"][..], &names[..FAREWELLS.len()]].concat())?;
    namespace.kubectl(&["wait", "--for=delete", &format!("pod/{}", evicted.name), "--timeout=50s"])?;

    for ((name, _, expected), pod) in FAREWELLS.iter().zip(&ready) {
        let Some((kind, reason)) = expected else {
            let found = namespace.incidents_of(name)?;
            ensure!(found.is_empty(), "{name} was asked to end and did: {}", found[0].incident);
            continue;
        };
        let stored = namespace.only_incident_of(name)?;
        ensure!(stored.kind() == *kind && stored.reason().starts_with(reason), "{name}: {}", stored.incident);
        ensure!(!stored.stderr.is_empty(), "{name}: what it wrote is not there");
        tells_its_pod(&stored, pod)?;
        if *kind == "panic" {
            is_panic_of_a_farewell(&stored)?;
        }
    }
    let stored = namespace.only_incident_of(evicted.name)?;
    is_panic_of_a_farewell(&stored)?;
    tells_its_pod(&stored, &ready[FAREWELLS.len()])
}

fn is_panic_of_a_farewell(stored: &Stored) -> anyhow::Result<()> {
    is_whole(stored)?;
    let exit = stored.exit.as_ref().context("no exit record")?;
    ensure!(stored.kind() == "panic" && exit["status"] == 2, "{exit} {}", stored.incident);
    ensure!(exit["forwarded"] == json!(["SIGTERM"]), "{exit}");
    Ok(())
}

fn evict(namespace: &Namespace, pod: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("eviction.json");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace.name},
    });
    std::fs::write(&file, eviction.to_string())?;
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", namespace.name);
    namespace.kubectl(&["create", "--raw", &path, "--filename", &file.display().to_string()]).map(drop)
}

/// A volume grows past its limit: the kubelet leaves app and sidecar one second.
#[test]
fn eviction_by_the_kubelet() -> anyhow::Result<()> {
    let namespace = Namespace::create("death-evicted")?;
    let pod = Pod {
        name: "shop-greedy",
        args: &["-on-term", "index"],
        app_mounts: "{name: scratch, mountPath: /scratch}",
        volumes: "{name: scratch, emptyDir: {sizeLimit: 1Mi}}",
        ..USUAL
    };
    pod.ready(&namespace)?;
    let scratch = ContainerProcess::find(pod.name, &["/shop"])?.root().join("scratch/growing");
    std::fs::write(scratch, vec![1; 4 << 20])?;
    wait::until_within(EVICTION_DEADLINE, "the kubelet evicts the pod", || {
        std::thread::sleep(Duration::from_secs(1));
        let status = namespace.object("pod", pod.name).ok()?["status"].take();
        (status["phase"] == "Failed" && status["reason"] == "Evicted").then_some(())
    })
    .with_context(|| namespace.kubectl(&["describe", "pod", pod.name]).unwrap_or_default())?;
    let stored = namespace.only_incident()?;
    is_panic_of_a_farewell(&stored)?;
    tells_its_pod(&stored, &namespace.object("pod", pod.name)?)
}
