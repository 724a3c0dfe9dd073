//! The composition root: builds every room, serves, drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::admin::{Readiness, serve_admin};
use crate::api::drawbridge::v1::gateway_service_server::GatewayServiceServer;
use crate::config::Config;
use crate::engine::Uploads;
use crate::engine::name_lookup::Names;
use crate::families::family;
use crate::server::dispatcher::Engine;
use crate::server::dispatcher::Served;
use crate::server::gauges;
use crate::server::health;
use crate::server::response_write_timeout::Departures;
use crate::server::router::{CallerTokens, FrontLayer};
use crate::server::write_coalescing::Batched;
use crate::telemetry::Metrics;
use crate::upstream::{AttemptHook, Upstreams};
use crate::watch::Watches;
use drawbridge_transcoder::contract::Contract;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where metrics are served.
    pub admin: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    /// Takes no new calls, ends watches with UNAVAILABLE, lets calls finish, and
    /// returns when all is over or the drain time has passed.
    pub async fn stop(self) -> Result<(), String> {
        let _ = self.stop.send(());
        match self.done.await {
            Ok(result) => result.map_err(|e| format!("serving ended with: {e}")),
            Err(panic) => Err(format!("serving ended with: {panic}")),
        }
    }
}

/// Builds every room and serves. All that can be wrong is told at once.
/// `traces` says whether spans are exported.
pub async fn start(config: Config, traces: bool) -> Result<Running, Vec<String>> {
    let contract = config.contract()?;
    let metrics = Metrics::default();
    let counted = |name: &str| -> AttemptHook {
        let attempts = metrics.attempts(name);
        Arc::new(move |attempt| attempts.count(attempt.status.map(|s| s.as_u16())))
    };
    let upstreams = Upstreams::build(&config.upstreams, family, |name| Some(counted(name)))?;
    let watches = Watches::new(config.watch.clone());
    let engine = Arc::new(Engine::new(
        &config,
        traces,
        &contract,
        upstreams,
        watches,
        metrics.clone(),
    ));
    gauges::report(&engine);

    let one = |e: String| vec![e];
    let listener = TcpListener::bind(config.listen).await.map_err(|e| {
        one(format!(
            "cannot listen on {}: {e}; another is chosen by listen.grpc or DRAWBRIDGE_LISTEN",
            config.listen
        ))
    })?;
    let grpc = listener.local_addr().map_err(|e| one(e.to_string()))?;
    if config.tokens_in_the_clear() {
        tracing::warn!(
            listen = %grpc,
            "callers' tokens come in the clear: set [listen.tls], unless a proxy before the gateway speaks TLS"
        );
    }
    let readiness = Readiness::default();
    let mut admin_task = None;
    let mut admin = None;
    if let Some(address) = config.admin {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            one(format!(
                "cannot listen on {address} (admin): {e}; another is chosen by listen.admin \
                     or DRAWBRIDGE_ADMIN"
            ))
        })?;
        admin = listener.local_addr().ok();
        admin_task = Some(tokio::spawn(serve_admin(
            listener,
            metrics,
            readiness.clone(),
        )));
    }

    let (reporter, health) = tonic_health::server::health_reporter();
    let watched = watched(&contract, &engine.upstreams);
    let services: Vec<String> = watched.iter().map(|w| w.service.clone()).collect();
    let probing = tokio::spawn(health::report(
        reporter.clone(),
        watched,
        config.server.probe_interval,
    ));
    let broken = |e| one(format!("reflection: {e}"));
    let routes = Routes::new(health)
        .add_service(reflection(&contract).build_v1().map_err(broken)?)
        .add_service(reflection(&contract).build_v1alpha().map_err(broken)?)
        .add_service(GatewayServiceServer::new(
            crate::server::gateway_service::Own(engine.clone()),
        ));

    let mut server = Server::builder()
        // To reject it in words; the router serves HTTP/2 alone.
        .accept_http1(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(config.server.max_streams)
        .http2_keepalive_interval(Some(config.server.keepalive_interval))
        .http2_keepalive_timeout(Some(config.server.keepalive_timeout));
    if let Some(age) = config.server.max_connection_age {
        server = server
            .max_connection_age(age)
            .max_connection_age_grace(config.server.max_connection_age_grace);
    }
    if let Some(tls) = &config.tls {
        let identity = Identity::from_pem(&tls.certificate, tls.key.expose_secret());
        let mut config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE);
        if let Some(ca) = &tls.client_ca {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        server = server
            .tls_config(config)
            .map_err(|e| one(format!("tls: {e}")))?;
    }
    let front = FrontLayer {
        engine: engine.clone(),
        tokens: CallerTokens::new(&config.caller_tokens),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let drain = config.server.drain;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = incoming.map(|connection| connection.map(Batched::new));
    readiness.set(true);
    let done = tokio::spawn(async move {
        let (closing, closed) = oneshot::channel::<()>();
        let serving = server
            .layer(front)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async move {
                // An error means that `Running` was dropped: stop as well.
                let _ = stopped.await;
                readiness.set(false);
                health::stop(&reporter, &services).await;
                engine.watches.drain();
                let _ = closing.send(());
            });
        let result = tokio::select! {
            result = serving => result,
            () = async { let _ = closed.await; tokio::time::sleep(drain).await } => {
                tracing::warn!(drain_secs = drain.as_secs(), "calls are cut off: the drain time has passed");
                Ok(())
            }
        };
        probing.abort();
        if let Some(task) = admin_task {
            task.abort();
        }
        result
    });
    Ok(Running {
        grpc,
        admin,
        stop,
        done,
    })
}

impl Engine {
    pub(super) fn new(
        config: &Config,
        traces: bool,
        contract: &Contract,
        upstreams: Upstreams,
        watches: Watches,
        metrics: Metrics,
    ) -> Self {
        let methods = contract
            .methods()
            .into_iter()
            .map(|method| {
                let operation = &method.path[1..];
                let family = family(&method.family);
                let served = Served {
                    method: method.clone(),
                    at: upstreams
                        .of(&method.family)
                        .map(|u| (u.clone(), metrics.rpc(operation, &u.settings.name)))
                        .collect(),
                    nowhere: metrics.rpc(operation, ""),
                    forwarded: family
                        .request_id_headers
                        .iter()
                        .chain(&["warning"])
                        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                        .collect(),
                };
                (method.path.clone(), Arc::new(served))
            })
            .collect();
        Self {
            methods,
            upstreams,
            watches,
            names: Names::default(),
            metrics,
            uploads: Uploads::new(config.server.max_upload_bytes),
            departures: Departures::default(),
            max_request_bytes: config.server.max_request_bytes,
            default_deadline: config.server.default_deadline,
            traces,
            sandbox: config.sandbox,
        }
    }
}

/// Each service with the upstreams that can serve it.
fn watched(contract: &Contract, upstreams: &Upstreams) -> Vec<health::Watched> {
    let services = contract.services().into_iter();
    let watched = services.map(|(service, family)| health::Watched {
        service: service.to_owned(),
        upstreams: upstreams.of(family).cloned().collect(),
    });
    watched.collect()
}

/// Server reflection from the encoded descriptor sets, so that options survive.
fn reflection(contract: &Contract) -> tonic_reflection::server::Builder<'_> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    contract.descriptor_sets().iter().fold(
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(health),
        |builder, set| builder.register_encoded_file_descriptor_set(set),
    )
}
