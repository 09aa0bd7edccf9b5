//! `goscope archive`: incidents and artifacts of a volume, all hosts, when the pods are gone.
//!
//! The API on the debug listener and the metrics listener; no target, no recorder, no spool. Nothing is written to the volume, not even a lock, so it may be
//! mounted read-only.
//!
//! Ready when the volume could be listed and the token files can be used. What the volume holds is counted again every `SCAN_PERIOD`, which reads
//! every `meta.json`, less often where that takes long; until the first count is done, `store` in `/api/v1/info` says so.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::Request;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{STOP_GRACE, bind, host_name, local_address, terminated, wait_for_certificate, wait_for_tokens};
use crate::api::artifacts::{self, Artifacts};
use crate::api::info::{self, About, Mode, Scan, Stored};
use crate::api::reading::Reading;
use crate::api::{Api, incidents};
use crate::config::Config;
use crate::config::check::process_environment;
use crate::gate::HandlerFuture;
use crate::gate::admission::Admission;
use crate::gate::audit;
use crate::gate::body::GateBody;
use crate::gate::metrics::GateMetrics;
use crate::gate::refuse::{Code, Refusal};
use crate::gate::tokens::TokenStore;
use crate::metrics::readiness::{Latch, Readiness};
use crate::pod::Pod;
use crate::store::catalogue::{Volume, Wanted};
use crate::store::metrics::StoreMetrics;
use crate::telemetry::{self, Destination};
use crate::tls::Keeper;
use crate::tls::metrics::RemoteMetrics;
use crate::{metrics, serve};

/// How often it is counted what the volume holds.
const SCAN_PERIOD: Duration = Duration::from_secs(60);
/// On a volume where counting takes long, it rests this many times as long before it counts again.
const SCAN_REST: u32 = 20;
/// How soon a volume that failed is tried again.
const SCAN_RETRY: Duration = Duration::from_secs(5);

/// Serves the volume of `config` until it is told to stop.
///
/// # Errors
/// The log, the audit trail or a listener cannot be opened.
pub async fn main(config: Config) -> anyhow::Result<()> {
    rustix::thread::set_name(c"goscope").ok();
    let level = process_environment(telemetry::LEVEL_VARIABLE);
    telemetry::init(Destination::Stderr, level.as_deref()).context("cannot open the log")?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let terminated_once = terminated()?;
    let listen = &config.listen;
    let debug = bind("listen.debug", listen.debug, false, &stop).await?;
    let metrics_listener = bind("listen.metrics", listen.metrics, false, &stop).await?;
    let remote = match &listen.remote {
        Some(remote) => bind("listen.remote.address", remote.address, false, &stop).await?,
        None => None,
    };
    let registry = metrics::registry().context("cannot register metrics")?;
    let readiness = Readiness::default();
    let (store_latch, gate_latch) = (readiness.latch("store"), readiness.latch("gate"));
    let addresses = [&debug, &metrics_listener, &remote].map(|listener| local_address(listener.as_ref()));
    let [debug_at, metrics_at, remote_at] = addresses.map(|address| address.map(tracing::field::display));
    tracing::info!(
        debug = debug_at,
        metrics = metrics_at,
        remote = remote_at,
        path = %config.store.path.display(),
        "archive started"
    );
    if let Some(listener) = metrics_listener {
        let router = metrics::router::router(registry.clone(), readiness.clone());
        tasks.spawn(serve::serve(listener, serve::routed(router), stop.clone(), tasks.clone()));
    }

    let volume = Volume::new(config.store.path.clone(), None);
    let store_metrics = StoreMetrics::register(&registry).context("cannot register metrics")?;
    // scanner --Scan--> info
    let (scan_tx, scan_rx) = watch::channel(Scan::default());
    let scanner = Scanner { volume: volume.clone(), metrics: store_metrics, scan_tx };
    tasks.spawn(scanner.run(store_latch, stop.clone()));

    let (sink, trail) = audit::start(io::stdout()).context("cannot open the audit trail")?;
    let gate_metrics = GateMetrics::register(&registry).context("cannot register metrics")?;
    let tokens = TokenStore::new(config.gate.token_files.clone());
    let admission = Admission::new(config.gate.clone(), tokens, sink, gate_metrics);
    tasks.spawn(admission.clone().run(stop.clone()));
    tasks.spawn(wait_for_tokens(admission.clone(), gate_latch, stop.clone()));

    let reading = Reading::new(volume);
    // Nobody looks for findings here.
    let findings = watch::Sender::new(Arc::new(Vec::new()));
    let about = About {
        mode: Mode::Archive,
        host: host_name(),
        pod: Pod::of(&process_environment),
        admission: admission.clone(),
        target: None,
        stored: Stored::Archive(scan_rx),
        intake: None,
        findings: findings.subscribe(),
    };
    let router = info::router(about)
        .merge(artifacts::router(Artifacts { reading: reading.clone(), depot: None }))
        .merge(incidents::router(reading));
    let handler = Api::new(admission, router).handler(no_gate);
    if let (Some(listener), Some(remote)) = (remote, &config.listen.remote) {
        let remote_metrics = RemoteMetrics::register(&registry).context("cannot register metrics")?;
        let keeper = Arc::new(Keeper::new(remote.tls.clone(), remote_metrics));
        tasks.spawn(Arc::clone(&keeper).follow(stop.clone()));
        tasks.spawn(wait_for_certificate(Arc::clone(&keeper), readiness.latch("remote"), stop.clone()));
        tasks.spawn(serve::serve_tls(listener, keeper, handler.clone(), stop.clone(), tasks.clone()));
    }
    if let Some(listener) = debug {
        tasks.spawn(serve::serve(listener, handler, stop.clone(), tasks.clone()));
    }
    tasks.close();

    terminated_once.await;
    readiness.stop();
    stop.cancel();
    tokio::select! {
        _ = tokio::time::timeout(STOP_GRACE, tasks.wait()) => {}
        () = terminated()? => {}
    }
    drop(trail);
    tracing::info!("archive stopped");
    Ok(())
}

/// Says to whoever looks for a profile here why there is none.
fn no_gate(_: Request<hyper::body::Incoming>, _: SocketAddr) -> HandlerFuture {
    let sentence = "this is the archive: it has no app to take profiles of; what was recorded is under /api/v1/incidents and /api/v1/artifacts";
    Box::pin(async move { Refusal::new(Code::UnknownRoute, sentence).response().map(GateBody::Full) })
}

/// Counts what the volume holds.
struct Scanner {
    volume: Volume,
    metrics: StoreMetrics,
    scan_tx: watch::Sender<Scan>,
}

impl Scanner {
    /// Until `stop`; `latch` is dropped when the volume could be listed.
    async fn run(self, latch: Latch, stop: CancellationToken) {
        let None = stop.run_until_cancelled(self.scan_for_ever(latch)).await;
    }

    async fn scan_for_ever(self, latch: Latch) -> std::convert::Infallible {
        let mut latch = Some(latch);
        loop {
            let volume = self.volume.clone();
            let listed = tokio::task::spawn_blocking(move || volume.list(&Wanted::default(), 1)).await;
            if matches!(listed, Ok(Ok(_))) {
                drop(latch.take());
            }
            let (volume, began) = (self.volume.clone(), Instant::now());
            let counted = tokio::task::spawn_blocking(move || (volume.totals(), volume.free_bytes())).await;
            let (totals, free_bytes) = counted.unwrap_or_else(|error| (Err(io::Error::other(error)), None));
            let rest = began.elapsed().saturating_mul(SCAN_REST);
            let pause = if totals.is_ok() { rest.max(SCAN_PERIOD) } else { SCAN_RETRY };
            match totals {
                Ok(totals) => {
                    self.metrics.holds(&totals.holding);
                    self.scan_tx.send_replace(Scan { totals: Some(totals), free_bytes, problem: None });
                }
                Err(error) => {
                    self.metrics.failed();
                    tracing::error!(path = %self.volume.root().display(), %error, "volume cannot be read and will be tried again");
                    let problem = Some(format!("the volume cannot be read: {error}"));
                    self.scan_tx.send_modify(|scan| scan.problem = problem);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}
