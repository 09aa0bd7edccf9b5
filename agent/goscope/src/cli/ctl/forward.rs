//! `forward`: a local port that leads to the gate of a pod, as long as the command runs.
//!
//! Each connection is a stream of its own through the API server: one that the pod resets takes no other with it.

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

use super::link::Link;
use super::secret::{self, Source};
use super::{Place, answer, say};
use crate::cluster::forward::Destination;
use crate::cluster::pick::PORT;
use crate::cluster::target::Target;

/// Copied at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A local port to the gate in a pod, with commands to paste; ends by Ctrl-C
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  kubectl goscope forward deploy/shop\n  kubectl goscope forward pod/shop-0 --local-port 0"
)]
pub(super) struct Args {
    /// deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, pod/NAME or the name of a pod
    #[arg(value_name = "TARGET", value_parser = Target::parse)]
    target: Option<Target>,
    /// The port on this machine, 0 for a free one; without it 6061 if that is free, else a free one
    #[arg(long, value_name = "PORT")]
    local_port: Option<u16>,
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let Link::Pod(destination) = place.link(self.target.as_ref()).await? else {
            bail!("with --url there is nothing to forward");
        };
        // What is missing shows now, and not at the first connection.
        drop(destination.open().await?);
        let listener = listen(self.local_port).await?;
        let port = listener.local_addr()?.port();
        let source = secret::named_source(place.token_file.as_deref())
            .unwrap_or_else(|| place.secret(destination.cluster().namespace()));
        answer(&commands(&destination, port, &source))?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C")?,
            ended = serve(&listener, &destination) => ended?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A listener on loopback.
async fn listen(wanted: Option<u16>) -> anyhow::Result<TcpListener> {
    let bind = async |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    match wanted {
        Some(port) => bind(port).await.with_context(|| format!("cannot listen on port {port} (--local-port)")),
        None => match bind(PORT).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                bind(0).await.context("cannot listen on any port")
            }
            bound => bound.with_context(|| format!("cannot listen on port {PORT}")),
        },
    }
}

/// What can be pasted now. The token is never part of it: the shell reads it where it is.
fn commands(destination: &Destination, port: u16, source: &Source) -> String {
    lines(destination.pod(), destination.port(), port, &source.shell())
}

fn lines(pod: &str, remote: u16, port: u16, token: &str) -> String {
    let url = format!("http://127.0.0.1:{port}");
    format!(
        "Forwarding {url} to port {remote} of pod {pod}; Ctrl-C ends it.\n  \
         go tool pprof \"http://me:{token}@127.0.0.1:{port}/debug/pprof/heap\"\n  \
         curl -H \"Authorization: Bearer {token}\" {url}/api/v1/info\n  \
         {url}/\n"
    )
}

/// Takes connections until the pod is gone.
async fn serve(listener: &TcpListener, destination: &Destination) -> anyhow::Result<()> {
    let (gone_tx, mut gone_rx) = tokio::sync::mpsc::channel::<String>(1);
    loop {
        let (connection, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("cannot accept connections")?,
            Some(gone) = gone_rx.recv() => bail!("{gone}"),
        };
        let (destination, gone_tx) = (destination.clone(), gone_tx.clone());
        tokio::spawn(async move {
            match destination.open().await {
                Ok((stream, words)) => {
                    if join(connection, stream).await == 0
                        && let Some(problem) = words.problem().await
                    {
                        say(&problem);
                    }
                }
                // One is enough to end the command.
                Err(problem) if problem.is_not_found() => drop(gone_tx.try_send(problem.to_string())),
                Err(problem) => say(&problem.to_string()),
            }
        });
    }
}

/// Joins two streams until either side ends, and returns how many bytes came from the pod. A client that ends its half has left: the tunnel knows no
/// half-closed streams, and a profile that nobody waits for must not go on.
async fn join(connection: TcpStream, stream: impl AsyncRead + AsyncWrite) -> usize {
    let (mut from_client, mut to_client) = connection.into_split();
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    let mut count = 0;
    let receive = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = from_pod.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return io::Result::Ok(()) };
            to_client.write_all(bytes).await?;
            count += bytes.len();
        }
    };
    tokio::select! {
        // What fails is the connection's own, and ends with it.
        _ = copy(&mut from_client, &mut to_pod) => {}
        _ = receive => {}
    }
    drop(to_client.shutdown().await);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_can_be_pasted_and_hold_no_token() {
        let source = Source::File("goscope-data/token".into());
        assert_eq!(
            lines("shop-0", 6061, 7000, &source.shell()),
            "Forwarding http://127.0.0.1:7000 to port 6061 of pod shop-0; Ctrl-C ends it.\n  \
               go tool pprof \"http://me:$(cat goscope-data/token)@127.0.0.1:7000/debug/pprof/heap\"\n  \
               curl -H \"Authorization: Bearer $(cat goscope-data/token)\" http://127.0.0.1:7000/api/v1/info\n  \
               http://127.0.0.1:7000/\n"
        );
    }

    #[tokio::test]
    async fn a_port_that_is_taken() {
        let taken = listen(Some(0)).await.expect("a free port");
        let port = taken.local_addr().expect("an address").port();
        let said = format!("{:#}", listen(Some(port)).await.expect_err("taken"));
        assert!(said.starts_with(&format!("cannot listen on port {port} (--local-port): ")), "{said}");
        // Whether 6061 is free or not, something is found.
        listen(None).await.expect("a port");
    }

    #[tokio::test]
    async fn joined_until_either_side_ends() {
        let listener = listen(Some(0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        for who_ends in ["client", "pod"] {
            let mut client = TcpStream::connect(address).await.expect("connected");
            let (connection, _) = listener.accept().await.expect("accepted");
            let (mut pod, stream) = tokio::io::duplex(64);
            let joined = tokio::spawn(join(connection, stream));
            client.write_all(b"question").await.expect("sent");
            let mut bytes = [0; 8];
            pod.read_exact(&mut bytes).await.expect("received");
            assert_eq!(&bytes, b"question");
            pod.write_all(b"an").await.expect("sent");
            client.read_exact(&mut bytes[..2]).await.expect("received");
            match who_ends {
                "client" => drop(client),
                _ => drop(pod),
            }
            assert_eq!(joined.await.expect("no panic"), 2, "{who_ends}");
        }
    }
}
