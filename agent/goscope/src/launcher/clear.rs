//! Keeps the whole spool within its total: what a crash loop leaves there while no agent reads must not fill the volume, because the kubelet evicts
//! a pod whose `emptyDir` exceeds its limit, and the app with it.
//!
//! Done once, at the launcher's start, by a thread of its own, so that the app's start does not wait for it. Room is made for one whole run of our own:
//! the segments of finished runs go, of the oldest run first and in it the oldest first, so that what stays longest is the end of a death, which holds
//! its panic. The run's records go when it has no segments left and there is still too little room. A run is finished when no launcher holds its
//! `start.json`; what a living launcher holds counts and stays.
//!
//! The agent may read a run meanwhile. It sees missing segments as a gap, as it does where a run's own cap took them; of a folder that it holds by `flock` the
//! records stay, and it deletes them itself. What was lost with a folder's last trace is carried on in our own exit record, so that the agent can count it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::intake::checkpoint::Checkpoint;
use crate::spool::{self, EXIT, ExitRecord, START};

/// Runs whose files are looked at; finished ones that are older than so many others go whole.
const RUNS_MAX: usize = 1000;
/// Entries of the spool's folder that are listed. What is beyond waits for the next start.
const LISTED_MAX: usize = 16 * RUNS_MAX;
/// A file takes a multiple of this on a volume, and so does a folder.
const BLOCK_BYTES: u64 = 4 << 10;
/// What a run takes besides its segments: its folder and its records.
const RECORDS_BYTES: u64 = 4 * BLOCK_BYTES;
/// Of a run's name: its time, up to the `Z`.
const SECOND_LEN: usize = 20;
const STACK_BYTES: usize = 128 << 10;

/// How far the spool may grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What the own run may come to.
    own: u64,
    /// What all runs may hold together.
    total: u64,
    runs: usize,
}

impl Limits {
    /// Of a run that keeps at most `run_bytes` of segments, in a spool of `total` bytes.
    pub(super) fn new(run_bytes: u64, total: u64) -> Self {
        Self { own: run_bytes.saturating_add(RECORDS_BYTES), total, runs: RUNS_MAX }
    }
}

/// What was done, for the exit record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cleared {
    /// Bytes of stderr that no agent has read and of which nothing is left that could tell of them.
    pub(super) forgotten_bytes: u64,
    /// What went wrong first.
    pub(super) error: Option<String>,
}

/// The work under way.
#[derive(Debug)]
pub(super) struct Clearing(Receiver<Cleared>);

impl Clearing {
    /// What was done; waits for it, but not longer than `patience`.
    pub(super) fn wait(&self, patience: Duration) -> Cleared {
        let failed = |error: &str| Cleared { error: Some(error.to_owned()), ..Cleared::default() };
        self.0.recv_timeout(patience).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => failed("not done in time"),
            RecvTimeoutError::Disconnected => failed("no thread to be had"),
        })
    }
}

/// Begins to make room in `spool` for the run `own`.
pub(super) fn begin(spool: PathBuf, own: String, limits: Limits) -> Clearing {
    let (done_tx, done_rx) = channel();
    // A launcher that has left needs no word.
    let work = move || drop(done_tx.send(clear(&spool, &own, limits)));
    drop(std::thread::Builder::new().name("clear".to_owned()).stack_size(STACK_BYTES).spawn(work));
    Clearing(done_rx)
}

/// Goes on after an error: the next deletion may make the room.
fn clear(spool: &Path, own: &str, limits: Limits) -> Cleared {
    let mut cleared = Cleared::default();
    let names = match run_names(spool, own) {
        Ok(names) => names,
        Err(error) => return Cleared { error: Some(error.to_string()), ..cleared },
    };
    let (surplus, kept) = names.split_at(names.len().saturating_sub(limits.runs));
    for folder in surplus.iter().map(|name| spool.join(name)) {
        if let Some(run) = look(&folder, &mut cleared).filter(|run| !run.is_held) {
            for (offset, _) in &run.segments {
                cleared.note(remove(&folder.join(spool::segment_name(*offset))));
            }
            cleared.forget(&folder, run.end);
        }
    }
    let mut looked: Vec<_> = kept
        .iter()
        .filter_map(|name| {
            let folder = spool.join(name);
            let run = look(&folder, &mut cleared)?;
            Some((name.get(..SECOND_LEN), folder, run))
        })
        .collect();
    // An app that dies at once is started again in the same second, and the rest of a name says nothing.
    looked.sort_by_key(|(second, _, run)| (*second, run.started));
    let (folders, runs): (Vec<_>, Vec<_>) = looked.into_iter().map(|(_, folder, run)| (folder, run)).unzip();
    for deletion in plan(&runs, limits) {
        match deletion {
            Deletion::Segment { run, offset } => {
                cleared.note(remove(&folders[run].join(spool::segment_name(offset))));
            }
            Deletion::Run(run) => cleared.forget(&folders[run], runs[run].end),
        }
    }
    cleared
}

/// A run as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// A launcher lives behind it.
    is_held: bool,
    /// When its first record was written; `None` while it is not.
    started: Option<SystemTime>,
    /// Offset and bytes on the volume of each segment, lowest offset first.
    segments: Vec<(u64, u64)>,
    /// Bytes on the volume of everything else.
    records: u64,
    /// The end of the last segment in the stream; 0 without one.
    end: u64,
}

impl Found {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.records
    }
}

/// What is to be deleted next. Runs are told by their place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    Segment {
        run: usize,
        offset: u64,
    },
    /// What is left of a run without segments.
    Run(usize),
}

/// What has to go, in order, so that `runs`, oldest first, leave room for the own run.
fn plan(runs: &[Found], limits: Limits) -> Vec<Deletion> {
    let mut deletions = Vec::new();
    let held: u64 = runs.iter().map(Found::bytes).sum();
    let mut excess = held.saturating_add(limits.own).saturating_sub(limits.total);
    for (run, found) in runs.iter().enumerate().filter(|(_, found)| !found.is_held) {
        for &(offset, bytes) in &found.segments {
            if excess == 0 {
                return deletions;
            }
            deletions.push(Deletion::Segment { run, offset });
            excess = excess.saturating_sub(bytes);
        }
        if excess == 0 {
            return deletions;
        }
        deletions.push(Deletion::Run(run));
        excess = excess.saturating_sub(found.records);
    }
    deletions
}

/// The other runs, oldest first. Whatever else lies in the folder is not ours to touch.
fn run_names(spool: &Path, own: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(spool)?.take(LISTED_MAX) {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && spool::is_run_name(&name)
            && name != own
            && entry.file_type()?.is_dir()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// `None` for a run that cannot be read, or that its agent has deleted meanwhile.
fn look(folder: &Path, cleared: &mut Cleared) -> Option<Found> {
    match found(folder) {
        Ok(found) => Some(found),
        Err(error) => {
            cleared.note(Err(error));
            None
        }
    }
}

fn found(folder: &Path) -> io::Result<Found> {
    let mut found = Found {
        is_held: !spool::launcher_is_gone(folder),
        started: fs::metadata(folder.join(START)).and_then(|start| start.modified()).ok(),
        segments: Vec::new(),
        records: BLOCK_BYTES,
        end: 0,
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let length = match entry.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let bytes = length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        if let Some(offset) = entry.file_name().to_str().and_then(spool::segment_offset) {
            found.segments.push((offset, bytes));
            found.end = found.end.max(offset.saturating_add(length));
        } else {
            found.records = found.records.saturating_add(bytes);
        }
    }
    found.segments.sort_unstable();
    Ok(found)
}

impl Cleared {
    /// What somebody else has deleted meanwhile is no error.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && error.kind() != io::ErrorKind::NotFound
        {
            self.error.get_or_insert_with(|| error.to_string());
        }
    }

    fn forget(&mut self, folder: &Path, end: u64) {
        match forget(folder, end) {
            Ok(lost) => self.forgotten_bytes = self.forgotten_bytes.saturating_add(lost),
            Err(error) => self.note(Err(error)),
        }
    }
}

/// Deletes what is left of a run; returns the bytes of its stream, which ends at `end` or later, that no agent has read, together with those that it told
/// of itself. Nothing is done, and nothing lost, while an agent holds it.
fn forget(folder: &Path, end: u64) -> io::Result<u64> {
    let held = File::open(folder)?;
    match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    let exit: Option<ExitRecord> = fs::read(folder.join(EXIT)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let checkpoint = Checkpoint::read(folder);
    // Last of all, because a folder without it is none that a later launcher would take for a finished run.
    let start = folder.join(START);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path != start {
            remove(&path)?;
        }
    }
    remove(&start)?;
    fs::remove_dir(folder)?;
    if checkpoint.done {
        return Ok(0);
    }
    let (end, earlier) = exit.map_or((end, 0), |exit| (end.max(exit.stderr_bytes), exit.forgotten_bytes));
    Ok(end.saturating_sub(checkpoint.offset).saturating_add(earlier))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
