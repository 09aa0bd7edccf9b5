//! `goscope health`: asks an agent's own probes, for a container image that holds no other program that could.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::EXIT_BAD;
use crate::config::check::{load, process_environment};
use crate::config::{Config, ENV_CONFIG};

/// From the call to the verdict, however many addresses a name has.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of the answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Ask whether an agent is well: exit 0 if it is, 1 with the reason if it is not.
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: goscope health --live --address 127.0.0.1:9464")]
pub struct Args {
    /// Ask whether the agent is alive: restart it if not
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Ask whether the agent is ready to serve (default)
    #[arg(long)]
    ready: bool,
    /// The agent's metrics listener [default: listen.metrics of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The agent's configuration file; without it $GOSCOPE_CONFIG, without that the defaults
    #[arg(long, value_name = "FILE", conflicts_with = "address")]
    config: Option<PathBuf>,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let path = if self.live { "/livez" } else { "/readyz" };
        let (address, addresses) = match self.address {
            Some(text) => {
                let addresses = addresses(&text).with_context(|| {
                    format!("--address {text} is not an IP address or localhost, a colon and a port")
                })?;
                (text, addresses)
            }
            None => {
                let path = self.config.or_else(|| process_environment(ENV_CONFIG).map(PathBuf::from));
                let address = reachable(load(path.as_deref(), Config::sidecar(), &process_environment)?.listen.metrics);
                (address.to_string(), vec![address])
            }
        };
        let verdict = probe(&addresses, path, Instant::now() + DEADLINE);
        let mut stdout = io::stdout().lock();
        match verdict {
            Ok(said) => {
                writeln!(stdout, "{said}")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(reason) => {
                writeln!(stdout, "{path} of {address}: {reason}")?;
                Ok(ExitCode::from(EXIT_BAD))
            }
        }
    }
}

/// No name but `localhost` is looked up: a probe that waits for DNS would answer for the wrong party.
fn addresses(text: &str) -> Option<Vec<SocketAddr>> {
    match text.strip_prefix("localhost:") {
        Some(port) => {
            let port: u16 = port.parse().ok()?;
            Some(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
        }
        None => Some(vec![reachable(text.parse().ok()?)]),
    }
}

/// Where a listener can be reached from here: one on every address of this host, by loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Why the agent is not well.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error("no connection: {0}")]
    NoConnection(io::Error),
    #[error("no answer: {0}")]
    NoAnswer(io::Error),
    #[error("the answer is not that of a probe")]
    NotAProbe,
    #[error("{said} (status {status})")]
    Said { status: u16, said: String },
}

/// What the probe at `path` said, if that was 200. The first of `addresses` that takes the connection is asked.
fn probe(addresses: &[SocketAddr], path: &str, deadline: Instant) -> Result<String, Unwell> {
    let mut stream = connect(addresses, deadline).map_err(Unwell::NoConnection)?;
    let answer = ask(&mut stream, path, deadline).map_err(Unwell::NoAnswer)?;
    match read_answer(&answer) {
        Some((200, said)) => Ok(said),
        Some((status, said)) => Err(Unwell::Said { status, said }),
        None => Err(Unwell::NotAProbe),
    }
}

fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in addresses {
        match left(deadline).and_then(|left| TcpStream::connect_timeout(address, left)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// HTTP/1.0, so that the answer ends with the connection and comes in one piece.
fn ask(stream: &mut TcpStream, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(
        format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: goscope-health\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut bounded = stream.take(ANSWER_BYTES_MAX);
    let mut chunk = [0; 1024];
    loop {
        bounded.get_mut().set_read_timeout(Some(left(deadline)?))?;
        match bounded.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend(chunk.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What the kernel calls a timeout of a socket, said in words.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        }
    }
}

/// The time until `deadline`, never zero, which would mean no timeout at all.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(timed_out()) } else { Ok(left) }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {} s", DEADLINE.as_secs()))
}

/// Status and first line of the body; `None` if it is no HTTP answer. What cannot be printed is left out, since it comes from a stranger if the address
/// is wrong.
fn read_answer(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    status_line.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = status_line.next().filter(|status| status.len() == 3)?.parse().ok()?;
    Some((status, body.lines().next().unwrap_or("").chars().filter(|char| !char.is_control()).take(200).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::readiness::Readiness;
    use crate::metrics::router::router;
    use crate::serve::{routed, serve};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    #[test]
    fn an_address_needs_no_name_service() {
        let check = |text: &str, expected: &[&str]| {
            let found: Vec<String> = addresses(text).unwrap_or_default().iter().map(SocketAddr::to_string).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("127.0.0.1:9464", &["127.0.0.1:9464"]);
        check("[::1]:9464", &["[::1]:9464"]);
        check("localhost:9464", &["127.0.0.1:9464", "[::1]:9464"]);
        check("0.0.0.0:9464", &["127.0.0.1:9464"]);
        check("[::]:9464", &["[::1]:9464"]);
        for text in
            ["", "9464", ":9464", "127.0.0.1", "localhost", "localhost:99999", "agent:9464", "http://127.0.0.1:9464"]
        {
            check(text, &[]);
        }
    }

    #[test]
    fn only_an_http_answer_is_a_verdict() {
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\nA: b\r\n\r\nready\n", Some((200, "ready"))),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting for: gate\nmore", Some((503, "waiting for: gate"))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((204, ""))),
            ("HTTP/1.1 200 OK\r\n\r\n\u{1b}[31mred\u{7}", Some((200, "[31mred"))),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", None),
            ("HTTP/1.1 2000 OK\r\n\r\n", None),
            ("HTTP/2 200\r\n\r\n", None),
            ("SSH-2.0-OpenSSH_9.2\r\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(status, said): (u16, &str)| (status, said.to_owned()));
            assert_eq!(read_answer(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn the_agents_own_probes_are_understood() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let readiness = Readiness::default();
        let latch = readiness.latch("gate");
        let stop = CancellationToken::new();
        let router = router(crate::metrics::registry().expect("a registry"), readiness);
        let serving = tokio::spawn(serve(listener, routed(router), stop.clone(), TaskTracker::new()));
        let probe = |path: &'static str| {
            tokio::task::spawn_blocking(move || {
                probe(&[address], path, Instant::now() + Duration::from_secs(60)).map_err(|unwell| unwell.to_string())
            })
        };
        assert_eq!(probe("/livez").await.expect("probed"), Ok("live".to_owned()));
        assert_eq!(probe("/readyz").await.expect("probed"), Err("waiting for: gate (status 503)".to_owned()));
        drop(latch);
        assert_eq!(probe("/readyz").await.expect("probed"), Ok("ready".to_owned()));
        stop.cancel();
        serving.await.expect("ended without a panic");
        assert!(probe("/livez").await.expect("probed").expect_err("gone").starts_with("no connection: "));
    }

    #[test]
    fn the_deadline_holds_against_a_listener_that_says_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let unwell = probe(&[address], "/livez", Instant::now() + Duration::from_millis(50)).expect_err("silent");
        assert_eq!(unwell.to_string(), "no answer: nothing within 2 s");
        let unwell = probe(&[address], "/livez", Instant::now()).expect_err("too late");
        assert_eq!(unwell.to_string(), "no connection: nothing within 2 s");
        let unwell = probe(&[], "/livez", Instant::now() + DEADLINE).expect_err("nowhere");
        assert_eq!(unwell.to_string(), "no connection: no address");
    }
}
