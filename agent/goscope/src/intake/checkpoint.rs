//! How far a run is handled. Written beside the run, so that an agent that was killed goes on where it can lose nothing.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::spool::CHECKPOINT;

/// `checkpoint.json`. Everything before `offset` is in the store, or is nothing; what comes after is read again after a restart, and what was
/// stored of it already is known by its tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Always the start of a line.
    pub offset: u64,
    /// Deaths found in this run.
    pub deaths: u64,
    /// Race reports found in this run.
    pub races: u64,
    /// The run has ended, its report is written, nothing is left to do but to delete it.
    pub done: bool,
}

impl Checkpoint {
    /// The checkpoint of `run`; the beginning where there is none or it is damaged, because reading twice is harmless.
    #[must_use]
    pub fn read(run: &Path) -> Self {
        fs::read(run.join(CHECKPOINT)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Replaces the checkpoint of `run`. Not synced: after a crash of the node the older one serves as well.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, run: &Path) -> io::Result<()> {
        replace(&run.join(CHECKPOINT), &serde_json::to_vec(self)?)
    }
}

/// Writes `path` whole or not at all.
///
/// # Errors
/// The folder cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".tmp");
    fs::write(&staged, bytes)?;
    fs::rename(&staged, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_a_damaged_one_is_the_beginning() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::read(run.path()), Checkpoint::default());
        let checkpoint = Checkpoint { offset: 17, deaths: 1, races: 2, done: true };
        checkpoint.write(run.path()).unwrap();
        assert_eq!(Checkpoint::read(run.path()), checkpoint);
        fs::write(run.path().join(CHECKPOINT), b"{\"offset\": ").unwrap();
        assert_eq!(Checkpoint::read(run.path()), Checkpoint::default());
        fs::write(run.path().join(CHECKPOINT), b"{\"offset\": 5, \"of_tomorrow\": 1}").unwrap();
        assert_eq!(Checkpoint::read(run.path()).offset, 5);
    }
}
