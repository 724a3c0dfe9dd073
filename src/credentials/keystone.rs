//! Login at OpenStack Keystone v3, or at the IAM of Huawei or Open Telekom Cloud, which
//! have the same API. Source: Identity API v3, "Authentication and token management".

use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::Code;
use url::Url;

use super::catalog::{self, Lookup};
use super::login::{self, Login as _, below, display_url, post, rejection_of, unreadable};
use super::{IdOrName, Identity, Keystone, Named, X_AUTH_TOKEN, credential_error};
use crate::credentials::credential::{Authorization, IssuedToken, Scope, lifetime};
use crate::error::Error;
use crate::http_client::HttpRequest;
use drawbridge_transcoder::call::Reply;

/// A login with these settings.
pub(super) struct Login {
    settings: Keystone,
    /// The service to look up. None: the catalog is not requested.
    catalog_type: Option<&'static str>,
}

/// The part of a response that is read.
#[derive(Deserialize)]
struct LoginResponse {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    issued_at: Option<String>,
    expires_at: Option<String>,
    project: Option<ProjectId>,
    /// Only what is needed is read.
    catalog: Option<Value>,
}

#[derive(Deserialize)]
struct ProjectId {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    region_id: Option<String>,
    region: Option<String>,
    url: String,
}

impl Login {
    pub(super) fn new(settings: Keystone, catalog_type: Option<&'static str>) -> Self {
        Self {
            settings,
            catalog_type,
        }
    }

    fn secret(&self) -> &SecretString {
        match &self.settings.identity {
            Identity::Password { password, .. } => password,
            Identity::ApplicationCredential { secret, .. } => secret,
            Identity::Token(token) => token,
        }
    }

    fn body(&self) -> Value {
        let secret = self.secret().expose_secret();
        let identity = match &self.settings.identity {
            Identity::Password { user, .. } => {
                let mut user = named(user);
                user.insert("password".into(), secret.into());
                json!({"methods": ["password"], "password": {"user": user}})
            }
            Identity::ApplicationCredential {
                id_or_name, user, ..
            } => {
                let mut credential = Map::new();
                insert(&mut credential, id_or_name);
                credential.insert("secret".into(), secret.into());
                if let Some(user) = user {
                    credential.insert("user".into(), named(user).into());
                }
                json!({
                    "methods": ["application_credential"],
                    "application_credential": credential,
                })
            }
            Identity::Token(_) => json!({"methods": ["token"], "token": {"id": secret}}),
        };
        let mut auth = json!({"identity": identity});
        // An application credential has its own scope; Keystone rejects another.
        let has_scope = matches!(
            self.settings.identity,
            Identity::ApplicationCredential { .. }
        );
        if let Some(project) = self.settings.project.as_ref().filter(|_| !has_scope) {
            auth["scope"] = json!({"project": named(project)});
        }
        json!({"auth": auth})
    }

    /// Looks up the service in the catalog: its region and URL.
    fn endpoint(&self, catalog: Option<Value>) -> Result<Option<(Option<String>, Url)>, Error> {
        let Some(wanted) = self.catalog_type else {
            return Ok(None);
        };
        let is_wanted = |service: &Value| service["type"] == wanted;
        let endpoints: Vec<Endpoint> = catalog::endpoints(catalog, is_wanted);
        let lookup = Lookup {
            label: &self.label(),
            service: wanted,
            interfaces: &self.settings.interfaces,
            region: self.settings.region.as_deref(),
        };
        let (endpoint, url) = lookup.find(&endpoints)?;
        let region = catalog::Endpoint::region(endpoint).map(str::to_owned);
        Ok(Some((region, url)))
    }
}

impl catalog::Endpoint for Endpoint {
    fn url(&self) -> &str {
        &self.url
    }

    fn interface(&self) -> Option<&str> {
        Some(&self.interface)
    }

    fn region(&self) -> Option<&str> {
        self.region_id.as_deref().or(self.region.as_deref())
    }

    fn is_in(&self, region: &str) -> bool {
        self.region_id.as_deref() == Some(region) || self.region.as_deref() == Some(region)
    }
}

impl login::Login for Login {
    fn label(&self) -> String {
        let identity = match &self.settings.identity {
            Identity::Password { user, .. } => format!("user {}", text(&user.id_or_name)),
            Identity::ApplicationCredential { id_or_name, .. } => {
                format!("application credential {}", text(id_or_name))
            }
            Identity::Token(_) => "the owner of a token".to_owned(),
        };
        format!("{} as {identity}", display_url(&self.settings.auth_url))
    }

    fn request(&self, _now: SystemTime) -> Result<HttpRequest, Error> {
        let base = &self.settings.auth_url;
        let path = match base.path().trim_end_matches('/').ends_with("/v3") {
            true => "/auth/tokens",
            false => "/v3/auth/tokens",
        };
        let query = self.catalog_type.is_none().then_some("nocatalog=true");
        Ok(post(below(base, path, query), &self.body()))
    }

    fn read(&self, reply: &Reply, now: SystemTime) -> Result<IssuedToken, Error> {
        let label = self.label();
        if !reply.status.is_success() {
            return Err(self.rejected(&label, reply));
        }
        let body = login::json::<LoginResponse>(&label, reply);
        let Some(token) = reply.headers.get("x-subject-token") else {
            if login::is_web_page(reply) {
                body?;
            }
            return Err(unreadable(&label, "it has no header X-Subject-Token"));
        };
        let header = login::token_header(&label, X_AUTH_TOKEN, token.clone())?;
        let LoginResponse { token } = body?;
        let issued = token.issued_at.as_deref();
        let (region, endpoint) = self.endpoint(token.catalog)?.unzip();
        let (project_id, project) = token.project.map(|p| (p.id, p.name)).unzip();
        Ok(IssuedToken {
            authorization: Authorization::Headers(vec![header]),
            lifetime: token
                .expires_at
                .and_then(|expires| lifetime(issued, &expires, &reply.headers, now)),
            endpoint,
            project_id,
            scope: Scope {
                project: project.flatten(),
                region: region.flatten().or_else(|| self.settings.region.clone()),
            },
        })
    }
}

impl Login {
    fn rejected(&self, label: &str, reply: &Reply) -> Error {
        // Keystone 30 responds 404 to an unknown application credential.
        let unknown = reply.status == 404
            && matches!(
                self.settings.identity,
                Identity::ApplicationCredential { .. }
            )
            && login::message(&reply.body).is_some();
        if unknown {
            return credential_error(
                Code::Unauthenticated,
                format!(
                    "the login was rejected at {label}: the application credential does not exist"
                ),
            );
        }
        if reply.headers.contains_key("openstack-auth-receipt") {
            return credential_error(
                Code::Unauthenticated,
                format!(
                    "the login was rejected at {label}: it needs a second factor: \
                     use an application credential"
                ),
            );
        }
        let to_check = match self.settings.identity {
            Identity::ApplicationCredential { .. } => {
                "check id and secret: the application credential may be revoked or expired"
            }
            Identity::Token(_) => "the token may be revoked or expired: issue a new one",
            Identity::Password { .. } => "check user, secret, domain and project",
        };
        rejection_of(label, reply, self.secret().expose_secret(), to_check)
    }
}

fn text(id_or_name: &IdOrName) -> &str {
    match id_or_name {
        IdOrName::Id(text) | IdOrName::Name(text) => text,
    }
}

fn insert(object: &mut Map<String, Value>, id_or_name: &IdOrName) {
    let (key, text) = match id_or_name {
        IdOrName::Id(id) => ("id", id),
        IdOrName::Name(name) => ("name", name),
    };
    object.insert(key.into(), text.as_str().into());
}

/// Returns `{id}`, or `{name, domain}`.
fn named(named: &Named) -> Map<String, Value> {
    let mut object = Map::new();
    insert(&mut object, &named.id_or_name);
    if let (IdOrName::Name(_), Some(domain)) = (&named.id_or_name, &named.domain) {
        let mut inner = Map::new();
        insert(&mut inner, domain);
        object.insert("domain".into(), inner.into());
    }
    object
}

#[cfg(test)]
mod tests;
