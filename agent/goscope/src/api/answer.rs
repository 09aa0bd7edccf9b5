//! Answers that are no errors.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::problem::Problem;
use crate::gate::refuse::{Code, Refusal};

/// `value` as JSON.
///
/// # Errors
/// The value cannot be written: our mistake.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Problem> {
    let mut text = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "answer cannot be written as JSON");
        Refusal::new(Code::Internal, "the answer could not be written")
    })?;
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Done, and nothing to say.
#[must_use]
pub fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
