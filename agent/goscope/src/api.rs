//! The API on the debug listener: `/api/v1/…`, JSON for the page, `goscope ctl` and scripts.
//!
//! A request meets, in this order: [`route`] (exact table, plain path, a body only where one belongs), then the decisions that the gate takes as well
//! ([`Admission`]), with limits of the API's own and, for a capture, those of the gate as well, then its handler. Errors are `application/problem+json` ([`problem`]). Each request has its two lines in the audit
//! trail, under the name of its operation, and counts in `goscope_api_requests_total`.
//!
//! The handlers are an axum router that is made by whoever knows the parts; here stands what they have in common. A handler finds who asks in the
//! extension [`Caller`], reads its query with [`query`] and its body with [`body`], and answers with [`answer::json`] or a [`problem::Problem`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse as _;
use axum::{BoxError, Router};
use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use jiff::Timestamp;
use tower::ServiceExt as _;

use crate::gate::account::Account;
use crate::gate::admission::{Admission, Surface, Wanted};
use crate::gate::audit::Stage;
use crate::gate::body::GateBody;
use crate::gate::identity::Identity;
use crate::gate::refuse::{Code, Refusal};
use crate::gate::{HandlerFuture, drain, permit};
use crate::token::file::Entry;
use crate::token::tier::Tier;
use problem::Problem;

pub mod answer;
pub mod artifacts;
pub mod body;
pub mod captures;
mod content;
pub mod incidents;
pub mod info;
pub mod problem;
pub mod query;
pub mod range;
pub mod reading;
pub mod route;

/// The API; clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    admission: Admission,
    router: Router,
}

/// Who asks, as an extension of each request that a handler gets.
#[derive(Clone, Debug)]
pub struct Caller(Identity);

impl Caller {
    /// The token's entry: its name, what it may.
    #[must_use]
    pub fn entry(&self) -> &Arc<Entry> {
        &self.0.entry
    }

    /// The token's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.entry.name
    }

    /// For what shows in the body only: whether the token has `tier` too.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, tier: Tier) -> Result<(), Refusal> {
        permit::has_tier(&self.0.entry, tier)
    }
}

/// Whether the API answers this path.
#[must_use]
pub fn is_ours(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

impl Api {
    /// `router` holds a handler for each operation of [`route::OPERATIONS`] that this process has; the others are answered with 404.
    #[must_use]
    pub fn new(admission: Admission, router: Router) -> Self {
        Self { admission, router: router.fallback(not_here) }
    }

    /// A handler for [`serve`](crate::serve::serve): the API answers its paths, `rest` the others.
    pub fn handler<F>(
        &self,
        rest: F,
    ) -> impl Fn(Request<hyper::body::Incoming>, SocketAddr) -> HandlerFuture + Clone + Send + Sync + 'static
    where
        F: Fn(Request<hyper::body::Incoming>, SocketAddr) -> HandlerFuture + Clone + Send + Sync + 'static,
    {
        let api = self.clone();
        move |request, peer| {
            if !is_ours(request.uri().path()) {
                return rest(request, peer);
            }
            let api = api.clone();
            Box::pin(async move { api.respond(request, peer).await })
        }
    }

    /// Answers one request of the client at `peer`.
    pub async fn respond<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<GateBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let mut account = self.admission.open_account(Surface::Api, &parts.method, peer.ip().to_canonical());
        let now = Timestamp::now();
        let decided = self.decide(&parts, &mut account, now);
        let code = decided.as_ref().err().map_or(Code::Passed, Problem::code);
        account.write(Stage::RequestReceived, now, code);
        let problem = match (decided, &account.trail.identity) {
            (Ok(delay), Some(identity)) => {
                parts.extensions.insert(Caller(identity.clone()));
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let request = Request::from_parts(parts, axum::body::Body::new(body));
                let answered: Result<_, Infallible> = self.router.clone().oneshot(request).await;
                let answer = answered.unwrap_or_else(|never| match never {});
                return hand_out(account, answer);
            }
            (Ok(_), None) => Problem::from(Refusal::new(Code::Internal, "a request was admitted without an identity")),
            (Err(problem), _) => problem,
        };
        if !body.is_end_stream() && !parts.headers.contains_key(EXPECT) {
            drain(body).await;
        }
        hand_out(account, problem.into_response())
    }

    /// Every decision before the handler is asked. Returns how long the limits want the request to wait.
    fn decide(&self, parts: &Parts, account: &mut Account, now: Timestamp) -> Result<Duration, Problem> {
        let routed = route::route(&parts.method, &parts.uri, parts.version, &parts.headers)?;
        account.trail.operation = Some(routed.operation.name);
        account.trail.target = Some(routed.target);
        let wanted = Wanted { tier: routed.operation.tier, profile: routed.operation.takes_profile() };
        Ok(self.admission.admit(parts, wanted, account, now)?)
    }
}

/// An error that no handler of ours made is our mistake: it gets the shape of all the others.
fn hand_out(account: Box<Account>, answer: Response<axum::body::Body>) -> Response<GateBody> {
    let code = answer.extensions().get::<Code>().copied();
    let is_error = answer.status().is_client_error() || answer.status().is_server_error();
    match code {
        None if is_error => {
            tracing::error!(status = answer.status().as_u16(), "API answered with an error that has no code");
            let problem = Problem::from(Refusal::new(Code::Internal, "the request could not be answered"));
            account.hand_out(Code::Internal, problem.into_response())
        }
        code => account.hand_out(code.unwrap_or(Code::Answered), answer),
    }
}

async fn not_here() -> Problem {
    Refusal::new(Code::UnknownRoute, "this process does not serve that").into()
}

#[cfg(test)]
pub(crate) mod tests;
