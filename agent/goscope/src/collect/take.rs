//! Takes one capture from the target to the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::book::{Operation, State};
use super::check::Form;
use super::write::{self, Piece, WriteError};
use crate::config::TargetAddress;
use crate::model::ArtifactId;
use crate::pod::Pod;
use crate::store::Staged;
use crate::store::depot::{Closed, Depot};
use crate::store::meta::{self, Meta};
use crate::target::upstream::{BodyError, Upstream, UpstreamBody, UpstreamError};
use crate::telemetry;

/// Time that the target gets to begin its answer, and to go on with it, in addition to the seconds that were asked for.
const SLACK: Duration = Duration::from_secs(30);
/// Time that the whole answer may take in addition to the seconds that were asked for: a target that trickles must not hold its lane for ever.
const DELIVERY: Duration = Duration::from_secs(300);
/// Pieces between the target and the volume.
const PIECES: usize = 2;
/// How long the target waits for a volume that takes nothing. While a trace is not taken from it, it grows in the app's memory.
const VOLUME_PATIENCE: Duration = Duration::from_secs(10);
/// How long a capture that was given up waits for the writer to clear away what it had begun. A volume that does not answer holds up no other capture.
const CLEARING: Duration = Duration::from_secs(3);
/// How long a profiler that somebody has is asked for again, and how often: one whose connection was dropped just now ends a moment later.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Writers at the same time, with those that were given up because their volume does not answer: each is a thread.
pub(super) const WRITERS_MAX: usize = 8;
/// Bytes of a refusal of the target that are read, and characters that are repeated.
const REFUSAL_BYTES: usize = 4 << 10;
const REFUSAL_CHARS: usize = 300;

/// Where captures come from and go to.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) upstream: Arc<Upstream>,
    pub(super) depot: Depot,
    pub(super) host: String,
    pub(super) pod: Option<Pod>,
    /// One of [`WRITERS_MAX`] for each writer, for as long as its thread is in use.
    pub(super) writers: Arc<Semaphore>,
}

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    /// Cancelled, or the agent stops.
    #[error("the capture was cut")]
    Cut,
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("the target gave no answer within {} s", .patience.as_secs())]
    Target { source: UpstreamError, patience: Duration },
    #[error("the target answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the target's answer does not say where it ends, so nobody could tell whether it is whole")]
    Endless,
    #[error("the target's answer ended early, after {bytes} bytes; nothing of it is kept")]
    Broken { bytes: u64, source: BodyError },
    #[error("the target's answer took longer than {} s; nothing of it is kept", .0.as_secs())]
    Slow(Duration),
    #[error("the volume took nothing for {} s, so the capture was given up for the app's sake", VOLUME_PATIENCE.as_secs())]
    Stuck,
    #[error("the volume still holds up {} earlier captures", WRITERS_MAX)]
    Held,
    #[error(transparent)]
    Write(WriteError),
    #[error("goscope's own writer failed; please report it")]
    Fallen(#[source] tokio::task::JoinError),
}

impl TakeError {
    /// Go's words for a CPU profiler and for a tracer that serve somebody else.
    fn is_busy(&self) -> bool {
        let words = ["profiling already in use", "already enabled"];
        matches!(self, Self::Refused { text, .. } if words.iter().any(|words| text.contains(words)))
    }

    /// For who asked.
    pub(super) fn sentence(&self, target: &TargetAddress) -> String {
        match self {
            Self::Cut => "the agent was stopped before it was done".to_owned(),
            Self::Target { source, patience } => source.explain(target, *patience),
            Self::Closed(_) | Self::Refused { .. } | Self::Endless | Self::Slow(_) | Self::Stuck | Self::Held => {
                self.to_string()
            }
            Self::Broken { .. } | Self::Write(_) | Self::Fallen(_) => telemetry::chain(self),
        }
    }
}

/// Asks the target for what `operation` wants and stores it. Returns the artifact and its size as stored.
pub(super) async fn take(
    place: &Place,
    operation: &Operation,
    cut: &CancellationToken,
) -> Result<(ArtifactId, u64), TakeError> {
    let store = place.depot.store()?.clone();
    let permit = Arc::clone(&place.writers).try_acquire_owned().map_err(|_| TakeError::Held)?;
    let route = &operation.request.route;
    let length = Duration::from_millis(route.duration_ms());
    let patience = length + SLACK;
    let asked = Instant::now();
    let body = loop {
        let response = tokio::select! {
            biased;
            () = cut.cancelled() => return Err(TakeError::Cut),
            response = place.upstream.get(route.path_and_query(), patience) => response,
        };
        match accept(response.map_err(|source| TakeError::Target { source, patience })?, cut).await {
            Err(error) if error.is_busy() && asked.elapsed() < BUSY_PATIENCE => tokio::select! {
                () = cut.cancelled() => return Err(TakeError::Cut),
                () = tokio::time::sleep(BUSY_PAUSE) => {}
            },
            accepted => break accepted?,
        }
    };

    let started = match operation.state {
        State::Running { started } => started,
        State::Queued | State::Ended { .. } => operation.created,
    };
    let id = operation.id.at(started);
    let (piece_tx, piece_rx) = mpsc::channel(PIECES);
    let (form, kind) = (Form::of(route), route.profile.name());
    let meta = describe(operation, place, &id, started);
    let artifact = id.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write::write(&store, piece_rx, form, &artifact, kind, meta)
    });
    let handed = tokio::select! {
        biased;
        () = cut.cancelled() => Err(TakeError::Cut),
        handed = hand_over(body, piece_tx) => handed,
        () = tokio::time::sleep(length + DELIVERY) => Err(TakeError::Slow(length + DELIVERY)),
    };
    let bytes = finish(writer, handed, &place.depot).await?;
    Ok((id, bytes))
}

/// The answer's body, where it is one to keep.
async fn accept(response: Response<UpstreamBody>, cut: &CancellationToken) -> Result<UpstreamBody, TakeError> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        let has_end = body.size_hint().exact().is_some() || head.headers.contains_key(TRANSFER_ENCODING);
        return if has_end { Ok(body) } else { Err(TakeError::Endless) };
    }
    let text = tokio::select! {
        () = cut.cancelled() => return Err(TakeError::Cut),
        text = beginning(body) => text,
    };
    Err(TakeError::Refused { status: head.status, text })
}

/// The first line or so of a refusal, as far as it comes in time, fit for a sentence and a log.
async fn beginning(mut body: UpstreamBody) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < REFUSAL_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    };
    drop(tokio::time::timeout(SLACK, read).await);
    shown(&bytes)
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..REFUSAL_BYTES).unwrap_or(bytes)).into_owned();
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(REFUSAL_CHARS).collect()
}

/// Hands the body to the writer, piece by piece, and the end where it has one.
async fn hand_over<B>(mut body: B, piece_tx: Sender<Piece>) -> Result<(), TakeError>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let data: Bytes = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(source) => return Err(TakeError::Broken { bytes, source }),
        };
        bytes += data.len() as u64;
        match tokio::time::timeout(VOLUME_PATIENCE, piece_tx.send(Piece::Bytes(data))).await {
            Ok(Ok(())) => {}
            // A writer that is gone says itself why.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(TakeError::Stuck),
        }
    }
    drop(piece_tx.send(Piece::End).await);
    Ok(())
}

/// What came of it: the writer has the last word, unless nothing was handed over to its end.
async fn finish(
    writer: JoinHandle<Result<u64, WriteError>>,
    handed: Result<(), TakeError>,
    depot: &Depot,
) -> Result<u64, TakeError> {
    if let Err(error) = handed {
        drop(tokio::time::timeout(CLEARING, writer).await);
        return Err(error);
    }
    let written = match writer.await.map_err(TakeError::Fallen)? {
        Ok(bytes) => depot.note(Ok(bytes)).map_err(WriteError::Store),
        Err(WriteError::Store(error)) => depot.note(Err(error)).map_err(WriteError::Store),
        Err(error) => Err(error),
    };
    written.map_err(TakeError::Write)
}

fn describe(
    operation: &Operation,
    place: &Place,
    id: &ArtifactId,
    started: Timestamp,
) -> impl FnOnce(&Staged) -> Meta + Send + 'static {
    let (request, id) = (operation.request.clone(), id.to_string());
    let (host, pod) = (place.host.clone(), place.pod.clone());
    move |staged| Meta {
        schema: meta::SCHEMA.to_owned(),
        id,
        kind: request.route.profile.name().to_owned(),
        created: started.to_string(),
        host,
        pod,
        run: None,
        bytes: staged.bytes(),
        files: staged.files().to_vec(),
        pinned: false,
        requested_by: request.requested_by,
        trigger: Some(request.trigger),
        reason: request.reason,
        incident: None,
        seconds: request.route.seconds_taken(),
        debug: request.route.debug,
        summary: None,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn body() -> impl Body<Data = Bytes, Error = BodyError> + Unpin {
        Full::new(Bytes::from_static(b"profile")).map_err(|never| match never {})
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_that_takes_nothing_does_not_hold_up_the_app() {
        let (piece_tx, mut piece_rx) = mpsc::channel(1);
        piece_tx.send(Piece::End).await.unwrap();
        let begun = Instant::now();
        let handed = hand_over(body(), piece_tx.clone()).await;
        assert!(matches!(handed, Err(TakeError::Stuck)), "{handed:?}");
        assert!(begun.elapsed() >= VOLUME_PATIENCE);
        // One that is slow only is waited for.
        let slow = async {
            tokio::time::sleep(VOLUME_PATIENCE - Duration::from_millis(1)).await;
            piece_rx.recv().await;
            let got = piece_rx.recv().await;
            (got, piece_rx.recv().await)
        };
        let (handed, got) = tokio::join!(hand_over(body(), piece_tx), slow);
        assert!(handed.is_ok() && matches!(got, (Some(Piece::Bytes(_)), Some(Piece::End))), "{handed:?} {got:?}");
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_has_the_last_word() {
        let (piece_tx, piece_rx) = mpsc::channel(1);
        drop(piece_rx);
        assert!(hand_over(body(), piece_tx).await.is_ok());
    }

    #[test]
    fn a_busy_profiler_is_known_by_the_words_of_every_release() {
        for (text, expected) in [
            ("Could not enable CPU profiling: cpu profiling already in use", true),
            ("Could not enable tracing: runtime error: tracing is already enabled", true),
            ("Could not enable tracing: execution tracer already enabled", true),
            ("Could not enable tracing: no space", false),
            ("Unknown profile", false),
        ] {
            let error = TakeError::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() };
            assert_eq!(error.is_busy(), expected, "{text}");
        }
        assert!(!TakeError::Cut.is_busy());
    }

    #[test]
    fn a_refusal_is_shown_in_one_line() {
        assert_eq!(
            shown(b"Could not enable CPU profiling: cpu profiling already in use\n"),
            "Could not enable CPU profiling: cpu profiling already in use"
        );
        assert_eq!(shown(b"<h1>\n\t\x1b[31m404\x00\n</h1>"), "<h1> [31m404 </h1>");
        assert_eq!(shown(&[b'x'; REFUSAL_BYTES * 2]).len(), REFUSAL_CHARS);
        assert_eq!(shown(&[0xff, 0xfe]), "\u{fffd}\u{fffd}");
        assert_eq!(shown(b""), "");
    }
}
