//! Builds a gateway from its configuration, binds its listeners and serves: the
//! composition root.

use std::net::SocketAddr;
use std::sync::Arc;

use drawbridge_transcoder::contract::Contract;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::Routes;

use super::authn::ClientTokens;
use super::dispatcher::Dispatcher;
use super::drain::Drain;
use super::router::RouterLayer;
use super::{gateway_service, gauges, health, listener, reflection};
use crate::admin::{Readiness, serve_admin};
use crate::api::drawbridge::v1::gateway_service_server::GatewayServiceServer;
use crate::config::Config;
use crate::families::family;
use crate::telemetry::Metrics;
use crate::upstream::{ExchangeHook, Upstreams};
use crate::watch::Watches;

/// A gateway that is built and has no listeners yet.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    contract: Contract,
    dispatcher: Arc<Dispatcher>,
    metrics: Metrics,
}

/// A gateway whose listeners are bound.
#[derive(Debug)]
pub struct BoundGateway {
    gateway: Gateway,
    grpc: TcpListener,
    admin: Option<TcpListener>,
}

/// A gateway that serves. Stops when dropped.
#[derive(Debug)]
pub struct ServerHandle {
    /// The address of the gRPC listener.
    pub grpc: SocketAddr,
    /// The address of the admin listener.
    pub admin: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Gateway {
    /// Compiles the contract and builds upstreams, watches and the dispatcher. Opens no
    /// connection. `traces` says whether spans are exported.
    ///
    /// # Errors
    ///
    /// Returns all problems of the descriptors, or of the upstreams.
    pub fn build(config: Config, traces: bool) -> Result<Self, Vec<String>> {
        let contract = config.contract()?;
        for warning in contract.warnings() {
            tracing::warn!(
                file = warning.file,
                element = warning.element,
                "{}",
                warning.problem
            );
        }
        let metrics = Metrics::default();
        let count_exchanges = |name: &str| -> ExchangeHook {
            let requests = metrics.upstream_requests(name);
            Arc::new(move |exchange| requests.count(exchange.status.map(|s| s.as_u16())))
        };
        let upstreams = Upstreams::build(&config.upstreams, family, |name| {
            Some(count_exchanges(name))
        })?;
        let watches = Watches::new(config.watch.clone());
        let dispatcher = Arc::new(Dispatcher::new(
            &config,
            traces,
            &contract,
            upstreams,
            watches,
            metrics.clone(),
        ));
        gauges::register(&dispatcher);
        Ok(Self {
            config,
            contract,
            dispatcher,
            metrics,
        })
    }

    /// Binds the listeners.
    ///
    /// # Errors
    ///
    /// Fails for an address that is in use or does not belong to this machine.
    pub async fn bind(self) -> Result<BoundGateway, Vec<String>> {
        let grpc =
            listener::bind(self.config.listen, "", "listen.grpc or DRAWBRIDGE_LISTEN").await?;
        if self.config.has_plaintext_tokens() {
            tracing::warn!(
                listen = %self.config.listen,
                "client tokens are received over plaintext: set [listen.tls], unless a proxy \
                 in front of the gateway terminates TLS"
            );
        }
        let admin = match self.config.admin {
            Some(address) => {
                Some(listener::bind(address, " (admin)", "listen.admin or DRAWBRIDGE_ADMIN").await?)
            }
            None => None,
        };
        Ok(BoundGateway {
            gateway: self,
            grpc,
            admin,
        })
    }

    /// Returns each service with the upstreams that can serve it.
    fn services(&self) -> Vec<health::ProbedService> {
        self.contract
            .services()
            .into_iter()
            .map(|(service, family)| health::ProbedService {
                name: service.to_owned(),
                upstreams: self.dispatcher.upstreams.of(family).cloned().collect(),
                health_check: self.contract.health_check(family).cloned(),
            })
            .collect()
    }
}

impl BoundGateway {
    /// Serves until the handle is stopped or dropped.
    ///
    /// # Errors
    ///
    /// Fails for descriptors that reflection cannot serve and for an invalid certificate.
    pub fn serve(self) -> Result<ServerHandle, Vec<String>> {
        let Self {
            gateway,
            grpc: listener,
            admin,
        } = self;
        let local = |listener: &TcpListener| listener.local_addr();
        let grpc = local(&listener).map_err(|e| vec![e.to_string()])?;
        let admin_address = admin.as_ref().and_then(|listener| local(listener).ok());
        let server = listener::server(&gateway.config)?;

        let (reporter, health_service) = tonic_health::server::health_reporter();
        let invalid = |e| vec![format!("reflection: {e}")];
        let reflection = || reflection::builder(&gateway.contract);
        let routes = Routes::new(health_service)
            .add_service(reflection().build_v1().map_err(invalid)?)
            .add_service(reflection().build_v1alpha().map_err(invalid)?)
            .add_service(GatewayServiceServer::new(gateway_service::Service(
                gateway.dispatcher.clone(),
            )));
        let probed = gateway.services();
        let services: Vec<String> = probed.iter().map(|s| s.name.clone()).collect();
        let Gateway {
            config,
            dispatcher,
            metrics,
            ..
        } = gateway;

        let readiness = Readiness::default();
        let probing = tokio::spawn(health::probe_and_report(
            reporter.clone(),
            probed,
            config.server.health_check_interval,
        ));
        let admin_task =
            admin.map(|admin| tokio::spawn(serve_admin(admin, metrics, readiness.clone())));
        let router = RouterLayer {
            dispatcher: dispatcher.clone(),
            tokens: ClientTokens::new(&config.client_tokens),
        };
        let drain = Drain {
            readiness: readiness.clone(),
            health: reporter,
            services,
            dispatcher,
            timeout: config.server.drain_timeout,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        readiness.set(true);
        let done = tokio::spawn(async move {
            let serve = |shutdown| {
                server
                    .layer(router)
                    .add_routes(routes)
                    .serve_with_incoming_shutdown(listener::incoming(listener), shutdown)
            };
            let result = drain.serve(stopped, serve).await;
            probing.abort();
            if let Some(task) = admin_task {
                task.abort();
            }
            result
        });
        Ok(ServerHandle {
            grpc,
            admin: admin_address,
            stop,
            done,
        })
    }
}

impl ServerHandle {
    /// Drains and stops the gateway: rejects new calls, ends watches with UNAVAILABLE, and
    /// returns when all calls have ended or the drain timeout has passed.
    ///
    /// # Errors
    ///
    /// Returns the failure that has stopped the server before.
    pub async fn stop(self) -> Result<(), String> {
        let _ = self.stop.send(());
        match self.done.await {
            Ok(result) => result.map_err(|e| format!("the server has failed: {e}")),
            Err(panic) => Err(format!("the server has failed: {panic}")),
        }
    }
}
