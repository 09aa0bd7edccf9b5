//! Writing an artifact where nobody sees it, then making it visible at once.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use rustix::fs::FlockOperation;

use super::meta::{FileMeta, Meta};
use super::{META, StoreError};
use crate::model::{ArtifactId, file_time, hex};

/// This process's own folder below `.staging`, held by `flock` for as long as it lives.
#[derive(Debug)]
pub(super) struct StagingFolder {
    path: PathBuf,
    /// Keeps the lock.
    _held: File,
    next: AtomicU64,
}

impl StagingFolder {
    pub(super) fn open(root: &Path, now: Timestamp) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        sweep(root)?;
        // A process identifier comes again, in containers soon.
        for n in 0_u32.. {
            let path = root.join(format!("{}-{}-{n}", std::process::id(), file_time(now)));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            if let Some(held) = hold(&path)? {
                return Ok(Self { path, _held: held, next: AtomicU64::new(0) });
            }
        }
        unreachable!("numbers do not run out")
    }

    pub(super) fn stage(&self) -> Result<Staged, StoreError> {
        let path = self.path.join(self.number().to_string());
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&path)
            .map_err(|source| StoreError::Prepare { path: path.clone(), source })?;
        Ok(Staged { path, files: Vec::new() })
    }

    /// Takes the folder out of sight by one rename, so that no reader finds half of it when it is deleted, and returns where it is now.
    pub(super) fn set_aside(&self, artifact: &Path) -> io::Result<PathBuf> {
        let aside = self.path.join(format!("gone-{}", self.number()));
        fs::create_dir_all(&self.path)?;
        fs::rename(artifact, &aside)?;
        Ok(aside)
    }

    /// Puts a new `meta.json` in the place of the one at `path`, durable when it returns. A reader finds the old one or the new one.
    pub(super) fn exchange(&self, path: &Path, meta: &Meta) -> io::Result<()> {
        let aside = self.path.join(format!("meta-{}", self.number()));
        fs::create_dir_all(&self.path)?;
        let exchanged =
            write_meta(&aside, meta).and_then(|()| fs::rename(&aside, path)).and_then(|()| match path.parent() {
                Some(artifact) => File::open(artifact)?.sync_all(),
                None => Ok(()),
            });
        if exchanged.is_err() {
            drop(fs::remove_file(&aside));
        }
        exchanged
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        // What is left is swept at the next start.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Locks a folder; `None` where another agent holds it, or has deleted it meanwhile, perhaps to make one of the same name.
fn hold(path: &Path) -> io::Result<Option<File>> {
    let held = match File::open(path) {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let is_there = fs::metadata(path).is_ok_and(|there| held.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
    Ok(is_there.then_some(held))
}

/// Deletes staging folders that no living process holds.
fn sweep(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if let Ok(Some(_held)) = hold(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "unfinished artifacts of an earlier process swept"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "staging folder cannot be swept"),
            }
        }
    }
    Ok(())
}

/// An artifact being written. Deleted when dropped before it is committed.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    files: Vec<FileMeta>,
}

impl Staged {
    /// Writes one file from `fill`, hashing as it goes, and syncs it.
    ///
    /// # Errors
    /// Whatever `fill` or the volume reports.
    pub fn file<T>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut StagedFile) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.path.join(name);
        self.write(&path, name, fill).map_err(|source| StoreError::Write { path, source })
    }

    fn write<T>(
        &mut self,
        path: &Path,
        name: &str,
        fill: impl FnOnce(&mut StagedFile) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut staged = StagedFile { file: create(path)?, digest: Context::new(&SHA256), bytes: 0 };
        let value = fill(&mut staged)?;
        staged.file.sync_all()?;
        let sha256 = hex(staged.digest.finish().as_ref());
        self.files.push(FileMeta { name: name.to_owned(), bytes: staged.bytes, sha256 });
        Ok(value)
    }

    /// The files written so far.
    #[must_use]
    pub fn files(&self) -> &[FileMeta] {
        &self.files
    }

    /// Bytes of all files written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    pub(super) fn finish(self, meta: &Meta, id: &ArtifactId, target: &Path) -> Result<(), StoreError> {
        let path = self.path.join(META);
        write_meta(&path, meta).map_err(|source| StoreError::Write { path, source })?;
        self.show(id, target)
    }

    /// As [`finish`](Self::finish), with the text of a `meta.json` that is there already.
    pub(super) fn finish_as_written(self, meta: &[u8], id: &ArtifactId, target: &Path) -> Result<(), StoreError> {
        let path = self.path.join(META);
        write_text(&path, meta).map_err(|source| StoreError::Write { path, source })?;
        self.show(id, target)
    }

    fn show(self, id: &ArtifactId, target: &Path) -> Result<(), StoreError> {
        self.rename(target).map_err(|source| StoreError::Commit { id: id.clone(), source })
    }

    fn rename(&self, target: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, target)?;
        match target.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit the folder has moved and there is nothing to delete.
        drop(fs::remove_dir_all(&self.path));
    }
}

fn write_meta(path: &Path, meta: &Meta) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(meta)?;
    text.push(b'\n');
    write_text(path, &text)
}

fn write_text(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)
}

/// One file of a staged artifact.
pub struct StagedFile {
    file: File,
    digest: Context,
    bytes: u64,
}

impl io::Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
