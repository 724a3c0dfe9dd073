//! `[upstream.auth]`: the credentials for the calls to an upstream.

use std::path::PathBuf;

use http::HeaderName;
use serde_json::json;
use url::Url;

use super::reader::{KeySchema, Report, Section};
use crate::credentials::AkSk;
use crate::credentials::IdOrName;
use crate::credentials::Identity;
use crate::credentials::Keystone;
use crate::credentials::Named;
use crate::credentials::Rackspace;
use crate::credentials::RackspaceSecret;
use crate::credentials::Settings;
use crate::credentials::clouds_yaml;
use crate::credentials::huawei;
use crate::families::COMMON;
use crate::upstream::family::Family;

/// Headers that route or frame a request, or belong to one connection. A token in them would
/// change where a request goes or where it ends. Source: RFC 9110, section 7.6.1.
const RESERVED_HEADERS: &[&str] = &[
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-type",
    "content-encoding",
    "expect",
    "http2-settings",
    // The gateway sends them itself.
    "accept",
    "accept-encoding",
    "accept-language",
    "user-agent",
    "x-openstack-request-id",
    "x-request-id",
    "traceparent",
    "tracestate",
];

/// The default header of a token.
const DEFAULT_HEADER: &str = "x-auth-token";

/// A header name, as a regular expression of JSON Schema. Source: RFC 9110, "Tokens".
const HEADER_PATTERN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// The default `auth_url` of Rackspace.
const RACKSPACE_AUTH_URL: &str = "https://identity.api.rackspacecloud.com/v2.0";

/// Credentials, and the settings of the upstream that their source contains as well.
pub(super) struct Login {
    pub(super) settings: Settings,
    pub(super) endpoint: Option<Url>,
    pub(super) project_id: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) insecure_skip_verify: bool,
    /// Where a login from elsewhere is: the cloud with its file and line, or the variables.
    pub(super) source: Option<String>,
    /// Whether the response to the login contains a catalog of endpoints.
    pub(super) has_catalog: bool,
}

impl From<Settings> for Login {
    fn from(settings: Settings) -> Self {
        Self {
            has_catalog: matches!(settings, Settings::Keystone(_) | Settings::Rackspace(_)),
            settings,
            endpoint: None,
            project_id: None,
            ca_file: None,
            insecure_skip_verify: false,
            source: None,
        }
    }
}

/// The keys that take precedence over a cloud of `clouds.yaml` or the `OS_*` variables.
const CLOUD_OVERRIDES: &[&str] = &["region", "interface"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passthrough,
    None,
    Token,
    Keystone,
    Rackspace,
    AkSk,
    Basic,
    Hsso,
}

/// The kinds by their names.
const KINDS: &[(&str, Kind)] = &[
    ("passthrough", Kind::Passthrough),
    ("none", Kind::None),
    ("token", Kind::Token),
    ("keystone", Kind::Keystone),
    ("rackspace", Kind::Rackspace),
    ("ak_sk", Kind::AkSk),
    ("basic", Kind::Basic),
    ("hsso", Kind::Hsso),
];

impl Kind {
    /// Returns the keys of this kind.
    fn keys(self, section: &Section<'_>) -> &'static [&'static str] {
        match self {
            Self::Keystone if section.has("cloud") || section.has("from_env") => CLOUD_OVERRIDES,
            other => other.own_keys(),
        }
    }

    /// Returns the keys of this kind, if it is not read from elsewhere.
    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::Passthrough | Self::None => &[],
            Self::Token => &["header", "token_env", "token_file"],
            Self::Keystone => &[
                "auth_url",
                "username",
                "user_id",
                "user_domain_id",
                "user_domain_name",
                "password_env",
                "password_file",
                "application_credential_id",
                "application_credential_name",
                "application_credential_secret_env",
                "application_credential_secret_file",
                "token_env",
                "token_file",
                "project_id",
                "project_name",
                "project_domain_id",
                "project_domain_name",
                "region",
                "interface",
            ],
            Self::Rackspace => &[
                "auth_url",
                "username",
                "api_key_env",
                "api_key_file",
                "password_env",
                "password_file",
                "tenant_id",
                "region",
            ],
            Self::AkSk => &[
                "from_env",
                "access_key",
                "secret_key_env",
                "secret_key_file",
                "security_token_env",
                "security_token_file",
                "project_id",
                "domain_id",
                "iam_endpoint",
                "region",
            ],
            Self::Basic | Self::Hsso => &["username", "password_env", "password_file"],
        }
    }
}

/// Reads `[upstream.auth]`. Returns none if it is invalid. `project_id` is that of the
/// upstream.
pub(super) fn read(
    section: &Section<'_>,
    project_id: Option<&str>,
    family: &Family,
) -> Option<Login> {
    let kind = section.choice("kind", KINDS);
    let kind = match kind {
        Some(kind) => kind,
        None if section.has("kind") => return None,
        // An entry of clouds.yaml is always a Keystone login, as are the OS_* variables.
        None if section.has("cloud") || section.has("from_env") => Kind::Keystone,
        None => Kind::Passthrough,
    };
    section.allow(kind.keys(section));
    check_family(section, kind, family);
    let login = match kind {
        Kind::Keystone if section.has("cloud") || section.has("from_env") => cloud(section),
        kind => read_kind(section, kind, project_id, family),
    };
    section.finish_with(|key| hint_for_auth(key, kind));
    login
}

/// Reports credentials that the API of the family does not accept.
fn check_family(section: &Section<'_>, kind: Kind, family: &Family) {
    let of = |(_, known): &&(&str, Kind)| *known == kind;
    let name = KINDS.iter().find(of).map_or("", |(name, _)| name);
    if family.credential_kinds.is_empty() || family.credential_kinds.contains(&name) {
        return;
    }
    let sources = ["kind", "cloud", "from_env"];
    let key = sources
        .iter()
        .find(|key| section.has(key))
        .unwrap_or(&"kind");
    let login = match *key {
        "kind" => String::new(),
        _ => format!("is a login of the kind {name}: "),
    };
    section.invalid(
        key,
        &format!(
            "{login}the API of the family {} accepts the kinds {}",
            family.name,
            family.credential_kinds.join(", ")
        ),
    );
}

/// Reads credentials that are in the section itself.
fn read_kind(
    section: &Section<'_>,
    kind: Kind,
    project_id: Option<&str>,
    family: &Family,
) -> Option<Login> {
    match kind {
        Kind::Passthrough => Some(Settings::Passthrough.into()),
        Kind::None => Some(Settings::None.into()),
        Kind::Token => token(section).map(Login::from),
        Kind::Keystone => {
            keystone(section, project_id, family).map(|k| Settings::Keystone(k).into())
        }
        Kind::Rackspace => rackspace(section).map(|r| Settings::Rackspace(r).into()),
        Kind::AkSk => ak_sk(section, project_id),
        Kind::Basic => {
            user(section).map(|(username, password)| Settings::Basic { username, password }.into())
        }
        Kind::Hsso => {
            user(section).map(|(username, password)| Settings::Hsso { username, password }.into())
        }
    }
}

/// Credentials as their readers describe them.
pub(super) struct KindSchema {
    /// None: a login from elsewhere, of `cloud` or `from_env`.
    pub(super) name: Option<&'static str>,
    /// The keys that it may have.
    pub(super) names: Vec<&'static str>,
    pub(super) keys: Vec<KeySchema>,
}

/// Describes `[upstream.auth]`.
pub(super) fn describe() -> Vec<KindSchema> {
    let kinds = KINDS.iter().map(|(name, kind)| (Some(*name), Some(*kind)));
    let describe = |(name, kind): (Option<&'static str>, Option<Kind>)| {
        let report = Report::describing();
        let section = Section::absent(&report, "", &|_| None);
        section.choice("kind", KINDS);
        section.describe_default("kind", "passthrough");
        let (own_keys, elsewhere): (_, &[_]) = match kind {
            None => (CLOUD_OVERRIDES, &["cloud", "from_env"]),
            Some(kind) => (kind.own_keys(), &[]),
        };
        // The results are those of an empty section: only the descriptions count.
        match kind {
            None => cloud(&section),
            Some(kind) => read_kind(&section, kind, None, &COMMON),
        };
        // Not all secrets are read from an empty section.
        let names = own_keys.iter().filter(|key| **key != "from_env");
        for secret in names.filter_map(|key| key.strip_suffix("_env")) {
            section.has_secret(secret);
        }
        drop(section);
        let names = ["kind"].iter().chain(elsewhere).chain(own_keys);
        KindSchema {
            name,
            names: names.copied().collect(),
            keys: report.into_described(),
        }
    };
    kinds.chain([(None, None)]).map(describe).collect()
}

/// Returns whether the credentials come from files, which may change.
pub(super) fn has_files(section: &Section<'_>) -> bool {
    let mut keys = KINDS.iter().flat_map(|(_, kind)| kind.own_keys());
    let from_files = ["cloud", "from_env"];
    from_files.iter().any(|key| section.has(key))
        || keys.any(|key| key.ends_with("_file") && section.has(key))
}

/// Returns the paths of the files with secrets, as they are in the configuration.
pub(super) fn files(section: &Section<'_>) -> String {
    let keys = KINDS.iter().flat_map(|(_, kind)| kind.own_keys());
    let mut files: Vec<String> = keys
        .filter(|key| key.ends_with("_file") && section.has(key))
        .filter_map(|key| text(section, key))
        .collect();
    files.dedup();
    files.join(", ")
}

/// Returns what to do about a key of `[[upstream]]` that belongs elsewhere.
pub(super) fn hint_for_upstream(key: &str) -> Option<String> {
    let inner = match key {
        "region_name" => "region",
        "kind" | "cloud" | "from_env" => key,
        key if KINDS.iter().any(|(_, kind)| kind.own_keys().contains(&key)) => key,
        "password" | "token" | "api_key" | "secret_key" => {
            return Some(format!(
                "secrets belong to [upstream.auth], as {key}_env or {key}_file"
            ));
        }
        "url" | "base_url" => return Some("did you mean endpoint?".to_owned()),
        _ => return None,
    };
    Some(match inner {
        "cloud" => "it belongs to [upstream.auth]: auth = { cloud = \"NAME\" }".to_owned(),
        _ => format!("it belongs to [upstream.auth], as {inner}"),
    })
}

/// Returns what to do about a key of `[upstream.auth]` that another kind or program has.
fn hint_for_auth(key: &str, kind: Kind) -> Option<String> {
    let has = |key: &str| kind.own_keys().contains(&key);
    let other = match key {
        "region_name" => "region",
        "endpoint_type" => "interface",
        "user" | "user_name" | "login" => "username",
        "tenant_name" => "project_name",
        "tenant_id" => "project_id",
        "url" => "auth_url",
        "auth_type" => "kind",
        key => key,
    };
    if other != key && (has(other) || other == "kind") {
        return Some(format!("did you mean {other}?"));
    }
    if matches!(key, "endpoint" | "ca_file" | "insecure_skip_verify") {
        return Some("it belongs to [[upstream]]".to_owned());
    }
    let of = |(_, kind): &&(&str, Kind)| kind.own_keys().contains(&other);
    let kinds: Vec<&str> = KINDS.iter().filter(of).map(|(name, _)| *name).collect();
    (!kinds.is_empty()).then(|| format!("it is a key of kind = {}", kinds.join(" or ")))
}

fn text(section: &Section<'_>, key: &str) -> Option<String> {
    section.text(key).map(|found| found.value)
}

fn user(section: &Section<'_>) -> Option<(String, secrecy::SecretString)> {
    let username = section.required_text("username");
    let password = section.required_secret("password");
    Some((username?.value, password?))
}

fn token(section: &Section<'_>) -> Option<Settings> {
    let token = section.required_secret("token");
    let header = section.text("header");
    section.describe_rule("header", "pattern", || HEADER_PATTERN.into());
    section.describe_rule("header", "not", || json!({"enum": RESERVED_HEADERS}));
    section.describe_default("header", DEFAULT_HEADER);
    let header = match header {
        None => Some(HeaderName::from_static(DEFAULT_HEADER)),
        Some(found) => {
            let parsed = HeaderName::from_bytes(found.value.as_bytes());
            match &parsed {
                Err(_) => section.invalid("header", "is not a header name"),
                Ok(name) if RESERVED_HEADERS.contains(&name.as_str()) => section.invalid(
                    "header",
                    "belongs to the connection or the message, or the gateway sends it itself: name the header that the \
                     upstream reads the token from, for example x-auth-token",
                ),
                Ok(_) => {}
            }
            parsed.ok()
        }
    };
    Some(Settings::Token {
        header: header?,
        token: token?,
    })
}

/// Reads a Keystone login from `clouds.yaml` or from the `OS_*` variables.
fn cloud(section: &Section<'_>) -> Option<Login> {
    let from_env = section.flag("from_env");
    let name = section.text("cloud");
    let source = match &name {
        Some(name) => format!("the cloud {} of clouds.yaml", name.value),
        None => "the OS_* variables".to_owned(),
    };
    let mut is_valid = true;
    let taken = Kind::Keystone.own_keys().iter();
    for key in taken.filter(|key| section.has(key) && !CLOUD_OVERRIDES.contains(key)) {
        section.invalid(
            key,
            &format!("is that of {source}: remove the key, or set the complete login here"),
        );
        is_valid = false;
    }
    let region = text(section, "region");
    let region = region.as_deref();
    let interface = interface(section);
    let cloud = if section.has("cloud") {
        if from_env == Some(true) {
            section.invalid("from_env", "conflicts with cloud: remove one of them");
            return None;
        }
        clouds_yaml::from_cloud(Some(&name?.value), region, section.env())
            .map_err(|problem| section.invalid("cloud", &problem))
            .ok()?
    } else {
        match clouds_yaml::from_env(region, section.env()) {
            _ if from_env != Some(true) => {
                section.invalid("from_env", "must be true, or be removed");
                return None;
            }
            Ok(Some(cloud)) => cloud,
            Ok(None) => {
                section.invalid(
                    "from_env",
                    "no OS_* variables are set, for example OS_AUTH_URL or OS_CLOUD",
                );
                return None;
            }
            Err(problem) => {
                section.invalid("from_env", &problem);
                return None;
            }
        }
    };
    for notice in cloud.notices {
        section.notice(notice);
    }
    let mut keystone = cloud.keystone;
    if let Some(interface) = interface {
        keystone.interfaces = vec![interface];
    }
    is_valid.then(|| Login {
        endpoint: cloud.endpoint_override,
        project_id: cloud.project_id,
        ca_file: cloud.cacert,
        insecure_skip_verify: !cloud.verify,
        source: Some(cloud.source),
        ..Settings::Keystone(keystone).into()
    })
}

fn interface(section: &Section<'_>) -> Option<String> {
    let choices = ["public", "internal", "admin"].map(|word| (word, word));
    section.choice("interface", &choices).map(str::to_owned)
}

fn keystone(section: &Section<'_>, project_id: Option<&str>, family: &Family) -> Option<Keystone> {
    if !section.has("auth_url") {
        section.invalid(
            "auth_url",
            "is missing: set the URL of Keystone, or cloud to an entry of clouds.yaml, or \
             from_env = true for OS_*",
        );
    }
    let auth_url = section.url("auth_url");
    let region = text(section, "region");
    let user = named(section, "user", true);
    let app = id_or_name(
        section,
        "application_credential_id",
        "application_credential_name",
    );
    let mut project = named(section, "project", !family.bare_project_names);
    let interface = interface(section).unwrap_or_else(|| "public".to_owned());
    let interfaces = vec![interface];
    let methods: Vec<&str> = [
        ("application_credential_secret", app.is_some()),
        ("token", section.has_secret("token")),
        ("password", section.has_secret("password")),
    ]
    .iter()
    .filter(|(_, present)| *present)
    .map(|(name, _)| *name)
    .collect();
    if let [first, second, ..] = methods[..] {
        let problem = format!("conflicts with {first}: remove one of them");
        section.invalid(&format!("{second}_env"), &problem);
        return None;
    }
    let identity = match app {
        Some(id_or_name) => {
            let secret = section.required_secret("application_credential_secret");
            if matches!(id_or_name, IdOrName::Name(_)) && user.is_none() {
                section.invalid(
                    "application_credential_name",
                    "also needs its user: username and user_domain_name, or user_id",
                );
                return None;
            }
            if project.take().is_some() {
                section.invalid(
                    "application_credential_id",
                    "determines the project: remove project_id and project_name",
                );
                return None;
            }
            Identity::ApplicationCredential {
                id_or_name,
                user,
                secret: secret?,
            }
        }
        None => {
            project = project.or_else(|| {
                Some(Named {
                    id_or_name: IdOrName::Id(project_id?.to_owned()),
                    domain: None,
                })
            });
            if project.is_none() {
                section.invalid("project_name", "is missing: set project_name or project_id");
            }
            if section.has_secret("token") {
                if user.is_some() {
                    section.invalid(
                        "token_env",
                        "determines the user: remove username and user_id",
                    );
                }
                Identity::Token(section.secret("token")?)
            } else {
                if user.is_none() {
                    section.invalid(
                        "username",
                        "is missing: set username, user_id, application_credential_id or \
                         token_env",
                    );
                }
                let password = section.required_secret("password");
                Identity::Password {
                    user: user?,
                    password: password?,
                }
            }
        }
    };
    Some(Keystone {
        auth_url: auth_url?,
        identity,
        project,
        region,
        interfaces,
    })
}

fn id_or_name(section: &Section<'_>, id: &str, name: &str) -> Option<IdOrName> {
    let found = text(section, name);
    match text(section, id) {
        Some(_) if found.is_some() => {
            section.invalid(name, &format!("conflicts with {id}: remove one of them"));
            None
        }
        Some(id) => Some(IdOrName::Id(id)),
        None => found.map(IdOrName::Name),
    }
}

/// Reads a user or a project and its domain. A name that needs a domain gets `default`, as in
/// Keystone.
fn named(section: &Section<'_>, prefix: &str, needs_domain: bool) -> Option<Named> {
    let name = if prefix == "user" {
        "username"
    } else {
        "project_name"
    };
    let [id, domain_id, domain_name] =
        ["id", "domain_id", "domain_name"].map(|suffix| format!("{prefix}_{suffix}"));
    let id_or_name = id_or_name(section, &id, name);
    let domain = self::id_or_name(section, &domain_id, &domain_name);
    let id_or_name = id_or_name?;
    let domain = match id_or_name {
        IdOrName::Id(_) => None,
        IdOrName::Name(_) => {
            domain.or_else(|| needs_domain.then(|| IdOrName::Id("default".to_owned())))
        }
    };
    Some(Named { id_or_name, domain })
}

fn rackspace(section: &Section<'_>) -> Option<Rackspace> {
    let own_url = section.url("auth_url");
    section.describe_default("auth_url", RACKSPACE_AUTH_URL);
    let auth_url = match section.has("auth_url") {
        true => own_url,
        false => Url::parse(RACKSPACE_AUTH_URL).ok(),
    };
    let username = section.required_text("username");
    let tenant_id = text(section, "tenant_id");
    let region = text(section, "region");
    let secret = if section.has_secret("password") && !section.has_secret("api_key") {
        section.secret("password").map(RackspaceSecret::Password)
    } else {
        if section.has_secret("password") {
            section.invalid("password_env", "conflicts with api_key: remove one of them");
        }
        section
            .required_secret("api_key")
            .map(RackspaceSecret::ApiKey)
    };
    Some(Rackspace {
        auth_url: auth_url?,
        username: username?.value,
        secret: secret?,
        tenant_id,
        region,
    })
}

fn ak_sk(section: &Section<'_>, project_id: Option<&str>) -> Option<Login> {
    let [own_project, domain_id, region] =
        ["project_id", "domain_id", "region"].map(|key| text(section, key));
    let iam_endpoint = section.url("iam_endpoint");
    let mut keys = if section.flag("from_env") == Some(true) {
        match huawei::from_env(section.env()) {
            Ok(Some(keys)) => keys,
            Ok(None) => {
                section.invalid(
                    "from_env",
                    "found neither HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK nor a credentials \
                     file",
                );
                return None;
            }
            Err(problem) => {
                section.invalid("from_env", &problem);
                return None;
            }
        }
    } else {
        let access_key = section.required_text("access_key");
        let secret_key = section.required_secret("secret_key");
        let security_token = match section.has_secret("security_token") {
            true => Some(section.secret("security_token")?),
            false => None,
        };
        AkSk {
            access_key: access_key?.value,
            secret_key: secret_key?,
            security_token,
            project_id: None,
            domain_id: None,
            iam_endpoint: None,
            region: None,
        }
    };
    let upstream_project = project_id.map(str::to_owned);
    keys.project_id = own_project.or(upstream_project).or(keys.project_id);
    keys.domain_id = domain_id.or(keys.domain_id);
    keys.region = region.or(keys.region);
    keys.iam_endpoint = iam_endpoint.or(keys.iam_endpoint);
    Some(Login {
        project_id: keys.project_id.clone(),
        ..Settings::AkSk(keys).into()
    })
}
