//! `meta.json`: what an artifact is, in a form that `jq` reads.

use serde::{Deserialize, Serialize};

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
