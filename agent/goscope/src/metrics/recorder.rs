//! Series of the recorder: incidents, spool and store.

use goscope_formats::IncidentKind;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::store::plan::Reason;

/// What the recorder has seen and holds.
#[derive(Clone, Debug)]
pub struct RecorderMetrics {
    incidents: IntCounterVec,
    /// Bytes of the app's stderr that are in the spool and not handled yet, over all runs.
    pub spool_lag_bytes: IntGauge,
    /// Bytes of stderr that never reached the agent: the spool was full or failed.
    pub spool_gap_bytes: IntCounter,
    store_bytes: IntGaugeVec,
    store_evicted: IntCounterVec,
    /// Operations on the volume that failed.
    pub store_errors: IntCounter,
}

/// The `kind` of `goscope_incidents_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedKind {
    /// Found in the text.
    Text(IncidentKind),
    /// An abnormal end without a text that explains it, such as SIGKILL or `os.Exit(1)`.
    Exit,
}

/// The kind of an artifact, as in the volume's folder names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKind {
    Incidents,
}

impl RecorderMetrics {
    /// # Errors
    /// The series are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            incidents: IntCounterVec::new(
                Opts::new(
                    "goscope_incidents_total",
                    "Deaths and alarms of the app that were recorded, by what happened.",
                ),
                &["kind"],
            )?,
            spool_lag_bytes: IntGauge::new(
                "goscope_spool_lag_bytes",
                "Bytes of the app's stderr in the spool that were not read yet.",
            )?,
            spool_gap_bytes: IntCounter::new(
                "goscope_spool_gap_bytes_total",
                "Bytes of the app's stderr that were lost before they were read, because the spool was full or failed.",
            )?,
            store_bytes: IntGaugeVec::new(
                Opts::new("goscope_store_bytes", "Bytes that the store holds, by kind of artifact."),
                &["kind"],
            )?,
            store_evicted: IntCounterVec::new(
                Opts::new(
                    "goscope_store_evicted_total",
                    "Artifacts that the store deleted to keep within its bounds, by the bound.",
                ),
                &["reason"],
            )?,
            store_errors: IntCounter::new(
                "goscope_store_errors_total",
                "Operations on the store's volume that failed.",
            )?,
        };
        for kind in RecordedKind::ALL {
            metrics.incidents.with_label_values(&[kind.name()]);
        }
        for kind in StoredKind::ALL {
            metrics.store_bytes.with_label_values(&[kind.name()]);
        }
        for reason in Reason::ALL {
            metrics.store_evicted.with_label_values(&[reason.name()]);
        }
        registry.register(Box::new(metrics.incidents.clone()))?;
        registry.register(Box::new(metrics.spool_lag_bytes.clone()))?;
        registry.register(Box::new(metrics.spool_gap_bytes.clone()))?;
        registry.register(Box::new(metrics.store_bytes.clone()))?;
        registry.register(Box::new(metrics.store_evicted.clone()))?;
        registry.register(Box::new(metrics.store_errors.clone()))?;
        Ok(metrics)
    }

    /// One more was recorded.
    pub fn incident(&self, kind: RecordedKind) {
        self.incidents.with_label_values(&[kind.name()]).inc();
    }

    /// One more was deleted to keep within a bound.
    pub fn evicted(&self, reason: Reason) {
        self.store_evicted.with_label_values(&[reason.name()]).inc();
    }

    /// What the store holds of one kind.
    #[must_use]
    pub fn store_bytes(&self, kind: StoredKind) -> IntGauge {
        self.store_bytes.with_label_values(&[kind.name()])
    }
}

impl RecordedKind {
    pub const ALL: [Self; 7] = [
        Self::Text(IncidentKind::Panic),
        Self::Text(IncidentKind::Fatal),
        Self::Text(IncidentKind::Signal),
        Self::Text(IncidentKind::Race),
        Self::Text(IncidentKind::HttpPanic),
        Self::Text(IncidentKind::Stack),
        Self::Exit,
    ];

    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text(kind) => kind.name(),
            Self::Exit => "exit",
        }
    }
}

impl StoredKind {
    pub const ALL: [Self; 1] = [Self::Incidents];

    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Incidents => "incidents",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = RecorderMetrics::register(&registry).expect("registered");
        let text = crate::metrics::encode(&registry).expect("encoded");
        for line in [
            r#"goscope_incidents_total{kind="panic"} 0"#,
            r#"goscope_incidents_total{kind="fatal"} 0"#,
            r#"goscope_incidents_total{kind="signal"} 0"#,
            r#"goscope_incidents_total{kind="race"} 0"#,
            r#"goscope_incidents_total{kind="http_panic"} 0"#,
            r#"goscope_incidents_total{kind="stack"} 0"#,
            r#"goscope_incidents_total{kind="exit"} 0"#,
            r#"goscope_store_bytes{kind="incidents"} 0"#,
            r#"goscope_store_evicted_total{reason="age"} 0"#,
            r#"goscope_store_evicted_total{reason="bytes"} 0"#,
            r#"goscope_store_evicted_total{reason="reserve"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.incident(RecordedKind::Text(IncidentKind::HttpPanic));
        metrics.evicted(Reason::Age);
        metrics.store_bytes(StoredKind::Incidents).set(4096);
        let text = crate::metrics::encode(&registry).expect("encoded");
        assert!(text.contains("goscope_incidents_total{kind=\"http_panic\"} 1\n"), "{text}");
        assert!(text.contains("goscope_store_evicted_total{reason=\"age\"} 1\n"), "{text}");
        assert!(text.contains("goscope_store_bytes{kind=\"incidents\"} 4096\n"), "{text}");
    }
}
