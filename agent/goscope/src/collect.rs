//! Captures: profiles and traces that are taken from the target and kept, as operations with states.
//!
//! `queued → running → stored | failed | cancelled`. A request joins the one that asks for the same and has not ended. The target's CPU profiler and its
//! tracer serve one at a time, so the others wait their turn ([`book`]). A capture is asked for through a connection of its own, checked ([`check`]) and
//! written to a staging folder as it comes: what is not whole is never in the store, and whatever its length, memory holds a few
//! pieces of 64 KiB. Text and traces are compressed here, profiles are by Go; all are `content.gz`.
//!
//! Whoever asked may hang up: the capture goes on. Who cancels takes back a request of their own; the last of those that joined ends it, and so does an
//! admin. Cancelled, it drops the connection, and Go ends the profile. A profile that somebody takes through the
//! gate at the same time is none of ours: Go refuses the second one, which is asked for again for two seconds and then fails with Go's own words.
//!
//! Limits: [`book::QUEUED_MAX`], [`book::REMEMBERED_MAX`], [`CAPTURE_BYTES_MAX`], `gate.caps` where the request is read. Metrics: `goscope_captures_*`.
//! Deliberately absent: captures do not survive a restart of the agent; what it leaves in staging is swept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TargetAddress;
use crate::model::{ArtifactId, hex};
use crate::pod::Pod;
use crate::store::depot::Depot;
use crate::store::meta::Trigger;
use crate::target::profile::{Profile, Route};
use crate::target::upstream::Upstream;
use book::{Book, Cancel, Canceller, End, Full, Operation, Taken};
use metrics::CollectMetrics;
use take::Place;

pub mod book;
pub mod check;
pub mod metrics;
mod take;
mod write;

/// The profiles that can be captured.
pub const KINDS: [Profile; 9] = [
    Profile::Allocs,
    Profile::Block,
    Profile::Goroutine,
    Profile::Goroutineleak,
    Profile::Heap,
    Profile::Mutex,
    Profile::Cpu,
    Profile::Threadcreate,
    Profile::Trace,
];
/// Bytes of one capture as it comes. Past it, or past half of `store.maxBytes`, it fails: what is cut is never stored as if it were whole.
pub const CAPTURE_BYTES_MAX: u64 = 512 << 20;
/// How long captures under way may go on after a stop. Shorter than the agent's own patience, so that they end in order.
const STOP_PATIENCE: Duration = Duration::from_millis(1500);
/// How long a cancellation waits for the capture to be gone.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
/// What waits when the agent stops fails with this.
const STOPPED: &str = "the agent was stopped before it began";

/// The profile that is captured under the name `kind`; `cpu` is another name of `profile`.
#[must_use]
pub fn kind(name: &str) -> Option<Profile> {
    let name = if name == "cpu" { Profile::Cpu.name() } else { name };
    KINDS.into_iter().find(|profile| profile.name() == name)
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of one of [`KINDS`].
    pub route: Route,
    pub trigger: Trigger,
    /// The name of who asked.
    pub requested_by: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{} captures are waiting already; try again when some of them have ended", book::QUEUED_MAX)]
    Full,
    #[error("the agent is stopping")]
    Stopping,
}

/// Why nothing is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCancelled {
    #[error("no capture of that name is known")]
    Unknown,
    #[error("others asked for this capture; they or a token with the tier admin can cancel it")]
    Foreign,
}

/// Takes captures; clones share it.
#[derive(Clone, Debug)]
pub struct Collector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desk: Mutex<Desk>,
    /// Somebody may be able to begin.
    wake: Notify,
    /// One has ended.
    ended: Notify,
    place: Place,
    metrics: CollectMetrics,
    /// Makes the tags of this agent's captures differ from those of others.
    start: String,
}

#[derive(Debug)]
struct Desk {
    book: Book,
    /// Of each that runs.
    cuts: HashMap<ArtifactId, CancellationToken>,
    requests: u64,
    is_open: bool,
}

impl Collector {
    /// A collector that begins nothing before [`run`](Self::run) runs.
    #[must_use]
    pub fn new(target: TargetAddress, depot: Depot, host: String, pod: Option<Pod>, metrics: CollectMetrics) -> Self {
        let mut random = [0; 16];
        let mut start = Timestamp::now().to_string();
        // Without random numbers the time must do.
        if SystemRandom::new().fill(&mut random).is_ok() {
            start = hex(&random);
        }
        Self(Arc::new(Inner {
            desk: Mutex::new(Desk { book: Book::default(), cuts: HashMap::new(), requests: 0, is_open: true }),
            wake: Notify::new(),
            ended: Notify::new(),
            place: Place {
                upstream: Upstream::frugal(target),
                depot,
                host,
                pod,
                writers: Arc::new(Semaphore::new(take::WRITERS_MAX)),
            },
            metrics,
            start,
        }))
    }

    /// Takes a request, or joins it to one that wants the same.
    ///
    /// # Errors
    /// Too many wait, or the agent is stopping.
    pub fn submit(&self, request: Request) -> Result<Taken, Refused> {
        let now = Timestamp::now();
        let taken = {
            let mut desk = self.desk();
            if !desk.is_open {
                return Err(Refused::Stopping);
            }
            desk.requests += 1;
            let id = ArtifactId::new(now, &format!("{}:{}", self.0.start, desk.requests));
            let taken = desk.book.submit(request, id, now).map_err(|Full| Refused::Full)?;
            self.tell_queue(&desk);
            taken
        };
        if !taken.joined {
            let Operation { id, request, .. } = &taken.operation;
            let (kind, by) = (request.route.profile.name(), &request.requested_by);
            tracing::info!(capture = %id, kind, by, "capture requested");
            self.0.wake.notify_one();
        }
        Ok(taken)
    }

    /// How far a capture is; `None` where none of that name is remembered.
    #[must_use]
    pub fn find(&self, id: &ArtifactId) -> Option<Operation> {
        self.desk().book.find(id).cloned()
    }

    /// Takes back one request for a capture. The last one cancels it, and waits, within bounds, until it is gone from the target; returns how far it is
    /// then. One that had ended stays as it is.
    ///
    /// # Errors
    /// None of that name is remembered, or it is none of theirs.
    pub async fn cancel(&self, id: &ArtifactId, by: Canceller<'_>) -> Result<Operation, NotCancelled> {
        let cancel = {
            let mut desk = self.desk();
            let cancel = desk.book.cancel(id, by, Timestamp::now()).ok_or(NotCancelled::Unknown)?;
            if let (Cancel::Tell(_), Some(cut)) = (&cancel, desk.cuts.get(id)) {
                cut.cancel();
            }
            self.tell_queue(&desk);
            cancel
        };
        match cancel {
            Cancel::Foreign => Err(NotCancelled::Foreign),
            Cancel::Late(operation) | Cancel::Left(operation) => Ok(operation),
            Cancel::Done(operation) => {
                self.tell_end(&operation);
                Ok(operation)
            }
            Cancel::Tell(_) => {
                drop(tokio::time::timeout(CANCEL_PATIENCE, self.ended(id)).await);
                self.find(id).ok_or(NotCancelled::Unknown)
            }
        }
    }

    /// Waits until a capture has ended or is forgotten.
    async fn ended(&self, id: &ArtifactId) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            // Before looking, so that an end in between is not missed.
            ended.as_mut().enable();
            if self.find(id).is_none_or(|operation| operation.has_ended()) {
                return;
            }
            ended.await;
        }
    }

    /// Takes captures until `stop`, then lets those under way end, or cuts them.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            while let Some((operation, cut)) = self.start() {
                tasks.spawn(self.clone().take(operation, cut));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.0.wake.notified() => {}
            }
        }
        self.close();
        tasks.close();
        if tokio::time::timeout(STOP_PATIENCE, tasks.wait()).await.is_err() {
            self.desk().cuts.values().for_each(CancellationToken::cancel);
            tasks.wait().await;
        }
    }

    fn start(&self) -> Option<(Operation, CancellationToken)> {
        let mut desk = self.desk();
        let operation = desk.book.start(Timestamp::now())?;
        let cut = CancellationToken::new();
        desk.cuts.insert(operation.id.clone(), cut.clone());
        self.0.metrics.running.inc();
        self.tell_queue(&desk);
        Some((operation, cut))
    }

    async fn take(self, operation: Operation, cut: CancellationToken) {
        let mut course = Course { collector: &self, operation: &operation, end: None };
        let taken = take::take(&self.0.place, &operation, &cut).await;
        course.end = Some(match taken {
            Ok((artifact, bytes)) => End::Stored { artifact, bytes },
            Err(take::TakeError::Cut) if self.desk().is_open => End::Cancelled,
            Err(error) => End::Failed(error.sentence(self.0.place.upstream.address())),
        });
    }

    fn finish(&self, id: &ArtifactId, end: End) {
        let operation = {
            let mut desk = self.desk();
            desk.cuts.remove(id);
            desk.book.finish(id, end, Timestamp::now());
            desk.book.find(id).cloned()
        };
        self.0.metrics.running.dec();
        if let Some(operation) = operation {
            self.tell_end(&operation);
        }
        self.0.wake.notify_one();
        self.0.ended.notify_waiters();
    }

    fn close(&self) {
        let closed = {
            let mut desk = self.desk();
            desk.is_open = false;
            let closed = desk.book.close(&End::Failed(STOPPED.to_owned()), Timestamp::now());
            self.tell_queue(&desk);
            closed
        };
        closed.iter().for_each(|operation| self.tell_end(operation));
    }

    fn tell_queue(&self, desk: &Desk) {
        self.0.metrics.queued.set(i64::try_from(desk.book.queued()).unwrap_or(i64::MAX));
    }

    fn tell_end(&self, operation: &Operation) {
        let Operation { id, request, state, .. } = operation;
        let book::State::Ended { end, .. } = state else { return };
        let kind = request.route.profile.name();
        self.0.metrics.ended(request.route.profile, request.trigger, end);
        match end {
            End::Stored { artifact, bytes } => tracing::info!(capture = %id, kind, %artifact, bytes, "capture stored"),
            End::Failed(error) => tracing::warn!(capture = %id, kind, error, "capture failed"),
            End::Cancelled => tracing::info!(capture = %id, kind, "capture cancelled"),
        }
    }

    /// Each use leaves the desk whole.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A capture under way. Dropped, it has ended, also where its task fell over.
struct Course<'a> {
    collector: &'a Collector,
    operation: &'a Operation,
    end: Option<End>,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        let fallen = || End::Failed("goscope itself failed; please report it".to_owned());
        let end = self.end.take().unwrap_or_else(fallen);
        self.collector.finish(&self.operation.id, end);
    }
}

#[cfg(test)]
mod tests;
