//! Heads: the first lines of a report, from its first line to what proves it.

use memchr::memmem;

use super::report::{Phase, Report};
use super::{Ending, Line};
use crate::limits::{
    ALARM_FOREIGN_LINES_MAX, CHAIN_LINKS_MAX, HEAD_LINES_MAX, HTTP_VALUE_LINES_MAX, PRELUDE_GAP_LINES_MAX,
    PRELUDE_LINES_MAX, REASON_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::text::{bounded, split_digits, split_once};
use crate::{ChainLink, Goroutine, IncidentKind, SignalInfo, frame, header, signal};

/// What net/http logs, behind the prefix of its logger.
pub(super) const HTTP_PANIC: &[u8] = b"http: panic serving ";

const PANIC: &[u8] = b"panic: ";
const FATAL: &[u8] = b"fatal error: ";

/// What became of a line that a head saw.
#[derive(Debug)]
pub(super) enum Head {
    Taken,
    Foreign,
    /// The line proved the head.
    Confirmed,
    /// The line proved and ended it.
    Ended,
    /// The line may prove it, or belong to the death in progress.
    Contested(Goroutine),
    /// It was no head.
    Dropped,
}

/// One link while its value grows.
#[derive(Debug, Default)]
pub(super) struct Link {
    value: Vec<u8>,
    recovered: bool,
    repanicked: bool,
    goexit: bool,
    signal: Option<SignalInfo>,
}

impl Link {
    fn new(text: &[u8], goexit: bool) -> Self {
        let mut link = Self { goexit, ..Self::default() };
        link.add(text);
        link
    }

    /// Adds text that ends a line, with the mark that may stand there.
    fn add(&mut self, text: &[u8]) {
        let (text, repanicked) = match text.strip_suffix(b" [recovered, repanicked]") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (text, recovered) = match text.strip_suffix(b" [recovered]") {
            Some(text) => (text, true),
            None => (text, false),
        };
        self.repanicked |= repanicked;
        self.recovered |= repanicked | recovered;
        let room = VALUE_BYTES_MAX.saturating_add(1).saturating_sub(self.value.len());
        self.value.extend_from_slice(text.get(..room).unwrap_or(text));
    }

    fn add_line(&mut self, text: &[u8]) {
        self.value.push(b'\n');
        self.add(text);
    }

    pub(super) fn first_line(&self) -> &[u8] {
        split_once(&self.value, b"\n").map_or(self.value.as_slice(), |(first, _)| first)
    }

    pub(super) fn into_chain_link(self) -> ChainLink {
        ChainLink {
            value: bounded(&self.value, VALUE_BYTES_MAX),
            recovered: self.recovered,
            repanicked: self.repanicked,
            goexit: self.goexit,
            signal: self.signal,
        }
    }
}

/// Whether a line can start anything but an `http: panic serving`. Runs for every line of the stream.
#[inline]
pub(super) fn may_start(text: &[u8]) -> bool {
    match text.first() {
        Some(b'p') => text.starts_with(PANIC),
        Some(b'f') => text.starts_with(b"fatal"),
        Some(b'g') => text.starts_with(b"goroutine "),
        Some(b'S') => text.starts_with(b"SIG") || text.starts_with(b"Signal "),
        Some(b's') => text.starts_with(b"signal "),
        Some(b'r') => text.starts_with(b"runtime"),
        Some(b'u') => text.starts_with(b"unexpected fault address "),
        Some(b'a') => text.starts_with(b"accessed data from freed user arena "),
        Some(b'=') => text.starts_with(b"======"),
        _ => false,
    }
}

/// Lines that explain a fatal error or a signal that follows.
fn is_prelude(text: &[u8]) -> bool {
    text.starts_with(b"runtime: ")
        || text.starts_with(b"runtime/cgo: ")
        || text.starts_with(b"unexpected fault address ")
        || text.starts_with(b"accessed data from freed user arena ")
        || text
            .strip_prefix(b"signal ")
            .map(split_digits)
            .is_some_and(|(number, rest)| !number.is_empty() && rest.starts_with(b" received "))
}

/// Lines of the dumps that some preludes hold: hexadecimal words, frames, descriptions of a span.
fn is_prelude_dump(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'\t' | b' '))
        || text.starts_with(b"0x")
        || text.starts_with(b"stack: ")
        || text.starts_with(b"object=")
        || frame::function(text).is_some()
}

/// Preludes that end the process themselves (status 2, no `fatal error:`).
fn is_last_words(text: &[u8]) -> bool {
    const TEXTS: [&[u8]; 3] = [
        b"runtime: mmap: access denied",
        b"runtime: mmap: too much locked memory (check 'ulimit -l').",
        b"runtime: panic before malloc heap initialized",
    ];
    TEXTS.contains(&text)
}

/// `fatal: …`: raw texts of the runtime's last resort. Other programs' words start so too, hence the list.
fn last_resort(text: &[u8]) -> Option<&[u8]> {
    const TEXTS: [&[u8]; 6] = [
        b"morestack on g0",
        b"morestack on gsignal",
        b"systemstack called from unexpected goroutine",
        b"bad g in signal handler",
        b"recursive switchToCrashStack",
        b"concurrent switchToCrashStack",
    ];
    let text = text.strip_prefix(b"fatal: ")?;
    TEXTS.into_iter().find(|known| text.starts_with(known))
}

/// Texts of `fatal error:` that only say where a panic happened.
fn is_system_stack_panic(text: &[u8]) -> bool {
    const TEXTS: [&[u8]; 5] = [
        b"panic on system stack",
        b"panic during malloc",
        b"panic during preemptoff",
        b"panic holding locks",
        b"panic during gc",
    ];
    TEXTS.contains(&text)
}

/// What the runtime prints when it cannot go on reporting.
fn is_surrender(text: &[u8]) -> bool {
    text == b"panic during panic" || text == b"stack trace unavailable" || text.starts_with(b"preempt off reason: ")
}

/// A guess, for lines between a panic and its stacks: log lines carry a time, a level or a brace; a value's second line rarely does.
fn looks_like_log(text: &[u8]) -> bool {
    let digits = text.iter().take(8).filter(|byte| byte.is_ascii_digit()).count();
    digits >= 4
        || matches!(text.first(), Some(b'{' | b'['))
        || [&b"time="[..], b"level=", b"ts=", b"INFO", b"WARN", b"ERROR", b"DEBUG", b"TRACE"]
            .iter()
            .any(|word| text.starts_with(word))
}

impl Report {
    /// A death that starts with `line`, if it can.
    pub(super) fn death_head(line: &Line<'_>) -> Option<Self> {
        let text = line.text;
        if let Some(value) = text.strip_prefix(PANIC) {
            let mut report = Self::new(IncidentKind::Panic, Phase::Panic, line);
            report.links.push(Link::new(value, false));
            return Some(report);
        }
        if let Some(reason) = text.strip_prefix(FATAL) {
            let mut report = Self::new(IncidentKind::Fatal, Phase::Fatal, line);
            report.fatal(reason);
            return Some(report);
        }
        if let Some(reason) = last_resort(text) {
            let mut report = Self::new(IncidentKind::Fatal, Phase::Dump, line);
            report.fatal(reason);
            report.phase = Phase::Dump;
            return Some(report);
        }
        if is_prelude(text) {
            let mut report = Self::new(IncidentKind::Fatal, Phase::Prelude, line);
            report.prelude(line);
            return Some(report);
        }
        let head = signal::head(text)?;
        let mut report = Self::new(IncidentKind::Signal, Phase::Signal, line);
        report.signal_head(text, head);
        Some(report)
    }

    /// A recovered panic of net/http, if `line` speaks of one.
    pub(super) fn http_head(line: &Line<'_>, phrase: &memmem::Finder<'_>) -> Option<Self> {
        let at = phrase.find(line.text)?;
        let (addr, value) = split_once(line.text.get(at.checked_add(HTTP_PANIC.len())?..)?, b": ")?;
        if memchr::memchr(b' ', addr).is_some() {
            return None;
        }
        let mut report = Self::new(IncidentKind::HttpPanic, Phase::Http, line);
        report.links.push(Link::new(value, false));
        Some(report)
    }

    /// A bare stack that starts with `goroutine`.
    pub(super) fn stack_head(line: &Line<'_>, goroutine: Goroutine) -> Self {
        let mut report = Self::new(IncidentKind::Stack, Phase::Stack, line);
        report.builder.start(goroutine);
        report
    }

    /// Whether the end of the stream proves it.
    pub(super) fn is_believed(&self, ending: Ending) -> bool {
        match self.phase {
            Phase::Panic | Phase::Fatal => self.foreign == 0 || ending == Ending::Crashed,
            Phase::Signal => self.known_signal && self.foreign == 0,
            Phase::Prelude => self.last_words && self.foreign == 0,
            Phase::Http | Phase::Stack | Phase::Dump => false,
        }
    }

    pub(super) fn feed_head(&mut self, line: &Line<'_>, has_death: bool) -> Head {
        let outcome = match self.phase {
            Phase::Prelude => self.feed_prelude(line),
            Phase::Panic => self.feed_panic(line, has_death),
            Phase::Fatal => self.feed_fatal(line, has_death),
            Phase::Signal => self.feed_signal(line),
            Phase::Http | Phase::Stack | Phase::Dump => Head::Dropped,
        };
        match outcome {
            Head::Taken | Head::Confirmed | Head::Ended => self.take(line),
            Head::Foreign if line.text.is_empty() => {
                self.blank = true;
                self.blank_last = true;
            }
            Head::Foreign => {
                self.blank_last = false;
                self.foreign = self.foreign.saturating_add(1);
                let bound = match self.phase {
                    Phase::Prelude => PRELUDE_GAP_LINES_MAX,
                    Phase::Signal => ALARM_FOREIGN_LINES_MAX,
                    _ => HEAD_LINES_MAX,
                };
                if self.foreign > bound {
                    return Head::Dropped;
                }
            }
            Head::Contested(_) | Head::Dropped => {}
        }
        outcome
    }

    /// Whether nothing but the head's own lines has been seen.
    fn is_pure(&self) -> bool {
        self.foreign == 0 && !self.blank
    }

    fn prelude(&mut self, line: &Line<'_>) {
        self.foreign = 0;
        self.last_words = is_last_words(line.text);
        if self.preludes.len() < PRELUDE_LINES_MAX {
            self.preludes.push(bounded(line.text, REASON_BYTES_MAX));
        }
    }

    fn fatal(&mut self, reason: &[u8]) {
        self.kind = IncidentKind::Fatal;
        self.foreign = 0;
        self.blank = false;
        self.reason = reason.to_vec();
        // The one fatal error that no goroutine block follows, at any level.
        let alone = reason == b"no goroutines (main called runtime.Goexit) - deadlock!";
        self.phase = if alone { Phase::Dump } else { Phase::Fatal };
    }

    fn signal_head(&mut self, text: &[u8], head: signal::Head<'_>) {
        self.kind = IncidentKind::Signal;
        self.phase = Phase::Signal;
        self.foreign = 0;
        self.blank = false;
        self.reason = text.to_vec();
        self.known_signal = head.known;
        self.signal = Some(SignalInfo { name: bounded(head.name, 64), ..SignalInfo::default() });
    }

    fn feed_prelude(&mut self, line: &Line<'_>) -> Head {
        let text = line.text;
        if is_prelude(text) {
            self.prelude(line);
        } else if let Some(reason) = text.strip_prefix(FATAL) {
            self.fatal(reason);
            if self.phase == Phase::Dump {
                return Head::Confirmed;
            }
        } else if let Some(reason) = last_resort(text) {
            self.fatal(reason);
            self.phase = Phase::Dump;
            return Head::Confirmed;
        } else if let Some(head) = signal::head(text) {
            self.signal_head(text, head);
        } else if text.starts_with(PANIC) {
            return Head::Dropped;
        } else if is_prelude_dump(text) && self.dump_lines < HEAD_LINES_MAX {
            // Not taken: they may as well be the death's that is in progress. Not counted either.
            self.dump_lines = self.dump_lines.saturating_add(1);
            self.foreign = self.foreign.saturating_sub(1);
            return Head::Foreign;
        } else {
            return Head::Foreign;
        }
        Head::Taken
    }

    fn feed_panic(&mut self, line: &Line<'_>, has_death: bool) -> Head {
        let text = line.text;
        if let Some(indented) = text.strip_prefix(b"\t") {
            if let Some(value) = indented.strip_prefix(PANIC) {
                self.keep_raw();
                self.link(Link::new(value, false));
                return Head::Taken;
            }
            if let Some(reason) = indented.strip_prefix(FATAL) {
                self.keep_raw();
                self.fatal(reason);
                return Head::Taken;
            }
            if self.is_pure() {
                if let Some(link) = self.links.last_mut() {
                    link.add_line(indented);
                }
                return Head::Taken;
            }
        }
        if let Some(info) = signal::bracket(text) {
            self.keep_raw();
            if let Some(link) = self.links.last_mut() {
                link.signal = Some(info);
            }
            return Head::Taken;
        }
        if let Some(value) = text.strip_prefix(PANIC) {
            // A runtime.Goexit prints nothing itself, but the panic behind it is not indented.
            if !self.is_pure() {
                return Head::Dropped;
            }
            self.link(Link::new(value, true));
            return Head::Taken;
        }
        if let Some(reason) = text.strip_prefix(FATAL) {
            // Else: before 1.24 another thread's fatal error may come in between.
            return if is_system_stack_panic(reason) || self.is_pure() { Head::Taken } else { Head::Dropped };
        }
        self.feed_proof(line, has_death).unwrap_or_else(|| {
            self.raw_line(text);
            Head::Foreign
        })
    }

    fn feed_fatal(&mut self, line: &Line<'_>, has_death: bool) -> Head {
        let text = line.text;
        if text.starts_with(b"\t") && self.is_pure() {
            return Head::Taken;
        }
        if let Some(info) = signal::bracket(text) {
            self.signal = Some(info);
            return Head::Taken;
        }
        if let Some(reason) = text.strip_prefix(FATAL) {
            // Before 1.24 several threads may find the same fault.
            let again = self.is_pure() || (reason == self.reason.as_slice() && self.foreign <= ALARM_FOREIGN_LINES_MAX);
            return if again { Head::Taken } else { Head::Dropped };
        }
        if text.starts_with(PANIC) {
            return Head::Dropped;
        }
        self.feed_proof(line, has_death).unwrap_or(Head::Foreign)
    }

    /// Lines that prove a panic or a fatal error.
    fn feed_proof(&mut self, line: &Line<'_>, has_death: bool) -> Option<Head> {
        let text = line.text;
        // A blank line stands before the first stack; some collectors of logs drop blank lines.
        let in_place = self.blank || self.foreign == 0;
        if text == b"runtime stack:" && in_place {
            self.keep_raw();
            self.phase = Phase::Dump;
            self.skip_block();
            return Some(Head::Confirmed);
        }
        if let Some(goroutine) = header::parse(text).filter(|_| in_place) {
            if has_death && !self.is_certainly_new() {
                return Some(if goroutine.state == "running" { Head::Contested(goroutine) } else { Head::Dropped });
            }
            if !self.blank {
                return Some(Head::Contested(goroutine));
            }
            self.start_block(goroutine, line.end);
            return Some(Head::Confirmed);
        }
        if is_surrender(text) {
            return Some(Head::Taken);
        }
        // A death in progress printed its stacks, so a second one in the same surroundings would.
        if signal::is_exit_note(text) && !has_death {
            self.keep_raw();
            self.phase = Phase::Dump;
            return Some(Head::Ended);
        }
        if signal::head(text).is_some_and(|head| head.known) {
            return Some(Head::Dropped);
        }
        None
    }

    /// Whether the head cannot be the words of another thread of the death in progress.
    fn is_certainly_new(&self) -> bool {
        let deadlock = self.reason.ends_with(b" - deadlock!");
        let fault = self.signal.is_some() || self.links.iter().any(|link| link.signal.is_some());
        deadlock || fault || !self.preludes.is_empty()
    }

    fn feed_signal(&mut self, line: &Line<'_>) -> Head {
        let mut info = self.signal.take().unwrap_or_default();
        let found = signal::pc_line(line.text, &mut info);
        self.signal = Some(info);
        if found {
            self.phase = Phase::Dump;
            self.foreign = 0;
            self.blank = false;
            Head::Confirmed
        } else if line.text.starts_with(PANIC) || line.text.starts_with(FATAL) || signal::head(line.text).is_some() {
            Head::Dropped
        } else {
            Head::Foreign
        }
    }

    fn link(&mut self, link: Link) {
        if self.links.len() >= CHAIN_LINKS_MAX {
            self.links.pop();
        }
        self.links.push(link);
    }

    /// Up to Go 1.22 the second line of a value stands bare; it is kept until something proves the panic.
    fn raw_line(&mut self, text: &[u8]) {
        if looks_like_log(text) {
            return;
        }
        let room = VALUE_BYTES_MAX.saturating_sub(self.raw.len());
        let line = text.get(..room).unwrap_or(text);
        self.raw.push(b'\n');
        self.raw.extend_from_slice(line);
        if !text.is_empty() {
            self.raw_end = self.raw.len();
        }
    }

    /// Adds the bare lines to the value, but for the blank ones at the end, which are the report's own.
    pub(super) fn keep_raw(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        if let (Some(link), Some(text)) = (self.links.last_mut(), raw.get(..self.raw_end)) {
            link.add(text);
        }
        self.raw_end = 0;
    }

    pub(super) fn feed_alarm_head(&mut self, line: &Line<'_>, has_death_head: bool) -> Head {
        match self.phase {
            Phase::Http => self.feed_http(line, has_death_head),
            Phase::Stack => self.feed_stack(line),
            _ => Head::Dropped,
        }
    }

    fn feed_http(&mut self, line: &Line<'_>, has_death_head: bool) -> Head {
        if let Some(goroutine) = header::parse(line.text) {
            // After a blank line it is rather the panic's than ours.
            if self.blank && has_death_head {
                return Head::Dropped;
            }
            self.keep_raw();
            self.builder.start(goroutine);
            self.phase = Phase::Stack;
            self.take(line);
            return Head::Taken;
        }
        self.blank = line.text.is_empty();
        self.foreign = self.foreign.saturating_add(1);
        if self.foreign > HTTP_VALUE_LINES_MAX {
            return Head::Dropped;
        }
        self.raw_line(line.text);
        Head::Foreign
    }

    /// A header alone proves nothing; its first frame does.
    fn feed_stack(&mut self, line: &Line<'_>) -> Head {
        self.foreign = 0;
        let confirmed = if let Some(function) = frame::function(line.text).filter(|_| !self.builder.awaits_place()) {
            self.builder.function(function);
            false
        } else if let Some(place) = frame::place(line.text).filter(|_| self.builder.awaits_place()) {
            self.builder.place(&place);
            true
        } else if super::report::is_unavailable(line.text) {
            self.builder.unavailable();
            true
        } else {
            return Head::Dropped;
        };
        self.take(line);
        if confirmed {
            self.phase = Phase::Dump;
            Head::Confirmed
        } else {
            Head::Taken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let table = [
            ("x", "x", false, false),
            ("x [recovered]", "x", true, false),
            ("x [recovered, repanicked]", "x", true, true),
            ("x [recovered] y", "x [recovered] y", false, false),
        ];
        for (text, value, recovered, repanicked) in table {
            let link = Link::new(text.as_bytes(), false);
            assert_eq!(
                (link.value.as_slice(), link.recovered, link.repanicked),
                (value.as_bytes(), recovered, repanicked)
            );
        }
    }

    #[test]
    fn preludes() {
        for line in [
            "runtime: goroutine stack exceeds 1000000000-byte limit",
            "runtime/cgo: pthread_create failed: Resource temporarily unavailable",
            "unexpected fault address 0xdeadbeef000",
            "signal 11 received during fork",
        ] {
            assert!(is_prelude(line.as_bytes()) && may_start(line.as_bytes()), "{line}");
        }
        for line in ["runtime error: x", "runtime:x", "signal received", "signal 9"] {
            assert!(!is_prelude(line.as_bytes()), "{line}");
        }
        assert_eq!(
            last_resort(b"fatal: systemstack called from unexpected goroutineSIGTRAP: x").map(<[u8]>::len),
            Some(44)
        );
        assert_eq!(last_resort(b"fatal: not a git repository"), None);
    }
}
