//! Reads Keystone settings from `clouds.yaml` and from `OS_*` variables, as openstacksdk does.
//!
//! Sources: openstacksdk, `config/loader.py` and "Configuring OpenStack SDK Applications";
//! python-openstackclient, "Environment Variables". The second test stage compares the result
//! with that of openstacksdk.

mod document;
mod keys;
mod login;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::{IdOrName, Identity, Keystone, Named};
use document::{Map, Node, Place, Value};
use login::{CloudReader, Origin};

/// Limit of `clouds.yaml`.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The vendor profiles that openstacksdk contains.
const VENDORS: &str = include_str!("clouds_yaml/vendors.yaml");

/// The name that `OS_CLOUD` has for the cloud of the variables.
const ENVIRONMENT_CLOUD: &str = "envvars";

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
    /// The cloud with its file and line, or the variables.
    pub source: String,
    /// What the user may not expect.
    pub notices: Vec<Notice>,
}

/// A warning, or an ignored key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is probably a mistake.
    pub is_warning: bool,
    /// File, line, cloud, key, and what is unexpected.
    pub text: String,
}

/// Returns the value of an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a cloud of `clouds.yaml`: the named one, else `OS_CLOUD`, else the only one.
/// The file is `OS_CLIENT_CONFIG_FILE`, else the first of `./clouds.yaml`,
/// `~/.config/openstack/clouds.yaml` and `/etc/openstack/clouds.yaml` (also `.yml`
/// and `.json`); secrets may be in `secure.yaml` in the same places, and vendor profiles in
/// `clouds-public.yaml`. `region` takes precedence over the cloud's. Fails with
/// what is missing in which place, and what to do.
pub fn from_cloud(
    name: Option<&str>,
    region: Option<&str>,
    env: Env<'_>,
) -> Result<CloudConfig, String> {
    let places = places(env);
    let path = match set(env, "OS_CLIENT_CONFIG_FILE") {
        Some(path) if !Path::new(&path).is_file() => {
            return Err(format!(
                "OS_CLIENT_CONFIG_FILE: the file {path} does not exist"
            ));
        }
        Some(path) => PathBuf::from(path),
        None => find(&places, "clouds").ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            format!(
                "there is no clouds.yaml in {}: write one, or set OS_CLIENT_CONFIG_FILE",
                places.join(", ")
            )
        })?,
    };
    let mut notices = Vec::new();
    let location = path.display();
    let mut clouds = match member(&path, "clouds", &mut notices)? {
        Some(clouds) => clouds,
        None => return Err(format!("{location}: there is no mapping `clouds`")),
    };
    let secure = set(env, "OS_CLIENT_SECURE_FILE")
        .map(PathBuf::from)
        .or_else(|| find(&places, "secure"));
    if let Some(secure) = secure
        && let Some(secrets) = member(&secure, "clouds", &mut notices)?
    {
        clouds.merge(secrets);
    }
    let name = name.map(str::to_owned).or_else(|| set(env, "OS_CLOUD"));
    let names: Vec<&str> = clouds.iter().map(|(name, _)| name).collect();
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, [name]) => (*name).to_owned(),
        (None, _) => {
            return Err(format!(
                "{location}: name one of its clouds ({}), or set OS_CLOUD",
                names.join(", ")
            ));
        }
    };
    let (own, at) = match clouds.get(&name) {
        Some(Node {
            value: Value::Map(map),
            place,
            ..
        }) => (map.clone(), place.clone()),
        Some(node) => {
            let place = &node.place;
            return Err(format!("{place}: cloud {name}: must be a mapping"));
        }
        None => {
            let near = crate::spelling::nearest(&name, names.iter().copied());
            return Err(format!(
                "{location}: there is no cloud {name}{near} (of: {})",
                names.join(", ")
            ));
        }
    };
    let reader = CloudReader {
        own: own.with_underscores(),
        at,
        origin: Origin::File(name),
        region,
        env,
        notices,
    };
    reader.read(|profile, notices| vendor(profile, &places, notices))
}

/// Reads a login from the `OS_*` variables; with `OS_CLOUD`, from that cloud of `clouds.yaml`,
/// in the region `OS_REGION_NAME`. None if no variable has a login; fails with what is missing.
pub fn from_env(region: Option<&str>, env: Env<'_>) -> Result<Option<CloudConfig>, String> {
    const LOGIN_VARIABLES: [&str; 9] = [
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_USER_ID",
        "OS_PASSWORD",
        "OS_APPLICATION_CREDENTIAL_ID",
        "OS_APPLICATION_CREDENTIAL_NAME",
        "OS_APPLICATION_CREDENTIAL_SECRET",
        "OS_TOKEN",
        "OS_PROFILE",
    ];
    let mut set_variables = LOGIN_VARIABLES
        .iter()
        .filter(|name| set(env, name).is_some());
    let first = set_variables.next();
    let environment = set(env, "OS_CLOUD_NAME").unwrap_or_else(|| ENVIRONMENT_CLOUD.to_owned());
    if let Some(name) = set(env, "OS_CLOUD").filter(|name| *name != environment) {
        let own = set(env, "OS_REGION_NAME");
        let mut cloud = from_cloud(Some(&name), region.or(own.as_deref()), env)?;
        if let Some(variable) = first {
            cloud.notices.push(Notice {
                is_warning: true,
                text: format!(
                    "OS_CLOUD names the cloud {name}, so that {variable} and other variables of a \
                     login are ignored: unset OS_CLOUD, or the others"
                ),
            });
        }
        return Ok(Some(cloud));
    }
    if first.is_none() {
        return Ok(None);
    }
    let place = Place {
        file: Arc::from("environment"),
        line: 0,
    };
    let mut own = Map::default();
    // `OS_CLOUD` does not name a vendor profile.
    for key in keys::all().filter(|key| *key != "cloud") {
        if let Some(text) = set(env, &login::variable(key)) {
            let value = Value::Text(text);
            let place = place.clone();
            own.insert(key.to_owned(), Node::new(value, place));
        }
    }
    let places = places(env);
    let reader = CloudReader {
        own,
        at: place,
        origin: Origin::Environment,
        region,
        env,
        notices: Vec::new(),
    };
    let cloud = reader.read(|profile, notices| vendor(profile, &places, notices));
    cloud.map(Some)
}

/// Returns the directories of the search path, in order.
fn places(env: Env<'_>) -> Vec<PathBuf> {
    let home = set(env, "HOME").map(|home| PathBuf::from(home).join(".config"));
    let config_home = set(env, "XDG_CONFIG_HOME").map(PathBuf::from);
    let mut places = vec![PathBuf::from(".")];
    let homes = [config_home, home].into_iter().flatten();
    let site = set(env, "XDG_CONFIG_DIRS");
    let site = site.as_deref().and_then(|list| list.split(':').next());
    let site = PathBuf::from(site.unwrap_or("/etc/xdg"));
    for home in homes.chain([site, PathBuf::from("/etc")]) {
        let place = home.join("openstack");
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
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

/// Reads a member of a file. None if the file does not have it.
fn member(path: &Path, member: &str, notices: &mut Vec<Notice>) -> Result<Option<Map>, String> {
    let text = read(path, MAX_FILE_BYTES)?;
    member_of(&path.display().to_string(), &text, member, notices)
}

fn member_of(
    file: &str,
    text: &str,
    member: &str,
    notices: &mut Vec<Notice>,
) -> Result<Option<Map>, String> {
    let (root, duplicates) =
        document::parse(file, text).map_err(|(place, problem)| format!("{place}: {problem}"))?;
    for duplicate in duplicates {
        let place = &duplicate.place;
        let mut path = duplicate.path.iter();
        let cloud = match (path.next(), path.next()) {
            (Some(clouds), Some(cloud)) if clouds == "clouds" => format!("cloud {cloud}: "),
            _ => String::new(),
        };
        notices.push(Notice {
            is_warning: true,
            text: format!(
                "{place}: {cloud}`{}` is already in line {}: the last one applies",
                duplicate.key, duplicate.first_line
            ),
        });
    }
    Ok(match root.value {
        Value::Map(map) => map.map(member).cloned(),
        _ => None,
    })
}

/// Returns a vendor profile: of `clouds-public.yaml`, else of openstacksdk.
fn vendor(
    profile: &str,
    places: &[PathBuf],
    notices: &mut Vec<Notice>,
) -> Result<Option<Map>, String> {
    const MEMBER: &str = "public-clouds";
    if let Some(path) = find(places, "clouds-public")
        && let Some(clouds) = member(&path, MEMBER, notices)?
        && let Some(found) = clouds.map(profile)
    {
        return Ok(Some(found.clone().with_underscores()));
    }
    let clouds = member_of("", VENDORS, MEMBER, notices)?;
    Ok(clouds.and_then(|clouds| clouds.map(profile).cloned()))
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

#[cfg(test)]
mod tests;
