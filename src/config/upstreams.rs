//! `[[upstream]]`: the REST APIs to call.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::reader::{Report, Section};
use super::{Config, ListenFiles, Overlay, Problem, auth, tls};
use crate::credentials;
use crate::families::COMMON;
use crate::families::family;
use crate::http_client;
use crate::spelling::nearest;
use crate::upstream;
use crate::upstream::PLAINTEXT;
use crate::upstream::family::Family;

/// The text of a configuration file and the variables that it used: what stays the same when
/// files with secrets are read again.
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) directory: PathBuf,
    pub(super) variables: HashMap<String, Option<String>>,
    pub(super) overlay: Overlay,
}

impl Snapshot {
    /// Reads the files of `[listen]` again. Fails with the first problem.
    pub(super) fn listen(&self) -> Result<ListenFiles, String> {
        let mut report = Report::new(&self.name, &self.text);
        let env = |name: &str| self.variables.get(name).cloned().flatten();
        let (mut table, _) = toml::de::DeTable::parse_recoverable(&self.text);
        report.set_variables(self.overlay.names());
        self.overlay.apply(table.get_mut(), &report);
        let root = Section::root(&report, table.get_ref(), &self.directory, &env);
        let mut config = Config::empty();
        config.read_listen(&root.section("listen"));
        let files = config.listen_files();
        report.finish(files).map_err(first)
    }

    /// Reads the credentials of an upstream again. Fails with the first problem.
    pub(super) fn auth(&self, number: usize) -> Result<credentials::Settings, String> {
        let mut report = Report::new(&self.name, &self.text);
        let env = |name: &str| self.variables.get(name).cloned().flatten();
        let (mut table, _) = toml::de::DeTable::parse_recoverable(&self.text);
        report.set_variables(self.overlay.names());
        self.overlay.apply(table.get_mut(), &report);
        let root = Section::root(&report, table.get_ref(), &self.directory, &env);
        let sections = root.sections("upstream");
        let upstream = sections.get(number).and_then(read);
        match report.finish(upstream) {
            Ok(Some(upstream)) => Ok(upstream.auth),
            Ok(None) => Err("the upstream is invalid".to_owned()),
            Err(problems) => Err(first(problems)),
        }
    }
}

fn first(problems: Vec<Problem>) -> String {
    problems.iter().map(ToString::to_string).take(1).collect()
}

/// The built-in families.
pub(super) const FAMILIES: [&str; 3] = ["heat", "servicestage", "jp1ao"];

/// Reads one upstream. Returns none if it is invalid.
pub(super) fn read(section: &Section<'_>) -> Option<upstream::Settings> {
    let name = section.required_text("name");
    section.describe_rule("name", "pattern", || NAME_PATTERN.into());
    if let Some(name) = &name
        && !is_name(&name.value)
    {
        let problem = "must be 1 to 64 letters, digits, '-', '_' or '.'";
        section.invalid_at(name.at, "name", problem);
    }
    let family_name = section.required_text("family").map(|found| found.value);
    let family = family(family_name.as_deref().unwrap_or_default());
    let dialect = dialect(section, family);
    let mut is_default = false;
    section.flag_into("default", &mut is_default);
    let mut endpoint = section.url("endpoint");
    let mut project_id = section.text("project_id").map(|found| found.value);
    let mut transport = transport(section);
    let login = auth::read(&section.section("auth"), project_id.as_deref(), family);
    if let Some(login) = &login {
        // The upstream's own keys take precedence over `clouds.yaml`.
        endpoint = endpoint.or_else(|| login.endpoint.clone());
        project_id = project_id.or_else(|| login.project_id.clone());
        transport.ca_file = transport.ca_file.take().or_else(|| login.ca_file.clone());
        if !section.has("ca_file") && !section.has("insecure_skip_verify") {
            transport.insecure_skip_verify = login.insecure_skip_verify;
        }
        let found_by_login = login.has_catalog && family.catalog_type.is_some();
        if endpoint.is_none() && !section.has("endpoint") && !found_by_login {
            section.invalid(
                "endpoint",
                "is missing: set the URL of the upstream (https://...)",
            );
        }
    }
    let mut settings = upstream::Settings::new("", "", credentials::Settings::None);
    limits(section, &mut settings);
    let allow_plaintext = &mut settings.allow_plaintext_credentials;
    section.flag_into("allow_plaintext_credentials", allow_plaintext);
    let has_login_ca = login.as_ref().is_some_and(|login| login.ca_file.is_some());
    let settings = upstream::Settings {
        name: name?.value,
        family: family_name?,
        dialect: dialect?,
        is_default,
        endpoint,
        project_id,
        auth_place: login.as_ref().and_then(|login| login.source.clone()),
        auth: login?.settings,
        auth_source: None,
        transport,
        ..settings
    };
    check_transport(section, &settings, has_login_ca);
    Some(settings)
}

/// Reports a file without certificates, and credentials that would be sent over plaintext HTTP.
/// What a cloud of `clouds.yaml` or the variables have is reported at the key that names them.
fn check_transport(section: &Section<'_>, settings: &upstream::Settings, has_login_ca: bool) {
    let auth = section.section("auth");
    let invalid_login = |key: &str, problem: &str| match auth.has("cloud") {
        true => auth.invalid("cloud", &format!("{key}: {problem}")),
        false => auth.invalid("from_env", &format!("{key}: {problem}")),
    };
    if let Some(path) = &settings.transport.ca_file {
        let of_login = has_login_ca && !section.has("ca_file");
        let place = settings.auth_place.as_deref().unwrap_or_default();
        let cacert = format!("cacert of {place}");
        match http_client::read_certificates(path) {
            Err(problem) if of_login => invalid_login(&cacert, &problem),
            Err(problem) => section.invalid("ca_file", &problem),
            Ok(certificates) => {
                if let Some(warning) = tls::expired_ca(&certificates, SystemTime::now()) {
                    let warning = format!("{}: {warning}", path.display());
                    match (of_login, auth.has("cloud")) {
                        (false, _) => section.warn("ca_file", &warning),
                        (true, true) => auth.warn("cloud", &format!("{cacert}: {warning}")),
                        (true, false) => auth.warn("from_env", &format!("{cacert}: {warning}")),
                    }
                }
            }
        }
    }
    if let Some(key) = settings.plaintext_key().filter(|_| settings.auth.is_held()) {
        match key {
            "endpoint" if section.has(key) => section.invalid(key, PLAINTEXT),
            key if auth.has(key) => auth.invalid(key, PLAINTEXT),
            key => invalid_login(key, PLAINTEXT),
        }
    }
}

fn limits(section: &Section<'_>, settings: &mut upstream::Settings) {
    section.size(
        "max_concurrent_calls",
        1,
        &mut settings.max_concurrent_calls,
    );
    section.size("max_downloads", 0, &mut settings.max_downloads);
    section.size("max_queued_calls", 0, &mut settings.max_queued_calls);
    section.number_into("max_attempts", 1, 10, &mut settings.max_attempts);
    section.duration_or_zero("max_backoff_secs", &mut settings.max_backoff);
    let failures = &mut settings.circuit_breaker_failures;
    section.number_into("circuit_breaker_failures", 0, 1_000_000, failures);
    section.duration(
        "circuit_breaker_open_secs",
        &mut settings.circuit_breaker_open,
    );
}

fn transport(section: &Section<'_>) -> http_client::Settings {
    let mut settings = http_client::Settings {
        ca_file: section.path("ca_file"),
        ..http_client::Settings::default()
    };
    section.duration("connect_timeout_secs", &mut settings.connect_timeout);
    section.duration("read_timeout_secs", &mut settings.read_timeout);
    section.size("max_response_bytes", 1, &mut settings.max_response_bytes);
    section.flag_into("insecure_skip_verify", &mut settings.insecure_skip_verify);
    section.flag_into("proxy_from_env", &mut settings.proxy_from_env);
    settings
}

/// Reads the dialect: one of the family's, by default the first. The user's own family may
/// have any.
fn dialect(section: &Section<'_>, family: &Family) -> Option<String> {
    let first = family.dialects.first().copied().unwrap_or_default();
    let dialect = section.text("dialect");
    if !section.has("dialect") {
        return Some(first.to_owned());
    }
    let dialect = dialect?.value;
    if family.name == COMMON.name || family.dialects.contains(&&*dialect) {
        return Some(dialect);
    }
    let problem = if family.dialects.is_empty() {
        format!("the family {} has no dialects: remove the key", family.name)
    } else {
        let near = nearest(&dialect, family.dialects.iter().copied());
        let known = family.dialects.join(", ");
        format!("the family {} has the dialects {known}{near}", family.name)
    };
    section.invalid("dialect", &problem);
    None
}

/// What [`is_name`] accepts, as a regular expression of JSON Schema.
const NAME_PATTERN: &str = "^[A-Za-z0-9._-]{1,64}$";

/// Returns whether metadata, logs and metric labels can carry the name.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

/// Reports duplicate names and unknown families.
pub(super) fn check_names(root: &Section<'_>, config: &Config) {
    let mut seen = HashMap::new();
    let own = !config.descriptors.is_empty() || root.has("descriptors");
    for section in root.sections("upstream") {
        if let Some(name) = section.text("name")
            && seen.insert(name.value.clone(), ()).is_some()
        {
            let problem = format!("another upstream has the name {} too", name.value);
            section.invalid_at(name.at, "name", &problem);
        }
        if let Some(name) = section.text("family")
            && !FAMILIES.contains(&&*name.value)
            && !own
        {
            let near = nearest(&name.value, FAMILIES.into_iter());
            let problem = format!(
                "the family {} does not exist{near}; built in are {}; for a REST API of your own, \
                 name its descriptor set in [[descriptors]]",
                name.value,
                FAMILIES.join(", ")
            );
            section.invalid_at(name.at, "family", &problem);
        }
    }
}

/// Reports more than one default per family.
pub(super) fn check_defaults(root: &Section<'_>) {
    let mut chosen: HashMap<String, String> = HashMap::new();
    for section in root.sections("upstream") {
        let Some(family) = section.text("family") else {
            continue;
        };
        if section.flag("default") != Some(true) {
            continue;
        }
        let name = section
            .text("name")
            .map_or_else(String::new, |name| name.value);
        if let Some(first) = chosen.get(&family.value) {
            let problem = format!(
                "upstream {first} is already the default of {}",
                family.value
            );
            section.invalid("default", &problem);
        } else {
            chosen.insert(family.value, name);
        }
    }
}
