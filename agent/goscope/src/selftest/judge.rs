//! Which sockets to ask, and what the answers mean: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::TargetAddress;
use crate::model::{Finding, Severity};
use crate::target::opening::opening;

/// Sockets that are asked in one round.
pub(super) const ASKED_MAX: usize = 32;
/// The socket that the chart's sealed mode uses, for the lines that are shown.
const SEALED_SOCKET: &str = "/run/goscope/debug.sock";

/// What asking a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// pprof's index page, with this many profiles; `vars` if expvar answered too.
    Pprof { profiles: usize, vars: bool },
    /// HTTP, but no pprof. It may serve it later.
    Http,
    /// No connection, no answer, or none that is HTTP. It is left in peace for as long as it listens.
    Nothing,
}

/// Who can connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Whatever reaches the pod's address.
    Network,
    /// The pod's own processes and whoever may port-forward to it.
    Loopback,
}

impl Reach {
    pub(super) const ALL: [Self; 2] = [Self::Network, Self::Loopback];

    /// As in the label.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Loopback => "loopback",
        }
    }

    pub(super) fn of(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// What is known of the sockets that listen.
#[derive(Debug, Default)]
pub(super) struct Known {
    sockets: BTreeMap<SocketAddr, Asked>,
    /// Counts the questions.
    questions: u64,
}

#[derive(Debug)]
struct Asked {
    heard: Heard,
    /// The latest question to it, by number.
    question: u64,
}

/// Whom to ask in a round.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) ask: Vec<SocketAddr>,
    /// How many more there are. Their turn comes in a later round.
    pub(super) left_out: usize,
}

impl Known {
    /// Forgets what no longer listens, and says whom to ask of `listening` without `own`: first those that were never asked, then those that speak HTTP, the
    /// one that was asked longest ago first.
    pub(super) fn round(&mut self, listening: &BTreeSet<SocketAddr>, own: &[SocketAddr]) -> Round {
        self.sockets.retain(|address, _| listening.contains(address));
        let turn = |address: &&SocketAddr| match self.sockets.get(address) {
            None => Some(0),
            Some(Asked { heard: Heard::Nothing, .. }) => None,
            Some(Asked { question, .. }) => Some(*question),
        };
        let mut turns: Vec<(u64, SocketAddr)> = listening
            .iter()
            .filter(|address| !own.contains(address))
            .filter_map(|address| Some((turn(&address)?, *address)))
            .collect();
        turns.sort_unstable();
        let left_out = turns.len().saturating_sub(ASKED_MAX);
        Round { ask: turns.into_iter().take(ASKED_MAX).map(|(_, address)| address).collect(), left_out }
    }

    /// Takes note of an answer. Where pprof has answered, silence proves nothing: the app may be busy.
    pub(super) fn heard(&mut self, address: SocketAddr, heard: Heard) {
        self.questions += 1;
        let question = self.questions;
        let asked = self.sockets.entry(address).or_insert(Asked { heard, question });
        asked.question = question;
        if !(heard == Heard::Nothing && matches!(asked.heard, Heard::Pprof { .. })) {
            asked.heard = heard;
        }
    }

    /// Where pprof answers, those on the network first.
    pub(super) fn exposed(&self) -> BTreeSet<(Reach, SocketAddr)> {
        let is_exposed = |asked: &Asked| matches!(asked.heard, Heard::Pprof { .. });
        let exposed = self.sockets.iter().filter(|(_, asked)| is_exposed(asked));
        exposed.map(|(address, _)| (Reach::of(*address), *address)).collect()
    }

    /// One finding for each, in the same order.
    pub(super) fn findings(&self, target: &TargetAddress) -> Vec<Finding> {
        let finding = |(reach, address)| match self.sockets.get(&address)?.heard {
            Heard::Pprof { profiles, vars } => Some(bypass(reach, address, profiles, vars, target)),
            Heard::Http | Heard::Nothing => None,
        };
        self.exposed().into_iter().filter_map(finding).collect()
    }
}

/// Where a socket can be reached from here: one on every address, by loopback. The second is tried where the first cannot be reached: a socket on every
/// address of IPv6 is one on every address of IPv4 too, and there may be no IPv6 here.
pub(super) fn doors(address: SocketAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, address.port());
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![at(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![at(Ipv6Addr::LOCALHOST.into()), at(Ipv4Addr::LOCALHOST.into())],
        _ => vec![address],
    }
}

fn bypass(reach: Reach, address: SocketAddr, profiles: usize, vars: bool, target: &TargetAddress) -> Finding {
    let (severity, who) = match reach {
        Reach::Network => (Severity::Error, "whoever reaches the pod on the network"),
        Reach::Loopback => (Severity::Warning, "whoever may port-forward to the pod"),
    };
    let mut evidence = vec![format!("GET /debug/pprof/ at {address} lists {profiles} profiles")];
    if vars {
        evidence.push(format!("GET /debug/vars at {address} answers too"));
    }
    Finding {
        id: "bypass",
        severity,
        claim: format!("pprof answers at {address} without a token: {who} gets past the gate"),
        evidence,
        next: next(address, target),
    }
}

/// The gate guards its own port only. In `goscope run` nothing is probed, because the machine's other ports are not ours to ask, so this is all that can
/// be said.
pub(super) fn unsealed(target: &TargetAddress) -> Option<Finding> {
    let TargetAddress::Tcp(address) = target else { return None };
    Some(Finding {
        id: "bypass",
        severity: Severity::Info,
        claim: format!(
            "the app's own debug port {address} asks for no token: whoever can connect to it gets past the gate"
        ),
        evidence: vec![format!("target.address is {address}, a TCP port")],
        next: format!(
            "To close it, serve pprof on a unix socket in place of the port:\n{}",
            lines("/tmp/app-debug.sock")
        ),
    })
}

fn next(address: SocketAddr, target: &TargetAddress) -> String {
    let is_target = matches!(target, TargetAddress::Tcp(target) if target.port() == address.port());
    match target {
        // The agent needs no TCP port any more: whatever serves it is a leak.
        TargetAddress::Unix(path) => format!(
            "The app serves pprof on {} already; take it off {address}. Importing net/http/pprof adds it to http.DefaultServeMux, so give that server a \
             mux of its own:\nmux := http.NewServeMux()\n// mux.Handle(...) what it shall serve\ngo http.ListenAndServe(\"{address}\", mux)",
            path.display()
        ),
        TargetAddress::Tcp(_) => {
            let place = if is_target { "in place of the port" } else { "and take it off that port" };
            format!(
                "Set the chart's value debug-sidecar.sealed.enabled=true, and serve pprof on a unix socket {place}:\n{}",
                lines(SEALED_SOCKET)
            )
        }
    }
}

fn lines(socket: &str) -> String {
    opening(&TargetAddress::Unix(socket.into())).join("\n")
}

#[cfg(test)]
mod tests;
