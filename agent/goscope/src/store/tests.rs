use std::io::Write as _;
use std::time::Duration;

use super::meta::SCHEMA;
use super::*;

pub(super) fn config(path: &Path) -> StoreConfig {
    StoreConfig { path: path.into(), max_bytes: 1 << 20, max_age: Duration::from_secs(3600), reserve_bytes: 0 }
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn id(second: u32) -> ArtifactId {
    ArtifactId::new(format!("2026-11-23T11:59:{second:02}Z").parse().unwrap(), &format!("run:{second}"))
}

fn put(store: &Store, id: &ArtifactId, text: &[u8]) -> PathBuf {
    let mut staged = store.stage().unwrap();
    staged.file("stderr.txt", |file| file.write_all(text)).unwrap();
    store.commit(staged, id, INCIDENTS, |staged| meta(id, staged)).unwrap()
}

fn meta(id: &ArtifactId, staged: &Staged) -> Meta {
    Meta {
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
        trigger: None,
        reason: None,
        incident: None,
        seconds: None,
        debug: None,
        summary: None,
    }
}

fn open(config: &StoreConfig) -> Store {
    Store::open(config, "pod-1", now(), StoreMetrics::register(&prometheus::Registry::new()).unwrap()).unwrap()
}

#[test]
fn an_artifact_is_whole_with_sizes_and_sums_and_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path()));
    let folder = put(&store, &id(1), b"panic: boom\n");
    assert_eq!(folder, dir.path().join("pod-1/incidents").join(id(1).as_str()));
    assert_eq!(fs::read(folder.join("stderr.txt")).unwrap(), b"panic: boom\n");
    let meta: Meta = serde_json::from_slice(&fs::read(folder.join(META)).unwrap()).unwrap();
    assert_eq!(meta.files[0].bytes, 12);
    // printf 'panic: boom\n' | sha256sum
    assert_eq!(meta.files[0].sha256, "b1df42db35d65a0bc7fdfecd4d705985c028336e5517baaaf5cfcd8b1c143b7f");
    drop(store);
    let store = open(&config(dir.path()));
    assert_eq!(store.find(INCIDENTS, id(1).tag()).unwrap(), Some(folder));
    assert_eq!(
        store.holding(),
        Holding { artifacts: 1, incidents: 1, bytes: 12, by_kind: [(INCIDENTS.to_owned(), 12)].into() }
    );
}

#[test]
fn what_was_not_committed_is_never_visible_and_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("pod-1/.staging");
    let store = open(&config(dir.path()));
    let mut staged = store.stage().unwrap();
    staged.file("stderr.txt", |file| file.write_all(b"half")).unwrap();
    drop(staged);
    assert_eq!(fs::read_dir(dir.path().join("pod-1/incidents")).unwrap().count(), 0);
    drop(store);
    // A process that was killed leaves its folder; nobody holds it.
    fs::create_dir_all(staging.join("4711-2026-11-23T11-00-00Z/1")).unwrap();
    // One that is alive holds its own.
    let alive = open(&config(dir.path()));
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
    let store = open(&tight);
    assert_eq!(store.evict(now(), None), []);
    assert!(foreign.is_dir() && damaged.is_dir());
}

#[test]
fn what_others_put_in_the_place_of_a_meta_json_is_not_opened() {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path()));
    let whole = put(&store, &id(1), b"whole");
    let incidents = store.folder(INCIDENTS);
    drop(store);
    let folder = |second| {
        let folder = incidents.join(id(second).as_str());
        fs::create_dir(&folder).unwrap();
        folder
    };
    mkfifoat(CWD, folder(2).join(META), Mode::RUSR | Mode::WUSR).unwrap();
    // An artifact that is one, but elsewhere: by a file, by its folder, and by that of its kind.
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let there = outside.join(id(4).as_str());
    fs::rename(&whole, &there).unwrap();
    symlink(there.join(META), folder(3).join(META)).unwrap();
    symlink(&there, incidents.join(id(4).as_str())).unwrap();
    symlink(&outside, dir.path().join("pod-1/heap")).unwrap();

    // By a thread, because a FIFO would be waited for without end.
    let (told, heard) = std::sync::mpsc::channel();
    let config = config(dir.path());
    std::thread::spawn(move || {
        let store = open(&config);
        let done: Vec<_> = [2, 3, 4]
            .map(|n| (store.locate(&id(n)).unwrap(), store.pin(&id(n), true).unwrap(), store.delete(&id(n)).unwrap()))
            .into();
        told.send((store.holding().artifacts, done)).unwrap();
    });
    let (artifacts, done) = heard.recv_timeout(Duration::from_secs(20)).expect("the store opens");
    assert_eq!(artifacts, 0);
    assert!(done.iter().all(|done| *done == (None, false, Deletion::Absent)), "{done:?}");
    assert!(there.join(META).is_file() && there.join("stderr.txt").is_file());
}

#[test]
fn the_new_artifact_is_there_before_the_old_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut tight = config(dir.path());
    tight.max_bytes = 15;
    let store = open(&tight);
    let old = put(&store, &id(1), b"0123456789");
    let new = put(&store, &id(2), b"0123456789");
    assert!(old.is_dir() && new.is_dir());
    let evicted = store.evict(now(), Some(&id(2)));
    assert_eq!(evicted, [Evicted { id: id(1), kind: INCIDENTS.into(), reason: Reason::Bytes }]);
    assert!(!old.exists() && new.is_dir());
}

#[test]
fn an_identifier_that_is_taken_is_refused_and_the_stored_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path()));
    let folder = put(&store, &id(1), b"first");
    let mut staged = store.stage().unwrap();
    staged.file("stderr.txt", |file| file.write_all(b"second")).unwrap();
    let error = store.commit(staged, &id(1), INCIDENTS, |staged| meta(&id(1), staged));
    assert!(matches!(error, Err(StoreError::Commit { .. })));
    assert_eq!(fs::read(folder.join("stderr.txt")).unwrap(), b"first");
}

#[test]
fn what_another_agent_stored_since_the_start_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let early = open(&config(dir.path()));
    let late = open(&config(dir.path()));
    let folder = put(&late, &id(1), b"x");
    assert_eq!(early.find(INCIDENTS, id(1).tag()).unwrap(), Some(folder));
}

#[test]
fn a_volume_that_was_emptied_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path()));
    fs::remove_dir_all(dir.path().join("pod-1")).unwrap();
    assert_eq!(store.find(INCIDENTS, id(1).tag()).unwrap(), None);
    assert!(put(&store, &id(1), b"x").is_dir());
}

#[test]
fn agents_that_start_at_the_same_moment_do_not_sweep_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let store = open(&config(dir.path()));
                    let mut staged = store.stage().unwrap();
                    staged.file("stderr.txt", |file| file.write_all(b"x")).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_pin_holds_against_eviction_and_deletion_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tight = StoreConfig { max_bytes: 0, ..config(dir.path()) };
    let store = open(&tight);
    let folder = put(&store, &id(1), b"x");
    let before: Meta = serde_json::from_slice(&fs::read(folder.join(META)).unwrap()).unwrap();
    assert!(store.pin(&id(1), true).unwrap() && store.pin(&id(1), true).unwrap());
    assert_eq!(store.evict(now(), None), []);
    assert_eq!(store.delete(&id(1)).unwrap(), Deletion::Pinned);
    drop(store);
    let store = open(&tight);
    assert_eq!(store.evict(now(), None), []);
    assert!(store.pin(&id(1), false).unwrap());
    let after: Meta = serde_json::from_slice(&fs::read(folder.join(META)).unwrap()).unwrap();
    assert_eq!(after, before, "nothing else has changed");
    assert_eq!(store.delete(&id(1)).unwrap(), Deletion::Deleted);
    assert!(!folder.exists());
    assert_eq!(store.holding(), Holding::default());
    assert_eq!(store.delete(&id(1)).unwrap(), Deletion::Absent);
    assert!(!store.pin(&id(1), true).unwrap());
    let staging = fs::read_dir(dir.path().join("pod-1/.staging")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn an_artifact_is_found_by_its_identifier_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path()));
    let staged = store.stage().unwrap();
    let folder =
        store.commit(staged, &id(2), "heap", |staged| Meta { kind: "heap".into(), ..meta(&id(2), staged) }).unwrap();
    assert_eq!(store.locate(&id(2)).unwrap(), Some(("heap".to_owned(), folder)));
    assert_eq!(store.locate(&id(3)).unwrap(), None);
}

#[test]
fn what_the_store_knows_of_an_artifact_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path()));
    let staged = store.stage().unwrap();
    let hand_made = |staged: &Staged| Meta { trigger: Some(meta::Trigger::Api), ..meta(&id(1), staged) };
    store.commit(staged, &id(1), "heap", hand_made).unwrap();
    put(&store, &id(2), b"xy");
    let known = store.inventory().clone();
    assert!(known[0].hand_made && !known[1].hand_made);
    assert_eq!(scan(store.root()).unwrap(), known);
}

#[test]
fn a_meta_of_another_version_is_read() {
    let old = r#"{"schema":"goscope.artifact/v1","id":"x","kind":"incidents","created":"","host":"","run":null,"bytes":1,"files":[],"pinned":false,"requested_by":"crash"}"#;
    let meta: Meta = serde_json::from_str(old).unwrap();
    assert!(!meta.is_hand_made() && meta.reason.is_none());
    let new = old.replace("\"pinned\"", "\"trigger\":\"dream\",\"colour\":\"red\",\"pinned\"");
    assert_eq!(serde_json::from_str::<Meta>(&new).unwrap().trigger, Some(meta::Trigger::Other));
}

/// Writers, pins, deletions and evictions at the same time: what is left is whole and is what the inventory says.
#[test]
fn many_hands_leave_the_store_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&StoreConfig { max_bytes: 20, ..config(dir.path()) });
    std::thread::scope(|scope| {
        for writer in 0..4_u32 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..12 {
                    let id = id(writer * 12 + n);
                    put(store, &id, b"0123456789");
                    store.pin(&id, n % 3 == 0).unwrap();
                    store.evict(now(), Some(&id));
                    store.pin(&id, false).unwrap();
                    if n % 2 == 0 {
                        store.delete(&id).unwrap();
                    }
                }
            });
        }
    });
    store.evict(now(), None);
    let mut known = store.inventory().clone();
    known.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(scan(store.root()).unwrap(), known);
    assert!(known.len() <= 2 && known.iter().all(|entry| !entry.pinned), "{known:?}");
}
