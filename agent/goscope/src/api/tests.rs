//! The API asked directly, without a socket.

use std::io;
use std::sync::{Mutex, PoisonError};

use axum::Extension;
use axum::body::Body as AxumBody;
use axum::routing::{get, post};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use prometheus::Registry;

use super::*;
use crate::config::units::{parse_address_rule, parse_rate};
use crate::config::{Config, LimitConfig};
use crate::gate::audit::{self, AuditWriter};
use crate::gate::metrics::GateMetrics;
use crate::gate::tokens::TokenStore;
use crate::token::tier::TierSet;
use crate::token::{Token, file};

/// An admission with one token, of the name `owner`, and what it writes.
pub(crate) struct Door {
    pub(crate) admission: Admission,
    pub(crate) token: Token,
    registry: Registry,
    lines: Lines,
    _writer: AuditWriter,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Status and code of a problem, after a look at its shape.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        assert_eq!((body["status"].as_u64(), body["type"].as_str()), (Some(self.status.into()), Some("about:blank")));
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        assert_eq!(self.header("x-goscope-code"), Some(code.as_str()));
        (self.status, code)
    }
}

impl Door {
    pub(crate) fn open(tiers: TierSet, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::generate().unwrap();
        let path = folder.path().join("tokens.yaml");
        std::fs::write(&path, file::document(&file::entry("owner", token.sha256(), tiers, &[], None))).unwrap();
        let mut config = Config::sidecar();
        config.gate.token_files = vec![path];
        config.gate.allow = vec![parse_address_rule("127.0.0.0/8").unwrap()];
        change(&mut config);
        let lines = Lines::default();
        let (sink, writer) = audit::start(lines.clone()).unwrap();
        let registry = Registry::new();
        let tokens = TokenStore::open(config.gate.token_files.clone());
        let admission = Admission::new(config.gate, tokens, sink, GateMetrics::register(&registry).unwrap());
        Self { admission, token, registry, lines, _writer: writer, _folder: folder }
    }

    /// A request with the token, and with `Host`.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:6061")
            .header("authorization", format!("Bearer {}", self.token.reveal()))
    }

    /// The audit lines, which are complete only then.
    fn close(self) -> Vec<String> {
        let Self { lines, _writer, .. } = self;
        drop(_writer);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

pub(crate) async fn ask(api: &Api, request: Request<AxumBody>) -> Told {
    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let (parts, body) = api.respond(request, peer).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Told { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) async fn get_from(api: &Api, door: &Door, path: &str) -> Told {
    ask(api, door.request("GET", path).body(AxumBody::empty()).unwrap()).await
}

fn hello() -> Router {
    async fn who(Extension(caller): Extension<Caller>) -> Result<String, Problem> {
        caller.require(Tier::Cpu)?;
        Ok(caller.name().to_owned())
    }
    async fn length(body: AxumBody) -> Result<String, Problem> {
        let value: serde_json::Value = body::read(body).await?;
        Ok(value.to_string())
    }
    Router::new()
        .route("/api/v1/info", get(who))
        .route("/api/v1/captures", post(length))
        .route("/api/v1/artifacts", get((http::StatusCode::IM_A_TEAPOT, "tea")))
}

fn tight(rate: &str, burst: u32) -> LimitConfig {
    LimitConfig { rate_per_kilosecond: parse_rate(rate).unwrap(), burst, nodelay: true, dry_run: false }
}

#[tokio::test]
async fn who_is_admitted_reaches_the_handler_and_the_books() {
    let door = Door::open(TierSet::ALL, |_| {});
    let api = Api::new(door.admission.clone(), hello());
    let told = get_from(&api, &door, "/api/v1/info").await;
    assert_eq!((told.status, &told.body[..]), (200, &b"owner"[..]));
    for (name, value) in
        [("x-goscope-code", "answered"), ("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
    {
        assert_eq!(told.header(name), Some(value), "{name}");
    }
    let id = told.header("x-goscope-audit-id").unwrap().to_owned();
    let head = door.request("HEAD", "/api/v1/info").body(AxumBody::empty()).unwrap();
    let head = api.respond(head, SocketAddr::from(([127, 0, 0, 1], 40_000))).await;
    // A connection does not even ask for the body of such an answer.
    assert_eq!((head.status().as_u16(), head.body().is_end_stream()), (200, true));
    drop(head);

    let metrics = crate::metrics::encode(&door.registry).unwrap();
    assert!(metrics.contains("goscope_api_requests_total{decision=\"answered\",operation=\"info\"} 2\n"), "{metrics}");
    assert!(!metrics.contains("goscope_gate_requests_total{"), "{metrics}");
    let token = door.token.reveal().to_owned();
    let lines = door.close();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].contains(&id) && lines[0].contains(r#""stage":"RequestReceived""#), "{}", lines[0]);
    assert!(
        lines[1].contains(
            r#""requestURI":"/api/v1/info","user":{"username":"owner"},"sourceIPs":["127.0.0.1"],"responseStatus":{"code":200},"code":"answered","operation":"info","bytes":5,"ended":"complete""#
        ),
        "{}",
        lines[1]
    );
    assert!(lines[3].contains(r#""verb":"head""#) && lines[3].contains(r#""ended":"complete""#), "{}", lines[3]);
    assert!(!lines.concat().contains(&token));
}

#[tokio::test]
async fn refusals_are_problems() {
    let door = Door::open([Tier::Basic].into_iter().collect(), |_| {});
    let api = Api::new(door.admission.clone(), hello());
    let empty = AxumBody::empty;
    let plain = |path: &str| Request::builder().uri(path.to_owned()).header("host", "localhost");
    let post = |more: &[(&str, &str)], body: &str| {
        let mut request = door.request("POST", "/api/v1/captures").header("content-length", body.len());
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        request.body(AxumBody::from(body.to_owned())).unwrap()
    };
    let json = ("content-type", "application/json");
    let cases = [
        (plain("/api/v1/info").body(empty()).unwrap(), 401, "no_credential"),
        (plain("/api/v1/info").header("x-debug-token", "x").body(empty()).unwrap(), 401, "bad_credential"),
        (door.request("GET", "/api/v1/info").body(empty()).unwrap(), 403, "tier_missing"),
        (door.request("GET", "/api/v1/incidents").body(empty()).unwrap(), 403, "tier_missing"),
        (door.request("GET", "/api/v1/nothing").body(empty()).unwrap(), 404, "unknown_route"),
        (door.request("PATCH", "/api/v1/info").body(empty()).unwrap(), 405, "method_not_allowed"),
        (
            door.request("GET", "/api/v1/info").header("origin", "http://evil.example").body(empty()).unwrap(),
            403,
            "cross_site",
        ),
        (
            door.request("GET", "/api/v1/info").header("sec-fetch-site", "cross-site").body(empty()).unwrap(),
            403,
            "cross_site",
        ),
        (plain("/api/v1/info").header("host", "evil.example").body(empty()).unwrap(), 400, "bad_header"),
        (post(&[json, ("origin", "http://evil.example")], "{}"), 403, "cross_site"),
        (post(&[json, ("sec-fetch-site", "same-site")], "{}"), 403, "cross_site"),
        (post(&[("content-type", "text/plain")], "{}"), 415, "unsupported_media_type"),
        (post(&[json], "{}"), 403, "tier_missing"),
    ];
    let expected = cases.len() * 2;
    for (request, status, code) in cases {
        let shown = format!("{request:?}");
        let told = ask(&api, request).await;
        assert_eq!(told.problem(), (status, code.to_owned()), "{shown}");
        assert!(told.header("x-goscope-audit-id").is_some());
        assert!(!String::from_utf8_lossy(&told.body).contains(door.token.reveal()));
    }
    assert_eq!(door.close().len(), expected);
}

#[tokio::test]
async fn what_has_no_handler_or_fails_without_a_code_is_a_problem_too() {
    let door = Door::open(TierSet::ALL, |_| {});
    let api = Api::new(door.admission.clone(), hello());
    assert_eq!(get_from(&api, &door, "/api/v1/incidents").await.problem(), (404, "unknown_route".into()));
    assert_eq!(get_from(&api, &door, "/api/v1/artifacts").await.problem(), (500, "internal".into()));
    let body = r#"{"kind":"heap"}"#;
    let request = door
        .request("POST", "/api/v1/captures")
        .header("content-type", "application/json")
        .header("content-length", body.len());
    let told = ask(&api, request.body(AxumBody::from(body)).unwrap()).await;
    assert_eq!((told.status, &told.body[..]), (200, body.as_bytes()));
}

#[tokio::test]
async fn the_api_has_limits_of_its_own() {
    let door = Door::open(TierSet::ALL, |config| {
        config.gate.per_source = tight("1/m", 0);
        config.gate.per_identity = tight("1/m", 0);
        config.gate.api = tight("1/m", 3);
    });
    let api = Api::new(door.admission.clone(), hello());
    // The first is free, three are the burst; the gate's own limits would have refused the second.
    for _ in 0..4 {
        assert_eq!(get_from(&api, &door, "/api/v1/info").await.status, 200);
    }
    let told = get_from(&api, &door, "/api/v1/info").await;
    assert_eq!(told.problem(), (429, "source_limit".into()));
    assert!(
        told.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| (1..=63).contains(&wait)))
    );
    let metrics = crate::metrics::encode(&door.registry).unwrap();
    for line in [
        r#"goscope_gate_limits_total{limit="api_source",verdict="passed"} 4"#,
        r#"goscope_gate_limits_total{limit="api_source",verdict="rejected"} 1"#,
        r#"goscope_gate_limits_total{limit="source",verdict="passed"} 0"#,
        r#"goscope_gate_limits_total{limit="identity",verdict="passed"} 0"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_capture_meets_the_limits_of_the_profiles_too() {
    let source = r#"{limit="source",verdict="rejected"}"#;
    let identity = r#"{limit="identity",verdict="rejected"}"#;
    for (per_source, per_identity, code, series) in [
        (tight("1/m", 1), tight("1/m", 9), "source_limit", source),
        (tight("1/m", 9), tight("1/m", 1), "identity_limit", identity),
    ] {
        let door = Door::open(TierSet::ALL, |config| {
            config.gate.per_source = per_source;
            config.gate.per_identity = per_identity;
            config.gate.api = tight("1/m", 4);
        });
        let api = Api::new(door.admission.clone(), hello());
        let capture = async || {
            let request = door.request("POST", "/api/v1/captures").header("content-type", "application/json");
            ask(&api, request.header("content-length", 2).body(AxumBody::from("{}")).unwrap()).await
        };
        for _ in 0..2 {
            assert_eq!(capture().await.status, 200);
        }
        for _ in 0..10 {
            let told = capture().await;
            assert_eq!(told.problem(), (429, code.into()));
            assert!(told.header("retry-after").is_some());
        }
        let metrics = crate::metrics::encode(&door.registry).unwrap();
        let line = format!("goscope_gate_limits_total{series} 10");
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
        // Those that were refused took nothing from the API's own limits, and looking takes nothing from the profiles'.
        for _ in 0..3 {
            assert_eq!(get_from(&api, &door, "/api/v1/info").await.status, 200);
        }
        assert_eq!(get_from(&api, &door, "/api/v1/info").await.problem(), (429, "source_limit".into()));
    }
}

#[tokio::test]
async fn wrong_credentials_are_slowed_down_and_shut_nobody_out() {
    let door = Door::open([Tier::Basic, Tier::Cpu].into_iter().collect(), |config| {
        config.gate.per_source = tight("1/m", 1);
        config.gate.api = tight("1/m", 4);
    });
    let api = Api::new(door.admission.clone(), hello());
    let wrong = |token: &str| {
        let request = Request::builder().uri("/api/v1/info").header("host", "localhost");
        request.header("x-debug-token", token).body(AxumBody::empty()).unwrap()
    };
    let guess = || wrong(Token::generate().unwrap().reveal());
    // A tier that is missing is no wrong credential.
    for _ in 0..3 {
        assert_eq!(get_from(&api, &door, "/api/v1/incidents").await.problem(), (403, "tier_missing".into()));
    }
    assert_eq!(ask(&api, guess()).await.problem(), (401, "bad_credential".into()));
    assert_eq!(ask(&api, wrong("x")).await.problem(), (401, "bad_credential".into()));
    // More than the limit of the source would let through, which they do not use up.
    for _ in 0..10 {
        let told = ask(&api, guess()).await;
        assert_eq!(told.problem(), (429, "source_limit".into()));
        assert!(told.header("retry-after").is_some());
        let detail = told.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("too many wrong credentials from this address"), "{detail}");
    }
    for _ in 0..2 {
        assert_eq!(get_from(&api, &door, "/api/v1/info").await.status, 200, "from the same address");
    }
    assert_eq!(get_from(&api, &door, "/api/v1/info").await.problem(), (429, "source_limit".into()));
    let metrics = crate::metrics::encode(&door.registry).unwrap();
    for line in [
        r#"goscope_gate_limits_total{limit="api_failures",verdict="passed"} 2"#,
        r#"goscope_gate_limits_total{limit="api_failures",verdict="rejected"} 10"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[test]
fn only_its_own_paths() {
    for (path, expected) in [
        ("/api", true),
        ("/api/", true),
        ("/api/v1/info", true),
        ("/apis", false),
        ("/", false),
        ("/debug/pprof/", false),
        ("/x/api/v1", false),
    ] {
        assert_eq!(is_ours(path), expected, "{path}");
    }
}
