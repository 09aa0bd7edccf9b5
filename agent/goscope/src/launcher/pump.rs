//! The pump: the thread that reads the app's stderr, records it, and passes it on to ours.
//!
//! Bytes are recorded before they are passed on. While our stderr has no room the app is not read, so that it feels the same back-pressure as
//! without us; once it has ended, the rest is read and recorded all the same, so that the record does not wait for a slow reader. When
//! nobody reads our stderr any more, the app's pipe is closed and the app gets its EPIPE.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::notices::Notices;
use super::outlet::Outlet;
use super::pacer::Pacer;
use super::recorder::Recorder;

const READ_BYTES: usize = 64 << 10;
/// A stack that holds this thread's calls; its buffers are on the heap.
const STACK_BYTES: usize = 128 << 10;
/// When the app has ended but its pipe is held open by another process: how long it must be quiet to be taken as drained …
const QUIET: Duration = Duration::from_millis(100);
/// … how long that may take …
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// … and how many bytes may wait in memory for our stderr meanwhile.
const PENDING_MAX: usize = 2 << 20;
/// Reads that empty the app's pipe before it is closed.
const HANG_UP_READS_MAX: usize = 64;

/// launcher --Order--> pump
#[derive(Debug)]
pub(super) enum Order {
    /// The app has ended: drain its pipe.
    AppEnded,
    /// A line for the person, line feed included.
    Say(String),
    /// Pass on what is left, then this text on a line of its own, and end.
    Finish(Vec<u8>),
}

/// pump --Progress--> launcher
#[derive(Debug)]
pub(super) enum Progress {
    /// After [`Order::AppEnded`]: everything that the app wrote is recorded and counted.
    Drained,
    /// After [`Order::Finish`]. Holds the app's pipe where another process still has its other end.
    Finished(Option<OwnedFd>),
}

/// Figures that both sides see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stderr_bytes: AtomicU64,
    pub(super) unspooled_bytes: AtomicU64,
    /// How often the agent was started.
    pub(super) incarnation: AtomicU32,
}

/// What the pump works on.
#[derive(Debug)]
pub(super) struct Inlets {
    /// The app's stderr; non-blocking.
    pub(super) app: OwnedFd,
    /// Bytes that it holds.
    pub(super) capacity: usize,
    /// The agent's stderr; non-blocking.
    pub(super) agent: Option<OwnedFd>,
    /// Whether to tell the person of trouble.
    pub(super) is_quiet: bool,
}

/// The launcher's end.
#[derive(Debug)]
pub(super) struct Pump {
    orders: Sender<Order>,
    progress: Receiver<Progress>,
    wake: Arc<OwnedFd>,
    /// Becomes readable when there is progress.
    pub(super) news: Arc<OwnedFd>,
    pub(super) shared: Arc<Shared>,
}

impl Pump {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub(super) fn start(inlets: Inlets, recorder: Option<Recorder>) -> io::Result<Self> {
        let (orders, order_rx) = channel();
        let (progress_tx, progress) = channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags)?);
        let news = Arc::new(eventfd(0, flags)?);
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            orders: order_rx,
            progress: progress_tx,
            wake: Arc::clone(&wake),
            news: Arc::clone(&news),
            shared: Arc::clone(&shared),
            pacer: Pacer::new(inlets.capacity),
            app: Some(inlets.app),
            agent: inlets.agent,
            is_quiet: inlets.is_quiet,
            recorder,
            buffer: vec![0; READ_BYTES],
            outlet: Outlet::new(io::stderr()),
            notices: Notices::default(),
            last_data: Instant::now(),
            phase: Phase::Running,
            last_words: None,
        };
        std::thread::Builder::new().name("pump".to_owned()).stack_size(STACK_BYTES).spawn(move || worker.run())?;
        Ok(Self { orders, progress, wake, news, shared })
    }

    pub(super) fn order(&self, order: Order) {
        // A pump that has ended needs no orders.
        if self.orders.send(order).is_ok() {
            ring(&self.wake);
        }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        silence(&self.news);
        self.progress.try_recv().ok()
    }
}

fn ring(bell: &OwnedFd) {
    // The counter of an eventfd cannot overflow by ones.
    rustix::io::write(bell, &1_u64.to_ne_bytes()).ok();
}

fn silence(bell: &OwnedFd) {
    rustix::io::read(bell, &mut [0; 8][..]).ok();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { since: Instant },
    Drained,
}

#[derive(Debug)]
struct Worker {
    orders: Receiver<Order>,
    progress: Sender<Progress>,
    wake: Arc<OwnedFd>,
    news: Arc<OwnedFd>,
    shared: Arc<Shared>,
    pacer: Pacer,
    /// `None` after its end, or after we closed it.
    app: Option<OwnedFd>,
    agent: Option<OwnedFd>,
    is_quiet: bool,
    recorder: Option<Recorder>,
    buffer: Vec<u8>,
    outlet: Outlet<io::Stderr>,
    notices: Notices,
    /// When the app's pipe gave something, or the app ended.
    last_data: Instant,
    phase: Phase,
    last_words: Option<Vec<u8>>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            while let Ok(order) = self.orders.try_recv() {
                self.take(order, now);
            }
            if self.outlet.is_gone() && self.phase == Phase::Running {
                self.hang_up(now);
            }
            if let Phase::Draining { since } = self.phase
                && self.is_drained(since, now)
            {
                self.phase = Phase::Drained;
                self.tell(Progress::Drained);
            }
            self.place_notices(now);
            if self.last_words.is_some() && self.outlet.pending() == 0 {
                break;
            }
            self.wait(now);
        }
        let app = self.app.take();
        self.tell(Progress::Finished(app));
    }

    fn tell(&self, progress: Progress) {
        // The launcher may have left already.
        drop(self.progress.send(progress));
        ring(&self.news);
    }

    fn take(&mut self, order: Order, now: Instant) {
        match order {
            Order::AppEnded => {
                self.phase = Phase::Draining { since: now };
                self.last_data = now;
                self.pacer.stop();
            }
            Order::Say(line) => self.notices.push_line(line.as_bytes(), now),
            Order::Finish(text) => {
                let mut words = self.notices.take();
                words.extend_from_slice(&text);
                if !words.is_empty() {
                    self.write_fresh_line(&words);
                }
                self.last_words = Some(text);
            }
        }
    }

    fn is_drained(&self, since: Instant, now: Instant) -> bool {
        self.app.is_none()
            || now >= self.last_data + QUIET
            || now >= since + DRAIN_MAX
            || self.outlet.pending() > PENDING_MAX
    }

    /// Polls what is of interest now, and handles what is ready.
    fn wait(&mut self, now: Instant) {
        let rest = self.pacer.rest(now);
        let reads_app = match self.phase {
            Phase::Running => rest.is_zero() && self.outlet.pending() == 0,
            Phase::Draining { .. } => true,
            Phase::Drained => false,
        };
        let reads_agent = !self.notices.is_full() && self.last_words.is_none();
        let timeout = self.timeout(now, rest).map(|t| {
            let tv_sec = i64::try_from(t.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: i64::from(t.subsec_nanos()) }
        });

        let wake = Arc::clone(&self.wake);
        let app = self.app.as_ref().filter(|_| reads_app);
        let agent = self.agent.as_ref().filter(|_| reads_agent);
        let outlet = Some(&self.outlet).filter(|outlet| outlet.is_worth_polling());
        // What is of no interest now is replaced by the bell, polled for nothing.
        let nothing = || PollFd::new(&wake, PollFlags::empty());
        let mut fds = [
            PollFd::new(&wake, PollFlags::IN),
            outlet.map_or_else(nothing, |fd| PollFd::new(fd, fd.interest())),
            app.map_or_else(nothing, |fd| PollFd::new(fd, PollFlags::IN)),
            agent.map_or_else(nothing, |fd| PollFd::new(fd, PollFlags::IN)),
        ];
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return;
        }
        let [wake_events, outlet_events, app_events, agent_events] = fds.map(|fd| fd.revents());
        if !wake_events.is_empty() {
            silence(&wake);
        }
        if !outlet_events.is_empty() {
            self.outlet.polled(outlet_events);
            self.outlet.flush();
        }
        if !agent_events.is_empty() {
            self.read_agent();
        }
        let is_to_hang_up = self.outlet.is_gone() && self.phase == Phase::Running;
        if !app_events.is_empty() && !is_to_hang_up {
            self.read_app(Instant::now());
        }
    }

    fn timeout(&self, now: Instant, rest: Duration) -> Option<Duration> {
        let rest = Some(rest).filter(|rest| !rest.is_zero());
        let drained = match self.phase {
            Phase::Draining { since } => Some((self.last_data + QUIET).min(since + DRAIN_MAX)),
            Phase::Running | Phase::Drained => None,
        };
        let notices = self.notices.deadline().filter(|_| self.outlet.pending() == 0);
        let left = |until: Instant| until.saturating_duration_since(now);
        [rest, drained.map(left), notices.map(left)].into_iter().flatten().min()
    }

    /// Reads once; `false` when there is nothing (yet, or ever).
    fn read_app(&mut self, now: Instant) -> bool {
        let Some(app) = &self.app else { return false };
        match rustix::io::read(app, &mut self.buffer[..]) {
            Ok(0) => {
                self.app = None;
                false
            }
            Ok(count) => {
                self.last_data = now;
                self.pacer.read(count, now);
                self.pass(count, now);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Err(_) => {
                self.app = None;
                false
            }
        }
    }

    /// Records and passes on the first `count` bytes of the buffer. Lines of ours that wait go between the last whole line in it and the rest.
    fn pass(&mut self, count: usize, now: Instant) {
        let bytes = self.buffer.get(..count).expect("read returns at most the buffer's length");
        self.shared.stderr_bytes.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(recorder) = &mut self.recorder {
            recorder.append(bytes, now);
            self.shared.unspooled_bytes.store(recorder.unspooled(), Ordering::Relaxed);
            if let Some(error) = recorder.trouble().filter(|_| !self.is_quiet) {
                let line = format!("goscope: cannot record the app's stderr, only pass it on: {error}\n");
                self.notices.push_line(line.as_bytes(), now);
            }
        }
        match memchr::memrchr(b'\n', bytes) {
            Some(end) if !self.notices.is_empty() => {
                let (lines, rest) = bytes.split_at(end + 1);
                self.outlet.write(lines);
                self.outlet.write(&self.notices.take());
                self.outlet.write(rest);
            }
            _ => self.outlet.write(bytes),
        }
    }

    fn read_agent(&mut self) {
        let Some(agent) = &self.agent else { return };
        let mut bytes = [0; 4096];
        match rustix::io::read(agent, &mut bytes[..]) {
            Ok(0) => self.agent = None,
            Ok(count) => {
                let incarnation = self.shared.incarnation.load(Ordering::Relaxed);
                self.notices.push(bytes.get(..count).unwrap_or_default(), incarnation, Instant::now());
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.agent = None,
        }
    }

    /// Shows the lines that wait where the app's stream stands at the start of a line, or has long stood in the middle of one.
    fn place_notices(&mut self, now: Instant) {
        if self.outlet.pending() == 0
            && self.notices.deadline().is_some_and(|at| self.outlet.at_line_start() || now >= at)
        {
            let lines = self.notices.take();
            self.write_fresh_line(&lines);
        }
    }

    fn write_fresh_line(&mut self, lines: &[u8]) {
        if !self.outlet.at_line_start() {
            self.outlet.write(b"\n");
        }
        self.outlet.write(lines);
    }

    /// Nobody reads our stderr. The app shall see what it would see without us: what it has written is recorded, then its pipe is closed.
    fn hang_up(&mut self, now: Instant) {
        if self.app.is_some() {
            // Bounded, for an app that writes as fast as we read.
            for _ in 0..HANG_UP_READS_MAX {
                if !self.read_app(now) {
                    break;
                }
            }
            self.app = None;
        }
    }
}
