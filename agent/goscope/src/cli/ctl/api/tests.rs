use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::link::parse_url;
use super::*;
use crate::serve::{routed, serve};

/// A server of `router` as the agent serves, and a client of it.
pub(in crate::cli::ctl) async fn client(router: Router) -> (Api, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, routed(router), stop.clone(), TaskTracker::new()));
    let link = Link::Address(parse_url(&format!("http://{address}")).expect("a URL"));
    (Api::new(link, &token()), stop)
}

fn token() -> Token {
    Token::generate().expect("a token")
}

#[tokio::test]
async fn a_document_is_asked_for_with_the_token() {
    let echo = any(async |headers: HeaderMap, body: String| {
        let text =
            |name: http::header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        json!({"authorization": text(AUTHORIZATION), "host": text(HOST), "agent": text(USER_AGENT), "body": body})
            .to_string()
            .into_response()
    });
    let (mut api, _stop) = client(Router::new().route("/echo", echo)).await;
    let answered: Value = api.get("/echo").await.expect("an answer");
    assert_eq!(Some(answered["authorization"].as_str().expect("a header")), api.authorization.to_str().ok());
    assert_eq!(answered["host"].as_str(), Some(api.link.host().as_str()));
    assert!(answered["agent"].as_str().is_some_and(|agent| agent.starts_with("goscope-ctl/")), "{answered}");
    let answered: Value = api.post("/echo", &json!({"kind": "heap"})).await.expect("an answer");
    assert_eq!(answered["body"], "{\"kind\":\"heap\"}");
    api.delete("/echo").await.expect("an answer");
}

#[tokio::test]
async fn a_limit_is_waited_for_and_a_long_one_told() {
    let asked = Arc::new(AtomicUsize::new(0));
    let limited = get(async |State(asked): State<Arc<AtomicUsize>>| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "0")], "goscope: too fast\n").into_response(),
        _ => json!({"done": true}).to_string().into_response(),
    });
    let busy = get(async || (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "11")], "goscope: a profile runs\n"));
    let router = Router::new().route("/limited", limited).route("/busy", busy).with_state(Arc::clone(&asked));
    let (mut api, _stop) = client(router).await;
    assert_eq!(api.get::<Value>("/limited").await.expect("an answer"), json!({"done": true}));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let said = api.get::<Value>("/busy").await.expect_err("busy").to_string();
    assert_eq!(said, "a profile runs (status 429); try again in 11 s");
}

#[tokio::test]
async fn what_is_no_answer_of_goscope() {
    let router =
        Router::new().route("/html", get(async || "<html>")).route("/made", post(async || StatusCode::NO_CONTENT));
    let (mut api, stop) = client(router).await;
    let said = api.get::<Value>("/html").await.expect_err("no document").to_string();
    assert!(said.contains("answers something else than expected") && said.ends_with("is it goscope?"), "{said}");
    assert!(api.post::<Value>("/made", &json!({})).await.is_err());
    stop.cancel();

    // Whoever answers in another language, or not at all.
    for (words, expected) in
        [("SSH-2.0-x\r\n", "does not speak HTTP; is it goscope?"), ("", "closed the connection without an answer")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = [0; 16];
            drop(stream.read(&mut request).await);
            drop(stream.write_all(words.as_bytes()).await);
        });
        let mut api = Api::new(Link::Address(parse_url(&format!("http://{address}")).expect("a URL")), &token());
        let said = api.get::<Value>("/").await.expect_err("no answer").to_string();
        assert_eq!(said, format!("the agent at {address} {expected}"));
    }
    // The port is free again.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let mut api = Api::new(Link::Address(parse_url(&format!("http://{address}")).expect("a URL")), &token());
    let said = api.get::<Value>("/").await.expect_err("no answer").to_string();
    assert!(said.starts_with(&format!("no agent answers at {address}: ")), "{said}");
}

#[tokio::test]
async fn a_kept_stream_that_was_closed_is_opened_anew() {
    let (mut api, _stop) = client(Router::new().route("/", get(async || ([("connection", "close")], "{}")))).await;
    for _ in 0..3 {
        assert_eq!(api.get::<Value>("/").await.expect("an answer"), json!({}));
    }
}

#[tokio::test]
async fn bytes_come_with_their_headers_and_end() {
    let router = Router::new().route("/bytes", get(async || ([("etag", "\"abc\"")], vec![7_u8; 300_000])));
    let (mut api, _stop) = client(router).await;
    let mut download = api.download("/bytes").await.expect("an answer");
    assert_eq!(download.headers.get("etag").and_then(|tag| tag.to_str().ok()), Some("\"abc\""));
    let mut count = 0;
    while let Some(piece) = download.next().await.expect("bytes") {
        count += piece.len();
    }
    assert_eq!(count, 300_000);
}

#[test]
fn refusals_in_the_agents_own_words() {
    let read = |status: u16, headers: &[(&'static str, &'static str)], body: &str| {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)))
            .collect();
        read_refusal(StatusCode::from_u16(status).expect("a status"), &headers, body.as_bytes()).to_string()
    };
    let problem = ("content-type", "application/problem+json");
    let text = ("content-type", "text/plain; charset=utf-8");
    for (status, headers, body, expected) in [
        (
            403,
            vec![problem],
            r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"the token alice lacks the tier capture","code":"tier_missing"}"#,
            "the token alice lacks the tier capture (tier_missing, status 403)",
        ),
        (
            404,
            vec![problem],
            r#"{"title":"no such artifact","code":"not_found"}"#,
            "no such artifact (not_found, status 404)",
        ),
        (
            404,
            vec![text, ("x-goscope-code", "unknown_route")],
            "goscope: no such route\n",
            "no such route (unknown_route, status 404); the agent is older than this command",
        ),
        (403, vec![problem], r#"{"title":"no","code":"\u001b[2J"}"#, "no (\\u{1b}[2J, status 403)"),
        (502, vec![("content-type", "text/html")], "<html>\nhello", "Bad Gateway (status 502)"),
        (500, vec![text], "", "Internal Server Error (status 500)"),
        (401, vec![text], "goscope: \u{1b}[2Jno\nsecond line", "\\u{1b}[2Jno (status 401)"),
        (503, vec![text, ("retry-after", "30")], "later", "later (status 503); try again in 30 s"),
    ] {
        assert_eq!(read(status, &headers, body), expected);
    }
}
