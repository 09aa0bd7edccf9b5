//! The pod that the cases run: the shop with goscope beside it, or bare.

use std::time::{Duration, Instant};

use goscope_e2e::cluster::namespace::Namespace;
use goscope_e2e::cluster::node;

/// What differs between cases.
pub(crate) struct Pod {
    /// Also the host name inside, so no two cases share one.
    pub(crate) name: &'static str,
    pub(crate) restart: &'static str,
    /// Further arguments of the shop.
    pub(crate) args: &'static [&'static str],
    /// The shop's memory limit.
    pub(crate) memory: &'static str,
    pub(crate) app_user: u32,
    pub(crate) agent_user: u32,
    pub(crate) fs_group: Option<u32>,
}

/// App and agent are two users who share nothing but the pod's `fsGroup`: the hardest of the settings that work.
pub(crate) const USUAL: Pod = Pod {
    name: "shop",
    restart: "Never",
    args: &[],
    memory: "256Mi",
    app_user: 10_001,
    agent_user: 20_002,
    fs_group: Some(30_303),
};

impl Pod {
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

    fn fill(&self, template: &str, namespace: &Namespace) -> String {
        let args = [&["-listen", "0.0.0.0:8080", "-debug", "127.0.0.1:6060"], self.args].concat();
        let fs_group = self.fs_group.map(|group| format!(", fsGroup: {group}")).unwrap_or_default();
        template
            .replace("@POD@", self.name)
            .replace("@NAMESPACE@", &namespace.name)
            .replace("@RESTART@", self.restart)
            .replace("@ARGS@", &format!("{args:?}"))
            .replace("@MEMORY@", self.memory)
            .replace("@APP_USER@", &self.app_user.to_string())
            .replace("@AGENT_USER@", &self.agent_user.to_string())
            .replace("@FS_GROUP@", &fs_group)
    }
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
