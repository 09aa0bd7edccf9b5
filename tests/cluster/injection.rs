//! Injection by the chart installed by itself: what the policy makes of pods, and pods that run with what it made.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::process::run;
use goscope_e2e::wait;
use serde_json::{Value, json};

use crate::chart;
use crate::helm::Helm;
use crate::pod::raise;
use crate::tunnel::Tunnel;

/// Held by whoever installs the policy: there is one for the whole cluster.
static POLICY: Mutex<()> = Mutex::new(());

/// Waits until no other test has the policy installed.
pub(crate) fn only_policy() -> MutexGuard<'static, ()> {
    // A test that failed has uninstalled it all the same.
    POLICY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The release, uninstalled when dropped. One for the whole cluster, so one test that does everything in turn.
struct Policy<'a> {
    helm: &'a Helm,
    namespace: &'a Namespace,
}

impl<'a> Policy<'a> {
    fn install(helm: &'a Helm, namespace: &'a Namespace) -> anyhow::Result<Self> {
        let own = helm.own();
        // Fail: with Ignore a mistake in an expression would be silent.
        helm.succeed(
            &[
                &["install", "goscope", &own, "--namespace", &namespace.name, "--set", "injection.failurePolicy=Fail"]
                    [..],
                &["--set", "image.repository=localhost/goscope", "--set", "image.tag=test"],
            ]
            .concat(),
        )?;
        Ok(Self { helm, namespace })
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        drop(self.helm.run(&["uninstall", "goscope", "--namespace", &self.namespace.name]));
    }
}

/// A pod that nothing is wrong with.
fn plain() -> Value {
    let hardened =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "plain", "labels": {"app.kubernetes.io/name": "shop"}},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "shop", "image": "localhost/shop:test", "command": ["/shop"],
                "args": ["-listen", "0.0.0.0:8080", "-debug", "127.0.0.1:6060"],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                "securityContext": hardened,
            }],
        },
    })
}

/// What the API server would make of it, injection included.
fn dry_run(namespace: &Namespace, pod: &Value) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pod.json");
    std::fs::write(&file, pod.to_string())?;
    let file = file.display().to_string();
    let said = namespace.kubectl(&["create", "--dry-run=server", "--output=json", "--filename", &file])?;
    Ok(serde_json::from_str(&said)?)
}

fn annotation<'a>(pod: &'a Value, name: &str) -> &'a str {
    pod["metadata"]["annotations"][format!("goscope.dev/{name}")].as_str().unwrap_or_default()
}

fn has_agent(pod: &Value) -> bool {
    pod["spec"]["initContainers"][0]["name"] == "goscope"
}

/// A variable of the agent's environment.
fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let variables = pod["spec"]["initContainers"][0]["env"].as_array()?;
    variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

/// The first word of a container's command.
fn first_word(pod: &Value, container: usize) -> &str {
    pod["spec"]["containers"][container]["command"][0].as_str().unwrap_or_default()
}

const LAUNCHER: &str = "/var/lib/goscope/bin/goscope";

#[test]
fn what_is_asked_for_and_nothing_else() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let labelled = Namespace::create("injected")?;
    let unlabelled = Namespace::create("not-injected")?;
    let alone = only_policy();
    let policy = Policy::install(&helm, &unlabelled)?;
    node::succeed(node::kubectl(&["label", "namespace", &labelled.name, "goscope.dev/inject=enabled"]))?;
    wait::until("the policy is in force", || dry_run(&labelled, &plain()).ok().filter(has_agent))?;

    decisions(&labelled, &unlabelled)?;
    helm.succeed(&["test", "goscope", "--namespace", &unlabelled.name, "--timeout", "2m"])?;
    controllers(&labelled)?;
    cron_job(&labelled)?;
    without_command(&labelled)?;
    without_configuration(&labelled)?;
    as_root(&unlabelled)?;
    network_and_teams(&policy, &labelled)?;
    cron_job_without_label(&labelled)?;
    sealed_and_for_some(&policy, &labelled, &unlabelled)?;
    drop(policy);
    drop(alone);
    Ok(())
}

/// With the remote listener and Secrets of teams in the values, pods get what these need, and nothing of it is needed for them to start.
fn network_and_teams(policy: &Policy<'_>, namespace: &Namespace) -> anyhow::Result<()> {
    let own = policy.helm.own();
    let values = ["remote.enabled=true", "remote.secret=shop-tls", "tokens.secrets={payments-tokens}"];
    let mut upgrade = vec!["upgrade", "goscope", own.as_str(), "--namespace", &policy.namespace.name, "--reuse-values"];
    for value in values {
        upgrade.extend(["--set", value]);
    }
    policy.helm.succeed(&upgrade)?;
    let pod = wait::until("the changed policy is in force", || {
        dry_run(namespace, &plain()).ok().filter(|pod| variable(pod, "GOSCOPE_LISTEN_REMOTE_ADDRESS").is_some())
    })?;
    ensure!(
        variable(&pod, "GOSCOPE_GATE_TOKENS_FILES").is_some_and(|files| files.ends_with("/payments-tokens/*.yaml")),
        "{pod}"
    );
    let ports = pod["spec"]["initContainers"][0]["ports"].as_array().context("no ports")?;
    ensure!(ports.iter().any(|port| port["name"] == "goscope-remote" && port["containerPort"] == 6062), "{pod}");
    let volumes = pod["spec"]["volumes"].as_array().context("no volumes")?;
    for secret in ["shop-tls", "payments-tokens"] {
        let optional =
            |volume: &Value| volume["secret"]["secretName"] == secret && volume["secret"]["optional"] == true;
        ensure!(volumes.iter().any(optional), "{secret}: {pod}");
    }
    Ok(())
}

/// In sealed mode a container without a command gets the place of the socket too; and a policy for some namespaces leaves the others alone.
fn sealed_and_for_some(policy: &Policy<'_>, labelled: &Namespace, unlabelled: &Namespace) -> anyhow::Result<()> {
    let own = policy.helm.own();
    let namespaces = format!("injection.namespaces={{{}}}", unlabelled.name);
    let upgrade = ["upgrade", "goscope", &own, "--namespace", &unlabelled.name, "--reuse-values"];
    policy.helm.succeed(&[&upgrade[..], &["--set", "sealed.enabled=true", "--set", &namespaces]].concat())?;
    let mut pod = plain();
    pod["metadata"]["annotations"]["goscope.dev/inject"] = "enabled".into();
    let with_command = wait::until("the changed policy is in force", || {
        let target = |pod: &Value| variable(pod, "GOSCOPE_TARGET_ADDRESS") == Some("unix:///run/goscope/debug.sock");
        dry_run(unlabelled, &pod).ok().filter(target)
    })?;
    ensure!(mounts(&with_command) == ["goscope-run", "goscope-bin", "goscope-spool"], "{with_command}");
    ensure!(!has_agent(&dry_run(labelled, &pod)?), "a namespace that is not listed");
    if let Some(container) = pod["spec"]["containers"][0].as_object_mut() {
        container.remove("command");
    }
    let without = dry_run(unlabelled, &pod)?;
    ensure!(annotation(&without, "missing").contains("states no command"), "{without}");
    ensure!(mounts(&without) == ["goscope-run"], "{without}");
    Ok(())
}

/// The volumes that the app's container mounts.
fn mounts(pod: &Value) -> Vec<&str> {
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array();
    mounts.into_iter().flatten().filter_map(|mount| mount["name"].as_str()).collect()
}

/// A pod whose containers run as root starts, those that were added to it included.
fn as_root(namespace: &Namespace) -> anyhow::Result<()> {
    let standard = "pod-security.kubernetes.io/enforce=baseline";
    node::succeed(node::kubectl(&["label", "namespace", &namespace.name, standard, "--overwrite"]))?;
    let mut pod = plain();
    pod["metadata"] =
        json!({"name": "root", "namespace": namespace.name, "annotations": {"goscope.dev/inject": "enabled"}});
    pod["spec"]["securityContext"] = json!({"runAsUser": 0});
    namespace.apply(&pod.to_string())?;
    namespace.await_ready("root")?;
    let pod = namespace.object("pod", "root")?;
    ensure!(has_agent(&pod) && annotation(&pod, "missing").is_empty(), "{pod}");

    // A container's own user does not help the one that copies the launcher.
    let mut mixed = plain();
    mixed["metadata"]["annotations"]["goscope.dev/inject"] = "enabled".into();
    mixed["spec"]["securityContext"] = json!({"runAsUser": 0});
    mixed["spec"]["containers"][0]["securityContext"]["runAsUser"] = 10001.into();
    let mixed = dry_run(namespace, &mixed)?;
    let non_root = |index: usize| &mixed["spec"]["initContainers"][index]["securityContext"]["runAsNonRoot"];
    ensure!([non_root(0), non_root(1)] == [&json!(true), &json!(false)], "{mixed}");
    Ok(())
}

fn decisions(labelled: &Namespace, unlabelled: &Namespace) -> anyhow::Result<()> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut pod = plain();
        change(&mut pod);
        pod
    };
    let annotated = |name: &str, value: &str| {
        changed(&|pod| pod["metadata"]["annotations"][format!("goscope.dev/{name}")] = value.into())
    };

    let pod = dry_run(labelled, &plain())?;
    ensure!(first_word(&pod, 0) == LAUNCHER && annotation(&pod, "missing").is_empty(), "{pod}");
    ensure!(annotation(&pod, "injected") == env!("CARGO_PKG_VERSION"), "{pod}");
    ensure!(
        pod["spec"]["containers"][0]["command"].as_array().is_some_and(|c| c.last() == Some(&"/shop".into())),
        "{pod}"
    );
    ensure!(pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"] == 10001, "{pod}");
    ensure!(pod["spec"]["securityContext"]["fsGroup"].is_null(), "{pod}");

    // Applied twice it changes nothing.
    let mut again = pod.clone();
    again["metadata"] = json!({"name": "again", "annotations": pod["metadata"]["annotations"]});
    ensure!(dry_run(labelled, &again)?["spec"] == pod["spec"], "a second application changes the pod");

    // Neither label nor annotation; the annotation wins over the label both ways.
    let untouched = dry_run(unlabelled, &plain())?;
    ensure!(!untouched["spec"].to_string().contains("goscope"), "{untouched}");
    ensure!(untouched["metadata"]["annotations"].is_null(), "{untouched}");
    ensure!(has_agent(&dry_run(unlabelled, &annotated("inject", "enabled"))?));
    ensure!(!has_agent(&dry_run(labelled, &annotated("inject", "disabled"))?));

    // The app's container among several: by our annotation, else by kubectl's, else the first.
    let two = |pod: &mut Value| {
        let mut proxy = pod["spec"]["containers"][0].clone();
        proxy["name"] = "proxy".into();
        if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
            containers.insert(0, proxy);
        }
    };
    for (name, value, expected) in [
        ("unused", "", [true, false]),
        ("goscope.dev/container", "shop", [false, true]),
        ("kubectl.kubernetes.io/default-container", "shop", [false, true]),
        ("goscope.dev/container", "nobody", [false, false]),
    ] {
        let pod = dry_run(
            labelled,
            &changed(&|pod| {
                two(pod);
                pod["metadata"]["annotations"][name] = value.into();
            }),
        )?;
        ensure!(
            [first_word(&pod, 0) == LAUNCHER, first_word(&pod, 1) == LAUNCHER] == expected,
            "{name}={value}: {pod}"
        );
        ensure!(annotation(&pod, "missing").contains("no container nobody") == (value == "nobody"), "{pod}");
        let named = ["proxy", "shop"].into_iter().zip(expected).find_map(|(name, is)| is.then_some(name));
        ensure!(variable(&pod, "GOSCOPE_POD_CONTAINER") == named, "{name}={value}: {pod}");
        ensure!(variable(&pod, "GOSCOPE_POD_IMAGE") == named.map(|_| "localhost/shop:test"), "{name}={value}: {pod}");
    }

    // Users: stated in the pod, in the container, by fsGroup, nowhere, nowhere but with a volume of its own.
    let user = |context: Value, claim: bool| {
        dry_run(
            labelled,
            &changed(&|pod| {
                pod["spec"]["securityContext"] = context.clone();
                pod["spec"]["securityContext"]["runAsNonRoot"] = true.into();
                pod["spec"]["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
                if claim {
                    pod["spec"]["volumes"] =
                        json!([{"name": "own", "persistentVolumeClaim": {"claimName": "goscope-data"}}]);
                }
            }),
        )
    };
    let grouped = user(json!({"fsGroup": 5}), true)?;
    ensure!(first_word(&grouped, 0) == LAUNCHER && grouped["spec"]["securityContext"]["fsGroup"] == 5, "{grouped}");
    let unknown = user(json!({}), false)?;
    ensure!(first_word(&unknown, 0) == LAUNCHER && unknown["spec"]["securityContext"]["fsGroup"] == 65532, "{unknown}");
    let owning = user(json!({}), true)?;
    ensure!(has_agent(&owning) && first_word(&owning, 0) == "/shop", "{owning}");
    ensure!(annotation(&owning, "missing").contains("neither runAsUser nor fsGroup"), "{owning}");
    ensure!(owning["spec"]["securityContext"]["fsGroup"].is_null(), "{owning}");

    // The same with files of a mode that an fsGroup would change, and without where it would not.
    let secret = |secret: Value| json!({"name": "own", "secret": secret});
    let key = json!([{"key": "key", "path": "key", "mode": 0o400}]);
    for (volume, is_changed) in [
        (secret(json!({"secretName": "key"})), false),
        (secret(json!({"secretName": "key", "defaultMode": 0o400})), true),
        (secret(json!({"secretName": "key", "items": key})), true),
        (json!({"name": "own", "configMap": {"name": "key", "defaultMode": 0o600}}), true),
        (json!({"name": "own", "projected": {"sources": [{"secret": {"name": "key", "items": key}}]}}), true),
        (json!({"name": "own", "projected": {"sources": [{"secret": {"name": "key"}}]}}), false),
        (json!({"name": "own", "emptyDir": {}}), false),
    ] {
        let mut pod = plain();
        if let Some(context) = pod["spec"]["securityContext"].as_object_mut() {
            context.remove("runAsUser");
        }
        pod["spec"]["volumes"] = json!([volume]);
        let pod = dry_run(labelled, &pod)?;
        ensure!(annotation(&pod, "missing").contains("neither runAsUser nor fsGroup") == is_changed, "{pod}");
        ensure!(pod["spec"]["securityContext"]["fsGroup"].is_null() == is_changed, "{pod}");
    }

    // Another target, and one that is none.
    let aimed = dry_run(labelled, &annotated("target", "localhost:7070"))?;
    ensure!(aimed["spec"]["initContainers"][0]["args"] == json!(["agent", "--target", "localhost:7070"]), "{aimed}");
    let astray = dry_run(labelled, &annotated("target", "shop.example:80"))?;
    ensure!(astray["spec"]["initContainers"][0]["args"] == json!(["agent"]), "{astray}");
    ensure!(annotation(&astray, "missing").starts_with("target: shop.example:80 is not"), "{astray}");

    let by_port = dry_run(labelled, &annotated("profile-port", "7070"))?;
    ensure!(
        by_port["spec"]["initContainers"][0]["args"] == json!(["agent", "--target", "127.0.0.1:7070"]),
        "{by_port}"
    );
    let no_port = dry_run(labelled, &annotated("profile-port", "http"))?;
    ensure!(annotation(&no_port, "missing").starts_with("target: 127.0.0.1:http is not"), "{no_port}");

    // What the agent would end at, and hold up the app.
    for (name, value) in [
        ("profile-port", "70000"),
        ("profile-port", "0"),
        ("target", "127.9999.1:80"),
        ("target", "127.0.0.1:065"),
        ("target", "127.0.0.1:6061"),
        ("target", "localhost:9464"),
    ] {
        let pod = dry_run(labelled, &annotated(name, value))?;
        ensure!(pod["spec"]["initContainers"][0]["args"] == json!(["agent"]), "{pod}");
        ensure!(annotation(&pod, "missing").starts_with("target: "), "{name} {value}: {pod}");
    }
    let highest = dry_run(labelled, &annotated("profile-port", "65535"))?;
    ensure!(highest["spec"]["initContainers"][0]["args"][2] == "127.0.0.1:65535", "{highest}");

    // What would make the pod invalid.
    for (name, said) in [("", ""), ("a name", "config: a name is not a name")] {
        let pod = dry_run(labelled, &annotated("config", name))?;
        ensure!(has_agent(&pod) && annotation(&pod, "missing").starts_with(said), "{pod}");
        ensure!(said.is_empty() == annotation(&pod, "missing").is_empty(), "{pod}");
        ensure!(!pod["spec"]["volumes"].to_string().contains("goscope-config"), "{pod}");
    }

    // What the app would be without: its port, its volume, its resources.
    let port = |pod: &mut Value, container: &str, number: u16, protocol: &str| {
        pod["spec"][container][0]["ports"] = json!([{"containerPort": number, "protocol": protocol}]);
    };
    let first = |pod: &mut Value| {
        let mut first = pod["spec"]["containers"][0].clone();
        first["name"] = "first".into();
        if let Some(first) = first.as_object_mut() {
            first.remove("readinessProbe");
        }
        pod["spec"]["initContainers"] = json!([first]);
    };
    for (said, pod) in [
        ("everything: the pod declares port 9464", changed(&|pod| port(pod, "containers", 9464, "TCP"))),
        (
            "everything: the pod declares port 6061",
            changed(&|pod| {
                first(pod);
                port(pod, "initContainers", 6061, "TCP");
            }),
        ),
        (
            "everything: the pod has a volume goscope-data of its own",
            changed(&|pod| pod["spec"]["volumes"] = json!([{"name": "goscope-data", "emptyDir": {}}])),
        ),
        (
            "everything: the pod states resources",
            changed(&|pod| pod["spec"]["resources"] = json!({"limits": {"memory": "20Mi"}})),
        ),
    ] {
        let pod = dry_run(labelled, &pod)?;
        ensure!(annotation(&pod, "missing").starts_with(said), "{pod}");
        ensure!(annotation(&pod, "injected").is_empty() && !pod["spec"].to_string().contains("/goscope:"), "{pod}");
    }
    // By another protocol, or not used without the remote listener.
    ensure!(has_agent(&dry_run(labelled, &changed(&|pod| port(pod, "containers", 9464, "UDP")))?));
    ensure!(has_agent(&dry_run(labelled, &changed(&|pod| port(pod, "containers", 6062, "TCP")))?));

    // Our volumes bring their part where the kubelet counts them.
    let counted =
        changed(&|pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "50Mi"}}));
    let counted = dry_run(labelled, &counted)?;
    let resources = &counted["spec"]["initContainers"][0]["resources"];
    ensure!(resources["limits"] == json!({"memory": "32Mi", "ephemeral-storage": "1600Mi"}), "{counted}");
    ensure!(resources["requests"]["ephemeral-storage"] == "1600Mi", "{counted}");
    ensure!(pod["spec"]["initContainers"][0]["resources"]["limits"]["ephemeral-storage"].is_null(), "{pod}");

    // The app's GOTRACEBACK, which stays its own where it has one.
    let traced = dry_run(labelled, &annotated("traceback", "system"))?;
    let expected = json!([{"name": "GOTRACEBACK", "value": "system"}]);
    ensure!(
        traced["spec"]["containers"][0]["env"] == expected && annotation(&traced, "missing").is_empty(),
        "{traced}"
    );
    let untraced = dry_run(labelled, &annotated("traceback", "everything"))?;
    ensure!(untraced["spec"]["containers"][0]["env"].is_null(), "{untraced}");
    ensure!(annotation(&untraced, "missing").starts_with("traceback: everything is none of"), "{untraced}");
    let mut own = annotated("traceback", "system");
    own["spec"]["containers"][0]["env"] = json!([{"name": "GOTRACEBACK", "value": "single"}]);
    let own = dry_run(labelled, &own)?;
    ensure!(own["spec"]["containers"][0]["env"] == json!([{"name": "GOTRACEBACK", "value": "single"}]), "{own}");
    ensure!(annotation(&own, "missing") == "traceback: container shop sets GOTRACEBACK itself", "{own}");

    // Pods that bring their own goscope, by the service's chart.
    let own = changed(&|pod| {
        let mut agent = pod["spec"]["containers"][0].clone();
        agent["name"] = "goscope".into();
        agent["restartPolicy"] = "Always".into();
        pod["spec"]["initContainers"] = json!([agent]);
    });
    ensure!(first_word(&dry_run(labelled, &own)?, 0) == "/shop");
    Ok(())
}

/// What restarts its pods by itself: kind and name.
const CONTROLLERS: [(&str, &str); 2] = [("Deployment", "shop"), ("StatefulSet", "ledger")];

/// A Deployment and a StatefulSet get it, record, and are without a trace of it when the label is gone.
fn controllers(namespace: &Namespace) -> anyhow::Result<()> {
    for (kind, name) in CONTROLLERS {
        let labels = json!({"app.kubernetes.io/name": name});
        namespace.apply(
            &json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace.name},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": plain()["spec"]},
                },
            })
            .to_string(),
        )?;
    }
    for (_, controller) in CONTROLLERS {
        let injected = chart::pod_of(namespace, controller)?;
        let name = injected["metadata"]["name"].as_str().context("no name")?;
        let address = namespace.await_ready(name)?;
        ensure!(first_word(&injected, 0) == LAUNCHER && annotation(&injected, "missing").is_empty(), "{injected}");
        {
            let tunnel = Tunnel::open(namespace, name)?;
            ensure!(tunnel.status(&namespace.token, "heap", 1)? == ["200"]);
        }
        raise(&address, "nil")?;
        wait::until("the incident is recorded", || namespace.agent_log(name).contains("panic").then_some(()))
            .with_context(|| namespace.agent_log(name))?;
    }

    node::succeed(node::kubectl(&["label", "namespace", &namespace.name, "goscope.dev/inject-"]))?;
    for (kind, controller) in CONTROLLERS {
        namespace.kubectl(&["rollout", "restart", kind, controller])?;
    }
    for (kind, controller) in CONTROLLERS {
        namespace.kubectl(&["rollout", "status", kind, controller, "--timeout=60s"])?;
        let bare = chart::pod_of(namespace, controller)?;
        // In the whole pod, its status and annotations included; and not the group that injection would have added.
        ensure!(!bare.to_string().contains("goscope"), "{bare}");
        ensure!(bare["spec"]["securityContext"] == plain()["spec"]["securityContext"], "{bare}");
        namespace.kubectl(&["delete", kind, controller, "--wait=false"])?;
    }
    node::succeed(node::kubectl(&["label", "namespace", &namespace.name, "goscope.dev/inject=enabled"]))?;
    Ok(())
}

/// A CronJob's pods are injected and complete.
fn cron_job(namespace: &Namespace) -> anyhow::Result<()> {
    let mut spec = plain()["spec"].clone();
    spec["restartPolicy"] = "Never".into();
    spec["containers"][0]["args"] = json!(["-noise", "lines:5"]);
    if let Some(container) = spec["containers"][0].as_object_mut() {
        container.remove("readinessProbe");
    }
    namespace.apply(
        &json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tally", "namespace": namespace.name},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": spec}}}},
        })
        .to_string(),
    )?;
    let pod = run_of_tally(namespace, "tally-now")?;
    ensure!(has_agent(&pod) && first_word(&pod, 0) == LAUNCHER, "{pod}");
    Ok(())
}

/// The next run after the label is gone has no trace of it.
fn cron_job_without_label(namespace: &Namespace) -> anyhow::Result<()> {
    node::succeed(node::kubectl(&["label", "namespace", &namespace.name, "goscope.dev/inject-"]))?;
    let pod = run_of_tally(namespace, "tally-again")?;
    ensure!(!pod.to_string().contains("goscope"), "{pod}");
    Ok(())
}

/// Runs the CronJob now; its pod when it has completed.
fn run_of_tally(namespace: &Namespace, job: &str) -> anyhow::Result<Value> {
    namespace.kubectl(&["create", "job", job, "--from=cronjob/tally"])?;
    namespace
        .kubectl(&["wait", "--for=condition=complete", &format!("job/{job}"), "--timeout=90s"])
        .with_context(|| namespace.kubectl(&["describe", "pods"]).unwrap_or_default())?;
    let selector = format!("job-name={job}");
    let mut listed: Value = serde_json::from_str(&namespace.kubectl(&["get", "pods", "-l", &selector, "-o", "json"])?)?;
    let pod = listed["items"][0].take();
    ensure!(pod["status"]["phase"] == "Succeeded", "{pod}");
    Ok(pod)
}

/// An image's own command cannot be preceded: the gate works, and the pod says what is missing.
fn without_command(namespace: &Namespace) -> anyhow::Result<()> {
    let mut pod = plain();
    pod["metadata"]["name"] = "no-command".into();
    pod["metadata"]["namespace"] = namespace.name.as_str().into();
    if let Some(container) = pod["spec"]["containers"][0].as_object_mut() {
        container.remove("command");
    }
    namespace.apply(&pod.to_string())?;
    namespace.await_ready("no-command")?;
    let pod = namespace.object("pod", "no-command")?;
    ensure!(annotation(&pod, "missing").starts_with("launcher: container shop states no command"), "{pod}");
    let tunnel = Tunnel::open(namespace, "no-command")?;
    ensure!(tunnel.status(&namespace.token, "heap", 1)? == ["200"]);
    Ok(())
}

/// A pod that names a ConfigMap which is not there runs all the same, and is ready.
fn without_configuration(namespace: &Namespace) -> anyhow::Result<()> {
    let mut pod = plain();
    pod["metadata"] =
        json!({"name": "no-config", "namespace": namespace.name, "annotations": {"goscope.dev/config": "nowhere"}});
    namespace.apply(&pod.to_string())?;
    namespace.await_pod("no-config", "the app runs", |pod| {
        (pod["status"]["containerStatuses"][0]["ready"] == true).then_some(())
    })?;
    let described = run(&mut namespace.command(&["logs", "no-config", "--container=goscope"]))?;
    println!("an agent without its configuration: {}", described.out());
    Ok(())
}
