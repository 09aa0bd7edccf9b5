//! The errors of the API: `application/problem+json` (RFC 9457), made of the refusals that the gate has too. The only place where they become HTTP.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::gate::refuse::{Code, Refusal, whole_seconds};

/// An answer that is an error.
#[derive(Debug)]
pub struct Problem {
    refusal: Refusal,
    /// The header that its status needs.
    header: Option<(HeaderName, HeaderValue)>,
}

/// The body. `type` stays `about:blank`: `code` is what programs look at.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'static str,
}

impl Problem {
    /// 405; `allow` is the value of the header that says what is served.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let refusal = Refusal::new(Code::MethodNotAllowed, format!("this path is served by {allow} only"));
        Self { refusal, header: HeaderValue::try_from(allow).ok().map(|allow| (ALLOW, allow)) }
    }

    /// 416 of something with so many bytes.
    #[must_use]
    pub fn range_not_satisfiable(bytes: u64) -> Self {
        let sentence = format!("the range lies outside of the {bytes} bytes that there are");
        let range = HeaderValue::try_from(format!("bytes */{bytes}")).expect("digits");
        Self { refusal: Refusal::new(Code::RangeNotSatisfiable, sentence), header: Some((CONTENT_RANGE, range)) }
    }

    #[must_use]
    pub fn code(&self) -> Code {
        self.refusal.code
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, header: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Refusal { code, sentence, retry_after } = &self.refusal;
        let status = code.status();
        let document = Document {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: sentence,
            code: code.name(),
        };
        let text = serde_json::to_vec(&document).expect("strings and a number");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response.extensions_mut().insert(*code);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            // Not Basic, though it is accepted: a page would make the browser ask for a password behind its own form.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"goscope\""));
        }
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(*wait)));
        }
        // A body that we did not read stands between this request and the next one.
        if matches!(
            code,
            Code::BodyNotAllowed
                | Code::MethodNotAllowed
                | Code::BadHeader
                | Code::LengthRequired
                | Code::BodyTooLarge
                | Code::BadBody
        ) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use http_body_util::BodyExt as _;

    async fn read(problem: Problem) -> (http::response::Parts, serde_json::Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_problem_is_what_rfc_9457_says() {
        let mut refusal = Refusal::new(Code::IdentityLimit, "too many \"requests\"");
        refusal.retry_after = Some(Duration::from_millis(1500));
        let (parts, body) = read(refusal.into()).await;
        assert_eq!(parts.status, 429);
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!(parts.headers["retry-after"], "2");
        assert_eq!(parts.extensions.get(), Some(&Code::IdentityLimit));
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Too Many Requests", "status": 429,
            "detail": "too many \"requests\"", "code": "identity_limit"
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn each_status_has_the_header_that_it_needs() {
        let (parts, _) = read(Problem::method_not_allowed("GET, HEAD")).await;
        assert_eq!((parts.status.as_u16(), &parts.headers["allow"]), (405, &HeaderValue::from_static("GET, HEAD")));
        let (parts, _) = read(Problem::range_not_satisfiable(17)).await;
        assert_eq!((parts.status.as_u16(), parts.headers["content-range"].to_str().unwrap()), (416, "bytes */17"));
        let (parts, _) = read(Refusal::new(Code::NoCredential, "x").into()).await;
        assert_eq!(parts.headers["www-authenticate"], "Bearer realm=\"goscope\"");
        let (parts, _) = read(Refusal::new(Code::NotFound, "x").into()).await;
        assert!(!parts.headers.contains_key("connection") && !parts.headers.contains_key("www-authenticate"));
        let (parts, _) = read(Refusal::new(Code::BodyTooLarge, "x").into()).await;
        assert_eq!(parts.headers["connection"], "close");
    }
}
