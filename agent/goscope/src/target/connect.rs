//! Opens connections to the target, over TCP or a unix socket, as one stream type that hyper can drive.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::TargetAddress;

/// Until the target's kernel has taken the connection. It waits only where the backlog is full: a program that no longer accepts.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to the target within [`CONNECT_TIMEOUT`]; the result can be handed to a hyper client connection as it is. TCP has `TCP_NODELAY` set.
///
/// # Errors
/// As the kernel says. [`nothing_listens`] tells an absent target from an unwell one; kind `TimedOut` after [`CONNECT_TIMEOUT`].
pub async fn connect(address: &TargetAddress) -> io::Result<TokioIo<TargetStream>> {
    let connecting = async {
        Ok(match address {
            TargetAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                TargetStream::Tcp(stream)
            }
            TargetAddress::Unix(path) => TargetStream::Unix(UnixStream::connect(path).await?),
        })
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map(TokioIo::new),
        Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "the target does not accept the connection")),
    }
}

/// Whether a failed [`connect`] means that there is no listener: the port is closed, the socket file absent or left over.
#[must_use]
pub fn nothing_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// A connection to the target.
#[derive(Debug)]
pub enum TargetStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for TargetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TargetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, UnixListener};

    async fn echoes(stream: TokioIo<TargetStream>, mut far: impl AsyncRead + AsyncWrite + Unpin) {
        let mut stream = stream.into_inner();
        stream.write_all(b"ping").await.expect("written");
        stream.shutdown().await.expect("shut down");
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.expect("read to the end");
        assert_eq!(heard, "ping");
        far.write_all(b"pong").await.expect("answered");
        far.shutdown().await.expect("shut down");
        heard.clear();
        stream.read_to_string(&mut heard).await.expect("read to the end");
        assert_eq!(heard, "pong");
    }

    #[tokio::test]
    async fn tcp_carries_bytes_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let stream = connect(&TargetAddress::Tcp(listener.local_addr().expect("an address"))).await.expect("connected");
        let TargetStream::Tcp(tcp) = stream.inner() else { panic!("not TCP") };
        assert!(tcp.nodelay().expect("the option"));
        echoes(stream, listener.accept().await.expect("accepted").0).await;
    }

    #[tokio::test]
    async fn a_unix_socket_carries_bytes_both_ways() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("debug.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let stream = connect(&TargetAddress::Unix(path.clone())).await.expect("connected");
        echoes(stream, listener.accept().await.expect("accepted").0).await;
    }

    #[tokio::test]
    async fn an_absent_listener_is_told_from_other_failures() {
        let folder = tempfile::tempdir().expect("a folder");
        let never_there = folder.path().join("never.sock");
        let left_over = folder.path().join("left.sock");
        // Bound, so that nobody else gets the port, but not listening.
        let closed = TcpSocket::new_v4().expect("a socket");
        closed.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
        let port = closed.local_addr().expect("an address");
        drop(UnixListener::bind(&left_over).expect("bound"));
        for address in [TargetAddress::Tcp(port), TargetAddress::Unix(never_there), TargetAddress::Unix(left_over)] {
            let error = connect(&address).await.expect_err("nothing listens");
            assert!(nothing_listens(&error), "{address:?}: {error}");
        }
        let error = connect(&TargetAddress::Unix(folder.path().join("x".repeat(200)))).await.expect_err("too long");
        assert!(!nothing_listens(&error), "{error}");
    }
}
