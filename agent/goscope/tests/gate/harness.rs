//! A gate on a port of its own, and targets that answer from a script.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use goscope::config::units::{parse_address_rule, parse_rate};
use goscope::config::{Caps, GateConfig, LimitConfig, TargetAddress};
use goscope::gate::metrics::GateMetrics;
use goscope::gate::tokens::TokenStore;
use goscope::gate::{Gate, audit};
use goscope::serve::serve;
use goscope::token::tier::TierSet;
use goscope::token::{Token, file};
use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gate is opened with.
pub(crate) struct Setup {
    target: TargetAddress,
    tiers: TierSet,
    per_source: LimitConfig,
    per_identity: LimitConfig,
    api: LimitConfig,
    token_file: Option<String>,
    is_pipe: bool,
}

/// A gate that serves.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    /// The only token, of the name `owner`.
    pub(crate) token: Token,
    pub(crate) registry: Registry,
    audit: Arc<Mutex<Vec<u8>>>,
    shutdown: CancellationToken,
    _writer: audit::AuditWriter,
    folder: tempfile::TempDir,
}

impl Setup {
    pub(crate) fn new(target: TargetAddress) -> Self {
        let wide = LimitConfig { rate_per_kilosecond: 1_000_000, burst: 1000, nodelay: true, dry_run: false };
        Self {
            target,
            tiers: TierSet::ALL,
            per_source: wide,
            per_identity: wide,
            api: wide,
            token_file: None,
            is_pipe: false,
        }
    }

    pub(crate) fn tiers(self, tiers: TierSet) -> Self {
        Self { tiers, ..self }
    }

    pub(crate) fn per_source(self, rate: &str, burst: u32) -> Self {
        Self {
            per_source: LimitConfig { rate_per_kilosecond: parse_rate(rate).unwrap(), burst, ..self.per_source },
            ..self
        }
    }

    pub(crate) fn per_identity(self, rate: &str, burst: u32) -> Self {
        Self {
            per_identity: LimitConfig { rate_per_kilosecond: parse_rate(rate).unwrap(), burst, ..self.per_identity },
            ..self
        }
    }

    pub(crate) fn token_file(self, text: &str) -> Self {
        Self { token_file: Some(text.to_owned()), ..self }
    }

    /// The token file is a pipe, so that whoever reads it waits until [`Door::fill_pipe`].
    pub(crate) fn token_pipe(self) -> Self {
        Self { is_pipe: true, ..self }
    }

    pub(crate) async fn open(self) -> Door {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::generate().unwrap();
        let tokens: PathBuf = folder.path().join("tokens.yaml");
        let text = self
            .token_file
            .unwrap_or_else(|| file::document(&file::entry("owner", token.sha256(), self.tiers, &[], None)));
        if self.is_pipe {
            assert!(std::process::Command::new("mkfifo").arg(&tokens).status().unwrap().success());
        } else {
            std::fs::write(&tokens, text).unwrap();
        }
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, writer) = audit::start(Lines(Arc::clone(&lines))).unwrap();
        let registry = Registry::new();
        let config = GateConfig {
            token_files: vec![tokens],
            allow: vec![parse_address_rule("127.0.0.0/8").unwrap()],
            per_source: self.per_source,
            per_identity: self.per_identity,
            api: self.api,
            caps: Caps { cpu_seconds: 60, trace_seconds: 30 },
        };
        let files = config.token_files.clone();
        let tokens = if self.is_pipe { TokenStore::new(files) } else { TokenStore::open(files) };
        let gate = Gate::new(config, self.target, tokens, sink, GateMetrics::register(&registry).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        if self.is_pipe {
            tokio::spawn(gate.clone().run(shutdown.clone()));
        }
        tokio::spawn(serve(listener, gate.handler(gate.router()), shutdown.clone(), TaskTracker::new()));
        Door { address, token, registry, audit: lines, shutdown, _writer: writer, folder }
    }
}

impl Door {
    /// Writes the token into the pipe that stands for the token file, as soon as somebody reads it.
    pub(crate) async fn fill_pipe(&self) {
        let (path, text) = (
            self.folder.path().join("tokens.yaml"),
            file::document(&file::entry("owner", self.token.sha256(), TierSet::ALL, &[], None)),
        );
        tokio::task::spawn_blocking(move || std::fs::write(path, text)).await.unwrap().unwrap();
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of its own and reads until the gate closes it.
    pub(crate) async fn raw(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut response))
            .await
            .expect("the gate closes the connection");
        if let Err(error) = read {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{bytes:?}");
            assert!(!response.is_empty(), "a reset swallowed the answer to {bytes:?}");
        }
        String::from_utf8_lossy(&response).into_owned()
    }

    /// The audit lines, once there are `count` of them.
    pub(crate) async fn audit_lines(&self, count: usize) -> Vec<String> {
        let lines = || -> Vec<String> {
            String::from_utf8(self.audit.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        };
        eventually("the audit lines are written", || lines().len() >= count).await;
        assert_eq!(lines().len(), count, "{:?}", lines());
        lines()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A target that gives the same answer to every request. An answer that ends early, or none, is followed by the end of the connection.
pub(crate) struct Scripted {
    pub(crate) address: TargetAddress,
    seen: Arc<Mutex<Seen>>,
    close: Arc<Notify>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    connections: usize,
    open: usize,
}

pub(crate) async fn scripted(answer: &'static str) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = TargetAddress::Tcp(listener.local_addr().unwrap());
    let (seen, close) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Notify::new()));
    let (theirs, closing) = (Arc::clone(&seen), Arc::clone(&close));
    let whole = answer.ends_with("\r\n\r\n") || answer.ends_with("ok") || answer.ends_with("again");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (seen, close) = (Arc::clone(&theirs), Arc::clone(&closing));
            {
                let mut seen = seen.lock().unwrap();
                seen.connections += 1;
                seen.open += 1;
            }
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                loop {
                    let read = tokio::select! {
                        () = close.notified() => break,
                        read = stream.read_buf(&mut buffer) => read,
                    };
                    if !matches!(read, Ok(1..)) {
                        break;
                    }
                    if !buffer.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let request = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
                    seen.lock().unwrap().requests.push(request);
                    if stream.write_all(answer.as_bytes()).await.is_err() || !whole {
                        break;
                    }
                }
                drop(stream);
                seen.lock().unwrap().open -= 1;
            });
        }
    });
    Scripted { address, seen, close }
}

impl Scripted {
    /// The requests as they arrived, byte for byte.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.seen.lock().unwrap().open
    }

    pub(crate) fn close_connections(&self) {
        self.close.notify_waiters();
    }
}

/// `Basic …`.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

pub(crate) fn status_of(response: &str) -> u16 {
    response
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {response:?}"))
}

/// Waits for a condition, with a deadline.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
