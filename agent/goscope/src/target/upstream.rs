//! The way to the target: a request built from scratch, an answer handed on frame by frame.
//!
//! Each connection to the target is driven by the request that uses it and by nobody else. So when the client leaves, the request is dropped, the
//! connection with it, and Go ends a CPU profile that nobody waits for; and the target is read only as fast as the client takes.
//! Connections whose answer was read to its end wait in a small pool.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Sleep, timeout};

use super::connect::{TargetStream, connect};
use super::opening::opening;
use crate::config::TargetAddress;
use crate::config::render::target_text;

/// Connections that wait for the next request.
const IDLE_MAX: usize = 8;
/// A connection that waited longer is closed; Go closes its end after the server's `IdleTimeout`, usually never.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A waiting connection that ends later than this after a request was sent on it did not end by chance.
const CLOSE_RACE: Duration = Duration::from_millis(500);
/// Bytes read from the target at once, at most. Measured: half of it costs 7 % of throughput, twice
/// of it gains nothing and holds more memory for each answer under way.
const READ_BYTES: usize = 512 << 10;
/// The same where memory matters more than throughput.
const READ_BYTES_FRUGAL: usize = 64 << 10;

/// A client of the target, for answers of any length.
#[derive(Debug)]
pub struct Upstream {
    address: TargetAddress,
    host: HeaderValue,
    idle: Mutex<Vec<Link>>,
    idle_max: usize,
    read_bytes: usize,
}

/// Why the target gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("the connection ended before the answer")]
    Closed(#[source] hyper::Error),
    #[error("the answer is not HTTP")]
    Protocol(#[source] hyper::Error),
}

impl UpstreamError {
    /// What is wrong and what to do about it, in a sentence for a person.
    #[must_use]
    pub fn explain(&self, address: &TargetAddress, patience: Duration) -> String {
        let target = target_text(address);
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => format!(
                "the app's socket {target} may not be opened by goscope (permission denied); its owner or mode must admit goscope's user"
            ),
            Self::Connect(error) => {
                format!(
                    "nothing answers at {target} ({error}); the app opens it with\n    {}",
                    opening(address).join("\n    ")
                )
            }
            Self::Timeout => format!("the app at {target} did not answer within {} s", patience.as_secs()),
            Self::Closed(_) => format!(
                "the app at {target} closed the connection before it answered; it may have ended or may be ending"
            ),
            Self::Protocol(_) => format!("what listens at {target} does not answer in HTTP/1.1"),
        }
    }
}

type Driver = Pin<Box<Connection<TokioIo<TargetStream>, Empty<Bytes>>>>;

/// One connection and the half-finished exchange on it.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Empty<Bytes>>,
    /// `None` when the connection is over.
    connection: Option<Driver>,
    parked: Instant,
}

impl Upstream {
    /// A client for those who ask often: it keeps connections.
    #[must_use]
    pub fn pooled(address: TargetAddress) -> Arc<Self> {
        Self::new(address, IDLE_MAX, READ_BYTES)
    }

    /// A client for those who ask seldom: it leaves no connection behind, and holds little memory for each answer.
    #[must_use]
    pub fn frugal(address: TargetAddress) -> Arc<Self> {
        Self::new(address, 0, READ_BYTES_FRUGAL)
    }

    fn new(address: TargetAddress, idle_max: usize, read_bytes: usize) -> Arc<Self> {
        let host = match &address {
            TargetAddress::Tcp(address) => HeaderValue::try_from(address.to_string()),
            TargetAddress::Unix(_) => Ok(HeaderValue::from_static("localhost")),
        };
        let host = host.expect("an address has only characters of a header");
        Arc::new(Self { address, host, idle: Mutex::new(Vec::new()), idle_max, read_bytes })
    }

    #[must_use]
    pub fn address(&self) -> &TargetAddress {
        &self.address
    }

    /// Asks the target and waits for the head of its answer, at most `patience`; then each further frame may take as long.
    ///
    /// Nothing of the client's request is in what is sent.
    ///
    /// # Errors
    /// No connection, no answer, or none that is HTTP.
    pub async fn get(
        self: &Arc<Self>,
        target: PathAndQuery,
        patience: Duration,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let answer = timeout(patience, self.exchange(target)).await.map_err(|_| UpstreamError::Timeout)?;
        let (head, incoming, link) = answer?;
        let body = UpstreamBody {
            link: Some(link),
            incoming,
            upstream: Arc::clone(self),
            patience,
            stall: None,
            progress: true,
        };
        Ok(Response::from_parts(head, body))
    }

    /// Closes connections that waited too long.
    pub fn trim(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|link| link.parked.elapsed() < IDLE_TIME);
    }

    async fn exchange(&self, target: PathAndQuery) -> Result<(http::response::Parts, Incoming, Link), UpstreamError> {
        let asked = Instant::now();
        if let Some(mut link) = self.unpark(asked).await {
            match link.ask(self.request(target.clone())).await {
                Ok((head, incoming)) => return Ok((head, incoming, link)),
                // The target closed a waiting connection just when it was used: nothing was begun, so the question may be asked again.
                Err(error) if is_close(&error) && asked.elapsed() < CLOSE_RACE => {}
                Err(error) => return Err(classify(error)),
            }
        }
        let mut link = self.connect().await?;
        let (head, incoming) = link.ask(self.request(target)).await.map_err(classify)?;
        Ok((head, incoming, link))
    }

    fn request(&self, target: PathAndQuery) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(target);
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("goscope/", env!("CARGO_PKG_VERSION"))));
        request
    }

    async fn connect(&self) -> Result<Link, UpstreamError> {
        let stream = connect(&self.address).await.map_err(UpstreamError::Connect)?;
        let mut builder = Builder::new();
        // A request of ours is one short buffer, for which send(2) is cheaper than writev(2).
        builder.max_buf_size(self.read_bytes).writev(false);
        let (sender, connection) = builder.handshake(stream).await.map_err(classify)?;
        Ok(Link { sender, connection: Some(Box::pin(connection)), parked: Instant::now() })
    }

    /// A waiting connection that the target has not closed, newest first.
    async fn unpark(&self, now: Instant) -> Option<Link> {
        loop {
            let mut link = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if now.saturating_duration_since(link.parked) < IDLE_TIME
                && poll_fn(|cx| Poll::Ready(link.is_usable(cx))).await
            {
                return Some(link);
            }
        }
    }

    fn park(&self, mut link: Link, cx: &mut Context<'_>) {
        if !link.is_usable(cx) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            link.parked = Instant::now();
            idle.push(link);
        }
    }
}

impl Link {
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.connection.is_some() && self.sender.is_ready()
    }

    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Result<(http::response::Parts, Incoming), hyper::Error> {
        let mut answer = pin!(self.sender.send_request(request));
        let connection = &mut self.connection;
        let response = poll_fn(|cx| {
            if let Some(driven) = connection
                && driven.as_mut().poll(cx).is_ready()
            {
                *connection = None;
            }
            answer.as_mut().poll(cx)
        });
        response.await.map(Response::into_parts)
    }
}

/// The connection ended before a byte of the answer.
fn is_close(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let reset = |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    error.is_canceled() || error.is_incomplete_message() || error.is_closed() || source.is_some_and(reset)
}

fn classify(error: hyper::Error) -> UpstreamError {
    if error.is_parse() { UpstreamError::Protocol(error) } else { UpstreamError::Closed(error) }
}

/// Why an answer broke off after its head.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the target broke its answer off")]
    Cut(#[source] hyper::Error),
    #[error("the target sent nothing for too long")]
    Stalled,
}

/// The target's answer. Dropped before its end, it closes the connection to the target.
#[derive(Debug)]
pub struct UpstreamBody {
    link: Option<Link>,
    incoming: Incoming,
    upstream: Arc<Upstream>,
    patience: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    /// Something came since the stall timer was set.
    progress: bool,
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(link) = &mut this.link {
                link.drive(cx);
            }
            return match Pin::new(&mut this.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.progress = true;
                    // Trailers would be headers that nobody checked.
                    if !frame.is_data() {
                        continue;
                    }
                    // With a known length nobody polls for the end, so the connection goes back with the last frame.
                    if this.incoming.is_end_stream() {
                        this.release(cx);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => {
                    this.link = None;
                    Poll::Ready(Some(Err(BodyError::Cut(error))))
                }
                Poll::Ready(None) => {
                    this.release(cx);
                    Poll::Ready(None)
                }
                Poll::Pending => {
                    ready!(this.poll_stall(cx));
                    this.link = None;
                    Poll::Ready(Some(Err(BodyError::Stalled)))
                }
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        // The end must be polled for, so that the connection is put back.
        self.link.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl UpstreamBody {
    fn release(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = self.link.take() {
            self.upstream.park(link, cx);
        }
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = || tokio::time::Instant::now() + self.patience;
        match &mut self.stall {
            Some(stall) if self.progress => stall.as_mut().reset(deadline()),
            Some(_) => {}
            None => self.stall = Some(Box::pin(tokio::time::sleep_until(deadline()))),
        }
        self.progress = false;
        self.stall.as_mut().map_or(Poll::Pending, |stall| stall.as_mut().poll(cx))
    }
}
