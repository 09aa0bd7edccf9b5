//! The only file that knows every part: opens the sockets, starts the tasks, stops them in order.
//!
//! Ready: the recorder has opened its store, the listeners serve, and the gate knows whom to let in.
//!
//! Stop order: unready, stop accepting, requests and captures under way are finished or cut at the deadline, the recorder reads the spool to its end. A
//! second signal ends the process at once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::Context as _;
use prometheus::Registry;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::artifacts::{self, Artifacts};
use crate::api::captures::{self, Captures};
use crate::api::info::{self, About, Mode, Stored};
use crate::api::reading::Reading;
use crate::api::{Api, incidents};
use crate::collect::Collector;
use crate::collect::metrics::CollectMetrics;
use crate::config::check::process_environment;
use crate::config::{Config, TargetAddress};
use crate::gate::Gate;
use crate::gate::admission::Admission;
use crate::gate::audit::{self, AuditSink, AuditWriter};
use crate::gate::metrics::GateMetrics;
use crate::gate::tokens::TokenStore;
use crate::metrics::readiness::{Latch, Readiness};
use crate::metrics::recorder::RecorderMetrics;
use crate::notice::{Audience, Notices, Places};
use crate::pod::Pod;
use crate::recorder::{self, Settings, Wake};
use crate::selftest::SelfTest;
use crate::selftest::metrics::SelfTestMetrics;
use crate::store::catalogue::Volume;
use crate::store::depot::Depot;
use crate::store::metrics::StoreMetrics;
use crate::target::client::Client;
use crate::target::sampler::{Answer, Sample, Sampler, SamplerMetrics};
use crate::telemetry::capped_file::CappedFile;
use crate::telemetry::{self, Destination};
use crate::tls::Keeper;
use crate::tls::metrics::RemoteMetrics;
use crate::token::tier::TierSet;
use crate::{metrics, selftest, serve, token};

pub mod archive;

/// How the agent was started, beside its configuration.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// By `goscope run`.
    pub embedded: Option<Embedded>,
    /// An app runs already, or waits in its pod for us to run: whatever is wrong with the configuration or an address, we stay, and record.
    pub stays: bool,
    /// Why the configuration cannot be used; then what of it could be understood holds, and the gate stays closed.
    pub misconfigured: Option<String>,
}

/// How the agent was started by `goscope run`.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// Everything is below it.
    pub data: PathBuf,
    /// The run that the launcher began; `None` where it could not make one, and only gate and metrics are left to do.
    pub run: Option<String>,
    pub audience: Audience,
}

/// A fault of ours, not of the call: whoever started the agent starts it again.
#[derive(Debug, thiserror::Error)]
#[error("the recorder ended by itself")]
pub struct RecorderEnded;

/// How long a listener waits for an address that another agent is about to leave.
const BIND_PATIENCE: Duration = Duration::from_secs(3);
/// How long requests under way may go on after a stop.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Bytes of the audit trail in the data folder; one older generation of the same size stands beside it.
const AUDIT_BYTES_MAX: u64 = 16 << 20;
/// How long the target may take to answer for the first time before the person is told how to open it.
const TARGET_PATIENCE: Duration = Duration::from_secs(3);

/// Runs an agent until it is told to stop and has stopped.
///
/// # Errors
/// The log, the token or a listener cannot be opened. Where it [`stays`](Start::stays), an address that is taken is no error: recording goes on without it.
pub async fn main(config: Config, start: Start) -> anyhow::Result<()> {
    // Started through /proc/self/exe, it would show as "exe" in ps and top.
    rustix::thread::set_name(c"goscope").ok();
    let embedded = &start.embedded;
    if let Some(embedded) = embedded {
        std::fs::create_dir_all(&embedded.data).context("cannot make the data folder")?;
    }
    let level = process_environment(telemetry::LEVEL_VARIABLE);
    let destination = embedded.as_ref().map_or(Destination::Stderr, |e| Destination::File(&e.data));
    telemetry::init(destination, level.as_deref()).context("cannot open the log")?;
    let mut trouble = Vec::new();
    if let Some(mistakes) = &start.misconfigured {
        tracing::error!(error = mistakes, "configuration cannot be used: what dies is recorded, the gate stays closed");
        trouble.push(format!("{mistakes}\n  what dies is recorded all the same; the gate stays closed"));
    }
    if let Some(embedded) = embedded {
        let (clear, entry) = (embedded.data.join("token"), embedded.data.join("tokens.yaml"));
        // Without a token nobody gets in; what dies meanwhile is recorded all the same.
        if let Err(error) = token::keep(&clear, &entry, "me", TierSet::ALL) {
            tracing::error!(path = %clear.display(), %error, "cannot keep a token");
            trouble.push(format!(
                "cannot keep a token in {}: {error}; nobody gets through the gate by it",
                clear.display()
            ));
        }
    }
    Agent::build(config, start).await?.run(trouble).await
}

/// Everything known, nothing started.
struct Agent {
    config: Config,
    embedded: Option<Embedded>,
    stays: bool,
    is_misconfigured: bool,
    notices: Notices,
    registry: Registry,
    readiness: Readiness,
    debug: Option<TcpListener>,
    metrics: Option<TcpListener>,
    remote: Option<TcpListener>,
}

impl Agent {
    async fn build(config: Config, start: Start) -> anyhow::Result<Self> {
        let Start { embedded, stays, misconfigured } = start;
        let no_color = process_environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        let notices = Notices::new(embedded.as_ref().map_or(Audience::Quiet, |e| e.audience), no_color);
        let registry = metrics::registry().context("cannot register metrics")?;
        let readiness = Readiness::default();
        let mut agent = Self {
            config,
            embedded,
            stays,
            is_misconfigured: misconfigured.is_some(),
            notices,
            registry,
            readiness,
            debug: None,
            metrics: None,
            remote: None,
        };
        if !agent.stays {
            agent.bind(false, &CancellationToken::new()).await?;
        }
        Ok(agent)
    }

    async fn bind(&mut self, lenient: bool, stop: &CancellationToken) -> anyhow::Result<()> {
        let listen = &self.config.listen;
        let remote = async {
            match &listen.remote {
                Some(remote) => bind("listen.remote.address", remote.address, lenient, stop).await,
                None => Ok(None),
            }
        };
        (self.debug, self.metrics, self.remote) = tokio::try_join!(
            bind("listen.debug", listen.debug, lenient, stop),
            bind("listen.metrics", listen.metrics, lenient, stop),
            remote
        )?;
        Ok(())
    }

    /// `trouble` is told to the person after the first block.
    async fn run(mut self, trouble: Vec<String>) -> anyhow::Result<()> {
        let terminated_once = terminated()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (wake_tx, wake_rx) = mpsc::channel();
        let (build_tx, build_rx) = watch::channel(None);
        // finders --findings--> API
        let findings_tx = watch::Sender::new(Arc::new(Vec::new()));

        // The recorder and its bell first: there may be a death to tell within a second, and an address that is taken is waited for.
        let settings = self.settings();
        let recorder_metrics = RecorderMetrics::register(&self.registry).context("cannot register metrics")?;
        let store_metrics = StoreMetrics::register(&self.registry).context("cannot register metrics")?;
        let depot = Depot::new(store_metrics);
        let notices = self.notices;
        let (recorded_tx, mut recorded_rx) = tokio::sync::oneshot::channel::<()>();
        let recorder_latch = self.readiness.latch("recorder");
        let (recorder_depot, intake) = (depot.clone(), recorder_metrics.clone());
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || {
                let (depot, latch) = (recorder_depot, recorder_latch);
                recorder::record(settings, &depot, notices, recorder_metrics, &wake_rx, &build_tx, latch);
                drop(recorded_tx);
            })
            .context("cannot start the recorder")?;

        let sampler_metrics = SamplerMetrics::register(&self.registry).context("cannot register metrics")?;
        let (sampler, sample_rx) = Sampler::new(Client::new(self.config.target.clone()), sampler_metrics);
        metrics::go::register(&self.registry, sample_rx.clone(), build_rx.clone())
            .context("cannot register metrics")?;
        tasks.spawn(sampler.run(stop.clone()));

        let collect_metrics = CollectMetrics::register(&self.registry).context("cannot register metrics")?;
        let (host, pod) = (host_name(), Pod::of(&process_environment));
        let collector = Collector::new(self.config.target.clone(), depot.clone(), host, pod, collect_metrics);
        tasks.spawn(collector.clone().run(stop.clone()));

        let (metrics_latch, gate_latch) = (self.readiness.latch("metrics"), self.readiness.latch("gate"));
        if self.embedded.is_some() {
            tasks.spawn(follow_launcher(wake_tx.clone(), stop.clone()));
        }
        if self.stays {
            // Not before the recorder: an address that is taken may take its time.
            self.bind(true, &stop).await?;
        }
        let misconfigured = self.is_misconfigured;
        if misconfigured {
            (self.debug, self.remote) = (None, None);
        }
        let places = Places {
            target: &self.config.target,
            debug: local_address(self.debug.as_ref()),
            misconfigured,
            metrics: local_address(self.metrics.as_ref()),
            data: self.embedded.as_ref().map_or_else(|| self.config.store.path.as_path(), |e| e.data.as_path()),
        };
        self.notices.started(&places);
        trouble.iter().for_each(|trouble| self.notices.say(trouble));
        tracing::info!(
            debug = places.debug.map(tracing::field::display),
            metrics = places.metrics.map(tracing::field::display),
            remote = local_address(self.remote.as_ref()).map(tracing::field::display),
            "agent started"
        );

        let own = [&self.debug, &self.metrics, &self.remote].map(|listener| local_address(listener.as_ref()));
        if let Some(listener) = self.metrics {
            let router = metrics::router::router(self.registry.clone(), self.readiness.clone());
            tasks.spawn(serve::serve(listener, serve::routed(router), stop.clone(), tasks.clone()));
            drop(metrics_latch);
        }
        let mut trail = None;
        if self.debug.is_some() || self.remote.is_some() {
            let (sink, writer) = audit_trail(self.embedded.as_ref()).context("cannot open the audit trail")?;
            trail = Some(writer);
            let gate_metrics = GateMetrics::register(&self.registry).context("cannot register metrics")?;
            let inline = token::file::of_environment(&process_environment).map_err(anyhow::Error::msg)?;
            let tokens = TokenStore::new(self.config.gate.token_files.clone()).with_inline(inline);
            let gate = Gate::new(self.config.gate.clone(), self.config.target.clone(), tokens, sink, gate_metrics);
            tasks.spawn(gate.clone().run(stop.clone()));
            let reading = Reading::new(Volume::new(self.config.store.path.clone(), Some(host_name())));
            let about = About {
                mode: if self.embedded.is_some() { Mode::Run } else { Mode::Agent },
                host: host_name(),
                pod: Pod::of(&process_environment),
                admission: gate.admission().clone(),
                target: Some(info::Target {
                    address: self.config.target.clone(),
                    sample: sample_rx.clone(),
                    build: build_rx.clone(),
                }),
                stored: Stored::Agent {
                    depot: depot.clone(),
                    reading: reading.clone(),
                    max_bytes: self.config.store.max_bytes,
                },
                intake: Some(intake),
                findings: findings_tx.subscribe(),
            };
            let router = info::router(about)
                .merge(artifacts::router(Artifacts { reading: reading.clone(), depot: Some(depot.clone()) }))
                .merge(incidents::router(reading))
                .merge(captures::router(Captures { collector, caps: self.config.gate.caps }));
            let api = Api::new(gate.admission().clone(), router);
            let handler = api.handler(gate.handler(gate.router()));
            if let (Some(listener), Some(remote)) = (self.remote, &self.config.listen.remote) {
                let remote_metrics = RemoteMetrics::register(&self.registry).context("cannot register metrics")?;
                let keeper = Arc::new(Keeper::new(remote.tls.clone(), remote_metrics));
                tasks.spawn(Arc::clone(&keeper).follow(stop.clone()));
                tasks.spawn(wait_for_certificate(Arc::clone(&keeper), self.readiness.latch("remote"), stop.clone()));
                tasks.spawn(serve::serve_tls(listener, keeper, handler.clone(), stop.clone(), tasks.clone()));
            }
            if let Some(listener) = self.debug {
                tasks.spawn(serve::serve(listener, handler, stop.clone(), tasks.clone()));
            }
            tasks.spawn(wait_for_tokens(gate.admission().clone(), gate_latch, stop.clone()));
        }
        if self.embedded.is_some() {
            findings_tx.send_replace(Arc::new(selftest::unprobed(&self.config.target)));
        } else if self.config.selftest.enabled {
            let metrics = SelfTestMetrics::register(&self.registry).context("cannot register metrics")?;
            let (target, every) = (self.config.target.clone(), self.config.selftest.every);
            let test = SelfTest::new(own.into_iter().flatten(), target, every, metrics, findings_tx);
            tasks.spawn(test.run(sample_rx.clone(), stop.clone()));
        }
        if self.embedded.is_some() {
            let (notices, target) = (self.notices, self.config.target.clone());
            tasks.spawn(tell_about_target(notices, target, sample_rx, stop.clone()));
        }
        tasks.close();

        let is_recorder_gone = tokio::select! {
            () = terminated_once => false,
            () = stop.cancelled() => false,
            _ = &mut recorded_rx => true,
        };
        self.readiness.stop();
        stop.cancel();
        // A recorder that is gone has stopped already.
        wake_tx.send(Wake::Stop).ok();
        let finish = async {
            drop(tokio::time::timeout(STOP_GRACE, tasks.wait()).await);
            if !is_recorder_gone {
                drop(recorded_rx.await);
            }
            drop(trail);
        };
        tokio::select! {
            () = finish => tracing::info!("agent stopped"),
            () = terminated()? => tracing::warn!("agent stopped before the spool was read to its end"),
        }
        // Whoever started us starts us again: an agent that does not record must not look like one that does.
        anyhow::ensure!(!is_recorder_gone, RecorderEnded);
        Ok(())
    }

    fn settings(&self) -> Settings {
        let shown_store =
            self.embedded.as_ref().map_or_else(|| self.config.store.path.clone(), |e| e.data.join("data"));
        Settings {
            spool: self.config.intake.spool.clone(),
            store: self.config.store.clone(),
            host: host_name(),
            pod: Pod::of(&process_environment),
            own_run: self.embedded.as_ref().and_then(|e| e.run.clone()),
            shown_store,
        }
    }
}

/// Opens a listener. An address that is taken may be about to become free, because the agent of an earlier run is ending; after `stop` nobody
/// waits for it.
async fn bind(
    setting: &'static str,
    address: SocketAddr,
    lenient: bool,
    stop: &CancellationToken,
) -> anyhow::Result<Option<TcpListener>> {
    let deadline = tokio::time::Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline => {
                tokio::select! {
                    () = stop.cancelled() => return Ok(None),
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
            }
            Err(error) if lenient => {
                tracing::error!(setting, %address, %error, "listener cannot be opened");
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {address} ({setting})")),
        }
    }
}

fn local_address(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|listener| listener.local_addr().ok())
}

/// The pod's or the machine's name, which is also the name of this agent's folder on the volume.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '-' }).collect();
    if clean.is_empty() || clean.starts_with('.') { format!("host{clean}") } else { clean }
}

/// Beside an app on one machine the trail is a file in the data folder; in a container it goes to standard output, where logs are collected.
fn audit_trail(embedded: Option<&Embedded>) -> io::Result<(AuditSink, AuditWriter)> {
    match embedded {
        Some(embedded) => audit::start(CappedFile::open(embedded.data.join("audit.log"), AUDIT_BYTES_MAX)?),
        None => audit::start(io::stdout()),
    }
}

/// Tells the person how to open the target if it does not answer, and when it does.
async fn tell_about_target(
    notices: Notices,
    target: TargetAddress,
    mut sample: watch::Receiver<Option<Sample>>,
    stop: CancellationToken,
) {
    let mut answered = async || {
        sample
            .wait_for(|sample| sample.as_ref().is_some_and(|sample| matches!(sample.answer, Answer::Page(_))))
            .await
            .is_ok()
    };
    tokio::select! {
        () = stop.cancelled() => return,
        _ = answered() => return,
        () = tokio::time::sleep(TARGET_PATIENCE) => notices.no_target(&target),
    }
    tokio::select! {
        () = stop.cancelled() => {}
        up = answered() => if up { notices.say("the target answers now; the gate is open to it") },
    }
}

/// Reads the doorbell, standard input: a byte when the run has ended, the end of input when the launcher is gone.
async fn follow_launcher(wake: Sender<Wake>, stop: CancellationToken) {
    let doorbell = io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd);
    let mut doorbell = match doorbell {
        Ok(doorbell) => doorbell,
        Err(error) => {
            tracing::error!(%error, "standard input is no pipe of a launcher");
            return stop.cancel();
        }
    };
    let mut bytes = [0; 16];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            read = doorbell.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return stop.cancel(),
                // A recorder that is gone needs no bell.
                Ok(_) => drop(wake.send(Wake::Bell)),
            },
        }
    }
}

/// The gate is ready when it knows whom to let in. Its own task reads the files.
async fn wait_for_tokens(admission: Admission, latch: Latch, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = admission.knows_tokens() => drop(latch),
    }
}

/// The remote listener is ready when it has a certificate. Its own task reads the files.
async fn wait_for_certificate(keeper: Arc<Keeper>, latch: Latch, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = keeper.usable() => drop(latch),
    }
}

/// SIGTERM or SIGINT, from now on.
fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
