//! As whom a call is sent: credential providers, leases, signing.

pub mod aksk;
pub mod clouds_yaml;
mod credential;
mod hsso;
pub mod huawei;
mod keystone;
mod login;
mod rackspace;
mod token_cache;

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::digest;
use secrecy::{ExposeSecret, SecretString};
use tonic::Code;
use url::Url;

use crate::deadline::Deadline;
use crate::downstream::Caller;
use crate::error::Error;
use crate::http_client::{Exchange, Transport};

use crate::credentials::credential::Authorization;
pub use crate::credentials::credential::Lease;
use crate::credentials::token_cache::Keeper;
use hsso::Session;

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// How an upstream's calls are authorized.
#[derive(Clone, Debug)]
pub enum Settings {
    /// The caller's own `x-auth-token` or `authorization` goes through.
    Passthrough,
    /// No credentials are sent.
    None,
    /// A fixed header, for example `x-auth-token`.
    Token {
        /// The name of the header.
        header: HeaderName,
        /// Its value.
        token: SecretString,
    },
    /// OpenStack Keystone v3; also Huawei and Open Telekom Cloud IAM.
    Keystone(Keystone),
    /// Rackspace Identity v2.
    Rackspace(Rackspace),
    /// Huawei Cloud `SDK-HMAC-SHA256`.
    AkSk(AkSk),
    /// HTTP Basic.
    Basic {
        /// The name of the user.
        username: String,
        /// The password of the user.
        password: SecretString,
    },
    /// JP1/AO: Basic at first, then the HSSO token of each answer.
    Hsso {
        /// The name of the user.
        username: String,
        /// The password of the user.
        password: SecretString,
    },
}

impl Settings {
    /// The name of the kind, as in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::None => "none",
            Self::Token { .. } => "token",
            Self::Keystone(_) => "keystone",
            Self::Rackspace(_) => "rackspace",
            Self::AkSk(_) => "ak_sk",
            Self::Basic { .. } => "basic",
            Self::Hsso { .. } => "hsso",
        }
    }
}

/// A Keystone v3 login.
#[derive(Clone, Debug)]
pub struct Keystone {
    /// With or without `/v3`.
    pub auth_url: Url,
    /// Who logs in.
    pub identity: Identity,
    /// For which project; none for application credentials, which have theirs.
    pub project: Option<Project>,
    /// The region of the catalog's endpoint. None: the first.
    pub region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
}

/// Who logs in to Keystone.
#[derive(Clone, Debug)]
pub enum Identity {
    /// By password.
    Password {
        /// The user, in its domain.
        user: Named,
        /// The password of the user.
        password: SecretString,
    },
    /// By application credential; `user` only when it is given by name.
    ApplicationCredential {
        /// The credential.
        id_or_name: IdOrName,
        /// Its owner.
        user: Option<Named>,
        /// The secret of the credential.
        secret: SecretString,
    },
    /// By another token.
    Token(SecretString),
}

/// An id, or a name.
#[derive(Clone, Debug)]
pub enum IdOrName {
    /// An id.
    Id(String),
    /// A name.
    Name(String),
}

/// Something with a domain: a user.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its id or name.
    pub id_or_name: IdOrName,
    /// Its domain; needed with a name only.
    pub domain: Option<IdOrName>,
}

/// The project of a login.
pub type Project = Named;

/// A Rackspace Identity v2 login.
#[derive(Clone, Debug)]
pub struct Rackspace {
    /// Default: `https://identity.api.rackspacecloud.com/v2.0`.
    pub auth_url: Url,
    /// The user.
    pub username: String,
    /// API key, or password.
    pub secret: RackspaceSecret,
    /// The account. None: the user's own.
    pub tenant_id: Option<String>,
    /// The region of the catalog's endpoint. None: the user's default.
    pub region: Option<String>,
}

/// What a Rackspace user logs in with.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum RackspaceSecret {
    ApiKey(SecretString),
    Password(SecretString),
}

/// Huawei Cloud access keys.
#[derive(Clone, Debug)]
pub struct AkSk {
    /// The access key (AK).
    pub access_key: String,
    /// The secret key (SK).
    pub secret_key: SecretString,
    /// With temporary keys.
    pub security_token: Option<SecretString>,
    /// For calls that name no project. Sent as `X-Project-Id` is the one of the path.
    pub project_id: Option<String>,
    /// Sent as `X-Domain-Id` where there is no project, as for global services.
    pub domain_id: Option<String>,
    /// Where the project id is looked up by `region` when none is configured.
    /// None: `https://iam.myhuaweicloud.com`.
    pub iam_endpoint: Option<Url>,
    /// The region's name, for that. None: nothing is looked up.
    pub region: Option<String>,
}

/// Whose eyes a watch sees through: equal only for equal credentials. A digest,
/// so that it can be kept and compared without keeping a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Viewer(pub [u8; 32]);

/// The credentials of one upstream, and the lease they brought.
#[derive(Debug)]
pub struct Credentials {
    provider: Provider,
    /// Of all callers where the gateway holds the credentials.
    viewer: Viewer,
}

#[derive(Debug)]
enum Provider {
    /// The caller's own credentials.
    Passthrough,
    /// The same for ever; or why they cannot be sent.
    Fixed(Result<Arc<Lease>, Error>),
    /// Each answer brings the next token.
    Hsso(Session),
    /// From logins.
    Kept(Keeper),
}

impl Credentials {
    /// Logs in nowhere yet. `catalog_type` is the service whose endpoint the
    /// login's catalog must have; None where the endpoint is configured.
    /// `transport` is used for logins.
    pub fn new(
        settings: Settings,
        catalog_type: Option<&'static str>,
        transport: Transport,
    ) -> Self {
        let provider = match settings {
            Settings::Passthrough => Provider::Passthrough,
            Settings::None => Provider::Fixed(Ok(Lease::fixed(Authorization::None))),
            Settings::Token { header, token } => Provider::Fixed(
                header_value("token", token.expose_secret())
                    .map(|value| Lease::fixed(Authorization::Headers(vec![(header, value)]))),
            ),
            Settings::Basic { username, password } => Provider::Fixed(basic(&username, &password)),
            Settings::Hsso { username, password } => match basic(&username, &password) {
                Ok(basic) => Provider::Hsso(Session::new(basic)),
                Err(e) => Provider::Fixed(Err(e)),
            },
            Settings::Keystone(settings) => Provider::Kept(login::keeper(
                keystone::Login::new(settings, catalog_type),
                transport,
            )),
            Settings::Rackspace(settings) => Provider::Kept(login::keeper(
                rackspace::Login::new(settings, catalog_type),
                transport,
            )),
            Settings::AkSk(settings) => match huawei::ProjectLookup::of(&settings) {
                Some(lookup) => Provider::Kept(login::keeper(lookup, transport)),
                None => Provider::Fixed(huawei::lease(&settings)),
            },
        };
        let mut random = [0; 32];
        random[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        random[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self {
            provider,
            viewer: Viewer(random),
        }
    }

    /// The present lease, or a new one: one login in flight however many wait.
    /// Fails with [`Error::Credential`], or [`Error::Deadline`] where the login
    /// lasts longer; the login goes on for the others.
    pub async fn lease(&self, caller: &Caller, deadline: Deadline) -> Result<Arc<Lease>, Error> {
        match &self.provider {
            Provider::Passthrough => passthrough(caller),
            Provider::Fixed(lease) => lease.clone(),
            Provider::Hsso(session) => Ok(session.lease()),
            Provider::Kept(keeper) => keeper.lease(deadline).await,
        }
    }

    /// The lease of a call that needs no credential.
    pub fn nobody(&self) -> Arc<Lease> {
        Lease::fixed(Authorization::None)
    }

    /// The upstream refused this lease: it is dropped, unless a newer one is
    /// there already. True when asking again can bring another. Never for
    /// signatures: five that fail lock an access key.
    pub fn refuse(&self, lease: &Arc<Lease>) -> bool {
        match &self.provider {
            // Looked up anew is the project alone: the keys stay the same.
            _ if matches!(lease.authorization, Authorization::Signature(_)) => false,
            Provider::Passthrough | Provider::Fixed(_) => false,
            Provider::Hsso(session) => session.refuse(lease),
            Provider::Kept(keeper) => keeper.refuse(lease),
        }
    }

    /// Looks at an answer's headers: some bring the next token. Not for answers
    /// that refused the lease.
    pub fn observe(&self, headers: &HeaderMap) {
        if let Provider::Hsso(session) = &self.provider {
            session.observe(headers);
        }
    }

    /// Whose eyes a call of this caller sees through.
    pub fn viewer(&self, caller: &Caller) -> Viewer {
        let Provider::Passthrough = self.provider else {
            return self.viewer;
        };
        let mut context = digest::Context::new(&digest::SHA256);
        for value in [&caller.token, &caller.authorization] {
            // The length goes first, so that no two pairs read alike.
            let bytes = value.as_ref().map(HeaderValue::as_bytes);
            context.update(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_be_bytes());
            context.update(bytes.unwrap_or_default());
        }
        let mut viewer = [0; 32];
        viewer.copy_from_slice(context.finish().as_ref());
        Viewer(viewer)
    }
}

impl Lease {
    /// Puts the authorization onto a request; last, since a signature covers the
    /// request as it is sent. `project` is the one of the path, percent-encoded.
    pub fn authorize(&self, exchange: &mut Exchange, project: Option<&str>) -> Result<(), Error> {
        match &self.authorization {
            Authorization::None => {}
            Authorization::Headers(headers) => {
                for (name, value) in headers {
                    exchange.headers.insert(name.clone(), value.clone());
                }
            }
            Authorization::Signature(keys) => keys.sign(exchange, project, SystemTime::now())?,
        }
        Ok(())
    }
}

fn passthrough(caller: &Caller) -> Result<Arc<Lease>, Error> {
    let own = [
        (X_AUTH_TOKEN, &caller.token),
        (header::AUTHORIZATION, &caller.authorization),
    ];
    let headers: Vec<_> = own
        .into_iter()
        .filter_map(|(name, value)| {
            let mut value = value.clone()?;
            value.set_sensitive(true);
            Some((name, value))
        })
        .collect();
    if headers.is_empty() {
        return Err(credential(
            Code::Unauthenticated,
            "this upstream takes the caller's own credentials: \
             send metadata `x-auth-token` or `authorization`",
        ));
    }
    Ok(Lease::fixed(Authorization::Headers(headers)))
}

fn basic(username: &str, password: &SecretString) -> Result<Arc<Lease>, Error> {
    // Source: RFC 7617, section 2.
    if username.contains(':') {
        return Err(credential(
            Code::FailedPrecondition,
            "HTTP Basic cannot carry a user name with a colon",
        ));
    }
    let pair = format!("{username}:{}", password.expose_secret());
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    let value = header_value("password", &format!("Basic {pair}"))?;
    Ok(Lease::fixed(Authorization::Headers(vec![(
        header::AUTHORIZATION,
        value,
    )])))
}

/// A secret as a header's value, marked sensitive. `what` names it where it
/// cannot be one.
fn header_value(what: &str, secret: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(secret).map_err(|_| {
        credential(
            Code::FailedPrecondition,
            format!("the {what} holds a character that no header may have, perhaps a line break"),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn credential(code: Code, problem: impl Into<String>) -> Error {
    Error::Credential {
        code,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
