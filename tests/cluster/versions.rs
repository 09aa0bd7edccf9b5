//! Launcher and agent of two adjacent versions in one pod, as an upgrade brings them together, in two pods that share a claim and die at the same moment.

use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::image::{GOSCOPE, GOSCOPE_BEFORE, load_before};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::process::run;
use goscope_e2e::version;

use crate::deaths::exit_code;
use crate::pod::{Pod, USUAL};

/// `tests/run.sh` asks for this one before the node is up: what is not in the cache is compiled for minutes.
#[test]
fn the_version_before_can_be_built() -> anyhow::Result<()> {
    let said = run(Command::new(version::before()?).arg("--version"))?;
    ensure!(said.code() == Some(0) && said.out().starts_with("goscope "), "{}{}", said.out(), said.err());
    Ok(())
}

#[test]
fn two_versions_and_one_claim() -> anyhow::Result<()> {
    let namespace = Namespace::create("versions")?;
    load_before()?;
    let pods = [("shop-old-launcher", GOSCOPE_BEFORE, GOSCOPE), ("shop-old-agent", GOSCOPE, GOSCOPE_BEFORE)].map(
        |(name, launcher_image, agent_image)| Pod {
            name,
            launcher_image,
            agent_image,
            args: &["-report", "100ms"],
            ..USUAL
        },
    );
    let names = pods.map(|pod| pod.name);
    Pod::all_with_goscope(&pods, &namespace)?;
    let addresses = names.iter().map(|name| namespace.await_ready(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}:8080/fault/index")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    // The answers may go with the apps.
    node::curl(&[&["--parallel", "--parallel-immediate", "--max-time", "10"], &urls[..]].concat())?;

    let ended = namespace.await_pods(&names, "both have ended", |pod| pod["status"]["phase"] == "Failed")?;
    for (pod, name) in ended.iter().zip(names) {
        ensure!(exit_code(pod)? == 2, "{}", pod["status"]);
        let stored = namespace.only_incident_of(name)?;
        ensure!(stored.kind() == "panic" && stored.incident["complete"] == true, "{}", stored.incident);
        ensure!(stored.incident["pod"]["uid"] == pod["metadata"]["uid"], "{}", stored.incident);
        let exit = stored.exit.as_ref().context("no exit record")?;
        ensure!(exit["status"] == 2 && exit["unspooled_bytes"] == 0, "{exit}");
        let logs = namespace.logs(name, &[])?;
        ensure!([stored.before.as_slice(), &stored.stderr].concat() == logs, "{name}: kubectl logs differ");
        ensure!(stored.folder.starts_with(namespace.volume().join("data").join(name)), "{}", stored.folder.display());
    }
    // Each in its own folder, and nothing else: no staging left, nothing of one in the other's.
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(namespace.volume().join("data"))? {
        folders.push(entry?.file_name().to_string_lossy().into_owned());
    }
    folders.sort();
    ensure!(folders == ["shop-old-agent", "shop-old-launcher"], "{folders:?}");
    ensure!(namespace.incidents()?.len() == 2);
    Ok(())
}
