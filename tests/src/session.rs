//! One `goscope run -- shop` in a folder of its own, or the shop bare in the same setting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::fault::Fault;
use crate::go::{self, Flavour};
use crate::incident::{self, Stored};
use crate::process::{self, Outcome, Process};
use crate::{http, ports, wait};

/// Where the shop serves pprof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debug {
    Tcp,
    Unix,
    None,
}

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Setup {
    pub release: &'static str,
    pub flavour: Flavour,
    pub debug: Debug,
    /// Further arguments of the shop.
    pub shop: Vec<String>,
    /// `goscope run --quiet`: its standard error is the app's, byte for byte.
    pub quiet: bool,
    /// Replaces the limits that let a test ask as often as it likes; in YAML, below `gate:`.
    pub gate: String,
    /// `ulimit -v` of the shop.
    pub address_space_kib: Option<u32>,
    /// Let a second process beside the launcher write down what the shop writes to stderr.
    pub witness: bool,
}

const NO_LIMITS: &str = "{ limits: { perSource: { rate: 1000/s, burst: 1000, nodelay: true }, perIdentity: { rate: 1000/s, burst: 1000, nodelay: true }, api: { rate: 1000/s, burst: 1000, nodelay: true } } }";

impl Setup {
    /// The usual shop with `args`.
    #[must_use]
    pub fn new(args: &[&str]) -> Self {
        Self {
            release: go::USUAL,
            flavour: Flavour::Plain,
            debug: Debug::Tcp,
            shop: args.iter().map(ToString::to_string).collect(),
            quiet: true,
            gate: NO_LIMITS.to_owned(),
            address_space_kib: None,
            witness: false,
        }
    }

    /// The shop that raises `fault`, built with `release`.
    #[must_use]
    pub fn fault(fault: &Fault, release: &'static str) -> Self {
        let mut setup = Self::new(&["-fault", fault.name]);
        setup.release = release;
        setup.flavour = fault.flavour;
        setup.address_space_kib = fault.address_space_kib;
        setup
    }

    /// Starts the shop alone.
    ///
    /// # Errors
    /// It cannot be built or started.
    pub fn bare(self) -> anyhow::Result<Session> {
        self.start(false)
    }

    /// Starts `goscope run -- shop`.
    ///
    /// # Errors
    /// It cannot be built or started.
    pub fn under_goscope(self) -> anyhow::Result<Session> {
        self.start(true)
    }

    /// Prepares the folder, the configuration and the command, and starts nothing.
    ///
    /// # Errors
    /// The shop cannot be built, or the folder not written.
    pub fn prepare(&self, under_goscope: bool) -> anyhow::Result<(Place, Command)> {
        let shop = go::shop(self.release, self.flavour)?;
        let place = Place::new(self)?;
        let mut line: Vec<String> = Vec::new();
        if under_goscope {
            line.extend([goscope()?.display().to_string(), "run".to_owned()]);
            line.extend(["--config".to_owned(), place.config().display().to_string()]);
            line.extend(["--data".to_owned(), place.data().display().to_string()]);
            if self.quiet {
                line.push("--quiet".to_owned());
            }
            line.push("--".to_owned());
        }
        if let Some(kib) = self.address_space_kib {
            line.extend(["sh", "-c", "ulimit -v \"$0\"; exec \"$@\""].map(str::to_owned));
            line.push(kib.to_string());
        }
        if self.witness {
            line.extend(["bash", "-c", "exec \"$@\" 2> >(exec tee \"$0\" >&2)"].map(str::to_owned));
            line.push(place.witness().display().to_string());
        }
        line.push(shop.display().to_string());
        line.extend(["-ready-file".to_owned(), place.ready_file().display().to_string()]);
        if let Some(address) = &place.debug_address {
            line.extend(["-debug".to_owned(), address.clone()]);
            line.extend(["-record-debug".to_owned(), place.record().display().to_string()]);
        }
        line.extend(self.shop.iter().cloned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(place.folder()).env_remove("GOSCOPE_CONFIG").env("GOTRACEBACK", "all");
        Ok((place, command))
    }

    fn start(self, under_goscope: bool) -> anyhow::Result<Session> {
        let (place, mut command) = self.prepare(under_goscope)?;
        self.start_prepared(place, &mut command)
    }

    /// Starts what [`prepare`](Self::prepare) prepared.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_prepared(self, place: Place, command: &mut Command) -> anyhow::Result<Session> {
        let process = Process::spawn(command, place.folder(), "session")?;
        Ok(Session { place, process: Some(process) })
    }
}

/// The folder of a session and the addresses in it.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    /// The gate's port on 127.0.0.1.
    pub gate_port: u16,
    /// The metrics listener's port on 127.0.0.1.
    pub metrics_port: u16,
    /// Where the shop serves pprof, as its flag and our configuration write it.
    pub debug_address: Option<String>,
}

impl Place {
    fn new(setup: &Setup) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("goscope-e2e-").tempdir()?;
        let debug_address = match setup.debug {
            Debug::Tcp => Some(format!("127.0.0.1:{}", ports::free())),
            Debug::Unix => Some(format!("unix://{}", folder.path().join("debug.sock").display())),
            Debug::None => None,
        };
        let place = Self { folder, gate_port: ports::free(), metrics_port: ports::free(), debug_address };
        // Nothing listens on the port that stands for "the shop has no debug address".
        let target = place.debug_address.clone().unwrap_or_else(|| format!("127.0.0.1:{}", ports::free()));
        let config = format!(
            "target: {{ address: \"{target}\" }}\nlisten: {{ debug: \"127.0.0.1:{}\", metrics: \"127.0.0.1:{}\" }}\ngate: {}\n",
            place.gate_port, place.metrics_port, setup.gate
        );
        fs::write(place.config(), config)?;
        Ok(place)
    }

    /// The folder that holds everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// goscope's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder().join("goscope.yaml")
    }

    /// goscope's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder().join("goscope-data")
    }

    /// What the shop received on its debug address, as it came in.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.folder().join("requests.txt")
    }

    /// What the witness saw of the shop's stderr.
    #[must_use]
    pub fn witness(&self) -> PathBuf {
        self.folder().join("witness.txt")
    }

    fn ready_file(&self) -> PathBuf {
        self.folder().join("ready")
    }

    /// The shop's process id and HTTP port, once it listens.
    #[must_use]
    pub fn shop(&self) -> Option<(u32, u16)> {
        let text = fs::read_to_string(self.ready_file()).ok()?;
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
        Some((field("pid=")?.parse().ok()?, field("shop=127.0.0.1:")?.parse().ok()?))
    }

    /// The token that `goscope run` made.
    ///
    /// # Errors
    /// There is none.
    pub fn token(&self) -> anyhow::Result<String> {
        let path = self.data().join("token");
        Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
    }

    /// A URL of the gate with the token in its userinfo.
    ///
    /// # Errors
    /// There is no token.
    pub fn gate_url(&self, path: &str) -> anyhow::Result<String> {
        Ok(format!("http://me:{}@127.0.0.1:{}{path}", self.token()?, self.gate_port))
    }

    /// Waits until every run in the spool is handled to its end, then returns what was stored.
    ///
    /// # Errors
    /// The deadline passed, or what was stored is not whole.
    pub fn settled_incidents(&self) -> anyhow::Result<Vec<Stored>> {
        let handled = || {
            fs::read_dir(self.data().join("spool"))
                .ok()?
                .all(|run| run.is_ok_and(|r| is_handled(&r.path())))
                .then_some(())
        };
        wait::until("every run is handled", handled).with_context(|| self.agent_log())?;
        incident::stored(&self.data())
    }

    /// What the agent logged, for the message of a failed test.
    #[must_use]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.data().join("agent.log")).unwrap_or_default()
    }
}

/// The agent deletes a run that it has handled to its end, or says so in its checkpoint where the launcher may still look for the report.
fn is_handled(run: &Path) -> bool {
    match fs::read(run.join("checkpoint.json")) {
        Ok(text) => serde_json::from_slice(&text).is_ok_and(|checkpoint: serde_json::Value| checkpoint["done"] == true),
        Err(_) => !run.exists(),
    }
}

/// A session that runs. Dropped, it ends the shop and with it the launcher.
#[derive(Debug)]
pub struct Session {
    pub place: Place,
    process: Option<Process>,
}

impl Session {
    /// The process that was started: the launcher, or the shop itself.
    ///
    /// # Panics
    /// The session was finished.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("finish consumes the session")
    }

    /// Waits until the shop listens.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn await_shop(&self) -> anyhow::Result<(u32, u16)> {
        self.process().until("the shop listens", || self.place.shop()).with_context(|| self.diagnosis())
    }

    /// Waits until shop and agent are ready.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn await_ready(&self) -> anyhow::Result<()> {
        self.await_shop()?;
        let ready = || (http::get(self.place.metrics_port, "/readyz", &[]).ok()?.status == 200).then_some(());
        self.process().until("/readyz answers 200", ready).with_context(|| self.diagnosis())
    }

    /// `GET path` of the shop itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn shop_get(&self, path: &str) -> anyhow::Result<http::Answer> {
        http::get(self.await_shop()?.1, path, &[])
    }

    /// Does what the fault needs to end the shop, and waits for the end.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn finish_fault(self, fault: &Fault) -> anyhow::Result<(Outcome, Place)> {
        match fault.end {
            crate::fault::End::Status(_) => self.finish(),
            crate::fault::End::Quit(after) => self.finish_by(after, Signal::QUIT),
            crate::fault::End::Term(after) => self.finish_by(after, Signal::TERM),
        }
    }

    /// Sends a signal to what was started once `after` stood on stderr, and waits for the end.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn finish_by(self, after: &str, signal: Signal) -> anyhow::Result<(Outcome, Place)> {
        self.process().await_stderr(after)?;
        self.process().signal(signal)?;
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn finish(mut self) -> anyhow::Result<(Outcome, Place)> {
        let Some(process) = self.process.take() else { bail!("finished twice") };
        let log = self.place.agent_log();
        let outcome = process.finish().context(log);
        self.end_shop();
        // The folder stays with the caller: the agent may still be writing to it.
        let place = Place {
            folder: std::mem::replace(&mut self.place.folder, tempfile::tempdir()?),
            gate_port: self.place.gate_port,
            metrics_port: self.place.metrics_port,
            debug_address: self.place.debug_address.clone(),
        };
        Ok((outcome?, place))
    }

    fn diagnosis(&self) -> String {
        let stderr = self.process().stderr_so_far().unwrap_or_default();
        format!("stderr: {}\nagent: {}", String::from_utf8_lossy(&stderr), self.place.agent_log())
    }

    /// Ends the shop if it outlived its launcher.
    fn end_shop(&self) {
        let Some((id, _)) = self.place.shop() else { return };
        let ours = process::command_line(id).iter().any(|word| word == &self.place.ready_file().display().to_string());
        if let (true, Ok(pid)) = (ours, process::pid(id)) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end_shop();
        // With the app gone the launcher ends in order; killing it at once would leave an agent that believes in a crash.
        if let Some(mut process) = self.process.take() {
            process.ends_within(Duration::from_secs(5));
        }
    }
}

/// The binary under test.
///
/// # Errors
/// There is none; says how to make one.
pub fn goscope() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("GOSCOPE_BIN") {
        return Ok(path.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
        .join("x86_64-unknown-linux-gnu");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("goscope"));
    let newest = built.into_iter().filter(|p| p.exists()).max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok());
    newest.context("no goscope binary: run cargo build, or name one in GOSCOPE_BIN")?.canonicalize().map_err(Into::into)
}
