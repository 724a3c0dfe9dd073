//! `[[upstream]]`: the endpoints to call.

use std::collections::HashMap;
use std::time::Duration;

use super::reader::{Section, nearest};
use super::{Config, auth};
use crate::family::{self, family};
use crate::{transport, upstream};

/// The families that the gateway knows beside users' own.
const FAMILIES: [&str; 3] = ["heat", "servicestage", "jp1ao"];

/// One upstream; none where something is wrong with it.
pub(super) fn read(section: &Section<'_>) -> Option<upstream::Settings> {
    let name = section.required_text("name");
    if let Some(name) = &name
        && !is_name(&name.value)
    {
        let problem = "must be 1 to 64 letters, digits, '-', '_' or '.'";
        section.wrong_at(name.at, "name", problem);
    }
    let family_name = section.required_text("family").map(|found| found.value);
    let family = family(family_name.as_deref().unwrap_or_default());
    let dialect = dialect(section, family);
    let is_default = section.flag("default").unwrap_or(false);
    let mut endpoint = section.url("endpoint");
    let mut project_id = section.text("project_id").map(|found| found.value);
    let mut transport = transport(section);
    let login = auth::read(&section.section("auth"), project_id.as_deref());
    if let Some(login) = &login {
        // What `clouds.yaml` says stands behind what is said here.
        endpoint = endpoint.or_else(|| login.endpoint.clone());
        project_id = project_id.or_else(|| login.project_id.clone());
        transport.ca_file = transport.ca_file.take().or_else(|| login.ca_file.clone());
        let found_by_login = login.brings_catalog && family.catalog_type.is_some();
        if endpoint.is_none() && !section.has("endpoint") && !found_by_login {
            section.wrong(
                "endpoint",
                "is missing: where is the upstream? (https://...)",
            );
        }
    }
    let mut limits = Limits::default();
    limits.read(section);
    Some(upstream::Settings {
        name: name?.value,
        family: family_name?,
        dialect: dialect?,
        is_default,
        endpoint,
        project_id,
        auth: login?.settings,
        transport,
        max_concurrent: limits.max_concurrent,
        max_queued: limits.max_queued,
        max_attempts: limits.max_attempts,
        max_backoff: limits.max_backoff,
        breaker_failures: limits.breaker_failures,
        breaker_open: limits.breaker_open,
    })
}

/// The defaults are those told at [`upstream::Settings`].
struct Limits {
    max_concurrent: usize,
    max_queued: usize,
    max_attempts: u32,
    max_backoff: Duration,
    breaker_failures: u32,
    breaker_open: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent: 256,
            max_queued: 1_024,
            max_attempts: 3,
            max_backoff: Duration::from_secs(5),
            breaker_failures: 20,
            breaker_open: Duration::from_secs(5),
        }
    }
}

impl Limits {
    fn read(&mut self, section: &Section<'_>) {
        section.size("max_concurrent", 1, &mut self.max_concurrent);
        section.size("max_queued", 0, &mut self.max_queued);
        if let Some(n) = section.number("max_attempts", 1, 10) {
            self.max_attempts = n as u32;
        }
        section.duration_or_zero("max_backoff_secs", &mut self.max_backoff);
        if let Some(n) = section.number("breaker_failures", 0, 1_000_000) {
            self.breaker_failures = n as u32;
        }
        section.duration("breaker_open_secs", &mut self.breaker_open);
    }
}

fn transport(section: &Section<'_>) -> transport::Settings {
    let mut settings = transport::Settings {
        ca_file: section.path("ca_file"),
        ..transport::Settings::default()
    };
    section.duration("connect_timeout_secs", &mut settings.connect_timeout);
    section.duration("read_timeout_secs", &mut settings.read_timeout);
    section.size("max_response_bytes", 1, &mut settings.max_response_bytes);
    section.size("max_buffered_bytes", 1, &mut settings.max_buffered_bytes);
    if let Some(flag) = section.flag("proxy_from_environment") {
        settings.proxy_from_environment = flag;
    }
    settings
}

/// The dialect: one of the family's, the first by default. A user's own family
/// may have any.
fn dialect(section: &Section<'_>, family: &family::Family) -> Option<String> {
    let first = family.dialects.first().copied().unwrap_or_default();
    if !section.has("dialect") {
        return Some(first.to_owned());
    }
    let dialect = section.text("dialect")?.value;
    if family.name == family::COMMON.name || family.dialects.contains(&&*dialect) {
        return Some(dialect);
    }
    let problem = if family.dialects.is_empty() {
        format!("the family {} has no dialects: leave it out", family.name)
    } else {
        let near = nearest(&dialect, family.dialects.iter().copied());
        let known = family.dialects.join(", ");
        format!("the family {} has the dialects {known}{near}", family.name)
    };
    section.wrong("dialect", &problem);
    None
}

/// Names go into metadata, logs and metric labels.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

/// Names are told apart, and families known.
pub(super) fn check_names(root: &Section<'_>, config: &Config) {
    let mut seen = HashMap::new();
    let own = !config.descriptors.is_empty() || root.has("descriptors");
    for section in root.sections("upstream") {
        if let Some(name) = section.text("name")
            && seen.insert(name.value.clone(), ()).is_some()
        {
            let problem = format!("there is another upstream named {}", name.value);
            section.wrong_at(name.at, "name", &problem);
        }
        if let Some(name) = section.text("family")
            && !FAMILIES.contains(&&*name.value)
            && !own
        {
            let near = nearest(&name.value, FAMILIES.into_iter());
            let problem = format!(
                "there is no family {}{near}; built in are {}, and for a REST API of your own, \
                 name its descriptor set in [[descriptors]]",
                name.value,
                FAMILIES.join(", ")
            );
            section.wrong_at(name.at, "family", &problem);
        }
    }
}

/// At most one default a family; the only upstream of a family is its default.
pub(super) fn choose_defaults(root: &Section<'_>, upstreams: &mut [upstream::Settings]) {
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
                "upstream {first} is the default of {} already",
                family.value
            );
            section.wrong("default", &problem);
        } else {
            chosen.insert(family.value, name);
        }
    }
    let refused: Vec<String> = root
        .sections("upstream")
        .iter()
        .filter(|section| section.flag("default") == Some(false))
        .filter_map(|section| Some(section.text("name")?.value))
        .collect();
    for at in 0..upstreams.len() {
        let family = &upstreams[at].family;
        let alone = upstreams.iter().filter(|u| u.family == *family).count() == 1;
        if alone && !refused.contains(&upstreams[at].name) {
            upstreams[at].is_default = true;
        }
    }
}
