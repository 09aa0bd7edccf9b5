//! Each fault of the shop in a pod of its own, all at once: one incident of the right kind on the volume, whole, and `kubectl logs` as the app wrote them.

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node::ContainerProcess;
use goscope_e2e::fault::{self, End, Fault};
use goscope_e2e::go::Flavour;
use goscope_e2e::process::contains;
use goscope_e2e::{evidence, wait};
use rustix::process::Signal;
use serde_json::Value;

use crate::deaths::{LAUNCHER, exit_code, tells_its_pod};
use crate::pod::{Pod, USUAL};

/// In a pod memory ends at the container's limit, and that death is wordless: see `deaths::kills`.
const ELSEWHERE: &str = "oom";
/// How a container ends whose process 1 ended by SIGTERM.
const TERMINATED: i64 = 128 + 15;

#[test]
fn every_fault_in_a_pod() -> anyhow::Result<()> {
    let namespace = Namespace::create("faults")?;
    let faults: Vec<&Fault> = fault::ALL.iter().filter(|fault| fault.name != ELSEWHERE).collect();
    let names: Vec<String> = faults.iter().map(|fault| format!("shop-{}", fault.name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let args: Vec<[&str; 2]> = faults.iter().map(|fault| ["-fault", fault.name]).collect();
    let pods: Vec<Pod<'_>> = (0..faults.len())
        .map(|i| Pod { name: names[i], args: &args[i], program: program(faults[i].flavour), ..USUAL })
        .collect();
    Pod::all_with_goscope(&pods, &namespace)?;
    for (fault, name) in faults.iter().zip(&names) {
        match fault.end {
            End::Status(_) => {}
            End::Quit(sign) => end(&namespace, name, sign, Signal::QUIT)?,
            End::Term(sign) => end(&namespace, name, sign, Signal::TERM)?,
        }
    }
    let ended = namespace.await_pods(&names, "every pod has ended", |pod| pod["status"]["phase"] == "Failed")?;
    for (fault, pod) in faults.iter().zip(&ended) {
        check(&namespace, fault, pod).with_context(|| fault.name)?;
    }
    Ok(())
}

fn program(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Plain => "/shop",
        Flavour::Cgo => "/shop-cgo",
        Flavour::Race => "/shop-race",
    }
}

/// Sends the signal to the container's process 1, as the kubelet does, when the fault has been raised.
fn end(namespace: &Namespace, pod: &str, sign: &str, signal: Signal) -> anyhow::Result<()> {
    namespace.await_pods(&[pod], "the app runs", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    })?;
    wait::until(&format!("{sign:?} in the log of {pod}"), || {
        namespace.logs(pod, &[]).ok().filter(|log| contains(log, sign.as_bytes()))
    })?;
    ContainerProcess::find(pod, &LAUNCHER)?.signal(signal)
}

fn check(namespace: &Namespace, fault: &Fault, pod: &Value) -> anyhow::Result<()> {
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    let code = exit_code(pod)?;
    let expected = match fault.end {
        End::Status(status) => i64::from(status),
        End::Quit(_) => 2,
        End::Term(_) => TERMINATED,
    };
    ensure!(code == expected, "the container ended with {code}");
    let stored = namespace.only_incident_of(name)?;
    let logs = namespace.logs(name, &[])?;
    evidence::check(fault, &stored, &logs, i32::try_from(code).ok()).with_context(|| stored.incident.to_string())?;
    tells_its_pod(&stored, pod)
}
