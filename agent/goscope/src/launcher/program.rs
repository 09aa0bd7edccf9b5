//! Copies the app's Go build information from its executable into the spool, because an agent in another container cannot read that file.
//!
//! The launcher understands none of it: it looks for the mark that the Go linker sets, at the head of the first segment that is written, and copies
//! what stands behind it; the agent reads the copy (`goscope_formats::read_build_info_copy`). This is done by a thread of its own after the app has
//! started, so that a slow disk holds up neither the app nor a signal. Whatever goes wrong leaves an empty file, which says: there is nothing to wait for.
//! An app that dies at once may be faster than that; the exit record then waits for the copy, for a bounded time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::recorder::RunFolder;
use crate::spool::BUILD_INFO;

/// What the linker's mark begins with (`src/debug/buildinfo/buildinfo.go`); it stands at a multiple of [`ALIGN`].
const MARK: &[u8] = b"\xff Go buildinf:";
/// What the go command puts behind the modules (`src/cmd/go/internal/modload/build.go`); what stands behind it is the app's own data.
const END: &[u8] = b"\xf9\x32\x43\x31\x86\x18\x20\x72\x00\x82\x42\x10\x41\x16\xd8\xf2";
const ALIGN: usize = 16;
/// Bytes of the executable's beginning that are looked at: its header, and the table of segments that linkers put behind it.
const HEAD_BYTES: usize = 4096;
/// Bytes of the segment that are searched. The linker puts the mark first; in a program with C in it the tables of C stand before it.
const SEARCH_BYTES_MAX: usize = 16 << 20;
/// Bytes that are copied: room for the modules of the largest programs.
const COPY_BYTES_MAX: usize = 128 << 10;
/// Bytes read at once.
const STEP_BYTES: usize = 64 << 10;
const STACK_BYTES: usize = 64 << 10;

/// A copy that is under way. Nothing is ever sent: the channel ends with the thread.
#[derive(Debug)]
pub(super) struct Noting(Receiver<()>);

impl Noting {
    /// Waits until the copy is done or has failed, but not longer than `patience`.
    pub(super) fn wait(&self, patience: Duration) {
        self.0.recv_timeout(patience).ok();
    }
}

/// Begins to copy in a thread. Where there is no thread to be had, the incidents lack the app's version.
pub(super) fn note(executable: Option<PathBuf>, folder: Arc<RunFolder>) -> Noting {
    let (done_tx, done_rx) = channel();
    let copy = move || {
        let found = executable.and_then(|path| build_info(&path)).unwrap_or_default();
        // The recorder tells of a spool that fails.
        folder.write_beside(BUILD_INFO, &found).ok();
        drop(done_tx);
    };
    drop(std::thread::Builder::new().name("program".to_owned()).stack_size(STACK_BYTES).spawn(copy));
    Noting(done_rx)
}

/// The mark and what stands behind it; `None` where there is none.
fn build_info(executable: &Path) -> Option<Vec<u8>> {
    let file = File::open(executable).ok()?;
    let (start, len) = data_segment(&read(&file, 0, HEAD_BYTES)?)?;
    let mut searched = 0;
    while searched < len.min(SEARCH_BYTES_MAX) {
        let at = start.checked_add(u64::try_from(searched).ok()?)?;
        let chunk = read(&file, at, STEP_BYTES.min(len - searched))?;
        // Chunks begin where the mark may begin, so that it never straddles two.
        let mut found = memchr::memmem::find_iter(&chunk, MARK);
        if let Some(offset) = found.find(|offset| offset % ALIGN == 0) {
            let at = at.checked_add(u64::try_from(offset).ok()?)?;
            let mut copy = read(&file, at, COPY_BYTES_MAX.min(len - searched - offset))?;
            let end = memchr::memmem::find(&copy, END).map_or(copy.len(), |end| end + END.len());
            copy.truncate(end);
            return Some(copy);
        }
        if chunk.len() < STEP_BYTES {
            return None;
        }
        searched += STEP_BYTES;
    }
    None
}

/// Offset and length in the file of the first segment that is loaded, written and not executed, of a 64-bit file of this machine's byte order.
fn data_segment(head: &[u8]) -> Option<(u64, usize)> {
    const LOAD: u32 = 1;
    const EXECUTE: u32 = 1;
    const WRITE: u32 = 2;
    let wide = |bytes: &[u8], at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_ne_bytes(*head.get(at..)?.first_chunk()?));
    if !head.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let table = head.get(usize::try_from(wide(head, 32)?).ok()?..)?;
    let (row_bytes, rows) = (usize::from(half(54)?).max(1), usize::from(half(56)?));
    let is_data = |row: &&[u8]| {
        word(row, 0) == Some(LOAD) && word(row, 4).is_some_and(|flags| flags & (EXECUTE | WRITE) == WRITE)
    };
    let row = table.chunks_exact(row_bytes).take(rows).find(is_data)?;
    // The mark is aligned in memory, and so in the file, where a segment may begin in the middle of a page.
    let (offset, len) = (wide(row, 8)?, wide(row, 32)?);
    let skipped = offset.checked_next_multiple_of(ALIGN as u64)? - offset;
    Some((offset + skipped, usize::try_from(len.checked_sub(skipped)?).ok()?))
}

/// At most `len` bytes from `at` on, fewer at the end of the file.
fn read(file: &File, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.checked_add(u64::try_from(filled).ok()?)?).ok()? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::StartRecord;

    /// A file of one segment that is written, at `offset`, behind one that is executed.
    fn elf(offset: usize, segment: &[u8]) -> Vec<u8> {
        let mut file = vec![0; offset];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02");
        put(32, &64_u64.to_ne_bytes());
        put(54, &56_u16.to_ne_bytes());
        put(56, &2_u16.to_ne_bytes());
        for (row, flags) in [(64, 5_u32), (120, 6)] {
            put(row, &1_u32.to_ne_bytes());
            put(row + 4, &flags.to_ne_bytes());
        }
        put(120 + 8, &(offset as u64).to_ne_bytes());
        put(120 + 32, &(segment.len() as u64).to_ne_bytes());
        file.extend(segment);
        file
    }

    fn found(file: &[u8]) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("app");
        std::fs::write(&path, file).expect("written");
        build_info(&path)
    }

    #[test]
    fn who_waits_finds_the_copy() {
        let spool = tempfile::tempdir().expect("a folder");
        let start = StartRecord {
            started_unix_ms: 0,
            command: Vec::new(),
            executable: None,
            working_directory: None,
            environment: Vec::new(),
        };
        let folder = Arc::new(RunFolder::create(spool.path(), "run", &start).expect("a folder"));
        note(None, Arc::clone(&folder)).wait(Duration::from_secs(60));
        assert_eq!(std::fs::read(folder.path().join(BUILD_INFO)).expect("a copy"), b"");
    }

    #[test]
    fn it_is_found_behind_what_c_puts_before_it() {
        let info = [MARK, b" and the modules"].concat();
        for before in [0, 16, STEP_BYTES - 16, STEP_BYTES, 3 * STEP_BYTES + 32] {
            let segment = [&vec![7; before], &info[..]].concat();
            assert_eq!(found(&elf(512, &segment)), Some(info.clone()), "{before}");
            let segment = [&vec![7; before + 8], &info[..]].concat();
            assert_eq!(found(&elf(512 - 8, &segment)), Some(info.clone()), "{before}, aligned in the file only");
            assert_eq!(found(&elf(512, &segment)), None, "{before}, not aligned");
        }
    }

    #[test]
    fn the_apps_own_data_is_not_copied() {
        let info = [MARK, b" and the modules", END].concat();
        assert_eq!(found(&elf(512, &[&info[..], b"data"].concat())), Some(info));
    }

    #[test]
    fn search_and_copy_are_bounded() {
        let at = |before: usize| found(&elf(512, &[&vec![0; before], MARK, &vec![1; 2 * COPY_BYTES_MAX]].concat()));
        assert_eq!(at(0).map(|copy| copy.len()), Some(COPY_BYTES_MAX));
        assert_eq!(at(SEARCH_BYTES_MAX - STEP_BYTES).map(|copy| copy.len()), Some(COPY_BYTES_MAX));
        assert_eq!(at(SEARCH_BYTES_MAX), None);
    }

    #[test]
    fn what_is_no_such_file_has_none() {
        assert_eq!(found(b"#!/bin/sh\nexec /shop\n"), None);
        assert_eq!(found(b""), None);
        assert_eq!(build_info(Path::new("/nowhere")), None);
        let whole = elf(512, MARK);
        for len in 0..whole.len() {
            // Cut anywhere, it is read to its end and not beyond.
            assert!(found(&whole[..len]).is_none(), "{len} bytes");
        }
        let mut lying = whole.clone();
        for at in [32, 120 + 8, 120 + 32] {
            lying[at..at + 8].copy_from_slice(&u64::MAX.to_ne_bytes());
            assert_eq!(found(&lying), None, "{at}");
        }
    }
}
