//! `status`: what the agent says of itself, its target and the caller, as a person reads it.

use std::process::ExitCode;

use anyhow::Context as _;
use goscope_analysis::text::{Colour, plural, printable};
use serde::Deserialize;
use serde_json::Value;

use super::text::size;
use super::{Output, Place, answer};
use crate::cli::EXIT_BAD;
use crate::cluster::target::Target;

/// What the agent sees: target, recording, store, findings, and who you are to it
///
/// Exits with 1 if something is not well.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    before_help = "Example:\n  kubectl goscope status deploy/shop\n  goscope ctl status --url http://127.0.0.1:6061 --token-file goscope-data/token"
)]
pub(super) struct Args {
    /// deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, pod/NAME or the name of a pod
    #[arg(value_name = "TARGET", value_parser = Target::parse)]
    target: Option<Target>,
    /// How to answer
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let mut api = place.api(self.target.as_ref()).await?;
        let document: Value = api.get("/api/v1/info").await?;
        let info = Info::deserialize(&document).context("the agent's answer is not that of this API")?;
        match self.output {
            Output::Json => answer(&format!("{document:#}\n"))?,
            Output::Text => answer(&render(&info, super::colour()))?,
        }
        Ok(if info.is_well() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BAD) })
    }
}

/// The parts of the answer that are shown. What is missing is not known, and not shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    goscope: Build,
    mode: String,
    host: String,
    pod: Option<Pod>,
    target: Option<TargetState>,
    program: Option<Program>,
    gate: Gate,
    store: Option<Store>,
    intake: Option<Intake>,
    findings: Vec<Finding>,
    identity: Identity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Build {
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    name: String,
    namespace: Option<String>,
    node: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetState {
    address: String,
    up: bool,
    problem: Option<String>,
    go_version: Option<String>,
    goroutines: Option<u64>,
    threads: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Program {
    command: Vec<String>,
    module: Option<String>,
    module_version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gate {
    tokens: u64,
    problem: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Store {
    bytes: Option<u64>,
    max_bytes: Option<u64>,
    artifacts: Option<u64>,
    incidents: Option<u64>,
    problem: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Intake {
    runs: u64,
    lag_bytes: u64,
    problem: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Finding {
    id: String,
    severity: String,
    claim: String,
    evidence: Vec<Value>,
    next: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Identity {
    name: String,
    tiers: Vec<String>,
}

impl Info {
    /// Nothing is broken. A warning tells what could be better, and is shown.
    fn is_well(&self) -> bool {
        let problems = [
            self.target.as_ref().and_then(|target| target.problem.as_ref()),
            self.gate.problem.as_ref(),
            self.store.as_ref().and_then(|store| store.problem.as_ref()),
            self.intake.as_ref().and_then(|intake| intake.problem.as_ref()),
        ];
        self.target.as_ref().is_none_or(|target| target.up)
            && problems.iter().all(Option::is_none)
            && self.findings.iter().all(|finding| finding.severity != "error")
    }
}

fn render(info: &Info, colour: Colour) -> String {
    let mut out = colour.strong(&printable(&head(info))) + "\n";
    let mut row = |name: &str, fact: &str, problem: Option<&String>| {
        let name = format!("{name:<9}");
        out.push_str(&format!("  {}  {}\n", colour.dim(&name), printable(fact)));
        if let Some(problem) = problem {
            out.push_str(&format!("  {:<9}  {}\n", "", colour.alarm(&printable(problem))));
        }
    };
    if let Some(target) = &info.target {
        row("target", &target_fact(target), target.problem.as_ref());
    }
    if let Some(program) = &info.program {
        let parts = [program.module.as_deref(), program.module_version.as_deref()].into_iter().flatten();
        let name = parts.collect::<Vec<_>>().join(" ");
        row("program", if name.is_empty() { program.command.first().map_or("", String::as_str) } else { &name }, None);
    }
    if let Some(intake) = &info.intake {
        let lag = if intake.lag_bytes > 0 { format!(", {} to read", size(intake.lag_bytes)) } else { String::new() };
        let runs = if intake.runs == 0 { "no run yet".to_owned() } else { plural(intake.runs, "run") };
        row("recording", &format!("{runs}{lag}"), intake.problem.as_ref());
    }
    if let Some(store) = &info.store {
        row("store", &store_fact(store), store.problem.as_ref());
    }
    row("gate", &plural(info.gate.tokens, "token"), info.gate.problem.as_ref());
    row("you", &format!("{}: {}", info.identity.name, info.identity.tiers.join(", ")), None);
    for finding in &info.findings {
        out.push_str(&finding_text(finding, colour));
    }
    out
}

fn head(info: &Info) -> String {
    let place = match &info.pod {
        Some(pod) => {
            let namespace = pod.namespace.as_deref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
            let node = pod.node.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
            format!("pod {}{namespace}{node}", pod.name)
        }
        None => info.host.clone(),
    };
    format!("{place}: goscope {} ({})", info.goscope.version, info.mode)
}

fn target_fact(target: &TargetState) -> String {
    let mut facts = vec![format!("{} at {}", if target.up { "up" } else { "down" }, target.address)];
    facts.extend(target.go_version.clone());
    facts.extend(target.goroutines.map(|count| plural(count, "goroutine")));
    facts.extend(target.threads.map(|count| plural(count, "thread")));
    facts.join(", ")
}

fn store_fact(store: &Store) -> String {
    let mut facts = Vec::new();
    facts.extend(store.incidents.map(|count| plural(count, "incident")));
    facts.extend(store.artifacts.map(|count| plural(count, "artifact")));
    let most = store.max_bytes.map(|bytes| format!(" of {}", size(bytes))).unwrap_or_default();
    facts.extend(store.bytes.map(|bytes| format!("{}{most}", size(bytes))));
    if facts.is_empty() { "not known".to_owned() } else { facts.join(", ") }
}

fn finding_text(finding: &Finding, colour: Colour) -> String {
    let severity = printable(&finding.severity).into_owned();
    let severity = if finding.severity == "error" { colour.alarm(&severity) } else { colour.strong(&severity) };
    let mut out = format!("{severity} {}: {}\n", printable(&finding.id), printable(&finding.claim));
    for evidence in &finding.evidence {
        let text = evidence.as_str().map_or_else(|| evidence.to_string(), str::to_owned);
        out.push_str(&format!("    {}\n", printable(&text)));
    }
    if let Some(next) = &finding.next {
        out.push_str(&format!("    {} {}\n", colour.dim("→"), printable(next)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(value: Value) -> Info {
        serde_json::from_value(value).expect("an answer")
    }

    fn well() -> Value {
        json!({
            "schema": "goscope.info/v1", "goscope": {"version": "0.1.0", "commit": "abc"}, "mode": "agent", "host": "shop-0",
            "pod": {"name": "shop-0", "namespace": "shop", "node": "node1"},
            "target": {"address": "127.0.0.1:6060", "up": true, "go_version": "go1.27.3", "goroutines": 12, "threads": 1, "profiles": ["heap"]},
            "program": {"command": ["/shop"], "module": "example.com/shop", "module_version": "v1.2.3"},
            "gate": {"tokens": 2}, "store": {"bytes": 1536, "max_bytes": 268_435_456_u64, "artifacts": 3, "incidents": 1},
            "intake": {"runs": 1, "lag_bytes": 0},
            "findings": [{"id": "bypass", "severity": "warning", "claim": "port 6060 is open", "evidence": ["127.0.0.1:6060"], "next": "seal it"}],
            "identity": {"name": "alice", "tiers": ["basic", "cpu"]},
        })
    }

    #[test]
    fn as_a_person_reads_it() {
        assert_eq!(
            render(&info(well()), Colour::Off),
            "pod shop-0 in namespace shop on node1: goscope 0.1.0 (agent)\n  \
               target     up at 127.0.0.1:6060, go1.27.3, 12 goroutines, 1 thread\n  \
               program    example.com/shop v1.2.3\n  \
               recording  1 run\n  \
               store      1 incident, 3 artifacts, 1.5 KiB of 256 MiB\n  \
               gate       2 tokens\n  \
               you        alice: basic, cpu\n\
             warning bypass: port 6060 is open\n    127.0.0.1:6060\n    → seal it\n"
        );
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let archive = json!({"mode": "archive", "host": "archive-0", "goscope": {"version": "0.1.0"}, "identity": {"name": "a", "tiers": []}});
        let text = render(&info(archive), Colour::Off);
        for row in ["target", "recording", "store", "program"] {
            assert!(!text.contains(row), "{text}");
        }
    }

    #[test]
    fn what_is_not_well() {
        let check = |change: &dyn Fn(&mut Value), expected: bool| {
            let mut value = well();
            change(&mut value);
            assert_eq!(info(value.clone()).is_well(), expected, "{value}");
        };
        check(&|_| {}, true);
        check(&|value| value["target"]["up"] = false.into(), false);
        check(&|value| value["target"] = Value::Null, true);
        for part in ["target", "gate", "store", "intake"] {
            check(&|value| value[part]["problem"] = "broken".into(), false);
        }
        check(&|value| value["findings"][0]["severity"] = "error".into(), false);
        check(&|value| value["findings"] = json!([]), true);
    }

    #[test]
    fn foreign_words_cannot_drive_the_terminal() {
        let mut value = well();
        value["program"]["module"] = "\u{1b}[2J".into();
        value["findings"][0]["claim"] = "a\nb".into();
        let text = render(&info(value), Colour::Off);
        assert!(!text.contains('\u{1b}') && text.contains("a⏎ b"), "{text}");
    }
}
