use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use prometheus::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::book::State;
use super::*;
use crate::config::StoreConfig;
use crate::store::meta::Meta;
use crate::store::metrics::StoreMetrics;
use crate::target::profile::Seconds;

const PROFILE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x1f\x8b\x08\0\r\n0\r\n\r\n";
const BUSY: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nX-Go-Pprof: 1\r\nContent-Length: 61\r\n\r\nCould not enable CPU profiling: cpu profiling already in use\n";
/// How long something may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Who asks for everything here.
const ALICE: Canceller<'_> = Canceller { name: "alice", is_admin: false };
const ADMIN: Canceller<'_> = Canceller { name: "root", is_admin: true };

/// A target that answers one connection after the other with these bytes, and all further ones with the last of them; it keeps those waiting that get
/// nothing. It tells the paths it was asked for and how many wait still.
struct Target {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    paths: Vec<String>,
    open: usize,
}

async fn target(answer: &'static [u8]) -> Target {
    target_of(vec![answer]).await
}

async fn target_of(answers: Vec<&'static [u8]>) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let theirs = Arc::clone(&seen);
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&theirs);
            let answer = answers.get(n).or_else(|| answers.last()).copied().unwrap();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        return;
                    }
                }
                let request = String::from_utf8(request).unwrap();
                {
                    let mut seen = seen.lock().unwrap();
                    seen.paths.push(request.split(' ').nth(1).unwrap().to_owned());
                    seen.open += 1;
                }
                stream.write_all(answer).await.unwrap();
                if answer.is_empty() {
                    // Until the client leaves.
                    drop(stream.read_buf(&mut Vec::new()).await);
                }
                drop(stream);
                seen.lock().unwrap().open -= 1;
            });
        }
    });
    Target { address, seen }
}

impl Target {
    fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().paths.clone()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let waited = async {
            while !condition(&self.seen.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "never came true: {what}");
    }
}

struct World {
    collector: Collector,
    depot: Depot,
    registry: Registry,
    stop: CancellationToken,
    run: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

fn world(target: SocketAddr) -> World {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::new());
    let depot = Depot::new(StoreMetrics::register(&registry).unwrap());
    let metrics = CollectMetrics::register(&registry).unwrap();
    let collector = Collector::new(TargetAddress::Tcp(target), depot.clone(), "pod-1".into(), None, metrics);
    let stop = CancellationToken::new();
    let run = tokio::spawn(collector.clone().run(stop.clone()));
    World { collector, depot, registry, stop, run, dir }
}

impl World {
    fn open_store(&self) {
        let path = self.dir.path().into();
        let config = StoreConfig { path, max_bytes: 1 << 20, max_age: Duration::from_secs(3600), reserve_bytes: 0 };
        self.depot.open(&config, "pod-1", Timestamp::now()).unwrap();
    }

    async fn end_of(&self, id: &ArtifactId) -> End {
        assert!(tokio::time::timeout(PATIENCE, self.collector.ended(id)).await.is_ok(), "it never ended");
        match self.collector.find(id).unwrap().state {
            State::Ended { end, .. } => end,
            state => panic!("{state:?}"),
        }
    }

    async fn capture(&self, request: Request) -> End {
        let id = self.collector.submit(request).unwrap().operation.id;
        self.end_of(&id).await
    }

    fn has_series(&self, line: &str) -> bool {
        crate::metrics::encode(&self.registry).unwrap().lines().any(|found| found == line)
    }

    fn is_empty(&self) -> bool {
        let store = self.depot.store().unwrap();
        let staging = fs::read_dir(store.root().join(".staging")).unwrap().next().unwrap().unwrap().path();
        store.holding().artifacts == 0 && fs::read_dir(staging).unwrap().count() == 0
    }
}

fn request(profile: Profile, seconds: Option<u64>) -> Request {
    let seconds = seconds.map(|n| Seconds { text: n.to_string(), millis: n * 1000 });
    Request {
        route: Route { profile, seconds, debug: None, gc: None },
        trigger: Trigger::Api,
        requested_by: "alice".into(),
        reason: Some("too fat".into()),
    }
}

async fn fails(answer: &'static [u8], sentence: &str) {
    let target = target(answer).await;
    let world = world(target.address);
    world.open_store();
    let end = world.capture(request(Profile::Cpu, Some(1))).await;
    assert!(matches!(&end, End::Failed(error) if error.contains(sentence)), "{end:?}");
    assert!(world.is_empty());
    assert!(world.has_series(r#"goscope_captures_total{kind="profile",result="failed",trigger="api"} 1"#));
    assert!(world.has_series("goscope_captures_running 0"));
}

#[tokio::test]
async fn a_capture_is_an_artifact_that_says_what_it_is() {
    let target = target(PROFILE).await;
    let world = world(target.address);
    world.open_store();
    let taken = world.collector.submit(request(Profile::Heap, Some(2))).unwrap();
    let End::Stored { artifact, bytes } = world.end_of(&taken.operation.id).await else { panic!("not stored") };
    assert_eq!(target.paths(), ["/debug/pprof/heap?seconds=2"]);
    assert_eq!((bytes, artifact.tag()), (4, taken.operation.id.tag()));
    let (kind, folder) = world.depot.store().unwrap().locate(&artifact).unwrap().expect("stored");
    assert_eq!((kind.as_str(), fs::read(folder.join("content.gz")).unwrap()), ("heap", b"\x1f\x8b\x08\0".to_vec()));
    let meta = meta(&folder);
    assert_eq!((meta.kind.as_str(), meta.requested_by.as_str(), meta.trigger), ("heap", "alice", Some(Trigger::Api)));
    assert_eq!((meta.reason.as_deref(), meta.seconds, meta.debug, meta.bytes), (Some("too fat"), Some(2.0), None, 4));
    assert_eq!(meta.id, artifact.as_str());
    assert!(world.has_series(r#"goscope_captures_total{kind="heap",result="stored",trigger="api"} 1"#));
    assert!(world.has_series(r#"goscope_store_bytes{kind="heap"} 4"#));
}

fn meta(folder: &Path) -> Meta {
    serde_json::from_slice(&fs::read(folder.join("meta.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn what_go_says_is_passed_on() {
    fails(
        BUSY,
        "the target answered 500 Internal Server Error: Could not enable CPU profiling: cpu profiling already in use",
    )
    .await;
}

#[tokio::test]
async fn a_profiler_that_is_about_to_be_free_is_asked_for_again() {
    let target = target_of(vec![BUSY, BUSY, PROFILE]).await;
    let world = world(target.address);
    world.open_store();
    let end = world.capture(request(Profile::Cpu, Some(1))).await;
    assert!(matches!(end, End::Stored { .. }), "{end:?}");
    assert_eq!(target.paths(), ["/debug/pprof/profile?seconds=1"; 3]);
}

#[tokio::test]
async fn what_is_not_whole_or_not_a_profile_is_not_stored() {
    fails(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x1f\x8b\x08\0\r\n",
        "ended early, after 4 bytes",
    )
    .await;
    fails(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n\x1f\x8b\x08\0", "ended early, after").await;
    fails(b"HTTP/1.1 200 OK\r\n\r\n\x1f\x8b\x08\0", "does not say where it ends").await;
    fails(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "is not a gzip-compressed profile").await;
    fails(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>hello, there!\n", "is not a gzip-compressed profile")
        .await;
    fails(b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer in HTTP/1.1").await;
}

#[tokio::test]
async fn what_does_not_listen_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = world(address);
    world.open_store();
    let end = world.capture(request(Profile::Heap, None)).await;
    assert!(
        matches!(&end, End::Failed(error) if error.starts_with(&format!("nothing answers at {address}"))),
        "{end:?}"
    );
}

#[tokio::test]
async fn without_a_store_nothing_is_asked_of_the_target() {
    let target = target(PROFILE).await;
    let world = world(target.address);
    let end = world.capture(request(Profile::Heap, None)).await;
    assert_eq!(end, End::Failed("the store is not open yet".into()));
    assert_eq!(target.paths(), [""; 0]);
}

#[tokio::test]
async fn writers_that_a_volume_holds_up_are_bounded() {
    let target = target(PROFILE).await;
    let world = world(target.address);
    world.open_store();
    let writers = Arc::clone(&world.collector.0.place.writers);
    let held = writers.acquire_many(u32::try_from(take::WRITERS_MAX).unwrap()).await.unwrap();
    let end = world.capture(request(Profile::Heap, None)).await;
    assert_eq!(end, End::Failed("the volume still holds up 8 earlier captures".into()));
    assert_eq!(target.paths(), [""; 0]);
    drop(held);
    for _ in 0..=take::WRITERS_MAX {
        let end = world.capture(request(Profile::Heap, None)).await;
        assert!(matches!(end, End::Stored { .. }), "{end:?}");
    }
}

#[tokio::test]
async fn a_cancelled_capture_leaves_the_target_and_makes_room() {
    let target = target(b"").await;
    let world = world(target.address);
    world.open_store();
    let [first, second] = [1, 2].map(|n| world.collector.submit(request(Profile::Cpu, Some(n))).unwrap().operation.id);
    target.until("the first is asked for", |seen| seen.paths.len() == 1).await;
    assert!(world.has_series("goscope_captures_running 1") && world.has_series("goscope_captures_queued 1"));
    assert!(world.collector.submit(request(Profile::Cpu, Some(1))).unwrap().joined);
    let ended = world.collector.cancel(&first, ADMIN).await.unwrap();
    assert!(matches!(ended.state, State::Ended { started: Some(_), end: End::Cancelled, .. }), "{ended:?}");
    target.until("the second is asked for, and alone", |seen| seen.paths.len() == 2 && seen.open == 1).await;
    assert_eq!(target.paths(), ["/debug/pprof/profile?seconds=1", "/debug/pprof/profile?seconds=2"]);
    assert!(world.collector.cancel(&second, ALICE).await.unwrap().has_ended());
    target.until("nobody waits", |seen| seen.open == 0).await;
    let nothing = world.collector.cancel(&ArtifactId::new(Timestamp::now(), "x"), ADMIN).await;
    assert!(world.is_empty() && nothing == Err(NotCancelled::Unknown), "{nothing:?}");
    assert!(world.has_series(r#"goscope_captures_total{kind="profile",result="cancelled",trigger="api"} 2"#));
}

#[tokio::test]
async fn a_capture_goes_on_for_those_who_did_not_cancel() {
    let target = target(b"").await;
    let world = world(target.address);
    world.open_store();
    let id = world.collector.submit(request(Profile::Cpu, Some(1))).unwrap().operation.id;
    let mut by_bob = request(Profile::Cpu, Some(1));
    by_bob.requested_by = "bob".into();
    assert!(world.collector.submit(by_bob).unwrap().joined);
    target.until("it is asked for", |seen| seen.paths.len() == 1).await;
    let eve = Canceller { name: "eve", is_admin: false };
    assert_eq!(world.collector.cancel(&id, eve).await, Err(NotCancelled::Foreign));
    for _ in 0..2 {
        let left = world.collector.cancel(&id, ALICE).await.unwrap();
        assert!(!left.has_ended() && left.wanted() == 1, "{left:?}");
    }
    let bob = Canceller { name: "bob", is_admin: false };
    assert!(world.collector.cancel(&id, bob).await.unwrap().has_ended());
    target.until("nobody waits", |seen| seen.open == 0).await;
    assert_eq!(world.end_of(&id).await, End::Cancelled);
}

#[tokio::test]
async fn a_capture_is_cancelled_in_the_middle_of_its_answer() {
    // The rest of the chunk never comes, and the connection stays open.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(listener.local_addr().unwrap());
    world.open_store();
    let id = world.collector.submit(request(Profile::Cpu, Some(1))).unwrap().operation.id;
    let (mut stream, _) = listener.accept().await.unwrap();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x1f\x8b\x08\0\r\nff\r\n")
        .await
        .unwrap();
    let staging = world.depot.store().unwrap().root().join(".staging");
    let is_begun = || {
        let own = fs::read_dir(&staging).unwrap().next().unwrap().unwrap().path();
        fs::read_dir(own).unwrap().next().is_some()
    };
    let begun = async {
        while !is_begun() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("the writer begins");
    world.collector.cancel(&id, ALICE).await.unwrap();
    assert_eq!(world.end_of(&id).await, End::Cancelled);
    assert!(world.is_empty());
    // The request, then the end: the target knows that nobody waits.
    let mut heard = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it is told").ok();
}

#[tokio::test]
async fn a_stop_cuts_what_runs_and_begins_nothing_more() {
    let target = target(b"").await;
    let world = world(target.address);
    world.open_store();
    let ids = [1, 2].map(|n| world.collector.submit(request(Profile::Trace, Some(n))).unwrap().operation.id);
    target.until("the first is asked for", |seen| seen.open == 1).await;
    world.stop.cancel();
    tokio::time::timeout(PATIENCE, world.run).await.expect("it stops").unwrap();
    target.until("nobody waits", |seen| seen.open == 0).await;
    for id in &ids {
        let State::Ended { end: End::Failed(error), .. } = world.collector.find(id).unwrap().state else { panic!() };
        assert!(error.contains("the agent was stopped before it"), "{error}");
    }
    assert_eq!(world.collector.submit(request(Profile::Heap, None)), Err(Refused::Stopping));
    assert_eq!(target.paths().len(), 1);
}

#[test]
fn kinds_are_named_as_the_store_and_the_metrics_name_them() {
    assert_eq!(kind("cpu"), Some(Profile::Cpu));
    for profile in KINDS {
        assert_eq!(kind(profile.name()), Some(profile));
        assert!(crate::store::metrics::KINDS.contains(&profile.name()));
    }
    for name in ["", "index", "cmdline", "symbol", "vars", "incidents", "Heap"] {
        assert_eq!(kind(name), None, "{name}");
    }
}
