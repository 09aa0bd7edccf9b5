//! Series of the self-test. They are there only where it is on.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::judge::Reach;

/// What the self-test counts.
#[derive(Clone, Debug)]
pub struct SelfTestMetrics {
    found: IntGaugeVec,
    left_out: IntGauge,
    rounds: IntCounterVec,
}

impl SelfTestMetrics {
    /// # Errors
    /// One of the names is taken in this registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let found = IntGaugeVec::new(
            Opts::new(
                "goscope_bypass_found",
                "Ports of the pod where pprof answers without the gate, by who can connect to them.",
            ),
            &["reach"],
        )?;
        let left_out = IntGauge::new(
            "goscope_selftest_left_out_ports",
            "Ports that the latest self-test did not ask, because there were too many; their turn comes.",
        )?;
        let rounds = IntCounterVec::new(
            Opts::new(
                "goscope_selftest_rounds_total",
                "Rounds of the self-test, by whether the pod's ports could be listed.",
            ),
            &["result"],
        )?;
        for reach in Reach::ALL {
            found.with_label_values(&[reach.name()]);
        }
        for result in RESULTS {
            rounds.with_label_values(&[result]);
        }
        registry.register(Box::new(found.clone()))?;
        registry.register(Box::new(left_out.clone()))?;
        registry.register(Box::new(rounds.clone()))?;
        Ok(Self { found, left_out, rounds })
    }

    pub(super) fn found(&self, reach: Reach, ports: usize) {
        self.found.with_label_values(&[reach.name()]).set(i64::try_from(ports).unwrap_or(i64::MAX));
    }

    pub(super) fn left_out(&self, ports: usize) {
        self.left_out.set(i64::try_from(ports).unwrap_or(i64::MAX));
    }

    pub(super) fn round(&self, is_done: bool) {
        let [done, failed] = RESULTS;
        self.rounds.with_label_values(&[if is_done { done } else { failed }]).inc();
    }
}

const RESULTS: [&str; 2] = ["done", "failed"];
