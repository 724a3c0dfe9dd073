//! Registers the gauges and counters that watches and upstreams keep themselves.

use std::sync::Arc;

use crate::server::client_limits::ClientLimits;
use crate::server::dispatcher::Dispatcher;
use crate::telemetry::{Sample, dropped_lines};
use crate::upstream::Health;

/// Registers the gauges and counters of the watches and of each upstream, read at scrape time.
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
            label: None,
            value,
            is_counter: false,
        };
        let counter = |sample| Sample {
            is_counter: true,
            ..sample
        };
        let (streams, loops) = (watches.open_streams as u64, watches.loops as u64);
        let mut samples = vec![
            gauge(
                "open_streams",
                "Open streams of watches, lists and downloads",
                streams,
            ),
            gauge("watch_poll_loops", "Running poll loops", loops),
            counter(gauge(
                "log_lines_dropped",
                "Lines of the log that were dropped, because nothing read standard error in time",
                dropped_lines(),
            )),
            counter(gauge(
                "audit_lines_dropped",
                "Lines of the audit log that were not written to its file",
                dispatcher
                    .audit
                    .as_ref()
                    .map_or(0, |audit| audit.dropped_lines()),
            )),
            counter(gauge(
                "watch_polls",
                "Reads of watched resources and of log pages",
                watches.polls_total,
            )),
        ];
        let memory = dispatcher.memory.stats();
        for (state, value) in [("limit", memory.limit), ("used", memory.used)] {
            samples.push(Sample {
                label: Some(("state", state)),
                ..gauge(
                    "memory_budget_bytes",
                    "Memory that calls may hold, and what they hold",
                    value,
                )
            });
        }
        for (reason, value) in [
            ("budget", memory.rejected_by_budget),
            ("client", memory.rejected_by_client),
        ] {
            samples.push(counter(Sample {
                label: Some(("reason", reason)),
                ..gauge(
                    "memory_rejections",
                    "Requests and responses for which the memory budget had no space",
                    value,
                )
            }));
        }
        for (reason, value) in rejections(&dispatcher) {
            samples.push(counter(Sample {
                label: Some(("reason", reason)),
                ..gauge(
                    "client_limit_rejections",
                    "Calls that were rejected by the limits of one client",
                    value,
                )
            }));
        }
        for upstream in dispatcher.upstreams.all() {
            let stats = upstream.stats();
            let upstream_gauge = |name, help, value: u64| Sample {
                upstream: Some(upstream.settings.name.clone()),
                ..gauge(name, help, value)
            };
            let (in_flight, queued) = (stats.in_flight as u64, stats.queued as u64);
            let open = stats.circuit_breaker_open.into();
            let up = match upstream.health() {
                Health::Unknown => None,
                Health::Healthy => Some(1),
                Health::Unhealthy => Some(0),
            };
            samples.extend(up.map(|up| {
                upstream_gauge(
                    "upstream_up",
                    "1 while the upstream responds and the gateway can log in, otherwise 0",
                    up,
                )
            }));
            let logins = upstream.credentials.login_counts();
            for (result, count) in logins.into_iter().flat_map(|counts| counts.by_result()) {
                samples.push(Sample {
                    label: Some(("result", result)),
                    ..counter(upstream_gauge(
                        "logins",
                        "Logins of the gateway at the identity service of an upstream",
                        count,
                    ))
                });
            }
            samples.extend([
                upstream_gauge(
                    "upstream_calls_in_flight",
                    "Calls that hold a permit of the upstream",
                    in_flight,
                ),
                upstream_gauge(
                    "upstream_calls_queued",
                    "Calls that wait for a permit of the upstream",
                    queued,
                ),
                counter(upstream_gauge(
                    "upstream_retries",
                    "Retries of calls",
                    stats.retries_total,
                )),
                upstream_gauge(
                    "upstream_circuit_breaker_open",
                    "1 while the circuit breaker rejects calls, otherwise 0",
                    open,
                ),
            ]);
        }
        samples
    });
}

/// Returns how many calls the limits of one client have rejected, by limit.
fn rejections(dispatcher: &Dispatcher) -> [(&'static str, u64); 3] {
    let limits = dispatcher.client_limits.as_ref();
    limits.map_or(ClientLimits::NO_REJECTIONS, |limits| limits.rejections())
}
