//! One small question to a socket of the pod, in a way that can hurt nobody: a whole request on a connection of its own, an answer of which little is
//! read, and an end soon. No redirect is followed.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use goscope_formats::parse_index_page;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::judge::{Heard, doors};

/// From the connection's first packet to the end of the question.
pub(super) const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer's body that are read. The list of profiles stands at the beginning of the index page.
const BODY_BYTES_MAX: usize = 8 << 10;
/// Bytes of the read buffer, which bounds an answer's head: the least that hyper takes.
const BUFFER_BYTES_MAX: usize = 8 << 10;
/// As which we are seen in the app's log.
const USER_AGENT: &str = concat!("goscope-selftest/", env!("CARGO_PKG_VERSION"));

/// Asks the socket that listens at `address` for pprof, and for expvar if it has pprof. Takes twice [`QUESTION_TIMEOUT`] at most for each of its doors.
pub(super) async fn ask(address: SocketAddr) -> Heard {
    for door in doors(address) {
        match fetch(door, "/debug/pprof/").await {
            Err(NoConnection) => {}
            Ok(answer) => {
                let mut heard = heard(answer.as_ref());
                if let Heard::Pprof { vars, .. } = &mut heard {
                    *vars = matches!(fetch(door, "/debug/vars").await, Ok(Some(answer)) if is_expvar(&answer));
                }
                return heard;
            }
        }
    }
    Heard::Nothing
}

/// What was read of an answer.
struct Answer {
    status: StatusCode,
    /// Its first [`BODY_BYTES_MAX`] bytes.
    body: Vec<u8>,
}

/// Whoever does not understand a plain GET is left in peace as one who says nothing; a server that expects TLS is such a one.
fn heard(answer: Option<&Answer>) -> Heard {
    match answer {
        None | Some(Answer { status: StatusCode::BAD_REQUEST, .. }) => Heard::Nothing,
        Some(Answer { status: StatusCode::OK, body }) => {
            let profiles = parse_index_page(body);
            // Any server may answer 200 here; only the page of net/http/pprof lists a profile of this name.
            let is_pprof = profiles.iter().any(|(name, _)| name == "goroutine");
            if is_pprof { Heard::Pprof { profiles: profiles.len(), vars: false } } else { Heard::Http }
        }
        Some(_) => Heard::Http,
    }
}

/// An object that begins with its smallest names; `cmdline` is always among them.
fn is_expvar(answer: &Answer) -> bool {
    let is_object = answer.body.trim_ascii_start().first() == Some(&b'{');
    answer.status == StatusCode::OK && is_object && memchr::memmem::find(&answer.body, b"\"cmdline\":").is_some()
}

/// Nobody took the connection.
#[derive(Debug)]
struct NoConnection;

/// `None` where the connection was taken and no answer came that is HTTP.
async fn fetch(door: SocketAddr, path: &'static str) -> Result<Option<Answer>, NoConnection> {
    let deadline = tokio::time::Instant::now() + QUESTION_TIMEOUT;
    let Ok(Ok(stream)) = tokio::time::timeout_at(deadline, TcpStream::connect(door)).await else {
        return Err(NoConnection);
    };
    Ok(tokio::time::timeout_at(deadline, exchange(stream, door, path)).await.ok().flatten())
}

async fn exchange(stream: TcpStream, door: SocketAddr, path: &'static str) -> Option<Answer> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream)).await.ok()?;
    let request = request(door, path);
    let answer = async move {
        let mut response = sender.send_request(request).await.ok()?;
        let mut body = Vec::new();
        while body.len() < BODY_BYTES_MAX
            && let Some(Ok(frame)) = response.frame().await
        {
            let bytes = frame.into_data().unwrap_or_default();
            body.extend(bytes.iter().take(BODY_BYTES_MAX.saturating_sub(body.len())));
        }
        Some(Answer { status: response.status(), body })
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    // The connection is driven here, so that it ends with the question. Where it ends first, what it has read is still to be taken.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ended = &mut connection => answer.await,
    }
}

fn request(door: SocketAddr, path: &'static str) -> Request<Empty<Bytes>> {
    Request::builder()
        .uri(path)
        .header(header::HOST, HeaderValue::from_str(&door.to_string()).expect("a socket address is ASCII"))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .expect("a constant path makes a request")
}

#[cfg(test)]
mod tests;
