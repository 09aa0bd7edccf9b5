//! What is left when the pods are gone: the archive shows it through the API, and the backup has it on a second claim.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;
use goscope_e2e::{incident, session, wait};
use serde_json::Value;

use crate::chart;
use crate::helm::Helm;
use crate::pod::raise;
use crate::tunnel::Tunnel;

/// A second volume with its claim `goscope-backup`. Its folder is the caller's, the volume goes with this.
struct Second(String);

impl Second {
    fn create(namespace: &Namespace, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("data");
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        let (space, name) = (&namespace.name, format!("{}-backup", namespace.name));
        namespace.apply(&format!(
            r"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  storageClassName: tests
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {{path: {}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: goscope-backup, namespace: {space}}}
spec: {{storageClassName: tests, volumeName: {name}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
",
            path.display()
        ))?;
        Ok(Self(name))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let delete = ["delete", "persistentvolume", &self.0, "--wait=false", "--ignore-not-found"];
        drop(goscope_e2e::process::run(&mut node::kubectl(&delete)));
    }
}

/// A Secret of another team, whose token may read what is stored; the token.
fn team(namespace: &Namespace, folder: &Path) -> anyhow::Result<String> {
    let file = folder.join("tokens.yaml").display().to_string();
    let mut made = Command::new(session::goscope()?);
    made.args(["token", "new", "--name", "search", "--tier", "basic,artifacts", "--file", &file]);
    let token = node::succeed(made)?.trim().to_owned();
    namespace.kubectl(&["create", "secret", "generic", "search-tokens", "--from-file", &file])?;
    Ok(token)
}

const VALUES: [&str; 6] = [
    "debug-sidecar.tokens.secrets={search-tokens}",
    "debug-sidecar.archive.enabled=true",
    "debug-sidecar.backup.enabled=true",
    "debug-sidecar.backup.claim=goscope-backup",
    // A hostPath volume knows no fsGroup, so it is the user of the pods.
    "debug-sidecar.podSecurityContext.runAsUser=10001",
    "debug-sidecar.podSecurityContext.runAsGroup=10001",
];

#[test]
fn the_archive_and_the_copy_have_it_when_the_pod_is_gone() -> anyhow::Result<()> {
    let helm = Helm::newest()?;
    let namespace = Namespace::create("kept")?;
    let folder = tempfile::tempdir()?;
    let _second = Second::create(&namespace, folder.path())?;
    let token = team(&namespace, folder.path())?;
    let shop = helm.shop();
    let install =
        [&chart::with_values(&["install"], &shop, &namespace, &VALUES)[..], &["--render-subchart-notes"]].concat();
    let said = helm.succeed(&install)?;
    ensure!(said.contains("port-forward deploy/shop-debug-sidecar-archive 6061"), "{said}");
    ensure!(said.contains("--from=cronjob/shop-debug-sidecar-backup"), "{said}");

    let pod = chart::pod(&namespace)?;
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    let address = namespace.await_ready(name)?;
    {
        // The other team's token opens the gate too.
        let tunnel = Tunnel::open(&namespace, name)?;
        wait::until("the team's token", || (tunnel.status(&token, "heap", 1).ok()? == ["200"]).then_some(()))
            .with_context(|| namespace.agent_log(name))?;
    }
    raise(&address, "nil")?;
    let stored = namespace.await_incident(name)?;
    // A process 1 that has not begun to listen to signals does not hear that it is to end, and is killed half a minute later.
    namespace.await_pod(name, "a second life", |pod| {
        let shop = &pod["status"]["containerStatuses"][0];
        (shop["restartCount"] == 1 && shop["ready"] == true).then_some(())
    })?;
    namespace.kubectl(&["scale", "deployment/shop", "--replicas=0"])?;
    namespace.kubectl(&["wait", "--for=delete", &format!("pod/{name}"), "--timeout=60s"])?;

    archive(&namespace, &token, name, &stored.stderr)?;

    namespace.kubectl(&["create", "job", "copy-now", "--from=cronjob/shop-debug-sidecar-backup"])?;
    namespace.kubectl(&["wait", "--for=condition=complete", "job/copy-now", "--timeout=90s"]).with_context(|| {
        namespace.kubectl(&["describe", "pods", "--selector=job-name=copy-now"]).unwrap_or_default()
    })?;
    println!("backup: {}", namespace.kubectl(&["logs", "job/copy-now"])?.trim());
    let copies = incident::stored(folder.path())?;
    ensure!(copies.len() == 1, "{} copies", copies.len());
    let mut diff = Command::new("diff");
    diff.arg("--recursive").arg(&stored.folder).arg(&copies[0].folder);
    node::succeed(diff).context("the copy is not the same")?;

    // Neither archive nor backup outlives the release; what they worked on does.
    helm.succeed(&["uninstall", "shop", "--namespace", &namespace.name, "--wait", "--timeout", "2m"])?;
    namespace.only_incident().context("after helm uninstall")?;
    for claim in ["goscope-data", "goscope-backup"] {
        namespace.object("pvc", claim).context("after helm uninstall")?;
    }
    Ok(())
}

/// Asks the archive for everything about the incident of a pod that is gone.
fn archive(namespace: &Namespace, token: &str, host: &str, stderr: &[u8]) -> anyhow::Result<()> {
    let listed: Value = serde_json::from_str(&namespace.kubectl(&[
        "get",
        "pods",
        "--selector=goscope.dev/part=archive",
        "--output=json",
    ])?)?;
    let pod = listed["items"][0]["metadata"]["name"].as_str().context("no archive")?;
    namespace.await_ready(pod)?;
    let tunnel = Tunnel::open(namespace, pod)?;
    let ask = |path: &str| -> anyhow::Result<String> {
        let (status, text) = tunnel.ask(token, path)?;
        ensure!(status == "200", "{path}: {status} {text}\n{}", namespace.agent_log(pod));
        Ok(text)
    };
    let groups: Value = serde_json::from_str(&ask("/api/v1/incidents")?)?;
    let items = groups["items"].as_array().context("no items")?;
    ensure!(items.len() == 1 && items[0]["kind"] == "panic", "{groups}");
    ensure!(items[0]["hosts"] == serde_json::json!([host]), "{groups}");
    let id = items[0]["latest"].as_str().context("no id")?;
    let one: Value = serde_json::from_str(&ask(&format!("/api/v1/incidents/{id}"))?)?;
    ensure!(one["pod"]["name"] == host && !one["exit"].is_null(), "{one}");
    ensure!(ask(&format!("/api/v1/artifacts/{id}/content"))?.as_bytes() == stderr, "its content is another one");

    ensure!(tunnel.ask("gsc_wrong", "/api/v1/incidents")?.0 == "401");
    Ok(())
}
