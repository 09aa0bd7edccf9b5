//! What real Go releases printed, recorded by tests/corpus/record.sh: a selection under fixtures/, or a whole recording named by
//! GOSCOPE_CORPUS.
#![expect(clippy::disallowed_methods, reason = "the crate itself reads no file; its tests do")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use goscope_formats::{Classifier, Ending, Event, Incident, IncidentKind, Timestamp, TracebackLevel, fingerprint};

/// One recorded death.
struct Case {
    name: String,
    release: u32,
    level: String,
    kind: String,
    text: Vec<u8>,
    status: i32,
    /// Kind and reason of each incident.
    expect: Vec<(String, String)>,
}

fn classify(text: &[u8], chunk: usize, ending: Ending) -> Vec<Incident> {
    let mut classifier = Classifier::new();
    let mut events = Vec::new();
    for chunk in text.chunks(chunk) {
        events.extend(classifier.push(chunk, Timestamp(1)));
    }
    events.extend(classifier.finish_after(ending, Timestamp(2)));
    events
        .into_iter()
        .map(|event| match event {
            Event::Incident(incident) => *incident,
            _ => unreachable!("the only event"),
        })
        .collect()
}

/// Addresses are written 0xHEX in an expectation, and a count of goroutines N.
fn normalise(reason: &str) -> String {
    let mut out = String::new();
    let mut rest = reason;
    while let Some((before, after)) = rest.split_once("0x") {
        out.push_str(before);
        out.push_str("0xHEX");
        rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    out.push_str(rest);
    match out.strip_prefix("stacks of ").and_then(|rest| rest.split_once(' ')) {
        Some((_, rest)) => format!("stacks of N {rest}"),
        None => out,
    }
}

/// What is wrong, or nothing.
fn check(case: &Case) -> Result<(), String> {
    // Up to Go 1.22 a value of several lines is printed bare; without stacks only the exit status tells it from a log.
    let ending = if case.status == 2 || case.status == 134 { Ending::Crashed } else { Ending::Unknown };
    let found = classify(&case.text, usize::MAX, ending);
    let list = |incidents: &[Incident]| {
        incidents.iter().map(|i| format!("{}:{}", i.kind.name(), i.reason)).collect::<Vec<_>>().join(" | ")
    };
    if found.len() != case.expect.len() {
        return Err(format!("{} incidents: {}", found.len(), list(&found)));
    }
    for (incident, (kind, reason)) in found.iter().zip(&case.expect) {
        if incident.kind.name() != kind || !reason.split('|').any(|reason| reason == normalise(&incident.reason)) {
            return Err(format!("{} rather than {kind}:{reason}", list(&found)));
        }
        if !incident.complete {
            return Err(format!("{:?}", incident.truncated_by));
        }
    }
    let [incident] = found.as_slice() else { return Ok(()) };
    check_one(case, incident)
}

fn check_one(case: &Case, incident: &Incident) -> Result<(), String> {
    let text = String::from_utf8_lossy(&case.text);
    let blocks = text
        .lines()
        .filter(|line| line.starts_with("goroutine ") && line.ends_with("]:") | line.ends_with("}:"))
        .count() as u64;
    // The one thing that no parser can put right: another thread's line in the middle of a header.
    if incident.goroutines.total() != blocks {
        return Err(format!("{} of {blocks} goroutines", incident.goroutines.total()));
    }
    if !incident.kind.is_death() {
        return Ok(());
    }
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let span = &case.text[at(incident.span.start)..at(incident.span.end)];
    let before = &case.text[..at(incident.span.start)];
    let behind = &case.text[at(incident.span.end)..];
    let heads: &[&str] = match incident.kind {
        IncidentKind::Panic => &["panic: "],
        IncidentKind::Signal => &["SIG", "runtime/cgo: ", "fatal: "],
        _ => &["fatal error: ", "runtime: ", "unexpected fault address ", "panic: ", "accessed data"],
    };
    if !heads.iter().any(|head| span.starts_with(head.as_bytes())) {
        return Err(format!("span starts with {:?}", String::from_utf8_lossy(&span[..span.len().min(60)])));
    }
    let ours = |line: &[u8]| {
        line.starts_with(b"panic: ")
            || line.starts_with(b"\t")
            || line.starts_with(b"goroutine ")
            || line.starts_with(b"runtime: ")
    };
    if case.kind != "after-logs" && before.split(|b| *b == b'\n').any(ours) {
        return Err(format!("before: {:?}", String::from_utf8_lossy(before)));
    }
    let quiet = |line: &[u8]| line.is_empty() || line.starts_with(b"2026/");
    let multiline =
        case.level == "none" && case.release < 23 && case.kind.starts_with("panic-") | case.kind.starts_with("error-");
    if !multiline && !behind.split(|b| *b == b'\n').all(quiet) {
        return Err(format!("behind: {:?}", String::from_utf8_lossy(&behind[..behind.len().min(300)])));
    }
    check_level(case, incident, blocks)
}

fn check_level(case: &Case, incident: &Incident, blocks: u64) -> Result<(), String> {
    use TracebackLevel as L;
    let shown = incident.traceback.ok_or("no level")?;
    let may: &[L] = match case.level.as_str() {
        _ if blocks == 0 => &[L::None],
        // The testing package raises the level.
        _ if case.kind == "test-timeout" => &[L::All, L::System, L::Crash],
        // From 1.19 on throws and signals override the setting, and fatal errors show all goroutines up to 1.25.
        "none" | "single" | "all" if incident.kind != IncidentKind::Panic => &[L::Single, L::All, L::System],
        "none" => &[L::None],
        "single" => &[L::Single],
        "all" => &[L::Single, L::All],
        "system" => &[L::System],
        _ => &[L::System, L::Crash],
    };
    if may.contains(&shown) { Ok(()) } else { Err(format!("level {shown:?}")) }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cases of `root`/RELEASE/LEVEL/KIND.txt.
fn cases(root: &Path) -> Vec<Case> {
    let folders = |path: &Path| {
        let mut list: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        list.sort();
        list
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut cases = Vec::new();
    for release in folders(root).iter().filter(|path| name(path).starts_with("1.")) {
        for level in folders(release).iter().filter(|path| path.is_dir()) {
            for file in folders(level).iter().filter(|path| path.extension().is_some_and(|e| e == "txt")) {
                let kind = file.file_stem().unwrap().to_str().unwrap().to_owned();
                let expect = String::from_utf8(read(&release.join(format!("{kind}.expect")))).unwrap();
                let split =
                    |line: &str| line.split_once('\t').map(|(kind, reason)| (kind.to_owned(), reason.to_owned()));
                cases.push(Case {
                    name: format!("{}/{}/{kind}", name(release), name(level)),
                    release: name(release).split('.').nth(1).unwrap().parse().unwrap(),
                    level: name(level),
                    kind,
                    text: read(file),
                    status: String::from_utf8(read(&file.with_extension("status"))).unwrap().trim().parse().unwrap(),
                    expect: expect.lines().filter_map(split).collect(),
                });
            }
        }
    }
    cases
}

/// Kinds of death whose place or text differs between releases or runs, with the reason.
const UNSTEADY: [(&str, &str); 6] = [
    ("cgo-segv", "1.18 calls it a fatal error"),
    ("cgo-divide", "1.18 calls it a fatal error"),
    ("panic-error-panics", "1.18 does not print the second value"),
    ("out-of-memory", "the text depends on what could not be had"),
    ("bad-pointer", "a worker of the collector finds it, whoever it interrupted is shown"),
    ("threads", "any goroutine may need the thread"),
];

/// One fault has one fingerprint, on all releases and levels that show a stack.
fn check_fingerprints(cases: &[Case]) -> String {
    let mut wrong = String::new();
    let mut kinds: Vec<&str> = cases.iter().map(|case| case.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds.into_iter().filter(|kind| UNSTEADY.iter().all(|(known, _)| known != kind)) {
        for module in [Some("example.com/gen"), None] {
            let mut prints: Vec<(String, String)> = Vec::new();
            for case in cases.iter().filter(|case| case.kind == kind && case.expect.len() == 1) {
                for incident in classify(&case.text, usize::MAX, Ending::Unknown) {
                    if incident.goroutines.total() > 0 || incident.kind == IncidentKind::Race {
                        prints.push((fingerprint(&incident, module), case.name.clone()));
                    }
                }
            }
            prints.sort();
            prints.dedup_by(|a, b| a.0 == b.0);
            if prints.len() > 1 {
                writeln!(wrong, "{kind} {module:?}: {prints:?}").unwrap();
            }
        }
    }
    wrong
}

fn check_all(root: &Path) {
    let cases = cases(root);
    assert!(!cases.is_empty(), "nothing recorded in {}", root.display());
    let mut wrong = String::new();
    let mut count = 0;
    for case in &cases {
        if let Err(text) = check(case) {
            count += 1;
            writeln!(wrong, "{}: {text}", case.name).unwrap();
        }
        let whole = classify(&case.text, usize::MAX, Ending::Unknown);
        for chunk in [1, 7, 4096] {
            assert_eq!(whole, classify(&case.text, chunk, Ending::Unknown), "{} in chunks of {chunk}", case.name);
        }
    }
    wrong += &check_fingerprints(&cases);
    assert!(wrong.is_empty(), "{count} of {} are wrong:\n{wrong}", cases.len());
}

/// The selection beside this file, or a whole recording by `tests/corpus/record.sh` that `GOSCOPE_CORPUS` names.
#[test]
fn recordings() {
    let selection = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    check_all(&std::env::var_os("GOSCOPE_CORPUS").map_or_else(selection, PathBuf::from));
}
