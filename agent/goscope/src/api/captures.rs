//! `/api/v1/captures`: begin a capture, see how far it is, cancel it.
//!
//! The token needs the tier `capture` and also the one of the profile: nobody gets by a capture what the gate would refuse. What may be asked for and how
//! long is read by the same code as at the gate, so a request over a cap is refused in the same words. A capture goes on when its client hangs up. Who
//! joined one cancels for themselves alone: it ends with the last of them, or when an admin says so.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::query::Query;
use super::{Caller, answer, body};
use crate::collect::book::{Canceller, End, Operation, State as Course};
use crate::collect::{self, Collector, KINDS, NotCancelled, Refused, Request};
use crate::config::Caps;
use crate::gate::refuse::{Code, Refusal};
use crate::gate::route::query_of;
use crate::model::ArtifactId;
use crate::store::meta::Trigger;
use crate::target::profile::Route;
use crate::token::tier::Tier;

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 500;

/// What the routes of this file need.
#[derive(Clone, Debug)]
pub struct Captures {
    pub collector: Collector,
    pub caps: Caps,
}

/// The routes of this file.
pub fn router(captures: Captures) -> Router {
    let captures = Arc::new(captures);
    Router::new()
        .route("/api/v1/captures", post(start).with_state(Arc::clone(&captures)))
        .route("/api/v1/captures/{id}", get(show).delete(cancel).with_state(captures))
}

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    kind: String,
    seconds: Option<serde_json::Number>,
    debug: Option<u8>,
    gc: Option<bool>,
    reason: Option<String>,
}

async fn start(
    State(captures): State<Arc<Captures>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let wish: Wish = body::read(body).await?;
    let route = wish.route(&captures.caps)?;
    caller.require(route.tier())?;
    let reason = wish.reason.map(reason).transpose()?.filter(|reason| !reason.is_empty());
    let request = Request { route, trigger: Trigger::Api, requested_by: caller.name().to_owned(), reason };
    let taken = captures.collector.submit(request).map_err(|refused| {
        let code = match refused {
            Refused::Full => Code::CapturesFull,
            Refused::Stopping => Code::Stopping,
        };
        Refusal::new(code, refused.to_string())
    })?;
    let mut response = told(StatusCode::ACCEPTED, &taken.operation)?;
    let place = format!("/api/v1/captures/{}", taken.operation.id);
    // For the audit line.
    response.extensions_mut().insert(taken.operation.request.route);
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(place).expect("an identifier is ASCII"));
    Ok(response)
}

async fn show(State(captures): State<Arc<Captures>>, Path(id): Path<String>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let operation = ArtifactId::parse(&id).and_then(|id| captures.collector.find(&id)).ok_or_else(unknown)?;
    told(StatusCode::OK, &operation)
}

async fn cancel(
    State(captures): State<Arc<Captures>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let id = ArtifactId::parse(&id).ok_or_else(unknown)?;
    let by = Canceller { name: caller.name(), is_admin: caller.entry().tiers.contains(Tier::Admin) };
    let operation = captures.collector.cancel(&id, by).await.map_err(|error| match error {
        NotCancelled::Unknown => unknown(),
        NotCancelled::Foreign => Refusal::new(Code::NotYours, error.to_string()),
    })?;
    // Accepted is what is still being cut.
    let is_done = operation.has_ended() || operation.wanted() > 0;
    told(if is_done { StatusCode::OK } else { StatusCode::ACCEPTED }, &operation)
}

fn unknown() -> Refusal {
    let sentence = "no capture of that name is known; each start of the agent forgets them, and what was stored is among the artifacts";
    Refusal::new(Code::NotFound, sentence)
}

impl Wish {
    fn route(&self, caps: &Caps) -> Result<Route, Refusal> {
        let Some(profile) = collect::kind(&self.kind) else {
            let names = KINDS.map(|profile| profile.name()).join(", ");
            return Err(Refusal::new(Code::BadBody, format!("kind must be one of {names}")));
        };
        let mut query = Vec::new();
        query.extend(self.seconds.as_ref().map(|seconds| format!("seconds={seconds}")));
        query.extend(self.debug.map(|debug| format!("debug={debug}")));
        query.extend(self.gc.filter(|gc| *gc).map(|_| "gc=1".to_owned()));
        query_of(profile, &query.join("&"), caps).map_err(|mut refusal| {
            // It stood in no query.
            if refusal.code == Code::BadQuery {
                refusal.code = Code::BadBody;
            }
            refusal
        })
    }
}

/// Fit to be stored and shown.
fn reason(text: String) -> Result<String, Refusal> {
    let refuse = |sentence: String| Err(Refusal::new(Code::BadBody, sentence));
    if text.chars().count() > REASON_CHARS_MAX {
        return refuse(format!("the reason is longer than {REASON_CHARS_MAX} characters"));
    }
    if text.chars().any(char::is_control) {
        return refuse("the reason is one line of text, without control characters".to_owned());
    }
    if text.contains(crate::token::PREFIX) {
        return refuse("the reason holds a token, and would be stored; replace the token if it was real".to_owned());
    }
    Ok(text)
}

/// How far a capture is.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    kind: &'static str,
    state: &'static str,
    requested_by: &'a str,
    /// Requests that want it, the first one too, without those that were taken back.
    joined: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// RFC 3339, UTC, as the others.
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    /// How long the target takes at least from `started` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<u8>,
    /// As stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn new(operation: &'a Operation) -> Self {
        let Operation { id, request, created, state, .. } = operation;
        let (state, started, ended, end) = match state {
            Course::Queued => ("queued", None, None, None),
            Course::Running { started } => ("running", Some(started), None, None),
            Course::Ended { started, ended, end } => {
                let name = match end {
                    End::Stored { .. } => "stored",
                    End::Failed(_) => "failed",
                    End::Cancelled => "cancelled",
                };
                (name, started.as_ref(), Some(ended), Some(end))
            }
        };
        let (artifact, bytes) = match end {
            Some(End::Stored { artifact, bytes }) => (Some(artifact.as_str()), Some(*bytes)),
            _ => (None, None),
        };
        let error = match end {
            Some(End::Failed(error)) => Some(error.as_str()),
            _ => None,
        };
        Self {
            id: id.as_str(),
            kind: request.route.profile.name(),
            state,
            requested_by: &request.requested_by,
            joined: operation.wanted(),
            reason: request.reason.as_deref(),
            created: created.to_string(),
            started: started.map(ToString::to_string),
            ended: ended.map(ToString::to_string),
            seconds: request.route.seconds_taken(),
            debug: request.route.debug,
            bytes,
            artifact,
            error,
        }
    }
}

fn told(status: StatusCode, operation: &Operation) -> Result<Response, Problem> {
    answer::json(status, &Document::new(operation))
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AxumBody;
    use jiff::Timestamp;
    use prometheus::Registry;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::Api;
    use crate::api::tests::{Door, Told, ask, get_from};
    use crate::collect::book::QUEUED_MAX;
    use crate::collect::metrics::CollectMetrics;
    use crate::config::{Config, LimitConfig};
    use crate::store::depot::Depot;
    use crate::store::metrics::StoreMetrics;
    use crate::token::tier::TierSet;

    /// Nothing is begun here: nobody runs the collector.
    fn captures() -> Captures {
        let registry = Registry::new();
        let depot = Depot::new(StoreMetrics::register(&registry).unwrap());
        let metrics = CollectMetrics::register(&registry).unwrap();
        let Config { target, gate, .. } = Config::sidecar();
        Captures { collector: Collector::new(target, depot, "pod-1".into(), None, metrics), caps: gate.caps }
    }

    fn open(tiers: TierSet) -> (Api, Door) {
        open_to(captures(), tiers)
    }

    fn open_to(captures: Captures, tiers: TierSet) -> (Api, Door) {
        let door = Door::open(tiers, |config| {
            let wide = LimitConfig { rate_per_kilosecond: 1_000_000, burst: 1000, nodelay: true, dry_run: false };
            (config.gate.per_source, config.gate.per_identity, config.gate.api) = (wide, wide, wide);
        });
        (Api::new(door.admission.clone(), router(captures)), door)
    }

    async fn post(api: &Api, door: &Door, wish: &Value) -> Told {
        let text = wish.to_string();
        let request = door.request("POST", "/api/v1/captures").header("content-type", "application/json");
        ask(api, request.header("content-length", text.len()).body(AxumBody::from(text)).unwrap()).await
    }

    #[tokio::test]
    async fn a_capture_is_begun_joined_looked_at_and_cancelled() {
        let (api, door) = open(TierSet::ALL);
        let wish = json!({ "kind": "cpu", "seconds": 5, "reason": "slow" });
        let begun = post(&api, &door, &wish).await;
        let state = begun.json();
        assert_eq!(begun.status, 202);
        assert_eq!(
            (&state["state"], &state["kind"], &state["seconds"]),
            (&json!("queued"), &json!("profile"), &json!(5.0))
        );
        assert_eq!((&state["requested_by"], &state["reason"]), (&json!("owner"), &json!("slow")));
        let path = begun.header("location").unwrap().to_owned();
        assert_eq!(path, format!("/api/v1/captures/{}", state["id"].as_str().unwrap()));
        let joined = post(&api, &door, &json!({ "kind": "profile", "seconds": 5 })).await;
        assert_eq!((joined.status, joined.header("location")), (202, Some(path.as_str())));
        let both = get_from(&api, &door, &path).await.json();
        assert_eq!((&state["joined"], &both["joined"]), (&json!(1), &json!(2)));
        let cancelled = ask(&api, door.request("DELETE", &path).body(AxumBody::empty()).unwrap()).await;
        assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")), "an admin ends it");
        let after = get_from(&api, &door, &path).await.json();
        assert!(
            after["state"] == "cancelled" && after["ended"].is_string() && after.get("started").is_none(),
            "{after}"
        );
    }

    #[tokio::test]
    async fn who_is_no_admin_cancels_for_themselves() {
        let (captures, tiers) = (captures(), [Tier::Capture, Tier::Basic].into_iter().collect());
        let (api, door) = open_to(captures.clone(), tiers);
        let begun = post(&api, &door, &json!({ "kind": "heap" })).await;
        let path = begun.header("location").unwrap().to_owned();
        let delete = async || ask(&api, door.request("DELETE", &path).body(AxumBody::empty()).unwrap()).await;
        let ask_as = |name: &str, debug| Request {
            route: query_of(collect::kind("heap").unwrap(), debug, &captures.caps).unwrap(),
            trigger: Trigger::Api,
            requested_by: name.to_owned(),
            reason: None,
        };
        assert!(captures.collector.submit(ask_as("bob", "")).unwrap().joined);
        let left = delete().await;
        let state = left.json();
        assert_eq!((left.status, &state["state"], &state["joined"]), (200, &json!("queued"), &json!(1)));
        assert_eq!(get_from(&api, &door, &path).await.json(), state);
        let others = captures.collector.submit(ask_as("bob", "debug=1")).unwrap().operation.id;
        let request = door.request("DELETE", &format!("/api/v1/captures/{others}")).body(AxumBody::empty()).unwrap();
        assert_eq!(ask(&api, request).await.problem(), (403, "not_yours".into()));
        assert!(!captures.collector.find(&others).unwrap().has_ended());
    }

    #[tokio::test]
    async fn both_tiers_are_needed_and_the_missing_one_is_named() {
        for (tiers, missing) in [
            (&[Tier::Cpu, Tier::Basic, Tier::Dump][..], Some("capture")),
            (&[Tier::Capture, Tier::Basic], Some("cpu")),
            (&[Tier::Capture, Tier::Cpu], None),
        ] {
            let (api, door) = open(tiers.iter().copied().collect());
            let told = post(&api, &door, &json!({ "kind": "profile", "seconds": 1 })).await;
            let Some(missing) = missing else {
                assert_eq!(told.status, 202);
                continue;
            };
            assert_eq!(told.problem(), (403, "tier_missing".into()));
            let detail = told.json()["detail"].to_string();
            assert!(detail.contains(missing), "{detail}");
        }
        let (api, door) = open([Tier::Capture, Tier::Basic].into_iter().collect());
        assert_eq!(post(&api, &door, &json!({ "kind": "goroutine", "debug": 1 })).await.status, 202);
        assert_eq!(post(&api, &door, &json!({ "kind": "goroutine", "debug": 2 })).await.status, 403);
    }

    #[tokio::test]
    async fn what_may_not_be_asked_for_is_refused() {
        let (api, door) = open(TierSet::ALL);
        let long = "x".repeat(REASON_CHARS_MAX + 1);
        for (wish, code) in [
            (json!({ "kind": "profile", "seconds": 61 }), "over_cap"),
            (json!({ "kind": "trace", "seconds": 30.5 }), "over_cap"),
            (json!({ "kind": "vars" }), "bad_body"),
            (json!({ "kind": "" }), "bad_body"),
            (json!({ "seconds": 5 }), "bad_body"),
            (json!({ "kind": "heap", "seconds": -1 }), "bad_body"),
            (json!({ "kind": "heap", "seconds": 1e99 }), "bad_body"),
            (json!({ "kind": "heap", "seconds": "5" }), "bad_body"),
            (json!({ "kind": "heap", "seconds": 5, "debug": 1 }), "bad_body"),
            (json!({ "kind": "heap", "debug": 3 }), "bad_body"),
            (json!({ "kind": "allocs", "gc": true }), "bad_body"),
            (json!({ "kind": "heap", "incident": "x" }), "bad_body"),
            (json!({ "kind": "heap", "reason": long }), "bad_body"),
            (json!({ "kind": "heap", "reason": "a\u{1b}[31mb" }), "bad_body"),
            (json!({ "kind": "heap", "reason": "it was gsc_0123" }), "bad_body"),
        ] {
            assert_eq!(post(&api, &door, &wish).await.problem(), (400, code.into()), "{wish}");
        }
        let reason = "x".repeat(REASON_CHARS_MAX);
        assert_eq!(post(&api, &door, &json!({ "kind": "heap", "gc": true, "reason": reason })).await.status, 202);
        for path in ["/api/v1/captures/x", "/api/v1/captures/2026-11-23T08-57-04Z-0123456789"] {
            assert_eq!(get_from(&api, &door, path).await.problem(), (404, "not_found".into()));
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_said_so() {
        let (api, door) = open(TierSet::ALL);
        for n in 1..=QUEUED_MAX {
            assert_eq!(post(&api, &door, &json!({ "kind": "profile", "seconds": n })).await.status, 202);
        }
        let full = post(&api, &door, &json!({ "kind": "heap" })).await;
        assert_eq!(full.problem(), (429, "captures_full".into()));
    }

    #[test]
    fn each_state_tells_what_is_known() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let route = query_of(collect::kind("heap").unwrap(), "debug=1", &Config::sidecar().gate.caps).unwrap();
        let request = Request { route, trigger: Trigger::Api, requested_by: "alice".into(), reason: None };
        let id = ArtifactId::new(at(0), "x");
        let ended = |end| Course::Ended { started: Some(at(1)), ended: at(2), end };
        for (state, expected) in [
            (Course::Queued, json!({ "state": "queued" })),
            (Course::Running { started: at(1) }, json!({ "state": "running", "started": "2023-11-14T22:13:21Z" })),
            (
                ended(End::Stored { artifact: id.at(at(1)), bytes: 9 }),
                json!({ "state": "stored", "started": "2023-11-14T22:13:21Z", "ended": "2023-11-14T22:13:22Z", "artifact": id.at(at(1)).as_str(), "bytes": 9 }),
            ),
            (
                ended(End::Failed("no space".into())),
                json!({ "state": "failed", "started": "2023-11-14T22:13:21Z", "ended": "2023-11-14T22:13:22Z", "error": "no space" }),
            ),
        ] {
            let wanted_by = [("alice".to_owned(), 2)].into();
            let operation = Operation { id: id.clone(), request: request.clone(), created: at(0), state, wanted_by };
            let mut known = json!({ "id": id.as_str(), "kind": "heap", "requested_by": "alice", "joined": 2, "created": "2023-11-14T22:13:20Z", "debug": 1 });
            known.as_object_mut().unwrap().append(&mut expected.as_object().unwrap().clone());
            assert_eq!(serde_json::to_value(Document::new(&operation)).unwrap(), known);
        }
    }
}
