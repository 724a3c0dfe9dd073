//! The keys of a cloud: which ones are read, which ones are errors, and which ones are
//! ignored. Sources: openstacksdk, "Configuring OpenStack SDK Applications"; the options of
//! keystoneauth's plugins.

use crate::spelling::nearest;

/// The keys of `auth`, of every login that is read. They may also be outside `auth`.
pub(super) const AUTH: &[&str] = &[
    "auth_url",
    "username",
    "user_name",
    "user_id",
    "user_domain_id",
    "user_domain_name",
    "password",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "token",
    "auth_token",
    "project_id",
    "project_name",
    "project_domain_id",
    "project_domain_name",
    "tenant_id",
    "tenant_name",
    "domain_id",
    "domain_name",
    "default_domain",
    "default_domain_id",
    "default_domain_name",
];

/// The other keys that are read.
pub(super) const CLOUD: &[&str] = &[
    "auth",
    "auth_type",
    "auth_plugin",
    "profile",
    "cloud",
    "region_name",
    "regions",
    "interface",
    "endpoint_type",
    "verify",
    "insecure",
    "cacert",
    "identity_api_version",
    "orchestration_endpoint_override",
    "orchestration_endpoint",
    "orchestration_interface",
    "orchestration_endpoint_type",
    "orchestration_region_name",
];

/// Keys that change the login, the endpoint, TLS or the proxy and are not supported, and what
/// to do.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "system_scope",
        "a token for the system has no project, which the services need: remove it, and set \
         project_name",
    ),
    (
        "trust_id",
        "trusts are not supported: use an application credential",
    ),
    (
        "passcode",
        "a passcode is valid for one login: use an application credential",
    ),
    (
        "auth_methods",
        "logins with several factors are not supported: use an application credential",
    ),
    (
        "cert",
        "client certificates of calls to upstreams are not supported: put a proxy that has the \
         certificate in front of the upstream, and name it in endpoint",
    ),
    (
        "orchestration_service_type",
        "the catalog is searched for orchestration: set orchestration_endpoint_override",
    ),
    (
        "orchestration_service_name",
        "the catalog is searched by type only: set orchestration_endpoint_override",
    ),
    ("proxy", PROXY),
    ("proxies", PROXY),
    ("http_proxy", PROXY),
    ("https_proxy", PROXY),
    ("no_proxy", PROXY),
];

const PROXY: &str = "proxies come from the variables HTTPS_PROXY and NO_PROXY";

/// Keys that concern other services or other programs.
const IGNORED: &[&str] = &[
    "key",
    "api_timeout",
    "app_name",
    "app_version",
    "cache",
    "client",
    "connect_retries",
    "connect_retry_delay",
    "debug",
    "default_network",
    "deferred_auth_method",
    "disable_vendor_agent",
    "external_network",
    "extra_config",
    "floating_ip_source",
    "force_ipv4",
    "has_network",
    "image_api_use_tasks",
    "image_format",
    "influxdb",
    "internal_network",
    "log_file",
    "log_level",
    "message",
    "metrics",
    "nat_destination",
    "nat_source",
    "networks",
    "object_store_endpoint_override",
    "prefer_ipv6",
    "prometheus",
    "rate_limit",
    "requires_floating_ip",
    "retriable_status_codes",
    "secgroup_source",
    "split_loggers",
    "statsd",
    "status",
    "status_code_retries",
    "status_code_retry_delay",
    "timeout",
    "use_direct_get",
    "use_external_network",
    "use_internal_network",
    "vendor_hook",
    "verbose_level",
    "wait",
];

/// Keys of `auth` that other tools have, and those of openstacksdk.
const SYNONYMS: &[(&str, &str)] = &[
    ("user", "username"),
    ("login", "username"),
    ("project", "project_name"),
    ("tenant", "project_name"),
];

/// Endings of the keys of one service.
const OF_A_SERVICE: &[&str] = &[
    "_api_version",
    "_connect_retries",
    "_connect_retry_delay",
    "_default_microversion",
    "_endpoint",
    "_endpoint_override",
    "_endpoint_type",
    "_interface",
    "_max_version",
    "_min_version",
    "_rate_limit",
    "_rate_limits",
    "_region_name",
    "_service_name",
    "_service_type",
    "_status_code_retries",
    "_status_code_retry_delay",
    "_timeout",
];

/// What a key means for the gateway.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// It is read.
    Read,
    /// It is an error.
    Unsupported(&'static str),
    /// It concerns something else.
    Ignored,
    /// It is perhaps misspelt; with a hint.
    Unknown(String),
}

/// Returns the meaning of a key of a cloud, or of its `auth`.
pub(super) fn meaning(key: &str, in_auth: bool) -> Meaning {
    let all = || {
        let read = CLOUD.iter().filter(|_| !in_auth).chain(AUTH);
        let ignored = IGNORED.iter().filter(|_| !in_auth);
        read.chain(ignored).copied()
    };
    if let Some((_, what)) = UNSUPPORTED.iter().find(|(name, _)| *name == key) {
        return Meaning::Unsupported(what);
    }
    if AUTH.contains(&key) || (!in_auth && CLOUD.contains(&key)) {
        return Meaning::Read;
    }
    if in_auth {
        let synonym = SYNONYMS.iter().find(|(other, _)| *other == key);
        return Meaning::Unknown(match synonym {
            Some((_, known)) => format!(", did you mean {known}?"),
            None => nearest(key, all()),
        });
    }
    // The service has the name heat and the type orchestration.
    let by_type = key.strip_prefix("heat_");
    let by_type = by_type.map(|end| format!("orchestration_{end}"));
    if let Some(known) = by_type.filter(|known| CLOUD.contains(&&**known)) {
        return Meaning::Unknown(format!(", did you mean {known}?"));
    }
    let of_a_service = OF_A_SERVICE.iter().any(|end| {
        key.strip_suffix(end)
            .is_some_and(|service| !service.is_empty())
    });
    // A misspelt `orchestration_interface` looks like the key of another service.
    let near_read = || nearest(key, CLOUD.iter().copied());
    let misspelt_service = key.starts_with("orch") || key.starts_with("heat");
    if IGNORED.contains(&key) || (of_a_service && !misspelt_service) {
        return Meaning::Ignored;
    }
    let near = match near_read() {
        near if near.is_empty() => nearest(key, all()),
        near => near,
    };
    // A key of another program has no similar one.
    match near.is_empty() {
        true => Meaning::Ignored,
        false => Meaning::Unknown(near),
    }
}

/// Returns what to do about a kind of login that is not supported.
pub(super) fn unsupported_login(auth_type: &str) -> String {
    const CREDENTIAL: &str = "use an application credential \
                              (`auth_type: v3applicationcredential`)";
    match auth_type {
        "none" => "sends no credentials: use auth = { kind = \"none\" } and endpoint".to_owned(),
        "admin_token" | "token_endpoint" => {
            "sends a fixed token: use auth = { kind = \"token\", token_file = ... } and endpoint"
                .to_owned()
        }
        "http_basic" => {
            "is HTTP Basic: use auth = { kind = \"basic\", ... } and endpoint".to_owned()
        }
        "v2password" | "v2token" => "Keystone v2 is not supported: use v3".to_owned(),
        "v3totp" | "v3multifactor" => {
            format!("is not supported, because each login needs a new passcode: {CREDENTIAL}")
        }
        other
            if other.starts_with("v3oidc")
                || other.starts_with("v3adfs")
                || other.starts_with("v3saml")
                || other.starts_with("v3websso") =>
        {
            format!(
                "is not supported, because it logs in at another identity provider: {CREDENTIAL}"
            )
        }
        other => {
            let known = [
                "password",
                "v3password",
                "token",
                "v3token",
                "v3applicationcredential",
            ];
            let near = nearest(other, known.into_iter());
            format!(
                "{other} is not supported{near}: use password, token or v3applicationcredential"
            )
        }
    }
}

/// Returns all keys that are read or are errors.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let unsupported = UNSUPPORTED.iter().map(|(key, _)| *key);
    let read = AUTH.iter().chain(CLOUD).copied();
    read.chain(unsupported)
}
