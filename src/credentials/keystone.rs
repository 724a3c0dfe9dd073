//! OpenStack Keystone v3, and Huawei's and Open Telekom Cloud's IAM, which speak
//! the same. Source: Identity API v3, "Authentication and token management".

use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::Code;
use url::Url;

use super::login::{self, Login as _, below, not_in_catalog, post, refusal, shown, unreadable};
use super::{IdOrName, Identity, Keystone, Named, X_AUTH_TOKEN, credential};
use crate::credentials::credential::{Authorization, Grant, lifetime};
use crate::error::Error;
use crate::http_client::Exchange;
use drawbridge_transcoder::call::Reply;

/// A login with these settings.
pub(super) struct Login {
    settings: Keystone,
    /// The service to find; None: the catalog is not asked for.
    catalog_type: Option<&'static str>,
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    issued_at: Option<String>,
    expires_at: Option<String>,
    project: Option<ProjectId>,
    #[serde(default)]
    catalog: Option<Vec<Service>>,
}

#[derive(Deserialize)]
struct ProjectId {
    id: String,
}

#[derive(Deserialize)]
struct Service {
    r#type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
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
        // The scope of an application credential is its own, and naming one fails.
        let fixed = matches!(
            self.settings.identity,
            Identity::ApplicationCredential { .. }
        );
        if let Some(project) = self.settings.project.as_ref().filter(|_| !fixed) {
            auth["scope"] = json!({"project": named(project)});
        }
        json!({"auth": auth})
    }

    /// The url of the wanted service.
    fn endpoint(&self, catalog: &[Service]) -> Result<Option<Url>, Error> {
        let Some(wanted) = self.catalog_type else {
            return Ok(None);
        };
        let region = self.settings.region.as_deref();
        let candidates = || {
            catalog
                .iter()
                .filter(|service| service.r#type == wanted)
                .flat_map(|service| &service.endpoints)
                .filter(|endpoint| endpoint.interface == self.settings.interface)
        };
        let found = candidates().find(|endpoint| {
            region.is_none_or(|region| {
                endpoint.region_id.as_deref() == Some(region)
                    || endpoint.region.as_deref() == Some(region)
            })
        });
        match found {
            Some(endpoint) => Url::parse(&endpoint.url).map(Some).map_err(|e| {
                credential(
                    Code::FailedPrecondition,
                    format!(
                        "the catalog of {} has a bad url for {wanted}: {e}",
                        self.place()
                    ),
                )
            }),
            None => Err(not_in_catalog(
                &self.place(),
                &format!("{wanted} ({})", self.settings.interface),
                region,
                candidates().filter_map(|e| e.region_id.clone().or(e.region.clone())),
            )),
        }
    }
}

impl login::Login for Login {
    fn place(&self) -> String {
        let who = match &self.settings.identity {
            Identity::Password { user, .. } => format!("user {}", text(&user.id_or_name)),
            Identity::ApplicationCredential { id_or_name, .. } => {
                format!("application credential {}", text(id_or_name))
            }
            Identity::Token(_) => "the bearer of a token".to_owned(),
        };
        format!("{} as {who}", shown(&self.settings.auth_url))
    }

    fn request(&self, _now: SystemTime) -> Result<Exchange, Error> {
        let base = &self.settings.auth_url;
        let path = match base.path().trim_end_matches('/').ends_with("/v3") {
            true => "/auth/tokens",
            false => "/v3/auth/tokens",
        };
        let query = self.catalog_type.is_none().then_some("nocatalog=true");
        Ok(post(below(base, path, query), &self.body()))
    }

    fn read(&self, reply: &Reply, now: SystemTime) -> Result<Grant, Error> {
        let place = self.place();
        if !reply.status.is_success() {
            return Err(self.refused(&place, reply));
        }
        let token = reply
            .headers
            .get("x-subject-token")
            .ok_or_else(|| unreadable(&place, "it has no header X-Subject-Token"))?;
        let header = login::token(&place, X_AUTH_TOKEN, token.clone())?;
        let Answer { token } = login::json(&place, reply)?;
        let issued = token.issued_at.as_deref();
        Ok(Grant {
            authorization: Authorization::Headers(vec![header]),
            lifetime: token
                .expires_at
                .and_then(|expires| lifetime(issued, &expires, &reply.headers, now)),
            endpoint: self.endpoint(&token.catalog.unwrap_or_default())?,
            project_id: token.project.map(|project| project.id),
        })
    }
}

impl Login {
    fn refused(&self, place: &str, reply: &Reply) -> Error {
        // An unknown application credential is 404 (Keystone 30).
        let unknown = reply.status == 404
            && matches!(
                self.settings.identity,
                Identity::ApplicationCredential { .. }
            )
            && login::words(&reply.body).is_some();
        if unknown {
            return credential(
                Code::Unauthenticated,
                format!(
                    "the login was refused at {place}: there is no such application credential"
                ),
            );
        }
        if reply.headers.contains_key("openstack-auth-receipt") {
            return credential(
                Code::Unauthenticated,
                format!(
                    "the login was refused at {place}: it needs a second factor: \
                     use an application credential"
                ),
            );
        }
        refusal(place, reply, self.secret().expose_secret())
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

/// An id stands alone; a name has its domain beside it.
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
