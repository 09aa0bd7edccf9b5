use super::*;
use crate::metrics::readiness::Readiness;
use crate::metrics::router::router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn served() -> (SocketAddr, CancellationToken, TaskTracker) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let router = router(crate::metrics::registry().expect("a registry"), Readiness::default());
    let tasks = TaskTracker::new();
    tasks.spawn(serve(listener, routed(router), stop.clone(), tasks.clone()));
    tasks.close();
    (address, stop, tasks)
}

async fn connected(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("connected")
}

/// All that comes until the other side closes.
async fn heard(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read to the end");
    text
}

#[tokio::test]
async fn one_connection_carries_several_requests() {
    let (address, stop, tasks) = served().await;
    let mut stream = connected(address).await;
    stream
        .write_all(
            b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await
        .expect("written");
    let text = heard(&mut stream).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{text}");
    assert!(text.ends_with("\r\n\r\nready\n"), "{text}");
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_the_port() {
    let (address, stop, tasks) = served().await;
    let mut idle = connected(address).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.expect("an answer");
    stop.cancel();
    assert!(heard(&mut idle).await.ends_with("live\n"));
    tasks.wait().await;
    TcpStream::connect(address).await.expect_err("closed");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_and_an_idle_connection_are_closed() {
    let (address, _stop, _tasks) = served().await;
    let mut slow = connected(address).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nHo").await.expect("written");
    assert!(!heard(&mut slow).await.contains("200 OK"));
    let mut idle = connected(address).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    assert!(heard(&mut idle).await.ends_with("live\n"));
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let (address, _stop, _tasks) = served().await;
    let mut stream = connected(address).await;
    let mut request = b"GET /livez HTTP/1.1\r\nX-Long: ".to_vec();
    request.resize(REQUEST_HEAD_BYTES_MAX + 1, b'x');
    stream.write_all(&request).await.expect("written");
    let mut status = [0; 13];
    stream.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 431 ");
}
