//! Health of upstreams: logs in at start, without blocking it, then probes. Reports gRPC
//! health: a service is NOT_SERVING when all upstreams of its family are down.

use std::sync::Arc;
use std::time::Duration;

use drawbridge_transcoder::contract::Method;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic_health::ServingStatus;

use super::health_service::HealthRegistry;
use crate::credentials::Settings;
use crate::deadline::Deadline;
use crate::engine::health_check;
use crate::error::Error;
use crate::upstream::{Health, Upstream};

/// A service and the upstreams that can serve it.
#[derive(Clone, Debug)]
pub struct ProbedService {
    pub name: String,
    pub upstreams: Vec<Arc<Upstream>>,
    /// The health check of the family.
    pub health_check: Option<Arc<Method>>,
}

/// Longest time of one login or probe.
const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before a failed probe of an upstream that has responded before is repeated: a single
/// failure can be an idle connection that the upstream closed.
const CONFIRMATION_PAUSE: Duration = Duration::from_secs(1);

/// Minimum time between checks that failing calls request.
const MIN_REQUESTED_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after the credentials were rejected: initial and maximum. It doubles each time, so
/// that a wrong password does not lock its account.
const REJECTED_BACKOFF: Duration = Duration::from_secs(5);
const MAX_REJECTED_BACKOFF: Duration = Duration::from_secs(300);

/// Checks the upstreams every `interval` and reports the services' status, until dropped. With
/// an interval of zero, only what calls show is reported. The checks of an upstream that is
/// among the next services, too, continue.
pub async fn probe_and_report(
    registry: HealthRegistry,
    mut services: watch::Receiver<Vec<ProbedService>>,
    interval: Duration,
) {
    let changed = Arc::new(Notify::new());
    let mut probed: Vec<ProbedUpstream> = Vec::new();
    loop {
        let current = services.borrow_and_update().clone();
        let mut next: Vec<ProbedUpstream> = Vec::new();
        for service in &current {
            for upstream in &service.upstreams {
                let check = service.health_check.as_ref();
                if next
                    .iter()
                    .any(|known| Arc::ptr_eq(&known.upstream, upstream))
                {
                    continue;
                }
                let known = probed
                    .iter()
                    .position(|known| known.is_for(upstream, check));
                next.push(match known {
                    Some(known) => probed.swap_remove(known),
                    None => ProbedUpstream::new(upstream, check, interval, &changed),
                });
            }
        }
        probed = next;
        loop {
            for service in &current {
                registry.set(&service.name, status(&service.upstreams));
            }
            tokio::select! {
                () = changed.notified() => {}
                Ok(()) = services.changed() => break,
            }
        }
    }
}

/// An upstream and the tasks that check it, which end with this value.
struct ProbedUpstream {
    upstream: Arc<Upstream>,
    check: Option<Arc<Method>>,
    _tasks: JoinSet<()>,
}

impl ProbedUpstream {
    fn new(
        upstream: &Arc<Upstream>,
        check: Option<&Arc<Method>>,
        interval: Duration,
        changed: &Arc<Notify>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(forward_changes(upstream.clone(), changed.clone()));
        if !interval.is_zero() {
            tasks.spawn(Probes::new(upstream.clone(), check.cloned(), interval).run());
        }
        Self {
            upstream: upstream.clone(),
            check: check.cloned(),
            _tasks: tasks,
        }
    }

    fn is_for(&self, upstream: &Arc<Upstream>, check: Option<&Arc<Method>>) -> bool {
        let same_check = self.check.as_ref().map(Arc::as_ptr) == check.map(Arc::as_ptr);
        same_check && Arc::ptr_eq(&self.upstream, upstream)
    }
}

/// Notifies of each change of an upstream's health.
async fn forward_changes(upstream: Arc<Upstream>, changed: Arc<Notify>) {
    loop {
        let change = upstream.health_change();
        changed.notify_one();
        change.await;
    }
}

/// The health checks of one upstream.
struct Probes {
    upstream: Arc<Upstream>,
    check: Option<Arc<Method>>,
    interval: Duration,
    /// Whether an upstream without credentials has responded to the read of its family.
    is_verified: bool,
    /// Consecutive rejections of the credentials.
    rejections: u32,
    /// When the credentials may be checked again.
    next_check: Instant,
}

impl Probes {
    fn new(upstream: Arc<Upstream>, check: Option<Arc<Method>>, interval: Duration) -> Self {
        Self {
            upstream,
            check,
            interval,
            is_verified: false,
            rejections: 0,
            next_check: Instant::now(),
        }
    }

    async fn run(mut self) {
        loop {
            let started = Instant::now();
            self.round().await;
            // Spreads the probes of many gateways and upstreams.
            let jitter = self.interval.mul_f64(0.2 * fastrand::f64());
            let next = started + self.interval.mul_f64(0.9) + jitter;
            let mut latest = started;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = self.upstream.check_requested() => {
                        if self.upstream.accepts_credentials() == Health::Healthy {
                            self.next_check = Instant::now();
                            self.rejections = 0;
                        }
                        sleep_until(latest + MIN_REQUESTED_INTERVAL).await;
                        self.verify(false).await;
                        break;
                    }
                    () = self.upstream.probe_requested() => {
                        sleep_until(latest + MIN_REQUESTED_INTERVAL).await;
                        latest = Instant::now();
                        self.confirm().await;
                    }
                }
            }
        }
    }

    /// Checks whether the upstream responds to the gateway, too, after calls have failed: by the
    /// read of the family if its credentials are accepted, else by the probe.
    async fn confirm(&mut self) {
        let upstream = self.upstream.clone();
        let can_read = upstream.accepts_credentials() == Health::Healthy;
        if can_read && self.verify(false).await {
            return;
        }
        if let Some(result) = upstream.probe(self.timeout()).await {
            upstream.record_response(&result);
        }
    }

    /// Logs in and makes the read of the family, with the credentials: they can be revoked at
    /// any time. Probes if that shows nothing.
    async fn round(&mut self) {
        let auth = &self.upstream.settings.auth;
        if auth.has_login() && self.upstream.log_in(self.deadline()).await.is_err() {
            self.probe().await;
            return;
        }
        if !self.verify(true).await {
            self.probe().await;
        }
    }

    fn timeout(&self) -> Duration {
        self.interval.min(MAX_PROBE_TIMEOUT)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout())
    }

    /// Makes the read of the family, unless only clients have credentials or they were rejected
    /// just now. A token that is rejected is replaced by one login. Returns whether the read has
    /// shown anything; `repeats`: a failure that the probe is to confirm shows nothing.
    async fn verify(&mut self, repeats: bool) -> bool {
        let upstream = &self.upstream;
        let auth = &upstream.settings.auth;
        let known = upstream.accepts_credentials() == Health::Healthy
            && (auth.is_held() || self.is_verified);
        // Of passthrough, only clients have credentials.
        if matches!(auth, Settings::Passthrough) {
            return false;
        }
        let Some(method) = &self.check else {
            self.is_verified = true;
            upstream.record_unverified();
            return false;
        };
        if Instant::now() < self.next_check {
            return false;
        }
        let result = health_check::read(upstream, method, self.deadline(), false).await;
        let reason = |error: &Error| health_check::explain(upstream, Some(method), error);
        match &result {
            Err(Error::Connect(_) | Error::NoResponse(_) | Error::Deadline { .. })
                if repeats && upstream.responds() == Health::Healthy =>
            {
                return false;
            }
            Ok(()) => {
                self.is_verified = true;
                self.rejections = 0;
                upstream.record_probe(Ok(()), String::new);
            }
            Err(error) => {
                let rejected = matches!(error, Error::Upstream(f) if f.credential_rejected);
                self.is_verified |= !rejected && !error.is_transient();
                if rejected {
                    self.next_check = Instant::now() + self.backoff();
                } else if !known && !error.is_transient() && !is_of_login(error) {
                    tracing::warn!(
                        upstream = upstream.settings.name,
                        reason = reason(error),
                        "the health check failed"
                    );
                }
                if is_of_configuration(error) {
                    // Another check would fail, too.
                    self.upstream.record_unverified();
                    return false;
                }
                let error = result.as_ref().map(|_| ());
                self.upstream.record_probe(error, || match &result {
                    Err(error) => {
                        health_check::explain(&self.upstream, self.check.as_deref(), error)
                    }
                    Ok(()) => String::new(),
                });
            }
        }
        true
    }

    /// Returns the pause after another rejection of the credentials.
    fn backoff(&mut self) -> Duration {
        // Five rejected signatures lock an access key.
        // Source: docs/apis/servicestage.md, "Codes".
        if self.upstream.settings.auth.kind() == "ak_sk" {
            return Duration::from_secs(86_400);
        }
        let pause = REJECTED_BACKOFF * 2_u32.pow(self.rejections.min(6));
        self.rejections = self.rejections.saturating_add(1);
        pause.min(MAX_REJECTED_BACKOFF)
    }

    async fn probe(&self) {
        let upstream = &self.upstream;
        let Some(mut result) = upstream.probe(self.timeout()).await else {
            return;
        };
        if result.is_err() && upstream.responds() == Health::Healthy {
            sleep(CONFIRMATION_PAUSE).await;
            result = upstream.probe(self.timeout()).await.unwrap_or(result);
        }
        upstream.record_response(&result);
    }
}

/// Returns whether the login has failed, which is recorded already.
fn is_of_login(error: &Error) -> bool {
    matches!(error, Error::Login { .. } | Error::Credential { .. })
}

/// Returns whether the read cannot be sent as configured, for example without a project.
fn is_of_configuration(error: &Error) -> bool {
    matches!(
        error,
        Error::Binding { .. } | Error::NotConfigured(_) | Error::PlaintextCredentials { .. }
    )
}

/// Returns the status of a service. An upstream of which nothing is known counts as healthy.
pub fn status(upstreams: &[Arc<Upstream>]) -> ServingStatus {
    if upstreams.iter().any(|u| u.health() != Health::Unhealthy) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}
