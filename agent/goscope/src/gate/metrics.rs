//! The gate's own metrics. Labels come from closed sets: profile, code, limit and verdict.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::refuse::Code;

/// What the gate counts.
#[derive(Clone, Debug)]
pub struct GateMetrics {
    requests: IntCounterVec,
    seconds: Histogram,
    api_requests: IntCounterVec,
    api_seconds: Histogram,
    /// By limit, in the order of [`LimitOf`], and verdict.
    limits: [[IntCounter; 3]; 5],
    pub(super) audit_dropped: IntGauge,
    pub(super) audit_failed: IntGauge,
    pub(super) tokens: IntGauge,
    pub(super) token_files_broken: IntGauge,
}

impl GateMetrics {
    /// # Errors
    /// One of the names is taken in this registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("goscope_gate_requests_total", "Requests to the gate by profile and decision."),
            &["profile", "decision"],
        )?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "goscope_gate_request_seconds",
                "Time from a request's arrival to the last byte of its answer.",
            )
            .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0]),
        )?;
        let api_requests = IntCounterVec::new(
            Opts::new("goscope_api_requests_total", "Requests to the API by operation and decision."),
            &["operation", "decision"],
        )?;
        let api_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "goscope_api_request_seconds",
                "Time from a request's arrival at the API to the last byte of its answer.",
            )
            .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0]),
        )?;
        let limits = IntCounterVec::new(
            Opts::new(
                "goscope_gate_limits_total",
                "Verdicts of the request limits; rejected_dry_run ones were let through.",
            ),
            &["limit", "verdict"],
        )?;
        let of = |limit| LimitVerdict::NAMES.map(|verdict| limits.with_label_values(&[limit, verdict]));
        let by_verdict = LimitOf::NAMES.map(of);
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let audit_dropped = gauge("goscope_audit_dropped_lines", "Audit lines that found no room since the start.")?;
        let audit_failed =
            gauge("goscope_audit_failed_writes", "Writes of the audit trail that failed since the start.")?;
        let tokens = gauge("goscope_gate_tokens", "Tokens that are known.")?;
        let token_files_broken = gauge(
            "goscope_gate_token_files_broken",
            "1 while the token files cannot be used and an earlier set stays.",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(api_requests.clone()))?;
        registry.register(Box::new(api_seconds.clone()))?;
        registry.register(Box::new(limits.clone()))?;
        for each in [&audit_dropped, &audit_failed, &tokens, &token_files_broken] {
            registry.register(Box::new(each.clone()))?;
        }
        Ok(Self {
            requests,
            seconds,
            api_requests,
            api_seconds,
            limits: by_verdict,
            audit_dropped,
            audit_failed,
            tokens,
            token_files_broken,
        })
    }

    pub(crate) fn request(&self, profile: &'static str, code: Code, took: Duration) {
        self.requests.with_label_values(&[profile, code.name()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// `operation` is the name of one of the API's routes, or `none`.
    pub(crate) fn api_request(&self, operation: &'static str, code: Code, took: Duration) {
        self.api_requests.with_label_values(&[operation, code.name()]).inc();
        self.api_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn limit(&self, limit: LimitOf, verdict: LimitVerdict) {
        self.limits[limit as usize][verdict as usize].inc();
    }
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitOf {
    Source,
    Identity,
    ApiSource,
    ApiIdentity,
    /// Wrong credentials at the API.
    ApiFailures,
}

impl LimitOf {
    /// In the order of the variants.
    const NAMES: [&'static str; 5] = ["source", "identity", "api_source", "api_identity", "api_failures"];
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitVerdict {
    Passed,
    Rejected,
    RejectedDryRun,
}

impl LimitVerdict {
    /// In the order of the variants.
    const NAMES: [&'static str; 3] = ["passed", "rejected", "rejected_dry_run"];
}
