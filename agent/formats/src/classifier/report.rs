//! A report from what proved it to its last line.

use super::Line;
use super::head::Link;
use crate::limits::{ALARM_FOREIGN_LINES_MAX, FOREIGN_LINES_MAX, INCIDENT_BYTES_MAX, REASON_BYTES_MAX, REGISTERS_MAX};
use crate::stacks::Builder;
use crate::text::bounded;
use crate::{
    Goroutine, Incident, IncidentKind, SignalInfo, Span, Timestamp, TracebackLevel, TruncatedBy, frame, header, signal,
};

/// One incident while it is read.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) kind: IncidentKind,
    pub(super) phase: Phase,
    start: u64,
    /// Behind the last line that was its own.
    end: u64,
    seen: Timestamp,
    pub(super) reason: Vec<u8>,
    pub(super) links: Vec<Link>,
    pub(super) signal: Option<SignalInfo>,
    pub(super) preludes: Vec<String>,
    pub(super) builder: Builder,
    registers: Vec<(String, String)>,
    /// The first register dump is over.
    registers_done: bool,
    /// Lines in a row that were not its own.
    pub(super) foreign: u32,
    /// A blank line stood behind its last own line.
    pub(super) blank: bool,
    /// No other line stood behind it.
    pub(super) blank_last: bool,
    /// Lines of a value that may span several, and how much of them ends in text.
    pub(super) raw: Vec<u8>,
    pub(super) raw_end: usize,
    pub(super) known_signal: bool,
    pub(super) last_words: bool,
    pub(super) dump_lines: u32,
    /// The block is one that belongs to no goroutine: `runtime stack:`, or the ancestors of a goroutine.
    skips: bool,
    /// The last line, if it may be the name of a C function.
    bare: Vec<u8>,
    /// Blank lines stand between the blocks.
    spaced: bool,
    /// It has one block, though it is a bare stack.
    pub(super) single: bool,
    /// `fp=` was printed.
    detailed: bool,
    /// Sections of GOTRACEBACK=crash.
    sections: u32,
    cut_line: bool,
    cut_bytes: bool,
    /// The last own line had no LF.
    unterminated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `runtime: …`
    Prelude,
    /// `panic: …`
    Panic,
    /// `fatal error: …`
    Fatal,
    /// `SIGQUIT: quit`, before `PC=`
    Signal,
    /// `http: panic serving …`
    Http,
    /// `goroutine 1 [running]:`, before its first frame
    Stack,
    /// Proven.
    Dump,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    Taken,
    Foreign,
    /// The report ended with this line.
    Ended,
    /// The report had ended before this line.
    Closed,
}

/// What stands in place of the frames of a goroutine that was running elsewhere.
pub(super) fn is_unavailable(text: &[u8]) -> bool {
    text == b"\tgoroutine running on other thread; stack unavailable"
}

impl Report {
    pub(super) fn new(kind: IncidentKind, phase: Phase, line: &Line<'_>) -> Self {
        Self {
            kind,
            phase,
            start: line.start,
            end: line.end,
            seen: line.seen,
            reason: Vec::new(),
            links: Vec::new(),
            signal: None,
            preludes: Vec::new(),
            builder: Builder::default(),
            registers: Vec::new(),
            registers_done: false,
            foreign: 0,
            blank: false,
            blank_last: false,
            raw: Vec::new(),
            raw_end: 0,
            known_signal: false,
            last_words: false,
            dump_lines: 0,
            skips: false,
            bare: Vec::new(),
            spaced: true,
            single: false,
            detailed: false,
            sections: 0,
            cut_line: line.cut,
            cut_bytes: false,
            unterminated: line.unterminated,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn is_prelude(&self) -> bool {
        self.phase == Phase::Prelude
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.phase == Phase::Dump
    }

    pub(super) fn is_fatal(&self) -> bool {
        self.kind == IncidentKind::Fatal
    }

    pub(super) fn reason_text(&self) -> &[u8] {
        &self.reason
    }

    /// Whether the last line was one of a goroutine's block.
    pub(super) fn is_inside_block(&self) -> bool {
        self.foreign == 0 && !self.blank && self.builder.in_block()
    }

    /// Whether `line` is the place that its last frame lacks.
    pub(super) fn awaits(&self, line: &Line<'_>) -> bool {
        self.builder.awaits_place() && frame::place(line.text).is_some()
    }

    /// `line` is its own.
    pub(super) fn take(&mut self, line: &Line<'_>) {
        self.extend(line.end);
        self.cut_line |= line.cut;
        self.unterminated = line.unterminated;
    }

    fn extend(&mut self, end: u64) {
        self.bound(end);
        if !self.cut_bytes {
            self.end = end;
        }
    }

    /// Stops collecting where a line ends beyond the bound. Reading goes on, so that the rest is not taken for something new.
    fn bound(&mut self, end: u64) {
        if end.saturating_sub(self.start) > INCIDENT_BYTES_MAX && !self.cut_bytes {
            self.cut_bytes = true;
            self.builder.end();
            self.skips = true;
        }
    }

    pub(super) fn start_block(&mut self, goroutine: Goroutine, end: u64) {
        self.keep_raw();
        if !self.blank {
            self.spaced = false;
        }
        self.phase = Phase::Dump;
        self.foreign = 0;
        self.blank = false;
        self.registers_done |= !self.registers.is_empty();
        self.extend(end);
        if self.cut_bytes {
            self.builder.goroutines.dropped = self.builder.goroutines.dropped.saturating_add(1);
        } else {
            self.skips = false;
            self.builder.start(goroutine);
        }
    }

    /// Starts a block that belongs to no goroutine.
    pub(super) fn skip_block(&mut self) {
        self.builder.end();
        self.skips = true;
    }

    pub(super) fn feed(&mut self, line: &Line<'_>) -> Fed {
        self.bound(line.end);
        let fed = if self.kind.is_death() { self.feed_death(line) } else { self.feed_alarm(line) };
        match fed {
            Fed::Taken | Fed::Ended if line.text.is_empty() => self.blank = true,
            Fed::Taken | Fed::Ended => {
                self.take(line);
                self.foreign = 0;
                self.blank = false;
            }
            Fed::Foreign => self.foreign = self.foreign.saturating_add(1),
            Fed::Closed => {}
        }
        fed
    }

    fn feed_alarm(&mut self, line: &Line<'_>) -> Fed {
        let text = line.text;
        if text.is_empty() {
            // Only runtime.Stack(all) has more than one block.
            let more = self.kind == IncidentKind::Stack && !self.single && !self.blank;
            return if more { Fed::Taken } else { Fed::Closed };
        }
        if let Some(goroutine) = header::parse(text) {
            // The world is stopped for such a dump: whoever else runs printed another one.
            if !self.blank || goroutine.state == "running" {
                return Fed::Closed;
            }
            self.start_block(goroutine, line.end);
            return Fed::Taken;
        }
        if self.blank {
            return Fed::Closed;
        }
        if !self.builder.block_is_over() && self.feed_block(text) {
            return Fed::Taken;
        }
        // Written in one piece, unless it was longer than a pipe takes at once.
        let torn = self.builder.awaits_place() && self.foreign < ALARM_FOREIGN_LINES_MAX;
        if torn { Fed::Foreign } else { Fed::Closed }
    }

    fn feed_death(&mut self, line: &Line<'_>) -> Fed {
        let text = line.text;
        if text.is_empty() {
            return Fed::Taken;
        }
        if let Some(goroutine) = header::parse(text) {
            // The runtime prints a blank line first, debug.PrintStack none.
            if self.spaced && !self.blank && self.foreign > 0 {
                return self.foreign();
            }
            self.start_block(goroutine, line.end);
            return Fed::Taken;
        }
        if self.feed_block(text) || self.feed_between(text) {
            return Fed::Taken;
        }
        if signal::is_exit_note(text) && !self.builder.awaits_place() {
            self.builder.end();
            return Fed::Ended;
        }
        self.foreign()
    }

    fn foreign(&mut self) -> Fed {
        if self.foreign >= FOREIGN_LINES_MAX { Fed::Closed } else { Fed::Foreign }
    }

    /// Lines of a block.
    fn feed_block(&mut self, text: &[u8]) -> bool {
        if !self.skips && !self.builder.in_block() {
            return false;
        }
        match text.first() {
            Some(b'\t') => self.feed_place(text),
            Some(b'c') if text.starts_with(b"created by ") => {
                let Some((name, creator)) = frame::created_by(text) else { return false };
                if !self.skips {
                    self.builder.created_by(name, creator);
                }
                true
            }
            Some(b'.') => match frame::elided(text) {
                Some(count) => {
                    if !self.skips {
                        self.builder.elided(count);
                    }
                    true
                }
                None => false,
            },
            Some(b'[') if frame::is_ancestor(text) => {
                self.skip_block();
                true
            }
            _ => self.feed_function(text),
        }
    }

    fn feed_function(&mut self, text: &[u8]) -> bool {
        if let Some(function) = frame::function(text) {
            if !self.skips {
                self.builder.function(function);
            }
            return true;
        }
        if let Some(pc) = frame::cgo_unknown(text) {
            if !self.skips {
                let place = frame::Place { file: &[], line: 0, offset: None, pc: Some(pc), detailed: false };
                self.builder.cgo_frame(b"non-Go function", &place);
            }
            return true;
        }
        self.bare.clear();
        if frame::cgo_name(text) {
            self.bare.extend_from_slice(text);
        }
        false
    }

    fn feed_place(&mut self, text: &[u8]) -> bool {
        if !self.bare.is_empty() {
            let name = std::mem::take(&mut self.bare);
            if let Some(place) = frame::cgo_place(text) {
                if !self.skips {
                    self.builder.cgo_frame(&name, &place);
                }
                return true;
            }
        }
        if self.skips || self.builder.awaits_place() {
            let Some(place) = frame::place(text) else { return false };
            self.detailed |= place.detailed;
            if !self.skips {
                self.builder.place(&place);
                self.recognise_recovered();
            }
            return true;
        }
        if is_unavailable(text) {
            self.builder.unavailable();
            return true;
        }
        false
    }

    /// Programs that recover like to print `panic: VALUE` and debug.Stack() in the runtime's form; only its first frame tells.
    fn recognise_recovered(&mut self) {
        let first = self.kind == IncidentKind::Panic && self.builder.goroutines.list.is_empty();
        if first && self.builder.innermost() == Some(b"runtime/debug.Stack") {
            self.kind = IncidentKind::Stack;
            self.reason = self.links.last().map(Link::first_line).unwrap_or_default().to_vec();
        }
    }

    /// Lines of a death that stand outside its blocks.
    fn feed_between(&mut self, text: &[u8]) -> bool {
        if let Some(rows) = signal::registers(text).filter(|_| self.kind == IncidentKind::Signal || self.sections > 0) {
            if !self.registers_done && self.registers.len() < REGISTERS_MAX {
                self.registers.extend(rows.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
            self.builder.end();
            return true;
        }
        match text {
            b"runtime stack:" => self.skip_block(),
            b"-----" => {
                self.sections = self.sections.saturating_add(1);
                self.registers_done |= !self.registers.is_empty();
                self.skip_block();
            }
            b"panic during panic" | b"stack trace unavailable" => {}
            _ if self.sections > 0 && signal::head(text).is_some() => {}
            // The head of a death whose own `fatal: ` line came first, and the notes of a signal dump.
            _ => return self.feed_signal_note(text),
        }
        true
    }

    fn feed_signal_note(&mut self, text: &[u8]) -> bool {
        if signal::is_note(text) {
            return true;
        }
        let mut info = SignalInfo::default();
        if text.starts_with(b"PC=") {
            let found = signal::pc_line(text, &mut info);
            if found && let Some(known) = self.signal.as_mut().filter(|known| known.pc.is_none()) {
                (known.pc, known.code, known.addr) = (info.pc, info.code, info.addr);
            }
            return found;
        }
        if self.builder.count() > 0 || !self.is_fatal() || self.signal.is_some() {
            return false;
        }
        let Some(head) = signal::head(text) else { return false };
        self.signal = Some(SignalInfo { name: bounded(head.name, 64), ..info });
        true
    }

    /// The incident, as far as its text was seen. `at_end`: the stream ended here.
    pub(super) fn close(mut self, at_end: bool) -> Box<Incident> {
        self.keep_raw();
        let torn = self.unterminated || self.builder.awaits_place();
        self.builder.end();
        let blocks = self.builder.count();
        let lacks_registers = self.kind == IncidentKind::Signal && blocks > 0 && self.registers.is_empty();
        let lacks_stacks = matches!(self.phase, Phase::Panic | Phase::Fatal) && self.blank && self.blank_last;
        let truncated_by = if self.cut_bytes {
            Some(TruncatedBy::IncidentBytes)
        } else if self.cut_line {
            Some(TruncatedBy::LineBytes)
        } else if self.builder.overflow {
            Some(TruncatedBy::Goroutines)
        } else if at_end && (torn || lacks_registers || lacks_stacks) {
            Some(TruncatedBy::EndOfInput)
        } else {
            None
        };
        Box::new(Incident {
            reason: self.sentence(),
            traceback: self.kind.is_death().then(|| self.level(blocks)),
            chain: self.links.into_iter().map(Link::into_chain_link).collect(),
            signal: self.signal,
            prelude: self.preludes,
            span: Span { start: self.start, end: self.end },
            complete: truncated_by.is_none(),
            truncated_by,
            registers: self.registers,
            goroutines: self.builder.goroutines,
            seen: self.seen,
            ..Incident::new(self.kind)
        })
    }

    fn sentence(&self) -> String {
        match self.kind {
            IncidentKind::Panic | IncidentKind::HttpPanic => {
                bounded(self.links.last().map(Link::first_line).unwrap_or_default(), REASON_BYTES_MAX)
            }
            IncidentKind::Stack if self.reason.is_empty() => self.stack_sentence(),
            IncidentKind::Fatal if self.phase == Phase::Prelude => self.preludes.last().cloned().unwrap_or_default(),
            _ => bounded(&self.reason, REASON_BYTES_MAX),
        }
    }

    fn stack_sentence(&self) -> String {
        let goroutines = &self.builder.goroutines;
        if goroutines.total() > 1 {
            return format!("stacks of {} goroutines", goroutines.total());
        }
        let frames = goroutines.stacks.first().map(|stack| stack.frames.as_slice()).unwrap_or_default();
        let printer = frames
            .iter()
            .find(|frame| !frame.func.starts_with("runtime/debug.") && !frame.func.starts_with("runtime."));
        match printer {
            Some(frame) => bounded(format!("stack printed by {}", frame.func).as_bytes(), REASON_BYTES_MAX),
            None => "stack of a goroutine".to_owned(),
        }
    }

    fn level(&self, blocks: u64) -> TracebackLevel {
        match blocks {
            _ if self.sections > 0 => TracebackLevel::Crash,
            _ if self.detailed => TracebackLevel::System,
            0 => TracebackLevel::None,
            1 => TracebackLevel::Single,
            _ => TracebackLevel::All,
        }
    }
}
