//! The gate: who may reach the target's debug endpoints, how often, and what they get.
//!
//! A request meets, in this order: [`route`] (exact table, GET and HEAD only, no body, a query written anew), [`origin`] (DNS rebinding and other
//! sites), the limit of its source address, [`identity`] (a token), [`permit`] (address list and tier), the limit of its identity ([`limit`]),
//! [`upstream`](crate::target::upstream) (a request of our own to the target, the answer handed on frame by frame), [`audit`] (a line at its start
//! and one at its end). Each decision is a pure function of the request, the configuration and the time; [`admission`] joins those that the API takes
//! as well, this file the rest. What is refused gets the answer of [`refuse`], and each code there is also a value of the metric
//! `goscope_gate_requests_total`.
//!
//! A source is charged for every request that got past its limit, also for one with a wrong token, so that guessing is slow. A request that the
//! identity limit refuses charges nothing. HEAD is answered here and starts no profile.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::{GateConfig, TargetAddress};
use crate::serve::Peer;
use crate::target::upstream::{Upstream, UpstreamError};
use account::Account;
use admission::{Admission, Surface, Wanted};
use audit::{AuditSink, Stage};
use body::GateBody;
use metrics::GateMetrics;
use refuse::{Code, Refusal};
use route::{Profile, Route, Routed};
use tokens::TokenStore;

pub(crate) mod account;
pub mod admission;
pub mod audit;
pub mod body;
pub mod identity;
pub mod limit;
pub mod metrics;
pub mod origin;
pub mod permit;
pub mod refuse;
pub mod route;
pub mod tokens;

/// Time that the target gets for an answer in addition to the seconds that were asked for.
const SLACK: Duration = Duration::from_secs(30);
/// How often the token files are looked at.
const RELOAD_PERIOD: Duration = Duration::from_secs(10);
/// Bytes of a refused body that are read away, so that closing the connection does not destroy the answer on its way.
const DRAIN_BYTES: usize = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The gate in front of one target; clones share it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    admission: Admission,
    upstream: Arc<Upstream>,
}

impl Gate {
    #[must_use]
    pub fn new(
        config: GateConfig,
        target: TargetAddress,
        tokens: TokenStore,
        audit: AuditSink,
        metrics: GateMetrics,
    ) -> Self {
        let admission = Admission::new(config, tokens, audit, metrics);
        Self(Arc::new(Inner { admission, upstream: Upstream::pooled(target) }))
    }

    /// What the gate shares with the other routes that ask for a token.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.0.admission
    }

    /// Answers one request of the client at `peer`. Every answer is complete or visibly broken off.
    pub async fn respond<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<GateBody>
    where
        B: Body + Unpin,
    {
        let (parts, body) = request.into_parts();
        let mut account = self.0.admission.open_account(Surface::Gate, &parts.method, peer.ip().to_canonical());
        let now = Timestamp::now();
        let decided = self.decide(&parts, &mut account, now);
        account.write(Stage::RequestReceived, now, decided.as_ref().err().map_or(Code::Passed, |refusal| refusal.code));
        match decided {
            Ok(delay) => {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                self.answer(&parts.method, account).await
            }
            Err(refusal) => {
                if !body.is_end_stream() && !parts.headers.contains_key(EXPECT) {
                    drain(body).await;
                }
                account.refuse(&refusal)
            }
        }
    }

    /// A router that hands every path to the gate. Another router's [`fallback_service`](axum::Router::fallback_service) may be the gate as well.
    pub fn router(&self) -> axum::Router {
        axum::Router::new().fallback_service(self.clone())
    }

    /// A handler for [`serve`](crate::serve::serve): the gate answers everything under `/debug`, `rest` the other paths. Without the detour through
    /// a router the gate's own requests are cheaper.
    pub fn handler(
        &self,
        rest: axum::Router,
    ) -> impl Fn(Request<hyper::body::Incoming>, SocketAddr) -> HandlerFuture + Clone + Send + Sync + 'static {
        let gate = self.clone();
        let rest = crate::serve::routed(rest);
        move |request, peer| {
            let (gate, ours) = (gate.clone(), request.uri().path().starts_with("/debug"));
            if ours {
                return Box::pin(async move { gate.respond(request, peer).await });
            }
            let answer = rest(request, peer);
            Box::pin(async move { answer.await.map(GateBody::Other) })
        }
    }

    /// Reads changed token files, closes idle connections and refreshes gauges until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let tidy = async {
            let mut clock = admission::period();
            loop {
                clock.tick().await;
                self.0.upstream.trim();
            }
        };
        let admission = self.0.admission.clone().run(shutdown.clone());
        tokio::select! {
            () = admission => {}
            () = tidy => {}
        }
    }

    /// Every decision before the target is asked. Returns how long the limits want the request to wait.
    fn decide(&self, parts: &Parts, account: &mut Account, now: Timestamp) -> Result<Duration, Refusal> {
        let admission = &self.0.admission;
        let caps = &admission.config().caps;
        let routed = route::route(&parts.method, &parts.uri, parts.version, &parts.headers, caps)?;
        let tier = match routed {
            Routed::Profile(route) => {
                let tier = route.tier();
                account.trail.target = Some(route.path_and_query());
                account.trail.route = Some(route);
                tier
            }
            Routed::ToIndex => crate::token::tier::Tier::Basic,
        };
        admission.admit(parts, Wanted { tier, profile: true }, account, now)
    }

    async fn answer(&self, method: &Method, account: Box<Account>) -> Response<GateBody> {
        let (Some(route), Some(target)) = (&account.trail.route, &account.trail.target) else {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            response.headers_mut().insert(LOCATION, HeaderValue::from_static(Profile::Index.path()));
            return account.answer_here(response);
        };
        if method == Method::HEAD {
            let mut response = Response::new(Bytes::new());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type(route)));
            return account.answer_here(response);
        }
        let patience = SLACK + Duration::from_millis(route.duration_ms());
        match self.0.upstream.get(target.clone(), patience).await {
            Ok(response) if response.status().is_redirection() => account.refuse(&Refusal::new(
                Code::TargetRedirect,
                "the target answers with a redirect, so its debug endpoints are not where they are expected",
            )),
            // An upgrade: nobody asked for one, and what follows would not be HTTP.
            Ok(response) if response.status().is_informational() => account.refuse(&Refusal::new(
                Code::TargetBadAnswer,
                "the target answers with a change of protocol that nobody asked for",
            )),
            Ok(response) => account.pass(response),
            Err(error) => {
                let address = self.0.upstream.address();
                tracing::debug!(error = &error as &dyn std::error::Error, "target gave no answer");
                account.refuse(&explain(&error, address, patience))
            }
        }
    }
}

/// The future of [`Gate::handler`] and of the gate as a service.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Response<GateBody>> + Send>>;

impl<B> tower::Service<Request<B>> for Gate
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<GateBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<GateBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().copied();
            match peer {
                Some(Peer(peer)) => Ok(gate.respond(request, peer).await),
                // A listener that does not say who asks is a mistake of ours; nobody gets in by it.
                None => Ok(Refusal::new(Code::CannotDecide, "the listener does not say where the request comes from")
                    .response()
                    .map(GateBody::Full)),
            }
        })
    }
}

/// Why the target gave no answer, for the client.
fn explain(error: &UpstreamError, address: &TargetAddress, patience: Duration) -> Refusal {
    let code = match error {
        UpstreamError::Connect(_) => Code::TargetNotListening,
        UpstreamError::Timeout => Code::TargetTimeout,
        UpstreamError::Closed(_) | UpstreamError::Protocol(_) => Code::TargetBadAnswer,
    };
    Refusal::new(code, error.explain(address, patience))
}

/// What Go says of the same request.
fn content_type(route: &Route) -> &'static str {
    match route.profile {
        Profile::Index => "text/html; charset=utf-8",
        Profile::Vars => "application/json; charset=utf-8",
        Profile::Cmdline | Profile::Symbol => "text/plain; charset=utf-8",
        _ if route.debug.is_some_and(|debug| debug > 0) => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Reads a body away, within bounds.
pub(crate) async fn drain<B: Body + Unpin>(mut body: B) {
    let all = async {
        let mut rest = DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Buf::remaining);
            let Some(left) = rest.checked_sub(length) else { return };
            rest = left;
        }
    };
    // What is still missing after that time is cut off with the connection.
    drop(tokio::time::timeout(DRAIN_TIME, all).await);
}
