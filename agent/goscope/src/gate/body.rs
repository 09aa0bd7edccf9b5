//! The bodies of the gate's answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::account::Account;
use super::audit::Ended;
use crate::target::upstream::{BodyError, UpstreamBody};

/// The body of an answer.
#[derive(Debug)]
pub enum GateBody {
    /// Ours, complete.
    Full(Bytes),
    /// The target's, as it comes.
    Stream { body: UpstreamBody, account: Option<Box<Account>> },
    /// The API's, as it comes.
    Own { body: axum::body::Body, account: Option<Box<Account>> },
    /// Of another part behind the same listener.
    Other(axum::body::Body),
}

/// Why a body broke off. The connection is then broken off as well, so that the client sees it.
#[derive(Debug, thiserror::Error)]
pub enum GateBodyError {
    #[error(transparent)]
    Target(#[from] BodyError),
    #[error(transparent)]
    Other(#[from] axum::Error),
}

impl Body for GateBody {
    type Data = Bytes;
    type Error = GateBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GateBodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Other(body) => Pin::new(body).poll_frame(cx).map_err(GateBodyError::Other),
            Self::Own { body, account } => {
                let polled = Pin::new(&mut *body).poll_frame(cx);
                let Some(open) = account else { return polled.map_err(GateBodyError::Other) };
                match &polled {
                    Poll::Pending => {}
                    Poll::Ready(Some(Ok(frame))) => {
                        open.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                        if body.is_end_stream() {
                            open.ended = Ended::Complete;
                        }
                    }
                    Poll::Ready(None) => {
                        open.ended = Ended::Complete;
                        *account = None;
                    }
                    Poll::Ready(Some(Err(_))) => {
                        open.ended = Ended::VolumeCut;
                        *account = None;
                    }
                }
                polled.map_err(GateBodyError::Other)
            }
            Self::Stream { body, account } => {
                let polled = Pin::new(&mut *body).poll_frame(cx);
                let Some(open) = account else { return polled.map_err(GateBodyError::Target) };
                match &polled {
                    Poll::Pending => {}
                    Poll::Ready(Some(Ok(frame))) => {
                        open.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                        if body.is_end_stream() {
                            open.ended = Ended::Complete;
                        }
                    }
                    Poll::Ready(None) => {
                        open.ended = Ended::Complete;
                        *account = None;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        open.ended = match error {
                            BodyError::Cut(_) => Ended::TargetCut,
                            BodyError::Stalled => Ended::TargetStalled,
                        };
                        *account = None;
                    }
                }
                polled.map_err(GateBodyError::Target)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream { body, .. } => body.is_end_stream(),
            Self::Own { body, .. } | Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { body, .. } => body.size_hint(),
            Self::Own { body, .. } | Self::Other(body) => body.size_hint(),
        }
    }
}
