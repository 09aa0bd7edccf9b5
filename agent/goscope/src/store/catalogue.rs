//! Reading a volume: what is on it, listed straight from its folders. Shares nothing with those who write, so it also reads a volume that is mounted
//! read-only and the folders of pods that are gone.
//!
//! Names sort by time, so a list is made of folder names alone and `meta.json` is read only of what is shown. Memory is bounded by the page, not by the
//! volume: the names of a page are the newest of all that pass by. Everything is opened below the folder that it was seen in (`super::volume`), so
//! nothing on the volume, whoever put it there, leads out of it. What is damaged, foreign or not ours to read is left alone.
//!
//! All of it waits for the disk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Holding;
use super::meta::{FileMeta, Meta};
use super::volume::Folder;
use crate::model::{ArtifactId, file_time};

/// Artifacts of one page.
pub const PAGE_MAX: usize = 500;
/// `meta.json`s that one list reads; then it says where to go on.
pub const META_READS_MAX: usize = 2000;
/// Names that are taken from the folders at once.
const NAMES_AT_ONCE: usize = 2000;
/// Bytes of a name of a host, a kind or a file.
const NAME_BYTES_MAX: usize = 255;

/// A volume, or one host's folder on it.
#[derive(Clone, Debug)]
pub struct Volume {
    root: PathBuf,
    /// `None`: all hosts.
    host: Option<String>,
}

/// Where an artifact stands. Ordered by time, then by what makes it unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub id: ArtifactId,
    pub kind: String,
    pub host: String,
}

/// One artifact on the volume.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub key: Key,
    pub meta: Meta,
}

/// Which artifacts are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub kind: Option<String>,
    pub host: Option<String>,
    /// From this second on.
    pub since: Option<Timestamp>,
    /// Up to this second.
    pub until: Option<Timestamp>,
    /// Only those that belong to this incident.
    pub incident: Option<ArtifactId>,
    /// Only what stands behind this one in the list.
    pub after: Option<Key>,
}

/// A part of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    pub items: Vec<Artifact>,
    /// Where the next page begins. It may be there although a page is short, where much had to be passed over.
    pub next: Option<Key>,
}

/// What is on the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub holding: Holding,
    /// Folders that may not be read.
    pub denied: u64,
}

impl Key {
    /// Reads what [`fmt::Display`] writes: `<id>~<kind>~<host>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '~');
        let (id, kind, host) = (ArtifactId::parse(parts.next()?)?, parts.next()?, parts.next()?);
        (is_name(kind) && is_name(host)).then(|| Self { id, kind: kind.to_owned(), host: host.to_owned() })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}", self.id, self.kind, self.host)
    }
}

/// Whether a host, a kind or a file may have this name: letters, digits, `-`, `_` and `.`, not first a dot.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.starts_with('.') && text.bytes().all(plain)
}

impl Volume {
    /// The part of the volume at `root` that is `host`'s, or all of it.
    #[must_use]
    pub fn new(root: PathBuf, host: Option<String>) -> Self {
        Self { root, host }
    }

    /// Where it is mounted. Does not wait.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The newest `limit` artifacts that are wanted, at most [`PAGE_MAX`].
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn list(&self, wanted: &Wanted, limit: usize) -> io::Result<Page> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut items = Vec::new();
        let next = self.walk(wanted, META_READS_MAX, |artifact| {
            items.push(artifact);
            items.len() < limit
        })?;
        Ok(Page { items, next })
    }

    /// Hands out what is wanted, newest first, until `visit` says that it is enough or `reads` `meta.json`s were read. Returns where to go on, if there is more.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn walk(
        &self,
        wanted: &Wanted,
        reads: usize,
        mut visit: impl FnMut(Artifact) -> bool,
    ) -> io::Result<Option<Key>> {
        let root = Folder::open(&self.root)?;
        let mut after = wanted.after.clone();
        let (mut left, mut is_enough) = (reads, false);
        loop {
            let keys = self.newest(&root, wanted, after.as_ref(), NAMES_AT_ONCE)?;
            let is_last = keys.len() < NAMES_AT_ONCE;
            for key in keys {
                if is_enough || left == 0 {
                    return Ok(after);
                }
                left -= 1;
                after = Some(key.clone());
                let Some(meta) = read_meta(&root, &key) else { continue };
                let belongs = |incident: &ArtifactId| meta.incident.as_deref() == Some(incident.as_str());
                if wanted.incident.as_ref().is_none_or(belongs) {
                    is_enough = !visit(Artifact { key, meta });
                }
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// The artifact `id`, of whatever kind and host.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn find(&self, id: &ArtifactId) -> io::Result<Option<Artifact>> {
        let root = Folder::open(&self.root)?;
        let mut found = None;
        self.each_kind(&root, None, None, |host, kind, _| {
            let key = Key { id: id.clone(), kind: kind.to_owned(), host: host.to_owned() };
            found = read_meta(&root, &key).map(|meta| Artifact { key, meta });
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    /// Opens one file of an artifact; `None` where its `meta.json` lists no such file.
    ///
    /// # Errors
    /// The file cannot be opened, or is not as long as it should be.
    pub fn open(&self, artifact: &Artifact, name: &str) -> io::Result<Option<(File, FileMeta)>> {
        let Some(listed) = artifact.meta.files.iter().find(|file| file.name == name && is_name(name)) else {
            return Ok(None);
        };
        let root = Folder::open(&self.root)?;
        let folder = open_artifact(&root, &artifact.key)?;
        let file = folder.file(name)?;
        if file.metadata()?.len() != listed.bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not as long as its meta.json says"));
        }
        Ok(Some((file, listed.clone())))
    }

    /// Bytes that the volume has left for us, where it says so.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        rustix::fs::statvfs(&self.root).map(|v| v.f_bavail.saturating_mul(v.f_frsize)).ok()
    }

    /// Counts everything, reading each `meta.json`: minutes on a slow volume that is full.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn totals(&self) -> io::Result<Totals> {
        let root = Folder::open(&self.root)?;
        let mut totals = Totals::default();
        let denied = self.each_kind(&root, None, None, |host, kind, folder| {
            for name in folder.names()? {
                let Some(id) = ArtifactId::parse(&name?) else { continue };
                let key = Key { id, kind: kind.to_owned(), host: host.to_owned() };
                if let Some(meta) = read_meta(&root, &key) {
                    totals.holding.add(kind, meta.bytes);
                }
            }
            Ok(true)
        })?;
        totals.denied = denied;
        Ok(totals)
    }

    /// The newest keys behind `after`, at most `count`.
    fn newest(&self, root: &Folder, wanted: &Wanted, after: Option<&Key>, count: usize) -> io::Result<Vec<Key>> {
        let (since, until) = (wanted.since.map(file_time), wanted.until.map(file_time));
        // The oldest of those that are kept is on top.
        let mut kept: BinaryHeap<Reverse<Key>> = BinaryHeap::new();
        self.each_kind(root, wanted.host.as_deref(), wanted.kind.as_deref(), |host, kind, folder| {
            for name in folder.names()? {
                let name = name?;
                let time = name.rsplit_once('-').map_or("", |(time, _)| time);
                let is_in_time = since.as_deref().is_none_or(|since| time >= since)
                    && until.as_deref().is_none_or(|until| time <= until);
                let full = kept.len() >= count;
                let place = (name.as_str(), kind, host);
                let is_behind = after.is_none_or(|after| place < parts(after));
                if !is_in_time || !is_behind || (full && kept.peek().is_some_and(|Reverse(key)| place <= parts(key))) {
                    continue;
                }
                let Some(id) = ArtifactId::parse(&name) else { continue };
                if full {
                    kept.pop();
                }
                kept.push(Reverse(Key { id, kind: kind.to_owned(), host: host.to_owned() }));
            }
            Ok(true)
        })?;
        // Reversed keys in ascending order: the newest first.
        Ok(kept.into_sorted_vec().into_iter().map(|Reverse(key)| key).collect())
    }

    /// Visits each folder of artifacts until `visit` says that it is enough. Returns how many folders may not be read.
    fn each_kind(
        &self,
        root: &Folder,
        only_host: Option<&str>,
        only_kind: Option<&str>,
        mut visit: impl FnMut(&str, &str, &Folder) -> io::Result<bool>,
    ) -> io::Result<u64> {
        let mut denied = 0;
        let mut enter = |parent: &Folder, name: &str| match parent.folder(name) {
            Ok(folder) => folder,
            Err(error) => {
                denied += u64::from(error.kind() == io::ErrorKind::PermissionDenied);
                None
            }
        };
        let hosts = match (&self.host, only_host) {
            (Some(own), Some(wanted)) if own != wanted => return Ok(0),
            (Some(host), _) => vec![host.clone()],
            (None, Some(host)) => vec![host.to_owned()],
            (None, None) => sub_names(root)?,
        };
        for host in hosts {
            let Some(host_folder) = enter(root, &host) else { continue };
            let kinds = match only_kind {
                Some(kind) => vec![kind.to_owned()],
                None => sub_names(&host_folder)?,
            };
            for kind in kinds {
                let Some(folder) = enter(&host_folder, &kind) else { continue };
                if !visit(&host, &kind, &folder)? {
                    return Ok(denied);
                }
            }
        }
        Ok(denied)
    }
}

fn parts(key: &Key) -> (&str, &str, &str) {
    (key.id.as_str(), &key.kind, &key.host)
}

fn open_artifact(root: &Folder, key: &Key) -> io::Result<Folder> {
    below(&below(&below(root, &key.host)?, &key.kind)?, key.id.as_str())
}

fn below(folder: &Folder, name: &str) -> io::Result<Folder> {
    folder.folder(name)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// `None` for what is damaged, foreign, gone meanwhile, or not ours to read.
fn read_meta(root: &Folder, key: &Key) -> Option<Meta> {
    let text = open_artifact(root, key).and_then(|folder| folder.meta()).ok()?;
    let meta: Meta = serde_json::from_slice(&text).ok()?;
    (meta.id == key.id.as_str() && meta.kind == key.kind).then_some(meta)
}

/// Names in a folder that could be a host's or a kind's.
fn sub_names(folder: &Folder) -> io::Result<Vec<String>> {
    let mut names = folder.names()?.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
pub(crate) mod tests;
