//! Writes one capture to the store, on a thread that may wait: pieces in, an artifact out, or nothing.

use std::io;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tokio::sync::mpsc::Receiver;

use super::CAPTURE_BYTES_MAX;
use super::check::{Check, Form, Unexpected};
use crate::config::units::size_text;
use crate::model::ArtifactId;
use crate::store::meta::Meta;
use crate::store::{Staged, Store, StoreError};

/// The one file of a capture.
const CONTENT: &str = "content.gz";
/// Bytes between two looks at what the volume has left.
const LOOK_BYTES: u64 = 4 << 20;

/// Of gzip.
const LEVEL: u32 = 2;

/// What the writer is handed.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// It was whole. Without it, it was not.
    End,
}

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Whoever handed it over knows why.
    #[error("the capture was cut before its end")]
    Cut,
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error("the capture is longer than {}, which is the most that one may hold; nothing of it is kept", rough(*.0))]
    TooLong(u64),
    #[error("the volume has {} left, and {} are kept free on it (store.reserveBytes); nothing of the capture is kept", rough(*.free), rough(*.reserve))]
    Reserve { free: u64, reserve: u64 },
    #[error("the capture cannot be stored")]
    Store(#[from] StoreError),
}

/// Stores what comes until [`Piece::End`] as the artifact `id`. `meta` is told of the staged file.
///
/// # Errors
/// Nothing of it is in the store then.
pub(super) fn write(
    store: &Store,
    pieces: Receiver<Piece>,
    form: Form,
    id: &ArtifactId,
    kind: &str,
    meta: impl FnOnce(&Staged) -> Meta,
) -> Result<u64, WriteError> {
    let limit = CAPTURE_BYTES_MAX.min(store.config().max_bytes / 2);
    let mut staged = store.stage()?;
    let mut problem = None;
    let filled = staged.file(CONTENT, |file| {
        let copied = if form.is_gzip() {
            copy(store, pieces, file, form, limit)
        } else {
            // It shares the processor with the app. The second level leaves 28 % of a busy program's trace; the first 44 % in half the time, the sixth 27 %
            // in three times as long.
            let mut encoder = GzEncoder::new(file, Compression::new(LEVEL));
            copy(store, pieces, &mut encoder, form, limit).and_then(|()| Ok(encoder.finish().map(drop)?))
        };
        copied.map_err(|failure| match failure {
            Failure::Volume(error) => error,
            Failure::Capture(error) => {
                problem = Some(error);
                io::ErrorKind::InvalidData.into()
            }
        })
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    filled?;
    let bytes = staged.bytes();
    store.commit(staged, id, kind, meta)?;
    store.evict(Timestamp::now(), Some(id));
    Ok(bytes)
}

/// In whole MiB, KiB or bytes.
fn rough(bytes: u64) -> String {
    let shift = [20, 10].into_iter().find(|shift| bytes >> shift >= 10).unwrap_or_default();
    size_text(bytes >> shift << shift)
}

enum Failure {
    Volume(io::Error),
    Capture(WriteError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Volume(error)
    }
}

fn copy(
    store: &Store,
    mut pieces: Receiver<Piece>,
    out: &mut impl io::Write,
    form: Form,
    limit: u64,
) -> Result<(), Failure> {
    let capture = |error: WriteError| Failure::Capture(error);
    let mut check = Check::new(form);
    let (mut length, mut looked) = (0_u64, None);
    loop {
        if looked.is_none_or(|at| length.saturating_sub(at) >= LOOK_BYTES) {
            looked = Some(length);
            let reserve = store.config().reserve_bytes;
            if let Some(free) = store.free_bytes().filter(|free| *free < reserve) {
                return Err(capture(WriteError::Reserve { free, reserve }));
            }
        }
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => {
                check.push(&bytes).map_err(|error| capture(error.into()))?;
                length = length.saturating_add(bytes.len() as u64);
                if length > limit {
                    return Err(capture(WriteError::TooLong(limit)));
                }
                out.write_all(&bytes)?;
            }
            Some(Piece::End) => return check.finish().map_err(|error| capture(error.into())),
            None => return Err(capture(WriteError::Cut)),
        }
    }
}

#[cfg(test)]
mod tests;
