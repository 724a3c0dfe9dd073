//! gRPC health: a service is SERVING while an upstream of its family answers.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::upstream::{Health, Upstream};

/// A service and the upstreams that can serve it.
#[derive(Debug)]
pub struct Watched {
    pub service: String,
    pub upstreams: Vec<Arc<Upstream>>,
}

/// Asks the upstreams every `interval` and reports, until dropped.
pub async fn report(reporter: HealthReporter, services: Vec<Watched>, interval: Duration) {
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
            probes.spawn(async move { upstream.probe(interval.min(Duration::from_secs(5))).await });
        }
        while probes.join_next().await.is_some() {}
        for service in &services {
            reporter
                .set_service_status(&service.service, status(&service.upstreams))
                .await;
        }
        tokio::time::sleep(interval).await;
    }
}

/// An upstream that nobody could ask yet counts as there.
fn status(upstreams: &[Arc<Upstream>]) -> ServingStatus {
    if upstreams.iter().any(|u| u.health() != Health::Unhealthy) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// Says that nothing is served any more.
pub async fn stop(reporter: &HealthReporter, services: &[String]) {
    for service in services.iter().map(String::as_str).chain([""]) {
        reporter
            .set_service_status(service, ServingStatus::NotServing)
            .await;
    }
}
