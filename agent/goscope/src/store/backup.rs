//! Copies a store to a folder that is then itself a readable store.
//!
//! ```text
//! <to>/<host>/<kind>/<time>-<tag>/{meta.json, …}    as at the source
//! <to>/.staging/<pid>-<time>-<n>/<n>/               what is being copied, swept by the next backup
//! ```
//!
//! An artifact is copied under a staging name, each of its files is synced and compared with the size and sum that `meta.json` states, then it is
//! renamed into place. So the destination never holds half of one, and a backup that was killed goes on where it was. At the source nothing is written:
//! it may be mounted read-only, and agents may write to it and evict from it meanwhile. An artifact that is gone before it was copied is no failure.
//!
//! One artifact at a time and one buffer: memory does not grow with the store.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::meta::Meta;
use super::staging::{Staged, StagingFolder};
use super::volume::{Folder, Place, Seen, each, is_plain};
use super::{META, StoreError};

/// Read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What a backup does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The store.
    pub from: PathBuf,
    /// The copies. The folder must be there: one that is not is a volume that was not mounted.
    pub to: PathBuf,
    /// What is older and not pinned is removed from the destination, and not copied.
    pub keep_since: Option<Timestamp>,
}

/// What a backup did, in artifacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub copied: u64,
    /// Bytes of the files that were copied, without `meta.json`.
    pub copied_bytes: u64,
    pub there_already: u64,
    /// Gone at the source before they were copied.
    pub vanished: u64,
    /// Not copied because they are too old to be kept.
    pub too_old: u64,
    /// Not copied, or not judged, because they are not whole or cannot be read.
    pub damaged: u64,
    /// Removed from the destination.
    pub removed: u64,
}

/// Why there is no backup, or only a part of one. What was copied is whole.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} and {} are the same folder", from.display(), to.display())]
    Same { from: PathBuf, to: PathBuf },
    #[error("cannot use {}", path.display())]
    Destination { path: PathBuf, source: io::Error },
    #[error("the backup stopped, and goes on when it is run again")]
    Stopped(#[from] StoreError),
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// What is wrong with an artifact.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    #[error("cannot be read")]
    Unreadable { source: io::Error },
    #[error("cannot read {name}")]
    File { name: String, source: io::Error },
    #[error("meta.json is not that of an artifact")]
    NotMeta { source: serde_json::Error },
    #[error("meta.json is that of {0:?}")]
    OtherId(String),
    #[error("meta.json names a file {0:?}")]
    Name(String),
    #[error("{name} has not the {bytes} bytes that meta.json states")]
    Length { name: String, bytes: u64 },
    #[error("{name} has not the SHA-256 that meta.json states")]
    Sum { name: String },
    #[error("something else has its name at the destination")]
    Occupied,
}

/// A backup that can begin.
#[derive(Debug)]
pub struct Backup {
    plan: Plan,
    from: Folder,
    to: Folder,
    staging: StagingFolder,
}

impl Backup {
    /// Opens both folders, and sweeps what an earlier backup left unfinished.
    ///
    /// # Errors
    /// One of them cannot be used, or they are the same.
    pub fn open(plan: Plan, now: Timestamp) -> Result<Self, BackupError> {
        let from = Folder::open(&plan.from).map_err(|source| BackupError::Read { path: plan.from.clone(), source })?;
        let destination = |source| BackupError::Destination { path: plan.to.clone(), source };
        let to = Folder::open(&plan.to).map_err(destination)?;
        if from.is_same(&to).map_err(destination)? {
            return Err(BackupError::Same { from: plan.from.clone(), to: plan.to.clone() });
        }
        let staging = StagingFolder::open(&plan.to.join(".staging"), now).map_err(destination)?;
        Ok(Self { plan, from, to, staging })
    }

    /// Removes and copies what the plan says. `summary` counts as it goes, so that it is right also where the backup stops; `damaged` is told the path
    /// and the flaw of each artifact that was not copied or not judged because of it.
    ///
    /// # Errors
    /// The destination cannot be written.
    pub fn run(self, summary: &mut Summary, damaged: &mut dyn FnMut(&Path, &Flaw)) -> Result<(), BackupError> {
        let mut running = Running { plan: &self.plan, staging: &self.staging, summary, damaged };
        // Removal first: it makes room, and what is too old here but was pinned at the source since is then copied again, with its pin.
        if let Some(keep_since) = self.plan.keep_since {
            each(&self.to, &mut |seen| running.judge(&seen, keep_since))?;
        }
        each(&self.from, &mut |seen| running.take(seen))
    }
}

struct Running<'a> {
    plan: &'a Plan,
    staging: &'a StagingFolder,
    summary: &'a mut Summary,
    damaged: &'a mut dyn FnMut(&Path, &Flaw),
}

/// Why an artifact was not copied.
enum Failure {
    Flaw(Flaw),
    Stop(BackupError),
}

impl From<Flaw> for Failure {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Stop(error.into())
    }
}

/// What became of an artifact.
enum Done {
    Copied(u64),
    ThereAlready,
    TooOld,
}

impl Running<'_> {
    /// Removes an artifact of the destination that is older than `keep_since` and not pinned.
    fn judge(&mut self, seen: &Seen<'_>, keep_since: Timestamp) -> Result<(), BackupError> {
        let (place, folder) = match seen {
            Seen::Artifact { place, folder, .. } => (place, folder),
            Seen::Unreadable { path, error } => {
                self.unreadable(&self.plan.to.join(path), error);
                return Ok(());
            }
        };
        if !is_before(place, keep_since) {
            return Ok(());
        }
        let path = place.path(&self.plan.to);
        match read_meta(place, folder) {
            Ok((_, meta)) if meta.pinned => {}
            Ok(_) => match self.staging.set_aside(&path).and_then(fs::remove_dir_all) {
                Ok(()) => self.summary.removed += 1,
                // Another backup was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(BackupError::Remove { path, source }),
            },
            Err(flaw) => self.flawed(&path, &flaw),
        }
        Ok(())
    }

    /// Copies an artifact of the source.
    fn take(&mut self, seen: Seen<'_>) -> Result<(), BackupError> {
        let (place, folder, parent) = match seen {
            Seen::Artifact { place, folder, parent } => (place, folder, parent),
            Seen::Unreadable { path, error } => {
                self.unreadable(&self.plan.from.join(path), &error);
                return Ok(());
            }
        };
        match self.copy(&place, &folder) {
            Ok(Done::Copied(bytes)) => {
                self.summary.copied += 1;
                self.summary.copied_bytes += bytes;
            }
            Ok(Done::ThereAlready) => self.summary.there_already += 1,
            Ok(Done::TooOld) => self.summary.too_old += 1,
            Err(Failure::Stop(error)) => return Err(error),
            // An agent evicts by renaming the folder, then deletes what is in it: whatever is wrong with it then is no flaw.
            Err(Failure::Flaw(_)) if !is_still_there(&place, &folder, parent) => self.summary.vanished += 1,
            Err(Failure::Flaw(flaw)) => self.flawed(&place.path(&self.plan.from), &flaw),
        }
        Ok(())
    }

    fn copy(&mut self, place: &Place, folder: &Folder) -> Result<Done, Failure> {
        let target = place.path(&self.plan.to);
        if fs::symlink_metadata(target.join(META)).is_ok_and(|meta| meta.is_file()) {
            return Ok(Done::ThereAlready);
        }
        let (text, meta) = read_meta(place, folder)?;
        if self.plan.keep_since.is_some_and(|since| is_before(place, since)) && !meta.pinned {
            return Ok(Done::TooOld);
        }
        let mut staged = self.staging.stage()?;
        for file in &meta.files {
            copy_file(&mut staged, folder, &file.name, file.bytes)?;
            if staged.files().last() != Some(file) {
                return Err(Flaw::Sum { name: file.name.clone() }.into());
            }
        }
        let bytes = staged.bytes();
        self.make_folder(place).map_err(Failure::Stop)?;
        match staged.finish_as_written(&text, &place.id, &target) {
            Ok(()) => Ok(Done::Copied(bytes)),
            Err(StoreError::Commit { .. }) if target.join(META).is_file() => Ok(Done::ThereAlready),
            Err(StoreError::Commit { .. }) if fs::symlink_metadata(&target).is_ok() => Err(Flaw::Occupied.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder that the artifact goes to, for good before the artifact is in it.
    fn make_folder(&self, place: &Place) -> Result<(), BackupError> {
        let host = self.plan.to.join(&place.host);
        let kind = host.join(&place.kind);
        for (parent, path) in [(&self.plan.to, &host), (&host, &kind)] {
            let made = match fs::create_dir(path) {
                Ok(()) => File::open(parent).and_then(|parent| parent.sync_all()),
                // Through a symbolic link the copy would land elsewhere.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path) {
                    Ok(found) if found.is_dir() => Ok(()),
                    _ => Err(io::Error::other("it is no folder")),
                },
                Err(error) => Err(error),
            };
            made.map_err(|source| BackupError::Destination { path: path.clone(), source })?;
        }
        Ok(())
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let source = io::Error::new(error.kind(), error.to_string());
        self.flawed(path, &Flaw::Unreadable { source });
    }

    fn flawed(&mut self, path: &Path, flaw: &Flaw) {
        self.summary.damaged += 1;
        (self.damaged)(path, flaw);
    }
}

/// By the time in its name, as an agent's own quota judges.
fn is_before(place: &Place, since: Timestamp) -> bool {
    place.id.time().is_some_and(|time| time < since)
}

fn is_still_there(place: &Place, folder: &Folder, parent: &Folder) -> bool {
    parent.folder(place.id.as_str()).is_ok_and(|now| now.is_some_and(|now| now.is_same(folder).unwrap_or(true)))
}

/// `meta.json` as written and as meant.
fn read_meta(place: &Place, folder: &Folder) -> Result<(Vec<u8>, Meta), Flaw> {
    let text = folder.meta().map_err(|source| Flaw::File { name: META.to_owned(), source })?;
    let meta: Meta = serde_json::from_slice(&text).map_err(|source| Flaw::NotMeta { source })?;
    if meta.id != place.id.as_str() {
        return Err(Flaw::OtherId(meta.id));
    }
    for (index, file) in meta.files.iter().enumerate() {
        let is_twice = meta.files.iter().take(index).any(|other| other.name == file.name);
        if !is_plain(&file.name) || file.name == META || is_twice {
            return Err(Flaw::Name(file.name.clone()));
        }
    }
    Ok((text, meta))
}

/// Copies one file of `bytes`; a longer one is not read further than needed to know that it is.
fn copy_file(staged: &mut Staged, folder: &Folder, name: &str, bytes: u64) -> Result<(), Failure> {
    let unreadable = |source| Flaw::File { name: name.to_owned(), source };
    let mut source = BufReader::with_capacity(BUFFER_BYTES, folder.file(name).map_err(unreadable)?);
    // The source's failures are the artifact's, the destination's are everybody's.
    let read = staged.file(name, |file| {
        let mut left = bytes;
        loop {
            let chunk = match source.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(unreadable(error))),
            };
            let length = chunk.len();
            let after = left.checked_sub(length as u64);
            match after {
                Some(after) if length > 0 => left = after,
                Some(0) => return Ok(Ok(())),
                _ => return Ok(Err(Flaw::Length { name: name.to_owned(), bytes })),
            }
            file.write_all(chunk)?;
            source.consume(length);
        }
    })?;
    Ok(read?)
}

#[cfg(test)]
mod tests;
