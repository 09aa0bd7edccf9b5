//! One run of the app, from its checkpoint to its end.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goscope_analysis::report;
use goscope_formats::{BuildInfo, Ending as StreamEnding, Event, Incident, IncidentKind, Timestamp, fingerprint};
use rustix::fs::FlockOperation;

use super::death::{self, Ending, Seen, judge, judge_unrecorded};
use super::evidence::{self, BEFORE_BYTES, Context, Stored, What};
use super::program::Program;
use super::repeat::Repeats;
use super::tell::{self, Told};
use crate::intake::checkpoint::{Checkpoint, replace};
use crate::intake::stream::{Step, Stream};
use crate::metrics::recorder::{RecordedKind, RecorderMetrics};
use crate::model::ArtifactId;
use crate::notice::Notices;
use crate::pod::Pod;
use crate::spool::{self, ExitRecord, StartRecord};
use crate::store::depot::Depot;
use crate::store::{Store, StoreError};

/// A death that was told is stored when the app has ended, with its exit record. If the app lives on this long, it was somebody else's death.
const DEATH_WAIT: Duration = Duration::from_secs(30);
/// An incident that has begun and then gone quiet this long has ended.
const QUIET_WAIT: Duration = Duration::from_secs(30);
/// Bytes handled between two checkpoints; also written when the stream goes quiet.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// What the handlers of all runs share.
#[derive(Debug)]
pub struct Shared {
    pub store: Store,
    /// Told how the volume is.
    pub depot: Depot,
    pub host: String,
    /// The pod, where its manifest tells it.
    pub pod: Option<Pod>,
    pub notices: Notices,
    pub metrics: RecorderMetrics,
    pub repeats: Repeats,
    /// The store's folder as a person names it, for reports.
    pub shown_store: PathBuf,
}

/// What one step of a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more at once.
    More,
    /// Nothing new for now.
    Idle,
    /// The run has ended and is handled.
    Done,
}

/// A run that this agent reads. No other agent reads it at the same time: the folder is held by `flock`.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    name: String,
    _held: File,
    start: Option<StartRecord>,
    program: Program,
    stream: Stream,
    checkpoint: Checkpoint,
    /// Found and not stored yet, in the order of the stream. The checkpoint stays before the first of them.
    found: VecDeque<Box<Incident>>,
    /// A told death that waits for its exit record.
    pending: Option<Pending>,
    /// When the last byte came.
    last_byte: Timestamp,
}

#[derive(Debug)]
struct Pending {
    incident: Box<Incident>,
    fingerprint: String,
    since: Timestamp,
}

impl Run {
    /// Takes a run over; `None` if another agent holds it, or a launcher that deletes it.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn open(folder: &Path, now: Timestamp) -> io::Result<Option<Self>> {
        let held = File::open(folder)?;
        match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if !folder.exists() {
            // A launcher that needed its room deleted it before we held it.
            return Ok(None);
        }
        let checkpoint = Checkpoint::read(folder);
        let start: Option<StartRecord> = read_json(&folder.join(spool::START));
        let program = Program::look(folder, start.as_ref());
        Ok(Some(Self {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            _held: held,
            start,
            program,
            stream: Stream::new(folder, checkpoint.offset),
            checkpoint,
            found: VecDeque::new(),
            pending: None,
            last_byte: now,
        }))
    }

    /// Whether it is handled to its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.checkpoint.done
    }

    /// Whether somebody deleted its folder.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        !self.folder.exists()
    }

    #[must_use]
    pub fn build(&self) -> Option<&BuildInfo> {
        self.program.build()
    }

    /// Looks for the build information again, where the launcher may have copied it by now; says whether it has become known.
    pub fn look_for_build(&mut self) -> bool {
        if self.program != Program::Unknown {
            return false;
        }
        self.program = Program::look(&self.folder, self.start.as_ref());
        self.build().is_some()
    }

    /// Bytes that are in the spool and not yet read.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let newest = spool::segments(&self.folder).ok().and_then(|segments| segments.into_iter().next_back());
        let end = newest.and_then(|(start, path)| Some(start + fs::metadata(path).ok()?.len()));
        end.unwrap_or_default().saturating_sub(self.stream.offset())
    }

    /// Reads and handles at most one buffer.
    ///
    /// # Errors
    /// The spool cannot be read or the store cannot be written. The step can be tried again later: what was not stored is kept until then.
    pub fn step(&mut self, buffer: &mut [u8], now: Timestamp, shared: &mut Shared) -> Result<Progress, StepError> {
        if self.checkpoint.done {
            return Ok(Progress::Done);
        }
        // What an earlier step could not store.
        self.handle(now, shared)?;
        // Asked before reading: what was written before the record is then seen by this read.
        let ended = self.ended();
        match self.stream.step(buffer, now).map_err(StepError::Spool)? {
            Step::Read(events) => {
                self.last_byte = now;
                self.find(events);
                self.handle(now, shared)?;
                self.store_overdue(now, shared)?;
                if self.safe_offset().saturating_sub(self.checkpoint.offset) >= CHECKPOINT_BYTES {
                    self.save()?;
                }
                Ok(Progress::More)
            }
            Step::Gap { bytes, events } => {
                shared.metrics.spool_gap_bytes.inc_by(bytes);
                tracing::warn!(run = self.name, bytes, "bytes of stderr are missing in the spool");
                self.find(events);
                self.handle(now, shared)?;
                Ok(Progress::More)
            }
            Step::Idle => match ended {
                Some(exit) => self.end(exit, now, shared).map(|()| Progress::Done),
                None => self.idle(now, shared).map(|()| Progress::Idle),
            },
        }
    }

    /// Whether nobody looks for its report any more.
    #[must_use]
    pub fn launcher_is_gone(&self) -> bool {
        spool::launcher_is_gone(&self.folder)
    }

    /// Deletes the run, if it is handled to its end and no launcher looks for its report any more.
    pub fn remove_if_done(self) {
        if self.checkpoint.done
            && self.launcher_is_gone()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(run = self.name, %error, "handled run cannot be deleted");
        }
    }

    fn find(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            // The fingerprint tells the program's own frames from others by it.
            self.look_for_build();
        }
        self.found.extend(events.into_iter().filter_map(|event| match event {
            Event::Incident(incident) => Some(incident),
            _ => None,
        }));
    }

    fn handle(&mut self, now: Timestamp, shared: &mut Shared) -> Result<(), StepError> {
        while let Some(incident) = self.found.pop_front() {
            let fingerprint = fingerprint(&incident, self.module());
            if incident.kind.is_death() {
                if let Err(error) = self.store_pending(shared) {
                    self.found.push_front(incident);
                    return Err(error);
                }
                self.checkpoint.deaths += 1;
                self.pending = Some(Pending { incident, fingerprint, since: now });
                continue;
            }
            match self.alarm(&incident, &fingerprint, now, shared) {
                Ok(is_stored) => {
                    self.checkpoint.races += u64::from(incident.kind == IncidentKind::Race);
                    if is_stored {
                        self.save()?;
                    }
                }
                Err(error) => {
                    self.found.push_front(incident);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Stores an alarm, unless it was stored often enough; says whether it did.
    fn alarm(
        &self,
        incident: &Incident,
        fingerprint: &str,
        now: Timestamp,
        shared: &mut Shared,
    ) -> Result<bool, StepError> {
        let verdict = shared.repeats.judge(fingerprint, now);
        if !verdict.store {
            shared.metrics.incident(RecordedKind::Text(incident.kind));
            shared.repeats.count(fingerprint, verdict, now);
            return Ok(false);
        }
        let stored = self.put(What::Told { incident, fingerprint }, None, shared)?;
        shared.repeats.count(fingerprint, verdict, now);
        if verdict.count == 1 && !stored.again {
            let place = tell::shown(&stored.folder, &shared.store, &shared.shown_store);
            shared.notices.say(&format!("{}; kept in {}", report::headline(incident), place.display()));
        }
        Ok(true)
    }

    fn store_pending(&mut self, shared: &mut Shared) -> Result<(), StepError> {
        self.put_pending(None, shared)?;
        self.pending = None;
        Ok(())
    }

    /// Stores a death whose process lives on.
    fn store_overdue(&mut self, now: Timestamp, shared: &mut Shared) -> Result<(), StepError> {
        if self.pending.as_ref().is_some_and(|pending| elapsed(pending.since, now) >= DEATH_WAIT) {
            self.store_pending(shared)?;
        }
        Ok(())
    }

    fn put_pending(&self, exit: Option<&ExitRecord>, shared: &mut Shared) -> Result<Option<Stored>, StepError> {
        let Some(pending) = &self.pending else { return Ok(None) };
        let what = What::Told { incident: &pending.incident, fingerprint: &pending.fingerprint };
        self.put(what, exit, shared).map(Some)
    }

    fn put(&self, what: What<'_>, exit: Option<&ExitRecord>, shared: &mut Shared) -> Result<Stored, StepError> {
        let context = Context {
            folder: &self.folder,
            name: &self.name,
            host: &shared.host,
            pod: shared.pod.as_ref(),
            start: self.start.as_ref(),
            exit,
            build: self.build(),
        };
        let stored = evidence::store(&shared.store, what, &context);
        let stored = shared.depot.note(stored).map_err(StepError::Store)?;
        if !stored.again {
            shared.metrics.incident(what.recorded());
            tracing::info!(kind = what.kind(), run = self.name, path = %stored.folder.display(), "incident stored");
        }
        shared.after_put(&stored.folder);
        Ok(stored)
    }

    fn idle(&mut self, now: Timestamp, shared: &mut Shared) -> Result<(), StepError> {
        if self.stream.is_open() && elapsed(self.last_byte, now) >= QUIET_WAIT {
            let events = self.stream.flush(StreamEnding::Unknown, now);
            self.find(events);
            self.handle(now, shared)?;
        }
        self.store_overdue(now, shared)?;
        if self.safe_offset() > self.checkpoint.offset {
            self.save()?;
        }
        Ok(())
    }

    /// Can be tried again whatever failed: nothing is forgotten before the checkpoint says that all is done.
    fn end(&mut self, exit: Option<ExitRecord>, now: Timestamp, shared: &mut Shared) -> Result<(), StepError> {
        self.look_for_build();
        let crashed = exit.as_ref().is_some_and(death::is_runtime_ending);
        let events = self.stream.flush(if crashed { StreamEnding::Crashed } else { StreamEnding::Unknown }, now);
        self.find(events);
        self.handle(now, shared)?;
        let seen =
            Seen { pending: self.pending.is_some(), deaths: self.checkpoint.deaths, races: self.checkpoint.races };
        let ending = exit.as_ref().map_or_else(|| judge_unrecorded(seen), |exit| judge(exit, seen));
        let end = self.stream.offset();
        // What the spool has lost of the end belongs to the death as well.
        let told_end = exit.as_ref().map_or(end, |exit| exit.stderr_bytes.max(end));
        let stored = self.put_pending(exit.as_ref(), shared)?;
        let report = if let (Some(pending), Some(stored)) = (&self.pending, &stored) {
            tell::told(
                &Told { incident: &pending.incident, module: self.module(), exit: exit.as_ref(), stored },
                shared,
            )
        } else if let Ending::Wordless(reason) = &ending {
            let stored = self.put(What::Wordless { reason, end: told_end, seen: now }, exit.as_ref(), shared)?;
            exit.as_ref().map(|exit| tell::wordless(reason, exit, &stored, shared)).unwrap_or_default()
        } else {
            String::new()
        };
        // The launcher waits for it, also where its own agent is down and this one took the run over.
        if !self.launcher_is_gone() {
            replace(&self.folder.join(spool::REPORT), report.as_bytes()).map_err(StepError::Spool)?;
        }
        let checkpoint = Checkpoint { offset: end, done: true, ..self.checkpoint };
        checkpoint.write(&self.folder).map_err(StepError::Spool)?;
        self.checkpoint = checkpoint;
        self.pending = None;
        if let Some(exit) = &exit {
            shared.metrics.spool_gap_bytes.inc_by(exit.stderr_bytes.saturating_sub(end));
            shared.metrics.spool_gap_bytes.inc_by(exit.forgotten_bytes);
            if exit.forgotten_bytes > 0 {
                let bytes = exit.forgotten_bytes;
                tracing::warn!(
                    run = self.name,
                    bytes,
                    "stderr of earlier runs was deleted unread to make room for this one"
                );
            }
            if let Some(error) = &exit.clear_error {
                tracing::warn!(run = self.name, error, "launcher could not keep the spool within its total");
            }
        }
        Ok(())
    }

    /// The exit record; `Some(None)` where the launcher is gone without one.
    fn ended(&self) -> Option<Option<ExitRecord>> {
        let read = || read_json(&self.folder.join(spool::EXIT));
        if let Some(exit) = read() {
            return Some(Some(exit));
        }
        // It may have written the record just before it went.
        spool::launcher_is_gone(&self.folder).then(read)
    }

    fn module(&self) -> Option<&str> {
        self.build().and_then(|build| build.module.as_deref())
    }

    fn safe_offset(&self) -> u64 {
        let found = self.found.iter().chain(self.pending.as_ref().map(|pending| &pending.incident));
        found.map(|incident| incident.span.start).fold(self.stream.safe_offset(), u64::min)
    }

    /// Writes the checkpoint and deletes the segments that nothing needs any more.
    fn save(&mut self) -> Result<(), StepError> {
        self.checkpoint.offset = self.safe_offset();
        // Counted again when it is read again.
        let mut written = self.checkpoint.clone();
        written.deaths -= u64::from(self.pending.is_some());
        written.write(&self.folder).map_err(StepError::Spool)?;
        let needed = self.checkpoint.offset.saturating_sub(BEFORE_BYTES);
        let segments = spool::segments(&self.folder).map_err(StepError::Spool)?;
        for pair in segments.windows(2) {
            if let [(_, path), (next, _)] = pair
                && *next <= needed
            {
                match fs::remove_file(path) {
                    // A launcher needed its room first.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result.map_err(StepError::Spool)?,
                }
            }
        }
        Ok(())
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the spool cannot be used")]
    Spool(#[source] io::Error),
    #[error("the incident cannot be stored")]
    Store(#[source] StoreError),
}

impl Shared {
    fn after_put(&self, folder: &Path) {
        let keep = folder.file_name().and_then(|name| name.to_str()).and_then(ArtifactId::parse);
        self.store.evict(jiff::Timestamp::now(), keep.as_ref());
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or_default())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests;
