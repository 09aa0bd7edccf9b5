//! Series of the store.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Holding;
use super::plan::Reason;

/// What the store holds and has let go.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    bytes: IntGaugeVec,
    evicted: IntCounterVec,
    /// Artifacts that somebody deleted.
    pub(super) deleted: IntCounter,
    /// Operations on the volume that failed.
    pub(super) errors: IntCounter,
}

/// The kinds of artifacts, as in the volume's folder names and in the `kind` of `goscope_store_bytes`.
pub const KINDS: [&str; 10] = [
    "allocs",
    "block",
    "goroutine",
    "goroutineleak",
    "heap",
    super::INCIDENTS,
    "mutex",
    "profile",
    "threadcreate",
    "trace",
];

impl StoreMetrics {
    /// # Errors
    /// The series are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            bytes: IntGaugeVec::new(
                Opts::new("goscope_store_bytes", "Bytes that the store holds, by kind of artifact."),
                &["kind"],
            )?,
            evicted: IntCounterVec::new(
                Opts::new(
                    "goscope_store_evicted_total",
                    "Artifacts that the store deleted to keep within its bounds, by the bound.",
                ),
                &["reason"],
            )?,
            deleted: IntCounter::new(
                "goscope_store_deleted_total",
                "Artifacts that somebody deleted through the API.",
            )?,
            errors: IntCounter::new("goscope_store_errors_total", "Operations on the store's volume that failed.")?,
        };
        metrics.holds(&Holding::default());
        for reason in Reason::ALL {
            metrics.evicted.with_label_values(&[reason.name()]);
        }
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.evicted.clone()))?;
        registry.register(Box::new(metrics.deleted.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        Ok(metrics)
    }

    /// One more attempt to use the volume failed.
    pub(crate) fn failed(&self) {
        self.errors.inc();
    }

    /// One more was deleted to keep within a bound.
    pub(super) fn evicted(&self, reason: Reason) {
        self.evicted.with_label_values(&[reason.name()]).inc();
    }

    /// Of a kind that a later version stored nothing is told: a label's values are known from the start.
    pub(crate) fn holds(&self, holding: &Holding) {
        for kind in KINDS {
            let bytes = holding.by_kind.get(kind).copied().unwrap_or_default();
            self.bytes.with_label_values(&[kind]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = StoreMetrics::register(&registry).expect("registered");
        let text = crate::metrics::encode(&registry).expect("encoded");
        let kinds = KINDS.map(|kind| format!("goscope_store_bytes{{kind=\"{kind}\"}} 0"));
        let reasons = ["age", "bytes", "reserve"].map(|r| format!("goscope_store_evicted_total{{reason=\"{r}\"}} 0"));
        for line in kinds.iter().chain(&reasons) {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.evicted(Reason::Age);
        metrics.holds(&Holding { by_kind: [("heap".to_owned(), 4096)].into(), ..Holding::default() });
        let text = crate::metrics::encode(&registry).expect("encoded");
        assert!(text.contains("goscope_store_evicted_total{reason=\"age\"} 1\n"), "{text}");
        assert!(text.contains("goscope_store_bytes{kind=\"heap\"} 4096\n"), "{text}");
    }
}
