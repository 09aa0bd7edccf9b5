//! Bytes of a stored file as the body of an answer: piece by piece, so that memory does not grow with the file, and off the async thread.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::reading::Reading;

/// Bytes of one piece.
const PIECE_BYTES: u64 = 64 << 10;

/// A part of a file, and what is said after it.
pub(super) struct FileBody {
    reading: Reading,
    state: State,
    /// Bytes of the file that are still to come.
    remaining: u64,
    tail: Bytes,
}

/// The file, and bytes of it.
type Piece = io::Result<(File, Vec<u8>)>;

enum State {
    Idle(File),
    Busy(Pin<Box<dyn Future<Output = Piece> + Send>>),
    /// The file failed or is finished.
    Over,
}

impl FileBody {
    /// `range` of `file`, then `tail`.
    pub(super) fn new(reading: Reading, file: File, range: Range<u64>, tail: Bytes) -> Self {
        let remaining = range.end.saturating_sub(range.start);
        let first = piece(reading.clone(), file, Some(range.start), remaining.min(PIECE_BYTES));
        Self { reading, state: State::Busy(Box::pin(first)), remaining, tail }
    }
}

/// The next bytes of a file, exactly `bytes` of them.
async fn piece(reading: Reading, mut file: File, start: Option<u64>, bytes: u64) -> Piece {
    let slot = reading.slot().await;
    let read = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        if let Some(start) = start {
            file.seek(SeekFrom::Start(start))?;
        }
        let mut piece = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.read_exact(&mut piece)?;
        Ok((file, piece))
    });
    read.await.map_err(io::Error::other)?
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            if this.remaining == 0 {
                this.state = State::Over;
                let tail = std::mem::take(&mut this.tail);
                return Poll::Ready((!tail.is_empty()).then(|| Ok(Frame::data(tail))));
            }
            match std::mem::replace(&mut this.state, State::Over) {
                State::Idle(file) => {
                    let next = piece(this.reading.clone(), file, None, this.remaining.min(PIECE_BYTES));
                    this.state = State::Busy(Box::pin(next));
                }
                State::Busy(mut next) => {
                    let Poll::Ready(read) = next.as_mut().poll(cx) else {
                        this.state = State::Busy(next);
                        return Poll::Pending;
                    };
                    let (file, piece) = match read {
                        Ok(read) => read,
                        Err(error) => {
                            tracing::error!(%error, "stored file cannot be read to its end");
                            return Poll::Ready(Some(Err(error)));
                        }
                    };
                    this.remaining = this.remaining.saturating_sub(piece.len() as u64);
                    this.state = State::Idle(file);
                    return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0 && self.tail.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining.saturating_add(self.tail.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalogue::Volume;
    use http_body_util::BodyExt as _;

    async fn read(length: u64, range: Range<u64>, tail: &'static str) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content(length)).unwrap();
        let reading = Reading::new(Volume::new(dir.path().into(), None));
        let body = FileBody::new(reading, File::open(path).unwrap(), range, Bytes::from_static(tail.as_bytes()));
        let promised = body.size_hint().exact();
        let bytes = body.collect().await?.to_bytes().to_vec();
        assert_eq!(promised, Some(bytes.len() as u64));
        Ok(bytes)
    }

    fn content(length: u64) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn pieces_join() {
        let length = 2 * PIECE_BYTES + 17;
        let whole = content(length);
        for (start, end) in
            [(0, length), (0, 1), (length - 1, length), (PIECE_BYTES - 1, PIECE_BYTES + 1), (0, PIECE_BYTES)]
        {
            let expected = &whole[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
            assert_eq!(read(length, start..end, "").await.unwrap(), expected, "{start}..{end}");
        }
        let all = [&whole[..], b"tail"].concat();
        assert_eq!(read(length, 0..length, "tail").await.unwrap(), all);
        assert_eq!(read(0, 0..0, "").await.unwrap(), b"");
        assert_eq!(read(0, 0..0, "tail").await.unwrap(), b"tail");
    }

    #[tokio::test]
    async fn a_file_that_ends_early_breaks_the_body_off() {
        let error = read(10, 0..11, "tail").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
