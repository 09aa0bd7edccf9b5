//! The way to an agent: an address at hand, or a port of a pod.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::cluster::forward::{Destination, Words};

/// How long an address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream to an agent.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The address of an agent on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address(SocketAddr);

/// Reads `http://127.0.0.1:6061`. Only loopback: the token would cross a network in clear.
///
/// # Errors
/// A sentence with what was expected.
pub(super) fn parse_url(text: &str) -> Result<Address, String> {
    let expected = "expected the address of an agent on this machine, such as http://127.0.0.1:6061";
    // Whatever stands before an @ may be a token.
    let (_, shown) = text.rsplit_once('@').unwrap_or(("", text));
    let refuse = || format!("{expected}, found {:?}", shown.chars().take(80).collect::<String>());
    let authority =
        text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(refuse)?;
    if authority.contains('@') {
        return Err(format!("{expected}; the token is not a part of it, say --token-file"));
    }
    let authority =
        authority.strip_prefix("localhost").map_or_else(|| authority.to_owned(), |port| format!("127.0.0.1{port}"));
    let address = match (authority.parse::<SocketAddr>(), authority.trim_matches(['[', ']']).parse::<IpAddr>()) {
        (Ok(address), _) if address.port() != 0 => address,
        (_, Ok(ip)) => SocketAddr::new(ip, 80),
        _ => return Err(refuse()),
    };
    if address.ip().to_canonical().is_loopback() {
        Ok(Address(address))
    } else {
        Err(format!("{expected}; over a network the token would be sent in clear, so use a tunnel to {shown:?}"))
    }
}

/// The way to an agent.
#[derive(Clone)]
pub(super) enum Link {
    Address(Address),
    Pod(Destination),
}

impl Link {
    /// Opens a stream; with it come the words of the node, should it break.
    ///
    /// # Errors
    /// Nothing is reached.
    pub(super) async fn open(&self) -> anyhow::Result<(Box<dyn Stream>, Option<Words>)> {
        match self {
            Self::Address(Address(address)) => {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
                match connected {
                    Ok(Ok(stream)) => Ok((Box::new(stream), None)),
                    Ok(Err(error)) => anyhow::bail!("no agent answers at {address}: {error}"),
                    Err(_) => anyhow::bail!("no agent answers at {address} within {} s", CONNECT_TIMEOUT.as_secs()),
                }
            }
            Self::Pod(destination) => {
                let (stream, words) = destination.open().await?;
                Ok((Box::new(stream), Some(words)))
            }
        }
    }

    /// The Host header: an address or name that the gate serves, whoever opens the stream.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Address(Address(address)) => address.to_string(),
            Self::Pod(destination) => format!("localhost:{}", destination.port()),
        }
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Address(Address(address)) => format!("the agent at {address}"),
            Self::Pod(destination) => format!("the agent in pod {}", destination.pod()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("http://127.0.0.1:6061", Some("127.0.0.1:6061")),
            ("http://127.0.0.1:6061/", Some("127.0.0.1:6061")),
            ("http://localhost:7000", Some("127.0.0.1:7000")),
            ("http://[::1]:6061", Some("[::1]:6061")),
            ("http://[::1]", Some("[::1]:80")),
            ("http://127.0.0.1", Some("127.0.0.1:80")),
            ("http://127.0.0.1:0", None),
            ("http://10.0.0.1:6061", None),
            ("https://127.0.0.1:6061", None),
            ("127.0.0.1:6061", None),
            ("http://127.0.0.1:6061/debug", None),
            ("http://localhost.example:80", None),
            ("http://", None),
        ] {
            assert_eq!(parse_url(text).ok().map(|address| address.0.to_string()).as_deref(), expected, "{text}");
        }
        for text in ["http://me:gsc_secret@127.0.0.1:1", "https://me:gsc_secret@127.0.0.1:1", "gsc_secret@x"] {
            let said = parse_url(text).expect_err("with a token");
            assert!(!said.contains("gsc_secret"), "{said}");
        }
    }
}
