use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{advance, sleep};

use super::*;
use crate::credentials::credential::{Authorization, Scope};
use tonic::Code;

/// An identity service in memory: counts logins and responds with a closure.
#[derive(Clone, Default)]
struct Identity {
    logins: Arc<AtomicUsize>,
    concurrent: Arc<AtomicUsize>,
    max_concurrent: Arc<AtomicUsize>,
}

impl Identity {
    fn token_cache<F, Fut>(&self, respond: F) -> Arc<TokenCache>
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<IssuedToken, Error>> + Send + 'static,
    {
        let this = self.clone();
        let login = move |_: Option<Uuid>| -> Attempt {
            let this = this.clone();
            let response = respond(this.logins.fetch_add(1, SeqCst));
            Box::pin(async move {
                let concurrent = this.concurrent.fetch_add(1, SeqCst) + 1;
                this.max_concurrent.fetch_max(concurrent, SeqCst);
                let response = response.await;
                this.concurrent.fetch_sub(1, SeqCst);
                response
            })
        };
        Arc::new(TokenCache::new(
            "https://id as user u".to_owned(),
            Box::new(login),
            Arc::default(),
        ))
    }

    fn logins(&self) -> usize {
        self.logins.load(SeqCst)
    }
}

/// Returns a token whose project id is the number of its login.
fn token(login: usize, secs: u64) -> Result<IssuedToken, Error> {
    Ok(IssuedToken {
        authorization: Authorization::None,
        lifetime: Some(Duration::from_secs(secs)),
        endpoint: None,
        project_id: Some(login.to_string()),
        scope: Scope::default(),
    })
}

fn rejected() -> Result<IssuedToken, Error> {
    Err(login_error(LoginFailure::Rejected, "rejected"))
}

/// Fails for a moment, with this `Retry-After`.
fn unavailable(retry_after: Option<u64>) -> Result<IssuedToken, Error> {
    Err(Error::Login {
        failure: LoginFailure::Unavailable,
        problem: "busy".into(),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

async fn login_number(token_cache: &TokenCache) -> String {
    token_cache
        .get(&Downstream::default(), soon())
        .await
        .unwrap()
        .project_id
        .clone()
        .unwrap()
}

/// Tokens of 5 s, logins of 300 ms, 50 clients that make 1,000 calls over 30 s: no call gets
/// an expired token, no two logins overlap.
#[tokio::test(start_paused = true)]
async fn short_tokens_are_refreshed_before_they_expire() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|login| async move {
        sleep(Duration::from_millis(300)).await;
        token(login, 5)
    });
    let mut calls = tokio::task::JoinSet::new();
    for client in 0..50_u64 {
        let token_cache = token_cache.clone();
        calls.spawn(async move {
            sleep(Duration::from_millis(client * 7)).await;
            for _ in 0..20 {
                let credential = token_cache
                    .get(&Downstream::default(), soon())
                    .await
                    .unwrap();
                // The server issued it after the login started.
                assert!(credential.requested_at.elapsed() < Duration::from_secs(5));
                sleep(Duration::from_millis(1_500)).await;
            }
            20
        });
    }
    assert_eq!(calls.join_all().await.iter().sum::<u32>(), 1_000);
    assert_eq!(identity.max_concurrent.load(SeqCst), 1);
    assert!(
        (6..=8).contains(&identity.logins()),
        "{}",
        identity.logins()
    );
}

/// While a credential is valid, no call waits for the next one.
#[tokio::test(start_paused = true)]
async fn refresh_runs_in_the_background() {
    let identity = Identity::default();
    let gate = Arc::new(Semaphore::new(1));
    let pass = gate.clone();
    let token_cache = identity.token_cache(move |login| {
        let pass = pass.clone();
        async move {
            pass.acquire().await.unwrap().forget();
            token(login, 100)
        }
    });
    assert_eq!(login_number(&token_cache).await, "0");
    advance(Duration::from_secs(79)).await;
    assert_eq!(login_number(&token_cache).await, "0");
    assert_eq!(identity.logins(), 1);
    advance(Duration::from_secs(2)).await;
    for _ in 0..10 {
        assert_eq!(login_number(&token_cache).await, "0");
    }
    gate.add_permits(1);
    while login_number(&token_cache).await == "0" {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (login_number(&token_cache).await.as_str(), identity.logins()),
        ("1", 2)
    );
}

/// The login continues for the other calls.
#[tokio::test(start_paused = true)]
async fn cancelled_call_does_not_cancel_the_login() {
    let identity = Identity::default();
    let gate = Arc::new(Semaphore::new(0));
    let (started, mut starts) = mpsc::unbounded_channel();
    let pass = gate.clone();
    let token_cache = identity.token_cache(move |login| {
        let pass = pass.clone();
        started.send(()).unwrap();
        async move {
            pass.acquire().await.unwrap().forget();
            token(login, 100)
        }
    });
    let spawn = |deadline| {
        let token_cache = token_cache.clone();
        tokio::spawn(async move { token_cache.get(&Downstream::default(), deadline).await })
    };
    let first = spawn(soon());
    starts.recv().await.unwrap();
    let second = spawn(soon());
    let short = spawn(Deadline::after(Duration::from_millis(5)));
    let late = short.await.unwrap().unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(
        late.to_string(),
        "the deadline passed while the login at https://id as user u was running"
    );
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    assert_eq!(
        second.await.unwrap().unwrap().project_id.as_deref(),
        Some("0")
    );
    assert_eq!(identity.logins(), 1);
}

/// A rejected login is not repeated for a pause that doubles.
#[tokio::test(start_paused = true)]
async fn rejected_logins_back_off() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|login| async move {
        match login {
            0..=8 => rejected(),
            _ => token(login, 100),
        }
    });
    for (tries, pause) in [5, 10, 20, 40, 80, 160, 300, 300, 300]
        .into_iter()
        .enumerate()
    {
        for _ in 0..100 {
            let Err(Error::Login { failure, .. }) =
                token_cache.get(&Downstream::default(), soon()).await
            else {
                panic!("{tries}");
            };
            assert_eq!(failure, LoginFailure::Rejected);
        }
        assert_eq!(identity.logins(), tries + 1);
        advance(Duration::from_millis(pause * 1_000 - 1)).await;
        assert!(
            token_cache
                .get(&Downstream::default(), soon())
                .await
                .is_err()
        );
        assert_eq!(identity.logins(), tries + 1);
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(login_number(&token_cache).await, "9");
}

/// The old token is used while it is valid; then calls fail with the error of the login.
#[tokio::test(start_paused = true)]
async fn failed_refresh_keeps_the_valid_token() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|login| async move {
        match login {
            0 | 3 => token(login, 100),
            1 => unavailable(Some(1)),
            _ => std::future::pending().await,
        }
    });
    assert_eq!(login_number(&token_cache).await, "0");
    advance(Duration::from_secs(81)).await;
    assert_eq!(login_number(&token_cache).await, "0");
    while identity.concurrent.load(SeqCst) == 1 || identity.logins() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(login_number(&token_cache).await, "0");
    assert_eq!(identity.logins(), 2, "not repeated within a second");
    advance(Duration::from_secs(20)).await;
    let error = token_cache
        .get(&Downstream::default(), soon())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("30 s"), "{error}");
    assert_eq!(login_number(&token_cache).await, "3");
}

#[tokio::test(start_paused = true)]
async fn rejected_credential_is_replaced_once() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|login| async move { token(login, 100) });
    let zero = token_cache
        .get(&Downstream::default(), soon())
        .await
        .unwrap();
    assert!(token_cache.invalidate(&zero));
    let one = token_cache
        .get(&Downstream::default(), soon())
        .await
        .unwrap();
    assert_eq!(one.project_id.as_deref(), Some("1"));

    // A late rejection of the old one does not drop the new one.
    assert!(token_cache.invalidate(&zero));
    assert!(Arc::ptr_eq(
        &one,
        &token_cache
            .get(&Downstream::default(), soon())
            .await
            .unwrap()
    ));

    // If the new one is rejected at once, another login does not help.
    assert!(!token_cache.invalidate(&one));
    assert!(Arc::ptr_eq(
        &one,
        &token_cache
            .get(&Downstream::default(), soon())
            .await
            .unwrap()
    ));
    assert_eq!(identity.logins(), 2);

    advance(MIN_RELOGIN_INTERVAL).await;
    assert!(token_cache.invalidate(&one));
    assert_eq!(login_number(&token_cache).await, "2");
}

/// After a login panicked, the next call starts another.
#[tokio::test(start_paused = true)]
async fn panicking_login_is_an_error_and_repeated() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|login| async move {
        assert!(login > 0, "this panic is meant");
        token(login, 100)
    });
    let Err(Error::Login { failure, .. }) = token_cache.get(&Downstream::default(), soon()).await
    else {
        panic!("the login panicked");
    };
    assert_eq!(failure, LoginFailure::Failed);
    assert_eq!(login_number(&token_cache).await, "1");
}

/// A login that fails for a moment is repeated for all calls that wait for it, which share
/// its attempts.
#[tokio::test(start_paused = true)]
async fn failures_of_a_moment_are_repeated_for_all_waiting_calls() {
    for failures in [1, 3, 8] {
        let identity = Identity::default();
        let token_cache = identity.token_cache(move |login| async move {
            match login {
                login if login < failures => unavailable(None),
                login => token(login, 100),
            }
        });
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let token_cache = token_cache.clone();
            calls.spawn(async move {
                token_cache
                    .get(&Downstream::default(), soon())
                    .await
                    .map(|_| ())
            });
        }
        assert!(calls.join_all().await.iter().all(Result::is_ok));
        assert_eq!(identity.logins(), failures + 1);
        assert_eq!(identity.max_concurrent.load(SeqCst), 1);
    }
}

/// `Retry-After` is waited for if the deadline allows it; else the call fails at once and
/// says when to try again. So do later calls, without another login.
#[tokio::test(start_paused = true)]
async fn retry_after_of_a_login_is_waited_for_within_the_deadline() {
    for (retry_after, deadline, want) in [
        (1, 60, Ok(1)),
        (2, 3, Ok(2)),
        (3, 3, Err(3)),
        (8, 60, Ok(8)),
        (30, 60, Err(30)),
        (86_400, 60, Err(86_400)),
    ] {
        let identity = Identity::default();
        let token_cache = identity.token_cache(move |login| async move {
            match login {
                0 => unavailable(Some(retry_after)),
                login => token(login, 100),
            }
        });
        let started = Instant::now();
        let result = token_cache
            .get(&Downstream::default(), Deadline::after(secs(deadline)))
            .await;
        let result = match result {
            Ok(_) => Ok(started.elapsed().as_secs()),
            Err(error) => {
                assert!(started.elapsed() < secs(1), "{error}");
                Err(error.retry_after().map_or(0, |wait| wait.as_secs()))
            }
        };
        assert_eq!(result, want, "{retry_after} {deadline}");
        if want.is_err() {
            assert!(
                token_cache
                    .get(&Downstream::default(), Deadline::after(secs(1)))
                    .await
                    .is_err()
            );
            assert_eq!(identity.logins(), 1, "before `Retry-After`");
            advance(secs(retry_after)).await;
            assert_eq!(login_number(&token_cache).await, "1");
        }
    }
}

/// Attempts end when no call waits for them, and after a while; then each call makes one.
#[tokio::test(start_paused = true)]
async fn attempts_end_with_the_waiting_calls_and_after_the_retry_window() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|_| async { unavailable(None) });
    let error = token_cache
        .get(&Downstream::default(), Deadline::after(secs(2)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.retry_after().is_some(), "{error}");
    sleep(secs(1)).await;
    let attempts = identity.logins();
    sleep(secs(60)).await;
    assert_eq!(identity.logins(), attempts, "no call waits");

    let started = Instant::now();
    assert!(
        token_cache
            .get(&Downstream::default(), soon())
            .await
            .is_err()
    );
    assert!(started.elapsed() <= RETRY_WINDOW, "{:?}", started.elapsed());
    let attempts = identity.logins();
    for one in 1..=5 {
        assert!(
            token_cache
                .get(&Downstream::default(), soon())
                .await
                .is_err()
        );
        assert_eq!(identity.logins(), attempts + one);
    }
}

/// The response of a login that cannot be read, or an untrusted certificate, is the same a
/// moment later.
#[tokio::test(start_paused = true)]
async fn failure_that_lasts_is_not_repeated_for_the_waiting_calls() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|login| async move {
        match login {
            0 => Err(login_error(LoginFailure::Failed, "HTML")),
            login => token(login, 100),
        }
    });
    for wait in [FAILED_BACKOFF, FAILED_BACKOFF - secs(1)] {
        let error = token_cache.get(&Downstream::default(), soon()).await;
        let error = error.unwrap_err();
        assert_eq!(error.retry_after(), Some(wait), "{error:?}");
        assert_eq!(identity.logins(), 1);
        advance(secs(1)).await;
    }
    advance(FAILED_BACKOFF).await;
    assert_eq!(login_number(&token_cache).await, "1");
}

/// A health check does not wait for a login that hangs: it finds out by the failure of the
/// previous one.
#[tokio::test(start_paused = true)]
async fn hanging_login_fails_after_its_timeout() {
    let identity = Identity::default();
    let token_cache = identity.token_cache(|_| std::future::pending());
    let started = Instant::now();
    let wait = async || {
        let deadline = Deadline::after(secs(4));
        let error = token_cache.get(&Downstream::default(), deadline).await;
        error.unwrap_err().code()
    };
    while token_cache.last_failure().is_none() {
        assert!(started.elapsed() < LOGIN_TIMEOUT);
        assert_eq!(
            wait().await == Code::DeadlineExceeded,
            started.elapsed() < LOGIN_TIMEOUT
        );
    }
    // Another one runs.
    assert_eq!(wait().await, Code::DeadlineExceeded);
    let failure = token_cache.last_failure();
    let text = failure.unwrap().to_string();
    assert!(
        text.starts_with("cannot log in at https://id as user u: no response in 30 s"),
        "{text}"
    );
}
