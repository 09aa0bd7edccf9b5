//! The books of one request: what was found out about it, and the audit lines and metrics that come of it.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use jiff::Timestamp;

use super::admission::{Admission, Surface};
use super::audit::{Answer, AuditId, Ended, Event, Stage, Subject};
use super::body::GateBody;
use super::identity::Identity;
use super::refuse::{Code, Refusal, X_GO_PPROF, X_GOSCOPE_AUDIT_ID, common_headers};
use super::route::Route;
use crate::target::upstream::UpstreamBody;

/// Headers of the target's answer that are handed on.
static HANDED_ON: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_DISPOSITION, CONTENT_ENCODING];

/// What was found out about a request, for its audit lines.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) source: IpAddr,
    /// What the target is asked for.
    pub(super) route: Option<Route>,
    /// What the API was asked for: the name of one of its routes.
    pub(crate) operation: Option<&'static str>,
    /// Written anew from what was understood.
    pub(crate) target: Option<PathAndQuery>,
    pub(crate) identity: Option<Identity>,
    pub(super) limit: Option<&'static str>,
}

/// One request's entry in the books. Dropped, it is closed: as it was told, or as left by the client.
#[derive(Debug)]
pub struct Account {
    admission: Admission,
    pub(super) surface: Surface,
    id: AuditId,
    pub(super) began: Instant,
    verb: &'static str,
    pub(crate) trail: Trail,
    code: Code,
    status: StatusCode,
    pub(super) bytes: u64,
    pub(super) ended: Ended,
}

impl Account {
    /// Until somebody says otherwise, the client left before it got an answer.
    pub(super) fn open(
        admission: Admission,
        surface: Surface,
        id: AuditId,
        verb: &'static str,
        source: IpAddr,
    ) -> Self {
        Self {
            admission,
            surface,
            id,
            began: Instant::now(),
            verb,
            trail: Trail { source, route: None, operation: None, target: None, identity: None, limit: None },
            code: Code::ClientGone,
            status: Code::ClientGone.status(),
            bytes: 0,
            ended: Ended::ClientGone,
        }
    }

    pub(super) fn refuse(mut self: Box<Self>, refusal: &Refusal) -> Response<GateBody> {
        let response = refusal.response();
        self.code = refusal.code;
        self.close(response)
    }

    pub(super) fn answer_here(mut self: Box<Self>, mut response: Response<Bytes>) -> Response<GateBody> {
        self.code = Code::Answered;
        common_headers(response.headers_mut(), self.code);
        self.close(response)
    }

    /// An answer that is complete as it is.
    fn close(mut self: Box<Self>, mut response: Response<Bytes>) -> Response<GateBody> {
        self.status = response.status();
        self.bytes = response.body().len() as u64;
        self.ended = Ended::Complete;
        response.headers_mut().insert(X_GOSCOPE_AUDIT_ID.clone(), self.id_header());
        response.map(GateBody::Full)
    }

    pub(super) fn pass(mut self: Box<Self>, answer: Response<UpstreamBody>) -> Response<GateBody> {
        let (theirs, body) = answer.into_parts();
        self.code = Code::Passed;
        self.status = theirs.status;
        let mut headers = HeaderMap::with_capacity(12);
        for name in HANDED_ON.iter().chain([&X_GO_PPROF]) {
            if let Some(value) = theirs.headers.get(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        common_headers(&mut headers, self.code);
        headers.insert(X_GOSCOPE_AUDIT_ID.clone(), self.id_header());
        let mut response = Response::new(GateBody::Stream { body, account: Some(self) });
        *response.status_mut() = theirs.status;
        *response.headers_mut() = headers;
        response
    }

    /// An answer of the API, decided as `code`; its body may take its time. Headers that the answer has already stay. What the target is asked for because of
    /// it, the answer has as an extension.
    pub(crate) fn hand_out(mut self: Box<Self>, code: Code, answer: Response<axum::body::Body>) -> Response<GateBody> {
        self.code = code;
        self.status = answer.status();
        self.trail.route = answer.extensions().get().cloned();
        let (mut ours, body) = answer.into_parts();
        let mut headers = HeaderMap::with_capacity(4);
        common_headers(&mut headers, code);
        headers.insert(X_GOSCOPE_AUDIT_ID.clone(), self.id_header());
        for (name, value) in &headers {
            ours.headers.entry(name).or_insert_with(|| value.clone());
        }
        // Nobody asks for the next piece of a body that has none.
        let account = if body.is_end_stream() {
            self.ended = Ended::Complete;
            None
        } else {
            Some(self)
        };
        Response::from_parts(ours, GateBody::Own { body, account })
    }

    fn id_header(&self) -> HeaderValue {
        HeaderValue::try_from(self.id.to_string()).expect("an id has only digits and a hyphen")
    }

    fn profile(&self) -> &'static str {
        self.trail.route.as_ref().map_or("none", |route| route.profile.name())
    }

    fn subject(&self) -> Subject {
        match self.surface {
            Surface::Gate => Subject::Profile(self.profile()),
            Surface::Api => Subject::Operation {
                name: self.trail.operation.unwrap_or("none"),
                profile: self.trail.route.as_ref().map(|route| route.profile.name()),
            },
        }
    }

    pub(crate) fn write(&self, stage: Stage, time: Timestamp, code: Code) {
        let trail = &self.trail;
        let identity = trail.identity.as_ref();
        let answer = Answer { status: self.status.as_u16(), bytes: self.bytes, ended: self.ended };
        self.admission.audit().write(&Event {
            audit_id: self.id,
            stage,
            time,
            verb: self.verb,
            request_uri: trail.target.as_ref().map_or("-", PathAndQuery::as_str),
            username: identity.map_or("system:anonymous", |identity| &identity.entry.name),
            basic_user: identity.and_then(|identity| identity.user.as_deref()),
            source: trail.source,
            code,
            subject: self.subject(),
            seconds: trail.route.as_ref().and_then(|route| route.seconds.as_ref()).map(|seconds| seconds.text.as_str()),
            answer: (stage == Stage::ResponseComplete).then_some(answer),
            limit: trail.limit,
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.write(Stage::ResponseComplete, Timestamp::now(), self.code);
        let metrics = self.admission.metrics();
        match self.subject() {
            Subject::Profile(profile) => metrics.request(profile, self.code, self.began.elapsed()),
            Subject::Operation { name: operation, .. } => {
                metrics.api_request(operation, self.code, self.began.elapsed());
            }
        }
    }
}
