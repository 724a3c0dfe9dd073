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
use tonic::Code;
use uuid::Uuid;

use super::credential_error;
use crate::credentials::credential::{Credential, IssuedToken, Validity};
use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::Error;

/// Timeout of a login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a rejected login: initial and maximum. It doubles each time, so that a wrong
/// password does not lock its account.
const REJECTED_LOGIN_BACKOFF: Duration = Duration::from_secs(5);
const MAX_REJECTED_LOGIN_BACKOFF: Duration = Duration::from_secs(300);

/// Pause after a login without a response.
const UNAVAILABLE_BACKOFF: Duration = Duration::from_secs(1);

/// Minimum time between logins whose tokens are rejected: if the upstream rejects a new
/// token too, another login does not help.
const MIN_RELOGIN_INTERVAL: Duration = Duration::from_secs(1);

/// Logs in once, for the call with this request id.
type Login = Box<
    dyn Fn(Option<Uuid>) -> Pin<Box<dyn Future<Output = Result<IssuedToken, Error>> + Send>>
        + Send
        + Sync,
>;

/// The result of a login; None while it runs.
type LoginResult = Option<Result<Arc<Credential>, Error>>;

/// The cached credential of one upstream.
pub(super) struct TokenCache(Arc<Shared>);

struct Shared {
    login: Login,
    current: ArcSwapOption<Credential>,
    state: Mutex<State>,
    counts: LoginCounts,
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
    in_flight: Option<watch::Receiver<LoginResult>>,
    /// The last login's failure, returned until this instant without another login.
    failure: Option<(Error, Instant)>,
    /// Consecutive rejected logins.
    rejected_logins: u32,
    /// The last credential was rejected and is not replaced yet.
    credential_rejected: bool,
}

/// The answer to a call that needs a login.
enum LoginTicket {
    /// Another call's login has succeeded in the meantime.
    Done(Arc<Credential>),
    /// The last login failed and its pause has not passed.
    Failed(Error),
    /// A login runs.
    InFlight(watch::Receiver<LoginResult>),
}

impl TokenCache {
    pub(super) fn new(login: Login) -> Self {
        Self(Arc::new(Shared {
            login,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
            counts: LoginCounts::default(),
        }))
    }

    /// Returns how many logins have ended with each result.
    pub(super) fn counts(&self) -> &LoginCounts {
        &self.0.counts
    }

    /// Returns the cached credential, or waits for a login. Fails with the login's error, or
    /// with [`Error::Deadline`]; the login continues for other calls.
    pub(super) async fn get(
        &self,
        client: &Downstream,
        deadline: Deadline,
    ) -> Result<Arc<Credential>, Error> {
        if let Some(credential) = self.0.current.load_full() {
            match credential.validity(Instant::now()) {
                Validity::Valid => return Ok(credential),
                Validity::ExpiresSoon => {
                    self.0.join_or_start_login(client);
                    return Ok(credential);
                }
                Validity::Expired => {}
            }
        }
        match self.0.join_or_start_login(client) {
            LoginTicket::Done(credential) => Ok(credential),
            LoginTicket::Failed(error) => Err(error),
            LoginTicket::InFlight(mut login) => deadline.bound(finished(&mut login)).await?,
        }
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
    fn join_or_start_login(self: &Arc<Self>, client: &Downstream) -> LoginTicket {
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
        if let Some((error, until)) = &state.failure
            && now < *until
        {
            return LoginTicket::Failed(error.clone());
        }
        let (sender, login) = watch::channel(None);
        state.in_flight = Some(login.clone());
        let follows_rejection = state.credential_rejected;
        drop(state);
        let shared = self.clone();
        let (request_id, request_uuid) = (client.request_id.clone(), client.request_uuid);
        tokio::spawn(async move {
            let result = tokio::time::timeout(LOGIN_TIMEOUT, (shared.login)(request_uuid)).await;
            let result = result.unwrap_or_else(|_| {
                Err(credential_error(
                    Code::Unavailable,
                    format!("no response to the login in {} s", LOGIN_TIMEOUT.as_secs()),
                ))
            });
            let result =
                result.map(|token| Arc::new(Credential::new(token, now, follows_rejection)));
            let result = result.map_err(login_error);
            let request_id = request_id.as_ref().and_then(|id| id.to_str().ok());
            shared.finish_login(&result, request_id);
            sender.send_replace(Some(result));
        });
        LoginTicket::InFlight(login)
    }

    fn finish_login(&self, result: &Result<Arc<Credential>, Error>, request_id: Option<&str>) {
        self.counts.count(result.as_ref().err());
        let mut state = self.state();
        state.in_flight = None;
        match result {
            Ok(credential) => {
                tracing::debug!(project_id = credential.project_id, request_id, "logged in");
                state.failure = None;
                state.rejected_logins = 0;
                state.credential_rejected = false;
                self.current.store(Some(credential.clone()));
            }
            Err(error) => {
                // The upstream that it belongs to reports it.
                tracing::debug!(%error, request_id, "login failed");
                let pause = match error {
                    Error::Login { code, .. } if *code != Code::Unavailable => {
                        let pause =
                            REJECTED_LOGIN_BACKOFF * 2_u32.pow(state.rejected_logins.min(6));
                        state.rejected_logins = state.rejected_logins.saturating_add(1);
                        pause.min(MAX_REJECTED_LOGIN_BACKOFF)
                    }
                    _ => UNAVAILABLE_BACKOFF,
                };
                state.failure = Some((error.clone(), Instant::now() + pause));
            }
        }
    }
}

/// Turns an error of a login into one whose text is for the log only.
fn login_error(error: Error) -> Error {
    match error {
        Error::Credential { code, problem } => Error::Login { code, problem },
        error => error,
    }
}

/// Waits for the result of a login.
async fn finished(login: &mut watch::Receiver<LoginResult>) -> Result<Arc<Credential>, Error> {
    let aborted = || login_error(credential_error(Code::Unavailable, "the login was aborted"));
    match login.wait_for(Option::is_some).await {
        Ok(result) => result.clone().unwrap_or_else(|| Err(aborted())),
        Err(_) => Err(aborted()),
    }
}

#[cfg(test)]
mod tests;
