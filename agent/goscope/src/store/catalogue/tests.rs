use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;

use super::*;
use crate::store::META;
use crate::store::meta::SCHEMA;

/// Writes an artifact with one file, as a pod of that name would have.
pub(crate) fn put(root: &Path, host: &str, kind: &str, id: &ArtifactId, incident: Option<&ArtifactId>) -> PathBuf {
    let folder = root.join(host).join(kind).join(id.as_str());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("content"), "0123456789").unwrap();
    let meta = Meta {
        schema: SCHEMA.into(),
        id: id.to_string(),
        kind: kind.into(),
        created: id.time().unwrap().to_string(),
        host: host.into(),
        pod: None,
        run: None,
        bytes: 10,
        files: vec![FileMeta { name: "content".into(), bytes: 10, sha256: "0a".into() }],
        pinned: false,
        requested_by: "crash".into(),
        trigger: None,
        reason: None,
        incident: incident.map(ToString::to_string),
        seconds: None,
        debug: None,
        summary: None,
    };
    fs::write(folder.join(META), serde_json::to_vec(&meta).unwrap()).unwrap();
    folder
}

pub(crate) fn id(minute: u32, origin: &str) -> ArtifactId {
    let (hour, minute) = (minute / 60, minute % 60);
    ArtifactId::new(format!("2026-11-23T{hour:02}:{minute:02}:30Z").parse().unwrap(), origin)
}

fn listed(volume: &Volume, wanted: &Wanted, limit: usize) -> (Vec<String>, Option<Key>) {
    let page = volume.list(wanted, limit).unwrap();
    let shown = |item: &Artifact| format!("{}/{}/{}", item.key.host, item.key.kind, &item.key.id.as_str()[11..16]);
    (page.items.iter().map(shown).collect(), page.next)
}

#[test]
fn newest_first_over_kinds_and_hosts_and_only_what_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let incident = id(3, "a");
    put(root, "pod-1", "incidents", &incident, None);
    put(root, "pod-1", "heap", &id(1, "b"), None);
    put(root, "pod-2", "heap", &id(2, "c"), None);
    put(root, "pod-2", "goroutine", &id(4, "d"), Some(&incident));
    let all = Volume::new(root.into(), None);
    let wanted = Wanted::default;
    let everything =
        ["pod-2/goroutine/00-04", "pod-1/incidents/00-03", "pod-2/heap/00-02", "pod-1/heap/00-01"].map(str::to_owned);
    assert_eq!(listed(&all, &wanted(), 4), (everything.to_vec(), None));
    let own = Volume::new(root.into(), Some("pod-1".into()));
    assert_eq!(listed(&own, &wanted(), 9).0, ["pod-1/incidents/00-03", "pod-1/heap/00-01"]);
    let time = |text: &str| Some(text.parse().unwrap());
    for (wanted, expected) in [
        (Wanted { kind: Some("heap".into()), ..wanted() }, &["pod-2/heap/00-02", "pod-1/heap/00-01"][..]),
        (Wanted { kind: Some("nothing".into()), ..wanted() }, &[]),
        (Wanted { host: Some("pod-2".into()), ..wanted() }, &["pod-2/goroutine/00-04", "pod-2/heap/00-02"]),
        (Wanted { host: Some("pod-3".into()), ..wanted() }, &[]),
        (Wanted { incident: Some(incident.clone()), ..wanted() }, &["pod-2/goroutine/00-04"]),
        (Wanted { since: time("2026-11-23T00:04:30.9Z"), ..wanted() }, &["pod-2/goroutine/00-04"]),
        (Wanted { since: time("2026-11-23T00:04:31Z"), ..wanted() }, &[]),
        (Wanted { until: time("2026-11-23T00:01:30Z"), ..wanted() }, &["pod-1/heap/00-01"]),
        (Wanted { until: time("2026-11-23T00:01:29Z"), ..wanted() }, &[]),
    ] {
        assert_eq!(listed(&all, &wanted, 9).0, expected, "{wanted:?}");
    }
    let foreign = Wanted { host: Some("pod-2".into()), ..wanted() };
    assert_eq!(listed(&own, &foreign, 9).0, [""; 0], "one host's reader shows no other's");
    let by_kind = [("goroutine", 10), ("heap", 20), ("incidents", 10)].map(|(kind, bytes)| (kind.to_owned(), bytes));
    let holding = Holding { artifacts: 4, incidents: 1, bytes: 40, by_kind: by_kind.into() };
    assert_eq!(all.totals().unwrap(), Totals { holding, denied: 0 });
}

#[test]
fn pages_join_without_gap_or_repetition() {
    let dir = tempfile::tempdir().unwrap();
    // More than one batch of names, and several within the same second.
    let count = u32::try_from(NAMES_AT_ONCE).unwrap() + 60;
    for n in 0..count {
        let host = if n % 2 == 0 { "pod-1" } else { "pod-2" };
        put(dir.path(), host, "heap", &id(n / 3, &n.to_string()), None);
    }
    let volume = Volume::new(dir.path().into(), None);
    for limit in [1, 7, PAGE_MAX] {
        let (mut seen, mut last, mut wanted) = (BTreeSet::new(), None, Wanted::default());
        // Pages of one are many: a part is enough.
        for _ in 0..100 {
            let page = volume.list(&wanted, limit).unwrap();
            assert!(page.items.len() <= limit);
            for item in page.items {
                assert!(last.is_none_or(|last| item.key < last), "newest first");
                last = Some(item.key.clone());
                assert!(seen.insert(item.key));
            }
            let Some(next) = page.next else { break };
            // What a client sends back.
            wanted.after = Key::parse(&next.to_string());
            assert_eq!(wanted.after, Some(next));
        }
        assert_eq!(seen.len(), usize::try_from(count).unwrap().min(limit * 100));
    }
}

#[test]
fn a_list_reads_so_much_and_then_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..5 {
        put(dir.path(), "pod-1", "heap", &id(n, "x"), None);
    }
    let volume = Volume::new(dir.path().into(), None);
    let mut seen = 0;
    let next = volume
        .walk(&Wanted::default(), 3, |_| {
            seen += 1;
            true
        })
        .unwrap();
    assert_eq!((seen, next.map(|key| key.id)), (3, Some(id(2, "x"))));
    let next = volume.walk(&Wanted::default(), 5, |_| true).unwrap();
    assert_eq!(next, None, "as much as there is");
}

#[test]
fn what_is_damaged_or_foreign_is_left_alone_and_no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("volume"), dir.path().join("outside"));
    let good = put(&root, "pod-1", "heap", &id(1, "good"), None);
    let heap = root.join("pod-1/heap");
    put(&outside, "pod-9", "heap", &id(9, "outside"), None);
    // Links at each level: host, kind, artifact, meta.json, file.
    symlink(outside.join("pod-9"), root.join("pod-9")).unwrap();
    symlink(outside.join("pod-9/heap"), root.join("pod-1/linked")).unwrap();
    symlink(outside.join("pod-9/heap").join(id(9, "outside").as_str()), heap.join(id(9, "outside").as_str())).unwrap();
    let linked_meta = heap.join(id(2, "meta").as_str());
    fs::create_dir_all(&linked_meta).unwrap();
    symlink(good.join(META), linked_meta.join(META)).unwrap();
    let linked_file = put(&root, "pod-1", "heap", &id(3, "file"), None);
    fs::remove_file(linked_file.join("content")).unwrap();
    symlink(outside.join("pod-9/heap").join(id(9, "outside").as_str()).join("content"), linked_file.join("content"))
        .unwrap();
    // Damaged and foreign ones.
    fs::create_dir_all(heap.join("lost+found")).unwrap();
    fs::create_dir_all(heap.join(id(4, "empty").as_str())).unwrap();
    let torn = put(&root, "pod-1", "heap", &id(5, "torn"), None);
    fs::write(torn.join(META), "{").unwrap();
    let other = put(&root, "pod-1", "heap", &id(6, "other"), None);
    fs::copy(good.join(META), other.join(META)).unwrap();
    let pipe = put(&root, "pod-1", "heap", &id(7, "pipe"), None);
    fs::remove_file(pipe.join(META)).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(pipe.join(META)).status().unwrap().success());
    fs::create_dir_all(root.join(".hidden/heap")).unwrap();
    fs::write(root.join("stray"), "").unwrap();
    fs::create_dir_all(root.join("pod-1/.staging/1/1")).unwrap();
    let short = put(&root, "pod-1", "heap", &id(8, "short"), None);
    fs::write(short.join("content"), "01234").unwrap();

    let volume = Volume::new(root, None);
    let (items, next) = listed(&volume, &Wanted::default(), 99);
    assert_eq!((items, next), (["08", "03", "01"].map(|minute| format!("pod-1/heap/00-{minute}")).to_vec(), None));
    assert!(volume.find(&id(9, "outside")).unwrap().is_none());
    let find = |id: &ArtifactId| volume.find(id).unwrap().unwrap();
    assert!(volume.open(&find(&id(3, "file")), "content").is_err(), "a link");
    assert!(volume.open(&find(&id(8, "short")), "content").is_err(), "shorter than it was");
    let artifact = find(&id(1, "good"));
    for name in ["meta.json", "other", "../content", "/etc/passwd", "", ".", ".."] {
        assert!(volume.open(&artifact, name).unwrap().is_none(), "{name}");
    }
    let (mut file, listed) = volume.open(&artifact, "content").unwrap().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), listed.bytes), ("0123456789", 10));
    // A listed name that is none is not opened either.
    let mut forged = artifact.clone();
    forged.meta.files[0].name = "../../../../outside".into();
    assert!(volume.open(&forged, "../../../../outside").unwrap().is_none());
}

#[test]
fn a_volume_that_is_not_there_is_an_error_and_a_host_without_artifacts_is_not() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Volume::new(dir.path().join("gone"), None).list(&Wanted::default(), 1).is_err());
    let page = Volume::new(dir.path().into(), Some("pod-1".into())).list(&Wanted::default(), 1).unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
}

#[test]
fn cursors_and_names_of_foreign_origin_are_refused() {
    let key = Key { id: id(1, "x"), kind: "heap".into(), host: "shop-7d9f.a_b".into() };
    assert_eq!(Key::parse(&key.to_string()), Some(key));
    let id = id(1, "x");
    for text in [
        "",
        "x",
        &format!("{id}"),
        &format!("{id}~heap"),
        &format!("{id}~heap~"),
        &format!("{id}~..~pod"),
        &format!("{id}~a/b~pod"),
        &format!("{id}~heap~pod~x"),
        "x~heap~pod",
    ] {
        assert_eq!(Key::parse(text), None, "{text}");
    }
    let long = "x".repeat(NAME_BYTES_MAX);
    assert!(is_name(&long) && !is_name(&format!("{long}x")));
    for text in ["", ".", "..", ".staging", "a/b", "a b", "a\0", "lost+found", "é"] {
        assert!(!is_name(text), "{text}");
    }
}
