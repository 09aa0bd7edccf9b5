//! Whether a file is still the one that was read.
//!
//! Secrets are swapped by symbolic links, so the path stays and what it leads to changes: the inode counts, not the name.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file as it was at one moment. Equal stamps: the same file, not written since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    /// Inode, length and modification time; `None` where the file cannot be looked at.
    identity: Option<(u64, u64, i64, i64)>,
}

impl Stamp {
    /// Looks at the file that `path` leads to now. Waits for the disk.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let identity = fs::metadata(path).ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        Self { path: path.to_owned(), identity }
    }
}
