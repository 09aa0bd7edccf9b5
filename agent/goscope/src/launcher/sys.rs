//! The system calls that neither std nor rustix offers safely, behind safe functions. The only unsafe code of the workspace.
//!
//! Three groups: what the process was given before Rust's runtime touched it ([`record`]), what a child must be given back before it executes
//! ([`prepare_child`]), and signals as data instead of as interruptions ([`Signals`], [`wait_any`], [`die_by`], [`stop_by`]).
#![expect(
    unsafe_code,
    reason = "fork, signal masks, signalfd and wait4 have no safe interface; each use states why it is sound"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// `SIGPIPE` was ignored when the kernel started us. Rust's runtime ignores it always, and std's `Command` makes it the default always.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);
/// `SIGCHLD` was ignored when the kernel started us. Then the kernel would reap our children and lose their status.
static CHILD_WAS_IGNORED: AtomicBool = AtomicBool::new(false);
/// Bit N: descriptor N, of 0 and 1, was closed when the kernel started us. Rust's runtime opens `/dev/null` in its place.
static WERE_CLOSED: AtomicU8 = AtomicU8::new(0);

/// Runs before `main`, and before Rust's runtime changes what it records.
#[used]
// SAFETY: the C library calls each entry of .init_array once, as a C function, before main. `record` takes none of the arguments it is
// given, allocates nothing, and uses nothing of std that needs the runtime.
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    PIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
    CHILD_WAS_IGNORED.store(is_ignored(libc::SIGCHLD), Ordering::Relaxed);
    let mut closed = 0;
    for fd in [0, 1] {
        // SAFETY: F_GETFD reads a flag and is defined for any number.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            closed |= 1 << fd;
        }
    }
    WERE_CLOSED.store(closed, Ordering::Relaxed);
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action sigaction only writes the old one, and all-zero is a valid value of the C struct if it fails.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

fn set_disposition(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: only SIG_DFL and SIG_IGN are passed, so no function is ever called. signal(2) is async-signal-safe.
    unsafe { libc::signal(signal, handler) };
}

/// A set of blocked signals.
#[derive(Clone, Copy)]
pub(super) struct Mask(libc::sigset_t);

impl Mask {
    fn of(signals: impl IntoIterator<Item = i32>) -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set; sigaddset refuses a number that is no signal.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// The calling thread's.
    pub(super) fn current() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: with a null new set only the old one is written; a zeroed set is an empty one.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Makes it the calling thread's, in place of what is blocked now.
    pub(super) fn restore(self) {
        self.change(libc::SIG_SETMASK);
    }

    fn change(self, how: i32) {
        // SAFETY: the set is initialised; pthread_sigmask is async-signal-safe and fails only for an unknown `how`.
        unsafe { libc::pthread_sigmask(how, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// One signal as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) signal: i32,
    /// `si_code`: [`libc::SI_USER`] from kill(2), [`libc::SI_KERNEL`] from the terminal.
    pub(super) code: i32,
    /// Process id of the sender; 0 where it is the kernel or stands outside our process namespace.
    pub(super) sender: i32,
}

/// Signals taken as data: blocked in every thread, read from a descriptor. Dispositions stay as they were given to us, so a child needs
/// nothing but its mask back, and a signal that was ignored (as under nohup) is seen all the same, because a blocked signal is never dropped.
pub(super) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `signals` in this thread and in every thread it starts from now on.
    pub(super) fn take(signals: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let mask = Mask::of(signals);
        // SAFETY: the mask is initialised; the descriptor returned is new and ours alone.
        let fd = unsafe {
            let fd = libc::signalfd(-1, &raw const mask.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd == -1 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        mask.change(libc::SIG_BLOCK);
        if CHILD_WAS_IGNORED.load(Ordering::Relaxed) {
            set_disposition(libc::SIGCHLD, libc::SIG_DFL);
        }
        Ok(Self { fd })
    }

    /// The next signal that is pending; `None` if there is none.
    pub(super) fn next(&self) -> Option<Received> {
        // Layout of struct signalfd_siginfo, signalfd(2): u32 signo, i32 errno, i32 code, u32 pid, …, 128 bytes in all.
        let mut info = [0; 128];
        match rustix::io::read(&self.fd, &mut info[..]) {
            Ok(128) => {
                let field = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| info[at + i]));
                Some(Received { signal: field(0), code: field(8), sender: field(12) })
            }
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a child is given before it executes, besides what `Command` does.
#[derive(Clone, Copy)]
pub(super) struct ChildSetup {
    /// The signal mask that we were started with.
    pub(super) mask: Mask,
    /// Signal dispositions and closed descriptors as we were started with, for a child that stands where we stand.
    pub(super) as_given: bool,
    /// The child dies by SIGKILL when the calling thread does.
    pub(super) dies_with_us: bool,
    /// Put `GOTRACEBACK=all` into its environment; everything else keeps its order, duplicates included, which `Command::env` would not.
    pub(super) gotraceback: bool,
}

/// Makes `command` set up its child so, whether it is spawned or executed in place.
pub(super) fn prepare_child(command: &mut Command, setup: ChildSetup) {
    let parent = rustix::process::getpid();
    let child = move || {
        if setup.dies_with_us {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                // Our parent died before the line above; nobody is left to mirror this child.
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        if setup.gotraceback {
            // SAFETY: the string is static. putenv may allocate and takes the environment's lock: glibc keeps malloc usable after fork, and
            // no other thread of ours touches the environment, so the lock was free at the fork.
            unsafe { libc::putenv(c"GOTRACEBACK=all".as_ptr().cast_mut()) };
        }
        if setup.as_given {
            if PIPE_WAS_IGNORED.load(Ordering::Relaxed) {
                set_disposition(libc::SIGPIPE, libc::SIG_IGN);
            }
            if CHILD_WAS_IGNORED.load(Ordering::Relaxed) {
                set_disposition(libc::SIGCHLD, libc::SIG_IGN);
            }
            let closed = WERE_CLOSED.load(Ordering::Relaxed);
            for fd in [0, 1] {
                if closed & (1 << fd) != 0 {
                    // SAFETY: the descriptor is the /dev/null of Rust's runtime; nothing between here and exec uses it.
                    unsafe { libc::close(fd) };
                }
            }
        }
        setup.mask.restore();
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls on its own copies, but for putenv, which is argued above.
    unsafe { command.pre_exec(child) };
}

/// A change of state of one of our children.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) pid: i32,
    pub(super) state: State,
    pub(super) usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Exited(i32),
    Killed { signal: i32, core: bool },
    Stopped(i32),
    Continued,
}

/// What an ended child used, itself and the descendants it waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) max_rss_bytes: u64,
    pub(super) user: Duration,
    pub(super) system: Duration,
}

/// The next change of any child; reaps it if it has ended. Never waits.
pub(super) fn wait_any() -> Option<Change> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    // SAFETY: both pointers are valid for writes; an all-zero rusage is valid where the kernel writes none.
    let (pid, usage) = unsafe {
        let pid = libc::wait4(-1, &raw mut status, options, usage.as_mut_ptr());
        (pid, usage.assume_init())
    };
    let state = if pid <= 0 {
        return None;
    } else if libc::WIFEXITED(status) {
        State::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        State::Killed { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    } else if libc::WIFSTOPPED(status) {
        State::Stopped(libc::WSTOPSIG(status))
    } else {
        State::Continued
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.unsigned_abs()) + Duration::from_micros(t.tv_usec.unsigned_abs())
    };
    let usage = Usage {
        max_rss_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
    };
    Some(Change { pid, state, usage })
}

/// Sends `signal` to a process; one that is gone is no error worth telling.
pub(super) fn send(pid: i32, signal: i32) {
    // SAFETY: kill(2) takes any numbers. The process is our own child, not yet reaped, so the number is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// Ends this process as a process that does nothing about `signal` ends, without a core of our own. Returns where the kernel does not do
/// that: to PID 1.
pub(super) fn die_by(signal: i32) {
    // A core would show the launcher, in the app's name and perhaps over the app's own.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
    set_disposition(signal, libc::SIG_DFL);
    Mask::of([signal]).change(libc::SIG_UNBLOCK);
    // SAFETY: raise(3) sends to the calling thread; a fatal signal ends the whole process.
    unsafe { libc::raise(signal) };
}

/// Stops this process as the app was stopped; returns when it is continued. The kernel declines for an orphaned process group (nobody could
/// continue it) and for PID 1.
pub(super) fn stop_by(signal: i32) {
    let mask = Mask::of([signal]);
    // Raised while it is blocked: the terminal's own may be pending beside it, and being continued discards both. Raised after unblocking, the
    // terminal's would stop us first, and ours once more when we are continued.
    // SAFETY: as in die_by; the disposition is the one that the app was given as well.
    unsafe { libc::raise(signal) };
    mask.change(libc::SIG_UNBLOCK);
    mask.change(libc::SIG_BLOCK);
}
