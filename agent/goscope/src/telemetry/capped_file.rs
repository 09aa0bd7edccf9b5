//! A log file of bounded size with one older generation beside it: `agent.log` and `agent.log.1`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Appends to a file; the write that would take it past its bound moves the file to `<name>.1` first, replacing the one that is there.
///
/// Each write goes to one file whole, so lines are never torn as long as one write holds one line. Several processes may share the file: each notices
/// when another has moved it away, at the latest when what it has open reaches the bound.
#[derive(Debug)]
pub struct CappedFile {
    path: PathBuf,
    bytes_max: u64,
    file: File,
    /// Bytes of `file` as far as this process knows; others may have appended more.
    bytes: u64,
}

impl CappedFile {
    /// Opens `path` for appending, or creates it readable by its owner only. A symbolic link is not followed.
    ///
    /// # Errors
    /// As opening a file.
    pub fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, bytes_max, file, bytes })
    }

    /// Makes room for `incoming` bytes. The path is opened afresh before it is judged: another process may have moved the file that is open here.
    fn rotate(&mut self, incoming: u64) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        if self.bytes > 0 && self.bytes.saturating_add(incoming) > self.bytes_max {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            self.file = append_to(&self.path)?;
            self.bytes = 0;
        }
        Ok(())
    }
}

impl Write for CappedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let incoming = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.bytes.saturating_add(incoming) > self.bytes_max {
            self.rotate(incoming)?;
        }
        let written = self.file.write(line)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn log(folder: &tempfile::TempDir, bytes_max: u64) -> CappedFile {
        CappedFile::open(folder.path().join("agent.log"), bytes_max).expect("opened")
    }

    fn text(folder: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(folder.path().join(name)).expect("read")
    }

    #[test]
    fn two_generations_are_kept_and_no_line_is_torn() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = log(&folder, 10);
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            log.write_all(line.as_bytes()).expect("written");
        }
        assert_eq!(text(&folder, "agent.log"), "four\nfive\n");
        assert_eq!(text(&folder, "agent.log.1"), "three\n");
    }

    #[test]
    fn a_line_over_the_bound_has_a_generation_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = log(&folder, 4);
        for line in ["longer than four\n", "x\n"] {
            log.write_all(line.as_bytes()).expect("written");
        }
        assert_eq!(text(&folder, "agent.log.1"), "longer than four\n");
        assert_eq!(text(&folder, "agent.log"), "x\n");
    }

    #[test]
    fn what_an_earlier_process_wrote_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        log(&folder, 10).write_all(b"earlier\n").expect("written");
        let mut log = log(&folder, 10);
        log.write_all(b"later\n").expect("written");
        assert_eq!(text(&folder, "agent.log.1"), "earlier\n");
        assert_eq!(text(&folder, "agent.log"), "later\n");
    }

    #[test]
    fn a_second_writer_does_not_push_the_newest_lines_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut ours, mut theirs) = (log(&folder, 12), log(&folder, 12));
        ours.write_all(b"ours 1\n").expect("written");
        theirs.write_all(b"their 2\n").expect("written");
        ours.write_all(b"ours 3\n").expect("written");
        assert_eq!(text(&folder, "agent.log"), "ours 3\n");
        assert_eq!(text(&folder, "agent.log.1"), "ours 1\ntheir 2\n");
        theirs.write_all(b"last\n").expect("written");
        assert_eq!(text(&folder, "agent.log"), "ours 3\nlast\n");
    }

    #[test]
    fn the_file_is_its_owners_and_a_link_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        log(&folder, 10);
        let mode = std::fs::metadata(folder.path().join("agent.log")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::fs::symlink("agent.log", folder.path().join("link.log")).expect("linked");
        CappedFile::open(folder.path().join("link.log"), 10).expect_err("a link");
    }
}
