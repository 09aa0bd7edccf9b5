//! Series of captures.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::KINDS;
use super::book::End;
use crate::store::meta::Trigger;
use crate::target::profile::Profile;

/// What was captured and is under way.
#[derive(Clone, Debug)]
pub struct CollectMetrics {
    captures: IntCounterVec,
    pub(super) running: IntGauge,
    pub(super) queued: IntGauge,
}

/// The values of `result`.
const RESULTS: [&str; 3] = ["stored", "failed", "cancelled"];
const TRIGGERS: [Trigger; 1] = [Trigger::Api];

impl CollectMetrics {
    /// # Errors
    /// The series are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            captures: IntCounterVec::new(
                Opts::new(
                    "goscope_captures_total",
                    "Captures that ended, by profile, by what asked for them and by result.",
                ),
                &["kind", "trigger", "result"],
            )?,
            running: IntGauge::new("goscope_captures_running", "Captures that are being taken from the target.")?,
            queued: IntGauge::new("goscope_captures_queued", "Captures that wait for others to end.")?,
        };
        for kind in KINDS {
            for trigger in TRIGGERS {
                for result in RESULTS {
                    metrics.captures.with_label_values(&[kind.name(), trigger.name(), result]);
                }
            }
        }
        registry.register(Box::new(metrics.captures.clone()))?;
        registry.register(Box::new(metrics.running.clone()))?;
        registry.register(Box::new(metrics.queued.clone()))?;
        Ok(metrics)
    }

    pub(super) fn ended(&self, kind: Profile, trigger: Trigger, end: &End) {
        let result = match end {
            End::Stored { .. } => "stored",
            End::Failed(_) => "failed",
            End::Cancelled => "cancelled",
        };
        self.captures.with_label_values(&[kind.name(), trigger.name(), result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = CollectMetrics::register(&registry).expect("registered");
        let count = |text: &str| text.lines().filter(|line| line.starts_with("goscope_captures_total{")).count();
        let text = crate::metrics::encode(&registry).expect("encoded");
        assert_eq!(count(&text), KINDS.len() * TRIGGERS.len() * RESULTS.len(), "{text}");
        let ends = [End::Cancelled, End::Failed(String::new())];
        ends.iter().for_each(|end| metrics.ended(Profile::Cpu, Trigger::Api, end));
        let text = crate::metrics::encode(&registry).expect("encoded");
        assert_eq!(count(&text), KINDS.len() * TRIGGERS.len() * RESULTS.len(), "{text}");
        for result in ["cancelled", "failed"] {
            let line = format!("goscope_captures_total{{kind=\"profile\",result=\"{result}\",trigger=\"api\"}} 1");
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
