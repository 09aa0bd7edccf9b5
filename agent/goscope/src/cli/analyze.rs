//! `goscope analyze`: what a log, a crash or a dump says.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use goscope_analysis::document::{self, Detail, Document, IncidentDocument};
use goscope_analysis::report::{self, Style};
use goscope_analysis::text::{Colour, plural};
use goscope_formats::{Classifier, Event, Incident, IncidentKind, Timestamp, fingerprint};

use super::EXIT_BAD;

/// Explain Go crash logs: panics, fatal errors, signal dumps, races
#[derive(Debug, clap::Args)]
#[command(before_help = "Example: goscope analyze crash.txt\n         kubectl logs -p shop-0 | goscope analyze -")]
pub struct Args {
    /// How to answer
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Exit with 1 if one of these was found
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    fail_on: Vec<IncidentKind>,
    /// Files to read; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a person; coloured on a terminal
    Text,
    /// One document, schema goscope.analysis/v1
    Json,
}

/// Incidents of one file that are kept for the JSON document; more are counted.
const INCIDENTS_MAX: usize = 10_000;
/// Groups of goroutines that the text lists for one incident.
const GROUPS_MAX: usize = 100;
const BUFFER_BYTES: usize = 256 << 10;

const KINDS: [IncidentKind; 6] = [
    IncidentKind::Panic,
    IncidentKind::Fatal,
    IncidentKind::Signal,
    IncidentKind::Race,
    IncidentKind::HttpPanic,
    IncidentKind::Stack,
];

fn parse_kind(text: &str) -> Result<IncidentKind, String> {
    let names = || KINDS.map(IncidentKind::name).join(" ");
    KINDS.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("expected one of: {}", names()))
}

/// What was found in one file.
struct Found {
    path: String,
    bytes: u64,
    incidents: Vec<Incident>,
    dropped: u64,
}

impl Args {
    /// # Errors
    /// A file cannot be read, or standard output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let stdout = io::stdout();
        let mut sink = match self.format {
            Format::Text => Sink::Text(Text::new(stdout.is_terminal())),
            Format::Json => Sink::Json,
        };
        let mut out = io::BufWriter::new(stdout.lock());
        let mut files = Vec::new();
        let mut bad = false;
        for path in &self.files {
            let found =
                analyze(path, &mut sink, &mut out, self.files.len() > 1, |kind| bad |= self.fail_on.contains(&kind))
                    .with_context(|| format!("cannot analyze {}", path.display()))?;
            files.push(found);
        }
        if matches!(sink, Sink::Json) {
            serde_json::to_writer_pretty(&mut out, &json(&files)).context("cannot write to standard output")?;
            writeln!(out).context("cannot write to standard output")?;
        }
        out.flush().context("cannot write to standard output")?;
        Ok(if bad { ExitCode::from(EXIT_BAD) } else { ExitCode::SUCCESS })
    }
}

enum Sink {
    Text(Text),
    Json,
}

fn analyze(
    path: &Path,
    sink: &mut Sink,
    out: &mut impl Write,
    named: bool,
    mut note: impl FnMut(IncidentKind),
) -> io::Result<Found> {
    let mut input: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
    let mut found = Found { path: path.display().to_string(), bytes: 0, incidents: Vec::new(), dropped: 0 };
    if named && let Sink::Text(text) = sink {
        writeln!(out, "{}", text.colour.strong(&found.path))?;
    }
    let mut classifier = Classifier::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0_u64;
    let mut take = |events: Vec<Event>, found: &mut Found, out: &mut dyn Write| -> io::Result<()> {
        for event in events {
            let Event::Incident(incident) = event else { continue };
            note(incident.kind);
            total += 1;
            match sink {
                Sink::Text(text) => text.incident(&incident, out)?,
                Sink::Json if found.incidents.len() < INCIDENTS_MAX => found.incidents.push(*incident),
                Sink::Json => found.dropped += 1,
            }
        }
        Ok(())
    };
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        found.bytes += read as u64;
        take(classifier.push(buffer.get(..read).unwrap_or_default(), Timestamp::default()), &mut found, out)?;
    }
    take(classifier.finish(Timestamp::default()), &mut found, out)?;
    if matches!(sink, Sink::Text(_)) {
        writeln!(out, "{} in {}", plural(total, "incident"), plural(found.bytes, "byte"))?;
    }
    Ok(found)
}

/// Tells incidents as they end; one that was told before is only counted.
struct Text {
    colour: Colour,
    told: HashMap<String, u64>,
}

impl Text {
    fn new(terminal: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: if terminal && !no_color { Colour::On } else { Colour::Off }, told: HashMap::new() }
    }

    fn incident(&mut self, incident: &Incident, out: &mut dyn Write) -> io::Result<()> {
        let fingerprint = fingerprint(incident, None);
        let place = format!("  bytes {}–{}, {fingerprint}", incident.span.start, incident.span.end);
        if self.told.len() >= INCIDENTS_MAX {
            self.told.clear();
        }
        let times = self.told.entry(fingerprint).or_default();
        *times += 1;
        if *times > 1 {
            writeln!(out, "{}, time {times}", report::headline(incident))?;
        } else {
            out.write_all(
                report::incident(incident, Style { colour: self.colour, module: None, groups_max: GROUPS_MAX })
                    .as_bytes(),
            )?;
        }
        writeln!(out, "{}\n", self.colour.dim(&place))?;
        out.flush()
    }
}

fn json(files: &[Found]) -> Document<'_> {
    let files = files.iter().map(|found| document::File {
        path: found.path.clone(),
        detected: if found.incidents.is_empty() { "log" } else { "stderr" },
        bytes: found.bytes,
        incidents: found
            .incidents
            .iter()
            .map(|incident| IncidentDocument {
                incident,
                fingerprint: fingerprint(incident, None),
                detail: Detail::Goroutines,
            })
            .collect(),
        incidents_dropped: found.dropped,
        findings: Vec::new(),
    });
    Document { schema: document::SCHEMA, files: files.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_in_the_document() {
        assert_eq!(parse_kind("http_panic"), Ok(IncidentKind::HttpPanic));
        assert_eq!(parse_kind("crash"), Err("expected one of: panic fatal signal race http_panic stack".to_owned()));
    }

    #[test]
    fn a_crash_is_found_and_told_once_and_counted_after_that() {
        let crash = "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:4 +0x1d\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crash.txt");
        std::fs::write(&path, format!("started\n{crash}exit status 2\nstarted\n{crash}")).unwrap();
        let mut sink = Sink::Text(Text::new(false));
        let (mut out, mut kinds) = (Vec::new(), Vec::new());
        analyze(&path, &mut sink, &mut out, false, |kind| kinds.push(kind)).unwrap();
        assert_eq!(kinds, [IncidentKind::Panic; 2]);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("goroutine 1 [running]").count(), 1, "{text}");
        assert!(
            text.contains("panic: boom, time 2")
                && text.ends_with(&format!("2 incidents in {} bytes\n", std::fs::metadata(&path).unwrap().len())),
            "{text}"
        );
    }
}
