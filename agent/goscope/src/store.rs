//! The volume: one folder per artifact, whole or absent.
//!
//! ```text
//! <store.path>/<host>/<kind>/<time>-<tag>/{meta.json, …}
//! <store.path>/<host>/.staging/<pid>-<time>-<n>/<n>/ what is being written, swept at the next start
//! ```
//!
//! An artifact is written under a staging name, each file and then the folder is synced, then it is renamed into place and the kind's folder is
//! synced. Nobody reads a staging folder. There is no database and no lock file: the staging folder of a process is held by `flock`, so that
//! several agents share a volume and a sweep takes only what nobody holds. Folders that are not ours are never touched.
//!
//! Quotas (`store.maxBytes`, `maxAge`, `reserveBytes`) are a plan over the inventory ([`plan`]), age before size; the new artifact is durable before
//! an old one goes, and pinned ones never go.

pub mod meta;
pub mod plan;
mod staging;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::StoreConfig;
use crate::model::ArtifactId;
use meta::Meta;
use plan::Entry;
pub use plan::Reason;
use staging::StagingFolder;
pub use staging::{Staged, StagedFile};

/// The folder of incidents.
pub const INCIDENTS: &str = "incidents";
/// The file that makes a folder an artifact.
pub const META: &str = "meta.json";

/// Why an artifact could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot prepare {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot move artifact {id} into place")]
    Commit { id: ArtifactId, source: io::Error },
}

/// One artifact that was evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub id: ArtifactId,
    pub kind: String,
    pub reason: Reason,
}

/// The part of a volume that this agent writes. Owned by the recorder's thread.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    config: StoreConfig,
    staging: StagingFolder,
    inventory: Vec<Entry>,
}

impl Store {
    /// Makes the folders, sweeps what earlier agents left in staging, and takes the inventory.
    ///
    /// # Errors
    /// The folders cannot be made or read.
    pub fn open(config: &StoreConfig, host: &str, now: Timestamp) -> Result<Self, StoreError> {
        let root = config.path.join(host);
        let incidents = root.join(INCIDENTS);
        fs::create_dir_all(&incidents).map_err(|source| StoreError::Prepare { path: incidents.clone(), source })?;
        let staging_root = root.join(".staging");
        let staging = StagingFolder::open(&staging_root, now)
            .map_err(|source| StoreError::Prepare { path: staging_root.clone(), source })?;
        let mut store = Self { root, config: config.clone(), staging, inventory: Vec::new() };
        store.scan().map_err(|source| StoreError::Prepare { path: incidents, source })?;
        Ok(store)
    }

    /// This agent's own folder on the volume: `<store.path>/<host>`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where artifacts of `kind` stand.
    #[must_use]
    pub fn folder(&self, kind: &str) -> PathBuf {
        self.root.join(kind)
    }

    /// The artifact of `kind` that has `tag`, if it is stored. The volume is asked, not the inventory: another agent may have stored it after our scan,
    /// and a rename whose sync failed has happened all the same.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn find(&self, kind: &str, tag: &str) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.folder(kind);
        let find = || {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            for entry in entries {
                let name = entry?.file_name();
                if name.to_str().and_then(ArtifactId::parse).is_some_and(|id| id.tag() == tag) {
                    return Ok(Some(folder.join(name)));
                }
            }
            Ok(None)
        };
        find().map_err(|source| StoreError::Prepare { path: folder.clone(), source })
    }

    /// Bytes stored of `kind`.
    #[must_use]
    pub fn bytes_of(&self, kind: &str) -> u64 {
        self.inventory.iter().filter(|entry| entry.kind == kind).map(|entry| entry.bytes).sum()
    }

    /// Begins an artifact: an empty staging folder to write files into. It vanishes when dropped without [`Store::commit`].
    ///
    /// # Errors
    /// The staging folder cannot be made.
    pub fn stage(&mut self) -> Result<Staged, StoreError> {
        self.staging.stage()
    }

    /// Makes `staged` an artifact: writes `meta.json`, syncs, renames, syncs. Returns its folder.
    ///
    /// # Errors
    /// A write, sync or rename failed; nothing of the artifact is visible then.
    pub fn commit(
        &mut self,
        staged: Staged,
        id: &ArtifactId,
        kind: &str,
        meta: impl FnOnce(&Staged) -> Meta,
    ) -> Result<PathBuf, StoreError> {
        let meta = meta(&staged);
        let bytes = meta.bytes;
        let folder = self.folder(kind);
        // Somebody may have deleted it under us.
        fs::create_dir_all(&folder).map_err(|source| StoreError::Prepare { path: folder.clone(), source })?;
        let target = folder.join(id.as_str());
        staged.finish(&meta, id, &target)?;
        self.inventory.push(Entry { id: id.clone(), kind: kind.to_owned(), bytes, pinned: meta.pinned });
        Ok(target)
    }

    /// Deletes what the quotas no longer hold, oldest first; never `keep`, the artifact that was just written.
    pub fn evict(&mut self, now: Timestamp, keep: Option<&ArtifactId>) -> Vec<Evicted> {
        let free = rustix::fs::statvfs(&self.root).map(|v| v.f_bavail.saturating_mul(v.f_frsize)).ok();
        let mut evicted = Vec::new();
        for (id, kind, reason) in plan::evictions(&self.inventory, &self.config, free, now, keep) {
            let path = self.folder(&kind).join(id.as_str());
            match self.staging.discard(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(artifact = %id, %error, "artifact cannot be evicted");
                    continue;
                }
            }
            self.inventory.retain(|e| !(e.id == id && e.kind == kind));
            tracing::info!(artifact = %id, kind, reason = reason.name(), "artifact evicted");
            evicted.push(Evicted { id, kind, reason });
        }
        evicted
    }

    fn scan(&mut self) -> io::Result<()> {
        for kind in fs::read_dir(&self.root)? {
            let kind = kind?;
            let Some(kind_name) = kind.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned)
            else {
                continue;
            };
            if !kind.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(kind.path())? {
                let entry = entry?;
                let Some(id) = entry.file_name().to_str().and_then(ArtifactId::parse) else { continue };
                let Some((bytes, pinned)) = read_size(&entry.path().join(META)) else {
                    tracing::warn!(path = %entry.path().display(), "folder without a readable meta.json is left alone");
                    continue;
                };
                self.inventory.push(Entry { id, kind: kind_name.clone(), bytes, pinned });
            }
        }
        self.inventory.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }
}

/// Bytes of a `meta.json` that are read.
const META_BYTES_MAX: u64 = 64 << 10;

fn read_size(path: &Path) -> Option<(u64, bool)> {
    use io::Read as _;
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(META_BYTES_MAX).read_to_end(&mut text).ok()?;
    let meta: Meta = serde_json::from_slice(&text).ok()?;
    Some((meta.bytes, meta.pinned))
}

#[cfg(test)]
mod tests;
