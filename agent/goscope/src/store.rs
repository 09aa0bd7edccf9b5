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
//! an old one goes, pinned ones never go, and what nobody asked for goes before what somebody did.
//!
//! [`Store`] is shared by whoever writes to the volume; a [`depot::Depot`] hands it out from before it could be opened on. All of it waits for the disk
//! except where it says otherwise, so async code calls it through `spawn_blocking`. The inventory's lock is never held while the disk is waited for.

pub mod backup;
pub mod catalogue;
pub mod depot;
pub mod meta;
pub mod metrics;
pub mod plan;
mod staging;
mod volume;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::config::StoreConfig;
use crate::model::ArtifactId;
use meta::Meta;
use metrics::StoreMetrics;
use plan::Entry;
pub use plan::Reason;
use staging::StagingFolder;
pub use staging::{Staged, StagedFile};
use volume::Folder;

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
    #[error("cannot change artifact {id}")]
    Change { id: ArtifactId, source: io::Error },
}

/// One artifact that was evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub id: ArtifactId,
    pub kind: String,
    pub reason: Reason,
}

/// What came of [`Store::delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// There is no such artifact.
    Absent,
    /// It is pinned; whoever means it takes the pin away first.
    Pinned,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    pub artifacts: usize,
    /// Of them.
    pub incidents: usize,
    pub bytes: u64,
    /// Bytes by kind, of the kinds that there are.
    pub by_kind: BTreeMap<String, u64>,
}

impl Holding {
    fn of(inventory: &[Entry]) -> Self {
        let mut holding = Self::default();
        inventory.iter().for_each(|entry| holding.add(&entry.kind, entry.bytes));
        holding
    }

    /// Counts one artifact more.
    fn add(&mut self, kind: &str, bytes: u64) {
        self.artifacts += 1;
        self.incidents += usize::from(kind == INCIDENTS);
        self.bytes = self.bytes.saturating_add(bytes);
        match self.by_kind.get_mut(kind) {
            Some(held) => *held = held.saturating_add(bytes),
            None => drop(self.by_kind.insert(kind.to_owned(), bytes)),
        }
    }
}

/// The part of a volume that this agent writes; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    config: StoreConfig,
    staging: StagingFolder,
    inventory: Mutex<Vec<Entry>>,
    /// See [`Store::changing`].
    changing: Mutex<()>,
    metrics: StoreMetrics,
}

impl Store {
    /// Makes the folders, sweeps what earlier agents left in staging, and takes the inventory.
    ///
    /// # Errors
    /// The folders cannot be made or read.
    pub fn open(config: &StoreConfig, host: &str, now: Timestamp, metrics: StoreMetrics) -> Result<Self, StoreError> {
        let root = config.path.join(host);
        let incidents = root.join(INCIDENTS);
        fs::create_dir_all(&incidents).map_err(|source| StoreError::Prepare { path: incidents.clone(), source })?;
        let staging_root = root.join(".staging");
        let staging = StagingFolder::open(&staging_root, now)
            .map_err(|source| StoreError::Prepare { path: staging_root.clone(), source })?;
        let inventory = scan(&root).map_err(|source| StoreError::Prepare { path: incidents, source })?;
        let inventory = Mutex::new(inventory);
        let store = Self(Arc::new(Inner {
            root,
            config: config.clone(),
            staging,
            inventory,
            changing: Mutex::new(()),
            metrics,
        }));
        store.tell();
        Ok(store)
    }

    /// This agent's own folder on the volume: `<store.path>/<host>`. Does not wait.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The bounds that it keeps. Does not wait.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.0.config
    }

    /// Where artifacts of `kind` stand. Does not wait.
    #[must_use]
    pub fn folder(&self, kind: &str) -> PathBuf {
        self.0.root.join(kind)
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

    /// The kind and the folder of the artifact `id`, whatever its kind, if it is stored.
    ///
    /// # Errors
    /// The folder of all kinds cannot be read.
    pub fn locate(&self, id: &ArtifactId) -> Result<Option<(String, PathBuf)>, StoreError> {
        let locate = || {
            let root = Folder::open(&self.0.root)?;
            for kind in kinds(&self.0.root)? {
                if artifact(&root, &kind, id)?.is_some_and(|folder| folder.file(META).is_ok()) {
                    let folder = self.folder(&kind).join(id.as_str());
                    return Ok(Some((kind, folder)));
                }
            }
            Ok(None)
        };
        locate().map_err(|source| StoreError::Prepare { path: self.0.root.clone(), source })
    }

    /// What it holds. Does not wait.
    #[must_use]
    pub fn holding(&self) -> Holding {
        Holding::of(&self.inventory())
    }

    /// Bytes that the volume has left for us, where it says so.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        rustix::fs::statvfs(&self.0.root).map(|v| v.f_bavail.saturating_mul(v.f_frsize)).ok()
    }

    /// Begins an artifact: an empty staging folder to write files into. It vanishes when dropped without [`Store::commit`].
    ///
    /// # Errors
    /// The staging folder cannot be made.
    pub fn stage(&self) -> Result<Staged, StoreError> {
        self.0.staging.stage()
    }

    /// Makes `staged` an artifact: writes `meta.json`, syncs, renames, syncs. Returns its folder.
    ///
    /// # Errors
    /// A write, sync or rename failed; nothing of the artifact is visible then.
    pub fn commit(
        &self,
        staged: Staged,
        id: &ArtifactId,
        kind: &str,
        meta: impl FnOnce(&Staged) -> Meta,
    ) -> Result<PathBuf, StoreError> {
        let meta = meta(&staged);
        let folder = self.folder(kind);
        // Somebody may have deleted it under us.
        fs::create_dir_all(&folder).map_err(|source| StoreError::Prepare { path: folder.clone(), source })?;
        let target = folder.join(id.as_str());
        staged.finish(&meta, id, &target)?;
        self.inventory().push(Entry::new(id.clone(), kind.to_owned(), &meta));
        self.tell();
        Ok(target)
    }

    /// Deletes what the quotas no longer hold, in the order of [`plan`]; never `keep`, the artifact that was just written.
    pub fn evict(&self, now: Timestamp, keep: Option<&ArtifactId>) -> Vec<Evicted> {
        let free = self.free_bytes();
        let mut evicted = Vec::new();
        let mut aside = Vec::new();
        {
            let _one_at_a_time = self.changing();
            let plan = plan::evictions(&self.inventory(), &self.0.config, free, now, keep);
            for (id, kind, reason) in plan {
                match self.set_aside(&id, &kind) {
                    Ok(path) => aside.extend(path),
                    Err(error) => {
                        tracing::warn!(artifact = %id, %error, "artifact cannot be evicted");
                        continue;
                    }
                }
                tracing::info!(artifact = %id, kind, reason = reason.name(), "artifact evicted");
                self.0.metrics.evicted(reason);
                evicted.push(Evicted { id, kind, reason });
            }
        }
        for path in aside {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "evicted artifact cannot be deleted before the next start");
            }
        }
        evicted
    }

    /// Pins the artifact `id`, or takes the pin away; says whether there is such an artifact. Durable when it returns.
    ///
    /// # Errors
    /// Its `meta.json` cannot be read or exchanged; it is as it was then.
    pub fn pin(&self, id: &ArtifactId, pinned: bool) -> Result<bool, StoreError> {
        let _one_at_a_time = self.changing();
        let Some((kind, folder)) = self.locate(id)? else { return Ok(false) };
        let change = |source| StoreError::Change { id: id.clone(), source };
        let path = folder.join(META);
        let mut meta = self.meta(&kind, id).map_err(change)?;
        if meta.pinned != pinned {
            meta.pinned = pinned;
            self.0.staging.exchange(&path, &meta).map_err(change)?;
            tracing::info!(artifact = %id, kind, pinned, "pin of an artifact changed");
        }
        if let Some(entry) = self.inventory().iter_mut().find(|entry| entry.id == *id && entry.kind == kind) {
            entry.pinned = pinned;
        }
        Ok(true)
    }

    /// Deletes the artifact `id`, unless it is pinned.
    ///
    /// # Errors
    /// The volume cannot be read or written; the artifact is there still, whole, or out of sight and deleted at the next start.
    pub fn delete(&self, id: &ArtifactId) -> Result<Deletion, StoreError> {
        let change = |source| StoreError::Change { id: id.clone(), source };
        let aside = {
            let _one_at_a_time = self.changing();
            let Some((kind, _)) = self.locate(id)? else { return Ok(Deletion::Absent) };
            if self.meta(&kind, id).map_err(change)?.pinned {
                return Ok(Deletion::Pinned);
            }
            let Some(aside) = self.set_aside(id, &kind).map_err(change)? else { return Ok(Deletion::Absent) };
            tracing::info!(artifact = %id, kind, "artifact deleted");
            self.0.metrics.deleted.inc();
            aside
        };
        fs::remove_dir_all(aside).map_err(change)?;
        Ok(Deletion::Deleted)
    }

    fn meta(&self, kind: &str, id: &ArtifactId) -> io::Result<Meta> {
        read_meta(artifact(&Folder::open(&self.0.root)?, kind, id)?)
    }

    /// Takes an artifact out of sight and out of the inventory; what is left to do is to delete the folder that is returned. `None` where it was gone
    /// already.
    fn set_aside(&self, id: &ArtifactId, kind: &str) -> io::Result<Option<PathBuf>> {
        let aside = match self.0.staging.set_aside(&self.folder(kind).join(id.as_str())) {
            Ok(aside) => Some(aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.inventory().retain(|entry| !(entry.id == *id && entry.kind == kind));
        self.tell();
        Ok(aside)
    }

    /// Brings `goscope_store_bytes` up to date.
    fn tell(&self) {
        // Under the lock, so that the latest to tell has the latest to say.
        let inventory = self.inventory();
        self.0.metrics.holds(&Holding::of(&inventory));
    }

    /// Pins, deletions and evictions are done one at a time, so that nothing is pinned that is on its way out. What takes long is not done under it.
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each use leaves the inventory whole.
    fn inventory(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every artifact below `root`, by time.
fn scan(root: &Path) -> io::Result<Vec<Entry>> {
    let mut inventory = Vec::new();
    let open_root = Folder::open(root)?;
    for kind in kinds(root)? {
        // Gone in the meantime.
        let Some(folder) = open_root.folder(&kind)? else { continue };
        for name in folder.names()? {
            let name = name?;
            let Some(id) = ArtifactId::parse(&name) else { continue };
            let Ok(meta) = folder.folder(&name).and_then(read_meta) else {
                let path = root.join(&kind).join(&name);
                tracing::warn!(path = %path.display(), "folder without a readable meta.json is left alone");
                continue;
            };
            inventory.push(Entry::new(id, kind.clone(), &meta));
        }
    }
    inventory.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(inventory)
}

/// The folders below `root` that may hold artifacts.
fn kinds(root: &Path) -> io::Result<Vec<String>> {
    let mut kinds = Vec::new();
    for kind in fs::read_dir(root)? {
        let kind = kind?;
        if let Some(name) = kind.file_name().to_str().filter(|name| !name.starts_with('.'))
            && kind.file_type()?.is_dir()
        {
            kinds.push(name.to_owned());
        }
    }
    Ok(kinds)
}

/// Bytes of a `meta.json` that are read.
const META_BYTES_MAX: u64 = 64 << 10;

/// The folder of an artifact, which no symbolic link leads out of the store; `None` where there is none.
fn artifact(root: &Folder, kind: &str, id: &ArtifactId) -> io::Result<Option<Folder>> {
    root.folder(kind)?.map_or(Ok(None), |folder| folder.folder(id.as_str()))
}

fn read_meta(folder: Option<Folder>) -> io::Result<Meta> {
    let folder = folder.ok_or(io::ErrorKind::NotFound)?;
    Ok(serde_json::from_slice(&folder.meta()?)?)
}

#[cfg(test)]
mod tests;
