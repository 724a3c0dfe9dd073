//! A client that keeps calling during an attack. Every call must succeed before its deadline.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{eventually, raw};

/// The deadline of each call.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two calls.
const PAUSE: Duration = Duration::from_millis(50);

/// One call in so many uses a new connection.
const NEW_CONNECTION_EACH: u64 = 4;

/// The honest client, on a thread of its own. Its failures are reported by
/// [`Honest::finish`].
pub struct Honest {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    succeeded: AtomicU64,
    /// In milliseconds.
    slowest: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Honest {
    /// Starts calling `GetSoftwareDeployment` with the credential `honest`.
    pub fn start(gateway: SocketAddr) -> Self {
        Self::start_with(gateway, &[])
    }

    /// As [`Honest::start`], with metadata in addition.
    pub fn start_with(gateway: SocketAddr, metadata: &[(&'static str, &str)]) -> Self {
        let shared = Arc::<Shared>::default();
        let state = shared.clone();
        let metadata: Vec<(&'static str, String)> = [("x-auth-token", "honest")]
            .iter()
            .chain(metadata)
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(keep_calling(gateway, &metadata, &state));
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Waits until `count` more calls have succeeded: a call that began before now may be the
    /// first of them. Panics at the first call that fails.
    pub async fn succeeds(&self, count: u64) {
        let wanted = self.shared.succeeded.load(Ordering::Relaxed) + count;
        eventually("honest calls succeed", async || {
            self.assert_no_failure();
            (self.shared.succeeded.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// Stops after a further call that began after now, and asserts that all have succeeded.
    /// Returns their number.
    pub async fn finish(mut self) -> u64 {
        self.succeeds(2).await;
        self.shared.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap())
            .await
            .unwrap();
        self.assert_no_failure();
        let succeeded = self.shared.succeeded.load(Ordering::Relaxed);
        let slowest = self.shared.slowest.load(Ordering::Relaxed);
        println!("{succeeded} honest calls, the slowest took {slowest} ms");
        succeeded
    }

    fn assert_no_failure(&self) {
        let failures = self.shared.failures.lock().unwrap().clone();
        let succeeded = self.shared.succeeded.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} honest calls failed, {succeeded} succeeded: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

async fn keep_calling(gateway: SocketAddr, metadata: &[(&'static str, String)], state: &Shared) {
    let mut connection = None;
    for number in 0_u64.. {
        if state.stopped.load(Ordering::Relaxed) {
            return;
        }
        if number.is_multiple_of(NEW_CONNECTION_EACH) {
            connection = None;
        }
        let started = Instant::now();
        let result = tokio::time::timeout(DEADLINE, call(gateway, metadata, &mut connection)).await;
        match result.unwrap_or_else(|_| Err("no response before the deadline".to_owned())) {
            Ok(()) => {
                let elapsed = started.elapsed().as_millis() as u64;
                state.slowest.fetch_max(elapsed, Ordering::Relaxed);
                state.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Err(problem) => {
                let text = format!("call {number}, after {:?}: {problem}", started.elapsed());
                state.failures.lock().unwrap().push(text);
                connection = None;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Makes one call. A connection that the gateway has closed in order (GOAWAY) is replaced, as
/// gRPC clients do.
async fn call(
    gateway: SocketAddr,
    metadata: &[(&'static str, String)],
    connection: &mut Option<raw::Connection>,
) -> Result<(), String> {
    loop {
        let open = match connection.take() {
            Some(open) => open,
            None => raw::connect(gateway).await?,
        };
        let mut request = raw::request(
            "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment",
        );
        for (name, value) in metadata {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        // GetSoftwareDeploymentRequest.deployment_id
        let message = raw::string_field(2, "honest");
        match open.unary(request, message).await {
            Ok(response) => {
                *connection = Some(open);
                return match response.code {
                    0 => Ok(()),
                    code => Err(format!("status {code}: {}", response.message)),
                };
            }
            Err(error) if error.is_unprocessed() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
