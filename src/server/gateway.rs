//! Builds a gateway from its configuration, binds its listeners and serves: the
//! composition root.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drawbridge_transcoder::contract::{Contract, GATEWAY_SERVICES};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer;

use super::admin_listener::AdminListener;
use super::authn::{Access, SharedAccess};
use super::descriptors::DescriptorShares;
use super::dispatcher::Dispatcher;
use super::drain::{Drain, Stop};
use super::health_service::{HealthRegistry, HealthService};
use super::listen_files::{ReloadHandle, Watched};
use super::listener::Connections;
use super::protocol::Browsers;
use super::reflection::{Files, Reflection};
use super::router::Router;
use super::status::StatusSource;
use super::{gateway_service, gauges, health, listen_files, listener};
use crate::admin::{self, Connection, Explorer, Page, Readiness};
use crate::api::drawbridge::v1::gateway_service_server::GatewayServiceServer;
use crate::config::{Config, ListenFiles, NO_POLICY, PLAINTEXT_TOKENS, Problem, TRUSTED_SIDECAR};
use crate::families::family;
use crate::policy::Policy;
use crate::telemetry::{AuditLog, Metrics, UpstreamRequestMetrics};
use crate::upstream::{ExchangeHook, Upstreams, default_downloads};
use crate::watch::Watches;

/// How long a stopped gateway waits until the last lines of the audit log are written.
const MAX_AUDIT_FLUSH_TIME: Duration = Duration::from_secs(1);

/// A gateway that is built and has no listeners yet.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    contract: Contract,
    policy: Option<Arc<Policy>>,
    dispatcher: Arc<Dispatcher>,
    metrics: Metrics,
    /// Of each upstream, in the order of the configuration.
    exchanges: Vec<Arc<UpstreamRequestMetrics>>,
    descriptors: DescriptorShares,
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
    /// Reads the files of `[listen]` at once.
    pub reload: ReloadHandle,
    stop: oneshot::Sender<Stop>,
    done: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// Compiles the contract and builds upstreams, watches and the dispatcher. Opens no
    /// connection. `traces` says whether spans are exported.
    ///
    /// # Errors
    ///
    /// Returns all problems of the descriptors, or of the upstreams.
    pub fn build(mut config: Config, traces: bool) -> Result<Self, Vec<String>> {
        let descriptors = share_descriptors(&mut config);
        for key in &config.ignored_keys {
            tracing::debug!("{key}");
        }
        let contract = config.contract()?;
        for warning in contract.warnings() {
            tracing::warn!(
                file = warning.file,
                element = warning.element,
                "{}",
                warning.problem
            );
        }
        let policy = config.policy(&contract).map_err(texts)?;
        let metrics = Metrics::default();
        let exchanges = RefCell::new(Vec::new());
        let count_exchanges = |name: &str| -> ExchangeHook {
            let requests = Arc::new(metrics.upstream_requests(name));
            exchanges.borrow_mut().push(requests.clone());
            Arc::new(move |exchange| {
                requests.count(exchange.status.map(|s| s.as_u16()), exchange.elapsed);
            })
        };
        let upstreams = Upstreams::build(&config.upstreams, family, |name| {
            Some(count_exchanges(name))
        })?;
        let watches = Watches::new(config.watch.clone());
        let audit = config.audit.as_ref().map(AuditLog::open).transpose();
        let audit = audit.map_err(|e| vec![e])?.map(Arc::new);
        let dispatcher = Arc::new(Dispatcher::new(
            &config,
            traces,
            &contract,
            upstreams,
            watches,
            metrics.clone(),
            audit,
        ));
        gauges::register(&dispatcher);
        Ok(Self {
            config,
            contract,
            policy: policy.map(Arc::new),
            dispatcher,
            metrics,
            exchanges: exchanges.into_inner(),
            descriptors,
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
            tracing::warn!(listen = %self.config.listen, "{PLAINTEXT_TOKENS}");
        }
        if self.policy.is_none() && self.config.authenticates_clients() {
            tracing::warn!("{NO_POLICY}");
        }
        if self.config.trusts_sidecar {
            tracing::warn!(listen = %self.config.listen, "{TRUSTED_SIDECAR}");
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

    /// Returns reflection over all descriptor sets. Lists the services that have an upstream,
    /// and those that need none.
    fn reflection(&self, services: &[health::ProbedService]) -> Result<Reflection, String> {
        let files = Files::new(self.dispatcher.client_json.sets().iter().cloned())?;
        let served = services.iter().filter(|s| !s.upstreams.is_empty());
        let names = served.map(|s| s.name.clone());
        Ok(Reflection::new(
            names.chain(GATEWAY_SERVICES.map(str::to_owned)).collect(),
            files,
            self.dispatcher.watches.streams().clone(),
            self.config.server.max_request_bytes,
        ))
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
        let probed = gateway.services();
        let reflection = gateway.reflection(&probed).map_err(|e| vec![e])?;
        let Gateway {
            config,
            dispatcher,
            metrics,
            exchanges,
            descriptors,
            contract,
            policy,
        } = gateway;

        let own = GATEWAY_SERVICES.map(|name| (name.to_owned(), ServingStatus::Serving));
        let of_upstreams =
            |s: &health::ProbedService| (s.name.clone(), health::status(&s.upstreams));
        let registry = HealthRegistry::new(probed.iter().map(of_upstreams).chain(own));
        let max_bytes = config.server.max_request_bytes;
        let health = HealthServer::new(HealthService(registry.clone()));
        let reflection = ServerReflectionServer::new(reflection);
        let upstreams = GatewayServiceServer::new(gateway_service::Service(dispatcher.clone()));
        let routes = Routes::new(health.max_decoding_message_size(max_bytes))
            .add_service(reflection.max_decoding_message_size(max_bytes))
            .add_service(upstreams.max_decoding_message_size(max_bytes));
        let access = Access::new(&config, policy, None).map_err(|e| vec![e])?;
        let access = SharedAccess::new(access);
        let methods = dispatcher.methods.values();
        let forwarded = methods.flat_map(|method| &method.forwarded_headers);
        let forwarded = forwarded.map(http::HeaderName::as_str).collect();
        let browsers = Browsers::new(config.web.clone(), &forwarded);
        let router = Router::new(
            dispatcher.clone(),
            access.clone(),
            routes.prepare(),
            browsers,
            config.server.max_metadata_bytes,
        );
        let connections = Connections::new(&config, router, descriptors.clients);
        let connections = Arc::new(connections.map_err(|e| vec![e])?);

        let (reload, requests) = listen_files::requests();
        let reloading = config.listen_source.clone().map(|source| {
            let connections = connections.clone();
            let mut changed = config.clone();
            let apply = move |files: &ListenFiles| {
                if let Some(tls) = &files.tls {
                    connections.replace_tls(tls)?;
                }
                changed.client_tokens = files.client_tokens.clone();
                changed.jwt = files.jwt.clone();
                let last = access.load();
                let policy = last.policy().cloned();
                access.replace(Access::new(&changed, policy, Some(&last))?);
                Ok(())
            };
            let watched = Watched::new(source, config.listen_files(), requests, apply);
            tokio::spawn(watched.run())
        });

        let readiness = Readiness::default();
        let probing = tokio::spawn(health::probe_and_report(
            registry.clone(),
            probed,
            config.server.health_check_interval,
        ));
        let admin_task = admin.map(|admin| {
            let methods = dispatcher.methods.iter().map(|(path, served)| {
                let upstreams = served.by_upstream.iter();
                let names = upstreams.map(|(upstream, _)| upstream.settings.name.clone());
                (path[1..].to_owned(), names.collect())
            });
            let explorer = Explorer::new(
                &contract,
                methods,
                Connection::new(&config, grpc),
                config.server.max_request_bytes,
                &dispatcher.memory,
            );
            let status = StatusSource {
                dispatcher: dispatcher.clone(),
                exchanges,
                readiness: readiness.clone(),
                started_at: SystemTime::now(),
            };
            let page = config.serves_page().then(|| Page {
                address: config.admin.unwrap_or(grpc),
                status: Arc::new(move || status.read()),
                explorer: Arc::new(explorer),
            });
            let pages = admin::routes(metrics.clone(), readiness.clone(), page);
            let listener = AdminListener::new(pages, &config.server, descriptors.admin, &metrics);
            tokio::spawn(listener.serve(admin))
        });
        let audit = dispatcher.audit.clone();
        let drain = Drain {
            probing: probing.abort_handle(),
            readiness: readiness.clone(),
            health: registry,
            dispatcher,
            delay: config.server.drain_delay,
            timeout: config.server.drain_timeout,
        };
        let (stop, stopped) = oneshot::channel::<Stop>();
        readiness.set(true);
        let done = tokio::spawn(async move {
            let serve = |shutdown: oneshot::Receiver<()>| {
                connections.serve(listener, async {
                    let _ = shutdown.await;
                })
            };
            drain.serve(stopped, serve).await;
            if let Some(task) = admin_task {
                task.abort();
            }
            if let Some(task) = reloading {
                task.abort();
            }
            if let Some(audit) = audit {
                let flush = move || audit.flush(MAX_AUDIT_FLUSH_TIME);
                // A panic there is logged.
                let _ = tokio::task::spawn_blocking(flush).await;
            }
        });
        Ok(ServerHandle {
            grpc,
            admin: admin_address,
            reload,
            stop,
            done,
        })
    }
}

impl ServerHandle {
    /// Stops the gateway as SIGTERM does. Fails readiness and health, and after the drain delay
    /// rejects new connections and calls, ends watches with UNAVAILABLE, and returns when all
    /// calls have ended or the drain timeout has passed.
    ///
    /// # Errors
    ///
    /// Returns the failure that has stopped the server before.
    pub async fn stop(self) -> Result<(), String> {
        self.end(Stop::Delayed).await
    }

    /// Stops the gateway as [`ServerHandle::stop`] does, without the drain delay.
    ///
    /// # Errors
    ///
    /// Returns the failure that has stopped the server before.
    pub async fn stop_without_delay(self) -> Result<(), String> {
        self.end(Stop::Now).await
    }

    async fn end(self, stop: Stop) -> Result<(), String> {
        let _ = self.stop.send(stop);
        let done = self.done.await;
        done.map_err(|panic| format!("the server has failed: {panic}"))
    }
}

/// Returns problems as text, with their places.
fn texts(problems: Vec<Problem>) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Divides the descriptors of the process. Where they do not suffice, lowers the concurrent
/// calls of upstreams, and says so.
fn share_descriptors(config: &mut Config) -> DescriptorShares {
    let upstreams = config.upstreams.iter();
    let calls = upstreams.map(|u| (u.max_concurrent_calls, u.downloads()));
    let calls: Vec<(usize, usize)> = calls.collect();
    let mut shares = DescriptorShares::of_process(&calls);
    let wanted = config.server.max_connections as usize;
    let most_calls = calls.into_iter().map(|(calls, _)| calls).max();
    let most_calls = most_calls.unwrap_or_default();
    if shares.clients < wanted || shares.calls_per_upstream < most_calls {
        tracing::warn!(
            max_connections = shares.clients.min(wanted),
            max_concurrent_calls = shares.calls_per_upstream.min(most_calls),
            "limits are lower than configured: raise the limit of open descriptors (`ulimit -n`)"
        );
    }
    shares.clients = shares.clients.min(wanted);
    for upstream in &mut config.upstreams {
        let calls = &mut upstream.max_concurrent_calls;
        // Also where `max_downloads` alone takes more than there are.
        if shares.calls_per_upstream < usize::MAX {
            *calls = (*calls).min(shares.calls_per_upstream);
            let downloads = default_downloads(*calls);
            upstream.max_downloads = upstream.downloads().min(downloads);
        }
    }
    shares
}
