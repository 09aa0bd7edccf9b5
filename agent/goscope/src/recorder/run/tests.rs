use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::StoreConfig;
use crate::metrics::recorder::RecorderMetrics;
use crate::notice::Audience;
use crate::store::metrics::StoreMetrics;

const PANIC: &str = "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:4 +0x1d\n";
const HTTP_PANIC: &str = "2026/11/23 08:57:04 http: panic serving 127.0.0.1:41234: oops\ngoroutine 34 [running]:\nnet/http.(*conn).serve.func1()\n\t/usr/local/go/src/net/http/server.go:1947 +0xbe\npanic({0x6a1b40?, 0x7f1d60?})\n\t/usr/local/go/src/runtime/panic.go:783 +0x132\nmain.handler({0x7f0a, 0xc000}, 0xc0001)\n\t/src/main.go:12 +0x2c\ncreated by net/http.(*Server).Serve in goroutine 1\n\t/usr/local/go/src/net/http/server.go:3454 +0x485\n";

struct World {
    dir: tempfile::TempDir,
    shared: Shared,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path());
        fs::create_dir_all(dir.path().join("run")).unwrap();
        Self { dir, shared }
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn open(&self) -> Run {
        Run::open(&self.run(), Timestamp(0)).unwrap().expect("nobody else holds it")
    }

    fn stderr(&self, text: &str) {
        fs::write(self.run().join(spool::segment_name(0)), text).unwrap();
    }

    fn exit(&self, status: Option<i32>, signal: Option<&str>, bytes: u64) {
        let exit = ExitRecord {
            pid: 7,
            status,
            signal: signal.map(|_| 9),
            signal_name: signal.map(str::to_owned),
            core_dumped: false,
            forwarded: Vec::new(),
            from_terminal: Vec::new(),
            started_unix_ms: 1_000,
            ended_unix_ms: 4_250,
            max_rss_bytes: 45 << 20,
            cpu_user_ms: 0,
            cpu_system_ms: 0,
            stderr_bytes: bytes,
            unspooled_bytes: 0,
            start_error: None,
            forgotten_bytes: 0,
            clear_error: None,
        };
        fs::write(self.run().join(spool::EXIT), serde_json::to_vec(&exit).unwrap()).unwrap();
    }

    /// Steps until nothing more happens.
    fn settle(&mut self, run: &mut Run, buffer: usize, now: i64) -> Progress {
        let mut buffer = vec![0; buffer];
        loop {
            match run.step(&mut buffer, Timestamp(now), &mut self.shared).unwrap() {
                Progress::More => {}
                progress => return progress,
            }
        }
    }

    fn incidents(&self) -> Vec<(Value, String, bool)> {
        let folder = self.dir.path().join("data/pod-1/incidents");
        let mut all: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let json = serde_json::from_slice(&fs::read(path.join("incident.json")).unwrap()).unwrap();
                (json, fs::read_to_string(path.join("stderr.txt")).unwrap(), path.join("exit.json").exists())
            })
            .collect();
        all.sort_by_key(|(json, ..): &(Value, _, _)| json["span"][0].as_u64());
        all
    }
}

fn shared(dir: &Path) -> Shared {
    let config = StoreConfig {
        path: dir.join("data"),
        max_bytes: 1 << 30,
        max_age: Duration::from_secs(1 << 40),
        reserve_bytes: 0,
    };
    let depot = Depot::new(StoreMetrics::register(&prometheus::Registry::new()).unwrap());
    let store = depot.open(&config, "pod-1", jiff::Timestamp::now()).unwrap().clone();
    Shared {
        store,
        depot,
        host: "pod-1".into(),
        pod: None,
        notices: Notices::new(Audience::Quiet, true),
        metrics: RecorderMetrics::register(&prometheus::Registry::new()).unwrap(),
        repeats: Repeats::default(),
        shown_store: PathBuf::from("./goscope-data/data/pod-1"),
    }
}

#[test]
fn a_death_is_one_incident_with_its_exit_record_and_a_report() {
    let mut world = World::new();
    let text = format!("starting\n{PANIC}");
    world.stderr(&text);
    let mut run = world.open();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Idle);
    assert!(world.incidents().is_empty(), "it waits for the exit record");
    world.exit(Some(2), None, text.len() as u64);
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    let incidents = world.incidents();
    assert_eq!(incidents.len(), 1);
    let (json, stderr, exit) = &incidents[0];
    assert_eq!((json["kind"].as_str(), json["reason"].as_str()), (Some("panic"), Some("boom")));
    assert_eq!((stderr.as_str(), *exit), (PANIC, true));
    let report = fs::read_to_string(world.run().join(spool::REPORT)).unwrap();
    assert!(report.starts_with("goscope: panic: boom\n"), "{report}");
    assert!(report.contains("exit status 2 after 3.2 s; peak memory 45MiB"), "{report}");
    assert!(report.contains("goscope analyze ./goscope-data/data/pod-1/incidents/"), "{report}");
    let launcher = File::create(world.run().join(spool::START)).unwrap();
    rustix::fs::flock(&launcher, FlockOperation::NonBlockingLockExclusive).unwrap();
    run.remove_if_done();
    assert!(world.run().exists(), "the launcher has not read the report yet");
    drop(launcher);
    world.open().remove_if_done();
    assert!(!world.run().exists());
}

#[test]
fn a_death_without_a_word_is_an_incident_too() {
    let mut world = World::new();
    world.stderr("starting\nlistening\n");
    world.exit(None, Some("SIGKILL"), 19);
    let mut run = world.open();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    let incidents = world.incidents();
    assert_eq!(incidents.len(), 1);
    assert_eq!(
        (incidents[0].0["kind"].as_str(), incidents[0].0["reason"].as_str()),
        (Some("exit"), Some("killed by SIGKILL"))
    );
    assert_eq!(incidents[0].1, "starting\nlistening\n");
}

#[test]
fn the_pod_stands_in_the_incident_and_in_its_meta() {
    let mut world = World::new();
    let pod = Pod { name: Some("shop-1".into()), namespace: Some("shop".into()), ..Pod::default() };
    world.shared.pod = Some(pod.clone());
    world.stderr("starting\n");
    world.exit(Some(3), None, 9);
    let mut run = world.open();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    let expected = serde_json::json!({"name": "shop-1", "namespace": "shop"});
    assert_eq!(world.incidents()[0].0["pod"], expected);
    let folder = fs::read_dir(world.dir.path().join("data/pod-1/incidents")).unwrap().next().unwrap().unwrap().path();
    let meta: crate::store::meta::Meta = serde_json::from_slice(&fs::read(folder.join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta.pod, Some(pod));
}

#[test]
fn a_run_whose_launcher_was_killed_is_an_incident_once() {
    let mut world = World::new();
    world.stderr("taking orders\n");
    fs::write(world.run().join(spool::START), "{}").unwrap();
    let launcher = File::open(world.run().join(spool::START)).unwrap();
    rustix::fs::flock(&launcher, FlockOperation::LockExclusive).unwrap();
    let mut run = world.open();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Idle, "it lives");
    drop(launcher);
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    drop(run);
    fs::remove_file(world.run().join(spool::CHECKPOINT)).unwrap();
    let mut run = world.open();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done, "read by an agent that knows of nothing");
    let incidents = world.incidents();
    assert_eq!(incidents.len(), 1);
    let (json, stderr, exit) = &incidents[0];
    assert_eq!(
        (json["kind"].as_str(), json["reason"].as_str()),
        (Some("exit"), Some("killed together with its launcher"))
    );
    assert_eq!((stderr.as_str(), *exit), ("taking orders\n", false));
}

#[test]
fn a_quiet_end_leaves_an_empty_report_and_no_incident() {
    let mut world = World::new();
    world.stderr("starting\n");
    world.exit(Some(0), None, 9);
    let mut run = world.open();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    assert!(world.incidents().is_empty());
    assert_eq!(fs::read(world.run().join(spool::REPORT)).unwrap(), b"");
}

#[test]
fn a_death_in_a_living_run_is_stored_after_a_while_without_exit_record() {
    let mut world = World::new();
    world.stderr(&format!("{PANIC}the wrapper goes on\nand on\n"));
    let mut run = world.open();
    let second = 1_000_000_000;
    world.settle(&mut run, 4096, 0);
    assert_eq!(world.settle(&mut run, 4096, 29 * second), Progress::Idle);
    assert!(world.incidents().is_empty());
    world.settle(&mut run, 4096, 31 * second);
    assert!(world.incidents().is_empty(), "ended by the silence, and waits for the exit record");
    world.settle(&mut run, 4096, 62 * second);
    assert_eq!(world.incidents().len(), 1);
    world.exit(Some(2), None, 0);
    world.settle(&mut run, 4096, 63 * second);
    assert_eq!(world.incidents().len(), 1, "the end with status 2 is the same death");
}

#[test]
fn an_alarm_storm_is_thinned() {
    let mut world = World::new();
    world.stderr(&format!("{HTTP_PANIC}listening\n").repeat(50));
    let mut run = world.open();
    world.settle(&mut run, 1 << 20, 0);
    assert_eq!(world.incidents().len() as u64, crate::recorder::repeat::FULL);
}

#[test]
fn a_run_is_read_by_one_agent_only() {
    let world = World::new();
    world.stderr("x\n");
    let run = world.open();
    assert!(Run::open(&world.run(), Timestamp(0)).unwrap().is_none());
    drop(run);
    assert!(Run::open(&world.run(), Timestamp(0)).unwrap().is_some());
}

/// Breaks the store, and mends it when it is dropped.
struct Broken(PathBuf);

impl Broken {
    fn new(world: &World) -> Self {
        let staging = world.dir.path().join("data/pod-1/.staging");
        fs::remove_dir_all(&staging).unwrap();
        fs::write(&staging, "").unwrap();
        Self(staging)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn incidents_counted(registry: &prometheus::Registry) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "goscope_incidents_total").unwrap();
    family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
}

#[test]
fn a_store_that_fails_for_a_while_loses_nothing_and_counts_nothing_twice() {
    let mut world = World::new();
    let registry = prometheus::Registry::new();
    world.shared.metrics = RecorderMetrics::register(&registry).unwrap();
    let text = format!("{HTTP_PANIC}one\n{HTTP_PANIC}two\n{PANIC}");
    world.stderr(&text);
    let mut run = world.open();
    let mut buffer = vec![0; 1 << 20];
    let broken = Broken::new(&world);
    for _ in 0..20 {
        run.step(&mut buffer, Timestamp(0), &mut world.shared).unwrap_err();
    }
    assert_eq!(Checkpoint::read(&world.run()), Checkpoint::default());
    drop(broken);
    world.settle(&mut run, 4096, 0);
    assert_eq!(world.incidents().len(), 2);
    world.exit(Some(1), None, text.len() as u64);
    let broken = Broken::new(&world);
    run.step(&mut buffer, Timestamp(0), &mut world.shared).unwrap_err();
    drop(broken);
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    assert_eq!(world.incidents().len(), 3);
    assert_eq!(incidents_counted(&registry), 3.0);
}

#[test]
fn a_report_that_cannot_be_written_makes_no_second_incident() {
    let mut world = World::new();
    world.stderr(PANIC);
    // More bytes than the spool has: some are missing.
    world.exit(Some(1), None, PANIC.len() as u64 + 5);
    let mut run = world.open();
    let in_the_way = world.run().join("report.txt");
    fs::create_dir(&in_the_way).unwrap();
    let mut buffer = vec![0; 1 << 20];
    run.step(&mut buffer, Timestamp(0), &mut world.shared).unwrap();
    for _ in 0..3 {
        run.step(&mut buffer, Timestamp(0), &mut world.shared).unwrap_err();
    }
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    assert_eq!(world.incidents().len(), 1);
    assert_eq!(world.shared.metrics.spool_gap_bytes.get(), 5);
    let report = fs::read_to_string(in_the_way).unwrap();
    assert!(report.starts_with("goscope: panic: boom\n"), "{report}");
}

#[test]
fn a_run_that_loses_its_segments_to_a_launcher_while_it_is_read_ends_well() {
    let mut world = World::new();
    let segment = |offset: u64| world.run().join(spool::segment_name(offset));
    let (first, second, third) = (segment(0), segment(5), segment(10));
    for path in [&first, &second, &third] {
        fs::write(path, "line\n").unwrap();
    }
    let mut run = world.open();
    let mut buffer = vec![0; 5];
    assert_eq!(run.step(&mut buffer, Timestamp(0), &mut world.shared).unwrap(), Progress::More);
    fs::remove_file(&first).unwrap();
    fs::remove_file(&second).unwrap();
    world.settle(&mut run, 4096, 0);
    assert_eq!(world.shared.metrics.spool_gap_bytes.get(), 5);
    // Then more is written, and all of it goes before it is read, with an exit record that tells of forgotten runs as well.
    fs::remove_file(&third).unwrap();
    world.exit(Some(1), None, 40);
    let path = world.run().join(spool::EXIT);
    let mut exit: ExitRecord = read_json(&path).unwrap();
    exit.forgotten_bytes = 1000;
    fs::write(&path, serde_json::to_vec(&exit).unwrap()).unwrap();
    assert_eq!(world.settle(&mut run, 4096, 0), Progress::Done);
    assert_eq!(world.shared.metrics.spool_gap_bytes.get(), 5 + 25 + 1000);
    let incidents = world.incidents();
    assert_eq!(incidents.len(), 1);
    let (json, stderr, exit) = &incidents[0];
    assert_eq!((json["kind"].as_str(), json["missing_bytes"].as_u64()), (Some("exit"), Some(40)));
    assert_eq!((json["complete"].as_bool(), stderr.as_str(), *exit), (Some(false), "", true));
}

#[test]
fn an_exit_record_of_an_older_launcher_is_read() {
    let world = World::new();
    world.exit(Some(1), None, 3);
    let path = world.run().join(spool::EXIT);
    let mut older: Value = read_json(&path).unwrap();
    for field in ["forgotten_bytes", "clear_error"] {
        older.as_object_mut().unwrap().remove(field).unwrap();
    }
    fs::write(&path, older.to_string()).unwrap();
    let exit: ExitRecord = read_json(&path).unwrap();
    assert_eq!((exit.stderr_bytes, exit.forgotten_bytes, exit.clear_error), (3, 0, None));
}

#[test]
fn a_checkpoint_stays_before_what_is_not_stored_yet() {
    let mut world = World::new();
    world.stderr(&format!("{HTTP_PANIC}one\n{HTTP_PANIC}two\n"));
    let mut run = world.open();
    let mut buffer = vec![0; 1 << 20];
    // Both are found by one read. The first is stored; then the volume fails, and the agent is killed.
    let now = Timestamp(0);
    let Step::Read(events) = run.stream.step(&mut buffer, now).unwrap() else { panic!("bytes") };
    run.find(events);
    assert_eq!(run.found.len(), 2);
    let second = run.found.pop_back().unwrap();
    let start = second.span.start;
    run.found.push_back(second);
    let first = run.found.pop_front().unwrap();
    run.alarm(&first, "v1:0", now, &mut world.shared).unwrap();
    run.save().unwrap();
    drop(run);
    assert_eq!(Checkpoint::read(&world.run()).offset, start);
    let mut run = world.open();
    world.settle(&mut run, 1 << 20, 0);
    assert_eq!(world.incidents().len(), 2);
}

#[test]
fn a_death_is_not_forgotten_while_the_log_goes_on_without_a_pause() {
    let mut world = World::new();
    let text = format!("{PANIC}{}", "the wrapper goes on\n".repeat(5000));
    world.stderr(&text);
    let mut run = world.open();
    let mut buffer = vec![0; 4096];
    for second in 0..40 {
        let progress = run.step(&mut buffer, Timestamp(second * 4_000_000_000), &mut world.shared).unwrap();
        if run.stream.offset() == text.len() as u64 {
            break;
        }
        assert_eq!(progress, Progress::More);
    }
    assert_eq!(world.incidents().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Kill the agent after any number of steps, as often as you like: every incident is there, whole, once.
    #[test]
    fn killed_at_any_step_everything_is_there_once(kills in prop::collection::vec(0_usize..40, 0..6), buffer in 16_usize..400, exits_early: bool) {
        let mut world = World::new();
        let log = "service says hello\n".repeat(20);
        let text = format!("{log}{HTTP_PANIC}{log}{HTTP_PANIC}{log}{PANIC}");
        world.stderr(&text);
        if exits_early {
            world.exit(Some(2), None, text.len() as u64);
        }
        for steps in kills {
            let mut run = world.open();
            let mut buffer = vec![0; buffer];
            for _ in 0..steps {
                run.step(&mut buffer, Timestamp(0), &mut world.shared).unwrap();
            }
            drop(run);
            // What a process forgets when it is killed; its staging folder goes first, as flock does.
            let path = world.dir.path().to_owned();
            world.shared = shared(&path);
        }
        world.exit(Some(2), None, text.len() as u64);
        let mut run = world.open();
        prop_assert_eq!(world.settle(&mut run, buffer, 0), Progress::Done);
        let incidents = world.incidents();
        let kinds: Vec<&str> = incidents.iter().map(|(json, ..)| json["kind"].as_str().unwrap()).collect();
        prop_assert_eq!(kinds, ["http_panic", "http_panic", "panic"]);
        prop_assert_eq!(&incidents[2].1, PANIC);
        prop_assert!(incidents[2].2, "with its exit record");
        let http = &incidents[0].1;
        prop_assert!(HTTP_PANIC.starts_with(http.as_str()) && http.len() + 2 > HTTP_PANIC.len(), "{}", http);
    }
}
