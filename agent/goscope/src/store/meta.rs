//! `meta.json`: what an artifact is, in a form that `jq` reads.

use serde::{Deserialize, Serialize};

use crate::pod::Pod;

/// The value of [`Meta::schema`].
pub const SCHEMA: &str = "goscope.artifact/v1";

/// What an artifact is, when and where it came from, and what its files must hash to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub schema: String,
    pub id: String,
    /// The folder it stands in: `incidents`, later `heap`, `trace` and so on.
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
}

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub name: String,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}
