//! Builds a gateway from its configuration, binds its listeners and serves: the
//! composition root.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::admin_listener::AdminListener;
use super::authn::{Access, SharedAccess};
use super::descriptors::DescriptorShares;
use super::drain::{Drain, Stop};
use super::generation::{Current, Generation};
use super::health_service::HealthRegistry;
use super::listen_files::Watched;
use super::listener::Connections;
use super::reloader::{Rejected, ReloadHandle, Reloader};
use super::status::StatusSource;
use super::{descriptors, gauges, health, listener, reloader};
use crate::admin::{self, Connection, Explorer, Page, Readiness};
use crate::config::{Config, ListenFiles, NO_POLICY, PLAINTEXT_TOKENS, TRUSTED_SIDECAR};
use crate::telemetry::ReloadMetrics;

/// How long a stopped gateway waits until the last lines of the audit log are written.
const MAX_AUDIT_FLUSH_TIME: Duration = Duration::from_secs(1);

/// A gateway that is built and has no listeners yet.
#[derive(Debug)]
pub struct Gateway {
    generation: Generation,
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
    /// Reads the configuration and its files at once.
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
        let descriptors = descriptors::share(&mut config);
        Ok(Self {
            generation: Generation::first(config, traces)?,
            descriptors,
        })
    }

    /// Binds the listeners.
    ///
    /// # Errors
    ///
    /// Fails for an address that is in use or does not belong to this machine.
    pub async fn bind(self) -> Result<BoundGateway, Vec<String>> {
        let config = &self.generation.config;
        let grpc = listener::bind(config.listen, "", "listen.grpc or DRAWBRIDGE_LISTEN").await?;
        if config.has_plaintext_tokens() {
            tracing::warn!(listen = %config.listen, "{PLAINTEXT_TOKENS}");
        }
        if self.generation.policy.is_none() && config.authenticates_clients() {
            tracing::warn!("{NO_POLICY}");
        }
        if config.trusts_sidecar {
            tracing::warn!(listen = %config.listen, "{TRUSTED_SIDECAR}");
        }
        let admin = match config.admin {
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
        let Gateway {
            generation,
            descriptors,
        } = gateway;
        let config = generation.config.clone();
        let audit = generation.dispatcher.audit.clone();
        let metrics = generation.dispatcher.metrics.clone();
        let access = Access::new(&config, generation.policy.clone(), None).map_err(|e| vec![e])?;
        let access = SharedAccess::new(access);
        let registry = HealthRegistry::new([]);
        let serving = generation.serving(&access, &registry);
        let serving = serving.map_err(|problem| vec![problem])?;
        registry.replace(serving.statuses());
        let (services, probed) = watch::channel(serving.services.clone());
        let current: Current = Arc::new(ArcSwap::from_pointee(serving));
        let expiries = gauges::CertificateExpiries::new(config.tls.as_ref());
        gauges::register(&current, &metrics, expiries.clone());
        let reload_metrics = ReloadMetrics::started();
        let samples = reload_metrics.clone();
        metrics.add_source(move || samples.samples());
        let connections = Connections::new(&config, current.clone(), descriptors.clients);
        let connections = Arc::new(connections.map_err(|e| vec![e])?);

        let readiness = Readiness::default();
        let interval = config.server.health_check_interval;
        let probing = health::probe_and_report(registry.clone(), probed, interval);
        let probing = tokio::spawn(probing);
        let explorer = admin.is_some() && config.serves_page();
        let explorer = explorer.then(|| {
            let generation = &current.load().generation;
            Arc::new(Explorer::new(
                &generation.contract,
                generation.methods(),
                Connection::new(&config, grpc),
                config.server.max_request_bytes,
                &generation.dispatcher.memory,
            ))
        });
        let admin_task = admin.map(|admin| {
            let status = StatusSource {
                current: current.clone(),
                readiness: readiness.clone(),
                started_at: SystemTime::now(),
            };
            let page = explorer.clone().map(|explorer| Page {
                address: config.admin.unwrap_or(grpc),
                status: Arc::new(move || status.read()),
                explorer,
            });
            let pages = admin::routes(metrics.clone(), readiness.clone(), page);
            let listener = AdminListener::new(pages, &config.server, descriptors.admin, &metrics);
            tokio::spawn(listener.serve(admin))
        });

        let (reload, requests) = reloader::requests();
        let has_files = config.source.is_some() || config.listen_source.is_some();
        let reloading = has_files.then(|| {
            let (connections, accepted) = (connections.clone(), access.clone());
            let mut changed = config.clone();
            let apply = move |files: &ListenFiles| {
                changed.client_tokens.clone_from(&files.client_tokens);
                changed.jwt.clone_from(&files.jwt);
                let last = accepted.load();
                let changed = Access::new(&changed, last.policy().cloned(), Some(&last))?;
                if let Some(tls) = &files.tls {
                    connections.replace_tls(tls)?;
                    expiries.replace(tls);
                }
                accepted.replace(changed);
                Ok(())
            };
            let reloader = Reloader {
                current: current.clone(),
                listen: Watched::new(config.listen_source.clone(), config.listen_files(), apply),
                access,
                health: registry.clone(),
                services,
                explorer,
                metrics: reload_metrics,
                rejected: Rejected::default(),
            };
            tokio::spawn(reloader.run(requests)).abort_handle()
        });
        let drain = Drain {
            background: reloading
                .into_iter()
                .chain([probing.abort_handle()])
                .collect(),
            readiness: readiness.clone(),
            health: registry,
            current,
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
