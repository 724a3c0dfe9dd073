//! What the rooms count themselves, for the metrics.

use std::sync::Arc;

use super::Engine;
use crate::telemetry::Sample;

/// Lets the metrics read what the rooms count themselves.
pub fn report(engine: &Arc<Engine>) {
    let weak = Arc::downgrade(engine);
    engine.metrics.add_source(move || {
        let Some(engine) = weak.upgrade() else {
            return Vec::new();
        };
        let watches = engine.watches.stats();
        let own = |name, help, value: usize| Sample {
            name,
            help,
            upstream: None,
            value: value as i64,
        };
        let mut samples = vec![
            own(
                "watchers",
                "Open streams of watches and of lists",
                watches.watchers,
            ),
            own("watch_loops", "Poll loops", watches.loops),
            own(
                "watch_polls",
                "Polls since the start",
                watches.polls_total as usize,
            ),
        ];
        for upstream in engine.upstreams.all() {
            let stats = upstream.stats();
            let of = |name, help, value: u64| Sample {
                name,
                help,
                upstream: Some(upstream.settings.name.clone()),
                value: value as i64,
            };
            samples.extend([
                of(
                    "upstream_in_flight",
                    "Calls at the upstream",
                    stats.in_flight as u64,
                ),
                of(
                    "upstream_queued",
                    "Calls waiting for a place",
                    stats.queued as u64,
                ),
                of(
                    "upstream_retries",
                    "Retries since the start",
                    stats.retries_total,
                ),
                of(
                    "upstream_breaker_open",
                    "1 while calls are refused",
                    stats.breaker_open.into(),
                ),
            ]);
        }
        samples
    });
}
