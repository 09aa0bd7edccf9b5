//! Looks for ways around the gate: ports of the pod where `/debug/pprof/` answers whoever connects.
//!
//! Once the target has answered for the first time, or after [`START_DELAY`] without an answer, and from then on every `selftest.every`, the sockets that
//! listen in the pod's network namespace are read from `/proc/net/tcp` and `tcp6`, which needs no privilege (`sockets`). Each but our own is asked for
//! pprof's index page, one after the other, by one small request (`probe`); one that does not speak HTTP is not asked again for as long as it listens
//! (`judge`).
//!
//! What is found is a finding of the API, `goscope_bypass_found` by `reach`, and a line in the log when it is found and when it is gone: `loopback` is open
//! to whoever may port-forward to the pod, `network` to whatever reaches the pod's address.
//!
//! A pod with `hostNetwork` has the ports of the whole node; there, and wherever else they are none of ours, `selftest.enabled: false`. Under `goscope run`
//! the ports are those of somebody's machine: nothing is listed and nothing is asked, and the finding only says what a TCP target means.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::TargetAddress;
use crate::model::Finding;
use crate::target::sampler::Sample;
use judge::{Known, Reach};
use metrics::SelfTestMetrics;

mod judge;
pub mod metrics;
mod probe;
mod sockets;

/// The first round does not wait longer for the target's first answer.
pub const START_DELAY: Duration = Duration::from_secs(30);
/// From the target's first answer to the first round: an app opens its ports one after the other.
pub const SETTLING: Duration = Duration::from_secs(2);
/// The files that list the sockets, and whether each must be there: without IPv6 in the kernel there is no second one.
const SOCKET_FILES: [(&str, bool); 2] = [("/proc/net/tcp", true), ("/proc/net/tcp6", false)];

/// The task.
#[derive(Debug)]
pub struct SelfTest {
    /// Our own listeners.
    own: Vec<SocketAddr>,
    target: TargetAddress,
    every: Duration,
    metrics: SelfTestMetrics,
    /// self-test --findings--> API
    findings_tx: watch::Sender<Arc<Vec<Finding>>>,
    known: Known,
    /// What the log says is found.
    told: BTreeSet<(Reach, SocketAddr)>,
    /// The latest round could not list the sockets.
    is_failing: bool,
}

/// What can be said where nothing may be probed: that a gate does not close a TCP target's own port.
#[must_use]
pub fn unprobed(target: &TargetAddress) -> Vec<Finding> {
    judge::unsealed(target).into_iter().collect()
}

impl SelfTest {
    /// `own` are the addresses of our own listeners, which are not asked.
    #[must_use]
    pub fn new(
        own: impl IntoIterator<Item = SocketAddr>,
        target: TargetAddress,
        every: Duration,
        metrics: SelfTestMetrics,
        findings_tx: watch::Sender<Arc<Vec<Finding>>>,
    ) -> Self {
        let own = own.into_iter().map(|own| SocketAddr::new(own.ip().to_canonical(), own.port())).collect();
        let (known, told) = (Known::default(), BTreeSet::new());
        Self { own, target, every, metrics, findings_tx, known, told, is_failing: false }
    }

    /// Tests until `stop`.
    pub async fn run(self, sample: watch::Receiver<Option<Sample>>, stop: CancellationToken) {
        let None = stop.run_until_cancelled(self.test_for_ever(sample)).await;
    }

    async fn test_for_ever(mut self, mut sample: watch::Receiver<Option<Sample>>) -> Infallible {
        let answered = sample.wait_for(|sample| sample.as_ref().is_some_and(Sample::is_up));
        if matches!(tokio::time::timeout(START_DELAY, answered).await, Ok(Ok(_))) {
            tokio::time::sleep(SETTLING).await;
        }
        loop {
            let listening = tokio::task::spawn_blocking(listening).await.map_err(io::Error::other);
            match listening.flatten() {
                Ok(listening) => {
                    self.is_failing = false;
                    self.round(&listening).await;
                    self.metrics.round(true);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(%error, "the pod's ports cannot be listed");
                    }
                    self.metrics.round(false);
                }
            }
            tokio::time::sleep(self.every).await;
        }
    }

    async fn round(&mut self, listening: &BTreeSet<SocketAddr>) {
        let round = self.known.round(listening, &self.own);
        self.metrics.left_out(round.left_out);
        if round.left_out > 0 {
            tracing::info!(ports = round.left_out, "self-test leaves ports for a later round");
        }
        for address in round.ask {
            self.known.heard(address, probe::ask(address).await);
        }
        self.tell();
    }

    fn tell(&mut self) {
        let exposed = self.known.exposed();
        for (reach, address) in exposed.difference(&self.told) {
            match reach {
                Reach::Network => tracing::error!(%address, reach = reach.name(), "pprof answers without the gate"),
                Reach::Loopback => tracing::warn!(%address, reach = reach.name(), "pprof answers without the gate"),
            }
        }
        for (reach, address) in self.told.difference(&exposed) {
            let reach = reach.name();
            tracing::info!(%address, reach, "pprof does not answer without the gate any more");
        }
        for reach in Reach::ALL {
            self.metrics.found(reach, exposed.iter().filter(|(of, _)| *of == reach).count());
        }
        self.told = exposed;
        let findings = self.known.findings(&self.target);
        self.findings_tx.send_if_modified(|known| {
            let is_new = **known != findings;
            if is_new {
                *known = Arc::new(findings);
            }
            is_new
        });
    }
}

/// The sockets that listen in our network namespace.
fn listening() -> io::Result<BTreeSet<SocketAddr>> {
    let mut all = BTreeSet::new();
    for (path, must_be_there) in SOCKET_FILES {
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(sockets::BYTES_MAX).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be_there => continue,
            Err(error) => return Err(error),
        };
        all.extend(sockets::listening(&text));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
