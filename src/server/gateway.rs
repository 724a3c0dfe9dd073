//! Builds a gateway from its configuration, binds its listeners, serves.

use std::net::SocketAddr;
use std::sync::Arc;

use drawbridge_transcoder::contract::Contract;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::authn::ClientTokens;
use super::dispatcher::Dispatcher;
use super::router::RouterLayer;
use super::write_coalescing::CoalescedWrites;
use super::{gateway_service, gauges, health, reflection, tls};
use crate::admin::{Readiness, serve_admin};
use crate::api::drawbridge::v1::gateway_service_server::GatewayServiceServer;
use crate::config::Config;
use crate::families::family;
use crate::telemetry::Metrics;
use crate::upstream::{AttemptHook, Upstreams};
use crate::watch::Watches;

/// Flow control windows, in bytes: of a stream, and of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A gateway that is built and listens nowhere yet.
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
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where metrics are served.
    pub admin: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Builds a gateway, binds its listeners, and serves. `traces` says whether spans are
/// exported.
///
/// # Errors
///
/// All problems of a step, one per entry.
pub async fn start(config: Config, traces: bool) -> Result<ServerHandle, Vec<String>> {
    Gateway::build(config, traces)?.bind().await?.serve()
}

impl Gateway {
    /// Compiles the contract and makes upstreams, watches and the dispatcher; connects
    /// nowhere.
    ///
    /// # Errors
    ///
    /// All problems of the descriptors, or of the upstreams.
    pub fn build(config: Config, traces: bool) -> Result<Self, Vec<String>> {
        let contract = config.contract()?;
        let metrics = Metrics::default();
        let counted = |name: &str| -> AttemptHook {
            let requests = metrics.upstream_requests(name);
            Arc::new(move |attempt| requests.count(attempt.status.map(|s| s.as_u16())))
        };
        let upstreams = Upstreams::build(&config.upstreams, family, |name| Some(counted(name)))?;
        let watches = Watches::new(config.watch.clone());
        let dispatcher = Arc::new(Dispatcher::new(
            &config,
            traces,
            &contract,
            upstreams,
            watches,
            metrics.clone(),
        ));
        gauges::report(&dispatcher);
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
    /// An address that is taken or not this machine's.
    pub async fn bind(self) -> Result<BoundGateway, Vec<String>> {
        let grpc = bind(self.config.listen, "", "listen.grpc or DRAWBRIDGE_LISTEN").await?;
        if self.config.has_plaintext_tokens() {
            tracing::warn!(
                listen = %self.config.listen,
                "client tokens are received over plaintext: set [listen.tls], unless a proxy \
                 in front of the gateway terminates TLS"
            );
        }
        let admin = match self.config.admin {
            Some(address) => {
                Some(bind(address, " (admin)", "listen.admin or DRAWBRIDGE_ADMIN").await?)
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
    fn services(&self) -> Vec<health::Watched> {
        self.contract
            .services()
            .into_iter()
            .map(|(service, family)| health::Watched {
                service: service.to_owned(),
                upstreams: self.dispatcher.upstreams.of(family).cloned().collect(),
            })
            .collect()
    }

    /// Returns tonic's server with the limits of the configuration.
    fn server(&self) -> Result<Server, Vec<String>> {
        let settings = &self.config.server;
        let mut server = Server::builder()
            // HTTP/1.1 is accepted to be rejected in words.
            .accept_http1(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(settings.max_concurrent_streams)
            .http2_keepalive_interval(Some(settings.keepalive_interval))
            .http2_keepalive_timeout(Some(settings.keepalive_timeout));
        if let Some(age) = settings.max_connection_age {
            server = server
                .max_connection_age(age)
                .max_connection_age_grace(settings.max_connection_age_grace);
        }
        if let Some(tls) = &self.config.tls {
            server = server
                .tls_config(tls::config(tls, settings.tls_handshake_timeout))
                .map_err(|e| vec![format!("tls: {e}")])?;
        }
        Ok(server)
    }
}

impl BoundGateway {
    /// Serves until the handle is stopped.
    ///
    /// # Errors
    ///
    /// Descriptors that reflection cannot serve, or a certificate that cannot be used.
    pub fn serve(self) -> Result<ServerHandle, Vec<String>> {
        let Self {
            gateway,
            grpc: listener,
            admin,
        } = self;
        let local = |listener: &TcpListener| listener.local_addr();
        let grpc = local(&listener).map_err(|e| vec![e.to_string()])?;
        let admin_address = admin.as_ref().and_then(|listener| local(listener).ok());
        let server = gateway.server()?;

        let (reporter, health_service) = tonic_health::server::health_reporter();
        let broken = |e| vec![format!("reflection: {e}")];
        let reflection = || reflection::builder(&gateway.contract);
        let routes = Routes::new(health_service)
            .add_service(reflection().build_v1().map_err(broken)?)
            .add_service(reflection().build_v1alpha().map_err(broken)?)
            .add_service(GatewayServiceServer::new(gateway_service::Own(
                gateway.dispatcher.clone(),
            )));
        let watched = gateway.services();
        let services: Vec<String> = watched.iter().map(|w| w.service.clone()).collect();
        let Gateway {
            config,
            dispatcher,
            metrics,
            ..
        } = gateway;

        let readiness = Readiness::default();
        let probing = tokio::spawn(health::report(
            reporter.clone(),
            watched,
            config.server.health_check_interval,
        ));
        let admin_task =
            admin.map(|admin| tokio::spawn(serve_admin(admin, metrics, readiness.clone())));
        let router = RouterLayer {
            dispatcher: dispatcher.clone(),
            tokens: ClientTokens::new(&config.client_tokens),
        };
        let incoming = TcpIncoming::from(listener)
            .with_nodelay(Some(true))
            .map(|connection| connection.map(CoalescedWrites::new));
        let (stop, stopped) = oneshot::channel::<()>();
        let drain = config.server.drain_timeout;
        readiness.set(true);
        let done = tokio::spawn(async move {
            let (closing, closed) = oneshot::channel::<()>();
            let serving = server
                .layer(router)
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, async move {
                    // An error means that the handle was dropped: stop as well.
                    let _ = stopped.await;
                    readiness.set(false);
                    health::stop(&reporter, &services).await;
                    dispatcher.watches.drain();
                    let _ = closing.send(());
                });
            let result = tokio::select! {
                result = serving => result,
                () = async { let _ = closed.await; tokio::time::sleep(drain).await } => {
                    tracing::warn!(
                        drain_timeout_secs = drain.as_secs(),
                        "calls are cut off: the drain time has passed"
                    );
                    Ok(())
                }
            };
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
    /// Accepts no new calls, ends watches with UNAVAILABLE, lets calls finish, and
    /// returns when all have ended or the drain time has passed.
    ///
    /// # Errors
    ///
    /// What ended the server before.
    pub async fn stop(self) -> Result<(), String> {
        let _ = self.stop.send(());
        match self.done.await {
            Ok(result) => result.map_err(|e| format!("serving ended with: {e}")),
            Err(panic) => Err(format!("serving ended with: {panic}")),
        }
    }
}

/// Binds one listener; `setting` names where another address is configured.
async fn bind(address: SocketAddr, what: &str, setting: &str) -> Result<TcpListener, Vec<String>> {
    TcpListener::bind(address).await.map_err(|e| {
        vec![format!(
            "cannot listen on {address}{what}: {e}; another is chosen by {setting}"
        )]
    })
}
