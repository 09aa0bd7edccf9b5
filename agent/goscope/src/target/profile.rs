//! What the target can be asked for: the profiles of `net/http/pprof`, their parameters, and what a token must be allowed for each.

use std::fmt::Write as _;
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::token::tier::Tier;

/// What Go's CPU profile takes without `seconds`.
const CPU_DEFAULT_MS: u64 = 30_000;
/// What Go's trace takes without `seconds`.
const TRACE_DEFAULT_MS: u64 = 1_000;

/// What the target serves under `/debug/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Index,
    Allocs,
    Block,
    Cmdline,
    Goroutine,
    Goroutineleak,
    Heap,
    Mutex,
    Cpu,
    Symbol,
    Threadcreate,
    Trace,
    Vars,
}

impl Profile {
    pub const EVERY: [Self; 13] = [
        Self::Index,
        Self::Allocs,
        Self::Block,
        Self::Cmdline,
        Self::Goroutine,
        Self::Goroutineleak,
        Self::Heap,
        Self::Mutex,
        Self::Cpu,
        Self::Symbol,
        Self::Threadcreate,
        Self::Trace,
        Self::Vars,
    ];

    /// The canonical path, and the only one that is accepted.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().0
    }

    /// The label in metrics and audit lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Index => ("/debug/pprof/", "index"),
            Self::Allocs => ("/debug/pprof/allocs", "allocs"),
            Self::Block => ("/debug/pprof/block", "block"),
            Self::Cmdline => ("/debug/pprof/cmdline", "cmdline"),
            Self::Goroutine => ("/debug/pprof/goroutine", "goroutine"),
            Self::Goroutineleak => ("/debug/pprof/goroutineleak", "goroutineleak"),
            Self::Heap => ("/debug/pprof/heap", "heap"),
            Self::Mutex => ("/debug/pprof/mutex", "mutex"),
            Self::Cpu => ("/debug/pprof/profile", "profile"),
            Self::Symbol => ("/debug/pprof/symbol", "symbol"),
            Self::Threadcreate => ("/debug/pprof/threadcreate", "threadcreate"),
            Self::Trace => ("/debug/pprof/trace", "trace"),
            Self::Vars => ("/debug/vars", "vars"),
        }
    }

    /// The profile of a canonical path.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|profile| profile.path() == path)
    }

    pub(crate) fn takes(self, parameter: Parameter) -> bool {
        match self {
            Self::Index | Self::Cmdline | Self::Symbol | Self::Vars => false,
            Self::Cpu | Self::Trace => parameter == Parameter::Seconds,
            Self::Heap => true,
            Self::Allocs | Self::Block | Self::Goroutine | Self::Goroutineleak | Self::Mutex | Self::Threadcreate => {
                parameter != Parameter::Gc
            }
        }
    }
}

/// What the query of a profile may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    Seconds,
    Debug,
    Gc,
}

/// How long a profile is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seconds {
    /// As written: digits, for a trace also digits, a point and digits.
    pub text: String,
    pub millis: u64,
}

/// A request that is understood in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub profile: Profile,
    pub seconds: Option<Seconds>,
    /// 0, 1 or 2.
    pub debug: Option<u8>,
    /// 0 or 1.
    pub gc: Option<u8>,
}

impl Route {
    /// What the token must be allowed.
    #[must_use]
    pub fn tier(&self) -> Tier {
        match self.profile {
            Profile::Cpu => Tier::Cpu,
            Profile::Trace => Tier::Trace,
            Profile::Vars => Tier::Vars,
            Profile::Cmdline => Tier::Cmdline,
            // With debug=2 both print every goroutine.
            Profile::Goroutine | Profile::Goroutineleak if self.debug == Some(2) => Tier::Dump,
            _ => Tier::Basic,
        }
    }

    /// How long the target takes at least, in milliseconds: `seconds`, or what Go takes without it.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        match (&self.seconds, self.profile) {
            (Some(seconds), _) => seconds.millis,
            (None, Profile::Cpu) => CPU_DEFAULT_MS,
            (None, Profile::Trace) => TRACE_DEFAULT_MS,
            (None, _) => 0,
        }
    }

    /// The same in seconds; `None` for a profile of a moment.
    #[must_use]
    pub fn seconds_taken(&self) -> Option<f64> {
        let millis = self.duration_ms();
        (millis > 0).then(|| Duration::from_millis(millis).as_secs_f64())
    }

    /// What the target is asked for, written anew.
    #[must_use]
    pub fn path_and_query(&self) -> PathAndQuery {
        let path = self.profile.path();
        if self.seconds.is_none() && self.debug.is_none() && self.gc.is_none() {
            return PathAndQuery::from_static(path);
        }
        let mut text = String::with_capacity(64);
        text.push_str(path);
        let mut separator = '?';
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            let _infallible = write!(text, "{separator}{name}={value}");
            separator = '&';
        };
        if let Some(seconds) = &self.seconds {
            add("seconds", &seconds.text);
        }
        if let Some(debug) = self.debug {
            add("debug", &debug);
        }
        if let Some(gc) = self.gc {
            add("gc", &gc);
        }
        PathAndQuery::try_from(text).expect("a path of the table and a query of digits")
    }
}
