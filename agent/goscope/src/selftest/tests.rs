use axum::Router;
use axum::routing::get;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::*;
use crate::model::Severity;
use crate::serve::{routed, serve};
use tokio_util::task::TaskTracker;

const PAGE: &str = "<tr><td>12</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>";

/// An app's server on `address`, with pprof's page or without, until the token is cancelled.
async fn app(address: &str, is_pprof: bool) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind(address).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route(if is_pprof { "/debug/pprof/" } else { "/shop" }, get(|| async { PAGE }));
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routed(router), stop.clone(), TaskTracker::new()));
    (address, stop)
}

struct Bench {
    registry: Registry,
    test: SelfTest,
    findings: watch::Receiver<Arc<Vec<Finding>>>,
}

impl Bench {
    fn new(own: &[SocketAddr]) -> Self {
        let registry = Registry::new();
        let metrics = SelfTestMetrics::register(&registry).expect("registered");
        let (findings_tx, findings) = watch::channel(Arc::default());
        let target = TargetAddress::Tcp("127.0.0.1:6060".parse().expect("an address"));
        let test = SelfTest::new(own.iter().copied(), target, Duration::from_secs(600), metrics, findings_tx);
        Self { registry, test, findings }
    }

    /// Severities found, and whether the channel told of something new.
    async fn round(&mut self, listening: &[SocketAddr]) -> (Vec<Severity>, bool) {
        self.test.round(&listening.iter().copied().collect()).await;
        let is_new = self.findings.has_changed().expect("open");
        (self.findings.borrow_and_update().iter().map(|finding| finding.severity).collect(), is_new)
    }

    fn check_metrics(&self, loopback: u32, network: u32, left_out: u32) {
        let text = crate::metrics::encode(&self.registry).expect("encoded");
        for line in [
            format!("goscope_bypass_found{{reach=\"loopback\"}} {loopback}\n"),
            format!("goscope_bypass_found{{reach=\"network\"}} {network}\n"),
            format!("goscope_selftest_left_out_ports {left_out}\n"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}

#[tokio::test]
async fn what_is_exposed_is_told_and_told_again_when_it_is_gone() {
    let (loopback, _) = app("127.0.0.1:0", true).await;
    let (wildcard, _) = app("0.0.0.0:0", true).await;
    let (shop, _) = app("0.0.0.0:0", false).await;
    let mut bench = Bench::new(&[]);
    bench.check_metrics(0, 0, 0);
    let all = [loopback, wildcard, shop];
    assert_eq!(bench.round(&all).await, (vec![Severity::Error, Severity::Warning], true));
    bench.check_metrics(1, 1, 0);
    assert_eq!(bench.round(&all).await, (vec![Severity::Error, Severity::Warning], false));
    assert_eq!(bench.round(&[loopback, shop]).await, (vec![Severity::Warning], true));
    bench.check_metrics(1, 0, 0);
    assert_eq!(bench.round(&[]).await, (Vec::new(), true));
    bench.check_metrics(0, 0, 0);
}

#[tokio::test]
async fn our_own_listeners_are_not_asked() {
    let (own, _) = app("127.0.0.1:0", true).await;
    let mut bench = Bench::new(&[own]);
    assert_eq!(bench.round(&[own]).await, (Vec::new(), false));
}

#[tokio::test]
async fn one_that_was_silent_is_asked_again_after_it_was_gone() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = silent.local_addr().expect("an address");
    // Refused, since nobody listens any more although it is listed.
    drop(silent);
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.round(&[address]).await, (Vec::new(), false));
    let (same, _) = app(&address.to_string(), true).await;
    assert_eq!(bench.round(&[same]).await, (Vec::new(), false), "it is left in peace");
    assert_eq!(bench.round(&[]).await, (Vec::new(), false));
    assert_eq!(bench.round(&[same]).await, (vec![Severity::Warning], true));
}

#[tokio::test]
async fn what_is_left_out_is_counted() {
    let ports = (1..=u16::try_from(judge::ASKED_MAX + 2).expect("few")).map(|n| SocketAddr::from(([127, 9, 9, 9], n)));
    let mut bench = Bench::new(&[]);
    bench.round(&ports.collect::<Vec<_>>()).await;
    bench.check_metrics(0, 0, 2);
}

/// As the task does it, on whatever listens on this machine: nothing but our own is looked at here.
#[tokio::test]
async fn a_listener_of_this_process_is_listed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    assert!(listening().expect("listed").contains(&listener.local_addr().expect("an address")));
}
