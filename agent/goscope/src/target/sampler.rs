//! Looks at the target every [`INTERVAL`]: one request for the pprof index page, which costs the Go process nothing that grows with its heap or its
//! goroutines, and says how many goroutines and threads there are.
//!
//! Until the target has answered for the first time it is asked each second, because an app needs a moment to open its port. The latest sample
//! is in a watch channel; a failure is a sample too, so that what is read there is never older than the sampler's last attempt.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use goscope_formats::limits::INDEX_PAGE_BYTES_MAX;
use goscope_formats::parse_index_page;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Client, FetchError};
use crate::telemetry::chain;

/// Between two samples.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// Between two attempts, until the first that is answered.
pub const FIRST_ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// A sample that is older says nothing about the target any more: the sampler itself is stuck or gone.
pub const STALE_AFTER: Duration = INTERVAL.saturating_mul(5);
const INDEX_PATH: &str = "/debug/pprof/";

/// What the target was like at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was asked, by the wall clock.
    pub at: SystemTime,
    /// When it was asked, by the clock that never jumps.
    pub taken: Instant,
    /// How long the answer took, or the failure.
    pub cost: Duration,
    pub answer: Answer,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The index page.
    Page(Arc<IndexPage>),
    /// No listener at the address: not open yet, never opened, or the process is gone.
    NotListening,
    /// Something answers, but not with pprof's index page.
    NoPprof,
    /// It accepts connections and does not answer as it should.
    Failed,
}

/// What the index page lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexPage {
    /// Names of profiles with the number of entries of each, in the order of the page.
    pub profiles: Vec<(String, u64)>,
}

impl IndexPage {
    /// How many entries a profile has: goroutines of `goroutine`, threads of `threadcreate`.
    #[must_use]
    pub fn count(&self, profile: &str) -> Option<u64> {
        self.profiles.iter().find(|(name, _)| name == profile).map(|(_, count)| *count)
    }
}

impl Sample {
    /// Whether the target answered with its index page.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.answer, Answer::Page(_))
    }

    /// The index page, unless the sample failed or is stale at `now`.
    #[must_use]
    pub fn page(&self, now: Instant) -> Option<&IndexPage> {
        match &self.answer {
            Answer::Page(page) if now.saturating_duration_since(self.taken) <= STALE_AFTER => Some(page),
            _ => None,
        }
    }
}

impl Answer {
    /// The values of the label `result`.
    const RESULTS: [&'static str; 4] = ["answered", "not_listening", "no_pprof", "failed"];

    fn result(&self) -> &'static str {
        match self {
            Self::Page(_) => "answered",
            Self::NotListening => "not_listening",
            Self::NoPprof => "no_pprof",
            Self::Failed => "failed",
        }
    }
}

/// The task that takes the samples.
#[derive(Debug)]
pub struct Sampler {
    client: Client,
    metrics: SamplerMetrics,
    /// sampler --Sample--> metrics, status line
    sample_tx: watch::Sender<Option<Sample>>,
}

impl Sampler {
    /// The channel holds `None` until the first attempt is over.
    #[must_use]
    pub fn new(client: Client, metrics: SamplerMetrics) -> (Self, watch::Receiver<Option<Sample>>) {
        let (sample_tx, sample_rx) = watch::channel(None);
        (Self { client, metrics, sample_tx }, sample_rx)
    }

    /// Samples until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let None = stop.run_until_cancelled(self.sample_for_ever()).await;
    }

    async fn sample_for_ever(self) -> std::convert::Infallible {
        let mut ever_answered = false;
        let mut before: Option<&'static str> = None;
        loop {
            let (sample, error) = self.sample().await;
            let (taken, result) = (sample.taken, sample.answer.result());
            ever_answered |= sample.is_up();
            self.metrics.samples.with_label_values(&[result]).inc();
            if before.replace(result) != Some(result) {
                log_change(&sample, error.as_ref());
            }
            self.sample_tx.send_replace(Some(sample));
            tokio::time::sleep_until(taken + interval(ever_answered)).await;
        }
    }

    async fn sample(&self) -> (Sample, Option<FetchError>) {
        let (at, taken) = (SystemTime::now(), Instant::now());
        let fetched = self.client.fetch(INDEX_PATH, INDEX_PAGE_BYTES_MAX).await;
        let cost = taken.elapsed();
        let (answer, error) = match fetched {
            Ok(body) => (read_page(&body), None),
            Err(error) => (classify(&error), Some(error)),
        };
        (Sample { at, taken, cost, answer }, error)
    }
}

fn interval(ever_answered: bool) -> Duration {
    if ever_answered { INTERVAL } else { FIRST_ANSWER_INTERVAL }
}

/// Any server may answer 200 here; only the page of net/http/pprof lists a profile named goroutine.
fn read_page(body: &[u8]) -> Answer {
    let page = IndexPage { profiles: parse_index_page(body) };
    if page.count("goroutine").is_some() { Answer::Page(Arc::new(page)) } else { Answer::NoPprof }
}

fn classify(error: &FetchError) -> Answer {
    match error {
        FetchError::NotListening { .. } => Answer::NotListening,
        FetchError::Status { .. } | FetchError::TooLong { .. } => Answer::NoPprof,
        FetchError::Connect { .. } | FetchError::Timeout | FetchError::Http { .. } => Answer::Failed,
    }
}

/// One line for each change, not for each sample.
fn log_change(sample: &Sample, error: Option<&FetchError>) {
    let error = error.map(|error| chain(error));
    let (result, seconds) = (sample.answer.result(), sample.cost.as_secs_f64());
    match sample.answer {
        Answer::Page(_) => tracing::info!(seconds, "target answers"),
        Answer::NotListening => tracing::info!(result, error, "target does not answer"),
        Answer::NoPprof | Answer::Failed => tracing::warn!(result, seconds, error, "target does not answer"),
    }
}

/// Counts the samples.
#[derive(Clone, Debug)]
pub struct SamplerMetrics {
    samples: IntCounterVec,
}

impl SamplerMetrics {
    /// # Errors
    /// The series is there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let samples = IntCounterVec::new(
            Opts::new("goscope_target_samples_total", "Requests for the target's pprof index page, by what came back."),
            &["result"],
        )?;
        for result in Answer::RESULTS {
            samples.with_label_values(&[result]);
        }
        registry.register(Box::new(samples.clone()))?;
        Ok(Self { samples })
    }
}

#[cfg(test)]
mod tests;
