//! Registers the gauges and counters that watches and upstreams keep themselves.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::config::Tls;
use crate::config::tls::expiries;
use crate::credentials::Expiry;
use crate::server::client_limits::ClientLimits;
use crate::server::dispatcher::Dispatcher;
use crate::server::generation::Current;
use crate::telemetry::{Metrics, Sample, dropped_lines};
use crate::upstream::Health;

/// Returns the sample of a certificate, of an upstream or of the listener.
fn certificate_expiry(
    certificate: &'static str,
    upstream: Option<String>,
    end: SystemTime,
) -> Sample {
    Sample {
        name: "certificate_expiry_timestamp_seconds",
        help: "When the first certificate of a file expires, in seconds since 1970",
        upstream,
        label: Some(("certificate", certificate)),
        value: seconds(end),
        is_counter: false,
    }
}

/// Registers the gauges and counters of the watches and of each upstream, read at scrape time.
pub(super) fn register(current: &Current, metrics: &Metrics, expiries: CertificateExpiries) {
    let weak = Arc::downgrade(current);
    metrics.add_source(move || {
        let Some(current) = weak.upgrade() else {
            return Vec::new();
        };
        let current = current.load();
        let dispatcher = &current.generation.dispatcher;
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
        for (reason, value) in rejections(dispatcher) {
            samples.push(counter(Sample {
                label: Some(("reason", reason)),
                ..gauge(
                    "client_limit_rejections",
                    "Calls that were rejected by the limits of one client",
                    value,
                )
            }));
        }
        samples.extend(expiries.samples());
        let cas = current.generation.ca_ends.iter();
        samples.extend(cas.map(|(upstream, end)| {
            certificate_expiry("upstream_ca", Some(upstream.clone()), *end)
        }));
        for upstream in dispatcher.upstreams.all() {
            if let Expiry::In(left) = upstream.credentials.expiry() {
                samples.push(Sample {
                    upstream: Some(upstream.settings.name.clone()),
                    ..gauge(
                        "credential_expiry_timestamp_seconds",
                        "When the token of the last login expires, in seconds since 1970",
                        seconds(SystemTime::now() + left),
                    )
                });
            }
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

/// Returns a time in seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// When the certificates of the listener expire. Clones share the times.
#[derive(Clone, Debug)]
pub(super) struct CertificateExpiries(Arc<ArcSwap<Vec<(&'static str, SystemTime)>>>);

impl CertificateExpiries {
    /// Returns those of these files.
    pub(super) fn new(tls: Option<&Tls>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(
            tls.map(expiries).unwrap_or_default(),
        )))
    }

    /// The listener has these certificates from now on.
    pub(super) fn replace(&self, tls: &Tls) {
        self.0.store(Arc::new(expiries(tls)));
    }

    fn samples(&self) -> Vec<Sample> {
        let times = self.0.load();
        let sample = |(certificate, end): &(&'static str, SystemTime)| {
            certificate_expiry(certificate, None, *end)
        };
        times.iter().map(sample).collect()
    }
}
