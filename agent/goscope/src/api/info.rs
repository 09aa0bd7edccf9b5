//! `GET /api/v1/info`: what this process is, what it watches, and what it found out about its surroundings.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use goscope_formats::BuildInfo;
use http::{StatusCode, Uri};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::problem::Problem;
use super::query::Query;
use super::reading::Reading;
use super::{Caller, answer};
use crate::config::TargetAddress;
use crate::config::render::target_text;
use crate::gate::admission::Admission;
use crate::metrics::recorder::RecorderMetrics;
use crate::model::Finding;
use crate::pod::Pod;
use crate::store::catalogue::Totals;
use crate::store::depot::Depot;
use crate::target::sampler::{Answer, Sample};
use crate::token::tier::Tier;
use crate::version;

/// The value of `schema`.
const SCHEMA: &str = "goscope.info/v1";

/// How this process was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `goscope agent`.
    Agent,
    /// `goscope run`.
    Run,
    /// `goscope archive`.
    Archive,
}

/// What is told.
#[derive(Debug)]
pub struct About {
    pub mode: Mode,
    pub host: String,
    pub pod: Option<Pod>,
    pub admission: Admission,
    /// `None` in the archive.
    pub target: Option<Target>,
    pub stored: Stored,
    /// What the recorder reads; `None` in the archive.
    pub intake: Option<RecorderMetrics>,
    /// finders --findings--> info
    pub findings: watch::Receiver<Arc<Vec<Finding>>>,
}

/// What is known of the app.
#[derive(Debug)]
pub struct Target {
    pub address: TargetAddress,
    pub sample: watch::Receiver<Option<Sample>>,
    pub build: watch::Receiver<Option<BuildInfo>>,
}

/// Who knows what the volume holds.
#[derive(Debug)]
pub enum Stored {
    /// The store that the agent writes.
    Agent { depot: Depot, reading: Reading, max_bytes: u64 },
    /// scanner --Scan--> info
    Archive(watch::Receiver<Scan>),
}

/// What the archive has counted.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// `None` until the first count is done.
    pub totals: Option<Totals>,
    pub free_bytes: Option<u64>,
    /// Why the latest attempt failed.
    pub problem: Option<String>,
}

/// The route of this file.
pub fn router(about: About) -> Router {
    Router::new().route("/api/v1/info", get(info).with_state(Arc::new(about)))
}

async fn info(
    State(about): State<Arc<About>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let build = about.target.as_ref().and_then(|target| target.build.borrow().clone());
    let sample = about.target.as_ref().and_then(|target| target.sample.borrow().clone());
    let store = StoreDocument::of(&about.stored).await;
    let findings = Arc::clone(&about.findings.borrow());
    let tokens = about.admission.tokens();
    let document = Document {
        schema: SCHEMA,
        goscope: Goscope { version: version::VERSION, commit: version::COMMIT },
        mode: about.mode,
        host: &about.host,
        pod: about.pod.as_ref(),
        target: about
            .target
            .as_ref()
            .map(|target| TargetDocument::new(&target.address, sample.as_ref(), build.as_ref(), Instant::now())),
        program: build.as_ref().map(Program::new),
        gate: Gate { tokens: tokens.current().map_or(0, |set| set.len()), problem: tokens.problem() },
        store,
        intake: about.intake.as_ref().map(Intake::new),
        findings: &findings,
        identity: Identity { name: caller.name(), tiers: caller.entry().tiers.iter().map(Tier::name).collect() },
    };
    answer::json(StatusCode::OK, &document)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    goscope: Goscope,
    mode: Mode,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<Program<'a>>,
    gate: Gate,
    store: StoreDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    intake: Option<Intake>,
    findings: &'a [Finding],
    identity: Identity<'a>,
}

#[derive(Serialize)]
struct Goscope {
    version: &'static str,
    commit: &'static str,
}

#[derive(Serialize)]
struct Gate {
    tokens: usize,
    /// Why the token files as they are now cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What the volume holds: of an agent its own folder, of the archive all of it.
#[derive(Default, Serialize)]
struct StoreDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// The quota; the archive has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    /// Incidents among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incidents: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl StoreDocument {
    async fn of(stored: &Stored) -> Self {
        let (holding, document) = match stored {
            Stored::Agent { depot, reading, max_bytes } => {
                let (holding, problem) = match depot.store() {
                    Ok(store) => (Some(store.holding()), depot.problem()),
                    Err(closed) => (None, Some(closed.to_string())),
                };
                // Asking the volume may wait; without an answer the rest is told all the same.
                let free_bytes = reading.run(|volume| Ok(volume.free_bytes())).await.ok().flatten();
                (holding, Self { max_bytes: Some(*max_bytes), free_bytes, problem, ..Self::default() })
            }
            Stored::Archive(scan) => {
                let Scan { totals, free_bytes, problem } = scan.borrow().clone();
                let problem = problem.or_else(|| scan_problem(totals.as_ref()));
                (totals.map(|totals| totals.holding), Self { free_bytes, problem, ..Self::default() })
            }
        };
        let Some(holding) = holding else { return document };
        Self {
            bytes: Some(holding.bytes),
            artifacts: Some(holding.artifacts),
            incidents: Some(holding.incidents),
            ..document
        }
    }
}

fn scan_problem(totals: Option<&Totals>) -> Option<String> {
    match totals {
        None => Some("it is not counted yet what the volume holds".to_owned()),
        Some(Totals { denied: 0, .. }) => None,
        Some(Totals { denied, .. }) => Some(format!(
            "{denied} folders on the volume may not be read (permission denied); run the archive with the group of the pods (fsGroup)"
        )),
    }
}

/// The app's stderr on its way in.
#[derive(Serialize)]
struct Intake {
    runs: i64,
    lag_bytes: i64,
}

impl Intake {
    fn new(metrics: &RecorderMetrics) -> Self {
        Self { runs: metrics.spool_runs.get(), lag_bytes: metrics.spool_lag_bytes.get() }
    }
}

#[derive(Serialize)]
struct Identity<'a> {
    name: &'a str,
    tiers: Vec<&'static str>,
}

#[derive(Serialize)]
struct TargetDocument<'a> {
    address: String,
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    go_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goroutines: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<u64>,
    /// Names on the index page.
    #[serde(skip_serializing_if = "Option::is_none")]
    profiles: Option<Vec<&'a str>>,
}

impl<'a> TargetDocument<'a> {
    fn new(address: &TargetAddress, sample: Option<&'a Sample>, build: Option<&'a BuildInfo>, now: Instant) -> Self {
        let address = target_text(address);
        let page = sample.and_then(|sample| sample.page(now));
        let problem = match (page, sample.map(|sample| &sample.answer)) {
            (Some(_), _) => None,
            (None, None) => Some(format!("{address} was not asked yet")),
            (None, Some(Answer::Page(_))) => Some(format!("{address} was not asked for more than a minute")),
            (None, Some(Answer::NotListening)) => Some(format!("nothing listens at {address}")),
            (None, Some(Answer::NoPprof)) => Some(format!("{address} answers, but not with the index page of pprof")),
            (None, Some(Answer::Failed)) => Some(format!("{address} takes connections and does not answer")),
        };
        Self {
            up: page.is_some(),
            problem,
            go_version: build.map(|build| build.go_version.as_str()),
            goroutines: page.and_then(|page| page.count("goroutine")),
            threads: page.and_then(|page| page.count("threadcreate")),
            profiles: page.map(|page| page.profiles.iter().map(|(name, _)| name.as_str()).collect()),
            address,
        }
    }
}

/// The app's build, with the names that it has in `incident.json`.
#[derive(Serialize)]
struct Program<'a> {
    go_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcs_revision: Option<&'a str>,
}

impl<'a> Program<'a> {
    fn new(build: &'a BuildInfo) -> Self {
        Self {
            go_version: &build.go_version,
            module: build.module.as_deref(),
            module_version: build.version.as_deref(),
            vcs_revision: build.revision(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::store::Holding;
    use crate::store::catalogue::Volume;
    use crate::store::metrics::StoreMetrics;
    use crate::target::sampler::{IndexPage, STALE_AFTER};

    #[tokio::test]
    async fn a_target_that_is_down_says_why() {
        let address = TargetAddress::Tcp("127.0.0.1:6060".parse().unwrap());
        let now = Instant::now();
        let at = |answer, ago: Duration| Sample {
            at: SystemTime::UNIX_EPOCH,
            taken: now.checked_sub(ago).unwrap_or(now),
            cost: Duration::ZERO,
            answer,
        };
        let page =
            || Answer::Page(Arc::new(IndexPage { profiles: vec![("goroutine".into(), 12), ("heap".into(), 3)] }));
        for (sample, up, problem) in [
            (None, false, Some("127.0.0.1:6060 was not asked yet")),
            (Some(at(page(), Duration::ZERO)), true, None),
            (Some(at(Answer::NotListening, Duration::ZERO)), false, Some("nothing listens at 127.0.0.1:6060")),
            (
                Some(at(Answer::NoPprof, Duration::ZERO)),
                false,
                Some("127.0.0.1:6060 answers, but not with the index page of pprof"),
            ),
            (
                Some(at(Answer::Failed, Duration::ZERO)),
                false,
                Some("127.0.0.1:6060 takes connections and does not answer"),
            ),
        ] {
            let document = TargetDocument::new(&address, sample.as_ref(), None, now);
            assert_eq!((document.up, document.problem.as_deref()), (up, problem));
        }
        let sample = at(page(), Duration::ZERO);
        let fresh = TargetDocument::new(&address, Some(&sample), None, now + STALE_AFTER);
        assert_eq!((fresh.goroutines, fresh.threads), (Some(12), None));
        assert_eq!(fresh.profiles, Some(vec!["goroutine", "heap"]));
        let stale = TargetDocument::new(&address, Some(&sample), None, now + STALE_AFTER + Duration::from_millis(1));
        assert_eq!(stale.problem.as_deref(), Some("127.0.0.1:6060 was not asked for more than a minute"));
    }

    async fn store(stored: &Stored) -> serde_json::Value {
        serde_json::to_value(StoreDocument::of(stored).await).unwrap()
    }

    #[tokio::test]
    async fn a_store_that_is_not_open_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::new(StoreMetrics::register(&prometheus::Registry::new()).unwrap());
        let reading = Reading::new(Volume::new(dir.path().join("gone"), Some("pod-1".into())));
        let stored = Stored::Agent { depot, reading, max_bytes: 7 };
        assert_eq!(store(&stored).await, serde_json::json!({"max_bytes": 7, "problem": "the store is not open yet"}));
    }

    #[tokio::test]
    async fn the_archive_tells_what_it_has_counted() {
        let (scan_tx, scan_rx) = watch::channel(Scan::default());
        let stored = Stored::Archive(scan_rx);
        assert_eq!(store(&stored).await, serde_json::json!({"problem": "it is not counted yet what the volume holds"}));
        let holding = Holding { artifacts: 3, incidents: 1, bytes: 30, ..Holding::default() };
        let scan = |denied, problem| Scan {
            totals: Some(Totals { holding: holding.clone(), denied }),
            free_bytes: Some(5),
            problem,
        };
        let counted = serde_json::json!({"bytes": 30, "artifacts": 3, "incidents": 1, "free_bytes": 5});
        scan_tx.send_replace(scan(0, None));
        assert_eq!(store(&stored).await, counted);
        scan_tx.send_replace(scan(2, None));
        let problem = store(&stored).await["problem"].as_str().unwrap().to_owned();
        assert!(problem.starts_with("2 folders on the volume may not be read"), "{problem}");
        scan_tx.send_replace(scan(2, Some("gone".into())));
        assert_eq!(store(&stored).await["problem"], "gone");
    }
}
