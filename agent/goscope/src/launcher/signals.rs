//! Which signals the launcher takes, and what becomes of each.

use super::sys::Received;

/// Signals that are left alone: KILL and STOP cannot be taken; a fault of ours must stay one; PIPE is what our own writes raise; 32 and 33 belong
/// to the C library.
const LEFT_ALONE: [i32; 11] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGPIPE,
    32,
    33,
];

/// Every signal that the launcher takes as data.
pub(super) fn taken() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| !LEFT_ALONE.contains(signal))
}

/// What becomes of a signal that reached the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Sent to the launcher alone: the app gets it from us.
    Forward,
    /// The terminal sent it to the whole process group: the app has it already.
    FromTerminal,
    /// A child of ours changed its state.
    Child,
    /// Nothing that concerns the app.
    Ignore,
}

/// What the fate of a signal depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// The app is in our process group, because we have a controlling terminal.
    pub(super) shares_group: bool,
    pub(super) app: i32,
    pub(super) own: i32,
}

/// Decides. A signal that somebody sends with kill(2) to the whole group of launcher and app cannot be told from one that was sent to the
/// launcher alone; it is forwarded, so that none is ever lost. Only the app itself as the sender is certain: it signals its own group.
pub(super) fn fate(received: Received, standing: Standing) -> Fate {
    let Received { signal, code, sender } = received;
    let from_process = code <= 0;
    match signal {
        libc::SIGCHLD => Fate::Child,
        // Raised by our own writes and our own use of the processor, where we stand under a limit.
        libc::SIGXFSZ | libc::SIGXCPU if !from_process || sender == standing.own => Fate::Ignore,
        _ if from_process && sender == standing.own => Fate::Ignore,
        _ if !standing.shares_group => Fate::Forward,
        _ if code == libc::SI_KERNEL => Fate::FromTerminal,
        _ if from_process && sender == standing.app => Fate::Ignore,
        _ => Fate::Forward,
    }
}

/// A signal that asks a program to end.
pub(super) fn asks_to_end(signal: i32) -> bool {
    matches!(signal, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
}

/// A stop that comes from job control. SIGSTOP is none: whoever stops the app alone and continues it alone must not find us stopped.
pub(super) fn is_job_control_stop(signal: i32) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// `SIGTERM` and the like; `SIGRTMIN+3` as the C library counts them; the bare number for one that Linux does not name.
pub(super) fn name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSTKFLT => "SIGSTKFLT",
        libc::SIGCHLD => "SIGCHLD",
        libc::SIGCONT => "SIGCONT",
        libc::SIGSTOP => "SIGSTOP",
        libc::SIGTSTP => "SIGTSTP",
        libc::SIGTTIN => "SIGTTIN",
        libc::SIGTTOU => "SIGTTOU",
        libc::SIGURG => "SIGURG",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGPROF => "SIGPROF",
        libc::SIGWINCH => "SIGWINCH",
        libc::SIGIO => "SIGIO",
        libc::SIGPWR => "SIGPWR",
        libc::SIGSYS => "SIGSYS",
        34 => "SIGRTMIN",
        35..=64 => return format!("SIGRTMIN+{}", signal - 34),
        _ => return signal.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use libc::{SI_KERNEL, SI_QUEUE, SI_TKILL, SI_USER};

    use super::*;

    const OWN: i32 = 10;
    const APP: i32 = 11;
    const OTHER: i32 = 12;

    #[test]
    fn fates() {
        let check = |shares_group, signal, code, sender, expected| {
            let standing = Standing { shares_group, app: APP, own: OWN };
            let got = fate(Received { signal, code, sender }, standing);
            assert_eq!(got, expected, "{} code {code} from {sender}, shares group: {shares_group}", name(signal));
        };
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGWINCH, libc::SIGHUP, libc::SIGCONT] {
            check(true, signal, SI_KERNEL, 0, Fate::FromTerminal);
            check(false, signal, SI_KERNEL, 0, Fate::Forward);
        }
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGWINCH, libc::SIGCONT, 40] {
            for code in [SI_USER, SI_QUEUE, SI_TKILL] {
                for shares_group in [true, false] {
                    check(shares_group, signal, code, OTHER, Fate::Forward);
                    check(shares_group, signal, code, 0, Fate::Forward);
                    check(shares_group, signal, code, OWN, Fate::Ignore);
                }
                check(true, signal, code, APP, Fate::Ignore);
                check(false, signal, code, APP, Fate::Forward);
            }
        }
        check(true, libc::SIGCHLD, libc::CLD_EXITED, APP, Fate::Child);
        check(false, libc::SIGXFSZ, SI_USER, OWN, Fate::Ignore);
        check(false, libc::SIGXCPU, SI_KERNEL, 0, Fate::Ignore);
        check(false, libc::SIGXCPU, SI_USER, OTHER, Fate::Forward);
    }

    #[test]
    fn every_promised_signal_is_taken() {
        let taken: Vec<i32> = taken().collect();
        for signal in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGQUIT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGWINCH,
            libc::SIGCONT,
            libc::SIGTSTP,
            libc::SIGCHLD,
            libc::SIGABRT,
            libc::SIGRTMIN(),
            libc::SIGRTMAX(),
        ] {
            assert!(taken.contains(&signal), "{}", name(signal));
        }
        for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGPIPE] {
            assert!(!taken.contains(&signal), "{}", name(signal));
        }
    }

    #[test]
    fn names() {
        assert_eq!(name(libc::SIGTERM), "SIGTERM");
        assert_eq!(name(34), "SIGRTMIN");
        assert_eq!(name(37), "SIGRTMIN+3");
        assert_eq!(name(99), "99");
    }
}
