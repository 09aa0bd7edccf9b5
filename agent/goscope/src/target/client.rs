//! Our own questions to the target: one small GET, answered whole and within bounds.
//!
//! Each question has a connection of its own, so that between two of them nothing of ours is in the target: an idle connection would be a
//! goroutine that its own statistics show. What people ask goes through the gate instead, which streams.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;

use super::connect::{connect, nothing_listens};
use crate::config::TargetAddress;

/// From the connection's first packet to the answer's last byte.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the read buffer, which bounds the answer's head.
const BUFFER_BYTES_MAX: usize = 32 << 10;

/// Asks the target.
#[derive(Clone, Debug)]
pub struct Client {
    address: TargetAddress,
    host: HeaderValue,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("nothing listens at the target's address")]
    NotListening { source: std::io::Error },
    #[error("cannot connect to the target")]
    Connect { source: std::io::Error },
    #[error("the target did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    #[error("the target's answer is not HTTP or ended early")]
    Http { source: hyper::Error },
    #[error("the target answered {status}")]
    Status { status: StatusCode },
    #[error("the target's answer is longer than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
}

impl Client {
    #[must_use]
    pub fn new(address: TargetAddress) -> Self {
        let host = match &address {
            TargetAddress::Tcp(address) => {
                HeaderValue::from_str(&address.to_string()).expect("a socket address is ASCII")
            }
            TargetAddress::Unix(_) => HeaderValue::from_static("localhost"),
        };
        Self { address, host }
    }

    /// The body of the answer to `GET path`, which must be 200 and at most `limit_bytes` long.
    ///
    /// # Errors
    /// [`FetchError`]; after [`FETCH_TIMEOUT`] at the latest.
    pub async fn fetch(&self, path: &'static str, limit_bytes: usize) -> Result<Bytes, FetchError> {
        tokio::time::timeout(FETCH_TIMEOUT, self.exchange(path, limit_bytes)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(&self, path: &'static str, limit_bytes: usize) -> Result<Bytes, FetchError> {
        let stream = connect(&self.address).await.map_err(|source| {
            if nothing_listens(&source) { FetchError::NotListening { source } } else { FetchError::Connect { source } }
        })?;
        let http = |source| FetchError::Http { source };
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(stream).await.map_err(http)?;
        let request = self.request(path);
        let answer = async move {
            let response = sender.send_request(request).await.map_err(http)?;
            let status = response.status();
            if status != StatusCode::OK {
                return Err(FetchError::Status { status });
            }
            let body =
                Limited::new(response.into_body(), limit_bytes).collect().await.map_err(|error| match error
                    .downcast::<hyper::Error>()
                {
                    Ok(source) => FetchError::Http { source: *source },
                    Err(other) => {
                        debug_assert!(other.is::<LengthLimitError>());
                        FetchError::TooLong { limit_bytes }
                    }
                })?;
            Ok(body.to_bytes())
        };
        // Both are driven here rather than in a task of their own, so that a question that is dropped takes its connection with it. The connection
        // ends once the answer was taken or given up; its own error is the answer's too.
        let (answer, _connection_ended) = tokio::join!(answer, connection);
        answer
    }

    fn request(&self, path: &'static str) -> Request<Empty<Bytes>> {
        Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::HOST, self.host.clone())
            .header(header::USER_AGENT, concat!("goscope/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Empty::new())
            .expect("a constant path makes a request")
    }
}

#[cfg(test)]
mod tests;
