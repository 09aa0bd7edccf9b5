//! `/api/v1/incidents`: what happened, grouped by fingerprint, and one incident with all that belongs to it.
//!
//! Groups are made anew for each request from the summaries in `meta.json`, newest first, of the newest [`INCIDENTS_READ_MAX`] incidents; an answer that
//! could not take in all says so (`partial`). An incident is its `incident.json`, handed on piece by piece with what is known besides at its end: it may
//! be large.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::answer;
use super::artifacts::{Item, PAGE_DEFAULT, find, name};
use super::content::FileBody;
use super::problem::Problem;
use super::query::Query;
use super::reading::Reading;
use crate::gate::refuse::{Code, Refusal};
use crate::store::INCIDENTS;
use crate::store::catalogue::{Artifact, Key, META_READS_MAX, PAGE_MAX, Volume, Wanted};
use crate::store::meta::{FileMeta, Summary};

/// Incidents that one list looks at.
pub const INCIDENTS_READ_MAX: usize = 10_000;
/// Groups that one list makes. What belongs to none of them is passed over, and the answer says so.
pub const GROUPS_MAX: usize = 1000;
/// Hosts that a group names.
pub const HOSTS_MAX: usize = 100;
/// Captures that belong to an incident were taken at most so long before or after it.
const RELATED_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// Captures that are told with an incident.
const RELATED_MAX: usize = 50;
/// The parsed form of an incident.
const DOCUMENT: &str = "incident.json";
/// How the app ended.
const EXIT: &str = "exit.json";
/// Bytes of an `exit.json`.
const EXIT_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an `incident.json` that are searched for what its `meta.json` does not say.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// The routes of this file.
pub fn router(reading: Reading) -> Router {
    Router::new().route("/api/v1/incidents", get(list)).route("/api/v1/incidents/{id}", get(one)).with_state(reading)
}

/// The incidents of one fingerprint.
#[derive(Debug, Serialize)]
struct Group {
    fingerprint: String,
    kind: String,
    reason: String,
    count: u64,
    first_seen: String,
    last_seen: String,
    /// Newest first, at most [`HOSTS_MAX`].
    hosts: Vec<String>,
    latest: String,
    #[serde(skip)]
    key: Key,
}

#[derive(Serialize)]
struct List<'a> {
    items: &'a [Group],
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// There are older incidents that are not in it: see [`INCIDENTS_READ_MAX`] and [`GROUPS_MAX`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

async fn list(State(reading): State<Reading>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["kind", "since", "until", "host", "limit", "cursor"])?;
    let now = Timestamp::now();
    let wanted = Wanted {
        kind: Some(INCIDENTS.to_owned()),
        host: query.parsed("host", "the name of a pod or host", name)?,
        since: query.moment("since", now)?,
        until: query.moment("until", now)?,
        ..Wanted::default()
    };
    let kind = query.parsed("kind", "a kind of incident, such as panic", name)?;
    let after = query.parsed("cursor", "the next of an earlier answer", Key::parse)?;
    let limit = query.count("limit", PAGE_MAX)?.unwrap_or(PAGE_DEFAULT);
    let (groups, partial) = reading.run(move |volume| groups(volume, &wanted, kind.as_deref())).await?;
    let from = after.map_or(0, |after| groups.partition_point(|group| group.key >= after));
    let rest = groups.get(from..).unwrap_or_default();
    let items = rest.get(..limit).unwrap_or(rest);
    let next = (items.len() < rest.len()).then(|| items.last().map(|group| group.key.to_string())).flatten();
    answer::json(StatusCode::OK, &List { items, next, partial })
}

/// Every group, the one with the latest incident first, and whether not all incidents were looked at.
fn groups(volume: &Volume, wanted: &Wanted, kind: Option<&str>) -> io::Result<(Vec<Group>, bool)> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut passed_over = false;
    let next = volume.walk(wanted, INCIDENTS_READ_MAX, |artifact| {
        let summary = summary(volume, &artifact);
        if kind.is_some_and(|kind| kind != summary.kind) {
            return true;
        }
        let Artifact { key, meta } = artifact;
        if let Some(group) = places.get(&summary.fingerprint).and_then(|place| groups.get_mut(*place)) {
            group.count += 1;
            group.first_seen = meta.created;
            if group.hosts.len() < HOSTS_MAX && !group.hosts.contains(&key.host) {
                group.hosts.push(key.host);
            }
            return true;
        }
        if groups.len() >= GROUPS_MAX {
            passed_over = true;
            return true;
        }
        places.insert(summary.fingerprint.clone(), groups.len());
        groups.push(Group {
            fingerprint: summary.fingerprint,
            kind: summary.kind,
            reason: summary.reason,
            count: 1,
            first_seen: meta.created.clone(),
            last_seen: meta.created,
            hosts: vec![key.host.clone()],
            latest: key.id.to_string(),
            key,
        });
        true
    })?;
    Ok((groups, passed_over || next.is_some()))
}

/// What an incident says in short: from its `meta.json`, or, where an earlier goscope wrote that without it, from its `incident.json`.
fn summary(volume: &Volume, artifact: &Artifact) -> Summary {
    /// The fields of `incident.json` that matter here.
    #[derive(Deserialize)]
    struct Head {
        kind: String,
        reason: String,
        fingerprint: Option<String>,
    }
    if let Some(summary) = &artifact.meta.summary {
        return summary.clone();
    }
    let head = || {
        let (file, _) = volume.open(artifact, DOCUMENT).ok()??;
        serde_json::from_reader::<_, Head>(BufReader::new(file.take(DOCUMENT_BYTES_MAX))).ok()
    };
    let unknown = || Head { kind: "unknown".to_owned(), reason: String::new(), fingerprint: None };
    let Head { kind, reason, fingerprint } = head().unwrap_or_else(unknown);
    Summary::new(&kind, &reason, fingerprint)
}

/// What is told of one incident behind its `incident.json`.
#[derive(Serialize)]
struct Besides<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<serde_json::Value>,
    files: &'a [FileMeta],
    artifact: Item<'a>,
    /// Captures that belong to it.
    related: Vec<Item<'a>>,
    /// Stored incidents of the same fingerprint, this one not counted.
    repeats: u64,
}

async fn one(State(reading): State<Reading>, Path(id): Path<String>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let artifact = find(&reading, &id, Some(INCIDENTS)).await?;
    let (artifact, found) = reading
        .run(move |volume| {
            let found = Found::read(volume, &artifact)?;
            Ok((artifact, found))
        })
        .await?;
    let Some((document, length)) = found.document else {
        let sentence =
            format!("the incident has no readable {DOCUMENT}; its other files can be fetched as artifact {id}");
        return Err(Refusal::new(Code::VolumeFailed, sentence).into());
    };
    let besides = Besides {
        exit: found.exit,
        files: &artifact.meta.files,
        artifact: Item::from(&artifact),
        related: found.related.iter().map(Item::from).collect(),
        repeats: found.repeats,
    };
    let mut tail =
        serde_json::to_vec(&besides).map_err(|_| Refusal::new(Code::Internal, "the answer could not be written"))?;
    // Its fields go on where those of the document ended.
    if let Some(first) = tail.first_mut() {
        *first = b',';
    }
    tail.push(b'\n');
    let body = FileBody::new(reading, document, 0..length, tail.into());
    let mut response = Response::new(axum::body::Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What the volume knows of one incident.
struct Found {
    /// The file, and its length without the closing brace.
    document: Option<(File, u64)>,
    exit: Option<serde_json::Value>,
    related: Vec<Artifact>,
    repeats: u64,
}

impl Found {
    fn read(volume: &Volume, artifact: &Artifact) -> io::Result<Self> {
        let document = match volume.open(artifact, DOCUMENT)? {
            Some((file, listed)) => open_end(&file, listed.bytes)?.map(|length| (file, length)),
            None => None,
        };
        let exit = match volume.open(artifact, EXIT)? {
            Some((file, _)) => serde_json::from_reader(file.take(EXIT_BYTES_MAX)).ok(),
            None => None,
        };
        let id = &artifact.key.id;
        let time = id.time().unwrap_or(Timestamp::UNIX_EPOCH);
        let wanted = Wanted {
            incident: Some(id.clone()),
            since: time.checked_sub(RELATED_WITHIN).ok(),
            until: time.checked_add(RELATED_WITHIN).ok(),
            ..Wanted::default()
        };
        let related = volume.list(&wanted, RELATED_MAX)?.items;
        Ok(Self { document, exit, related, repeats: repeats(volume, artifact)? })
    }
}

/// Among the newest incidents, [`META_READS_MAX`] of them.
fn repeats(volume: &Volume, artifact: &Artifact) -> io::Result<u64> {
    let own = summary(volume, artifact).fingerprint;
    let mut repeats = 0;
    let wanted = Wanted { kind: Some(INCIDENTS.to_owned()), ..Wanted::default() };
    volume.walk(&wanted, META_READS_MAX, |other| {
        repeats += u64::from(other.key != artifact.key && summary(volume, &other).fingerprint == own);
        true
    })?;
    Ok(repeats)
}

/// How long a file is without the closing brace of the object in it; `None` for a file that does not end with one after a field.
fn open_end(file: &File, bytes: u64) -> io::Result<Option<u64>> {
    let start = bytes.saturating_sub(64);
    let mut end = vec![0; usize::try_from(bytes - start).unwrap_or_default()];
    file.read_exact_at(&mut end, start)?;
    let Some(open) = end.trim_ascii_end().strip_suffix(b"}").map(<[u8]>::trim_ascii_end) else { return Ok(None) };
    let has_field = open.last().is_some_and(|last| !b"{,".contains(last));
    Ok(has_field.then_some(start + open.len() as u64))
}

#[cfg(test)]
mod tests;
