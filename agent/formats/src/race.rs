//! Reports of the race detector.
//!
//! They stand between two lines of eighteen `=`, so they are read beside whatever else is in progress. Source of the form:
//! `compiler-rt/lib/tsan/rtl/tsan_report.cpp`, the Go branch.

use crate::frame::{function, place_text};
use crate::limits::{ALARM_FOREIGN_LINES_MAX, REASON_BYTES_MAX, STACK_FRAMES_MAX};
use crate::text::{bounded, decimal, lossy, split_once};
use crate::{Frame, Goroutines, Incident, IncidentKind, RaceAccess, RaceCreated, Span, Timestamp, TruncatedBy};

const RULE: &[u8] = b"==================";

/// A report that is being read.
#[derive(Debug)]
pub(crate) struct Report {
    start: u64,
    end: u64,
    seen: Timestamp,
    accesses: Vec<RaceAccess>,
    at: Section,
    /// A function that waits for its place.
    func: Option<Frame>,
    foreign: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    /// Only the rule was seen.
    Rule,
    /// The heading was seen, or a part of the report that has no stack.
    Heading,
    /// The stack of the last access.
    Access,
    /// Where the goroutine of that access was created.
    Created(usize),
    /// The same for a goroutine that no access names.
    Other,
}

/// What became of a line.
#[derive(Debug)]
pub(crate) enum Fed {
    Taken,
    Foreign,
    /// It was no report after all.
    Nothing,
    /// The report ended with this line.
    Done(Box<Incident>),
    /// The report had ended before this line.
    Lost(Box<Incident>),
}

impl Report {
    /// A report may start with `line`.
    pub(crate) fn open(line: &[u8], start: u64, end: u64, seen: Timestamp) -> Option<Self> {
        (line == RULE).then(|| Self {
            start,
            end,
            seen,
            accesses: Vec::new(),
            at: Section::Rule,
            func: None,
            foreign: 0,
        })
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Whether it is known to be a report.
    pub(crate) fn is_certain(&self) -> bool {
        self.at != Section::Rule
    }

    pub(crate) fn feed(&mut self, line: &[u8], end: u64) -> Fed {
        if self.at == Section::Rule {
            if line != b"WARNING: DATA RACE" {
                return Fed::Nothing;
            }
            self.at = Section::Heading;
        } else if line == RULE {
            self.end = end;
            return Fed::Done(Box::new(self.incident(None)));
        } else if !self.grammar(line) {
            self.foreign = self.foreign.saturating_add(1);
            if self.foreign > ALARM_FOREIGN_LINES_MAX {
                return Fed::Lost(Box::new(self.incident(Some(TruncatedBy::EndOfInput))));
            }
            return Fed::Foreign;
        }
        self.foreign = 0;
        self.end = end;
        Fed::Taken
    }

    pub(crate) fn finish(mut self) -> Option<Box<Incident>> {
        self.is_certain().then(|| Box::new(self.incident(Some(TruncatedBy::EndOfInput))))
    }

    fn grammar(&mut self, line: &[u8]) -> bool {
        if line.is_empty() {
            // A blank line without a section before it is not the report's.
            return self.at != Section::Heading || !self.accesses.is_empty();
        }
        if let Some(text) = line.strip_prefix(b"      ") {
            let Some(place) = place_text(text) else { return false };
            let Some(mut frame) = self.func.take() else { return false };
            frame.file = lossy(place.file);
            frame.line = place.line;
            frame.offset = place.offset;
            if let Some(frames) = self.frames().filter(|frames| frames.len() < STACK_FRAMES_MAX) {
                frames.push(frame);
            }
            return true;
        }
        if let Some(text) = line.strip_prefix(b"  ") {
            if text == b"[failed to restore the stack]" {
                return true;
            }
            let Some(name) = text.strip_suffix(b"()") else { return false };
            if function(text).is_none() && name != b"??" {
                return false;
            }
            self.func = Some(Frame { func: lossy(name), ..Frame::default() });
            return true;
        }
        self.section(line)
    }

    fn section(&mut self, line: &[u8]) -> bool {
        if let Some(access) = parse_access(line) {
            if self.accesses.len() >= 4 {
                return false;
            }
            self.accesses.push(access);
            self.at = Section::Access;
        } else if let Some((thread, finished)) = parse_created(line) {
            let owner = self
                .accesses
                .iter_mut()
                .enumerate()
                .find(|(_, access)| access.thread == thread && access.created.is_none());
            self.at = match owner {
                Some((index, access)) => {
                    access.created = Some(RaceCreated { finished, frames: Vec::new() });
                    Section::Created(index)
                }
                None => Section::Other,
            };
        } else if line.starts_with(b"Heap block of size ") || line.starts_with(b"Global var ") {
            self.at = Section::Other;
        } else {
            return false;
        }
        self.func = None;
        true
    }

    fn frames(&mut self) -> Option<&mut Vec<Frame>> {
        match self.at {
            Section::Access => self.accesses.last_mut().map(|access| &mut access.frames),
            Section::Created(index) => {
                self.accesses.get_mut(index)?.created.as_mut().map(|created| &mut created.frames)
            }
            Section::Rule | Section::Heading | Section::Other => None,
        }
    }

    fn incident(&mut self, cut: Option<TruncatedBy>) -> Incident {
        let race = std::mem::take(&mut self.accesses);
        let cut = cut.or_else(|| (race.len() < 2).then_some(TruncatedBy::EndOfInput));
        Incident {
            reason: reason(&race),
            span: Span { start: self.start, end: self.end },
            complete: cut.is_none(),
            truncated_by: cut,
            race,
            seen: self.seen,
            goroutines: Goroutines::default(),
            ..Incident::new(IncidentKind::Race)
        }
    }
}

/// `data race: write in main.f, previous read in main.g`
fn reason(accesses: &[RaceAccess]) -> String {
    let mut text = String::from("data race");
    for (index, access) in accesses.iter().enumerate() {
        text.push_str(if index == 0 { ": " } else { ", " });
        text.push_str(if access.previous { "previous " } else { "" });
        text.push_str(if access.write { "write" } else { "read" });
        if let Some(frame) = access.frames.first() {
            text.push_str(" in ");
            text.push_str(&frame.func);
        }
    }
    bounded(text.as_bytes(), REASON_BYTES_MAX)
}

/// `Previous write at 0x00c0000b8298 by goroutine 7:`
fn parse_access(line: &[u8]) -> Option<RaceAccess> {
    let (kind, rest) = split_once(line, b" at 0x")?;
    let (write, previous) = match kind {
        b"Read" => (false, false),
        b"Write" => (true, false),
        b"Previous read" => (false, true),
        b"Previous write" => (true, true),
        _ => return None,
    };
    let (addr, who) = split_once(rest.strip_suffix(b":")?, b" by ")?;
    let thread = if who == b"main goroutine" { 1 } else { decimal(who.strip_prefix(b"goroutine ")?)? };
    let plain = (1..=16).contains(&addr.len()) && addr.iter().all(u8::is_ascii_hexdigit);
    plain.then(|| RaceAccess { write, previous, addr: format!("0x{}", lossy(addr)), thread, ..RaceAccess::default() })
}

/// `Goroutine 7 (finished) created at:`
fn parse_created(line: &[u8]) -> Option<(u64, bool)> {
    let (id, state) = split_once(line.strip_prefix(b"Goroutine ")?, b" (")?;
    let finished = match state {
        b"running) created at:" => false,
        b"finished) created at:" => true,
        _ => return None,
    };
    Some((decimal(id)?, finished))
}
