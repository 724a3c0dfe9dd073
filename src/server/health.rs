//! Probes upstreams for gRPC health: a service is SERVING while an upstream of its family
//! responds.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;

use super::health_service::HealthRegistry;
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
    registry: HealthRegistry,
    services: Vec<ProbedService>,
    interval: Duration,
) {
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
            registry.set(&service.name, status(&service.upstreams));
        }
        tokio::time::sleep(interval).await;
    }
}

/// Returns the status of a service. An upstream that was not probed yet counts as healthy.
pub fn status(upstreams: &[Arc<Upstream>]) -> ServingStatus {
    if upstreams.iter().any(|u| u.health() != Health::Unhealthy) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}
