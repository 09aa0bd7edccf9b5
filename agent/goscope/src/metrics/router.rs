//! The routes of the metrics listener: `/metrics`, `/livez`, `/readyz`, by GET or HEAD, without credentials, and nothing else.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use prometheus::Registry;

use super::readiness::{Readiness, Status};

/// The Prometheus text format.
const EXPOSITION: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
const PLAIN: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "text/plain; charset=utf-8")];

/// `/livez` is 200 as long as the agent answers at all; `/readyz` is 200 or 503, with the reason in its body.
pub fn router(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics).with_state(registry))
        .route("/livez", get((PLAIN, "live\n")))
        .route("/readyz", get(readyz).with_state(readiness))
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match super::encode(&registry) {
        Ok(text) => (EXPOSITION, text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "metrics cannot be encoded\n").into_response()
        }
    }
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    match readiness.status() {
        Status::Ready => (PLAIN, "ready\n".to_owned()).into_response(),
        Status::Waiting(held) => unready(format!("waiting for: {}\n", held.join(" "))),
        Status::Stopping => unready("shutting down\n".to_owned()),
    }
}

fn unready(reason: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, PLAIN, reason).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::{Method, Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(router: &Router, method: Method, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let content_type =
            response.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().expect("text")).to_owned();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let router = router(crate::metrics::registry().expect("a registry"), Readiness::default());
        let (status, content_type, body) = ask(&router, Method::GET, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("# TYPE goscope_build_info gauge\ngoscope_build_info{commit=\""), "{body}");
        let (status, _, body) = ask(&router, Method::HEAD, "/metrics").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
    }

    #[tokio::test]
    async fn probes_say_why() {
        let readiness = Readiness::default();
        let router = router(crate::metrics::registry().expect("a registry"), readiness.clone());
        let latches = [readiness.latch("gate"), readiness.latch("spool")];
        let plain = "text/plain; charset=utf-8".to_owned();
        assert_eq!(
            ask(&router, Method::GET, "/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, plain.clone(), "waiting for: gate spool\n".to_owned())
        );
        drop(latches);
        assert_eq!(ask(&router, Method::GET, "/readyz").await, (StatusCode::OK, plain.clone(), "ready\n".to_owned()));
        readiness.stop();
        assert_eq!(
            ask(&router, Method::GET, "/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, plain.clone(), "shutting down\n".to_owned())
        );
        assert_eq!(ask(&router, Method::GET, "/livez").await, (StatusCode::OK, plain, "live\n".to_owned()));
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let router = router(crate::metrics::registry().expect("a registry"), Readiness::default());
        for (method, path, expected) in [
            (Method::GET, "/", StatusCode::NOT_FOUND),
            (Method::GET, "/metrics/", StatusCode::NOT_FOUND),
            (Method::GET, "/debug/pprof/", StatusCode::NOT_FOUND),
            (Method::GET, "/api/v1/info", StatusCode::NOT_FOUND),
            (Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED),
            (Method::DELETE, "/readyz", StatusCode::METHOD_NOT_ALLOWED),
        ] {
            assert_eq!(ask(&router, method.clone(), path).await.0, expected, "{method} {path}");
        }
    }
}
