//! As whom a call is sent: credential providers, leases, signing.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use url::Url;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::rest::Caller;
use crate::transport::{Exchange, Transport};

/// How an upstream's calls are authorized.
#[derive(Clone, Debug)]
pub enum Settings {
    /// The caller's own `x-auth-token` or `authorization` goes through.
    Passthrough,
    /// No credentials are sent.
    None,
    /// A fixed header, for example `x-auth-token`.
    Token {
        header: HeaderName,
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
        username: String,
        password: SecretString,
    },
    /// JP1/AO: Basic at first, then the HSSO token of each answer.
    Hsso {
        username: String,
        password: SecretString,
    },
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
    Password { user: Named, password: SecretString },
    /// By application credential; `user` only when it is given by name.
    ApplicationCredential {
        id_or_name: IdOrName,
        user: Option<Named>,
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
    /// Sent as `X-Project-Id`.
    pub project_id: Option<String>,
    /// Sent as `X-Domain-Id`, for global services.
    pub domain_id: Option<String>,
    /// Where the project id is looked up by `region` when none is configured.
    pub iam_endpoint: Option<Url>,
    /// The region's name, for that.
    pub region: Option<String>,
}

/// Whose eyes a watch sees through: equal only for equal credentials. A digest,
/// so that it can be kept and compared without keeping a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Viewer(pub [u8; 32]);

/// The right to call, for a time.
#[derive(Debug)]
pub struct Lease {
    /// Where the service is, when the login said so.
    pub endpoint: Option<Url>,
    /// The project, when the login said so.
    pub project_id: Option<String>,
    authorization: Authorization,
}

#[derive(Debug)]
enum Authorization {
    None,
    Headers(Vec<(HeaderName, HeaderValue)>),
}

/// The credentials of one upstream, and the lease they brought.
#[derive(Debug)]
pub struct Credentials {
    settings: Settings,
    transport: Transport,
    catalog_type: Option<&'static str>,
}

impl Credentials {
    /// Logs in nowhere yet. `transport` is used for logins.
    pub fn new(
        settings: Settings,
        catalog_type: Option<&'static str>,
        transport: Transport,
    ) -> Self {
        Self {
            settings,
            catalog_type,
            transport,
        }
    }

    /// The present lease, or a new one: one login in flight however many wait.
    pub async fn lease(&self, _caller: &Caller, _deadline: Deadline) -> Result<Arc<Lease>, Error> {
        todo!()
    }

    /// The upstream refused this lease: it is dropped, unless a newer one is
    /// there already. True when asking again can bring another.
    pub fn refuse(&self, _lease: &Arc<Lease>) -> bool {
        todo!()
    }

    /// Looks at an answer's headers: some bring the next token.
    pub fn observe(&self, _lease: &Arc<Lease>, _headers: &HeaderMap) {
        todo!()
    }

    /// Whose eyes a call of this caller sees through.
    pub fn viewer(&self, _caller: &Caller) -> Viewer {
        todo!()
    }
}

impl Lease {
    /// Puts the authorization onto a request; last, since a signature covers the
    /// request as it is sent.
    pub fn authorize(&self, _exchange: &mut Exchange) -> Result<(), Error> {
        todo!()
    }
}
