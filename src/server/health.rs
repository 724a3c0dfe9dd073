//! gRPC health: a service is SERVING while an upstream of its family responds to probes.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::upstream::{Health, Upstream};

/// A service and the upstreams that can serve it.
#[derive(Debug)]
pub struct ProbedService {
    pub name: String,
    pub upstreams: Vec<Arc<Upstream>>,
}

/// Longest time of one probe.
const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Probes the upstreams every `interval` and reports the services' status, until dropped.
pub async fn probe_and_report(
    reporter: HealthReporter,
    services: Vec<ProbedService>,
    interval: Duration,
) {
    reporter
        .set_service_status("", ServingStatus::Serving)
        .await;
    let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
    for upstream in services.iter().flat_map(|s| &s.upstreams) {
        if !upstreams.iter().any(|known| Arc::ptr_eq(known, upstream)) {
            upstreams.push(upstream.clone());
        }
    }
    loop {
        let mut probes = tokio::task::JoinSet::new();
        for upstream in &upstreams {
            let upstream = upstream.clone();
            let timeout = interval.min(MAX_PROBE_TIMEOUT);
            probes.spawn(async move { upstream.probe(timeout).await });
        }
        while probes.join_next().await.is_some() {}
        for service in &services {
            reporter
                .set_service_status(&service.name, status(&service.upstreams))
                .await;
        }
        tokio::time::sleep(interval).await;
    }
}

/// Returns the status of a service. An upstream that was not probed yet counts as healthy.
fn status(upstreams: &[Arc<Upstream>]) -> ServingStatus {
    if upstreams.iter().any(|u| u.health() != Health::Unhealthy) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// Reports all services as NOT_SERVING.
pub async fn set_not_serving(reporter: &HealthReporter, services: &[String]) {
    for service in services.iter().map(String::as_str).chain([""]) {
        reporter
            .set_service_status(service, ServingStatus::NotServing)
            .await;
    }
}
