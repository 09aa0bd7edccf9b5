//! From what was written to what is meant.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::units::{duration_text, parse_address_rule, parse_duration, parse_rate, parse_size};
use super::walk::{Mistake, Mistakes, Walker, parse};
use super::{Config, ENV_PREFIX, LimitConfig, Remote, TargetAddress, TlsFiles};

/// The highest cap of a profile's length that is accepted, in seconds: a profiler that runs longer belongs to another tool.
const SECONDS_CAP_MAX: u64 = 3600;
/// The shortest time between two self-tests: each asks every port of the pod.
const SELFTEST_EVERY_MIN: Duration = Duration::from_secs(10);
/// The highest burst.
const BURST_MAX: u64 = 1_000_000;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}", Listing(path.as_deref(), mistakes))]
    Mistakes { path: Option<PathBuf>, mistakes: Vec<Mistake> },
}

struct Listing<'a>(Option<&'a Path>, &'a [Mistake]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0.map_or_else(|| "the configuration".into(), |path| path.display().to_string());
        let count = self.1.len();
        write!(f, "{place} has {count} mistake{}:", if count == 1 { "" } else { "s" })?;
        self.1.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Where overrides come from: the environment, or a test.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's own environment.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads `path` if one is given, lays it and then the environment over `defaults`.
///
/// # Errors
/// The file cannot be read, or it or the environment has mistakes: all of them.
pub fn load(path: Option<&Path>, defaults: Config, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let text = match path {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?
        }
        None => String::new(),
    };
    check(&text, defaults, environment)
        .map_err(|mistakes| ConfigError::Mistakes { path: path.map(Into::into), mistakes })
}

/// As [`load`], but what can be understood holds also where something else cannot: for who goes on all the same. What is told is the first reason why
/// the whole cannot be used.
#[must_use]
pub fn salvage(path: Option<&Path>, defaults: Config, environment: Environment<'_>) -> (Config, Option<ConfigError>) {
    let read = path.map(|path| std::fs::read_to_string(path).map_err(|source| (path, source)));
    let (text, unread) = match read.transpose() {
        Ok(text) => (text.unwrap_or_default(), None),
        Err((path, source)) => (String::new(), Some(ConfigError::Read { path: path.into(), source })),
    };
    let (config, mistakes) = lay(&text, defaults, environment);
    let wrong = (!mistakes.is_empty()).then(|| ConfigError::Mistakes { path: path.map(Into::into), mistakes });
    (config, unread.or(wrong))
}

/// Lays the YAML `text`, then `environment`, over `defaults`.
///
/// # Errors
/// Every mistake, each with its path and line.
pub fn check(text: &str, defaults: Config, environment: Environment<'_>) -> Result<Config, Vec<Mistake>> {
    let (config, mistakes) = lay(text, defaults, environment);
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

/// What was understood, and every mistake. Of a text that is no YAML nothing is.
fn lay(text: &str, mut config: Config, environment: Environment<'_>) -> (Config, Vec<Mistake>) {
    let (value, unreadable) = match parse(text) {
        Ok(value) => (Ok(value), None),
        Err(mistake) => (parse(""), Some(mistake)),
    };
    let mistakes = Mistakes::default();
    if let Ok(value) = value {
        let reading = Reading { mistakes: &mistakes, environment };
        let mut file = value.walk(&mistakes);
        read(&reading, &mut file, &mut config);
    }
    let mistakes = unreadable.into_iter().chain(mistakes.into_vec()).collect();
    (config, mistakes)
}

fn read(reading: &Reading<'_>, file: &mut Walker<'_>, config: &mut Config) {
    let mut target = file.section("target");
    reading.set(&mut target, "address", &mut config.target, parse_target);
    drop(target);

    let mut listen = file.section("listen");
    reading.set(&mut listen, "debug", &mut config.listen.debug, parse_listen);
    reading.set(&mut listen, "metrics", &mut config.listen.metrics, parse_listen);
    remote(reading, &mut listen.section("remote"), &mut config.listen.remote);
    drop(listen);

    let mut gate = file.section("gate");
    let mut tokens = gate.section("tokens");
    reading.set_list(&mut tokens, "files", &mut config.gate.token_files, parse_path);
    drop(tokens);
    reading.set_list(&mut gate, "allow", &mut config.gate.allow, parse_address_rule);
    let mut limits = gate.section("limits");
    limit(reading, &mut limits.section("perSource"), &mut config.gate.per_source);
    limit(reading, &mut limits.section("perIdentity"), &mut config.gate.per_identity);
    limit(reading, &mut limits.section("api"), &mut config.gate.api);
    drop(limits);
    let mut caps = gate.section("caps");
    reading.set(&mut caps, "cpuSeconds", &mut config.gate.caps.cpu_seconds, parse_seconds_cap);
    reading.set(&mut caps, "traceSeconds", &mut config.gate.caps.trace_seconds, parse_seconds_cap);
    drop((caps, gate));

    let mut intake = file.section("intake");
    reading.set(&mut intake, "spool", &mut config.intake.spool, parse_path);
    drop(intake);

    let mut store = file.section("store");
    reading.set(&mut store, "path", &mut config.store.path, parse_path);
    reading.set(&mut store, "maxBytes", &mut config.store.max_bytes, parse_size);
    reading.set(&mut store, "maxAge", &mut config.store.max_age, parse_age);
    reading.set(&mut store, "reserveBytes", &mut config.store.reserve_bytes, parse_size);
    drop(store);

    let mut selftest = file.section("selftest");
    reading.set(&mut selftest, "enabled", &mut config.selftest.enabled, parse_bool);
    reading.set(&mut selftest, "every", &mut config.selftest.every, parse_every);
}

/// Without an address the listener is off, whatever else is set, so that one variable of the environment turns it off.
fn remote(reading: &Reading<'_>, section: &mut Walker<'_>, remote: &mut Option<Remote>) {
    let before = remote.take();
    let mut address = before.as_ref().map(|before| before.address);
    let (mut cert, mut key, mut client_ca) =
        before.map_or((None, None, None), |Remote { tls, .. }| (Some(tls.cert), Some(tls.key), tls.client_ca));
    reading.set(section, "address", &mut address, |text| optional(text, parse_listen));
    let mut tls = section.section("tls");
    for (name, path) in [("cert", &mut cert), ("key", &mut key), ("clientCa", &mut client_ca)] {
        reading.set(&mut tls, name, path, |text| optional(text, parse_path));
    }
    let Some(address) = address else { return };
    for (name, path) in [("cert", &cert), ("key", &key)] {
        if path.is_none() {
            let place = format!("{}.{name}", tls.path());
            let message = "missing: listen.remote.address is set, and that listener speaks TLS only; expected the path of a PEM file";
            reading.mistakes.note(place, tls.line(), message);
        }
    }
    if let (Some(cert), Some(key)) = (cert, key) {
        *remote = Some(Remote { address, tls: TlsFiles { cert, key, client_ca } });
    }
}

fn optional<T>(text: &str, parser: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parser(text).map(Some) }
}

fn limit(reading: &Reading<'_>, section: &mut Walker<'_>, limit: &mut LimitConfig) {
    reading.set(section, "rate", &mut limit.rate_per_kilosecond, parse_rate);
    reading.set(section, "burst", &mut limit.burst, |text| match text.parse::<u32>() {
        Ok(burst) if u64::from(burst) <= BURST_MAX => Ok(burst),
        _ => Err(format!("expected an integer from 0 to {BURST_MAX}, found {text:?}")),
    });
    reading.set(section, "nodelay", &mut limit.nodelay, parse_bool);
    reading.set(section, "dryRun", &mut limit.dry_run, parse_bool);
}

/// Sets values from the file, then from the environment.
struct Reading<'a> {
    mistakes: &'a Mistakes,
    environment: Environment<'a>,
}

impl Reading<'_> {
    fn set<T, E: fmt::Display>(
        &self,
        section: &mut Walker<'_>,
        key: &'static str,
        into: &mut T,
        parser: impl Fn(&str) -> Result<T, E>,
    ) {
        if let Some(value) = section.take(key).and_then(|item| item.parsed(&parser)) {
            *into = value;
        }
        let name = environment_name(section.path(), key);
        match (self.environment)(&name).map(|text| parser(&text)) {
            Some(Ok(value)) => *into = value,
            Some(Err(error)) => self.mistakes.note(name, 0, error.to_string()),
            None => {}
        }
    }

    /// A list; in the environment its items are separated by commas.
    fn set_list<T, E: fmt::Display>(
        &self,
        section: &mut Walker<'_>,
        key: &'static str,
        into: &mut Vec<T>,
        parser: impl Fn(&str) -> Result<T, E>,
    ) {
        if let Some(items) = section.take(key).and_then(|item| item.list()) {
            *into = items.iter().filter_map(|item| item.parsed(&parser)).collect();
        }
        let name = environment_name(section.path(), key);
        if let Some(text) = (self.environment)(&name) {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            match items.map(&parser).collect::<Result<Vec<T>, E>>() {
                Ok(items) => *into = items,
                Err(error) => self.mistakes.note(name, 0, error.to_string()),
            }
        }
    }
}

/// `gate.limits.perSource` and `rate` → `GOSCOPE_GATE_LIMITS_PER_SOURCE_RATE`.
fn environment_name(path: &str, key: &str) -> String {
    let mut name = String::from(ENV_PREFIX);
    for c in path.chars().chain(['.']).chain(key.chars()) {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => {
                name.push('_');
                name.push(c);
            }
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// Reads `127.0.0.1:6060`, `http://localhost:6060`, `unix:///run/debug.sock`. Host names other than `localhost` are refused: goscope watches the
/// process beside it.
///
/// # Errors
/// A sentence with what was expected and found.
pub fn parse_target(text: &str) -> Result<TargetAddress, String> {
    let refuse = || {
        let found = text.rsplit_once('@').map_or(text, |(_, host)| host);
        format!(
            "expected an address such as 127.0.0.1:6060, http://localhost:6060 or unix:///run/debug.sock, found {found:?}"
        )
    };
    if let Some(path) = text.strip_prefix("unix://") {
        return if path.starts_with('/') && path.len() > 1 {
            Ok(TargetAddress::Unix(path.into()))
        } else {
            Err(refuse())
        };
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.strip_suffix('/').unwrap_or(address);
    parse_socket(address).filter(|address| address.port() != 0).map(TargetAddress::Tcp).ok_or_else(refuse)
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    parse_socket(text)
        .ok_or_else(|| format!("expected an address such as 127.0.0.1:6061 or [::1]:6061, found {text:?}"))
}

fn parse_socket(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path, found nothing".to_owned()) } else { Ok(text.into()) }
}

fn parse_seconds_cap(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(seconds) if (1..=SECONDS_CAP_MAX).contains(&u64::from(seconds)) => Ok(seconds),
        _ => Err(format!("expected whole seconds from 1 to {SECONDS_CAP_MAX}, found {text:?}")),
    }
}

/// Reads how long something is kept: a duration of at least a minute.
///
/// # Errors
/// A sentence with what was expected and found.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(age) if age >= Duration::from_secs(60) => Ok(age),
        Ok(_) => Err(format!("expected at least 1m, found {text:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_every(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(every) if every >= SELFTEST_EVERY_MIN => Ok(every),
        Ok(_) => Err(format!("expected at least {}, found {text:?}", duration_text(SELFTEST_EVERY_MIN))),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("expected true or false, found {text:?}")),
    }
}

#[cfg(test)]
mod tests;
