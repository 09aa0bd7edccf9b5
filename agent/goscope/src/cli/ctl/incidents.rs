//! `incidents`: what died or was reported, grouped, newest first.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Deserialize;

use super::text::{age, table};
use super::{Place, list};

/// What died or was reported, the same thing counted once, newest first
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  kubectl goscope incidents deploy/shop\n  kubectl goscope incidents deploy/shop --since 24h --kind panic -o json"
)]
pub(super) struct Args {
    #[command(flatten)]
    list: list::Filter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Incident {
    kind: String,
    reason: String,
    count: u64,
    last_seen: String,
    latest: String,
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        self.list.run(place, "/api/v1/incidents", &[], "no incidents", render).await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn render(incidents: &[Incident], now: Timestamp) -> String {
    let row = |incident: &Incident| {
        let count = incident.count.to_string();
        vec![
            age(&incident.last_seen, now),
            incident.kind.clone(),
            count,
            incident.latest.clone(),
            incident.reason.clone(),
        ]
    };
    table(&["AGE", "KIND", "COUNT", "ID", "REASON"], &incidents.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let incidents: Vec<Incident> = serde_json::from_value(serde_json::json!([
            {"fingerprint": "v1:1", "kind": "panic", "reason": "boom", "count": 12, "first_seen": "2026-11-23T08:00:00Z",
             "last_seen": "2026-11-23T11:00:00Z", "hosts": ["shop-0"], "latest": "2026-11-23T11-00-00Z-ab"},
            {"kind": "exit", "count": 1, "last_seen": "2026-11-20T12:00:00Z", "latest": "x"},
        ]))
        .expect("incidents");
        assert_eq!(
            render(&incidents, "2026-11-23T12:00:00Z".parse().expect("a time")),
            "AGE  KIND   COUNT  ID                       REASON\n\
             60m  panic  12     2026-11-23T11-00-00Z-ab  boom\n\
             3d   exit   1      x                        -\n"
        );
    }
}
