//! The folder of one incident: what was said, what came before it, how it ended, and what goscope made of it.
//!
//! ```text
//! incidents/<time>-<tag>/
//!   stderr.txt      the raw bytes of the incident; of a wordless death the last 256 KiB
//!   before.txt      up to 256 KiB before it
//!   incident.json   the parsed form: `goscope analyze`'s incident object, with id, run, pod, program and ending
//!   exit.json       the launcher's exit record, where the app has ended
//!   start.json      the launcher's start record
//!   meta.json       sizes and sums of all these
//! ```

use std::path::{Path, PathBuf};

use goscope_analysis::document::{Detail, IncidentDocument};
use goscope_formats::{BuildInfo, Incident, Span, Timestamp};
use serde::Serialize;

use crate::intake::reader;
use crate::metrics::recorder::RecordedKind;
use crate::model::ArtifactId;
use crate::pod::Pod;
use crate::spool::{self, ExitRecord, StartRecord};
use crate::store::meta::{self, Meta, Summary};
use crate::store::{INCIDENTS, Store, StoreError};

/// Bytes before an incident that are kept with it.
pub const BEFORE_BYTES: u64 = 256 << 10;

/// What is known of the run besides its stderr.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The run's folder.
    pub folder: &'a Path,
    /// Its name.
    pub name: &'a str,
    pub host: &'a str,
    pub pod: Option<&'a Pod>,
    pub start: Option<&'a StartRecord>,
    pub exit: Option<&'a ExitRecord>,
    pub build: Option<&'a BuildInfo>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// Told on stderr.
    Told { incident: &'a Incident, fingerprint: &'a str },
    /// A death without a word of the Go runtime; `end` is the length of the stream.
    Wordless { reason: &'a str, end: u64, seen: Timestamp },
}

impl What<'_> {
    /// `panic`, …, `exit`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.recorded().name()
    }

    /// As counted in `goscope_incidents_total`.
    #[must_use]
    pub fn recorded(&self) -> RecordedKind {
        match self {
            Self::Told { incident, .. } => RecordedKind::Text(incident.kind),
            Self::Wordless { .. } => RecordedKind::Exit,
        }
    }

    fn span(&self) -> Span {
        match self {
            Self::Told { incident, .. } => incident.span,
            Self::Wordless { end, .. } => Span { start: end.saturating_sub(BEFORE_BYTES), end: *end },
        }
    }

    fn seen(&self) -> Timestamp {
        match self {
            Self::Told { incident, .. } => incident.seen,
            Self::Wordless { seen, .. } => *seen,
        }
    }

    fn summary(&self) -> Summary {
        match *self {
            Self::Told { incident, fingerprint } => {
                Summary::new(self.kind(), &incident.reason, Some(fingerprint.to_owned()))
            }
            Self::Wordless { reason, .. } => Summary::new(self.kind(), reason, None),
        }
    }

    /// The same whenever the same thing is found again.
    fn origin(&self, run: &str) -> String {
        match self {
            Self::Told { incident, .. } => format!("{run}:{}", incident.span.start),
            Self::Wordless { .. } => format!("{run}:exit"),
        }
    }
}

/// An incident that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub folder: PathBuf,
    /// It was there already: an earlier agent had stored it and was killed before it could say so.
    pub again: bool,
}

/// Writes the folder, unless the store has it already.
///
/// # Errors
/// The volume cannot be written, or the spool cannot be read.
pub fn store(store: &Store, what: What<'_>, context: &Context<'_>) -> Result<Stored, StoreError> {
    let origin = what.origin(context.name);
    if let Some(folder) = store.find(INCIDENTS, &ArtifactId::tag_of(&origin))? {
        return Ok(Stored { folder, again: true });
    }
    let seen = jiff::Timestamp::from_nanosecond(i128::from(what.seen().0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let id = ArtifactId::new(seen, &origin);
    let span = what.span();
    let mut staged = store.stage()?;
    let missing = staged.file("stderr.txt", |file| reader::copy(context.folder, span.start, span.end, file))?;
    if matches!(what, What::Told { .. }) {
        let from = span.start.saturating_sub(BEFORE_BYTES);
        staged.file("before.txt", |file| reader::copy(context.folder, from, span.start, file))?;
    }
    if let Some(exit) = context.exit {
        staged.file("exit.json", |file| Ok(serde_json::to_writer_pretty(file, exit)?))?;
    }
    if let Some(start) = context.start {
        staged.file(spool::START, |file| Ok(serde_json::to_writer_pretty(file, start)?))?;
    }
    let document = Document::new(&what, context, &id, seen, missing);
    staged.file("incident.json", |file| {
        let mut buffered = std::io::BufWriter::new(file);
        serde_json::to_writer_pretty(&mut buffered, &document)?;
        std::io::Write::flush(&mut buffered)
    })?;
    let folder = store.commit(staged, &id, INCIDENTS, |staged| Meta {
        schema: meta::SCHEMA.to_owned(),
        id: id.to_string(),
        kind: INCIDENTS.to_owned(),
        created: seen.to_string(),
        host: context.host.to_owned(),
        pod: context.pod.cloned(),
        run: Some(context.name.to_owned()),
        bytes: staged.bytes(),
        files: staged.files().to_vec(),
        pinned: false,
        requested_by: "crash".to_owned(),
        trigger: None,
        reason: None,
        incident: None,
        seconds: None,
        debug: None,
        summary: Some(what.summary()),
    })?;
    Ok(Stored { folder, again: false })
}

/// `incident.json`.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    id: &'a str,
    run: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    /// RFC 3339, UTC.
    first_seen: String,
    /// Bytes of the incident that the spool had lost.
    #[serde(skip_serializing_if = "is_zero")]
    missing_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<Program<'a>>,
    #[serde(flatten)]
    told: Told<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Told<'a> {
    Incident(IncidentDocument<'a>),
    Wordless { kind: &'static str, reason: &'a str, span: [u64; 2], complete: bool, goroutines: [(); 0] },
}

#[derive(Serialize)]
struct Program<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    go_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcs_revision: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn new(
        what: &What<'a>,
        context: &Context<'a>,
        id: &'a ArtifactId,
        seen: jiff::Timestamp,
        missing_bytes: u64,
    ) -> Self {
        let told = match *what {
            What::Told { incident, fingerprint } => Told::Incident(IncidentDocument {
                incident,
                fingerprint: fingerprint.to_owned(),
                detail: Detail::Groups,
            }),
            What::Wordless { reason, .. } => {
                let span = what.span();
                Told::Wordless {
                    kind: what.kind(),
                    reason,
                    span: [span.start, span.end],
                    complete: missing_bytes == 0,
                    goroutines: [],
                }
            }
        };
        let program = Program {
            command: context.start.map(|s| s.command.as_slice()),
            go_version: context.build.map(|b| b.go_version.as_str()),
            module: context.build.and_then(|b| b.module.as_deref()),
            module_version: context.build.and_then(|b| b.version.as_deref()),
            vcs_revision: context.build.and_then(BuildInfo::revision),
        };
        Self {
            schema: "goscope.incident/v1",
            id: id.as_str(),
            run: context.name,
            host: context.host,
            pod: context.pod,
            first_seen: seen.to_string(),
            missing_bytes,
            program: (context.start.is_some() || context.build.is_some()).then_some(program),
            told,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
