use std::fs;
use std::path::Path as FilePath;

use super::*;
use crate::api::Api;
use crate::api::tests::{Door, Told, get_from};
use crate::model::ArtifactId;
use crate::store::META;
use crate::store::catalogue::tests::{id, put};
use crate::store::meta::{FileMeta, Meta};
use crate::token::tier::Tier;

struct Here {
    dir: tempfile::TempDir,
    door: Door,
    api: Api,
}

impl Here {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let door = Door::open([Tier::Artifacts].into_iter().collect(), |_| {});
        let reading = Reading::new(Volume::new(dir.path().into(), None));
        let api = Api::new(door.admission.clone(), router(reading));
        Self { dir, door, api }
    }

    async fn get(&self, path: &str) -> Told {
        get_from(&self.api, &self.door, path).await
    }

    fn root(&self) -> &FilePath {
        self.dir.path()
    }
}

/// An incident with the usual files. Without `is_new` it is as goscope wrote it before there were summaries.
fn incident(root: &FilePath, host: &str, id: &ArtifactId, reason: &str, fingerprint: Option<&str>, is_new: bool) {
    let folder = put(root, host, INCIDENTS, id, None);
    let mut document =
        serde_json::json!({"schema": "goscope.incident/v1", "id": id.as_str(), "kind": "panic", "reason": reason});
    if let Some(fingerprint) = fingerprint {
        document["fingerprint"] = fingerprint.into();
    }
    let document = serde_json::to_string_pretty(&document).unwrap();
    let files =
        [("stderr.txt", "panic: boom\n"), ("incident.json", document.as_str()), ("exit.json", r#"{"code": 2}"#)];
    let mut meta: Meta = serde_json::from_slice(&fs::read(folder.join(META)).unwrap()).unwrap();
    meta.files.clear();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
        meta.files.push(FileMeta { name: name.into(), bytes: text.len() as u64, sha256: "0b".into() });
    }
    meta.summary = is_new.then(|| Summary::new("panic", reason, fingerprint.map(str::to_owned)));
    fs::write(folder.join(META), serde_json::to_vec(&meta).unwrap()).unwrap();
}

#[tokio::test]
async fn incidents_are_grouped_by_fingerprint() {
    let here = Here::new();
    let root = here.root();
    incident(root, "pod-1", &id(1, "a"), "boom", Some("v1:boom"), true);
    incident(root, "pod-1", &id(5, "b"), "bang", Some("v1:bang"), true);
    incident(root, "pod-2", &id(2, "c"), "boom", Some("v1:boom"), false);
    incident(root, "pod-2", &id(9, "d"), "boom", Some("v1:boom"), true);
    put(root, "pod-2", "heap", &id(10, "e"), None);
    let told = here.get("/api/v1/incidents").await;
    let expected = serde_json::json!({"items": [
        {
            "fingerprint": "v1:boom", "kind": "panic", "reason": "boom", "count": 3,
            "first_seen": "2026-11-23T00:01:30Z", "last_seen": "2026-11-23T00:09:30Z",
            "hosts": ["pod-2", "pod-1"], "latest": id(9, "d").as_str()
        },
        {
            "fingerprint": "v1:bang", "kind": "panic", "reason": "bang", "count": 1,
            "first_seen": "2026-11-23T00:05:30Z", "last_seen": "2026-11-23T00:05:30Z",
            "hosts": ["pod-1"], "latest": id(5, "b").as_str()
        }
    ]});
    assert_eq!((told.status, told.json()), (200, expected.clone()));

    let first = here.get("/api/v1/incidents?limit=1").await.json();
    assert_eq!((&first["items"][0], first["items"].as_array().map(Vec::len)), (&expected["items"][0], Some(1)));
    let next = first["next"].as_str().unwrap();
    let second = here.get(&format!("/api/v1/incidents?limit=1&cursor={next}")).await.json();
    assert_eq!(second, serde_json::json!({"items": [expected["items"][1]]}));

    for (query, counts) in [
        ("host=pod-1", &[1, 1][..]),
        ("since=2026-11-23T00:05:00Z", &[1, 1]),
        ("until=2026-11-23T00:02:30Z", &[2]),
        ("kind=panic", &[3, 1]),
        ("kind=fatal", &[]),
    ] {
        let told = here.get(&format!("/api/v1/incidents?{query}")).await.json();
        let found: Vec<_> =
            told["items"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).collect();
        assert_eq!(found, counts, "{query}");
    }
    assert_eq!(here.get("/api/v1/incidents?incident=x").await.problem(), (400, "bad_query".into()));
}

#[test]
fn groups_and_their_hosts_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = Wanted { kind: Some(INCIDENTS.to_owned()), ..Wanted::default() };
    let volume = Volume::new(dir.path().into(), None);
    for n in 0..u32::try_from(GROUPS_MAX).unwrap() {
        let (minute, print) = (n % 1440, format!("v1:{n}"));
        incident(dir.path(), &format!("pod-{n}"), &id(minute, &print), "boom", Some(&print), true);
    }
    let (found, partial) = groups(&volume, &wanted, None).unwrap();
    assert_eq!((found.len(), partial), (GROUPS_MAX, false));
    incident(dir.path(), "pod-0", &id(0, "more"), "boom", Some("v1:more"), true);
    let (found, partial) = groups(&volume, &wanted, None).unwrap();
    assert_eq!((found.len(), partial), (GROUPS_MAX, true));

    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(dir.path().into(), None);
    for n in 0..=u32::try_from(HOSTS_MAX).unwrap() {
        incident(dir.path(), &format!("pod-{n}"), &id(n, "x"), "boom", Some("v1:boom"), true);
    }
    let (found, _) = groups(&volume, &wanted, None).unwrap();
    assert_eq!((found[0].count, found[0].hosts.len()), (HOSTS_MAX as u64 + 1, HOSTS_MAX));
}

#[tokio::test]
async fn a_damaged_incident_is_shown_as_far_as_it_can_be_read() {
    let here = Here::new();
    put(here.root(), "pod-1", INCIDENTS, &id(1, "a"), None);
    let told = here.get("/api/v1/incidents").await.json();
    assert_eq!((&told["items"][0]["kind"], &told["items"][0]["count"]), (&"unknown".into(), &1.into()));
    let told = here.get(&format!("/api/v1/incidents/{}", id(1, "a"))).await;
    assert_eq!(told.problem(), (500, "volume_failed".into()));
}

#[tokio::test]
async fn one_incident_with_all_that_belongs_to_it() {
    let here = Here::new();
    let root = here.root();
    let own = id(60, "a");
    incident(root, "pod-1", &own, "boom", Some("v1:boom"), true);
    incident(root, "pod-2", &id(30, "b"), "boom", Some("v1:boom"), false);
    incident(root, "pod-2", &id(31, "c"), "bang", Some("v1:bang"), true);
    put(root, "pod-1", "heap", &id(61, "d"), Some(&own));
    put(root, "pod-1", "heap", &id(62, "e"), Some(&id(30, "b")));
    let told = here.get(&format!("/api/v1/incidents/{own}")).await;
    assert_eq!((told.status, told.header("content-type")), (200, Some("application/json")));
    let body = told.json();
    for (field, expected) in [
        ("schema", serde_json::json!("goscope.incident/v1")),
        ("reason", "boom".into()),
        ("exit", serde_json::json!({"code": 2})),
        ("repeats", 1.into()),
    ] {
        assert_eq!(body[field], expected, "{field}");
    }
    assert_eq!(body["artifact"]["id"], own.as_str());
    assert_eq!(body["files"], body["artifact"]["files"]);
    let related: Vec<_> = body["related"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(related, [id(61, "d").as_str()]);
    // A capture is an artifact, and no incident.
    for none in [id(61, "d").as_str(), id(59, "x").as_str(), "x"] {
        assert_eq!(here.get(&format!("/api/v1/incidents/{none}")).await.problem(), (404, "not_found".into()), "{none}");
    }
    let head = here.door.request("HEAD", &format!("/api/v1/incidents/{own}")).body(axum::body::Body::empty()).unwrap();
    let head = crate::api::tests::ask(&here.api, head).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn the_end_of_an_object_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let long = format!("{{\"a\": \"{}\"\n}}\n", "x".repeat(100));
    for (text, expected) in [
        ("{\"a\":1}", Some(6)),
        ("{\n  \"a\": 1\n}\n", Some(10)),
        (long.as_str(), Some(long.len() - 3)),
        ("{}", None),
        ("{\"a\":1,}", None),
        ("[1]", None),
        ("", None),
        ("}", None),
        ("{\"a\":1", None),
    ] {
        fs::write(&path, text).unwrap();
        let found = open_end(&File::open(&path).unwrap(), text.len() as u64).unwrap();
        assert_eq!(found, expected.map(|length| length as u64), "{text:?}");
    }
}
