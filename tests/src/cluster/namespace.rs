//! A namespace for one case, with a volume that the test reads from outside.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{image, node};
use crate::incident::{self, Stored};
use crate::process::{Outcome, run};
use crate::{session, wait};

/// Everything that a pod needs before it is scheduled and gets its image and address, also on a loaded machine.
const POD_DEADLINE: Duration = Duration::from_secs(120);
/// The same for a score of pods at once.
const PODS_DEADLINE: Duration = Duration::from_secs(240);
/// Between two looks at a pod.
const POLL: Duration = Duration::from_millis(300);

/// A namespace under the strictest pod security standard. Deleted when dropped.
pub struct Namespace {
    pub name: String,
    /// The token in the Secret `goscope-tokens`.
    pub token: String,
    volume: TempDir,
}

impl Namespace {
    /// Makes the namespace, the Secret `goscope-tokens` and the claim `goscope-data` on a folder that is the volume.
    ///
    /// # Errors
    /// The node is not up, an image cannot be built, or the API server refused something.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        image::load_all()?;
        let volume = tempfile::tempdir()?;
        // The kubelet gives a hostPath volume to nobody: any user may write here, which an administrator would narrow.
        let store = volume.path().join("data");
        fs::create_dir(&store)?;
        fs::set_permissions(&store, fs::Permissions::from_mode(0o777))?;
        let (token, entry) = new_token()?;
        // A node that is kept between runs still forgets the namespaces of the run before.
        let name = format!("{name}-{}", std::process::id());
        let namespace = Self { name: name.clone(), token, volume };
        let path = store.display();
        namespace.apply(&format!(
            r"
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  storageClassName: tests
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce, ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {{path: {path}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: goscope-data, namespace: {name}}}
spec: {{storageClassName: tests, volumeName: {name}, accessModes: [ReadWriteOnce, ReadWriteMany], resources: {{requests: {{storage: 1Gi}}}}}}
"
        ))?;
        namespace.apply(&secret(&name, &entry))?;
        // Pods are refused until the controller has made it.
        wait::until("the service account", || namespace.kubectl(&["get", "serviceaccount", "default"]).ok())?;
        Ok(namespace)
    }

    /// Puts a new token into the Secret in place of the one that is there, which is returned.
    ///
    /// # Errors
    /// The API server refused it.
    pub fn rotate_token(&mut self) -> anyhow::Result<String> {
        let (token, entry) = new_token()?;
        self.apply(&secret(&self.name, &entry))?;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// `kubectl` in the namespace; its standard output.
    ///
    /// # Errors
    /// kubectl's own.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        node::succeed(self.command(args))
    }

    /// The same, to be started by the caller.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        node::kubectl(&[&["--namespace", &self.name], args].concat())
    }

    /// `kubectl apply`.
    ///
    /// # Errors
    /// kubectl's own, and the warnings of the API server, which tell that a manifest breaks the pod security standard or names what does not exist.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        let mut command = node::kubectl(&["apply", "--filename", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("no standard input")?.write_all(manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("Warning"), "{said}\n{manifest}");
        Ok(())
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// There is none.
    pub fn object(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "--output", "json"])?)?)
    }

    /// Pods by a label selector; all of them if it is empty.
    ///
    /// # Errors
    /// The node is not up.
    pub fn pods(&self, selector: &str) -> anyhow::Result<Vec<Value>> {
        let mut listed = node::api(&format!("/api/v1/namespaces/{}/pods?labelSelector={selector}", self.name))?;
        Ok(serde_json::from_value(listed["items"].take())?)
    }

    /// Waits until the pod is ready, and returns its address.
    ///
    /// # Errors
    /// The deadline passed; what the kubelet says about the pod is in the error.
    pub fn await_ready(&self, pod: &str) -> anyhow::Result<String> {
        let ready = |pod: Value| {
            let is_ready = conditions(&pod).any(|c| c["type"] == "Ready" && c["status"] == "True");
            is_ready.then(|| pod["status"]["podIP"].as_str().map(str::to_owned)).flatten()
        };
        self.await_pod(pod, "the pod is ready", ready)
    }

    /// Waits until the pod is in `phase`.
    ///
    /// # Errors
    /// The deadline passed; what the kubelet says about the pod is in the error.
    pub fn await_phase(&self, pod: &str, phase: &str) -> anyhow::Result<()> {
        self.await_pod(pod, &format!("the pod is {phase}"), |pod| (pod["status"]["phase"] == phase).then_some(()))
    }

    /// Waits until a probe of the pod has an answer.
    ///
    /// # Errors
    /// The deadline passed; what the kubelet says about the pod is in the error.
    pub fn await_pod<T>(&self, pod: &str, what: &str, probe: impl Fn(Value) -> Option<T>) -> anyhow::Result<T> {
        wait::until_within(POD_DEADLINE, what, || {
            std::thread::sleep(POLL);
            let found = node::api(&format!("/api/v1/namespaces/{}/pods/{pod}", self.name)).ok()?;
            let has_ended = found["status"]["phase"] == "Failed" || found["status"]["phase"] == "Succeeded";
            match probe(found) {
                None if has_ended => Some(Err(anyhow::anyhow!("the pod ended before: {what}"))),
                answer => answer.map(Ok),
            }
        })
        .and_then(|answer| answer)
        .with_context(|| {
            let described = self.kubectl(&["describe", "pod", pod]).unwrap_or_else(|error| error.to_string());
            format!("{described}\n{}", self.agent_log(pod))
        })
    }

    /// Waits until `probe` says yes to each of the pods, with one look at all of them at a time; returns them in their order.
    ///
    /// # Errors
    /// The deadline passed; what the kubelet says about those that are missing is in the error.
    pub fn await_pods(&self, pods: &[&str], what: &str, probe: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<Value>> {
        let mut missing = Vec::new();
        wait::until_within(PODS_DEADLINE, what, || {
            std::thread::sleep(POLL);
            let listed = self.pods("").ok()?;
            let find = |name: &&str| {
                let mut all = listed.iter();
                all.find(|pod| pod["metadata"]["name"] == **name).filter(|pod| probe(pod)).cloned()
            };
            let found: Vec<Option<Value>> = pods.iter().map(find).collect();
            missing = pods.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(pod, _)| *pod).collect();
            found.into_iter().collect()
        })
        .with_context(|| {
            let told = missing.iter().map(|pod| self.kubectl(&["describe", "pod", pod]).unwrap_or_default());
            told.collect::<Vec<_>>().join("\n")
        })
    }

    /// What the app's container wrote to standard error, byte for byte.
    ///
    /// # Errors
    /// kubectl's own.
    pub fn logs(&self, pod: &str, options: &[&str]) -> anyhow::Result<Vec<u8>> {
        let Outcome { stdout, stderr, status } =
            run(&mut self.command(&[&["logs", pod, "--container", "shop"], options].concat()))?;
        ensure!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        Ok(stdout)
    }

    /// The agent's log, for messages.
    #[must_use]
    pub fn agent_log(&self, pod: &str) -> String {
        self.kubectl(&["logs", pod, "--container", "goscope"]).unwrap_or_else(|error| error.to_string())
    }

    /// The incidents on the volume, oldest first. Each is checked to be whole.
    ///
    /// # Errors
    /// One is not whole.
    pub fn incidents(&self) -> anyhow::Result<Vec<Stored>> {
        whole_incidents(self.volume.path())
    }

    /// Those of one pod.
    ///
    /// # Errors
    /// As for [`incidents`](Self::incidents).
    pub fn incidents_of(&self, pod: &str) -> anyhow::Result<Vec<Stored>> {
        Ok(self.incidents()?.into_iter().filter(|stored| stored.incident["host"] == pod).collect())
    }

    /// The only one of a pod.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn only_incident_of(&self, pod: &str) -> anyhow::Result<Stored> {
        only(self.incidents_of(pod)?).with_context(|| pod.to_owned())
    }

    /// Waits until the volume holds an incident.
    ///
    /// # Errors
    /// The deadline passed, or there are several.
    pub fn await_incident(&self, pod: &str) -> anyhow::Result<Stored> {
        wait::until("an incident on the volume", || self.incidents().ok().filter(|all| !all.is_empty()))
            .with_context(|| self.agent_log(pod))?;
        self.only_incident()
    }

    /// The only incident on the volume.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn only_incident(&self) -> anyhow::Result<Stored> {
        only(self.incidents()?)
    }

    /// The volume as the node has it: `data/<host>/…` below it.
    #[must_use]
    pub fn volume(&self) -> &Path {
        self.volume.path()
    }

    /// Deletes the pod as `kubectl delete pod` does, and waits until it is gone.
    ///
    /// # Errors
    /// kubectl's own.
    pub fn delete_pod(&self, pod: &str) -> anyhow::Result<()> {
        self.kubectl(&["delete", "pod", pod, "--timeout=50s"]).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The node may be gone already, and with it everything.
        for object in [["namespace", &self.name], ["persistentvolume", &self.name]] {
            drop(run(&mut node::kubectl(&["delete", object[0], object[1], "--wait=false", "--ignore-not-found"])));
        }
    }
}

/// The incidents below `data` of a folder, oldest first. Each is checked to be whole.
///
/// # Errors
/// One is not whole.
pub fn whole_incidents(folder: &Path) -> anyhow::Result<Vec<Stored>> {
    let stored = incident::stored(folder)?;
    for one in &stored {
        verify(&one.folder)?;
    }
    Ok(stored)
}

fn only(mut incidents: Vec<Stored>) -> anyhow::Result<Stored> {
    let found = incidents.iter().map(|stored| format!("{}: {}", stored.kind(), stored.reason())).collect::<Vec<_>>();
    ensure!(found.len() == 1, "{} incidents on the volume: {found:?}", found.len());
    incidents.pop().context("one was counted")
}

fn conditions(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["conditions"].as_array().into_iter().flatten()
}

/// The Secret `goscope-tokens` with one entry.
fn secret(namespace: &str, entry: &str) -> String {
    let entry = entry.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    format!(
        r"
apiVersion: v1
kind: Secret
metadata: {{name: goscope-tokens, namespace: {namespace}}}
stringData:
  tokens.yaml: |
    tokens:
{entry}
"
    )
}

/// A token with every tier, and its entry as YAML.
fn new_token() -> anyhow::Result<(String, String)> {
    let mut command = Command::new(session::goscope()?);
    command.args(["token", "new", "--name", "alice", "--tier", "basic,cpu,trace,vars,artifacts,capture"]);
    let made = run(&mut command)?;
    let said = made.err();
    let (_, entry) = said.split_once('\n').with_context(|| format!("no entry: {said}"))?;
    Ok((made.out().trim().to_owned(), entry.trim_end().to_owned()))
}

/// Compares the files of an artifact with what its `meta.json` says of them.
fn verify(folder: &Path) -> anyhow::Result<()> {
    let meta: Value = serde_json::from_slice(&fs::read(folder.join("meta.json"))?)?;
    for file in meta["files"].as_array().context("no files")? {
        let path: PathBuf = folder.join(file["name"].as_str().context("no name")?);
        ensure!(path.metadata()?.len() == file["bytes"].as_u64().context("no size")?, "size of {}", path.display());
        let sum = run(Command::new("sha256sum").arg(&path))?.out();
        ensure!(file["sha256"].as_str() == sum.split(' ').next(), "checksum of {}", path.display());
    }
    Ok(())
}
