//! Why a call failed, and the gRPC status that the client receives for it.
//!
//! [`Error`] has a variant for each cause, in the order of a call's stages. `table` has
//! one row for each variant: code, reason, whether the call was sent, whether repeating it
//! may help, and the audience of the text. `status` makes the `tonic::Status`.

mod status;
mod table;
mod unknown_rpc;

pub(crate) use status::{cut, head, visible};
use table::Audience;
pub(crate) use table::Retry;
pub(crate) use unknown_rpc::unknown_rpc;

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

/// Why a call failed. The doc line of each variant says whether anything was sent:
/// a client must know it before it repeats the call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot become a REST call. Nothing was sent.
    #[error("{field}: {problem}")]
    Binding {
        /// Path of the field, as in the proto: `deployment.config_id`.
        field: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// Values of the request do not match the upstream's definitions. Only reads were
    /// sent.
    #[error("{}", .0.iter().map(|(field, problem)| format!("{field}: {problem}")).collect::<Vec<_>>().join("; "))]
    FieldViolations(Vec<(String, String)>),
    /// The messages of a client stream are too long, or the stream ended early. Nothing
    /// was sent.
    #[error("{problem}")]
    RequestStream {
        /// RESOURCE_EXHAUSTED if it is too long, else the code of the stream's error.
        code: Code,
        /// What is wrong with it.
        problem: String,
    },
    /// The request message did not arrive completely, or is not valid gRPC. Nothing was
    /// sent.
    #[error("{problem}")]
    RequestNotReceived {
        /// DEADLINE_EXCEEDED if the request body stalled, else tonic's code.
        code: Code,
        /// What is wrong with it.
        problem: String,
    },
    /// A message of the request is longer than the limit, compressed or not. Nothing was
    /// sent.
    #[error(
        "the request message is longer than {limit} bytes (setting `server.max_request_bytes`)"
    )]
    RequestTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The request metadata is longer than the limit. Nothing was sent.
    #[error(
        "the request metadata has {size} bytes, the limit is {limit} (setting `server.max_metadata_bytes`)"
    )]
    MetadataTooLarge {
        /// The size of the metadata: each entry counts as name, value and 32 bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The path names no rpc that the gateway serves. Nothing was sent.
    #[error("{0}")]
    UnknownMethod(String),
    /// The request's bytes are not a message of its type. Nothing was sent.
    #[error("the request is not a valid message: {0}")]
    Malformed(String),
    /// The rpc is in a descriptor set and has no REST call, or is not selected. Nothing was
    /// sent.
    #[error("{0}")]
    NotServed(Box<str>),
    /// The upstream's dialect lacks the operation. Nothing was sent.
    #[error("the dialect {dialect} of {family} does not have this operation")]
    Unsupported {
        /// The family.
        family: Arc<str>,
        /// The dialect of the upstream.
        dialect: Arc<str>,
    },
    /// The client named an upstream that does not exist or does not serve the rpc.
    /// Nothing was sent.
    #[error("{0}")]
    UnknownUpstream(String),
    /// The configuration lacks a value that the call needs: an upstream for the family, a
    /// default upstream, a project id, an endpoint. Nothing was sent.
    #[error("{0}")]
    NotConfigured(String),
    /// A limit of the gateway is reached, or the circuit breaker is open. Nothing was sent.
    #[error("{problem}")]
    Overload {
        /// RESOURCE_EXHAUSTED for a limit of the gateway, UNAVAILABLE for an open circuit
        /// breaker.
        code: Code,
        /// Which limit is reached, or which upstream is down.
        problem: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The client sent no credentials, or the configured ones cannot be sent. The call
    /// itself was not sent.
    #[error("{problem}")]
    Credential {
        /// UNAUTHENTICATED of a client's credentials, FAILED_PRECONDITION of configured ones.
        code: Code,
        /// What failed, and what to do. Never a secret.
        problem: String,
    },
    /// Whether a client's token is valid is not known, since the keys of its issuer cannot be
    /// read. Nothing was sent.
    #[error("client tokens cannot be checked: the keys of their issuer cannot be read")]
    IssuerKeysUnknown,
    /// The policy does not allow the call to the client. Nothing was sent.
    #[error("{}", .0.problem)]
    PermissionDenied(Box<PolicyDenial>),
    /// A credential would be sent over plaintext HTTP to another host. Nothing was sent to it.
    #[error(
        "the endpoint{} is plaintext HTTP, where anyone on the network can read the credentials: \
         set `endpoint` to an https URL, or set allow_plaintext_credentials = true, in the \
         gateway's configuration",
        if *.is_from_catalog { " in the login's catalog" } else { "" }
    )]
    PlaintextCredentials {
        /// Whether the endpoint is from the login's catalog, and not from the configuration.
        is_from_catalog: bool,
    },
    /// The gateway's own login failed. The text names its user and the identity service,
    /// so it is for the log only; clients get a text by `failure`. The call itself was not
    /// sent.
    #[error("{problem}")]
    Login {
        /// Why.
        failure: LoginFailure,
        /// What failed, and what to do. Never a secret.
        problem: String,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// The deadline passed. `sent` says whether the upstream may have acted.
    #[error("the deadline passed{}", if *.sent { "; the upstream may have acted" } else { " before anything was sent" })]
    Deadline {
        /// Whether an attempt was sent.
        sent: bool,
    },
    /// The deadline of a stream of reads passed while it was open. The messages sent
    /// before are valid.
    #[error("the deadline of the stream passed")]
    StreamDeadline,
    /// The connection could not be opened. Nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The upstream's certificate is not trusted. Nothing was sent.
    #[error("cannot connect: {0}")]
    Certificate(String),
    /// The call was sent and no complete response arrived. The upstream may have acted.
    /// Only of calls that can be repeated.
    #[error("no response: {0}")]
    NoResponse(String),
    /// As `NoResponse`, for a non-idempotent call; made by `upstream::no_response`.
    #[error("no response: {0}; the upstream may have acted: check before you repeat the call")]
    OutcomeUnknown(String),
    /// The response is longer than the limit. The upstream has acted.
    #[error("the response is longer than {limit} bytes (setting max_response_bytes)")]
    ResponseTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The response arrived and was not forwarded: the budget has no space for it, or the client
    /// does not read. The upstream has acted.
    #[error("{problem}")]
    ResponseNotDelivered {
        /// RESOURCE_EXHAUSTED without memory, DEADLINE_EXCEEDED for a client that does
        /// not read.
        code: Code,
        /// What is full, or which timeout passed.
        problem: String,
        /// When to try again; none where a repetition may act again.
        retry_after: Option<Duration>,
    },
    /// The upstream responded with an error. `not_processed` says whether it may have
    /// acted.
    #[error("{}", .0.message)]
    Upstream(Box<Fault>),
    /// The response does not match the contract. The upstream has acted.
    #[error("the upstream's response cannot be read: {path}{}{problem}", if .path.is_empty() { "" } else { ": " })]
    Decode {
        /// Path of the member: `software_deployments[3].creation_time`; empty for the
        /// body itself.
        path: String,
        /// The actual and the expected kind of value.
        problem: String,
        /// The upstream's id of the request, if the response headers were read.
        request_id: Option<String>,
    },
    /// The upstream responded with a success status and something else than the requested
    /// resource. It may have acted.
    #[error("the upstream's response cannot be read: {problem}")]
    NotTheResource {
        /// The missing member, or what the body is instead.
        problem: String,
        /// The upstream's id of the request, if the response headers were read.
        request_id: Option<String>,
    },
    /// The upstream responded with a success status and an error in the body. It was
    /// sent; the upstream says that it did not act.
    #[error("{problem}")]
    ErrorInSuccess {
        /// The upstream's message.
        problem: String,
        /// The upstream's id of the request.
        request_id: Option<String>,
    },
    /// A streamed list restarted at its first page. The items sent before are valid, the
    /// rest is unknown. Reads were sent.
    #[error("the list restarted while it was read: read it again")]
    ListRestarted,
    /// A log stream has fallen behind the entries that the gateway keeps. The messages sent
    /// before are valid. Reads were sent.
    #[error("the client reads too slowly: resume from the marker `{marker}`")]
    SlowReader {
        /// Where the log can be resumed.
        marker: Box<str>,
        /// When to try again.
        retry_after: Duration,
    },
    /// The connection has reached its maximum age, and the grace after it has passed. The
    /// messages sent before are valid.
    #[error(
        "the connection has reached its maximum age (setting `server.max_connection_age_secs`): reconnect"
    )]
    ConnectionTooOld,
    /// The gateway is stopping. Nothing was sent.
    #[error("the gateway is stopping")]
    Draining,
    /// A reload has removed the upstream, or changed its settings. Nothing was sent; the
    /// messages of a stream before are valid.
    #[error("the configuration of this upstream has changed: retry")]
    UpstreamChanged,
}

/// Why the policy denies a call.
#[derive(Clone, Debug)]
pub struct PolicyDenial {
    /// What is allowed instead, without a value of the request.
    pub problem: String,
    /// The identity of the client.
    pub identity: Box<str>,
    /// The rule that comes closest, and its file and line, if there is one.
    pub rule: Option<(Box<str>, Box<str>)>,
}

/// Why the gateway's own login failed. Never UNAUTHENTICATED: the client's credentials may
/// be valid, and no others of it would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// The identity service rejects the configured credentials. Only its operator can help.
    Rejected,
    /// The configuration is wrong: another URL, a project or an endpoint that does not exist.
    NotPossible,
    /// The deadline of the call passed while the login was running.
    Deadline,
    /// The identity service does not respond, or requests a later login. Repeated within the
    /// deadlines of the waiting calls.
    Unavailable,
    /// The identity service's certificate is not trusted, or its response cannot be read.
    /// Another login at once would not help; a later one may.
    Failed,
}

/// An upstream's error reply, as the error mapping of its family reads it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The gRPC code.
    pub code: Code,
    /// Stable, for programs: `error.type`, `SVCSTG.00100411`, `KNAE02102-E`.
    pub reason: String,
    /// `ErrorInfo.domain`: `heat`, `servicestage.huaweicloud`, `jp1ao`...
    pub domain: &'static str,
    /// For people: the upstream's message, without tracebacks and HTML. Empty if the
    /// reply has none.
    pub message: String,
    /// The HTTP status.
    pub http_status: u16,
    /// The upstream's id of the request.
    pub request_id: Option<String>,
    /// When to try again, from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The upstream certainly did not act, so that any call can be retried.
    pub not_processed: bool,
    /// Trying again may help (for calls that can be repeated).
    pub transient: bool,
    /// The response says nothing about the resource, whatever its code: it is a proxy's, or
    /// of a router that does not know the path.
    pub is_unrelated: bool,
    /// The credential was rejected: it is dropped, and the call is retried once with a new
    /// one.
    pub credential_rejected: bool,
    /// Invalid fields: path and description.
    pub fields: Vec<(String, String)>,
    /// More entries of `ErrorInfo.metadata`. The value under [`HINT`] is also appended to
    /// the status text.
    pub metadata: Vec<(&'static str, String)>,
    /// `LocalizedMessage.locale` if `message` is in the client's language.
    pub locale: Option<String>,
    /// It was the body of a reply with a success status.
    pub in_success: bool,
}

/// Key in [`Fault::metadata`] of the gateway's own advice, which the upstream's message
/// lacks.
pub const HINT: &str = "hint";

/// `RetryInfo` of a gateway that is stopping, or of a connection that is too old: a client can
/// reconnect.
const RETRY_AFTER_DRAINING: Duration = Duration::from_secs(1);

/// `RetryInfo` while the keys of an issuer of client tokens cannot be read.
const RETRY_AFTER_KEYS: Duration = Duration::from_secs(5);

/// The values of a call that its status shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatusContext<'a> {
    /// Full rpc name: `openstack.orchestration.v1.StackService/GetStack`.
    pub operation: &'a str,
    /// Name of the upstream; empty before one is selected.
    pub upstream: &'a str,
    /// The request id of the client or of the gateway.
    pub request_id: &'a str,
    /// The watch began with a call (`start`) that succeeded. The status then has `sent: true`
    /// and no `RetryInfo`, since repeating the rpc would repeat that call.
    pub start_succeeded: bool,
}

impl From<drawbridge_transcoder::Error> for Error {
    fn from(error: drawbridge_transcoder::Error) -> Self {
        use drawbridge_transcoder::Error as Transcoding;
        match error {
            Transcoding::Binding { field, problem } => Self::Binding { field, problem },
            Transcoding::Malformed(problem) => Self::Malformed(problem),
            Transcoding::Decode {
                path,
                problem,
                request_id,
            } => Self::Decode {
                path,
                problem,
                request_id,
            },
            Transcoding::NotTheResource {
                problem,
                request_id,
            } => Self::NotTheResource {
                problem,
                request_id,
            },
            Transcoding::ErrorBody {
                missing,
                request_id,
                ..
            } => Self::NotTheResource {
                problem: match &*missing {
                    "" => "it is an error".to_owned(),
                    missing => format!("it is an error: {missing}"),
                },
                request_id,
            },
            Transcoding::ErrorInSuccess {
                problem,
                request_id,
            } => Self::ErrorInSuccess {
                problem,
                request_id,
            },
        }
    }
}

impl Error {
    /// Returns an error for a response that does not match the contract at this path.
    pub(crate) fn decode(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Decode {
            path: path.into(),
            problem: problem.into(),
            request_id: None,
        }
    }

    /// Returns an error for a success whose body is not the requested resource.
    pub(crate) fn not_the_resource(problem: impl Into<String>) -> Self {
        Self::NotTheResource {
            problem: problem.into(),
            request_id: None,
        }
    }

    /// Returns the gRPC code.
    pub fn code(&self) -> Code {
        self.row().code
    }

    /// Returns whether trying again, later or elsewhere, may help. Whether the call can
    /// be repeated depends on its idempotency: see [`Self::retry`].
    pub fn is_transient(&self) -> bool {
        self.row().transient
    }

    /// Returns whether a watch goes on after this error of a poll: it is transient, or
    /// the upstream failed with a status that another poll may not have. A poll is a
    /// read, and the next one comes after a pause, so more is tolerated than a call is
    /// retried for.
    pub(crate) fn is_tolerated_in_watch(&self) -> bool {
        self.is_transient()
            || self.is_wrong_success()
            || matches!(self, Self::Upstream(fault)
                if fault.is_unrelated || matches!(fault.http_status, 500..=599)
                    // Not Implemented, HTTP Version Not Supported, Network
                    // Authentication Required: they last.
                    && !matches!(fault.http_status, 501 | 505 | 511))
    }

    /// Returns whether the upstream responded with a success status and a body that is not
    /// the requested resource. In a watch, a later poll may find it.
    pub(crate) fn is_wrong_success(&self) -> bool {
        match self {
            Self::NotTheResource { .. } => true,
            Self::Upstream(fault) => fault.in_success,
            _ => false,
        }
    }

    /// Returns which calls the gateway may retry after this error.
    pub(crate) fn retry(&self) -> Retry {
        self.row().retry
    }

    /// Returns when to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overload { retry_after, .. } | Self::SlowReader { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Upstream(fault) => fault.retry_after,
            Self::Login { retry_after, .. } | Self::ResponseNotDelivered { retry_after, .. } => {
                *retry_after
            }
            Self::IssuerKeysUnknown => Some(RETRY_AFTER_KEYS),
            Self::Draining | Self::ConnectionTooOld | Self::UpstreamChanged => {
                Some(RETRY_AFTER_DRAINING)
            }
            _ => None,
        }
    }

    /// Returns whether the gateway rejected the call because of its client: it is not
    /// authenticated, not allowed, or beyond a limit.
    pub(crate) fn is_rejection(&self) -> bool {
        let code = self.code();
        match self {
            Self::PermissionDenied(_) | Self::IssuerKeysUnknown => true,
            Self::Credential { .. } => code == Code::Unauthenticated,
            Self::Overload { .. } => code == Code::ResourceExhausted,
            _ => false,
        }
    }

    /// Returns the rule of the policy that comes closest to allowing the call.
    pub(crate) fn rule(&self) -> Option<&str> {
        match self {
            Self::PermissionDenied(denial) => denial.rule.as_ref().map(|(rule, _)| &**rule),
            _ => None,
        }
    }

    /// Returns the upstream's id of the request, if its response had one.
    fn request_id(&self) -> Option<&str> {
        match self {
            Self::Upstream(fault) => fault.request_id.as_deref(),
            Self::Decode { request_id, .. }
            | Self::NotTheResource { request_id, .. }
            | Self::ErrorInSuccess { request_id, .. } => request_id.as_deref(),
            _ => None,
        }
    }

    /// Returns the error of a request message that tonic has rejected while reading it.
    /// `limit` is the maximum size of a message: tonic has two codes for a longer one.
    pub(crate) fn request_not_received(status: &tonic::Status, limit: usize) -> Self {
        match status.code() {
            // Uncompressed, and compressed.
            Code::OutOfRange | Code::ResourceExhausted => Self::RequestTooLarge { limit },
            code => Self::RequestNotReceived {
                code,
                problem: status.message().to_owned(),
            },
        }
    }

    /// Makes the gRPC status with `google.rpc` details. Its metadata stays below 7 KiB;
    /// longer texts are truncated and say so.
    pub fn status(&self, context: &StatusContext<'_>) -> tonic::Status {
        status::status(self, context)
    }

    /// Returns the reason in log lines that are summed up: it is from a closed set.
    pub(crate) fn log_kind(&self) -> String {
        match self {
            Self::Upstream(fault) => format!("HTTP_{}", fault.http_status),
            error => error.row().reason.into_owned(),
        }
    }

    /// Returns the text for the log. Texts that may hold values of the request or of the
    /// upstream's resources are replaced.
    pub fn log_text(&self) -> String {
        let row = self.row();
        if row.audience != Audience::Client {
            return self.to_string();
        }
        match self {
            Self::Binding { field, .. } => format!("{field}: rejected before sending"),
            Self::FieldViolations(all) => format!("{} fields: rejected before sending", all.len()),
            Self::Upstream(fault) => {
                let request = fault.request_id.as_deref().unwrap_or("unknown");
                format!(
                    "the upstream responded {} {} (its request id: {request})",
                    fault.http_status, fault.reason
                )
            }
            Self::ErrorInSuccess { .. } => "an error in a success response".to_owned(),
            _ => row.reason.into_owned(),
        }
    }
}
