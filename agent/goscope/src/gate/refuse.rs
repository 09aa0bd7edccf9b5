//! Refusals: one table of stable codes, one shape of answer.
//!
//! A refusal is a complete response that leaves the connection usable, as `text/plain` with `X-Go-Pprof: 1`, because that is what makes
//! `go tool pprof` print the body. The body is a sentence that begins with `goscope: ` and ends with a line feed.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// Tells which decision was taken; also in the audit line and, as `decision`, in the metrics.
pub static X_GOSCOPE_CODE: HeaderName = HeaderName::from_static("x-goscope-code");
/// The id of the audit lines that belong to an answer.
pub static X_GOSCOPE_AUDIT_ID: HeaderName = HeaderName::from_static("x-goscope-audit-id");
/// Makes `go tool pprof` print the body of an error.
pub static X_GO_PPROF: HeaderName = HeaderName::from_static("x-go-pprof");

/// How a request was decided. The names are promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Handed to the target; the status is the target's.
    Passed,
    /// HEAD, or the redirect to the index: answered here.
    Answered,
    BadTarget,
    BadQuery,
    QueryToken,
    OverCap,
    BodyNotAllowed,
    BadHeader,
    NoCredential,
    BadCredential,
    CredentialsDisagree,
    TokenExpired,
    TokenNotYetValid,
    CrossSite,
    AddressDenied,
    TierMissing,
    UnknownRoute,
    MethodNotAllowed,
    Misdirected,
    SourceLimit,
    IdentityLimit,
    TargetNotListening,
    TargetBadAnswer,
    TargetRedirect,
    CannotDecide,
    TargetTimeout,
    /// The client left before the answer began.
    ClientGone,
    /// The archive changes nothing and has no app.
    ReadOnly,
    /// The route is known, what it names is not there.
    NotFound,
    BadBody,
    LengthRequired,
    BodyTooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    /// Too many captures are waiting.
    CapturesFull,
    /// Nothing is begun any more.
    Stopping,
    /// Too many are reading the volume at this moment.
    Busy,
    /// Somebody else asked for it.
    NotYours,
    /// It cannot be deleted before its pin is taken away.
    Pinned,
    /// The store could not be opened yet.
    StoreClosed,
    /// The volume does not do what it should.
    VolumeFailed,
    /// Our own mistake.
    Internal,
}

impl Code {
    /// As it stands in the header, the audit line and the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The status of a refusal; of [`Self::Passed`] and [`Self::ClientGone`], which have none of ours, 200 and 499 as nginx logs it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn row(self) -> (&'static str, u16) {
        match self {
            Self::Passed => ("passed", 200),
            Self::Answered => ("answered", 200),
            Self::BadTarget => ("bad_target", 400),
            Self::BadQuery => ("bad_query", 400),
            Self::QueryToken => ("query_token", 400),
            Self::OverCap => ("over_cap", 400),
            Self::BodyNotAllowed => ("body_not_allowed", 400),
            Self::BadHeader => ("bad_header", 400),
            Self::NoCredential => ("no_credential", 401),
            Self::BadCredential => ("bad_credential", 401),
            Self::CredentialsDisagree => ("credentials_disagree", 401),
            Self::TokenExpired => ("token_expired", 401),
            Self::TokenNotYetValid => ("token_not_yet_valid", 401),
            Self::CrossSite => ("cross_site", 403),
            Self::AddressDenied => ("address_denied", 403),
            Self::TierMissing => ("tier_missing", 403),
            Self::UnknownRoute => ("unknown_route", 404),
            Self::MethodNotAllowed => ("method_not_allowed", 405),
            Self::Misdirected => ("misdirected", 421),
            Self::SourceLimit => ("source_limit", 429),
            Self::IdentityLimit => ("identity_limit", 429),
            Self::TargetNotListening => ("target_not_listening", 502),
            Self::TargetBadAnswer => ("target_bad_answer", 502),
            Self::TargetRedirect => ("target_redirect", 502),
            Self::CannotDecide => ("cannot_decide", 503),
            Self::TargetTimeout => ("target_timeout", 504),
            Self::ClientGone => ("client_gone", 499),
            Self::ReadOnly => ("read_only", 403),
            Self::NotFound => ("not_found", 404),
            Self::BadBody => ("bad_body", 400),
            Self::LengthRequired => ("length_required", 411),
            Self::BodyTooLarge => ("body_too_large", 413),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415),
            Self::RangeNotSatisfiable => ("range_not_satisfiable", 416),
            Self::CapturesFull => ("captures_full", 429),
            Self::Stopping => ("stopping", 503),
            Self::Busy => ("busy", 503),
            Self::NotYours => ("not_yours", 403),
            Self::Pinned => ("pinned", 409),
            Self::StoreClosed => ("store_closed", 503),
            Self::VolumeFailed => ("volume_failed", 500),
            Self::Internal => ("internal", 500),
        }
    }
}

/// A request that is not handed to the target, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// Without `goscope: ` and without the line feed.
    pub sentence: Cow<'static, str>,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(code: Code, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { code, sentence: sentence.into(), retry_after: None }
    }

    /// The answer, without the audit id.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(format!("goscope: {}\n", self.sentence)));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_GO_PPROF.clone(), HeaderValue::from_static("1"));
        common_headers(headers, self.code);
        match self.code.status() {
            StatusCode::UNAUTHORIZED => {
                headers
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"goscope\", charset=\"UTF-8\""));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        // A body that we did not read stands between this request and the next one.
        if matches!(self.code, Code::BodyNotAllowed | Code::MethodNotAllowed | Code::BadHeader) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The headers of every answer of ours.
pub(super) fn common_headers(headers: &mut HeaderMap, code: Code) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_GOSCOPE_CODE.clone(), HeaderValue::from_static(code.name()));
}

/// Rounded up and at least one, so that whoever waits as told is admitted.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_go_tool_pprof_prints() {
        let mut refusal = Refusal::new(Code::SourceLimit, "too many requests");
        refusal.retry_after = Some(Duration::from_millis(1001));
        let response = refusal.response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.body(), "goscope: too many requests\n");
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(header("x-go-pprof"), Some("1"));
        assert_eq!(header("x-content-type-options"), Some("nosniff"));
        assert_eq!(header("cache-control"), Some("no-store"));
        assert_eq!(header("x-goscope-code"), Some("source_limit"));
        assert_eq!(header("retry-after"), Some("2"));
        assert_eq!((header("connection"), header("allow"), header("www-authenticate")), (None, None, None));
    }

    #[test]
    fn headers_that_belong_to_a_status() {
        let response = |code| Refusal::new(code, "x").response();
        assert_eq!(response(Code::MethodNotAllowed).headers()["allow"], "GET, HEAD");
        assert!(
            response(Code::NoCredential).headers()["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Basic realm=\"goscope\"")
        );
        assert_eq!(response(Code::BodyNotAllowed).headers()["connection"], "close");
    }

    #[test]
    fn waits_are_rounded_up() {
        let cases = [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)];
        for (millis, seconds) in cases {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
