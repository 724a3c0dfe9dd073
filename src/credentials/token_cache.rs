//! Keeps a lease: read without a lock, renewed ahead of its end, by one login at
//! a time however many callers wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use super::credential;
use crate::credentials::credential::{Grant, Lease, Phase};
use crate::deadline::Deadline;
use crate::error::Error;

/// How long a login may last.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// For how long a refused login is not tried again: at first, and at most. It
/// doubles each time, so that a wrong password does not lock its account.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// For how long a login that met no answer is not tried again.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// Where a fresh lease that followed a refusal is refused as well, logging in
/// again does not help; it is done at most this often.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Logs in once.
type Login =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Grant, Error>> + Send>> + Send + Sync>;

/// None while under way.
type Outcome = Option<Result<Arc<Lease>, Error>>;

/// The lease of one upstream.
pub(super) struct Keeper(Arc<Shared>);

struct Shared {
    login: Login,
    current: ArcSwapOption<Lease>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The login under way.
    flight: Option<watch::Receiver<Outcome>>,
    /// The last login's failure, told until this instant instead of trying.
    failure: Option<(Error, Instant)>,
    /// Logins refused in a row.
    refusals: u32,
    /// The last lease was refused and not replaced yet.
    lease_refused: bool,
}

/// What asking for a login comes to.
enum Asked {
    /// Somebody else's login has just ended well.
    Ready(Arc<Lease>),
    /// It is too early to try again.
    Failed(Error),
    /// It is under way.
    Flying(watch::Receiver<Outcome>),
}

impl Keeper {
    pub(super) fn new(login: Login) -> Self {
        Self(Arc::new(Shared {
            login,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        }))
    }

    pub(super) async fn lease(&self, deadline: Deadline) -> Result<Arc<Lease>, Error> {
        if let Some(lease) = self.0.current.load_full() {
            match lease.phase(Instant::now()) {
                Phase::Fresh => return Ok(lease),
                Phase::Aging => {
                    self.0.ask();
                    return Ok(lease);
                }
                Phase::Spent => {}
            }
        }
        match self.0.ask() {
            Asked::Ready(lease) => Ok(lease),
            Asked::Failed(error) => Err(error),
            Asked::Flying(mut flight) => deadline.bound(landed(&mut flight)).await?,
        }
    }

    /// See [`super::Credentials::refuse`].
    pub(super) fn refuse(&self, lease: &Arc<Lease>) -> bool {
        let mut state = self.0.state();
        let current = self.0.current.load_full();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, lease)) {
            return true;
        }
        if lease.follows_refusal && lease.since.elapsed() < AFTER_REFUSAL {
            return false;
        }
        self.0.current.store(None);
        state.lease_refused = true;
        true
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the login under way or starts one. It runs in a task of its own, so
    /// that no caller who leaves breaks it off for the others.
    fn ask(self: &Arc<Self>) -> Asked {
        let mut state = self.state();
        let now = Instant::now();
        if let Some(lease) = self.current.load_full()
            && lease.phase(now) == Phase::Fresh
        {
            return Asked::Ready(lease);
        }
        // A flight whose task is gone without an outcome is none.
        if let Some(flight) = state.flight.clone().filter(|f| f.has_changed().is_ok()) {
            return Asked::Flying(flight);
        }
        if let Some((error, until)) = &state.failure
            && now < *until
        {
            return Asked::Failed(error.clone());
        }
        let (sender, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let follows_refusal = state.lease_refused;
        drop(state);
        let shared = self.clone();
        tokio::spawn(async move {
            let result = tokio::time::timeout(LOGIN_TIMEOUT, (shared.login)()).await;
            let result = result.unwrap_or_else(|_| {
                Err(credential(
                    Code::Unavailable,
                    format!("the login had no answer in {} s", LOGIN_TIMEOUT.as_secs()),
                ))
            });
            let result = result.map(|grant| Arc::new(Lease::new(grant, now, follows_refusal)));
            let result = result.map_err(login);
            shared.land(&result);
            sender.send_replace(Some(result));
        });
        Asked::Flying(flight)
    }

    /// Takes in how a login ended.
    fn land(&self, result: &Result<Arc<Lease>, Error>) {
        let mut state = self.state();
        state.flight = None;
        match result {
            Ok(lease) => {
                tracing::debug!(project_id = lease.project_id, "logged in");
                state.failure = None;
                state.refusals = 0;
                state.lease_refused = false;
                self.current.store(Some(lease.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "login failed");
                let pause = match error {
                    Error::Login { code, .. } if *code != Code::Unavailable => {
                        let (first, most) = REFUSED;
                        let pause = first * 2_u32.pow(state.refusals.min(6));
                        state.refusals = state.refusals.saturating_add(1);
                        pause.min(most)
                    }
                    _ => UNAVAILABLE,
                };
                state.failure = Some((error.clone(), Instant::now() + pause));
            }
        }
    }
}

/// The error of a login, which is nothing for callers.
fn login(error: Error) -> Error {
    match error {
        Error::Credential { code, problem } => Error::Login { code, problem },
        error => error,
    }
}

/// Waits for the outcome of a login.
async fn landed(flight: &mut watch::Receiver<Outcome>) -> Result<Arc<Lease>, Error> {
    let broken = || login(credential(Code::Unavailable, "the login was broken off"));
    match flight.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(broken())),
        Err(_) => Err(broken()),
    }
}

#[cfg(test)]
mod tests;
