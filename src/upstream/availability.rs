//! Whether calls to an upstream can succeed, as far as calls, logins and probes show. The log
//! has one line when the upstream goes down and one when it returns.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::Instant;

/// Whether an upstream is available, as far as the latest calls, logins and probes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Health {
    Unknown,
    Healthy,
    Unhealthy,
}

impl Health {
    pub(super) fn of(stored: u8) -> Self {
        match stored {
            1 => Self::Healthy,
            2 => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }
}

/// What can make an upstream unavailable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aspect {
    /// Whether it responds.
    Responds,
    /// Whether the gateway can log in at its identity service.
    LogsIn,
    /// Whether the upstream accepts the credentials.
    Accepts,
}

/// The health of an upstream by aspect.
#[derive(Debug)]
pub(super) struct Availability {
    /// Indexed by [`Aspect`]. Read on every call; written under the lock of `status`.
    aspects: [AtomicU8; 3],
    status: watch::Sender<Status>,
}

#[derive(Debug)]
struct Status {
    health: Health,
    down_since: Instant,
    /// When `health` was set.
    since: SystemTime,
    last_failure: Option<Failure>,
}

/// Why an upstream went down, as the log says it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// The reason, and what to do.
    pub reason: String,
}

/// The health of an upstream, with its history.
#[derive(Clone, Debug)]
pub struct HealthRecord {
    /// The present health.
    pub health: Health,
    /// Since when.
    pub since: SystemTime,
    /// Why the upstream went down last; none if it never did.
    pub last_failure: Option<Failure>,
}

impl Availability {
    /// Creates one of which nothing is known except what the upstream does not need.
    pub(super) fn new(needs_login: bool, needs_credentials: bool) -> Self {
        let needed = |needed: bool| {
            AtomicU8::new(match needed {
                true => Health::Unknown as u8,
                false => Health::Healthy as u8,
            })
        };
        Self {
            aspects: [needed(true), needed(needs_login), needed(needs_credentials)],
            status: watch::Sender::new(Status {
                health: Health::Unknown,
                down_since: Instant::now(),
                since: SystemTime::now(),
                last_failure: None,
            }),
        }
    }

    /// Returns [`Self::health`] with its history.
    pub(super) fn record(&self) -> HealthRecord {
        let status = self.status.borrow();
        HealthRecord {
            health: status.health,
            since: status.since,
            last_failure: status.last_failure.clone(),
        }
    }

    /// Returns the health of one aspect.
    pub(super) fn aspect(&self, aspect: Aspect) -> Health {
        Health::of(self.aspects[aspect as usize].load(Relaxed))
    }

    /// Returns whether calls can succeed: healthy if all aspects are, unhealthy if one is.
    pub(super) fn health(&self) -> Health {
        self.status.borrow().health
    }

    /// Returns a receiver that is notified when [`Self::health`] changes.
    pub(super) fn changes(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.status.subscribe();
        async move {
            // The sender is dropped with the upstream.
            let _ = changes.changed().await;
        }
    }

    /// Stores the health of an aspect. `reason` says why it is unhealthy, and what to do.
    pub(super) fn set(
        &self,
        upstream: &str,
        aspect: Aspect,
        health: Health,
        reason: impl FnOnce() -> String,
    ) {
        let cell = &self.aspects[aspect as usize];
        if cell.load(Relaxed) == health as u8 {
            return;
        }
        self.status.send_if_modified(|status| {
            cell.store(health as u8, Relaxed);
            let before = status.health;
            match (before, self.overall()) {
                (before, now) if before == now => return false,
                // It returns when it is known to.
                (Health::Unhealthy, Health::Unknown) => return false,
                (_, Health::Unhealthy) => {
                    status.health = Health::Unhealthy;
                    status.down_since = Instant::now();
                    let failure = Failure {
                        at: SystemTime::now(),
                        reason: reason(),
                    };
                    tracing::warn!(upstream, reason = failure.reason, "upstream is down");
                    status.last_failure = Some(failure);
                }
                (Health::Unhealthy, Health::Healthy) => {
                    status.health = Health::Healthy;
                    let down_secs = status.down_since.elapsed().as_secs();
                    tracing::info!(upstream, down_secs, "upstream is up again");
                }
                (_, now) => {
                    status.health = now;
                    tracing::debug!(upstream, health = ?now, "upstream");
                }
            }
            status.since = SystemTime::now();
            true
        });
    }

    fn overall(&self) -> Health {
        let aspects = || self.aspects.iter().map(|a| Health::of(a.load(Relaxed)));
        if aspects().any(|health| health == Health::Unhealthy) {
            Health::Unhealthy
        } else if aspects().all(|health| health == Health::Healthy) {
            Health::Healthy
        } else {
            Health::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Aspect::{Accepts, LogsIn, Responds};
    use super::Health::{Healthy, Unhealthy, Unknown};
    use super::*;

    #[test]
    fn upstream_is_down_while_one_aspect_is() {
        let availability = Availability::new(true, true);
        for (aspect, health, want) in [
            (Responds, Healthy, Unknown),
            (LogsIn, Healthy, Unknown),
            (Accepts, Healthy, Healthy),
            (LogsIn, Unhealthy, Unhealthy),
            (Responds, Unhealthy, Unhealthy),
            (LogsIn, Healthy, Unhealthy),
            (Responds, Healthy, Healthy),
            (Accepts, Unhealthy, Unhealthy),
            // It returns when it is known to.
            (Accepts, Unknown, Unhealthy),
            (Accepts, Healthy, Healthy),
        ] {
            availability.set("u", aspect, health, || "reason".to_owned());
            assert_eq!(availability.health(), want, "{aspect:?} {health:?}");
            assert_eq!(availability.aspect(aspect), health);
        }
    }

    #[test]
    fn what_the_upstream_does_not_need_is_healthy() {
        for (login, credentials) in [(false, false), (false, true), (true, true)] {
            let availability = Availability::new(login, credentials);
            availability.set("u", Responds, Healthy, String::new);
            let needs_nothing = !login && !credentials;
            assert_eq!(availability.health() == Healthy, needs_nothing);
        }
    }

    #[tokio::test]
    async fn changes_are_notified() {
        let availability = Availability::new(false, false);
        let change = availability.changes();
        availability.set("u", Responds, Healthy, String::new);
        change.await;
    }
}
