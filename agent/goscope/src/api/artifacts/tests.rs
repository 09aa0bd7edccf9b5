use std::fs;

use axum::body::Body as AxumBody;
use tempfile::TempDir;

use super::*;
use crate::api::Api;
use crate::api::tests::{Door, Told, ask, get_from};
use crate::config::StoreConfig;
use crate::store::catalogue::Volume;
use crate::store::catalogue::tests::{id, put};
use crate::store::metrics::StoreMetrics;
use crate::token::tier::{Tier, TierSet};

/// An API over a volume of its own.
struct Here {
    dir: TempDir,
    door: Door,
    api: Api,
}

impl Here {
    /// As the archive has it.
    fn archive(tiers: TierSet) -> Self {
        Self::new(tiers, |_| None)
    }

    fn new(tiers: TierSet, depot: impl FnOnce(&TempDir) -> Option<Depot>) -> Self {
        let (dir, door) = (tempfile::tempdir().unwrap(), Door::open(tiers, |_| {}));
        let depot = depot(&dir);
        let reading = Reading::new(Volume::new(dir.path().into(), None));
        let api = Api::new(door.admission.clone(), router(Artifacts { reading, depot }));
        Self { dir, door, api }
    }

    /// As `pod-1`'s agent has it.
    fn agent(tiers: TierSet) -> Self {
        Self::new(tiers, |dir| {
            let depot = Depot::new(StoreMetrics::register(&prometheus::Registry::new()).unwrap());
            let age = std::time::Duration::from_secs(1 << 40);
            let config = StoreConfig { path: dir.path().into(), max_bytes: 1 << 20, max_age: age, reserve_bytes: 0 };
            depot.open(&config, "pod-1", Timestamp::now()).unwrap();
            Some(depot)
        })
    }

    async fn get(&self, path: &str) -> Told {
        get_from(&self.api, &self.door, path).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Told {
        let mut request = self.door.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ask(&self.api, request.body(AxumBody::empty()).unwrap()).await
    }
}

fn ids(told: &Told) -> Vec<String> {
    assert_eq!((told.status, told.header("content-type")), (200, Some("application/json")), "{told:?}");
    told.json()["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_list_has_pages_and_filters() {
    let here = Here::archive([Tier::Artifacts].into_iter().collect());
    let root = here.dir.path();
    for minute in 0..5 {
        put(root, "pod-1", "heap", &id(minute, "x"), None);
    }
    put(root, "pod-2", "goroutine", &id(9, "x"), Some(&id(3, "x")));
    let expect = |minutes: &[u32]| minutes.iter().map(|minute| id(*minute, "x").to_string()).collect::<Vec<_>>();
    let told = here.get("/api/v1/artifacts?limit=4").await;
    assert_eq!(ids(&told), expect(&[9, 4, 3, 2]));
    let next = told.json()["next"].as_str().unwrap().to_owned();
    let told = here.get(&format!("/api/v1/artifacts?limit=4&cursor={next}")).await;
    assert_eq!(ids(&told), expect(&[1, 0]));
    assert!(told.json().get("next").is_none());
    for (query, expected) in [
        ("kind=goroutine", &[9][..]),
        ("host=pod-2", &[9]),
        ("host=pod-3", &[]),
        ("kind=heap&since=2026-11-23T00:03:00Z", &[4, 3]),
        ("kind=heap&until=2026-11-23T00%3A00%3A30Z", &[0]),
    ] {
        assert_eq!(ids(&here.get(&format!("/api/v1/artifacts?{query}")).await), expect(expected), "{query}");
    }
    let told = here.get(&format!("/api/v1/artifacts?incident={}", id(3, "x"))).await;
    assert_eq!(ids(&told), expect(&[9]));
    for query in [
        "limit=0",
        "limit=501",
        "cursor=x",
        "kind=..",
        "host=a/b",
        "incident=x",
        "since=now",
        "order=asc",
        "limit=1&limit=1",
    ] {
        let told = here.get(&format!("/api/v1/artifacts?{query}")).await;
        assert_eq!(told.problem(), (400, "bad_query".into()), "{query}");
    }
}

#[tokio::test]
async fn one_is_told_as_in_the_list() {
    let here = Here::archive([Tier::Artifacts].into_iter().collect());
    put(here.dir.path(), "pod-1", "heap", &id(1, "x"), Some(&id(0, "x")));
    let told = here.get(&format!("/api/v1/artifacts/{}", id(1, "x"))).await;
    let expected = serde_json::json!({
        "id": id(1, "x").as_str(), "kind": "heap", "created": "2026-11-23T00:01:30Z", "host": "pod-1", "bytes": 10, "pinned": false,
        "requested_by": "crash", "incident": id(0, "x").as_str(), "files": [{"name": "content", "bytes": 10, "sha256": "0a"}]
    });
    assert_eq!((told.status, told.json()), (200, expected.clone()));
    assert_eq!(here.get("/api/v1/artifacts").await.json()["items"][0], expected);
    for gone in [id(2, "x").as_str(), "x", "2026-11-23"] {
        let told = here.get(&format!("/api/v1/artifacts/{gone}")).await;
        assert_eq!(told.problem(), (404, "not_found".into()), "{gone}");
        let told = here.get(&format!("/api/v1/artifacts/{gone}/content")).await;
        assert_eq!(told.problem(), (404, "not_found".into()), "{gone}");
    }
}

#[tokio::test]
async fn content_with_ranges_and_conditions() {
    let here = Here::archive([Tier::Artifacts].into_iter().collect());
    put(here.dir.path(), "pod-1", "heap", &id(1, "x"), None);
    let path = format!("/api/v1/artifacts/{}/content", id(1, "x"));
    let whole = here.get(&path).await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    for (name, value) in [
        ("etag", "\"0a\""),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename=\"pod-1-heap-2026-11-23T00-01-30Z.pb\""),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(whole.header(name), Some(value), "{name}");
    }
    let head = here.send("HEAD", &path, &[("range", "bytes=0-1")]).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("10")));

    let part = here.send("GET", &path, &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert_eq!((part.header("content-range"), part.header("content-length")), (Some("bytes 2-4/10"), Some("3")));
    let last = here.send("GET", &path, &[("range", "bytes=-1"), ("if-range", "\"0a\"")]).await;
    assert_eq!((last.status, &last.body[..]), (206, &b"9"[..]));
    let other = here.send("GET", &path, &[("range", "bytes=-1"), ("if-range", "\"0b\"")]).await;
    assert_eq!((other.status, other.body.len()), (200, 10));
    let beyond = here.send("GET", &path, &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.problem(), (416, "range_not_satisfiable".into()));
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));
    let known = here.send("GET", &path, &[("if-none-match", "\"0a\"")]).await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some("\"0a\"")));

    let named = here.get(&format!("{path}?file=content")).await;
    assert_eq!((named.status, named.body.len()), (200, 10));
    for file in ["meta.json", "..", "content.gz", "%2e%2e%2fmeta.json"] {
        assert_eq!(here.get(&format!("{path}?file={file}")).await.problem(), (404, "not_found".into()), "{file}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_it_was_is_not_handed_out() {
    let here = Here::archive([Tier::Artifacts].into_iter().collect());
    let folder = put(here.dir.path(), "pod-1", "heap", &id(1, "x"), None);
    fs::write(folder.join("content"), "012").unwrap();
    let told = here.get(&format!("/api/v1/artifacts/{}/content", id(1, "x"))).await;
    assert_eq!(told.problem(), (500, "volume_failed".into()));
    assert!(!String::from_utf8_lossy(&told.body).contains(here.dir.path().to_str().unwrap()), "no path");
}

#[tokio::test]
async fn pin_and_delete() {
    let here = Here::agent([Tier::Artifacts, Tier::Admin].into_iter().collect());
    let root = here.dir.path();
    put(root, "pod-1", "heap", &id(1, "x"), None);
    put(root, "pod-2", "heap", &id(2, "x"), None);
    let path = format!("/api/v1/artifacts/{}", id(1, "x"));
    let pinned = here.send("PUT", &format!("{path}/pin"), &[("content-length", "0")]).await;
    assert_eq!((pinned.status, &pinned.json()["pinned"]), (200, &serde_json::Value::Bool(true)));
    assert_eq!(here.get(&path).await.json()["pinned"], true);
    assert_eq!(here.send("DELETE", &path, &[]).await.problem(), (409, "pinned".into()));
    let free = here.send("DELETE", &format!("{path}/pin"), &[]).await;
    assert_eq!((free.status, &free.json()["pinned"]), (200, &serde_json::Value::Bool(false)));
    let gone = here.send("DELETE", &path, &[]).await;
    assert_eq!((gone.status, gone.body.len(), gone.header("x-goscope-code")), (204, 0, Some("answered")));
    assert_eq!(here.get(&path).await.problem(), (404, "not_found".into()));
    assert_eq!(here.send("DELETE", &path, &[]).await.problem(), (404, "not_found".into()));
    // Another pod's artifacts are not ours to change.
    for (method, path) in [("DELETE", ""), ("PUT", "/pin")] {
        let told = here.send(method, &format!("/api/v1/artifacts/{}{path}", id(2, "x")), &[]).await;
        assert_eq!(told.problem(), (404, "not_found".into()), "{method}");
    }
}

#[tokio::test]
async fn who_may_not_change_anything() {
    let changes = [("PUT", "/pin"), ("DELETE", "/pin"), ("DELETE", "")];
    let path = format!("/api/v1/artifacts/{}", id(1, "x"));
    let reader = Here::agent([Tier::Artifacts].into_iter().collect());
    let archive = Here::archive(TierSet::ALL);
    let closed =
        Here::new(TierSet::ALL, |_| Some(Depot::new(StoreMetrics::register(&prometheus::Registry::new()).unwrap())));
    for (here, expected) in
        [(&reader, (403, "tier_missing")), (&archive, (403, "read_only")), (&closed, (503, "store_closed"))]
    {
        put(here.dir.path(), "pod-1", "heap", &id(1, "x"), None);
        for (method, more) in changes {
            let (status, code) = here.send(method, &format!("{path}{more}"), &[]).await.problem();
            assert_eq!((status, code.as_str()), expected, "{method} {more}");
        }
        assert_eq!(here.get(&path).await.json()["pinned"], false);
    }
}

#[test]
fn a_download_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (id, volume) = (id(1, "x"), Volume::new(dir.path().into(), None));
    for (kind, debug, file, expected) in [
        ("heap", None, "content.gz", "shop-7d9f-heap-2026-11-23T00-01-30Z.pb.gz"),
        ("heap", Some(0), "content.gz", "shop-7d9f-heap-2026-11-23T00-01-30Z.pb.gz"),
        ("goroutine", Some(2), "content.gz", "shop-7d9f-goroutine-2026-11-23T00-01-30Z.txt.gz"),
        ("trace", None, "content.gz", "shop-7d9f-trace-2026-11-23T00-01-30Z.trace.gz"),
        ("profile", None, "content", "shop-7d9f-profile-2026-11-23T00-01-30Z.pb"),
        ("incidents", None, "stderr.txt", "shop-7d9f-incident-2026-11-23T00-01-30Z-stderr.txt"),
    ] {
        put(dir.path(), "shop-7d9f", kind, &id, None);
        let wanted = Wanted { kind: Some(kind.to_owned()), ..Wanted::default() };
        let mut artifact = volume.list(&wanted, 1).unwrap().items.remove(0);
        artifact.meta.debug = debug;
        assert_eq!(download_name(&artifact, file), expected);
    }
}
