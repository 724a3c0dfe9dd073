//! What one configuration determines of a gateway that serves. A reload builds the next
//! generation and replaces this one; a call keeps the one that it began with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use drawbridge_transcoder::contract::{Contract, GATEWAY_SERVICES};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer;

use super::authn::SharedAccess;
use super::dispatcher::{Dispatcher, SharedState};
use super::health_service::{HealthRegistry, HealthService};
use super::protocol::Browsers;
use super::reflection::{Files, Reflection};
use super::router::Router;
use super::{gateway_service, health};
use crate::api::drawbridge::v1::gateway_service_server::GatewayServiceServer;
use crate::config::Config;
use crate::config::tls::first_end;
use crate::families::family;
use crate::policy::Policy;
use crate::telemetry::{AuditLog, UpstreamRequestMetrics};
use crate::upstream::{self, ExchangeHook, Upstreams};

/// The counters of upstreams, by name: an upstream that a reload replaces goes on with them.
#[derive(Debug, Default)]
pub(super) struct ExchangeCounters(Mutex<BTreeMap<String, Arc<UpstreamRequestMetrics>>>);

impl ExchangeCounters {
    /// Returns the counters of an upstream, which `new` makes the first time.
    pub(super) fn of(
        &self,
        upstream: &str,
        new: impl FnOnce() -> UpstreamRequestMetrics,
    ) -> Arc<UpstreamRequestMetrics> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = all.entry(upstream.to_owned());
        counters.or_insert_with(|| Arc::new(new())).clone()
    }
}

/// The configuration and what is built of it.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) config: Config,
    pub(super) contract: Arc<Contract>,
    /// None if every client may do everything.
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) exchanges: Arc<ExchangeCounters>,
    /// By upstream, when the first certificate of its `ca_file` expires.
    pub(super) ca_ends: Vec<(String, SystemTime)>,
}

/// A generation that serves.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) generation: Generation,
    pub(super) router: Router,
    /// The services of the contract.
    pub(super) services: Vec<health::ProbedService>,
}

/// The generation that serves new calls.
pub(super) type Current = Arc<ArcSwap<Serving>>;

impl Generation {
    /// Builds the first one. Opens no connection. `traces` says whether spans are exported.
    pub(super) fn first(config: Config, traces: bool) -> Result<Self, Vec<String>> {
        let audit = config.audit.as_ref().map(AuditLog::open).transpose();
        let shared = SharedState {
            audit: audit.map_err(|problem| vec![problem])?.map(Arc::new),
            ..SharedState::new(&config, traces)
        };
        Self::build(config, shared, None)
    }

    /// Builds the one after a reload, with the upstreams and the contract that stay the same.
    pub(super) fn next(&self, config: Config) -> Result<Self, Vec<String>> {
        Self::build(config, self.dispatcher.shared_state(), Some(self))
    }

    fn build(
        config: Config,
        mut shared: SharedState,
        before: Option<&Self>,
    ) -> Result<Self, Vec<String>> {
        for key in &config.ignored_keys {
            tracing::debug!("{key}");
        }
        let same_contract = before.filter(|before| before.config.descriptors == config.descriptors);
        let contract = match same_contract {
            // Only its families are checked.
            Some(before) => {
                config.check_families(&before.contract)?;
                before.contract.clone()
            }
            None => {
                // Results of lookups are encoded by the contract before.
                shared.names = Arc::default();
                let contract = config.contract()?;
                for warning in contract.warnings() {
                    tracing::warn!(
                        file = warning.file,
                        element = warning.element,
                        "{}",
                        warning.problem
                    );
                }
                Arc::new(contract)
            }
        };
        let policy = config.policy(&contract).map_err(|problems| {
            let texts = problems.iter().map(ToString::to_string);
            texts.collect::<Vec<_>>()
        })?;
        let exchanges = before.map(|before| before.exchanges.clone());
        let exchanges = exchanges.unwrap_or_default();
        let count_exchanges = |name: &str| -> ExchangeHook {
            let requests = exchanges.of(name, || shared.metrics.upstream_requests(name));
            Arc::new(move |exchange| {
                requests.count(exchange.status.map(|s| s.as_u16()), exchange.elapsed);
            })
        };
        let none = Upstreams::default();
        let known = before.map_or(&none, |before| &before.dispatcher.upstreams);
        let upstreams = known.build_next(&config.upstreams, family, |name| {
            Some(count_exchanges(name))
        })?;
        let ca_end = |settings: &upstream::Settings| {
            let pem = std::fs::read(settings.transport.ca_file.as_ref()?).ok()?;
            Some((settings.name.clone(), first_end(&pem, true)?))
        };
        let ca_ends = config.upstreams.iter().filter_map(ca_end).collect();
        let before = before.map(|before| &*before.dispatcher);
        let dispatcher = Dispatcher::new(&config, &contract, upstreams, shared, before);
        Ok(Self {
            config,
            contract,
            policy: policy.map(Arc::new),
            dispatcher: Arc::new(dispatcher),
            exchanges,
            ca_ends,
        })
    }

    /// Builds what serves its calls.
    ///
    /// # Errors
    ///
    /// Fails for descriptors that reflection cannot serve.
    pub(super) fn serving(
        self,
        access: &SharedAccess,
        health: &HealthRegistry,
    ) -> Result<Serving, String> {
        let services = self.services();
        let reflection = self.reflection(&services)?;
        let dispatcher = &self.dispatcher;
        let max_bytes = self.config.server.max_request_bytes;
        let health = HealthServer::new(HealthService(health.clone()));
        let reflection = ServerReflectionServer::new(reflection);
        let upstreams = GatewayServiceServer::new(gateway_service::Service(dispatcher.clone()));
        let routes = Routes::new(health.max_decoding_message_size(max_bytes))
            .add_service(reflection.max_decoding_message_size(max_bytes))
            .add_service(upstreams.max_decoding_message_size(max_bytes));
        let methods = dispatcher.methods.values();
        let forwarded = methods.flat_map(|method| &method.forwarded_headers);
        let forwarded = forwarded.map(http::HeaderName::as_str).collect();
        let browsers = Browsers::new(self.config.web.clone(), &forwarded);
        let router = Router::new(
            dispatcher.clone(),
            access.clone(),
            routes.prepare(),
            browsers,
            self.config.server.max_metadata_bytes,
        );
        Ok(Serving {
            generation: self,
            router,
            services,
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

    /// Returns the methods with the names of the upstreams that serve them, for the page.
    pub(super) fn methods(&self) -> impl Iterator<Item = (String, Vec<String>)> + '_ {
        self.dispatcher.methods.iter().map(|(path, served)| {
            let upstreams = served.by_upstream.iter();
            let names = upstreams.map(|(upstream, _)| upstream.settings.name.clone());
            (path[1..].to_owned(), names.collect())
        })
    }
}

impl Serving {
    /// Returns the status of each service.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (String, ServingStatus)> + '_ {
        let own = GATEWAY_SERVICES.map(|name| (name.to_owned(), ServingStatus::Serving));
        let of_upstreams =
            |s: &health::ProbedService| (s.name.clone(), health::status(&s.upstreams));
        self.services.iter().map(of_upstreams).chain(own)
    }
}
