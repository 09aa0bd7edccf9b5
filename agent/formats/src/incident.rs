//! What the classifier finds: one death or one alarm, as typed values.
//!
//! Raw text is never held here: an [`Incident`] names its bytes by [`Span`], so that a 64 MiB dump costs what its unique stacks cost.

/// Wall-clock time in nanoseconds since the Unix epoch. Always passed in: this crate has no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Half-open range of bytes, counted from the start of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte; never below `start`.
    pub end: u64,
}

impl Span {
    /// Length in bytes.
    #[must_use]
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range holds no byte.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What happened. The names are those of `goscope analyze --format json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncidentKind {
    /// An unrecovered panic: the process ends with status 2 (or SIGABRT).
    Panic,
    /// `fatal error:` from the runtime.
    Fatal,
    /// A signal that the runtime does not survive, with the goroutine and register dump that it prints.
    Signal,
    /// A report of the race detector; the process goes on.
    Race,
    /// A panic in an HTTP handler that net/http recovered; the process goes on.
    HttpPanic,
    /// A bare stack, as `debug.PrintStack` prints it; the process goes on.
    Stack,
}

impl IncidentKind {
    /// The stable name: `panic fatal signal race http_panic stack`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Signal => "signal",
            Self::Race => "race",
            Self::HttpPanic => "http_panic",
            Self::Stack => "stack",
        }
    }

    /// Whether the process cannot have survived it.
    #[must_use]
    pub fn is_death(self) -> bool {
        matches!(self, Self::Panic | Self::Fatal | Self::Signal)
    }
}

/// What ended an incident before its text did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncatedBy {
    /// The stream ended in the middle of a line or before the first stack.
    EndOfInput,
    /// More than [`crate::limits::INCIDENT_BYTES_MAX`].
    IncidentBytes,
    /// A line over [`crate::limits::LINE_BYTES_MAX`].
    LineBytes,
    /// More goroutines than [`crate::limits::GOROUTINES_MAX`], or more unique stacks than [`crate::limits::STACKS_MAX`].
    Goroutines,
}

/// The GOTRACEBACK level that the text shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracebackLevel {
    /// Only the reason, no stacks.
    None,
    /// One goroutine.
    Single,
    /// All user goroutines.
    All,
    /// All goroutines with runtime frames and `fp= sp= pc=`.
    System,
    /// As `System`, then a section for each thread.
    Crash,
}

/// One link of a panic chain, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainLink {
    /// The value as printed, without the mark; continuation lines joined by LF, their TAB taken off.
    pub value: String,
    /// `[recovered]` or `[recovered, repanicked]` stood behind it.
    pub recovered: bool,
    /// `[recovered, repanicked]` (Go 1.25 and later).
    pub repanicked: bool,
    /// The previous link was a `runtime.Goexit` in progress (the line is not indented).
    pub goexit: bool,
    /// The hardware fault behind it.
    pub signal: Option<SignalInfo>,
}

/// `[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a]`, or the head of a signal dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalInfo {
    /// `SIGSEGV`, or `signal 42` where the runtime knows no name.
    pub name: String,
    /// `code=` of a signal line, `sigcode=` of a dump, as printed.
    pub code: Option<String>,
    /// `addr=`, as printed.
    pub addr: Option<String>,
    /// `pc=` or `PC=`, as printed.
    pub pc: Option<String>,
}

/// One frame of a stack, as printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Function with package path, for example `main.(*T).M`.
    pub func: String,
    /// Source file; empty where none was printed.
    pub file: String,
    /// Line; 0 where none was printed.
    pub line: u32,
    /// The argument list with its parentheses, of the first goroutine that showed this stack; empty where there was none.
    pub args: String,
    /// Offset from the function's entry (`+0x1d`).
    pub offset: Option<u64>,
    /// `pc=`, where printed.
    pub pc: Option<u64>,
}

/// `created by NAME in goroutine N` and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreatedBy {
    /// The function that ran the `go` statement.
    pub func: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// The creator's id (Go 1.21 and later).
    pub goroutine: Option<u64>,
}

/// A unique stack: goroutines whose functions and places are the same share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Who started the goroutine; the id in it is that of the first goroutine that showed this stack.
    pub created_by: Option<CreatedBy>,
    /// Frames that the runtime left out; `Some(0)` where it did not say how many (`...additional frames elided...`).
    pub elided_frames: Option<u32>,
    /// Whether the text of this stack was `goroutine running on other thread; stack unavailable`.
    pub unavailable: bool,
}

/// One goroutine block. Small, because dumps hold many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goroutine {
    /// The goid; 0 is a thread's g0.
    pub id: u64,
    /// Status or wait reason, without its suffixes.
    pub state: String,
    /// Whole minutes since the wait began; 0 where not printed.
    pub wait_minutes: u32,
    /// `locked to thread`.
    pub locked: bool,
    /// `(leaked)` (Go 1.26 and later).
    pub leaked: bool,
    /// The creator's id (Go 1.21 and later).
    pub creator: Option<u64>,
    /// pprof labels, in the order printed.
    pub labels: Vec<(String, String)>,
    /// Index into [`Goroutines::stacks`]; always valid.
    pub stack: usize,
}

/// The goroutines of one incident or dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goroutines {
    /// Unique stacks, in order of first sight.
    pub stacks: Vec<Stack>,
    /// Goroutines in order of the text; for a death the first is the faulting one.
    pub list: Vec<Goroutine>,
    /// Goroutines that were counted but not kept, because a bound was reached.
    pub dropped: u64,
}

impl Goroutines {
    /// The stack of `goroutine`.
    #[must_use]
    pub fn stack_of(&self, goroutine: &Goroutine) -> Option<&Stack> {
        self.stacks.get(goroutine.stack)
    }

    /// All goroutines of the text, kept or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.dropped.saturating_add(u64::try_from(self.list.len()).unwrap_or(u64::MAX))
    }
}

/// One memory access of a race report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaceAccess {
    /// `read` or `write`.
    pub write: bool,
    /// The second access of the report (`Previous …`).
    pub previous: bool,
    /// The address, as printed.
    pub addr: String,
    /// The race detector's own thread number (1 is main); not a goid.
    pub thread: u64,
    /// Innermost first; empty where the stack could not be restored.
    pub frames: Vec<Frame>,
    /// Where the goroutine was created, and whether it had finished.
    pub created: Option<RaceCreated>,
}

/// `Goroutine N (running) created at:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaceCreated {
    /// `finished` rather than `running`.
    pub finished: bool,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// One death or one alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What happened.
    pub kind: IncidentKind,
    /// One line for a person; at most [`crate::limits::REASON_BYTES_MAX`] bytes. For a panic the first line of the last link's value, for a
    /// fatal error the text behind `fatal error: `, for a signal `SIGQUIT: quit`, for a race and a bare stack a sentence that names functions.
    pub reason: String,
    /// The panics that led to it, oldest first: of a panic, of a fatal error while panics were pending (Go 1.26 and later), and the one
    /// of an HTTP handler. Empty for other kinds.
    pub chain: Vec<ChainLink>,
    /// The signal of a signal dump, or of a fatal error's `[signal …]` line.
    pub signal: Option<SignalInfo>,
    /// `runtime: …` and `unexpected fault address …` lines that stood before the first line of a fatal error or a signal dump, without LF.
    pub prelude: Vec<String>,
    /// Its bytes in the stream, from the first byte of its first line.
    pub span: Span,
    /// Whether the text was seen whole.
    pub complete: bool,
    /// Why not, where `complete` is false.
    pub truncated_by: Option<TruncatedBy>,
    /// GOTRACEBACK, as far as the text tells.
    pub traceback: Option<TracebackLevel>,
    /// Registers of the first dump, in order, values as printed.
    pub registers: Vec<(String, String)>,
    /// The goroutine blocks.
    pub goroutines: Goroutines,
    /// The accesses of a race report.
    pub race: Vec<RaceAccess>,
    /// When its first byte was pushed.
    pub seen: Timestamp,
}

impl Incident {
    /// An incident of `kind` of which nothing is known yet.
    pub(crate) fn new(kind: IncidentKind) -> Self {
        Self {
            kind,
            reason: String::new(),
            chain: Vec::new(),
            signal: None,
            prelude: Vec::new(),
            span: Span::default(),
            complete: true,
            truncated_by: None,
            traceback: None,
            registers: Vec::new(),
            goroutines: Goroutines::default(),
            race: Vec::new(),
            seen: Timestamp::default(),
        }
    }

    /// The goroutine that died or raised the alarm: the first block, for a signal dump the first that is not a g0 if there is one.
    #[must_use]
    pub fn faulting(&self) -> Option<&Goroutine> {
        let list = &self.goroutines.list;
        match self.kind {
            IncidentKind::Signal => list.iter().find(|g| g.id != 0).or_else(|| list.first()),
            _ => list.first(),
        }
    }
}
