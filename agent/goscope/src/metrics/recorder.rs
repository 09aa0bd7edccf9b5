//! Series of the recorder: incidents and spool.

use goscope_formats::IncidentKind;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What the recorder has seen.
#[derive(Clone, Debug)]
pub struct RecorderMetrics {
    incidents: IntCounterVec,
    /// Runs in the spool that are being read.
    pub spool_runs: IntGauge,
    /// Bytes of the app's stderr that are in the spool and not handled yet, over all runs.
    pub spool_lag_bytes: IntGauge,
    /// Bytes of stderr that never reached the agent: the spool was full or failed.
    pub spool_gap_bytes: IntCounter,
}

/// The `kind` of `goscope_incidents_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedKind {
    /// Found in the text.
    Text(IncidentKind),
    /// An abnormal end without a text that explains it, such as SIGKILL or `os.Exit(1)`.
    Exit,
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
            spool_runs: IntGauge::new("goscope_spool_runs", "Runs of the app in the spool that are being read.")?,
            spool_lag_bytes: IntGauge::new(
                "goscope_spool_lag_bytes",
                "Bytes of the app's stderr in the spool that were not read yet.",
            )?,
            spool_gap_bytes: IntCounter::new(
                "goscope_spool_gap_bytes_total",
                "Bytes of the app's stderr that were lost before they were read, because the spool was full or failed.",
            )?,
        };
        for kind in RecordedKind::ALL {
            metrics.incidents.with_label_values(&[kind.name()]);
        }
        registry.register(Box::new(metrics.incidents.clone()))?;
        registry.register(Box::new(metrics.spool_runs.clone()))?;
        registry.register(Box::new(metrics.spool_lag_bytes.clone()))?;
        registry.register(Box::new(metrics.spool_gap_bytes.clone()))?;
        Ok(metrics)
    }

    /// One more was recorded.
    pub fn incident(&self, kind: RecordedKind) {
        self.incidents.with_label_values(&[kind.name()]).inc();
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
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.incident(RecordedKind::Text(IncidentKind::HttpPanic));
        let text = crate::metrics::encode(&registry).expect("encoded");
        assert!(text.contains("goscope_incidents_total{kind=\"http_panic\"} 1\n"), "{text}");
    }
}
