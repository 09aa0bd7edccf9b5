use std::net::SocketAddr;

use goscope::metrics;
use goscope::metrics::readiness::Readiness;
use goscope::serve::{routed, serve};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{goscope, said};

async fn health(address: SocketAddr, flags: &'static [&'static str]) -> (Option<i32>, String, String) {
    let ask = move || said(goscope(&[&["health", "--address", &address.to_string()], flags].concat()));
    spawn_blocking(ask).await.expect("no panic")
}

fn out(status: i32, stdout: &str) -> (Option<i32>, String, String) {
    (Some(status), stdout.to_owned(), String::new())
}

#[tokio::test]
async fn the_exit_code_is_the_verdict() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let readiness = Readiness::default();
    let latch = readiness.latch("spool");
    let stop = CancellationToken::new();
    let router = metrics::router::router(metrics::registry().expect("a registry"), readiness);
    let serving = tokio::spawn(serve(listener, routed(router), stop.clone(), TaskTracker::new()));

    assert_eq!(health(address, &["--live"]).await, out(0, "live\n"));
    assert_eq!(
        health(address, &["--ready"]).await,
        out(1, &format!("/readyz of {address}: waiting for: spool (status 503)\n"))
    );
    drop(latch);
    assert_eq!(health(address, &[]).await, out(0, "ready\n"));

    stop.cancel();
    serving.await.expect("ended without a panic");
    let (status, stdout, stderr) = health(address, &[]).await;
    assert_eq!((status, stderr.as_str()), (Some(1), ""));
    assert!(stdout.starts_with(&format!("/readyz of {address}: no connection: ")), "{stdout}");
}

#[test]
fn a_call_that_cannot_be_used_is_told_from_an_unwell_agent() {
    for arguments in
        [&["health", "--address", "agent:9464"][..], &["health", "--live", "--ready"], &["health", "extra"]]
    {
        let (status, stdout, stderr) = said(goscope(arguments));
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
}
