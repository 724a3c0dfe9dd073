//! Configuration: one TOML file and the environment, read once into checked values. All
//! problems are reported together, each with file and line.
//!
//! Environment variables take precedence over the file: `DRAWBRIDGE_LISTEN`,
//! `DRAWBRIDGE_ADMIN` (an address or `off`), `DRAWBRIDGE_LOG` (the level) and
//! `DRAWBRIDGE_LOG_FORMAT` (`text` or `json`). `drawbridge.example.toml` describes every key
//! of the file.

mod auth;
mod clients;
mod environment;
mod jwt;
mod overlay;
mod policy;
mod reader;
mod reload;
mod schema;
mod server;
pub(crate) mod tls;
mod upstreams;
mod web;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::credentials::Settings as Auth;
use crate::credentials::SettingsSource;
use crate::policy::Rule;
use crate::reload::FileSource;
use crate::spelling::nearest;
use crate::telemetry::LogFilter;
use crate::{telemetry, upstream, watch};
pub(crate) use clients::sha256;
pub use clients::{ClientLimitSettings, ClientToken, name_problem};
use drawbridge_transcoder::contract::{Contract, Selection, Source, selectable};
pub use environment::Environment;
pub use jwt::{JwksSource, JwtOptions};
pub use overlay::Overlay;
pub use reload::ConfigSource;
pub use schema::schema;
pub use server::ServerOptions;
pub use web::WebOptions;

use reader::{Report, Section};

/// Maximum size of a configuration file, a descriptor set or a file with a secret.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What is wrong where [`Config::has_plaintext_tokens`].
pub const PLAINTEXT_TOKENS: &str = "client tokens are received over plaintext: set [listen.tls], \
                                    unless a proxy in front of the gateway terminates TLS";

/// What clients may do without a rule.
pub const NO_POLICY: &str = "each authenticated client may do everything: there is no [[policy]]";

/// What is at stake where [`Config::trusts_sidecar`].
pub const TRUSTED_SIDECAR: &str = "clients are named by x-forwarded-client-cert \
                                   (listen.clients.trust_forwarded_client_cert): whatever reaches \
                                   the listener without the sidecar can name itself any client";

/// Looks up an environment variable. Tests pass their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The configuration of a gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the gRPC listener. Default: `127.0.0.1:50051`.
    pub listen: SocketAddr,
    /// Address of the admin listener, which serves metrics, liveness and readiness. Default:
    /// none; in the sandbox `127.0.0.1:50052`.
    pub admin: Option<SocketAddr>,
    /// Whether the admin listener serves its page and calls for it. None: on loopback only.
    pub admin_page: Option<bool>,
    /// TLS of the gRPC listener. None: plaintext.
    pub tls: Option<Tls>,
    /// Tokens that authenticate clients. Empty: clients need no token.
    pub client_tokens: Vec<ClientToken>,
    /// `[listen.clients.jwt]`: JSON Web Tokens that authenticate clients.
    pub jwt: Option<JwtOptions>,
    /// Whether a sidecar sends the certificates of clients, and nothing else reaches the
    /// listener.
    pub trusts_sidecar: bool,
    /// `[listen.limits]`: what one client may use.
    pub client_limits: ClientLimitSettings,
    /// `[listen.web]`: calls of web pages.
    pub web: WebOptions,
    /// Reads the files of `[listen]` again. None if it names none.
    pub listen_source: Option<FileSource<ListenFiles>>,
    /// Reads the configuration again. None: it does not change while the gateway runs.
    pub source: Option<ConfigSource>,
    /// The keys that come from the environment.
    pub overlay: Overlay,
    /// Digest of the file and of the files that it names.
    pub(crate) digest: [u8; 32],
    /// `[server]`: limits and timeouts of the gRPC listener.
    pub server: ServerOptions,
    /// `[watch]`: limits and timeouts of watches.
    pub watch: watch::Settings,
    /// `[[upstream]]`. The sandbox adds its own when it starts.
    pub upstreams: Vec<upstream::Settings>,
    /// `[[policy]]`: what each identity may do. Empty: everything.
    pub policy: Vec<Rule>,
    /// `[[descriptors]]`: descriptor sets of the user's own REST APIs.
    pub descriptors: Vec<Source>,
    /// `[log]`.
    pub log: telemetry::Settings,
    /// `[audit]`: the audit log. None: no audit log.
    pub audit: Option<telemetry::AuditSettings>,
    /// Whether the upstreams are those of the sandbox. Every response then says so.
    pub sandbox: bool,
    /// The keys of clouds that are ignored, for the log at level debug.
    pub ignored_keys: Vec<String>,
    /// What does not prevent the start and is probably a mistake.
    pub warnings: Vec<Problem>,
}

/// The certificate of the gRPC listener, and the CA of client certificates.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate: Vec<u8>,
    /// The private key, PEM.
    pub key: SecretString,
    /// The CA that client certificates must be issued by, PEM. None: clients need no
    /// certificate.
    pub client_ca: Option<Vec<u8>>,
}

/// Compares all of it, secrets included.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let key = |tls: &Self| tls.key.expose_secret().to_owned();
        self.certificate == other.certificate
            && self.client_ca == other.client_ca
            && key(self) == key(other)
    }
}

/// What the files of `[listen]` contain.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenFiles {
    /// As [`Config::tls`].
    pub tls: Option<Tls>,
    /// As [`Config::client_tokens`].
    pub client_tokens: Vec<ClientToken>,
    /// As [`Config::jwt`].
    pub jwt: Option<JwtOptions>,
}

/// One problem of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `environment`; empty for a problem without a place.
    pub file: String,
    /// The line, counted from 1, if the problem has one.
    pub line: Option<usize>,
    /// The key, for example `upstream.auth.password_env`; empty for the file as such.
    pub key: String,
    /// What is invalid, and how to correct it.
    pub problem: String,
}

impl Problem {
    /// Returns a problem of an environment variable.
    fn of_variable(name: &str, problem: &str) -> Self {
        Self {
            file: "environment".to_owned(),
            line: None,
            key: name.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// A problem without a place.
impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self {
            file: String::new(),
            line: None,
            key: String::new(),
            problem,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl Config {
    /// Returns the defaults of `drawbridge sandbox`.
    pub fn sandbox() -> Self {
        Self {
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 50_052))),
            sandbox: true,
            server: ServerOptions {
                drain_delay: Duration::ZERO,
                ..ServerOptions::default()
            },
            ..Self::empty()
        }
    }

    /// Returns the defaults, without an upstream.
    fn empty() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            admin: None,
            admin_page: None,
            tls: None,
            client_tokens: Vec::new(),
            jwt: None,
            trusts_sidecar: false,
            client_limits: ClientLimitSettings::default(),
            web: WebOptions::default(),
            listen_source: None,
            source: None,
            overlay: Overlay::default(),
            digest: [0; 32],
            server: ServerOptions::default(),
            watch: watch::Settings::default(),
            upstreams: Vec::new(),
            policy: Vec::new(),
            descriptors: Vec::new(),
            log: telemetry::Settings::default(),
            audit: None,
            sandbox: false,
            ignored_keys: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads the file at `path` and the environment. Paths in the file are relative to its
    /// directory.
    ///
    /// # Errors
    ///
    /// Returns all problems, each with file and line.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Self, Vec<Problem>> {
        Self::read(path, Self::empty(), env)
    }

    /// As [`Config::load`], with the keys of `overlay`, which take precedence over the file.
    /// Without a path there are only those.
    ///
    /// # Errors
    ///
    /// Returns all problems, each with file and line, or with its variable.
    pub fn load_with(
        path: Option<&Path>,
        overlay: Overlay,
        env: Env<'_>,
    ) -> Result<Self, Vec<Problem>> {
        Self::empty().read_over(path, overlay, env)
    }

    /// Reads the file, if there is one, and the overlay over these defaults.
    fn read_over(
        self,
        path: Option<&Path>,
        overlay: Overlay,
        env: Env<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let defaults = Self { overlay, ..self };
        match path {
            Some(path) => Self::read(path, defaults, env),
            None => Self::parse("environment", "", Path::new(""), defaults, env),
        }
    }

    /// Returns how many worker threads the process is to have, also where the configuration is
    /// invalid; none for the default.
    pub fn worker_threads(path: Option<&Path>, overlay: &Overlay) -> Option<usize> {
        let valid = |count: &usize| (1..=server::MAX_WORKER_THREADS as usize).contains(count);
        if let Some(count) = overlay.get("server.worker_threads") {
            return count.parse().ok().filter(valid);
        }
        let text = path.and_then(|path| read_content(path).and_then(text_of).ok())?;
        let (table, _) = toml::de::DeTable::parse_recoverable(&text);
        let server = table.get_ref().get("server")?.get_ref();
        let count = server.get("worker_threads")?.get_ref().as_integer()?;
        count.as_str().parse().ok().filter(valid)
    }

    /// Reads the configuration of `drawbridge sandbox`. The file is optional and has no
    /// upstreams.
    ///
    /// # Errors
    ///
    /// Returns the problems that [`Config::load`] returns, and one if the file has upstreams.
    pub fn load_sandbox(
        path: Option<&Path>,
        overlay: Overlay,
        env: Env<'_>,
    ) -> Result<Self, Vec<Problem>> {
        Self::sandbox().read_over(path, overlay, env)
    }

    /// Returns whether the log has JSON lines, also where the configuration is invalid: by the
    /// environment, else by the part of the file that can be read.
    pub fn has_json_log(path: Option<&Path>, env: Env<'_>) -> bool {
        match non_empty(env, "DRAWBRIDGE_LOG_FORMAT").as_deref() {
            Some("json") => return true,
            Some("text") => return false,
            _ => {}
        }
        if let Some(format) = non_empty(env, "DRAWBRIDGE__LOG__FORMAT") {
            return format == "json";
        }
        let Some(text) = path.and_then(|path| read_text(path).ok()) else {
            return false;
        };
        let (table, _) = toml::de::DeTable::parse_recoverable(&text);
        let log = table.get_ref().get("log").map(|log| log.get_ref());
        let format = log.and_then(|log| log.get("format"));
        format.is_some_and(|format| format.get_ref().as_str() == Some("json"))
    }

    fn read(path: &Path, defaults: Self, env: Env<'_>) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        match read_content(path).and_then(text_of) {
            Ok(text) => {
                let directory = path.parent().unwrap_or(Path::new(""));
                Self::parse(&name, &text, directory, defaults, env)
            }
            Err(problem) => Err(vec![Problem {
                file: name,
                line: None,
                key: String::new(),
                problem,
            }]),
        }
    }

    /// Reads the text of the file `name`, whose paths are relative to `directory`.
    fn parse(
        name: &str,
        text: &str,
        directory: &Path,
        defaults: Self,
        env: Env<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let mut report = Report::new(name, text);
        let variables = RefCell::new(HashMap::new());
        let env: Env<'_> = &|name| {
            let value = env(name);
            variables
                .borrow_mut()
                .insert(name.to_owned(), value.clone());
            value
        };
        let overlay = defaults.overlay.clone();
        report.set_variables(overlay.names());
        let (mut table, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            report.add_at(at, "", error.message());
        }
        overlay.apply(table.get_mut(), &report);
        let root = Section::root(&report, table.get_ref(), directory, env);
        let mut config = defaults;
        config.read_sections(&root);
        let mut with_files = Vec::new();
        for (number, section) in root.sections("upstream").iter().enumerate() {
            if let Some(mut upstream) = upstreams::read(section) {
                let auth = section.section("auth");
                upstream.digest = Some(reload::digest_of_upstream(&upstream, &auth.text_of_all()));
                if auth::has_files(&auth) {
                    let files = upstream.auth_place.clone();
                    let files = files.unwrap_or_else(|| auth::files(&auth));
                    with_files.push((config.upstreams.len(), number, files));
                }
                config.upstreams.push(upstream);
            }
            section.finish_with(auth::hint_for_upstream);
        }
        for (number, section) in (1..).zip(root.sections("policy")) {
            config.policy.extend(policy::read(&section, number));
        }
        for section in root.sections("descriptors") {
            config.descriptors.extend(descriptors(&section));
            section.finish();
        }
        config.apply_environment(&report, env);
        upstreams::check_names(&root, &config);
        upstreams::check_defaults(&root);
        config.check_clients_authenticated(&root);
        config.check_listeners(&root, env);
        root.finish();
        config.ignored_keys = report.take_ignored_keys();
        let snapshot = Arc::new(upstreams::Snapshot {
            name: name.to_owned(),
            text: text.to_owned(),
            directory: directory.to_owned(),
            variables: variables.take(),
            overlay: overlay.clone(),
        });
        if config.tls.is_some() || config.requires_token() {
            let snapshot = snapshot.clone();
            config.listen_source = Some(FileSource::new(move || snapshot.listen()));
        }
        for (index, number, files) in with_files {
            let snapshot = snapshot.clone();
            let upstream = &mut config.upstreams[index];
            let source = SettingsSource::new(move || snapshot.auth(number));
            upstream.auth_source = Some(source.named(&upstream.name, &files));
        }
        // An invalid upstream has been reported, and is not in `config`.
        if report.is_clean() {
            config.check_upstreams(&report);
        }
        config.warnings.extend(report.take_warnings());
        config.warnings.extend(config.unknown_tokens());
        config.digest = config.digest_of(text);
        report.finish(config)
    }

    /// Reads the tables that are no arrays.
    fn read_sections(&mut self, root: &Section<'_>) {
        self.read_listen(&root.section("listen"));
        self.read_admin(&root.section("admin"));
        self.server.read(&root.section("server"));
        self.read_watch(&root.section("watch"));
        self.read_log(&root.section("log"));
        if let Some(audit) = root.optional_section("audit") {
            self.audit = Some(policy::read_audit(&audit));
        }
    }

    /// Returns what the files of `[listen]` contain.
    pub(crate) fn listen_files(&self) -> ListenFiles {
        ListenFiles {
            tls: self.tls.clone(),
            client_tokens: self.client_tokens.clone(),
            jwt: self.jwt.clone(),
        }
    }

    fn read_listen(&mut self, section: &Section<'_>) {
        if let Some(listen) = section.address("grpc") {
            self.listen = listen;
        }
        section.describe_default("grpc", self.listen.to_string());
        if section.has("admin") {
            self.admin = None;
        }
        self.admin = section.address_or_off("admin").unwrap_or(self.admin);
        section.describe_default("admin", "off");
        if let Some(tls) = section.optional_section("tls") {
            self.tls = tls::read(&tls);
            tls.finish();
        }
        let clients = section.section("clients");
        self.client_tokens = clients::tokens(&clients);
        if let Some(jwt) = clients.optional_section("jwt") {
            self.jwt = JwtOptions::read(&jwt);
        }
        clients.flag_into("trust_forwarded_client_cert", &mut self.trusts_sidecar);
        clients.finish();
        self.client_limits = ClientLimitSettings::read(&section.section("limits"));
        self.web = WebOptions::read(&section.section("web"));
        section.finish();
    }

    fn read_admin(&mut self, section: &Section<'_>) {
        self.admin_page = section.flag("page").or(self.admin_page);
        section.finish();
    }

    /// Returns whether the admin listener serves its page.
    pub fn serves_page(&self) -> bool {
        let on_loopback = |admin: SocketAddr| admin.ip().to_canonical().is_loopback();
        let admin = self.admin;
        admin.is_some_and(|admin| self.admin_page.unwrap_or(on_loopback(admin)))
    }

    fn read_watch(&mut self, section: &Section<'_>) {
        let watch = &mut self.watch;
        section.size("max_streams", 1, &mut watch.max_streams);
        section.size("max_poll_loops", 1, &mut watch.max_poll_loops);
        section.duration("bookmark_interval_secs", &mut watch.bookmark_interval);
        section.duration_or_zero("failure_tolerance_secs", &mut watch.failure_tolerance);
        section.size("max_items", 1, &mut watch.max_items);
        section.finish();
    }

    fn read_log(&mut self, section: &Section<'_>) {
        if let Some(json) = section.choice("format", &[("text", false), ("json", true)]) {
            self.log.json = json;
        }
        section.describe_default("format", "text");
        let level = section.text("level");
        section.describe_default("level", &*self.log.level);
        if let Some(level) = level {
            match LogFilter::parse(&level.value) {
                Ok(filter) => {
                    for warning in filter.warnings {
                        section.warn_at(level.at, "level", &warning);
                    }
                }
                Err(problem) => section.invalid_at(level.at, "level", &problem),
            }
            self.log.level = level.value;
        }
        section.finish();
    }

    /// Applies the environment variables, which take precedence over the file.
    fn apply_environment(&mut self, report: &Report, env: Env<'_>) {
        let problem = Problem::of_variable;
        let invalid = |name: &str, text: &str| report.add(problem(name, text));
        if let Some(text) = non_empty(env, "DRAWBRIDGE_LISTEN") {
            match text.parse() {
                Ok(address) => self.listen = address,
                Err(_) => invalid("DRAWBRIDGE_LISTEN", reader::ADDRESS),
            }
        }
        if let Some(text) = non_empty(env, "DRAWBRIDGE_ADMIN") {
            match text.parse() {
                Ok(address) => self.admin = Some(address),
                Err(_) if text == "off" => self.admin = None,
                Err(_) => invalid(
                    "DRAWBRIDGE_ADMIN",
                    "must be off, or an address like 127.0.0.1:50052",
                ),
            }
        }
        // The last one takes precedence.
        for name in ["DRAWBRIDGE_LOG", "RUST_LOG"] {
            let Some(level) = non_empty(env, name) else {
                continue;
            };
            match LogFilter::parse(&level) {
                Ok(filter) => {
                    for warning in filter.warnings {
                        report.warn(problem(name, &warning));
                    }
                }
                Err(text) => invalid(name, &text),
            }
            self.log.level = level;
        }
        match non_empty(env, "DRAWBRIDGE_LOG_FORMAT").as_deref() {
            None => {}
            Some("text") => self.log.json = false,
            Some("json") => self.log.json = true,
            Some(other) => {
                let near = nearest(other, ["text", "json"].into_iter());
                invalid(
                    "DRAWBRIDGE_LOG_FORMAT",
                    &format!("must be text or json{near}"),
                );
            }
        }
    }

    /// Reports a gateway without upstreams, and a sandbox with upstreams.
    fn check_upstreams(&self, report: &Report) {
        let problem = match (self.sandbox, self.upstreams.is_empty()) {
            (false, true) => "has no upstream: add an [[upstream]], or try `drawbridge sandbox`",
            (true, false) => {
                "has upstreams, but `drawbridge sandbox` serves only its own: use `drawbridge \
                 serve`"
            }
            _ => return,
        };
        report.add(Problem {
            file: report.file().to_owned(),
            line: None,
            key: String::new(),
            problem: problem.to_owned(),
        });
    }

    /// Compiles the methods that the gateway serves, and checks that each upstream's family
    /// has some.
    ///
    /// # Errors
    ///
    /// Returns all problems of the annotations, or all upstreams of unknown families.
    pub fn contract(&self) -> Result<Contract, Vec<String>> {
        let contract = crate::contract::with_built_in(&self.descriptors)?;
        self.check_families(&contract)?;
        Ok(contract)
    }

    /// Checks that each upstream's family has methods in the contract.
    ///
    /// # Errors
    ///
    /// Returns all upstreams of unknown families.
    pub(crate) fn check_families(&self, contract: &Contract) -> Result<(), Vec<String>> {
        let families: BTreeSet<&str> = contract.services().into_values().collect();
        let unknown = |upstream: &&upstream::Settings| !families.contains(&*upstream.family);
        let problems: Vec<String> = self
            .upstreams
            .iter()
            .filter(unknown)
            .map(|upstream| {
                let near = nearest(&upstream.family, families.iter().copied());
                let known: Vec<&str> = families.iter().copied().collect();
                format!(
                    "upstream {}: no rpc has the family {}{near}; the families are {}",
                    upstream.name,
                    upstream.family,
                    known.join(", ")
                )
            })
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        // An rpc that is left out may be the cause.
        let warnings = contract.warnings();
        let warnings = warnings.iter().map(ToString::to_string);
        Err(problems.into_iter().chain(warnings).collect())
    }

    /// Returns whether clients send tokens, the gateway's or those of a passthrough upstream,
    /// as plaintext over a network.
    pub fn has_plaintext_tokens(&self) -> bool {
        let passes = |upstream: &upstream::Settings| matches!(upstream.auth, Auth::Passthrough);
        let tokens = self.requires_token() || self.upstreams.iter().any(passes);
        tokens && self.tls.is_none() && !self.trusts_sidecar && !self.listen.ip().is_loopback()
    }

    /// Reports listeners that cannot both be bound.
    fn check_listeners(&self, root: &Section<'_>, env: Env<'_>) {
        let Some(admin) = self.admin else { return };
        let (one, other) = (self.listen.ip(), admin.ip());
        let is_any = one.is_unspecified() || other.is_unspecified();
        let overlap = one == other || is_any && one.is_ipv4() == other.is_ipv4();
        if !overlap || self.listen.port() != admin.port() || admin.port() == 0 {
            return;
        }
        let problem = format!(
            "{admin} is taken by the gRPC listener on {}: choose another port",
            self.listen
        );
        match non_empty(env, "DRAWBRIDGE_ADMIN") {
            Some(_) => root.add(Problem::of_variable("DRAWBRIDGE_ADMIN", &problem)),
            None => root.section("listen").invalid("admin", &problem),
        }
    }

    /// Reports a gateway that holds credentials and serves unauthenticated clients beyond
    /// loopback.
    fn check_clients_authenticated(&self, root: &Section<'_>) {
        if let Some(problem) = self.unauthenticated_problem() {
            root.invalid("listen", &problem);
        }
    }

    /// Returns what is wrong with a gateway that holds credentials and serves unauthenticated
    /// clients beyond loopback.
    pub(crate) fn unauthenticated_problem(&self) -> Option<String> {
        if self.listen.ip().is_loopback() || self.authenticates_clients() {
            return None;
        }
        let holds = |auth: &Auth| !matches!(auth, Auth::Passthrough | Auth::None);
        let mut holding = self.upstreams.iter().filter(|u| holds(&u.auth));
        let upstream = holding.next()?;
        Some(format!(
            "any client that reaches {} could use the credentials of upstream {}: set \
             listen.tls.client_ca_file, listen.clients.tokens_file or listen.clients.jwt, or \
             listen on 127.0.0.1",
            self.listen, upstream.name
        ))
    }
}

/// Reads one entry of `[[descriptors]]`.
fn descriptors(section: &Section<'_>) -> Option<Source> {
    let name = section.required_text("file").map(|found| found.value);
    let [selected, excluded] = ["include", "exclude"].map(|key| section.texts(key));
    let (name, bytes) = (name?, section.file("file")?);
    // Bytes that are not a descriptor set are reported when they are compiled.
    let names = selectable(&bytes).unwrap_or_default();
    let entries = |key: &str, entries: Option<Vec<reader::Found<String>>>| {
        let entries = entries?;
        for entry in entries.iter().filter(|_| !names.is_empty()) {
            let full_name = entry.value.replace('/', ".");
            if !names.contains(&full_name) {
                let end = format!(".{full_name}");
                let near = match names.iter().find(|name| name.ends_with(&end)) {
                    Some(name) => format!(", did you mean {name}?"),
                    None => nearest(&full_name, names.iter().map(String::as_str)),
                };
                let problem = format!(
                    "{} is not a package, a service or an rpc of {name}{near}",
                    entry.value
                );
                section.invalid_at(entry.at, key, &problem);
            }
        }
        let entries = entries.into_iter().map(|entry| entry.value);
        Some(entries.collect::<Vec<_>>())
    };
    let include = entries("include", selected);
    if include.as_ref().is_some_and(Vec::is_empty) {
        section.invalid("include", "selects nothing: name an rpc, or remove the key");
    }
    let selection = Selection {
        include: include.unwrap_or_default(),
        exclude: entries("exclude", excluded).unwrap_or_default(),
    };
    Some(Source {
        name,
        bytes,
        selection,
    })
}

/// Returns the trimmed value of a variable, unless it is unset or blank.
fn non_empty(env: Env<'_>, name: &str) -> Option<String> {
    env(name)
        .map(|v| v.trim().to_owned())
        .filter(|v| !v.is_empty())
}

/// Reads a file of at most [`MAX_FILE_BYTES`]. The error does not name it.
fn read_content(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(format!("is longer than {MAX_FILE_BYTES} bytes"));
    }
    std::fs::read(path).map_err(unreadable)
}

fn text_of(content: Vec<u8>) -> Result<String, String> {
    String::from_utf8(content).map_err(|_| "is not UTF-8 text".to_owned())
}

/// As [`read_content`], with the name of the file in the error.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    read_content(path).map_err(|problem| format!("{} {problem}", path.display()))
}

fn read_text(path: &Path) -> Result<String, String> {
    text_of(read_file(path)?)
}

#[cfg(test)]
mod tests;
