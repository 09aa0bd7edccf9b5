//! Writes one run into the spool: `start.json`, segments, `exit.json`. The contract is in [`crate::spool`].
//!
//! A failure of the volume never stops anything but the recording: bytes that cannot be written are counted, and a new segment, named by
//! its true offset, is tried at most once a second. Nothing is synced: the page cache outlives every process of the pod, and a sync would
//! make the app wait for the disk.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::spool::{EXIT, ExitRecord, SEGMENT_BYTES, START, StartRecord, segment_name};

/// The least that a run may hold; less would be segments too small to be worth a file.
pub const SPOOL_MIN: u64 = 64 << 10;
const RETRY: Duration = Duration::from_secs(1);

/// The folder of one run, and what its first file says, so that a folder that was removed can be made again.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    access: Access,
    start: Vec<u8>,
    /// `start.json`, whose lock says that we live: see [`crate::spool::launcher_is_gone`].
    alive: Mutex<Option<File>>,
}

impl RunFolder {
    /// Makes the folder `<spool>/<name>` and its `start.json`.
    pub(super) fn create(spool: &Path, name: &str, start: &StartRecord) -> io::Result<Self> {
        let folder = Self {
            path: spool.join(name),
            access: std::fs::metadata(spool).map_or(Access::Owner, |found| Access::below(found.mode())),
            start: serde_json::to_vec(start)?,
            alive: Mutex::new(None),
        };
        folder.restore()?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `exit.json`, after everything else of the run.
    pub(super) fn write_exit(&self, record: &ExitRecord) -> io::Result<()> {
        let content = serde_json::to_vec(record)?;
        match self.write_record(EXIT, &content) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.restore()?;
                self.write_record(EXIT, &content).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Writes another file of the run; one that was there is replaced.
    pub(super) fn write_beside(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.write_record(name, content).map(drop)
    }

    /// Removes the run: its app was not started by us after all.
    pub(super) fn remove(&self) {
        drop(std::fs::remove_dir_all(&self.path));
    }

    fn restore(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        if self.access == Access::Group {
            // Not by the mode above, of which the umask takes away.
            std::fs::set_permissions(&self.path, Permissions::from_mode(0o2770))?;
        }
        let start = self.write_record(START, &self.start)?;
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
        Ok(())
    }

    /// Locked before it gets its name, so that nobody finds it unlocked while we live.
    fn write_record(&self, name: &str, content: &[u8]) -> io::Result<File> {
        let staged = self.path.join(format!("{name}.tmp"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        self.admit_group(&file)?;
        file.write_all(content)?;
        std::fs::rename(staged, self.path.join(name))?;
        Ok(file)
    }

    fn create_segment(&self, offset: u64) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.segment_path(offset))?;
        self.admit_group(&file)?;
        Ok(file)
    }

    fn admit_group(&self, file: &File) -> io::Result<()> {
        match self.access {
            Access::Owner => Ok(()),
            Access::Group => file.set_permissions(Permissions::from_mode(0o640)),
        }
    }

    fn segment_path(&self, offset: u64) -> PathBuf {
        self.path.join(segment_name(offset))
    }
}

/// Who reads what the launcher writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The agent runs as the same user: as in `goscope run`.
    Owner,
    /// The agent may run as another user of the same group: it reads files and deletes them.
    Group,
}

impl Access {
    /// A spool that is setgid and open to its group was made so for this purpose, which is how Kubernetes prepares a volume of a pod with an
    /// `fsGroup`: what is made in it belongs to that group. A folder that merely inherited its setgid bit is not open to the group.
    fn below(spool_mode: u32) -> Self {
        if spool_mode & 0o2070 == 0o2070 { Self::Group } else { Self::Owner }
    }
}

/// Appends the app's stderr to segments, within a cap.
#[derive(Debug)]
pub(super) struct Recorder {
    folder: Arc<RunFolder>,
    /// Bytes that all segments of the run hold at most.
    limit: u64,
    segment_limit: u64,
    current: Option<Segment>,
    /// Finished segments that were not deleted by us, oldest first: offset and length. The agent may have deleted some.
    finished: VecDeque<(u64, u64)>,
    /// Sum of the lengths in `finished`.
    finished_bytes: u64,
    /// Offset of the next byte of the stream.
    offset: u64,
    unspooled: u64,
    retry_at: Option<Instant>,
    /// The first failure, until it was told.
    trouble: Option<io::Error>,
    has_failed: bool,
}

#[derive(Debug)]
struct Segment {
    file: File,
    offset: u64,
    length: u64,
}

impl Recorder {
    /// `limit` is raised to [`SPOOL_MIN`].
    pub(super) fn new(folder: Arc<RunFolder>, limit: u64) -> Self {
        let limit = limit.max(SPOOL_MIN);
        Self {
            folder,
            limit,
            segment_limit: SEGMENT_BYTES.min(limit / 4),
            current: None,
            finished: VecDeque::new(),
            finished_bytes: 0,
            offset: 0,
            unspooled: 0,
            retry_at: None,
            trouble: None,
            has_failed: false,
        }
    }

    /// Bytes of the stream that are not in the spool.
    pub(super) fn unspooled(&self) -> u64 {
        self.unspooled
    }

    /// What went wrong first; told once in a run.
    pub(super) fn trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }

    /// Takes the next bytes of the stream.
    pub(super) fn append(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            let taken = match self.append_some(bytes, now) {
                Ok(written) => written,
                Err(error) => {
                    if is_full(&error) && self.drop_oldest() {
                        continue;
                    }
                    self.finish_segment();
                    self.retry_at = Some(now + RETRY);
                    if !std::mem::replace(&mut self.has_failed, true) {
                        self.trouble = Some(error);
                    }
                    self.unspooled += bytes.len() as u64;
                    bytes.len()
                }
            };
            self.offset += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Handles a part of `bytes`, and says how many; 0 where only a segment was opened. Until the next attempt is due, all are given up.
    fn append_some(&mut self, bytes: &[u8], now: Instant) -> io::Result<usize> {
        if self.current.as_ref().is_some_and(|segment| segment.length >= self.segment_limit) {
            self.finish_segment();
        }
        let Some(segment) = &mut self.current else {
            if self.retry_at.is_some_and(|at| now < at) {
                self.unspooled += bytes.len() as u64;
                return Ok(bytes.len());
            }
            self.open_segment()?;
            return Ok(0);
        };
        let room = usize::try_from(self.segment_limit - segment.length).unwrap_or(usize::MAX);
        let part = bytes.get(..room).unwrap_or(bytes);
        let written = match segment.file.write(part) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            result => result?,
        };
        if segment.file.metadata()?.nlink() == 0 {
            // The folder was removed under us, and what was written went with it. Opening the next segment makes the folder again.
            self.current = None;
            self.unspooled += written as u64;
            return Ok(written);
        }
        segment.length += written as u64;
        self.retry_at = None;
        Ok(written)
    }

    fn open_segment(&mut self) -> io::Result<()> {
        while self.finished_bytes + self.segment_limit > self.limit && self.drop_oldest() {}
        let file = match self.folder.create_segment(self.offset) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folder.restore()?;
                self.folder.create_segment(self.offset)?
            }
            result => result?,
        };
        self.current = Some(Segment { file, offset: self.offset, length: 0 });
        Ok(())
    }

    fn finish_segment(&mut self) {
        let Some(segment) = self.current.take() else { return };
        if segment.length == 0 {
            drop(std::fs::remove_file(self.folder.segment_path(segment.offset)));
        } else {
            self.finished.push_back((segment.offset, segment.length));
            self.finished_bytes += segment.length;
        }
    }

    /// Deletes the oldest finished segment; `false` if there is none. One that the agent has handled and deleted is no loss.
    fn drop_oldest(&mut self) -> bool {
        let Some((offset, length)) = self.finished.pop_front() else { return false };
        self.finished_bytes -= length;
        if std::fs::remove_file(self.folder.segment_path(offset)).is_ok() {
            self.unspooled += length;
        }
        true
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{segment_offset, segments};

    fn folder(spool: &Path) -> Arc<RunFolder> {
        let start = StartRecord {
            started_unix_ms: 0,
            command: vec!["app".to_owned()],
            executable: None,
            working_directory: None,
            environment: Vec::new(),
        };
        Arc::new(RunFolder::create(spool, "run", &start).expect("a folder"))
    }

    fn offsets(folder: &RunFolder) -> Vec<u64> {
        segments(folder.path()).expect("segments").into_iter().map(|(offset, _)| offset).collect()
    }

    #[test]
    fn only_a_spool_made_for_the_group_is_shared_with_it() {
        for (mode, access) in [
            (0o700, Access::Owner),
            (0o755, Access::Owner),
            (0o777, Access::Owner),
            (0o2700, Access::Owner),
            (0o2755, Access::Owner),
            (0o2770, Access::Group),
            (0o2775, Access::Group),
            (0o2777, Access::Group),
        ] {
            assert_eq!(Access::below(0o40_000 | mode), access, "{mode:o}");
        }
    }

    #[test]
    fn the_modes_of_a_run_follow_its_spool() {
        for (spool_mode, run_mode, file_mode) in [(0o700, 0o700, 0o600), (0o777, 0o700, 0o600), (0o2777, 0o2770, 0o640)]
        {
            let spool = tempfile::tempdir().expect("a folder");
            std::fs::set_permissions(spool.path(), Permissions::from_mode(spool_mode)).expect("changed");
            let folder = folder(spool.path());
            let check = |segment: u64| {
                let mode = |path: &Path| std::fs::metadata(path).expect("it is there").mode() & 0o7777;
                assert_eq!(mode(folder.path()), run_mode, "{spool_mode:o}");
                for file in [folder.path().join(START), folder.segment_path(segment)] {
                    assert_eq!(mode(&file), file_mode, "{spool_mode:o} {}", file.display());
                }
            };
            let mut recorder = Recorder::new(Arc::clone(&folder), SPOOL_MIN);
            recorder.append(b"one", Instant::now());
            check(0);
            // Made again, it is as it was.
            std::fs::remove_dir_all(folder.path()).expect("removed");
            recorder.append(b"two", Instant::now());
            recorder.append(b"three", Instant::now());
            check(6);
        }
    }

    #[test]
    fn what_the_agent_deleted_is_no_loss_what_the_cap_deletes_is() {
        let spool = tempfile::tempdir().expect("a folder");
        let folder = folder(spool.path());
        let mut recorder = Recorder::new(Arc::clone(&folder), SPOOL_MIN);
        let now = Instant::now();
        let segment = SPOOL_MIN / 4;
        recorder.append(&vec![b'x'; 60 << 10], now);
        assert_eq!(offsets(&folder), [0, segment, 2 * segment, 3 * segment]);
        std::fs::remove_file(folder.segment_path(0)).expect("the agent handled it");
        recorder.append(&vec![b'x'; 10 << 10], now);
        assert_eq!((recorder.unspooled(), offsets(&folder).len()), (0, 4));
        recorder.append(&vec![b'x'; 16 << 10], now);
        assert_eq!(recorder.unspooled(), segment, "one segment went for the sixth");
        assert_eq!(offsets(&folder), [2 * segment, 3 * segment, 4 * segment, 5 * segment]);
    }

    #[test]
    fn after_a_failure_it_tries_again_once_a_second() {
        let spool = tempfile::tempdir().expect("a folder");
        let folder = folder(spool.path());
        let mut recorder = Recorder::new(Arc::clone(&folder), SPOOL_MIN);
        let start = Instant::now();
        // Something that is no folder stands where the run's folder was.
        std::fs::remove_dir_all(folder.path()).expect("removed");
        std::fs::write(folder.path(), "").expect("written");
        recorder.append(b"one", start);
        assert!(recorder.trouble().is_some());
        std::fs::remove_file(folder.path()).expect("removed");
        recorder.append(b"two", start + Duration::from_millis(999));
        assert_eq!(recorder.unspooled(), 6, "not tried yet");
        recorder.append(b"three", start + Duration::from_secs(1));
        assert_eq!(recorder.unspooled(), 6);
        assert!(recorder.trouble().is_none(), "told once");
        assert_eq!(offsets(&folder), [6], "named by its true offset");
        assert!(folder.path().join(START).exists());
        assert_eq!(segment_offset("stderr.00000000000000000006"), Some(6));
    }
}
