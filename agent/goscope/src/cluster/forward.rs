//! Streams to a port of a pod, through the API server: what `kubectl port-forward` does, without a local port.
//!
//! Each stream is a WebSocket of its own, so that a connection which the pod resets takes nothing else with it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use super::Cluster;
use super::problem::{self, Problem};

/// How long the API server and the kubelet may take to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the kubelet's own words are waited for after a stream has broken.
const WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// A port of a pod.
#[derive(Clone)]
pub struct Destination {
    cluster: Cluster,
    pod: String,
    port: u16,
}

impl Destination {
    #[must_use]
    pub fn new(cluster: Cluster, pod: String, port: u16) -> Self {
        Self { cluster, pod, port }
    }

    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Opens a stream; reading ends when the pod closes it. Whether anything listens on the port shows at the first byte only: see [`Words`].
    ///
    /// # Errors
    /// It may not be opened, the pod is gone, or the API server cannot be reached.
    pub async fn open(&self) -> Result<(DuplexStream, Words), Problem> {
        let asked = self.cluster.asked(&["create", "get"], "", "pods/portforward").named(&self.pod);
        let pods: Api<Pod> = Api::namespaced(self.cluster.client().clone(), self.cluster.namespace());
        let opened = tokio::time::timeout(OPEN_TIMEOUT, pods.portforward(&self.pod, &[self.port])).await;
        let opened = opened.map_err(|_| Problem::Unreachable {
            server: self.cluster.server.clone(),
            reason: format!("no stream to pod {} within {} s", self.pod, OPEN_TIMEOUT.as_secs()),
        })?;
        let mut forwarder = opened.map_err(|error| problem::explain(error, &asked))?;
        let stream = forwarder.take_stream(self.port);
        let (words_tx, words_rx) = oneshot::channel();
        if let Some(words) = forwarder.take_error(self.port) {
            tokio::spawn(async move {
                if let Some(words) = words.await {
                    // Nobody may be left who asks.
                    words_tx.send(words).ok();
                }
            });
        }
        let stream = stream.ok_or_else(|| Problem::Unusable("the client opened no stream".to_owned()))?;
        Ok((stream, Words { said: words_rx, pod: self.pod.clone(), port: self.port }))
    }
}

/// What the node says about a stream that it could not open or keep.
pub struct Words {
    said: oneshot::Receiver<String>,
    pod: String,
    port: u16,
}

impl Words {
    /// Why the stream broke, as one sentence; `None` if the node says nothing.
    pub async fn problem(self) -> Option<String> {
        let said = tokio::time::timeout(WORDS_TIMEOUT, self.said).await.ok()?.ok()?;
        Some(sentence(&said, &self.pod, self.port))
    }
}

fn sentence(said: &str, pod: &str, port: u16) -> String {
    if said.contains("connection refused") {
        return format!("nothing listens on port {port} of pod {pod}; is goscope in it, and on that port (--port)?");
    }
    problem::bounded(&format!("the node cannot open port {port} of pod {pod}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_words_become_a_sentence() {
        let refused = "error forwarding port 6061 to pod abc, uid : failed to execute portforward in network namespace \
                       \"/var/run/netns/x\": failed to connect to localhost:6061 inside namespace \"abc\", IPv4: dial tcp4 127.0.0.1:6061: connect: \
                       connection refused IPv6 dial tcp6 [::1]:6061: connect: connection refused ";
        assert_eq!(
            sentence(refused, "shop-0", 6061),
            "nothing listens on port 6061 of pod shop-0; is goscope in it, and on that port (--port)?"
        );
        assert_eq!(sentence("boo\n", "a", 1), "the node cannot open port 1 of pod a: boo");
    }
}
