//! The gate: who may reach the target's debug endpoints, how often, and what they get.
//!
//! A request meets, in this order: [`route`] (exact table, GET and HEAD only, no body, a query written anew), [`origin`] (DNS rebinding and other
//! sites), the limit of its source address, [`identity`] (a token), [`permit`] (address list and tier), the limit of its identity ([`limit`]),
//! [`upstream`](crate::target::upstream) (a request of our own to the target, the answer handed on frame by frame), [`audit`] (a line at its start and one at its end). Each
//! decision is a pure function of the request, the configuration and the time; this file joins them. What is refused gets the answer of
//! [`refuse`], and each code there is also a value of the metric `goscope_gate_requests_total`.
//!
//! A source is charged for every request that got past its limit, also for one with a wrong token, so that guessing is slow. A request that the
//! identity limit refuses charges nothing. HEAD is answered here and starts no profile.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio_util::sync::CancellationToken;

use crate::config::{GateConfig, TargetAddress};
use crate::serve::Peer;
use crate::target::upstream::{Upstream, UpstreamError};
use crate::tls::Certificate;
use account::{Account, Trail};
use audit::{AuditId, AuditSink, Stage};
use body::GateBody;
use identity::Identity;
use limit::{Limiter, Verdict};
use metrics::{GateMetrics, LimitOf, LimitVerdict};
use refuse::{Code, Refusal};
use route::{Profile, Route, Routed};
use tokens::{Reload, TokenStore};

mod account;
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
    config: GateConfig,
    tokens: Arc<TokenStore>,
    upstream: Arc<Upstream>,
    audit: AuditSink,
    metrics: GateMetrics,
    limits: Mutex<Limits>,
    /// The clock of the limits counts from here.
    started: Instant,
    audit_start: u64,
}

#[derive(Debug)]
struct Limits {
    sources: Limiter<IpAddr>,
    identities: Limiter<Arc<str>>,
    requests: u64,
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
        let mut random = [0; 8];
        // Without random numbers the ids of two starts could repeat; the time makes that unlikely.
        if SystemRandom::new().fill(&mut random).is_err() {
            random = Timestamp::now().as_microsecond().to_le_bytes();
        }
        let limits = Limits {
            sources: Limiter::new(config.per_source),
            identities: Limiter::new(config.per_identity),
            requests: 0,
        };
        let gate = Self(Arc::new(Inner {
            config,
            tokens: Arc::new(tokens),
            upstream: Upstream::pooled(target),
            audit,
            metrics,
            limits: Mutex::new(limits),
            started: Instant::now(),
            audit_start: u64::from_le_bytes(random),
        }));
        gate.report();
        gate
    }

    /// Answers one request of the client at `peer`. Every answer is complete or visibly broken off.
    pub async fn respond<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<GateBody>
    where
        B: Body + Unpin,
    {
        let (parts, body) = request.into_parts();
        let mut account = self.open_account(&parts.method, peer.ip().to_canonical());
        let now = Timestamp::now();
        let decided = self.decide(&parts, &mut account.trail, account.began, now);
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
        // Two loops, so that a volume that does not answer holds up neither connections nor gauges.
        let both = async { tokio::join!(self.follow_token_files(), self.tidy()) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = both => {}
        }
    }

    /// Reads the token files off the async thread, one reading at a time.
    async fn follow_token_files(&self) {
        let mut clock = period();
        loop {
            clock.tick().await;
            let tokens = Arc::clone(&self.0.tokens);
            match tokio::task::spawn_blocking(move || tokens.reload()).await {
                Ok(Reload::Unchanged) => continue,
                Ok(Reload::Loaded(tokens)) => tracing::info!(tokens, "token files read"),
                Ok(Reload::Broken(error)) => {
                    tracing::error!(%error, "token files cannot be used, the earlier tokens stay");
                }
                Err(error) => tracing::error!(%error, "token files were not read to their end"),
            }
            self.report();
        }
    }

    async fn tidy(&self) {
        let mut clock = period();
        loop {
            clock.tick().await;
            self.report();
            self.0.upstream.trim();
        }
    }

    /// Waits until the token files can be used; for `/readyz`.
    pub async fn knows_tokens(&self) {
        self.0.tokens.usable().await;
    }

    fn report(&self) {
        let inner = &*self.0;
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        inner.metrics.tokens.set(inner.tokens.current().map_or(0, |set| gauge(set.len())));
        inner.metrics.token_files_broken.set(i64::from(inner.tokens.problem().is_some()));
        let losses = inner.audit.losses();
        inner.metrics.audit_dropped.set(losses.dropped.try_into().unwrap_or(i64::MAX));
        inner.metrics.audit_failed.set(losses.failed_writes.try_into().unwrap_or(i64::MAX));
    }

    fn open_account(&self, method: &Method, source: IpAddr) -> Box<Account> {
        let number = {
            let mut limits = self.limits();
            limits.requests += 1;
            limits.requests
        };
        let id = AuditId { start: self.0.audit_start, number };
        Box::new(Account::open(self.clone(), id, verb(method), source))
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every decision before the target is asked. Returns how long the limits want the request to wait.
    fn decide(&self, parts: &Parts, trail: &mut Trail, began: Instant, now: Timestamp) -> Result<Duration, Refusal> {
        let inner = &*self.0;
        let routed = route::route(&parts.method, &parts.uri, parts.version, &parts.headers, &inner.config.caps)?;
        let tier = match routed {
            Routed::Profile(route) => {
                let tier = route.tier();
                trail.target = Some(route.path_and_query());
                trail.route = Some(route);
                tier
            }
            Routed::ToIndex => crate::token::tier::Tier::Basic,
        };
        let certificate = parts.extensions.get::<Arc<Certificate>>();
        origin::check(&parts.headers, certificate.map(Arc::as_ref))?;

        let now_ms = u64::try_from(began.saturating_duration_since(inner.started).as_millis()).unwrap_or(u64::MAX);
        let mut limits = self.limits();
        let by_source = limits.sources.check(&trail.source, now_ms);
        let source_delay = self.heed(LimitOf::Source, by_source, trail)?;
        let permitted = self.identify(&parts.headers, now).and_then(|identity| {
            let rules = &inner.config.allow;
            let verdict = permit::permit(trail.source, rules, &identity.entry, tier);
            trail.identity = Some(identity);
            verdict
        });
        if let Err(refusal) = permitted {
            if source_delay.is_some() {
                limits.sources.charge(&trail.source, now_ms);
            }
            return Err(refusal);
        }
        let name = trail.identity.as_ref().map(|identity| Arc::clone(&identity.entry.name)).unwrap_or_default();
        let by_identity = limits.identities.check(&name, now_ms);
        let identity_delay = self.heed(LimitOf::Identity, by_identity, trail)?;
        if source_delay.is_some() {
            limits.sources.charge(&trail.source, now_ms);
        }
        if identity_delay.is_some() {
            limits.identities.charge(&name, now_ms);
        }
        Ok(source_delay.unwrap_or_default().max(identity_delay.unwrap_or_default()))
    }

    fn identify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, Refusal> {
        let tokens = self.0.tokens.current().ok_or_else(|| {
            Refusal::new(
                Code::CannotDecide,
                "the token files could not be read, so nobody can be let in; the agent's log says why",
            )
        })?;
        identity::identify(headers, &tokens, now)
    }

    /// `None`: would have been refused, is let through on trial and not charged.
    fn heed(&self, limit: LimitOf, verdict: Verdict, trail: &mut Trail) -> Result<Option<Duration>, Refusal> {
        match verdict {
            Verdict::Pass { delay } => {
                self.0.metrics.limit(limit, LimitVerdict::Passed);
                Ok(Some(delay))
            }
            Verdict::RefuseDryRun => {
                self.0.metrics.limit(limit, LimitVerdict::RejectedDryRun);
                trail.limit = Some("REJECTED_DRY_RUN");
                Ok(None)
            }
            Verdict::Refuse { retry_after } => {
                self.0.metrics.limit(limit, LimitVerdict::Rejected);
                trail.limit = Some("REJECTED");
                let (code, of) = match limit {
                    LimitOf::Source => (Code::SourceLimit, "from this address"),
                    LimitOf::Identity => (Code::IdentityLimit, "with this token"),
                };
                let sentence = format!("too many requests {of}; try again in {} s", refuse::whole_seconds(retry_after));
                let mut refusal = Refusal::new(code, sentence);
                refusal.retry_after = Some(retry_after);
                Err(refusal)
            }
        }
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

fn period() -> tokio::time::Interval {
    let mut clock = tokio::time::interval(RELOAD_PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    clock
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

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::DELETE => "delete",
        _ => "other",
    }
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
async fn drain<B: Body + Unpin>(mut body: B) {
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
