//! The chart as a part of a service's chart, by both Helms, in a namespace under the strictest pod security standard.

use std::path::Path;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::wait;
use serde_json::Value;

use crate::bad_input::await_metric;
use crate::helm::Helm;
use crate::pod::raise;
use crate::tunnel::Tunnel;

/// The images of the tests, and the claim of the namespace.
const VALUES: [&str; 6] = [
    "image=localhost/shop:test",
    "debug-sidecar.image.repository=localhost/goscope",
    "debug-sidecar.image.tag=test",
    "debug-sidecar.data.type=existingClaim",
    "debug-sidecar.data.existingClaim=goscope-data",
    "debug-sidecar.config.store.maxBytes=64MiB",
];

pub(crate) fn with_values<'a>(
    verb: &[&'a str],
    chart: &'a str,
    namespace: &'a Namespace,
    further: &[&'a str],
) -> Vec<&'a str> {
    let mut args = [verb, &["shop", chart, "--namespace", &namespace.name, "--wait", "--timeout", "2m"]].concat();
    for value in VALUES.iter().chain(further) {
        args.extend(["--set", value]);
    }
    args
}

/// The only pod of the shop that is not on its way out.
pub(crate) fn pod(namespace: &Namespace) -> anyhow::Result<Value> {
    pod_of(namespace, "shop")
}

/// The only pod with this `app.kubernetes.io/name` that is not on its way out.
pub(crate) fn pod_of(namespace: &Namespace, name: &str) -> anyhow::Result<Value> {
    wait::until(&format!("one pod of {name}"), || {
        let listed = namespace.pods(&format!("app.kubernetes.io/name={name}")).ok()?;
        let mut pods = listed.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        match (pods.next(), pods.next()) {
            (Some(pod), None) => Some(pod),
            _ => None,
        }
    })
}

fn name(pod: &Value) -> anyhow::Result<&str> {
    pod["metadata"]["name"].as_str().context("a pod without a name")
}

fn level(pod: &Value) -> Option<&Value> {
    pod["spec"]["initContainers"][0]["env"].as_array()?.iter().find(|v| v["name"] == "GOSCOPE_LOG").map(|v| &v["value"])
}

#[test]
fn a_release_from_install_to_uninstall() -> anyhow::Result<()> {
    for helm in Helm::all()? {
        let namespace = Namespace::create(&format!("chart-helm-{}", helm.major()?))?;
        let shop = helm.shop();
        helm.succeed(&with_values(&["install"], &shop, &namespace, &[]))?;
        let first = pod(&namespace)?;
        let address = namespace.await_ready(name(&first)?)?;
        ensure!(level(&first).is_some_and(|level| level == "info"), "{first}");
        {
            let tunnel = Tunnel::open(&namespace, name(&first)?)?;
            ensure!(tunnel.status(&namespace.token, "heap", 1)? == ["200"]);
            ensure!(tunnel.status("gsc_wrong", "heap", 1)? == ["401"]);
        }
        helm.succeed(&["test", "shop", "--namespace", &namespace.name, "--timeout", "2m"])?;
        // The app's own port is open past the gate to whoever may port-forward; the self-test says so.
        await_metric(&address, "goscope_bypass_found{reach=\"loopback\"} 1")?;
        await_metric(&address, "goscope_bypass_found{reach=\"network\"} 0")?;

        raise(&address, "nil")?;
        let stored = namespace.await_incident(name(&first)?)?;
        ensure!(stored.kind() == "panic", "{}", stored.incident);

        // A changed value reaches the pods, and back.
        helm.succeed(&with_values(&["upgrade"], &shop, &namespace, &["debug-sidecar.logLevel=debug"]))?;
        ensure!(level(&pod(&namespace)?).is_some_and(|level| level == "debug"));
        helm.succeed(&["rollback", "shop", "1", "--namespace", &namespace.name, "--wait", "--timeout", "2m"])?;
        ensure!(level(&pod(&namespace)?).is_some_and(|level| level == "info"));

        // Off: the service alone, without a trace.
        helm.succeed(&with_values(&["upgrade"], &shop, &namespace, &["debug-sidecar.enabled=false"]))?;
        let bare = pod(&namespace)?;
        ensure!(!bare["spec"].to_string().contains("goscope"), "{}", bare["spec"]);
        ensure!(!bare["metadata"]["annotations"].to_string().contains("goscope"), "{}", bare["metadata"]);

        helm.succeed(&["uninstall", "shop", "--namespace", &namespace.name, "--wait", "--timeout", "2m"])?;
        namespace.only_incident().context("after helm uninstall")?;
        namespace.object("secret", "goscope-tokens").context("after helm uninstall")?;
    }
    Ok(())
}

#[test]
fn sealed() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("chart-sealed")?;
    let values = ["debug-sidecar.sealed.enabled=true", "debugAddress=unix:///run/goscope/debug.sock"];
    helm.succeed(&with_values(&["install"], &helm.shop(), &namespace, &values))?;
    let pod = pod(&namespace)?;
    let address = namespace.await_ready(name(&pod)?)?;
    let tunnel = Tunnel::open(&namespace, name(&pod)?)?;
    ensure!(tunnel.status(&namespace.token, "heap", 1)? == ["200"]);
    // The self-test has looked and found no way around the gate.
    await_metric(&address, "goscope_selftest_rounds_total{result=\"done\"} 1")?;
    for reach in ["loopback", "network"] {
        await_metric(&address, &format!("goscope_bypass_found{{reach=\"{reach}\"}} 0"))?;
    }

    // The volume outlives the container, and so does the socket of a process that crashed.
    raise(&address, "nil")?;
    namespace.await_pod(name(&pod)?, "the app has started again", |pod| {
        let app = &pod["status"]["containerStatuses"][0];
        (app["restartCount"] == 1 && app["ready"] == true).then_some(())
    })?;
    wait::until("the gate answers again", || {
        (tunnel.status(&namespace.token, "heap", 1).ok()? == ["200"]).then_some(())
    })
}

/// An ordinary container in place of the native sidecar, an image volume in place of the copy.
#[test]
fn an_ordinary_container_and_an_image_volume() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("chart-container")?;
    let values = ["debug-sidecar.sidecar.kind=container", "debug-sidecar.launcher.delivery=image"];
    helm.succeed(&with_values(&["install"], &helm.shop(), &namespace, &values))?;
    let pod = pod(&namespace)?;
    let address = namespace.await_ready(name(&pod)?)?;
    ensure!(pod["spec"]["initContainers"].is_null(), "{pod}");
    raise(&address, "nil")?;
    namespace.await_incident(name(&pod)?)?;
    Ok(())
}

/// The plain manifests, and the chart with everything in it that this cluster has kinds for.
#[test]
fn the_api_server_accepts_what_is_shipped() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("chart-manifests")?;
    let shop = helm.shop();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests").display().to_string();
    namespace.kubectl(&["apply", "--dry-run=server", "--validate=strict", "--filename", &manifests])?;
    let values = ["debug-sidecar.networkPolicy.enabled=true", "debug-sidecar.networkPolicy.appPorts={8080}"];
    for data in ["emptyDir", "ephemeral"] {
        let data = format!("debug-sidecar.data.type={data}");
        let values = [&values[..], &[data.as_str()]].concat();
        let mut args = with_values(&["install"], &shop, &namespace, &values);
        args.push("--dry-run=server");
        helm.succeed(&args)?;
        args.retain(|arg| !matches!(*arg, "--dry-run=server" | "--wait" | "--timeout" | "2m" | "install"));
        let rendered = helm.succeed(&[&["template"], &args[..]].concat())?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("shop.yaml");
        std::fs::write(&file, rendered)?;
        namespace.kubectl(&[
            "create",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
            &file.display().to_string(),
        ])?;
    }
    Ok(())
}

/// Without a Secret the app runs, the gate refuses, and the notes say what to do; with it the gate opens without a restart.
#[test]
fn a_secret_that_comes_later() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("chart-secret")?;
    let values = ["debug-sidecar.tokens.secret=later"];
    let said = helm.succeed(
        &[&with_values(&["install"], &helm.shop(), &namespace, &values)[..], &["--render-subchart-notes"]].concat(),
    )?;
    ensure!(said.contains("There is no Secret later yet"), "{said}");
    let pod = pod(&namespace)?;
    namespace.await_ready(name(&pod)?)?;
    let tunnel = Tunnel::open(&namespace, name(&pod)?)?;
    let refused = tunnel.status(&namespace.token, "heap", 1)?;
    ensure!(refused != ["200"], "{refused:?}");
    let secret = namespace.object("secret", "goscope-tokens")?;
    let copy = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later", "namespace": namespace.name}, "data": secret["data"],
    });
    namespace.apply(&copy.to_string())?;
    // The kubelet refreshes volumes about once a minute.
    wait::until_within(std::time::Duration::from_secs(150), "the gate opens", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        (tunnel.status(&namespace.token, "heap", 1).ok()? == ["200"]).then_some(())
    })
    .with_context(|| namespace.agent_log(name(&pod).unwrap_or_default()))
}
