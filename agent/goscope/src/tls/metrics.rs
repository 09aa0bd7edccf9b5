//! Series of the remote listener. They are there only where the listener is on.

use jiff::Timestamp;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// What the remote listener counts.
#[derive(Clone, Debug)]
pub struct RemoteMetrics {
    handshakes: IntCounterVec,
    broken: IntGauge,
    /// Without labels: a series that is absent until there is a certificate, since 0 would be 1970.
    expiry: IntGaugeVec,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShakeResult {
    Done,
    Failed,
    TimedOut,
    NoCertificate,
}

impl ShakeResult {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::TimedOut, Self::NoCertificate];

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NoCertificate => "no_certificate",
        }
    }
}

impl RemoteMetrics {
    /// # Errors
    /// One of the names is taken in this registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let handshakes = IntCounterVec::new(
            Opts::new("goscope_remote_handshakes_total", "TLS handshakes of the remote listener, by how they ended."),
            &["result"],
        )?;
        let broken = IntGauge::new(
            "goscope_remote_certificate_broken",
            "1 while the certificate files cannot be used; an earlier pair stays, if there was one.",
        )?;
        let expiry = IntGaugeVec::new(
            Opts::new(
                "goscope_remote_certificate_expiry_timestamp_seconds",
                "When the certificate of the remote listener ends, in seconds since 1970.",
            ),
            &[],
        )?;
        for result in ShakeResult::ALL {
            handshakes.with_label_values(&[result.name()]);
        }
        registry.register(Box::new(handshakes.clone()))?;
        registry.register(Box::new(broken.clone()))?;
        registry.register(Box::new(expiry.clone()))?;
        Ok(Self { handshakes, broken, expiry })
    }

    pub(crate) fn shaken(&self, result: ShakeResult) {
        self.handshakes.with_label_values(&[result.name()]).inc();
    }

    pub(crate) fn broken(&self, is_broken: bool) {
        self.broken.set(i64::from(is_broken));
    }

    pub(crate) fn expires(&self, at: Timestamp) {
        self.expiry.with_label_values::<&str>(&[]).set(at.as_second());
    }
}
