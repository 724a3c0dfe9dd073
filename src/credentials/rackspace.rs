//! Login at Rackspace Identity v2. Source: Rackspace Identity API v2.0, "Authenticate".

use std::time::SystemTime;

use http::HeaderValue;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Code;
use url::Url;

use super::catalog::{self, Lookup};
use super::login::{self, Login as _, below, display_url, post, rejection, unreadable};
use super::{Rackspace, RackspaceSecret, X_AUTH_TOKEN, credential_error};
use crate::credentials::credential::{Authorization, IssuedToken, Scope, lifetime};
use crate::error::Error;
use crate::http_client::HttpRequest;
use drawbridge_transcoder::call::Reply;

/// A login with these settings.
pub(super) struct Login {
    settings: Rackspace,
    /// The service to look up. None: the catalog is not read.
    catalog_type: Option<&'static str>,
}

/// The part of a response that is read.
#[derive(Deserialize)]
struct LoginResponse {
    access: Access,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    token: Token,
    /// Only what is needed is read.
    service_catalog: Option<Value>,
    user: Option<User>,
}

#[derive(Deserialize)]
struct Token {
    id: String,
    expires: Option<String>,
    tenant: Option<Tenant>,
}

#[derive(Deserialize)]
struct Tenant {
    id: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "RAX-AUTH:defaultRegion")]
    default_region: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    region: Option<String>,
    tenant_id: Option<String>,
    #[serde(rename = "publicURL")]
    public_url: String,
}

impl Login {
    pub(super) fn new(settings: Rackspace, catalog_type: Option<&'static str>) -> Self {
        Self {
            settings,
            catalog_type,
        }
    }

    fn secret(&self) -> &str {
        match &self.settings.secret {
            RackspaceSecret::ApiKey(secret) | RackspaceSecret::Password(secret) => {
                secret.expose_secret()
            }
        }
    }

    /// Looks up the service's endpoint in the configured region, else in the user's default
    /// region, else the only one.
    fn endpoint(&self, access: &mut Access) -> Result<Option<(Endpoint, Url)>, Error> {
        let Some(wanted) = self.catalog_type else {
            return Ok(None);
        };
        let is_wanted = |service: &Value| {
            service["type"] == wanted
                || (wanted == "orchestration" && service["name"] == "cloudOrchestration")
        };
        let catalog = access.service_catalog.take();
        let endpoints: Vec<Endpoint> = catalog::endpoints(catalog, is_wanted);
        let default = access.user.as_ref().and_then(|u| u.default_region.as_ref());
        let region = self.settings.region.as_ref().or(default);
        let lookup = Lookup {
            label: &self.label(),
            service: wanted,
            interfaces: &[],
            region: region.map(String::as_str),
        };
        let (endpoint, url) = lookup.find(&endpoints)?;
        Ok(Some((endpoint.clone(), url)))
    }
}

impl catalog::Endpoint for Endpoint {
    fn url(&self) -> &str {
        &self.public_url
    }

    fn interface(&self) -> Option<&str> {
        None
    }

    fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    fn is_in(&self, region: &str) -> bool {
        self.region()
            .is_some_and(|own| own.eq_ignore_ascii_case(region))
    }
}

impl login::Login for Login {
    fn label(&self) -> String {
        format!(
            "{} as user {}",
            display_url(&self.settings.auth_url),
            self.settings.username
        )
    }

    fn request(&self, _now: SystemTime) -> Result<HttpRequest, Error> {
        let username = &self.settings.username;
        let mut auth = match &self.settings.secret {
            RackspaceSecret::ApiKey(key) => json!({"RAX-KSKEY:apiKeyCredentials":
                {"username": username, "apiKey": key.expose_secret()}}),
            RackspaceSecret::Password(password) => json!({"passwordCredentials":
                {"username": username, "password": password.expose_secret()}}),
        };
        if let Some(tenant) = &self.settings.tenant_id {
            auth["tenantId"] = tenant.as_str().into();
        }
        let base = &self.settings.auth_url;
        let path = match base.path().trim_end_matches('/').ends_with("/v2.0") {
            true => "/tokens",
            false => "/v2.0/tokens",
        };
        Ok(post(below(base, path, None), &json!({"auth": auth})))
    }

    fn read(&self, reply: &Reply, now: SystemTime) -> Result<IssuedToken, Error> {
        let label = self.label();
        if !reply.status.is_success() {
            return Err(self.rejected(&label, reply));
        }
        let LoginResponse { mut access } = login::json(&label, reply)?;
        let token = HeaderValue::from_str(&access.token.id)
            .map_err(|_| unreadable(&label, "the token is not a valid header value"))?;
        let header = login::token_header(&label, X_AUTH_TOKEN, token)?;
        let (endpoint, url) = self.endpoint(&mut access)?.unzip();
        let endpoint = endpoint.as_ref();
        let project_id = self
            .settings
            .tenant_id
            .clone()
            .or_else(|| endpoint.and_then(|e| e.tenant_id.clone()))
            .or_else(|| access.token.tenant.as_ref().map(|t| t.id.clone()));
        Ok(IssuedToken {
            authorization: Authorization::Headers(vec![header]),
            // Rackspace returns the same token until an hour before it expires: this is the
            // rest of its lifetime.
            lifetime: access
                .token
                .expires
                .as_deref()
                .and_then(|expires| lifetime(None, expires, &reply.headers, now)),
            endpoint: url,
            project_id,
            scope: Scope {
                project: None,
                region: endpoint
                    .and_then(catalog::Endpoint::region)
                    .map(str::to_owned)
                    .or_else(|| self.settings.region.clone()),
            },
        })
    }
}

impl Login {
    fn rejected(&self, label: &str, reply: &Reply) -> Error {
        let factor = reply
            .headers
            .get(http::header::WWW_AUTHENTICATE)
            .is_some_and(|value| value.as_bytes().starts_with(b"OS-MF"));
        if factor {
            return credential_error(
                Code::Unauthenticated,
                format!(
                    "the login was rejected at {label}: it needs a second factor: use an API key"
                ),
            );
        }
        rejection(label, reply, self.secret())
    }
}

#[cfg(test)]
mod tests;
