//! Metrics that are read when they are scraped: open streams, poll loops, and the state of
//! each upstream.

use std::sync::Arc;

use crate::server::dispatcher::Dispatcher;
use crate::telemetry::Sample;

/// Registers the source of these metrics.
pub fn register(dispatcher: &Arc<Dispatcher>) {
    let weak = Arc::downgrade(dispatcher);
    dispatcher.metrics.add_source(move || {
        let Some(dispatcher) = weak.upgrade() else {
            return Vec::new();
        };
        let watches = dispatcher.watches.stats();
        let gauge = |name, help, value: u64| Sample {
            name,
            help,
            upstream: None,
            value,
            counts: false,
        };
        let counter = |sample| Sample {
            counts: true,
            ..sample
        };
        let (watchers, loops) = (watches.watchers as u64, watches.loops as u64);
        let mut samples = vec![
            gauge("watchers", "Open streams of watches and of lists", watchers),
            gauge("watch_loops", "Poll loops", loops),
            counter(gauge("watch_polls", "Polls", watches.polls_total)),
        ];
        for upstream in dispatcher.upstreams.all() {
            let stats = upstream.stats();
            let upstream_gauge = |name, help, value: u64| Sample {
                upstream: Some(upstream.settings.name.clone()),
                ..gauge(name, help, value)
            };
            let (in_flight, queued) = (stats.in_flight as u64, stats.queued as u64);
            let open = stats.breaker_open.into();
            samples.extend([
                upstream_gauge("upstream_in_flight", "Calls at the upstream", in_flight),
                upstream_gauge("upstream_queued", "Calls waiting for a permit", queued),
                counter(upstream_gauge(
                    "upstream_retries",
                    "Retries",
                    stats.retries_total,
                )),
                upstream_gauge(
                    "upstream_breaker_open",
                    "1 while the circuit breaker is open",
                    open,
                ),
            ]);
        }
        samples
    });
}
