//! `artifacts`: what stands on the volume, newest first.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Deserialize;

use super::text::{age, size, table};
use super::{Place, list};

/// Profiles, traces and incidents on the volume, newest first
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  kubectl goscope artifacts deploy/shop --kind heap")]
pub(super) struct Args {
    #[command(flatten)]
    list: list::Filter,
    /// Only what belongs to this incident
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Artifact {
    id: String,
    kind: String,
    created: String,
    host: String,
    bytes: u64,
    pinned: bool,
    requested_by: String,
}

impl Args {
    pub(super) async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let further = [("incident", self.incident.as_deref())];
        self.list.run(place, "/api/v1/artifacts", &further, "no artifacts", render).await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn render(artifacts: &[Artifact], now: Timestamp) -> String {
    let row = |artifact: &Artifact| {
        let pinned = if artifact.pinned { " (pinned)" } else { "" };
        vec![
            age(&artifact.created, now),
            artifact.kind.clone(),
            size(artifact.bytes),
            artifact.id.clone(),
            artifact.host.clone(),
            format!("{}{pinned}", artifact.requested_by),
        ]
    };
    table(&["AGE", "KIND", "SIZE", "ID", "HOST", "BY"], &artifacts.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let artifacts: Vec<Artifact> = serde_json::from_value(serde_json::json!([
            {"id": "2026-11-23T11-00-00Z-ab", "kind": "heap", "created": "2026-11-23T11:59:00Z", "host": "shop-0", "bytes": 2048, "pinned": true,
             "requested_by": "alice", "files": []},
        ]))
        .expect("artifacts");
        assert_eq!(
            render(&artifacts, "2026-11-23T12:00:00Z".parse().expect("a time")),
            "AGE  KIND  SIZE     ID                       HOST    BY\n\
             60s  heap  2.0 KiB  2026-11-23T11-00-00Z-ab  shop-0  alice (pinned)\n"
        );
    }
}
