//! Credentials of calls to upstreams. Clients are authenticated in `server::authn`.
//!
//! | what | module |
//! |---|---|
//! | token refresh, single flight | `token_cache` |
//! | one login as a pure request and response | `login` |
//! | Keystone v3 and Huawei IAM, their catalog | `keystone` |
//! | Rackspace Identity v2, its catalog | `rackspace` |
//! | catalog lookup | `catalog` |
//! | AK/SK signing | `aksk` |
//! | access keys from the environment, project lookup | `huawei` |
//! | HSSO tokens of JP1/AO | `hsso` |
//! | `clouds.yaml` and `OS_*` variables | `clouds_yaml` |
//! | files with secrets, read again | `reload` |
//! | a credential and its lifetime | `credential` |

pub mod aksk;
mod catalog;
pub mod clouds_yaml;
mod credential;
mod hsso;
pub mod huawei;
mod keystone;
mod login;
mod rackspace;
mod reload;
mod token_cache;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::digest;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tonic::Code;
use url::Url;

use crate::deadline::Deadline;
use crate::downstream::{CorrelationHeader, Downstream};
use crate::error::Error;
use crate::http_client::{HttpRequest, Transport};

use crate::credentials::credential::Authorization;
pub use crate::credentials::credential::{Credential, Scope};
use crate::credentials::reload::Reload;
pub use crate::credentials::reload::SettingsSource;
pub use crate::credentials::token_cache::LoginCounts;
use crate::credentials::token_cache::TokenCache;
use hsso::HssoSession;

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// How an upstream's calls are authorized.
#[derive(Clone, Debug)]
pub enum Settings {
    /// The client's own `x-auth-token` or `authorization` is forwarded.
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
    /// JP1/AO: HTTP Basic first, then the HSSO token of each response.
    Hsso {
        /// The name of the user.
        username: String,
        /// The password of the user.
        password: SecretString,
    },
}

impl Settings {
    /// Returns whether the gateway holds the credentials, and not the client.
    pub fn is_held(&self) -> bool {
        !matches!(self, Self::Passthrough | Self::None)
    }

    /// Returns whether an exchange with an identity service comes before the first call.
    pub fn has_login(&self) -> bool {
        match self {
            Self::Keystone(_) | Self::Rackspace(_) => true,
            Self::AkSk(keys) => huawei::ProjectLookup::of(keys).is_some(),
            _ => false,
        }
    }

    /// Returns the user that the gateway acts as, for people: `demo@Default`.
    pub fn user(&self) -> String {
        let named = |named: &Named| match (&named.id_or_name, &named.domain) {
            (IdOrName::Id(id), _) => format!("user id {id}"),
            (IdOrName::Name(name), Some(IdOrName::Name(domain) | IdOrName::Id(domain))) => {
                format!("{name}@{domain}")
            }
            (IdOrName::Name(name), None) => name.clone(),
        };
        match self {
            Self::Passthrough => "credentials of each client".to_owned(),
            Self::None => "no credentials".to_owned(),
            Self::Token { header, .. } => format!("a token in {header}"),
            Self::Keystone(settings) => match &settings.identity {
                Identity::Password { user, .. } => named(user),
                Identity::ApplicationCredential { id_or_name, .. } => match id_or_name {
                    IdOrName::Id(text) | IdOrName::Name(text) => {
                        format!("application credential {text}")
                    }
                },
                Identity::Token(_) => "the owner of a token".to_owned(),
            },
            Self::Rackspace(settings) => settings.username.clone(),
            Self::AkSk(settings) => format!("access key {}", settings.access_key),
            Self::Basic { username, .. } | Self::Hsso { username, .. } => username.clone(),
        }
    }

    /// Returns the name of the kind, as in the configuration.
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

impl Settings {
    /// Returns the configured URL of the login with its key, if there is one.
    pub fn login_url(&self) -> Option<(&'static str, &Url)> {
        match self {
            Self::Keystone(settings) => Some(("auth_url", &settings.auth_url)),
            Self::Rackspace(settings) => Some(("auth_url", &settings.auth_url)),
            Self::AkSk(settings) if self.has_login() => {
                Some(("iam_endpoint", settings.iam_endpoint.as_ref()?))
            }
            _ => None,
        }
    }
}

/// A Keystone v3 login.
#[derive(Clone, Debug)]
pub struct Keystone {
    /// With or without `/v3`.
    pub auth_url: Url,
    /// The user or application credential.
    pub identity: Identity,
    /// The project of the token. None for application credentials, which have their own.
    pub project: Option<Project>,
    /// The region of the catalog's endpoint. None: the first.
    pub region: Option<String>,
    /// `public`, `internal` or `admin`; the first one that the service has is used.
    pub interfaces: Vec<String>,
}

/// How a login authenticates to Keystone.
#[derive(Clone, Debug)]
pub enum Identity {
    /// By password.
    Password {
        /// The user, in its domain.
        user: Named,
        /// The password of the user.
        password: SecretString,
    },
    /// By application credential. `user` only if it is identified by name.
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

/// A user or project, by id, or by name and domain.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its id or name.
    pub id_or_name: IdOrName,
    /// Its domain; required with a name only.
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

/// The secret of a Rackspace user.
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
    /// The token of temporary keys.
    pub security_token: Option<SecretString>,
    /// `X-Project-Id` of calls whose path has no project id.
    pub project_id: Option<String>,
    /// `X-Domain-Id` of calls without a project, as for global services.
    pub domain_id: Option<String>,
    /// Where the project id is looked up by `region` if none is configured.
    /// None: `https://iam.myhuaweicloud.com`.
    pub iam_endpoint: Option<Url>,
    /// The region whose project is looked up. None: no lookup.
    pub region: Option<String>,
}

/// Identifies the credentials of a call: equal only for equal credentials. Part of every
/// cache key, so that clients with different credentials share nothing. A digest, so that
/// no secret is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CredentialId(pub [u8; 32]);

/// When the credential of an upstream expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It needs no login, or its login names no end.
    Never,
    /// The gateway has not logged in, or the credential was rejected since.
    NotLoggedIn,
    /// After this time; zero if it has expired.
    In(Duration),
}

/// The credentials of one upstream.
#[derive(Debug)]
pub struct Credentials {
    provider: ArcSwap<Provider>,
    /// For settings from files, which may change.
    reload: Option<Reload>,
    catalog_type: Option<&'static str>,
    correlation: Option<CorrelationHeader>,
    transport: Transport,
    login_counts: Arc<LoginCounts>,
    /// The id for all clients, unless they use their own credentials.
    credential_id: CredentialId,
}

#[derive(Debug)]
enum Provider {
    /// The client's own credentials.
    Passthrough,
    /// Never changes; or why the credentials cannot be sent.
    Fixed(Result<Arc<Credential>, Error>),
    /// Each response has the next token.
    Hsso(HssoSession),
    /// From logins.
    Cached(TokenCache),
}

impl Credentials {
    /// Prepares the credentials; does not log in. `catalog_type` is the service whose
    /// endpoint the login's catalog must have; None if the endpoint is configured.
    /// `correlation` is the header with the client's request id in logins at Keystone.
    /// `transport` is for logins. `source` reads the settings again.
    pub fn new(
        settings: Settings,
        source: Option<SettingsSource>,
        catalog_type: Option<&'static str>,
        correlation: Option<CorrelationHeader>,
        transport: Transport,
    ) -> Self {
        let reload = source.map(|source| Reload::new(source, &settings));
        let login_counts = Arc::<LoginCounts>::default();
        let provider = Provider::new(
            settings,
            catalog_type,
            correlation,
            transport.clone(),
            login_counts.clone(),
        );
        let mut random = [0; 32];
        random[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        random[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self {
            provider: ArcSwap::from_pointee(provider),
            reload,
            catalog_type,
            correlation,
            transport,
            login_counts,
            credential_id: CredentialId(random),
        }
    }

    /// Reads files with secrets again, if it is time or `now`. Returns whether they have
    /// changed; the credentials are replaced then.
    fn reload(&self, now: bool) -> bool {
        let Some(settings) = self.reload.as_ref().and_then(|reload| reload.changed(now)) else {
            return false;
        };
        let provider = Provider::new(
            settings,
            self.catalog_type,
            self.correlation,
            self.transport.clone(),
            self.login_counts.clone(),
        );
        self.provider.store(Arc::new(provider));
        true
    }

    /// Returns the current credential, or logs in: one login in flight for all waiting
    /// calls. Fails with [`Error::Credential`] or [`Error::Login`], or with
    /// the error of the login if it takes longer; it continues for other calls.
    pub async fn get(
        &self,
        client: &Downstream,
        deadline: Deadline,
    ) -> Result<Arc<Credential>, Error> {
        self.reload(false);
        let result = self.get_now(client, deadline).await;
        match result {
            // The files may have the right secret by now.
            Err(Error::Login { .. } | Error::Credential { .. }) if self.reload(true) => {
                self.get_now(client, deadline).await
            }
            result => result,
        }
    }

    async fn get_now(
        &self,
        client: &Downstream,
        deadline: Deadline,
    ) -> Result<Arc<Credential>, Error> {
        match &**self.provider.load() {
            Provider::Passthrough => return passthrough(client),
            Provider::Fixed(credential) => return credential.clone(),
            Provider::Hsso(session) => return Ok(session.get()),
            Provider::Cached(_) => {}
        }
        // Not held over a login as a guard, of which a thread has few.
        let provider = self.provider.load_full();
        match &*provider {
            Provider::Cached(token_cache) => token_cache.get(client, deadline).await,
            _ => Err(credential_error(
                Code::Unavailable,
                "the secrets are changing",
            )),
        }
    }

    /// Fails if the client must send its own credentials and has not.
    pub fn require(&self, client: &Downstream) -> Result<(), Error> {
        let is_missing = client.token.is_none() && client.authorization.is_none();
        match &**self.provider.load() {
            Provider::Passthrough if is_missing => Err(missing_credentials()),
            _ => Ok(()),
        }
    }

    /// Whether the gateway's configuration has the credentials, and not the client.
    pub fn are_configured(&self) -> bool {
        match &**self.provider.load() {
            Provider::Passthrough => false,
            Provider::Fixed(Ok(credential)) => !credential.is_empty(),
            Provider::Fixed(Err(_)) | Provider::Hsso(_) | Provider::Cached(_) => true,
        }
    }

    /// Returns the failure of the last login; none after one that has succeeded.
    pub(crate) fn last_login_failure(&self) -> Option<Error> {
        match &**self.provider.load() {
            Provider::Cached(token_cache) => token_cache.last_failure(),
            _ => None,
        }
    }

    /// Returns the time until the credential of the last login expires.
    pub fn expiry(&self) -> Expiry {
        let provider = self.provider.load_full();
        let Provider::Cached(token_cache) = &*provider else {
            return Expiry::Never;
        };
        match token_cache.current() {
            None => Expiry::NotLoggedIn,
            Some(credential) => credential.expires_at().map_or(Expiry::Never, |at| {
                Expiry::In(at.saturating_duration_since(Instant::now()))
            }),
        }
    }

    /// Returns how many logins have ended with each result; none for credentials without one.
    pub fn login_counts(&self) -> Option<&LoginCounts> {
        match &**self.provider.load() {
            Provider::Cached(_) => Some(&self.login_counts),
            _ => None,
        }
    }

    /// Returns the empty credential, for calls that need none.
    pub fn anonymous(&self) -> Arc<Credential> {
        Credential::fixed(Authorization::None)
    }

    /// Drops a credential that the upstream rejected, unless it is replaced already. Returns
    /// whether [`Self::get`] can return another one. For signatures only if the files with
    /// their keys have changed: five rejected ones lock an access key.
    pub fn invalidate(&self, credential: &Arc<Credential>) -> bool {
        if self.reload(true) {
            return true;
        }
        match &**self.provider.load() {
            Provider::Passthrough => false,
            // Of files that another call has read in the meantime.
            Provider::Fixed(Ok(current)) => !Arc::ptr_eq(current, credential),
            Provider::Fixed(Err(_)) => false,
            // A new lookup returns the project only: the keys stay the same.
            _ if matches!(credential.authorization, Authorization::Signature(_)) => false,
            Provider::Hsso(session) => session.invalidate(credential),
            Provider::Cached(token_cache) => token_cache.invalidate(credential),
        }
    }

    /// Reads the next token from response headers, if the credentials work that way. Not for
    /// responses that reject the credential.
    pub fn observe(&self, headers: &HeaderMap) {
        if let Provider::Hsso(session) = &**self.provider.load() {
            session.observe(headers);
        }
    }

    /// Returns the id of the credentials that a call of this client uses.
    pub fn credential_id(&self, client: &Downstream) -> CredentialId {
        let Provider::Passthrough = **self.provider.load() else {
            return self.credential_id;
        };
        let mut context = digest::Context::new(&digest::SHA256);
        for value in [&client.token, &client.authorization] {
            // The length comes first, so that no two pairs have the same encoding.
            let bytes = value.as_ref().map(HeaderValue::as_bytes);
            context.update(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_be_bytes());
            context.update(bytes.unwrap_or_default());
        }
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        CredentialId(id)
    }
}

impl Provider {
    fn new(
        settings: Settings,
        catalog_type: Option<&'static str>,
        correlation: Option<CorrelationHeader>,
        transport: Transport,
        counts: Arc<LoginCounts>,
    ) -> Self {
        match settings {
            Settings::Passthrough => Self::Passthrough,
            Settings::None => Self::Fixed(Ok(Credential::fixed(Authorization::None))),
            Settings::Token { header, token } => Self::Fixed(
                header_value("token", token.expose_secret())
                    .map(|value| Credential::fixed(Authorization::Headers(vec![(header, value)]))),
            ),
            Settings::Basic { username, password } => Self::Fixed(basic(&username, &password)),
            Settings::Hsso { username, password } => match basic(&username, &password) {
                Ok(basic) => Self::Hsso(HssoSession::new(basic)),
                Err(e) => Self::Fixed(Err(e)),
            },
            Settings::Keystone(settings) => Self::Cached(login::token_cache(
                keystone::Login::new(settings, catalog_type),
                correlation,
                transport,
                counts,
            )),
            Settings::Rackspace(settings) => Self::Cached(login::token_cache(
                rackspace::Login::new(settings, catalog_type),
                None,
                transport,
                counts,
            )),
            Settings::AkSk(settings) => match huawei::ProjectLookup::of(&settings) {
                Some(lookup) => Self::Cached(login::token_cache(lookup, None, transport, counts)),
                None => Self::Fixed(huawei::credential(&settings)),
            },
        }
    }
}

impl Credential {
    /// Returns whether it adds nothing to a request.
    pub fn is_empty(&self) -> bool {
        matches!(self.authorization, Authorization::None)
    }

    /// Adds the authorization to a request. Must be the last change, since a signature
    /// covers the request. `project` is the project id in the path, percent-encoded.
    pub fn authorize(&self, request: &mut HttpRequest, project: Option<&str>) -> Result<(), Error> {
        match &self.authorization {
            Authorization::None => {}
            Authorization::Headers(headers) => {
                for (name, value) in headers {
                    request.headers.insert(name.clone(), value.clone());
                }
            }
            Authorization::Signature(keys) => keys.sign(request, project, SystemTime::now())?,
        }
        Ok(())
    }
}

fn passthrough(client: &Downstream) -> Result<Arc<Credential>, Error> {
    let own = [
        (X_AUTH_TOKEN, &client.token),
        (header::AUTHORIZATION, &client.authorization),
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
        return Err(missing_credentials());
    }
    Ok(Credential::fixed(Authorization::Headers(headers)))
}

fn missing_credentials() -> Error {
    credential_error(
        Code::Unauthenticated,
        "this upstream requires the client's own credentials: \
         send metadata `x-auth-token` or `authorization`",
    )
}

fn basic(username: &str, password: &SecretString) -> Result<Arc<Credential>, Error> {
    // Source: RFC 7617, section 2.
    if username.contains(':') {
        return Err(credential_error(
            Code::FailedPrecondition,
            "HTTP Basic does not allow a user name with a colon",
        ));
    }
    let pair = format!("{username}:{}", password.expose_secret());
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    let value = header_value("password", &format!("Basic {pair}"))?;
    Ok(Credential::fixed(Authorization::Headers(vec![(
        header::AUTHORIZATION,
        value,
    )])))
}

/// Returns a secret as a header value, marked sensitive. Fails with its `name` if it cannot
/// be one.
fn header_value(name: &str, secret: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(secret).map_err(|_| {
        credential_error(
            Code::FailedPrecondition,
            format!("the {name} has a character that is invalid in a header, perhaps a line break"),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn credential_error(code: Code, problem: impl Into<String>) -> Error {
    Error::Credential {
        code,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
