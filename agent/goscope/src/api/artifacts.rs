//! `/api/v1/artifacts`: what is stored, its bytes, and the two things that change it: pin and delete.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, put};
use axum::{Extension, Router};
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde::Serialize;

use super::content::FileBody;
use super::problem::Problem;
use super::query::Query;
use super::range::{Part, part};
use super::reading::Reading;
use super::{Caller, answer};
use crate::gate::refuse::{Code, Refusal};
use crate::model::ArtifactId;
use crate::pod::Pod;
use crate::store::catalogue::{Artifact, Key, PAGE_MAX, Wanted, is_name};
use crate::store::depot::Depot;
use crate::store::meta::FileMeta;
use crate::store::{Deletion, INCIDENTS, Store, StoreError};

/// Items of a page without `limit`.
pub(super) const PAGE_DEFAULT: usize = 50;
/// The file of an incident that is its content.
const INCIDENT_TEXT: &str = "stderr.txt";
/// The main file of everything else, the first that is there.
const CONTENT: [&str; 2] = ["content.gz", "content"];

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub reading: Reading,
    /// Where the store is found that may change something; `None` in the archive, which changes nothing.
    pub depot: Option<Depot>,
}

/// The routes of this file.
pub fn router(artifacts: Artifacts) -> Router {
    Router::new()
        .route("/api/v1/artifacts", get(list))
        .route("/api/v1/artifacts/{id}", get(one).delete(delete))
        .route("/api/v1/artifacts/{id}/content", get(content))
        .route("/api/v1/artifacts/{id}/pin", put(pin).delete(unpin))
        .with_state(artifacts)
}

/// One artifact, as it is told.
#[derive(Serialize)]
pub(super) struct Item<'a> {
    id: &'a str,
    kind: &'a str,
    created: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    bytes: u64,
    pinned: bool,
    requested_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<u8>,
    files: &'a [FileMeta],
}

impl<'a> From<&'a Artifact> for Item<'a> {
    fn from(artifact: &'a Artifact) -> Self {
        let Artifact { key, meta } = artifact;
        Self {
            id: key.id.as_str(),
            kind: &key.kind,
            created: &meta.created,
            host: &key.host,
            pod: meta.pod.as_ref(),
            run: meta.run.as_deref(),
            bytes: meta.bytes,
            pinned: meta.pinned,
            requested_by: &meta.requested_by,
            reason: meta.reason.as_deref(),
            incident: meta.incident.as_deref(),
            seconds: meta.seconds,
            debug: meta.debug,
            files: &meta.files,
        }
    }
}

#[derive(Serialize)]
struct List<'a> {
    items: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn list(State(artifacts): State<Artifacts>, uri: Uri) -> Result<Response, Problem> {
    let known = ["kind", "since", "until", "incident", "host", "limit", "cursor"];
    let query = Query::read(uri.query(), &known)?;
    let now = Timestamp::now();
    let wanted = Wanted {
        kind: query.parsed("kind", "a kind of artifact, such as heap", name)?,
        host: query.parsed("host", "the name of a pod or host", name)?,
        since: query.moment("since", now)?,
        until: query.moment("until", now)?,
        incident: query.parsed("incident", "the id of an incident", ArtifactId::parse)?,
        after: query.parsed("cursor", "the next of an earlier answer", Key::parse)?,
    };
    let limit = query.count("limit", PAGE_MAX)?.unwrap_or(PAGE_DEFAULT);
    let page = artifacts.reading.run(move |volume| volume.list(&wanted, limit)).await?;
    let items = page.items.iter().map(Item::from).collect();
    answer::json(StatusCode::OK, &List { items, next: page.next.map(|key| key.to_string()) })
}

async fn one(State(artifacts): State<Artifacts>, Path(id): Path<String>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let artifact = find(&artifacts.reading, &id, None).await?;
    answer::json(StatusCode::OK, &Item::from(&artifact))
}

async fn content(
    State(artifacts): State<Artifacts>,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["file"])?;
    let artifact = find(&artifacts.reading, &id, None).await?;
    let file = match query.value("file") {
        Some(name) => artifact.meta.files.iter().find(|file| file.name == name),
        None => main_file(&artifact),
    };
    let Some(file) = file.filter(|file| is_name(&file.name)).cloned() else {
        let names: Vec<_> = artifact.meta.files.iter().map(|file| file.name.as_str()).collect();
        return Err(Refusal::new(Code::NotFound, format!("no such file; there are {}", names.join(", "))).into());
    };
    let etag = format!("\"{}\"", file.sha256);
    // A range is for GET only.
    let part = match part(&headers, file.bytes, &etag) {
        Part::Some(_) | Part::NotSatisfiable if method == Method::HEAD => Part::Whole,
        part => part,
    };
    let range = match &part {
        Part::NotSatisfiable => return Err(Problem::range_not_satisfiable(file.bytes)),
        Part::Whole | Part::NotModified => 0..file.bytes,
        Part::Some(range) => range.clone(),
    };
    let value = |text: String| HeaderValue::try_from(text).map_err(|_| damaged());
    let mut given = HeaderMap::new();
    given.insert(ETAG, value(etag)?);
    // It never changes, but whoever lost the right to it must not get it out of a cache.
    given.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    let body = if part == Part::NotModified {
        axum::body::Body::empty()
    } else {
        given.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        given.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&file.name)));
        given.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        let name = download_name(&artifact, &file.name);
        given.insert(CONTENT_DISPOSITION, value(format!("attachment; filename=\"{name}\""))?);
        if part != Part::Whole {
            given.insert(CONTENT_RANGE, value(format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes))?);
        }
        if method == Method::HEAD {
            axum::body::Body::empty()
        } else {
            let opened = artifacts.reading.run(move |volume| volume.open(&artifact, &file.name)).await?;
            let (file, _) = opened.ok_or_else(damaged)?;
            axum::body::Body::new(FileBody::new(artifacts.reading, file, range, Bytes::new()))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = match part {
        Part::NotModified => StatusCode::NOT_MODIFIED,
        Part::Some(_) => StatusCode::PARTIAL_CONTENT,
        Part::Whole | Part::NotSatisfiable => StatusCode::OK,
    };
    *response.headers_mut() = given;
    Ok(response)
}

async fn pin(
    state: State<Artifacts>,
    caller: Extension<Caller>,
    id: Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    change_pin(state, caller, id, uri, true).await
}

async fn unpin(
    state: State<Artifacts>,
    caller: Extension<Caller>,
    id: Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    change_pin(state, caller, id, uri, false).await
}

/// Answers with the item as it is then.
async fn change_pin(
    State(artifacts): State<Artifacts>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
    pinned: bool,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let id = parse(&id)?;
    let changed = id.clone();
    let found = change(&artifacts, move |store| store.pin(&changed, pinned)).await?;
    if !found {
        return Err(absent().into());
    }
    tracing::info!(artifact = %id, pinned, by = caller.name(), "pin changed through the API");
    let artifact = find(&artifacts.reading, id.as_str(), None).await?;
    answer::json(StatusCode::OK, &Item::from(&artifact))
}

async fn delete(
    State(artifacts): State<Artifacts>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let id = parse(&id)?;
    let gone = id.clone();
    match change(&artifacts, move |store| store.delete(&gone)).await? {
        Deletion::Deleted => {
            tracing::info!(artifact = %id, by = caller.name(), "artifact deleted through the API");
            Ok(answer::nothing())
        }
        Deletion::Absent => Err(absent().into()),
        Deletion::Pinned => {
            let sentence =
                format!("the artifact is pinned; take the pin away first: DELETE /api/v1/artifacts/{id}/pin");
            Err(Refusal::new(Code::Pinned, sentence).into())
        }
    }
}

/// Does what changes the store, on a thread that may wait for the disk.
async fn change<T: Send + 'static>(
    artifacts: &Artifacts,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let Some(depot) = artifacts.depot.clone() else {
        return Err(Refusal::new(Code::ReadOnly, "the archive only reads; nothing is changed through it").into());
    };
    if let Err(closed) = depot.store() {
        return Err(Refusal::new(Code::StoreClosed, closed.to_string()).into());
    }
    let done = artifacts.reading.run(move |_| Ok(depot.store().ok().map(|store| depot.note(work(store))))).await?;
    match done {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => {
            tracing::error!(error = crate::telemetry::chain(&error), "artifact cannot be changed");
            let sentence = "the volume could not be written; the agent's log says why";
            Err(Refusal::new(Code::VolumeFailed, sentence).into())
        }
        None => Err(Refusal::new(Code::StoreClosed, "the store is not open").into()),
    }
}

/// The artifact that a path names, of `kind` where one is given.
pub(super) async fn find(reading: &Reading, id: &str, kind: Option<&'static str>) -> Result<Artifact, Problem> {
    let id = parse(id)?;
    let found = reading.run(move |volume| volume.find(&id)).await?;
    let found = found.filter(|artifact| kind.is_none_or(|kind| artifact.key.kind == kind));
    Ok(found.ok_or_else(absent)?)
}

/// Whatever is no identifier names nothing.
fn parse(id: &str) -> Result<ArtifactId, Refusal> {
    ArtifactId::parse(id).ok_or_else(absent)
}

fn absent() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such artifact (any more)")
}

fn damaged() -> Refusal {
    Refusal::new(Code::VolumeFailed, "the artifact's meta.json holds what no artifact of ours has")
}

pub(super) fn name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_owned())
}

fn main_file(artifact: &Artifact) -> Option<&FileMeta> {
    let names: &[&str] = if artifact.key.kind == INCIDENTS { &[INCIDENT_TEXT] } else { &CONTENT };
    names.iter().find_map(|name| artifact.meta.files.iter().find(|file| file.name == *name))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "txt")) => "text/plain; charset=utf-8",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    }
}

/// `shop-7d9f-heap-2026-11-23T08-57-04Z.pb.gz`: whose, what, when. Every part of it is a [name](is_name), so nothing in it has to be quoted.
fn download_name(artifact: &Artifact, file: &str) -> String {
    let Artifact { key, meta } = artifact;
    let time = key.id.as_str().rsplit_once('-').map_or("", |(time, _)| time);
    let kind = if key.kind == INCIDENTS { "incident" } else { &key.kind };
    let stem = format!("{}-{kind}-{time}", key.host);
    let form = match key.kind.as_str() {
        "trace" => "trace",
        _ if meta.debug.is_some_and(|debug| debug > 0) => "txt",
        _ => "pb",
    };
    match file {
        "content.gz" => format!("{stem}.{form}.gz"),
        "content" => format!("{stem}.{form}"),
        other => format!("{stem}-{other}"),
    }
}

#[cfg(test)]
mod tests;
