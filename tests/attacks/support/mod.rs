//! The gateway as a process, its upstream, an honest client and raw HTTP/2.

#![allow(
    dead_code,
    unused_imports,
    reason = "each helper serves some of the attacks"
)]

pub mod frames;
pub mod gateway;
pub mod honest;
pub mod raw;
pub mod upstream;

use std::time::{Duration, Instant};

pub use gateway::{Gateway, Options, Usage};
pub use honest::Honest;
pub use upstream::{Reply, Upstream};

/// How long a condition may take to become true, on a machine of any speed.
pub const CONDITION_TIMEOUT: Duration = Duration::from_secs(60);

pub const MIB: u64 = 1 << 20;

/// Polls until `condition` returns a value. Panics with `what` after [`CONDITION_TIMEOUT`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < CONDITION_TIMEOUT, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for an event. Panics with `what` after [`CONDITION_TIMEOUT`].
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(CONDITION_TIMEOUT, event).await {
        Ok(value) => value,
        Err(_) => panic!("not reached: {what}"),
    }
}

/// Returns bytes in MiB, for messages.
pub fn mib(bytes: u64) -> u64 {
    bytes / MIB
}
