use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::metrics::readiness::Readiness;
use crate::metrics::recorder::RecorderMetrics;
use crate::notice::Audience;
use crate::spool::{self, ExitRecord};
use crate::store::metrics::StoreMetrics;

fn recorder(dir: &Path, own: Option<&str>) -> Recorder {
    let store = StoreConfig {
        path: dir.join("data"),
        max_bytes: 1 << 30,
        max_age: Duration::from_secs(1 << 40),
        reserve_bytes: 0,
    };
    let settings = Settings {
        spool: dir.join("spool"),
        store: store.clone(),
        host: "pod-1".into(),
        pod: None,
        own_run: own.map(str::to_owned),
        shown_store: "data".into(),
    };
    let depot = Depot::new(StoreMetrics::register(&prometheus::Registry::new()).unwrap());
    let store = depot.open(&store, "pod-1", jiff::Timestamp::now()).unwrap().clone();
    let shared = Shared {
        store,
        depot,
        host: "pod-1".into(),
        pod: None,
        notices: Notices::new(Audience::Quiet, true),
        metrics: RecorderMetrics::register(&prometheus::Registry::new()).unwrap(),
        repeats: Repeats::default(),
        shown_store: "data".into(),
    };
    Recorder {
        settings,
        shared,
        runs: BTreeMap::new(),
        buffer: vec![0; 4096],
        searched: None,
        refused: BTreeSet::new(),
        evicted: Instant::now(),
    }
}

/// A run that has ended by itself, of which nobody is left.
fn ended_run(dir: &Path, name: &str, status: i32) -> PathBuf {
    let folder = dir.join("spool").join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(spool::START), "{}").unwrap();
    fs::write(folder.join(spool::segment_name(0)), "hello\n").unwrap();
    let exit = ExitRecord {
        pid: 7,
        status: Some(status),
        signal: None,
        signal_name: None,
        core_dumped: false,
        forwarded: Vec::new(),
        from_terminal: Vec::new(),
        started_unix_ms: 0,
        ended_unix_ms: 0,
        max_rss_bytes: 0,
        cpu_user_ms: 0,
        cpu_system_ms: 0,
        stderr_bytes: 6,
        unspooled_bytes: 0,
        start_error: None,
        forgotten_bytes: 0,
        clear_error: None,
    };
    fs::write(folder.join(spool::EXIT), serde_json::to_vec(&exit).unwrap()).unwrap();
    folder
}

fn turn(recorder: &mut Recorder) -> Progress {
    recorder.searched = None;
    recorder.turn(&watch::channel(None).0)
}

#[test]
fn a_run_that_fails_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let broken = ended_run(dir.path(), "2026-01-01T00-00-00Z-00000000", 1);
    // A segment that cannot be read.
    fs::remove_file(broken.join(spool::segment_name(0))).unwrap();
    fs::create_dir(broken.join(spool::segment_name(0))).unwrap();
    let other = ended_run(dir.path(), "2026-01-02T00-00-00Z-00000000", 0);
    let own = ended_run(dir.path(), "2026-01-03T00-00-00Z-00000000", 1);
    let launcher = fs::File::open(own.join(spool::START)).unwrap();
    rustix::fs::flock(&launcher, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut recorder = recorder(dir.path(), Some("2026-01-03T00-00-00Z-00000000"));
    for _ in 0..4 {
        turn(&mut recorder);
    }
    assert!(broken.exists() && !other.exists(), "handled and deleted");
    assert!(recorder.awaited_are_done() && own.join(spool::REPORT).exists());
    assert_eq!(recorder.runs.len(), 2);
    fs::remove_dir_all(&broken).unwrap();
    for open in recorder.runs.values_mut() {
        open.failed = None;
    }
    turn(&mut recorder);
    assert_eq!(recorder.runs.len(), 1, "a run whose folder was deleted is let go");
}

#[test]
fn a_launcher_whose_agent_is_down_gets_its_report_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = ended_run(dir.path(), "2026-01-03T00-00-00Z-00000000", 1);
    let launcher = fs::File::open(theirs.join(spool::START)).unwrap();
    rustix::fs::flock(&launcher, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut recorder = recorder(dir.path(), Some("2026-01-04T00-00-00Z-00000000"));
    turn(&mut recorder);
    turn(&mut recorder);
    assert!(theirs.join(spool::REPORT).exists());
    drop(launcher);
    turn(&mut recorder);
    assert!(!theirs.exists());
}

#[test]
fn a_stop_in_a_pod_waits_for_the_apps_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let live = ended_run(dir.path(), "2026-01-03T00-00-00Z-00000000", 1);
    let exit = fs::read(live.join(spool::EXIT)).unwrap();
    fs::remove_file(live.join(spool::EXIT)).unwrap();
    let launcher = fs::File::open(live.join(spool::START)).unwrap();
    rustix::fs::flock(&launcher, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut recorder = recorder(dir.path(), None);
    turn(&mut recorder);
    assert_eq!(turn(&mut recorder), Progress::Idle);
    assert!(!recorder.awaited_are_done());
    fs::write(live.join(spool::EXIT), exit).unwrap();
    assert_eq!(turn(&mut recorder), Progress::Done);
    assert!(recorder.awaited_are_done());
}

#[test]
fn a_bell_ends_the_own_runs_pause() {
    let dir = tempfile::tempdir().unwrap();
    let own = ended_run(dir.path(), "2026-01-03T00-00-00Z-00000000", 0);
    fs::create_dir(own.join(spool::REPORT)).unwrap();
    let launcher = fs::File::open(own.join(spool::START)).unwrap();
    rustix::fs::flock(&launcher, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut recorder = recorder(dir.path(), Some("2026-01-03T00-00-00Z-00000000"));
    turn(&mut recorder);
    assert_eq!(turn(&mut recorder), Progress::Idle);
    fs::remove_dir(own.join(spool::REPORT)).unwrap();
    assert_eq!(turn(&mut recorder), Progress::Idle);
    recorder.retry_own();
    assert_eq!(turn(&mut recorder), Progress::Done);
    assert!(own.join(spool::REPORT).exists());
}

#[test]
fn it_stops_when_no_store_is_to_be_had() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "in the way").unwrap();
    let settings = recorder(tempfile::tempdir().unwrap().path(), None).settings;
    let settings =
        Settings { store: StoreConfig { path: dir.path().join("data"), ..settings.store.clone() }, ..settings };
    let metrics = RecorderMetrics::register(&prometheus::Registry::new()).unwrap();
    let (wake, wake_rx) = mpsc::channel();
    wake.send(Wake::Stop).unwrap();
    let readiness = Readiness::default();
    let latch = readiness.latch("recorder");
    let depot = Depot::new(StoreMetrics::register(&prometheus::Registry::new()).unwrap());
    record(settings, &depot, Notices::new(Audience::Quiet, true), metrics, &wake_rx, &watch::channel(None).0, latch);
    assert!(depot.store().is_err() && depot.problem().is_some());
}
