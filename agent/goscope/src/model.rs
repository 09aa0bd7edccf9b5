//! The words that all parts share.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

/// Names one artifact: a time in UTC and a tag, `2026-11-23T08-57-04Z-1f2e3d4c5b`. Sorts by time.
///
/// The tag is derived from what the artifact is about, so that the same thing, found again after a restart, is known to be stored already.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactId(String);

/// Hexadecimal digits of a tag.
const TAG_LEN: usize = 10;

impl ArtifactId {
    /// `origin` is anything that is the same whenever the same thing is found: for an incident, its run and its offset.
    #[must_use]
    pub fn new(time: Timestamp, origin: &str) -> Self {
        Self(format!("{}-{}", file_time(time), Self::tag_of(origin)))
    }

    /// The tag that an artifact of `origin` has: ten hexadecimal digits.
    #[must_use]
    pub fn tag_of(origin: &str) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, origin.as_bytes());
        hex(digest.as_ref().get(..TAG_LEN / 2).unwrap_or_default())
    }

    /// The same tag at another time.
    #[must_use]
    pub fn at(&self, time: Timestamp) -> Self {
        Self(format!("{}-{}", file_time(time), self.tag()))
    }

    /// Reads a folder's name; `None` for a name that is not ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (time, tag) = name.rsplit_once('-')?;
        let tag_ok = tag.len() == TAG_LEN && tag.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (tag_ok && parse_file_time(time).is_some()).then(|| Self(name.to_owned()))
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(_, tag)| tag)
    }

    /// The time in the name, to the second.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        parse_file_time(self.0.rsplit_once('-')?.0)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `2026-11-23T08-57-04Z`: RFC 3339 in UTC, to the second, without the colons that some file systems refuse.
#[must_use]
pub fn file_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
}

fn parse_file_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    format!("{date}T{}", time.replace('-', ":")).parse().ok()
}

/// What a part of the agent found out that a person should know, as in `findings` of `goscope analyze`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, in words joined by hyphens: `bypass`.
    pub id: &'static str,
    pub severity: Severity,
    /// One sentence.
    pub claim: String,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
    /// What to do, one sentence.
    pub next: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be done now.
    Error,
    /// To be done.
    Warning,
    /// To be known.
    Info,
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a string cannot fail");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_reads_back_and_sorts_by_time() {
        let time: Timestamp = "2026-11-23T08:57:04.5Z".parse().unwrap();
        let id = ArtifactId::new(time, "run:0");
        assert!(id.as_str().starts_with("2026-11-23T08-57-04Z-"), "{id}");
        assert_eq!(ArtifactId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(id.tag(), ArtifactId::tag_of("run:0"));
        assert_eq!(id.time(), Some("2026-11-23T08:57:04Z".parse().unwrap()));
        let later = ArtifactId::new("2026-11-23T08:57:05Z".parse().unwrap(), "run:0");
        assert!(later > id);
        assert_eq!(id.at("2026-11-23T08:57:05.9Z".parse().unwrap()), later);
    }

    #[test]
    fn a_foreign_folder_is_not_an_artifact() {
        for name in [
            "",
            "lost+found",
            "2026-11-23T08-57-04Z",
            "2026-11-23T08-57-04Z-XYZ",
            "2026-13-23T08-57-04Z-0123456789",
            ".staging",
        ] {
            assert_eq!(ArtifactId::parse(name), None, "{name}");
        }
    }
}
