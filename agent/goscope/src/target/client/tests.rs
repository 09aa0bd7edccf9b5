use super::*;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// What a target that says `answer` to whatever it is asked was asked, and what became of it.
async fn ask(answer: &[u8], limit_bytes: usize) -> (String, Result<Bytes, FetchError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let client = Client::new(TargetAddress::Tcp(listener.local_addr().expect("an address")));
    tokio::join!(answer_once(listener, answer), client.fetch("/debug/pprof/", limit_bytes))
}

async fn answer_once(listener: TcpListener, answer: &[u8]) -> String {
    let (mut stream, _) = listener.accept().await.expect("accepted");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.expect("read"), 0, "the request ended early");
    }
    // The client may hang up in the middle of an answer that is not to its liking.
    drop(stream.write_all(answer).await);
    String::from_utf8(request).expect("text")
}

#[tokio::test]
async fn a_question_is_small_and_leaves_no_connection_behind() {
    let (request, answer) = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 16).await;
    assert_eq!(&answer.expect("an answer")[..], b"ok");
    let mut lines = request.lines();
    assert_eq!(lines.next(), Some("GET /debug/pprof/ HTTP/1.1"));
    let mut headers: Vec<&str> =
        lines.filter(|line| !line.is_empty()).map(|line| line.split_once(':').unwrap().0).collect();
    headers.sort_unstable();
    assert_eq!(headers, ["connection", "host", "user-agent"]);
    assert!(request.contains("connection: close\r\n"), "{request}");
}

#[tokio::test]
async fn every_framing_is_read() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
    ] {
        let (_, body) = ask(answer.as_bytes(), 5).await;
        assert_eq!(&body.expect(answer)[..], b"hello", "{answer}");
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (answer, limit_bytes, expected) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", 64, "the target answered 404 Not Found"),
        (
            "HTTP/1.1 301 Moved\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
            64,
            "the target answered 301 Moved Permanently",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsix...", 5, "the target's answer is longer than 5 bytes"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsix...\r\n",
            5,
            "the target's answer is longer than 5 bytes",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsix", 64, "the target's answer is not HTTP or ended early"),
        ("SSH-2.0-OpenSSH_9.2\r\n", 64, "the target's answer is not HTTP or ended early"),
        ("", 64, "the target's answer is not HTTP or ended early"),
    ] {
        let (_, body) = ask(answer.as_bytes(), limit_bytes).await;
        assert_eq!(body.expect_err(answer).to_string(), expected, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_at_the_limit() {
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.resize(8 << 20, b'x');
    let (_, body) = ask(&answer, 256 << 10).await;
    assert!(matches!(body, Err(FetchError::TooLong { limit_bytes: 262_144 })), "{body:?}");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let mut answer = b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec();
    answer.resize(1 << 20, b'x');
    let (_, body) = ask(&answer, 64).await;
    assert!(matches!(body, Err(FetchError::Http { .. })), "{body:?}");
}

#[tokio::test]
async fn a_unix_socket_is_asked_as_localhost() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("debug.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let client = Client::new(TargetAddress::Unix(path));
    let served = async {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut request = vec![0; 1024];
        let length = stream.read(&mut request).await.expect("read");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("written");
        String::from_utf8(request[..length].to_vec()).expect("text")
    };
    let (request, answer) = tokio::join!(served, client.fetch("/debug/pprof/", 64));
    assert!(answer.expect("an answer").is_empty());
    assert!(request.contains("host: localhost\r\n"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_never_answers_is_given_up() {
    // The kernel takes the connection; nobody reads from it.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("debug.sock");
    let _listener = UnixListener::bind(&path).expect("bound");
    let answer = Client::new(TargetAddress::Unix(path)).fetch("/debug/pprof/", 64).await;
    assert!(matches!(answer, Err(FetchError::Timeout)), "{answer:?}");
}

#[tokio::test]
async fn an_absent_target_is_no_failure_of_the_network() {
    // Bound, so that nobody else gets the port, but not listening.
    let closed = TcpSocket::new_v4().expect("a socket");
    closed.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
    let client = Client::new(TargetAddress::Tcp(closed.local_addr().expect("an address")));
    let answer = client.fetch("/debug/pprof/", 64).await;
    assert!(matches!(answer, Err(FetchError::NotListening { .. })), "{answer:?}");
}
