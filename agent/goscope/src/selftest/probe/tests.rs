use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

/// The head of the page that Go 1.26 prints.
const PAGE: &str = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<table>\n<thead><td>Count</td><td>Profile</td></thead>\n\
                    <tr><td>12</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>\n<tr><td>7</td><td><a href='heap?debug=1'>heap</a></td></tr>\n";
const VARS: &str = "{\n\"cmdline\": [\"/shop\"],\n\"memstats\": {}\n}\n";

/// What a server does with a connection, once it has read a request.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers by path with status and body.
    Answer(fn(&str) -> (&'static str, String)),
    /// Writes the same bytes for ever.
    Pour(&'static [u8]),
    /// Says nothing and keeps the connection open.
    Silence,
    /// Resets it.
    Reset,
    /// Ends it in order.
    End,
}

/// Serves on `address`; the requests that it gets come through the channel.
async fn server(address: &str, manner: Manner) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind(address).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (request_tx, request_rx) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            let request = String::from_utf8(request).expect("text");
            let path = request.split(' ').nth(1).expect("a path").to_owned();
            request_tx.send(request).ok();
            match manner {
                Manner::Answer(answer) => {
                    let (status, body) = answer(&path);
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: /debug/pprof/\r\n\r\n",
                        body.len()
                    );
                    // A client that has read enough leaves.
                    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
                }
                Manner::Pour(bytes) => while stream.write_all(bytes).await.is_ok() {},
                Manner::Silence => drop(stream.read_buf(&mut Vec::new()).await),
                Manner::Reset => stream.set_zero_linger().expect("the option"),
                Manner::End => {}
            }
        }
    });
    (address, request_rx)
}

async fn check(manner: Manner, expected: Heard) {
    let (address, _requests) = server("127.0.0.1:0", manner).await;
    assert_eq!(ask(address).await, expected);
}

#[tokio::test]
async fn pprof_is_found_on_loopback_and_on_a_wildcard_with_whole_requests() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let answer = |path: &str| match path {
            "/debug/pprof/" => ("200 OK", PAGE.to_owned()),
            _ => ("200 OK", VARS.to_owned()),
        };
        let (address, mut requests) = server(address, Manner::Answer(answer)).await;
        assert_eq!(ask(address).await, Heard::Pprof { profiles: 2, vars: true }, "{address}");
        for path in ["/debug/pprof/", "/debug/vars"] {
            let request = requests.recv().await.expect("asked");
            let (line, headers) = request.split_once("\r\n").expect("lines");
            assert_eq!(line, format!("GET {path} HTTP/1.1"));
            let mut headers: Vec<&str> = headers.trim_end().split("\r\n").collect();
            headers.sort_unstable();
            let agent = format!("user-agent: {USER_AGENT}");
            let host = headers.iter().position(|header| header.starts_with("host: ")).expect("a host");
            headers.remove(host);
            assert_eq!(headers, ["connection: close", agent.as_str()]);
        }
        assert!(requests.try_recv().is_err(), "asked once more");
    }
}

#[tokio::test]
async fn expvar_is_told_from_other_answers() {
    for (status, body, expected) in [
        (StatusCode::OK, VARS, true),
        (StatusCode::OK, "{\"cmdline\": [", true),
        (StatusCode::NOT_FOUND, VARS, false),
        (StatusCode::OK, "<html>\"cmdline\":</html>", false),
        (StatusCode::OK, "{\"memory\": 1}", false),
        (StatusCode::OK, "", false),
    ] {
        assert_eq!(is_expvar(&Answer { status, body: body.into() }), expected, "{status} {body}");
    }
    let page_only = |path: &str| match path {
        "/debug/pprof/" => ("200 OK", PAGE.to_owned()),
        _ => ("404 Not Found", VARS.to_owned()),
    };
    check(Manner::Answer(page_only), Heard::Pprof { profiles: 2, vars: false }).await;
}

#[tokio::test]
async fn http_without_pprof_is_no_bypass() {
    check(Manner::Answer(|_| ("404 Not Found", "404 page not found\n".to_owned())), Heard::Http).await;
    check(Manner::Answer(|_| ("401 Unauthorized", PAGE.to_owned())), Heard::Http).await;
    check(Manner::Answer(|_| ("200 OK", "<html>a shop</html>".to_owned())), Heard::Http).await;
    check(Manner::Answer(|_| ("200 OK", String::new())), Heard::Http).await;
    // As Go answers where it expects TLS.
    let tls = |_: &str| ("400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n".to_owned());
    check(Manner::Answer(tls), Heard::Nothing).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (address, mut requests) = server("127.0.0.1:0", Manner::Answer(|_| ("302 Found", String::new()))).await;
    assert_eq!(ask(address).await, Heard::Http);
    assert!(requests.recv().await.is_some() && requests.try_recv().is_err());
}

#[tokio::test]
async fn a_long_answer_is_read_to_the_bound_only() {
    let behind = |_: &str| ("200 OK", format!("{}{PAGE}", " ".repeat(BODY_BYTES_MAX)));
    check(Manner::Answer(behind), Heard::Http).await;
    let at = |_: &str| ("200 OK", format!("{}{PAGE}", " ".repeat(BODY_BYTES_MAX - PAGE.len())));
    check(Manner::Answer(at), Heard::Pprof { profiles: 2, vars: false }).await;
}

#[tokio::test]
async fn whoever_does_not_speak_http_says_nothing() {
    check(Manner::Pour(b"\x00\xffgarbage"), Heard::Nothing).await;
    check(Manner::Pour(b"HTTP/1.1 200 OK\r\nX: "), Heard::Nothing).await;
    check(Manner::Pour(b"220 mail.example.com ESMTP\r\n"), Heard::Nothing).await;
    check(Manner::Reset, Heard::Nothing).await;
    check(Manner::End, Heard::Nothing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert_eq!(ask(address).await, Heard::Nothing);
}

#[tokio::test]
async fn a_body_without_end_ends_for_us() {
    let (address, _requests) =
        server("127.0.0.1:0", Manner::Pour(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nHTTP/1.1 200 OK\r\n"))
            .await;
    assert_eq!(ask(address).await, Heard::Http);
}

#[tokio::test]
async fn whoever_never_answers_is_left() {
    let (address, mut requests) = server("127.0.0.1:0", Manner::Silence).await;
    assert_eq!(ask(address).await, Heard::Nothing);
    assert!(requests.recv().await.is_some_and(|request| request.starts_with("GET /debug/pprof/ ")));
}
