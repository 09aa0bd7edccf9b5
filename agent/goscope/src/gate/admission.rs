//! Who may come in: what the gate and the API decide alike about every request, with the books of each.
//!
//! The order is origin ([`origin`]), limit of the source, [`identity`], address list and tier ([`permit`]), limit of the identity; all limits are
//! checked before any is charged. What a request asks for, and so which tier it needs, the door in front has read already.
//!
//! Each [`Surface`] has limits of its own, because a page or `goscope ctl` asks the API several times a second and must not use up what is meant
//! for profiles. A request to the API that has the target make a profile (`Wanted::profile`) meets both pairs. At the gate a wrong credential is charged like every other request. At the API it is charged to a third limit instead, as narrow as
//! `gate.limits.perSource`, and a source that is over it gets 429 for each further wrong one. The right ones pass all the same: over a port-forward all
//! clients have one address, and one of them with an old token must not shut out the others. Against guessing stands how random a token is, not a limit.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio_util::sync::CancellationToken;

use super::account::{Account, Trail};
use super::audit::{AuditId, AuditSink};
use super::identity::{self, Identity};
use super::limit::{Limiter, Verdict};
use super::metrics::{GateMetrics, LimitOf, LimitVerdict};
use super::refuse::{self, Code, Refusal};
use super::tokens::{Reload, TokenStore};
use super::{RELOAD_PERIOD, origin, permit};
use crate::config::GateConfig;
use crate::tls::Certificate;
use crate::token::tier::Tier;

/// Which door a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/debug/…`.
    Gate,
    /// `/api/…`.
    Api,
}

/// What a request asks for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What its token must have.
    pub(crate) tier: Tier,
    /// It has the target make a profile, so the gate's limits hold for it, whichever door it came to.
    pub(crate) profile: bool,
}

/// Tokens, address list, limits and audit trail of one agent; clones share them.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: GateConfig,
    tokens: Arc<TokenStore>,
    audit: AuditSink,
    metrics: GateMetrics,
    limits: Mutex<Limits>,
    /// The clock of the limits counts from here.
    started: Instant,
    audit_start: u64,
}

#[derive(Debug)]
struct Limits {
    gate: Pair,
    api: Pair,
    /// Wrong credentials at the API, by source.
    failures: Limiter<IpAddr>,
    requests: u64,
}

/// The two limits that a request of one surface meets.
#[derive(Debug)]
struct Pair {
    sources: Limiter<IpAddr>,
    identities: Limiter<Arc<str>>,
}

impl Pair {
    /// Books a request that both have admitted, where they do not count on trial only. Returns how long it has to wait.
    fn charge(
        &mut self,
        by_source: Option<Duration>,
        by_identity: Option<Duration>,
        source: IpAddr,
        name: &Arc<str>,
        now_ms: u64,
    ) -> Duration {
        if by_source.is_some() {
            self.sources.charge(&source, now_ms);
        }
        if by_identity.is_some() {
            self.identities.charge(name, now_ms);
        }
        by_source.unwrap_or_default().max(by_identity.unwrap_or_default())
    }
}

impl Admission {
    #[must_use]
    pub fn new(config: GateConfig, tokens: TokenStore, audit: AuditSink, metrics: GateMetrics) -> Self {
        let mut random = [0; 8];
        // Without random numbers the ids of two starts could repeat; the time makes that unlikely.
        if SystemRandom::new().fill(&mut random).is_err() {
            random = Timestamp::now().as_microsecond().to_le_bytes();
        }
        let pair = |source, identity| Pair { sources: Limiter::new(source), identities: Limiter::new(identity) };
        let limits = Limits {
            gate: pair(config.per_source, config.per_identity),
            api: pair(config.api, config.api),
            failures: Limiter::new(config.per_source),
            requests: 0,
        };
        let admission = Self(Arc::new(Inner {
            config,
            tokens: Arc::new(tokens),
            audit,
            metrics,
            limits: Mutex::new(limits),
            started: Instant::now(),
            audit_start: u64::from_le_bytes(random),
        }));
        admission.report();
        admission
    }

    /// Reads changed token files and refreshes gauges until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        // Two loops, so that a volume that does not answer does not hold up the gauges.
        let both = async { tokio::join!(self.follow_token_files(), self.keep_reporting()) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = both => {}
        }
    }

    /// Waits until the token files can be used; for `/readyz`.
    pub async fn knows_tokens(&self) {
        self.0.tokens.usable().await;
    }

    /// The tokens, for those who tell about them.
    #[must_use]
    pub fn tokens(&self) -> &TokenStore {
        &self.0.tokens
    }

    pub(super) fn config(&self) -> &GateConfig {
        &self.0.config
    }

    pub(super) fn audit(&self) -> &AuditSink {
        &self.0.audit
    }

    pub(super) fn metrics(&self) -> &GateMetrics {
        &self.0.metrics
    }

    /// Opens the books of one request; the number in its audit id is taken here.
    pub(crate) fn open_account(&self, surface: Surface, method: &Method, source: IpAddr) -> Box<Account> {
        let number = {
            let mut limits = self.limits();
            limits.requests += 1;
            limits.requests
        };
        let id = AuditId { start: self.0.audit_start, number };
        Box::new(Account::open(self.clone(), surface, id, verb(method), source))
    }

    /// Decides about a request whose route is known. Returns how long the limits want it to wait.
    pub(crate) fn admit(
        &self,
        parts: &Parts,
        wanted: Wanted,
        account: &mut Account,
        now: Timestamp,
    ) -> Result<Duration, Refusal> {
        let inner = &*self.0;
        let certificate = parts.extensions.get::<Arc<Certificate>>();
        origin::check(&parts.headers, certificate.map(Arc::as_ref))?;

        let (surface, began) = (account.surface, account.began);
        let trail = &mut account.trail;
        let now_ms = u64::try_from(began.saturating_duration_since(inner.started).as_millis()).unwrap_or(u64::MAX);
        let mut limits = self.limits();
        let Limits { gate, api, failures, .. } = &mut *limits;
        let (pair, of_source, of_identity, profiles) = match surface {
            Surface::Gate => (gate, LimitOf::Source, LimitOf::Identity, None),
            Surface::Api => (api, LimitOf::ApiSource, LimitOf::ApiIdentity, wanted.profile.then_some(gate)),
        };
        let by_source = pair.sources.check(&trail.source, now_ms);
        let source_delay = self.heed(of_source, by_source, trail)?;
        let permitted = self.identify(&parts.headers, now).and_then(|identity| {
            let verdict = permit::permit(trail.source, &inner.config.allow, &identity.entry, wanted.tier);
            trail.identity = Some(identity);
            verdict
        });
        if let Err(refusal) = permitted {
            if surface == Surface::Api && refusal.code.status() == StatusCode::UNAUTHORIZED {
                let by_failures = failures.check(&trail.source, now_ms);
                if self.heed(LimitOf::ApiFailures, by_failures, trail)?.is_some() {
                    failures.charge(&trail.source, now_ms);
                }
            } else if source_delay.is_some() {
                pair.sources.charge(&trail.source, now_ms);
            }
            return Err(refusal);
        }
        let name = trail.identity.as_ref().map(|identity| Arc::clone(&identity.entry.name)).unwrap_or_default();
        let by_identity = pair.identities.check(&name, now_ms);
        let identity_delay = self.heed(of_identity, by_identity, trail)?;
        let mut profile_delay = Duration::ZERO;
        if let Some(profiles) = profiles {
            let by_source = profiles.sources.check(&trail.source, now_ms);
            let source_delay = self.heed(LimitOf::Source, by_source, trail)?;
            let by_identity = profiles.identities.check(&name, now_ms);
            let identity_delay = self.heed(LimitOf::Identity, by_identity, trail)?;
            profile_delay = profiles.charge(source_delay, identity_delay, trail.source, &name, now_ms);
        }
        Ok(profile_delay.max(pair.charge(source_delay, identity_delay, trail.source, &name, now_ms)))
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
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
                let (code, too_many) = match limit {
                    LimitOf::Source | LimitOf::ApiSource => (Code::SourceLimit, "requests from this address"),
                    LimitOf::ApiFailures => (Code::SourceLimit, "wrong credentials from this address"),
                    LimitOf::Identity | LimitOf::ApiIdentity => (Code::IdentityLimit, "requests with this token"),
                };
                let wait = refuse::whole_seconds(retry_after);
                let mut refusal = Refusal::new(code, format!("too many {too_many}; try again in {wait} s"));
                refusal.retry_after = Some(retry_after);
                Err(refusal)
            }
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

    async fn keep_reporting(&self) {
        let mut clock = period();
        loop {
            clock.tick().await;
            self.report();
        }
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
}

pub(super) fn period() -> tokio::time::Interval {
    let mut clock = tokio::time::interval(RELOAD_PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    clock
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
