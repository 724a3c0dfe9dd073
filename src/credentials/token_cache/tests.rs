use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{advance, sleep};

use super::*;
use crate::credentials::credential::Authorization;

/// An identity service in memory: counts logins and answers from a closure.
#[derive(Clone, Default)]
struct Identity {
    logins: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Identity {
    fn keeper<F, Fut>(&self, answer: F) -> Arc<Keeper>
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Grant, Error>> + Send + 'static,
    {
        let this = self.clone();
        Arc::new(Keeper::new(Box::new(move || {
            let this = this.clone();
            let answer = answer(this.logins.fetch_add(1, SeqCst));
            Box::pin(async move {
                let now = this.now.fetch_add(1, SeqCst) + 1;
                this.most.fetch_max(now, SeqCst);
                let answer = answer.await;
                this.now.fetch_sub(1, SeqCst);
                answer
            })
        })))
    }

    fn logins(&self) -> usize {
        self.logins.load(SeqCst)
    }
}

/// A grant that names which login brought it.
fn grant(login: usize, secs: u64) -> Result<Grant, Error> {
    Ok(Grant {
        authorization: Authorization::None,
        lifetime: Some(Duration::from_secs(secs)),
        endpoint: None,
        project_id: Some(login.to_string()),
    })
}

fn refused() -> Result<Grant, Error> {
    Err(credential(Code::Unauthenticated, "refused"))
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

async fn which(keeper: &Keeper) -> String {
    keeper
        .lease(soon())
        .await
        .unwrap()
        .project_id
        .clone()
        .unwrap()
}

/// Tokens of 5 s, logins of 300 ms, 50 connections that make 1,000 calls over
/// 30 s: no call sees a dead token, no two logins overlap.
#[tokio::test(start_paused = true)]
async fn short_tokens() {
    let identity = Identity::default();
    let keeper = identity.keeper(|login| async move {
        sleep(Duration::from_millis(300)).await;
        grant(login, 5)
    });
    let mut calls = tokio::task::JoinSet::new();
    for connection in 0..50_u64 {
        let keeper = keeper.clone();
        calls.spawn(async move {
            sleep(Duration::from_millis(connection * 7)).await;
            for _ in 0..20 {
                let lease = keeper.lease(soon()).await.unwrap();
                // The server made it after it was asked for.
                assert!(lease.since.elapsed() < Duration::from_secs(5));
                sleep(Duration::from_millis(1_500)).await;
            }
            20
        });
    }
    assert_eq!(calls.join_all().await.iter().sum::<u32>(), 1_000);
    assert_eq!(identity.most.load(SeqCst), 1);
    assert!(
        (6..=8).contains(&identity.logins()),
        "{}",
        identity.logins()
    );
}

/// While a lease still holds, nobody waits for its successor.
#[tokio::test(start_paused = true)]
async fn renewal_is_in_the_background() {
    let identity = Identity::default();
    let gate = Arc::new(Semaphore::new(1));
    let pass = gate.clone();
    let keeper = identity.keeper(move |login| {
        let pass = pass.clone();
        async move {
            pass.acquire().await.unwrap().forget();
            grant(login, 100)
        }
    });
    assert_eq!(which(&keeper).await, "0");
    advance(Duration::from_secs(79)).await;
    assert_eq!(which(&keeper).await, "0");
    assert_eq!(identity.logins(), 1);
    advance(Duration::from_secs(2)).await;
    for _ in 0..10 {
        assert_eq!(which(&keeper).await, "0");
    }
    gate.add_permits(1);
    while which(&keeper).await == "0" {
        tokio::task::yield_now().await;
    }
    assert_eq!((which(&keeper).await.as_str(), identity.logins()), ("1", 2));
}

/// The caller that started a login leaves; the login goes on for the others.
#[tokio::test(start_paused = true)]
async fn a_caller_leaves() {
    let identity = Identity::default();
    let gate = Arc::new(Semaphore::new(0));
    let (began, mut begins) = mpsc::unbounded_channel();
    let pass = gate.clone();
    let keeper = identity.keeper(move |login| {
        let pass = pass.clone();
        began.send(()).unwrap();
        async move {
            pass.acquire().await.unwrap().forget();
            grant(login, 100)
        }
    });
    let spawn = |deadline| {
        let keeper = keeper.clone();
        tokio::spawn(async move { keeper.lease(deadline).await })
    };
    let first = spawn(soon());
    begins.recv().await.unwrap();
    let second = spawn(soon());
    let hasty = spawn(Deadline::after(Duration::from_millis(5)));
    assert!(matches!(
        hasty.await.unwrap(),
        Err(Error::Deadline { sent: false })
    ));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    assert_eq!(
        second.await.unwrap().unwrap().project_id.as_deref(),
        Some("0")
    );
    assert_eq!(identity.logins(), 1);
}

/// A refused login is told from memory, for longer each time.
#[tokio::test(start_paused = true)]
async fn refused_logins_are_not_hammered() {
    let identity = Identity::default();
    let keeper = identity.keeper(|login| async move {
        match login {
            0..=8 => refused(),
            _ => grant(login, 100),
        }
    });
    for (tries, pause) in [5, 10, 20, 40, 80, 160, 300, 300, 300]
        .into_iter()
        .enumerate()
    {
        for _ in 0..100 {
            let Err(Error::Login { code, .. }) = keeper.lease(soon()).await else {
                panic!("{tries}");
            };
            assert_eq!(code, Code::Unauthenticated);
        }
        assert_eq!(identity.logins(), tries + 1);
        advance(Duration::from_millis(pause * 1_000 - 1)).await;
        assert!(keeper.lease(soon()).await.is_err());
        assert_eq!(identity.logins(), tries + 1);
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(which(&keeper).await, "9");
}

/// An identity service that is away during renewal: callers go on, and then
/// learn why they cannot.
#[tokio::test(start_paused = true)]
async fn an_absent_service() {
    let identity = Identity::default();
    let keeper = identity.keeper(|login| async move {
        match login {
            0 | 3 => grant(login, 100),
            1 => Err(Error::Connect("nobody there".into())),
            _ => std::future::pending().await,
        }
    });
    assert_eq!(which(&keeper).await, "0");
    advance(Duration::from_secs(81)).await;
    assert_eq!(which(&keeper).await, "0");
    while identity.now.load(SeqCst) == 1 || identity.logins() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(which(&keeper).await, "0");
    assert_eq!(identity.logins(), 2, "not again within a second");
    advance(Duration::from_secs(20)).await;
    let error = keeper.lease(soon()).await.unwrap_err();
    assert!(error.to_string().contains("30 s"), "{error}");
    advance(UNAVAILABLE).await;
    assert_eq!(which(&keeper).await, "3");
}

#[tokio::test(start_paused = true)]
async fn refused_leases() {
    let identity = Identity::default();
    let keeper = identity.keeper(|login| async move { grant(login, 100) });
    let zero = keeper.lease(soon()).await.unwrap();
    assert!(keeper.refuse(&zero));
    let one = keeper.lease(soon()).await.unwrap();
    assert_eq!(one.project_id.as_deref(), Some("1"));

    // A late refusal of the old one leaves the new one alone.
    assert!(keeper.refuse(&zero));
    assert!(Arc::ptr_eq(&one, &keeper.lease(soon()).await.unwrap()));

    // The new one refused at once: it is not the token's age.
    assert!(!keeper.refuse(&one));
    assert!(Arc::ptr_eq(&one, &keeper.lease(soon()).await.unwrap()));
    assert_eq!(identity.logins(), 2);

    advance(AFTER_REFUSAL).await;
    assert!(keeper.refuse(&one));
    assert_eq!(which(&keeper).await, "2");
}

/// A login that panics is over, and the next caller starts another.
#[tokio::test(start_paused = true)]
async fn a_broken_login() {
    let identity = Identity::default();
    let keeper = identity.keeper(|login| async move {
        assert!(login > 0, "this panic is meant");
        grant(login, 100)
    });
    let Err(Error::Login { code, problem }) = keeper.lease(soon()).await else {
        panic!("a lease from nowhere");
    };
    assert_eq!(code, Code::Unavailable, "{problem}");
    assert_eq!(which(&keeper).await, "1");
}
