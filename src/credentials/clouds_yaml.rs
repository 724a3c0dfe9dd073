//! Reads Keystone settings from `clouds.yaml` and from `OS_*` variables.
//!
//! Sources: openstacksdk, `config/loader.py`; python-openstackclient,
//! "Environment Variables".

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_yaml_ng::{Mapping, Value};
use url::Url;

use super::{IdOrName, Identity, Keystone, Named};

/// Limit of `clouds.yaml`.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// One cloud of a file or of the environment.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// How to log in.
    pub keystone: Keystone,
    /// `orchestration_endpoint_override`: takes precedence over the catalog.
    pub endpoint_override: Option<Url>,
    /// PEM file with the CA to trust.
    pub cacert: Option<PathBuf>,
    /// Whether certificates are verified.
    pub verify: bool,
    /// The project's id, if it is set.
    pub project_id: Option<String>,
}

/// Returns the value of an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a cloud of `clouds.yaml`: the named one, else `OS_CLOUD`, else the only one.
/// The file is `OS_CLIENT_CONFIG_FILE`, else the first of `./clouds.yaml`,
/// `~/.config/openstack/clouds.yaml` and `/etc/openstack/clouds.yaml` (also `.yml`
/// and `.json`); secrets may be in `secure.yaml` in the same places. Fails with
/// what is missing in which place, and what to do.
pub fn from_cloud(name: Option<&str>, env: Env<'_>) -> Result<CloudConfig, String> {
    let places = places(env);
    let path = match set(env, "OS_CLIENT_CONFIG_FILE") {
        Some(path) => PathBuf::from(path),
        None => find(&places, "clouds").ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            format!(
                "there is no clouds.yaml in {}: write one, or set OS_CLIENT_CONFIG_FILE",
                places.join(", ")
            )
        })?,
    };
    let mut clouds = clouds(&path)?;
    let secure = set(env, "OS_CLIENT_SECURE_FILE")
        .map(PathBuf::from)
        .or_else(|| find(&places, "secure"));
    if let Some(secure) = secure {
        merge(&mut clouds, self::clouds(&secure)?);
    }
    let name = name.map(str::to_owned).or_else(|| set(env, "OS_CLOUD"));
    cloud(&path, clouds, name.as_deref(), env)
}

/// Reads a login from the `OS_*` variables. None if they have no login; fails with what is
/// missing.
pub fn from_env(env: Env<'_>) -> Result<Option<CloudConfig>, String> {
    const LOGIN_VARIABLES: [&str; 7] = [
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_USER_ID",
        "OS_PASSWORD",
        "OS_APPLICATION_CREDENTIAL_ID",
        "OS_APPLICATION_CREDENTIAL_SECRET",
        "OS_TOKEN",
    ];
    if LOGIN_VARIABLES.iter().all(|name| set(env, name).is_none()) {
        return Ok(None);
    }
    let variable = |key: &str| format!("OS_{}", key.to_ascii_uppercase());
    let source = Source {
        get: &|key| set(env, &variable(key)),
        label: &variable,
        env,
    };
    source.config().map(Some)
}

/// Returns the directories of the search path, in order.
fn places(env: Env<'_>) -> Vec<PathBuf> {
    let home = set(env, "XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set(env, "HOME")?).join(".config")));
    [
        Some(PathBuf::from(".")),
        home.map(|home| home.join("openstack")),
        Some(PathBuf::from("/etc/openstack")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn find(places: &[PathBuf], stem: &str) -> Option<PathBuf> {
    places
        .iter()
        .flat_map(|directory| {
            ["yaml", "yml", "json"].map(|end| directory.join(format!("{stem}.{end}")))
        })
        .find(|path| path.is_file())
}

/// Reads a text file of at most `max_bytes`.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<String, String> {
    let location = path.display();
    let fail = |e: std::io::Error| format!("{location}: cannot be read: {e}");
    let mut text = String::new();
    File::open(path)
        .map_err(fail)?
        .take(max_bytes + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > max_bytes {
        return Err(format!("{location}: longer than {max_bytes} bytes"));
    }
    Ok(text)
}

/// Reads the member `clouds` of a file.
fn clouds(path: &Path) -> Result<Mapping, String> {
    let location = path.display();
    let text = read(path, MAX_FILE_BYTES)?;
    let file: Value = serde_yaml_ng::from_str(&text).map_err(|e| {
        // The parser's message may contain a secret.
        let line = e.location().map_or(0, |l| l.line());
        format!("{location}: line {line}: this is not YAML")
    })?;
    match file.get("clouds") {
        Some(Value::Mapping(clouds)) => Ok(clouds.clone()),
        _ => Err(format!("{location}: there is no mapping `clouds`")),
    }
}

/// Merges `other` into `base`; values of `other` take precedence.
fn merge(base: &mut Mapping, other: Mapping) {
    for (key, value) in other {
        match (base.get_mut(&key), value) {
            (Some(Value::Mapping(base)), Value::Mapping(value)) => merge(base, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn cloud(
    path: &Path,
    clouds: Mapping,
    name: Option<&str>,
    env: Env<'_>,
) -> Result<CloudConfig, String> {
    let location = path.display();
    let names: Vec<&str> = clouds.keys().filter_map(Value::as_str).collect();
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, _) => {
            return Err(format!(
                "{location}: name one of its clouds ({}), or set OS_CLOUD",
                names.join(", ")
            ));
        }
    };
    let Some(Value::Mapping(cloud)) = clouds.get(name) else {
        return Err(format!(
            "{location}: there is no cloud {name}: it has {}",
            names.join(", ")
        ));
    };
    let auth = cloud.get("auth").and_then(Value::as_mapping);
    let source = Source {
        get: &|key| {
            let dashed = key.replace('_', "-");
            [auth, Some(cloud)]
                .into_iter()
                .flatten()
                .find_map(|map| scalar(map.get(key).or_else(|| map.get(&dashed))?))
        },
        label: &|key| format!("{location}: cloud {name}: `{key}`"),
        env,
    };
    let profile = || (source.get)("profile").or_else(|| (source.get)("cloud"));
    if (source.get)("auth_url").is_none()
        && let Some(profile) = profile()
    {
        return Err(format!(
            "{location}: cloud {name}: the vendor profile {profile} is unknown: \
             write its `auth_url` under `auth`"
        ));
    }
    source.config()
}

/// Returns the text of a scalar; None if it is empty.
fn scalar(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
        // `regions: [RegionOne, ...]`: the first one.
        Value::Sequence(values) => scalar(values.first()?)?,
        _ => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

fn set(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.trim().is_empty())
}

/// Parses an http or https URL.
pub(super) fn url(location: &str, text: &str) -> Result<Url, String> {
    match Url::parse(text.trim()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(format!(
            "{location} is not a URL: write https://host[:port]/path"
        )),
    }
}

/// Values by their names in `clouds.yaml`, and the names for messages.
struct Source<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    label: &'a dyn Fn(&str) -> String,
    env: Env<'a>,
}

impl Source<'_> {
    fn get(&self, key: &str) -> Option<String> {
        (self.get)(key)
    }

    fn first(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.get(key))
    }

    fn need(&self, key: &str) -> Result<String, String> {
        self.get(key)
            .ok_or_else(|| format!("{} is missing", (self.label)(key)))
    }

    fn url(&self, key: &str) -> Result<Option<Url>, String> {
        self.get(key)
            .map(|text| url(&(self.label)(key), &text))
            .transpose()
    }

    fn config(&self) -> Result<CloudConfig, String> {
        self.need("auth_url")?;
        let auth_url = self
            .url("auth_url")?
            .ok_or_else(|| format!("{} is missing", (self.label)("auth_url")))?;
        let old = auth_url.path().trim_end_matches('/').ends_with("/v2.0")
            || self
                .get("identity_api_version")
                .is_some_and(|version| version.starts_with('2'));
        if old {
            return Err(format!(
                "{}: Keystone v2 is not supported: use v3",
                (self.label)("auth_url")
            ));
        }
        let is = |key: &str, value: &str| {
            self.get(key)
                .is_some_and(|text| text.trim().eq_ignore_ascii_case(value))
        };
        let unverified = [
            ("verify", ["false", "no", "off", "0"]),
            ("insecure", ["true", "yes", "on", "1"]),
        ];
        let verify = !unverified
            .into_iter()
            .any(|(key, values)| values.iter().any(|value| is(key, value)));
        let identity = self.identity()?;
        let project = match identity {
            Identity::ApplicationCredential { .. } => None,
            _ => self.project()?,
        };
        let interface = self
            .first(&["interface", "endpoint_type"])
            .unwrap_or_else(|| "public".to_owned());
        let interface = interface.trim().trim_end_matches("URL").to_owned();
        if !["public", "internal", "admin"].contains(&interface.as_str()) {
            return Err(format!(
                "{} must be public, internal or admin",
                (self.label)("interface")
            ));
        }
        Ok(CloudConfig {
            keystone: Keystone {
                auth_url,
                identity,
                project,
                region: self.first(&["region_name", "regions"]),
                interface,
            },
            endpoint_override: self.url("orchestration_endpoint_override")?,
            cacert: self.get("cacert").map(|path| self.expand(&path)),
            verify,
            project_id: self.first(&["project_id", "tenant_id"]),
        })
    }

    /// Expands `~` to the home directory.
    fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), (self.env)("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(path),
        }
    }

    fn identity(&self) -> Result<Identity, String> {
        let kind = match self.get("auth_type").as_deref().map(str::trim) {
            Some("password" | "v3password") => "password",
            Some("token" | "v3token") => "token",
            Some("v3applicationcredential") => "application_credential",
            Some(other) => {
                return Err(format!(
                    "{}: {other} is not supported: use password, token or v3applicationcredential",
                    (self.label)("auth_type")
                ));
            }
            None if self
                .first(&["application_credential_id", "application_credential_name"])
                .is_some() =>
            {
                "application_credential"
            }
            None if self.get("token").is_some() && self.get("password").is_none() => "token",
            None => "password",
        };
        let secret = |key: &str| self.need(key).map(SecretString::from);
        Ok(match kind {
            "token" => Identity::Token(secret("token")?),
            "application_credential" => self.application_credential()?,
            _ => Identity::Password {
                user: self
                    .user()
                    .ok_or_else(|| format!("{} is missing", (self.label)("username")))?,
                password: secret("password")?,
            },
        })
    }

    fn application_credential(&self) -> Result<Identity, String> {
        let secret = self.need("application_credential_secret")?.into();
        if let Some(id) = self.get("application_credential_id") {
            return Ok(Identity::ApplicationCredential {
                id_or_name: IdOrName::Id(id),
                user: None,
                secret,
            });
        }
        let name = self
            .get("application_credential_name")
            .ok_or_else(|| format!("{} is missing", (self.label)("application_credential_id")))?;
        let user = self.user().ok_or_else(|| {
            format!(
                "{} is missing: an application credential by name needs its user; \
                 or set its id",
                (self.label)("username")
            )
        })?;
        Ok(Identity::ApplicationCredential {
            id_or_name: IdOrName::Name(name),
            user: Some(user),
            secret,
        })
    }

    fn user(&self) -> Option<Named> {
        if let Some(id) = self.get("user_id") {
            return Some(Named {
                id_or_name: IdOrName::Id(id),
                domain: None,
            });
        }
        Some(Named {
            id_or_name: IdOrName::Name(self.first(&["username", "user_name"])?),
            domain: Some(self.domain("user", "project")),
        })
    }

    fn project(&self) -> Result<Option<Named>, String> {
        if let Some(id) = self.first(&["project_id", "tenant_id"]) {
            return Ok(Some(Named {
                id_or_name: IdOrName::Id(id),
                domain: None,
            }));
        }
        match self.first(&["project_name", "tenant_name"]) {
            Some(name) => Ok(Some(Named {
                id_or_name: IdOrName::Name(name),
                domain: Some(self.domain("project", "user")),
            })),
            None => Err(format!(
                "{} is missing: the services need a token with a project",
                (self.label)("project_name")
            )),
        }
    }

    /// Returns the domain of `what`: its own, the common one, that of `other`, else
    /// `default`, as openstackclient does.
    fn domain(&self, what: &str, other: &str) -> IdOrName {
        let of = |what: &str| {
            self.get(&format!("{what}domain_id"))
                .map(IdOrName::Id)
                .or_else(|| self.get(&format!("{what}domain_name")).map(IdOrName::Name))
        };
        of(&format!("{what}_"))
            .or_else(|| of(""))
            .or_else(|| of(&format!("{other}_")))
            .or_else(|| of("default_"))
            .or_else(|| self.get("default_domain").map(IdOrName::Id))
            .unwrap_or_else(|| IdOrName::Id("default".to_owned()))
    }
}

#[cfg(test)]
mod tests;
