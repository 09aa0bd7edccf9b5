//! Configuration, as meant: every value here is usable as it is.
//!
//! [`walk`] reads what was written, [`check`] turns it into these types with the environment laid over it and reports every mistake in one go,
//! [`render`] writes it back. Defaults work unedited.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub mod check;
pub mod render;
pub mod units;
pub mod walk;

/// The environment variable that names the configuration file.
pub const ENV_CONFIG: &str = "GOSCOPE_CONFIG";
/// Every setting may be overridden by this and its path: `GOSCOPE_TARGET_ADDRESS`, `GOSCOPE_GATE_LIMITS_PER_SOURCE_RATE`.
pub const ENV_PREFIX: &str = "GOSCOPE_";

/// The whole configuration of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub target: TargetAddress,
    pub listen: Listen,
    pub gate: GateConfig,
    pub intake: IntakeConfig,
    pub store: StoreConfig,
    pub selftest: SelfTestConfig,
}

impl Config {
    /// What a sidecar runs with when nothing is configured.
    #[must_use]
    pub fn sidecar() -> Self {
        let limit = LimitConfig { rate_per_kilosecond: 1000, burst: 5, nodelay: true, dry_run: false };
        Self {
            target: TargetAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 6060))),
            listen: Listen {
                debug: SocketAddr::from(([127, 0, 0, 1], 6061)),
                metrics: SocketAddr::from(([0, 0, 0, 0], 9464)),
                remote: None,
            },
            gate: GateConfig {
                token_files: vec![PathBuf::from("/etc/goscope/tokens/*.yaml")],
                allow: vec![
                    AddressRule { network: IpNet::V4("127.0.0.0/8".parse().expect("a network")), deny: false },
                    AddressRule { network: IpNet::V6("::1/128".parse().expect("a network")), deny: false },
                ],
                per_source: limit,
                per_identity: limit,
                api: LimitConfig { rate_per_kilosecond: 20_000, burst: 40, ..limit },
                caps: Caps { cpu_seconds: 60, trace_seconds: 30 },
            },
            intake: IntakeConfig { spool: PathBuf::from("/var/lib/goscope/spool") },
            store: StoreConfig {
                path: PathBuf::from("/var/lib/goscope/data"),
                max_bytes: 1 << 30,
                max_age: Duration::from_secs(14 * 86_400),
                reserve_bytes: 64 << 20,
            },
            selftest: SelfTestConfig { enabled: true, every: Duration::from_secs(600) },
        }
    }

    /// What `goscope run` runs with: everything below `data`, metrics on loopback only.
    #[must_use]
    pub fn embedded(data: &Path) -> Self {
        let mut config = Self::sidecar();
        config.listen.metrics = SocketAddr::from(([127, 0, 0, 1], 9464));
        config.gate.token_files.clear();
        config.keep_below(data);
        config
    }

    /// Puts what the launcher of `goscope run` and its person rely on where they look for it, whatever a file says: runs and incidents below
    /// `data`, and the token there known beside those of the configured files.
    pub fn keep_below(&mut self, data: &Path) {
        let own = data.join("tokens.yaml");
        if !self.gate.token_files.contains(&own) {
            self.gate.token_files.push(own);
        }
        self.intake.spool = data.join("spool");
        self.store.path = data.join("data");
    }
}

/// Where the Go process serves `/debug/pprof/` and `/debug/vars`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAddress {
    /// `127.0.0.1:6060`, `[::1]:6060`; written also as `http://127.0.0.1:6060` and with `localhost`.
    Tcp(SocketAddr),
    /// `unix:///run/goscope/debug.sock` (sealed mode).
    Unix(PathBuf),
}

/// The sockets that the agent opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Gate, API and page; `127.0.0.1:6061`.
    pub debug: SocketAddr,
    /// `/metrics`, `/livez`, `/readyz`; `0.0.0.0:9464`, in `goscope run` `127.0.0.1:9464`.
    pub metrics: SocketAddr,
    /// The debug routes over TLS on the network; off unless an address is given.
    pub remote: Option<Remote>,
}

/// A listener on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub address: SocketAddr,
    pub tls: TlsFiles,
}

/// PEM files, which may be exchanged while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The listener's certificate first, then those that lead to its authority.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// Only clients with a certificate of one of these authorities may connect.
    pub client_ca: Option<PathBuf>,
}

/// Who may ask for what, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Token files; the last path component may hold `*`.
    pub token_files: Vec<PathBuf>,
    /// Ordered address rules; first match decides, an empty list admits everyone, a list without a match refuses.
    pub allow: Vec<AddressRule>,
    /// Limit by source address, asked first.
    pub per_source: LimitConfig,
    /// Limit by identity, asked after the token was accepted.
    pub per_identity: LimitConfig,
    /// Limit of the API, by source address and by identity, apart from the gate's.
    pub api: LimitConfig,
    pub caps: Caps,
}

/// One entry of `gate.allow`; written `10.0.0.0/8` or `!10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRule {
    pub network: IpNet,
    pub deny: bool,
}

/// `limit_req` of nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitConfig {
    /// Requests per 1000 seconds, so that `1/s` is 1000 and `30/m` is 500: the unit in which nginx counts. At least 1.
    pub rate_per_kilosecond: u64,
    /// Requests above the rate that are admitted before the refusals begin.
    pub burst: u32,
    /// Whether the burst is served at once. Without it, excess requests wait as long as the rate says.
    pub nodelay: bool,
    /// Count refusals, refuse nothing.
    pub dry_run: bool,
}

/// Upper bounds of what one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// `seconds` of `/debug/pprof/profile` and of delta profiles.
    pub cpu_seconds: u32,
    /// `seconds` of `/debug/pprof/trace`.
    pub trace_seconds: u32,
}

/// Where the app's stderr comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeConfig {
    /// The folder that `goscope exec` or `run` writes its runs to.
    pub spool: PathBuf,
}

/// The volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    pub path: PathBuf,
    pub max_bytes: u64,
    pub max_age: Duration,
    pub reserve_bytes: u64,
}

/// The search for ports of the pod where pprof answers without the gate. `goscope run` makes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestConfig {
    pub enabled: bool,
    /// From the end of one round to the begin of the next.
    pub every: Duration,
}
