//! Reads the status that the page of the admin listener shows. It costs calls nothing: what it
//! reads is counted anyway.

use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::{
    CallsByCode, FailedCallStatus, GatewayStatus, MAX_LISTED_WATCHES, Readiness, Status,
    UpstreamStatus, WatchStatus, WatchesStatus, millis,
};
use crate::server::generation::Current;
use crate::telemetry::{DURATION_BUCKETS, RpcMetrics, code_name};

/// What the status is read from.
pub(super) struct StatusSource {
    pub(super) current: Current,
    pub(super) readiness: Readiness,
    pub(super) started_at: SystemTime,
}

impl StatusSource {
    /// Reads the status.
    pub(super) fn read(&self) -> Status {
        let current = self.current.load();
        let generation = &current.generation;
        let dispatcher = &*generation.dispatcher;
        let now = SystemTime::now();
        let all = dispatcher.upstreams.all();
        let mut upstreams: Vec<UpstreamStatus> = all
            .iter()
            .map(|one| UpstreamStatus::of(one, dispatcher.upstreams.is_default(one), now))
            .collect();
        for (status, upstream) in upstreams.iter_mut().zip(all) {
            let name = &upstream.settings.name;
            let new = || dispatcher.metrics.upstream_requests(name);
            status.latencies = generation.exchanges.of(name, new).latencies().to_vec();
        }
        let mut calls = CallsByCode::new();
        for served in dispatcher.methods.values() {
            add(&mut calls, &served.unrouted);
            for (upstream, metrics) in &served.by_upstream {
                add(&mut calls, metrics);
                let position = all.iter().position(|one| Arc::ptr_eq(one, upstream));
                if let Some(status) = position.and_then(|at| upstreams.get_mut(at)) {
                    add(&mut status.calls, metrics);
                }
            }
        }
        let (total, listed) = dispatcher.watches.open_watches(MAX_LISTED_WATCHES);
        let failed_calls = dispatcher.failed_calls.newest_first();
        Status {
            now: millis(now),
            gateway: GatewayStatus {
                version: env!("CARGO_PKG_VERSION"),
                is_sandbox: dispatcher.sandbox,
                started_at: millis(self.started_at),
                is_ready: self.readiness.get(),
                calls_in_flight: dispatcher.metrics.calls_in_flight(),
                unauthenticated: dispatcher.metrics.unauthenticated.get(),
                unsupported: dispatcher.metrics.unsupported.get(),
            },
            latency_bounds: &DURATION_BUCKETS,
            upstreams,
            calls,
            watches: WatchesStatus {
                streams: dispatcher.watches.streams().open(),
                total,
                listed: listed.into_iter().map(WatchStatus::from).collect(),
            },
            failed_calls: failed_calls
                .into_iter()
                .map(FailedCallStatus::from)
                .collect(),
        }
    }
}

fn add(calls: &mut CallsByCode, metrics: &RpcMetrics) {
    for (code, count) in metrics.counts() {
        *calls.entry(code_name(code)).or_default() += count;
    }
}
