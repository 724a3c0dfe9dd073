//! What the rooms count themselves, for the metrics.

use std::sync::Arc;

use crate::server::dispatcher::Dispatcher;
use crate::telemetry::Sample;

/// Lets the metrics read what the rooms count themselves.
pub fn report(dispatcher: &Arc<Dispatcher>) {
    let weak = Arc::downgrade(dispatcher);
    dispatcher.metrics.add_source(move || {
        let Some(dispatcher) = weak.upgrade() else {
            return Vec::new();
        };
        let watches = dispatcher.watches.stats();
        let own = |name, help, value: u64| Sample {
            name,
            help,
            upstream: None,
            value,
            counts: false,
        };
        let counted = |sample| Sample {
            counts: true,
            ..sample
        };
        let (watchers, loops) = (watches.watchers as u64, watches.loops as u64);
        let mut samples = vec![
            own("watchers", "Open streams of watches and of lists", watchers),
            own("watch_loops", "Poll loops", loops),
            counted(own("watch_polls", "Polls", watches.polls_total)),
        ];
        for upstream in dispatcher.upstreams.all() {
            let stats = upstream.stats();
            let of = |name, help, value: u64| Sample {
                upstream: Some(upstream.settings.name.clone()),
                ..own(name, help, value)
            };
            let (in_flight, queued) = (stats.in_flight as u64, stats.queued as u64);
            let open = stats.breaker_open.into();
            samples.extend([
                of("upstream_in_flight", "Calls at the upstream", in_flight),
                of("upstream_queued", "Calls waiting for a place", queued),
                counted(of("upstream_retries", "Retries", stats.retries_total)),
                of("upstream_breaker_open", "1 while calls are refused", open),
            ]);
        }
        samples
    });
}
