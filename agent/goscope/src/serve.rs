//! Serving HTTP/1.1 on a TCP listener, in clear or over TLS, with the limits that every listener of ours has.
//!
//! A client that sends its headers slowly, or none, is cut off after [`HEADER_TIME`] (which is also how long an idle connection is kept); one
//! that does not take its answer after [`WRITE_TIME`]. At most [`CONNECTIONS_MAX`] connections are open; further ones wait in the kernel's
//! queue until one ends, so they are late but not refused. Over TLS they are [`REMOTE_CONNECTIONS_MAX`], counted from before the handshake.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::tls::Keeper;

/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 512;
/// Connections of a listener that speaks TLS. Anyone on the network may have a handshake's memory (up to 64 KiB) before showing a token, and the
/// agent lives on 32 MiB.
pub const REMOTE_CONNECTIONS_MAX: usize = 64;
/// Time for a request's headers, counted from the end of the answer before it.
pub const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time that a client may take nothing of an answer.
pub const WRITE_TIME: Duration = Duration::from_secs(60);
/// Bytes of a request's headers.
const REQUEST_HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes of an answer that are gathered before they are written.
const WRITE_BYTES: usize = 512 << 10;
/// How long nothing is accepted after the system refused to (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of the client, as an extension of each request that reaches a [`routed`] router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Accepts connections until `shutdown`, then lets the requests under way finish: their connections are in `tasks`.
pub async fn serve<H, F, B>(listener: TcpListener, handler: H, shutdown: CancellationToken, tasks: TaskTracker)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    accept(listener, CONNECTIONS_MAX, &shutdown, |stream, peer, place| {
        let conversation = converse(Patient::new(stream), peer, handler.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _place = place;
            conversation.await;
        });
    })
    .await;
}

/// The same over TLS. Each request has the listener's [`Certificate`](crate::tls::Certificate) as an extension.
pub async fn serve_tls<H, F, B>(
    listener: TcpListener,
    keeper: Arc<Keeper>,
    handler: H,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    accept(listener, REMOTE_CONNECTIONS_MAX, &shutdown, |stream, peer, place| {
        let (keeper, handler, shutdown) = (Arc::clone(&keeper), handler.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _place = place;
            let shaken = tokio::select! {
                () = shutdown.cancelled() => return,
                shaken = keeper.shake(Patient::new(stream), peer) => shaken,
            };
            let Some((stream, certificate)) = shaken else { return };
            let handler = move |mut request: Request<Incoming>, peer| {
                request.extensions_mut().insert(Arc::clone(&certificate));
                handler(request, peer)
            };
            converse(stream, peer, handler, shutdown).await;
        });
    })
    .await;
}

/// Accepts connections until `shutdown`, each with one of so many places.
async fn accept(
    listener: TcpListener,
    places: usize,
    shutdown: &CancellationToken,
    mut begin: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let places = Arc::new(Semaphore::new(places));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_about_one_connection(&error) {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        // Fails only for a connection that is gone already, which the first read will tell.
        drop(stream.set_nodelay(true));
        begin(stream, peer, place);
    }
}

/// Answers the requests of one connection.
async fn converse<S, H, F, B>(stream: S, peer: SocketAddr, handler: H, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<B>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(move |request| {
        let answer = handler(request, peer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(WRITE_BYTES)
        .max_header_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended early");
    }
}

/// A handler for [`serve`] that asks a router, with the client's address as the extension [`Peer`].
pub fn routed(
    router: axum::Router,
) -> impl Fn(Request<Incoming>, SocketAddr) -> Pin<Box<dyn Future<Output = Response<axum::body::Body>> + Send>>
+ Clone
+ Send
+ Sync
+ 'static {
    move |mut request, peer| {
        request.extensions_mut().insert(Peer(peer));
        let router = router.clone();
        Box::pin(async move {
            let answered: Result<_, Infallible> = router.oneshot(request).await;
            answered.unwrap_or_else(|never| match never {})
        })
    }
}

/// Errors of `accept` that concern the connection and not the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// A stream that fails when the other side takes nothing for [`WRITE_TIME`].
struct Patient {
    stream: TcpStream,
    /// Set while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: None, waiting: false }
    }

    fn waited(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        let deadline = Instant::now() + WRITE_TIME;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.waiting {
            timer.as_mut().reset(deadline);
            self.waiting = true;
        }
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.waited(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.waited(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
