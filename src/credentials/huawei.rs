//! Huawei Cloud access keys from the environment or a file, and the lookup of their project.
//!
//! Sources: huaweicloudsdkcore, `auth/provider.py` (variables, credentials file);
//! Identity and Access Management API, "Querying Project Information".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tonic::Code;
use url::Url;

use super::login::{Login, below, display_url, json, rejection};
use super::{AkSk, aksk, clouds_yaml, credential_error};
use crate::credentials::aksk::Keys;
use crate::credentials::credential::{Authorization, Credential, IssuedToken, Scope};
use crate::error::Error;
use crate::http_client::HttpRequest;
use drawbridge_transcoder::call::Reply;

/// The default of the official SDK.
const IAM: &str = "https://iam.myhuaweicloud.com";

/// Limit of the credentials file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Reads access keys from `HUAWEICLOUD_SDK_AK` and the related variables, else from the
/// SDK's credentials file (`HUAWEICLOUD_SDK_CREDENTIALS_FILE`, default
/// `~/.huaweicloud/credentials`). None if neither exists. Fails with what is missing in
/// which place, and what to do.
pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<AkSk>, String> {
    let get = |name: &str| {
        let value = env(&format!("HUAWEICLOUD_SDK_{name}"))?;
        (!value.trim().is_empty()).then(|| value.trim().to_owned())
    };
    let keys = match (get("AK"), get("SK")) {
        (Some(access_key), Some(secret_key)) => Some(AkSk {
            access_key,
            secret_key: secret_key.into(),
            security_token: get("SECURITY_TOKEN").map(SecretString::from),
            project_id: None,
            domain_id: None,
            iam_endpoint: None,
            region: None,
        }),
        (Some(_), None) => return Err(incomplete("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK")),
        (None, Some(_)) => return Err(incomplete("HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_AK")),
        (None, None) => from_file(get("CREDENTIALS_FILE"), env)?,
    };
    let Some(mut keys) = keys else {
        return Ok(None);
    };
    // The environment takes precedence over the file.
    keys.project_id = get("PROJECT_ID").or(keys.project_id);
    keys.domain_id = get("DOMAIN_ID").or(keys.domain_id);
    keys.region = get("REGION").or(keys.region);
    if let Some(text) = get("IAM_ENDPOINT") {
        keys.iam_endpoint = Some(iam_endpoint("HUAWEICLOUD_SDK_IAM_ENDPOINT", &text)?);
    }
    Ok(Some(keys))
}

fn incomplete(present: &str, missing: &str) -> String {
    format!("{present} is set and {missing} is not: set both")
}

fn from_file(
    named: Option<String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<AkSk>, String> {
    let home = || Some(PathBuf::from(env("HOME")?).join(".huaweicloud/credentials"));
    let path = match named {
        Some(path) => PathBuf::from(path),
        None => match home().filter(|path| path.is_file()) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let text = clouds_yaml::read(&path, MAX_FILE_BYTES)?;
    profile(&path, &text).map(Some)
}

/// Reads the keys of a credentials file: of `[basic]`, else of `[global]`.
fn profile(path: &Path, text: &str) -> Result<AkSk, String> {
    let location = path.display();
    let Some(name) = ["basic", "global"]
        .into_iter()
        .find(|name| lines(text).any(|(section, ..)| section == *name))
    else {
        return Err(format!(
            "{location}: there is no [basic] or [global] section with keys"
        ));
    };
    // [DEFAULT] has the values of keys that the section lacks.
    let get = |key: &str| {
        [name, "DEFAULT"].into_iter().find_map(|name| {
            let found =
                lines(text).find(|(section, k, _)| *section == name && k.eq_ignore_ascii_case(key));
            // The SDK's reader requires `%` to be doubled.
            found
                .filter(|(.., value)| !value.is_empty())
                .map(|(.., value)| value.replace("%%", "%"))
        })
    };
    let need = |key: &str| get(key).ok_or_else(|| format!("{location}: [{name}] has no `{key}`"));
    Ok(AkSk {
        access_key: need("ak")?,
        secret_key: need("sk")?.into(),
        security_token: get("security_token").map(SecretString::from),
        project_id: get("project_id"),
        domain_id: get("domain_id"),
        iam_endpoint: get("iam_endpoint")
            .map(|text| iam_endpoint(&format!("{location}: [{name}] iam_endpoint"), &text))
            .transpose()?,
        region: get("region"),
    })
}

/// Returns section, key and value of each line that has them. The SDK reads the file with
/// Python's `configparser`: keys in any case, `=` or `:`, comments on separate lines.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim();
            return None;
        }
        let (key, value) = line.split_once(['=', ':'])?;
        Some((section, key.trim(), value.trim()))
    })
}

fn iam_endpoint(location: &str, text: &str) -> Result<Url, String> {
    clouds_yaml::url(location, text)
}

/// Returns the credential of keys that need no lookup.
pub(super) fn credential(settings: &AkSk) -> Result<Arc<Credential>, Error> {
    token(settings)
        .map(|token| Arc::new(Credential::new(token, tokio::time::Instant::now(), false)))
}

fn token(settings: &AkSk) -> Result<IssuedToken, Error> {
    Ok(IssuedToken {
        authorization: Authorization::Signature(Box::new(Keys::new(settings)?)),
        lifetime: None,
        endpoint: None,
        project_id: settings.project_id.clone(),
        scope: Scope {
            project: None,
            region: settings.region.clone(),
        },
    })
}

/// Looks up the project of a region: a signed `GET {iam}/v3/projects?name=`.
pub(super) struct ProjectLookup {
    settings: AkSk,
    region: String,
    iam: Url,
}

#[derive(Deserialize)]
struct Projects {
    projects: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
    name: Option<String>,
}

impl ProjectLookup {
    /// Returns None if the project is configured, or the region is not.
    pub(super) fn of(settings: &AkSk) -> Option<Self> {
        let region = settings.region.clone()?;
        let iam = settings
            .iam_endpoint
            .clone()
            .or_else(|| Url::parse(IAM).ok())?;
        settings.project_id.is_none().then(|| Self {
            settings: settings.clone(),
            region,
            iam,
        })
    }
}

impl Login for ProjectLookup {
    fn label(&self) -> String {
        format!(
            "{} with access key {}",
            display_url(&self.iam),
            self.settings.access_key
        )
    }

    fn request(&self, now: SystemTime) -> Result<HttpRequest, Error> {
        let path = match self.iam.path().trim_end_matches('/').ends_with("/v3") {
            true => "/projects",
            false => "/v3/projects",
        };
        let mut url = below(&self.iam, path, None);
        url.query_pairs_mut().append_pair("name", &self.region);
        let mut request = HttpRequest {
            verb: Method::GET,
            url,
            headers: HeaderMap::from_iter([(
                header::ACCEPT,
                HeaderValue::from_static("application/json"),
            )]),
            body: None,
            memory: Default::default(),
        };
        Keys::new(&self.settings)?.sign(&mut request, None, now)?;
        Ok(request)
    }

    fn read(&self, reply: &Reply, now: SystemTime) -> Result<IssuedToken, Error> {
        let label = self.label();
        if !reply.status.is_success() {
            let error = rejection(&label, reply, self.settings.secret_key.expose_secret());
            return Err(match (error, aksk::clock_skew(&reply.headers, now)) {
                (Error::Credential { code, problem }, Some(skew))
                    if skew > aksk::MAX_CLOCK_SKEW =>
                {
                    let minutes = skew.as_secs() / 60;
                    let problem = format!("{problem}; the clocks differ by {minutes} minutes");
                    Error::Credential { code, problem }
                }
                (error, _) => error,
            });
        }
        let Projects { projects } = json(&label, reply)?;
        // A project without a name is one that the query has selected.
        let of_region = |project: &Project| project.name.as_ref().is_none_or(|n| *n == self.region);
        let mut projects: Vec<Project> = projects.into_iter().filter(of_region).collect();
        let problem = match projects.len() {
            0 => "no project of region",
            1 => "",
            _ => "several projects of region",
        };
        if !problem.is_empty() {
            let ids: Vec<&str> = projects
                .iter()
                .map(|project| &*project.id)
                .take(20)
                .collect();
            let ids = match ids.is_empty() {
                true => "check the region, or configure `project_id`".to_owned(),
                false => format!("configure `project_id`: one of {}", ids.join(", ")),
            };
            return Err(credential_error(
                Code::FailedPrecondition,
                format!("{label}: {problem} {}: {ids}", self.region),
            ));
        }
        let project = projects.remove(0);
        token(&AkSk {
            project_id: Some(project.id),
            ..self.settings.clone()
        })
    }
}

#[cfg(test)]
mod tests;
