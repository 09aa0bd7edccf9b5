//! The pod that the cases run: the shop with goscope beside it, or bare.

use std::time::{Duration, Instant};

use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::{image, node};

/// Process 1 of the sidecar's container.
pub(crate) const SIDECAR: [&str; 2] = ["/goscope", "agent"];
/// The agent, which process 1 starts.
pub(crate) const AGENT: [&str; 1] = ["goscope-agent"];

/// What differs between cases.
#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    /// Also the host name inside, so no two cases share one.
    pub(crate) name: &'a str,
    pub(crate) restart: &'a str,
    /// The shop's executable in its image.
    pub(crate) program: &'a str,
    /// Further arguments of the shop.
    pub(crate) args: &'a [&'a str],
    /// The shop's memory limit.
    pub(crate) memory: &'a str,
    pub(crate) app_user: u32,
    pub(crate) agent_user: u32,
    pub(crate) fs_group: Option<u32>,
    pub(crate) agent_image: &'a str,
    pub(crate) launcher_image: &'a str,
    /// The volumes `goscope-data` and `goscope-spool`, as YAML.
    pub(crate) data: &'a str,
    pub(crate) spool: &'a str,
    /// Further items in YAML, one a line, of the agent's environment and mounts, the shop's mounts, and the pod's volumes.
    pub(crate) env: &'a str,
    pub(crate) agent_mounts: &'a str,
    pub(crate) app_mounts: &'a str,
    pub(crate) volumes: &'a str,
}

/// App and agent are two users who share nothing but the pod's `fsGroup`: the hardest of the settings that work.
pub(crate) const USUAL: Pod<'static> = Pod {
    name: "shop",
    restart: "Never",
    program: "/shop",
    args: &[],
    memory: "256Mi",
    app_user: 10_001,
    agent_user: 20_002,
    fs_group: Some(30_303),
    agent_image: image::GOSCOPE,
    launcher_image: image::GOSCOPE,
    data: "persistentVolumeClaim: {claimName: goscope-data}",
    spool: "emptyDir: {sizeLimit: 64Mi}",
    env: "",
    agent_mounts: "",
    app_mounts: "",
    volumes: "",
};

impl Pod<'_> {
    pub(crate) fn with_goscope(&self, namespace: &Namespace) -> anyhow::Result<()> {
        namespace.apply(&self.fill(include_str!("pod.yaml"), namespace))
    }

    pub(crate) fn bare(&self, namespace: &Namespace) -> anyhow::Result<()> {
        namespace.apply(&self.fill(include_str!("bare.yaml"), namespace))
    }

    /// Starts it and waits until it is ready; its address.
    pub(crate) fn ready(&self, namespace: &Namespace) -> anyhow::Result<String> {
        self.with_goscope(namespace)?;
        namespace.await_ready(self.name)
    }

    /// Starts all of them with one call.
    pub(crate) fn all_with_goscope(pods: &[Self], namespace: &Namespace) -> anyhow::Result<()> {
        let manifests: Vec<String> = pods.iter().map(|pod| pod.fill(include_str!("pod.yaml"), namespace)).collect();
        namespace.apply(&manifests.join("\n---\n"))
    }

    fn fill(&self, template: &str, namespace: &Namespace) -> String {
        let args = [&["-listen", "0.0.0.0:8080", "-debug", "127.0.0.1:6060"], self.args].concat();
        let fs_group = self.fs_group.map(|group| format!(", fsGroup: {group}")).unwrap_or_default();
        template
            .replace("@POD@", self.name)
            .replace("@NAMESPACE@", &namespace.name)
            .replace("@RESTART@", self.restart)
            .replace("@PROGRAM@", self.program)
            .replace("@ARGS@", &format!("{args:?}"))
            .replace("@MEMORY@", self.memory)
            .replace("@APP_USER@", &self.app_user.to_string())
            .replace("@AGENT_USER@", &self.agent_user.to_string())
            .replace("@FS_GROUP@", &fs_group)
            .replace("@AGENT_IMAGE@", self.agent_image)
            .replace("@LAUNCHER_IMAGE@", self.launcher_image)
            .replace("@DATA@", self.data)
            .replace("@SPOOL@", self.spool)
            .replace("@ENV@", &items(4, self.env))
            .replace("@AGENT_MOUNTS@", &items(4, self.agent_mounts))
            .replace("@APP_MOUNTS@", &items(4, self.app_mounts))
            .replace("@VOLUMES@", &items(2, self.volumes))
    }
}

/// The items of a YAML list, indented.
fn items(indent: usize, lines: &str) -> String {
    lines.lines().map(|line| format!("{:indent$}- {line}", "")).collect::<Vec<_>>().join("\n")
}

/// Asks the shop to raise a fault.
pub(crate) fn raise(address: &str, fault: &str) -> anyhow::Result<()> {
    let answer = node::curl(&["-f", &format!("http://{address}:8080/fault/{fault}")])?;
    // A fault may take the answer with it: all of it, a part, or the connection.
    anyhow::ensure!(matches!(answer.code(), Some(0 | 18 | 52 | 56)), "{}", answer.err());
    Ok(())
}

/// How long `work` took, for a figure that is printed and never compared.
pub(crate) fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    Ok((work()?, start.elapsed()))
}
