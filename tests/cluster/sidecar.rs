//! The sidecar in its pod: what it costs, what it shows, what it leaves alone, and which users it works for.

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node::{self, ContainerProcess};
use goscope_e2e::{noise, wait};

use crate::pod::{AGENT, Pod, SIDECAR, USUAL, raise, timed};

#[test]
fn logs_are_the_same_as_without_goscope() -> anyhow::Result<()> {
    let namespace = Namespace::create("same-logs")?;
    let wrapped =
        Pod { name: "shop-logs", args: &["-noise", "lines:3000", "-report", "1h", "-restock", "1h"], ..USUAL };
    let bare = Pod { name: "shop-logs-bare", ..wrapped };
    wrapped.with_goscope(&namespace)?;
    bare.bare(&namespace)?;
    for pod in [&wrapped, &bare] {
        namespace.await_phase(pod.name, "Succeeded")?;
        ensure!(namespace.logs(pod.name, &[])? == noise::lines(3000).as_bytes(), "logs of {}", pod.name);
    }
    ensure!(namespace.incidents()?.is_empty());
    Ok(())
}

#[test]
fn metrics_are_scraped_within_the_memory_limit() -> anyhow::Result<()> {
    let namespace = Namespace::create("metrics")?;
    let pod = Pod { name: "shop-metrics", ..USUAL };
    let bare = Pod { name: "shop-metrics-bare", ..USUAL };
    let ((), alone) = timed(|| {
        bare.bare(&namespace)?;
        namespace.await_ready(bare.name).map(drop)
    })?;
    let (address, with_goscope) = timed(|| pod.ready(&namespace))?;
    println!(
        "from apply to ready: {:.1} s bare, {:.1} s with goscope",
        alone.as_secs_f64(),
        with_goscope.as_secs_f64()
    );

    let url = format!("http://{address}:9464/metrics");
    let metrics = wait::until("goscope_target_up 1", || {
        let page = node::curl(&["-f", &url]).ok()?.out();
        page.lines().any(|line| line == "goscope_target_up 1").then_some(page)
    })
    .with_context(|| namespace.agent_log(pod.name))?;
    for series in ["go_goroutines ", "go_threads ", "goscope_build_info{", "goscope_spool_lag_bytes "] {
        ensure!(metrics.lines().any(|line| line.starts_with(series)), "no {series}:\n{metrics}");
    }
    ensure!(node::curl(&["-f", &format!("http://{address}:9464/readyz")])?.code() == Some(0));
    // The debug listener is on the pod's loopback only.
    ensure!(
        node::curl(&[&format!("http://{address}:6061/debug/pprof/")])?.code() == Some(7),
        "reachable from the network"
    );

    let resident = ContainerProcess::find(pod.name, &AGENT)?.resident_kib()?;
    let beside = ContainerProcess::find(pod.name, &SIDECAR)?.private_kib()?;
    println!("agent in the pod: {resident} KiB resident, and {beside} KiB that process 1 has for itself");
    ensure!(resident + beside < 32 << 10 && beside < 4 << 10);
    let sidecar = &namespace.object("pod", pod.name)?["status"]["initContainerStatuses"][0];
    ensure!(sidecar["restartCount"] == 0 && sidecar["started"] == true, "{sidecar}");
    Ok(())
}

/// As on platforms that give each namespace a user of its own.
#[test]
fn one_arbitrary_user_for_all_containers() -> anyhow::Result<()> {
    let namespace = Namespace::create("one-user")?;
    let pod =
        Pod { name: "shop-one-user", app_user: 1_000_680_000, agent_user: 1_000_680_000, fs_group: None, ..USUAL };
    let address = pod.ready(&namespace)?;
    raise(&address, "nil")?;
    namespace.await_phase(pod.name, "Failed")?;
    ensure!(namespace.only_incident()?.kind() == "panic");
    Ok(())
}

/// Nothing can be recorded then. The app runs, and the agent's log says what to do.
#[test]
fn two_users_without_a_common_group_are_told() -> anyhow::Result<()> {
    let namespace = Namespace::create("two-users")?;
    let pod = Pod { name: "shop-two-users", fs_group: None, ..USUAL };
    pod.ready(&namespace)?;
    wait::until("the agent's sentence", || {
        namespace.agent_log(pod.name).contains("give the pod an fsGroup").then_some(())
    })
    .with_context(|| namespace.agent_log(pod.name))?;
    Ok(())
}
