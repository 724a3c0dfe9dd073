//! The configuration: one TOML file and the environment, read once into checked
//! values. Everything that is wrong is told at once, with file and line.
//!
//! Variables go before the file: `DRAWBRIDGE_CONFIG` (the file),
//! `DRAWBRIDGE_LISTEN`, `DRAWBRIDGE_ADMIN` (an address or `off`),
//! `DRAWBRIDGE_LOG` (the level), `DRAWBRIDGE_LOG_FORMAT` (`text` or `json`). Every key
//! of the file is explained in `drawbridge.example.toml`.

mod auth;
mod reader;
mod tls;
mod upstreams;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::credentials::Settings as Auth;
use crate::{telemetry, upstream, watch};
use drawbridge_transcoder::contract::{Contract, Source};
use reader::{Report, Section, nearest};

/// The longest configuration, descriptor set or secret's file, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// The environment, as a value.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the gateway is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC is served. Default: `127.0.0.1:50051`.
    pub listen: SocketAddr,
    /// Where metrics, liveness and readiness are served. Default: nowhere; of
    /// the sandbox `127.0.0.1:50052`.
    pub admin: Option<SocketAddr>,
    /// TLS. None: plain HTTP/2.
    pub tls: Option<Tls>,
    /// Tokens of which every caller must bring one. Empty: none is asked for.
    pub client_tokens: Vec<SecretString>,
    /// Bounds of serving.
    pub server: Server,
    /// Bounds of watching.
    pub watch: watch::Settings,
    /// The upstreams; the sandbox's own are not among them.
    pub upstreams: Vec<upstream::Settings>,
    /// Users' own descriptor sets.
    pub descriptors: Vec<Source>,
    /// The log.
    pub log: telemetry::Settings,
    /// Whether the embedded upstreams are served: each response says so.
    pub sandbox: bool,
}

/// The server's certificate, and the authority that callers' must come from.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate: Vec<u8>,
    /// The private key, PEM.
    pub key: SecretString,
    /// The authority for callers' certificates, PEM. None: callers need none.
    pub client_ca: Option<Vec<u8>>,
}

/// Bounds of serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Longest request message, in bytes. Default: 4 MiB.
    pub max_request_bytes: usize,
    /// Longest file that a caller may send, in bytes; four such files are held at
    /// once. Default: 64 MiB.
    pub max_upload_bytes: usize,
    /// Calls and streams at once on one connection. Default: 4,096.
    pub max_concurrent_streams: u32,
    /// How often an idle connection is asked whether it is alive. Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long it may take to answer. Default: 20 s.
    pub keepalive_timeout: Duration,
    /// After what time a connection is asked to go. Default: never.
    pub max_connection_age: Option<Duration>,
    /// How long it may then finish its calls. Default: 60 s.
    pub max_connection_age_grace: Duration,
    /// The deadline of calls that bring none. Default: 120 s, since Heat waits
    /// 60 s for its engine.
    pub default_deadline: Duration,
    /// How long calls may finish after SIGTERM. Default: 30 s.
    pub drain_timeout: Duration,
    /// How often upstreams are asked whether they are there. Default: 10 s.
    pub health_check_interval: Duration,
    /// How long a request body may be idle. Default: 30 s.
    pub request_body_idle_timeout: Duration,
    /// How long a request body may take, even where the client's deadline is later.
    /// Default: 15 min.
    pub request_timeout: Duration,
    /// How long a client may read nothing of a response. Default: 30 s.
    pub response_write_timeout: Duration,
    /// How long a TLS handshake may take. Default: 10 s.
    pub tls_handshake_timeout: Duration,
}

/// Something wrong in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `environment`.
    pub file: String,
    /// The line, from 1; none where it is not about one.
    pub line: Option<usize>,
    /// The key: `upstream.auth.password_env`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            max_request_bytes: 4 << 20,
            max_upload_bytes: 64 << 20,
            max_concurrent_streams: 4_096,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_connection_age: None,
            max_connection_age_grace: Duration::from_secs(60),
            default_deadline: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(30),
            health_check_interval: Duration::from_secs(10),
            request_body_idle_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(15 * 60),
            response_write_timeout: Duration::from_secs(30),
            tls_handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Returns the defaults of `drawbridge sandbox`.
    pub fn sandbox() -> Self {
        Self {
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 50_052))),
            sandbox: true,
            ..Self::empty()
        }
    }

    /// The defaults, with no upstream.
    fn empty() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            admin: None,
            tls: None,
            client_tokens: Vec::new(),
            server: Server::default(),
            watch: watch::Settings::default(),
            upstreams: Vec::new(),
            descriptors: Vec::new(),
            log: telemetry::Settings::default(),
            sandbox: false,
        }
    }

    /// Reads the file at `path` and the environment. Paths in the file are relative
    /// to it.
    ///
    /// # Errors
    ///
    /// All problems, each with file and line.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Self, Vec<Problem>> {
        Self::read(path, Self::empty(), env)
    }

    /// Reads the configuration of `drawbridge sandbox`: the file is optional and has
    /// no upstreams.
    ///
    /// # Errors
    ///
    /// As [`Config::load`]; and an upstream in the file.
    pub fn load_sandbox(path: Option<&Path>, env: Env<'_>) -> Result<Self, Vec<Problem>> {
        let Some(path) = path else {
            let report = Report::new("environment", "");
            let mut config = Self::sandbox();
            config.take_environment(&report, env);
            return report.finish(config);
        };
        Self::read(path, Self::sandbox(), env)
    }

    fn read(path: &Path, defaults: Self, env: Env<'_>) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        match read_text(path) {
            Ok(text) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                Self::parse(&name, &text, folder, defaults, env)
            }
            Err(problem) => Err(vec![Problem {
                file: name,
                line: None,
                key: String::new(),
                problem,
            }]),
        }
    }

    /// Reads the text of the file `name`, in which paths are relative to `folder`.
    fn parse(
        name: &str,
        text: &str,
        folder: &Path,
        defaults: Self,
        env: Env<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let report = Report::new(name, text);
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            report.tell(at, "", error.message());
        }
        let root = Section::root(&report, table.get_ref(), folder, env);
        let mut config = defaults;
        config.read_listen(&root.section("listen"));
        config.read_server(&root.section("server"));
        config.read_watch(&root.section("watch"));
        for section in root.sections("upstream") {
            if let Some(upstream) = upstreams::read(&section) {
                config.upstreams.push(upstream);
            }
            section.finish();
        }
        for section in root.sections("descriptors") {
            config.descriptors.extend(descriptors(&section));
            section.finish();
        }
        let log = root.section("log");
        if let Some(json) = log.choice("format", &[("text", false), ("json", true)]) {
            config.log.json = json;
        }
        if let Some(level) = log.text("level") {
            if let Err(problem) = EnvFilter::try_new(&level.value) {
                log.wrong_at(level.at, "level", &problem.to_string());
            }
            config.log.level = level.value;
        }
        log.finish();
        config.take_environment(&report, env);
        upstreams::check_names(&root, &config);
        upstreams::check_defaults(&root);
        config.check_callers_known(&root);
        root.finish();
        // An upstream that is wrong is left out here, and told already.
        if report.is_clean() {
            config.check_upstreams(&report);
        }
        report.finish(config)
    }

    fn read_listen(&mut self, section: &Section<'_>) {
        if let Some(listen) = section.address("grpc") {
            self.listen = listen;
        }
        if let Some(text) = section.text("admin")
            && text.value != "off"
        {
            self.admin = section.address("admin");
        }
        if section.has("tls") {
            let tls = section.section("tls");
            self.tls = tls::read(&tls);
            tls.finish();
        }
        let clients = section.section("clients");
        if let Some(bytes) = clients.file("tokens_file") {
            let text = String::from_utf8_lossy(&bytes);
            let tokens = text.lines().map(str::trim);
            self.client_tokens = tokens
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(SecretString::from)
                .collect();
            if self.client_tokens.is_empty() {
                clients.wrong("tokens_file", "has no token: write one a line");
            }
        }
        clients.finish();
        section.finish();
    }

    fn read_server(&mut self, section: &Section<'_>) {
        let server = &mut self.server;
        section.size("max_request_bytes", 1, &mut server.max_request_bytes);
        section.size("max_upload_bytes", 1, &mut server.max_upload_bytes);
        if let Some(n) = section.number("max_concurrent_streams", 1, i64::from(u32::MAX)) {
            server.max_concurrent_streams = n as u32;
        }
        section.duration("keepalive_interval_secs", &mut server.keepalive_interval);
        section.duration("keepalive_timeout_secs", &mut server.keepalive_timeout);
        let mut age = Duration::ZERO;
        section.duration_or_zero("max_connection_age_secs", &mut age);
        server.max_connection_age = (!age.is_zero()).then_some(age);
        section.duration_or_zero(
            "max_connection_age_grace_secs",
            &mut server.max_connection_age_grace,
        );
        section.duration("default_deadline_secs", &mut server.default_deadline);
        section.duration_or_zero("drain_timeout_secs", &mut server.drain_timeout);
        section.duration(
            "health_check_interval_secs",
            &mut server.health_check_interval,
        );
        section.duration(
            "request_body_idle_timeout_secs",
            &mut server.request_body_idle_timeout,
        );
        section.duration("request_timeout_secs", &mut server.request_timeout);
        section.duration(
            "response_write_timeout_secs",
            &mut server.response_write_timeout,
        );
        section.duration(
            "tls_handshake_timeout_secs",
            &mut server.tls_handshake_timeout,
        );
        section.finish();
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

    /// Takes the variables that go before the file.
    fn take_environment(&mut self, report: &Report, env: Env<'_>) {
        let wrong = |name: &str, problem: &str| {
            report.push(Problem {
                file: "environment".to_owned(),
                line: None,
                key: name.to_owned(),
                problem: problem.to_owned(),
            });
        };
        if let Some(text) = set(env, "DRAWBRIDGE_LISTEN") {
            match text.parse() {
                Ok(address) => self.listen = address,
                Err(_) => wrong("DRAWBRIDGE_LISTEN", reader::ADDRESS),
            }
        }
        if let Some(text) = set(env, "DRAWBRIDGE_ADMIN") {
            match text.parse() {
                Ok(address) => self.admin = Some(address),
                Err(_) if text == "off" => self.admin = None,
                Err(_) => wrong(
                    "DRAWBRIDGE_ADMIN",
                    "must be off, or an address as 127.0.0.1:50052",
                ),
            }
        }
        if let Some(level) = set(env, "DRAWBRIDGE_LOG") {
            if let Err(problem) = EnvFilter::try_new(&level) {
                wrong("DRAWBRIDGE_LOG", &problem.to_string());
            }
            self.log.level = level;
        }
        match set(env, "DRAWBRIDGE_LOG_FORMAT").as_deref() {
            None => {}
            Some("text") => self.log.json = false,
            Some("json") => self.log.json = true,
            Some(_) => wrong("DRAWBRIDGE_LOG_FORMAT", "must be text or json"),
        }
    }

    /// Reports a gateway with nothing to call, and a sandbox with upstreams.
    fn check_upstreams(&self, report: &Report) {
        let problem = match (self.sandbox, self.upstreams.is_empty()) {
            (false, true) => "no upstream: add an [[upstream]], or try `drawbridge sandbox`",
            (true, false) => {
                "has upstreams, and `drawbridge sandbox` serves its own alone: use `drawbridge \
                 serve` for these"
            }
            _ => return,
        };
        report.push(Problem {
            file: report.file().to_owned(),
            line: None,
            key: String::new(),
            problem: problem.to_owned(),
        });
    }

    /// The rpcs that are served; and no upstream may be of a family without any.
    pub fn contract(&self) -> Result<Contract, Vec<String>> {
        let contract = crate::contract::with_built_in(&self.descriptors)?;
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
                    "upstream {}: no rpc is of family {}{near}; there are {}",
                    upstream.name,
                    upstream.family,
                    known.join(", ")
                )
            })
            .collect();
        if problems.is_empty() {
            Ok(contract)
        } else {
            Err(problems)
        }
    }

    /// Whether callers' tokens, the gateway's own or those that it passes through,
    /// come over a network in the clear.
    pub fn tokens_in_the_clear(&self) -> bool {
        let passes = |upstream: &upstream::Settings| matches!(upstream.auth, Auth::Passthrough);
        let tokens = !self.client_tokens.is_empty() || self.upstreams.iter().any(passes);
        tokens && self.tls.is_none() && !self.listen.ip().is_loopback()
    }

    /// A gateway that holds credentials must know who calls, beyond loopback.
    fn check_callers_known(&self, root: &Section<'_>) {
        let mutual = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if self.listen.ip().is_loopback() || mutual || !self.client_tokens.is_empty() {
            return;
        }
        let holds = |auth: &Auth| !matches!(auth, Auth::Passthrough | Auth::None);
        let mut holding = self.upstreams.iter().filter(|u| holds(&u.auth));
        if let Some(upstream) = holding.next() {
            root.wrong(
                "listen",
                &format!(
                    "anyone who reaches {} could use the credentials of upstream {}: set \
                     listen.tls.client_ca_file or listen.clients.tokens_file, or listen on \
                     127.0.0.1",
                    self.listen, upstream.name
                ),
            );
        }
    }
}

/// One or more descriptor sets.
fn descriptors(section: &Section<'_>) -> Option<Source> {
    let name = section.required_text("file")?.value;
    let bytes = section.file("file")?;
    Some(Source { name, bytes })
}

/// A variable that is set to something.
fn set(env: Env<'_>, name: &str) -> Option<String> {
    env(name)
        .map(|v| v.trim().to_owned())
        .filter(|v| !v.is_empty())
}

/// The bytes of a file of a sensible size.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let found = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let meta = std::fs::metadata(path).map_err(found)?;
    if !meta.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    if meta.len() > MAX_FILE {
        return Err(format!(
            "{} is longer than {MAX_FILE} bytes",
            path.display()
        ));
    }
    std::fs::read(path).map_err(found)
}

fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read_file(path)?).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
