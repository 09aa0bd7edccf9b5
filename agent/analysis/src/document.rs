//! The JSON document `goscope.analysis/v1`: what `goscope analyze --format json` prints, and what an incident folder keeps.
//!
//! Serialised straight from the parsed values; nothing is copied, so that a dump of 65,536 goroutines costs no second one.
//! Absent means not known.

use goscope_formats::{
    ChainLink, CreatedBy, Frame, Goroutine, Goroutines, Incident, RaceAccess, SignalInfo, Span, Stack, TracebackLevel,
    TruncatedBy,
};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::groups::{Group, group};

/// The value of `schema`.
pub const SCHEMA: &str = "goscope.analysis/v1";

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// One entry a file, in the order of the command line.
    pub files: Vec<File<'a>>,
}

/// What was found in one file.
#[derive(Debug, Serialize)]
pub struct File<'a> {
    /// As given; `-` for standard input.
    pub path: String,
    /// What the file was taken for.
    pub detected: &'static str,
    /// Its length in bytes, decompressed.
    pub bytes: u64,
    /// In the order of the file.
    pub incidents: Vec<IncidentDocument<'a>>,
    /// Incidents past the bound, counted only.
    #[serde(skip_serializing_if = "no_drops")]
    pub incidents_dropped: u64,
    /// Claims drawn from the file.
    pub findings: Vec<Finding>,
}

/// One claim with its evidence and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, for example `goroutine-leak`.
    pub id: &'static str,
    /// `error`, `warning` or `note`.
    pub severity: &'static str,
    /// One sentence.
    pub claim: String,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// What to do next.
    pub next: String,
}

/// How much of the goroutines a document carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every goroutine with its frames.
    Goroutines,
    /// The faulting goroutine with its frames, and all of them in groups: what an incident folder keeps beside the raw text.
    Groups,
}

/// One incident, as it is written.
#[derive(Debug)]
pub struct IncidentDocument<'a> {
    /// What was parsed.
    pub incident: &'a Incident,
    /// `v1:…`.
    pub fingerprint: String,
    /// How much to write.
    pub detail: Detail,
}

impl Serialize for IncidentDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let incident = self.incident;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", incident.kind.name())?;
        map.serialize_entry("reason", &incident.reason)?;
        if !incident.chain.is_empty() {
            map.serialize_entry("chain", &Sequence(&incident.chain, link))?;
        }
        if let Some(signal) = &incident.signal {
            map.serialize_entry("signal", &signal_document(signal))?;
        }
        if !incident.prelude.is_empty() {
            map.serialize_entry("prelude", &incident.prelude)?;
        }
        map.serialize_entry("span", &span(incident.span))?;
        map.serialize_entry("complete", &incident.complete)?;
        if let Some(by) = incident.truncated_by {
            map.serialize_entry("truncated_by", truncated_by(by))?;
        }
        if let Some(level) = incident.traceback {
            map.serialize_entry("traceback", traceback(level))?;
        }
        map.serialize_entry("fingerprint", &self.fingerprint)?;
        if !incident.registers.is_empty() {
            map.serialize_entry("registers", &Pairs(&incident.registers))?;
        }
        map.serialize_entry("goroutine_count", &incident.goroutines.total())?;
        match self.detail {
            Detail::Goroutines => map.serialize_entry("goroutines", &GoroutineList(&incident.goroutines))?,
            Detail::Groups => {
                let faulting: Vec<_> =
                    incident.faulting().map(|g| goroutine(&incident.goroutines, g)).into_iter().collect();
                map.serialize_entry("goroutines", &faulting)?;
                let groups = group(&incident.goroutines);
                map.serialize_entry("groups", &Sequence(&groups, group_document))?;
            }
        }
        if !incident.race.is_empty() {
            map.serialize_entry("race", &RaceDocument { accesses: incident.race.iter().map(access).collect() })?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct LinkDocument<'a> {
    value: &'a str,
    recovered: bool,
    #[serde(skip_serializing_if = "is_false")]
    repanicked: bool,
    goexit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<SignalDocument<'a>>,
}

fn link(link: &ChainLink) -> LinkDocument<'_> {
    LinkDocument {
        value: &link.value,
        recovered: link.recovered,
        repanicked: link.repanicked,
        goexit: link.goexit,
        signal: link.signal.as_ref().map(signal_document),
    }
}

#[derive(Serialize)]
struct SignalDocument<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pc: Option<&'a str>,
}

fn signal_document(signal: &SignalInfo) -> SignalDocument<'_> {
    SignalDocument {
        name: &signal.name,
        code: signal.code.as_deref(),
        addr: signal.addr.as_deref(),
        pc: signal.pc.as_deref(),
    }
}

#[derive(Serialize)]
struct FrameDocument<'a> {
    func: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    args: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<String>,
}

/// `args`: whether the arguments of `frame` belong to the goroutine that is written; a shared stack holds those of its first goroutine.
fn frame(frame: &Frame, args: bool) -> FrameDocument<'_> {
    FrameDocument {
        func: &frame.func,
        file: &frame.file,
        line: frame.line,
        args: if args { &frame.args } else { "" },
        offset: frame.offset.map(|offset| format!("{offset:#x}")),
    }
}

#[derive(Serialize)]
struct CreatedDocument<'a> {
    func: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    goroutine: Option<u64>,
}

fn created_by(created: &CreatedBy, goroutine: Option<u64>) -> CreatedDocument<'_> {
    CreatedDocument { func: &created.func, file: &created.file, line: created.line, goroutine }
}

#[derive(Serialize)]
struct GoroutineDocument<'a> {
    id: u64,
    state: &'a str,
    wait_minutes: u32,
    locked: bool,
    #[serde(skip_serializing_if = "is_false")]
    leaked: bool,
    labels: Pairs<'a>,
    frames: Vec<FrameDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<CreatedDocument<'a>>,
    elided_frames: u32,
}

fn goroutine<'a>(all: &'a Goroutines, goroutine: &'a Goroutine) -> GoroutineDocument<'a> {
    goroutine_document(all.stack_of(goroutine), goroutine, true)
}

fn goroutine_document<'a>(stack: Option<&'a Stack>, goroutine: &'a Goroutine, args: bool) -> GoroutineDocument<'a> {
    GoroutineDocument {
        id: goroutine.id,
        state: &goroutine.state,
        wait_minutes: goroutine.wait_minutes,
        locked: goroutine.locked,
        leaked: goroutine.leaked,
        labels: Pairs(&goroutine.labels),
        frames: stack.map(|s| s.frames.iter().map(|f| frame(f, args)).collect()).unwrap_or_default(),
        created_by: stack.and_then(|s| s.created_by.as_ref()).map(|c| created_by(c, goroutine.creator)),
        elided_frames: stack.and_then(|s| s.elided_frames).unwrap_or_default(),
    }
}

struct GoroutineList<'a>(&'a Goroutines);

impl Serialize for GoroutineList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seen = vec![false; self.0.stacks.len()];
        serializer.collect_seq(self.0.list.iter().map(|g| {
            let first = seen.get_mut(g.stack).is_some_and(|seen| !std::mem::replace(seen, true));
            goroutine_document(self.0.stack_of(g), g, first)
        }))
    }
}

#[derive(Serialize)]
struct GroupDocument<'a> {
    count: u64,
    states: Counts<'a>,
    oldest_wait_minutes: u32,
    ids: &'a [u64],
    frames: Vec<FrameDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<CreatedDocument<'a>>,
    elided_frames: u32,
}

fn group_document<'a>(group: &'a Group<'a>) -> GroupDocument<'a> {
    GroupDocument {
        count: group.count,
        states: Counts(&group.states),
        oldest_wait_minutes: group.oldest_wait_minutes,
        ids: &group.ids,
        frames: group.stack.frames.iter().map(|f| frame(f, false)).collect(),
        created_by: group.stack.created_by.as_ref().map(|c| created_by(c, None)),
        elided_frames: group.stack.elided_frames.unwrap_or_default(),
    }
}

#[derive(Serialize)]
struct RaceDocument<'a> {
    accesses: Vec<AccessDocument<'a>>,
}

#[derive(Serialize)]
struct AccessDocument<'a> {
    operation: &'static str,
    previous: bool,
    addr: &'a str,
    /// The race detector's own number, not a goid.
    thread: u64,
    frames: Vec<FrameDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<RaceCreatedDocument<'a>>,
}

#[derive(Serialize)]
struct RaceCreatedDocument<'a> {
    finished: bool,
    frames: Vec<FrameDocument<'a>>,
}

fn access(access: &RaceAccess) -> AccessDocument<'_> {
    AccessDocument {
        operation: if access.write { "write" } else { "read" },
        previous: access.previous,
        addr: &access.addr,
        thread: access.thread,
        frames: access.frames.iter().map(|f| frame(f, true)).collect(),
        created: access.created.as_ref().map(|created| RaceCreatedDocument {
            finished: created.finished,
            frames: created.frames.iter().map(|f| frame(f, true)).collect(),
        }),
    }
}

struct Sequence<'a, T, F>(&'a [T], F);

impl<'a, T, D: Serialize, F: Fn(&'a T) -> D> Serialize for Sequence<'a, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}

struct Pairs<'a>(&'a [(String, String)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

struct Counts<'a>(&'a [(&'a str, u64)]);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

fn span(span: Span) -> [u64; 2] {
    [span.start, span.end]
}

fn traceback(level: TracebackLevel) -> &'static str {
    match level {
        TracebackLevel::None => "none",
        TracebackLevel::Single => "single",
        TracebackLevel::All => "all",
        TracebackLevel::System => "system",
        TracebackLevel::Crash => "crash",
    }
}

fn truncated_by(by: TruncatedBy) -> &'static str {
    match by {
        TruncatedBy::EndOfInput => "end_of_input",
        TruncatedBy::IncidentBytes => "incident_bytes",
        TruncatedBy::LineBytes => "line_bytes",
        TruncatedBy::Goroutines => "goroutines",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn no_drops(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::crash;

    fn document(detail: Detail) -> String {
        let incident = crash();
        let incidents =
            vec![IncidentDocument { incident: &incident, fingerprint: "v1:0123456789abcdef".into(), detail }];
        let file = File {
            path: "crash.txt".into(),
            detected: "stderr",
            bytes: 4929,
            incidents,
            incidents_dropped: 0,
            findings: Vec::new(),
        };
        serde_json::to_string_pretty(&Document { schema: SCHEMA, files: vec![file] }).unwrap()
    }

    #[test]
    fn every_goroutine_is_written_and_arguments_only_where_they_were_seen() {
        insta::assert_snapshot!(document(Detail::Goroutines));
    }

    #[test]
    fn an_incident_folder_keeps_the_faulting_goroutine_and_groups() {
        insta::assert_snapshot!(document(Detail::Groups));
    }
}
