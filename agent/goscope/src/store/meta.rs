//! `meta.json`: what an artifact is, in a form that `jq` reads.

use serde::{Deserialize, Serialize};

use crate::model::ArtifactId;
use crate::pod::Pod;

/// The value of [`Meta::schema`].
pub const SCHEMA: &str = "goscope.artifact/v1";

/// What an artifact is, when and where it came from, and what its files must hash to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub schema: String,
    pub id: String,
    /// The folder it stands in: `incidents`, `heap`, `trace` and so on.
    pub kind: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// Pod or host.
    pub host: String,
    /// The pod, where its manifest tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The run of the app that it belongs to.
    pub run: Option<String>,
    /// Bytes of all files but this one.
    pub bytes: u64,
    /// Each file but this one.
    pub files: Vec<FileMeta>,
    /// Never evicted.
    pub pinned: bool,
    /// `crash`, `rule`, or the name of who asked.
    pub requested_by: String,
    /// What made goscope take it, where that is not an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Why, in the words of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The incident that it belongs to: the identifier of another artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// Over how many seconds it was taken, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The form that was asked for: 1 and 2 are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<u8>,
    /// What it says in short, of an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// Bytes of [`Summary::reason`] that are kept.
pub const SUMMARY_REASON_BYTES_MAX: usize = 512;

/// An incident in short, so that a list of many does not have to read the whole of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// As in `incident.json`.
    pub kind: String,
    /// As in `incident.json`, cut.
    pub reason: String,
    /// As in `incident.json`; of a death without a word, which has none there, made of its kind and reason.
    pub fingerprint: String,
}

impl Summary {
    #[must_use]
    pub fn new(kind: &str, reason: &str, fingerprint: Option<String>) -> Self {
        let cut = reason.get(..reason.floor_char_boundary(SUMMARY_REASON_BYTES_MAX)).unwrap_or(reason);
        let fingerprint = fingerprint.unwrap_or_else(|| format!("{kind}:{}", ArtifactId::tag_of(reason)));
        Self { kind: kind.to_owned(), reason: cut.to_owned(), fingerprint }
    }
}

impl Meta {
    /// Whether a person asked for it: then it goes only after what nobody asked for.
    #[must_use]
    pub fn is_hand_made(&self) -> bool {
        self.trigger == Some(Trigger::Api)
    }
}

/// What made goscope take a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person, through the API.
    Api,
    /// One that a later version knows.
    #[serde(other)]
    Other,
}

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub name: String,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Trigger {
    /// As in `meta.json` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_short_and_always_has_a_fingerprint() {
        let whole = "x".repeat(SUMMARY_REASON_BYTES_MAX);
        for (reason, expected) in [
            ("boom".to_owned(), "boom".to_owned()),
            (whole.clone(), whole.clone()),
            (format!("{whole}y"), whole.clone()),
            (format!("{}é", "x".repeat(SUMMARY_REASON_BYTES_MAX - 1)), "x".repeat(SUMMARY_REASON_BYTES_MAX - 1)),
        ] {
            let summary = Summary::new("panic", &reason, Some("v1:0a".to_owned()));
            assert_eq!((summary.reason, summary.fingerprint), (expected, "v1:0a".to_owned()));
        }
        let made = |reason: &str| Summary::new("exit", reason, None).fingerprint;
        assert!(made("exit status 3").starts_with("exit:") && made("exit status 3") == made("exit status 3"));
        assert_ne!(made("exit status 3"), made("exit status 4"));
    }
}
