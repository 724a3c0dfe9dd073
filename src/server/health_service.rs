//! `grpc.health.v1.Health`, and the statuses that it reports. Source: health/v1/health.proto
//! of gRPC, "Health".

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as Reported;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::connection_end::{self, ConnectionEnd};
use crate::error::{Error, StatusContext};

/// The statuses of the services. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct HealthRegistry(Arc<watch::Sender<Statuses>>);

#[derive(Debug, Default)]
struct Statuses {
    by_service: BTreeMap<String, ServingStatus>,
    phase: Phase,
}

/// What the stop of the gateway changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Probes set the statuses.
    #[default]
    Serving,
    /// All services are NOT_SERVING for good.
    NotServing,
    /// Streams end, too.
    Ended,
}

impl HealthRegistry {
    /// Creates the registry of these services. The empty name, the server, is SERVING.
    pub(super) fn new(services: impl IntoIterator<Item = (String, ServingStatus)>) -> Self {
        let server = (String::new(), ServingStatus::Serving);
        Self(Arc::new(watch::Sender::new(Statuses {
            by_service: services.into_iter().chain([server]).collect(),
            phase: Phase::Serving,
        })))
    }

    /// Sets the status of a service. Has no effect after [`Self::set_not_serving`]. Streams are
    /// notified of changes only.
    pub(super) fn set(&self, service: &str, status: ServingStatus) {
        self.0.send_if_modified(|statuses| {
            let known = statuses.by_service.get_mut(service);
            match known.filter(|known| statuses.phase == Phase::Serving && **known != status) {
                Some(known) => {
                    *known = status;
                    true
                }
                None => false,
            }
        });
    }

    /// Serves these services instead; the empty name stays. Streams of a service that is no
    /// longer served get SERVICE_UNKNOWN.
    pub(super) fn replace(&self, services: impl IntoIterator<Item = (String, ServingStatus)>) {
        let services: BTreeMap<_, _> = services.into_iter().collect();
        self.0.send_if_modified(|statuses| {
            if statuses.phase != Phase::Serving {
                return false;
            }
            statuses
                .by_service
                .retain(|name, _| name.is_empty() || services.contains_key(name));
            for (name, status) in services {
                // Probes have set those that are known.
                statuses.by_service.entry(name).or_insert(status);
            }
            true
        });
    }

    /// Sets all services to NOT_SERVING for good. Streams are notified, and continue.
    pub(super) fn set_not_serving(&self) {
        self.0.send_modify(|statuses| {
            statuses.phase = Phase::NotServing;
            for status in statuses.by_service.values_mut() {
                *status = ServingStatus::NotServing;
            }
        });
    }

    /// Ends the streams with UNAVAILABLE, after their last status.
    pub(super) fn end_streams(&self) {
        self.0.send_modify(|statuses| statuses.phase = Phase::Ended);
    }

    fn get(&self, service: &str) -> Option<Reported> {
        self.0.borrow().get(service)
    }
}

impl Statuses {
    fn get(&self, service: &str) -> Option<Reported> {
        self.by_service
            .get(service)
            .map(|status| Reported::from(*status))
    }
}

/// Serves the statuses of the registry.
pub(super) struct HealthService(pub(super) HealthRegistry);

fn response(status: Reported) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.0.get(&request.get_ref().service);
        let status = status.ok_or_else(|| {
            let service = crate::error::cut(&request.get_ref().service, 200);
            Status::not_found(format!("this gateway does not serve {service}"))
        })?;
        Ok(Response::new(response(status)))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let end = ConnectionEnd::of(request.extensions());
        let service = request.into_inner().service;
        let statuses = self.0.0.subscribe();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let error = tokio::select! {
                () = sender.closed() => return,
                error = send_changes(&service, statuses, &sender) => error,
                () = connection_end::reached(end) => Error::ConnectionTooOld,
            };
            let context = StatusContext {
                operation: "grpc.health.v1.Health/Watch",
                ..StatusContext::default()
            };
            // The client may have left.
            let _ = sender.send(Err(error.status(&context))).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends the status of a service, and each change of it until the gateway drains. A service
/// that is not served is SERVICE_UNKNOWN.
async fn send_changes(
    service: &str,
    mut statuses: watch::Receiver<Statuses>,
    sender: &mpsc::Sender<Result<HealthCheckResponse, Status>>,
) -> Error {
    let mut sent = None;
    loop {
        let (status, phase) = {
            let statuses = statuses.borrow_and_update();
            let status = statuses.get(service).unwrap_or(Reported::ServiceUnknown);
            (status, statuses.phase)
        };
        if sent != Some(status) {
            // Fails only when the client has left, and then this future is dropped.
            let _ = sender.send(Ok(response(status))).await;
            sent = Some(status);
        }
        if phase == Phase::Ended || statuses.changed().await.is_err() {
            return Error::Draining;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_stream::StreamExt;
    use tonic::Code;

    use super::*;
    use Reported::{NotServing, ServiceUnknown, Serving};

    const UP: ServingStatus = ServingStatus::Serving;
    const DOWN: ServingStatus = ServingStatus::NotServing;

    fn named(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest {
            service: service.to_owned(),
        })
    }

    fn registry() -> HealthRegistry {
        HealthRegistry::new([("a.A".to_owned(), UP), ("b.B".to_owned(), DOWN)])
    }

    #[tokio::test]
    async fn check_reports_known_services_only() {
        let registry = registry();
        let health = HealthService(registry.clone());
        let check = async |service| {
            let response = health.check(named(service)).await;
            response
                .map(|r| r.into_inner().status())
                .map_err(|e| e.code())
        };
        assert_eq!(check("").await, Ok(Serving));
        assert_eq!(check("a.A").await, Ok(Serving));
        assert_eq!(check("b.B").await, Ok(NotServing));
        assert_eq!(check("c.C").await, Err(Code::NotFound));
        registry.set("c.C", UP);
        assert_eq!(check("c.C").await, Err(Code::NotFound), "fixed at start");
        registry.set_not_serving();
        registry.set("a.A", UP);
        for service in ["", "a.A", "b.B"] {
            assert_eq!(check(service).await, Ok(NotServing), "{service:?}");
        }
    }

    /// Each stream gets its status, changes only, and UNAVAILABLE when the gateway drains.
    #[tokio::test]
    async fn watch_sends_changes_only_and_ends_on_drain() {
        let registry = registry();
        let health = HealthService(registry.clone());
        let watch = async |service| health.watch(named(service)).await.unwrap().into_inner();
        let mut a = watch("a.A").await;
        let mut unknown = watch("c.C").await;
        let next = async |stream: &mut ReceiverStream<Result<HealthCheckResponse, Status>>| {
            let message = stream.next().await.expect("a message");
            message.map(|m| m.status()).map_err(|e| e.code())
        };
        assert_eq!(next(&mut a).await, Ok(Serving));
        assert_eq!(next(&mut unknown).await, Ok(ServiceUnknown));
        // Neither an equal status nor that of another service is a change.
        registry.set("a.A", UP);
        registry.set("b.B", UP);
        registry.set("a.A", DOWN);
        assert_eq!(next(&mut a).await, Ok(NotServing));
        registry.set("a.A", DOWN);
        registry.set("a.A", UP);
        assert_eq!(next(&mut a).await, Ok(Serving));
        registry.set_not_serving();
        registry.set("a.A", UP);
        assert_eq!(next(&mut a).await, Ok(NotServing));
        // One that is opened meanwhile continues, too.
        let mut during = watch("a.A").await;
        assert_eq!(next(&mut during).await, Ok(NotServing));
        // The tasks of the streams run.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        for stream in [&mut a, &mut during] {
            let polled = tokio::time::timeout(Duration::ZERO, next(stream)).await;
            assert!(polled.is_err(), "no message, no end");
        }
        registry.end_streams();
        assert_eq!(next(&mut during).await, Err(Code::Unavailable));
        assert_eq!(next(&mut a).await, Err(Code::Unavailable));
        assert!(a.next().await.is_none());
        assert_eq!(next(&mut unknown).await, Err(Code::Unavailable));
        // One that is opened during the drain.
        let mut late = watch("a.A").await;
        assert_eq!(next(&mut late).await, Ok(NotServing));
        assert_eq!(next(&mut late).await, Err(Code::Unavailable));
    }
}
