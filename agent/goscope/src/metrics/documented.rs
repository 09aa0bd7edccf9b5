//! Keeps `agent/METRICS.md` true: the table in it is made from what is registered.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use goscope_formats::BuildInfo;
use prometheus::Registry;
use prometheus::proto::{MetricFamily, MetricType};
use tokio::sync::watch;
use tokio::time::Instant;

use super::recorder::RecorderMetrics;
use crate::collect::metrics::CollectMetrics;
use crate::gate::metrics::{GateMetrics, LimitOf, LimitVerdict};
use crate::gate::refuse::Code;
use crate::selftest::metrics::SelfTestMetrics;
use crate::store::metrics::StoreMetrics;
use crate::target::sampler::{Answer, IndexPage, Sample, SamplerMetrics};
use crate::tls::metrics::RemoteMetrics;

/// Everything that the agent registers, each family with at least one series.
fn everything() -> Registry {
    let registry = super::registry().expect("a registry");
    let profiles = vec![("goroutine".to_owned(), 12), ("threadcreate".to_owned(), 7)];
    let sample = Sample {
        at: SystemTime::UNIX_EPOCH,
        taken: Instant::now(),
        cost: Duration::from_micros(1500),
        answer: Answer::Page(Arc::new(IndexPage { profiles })),
    };
    let build = BuildInfo { go_version: "go1.26.8".to_owned(), ..BuildInfo::default() };
    super::go::register(&registry, watch::channel(Some(sample)).1, watch::channel(Some(build)).1).expect("registered");
    SamplerMetrics::register(&registry).expect("registered");
    RecorderMetrics::register(&registry).expect("registered");
    StoreMetrics::register(&registry).expect("registered");
    CollectMetrics::register(&registry).expect("registered");
    SelfTestMetrics::register(&registry).expect("registered");
    let gate = GateMetrics::register(&registry).expect("registered");
    RemoteMetrics::register(&registry).expect("registered").expires(jiff::Timestamp::UNIX_EPOCH);
    gate.request("heap", Code::Passed, Duration::from_millis(1));
    gate.api_request("info", Code::Answered, Duration::from_millis(1));
    gate.limit(LimitOf::Source, LimitVerdict::Passed);
    registry
}

/// The document, with its table made anew. A label whose values are all there from the start is listed with them.
fn document() -> String {
    let mut text = String::from(
        "# Metrics of the agent\n\n\
         Served as `/metrics` of the metrics listener, in the Prometheus text format. The table is compared with what the agent registers; after a change\n\
         write it anew with `GOSCOPE_WRITE_DOCUMENTS=1 cargo test -p goscope documented`.\n\n\
         The target's own series (`go_*`, `goscope_sample_seconds`) are absent while there is no fresh sample of it; `goscope_target_up` is 0 then.\n\n\
         | name | type | labels | unit | meaning |\n|---|---|---|---|---|\n",
    );
    for family in everything().gather() {
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            family.name(),
            format!("{:?}", family.get_field_type()).to_lowercase(),
            labels(&family),
            unit(family.name()),
            family.help()
        )
        .expect("a string takes all");
    }
    text
}

fn labels(family: &MetricFamily) -> String {
    let mut labels: Vec<(String, Vec<String>)> = Vec::new();
    for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
        let value = format!("`{}`", pair.value());
        match labels.iter_mut().find(|(name, _)| name == pair.name()) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => labels.push((pair.name().to_owned(), vec![value])),
        }
    }
    // These have values of their own in each build or program, or are there from the first request on that has them.
    let open = ["version", "commit", "profile", "operation", "decision", "limit", "verdict"];
    let described = labels.iter().map(|(name, values)| {
        if open.contains(&name.as_str()) { format!("`{name}`") } else { format!("`{name}`: {}", values.join(" ")) }
    });
    described.collect::<Vec<_>>().join(", ")
}

/// The base unit that the name ends with, as Prometheus asks for.
fn unit(name: &str) -> &'static str {
    match name.trim_end_matches("_total").rsplit('_').next() {
        Some("seconds") => "seconds",
        Some("bytes") => "bytes",
        _ => "",
    }
}

#[tokio::test]
async fn the_documented_list_is_what_is_registered() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../METRICS.md");
    let document = document();
    if std::env::var_os("GOSCOPE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(&path, &document).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("agent/METRICS.md");
    assert_eq!(written, document, "agent/METRICS.md is out of date");
}

#[tokio::test]
async fn names_follow_the_conventions() {
    for family in everything().gather() {
        let name = family.name();
        assert!(name.starts_with("goscope_") || name.starts_with("go_"), "{name}");
        assert_eq!(name.ends_with("_total"), family.get_field_type() == MetricType::COUNTER, "{name}");
        assert!(family.help().ends_with('.'), "{name}: {}", family.help());
    }
}

/// Prometheus's own linter, where it is installed.
#[tokio::test]
async fn promtool_has_no_complaint() {
    let text = super::encode(&everything()).expect("encoded");
    let child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            writeln!(std::io::stderr(), "SKIPPED: promtool is not installed").expect("said");
            return;
        }
        child => child.expect("promtool starts"),
    };
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}
