//! The launcher: starts the app, records its stderr, passes signals on, and ends as the app ended. `goscope exec` is the launcher alone;
//! `goscope run` is the launcher with the agent as a second process.
//!
//! Two threads. The *main thread* takes signals as data, waits for children, keeps the agent running, and decides when to leave; the
//! `pump` owns the app's pipe, the recording and our stderr. Neither parses anything.
//!
//! What the app can tell from being started bare: its parent is the launcher, its stderr is a pipe, `GOTRACEBACK` is `all` unless it was
//! set, and it dies by SIGKILL when the launcher does. With a controlling terminal it is in our process group, so that the terminal's
//! signals reach it from the kernel, once; without one it has its own process group and every signal comes from us.
//!
//! Before the app has started, whatever keeps the launcher from its work (no descriptor, no thread, no process to be had) makes it execute the
//! app in its own place; a spool that cannot be written only ends the recording. Room in the spool is made by a thread of its own (`clear`) meanwhile.
//!
//! The end: the app's pipe is drained (a process that holds it open beyond the app's death is given up to `goscope drain`), `exit.json` is
//! written, the agent's doorbell rung, its report awaited for at most two seconds, and the app's status taken for ours.
//!
//! The agent's own container has something like it, [`keep_worker`]: process 1 starts the agent and stays.

use std::cell::Cell;
use std::ffi::OsString;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use self::agent::Agent;
use self::app::App;
use self::clear::{Clearing, Limits};
use self::outlet::say;
use self::pump::{Inlets, Order, Progress, Pump};
use self::record::Exit;
use self::recorder::{Recorder, RunFolder};
use self::signals::{Fate, Standing, asks_to_end, fate, is_job_control_stop};
use self::supervisor::Supervisor;
use self::sys::{Change, Mask, Received, Signals, State};
use crate::spool::REPORT;

mod agent;
mod app;
mod clear;
mod drain;
mod mask;
mod notices;
mod outlet;
mod pacer;
mod program;
mod pump;
mod record;
mod recorder;
mod signals;
mod supervisor;
mod sys;
mod worker;

pub use self::agent::{AgentOptions, Notices};
pub use self::drain::drain;
pub use self::recorder::SPOOL_MIN;
pub use self::worker::keep_worker;

/// The pipe's size that is asked for: what a dying app can write before it has to wait for us.
const PIPE_BYTES: usize = 1 << 20;
/// How long the agent may take for its report.
const REPORT_WAIT: Duration = Duration::from_secs(2);
/// How often the agent may end while its report is awaited, and be started again at once.
const LATE_ENDS_MAX: u32 = 3;
/// How often the report is looked for.
const REPORT_LOOK: Duration = Duration::from_millis(5);
/// How long the app's last bytes may take after somebody asked us to end as well.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the exit record waits for the build information of an app that died at once, and for what was done about the other runs.
const NOTE_PATIENCE: Duration = Duration::from_millis(500);
/// A longer report is cut.
const REPORT_BYTES_MAX: u64 = 256 << 10;
/// What the pump may still have in hand when the app stops.
const STOP_PAUSE: Duration = Duration::from_millis(2);

/// What to run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments, at least one word.
    pub command: Vec<OsString>,
    /// The folder that holds the runs.
    pub spool: PathBuf,
    /// Bytes of stderr that this run keeps there at most; [`SPOOL_MIN`] at least.
    pub spool_bytes_max: u64,
    /// Bytes that all runs keep there together at most; less than a run may keep bounds that as well.
    pub spool_total_bytes: u64,
    /// The agent to keep beside the app.
    pub agent: Option<AgentOptions>,
    /// Nothing but the app's own bytes on stderr, unless the app cannot be started.
    pub is_quiet: bool,
}

/// Runs the app to its end and returns its status. Where a signal ended the app, the same ends this process, and this returns only where
/// the kernel does not let it. Where the launcher cannot do its work, this process becomes the app.
#[must_use]
pub fn launch(launch: Launch) -> ExitCode {
    let mask = Mask::current();
    let now = SystemTime::now();
    let Some(app) = App::new(&launch.command) else { return ExitCode::from(crate::cli::EXIT_UNUSABLE) };

    let name = record::run_name(now, random());
    let folder = match RunFolder::create(&launch.spool, &name, &record::start(&app, &launch.command, now)) {
        Ok(folder) => Some(Arc::new(folder)),
        Err(error) => {
            if !launch.is_quiet {
                let spool = launch.spool.display();
                say(&format!("goscope: cannot record to {spool}: {error}; the app runs without\n"));
            }
            None
        }
    };
    let started = Session::start(&launch, folder.clone(), name, mask).and_then(|(session, stderr)| {
        let shares_group = session.standing.shares_group;
        match app.spawn(stderr, shares_group, mask) {
            Err(error) if !app::is_our_shortage(&error) => Ok((session, Err(error))),
            result => result.map(|pid| (session, Ok(pid))),
        }
    });
    match started {
        Ok((mut session, Ok(pid))) => {
            // An agent of our own reads the executable itself.
            session.noting =
                folder.filter(|_| launch.agent.is_none()).map(|folder| program::note(app.executable(), folder));
            session.watch(pid, now)
        }
        Ok((session, Err(error))) => not_started(&app, Some(&session.clearing), folder.as_deref(), &error, now),
        Err(_) => {
            if let Some(folder) = &folder {
                folder.remove();
            }
            let error = app.exec(mask);
            not_started(&app, None, None, &error, now)
        }
    }
}

fn not_started(
    app: &App<'_>,
    clearing: Option<&Clearing>,
    folder: Option<&RunFolder>,
    error: &io::Error,
    started: SystemTime,
) -> ExitCode {
    let (status, text) = app::start_failure(app.program, error);
    // Also without a record: what is too much has to go where an app never starts.
    let cleared = clearing.map(|clearing| clearing.wait(NOTE_PATIENCE)).unwrap_or_default();
    if let Some(folder) = folder {
        let mut exit = Exit::new(started);
        exit.not_started(status, &text, SystemTime::now());
        // The status and the line below tell it as well.
        drop(folder.write_exit(&exit.record(0, 0, cleared)));
    }
    say(&format!("goscope: {text}\n"));
    ExitCode::from(status)
}

/// Distinguishes runs that start in the same second; need not be unpredictable.
fn random() -> u32 {
    let seed = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(seed & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// Everything that the main thread works with while the app runs.
struct Session {
    mask: Mask,
    signals: Signals,
    standing: Standing,
    folder: Option<Arc<RunFolder>>,
    pump: Pump,
    agent: Option<Keeper>,
    /// The copy of the app's build information, where we make one.
    noting: Option<program::Noting>,
    /// What is done about the other runs.
    clearing: Clearing,
    is_quiet: bool,
    /// We were stopped with the app and are continued: the next SIGCONT is the shell's, which the app has had as well.
    was_stopped: Cell<bool>,
}

/// The agent and its supervision.
struct Keeper {
    agent: Agent,
    supervisor: Supervisor,
    pid: Option<i32>,
    /// Ends of the agent since the app has ended.
    late_ends: u32,
}

impl Keeper {
    /// When to start the agent; `None` while it runs, and when it was given up.
    fn start_at(&self) -> Option<Instant> {
        self.supervisor.start_at().filter(|_| !self.is_given_up())
    }

    fn is_given_up(&self) -> bool {
        self.late_ends > LATE_ENDS_MAX
    }
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The pump reads what the app has left.
    Draining,
    /// The agent writes its report.
    Reporting {
        until: Instant,
    },
    /// The pump passes on what it has.
    Finishing,
}

impl Session {
    /// Makes everything that can fail, before the app is started; returns also the stderr that the app is to get.
    fn start(launch: &Launch, folder: Option<Arc<RunFolder>>, run: String, mask: Mask) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let capacity = fcntl_setpipe_size(&writer, PIPE_BYTES).or_else(|_| fcntl_getpipe_size(&writer))?;
        let (agent, ear) = match &launch.agent {
            Some(options) => {
                let run = folder.is_some().then(|| run.clone());
                let (agent, ear) = Agent::new(options.clone(), run)?;
                (Some(agent), ear)
            }
            None => (None, None),
        };
        let signals = Signals::take(signals::taken())?;
        let run_bytes = launch.spool_bytes_max.min(launch.spool_total_bytes).max(SPOOL_MIN);
        let clearing = clear::begin(launch.spool.clone(), run, Limits::new(run_bytes, launch.spool_total_bytes));
        let recorder = folder.clone().map(|folder| Recorder::new(folder, run_bytes));
        let inlets = Inlets { app: reader, capacity, agent: ear, is_quiet: launch.is_quiet };
        let pump = Pump::start(inlets, recorder)?;
        let standing = Standing {
            shares_group: has_controlling_terminal(),
            app: 0,
            own: rustix::process::getpid().as_raw_nonzero().get(),
        };
        let agent =
            agent.map(|agent| Keeper { agent, supervisor: Supervisor::new(Instant::now()), pid: None, late_ends: 0 });
        Ok((
            Self {
                mask,
                signals,
                standing,
                folder,
                pump,
                agent,
                noting: None,
                clearing,
                is_quiet: launch.is_quiet,
                was_stopped: Cell::new(false),
            },
            writer,
        ))
    }

    /// The main thread's loop, until the app has ended and everything about its end is done.
    fn watch(mut self, app: i32, started: SystemTime) -> ExitCode {
        self.standing.app = app;
        let mut exit = Exit::new(started);
        let mut phase = Phase::Running;
        let mut ending = None;
        let mut leave_at: Option<Instant> = None;
        loop {
            if leave_at.is_some_and(|at| at <= Instant::now()) {
                if phase == Phase::Draining {
                    self.write_exit(&exit);
                }
                return leave(ending);
            }
            self.keep_agent(phase);
            self.wait(phase, leave_at);
            while let Some(received) = self.signals.next() {
                if phase == Phase::Running {
                    self.handle(received, &mut exit);
                } else if asks_to_end(received.signal) {
                    // The app has ended already, so this is for us: no waiting for a report, or for long for a slow reader.
                    let patience = if phase == Phase::Draining { DRAIN_PATIENCE } else { Duration::ZERO };
                    leave_at.get_or_insert_with(|| Instant::now() + patience);
                }
            }
            while let Some(change) = sys::wait_any() {
                match change.state {
                    State::Exited(_) | State::Killed { .. } if change.pid == app => {
                        exit.ended(app, change.state, change.usage, SystemTime::now());
                        ending = Some(change.state);
                        phase = Phase::Draining;
                        self.pump.order(Order::AppEnded);
                    }
                    State::Stopped(signal) if change.pid == app => self.follow_stop(signal),
                    _ => self.note_agent(change, phase),
                }
            }
            while let Some(progress) = self.pump.progress() {
                match progress {
                    Progress::Drained => {
                        self.write_exit(&exit);
                        phase = self.ask_for_report(leave_at.is_none());
                    }
                    Progress::Finished(rest) => {
                        self.leave_rest(rest);
                        return leave(ending);
                    }
                }
            }
            if let Phase::Reporting { until } = phase
                && let Some(report) = self.report(until)
            {
                self.pump.order(Order::Finish(report));
                phase = Phase::Finishing;
            }
        }
    }

    /// Waits for a signal, for the pump, or for the time of the next thing to do.
    fn wait(&self, phase: Phase, leave_at: Option<Instant>) {
        let now = Instant::now();
        let next = match phase {
            Phase::Running | Phase::Draining => self.agent.as_ref().and_then(Keeper::start_at),
            Phase::Reporting { .. } => Some(now + REPORT_LOOK),
            Phase::Finishing => None,
        };
        let timeout = [next, leave_at].into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        let timeout = timeout.map(timespec);
        let mut fds = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(self.pump.news.as_ref(), PollFlags::IN)];
        // An interrupted wait is a short one.
        poll(&mut fds, timeout.as_ref()).ok();
    }

    fn handle(&self, received: Received, exit: &mut Exit) {
        match fate(received, self.standing) {
            Fate::Forward => {
                // fg continues the whole group: then the app is running already.
                let is_needless = received.signal == libc::SIGCONT
                    && self.was_stopped.take()
                    && self.standing.shares_group
                    && !is_stopped(self.standing.app);
                if !is_needless {
                    sys::send(self.standing.app, received.signal);
                    exit.forwarded(received.signal);
                }
            }
            Fate::FromTerminal => exit.sent_by_terminal(received.signal),
            Fate::Child | Fate::Ignore => {}
        }
    }

    /// Job control stopped the app: the shell must see us stopped as well.
    fn follow_stop(&self, signal: i32) {
        if is_job_control_stop(signal) {
            // The app's last words before its stop come before the shell's.
            std::thread::sleep(STOP_PAUSE);
            sys::stop_by(signal);
            self.was_stopped.set(true);
        }
    }

    fn keep_agent(&mut self, phase: Phase) {
        let Some(keeper) = &mut self.agent else { return };
        let now = Instant::now();
        if phase == Phase::Finishing || keeper.start_at().is_none_or(|at| at > now) {
            return;
        }
        let incarnation = self.pump.shared.incarnation.fetch_add(1, Ordering::Relaxed);
        keeper.supervisor.started(now);
        match keeper.agent.start(self.mask) {
            Ok(pid) => {
                keeper.pid = Some(pid);
                if matches!(phase, Phase::Reporting { .. }) {
                    keeper.agent.ring();
                }
            }
            Err(error) => {
                keeper.supervisor.ended(now);
                keeper.late_ends += u32::from(phase != Phase::Running);
                if incarnation == 0 && !self.is_quiet {
                    self.pump.order(Order::Say(format!("goscope: cannot start the agent yet: {error}\n")));
                }
            }
        }
    }

    fn note_agent(&mut self, change: Change, phase: Phase) {
        if let Some(keeper) = &mut self.agent
            && keeper.pid == Some(change.pid)
            && matches!(change.state, State::Exited(_) | State::Killed { .. })
        {
            keeper.pid = None;
            let now = Instant::now();
            keeper.supervisor.ended(now);
            if phase != Phase::Running {
                keeper.late_ends += 1;
                keeper.supervisor.hurry(now);
            }
        }
    }

    fn write_exit(&self, exit: &Exit) {
        let Some(folder) = &self.folder else { return };
        if let Some(noting) = &self.noting {
            noting.wait(NOTE_PATIENCE);
        }
        let shared = &self.pump.shared;
        let record = exit.record(
            shared.stderr_bytes.load(Ordering::Relaxed),
            shared.unspooled_bytes.load(Ordering::Relaxed),
            self.clearing.wait(NOTE_PATIENCE),
        );
        if let Err(error) = folder.write_exit(&record)
            && !self.is_quiet
        {
            self.pump.order(Order::Say(format!("goscope: cannot record how the app ended: {error}\n")));
        }
    }

    fn ask_for_report(&mut self, waits: bool) -> Phase {
        let now = Instant::now();
        if let Some(keeper) = &mut self.agent
            && self.folder.is_some()
        {
            keeper.supervisor.hurry(now);
            keeper.agent.ring();
            if waits {
                return Phase::Reporting { until: now + REPORT_WAIT };
            }
        }
        self.pump.order(Order::Finish(Vec::new()));
        Phase::Finishing
    }

    /// The report, or nothing where none is to be expected any more; `None` as long as it may come.
    fn report(&self, until: Instant) -> Option<Vec<u8>> {
        let folder = self.folder.as_ref()?;
        if let Ok(file) = std::fs::File::open(folder.path().join(REPORT)) {
            let mut report = Vec::new();
            // Half a report is better than none.
            drop(io::Read::read_to_end(&mut io::Read::take(file, REPORT_BYTES_MAX), &mut report));
            if self.is_quiet {
                report.clear();
            }
            return Some(report);
        }
        let gives_up = self.agent.as_ref().is_none_or(Keeper::is_given_up);
        (gives_up || Instant::now() >= until).then(|| match self.is_quiet {
            true => Vec::new(),
            false => format!(
                "goscope: no report in time; nothing is lost: {} is read by the agent when it can, at the latest by that of the next run\n",
                folder.path().display()
            )
            .into_bytes(),
        })
    }

    /// Somebody outlives the app and still writes to its stderr. In a container they end with PID 1, so there is nobody to serve.
    fn leave_rest(&self, rest: Option<OwnedFd>) {
        if let Some(pipe) = rest
            && self.standing.own != 1
        {
            // Without a process to be had, they get a SIGPIPE with their next line.
            drop(agent::start_drain(pipe, self.mask));
        }
    }
}

/// As poll(2) takes it.
fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}

/// Ends as the child ended whose status is ours.
fn leave(ending: Option<State>) -> ExitCode {
    match ending {
        Some(State::Exited(status)) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Some(State::Killed { signal, .. }) => {
            sys::die_by(signal);
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
        }
        _ => ExitCode::FAILURE,
    }
}

fn has_controlling_terminal() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).is_ok()
}

/// The state in /proc/PID/stat, after the name in parentheses, which may hold anything: `T` is stopped.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplitn(2, |b| *b == b')').next().is_some_and(|after| after.starts_with(b" T"))
}
