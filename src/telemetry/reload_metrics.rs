//! Metrics of reloads: applied and rejected configurations, and the last success.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Sample;

/// Counts reloads of the configuration. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ReloadMetrics(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    applied: AtomicU64,
    rejected: AtomicU64,
    is_successful: AtomicBool,
    /// Seconds since 1970.
    last_success: AtomicU64,
}

impl ReloadMetrics {
    /// Counts a configuration that applies.
    pub fn count_applied(&self) {
        self.0.applied.fetch_add(1, Relaxed);
    }

    /// Counts one that is invalid.
    pub fn count_rejected(&self) {
        self.0.rejected.fetch_add(1, Relaxed);
        self.0.is_successful.store(false, Relaxed);
    }

    /// Records that the files are valid.
    pub fn succeeded(&self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.last_success.store(since.as_secs(), Relaxed);
        self.0.is_successful.store(true, Relaxed);
    }

    /// Returns whether the files were valid when they were read last.
    pub fn is_successful(&self) -> bool {
        self.0.is_successful.load(Relaxed)
    }

    /// Returns the values.
    pub fn samples(&self) -> Vec<Sample> {
        let sample = |name, help, value| Sample {
            name,
            help,
            upstream: None,
            label: None,
            value,
            is_counter: false,
        };
        let reloads = |result, count: &AtomicU64| Sample {
            label: Some(("result", result)),
            is_counter: true,
            ..sample(
                "config_reloads",
                "Changed configurations, by whether they apply or were rejected",
                count.load(Relaxed),
            )
        };
        vec![
            reloads("applied", &self.0.applied),
            reloads("rejected", &self.0.rejected),
            sample(
                "config_last_reload_successful",
                "1 while the configuration that was read last is valid, otherwise 0",
                self.is_successful().into(),
            ),
            sample(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration was valid and applied last, in seconds since 1970",
                self.0.last_success.load(Relaxed),
            ),
        ]
    }
}
