//! An agent in a pod as it runs: an ephemeral container, which the pod security standard `restricted` admits.
//!
//! Such a container has no ports, probes, resources or volumes of its own, and stays in the pod's list for ever. The agent therefore listens on the
//! pod's loopback only, and ends by itself. Of its token the pod holds the SHA-256 alone.
//!
//! What it captures it keeps in `/dev/shm`, the one place that any user may write to whatever the image and the root file system allow. All containers
//! of the pod share it, and what is in it counts against the pod's memory: little is kept, in a folder of its own, which the agent deletes at its end.
//! What an agent leaves that was killed goes with the pod.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Cluster;
use super::pick::{self, ATTACHED_LISTEN, CONTAINER_NAME};
use super::problem::{self, Problem};
use crate::config::units::duration_text;
use crate::token::file;
use crate::token::tier::{Tier, TierSet};
use crate::token::{Digest, ENV_TOKENS};

/// How long the container may take to start, its image's download included.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at it.
const POLL: Duration = Duration::from_secs(1);
/// The image's own user, for a pod that would run it as root.
const USER: i64 = 65_532;
/// The token outlives the agent by this much, so that its end is told as one.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);
/// What it keeps at most, in memory.
pub const STORE_BYTES: &str = "8MiB";
/// The folder whose parts it keeps it in.
const MEMORY: &str = "/dev/shm";

/// An agent to be.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub image: String,
    /// Where the app serves pprof, as `--target` takes it.
    pub target: String,
    pub port: u16,
    pub lifetime: Duration,
    pub token: Digest,
}

impl Attachment {
    /// The container for `pod`.
    fn container(&self, name: &str, pod: &Pod, now: Timestamp) -> Value {
        let tiers: TierSet =
            [Tier::Basic, Tier::Cpu, Tier::Trace, Tier::Dump, Tier::Vars, Tier::Artifacts, Tier::Capture]
                .into_iter()
                .collect();
        let expires =
            SignedDuration::try_from(self.lifetime + TOKEN_MARGIN).ok().and_then(|left| now.checked_add(left).ok());
        let expires = expires.and_then(|end| Timestamp::from_second(end.as_second()).ok());
        let tokens = file::document(&file::entry("attached", self.token, tiers, &[], expires));
        let mut env = vec![
            json!({"name": ENV_TOKENS, "value": tokens}),
            json!({"name": ATTACHED_LISTEN, "value": format!("127.0.0.1:{}", self.port)}),
            // Any free port: the usual one may be the app's, and nobody scrapes a container that is about to end.
            json!({"name": "GOSCOPE_LISTEN_METRICS", "value": "127.0.0.1:0"}),
            json!({"name": "GOSCOPE_STORE_MAX_BYTES", "value": STORE_BYTES}),
            json!({"name": "GOSCOPE_STORE_RESERVE_BYTES", "value": "4MiB"}),
        ];
        for (variable, path) in [
            ("GOSCOPE_POD_NAME", "metadata.name"),
            ("GOSCOPE_POD_NAMESPACE", "metadata.namespace"),
            ("GOSCOPE_POD_UID", "metadata.uid"),
            ("GOSCOPE_POD_NODE", "spec.nodeName"),
        ] {
            env.push(json!({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
        }
        let mut security = json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        if context.and_then(|context| context.run_as_user) == Some(0) {
            security["runAsUser"] = USER.into();
        }
        json!({
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "args": [
                "agent", "--for", duration_text(self.lifetime), "--scratch", format!("{MEMORY}/{name}"), "--target", self.target,
            ],
            "env": env,
            "securityContext": security,
        })
    }
}

impl Cluster {
    /// The pod, if an agent can be put into it.
    ///
    /// # Errors
    /// It is not there or does not run, or goscope is in it already.
    pub async fn attachable(&self, pod: &str) -> Result<Pod, Problem> {
        let found: Pod = self.get("", "pods", pod).await?;
        if !pick::is_running(&found) {
            return Err(Problem::Unusable(format!(
                "pod {pod} {}; an agent can only join a pod that runs",
                pick::state(&found)
            )));
        }
        if let Some(port) = pick::port_of(&found) {
            return Err(Problem::Unusable(format!(
                "goscope is in pod {pod} already, on port {port}: `kubectl goscope status {pod}`"
            )));
        }
        Ok(found)
    }

    /// Puts an agent into a pod that is [`Self::attachable`]; returns the container's name, which ends with `suffix`.
    ///
    /// # Errors
    /// The container may not be added.
    pub async fn attach(&self, found: &Pod, attachment: &Attachment, suffix: &str) -> Result<String, Problem> {
        let pod = pick::name(found);
        let name = format!("{CONTAINER_NAME}-{suffix}");
        let patch = json!({"spec": {"ephemeralContainers": [attachment.container(&name, found, Timestamp::now())]}});
        let asked = self.asked(&["patch"], "", "pods/ephemeralcontainers").named(pod);
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), self.namespace());
        let patched = pods.patch_ephemeral_containers(pod, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map_err(|error| problem::explain(error, &asked))?;
        Ok(name)
    }

    /// Waits until the container that was added runs. Until then `waits` is called with the seconds, and with what the kubelet will try again.
    ///
    /// # Errors
    /// It does not start: never, or not in time.
    pub async fn await_started(
        &self,
        pod: &str,
        name: &str,
        mut waits: impl FnMut(u64, Option<&str>),
    ) -> Result<(), Problem> {
        let since = Instant::now();
        loop {
            match started(&self.get("", "pods", pod).await?, name) {
                Started::Running => return Ok(()),
                Started::Never(reason) => {
                    return Err(Problem::Unusable(format!("container {name} of pod {pod} does not start: {reason}")));
                }
                Started::NotYet(reason) if since.elapsed() > START_TIMEOUT => {
                    let seconds = START_TIMEOUT.as_secs();
                    return Err(Problem::Unusable(format!(
                        "container {name} of pod {pod} does not run after {seconds} s ({reason}); `kubectl describe pod {pod}` says more"
                    )));
                }
                Started::NotYet(reason) => {
                    let trouble =
                        Some(reason).filter(|reason| TRIED_AGAIN.iter().any(|tried| reason.starts_with(tried)));
                    waits(since.elapsed().as_secs(), trouble.as_deref());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Why a container waits that the kubelet tries to start again and again: the next time the registry may answer.
const TRIED_AGAIN: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "CreateContainerError"];
/// Why one waits that cannot start as it is; nothing of it can be changed.
const HOPELESS: [&str; 3] = ["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];

#[derive(Debug, PartialEq, Eq)]
enum Started {
    Running,
    NotYet(String),
    Never(String),
}

/// How far the container is.
fn started(pod: &Pod, name: &str) -> Started {
    if !pick::is_running(pod) {
        return Started::Never(format!("the pod {}", pick::state(pod)));
    }
    let statuses = pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.as_deref());
    let status = statuses.unwrap_or_default().iter().find(|status| status.name == name);
    match status.and_then(|status| status.state.as_ref()) {
        Some(ContainerState { running: Some(_), .. }) => Started::Running,
        Some(ContainerState { terminated: Some(ended), .. }) => Started::Never(format!(
            "it ended with status {}; `kubectl logs --container {name}` says why",
            ended.exit_code
        )),
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            let reason = waiting.reason.as_deref().unwrap_or("waiting");
            let said =
                waiting.message.as_deref().map(|said| format!(": {}", problem::bounded(said))).unwrap_or_default();
            let sentence = format!("{}{said}", problem::bounded(reason));
            if HOPELESS.contains(&reason) { Started::Never(sentence) } else { Started::NotYet(sentence) }
        }
        _ => Started::NotYet("the kubelet has not begun".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment {
            image: "goscope:0.1.0".to_owned(),
            target: "127.0.0.1:6060".to_owned(),
            port: 6061,
            lifetime: Duration::from_secs(3600),
            token: Digest::of(b"x"),
        }
    }

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn the_container_is_restricted_and_knows_the_hash_only() {
        let now = "2026-11-23T12:00:00Z".parse().expect("a time");
        let container = attachment().container("goscope-1", &pod(json!({"spec": {"containers": []}})), now);
        assert_eq!(
            container["args"],
            json!(["agent", "--for", "1h", "--scratch", "/dev/shm/goscope-1", "--target", "127.0.0.1:6060"])
        );
        let security = &container["securityContext"];
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        assert!(security["runAsUser"].is_null() && security["runAsNonRoot"] == true, "{security}");
        let tokens = container["env"][0]["value"].as_str().expect("tokens");
        let entries = file::parse(tokens).expect("a token file");
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].sha256, Digest::of(b"x"));
        assert_eq!(entries[0].expires.map(|end| end.to_string()).as_deref(), Some("2026-11-23T13:05:00Z"));
        // The kubelet refuses these in an ephemeral container.
        for absent in ["ports", "resources", "livenessProbe", "volumeMounts", "lifecycle"] {
            assert!(container[absent].is_null(), "{absent}");
        }
        let root = pod(json!({"spec": {"containers": [], "securityContext": {"runAsUser": 0}}}));
        assert_eq!(attachment().container("goscope-1", &root, now)["securityContext"]["runAsUser"], USER);
    }

    #[test]
    fn how_far_it_is() {
        let state = |phase: &str, state: Value| {
            let status = json!({"name": "goscope-1", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            started(&pod(json!({"status": {"phase": phase, "ephemeralContainerStatuses": [status]}})), "goscope-1")
        };
        assert_eq!(state("Running", json!({"running": {}})), Started::Running);
        assert_eq!(
            state("Running", json!({"waiting": {"reason": "ContainerCreating"}})),
            Started::NotYet("ContainerCreating".to_owned())
        );
        assert_eq!(
            state("Running", json!({"waiting": {"reason": "ErrImagePull", "message": "not\nfound"}})),
            Started::NotYet("ErrImagePull: not⏎ found".to_owned())
        );
        assert_eq!(
            state("Running", json!({"waiting": {"reason": "InvalidImageName"}})),
            Started::Never("InvalidImageName".to_owned())
        );
        assert_eq!(
            state("Running", json!({"terminated": {"exitCode": 2}})),
            Started::Never("it ended with status 2; `kubectl logs --container goscope-1` says why".to_owned())
        );
        assert_eq!(state("Failed", json!({"running": {}})), Started::Never("the pod is Failed".to_owned()));
        let nothing = started(&pod(json!({"status": {"phase": "Running"}})), "goscope-1");
        assert_eq!(nothing, Started::NotYet("the kubelet has not begun".to_owned()));
    }
}
