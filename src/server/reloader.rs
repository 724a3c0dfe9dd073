//! Reads the configuration and its files again while the gateway serves. What is invalid is
//! rejected, and the last configuration stays.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::authn::{Access, SharedAccess};
use super::descriptors;
use super::generation::{Current, Generation, Serving};
use super::health::ProbedService;
use super::health_service::HealthRegistry;
use super::listen_files::{Reloaded, Watched};
use crate::admin::Explorer;
use crate::config::{Config, ListenFiles, Problem};
use crate::reload::INTERVAL;
use crate::telemetry::ReloadMetrics;

/// How long a change must last before it applies: a file that is being written can be valid
/// before it is complete.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Requests to read the configuration and its files at once.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<Reloaded>>);

/// The requests of a [`ReloadHandle`].
pub(super) type Requests = mpsc::Receiver<oneshot::Sender<Reloaded>>;

/// Returns a handle and the requests of it.
pub(super) fn requests() -> (ReloadHandle, Requests) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadHandle(sender), receiver)
}

impl ReloadHandle {
    /// Reads the files, and returns when a change applies or is refused.
    pub async fn reload(&self) -> Reloaded {
        let (done, completed) = oneshot::channel();
        match self.0.send(done).await {
            Ok(()) => completed.await.unwrap_or(Reloaded::NoFiles),
            Err(_) => Reloaded::NoFiles,
        }
    }
}

/// What a reload replaces.
pub(super) struct Reloader<A> {
    pub(super) current: Current,
    /// Certificates and client tokens, which also change without the configuration.
    pub(super) listen: Watched<A>,
    pub(super) access: SharedAccess,
    pub(super) health: HealthRegistry,
    /// What is probed.
    pub(super) services: watch::Sender<Vec<ProbedService>>,
    /// The page's, if it is served.
    pub(super) explorer: Option<Arc<Explorer>>,
    pub(super) metrics: ReloadMetrics,
    pub(super) rejected: Rejected,
}

/// The configuration that was rejected last: it is logged once.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    problems: String,
    /// Of one that can be read.
    digest: Option<[u8; 32]>,
}

impl<A: FnMut(&ListenFiles) -> Result<(), String>> Reloader<A> {
    /// Reads the files at the interval and at each request, until it is dropped.
    pub(super) async fn run(mut self, mut requests: Requests) {
        loop {
            let next = Instant::now() + INTERVAL;
            let request = tokio::select! {
                () = sleep_until(next) => None,
                Some(request) = requests.recv() => Some(request),
            };
            let config = self.reload_config(request.is_some()).await;
            // Certificates are renewed although the configuration is invalid.
            let listen = self.listen.reload().await;
            if let Some(done) = request {
                let result = match (config, listen) {
                    (Reloaded::Refused, _) | (_, Reloaded::Refused) => Reloaded::Refused,
                    (Reloaded::NoFiles, listen) => listen,
                    (config, _) => config,
                };
                // The requester may have left.
                let _ = done.send(result);
            }
        }
    }

    /// Reads the configuration, and applies a change, which must last unless it is `requested`.
    async fn reload_config(&mut self, requested: bool) -> Reloaded {
        let (config, digest) = match self.read().await {
            None => return Reloaded::NoFiles,
            Some(Ok(config)) => {
                let digest = config.digest;
                (config, digest)
            }
            Some(Err(problems)) => return self.reject(&problems, None, requested),
        };
        if digest == self.current.load().generation.config.digest {
            self.rejected = Rejected::default();
            self.metrics.holds();
            return Reloaded::Applied;
        }
        if !requested {
            if self.rejected.digest == Some(digest) {
                return Reloaded::Refused;
            }
            sleep(SETTLE_TIME).await;
            let settled = self.read().await;
            if !settled.is_some_and(|read| read.is_ok_and(|again| again.digest == digest)) {
                return Reloaded::Refused;
            }
        }
        match self.apply(config) {
            Ok(()) => {
                self.rejected = Rejected::default();
                self.metrics.applied();
                Reloaded::Applied
            }
            Err(problems) => {
                let problems: Vec<Problem> = problems.into_iter().map(Problem::from).collect();
                self.reject(&problems, Some(digest), requested)
            }
        }
    }

    /// Reads the configuration. None if it has no source.
    async fn read(&self) -> Option<Result<Config, Vec<Problem>>> {
        let source = self.current.load().generation.config.source.clone()?;
        let read = tokio::task::spawn_blocking(move || {
            source.read().map(|config| Config {
                source: Some(source),
                ..config
            })
        });
        let failed = |_| Err(vec![Problem::from("reading it has failed".to_owned())]);
        Some(read.await.unwrap_or_else(failed))
    }

    /// Logs and counts an invalid configuration: once, unless it was `requested`.
    fn reject(
        &mut self,
        problems: &[Problem],
        digest: Option<[u8; 32]>,
        requested: bool,
    ) -> Reloaded {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let rejected = Rejected {
            problems: texts.join("\n"),
            digest,
        };
        if requested || rejected.problems != self.rejected.problems {
            self.metrics.rejected();
            tracing::error!(
                problems = problems.len(),
                "the changed configuration is invalid: the last one stays"
            );
            for problem in problems {
                tracing::error!(
                    file = Some(&*problem.file).filter(|file| !file.is_empty()),
                    line = problem.line,
                    key = Some(&*problem.key).filter(|key| !key.is_empty()),
                    "{}",
                    problem.problem
                );
            }
        }
        self.rejected = rejected;
        Reloaded::Refused
    }

    /// Serves new calls by this configuration.
    fn apply(&mut self, mut config: Config) -> Result<(), Vec<String>> {
        let running = self.current.load_full();
        let before = &running.generation;
        descriptors::share(&mut config);
        let fixed = config.keep_fixed(&before.config);
        // The authentication of clients depends on all of it: it stays until a restart if a part
        // of it does.
        let keeps_listen = fixed
            .iter()
            .any(|key| key.starts_with("listen.") && *key != "listen.admin");
        let files = match keeps_listen {
            true => self.listen.last().clone(),
            false => config.listen_files(),
        };
        config.tls.clone_from(&files.tls);
        config.client_tokens.clone_from(&files.client_tokens);
        config.jwt.clone_from(&files.jwt);
        if let Some(problem) = config.unauthenticated_problem() {
            return Err(vec![format!("before a restart, {problem}")]);
        }
        let listen_source = config.listen_source.clone();
        let warnings = std::mem::take(&mut config.warnings);
        let next = before.next(config)?;
        let next = next.serving(&self.access, &self.health);
        let next = Arc::new(next.map_err(|problem| vec![problem])?);
        if self.listen.change(Ok(files)) == Reloaded::Refused {
            return Err(vec!["the files of [listen] cannot be used".to_owned()]);
        }
        if !keeps_listen {
            self.listen.set_source(listen_source);
        }
        for warning in warnings {
            tracing::warn!(
                file = Some(&*warning.file).filter(|file| !file.is_empty()),
                line = warning.line,
                key = Some(&*warning.key).filter(|key| !key.is_empty()),
                "{}",
                warning.problem
            );
        }
        // First, so that no call of the next generation is admitted by the rules before it. The
        // keys of JSON Web Tokens are those that `change` has accepted.
        let accepted = self.access.load();
        let policy = next.generation.policy.clone();
        let access = Access::new(&next.generation.config, policy, Some(&accepted));
        self.access
            .replace(access.map_err(|problem| vec![problem])?);
        self.health.replace(next.statuses());
        self.current.store(next.clone());
        self.services.send_replace(next.services.clone());
        if let Some(explorer) = &self.explorer {
            explorer.replace(&next.generation.contract, next.generation.methods());
        }
        log_change(before, &next.generation);
        if !fixed.is_empty() {
            tracing::warn!(
                keys = fixed.join(", "),
                "these settings have changed, and apply after a restart"
            );
        }
        replace_upstreams(&running, &next);
        Ok(())
    }
}

/// Ends the streams of upstreams that the next generation does not have, and after the drain
/// timeout their calls.
fn replace_upstreams(running: &Serving, next: &Serving) {
    let before = &running.generation.dispatcher;
    let after = &next.generation.dispatcher;
    let missing = before.upstreams.missing_in(&after.upstreams);
    if missing.is_empty() {
        return;
    }
    for upstream in &missing {
        after.names.forget(&upstream.settings.name);
        upstream.replace();
    }
    let timeout = next.generation.config.server.drain_timeout;
    tokio::spawn(async move {
        sleep(timeout).await;
        for upstream in missing {
            upstream.cut_off().begin();
        }
    });
}

/// Logs which upstreams a reload has added, removed or changed.
fn log_change(before: &Generation, after: &Generation) {
    let names = |of: &Generation, but: &Generation, is_in_both: bool| {
        let others = but.dispatcher.upstreams.all();
        let all = of.dispatcher.upstreams.all().iter();
        let found = all.filter(|one| {
            let other = others
                .iter()
                .find(|two| two.settings.name == one.settings.name);
            match (other, is_in_both) {
                (Some(other), true) => !Arc::ptr_eq(one, other),
                (other, in_both) => other.is_none() && !in_both,
            }
        });
        let names: Vec<&str> = found.map(|one| &*one.settings.name).collect();
        Some(names.join(", ")).filter(|names| !names.is_empty())
    };
    tracing::info!(
        added = names(after, before, false),
        removed = names(before, after, false),
        changed = names(after, before, true),
        "the configuration has changed: new calls are served by it"
    );
}

impl ReloadMetrics {
    /// Returns the metrics of a gateway that starts now.
    pub(super) fn started() -> Self {
        let metrics = Self::default();
        metrics.succeeded(SystemTime::now());
        metrics
    }

    fn applied(&self) {
        self.count_applied();
        self.succeeded(SystemTime::now());
    }

    fn rejected(&self) {
        self.count_rejected();
    }

    /// The files are those of the running configuration.
    fn holds(&self) {
        if !self.is_successful() {
            self.succeeded(SystemTime::now());
        }
    }
}
