//! The recorder: takes every run in the spool to its end, and keeps what it found in the store.
//!
//! One plain thread with blocking files. It follows its own run first (`goscope run`), then the oldest others, a few at a time. A run belongs to the
//! agent that holds its folder by `flock`. Whatever fails is tried again later with the same bytes: the spool is deleted only behind a checkpoint. A
//! run that fails holds up no other.
//!
//! Metrics: `goscope_incidents_total`, `goscope_spool_lag_bytes`, `goscope_spool_gap_bytes_total`.

pub mod death;
pub mod evidence;
pub mod program;
pub mod repeat;
pub mod run;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use goscope_formats::{BuildInfo, Timestamp};
use tokio::sync::watch;

use crate::config::StoreConfig;
use crate::metrics::readiness::Latch;
use crate::metrics::recorder::RecorderMetrics;
use crate::notice::Notices;
use crate::pod::Pod;
use crate::store::Store;
use crate::store::depot::Depot;
use crate::telemetry;
use repeat::Repeats;
use run::{Progress, Run, Shared};

/// How often a quiet spool is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often the spool's folder is searched for new runs.
const SEARCH: Duration = Duration::from_secs(1);
/// How long a volume or spool that failed is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// Runs that are read side by side.
const OPEN_RUNS_MAX: usize = 16;
/// How long the end waits for a launcher to be gone, so that its run can be deleted now and not at the next start.
const REMOVAL_PATIENCE: Duration = Duration::from_millis(200);
/// How often the store's bounds are applied where nothing new comes: what is too old goes also in quiet times.
const EVICT: Duration = Duration::from_secs(600);
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// How long a stop waits for what is in the spool, and in a pod for an app that still runs: it is about to be killed, and its end belongs on the volume.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What wakes the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The launcher says that its run has ended.
    Bell,
    /// Read what is in the spool to its end, then stop: the launcher is gone, or the agent was told to stop.
    Stop,
}

/// How to record.
#[derive(Debug)]
pub struct Settings {
    pub spool: PathBuf,
    pub store: StoreConfig,
    pub host: String,
    /// The pod, where its manifest tells it.
    pub pod: Option<Pod>,
    /// The run that this agent was started for; its report is waited for.
    pub own_run: Option<String>,
    /// `store.path` as a person names it.
    pub shown_store: PathBuf,
}

/// Records until it is told to stop, then until the spool is read to its end. Runs on a thread of its own.
///
/// `depot` is filled and `latch` dropped when the store is open; `build` is told the build information of the app as soon as it is known.
pub fn record(
    settings: Settings,
    depot: &Depot,
    notices: Notices,
    metrics: RecorderMetrics,
    wake: &Receiver<Wake>,
    build: &watch::Sender<Option<BuildInfo>>,
    latch: Latch,
) {
    let mut stopping: Option<Instant> = None;
    let Some(store) = open_store(&settings, depot, wake) else { return };
    drop(latch);
    let shown_store = settings.shown_store.join(&settings.host);
    let shared = Shared {
        store,
        depot: depot.clone(),
        host: settings.host.clone(),
        pod: settings.pod.clone(),
        notices,
        metrics,
        repeats: Repeats::default(),
        shown_store,
    };
    let mut recorder = Recorder {
        settings,
        shared,
        runs: BTreeMap::new(),
        buffer: vec![0; BUFFER_BYTES],
        searched: None,
        refused: BTreeSet::new(),
        evicted: Instant::now(),
    };
    loop {
        let progress = recorder.turn(build);
        if let Some(since) = stopping
            && (progress == Progress::Done
                || (progress == Progress::Idle && recorder.awaited_are_done())
                || since.elapsed() >= STOP_DEADLINE)
        {
            break;
        }
        let wait = if progress == Progress::More { Duration::ZERO } else { POLL };
        match wake.recv_timeout(wait) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) if stopping.is_none() => {
                stopping = Some(Instant::now());
                // A run may have begun since the last search.
                recorder.searched = None;
            }
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            Ok(Wake::Bell) => recorder.retry_own(),
            Ok(Wake::Stop) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    for OpenRun { run, .. } in std::mem::take(&mut recorder.runs).into_values() {
        // The launcher that ended its pipe to us is about to be gone.
        let patience = Instant::now() + REMOVAL_PATIENCE;
        while run.is_done() && !run.launcher_is_gone() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
        run.remove_if_done();
    }
}

struct Recorder {
    settings: Settings,
    shared: Shared,
    runs: BTreeMap<String, OpenRun>,
    buffer: Vec<u8>,
    searched: Option<Instant>,
    /// Runs in the spool that cannot be opened, and that was told.
    refused: BTreeSet<String>,
    /// When the store's bounds were last applied without a new artifact.
    evicted: Instant,
}

struct OpenRun {
    run: Run,
    /// When it failed last, until it is tried again.
    failed: Option<Instant>,
}

impl Recorder {
    /// One step of every open run. The others wait while the own run has more: somebody may wait for its report.
    fn turn(&mut self, build: &watch::Sender<Option<BuildInfo>>) -> Progress {
        if self.searched.is_none_or(|at| at.elapsed() >= SEARCH) || self.runs.is_empty() {
            self.search(build);
        }
        if self.evicted.elapsed() >= EVICT {
            self.evicted = Instant::now();
            self.shared.store.evict(jiff::Timestamp::now(), None);
        }
        let own = self.settings.own_run.clone();
        if let Some(own) = &own
            && self.step(own) == Some(Progress::More)
        {
            return Progress::More;
        }
        let mut all = Progress::Done;
        for name in self.runs.keys().cloned().collect::<Vec<_>>() {
            let is_own = own.as_ref() == Some(&name);
            let progress = if is_own { self.runs.get(&name).map(OpenRun::rest) } else { self.step(&name) };
            match progress {
                Some(Progress::More) => all = Progress::More,
                Some(Progress::Idle) if all == Progress::Done => all = Progress::Idle,
                // The own run stays until the launcher has read its report.
                Some(Progress::Done) if !is_own => {
                    if let Some(open) = self.runs.remove(&name) {
                        open.run.remove_if_done();
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// One step of one run, unless it failed just now; `None` where there is no such run any more.
    fn step(&mut self, name: &str) -> Option<Progress> {
        let open = self.runs.get_mut(name)?;
        if open.failed.is_some_and(|at| at.elapsed() < RETRY) {
            return Some(Progress::Idle);
        }
        open.failed = None;
        match open.run.step(&mut self.buffer, now(), &mut self.shared) {
            Ok(progress) => Some(progress),
            Err(error) => {
                tracing::error!(
                    run = name,
                    error = telemetry::chain(&error),
                    "recording is interrupted and will be tried again"
                );
                open.failed = Some(Instant::now());
                if open.run.is_removed() {
                    self.runs.remove(name);
                    return None;
                }
                Some(Progress::Idle)
            }
        }
    }

    /// The own run has ended, and its report is waited for: now is the time to try again.
    fn retry_own(&mut self) {
        if let Some(open) = self.settings.own_run.as_ref().and_then(|own| self.runs.get_mut(own)) {
            open.failed = None;
        }
    }

    /// Opens the own run, then the oldest others.
    fn search(&mut self, build: &watch::Sender<Option<BuildInfo>>) {
        self.searched = Some(Instant::now());
        let mut names: Vec<String> = match fs::read_dir(&self.settings.spool) {
            Ok(entries) => entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::error!(path = %self.settings.spool.display(), %error, "spool cannot be listed");
                return;
            }
        };
        self.refused.retain(|name| names.contains(name));
        names.sort_unstable();
        names.sort_by_key(|name| Some(name) != self.settings.own_run.as_ref());
        for name in names {
            if self.runs.len() >= OPEN_RUNS_MAX {
                break;
            }
            let folder = self.settings.spool.join(&name);
            if self.runs.contains_key(&name) {
                continue;
            }
            match fs::metadata(folder.join(crate::spool::START)) {
                Ok(start) if start.is_file() => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.refuse(&name, &error);
                    continue;
                }
                _ => continue,
            }
            let own = self.settings.own_run.as_deref() == Some(name.as_str());
            match Run::open(&folder, now()) {
                Ok(Some(run)) => {
                    if own || self.settings.own_run.is_none() {
                        build.send_replace(run.build().cloned());
                    }
                    self.runs.insert(name, OpenRun { run, failed: None });
                }
                Ok(None) => {}
                Err(error) => self.refuse(&name, &error),
            }
        }
        for (name, open) in &mut self.runs {
            let own = self.settings.own_run.as_ref() == Some(name);
            if open.run.look_for_build() && (own || self.settings.own_run.is_none()) {
                build.send_replace(open.run.build().cloned());
            }
        }
        self.shared.metrics.spool_runs.set(i64::try_from(self.runs.len()).unwrap_or(i64::MAX));
        let lag: u64 = self.runs.values().map(|open| open.run.lag()).sum();
        self.shared.metrics.spool_lag_bytes.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// Says once that a run cannot be opened, and what to do where the app is another user.
    fn refuse(&mut self, run: &str, error: &io::Error) {
        if !self.refused.insert(run.to_owned()) {
            return;
        }
        if error.kind() == io::ErrorKind::PermissionDenied {
            tracing::error!(
                run,
                %error,
                "run cannot be opened: app and agent are different users; give the pod an fsGroup, or both the same runAsUser"
            );
        } else {
            tracing::warn!(run, %error, "run cannot be opened");
        }
    }

    /// Whether every run that a stop waits for has ended and is handled: the own one; in a pod, where everything stops at once, each, because the
    /// last words of an app that is being stopped as well may be its most important ones.
    fn awaited_are_done(&self) -> bool {
        match &self.settings.own_run {
            Some(own) => self.runs.get(own).is_none_or(|open| open.run.is_done()),
            None => self.runs.values().all(|open| open.run.is_done()),
        }
    }
}

impl OpenRun {
    fn rest(&self) -> Progress {
        if self.run.is_done() { Progress::Done } else { Progress::Idle }
    }
}

/// Opens the store, and again until it can be opened: a volume may come back. `None` when told to stop before.
fn open_store(settings: &Settings, depot: &Depot, wake: &Receiver<Wake>) -> Option<Store> {
    loop {
        match depot.open(&settings.store, &settings.host, jiff::Timestamp::now()) {
            Ok(store) => return Some(store.clone()),
            Err(error) => {
                tracing::error!(error = telemetry::chain(&error), "store cannot be opened and will be tried again");
            }
        }
        let retry = Instant::now() + RETRY;
        loop {
            match wake.recv_timeout(retry.saturating_duration_since(Instant::now())) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Wake::Bell) => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
    }
}

fn now() -> Timestamp {
    Timestamp(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
