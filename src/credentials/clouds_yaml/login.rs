//! One cloud: vendor profile, region, login, endpoint, TLS.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::document::{Map, Node, Place, Value};
use super::keys::{self, Meaning};
use super::{CloudConfig, Env, IdOrName, Identity, Keystone, Named, Notice, set, url};

/// Keys of which the one outside `auth` takes precedence; of others, the one in `auth`.
/// Source: openstacksdk, `_fix_backwards_auth`.
const OUTSIDE_FIRST: &[&str] = &[
    "domain_id",
    "domain_name",
    "user_domain_id",
    "user_domain_name",
    "project_domain_id",
    "project_domain_name",
    "token",
    "auth_token",
    "project_id",
    "project_name",
    "tenant_id",
    "tenant_name",
];

/// Where a cloud comes from.
pub(super) enum Origin {
    /// A cloud of this name.
    File(String),
    /// The `OS_*` variables.
    Environment,
}

/// Returns the variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("OS_{}", key.to_ascii_uppercase())
}

/// A cloud that is being read.
pub(super) struct CloudReader<'a> {
    /// The keys of the cloud itself, with underscores.
    pub(super) own: Map,
    /// The place of the cloud.
    pub(super) at: Place,
    pub(super) origin: Origin,
    /// The region that the gateway's configuration sets.
    pub(super) region: Option<&'a str>,
    pub(super) env: Env<'a>,
    pub(super) notices: Vec<Notice>,
}

impl CloudReader<'_> {
    /// Reads the cloud. `vendor` returns the profile of a name.
    pub(super) fn read(
        mut self,
        vendor: impl FnOnce(&str, &mut Vec<Notice>) -> Result<Option<Map>, String>,
    ) -> Result<CloudConfig, String> {
        let mut map = self.profile(vendor)?;
        let mut notices = Vec::new();
        let mut suggestions = Vec::new();
        let checked = self.check_keys(&mut notices, &mut suggestions);
        map.update(&self.own);
        let region = self.apply_region(&mut map)?;
        let cloud = Cloud {
            auth: map.map("auth").cloned().unwrap_or_default(),
            map,
            region,
            reader: &self,
        };
        // A login that is not supported has keys that are not supported.
        let config = cloud
            .auth_type()
            .and_then(|auth_type| checked.and_then(|()| cloud.config(auth_type)));
        match config {
            Ok(config) => Ok(CloudConfig {
                source: match &self.origin {
                    Origin::Environment => "the OS_* variables".to_owned(),
                    Origin::File(name) => format!("cloud {name}, {}", self.at),
                },
                notices: self.notices.into_iter().chain(notices).collect(),
                ..config
            }),
            // A misspelt key may be the cause.
            Err(mut problem) => {
                for suggestion in suggestions {
                    problem.push_str("; ");
                    problem.push_str(&suggestion);
                }
                Err(problem)
            }
        }
    }

    /// Returns the start of a message about a key.
    fn label(&self, key: &str, place: Option<&Place>) -> String {
        // A profile of openstacksdk has no file.
        let place = place.filter(|place| !place.file.is_empty());
        let place = place.unwrap_or(&self.at);
        match &self.origin {
            Origin::Environment => variable(key),
            Origin::File(name) => format!("{place}: cloud {name}: `{key}`"),
        }
    }

    /// Returns the vendor profile, or nothing.
    fn profile(
        &mut self,
        vendor: impl FnOnce(&str, &mut Vec<Notice>) -> Result<Option<Map>, String>,
    ) -> Result<Map, String> {
        let key = match self.own.get("profile") {
            Some(_) => "profile",
            None => "cloud",
        };
        let Some(node) = self.own.get(key) else {
            return Ok(Map::default());
        };
        let label = self.label(key, Some(&node.place));
        // An empty one is none.
        if text(node) == Ok(None) {
            return Ok(Map::default());
        }
        let Value::Text(profile) = &node.value else {
            return Err(format!("{label} must be the name of a vendor profile"));
        };
        let profile = profile.clone();
        let own_url = self.own.map("auth").and_then(|auth| auth.get("auth_url"));
        let has_url = own_url.or_else(|| self.own.get("auth_url")).is_some();
        let found = vendor(&profile, &mut self.notices)?;
        let map = found.unwrap_or_default();
        let text = |key: &str| map.get(key).and_then(|node| text(node).ok().flatten());
        if text("status").as_deref() == Some("shutdown") {
            let message = text("message").unwrap_or_default();
            return Err(format!(
                "{label}: the cloud {profile} no longer exists: {message}"
            ));
        }
        let remote = text("profile").or_else(|| profile.contains("://").then(|| profile.clone()));
        let is_known = map.iter().next().is_some();
        let problem = match remote {
            Some(url) => {
                format!("{label}: the vendor profile {profile} is at {url}, which is not read")
            }
            None if !is_known => format!("{label}: the vendor profile {profile} is unknown"),
            None => return Ok(map),
        };
        match has_url {
            false => Err(format!("{problem}: write its `auth_url` under `auth`")),
            true => {
                self.notices.push(Notice {
                    is_warning: true,
                    text: format!("{problem}: only the keys of the cloud apply"),
                });
                Ok(Map::default())
            }
        }
    }

    /// Checks the names of the cloud's own keys. `suggestions` gets those that are similar to
    /// others.
    fn check_keys(
        &self,
        notices: &mut Vec<Notice>,
        suggestions: &mut Vec<String>,
    ) -> Result<(), String> {
        let auth = self.own.map("auth");
        let inner = auth.into_iter().flat_map(Map::iter);
        let all = (self.own.iter().map(|entry| (entry, false))).chain(inner.map(|e| (e, true)));
        let regions = self.own.get("regions").map(|node| &node.value);
        let regions = match regions {
            Some(Value::List(regions)) => regions.as_slice(),
            _ => &[],
        };
        let of_regions = regions.iter().filter_map(|region| match &region.value {
            Value::Map(region) => region.map("values"),
            _ => None,
        });
        let of_regions = of_regions.flat_map(Map::iter).map(|entry| (entry, false));
        for ((key, node), in_auth) in all.chain(of_regions) {
            let shown = match in_auth {
                true => format!("auth.{key}"),
                false => key.to_owned(),
            };
            let label = self.label(&shown, Some(&node.place));
            let is_login = |key: &str| keys::AUTH.contains(&&*key.replace('-', "_"));
            let is_absent = matches!(node.value, Value::Null)
                || matches!(&node.value, Value::Text(text) if text.trim().is_empty());
            let (is_warning, text) = match keys::meaning(&key.replace('-', "_"), in_auth) {
                Meaning::Read if node.is_rewritten && is_login(key) => {
                    let problem = "is a number in YAML, which is read as another text than the \
                                   file has: put it in quotes";
                    (true, format!("{label}: {problem}"))
                }
                Meaning::Read => continue,
                _ if is_absent => continue,
                // The type that the catalog is searched for anyway.
                Meaning::Unsupported(_)
                    if key == "orchestration_service_type"
                        && matches!(&node.value, Value::Text(text) if text == "orchestration") =>
                {
                    continue;
                }
                Meaning::Unsupported(what) => return Err(format!("{label}: {what}")),
                Meaning::Ignored => (false, format!("{label} is ignored")),
                Meaning::Unknown(near) => {
                    let text = format!("{label}: unknown key{near}");
                    suggestions.extend((!near.is_empty()).then(|| text.clone()));
                    (true, text)
                }
            };
            notices.push(Notice { is_warning, text });
        }
        Ok(())
    }

    /// Selects the region, and takes over its values. Returns its name.
    fn apply_region(&self, map: &mut Map) -> Result<Option<String>, String> {
        // A list of the cloud itself takes precedence over the one of its profile.
        let (key, node) = match (self.own.get("regions"), self.own.get("region_name")) {
            (Some(node), _) => ("regions", Some(node.clone())),
            (None, Some(node)) => ("region_name", Some(node.clone())),
            (None, None) => match map.get("regions") {
                Some(node) => ("regions", Some(node.clone())),
                None => ("region_name", map.get("region_name").cloned()),
            },
        };
        let Some(node) = node else {
            return Ok(self.region.map(str::to_owned));
        };
        let label = self.label(key, Some(&node.place));
        let items = match &node.value {
            Value::List(items) => items.clone(),
            Value::Text(names) if names.trim().is_empty() => Vec::new(),
            Value::Text(names) => names
                .split(',')
                .map(|name| Node::new(Value::Text(name.trim().to_owned()), node.place.clone()))
                .collect(),
            Value::Null => Vec::new(),
            _ => return Err(format!("{label} must be a name or a list of names")),
        };
        let mut regions = Vec::new();
        for item in items {
            let (name, values) = match &item.value {
                Value::Map(region) => (region.get("name"), region.map("values")),
                _ => (Some(&item), None),
            };
            let name = name.and_then(|name| text(name).ok().flatten());
            let name = name.ok_or_else(|| {
                format!("{label} must have names, or mappings with `name` and `values`")
            })?;
            regions.push((name, values.cloned().unwrap_or_default().with_underscores()));
        }
        let selected = match self.region {
            Some(wanted) => regions.iter().find(|(name, _)| name == wanted),
            None => regions.first(),
        };
        if let Some((_, values)) = selected {
            map.update(values);
        }
        let name = self.region.map(str::to_owned);
        Ok(name
            .or_else(|| Some(selected?.0.clone()))
            .filter(|name| !name.is_empty()))
    }
}

/// Returns the text of a scalar; None if it is empty. Fails with the problem.
fn text(node: &Node) -> Result<Option<String>, &'static str> {
    match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) if text.trim().is_empty() => Ok(None),
        Value::Text(text) => Ok(Some(text.clone())),
        Value::Bool(_) => Err("is true or false in YAML: write the text in quotes"),
        Value::List(_) => {
            Err("must be one value, is a list: put a text that starts with [ in quotes")
        }
        Value::Map(_) => {
            Err("must be one value, is a mapping: put a text that starts with { in quotes")
        }
    }
}

/// A cloud with the values of its profile and region.
struct Cloud<'a> {
    map: Map,
    auth: Map,
    region: Option<String>,
    reader: &'a CloudReader<'a>,
}

impl Cloud<'_> {
    /// Returns the value of a key, in `auth` or outside it.
    fn node(&self, key: &str) -> Option<(&Node, String)> {
        let get = |map: &'_ Map| map.get(key).is_some_and(|node| text(node) != Ok(None));
        let inside = get(&self.auth).then(|| (self.auth.get(key), format!("auth.{key}")));
        let outside = get(&self.map).then(|| (self.map.get(key), key.to_owned()));
        let (node, shown) = match OUTSIDE_FIRST.contains(&key) {
            true => outside.or(inside)?,
            false => inside.or(outside)?,
        };
        Some((node?, shown))
    }

    /// Returns the start of a message about a key: with its place, or that of the cloud.
    fn label(&self, key: &str) -> String {
        if let Origin::Environment = self.reader.origin {
            return variable(key);
        }
        match self.node(key) {
            Some((node, shown)) => self.reader.label(&shown, Some(&node.place)),
            None if keys::AUTH.contains(&key) => self.reader.label(&format!("auth.{key}"), None),
            None => self.reader.label(key, None),
        }
    }

    fn get(&self, key: &str) -> Result<Option<String>, String> {
        let Some((node, shown)) = self.node(key) else {
            return Ok(None);
        };
        text(node).map_err(|problem| {
            format!("{} {problem}", self.reader.label(&shown, Some(&node.place)))
        })
    }

    fn first(&self, keys: &[&str]) -> Result<Option<String>, String> {
        for key in keys {
            if let Some(text) = self.get(key)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn missing(&self, key: &str) -> String {
        format!("{} is missing", self.label(key))
    }

    /// Returns the value of a secret that must be present.
    fn secret(&self, key: &str) -> Result<String, String> {
        self.get(key)?.ok_or_else(|| match self.reader.origin {
            Origin::Environment => format!("{}: set it", self.missing(key)),
            Origin::File(_) => format!("{}: write it there, or in secure.yaml", self.missing(key)),
        })
    }

    /// Replaces `{key}` by the value of a key, for example `{region_name}`.
    fn expanded(&self, key: &str, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| format!("{} has a brace without an end", self.label(key)))?;
            let value = match name {
                "region_name" => self.region.clone(),
                name => match self.map.get(name) {
                    Some(node) => self::text(node).ok().flatten(),
                    None => None,
                },
            };
            let value = value
                .ok_or_else(|| format!("{} needs `{name}`, which is missing", self.label(key)))?;
            expanded.push_str(before);
            expanded.push_str(&value);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn url(&self, key: &str) -> Result<Option<Url>, String> {
        let Some(text) = self.get(key)? else {
            return Ok(None);
        };
        url(&self.label(key), &self.expanded(key, &text)?).map(Some)
    }

    /// Returns the URL of an endpoint without the placeholder of the project, which keystoneauth
    /// fills in and the gateway appends itself.
    fn endpoint(&self, key: &str) -> Result<Option<Url>, String> {
        let Some(text) = self.get(key)? else {
            return Ok(None);
        };
        let text = self.expanded(key, &text)?;
        let bare = text.trim_end_matches('/');
        let of_project = [
            "%(project_id)s",
            "%(tenant_id)s",
            "$(project_id)s",
            "$(tenant_id)s",
        ];
        let without = of_project.iter().find_map(|end| bare.strip_suffix(end));
        let text = without.map_or(&*text, |text| text.trim_end_matches('/'));
        if let Some(start) = text.find("%(").or_else(|| text.find("$(")) {
            let end = text[start..]
                .find(['/', '?'])
                .map_or(text.len(), |end| start + end);
            return Err(format!(
                "{} has a placeholder that is not read: `{}`",
                self.label(key),
                &text[start..end]
            ));
        }
        url(&self.label(key), text).map(Some)
    }

    fn config(&self, auth_type: &str) -> Result<CloudConfig, String> {
        let auth_url = self.url("auth_url")?;
        let auth_url = auth_url.ok_or_else(|| self.missing("auth_url"))?;
        let version = self.get("identity_api_version")?;
        let old_key = match version.is_some_and(|version| version.starts_with('2')) {
            _ if auth_url.path().trim_end_matches('/').ends_with("/v2.0") => Some("auth_url"),
            true => Some("identity_api_version"),
            false => None,
        };
        if let Some(key) = old_key {
            let rackspace = match auth_url.host_str() {
                Some(host) if host.ends_with("rackspacecloud.com") => {
                    "; for Rackspace, use auth = { kind = \"rackspace\", ... }"
                }
                _ => "",
            };
            return Err(format!(
                "{}: Keystone v2 is not supported: use v3{rackspace}",
                self.label(key)
            ));
        }
        let identity = self.identity(auth_type)?;
        let project = match identity {
            Identity::ApplicationCredential { .. } => None,
            _ => self.project()?,
        };
        let (verify, verified_by) = self.verify()?;
        let cacert = self.path("cacert")?.or(verified_by);
        let endpoint = match self.endpoint("orchestration_endpoint_override")? {
            Some(url) => Some(url),
            None => self.endpoint("orchestration_endpoint")?,
        };
        Ok(CloudConfig {
            keystone: Keystone {
                auth_url,
                identity,
                project,
                region: match self.reader.region {
                    Some(region) => Some(region.to_owned()),
                    None => self
                        .get("orchestration_region_name")?
                        .or(self.region.clone()),
                },
                interfaces: self.interfaces()?,
            },
            endpoint_override: endpoint,
            cacert: cacert.filter(|_| verify),
            verify,
            project_id: self.first(&["project_id", "tenant_id"])?,
            source: String::new(),
            notices: Vec::new(),
        })
    }

    /// Returns whether certificates are verified, and the CA file that `verify` may name.
    fn verify(&self) -> Result<(bool, Option<PathBuf>), String> {
        let is = |key: &str, words: &[&str], value: bool| match self.node(key) {
            Some((node, _)) => match &node.value {
                Value::Bool(flag) => *flag == value,
                Value::Text(text) => words.contains(&&*text.trim().to_ascii_lowercase()),
                _ => false,
            },
            None => false,
        };
        let (yes, no) = (["true", "yes", "on", "1"], ["false", "no", "off", "0"]);
        if is("insecure", &yes, true) || is("verify", &no, false) {
            return Ok((false, None));
        }
        if is("verify", &yes, true) {
            return Ok((true, None));
        }
        Ok((true, self.path("verify")?))
    }

    /// Returns a path, with `~` for the home directory.
    fn path(&self, key: &str) -> Result<Option<PathBuf>, String> {
        let Some(path) = self.get(key)? else {
            return Ok(None);
        };
        let path = self.expanded(key, &path)?;
        let home = set(self.reader.env, "HOME");
        Ok(Some(match (path.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(path),
        }))
    }

    /// Returns the interfaces of the endpoint, the preferred one first.
    fn interfaces(&self) -> Result<Vec<String>, String> {
        let keys = [
            "orchestration_endpoint_type",
            "orchestration_interface",
            "endpoint_type",
            "interface",
        ];
        let Some(key) = keys.into_iter().find(|key| self.node(key).is_some()) else {
            return Ok(vec!["public".to_owned()]);
        };
        let Some((node, _)) = self.node(key) else {
            return Ok(Vec::new());
        };
        let names = match &node.value {
            Value::List(items) => items.clone(),
            _ => vec![node.clone()],
        };
        let invalid = || format!("{} must be public, internal or admin", self.label(key));
        let mut interfaces = Vec::new();
        for name in names {
            let name = text(&name).ok().flatten().ok_or_else(invalid)?;
            for name in name.split(',') {
                let name = name.trim().trim_end_matches("URL");
                if !["public", "internal", "admin"].contains(&name) {
                    return Err(invalid());
                }
                interfaces.push(name.to_owned());
            }
        }
        match interfaces.is_empty() {
            true => Err(invalid()),
            false => Ok(interfaces),
        }
    }

    /// Returns the kind of login: `password`, `token` or `application_credential`.
    fn auth_type(&self) -> Result<&'static str, String> {
        let named = self.first(&["auth_type", "auth_plugin"])?;
        Ok(match named.as_deref().map(str::trim) {
            Some("password" | "v3password") => "password",
            Some("token" | "v3token") => "token",
            Some("v3applicationcredential") => "application_credential",
            Some(other) => {
                let key = match self.get("auth_type")? {
                    Some(_) => "auth_type",
                    None => "auth_plugin",
                };
                let problem = keys::unsupported_login(&other.to_ascii_lowercase());
                let separator = match problem.starts_with(other) {
                    true => String::new(),
                    false => format!(" {other}"),
                };
                return Err(format!("{}:{separator} {problem}", self.label(key)));
            }
            None if self
                .first(&["application_credential_id", "application_credential_name"])?
                .is_some() =>
            {
                "application_credential"
            }
            None if self.token()?.is_some() && self.get("password")?.is_none() => "token",
            None => "password",
        })
    }

    fn token(&self) -> Result<Option<String>, String> {
        self.first(&["token", "auth_token"])
    }

    fn identity(&self, auth_type: &str) -> Result<Identity, String> {
        Ok(match auth_type {
            "token" => {
                let token = self.token()?.ok_or_else(|| self.missing("token"))?;
                Identity::Token(SecretString::from(token))
            }
            "application_credential" => self.application_credential()?,
            _ => Identity::Password {
                user: self.user()?.ok_or_else(|| self.missing("username"))?,
                password: SecretString::from(self.secret("password")?),
            },
        })
    }

    fn application_credential(&self) -> Result<Identity, String> {
        let secret = self.secret("application_credential_secret")?.into();
        if let Some(id) = self.get("application_credential_id")? {
            return Ok(Identity::ApplicationCredential {
                id_or_name: IdOrName::Id(id),
                user: None,
                secret,
            });
        }
        let name = self.get("application_credential_name")?;
        let name = name.ok_or_else(|| self.missing("application_credential_id"))?;
        let user = self.user()?.ok_or_else(|| {
            format!(
                "{}: an application credential by name needs its user; or set its id",
                self.missing("username")
            )
        })?;
        Ok(Identity::ApplicationCredential {
            id_or_name: IdOrName::Name(name),
            user: Some(user),
            secret,
        })
    }

    fn user(&self) -> Result<Option<Named>, String> {
        if let Some(id) = self.get("user_id")? {
            return Ok(Some(Named {
                id_or_name: IdOrName::Id(id),
                domain: None,
            }));
        }
        let Some(name) = self.first(&["username", "user_name"])? else {
            return Ok(None);
        };
        Ok(Some(Named {
            id_or_name: IdOrName::Name(name),
            domain: Some(self.domain("user", "project")?),
        }))
    }

    fn project(&self) -> Result<Option<Named>, String> {
        if let Some(id) = self.first(&["project_id", "tenant_id"])? {
            return Ok(Some(Named {
                id_or_name: IdOrName::Id(id),
                domain: None,
            }));
        }
        if let Some(name) = self.first(&["project_name", "tenant_name"])? {
            return Ok(Some(Named {
                id_or_name: IdOrName::Name(name),
                domain: Some(self.domain("project", "user")?),
            }));
        }
        let of_domain = ["domain_id", "domain_name"];
        let of_domain = of_domain.into_iter().find(|key| self.node(key).is_some());
        let problem = match of_domain {
            Some(key) => format!(
                "{}: a token for a domain has no project, which the services need: set \
                 project_name",
                self.label(key)
            ),
            None => format!(
                "{}: the services need a token with a project",
                self.missing("project_name")
            ),
        };
        Err(problem)
    }

    /// Returns the domain of `what`: its own, the common one, that of `other`, else
    /// `default`, as openstackclient does.
    fn domain(&self, what: &str, other: &str) -> Result<IdOrName, String> {
        let of = |what: &str| -> Result<Option<IdOrName>, String> {
            if let Some(id) = self.get(&format!("{what}domain_id"))? {
                return Ok(Some(IdOrName::Id(id)));
            }
            let name = self.get(&format!("{what}domain_name"))?;
            Ok(name.map(IdOrName::Name))
        };
        for prefix in [&*format!("{what}_"), "", &*format!("{other}_"), "default_"] {
            if let Some(domain) = of(prefix)? {
                return Ok(domain);
            }
        }
        let default = self.get("default_domain")?;
        Ok(IdOrName::Id(
            default.unwrap_or_else(|| "default".to_owned()),
        ))
    }
}
