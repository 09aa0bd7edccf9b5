//! The gate over real sockets: raw bytes in, what reaches the target, what comes back.

mod gate {
    pub(crate) mod harness;
}

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gate::harness::{Setup, basic, eventually, scripted, status_of};
use goscope::config::TargetAddress;
use goscope::token::tier::Tier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

const HEAP: &str = "GET /debug/pprof/heap HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn what_the_target_receives_is_ours_alone() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: a/b\r\nSet-Cookie: x\r\nX-Go-Pprof: 1\r\nServer: go\r\n\r\nok").await;
    let door = Setup::new(target.address.clone()).open().await;
    let token = door.token.reveal().to_owned();
    let response = door
        .raw(&format!(
            "GET /debug/pprof/heap?gc=1&debug=1 HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: {}\r\nX-Debug-Token: {token}\r\nCookie: a=b\r\n\
             X-Forwarded-For: 1.2.3.4\r\nAccept-Encoding: gzip\r\nConnection: close, x-debug-token\r\nTE: trailers\r\nRange: bytes=0-1\r\n\r\n",
            basic("me", &token)
        ))
        .await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok"), "{response}");
    for (header, there) in [
        ("content-type: a/b", true),
        ("x-go-pprof: 1", true),
        ("x-goscope-code: passed", true),
        ("set-cookie", false),
        ("server", false),
    ] {
        assert_eq!(response.to_lowercase().contains(&format!("\r\n{header}")), there, "{header}: {response}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let TargetAddress::Tcp(address) = &target.address else { panic!("TCP") };
    let received = target.requests().concat();
    assert_eq!(
        received,
        format!(
            "GET /debug/pprof/heap?debug=1&gc=1 HTTP/1.1\r\nhost: {address}\r\nuser-agent: goscope/{version}\r\n\r\n"
        )
    );
    let audit = door.audit_lines(2).await;
    assert!(!audit.concat().contains(&token) && !audit.concat().contains(&door.token.sha256().hex()), "{audit:?}");
    assert!(
        audit[0].contains(r#""stage":"RequestReceived""#) && audit[0].contains(r#""basicUser":["me"]"#),
        "{audit:?}"
    );
    assert!(
        audit[1].contains(r#""requestURI":"/debug/pprof/heap?debug=1&gc=1","user":{"username":"owner""#),
        "{audit:?}"
    );
    assert!(
        audit[1]
            .contains(r#""responseStatus":{"code":200},"code":"passed","profile":"heap","bytes":2,"ended":"complete""#),
        "{audit:?}"
    );
}

#[tokio::test]
async fn refusals_are_complete_answers_and_reach_nobody() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let door = Setup::new(target.address.clone()).tiers([Tier::Basic].into_iter().collect()).open().await;
    let token = door.token.reveal();
    let heap = |more: &str| format!("{HEAP}{more}X-Debug-Token: {token}\r\n\r\n");
    let cases = [
        (format!("{HEAP}\r\n"), 401, "no_credential"),
        (format!("{HEAP}X-Debug-Token: wrong\r\n\r\n"), 401, "bad_credential"),
        (
            format!("{HEAP}Authorization: Bearer {token}\r\nX-Debug-Token: gsc_other\r\n\r\n"),
            401,
            "credentials_disagree",
        ),
        (heap("Origin: http://evil.example\r\n"), 403, "cross_site"),
        (heap("Sec-Fetch-Site: cross-site\r\n"), 403, "cross_site"),
        (heap("Content-Length: 5\r\n") + "hello", 400, "body_not_allowed"),
        (heap("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", 400, "body_not_allowed"),
        (heap("Expect: 100-continue\r\n"), 400, "bad_header"),
        (heap("Upgrade: h2c\r\nConnection: upgrade\r\n"), 400, "bad_header"),
        (heap("").replace("localhost", "evil.example"), 421, "misdirected"),
        (heap("Host: localhost\r\n"), 400, "bad_header"),
        (heap("").replace("HTTP/1.1", "HTTP/1.0"), 400, "bad_header"),
        (heap("").replace("GET", "POST"), 405, "method_not_allowed"),
        (heap("").replace("/debug/pprof/heap", "/debug/pprof/profile"), 403, "tier_missing"),
        (heap("").replace("/debug/pprof/heap", "/debug/pprof/nothing"), 404, "unknown_route"),
        (heap("").replace("/debug/pprof/heap", "/nothing"), 404, "unknown_route"),
        (heap("").replace("/debug/pprof/heap", "/debug/pprof/../pprof/heap"), 400, "bad_target"),
        (heap("").replace("/debug/pprof/heap", "/debug/pprof/%68eap"), 400, "bad_target"),
        (heap("").replace("/debug/pprof/heap", "http://localhost/debug/pprof/heap"), 400, "bad_target"),
        (heap("").replace("/debug/pprof/heap", "/debug/pprof/heap?seconds=1&seconds=1"), 400, "bad_query"),
        (heap("").replace("/debug/pprof/heap", &format!("/debug/pprof/heap?token={token}")), 400, "query_token"),
        (heap("").replace("/debug/pprof/heap", "/debug/pprof/heap?seconds=61"), 400, "over_cap"),
    ];
    for (request, status, code) in &cases {
        let response = door
            .raw(&request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").replace("Connection: upgrade\r\n", ""))
            .await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(status_of(&response), *status, "{request}\n{response}");
        for header in [
            "content-type: text/plain; charset=utf-8",
            "x-go-pprof: 1",
            "x-content-type-options: nosniff",
            &format!("x-goscope-code: {code}"),
        ] {
            assert!(head.contains(header), "{request}\n{response}");
        }
        assert!(
            head.contains("x-goscope-audit-id: ") && head.contains(&format!("content-length: {}", body.len())),
            "{response}"
        );
        assert!(body.starts_with("goscope: ") && body.ends_with('\n'), "{response}");
        assert!(!response.contains(token));
    }
    assert_eq!(target.requests(), Vec::<String>::new());
    let audit = door.audit_lines(cases.len() * 2).await.concat();
    assert!(!audit.contains(token) && !audit.contains("nothing") && !audit.contains("token="), "{audit}");
}

#[tokio::test]
async fn malformed_bytes_never_reach_the_target() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let door = Setup::new(target.address.clone()).open().await;
    let token = format!("X-Debug-Token: {}\r\nConnection: close\r\n", door.token.reveal());
    let smuggled = format!("GET /debug/pprof/cmdline HTTP/1.1\r\nHost: localhost\r\n{token}\r\n");
    let cases = [
        format!(
            "{HEAP}{token}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
            smuggled.len() + 5
        ),
        format!("{HEAP}{token}Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("{HEAP}{token}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("{HEAP}{token}Content-Length: +0\r\n\r\n{smuggled}"),
        format!("{HEAP}{token}Content-Length: 0, 0\r\n\r\n{smuggled}"),
        format!("{HEAP}{token}Transfer-Encoding: xchunked\r\n\r\n{smuggled}"),
        format!("{HEAP}{token}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{HEAP} folded: x\r\n{token}\r\n"),
        format!("{HEAP}X: a\0b\r\n{token}\r\n"),
        format!("GET /debug/pprof/heap\0 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"),
        format!("GET  /debug/pprof/heap HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"),
        format!("GET /debug/pprof/heap HTTP/2.0\r\nHost: localhost\r\n{token}\r\n"),
        format!("GET /debug/pprof/heap x HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"),
        format!("GET localhost:1 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"),
        format!("CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"),
        format!("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"),
        format!("{HEAP}{token}X: {}\r\n\r\n", "a".repeat(100_000)),
        "\r\n\r\n\0\0\0\0\r\n\r\n".to_owned(),
    ];
    for request in cases {
        let response = door.raw(&request).await;
        let status = status_of(&response);
        assert!((400..500).contains(&status), "{request:?}\n{response}");
        assert_eq!(
            response.matches("HTTP/1.1 ").count(),
            1,
            "one answer, then the connection ends: {request:?}\n{response}"
        );
    }
    assert_eq!(target.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn head_and_the_bare_index_are_answered_here() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let door = Setup::new(target.address.clone()).open().await;
    let token = door.token.reveal();
    let ask = |line: &str| {
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Debug-Token: {token}\r\nConnection: close\r\n\r\n")
    };
    let response = door.raw(&ask("HEAD /debug/pprof/profile?seconds=5")).await;
    assert!(
        response.starts_with("HTTP/1.1 200")
            && response.ends_with("\r\n\r\n")
            && response.contains("application/octet-stream"),
        "{response}"
    );
    let response = door.raw(&ask("HEAD /debug/pprof/profile?seconds=500")).await;
    assert!(response.starts_with("HTTP/1.1 400") && response.ends_with("\r\n\r\n"), "{response}");
    let response = door.raw(&ask("GET /debug/pprof")).await;
    assert!(response.starts_with("HTTP/1.1 301") && response.contains("location: /debug/pprof/\r\n"), "{response}");
    assert_eq!(target.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn limits_charge_as_nginx_does_and_say_when_to_come_back() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    // One request an hour and four more: no test machine is slow enough to earn another.
    let door = Setup::new(target.address.clone()).per_source("4/h", 4).open().await;
    let good = format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal());
    let bad = format!("{HEAP}X-Debug-Token: x\r\nConnection: close\r\n\r\n");
    let unknown = good.replace("heap", "nothing");
    let mut codes = Vec::new();
    for request in [&good, &bad, &unknown, &good, &bad, &good, &good, &bad, &unknown] {
        codes.push(status_of(&door.raw(request).await));
    }
    assert_eq!(codes, [200, 401, 404, 200, 401, 200, 429, 429, 404]);
    let refused = door.raw(&good).await;
    let wait: u64 = refused.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    assert!((990..=1000).contains(&wait), "{refused}");
    assert!(
        refused.contains(&format!("goscope: too many requests from this address; try again in {wait} s\n")),
        "{refused}"
    );
    assert_eq!(target.requests().len(), 3);
}

#[tokio::test]
async fn an_identity_that_is_refused_does_not_use_up_its_source() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let door = Setup::new(target.address.clone()).per_source("4/h", 1).per_identity("4/h", 0).open().await;
    let good = format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal());
    let bad = format!("{HEAP}X-Debug-Token: x\r\nConnection: close\r\n\r\n");
    let mut codes = Vec::new();
    for request in [&good, &good, &good, &bad, &bad] {
        codes.push(status_of(&door.raw(request).await));
    }
    assert_eq!(codes, [200, 429, 429, 401, 429]);
}

#[tokio::test]
async fn a_large_answer_streams_in_little_memory() {
    const BYTES: u64 = 200 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = TargetAddress::Tcp(listener.local_addr().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes()).await.unwrap();
        let block = vec![7u8; 1 << 20];
        for _ in 0..BYTES >> 20 {
            stream.write_all(&block).await.unwrap();
            counter.fetch_add(1 << 20, Ordering::Relaxed);
        }
        // Stay open: the end is known by the length.
        drop(stream.read(&mut [0]).await);
    });
    let door = Setup::new(target).open().await;
    let mut client = door.connect().await;
    client.write_all(format!("{HEAP}X-Debug-Token: {}\r\n\r\n", door.token.reveal()).as_bytes()).await.unwrap();
    // Nobody reads yet: what was sent rests in socket buffers and in the gate's few frames.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < 32 << 20, "{before} bytes were taken from the target though the client takes nothing");
    let mut buffer = vec![0; 1 << 20];
    let mut received = 0u64;
    let mut head = Vec::new();
    while received < BYTES {
        let count = client.read(&mut buffer).await.unwrap();
        assert!(count > 0, "ended after {received} bytes");
        if head.is_empty() {
            let end = buffer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            head = buffer[..end].to_vec();
            received += (count - end) as u64;
        } else {
            received += count as u64;
        }
    }
    assert!(String::from_utf8(head).unwrap().contains(&format!("content-length: {BYTES}\r\n")));
    let audit = door.audit_lines(2).await;
    assert!(audit[1].contains(&format!(r#""bytes":{BYTES},"ended":"complete""#)), "{audit:?}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_target_connection_with_it() {
    // While the target is silent before its head, and after its head.
    for head in ["", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Setup::new(TargetAddress::Tcp(listener.local_addr().unwrap())).open().await;
        let mut client = door.connect().await;
        client.write_all(format!("{HEAP}X-Debug-Token: {}\r\n\r\n", door.token.reveal()).as_bytes()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        let mut request = Vec::with_capacity(4096);
        upstream.read_buf(&mut request).await.unwrap();
        upstream.write_all(head.as_bytes()).await.unwrap();
        if !head.is_empty() {
            client.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
        }
        drop(client);
        let end = tokio::time::timeout(Duration::from_secs(10), upstream.read(&mut [0; 16])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "the target must see its connection end: {end:?}");
        let audit = door.audit_lines(2).await;
        assert!(audit[1].contains(r#""ended":"client_gone""#), "{audit:?}");
    }
}

#[tokio::test]
async fn a_cut_answer_is_visibly_cut() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "", "abc"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "", "3\r\nabc\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "zz\r\n", "3\r\nabc\r\n"),
    ];
    for (answer, more, received) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Setup::new(TargetAddress::Tcp(listener.local_addr().unwrap())).open().await;
        let mut client = door.connect().await;
        client.write_all(format!("{HEAP}X-Debug-Token: {}\r\n\r\n", door.token.reveal()).as_bytes()).await.unwrap();
        let (mut upstream, _) = listener.accept().await.unwrap();
        upstream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
        upstream.write_all(answer.as_bytes()).await.unwrap();
        let mut response = Vec::with_capacity(4096);
        while !response.ends_with(received.as_bytes()) {
            assert!(client.read_buf(&mut response).await.unwrap() > 0);
        }
        upstream.write_all(more.as_bytes()).await.unwrap();
        drop(upstream);
        // Neither the promised length nor the last chunk follows: every client sees that something is missing.
        assert_eq!(client.read_to_end(&mut response).await.unwrap_or(0), 0);
        let response = String::from_utf8(response).unwrap();
        assert!(
            response.contains("content-length: 10") || response.contains("transfer-encoding: chunked"),
            "{response}"
        );
        assert!(response.ends_with(received), "{response}");
        let audit = door.audit_lines(2).await;
        assert!(audit[1].contains(r#""ended":"target_cut""#), "{audit:?}");
    }
}

#[tokio::test]
async fn the_targets_own_failures_are_told_apart() {
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let closed = scripted("").await.address.clone();
    let odd = scripted("SSH-2.0-OpenSSH_9.2\r\n\r\n").await.address.clone();
    let moved = scripted("HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n")
        .await
        .address
        .clone();
    let switched = scripted("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    let cases = [
        (TargetAddress::Tcp(gone), 502, "target_not_listening", format!("http.ListenAndServe(\"{gone}\", nil)")),
        (
            TargetAddress::Unix(socket.clone()),
            502,
            "target_not_listening",
            format!("net.Listen(\"unix\", \"{}\")", socket.display()),
        ),
        (closed, 502, "target_bad_answer", "closed the connection before it answered".to_owned()),
        (odd, 502, "target_bad_answer", "does not answer in HTTP/1.1".to_owned()),
        (moved, 502, "target_redirect", "redirect".to_owned()),
        (switched.address.clone(), 502, "target_bad_answer", "change of protocol".to_owned()),
    ];
    for (address, status, code, sentence) in cases {
        let door = Setup::new(address).open().await;
        let response =
            door.raw(&format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal())).await;
        assert_eq!(status_of(&response), status, "{response}");
        assert!(response.contains(&format!("x-goscope-code: {code}")) && response.contains(&sentence), "{response}");
        assert!(!response.contains("evil.example"));
    }
    // Go's own error is the target's answer, and goes through as it is.
    let busy = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\nX-Go-Pprof: 1\r\nContent-Length: 71\r\n\r\n\
                Could not enable CPU profiling: cpu profiling already in use, try again";
    let door = Setup::new(scripted(busy).await.address.clone()).open().await;
    let response =
        door.raw(&format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal())).await;
    assert!(
        response.starts_with("HTTP/1.1 500")
            && response.contains("x-go-pprof: 1")
            && response.ends_with("already in use, try again"),
        "{response}"
    );
}

#[tokio::test]
async fn connections_are_kept_and_a_closed_one_is_replaced() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let door = Setup::new(target.address.clone()).open().await;
    let request = format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal());
    for _ in 0..5 {
        assert_eq!(status_of(&door.raw(&request).await), 200);
    }
    assert_eq!((target.requests().len(), target.connections()), (5, 1));
    target.close_connections();
    eventually("the connection is closed", || target.open_connections() == 0).await;
    assert_eq!(status_of(&door.raw(&request).await), 200);
    assert_eq!(target.connections(), 2);
}

#[tokio::test]
async fn several_requests_on_one_client_connection() {
    let target = scripted("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let door = Setup::new(target.address.clone()).open().await;
    let good = format!("{HEAP}X-Debug-Token: {}\r\n\r\n", door.token.reveal());
    let refused = format!("{HEAP}\r\n");
    let last = good.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let response = door.raw(&format!("{good}{refused}{good}{refused}{last}")).await;
    let codes: Vec<&str> = response.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["200", "401", "200", "401", "200"], "a refusal leaves the connection usable");
}

#[tokio::test]
async fn a_unix_socket_as_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("debug.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::with_capacity(4096);
        stream.read_buf(&mut request).await.unwrap();
        assert!(request.starts_with(b"GET /debug/pprof/heap HTTP/1.1\r\nhost: localhost\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").await.unwrap();
    });
    let door = Setup::new(TargetAddress::Unix(path)).open().await;
    let response =
        door.raw(&format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal())).await;
    assert!(response.ends_with("\r\n\r\nunix"), "{response}");
}

#[tokio::test]
async fn without_readable_token_files_nobody_gets_in() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let door = Setup::new(target.address.clone()).token_file("nonsense: 1").open().await;
    let response =
        door.raw(&format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal())).await;
    assert!(response.contains("x-goscope-code: cannot_decide") && status_of(&response) == 503, "{response}");
    assert_eq!(target.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn metrics_have_closed_labels() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let door = Setup::new(target.address.clone()).open().await;
    let good = format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal());
    door.raw(&good).await;
    door.raw(&good.replace("heap", "whatever/this.is")).await;
    let count = |profile: &str, decision: &str| {
        let families = door.registry.gather();
        let family = families.iter().find(|family| family.name() == "goscope_gate_requests_total").unwrap();
        let labelled = family
            .get_metric()
            .iter()
            .find(|metric| metric.get_label().iter().map(|pair| pair.value()).eq([decision, profile]));
        labelled.map(|metric| metric.get_counter().get_value())
    };
    eventually("both requests are counted", || {
        count("heap", "passed") == Some(1.0) && count("none", "unknown_route") == Some(1.0)
    })
    .await;
}

/// The real thing: a Go program with `net/http/pprof`, and the unmodified `go tool pprof` in front of the gate.
#[tokio::test]
async fn go_tool_pprof_unmodified() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("go.mod", "module app\n\ngo 1.21\n");
    write("main.go", GO_PROGRAM);
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command
            .args(arguments)
            .current_dir(folder.path())
            .env("PPROF_TMPDIR", folder.path())
            .env("GOFLAGS", "-mod=mod");
        command
    };
    match go(&["build", "-o", "app", "."]).output() {
        Err(error) => {
            writeln!(std::io::stderr(), "SKIPPED go_tool_pprof_unmodified: no go command ({error})").unwrap();
            return;
        }
        Ok(built) => assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr)),
    }
    let mut app = Command::new(folder.path().join("app")).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(app.stdout.take().unwrap()), &mut line).unwrap();
    let door = Setup::new(TargetAddress::Tcp(line.trim().parse().unwrap())).open().await;
    let url = |user: &str, path: &str| format!("http://{user}{}/debug/pprof/{path}", door.address);
    let me = format!("me:{}@", door.token.reveal());
    let profiles = [
        "heap",
        "allocs",
        "goroutine",
        "mutex",
        "block",
        "threadcreate",
        "profile?seconds=1",
        "heap?gc=1",
        "goroutine?seconds=1",
    ];
    for profile in profiles {
        let mut command = go(&["tool", "pprof", "-proto", "-output", "out.pb.gz", &url(&me, profile)]);
        let output = run(&mut command).await;
        assert!(output.status.success(), "{profile}: {}", String::from_utf8_lossy(&output.stderr));
        let mut top = go(&["tool", "pprof", "-top", "out.pb.gz"]);
        let output = run(&mut top).await;
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Type: "),
            "{profile}: {output:?}"
        );
    }
    let output = run(&mut go(&["tool", "pprof", "-proto", "-output", "none", &url("", "heap")])).await;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success()
            && printed.contains("401 Unauthorized")
            && printed.contains("goscope: a token is needed;"),
        "{printed}"
    );
    let output = run(&mut go(&["tool", "pprof", "-proto", "-output", "none", &url(&me, "profile?seconds=61")])).await;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(printed.contains("goscope: seconds=61 is over the cap of 60 s (gate.caps.cpuSeconds)"), "{printed}");
    app.kill().unwrap();
    app.wait().unwrap();
}

/// Runs a command without stopping the gate, which lives on the same thread.
async fn run(command: &mut Command) -> std::process::Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (output_tx, output_rx) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || output_tx.send(child.wait_with_output()));
    output_rx.await.unwrap().unwrap()
}

const GO_PROGRAM: &str = r#"package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
)

func spin() {
	for n := 0; ; n++ {
		if n < 0 {
			return
		}
	}
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go spin()
	fmt.Println(l.Addr())
	panic(http.Serve(l, nil))
}
"#;

#[tokio::test]
async fn slow_headers_are_cut_off() {
    tokio::time::pause();
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let door = Setup::new(target.address.clone()).open().await;
    let mut client: TcpStream = door.connect().await;
    client.write_all(b"GET /debug/pprof/heap HTTP/1.1\r\nHost:").await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
}

/// A volume that does not answer must not hold up the one thread that serves: the token file is a pipe that nobody writes to yet.
#[tokio::test]
async fn requests_are_answered_while_a_token_file_is_being_read() {
    let target = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let door = Setup::new(target.address.clone()).token_pipe().open().await;
    let request = format!("{HEAP}X-Debug-Token: {}\r\nConnection: close\r\n\r\n", door.token.reveal());
    let before = door.raw(&request).await;
    assert_eq!(status_of(&before), 503, "{before}");
    assert!(before.contains("x-goscope-code: cannot_decide"), "{before}");
    door.fill_pipe().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while status_of(&door.raw(&request).await) != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the tokens never counted");
    }
}
