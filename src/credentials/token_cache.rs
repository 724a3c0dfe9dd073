//! Token refresh: caches the credential of one upstream's login. Reads take no lock; the
//! token is refreshed before it expires, by one login at a time for all waiting calls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::credentials::credential::{Credential, IssuedToken, Validity};
use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::{Error, LoginFailure};

/// Timeout of one attempt of a login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a rejected login: initial and maximum. It doubles each time, so that a wrong
/// password does not lock its account.
const REJECTED_LOGIN_BACKOFF: Duration = Duration::from_secs(5);
const MAX_REJECTED_LOGIN_BACKOFF: Duration = Duration::from_secs(300);

/// Pause after an attempt that failed for a moment: initial and maximum. It doubles each
/// time; `Retry-After` makes it longer.
const UNAVAILABLE_BACKOFF: Duration = Duration::from_millis(100);
const MAX_UNAVAILABLE_BACKOFF: Duration = Duration::from_secs(1);

/// Pause after a response that is none of an identity service, or an untrusted certificate:
/// the next attempt is likely to fail, too.
const FAILED_BACKOFF: Duration = Duration::from_secs(5);

/// How long attempts that fail are repeated. After it, the identity service counts as down:
/// each login makes one attempt, so that calls fail quickly.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// Minimum time between logins whose tokens are rejected: if the upstream rejects a new
/// token too, another login does not help.
const MIN_RELOGIN_INTERVAL: Duration = Duration::from_secs(1);

/// Logs in once, for the call with this request id. Fails with [`Error::Login`].
type Login = Box<dyn Fn(Option<Uuid>) -> Attempt + Send + Sync>;

/// One attempt of a login.
pub(super) type Attempt = Pin<Box<dyn Future<Output = Result<IssuedToken, Error>> + Send>>;

/// The state of a login that calls wait for.
enum Progress {
    /// An attempt runs.
    Running,
    /// The last attempt failed, and the next one begins at this instant.
    Retrying(Error, Instant),
    /// The login is over.
    Done(Result<Arc<Credential>, Error>),
}

/// The cached credential of one upstream.
pub(super) struct TokenCache(Arc<Shared>);

struct Shared {
    /// Identity service and user, for messages.
    label: String,
    login: Login,
    current: ArcSwapOption<Credential>,
    state: Mutex<State>,
    counts: Arc<LoginCounts>,
}

/// How many logins have ended with each result.
#[derive(Debug, Default)]
pub struct LoginCounts {
    succeeded: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

impl LoginCounts {
    fn count(&self, error: Option<&Error>) {
        let counter = match error {
            None => &self.succeeded,
            Some(error) if error.is_transient() => &self.failed,
            Some(_) => &self.rejected,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Returns the counts with the names of the results.
    pub fn by_result(&self) -> [(&'static str, u64); 3] {
        [
            ("succeeded", self.succeeded.load(Relaxed)),
            ("rejected", self.rejected.load(Relaxed)),
            ("failed", self.failed.load(Relaxed)),
        ]
    }
}

#[derive(Default)]
struct State {
    /// The running login.
    in_flight: Option<watch::Receiver<Progress>>,
    /// The last attempt's failure, and when the next attempt is allowed.
    failure: Option<(Error, Instant)>,
    /// Consecutive rejected logins.
    rejected_logins: u32,
    /// Consecutive attempts that failed for a moment, and when the first one did.
    unavailable: u32,
    unavailable_since: Option<Instant>,
    /// The last credential was rejected and is not replaced yet.
    credential_rejected: bool,
}

/// The answer to a call that needs a login.
enum LoginTicket {
    /// Another call's login has succeeded in the meantime.
    Done(Arc<Credential>),
    /// The last login failed and the next one is not allowed before the call's deadline.
    Failed(Error),
    /// A login runs.
    InFlight(watch::Receiver<Progress>),
}

impl TokenCache {
    pub(super) fn new(label: String, login: Login, counts: Arc<LoginCounts>) -> Self {
        Self(Arc::new(Shared {
            label,
            login,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
            counts,
        }))
    }

    /// Returns the cached credential, or waits for a login, which is repeated while it fails
    /// for a moment. Fails with the login's error once no attempt is left before the
    /// deadline, or if the first one is running then. The login continues for other calls.
    pub(super) async fn get(
        &self,
        client: &Downstream,
        deadline: Deadline,
    ) -> Result<Arc<Credential>, Error> {
        if let Some(credential) = self.0.current.load_full() {
            match credential.validity(Instant::now()) {
                Validity::Valid => return Ok(credential),
                Validity::ExpiresSoon => {
                    self.0.join_or_start_login(client, deadline);
                    return Ok(credential);
                }
                Validity::Expired => {}
            }
        }
        match self.0.join_or_start_login(client, deadline) {
            LoginTicket::Done(credential) => Ok(credential),
            LoginTicket::Failed(error) => Err(error),
            LoginTicket::InFlight(login) => finished(login, deadline, &self.0.label).await,
        }
    }

    /// Returns the failure of the last attempt; none after one that has succeeded.
    pub(super) fn last_failure(&self) -> Option<Error> {
        let state = self.0.state();
        state.failure.as_ref().map(|(error, _)| error.clone())
    }

    /// Returns the cached credential, which may have expired.
    pub(super) fn current(&self) -> Option<Arc<Credential>> {
        self.0.current.load_full()
    }

    /// See [`super::Credentials::invalidate`].
    pub(super) fn invalidate(&self, credential: &Arc<Credential>) -> bool {
        let mut state = self.0.state();
        let current = self.0.current.load_full();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, credential)) {
            return true;
        }
        if credential.follows_rejection && credential.requested_at.elapsed() < MIN_RELOGIN_INTERVAL
        {
            return false;
        }
        self.0.current.store(None);
        state.credential_rejected = true;
        true
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the running login or starts one, in a task of its own, so that a cancelled
    /// call does not cancel it for the others.
    fn join_or_start_login(
        self: &Arc<Self>,
        client: &Downstream,
        deadline: Deadline,
    ) -> LoginTicket {
        let mut state = self.state();
        let now = Instant::now();
        if let Some(credential) = self.current.load_full()
            && credential.validity(now) == Validity::Valid
        {
            return LoginTicket::Done(credential);
        }
        // A login whose task panicked has closed its channel.
        if let Some(login) = state.in_flight.clone().filter(|l| l.has_changed().is_ok()) {
            return LoginTicket::InFlight(login);
        }
        let mut progress = Progress::Running;
        let mut start = now;
        if let Some((error, until)) = &state.failure
            && now < *until
        {
            // A rejection is final until then; a failure of a moment is waited for.
            if !is_repeated(error) || *until >= deadline.instant().min(now + RETRY_WINDOW) {
                return LoginTicket::Failed(with_retry_after(error, *until));
            }
            start = *until;
            progress = Progress::Retrying(error.clone(), start);
        }
        // What failed long ago says nothing about this login.
        if state
            .failure
            .as_ref()
            .is_none_or(|(_, until)| *until + RETRY_WINDOW < now)
        {
            (state.unavailable, state.unavailable_since) = (0, None);
        }
        let (sender, login) = watch::channel(progress);
        state.in_flight = Some(login.clone());
        let follows_rejection = state.credential_rejected;
        drop(state);
        let shared = self.clone();
        let client = client.clone();
        tokio::spawn(async move {
            let login = shared.log_in(&client, &sender, start, follows_rejection);
            login.await;
        });
        LoginTicket::InFlight(login)
    }

    /// Makes attempts from `start` on, until one succeeds or another one would not help, or
    /// no call waits for it.
    async fn log_in(
        &self,
        client: &Downstream,
        sender: &watch::Sender<Progress>,
        mut start: Instant,
        follows_rejection: bool,
    ) {
        let request_id = client.request_id.as_ref();
        let request_id = request_id.and_then(|id| id.to_str().ok());
        let mut is_repetition = false;
        loop {
            tokio::time::sleep_until(start).await;
            if is_repetition {
                // Calls join under this lock. The receiver in the state does not count.
                let mut state = self.state();
                if sender.receiver_count() <= 1 {
                    state.in_flight = None;
                    return;
                }
            }
            is_repetition = true;
            sender.send_replace(Progress::Running);
            let requested_at = Instant::now();
            let result =
                tokio::time::timeout(LOGIN_TIMEOUT, (self.login)(client.request_uuid)).await;
            let result = result.unwrap_or_else(|_| {
                Err(login_error(
                    LoginFailure::Unavailable,
                    format!(
                        "cannot log in at {}: no response in {} s: check the URL, and that the \
                         identity service can be reached from here",
                        self.label,
                        LOGIN_TIMEOUT.as_secs()
                    ),
                ))
            });
            let result = result
                .map(|token| Arc::new(Credential::new(token, requested_at, follows_rejection)));
            self.counts.count(result.as_ref().err());
            let mut state = self.state();
            let done = match result {
                Ok(credential) => {
                    tracing::debug!(project_id = credential.project_id, request_id, "logged in");
                    *state = State::default();
                    self.current.store(Some(credential.clone()));
                    Progress::Done(Ok(credential))
                }
                Err(error) => {
                    // The upstream that it belongs to reports it.
                    tracing::debug!(%error, request_id, "login failed");
                    let (until, repeat) = state.fail(&error);
                    if repeat && sender.receiver_count() > 1 {
                        drop(state);
                        start = until;
                        sender.send_replace(Progress::Retrying(error, until));
                        continue;
                    }
                    state.in_flight = None;
                    Progress::Done(Err(with_retry_after(&error, until)))
                }
            };
            drop(state);
            sender.send_replace(done);
            return;
        }
    }
}

impl State {
    /// Records a failed attempt. Returns when the next one is allowed, and whether the same
    /// login should make it.
    fn fail(&mut self, error: &Error) -> (Instant, bool) {
        let now = Instant::now();
        let (pause, repeat) = if matches!(error, Error::Login { failure, .. }
            if matches!(failure, LoginFailure::Rejected | LoginFailure::NotPossible))
        {
            let pause = REJECTED_LOGIN_BACKOFF * 2_u32.pow(self.rejected_logins.min(6));
            self.rejected_logins = self.rejected_logins.saturating_add(1);
            (self.unavailable, self.unavailable_since) = (0, None);
            (pause.min(MAX_REJECTED_LOGIN_BACKOFF), false)
        } else {
            let backoff = UNAVAILABLE_BACKOFF * 2_u32.pow(self.unavailable.min(6));
            self.unavailable = self.unavailable.saturating_add(1);
            let since = *self.unavailable_since.get_or_insert(now);
            let backoff = match is_repeated(error) {
                true => backoff.min(MAX_UNAVAILABLE_BACKOFF),
                false => FAILED_BACKOFF,
            };
            let pause = backoff.max(error.retry_after().unwrap_or_default());
            let in_window = now + pause < since + RETRY_WINDOW;
            (pause, is_repeated(error) && in_window)
        };
        self.failure = Some((error.clone(), now + pause));
        (now + pause, repeat)
    }
}

/// Returns whether the login is repeated for the calls that wait for it.
fn is_repeated(error: &Error) -> bool {
    matches!(error, Error::Login { failure, .. } if *failure == LoginFailure::Unavailable)
}

pub(super) fn login_error(failure: LoginFailure, problem: impl Into<String>) -> Error {
    Error::Login {
        failure,
        problem: problem.into(),
        retry_after: None,
    }
}

/// Returns the error of a login with the time until the next attempt, if one may help.
fn with_retry_after(error: &Error, until: Instant) -> Error {
    let mut error = error.clone();
    if error.is_transient()
        && let Error::Login { retry_after, .. } = &mut error
    {
        let wait = until.saturating_duration_since(Instant::now());
        *retry_after = Some(wait.max(UNAVAILABLE_BACKOFF));
    }
    error
}

/// Waits for the result of a login. Fails with the last attempt's error if the next one is
/// not before the deadline.
async fn finished(
    mut login: watch::Receiver<Progress>,
    deadline: Deadline,
    label: &str,
) -> Result<Arc<Credential>, Error> {
    let mut last = None;
    loop {
        match &*login.borrow_and_update() {
            Progress::Done(result) => return result.clone(),
            Progress::Retrying(error, until) => {
                let error = with_retry_after(error, *until);
                if *until >= deadline.instant() {
                    return Err(error);
                }
                last = Some(error);
            }
            Progress::Running => {}
        }
        match deadline.bound(login.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                return Err(login_error(LoginFailure::Failed, "the login was aborted"));
            }
            // The failure says more than the deadline.
            Err(_) => {
                let waited = || {
                    login_error(
                        LoginFailure::Deadline,
                        format!("the deadline passed while the login at {label} was running"),
                    )
                };
                return Err(last.unwrap_or_else(waited));
            }
        }
    }
}

#[cfg(test)]
mod tests;
