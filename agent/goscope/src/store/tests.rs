use std::io::Write as _;
use std::time::Duration;

use super::meta::SCHEMA;
use super::*;

fn config(path: &Path) -> StoreConfig {
    StoreConfig { path: path.into(), max_bytes: 1 << 20, max_age: Duration::from_secs(3600), reserve_bytes: 0 }
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn id(second: u32) -> ArtifactId {
    ArtifactId::new(format!("2026-11-23T11:59:{second:02}Z").parse().unwrap(), &format!("run:{second}"))
}

fn put(store: &mut Store, id: &ArtifactId, text: &[u8]) -> PathBuf {
    let mut staged = store.stage().unwrap();
    staged.file("stderr.txt", |file| file.write_all(text)).unwrap();
    store
        .commit(staged, id, INCIDENTS, |staged| Meta {
            schema: SCHEMA.into(),
            id: id.to_string(),
            kind: INCIDENTS.into(),
            created: now().to_string(),
            host: "pod-1".into(),
            pod: None,
            run: None,
            bytes: staged.bytes(),
            files: staged.files().to_vec(),
            pinned: false,
            requested_by: "crash".into(),
        })
        .unwrap()
}

#[test]
fn an_artifact_is_whole_with_sizes_and_sums_and_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    let folder = put(&mut store, &id(1), b"panic: boom\n");
    assert_eq!(folder, dir.path().join("pod-1/incidents").join(id(1).as_str()));
    assert_eq!(fs::read(folder.join("stderr.txt")).unwrap(), b"panic: boom\n");
    let meta: Meta = serde_json::from_slice(&fs::read(folder.join(META)).unwrap()).unwrap();
    assert_eq!(meta.files[0].bytes, 12);
    // printf 'panic: boom\n' | sha256sum
    assert_eq!(meta.files[0].sha256, "b1df42db35d65a0bc7fdfecd4d705985c028336e5517baaaf5cfcd8b1c143b7f");
    drop(store);
    let store = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    assert_eq!(store.find(INCIDENTS, id(1).tag()).unwrap(), Some(folder));
    assert_eq!(store.bytes_of(INCIDENTS), 12);
}

#[test]
fn what_was_not_committed_is_never_visible_and_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("pod-1/.staging");
    let mut store = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    let mut staged = store.stage().unwrap();
    staged.file("stderr.txt", |file| file.write_all(b"half")).unwrap();
    drop(staged);
    assert_eq!(fs::read_dir(dir.path().join("pod-1/incidents")).unwrap().count(), 0);
    drop(store);
    // A process that was killed leaves its folder; nobody holds it.
    fs::create_dir_all(staging.join("4711-2026-11-23T11-00-00Z/1")).unwrap();
    // One that is alive holds its own.
    let alive = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    let second = StagingFolder::open(&staging, "2026-11-23T12:00:01Z".parse().unwrap()).unwrap();
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 2, "the dead one is gone, the living ones stand");
    drop((alive, second));
}

#[test]
fn foreign_folders_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("pod-1/incidents/lost+found");
    let damaged = dir.path().join("pod-1/incidents").join(id(3).as_str());
    fs::create_dir_all(&foreign).unwrap();
    fs::create_dir_all(&damaged).unwrap();
    let mut tight = config(dir.path());
    tight.max_bytes = 0;
    let mut store = Store::open(&tight, "pod-1", now()).unwrap();
    assert_eq!(store.evict(now(), None), []);
    assert!(foreign.is_dir() && damaged.is_dir());
}

#[test]
fn the_new_artifact_is_there_before_the_old_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut tight = config(dir.path());
    tight.max_bytes = 15;
    let mut store = Store::open(&tight, "pod-1", now()).unwrap();
    let old = put(&mut store, &id(1), b"0123456789");
    let new = put(&mut store, &id(2), b"0123456789");
    assert!(old.is_dir() && new.is_dir());
    let evicted = store.evict(now(), Some(&id(2)));
    assert_eq!(evicted, [Evicted { id: id(1), kind: INCIDENTS.into(), reason: Reason::Bytes }]);
    assert!(!old.exists() && new.is_dir());
}

#[test]
fn an_identifier_that_is_taken_is_refused_and_the_stored_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    let folder = put(&mut store, &id(1), b"first");
    let mut staged = store.stage().unwrap();
    staged.file("stderr.txt", |file| file.write_all(b"second")).unwrap();
    let error = store.commit(staged, &id(1), INCIDENTS, |_| Meta {
        schema: SCHEMA.into(),
        id: id(1).to_string(),
        kind: INCIDENTS.into(),
        created: String::new(),
        host: String::new(),
        pod: None,
        run: None,
        bytes: 0,
        files: Vec::new(),
        pinned: false,
        requested_by: String::new(),
    });
    assert!(matches!(error, Err(StoreError::Commit { .. })));
    assert_eq!(fs::read(folder.join("stderr.txt")).unwrap(), b"first");
}

#[test]
fn what_another_agent_stored_since_the_start_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let early = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    let mut late = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    let folder = put(&mut late, &id(1), b"x");
    assert_eq!(early.find(INCIDENTS, id(1).tag()).unwrap(), Some(folder));
}

#[test]
fn a_volume_that_was_emptied_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
    fs::remove_dir_all(dir.path().join("pod-1")).unwrap();
    assert_eq!(store.find(INCIDENTS, id(1).tag()).unwrap(), None);
    assert!(put(&mut store, &id(1), b"x").is_dir());
}

#[test]
fn agents_that_start_at_the_same_moment_do_not_sweep_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let mut store = Store::open(&config(dir.path()), "pod-1", now()).unwrap();
                    let mut staged = store.stage().unwrap();
                    staged.file("stderr.txt", |file| file.write_all(b"x")).unwrap();
                }
            });
        }
    });
}
