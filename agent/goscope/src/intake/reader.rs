//! Follows one run of the spool, byte for byte, from a checkpoint on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::spool;

/// Listings of a run's folder for one read, where segments come and go meanwhile.
const LISTINGS_MAX: usize = 8;

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes were put into the buffer; they follow what was read before.
    Bytes(usize),
    /// The bytes in between never reached the spool or were deleted by its cap. Reading goes on at `to`.
    Gap { from: u64, to: u64 },
    /// Nothing new for now.
    Idle,
}

/// Reads the segments of one run in order.
#[derive(Debug)]
pub struct Reader {
    run: PathBuf,
    offset: u64,
    open: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    start: u64,
    file: File,
}

impl Reader {
    /// Begins at `offset` of the run's stream.
    #[must_use]
    pub fn new(run: &Path, offset: u64) -> Self {
        Self { run: run.to_owned(), offset, open: None }
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads what comes next, at most one buffer.
    ///
    /// # Errors
    /// The run's folder or a segment cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        if let Some(read) = self.read_open(buffer)? {
            return Ok(Read::Bytes(read));
        }
        // The open segment is at its end: either the writer is still in it, or there is a newer one.
        for _ in 0..LISTINGS_MAX {
            let segments = spool::segments(&self.run)?;
            if let Some(read) = self.read_listed(&segments, buffer)? {
                return Ok(read);
            }
        }
        Ok(Read::Idle)
    }

    /// `None` where the listing no longer tells what is there.
    fn read_listed(&mut self, segments: &[(u64, PathBuf)], buffer: &mut [u8]) -> io::Result<Option<Read>> {
        let next = segments.iter().rev().find(|(start, _)| *start <= self.offset);
        if let Some((start, path)) = next
            && self.open.as_ref().is_none_or(|open| open.start != *start)
        {
            match File::open(path) {
                Ok(file) => self.open = Some(Segment { start: *start, file }),
                // The launcher's cap took it since the listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(read) = self.read_open(buffer)? {
                return Ok(Some(Read::Bytes(read)));
            }
        }
        let Some((start, _)) = segments.iter().find(|(start, _)| *start > self.offset) else {
            return Ok(Some(Read::Idle));
        };
        // The writer may have filled the segment at hand between our read and the listing.
        if self.available()? {
            return Ok(Some(Read::Bytes(self.read_open(buffer)?.unwrap_or(0))));
        }
        // A long listing that is made while segments come may show the second of two new ones and not the first.
        let is_at_hand = self.open.as_ref().is_some_and(|open| open.start == self.offset);
        if !is_at_hand && self.run.join(spool::segment_name(self.offset)).exists() {
            return Ok(None);
        }
        let gap = Read::Gap { from: self.offset, to: *start };
        self.offset = *start;
        self.open = None;
        Ok(Some(gap))
    }

    fn available(&self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(false) };
        Ok(open.file.metadata()?.len() > self.offset.saturating_sub(open.start))
    }

    fn read_open(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(open) = &self.open else { return Ok(None) };
        let Some(at) = self.offset.checked_sub(open.start) else { return Ok(None) };
        let read = open.file.read_at(buffer, at)?;
        self.offset += read as u64;
        Ok((read > 0).then_some(read))
    }
}

/// Copies the bytes `[from, to)` of a run to `out`, as far as the spool still has them. Returns how many were missing.
///
/// # Errors
/// A segment cannot be read, or `out` cannot be written.
pub fn copy(run: &Path, from: u64, to: u64, out: &mut impl io::Write) -> io::Result<u64> {
    let mut reader = Reader::new(run, from);
    let mut buffer = vec![0; COPY_BYTES];
    let mut missing = 0;
    while reader.offset() < to {
        let want = usize::try_from(to - reader.offset()).unwrap_or(usize::MAX).min(COPY_BYTES);
        match reader.read(buffer.get_mut(..want).unwrap_or_default())? {
            Read::Bytes(read) => out.write_all(buffer.get(..read).unwrap_or_default())?,
            Read::Gap { from, to: end } => missing += end.min(to) - from,
            Read::Idle => return Ok(missing + (to - reader.offset())),
        }
    }
    Ok(missing)
}

const COPY_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn segment(run: &Path, offset: u64, bytes: &[u8]) {
        fs::write(run.join(spool::segment_name(offset)), bytes).unwrap();
    }

    fn read_all(reader: &mut Reader, buffer: usize) -> (Vec<u8>, Vec<(u64, u64)>) {
        let (mut bytes, mut gaps, mut buffer) = (Vec::new(), Vec::new(), vec![0; buffer]);
        loop {
            match reader.read(&mut buffer).unwrap() {
                Read::Bytes(read) => bytes.extend_from_slice(&buffer[..read]),
                Read::Gap { from, to } => gaps.push((from, to)),
                Read::Idle => return (bytes, gaps),
            }
        }
    }

    #[test]
    fn segments_are_one_stream_and_growth_is_seen() {
        let run = tempfile::tempdir().unwrap();
        segment(run.path(), 0, b"hello ");
        let mut reader = Reader::new(run.path(), 0);
        assert_eq!(read_all(&mut reader, 4), (b"hello ".to_vec(), vec![]));
        segment(run.path(), 0, b"hello dear ");
        segment(run.path(), 11, b"world");
        assert_eq!(read_all(&mut reader, 64), (b"dear world".to_vec(), vec![]));
        assert_eq!(reader.offset(), 16);
    }

    #[test]
    fn missing_offsets_are_a_gap() {
        let run = tempfile::tempdir().unwrap();
        segment(run.path(), 10, b"abc");
        segment(run.path(), 20, b"def");
        assert_eq!(read_all(&mut Reader::new(run.path(), 0), 64), (b"abcdef".to_vec(), vec![(0, 10), (13, 20)]));
        assert_eq!(read_all(&mut Reader::new(run.path(), 12), 64), (b"cdef".to_vec(), vec![(13, 20)]));
    }

    #[test]
    fn a_listing_that_is_out_of_date_is_made_again() {
        let run = tempfile::tempdir().unwrap();
        let path = |offset| run.path().join(spool::segment_name(offset));
        segment(run.path(), 10, b"abc");
        let mut reader = Reader::new(run.path(), 0);
        // The cap took the first segment after the listing.
        let gone = [(0, path(0)), (10, path(10))];
        assert_eq!(reader.read_listed(&gone, &mut [0; 64]).unwrap(), None);
        assert_eq!(read_all(&mut reader, 64), (b"abc".to_vec(), vec![(0, 10)]));
        // A segment came while the folder was listed, and only the one after it is in the listing.
        segment(run.path(), 13, b"def");
        segment(run.path(), 16, b"ghi");
        let late = [(10, path(10)), (16, path(16))];
        assert_eq!(reader.read_listed(&late, &mut [0; 64]).unwrap(), None);
        assert_eq!(read_all(&mut reader, 64), (b"defghi".to_vec(), vec![]));
    }

    #[test]
    fn a_copy_tells_what_is_missing() {
        let run = tempfile::tempdir().unwrap();
        segment(run.path(), 10, b"abc");
        segment(run.path(), 20, b"def");
        let mut out = Vec::new();
        assert_eq!(copy(run.path(), 5, 22, &mut out).unwrap(), 5 + 7);
        assert_eq!(out, b"abcde");
        let mut out = Vec::new();
        assert_eq!(copy(run.path(), 20, 30, &mut out).unwrap(), 7);
        assert_eq!(out, b"def");
    }

    proptest! {
        #[test]
        fn any_split_into_segments_reads_the_same(bytes in prop::collection::vec(any::<u8>(), 0..2000), cuts in prop::collection::vec(1_usize..300, 0..20), buffer in 1_usize..500) {
            let run = tempfile::tempdir().unwrap();
            let mut at = 0;
            for cut in cuts {
                let end = (at + cut).min(bytes.len());
                if end > at {
                    segment(run.path(), at as u64, &bytes[at..end]);
                }
                at = end;
            }
            if at < bytes.len() {
                segment(run.path(), at as u64, &bytes[at..]);
            }
            prop_assert_eq!(read_all(&mut Reader::new(run.path(), 0), buffer), (bytes, vec![]));
        }
    }
}
