//! Every bound of this crate, in one place. What a bound cuts is marked on the value that was cut.

/// Bytes of one incident; what stands behind belongs to no incident and is only skipped.
pub const INCIDENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one line that are looked at; the rest of the line is skipped.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Goroutines that one incident keeps; more are counted.
pub const GOROUTINES_MAX: usize = 65_536;
/// Unique stacks that one incident keeps.
pub const STACKS_MAX: usize = 8_192;
/// Frames of one stack that are kept. Go prints 100 and, since 1.21, the 50 outermost besides the 50 innermost.
pub const STACK_FRAMES_MAX: usize = 512;
/// Frames that all unique stacks of one incident may have together; a stack beyond it is dropped with its goroutine.
pub const FRAMES_MAX: usize = 131_072;
/// Bytes of a function's name or of a file's; a longer one makes a line no frame.
pub const NAME_BYTES_MAX: usize = 4_096;
/// Bytes of an argument list that are kept; Go prints at most ten components.
pub const ARGS_BYTES_MAX: usize = 1_024;
/// Bytes of [`crate::Incident::reason`], the mark of a cut included.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Bytes of one panic value that are kept, the mark of a cut included.
pub const VALUE_BYTES_MAX: usize = 16 << 10;
/// Links of one panic chain that are kept: the oldest, and always the last.
pub const CHAIN_LINKS_MAX: usize = 64;
/// Lines of [`crate::Incident::prelude`].
pub const PRELUDE_LINES_MAX: usize = 32;
/// Pairs of [`crate::Goroutine::labels`].
pub const LABELS_MAX: usize = 64;
/// Rows of [`crate::Incident::registers`].
pub const REGISTERS_MAX: usize = 64;
/// Lines of other origin that may stand in a row between two lines of one death, such as the log of goroutines that still ran.
pub const FOREIGN_LINES_MAX: u32 = 1_000;
/// The same between the lines of an alarm, which is written in one piece.
pub const ALARM_FOREIGN_LINES_MAX: u32 = 8;
/// Lines in a row behind a death that make a bare stack one of the process that took its place; nearer, the blocks behind the first are
/// the death's.
pub const RESTART_LINES_MIN: u32 = 16;
/// Lines between a `panic: `, `fatal error: ` or `SIGxxx: ` line and what proves that it was a death.
pub const HEAD_LINES_MAX: u32 = 256;
/// The same for a `runtime: ` line and the `fatal error: ` that it explains.
pub const PRELUDE_GAP_LINES_MAX: u32 = 16;
/// Lines of the value of an `http: panic serving`.
pub const HTTP_VALUE_LINES_MAX: u32 = 64;
/// Bytes of a pprof index page that are read.
pub const INDEX_PAGE_BYTES_MAX: usize = 1 << 20;
/// Rows of a pprof index page.
pub const INDEX_PROFILES_MAX: usize = 256;
/// Bytes of a profile's name on it.
pub const INDEX_NAME_BYTES_MAX: usize = 256;
/// Bytes of an ELF file's program or section header table.
pub const ELF_TABLE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a segment that are searched for the build information of a file without sections.
pub const BUILDINFO_SEARCH_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the version, and of the module information.
pub const BUILDINFO_TEXT_BYTES_MAX: usize = 1 << 20;
/// Settings of a build that are kept.
pub const BUILDINFO_SETTINGS_MAX: usize = 256;
