//! What can go wrong with a call: one variant per stage, in the order of the
//! stages. The only place that makes a `tonic::Status`.

mod status;

pub(crate) use status::{cut, head};

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

/// Why a call failed. The doc line of each variant says whether anything was
/// sent: it is what a caller must know before trying again.
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
    /// Values of the request are not what the upstream's definitions want. Nothing
    /// but reads was sent.
    #[error("{}", .0.iter().map(|(field, problem)| format!("{field}: {problem}")).collect::<Vec<_>>().join("; "))]
    Violations(Vec<(String, String)>),
    /// The caller's stream is too long, or broke off. Nothing was sent.
    #[error("{problem}")]
    Stream {
        /// RESOURCE_EXHAUSTED for what is too long, else why it broke off.
        code: Code,
        /// What is wrong with it.
        problem: String,
    },
    /// The request did not come whole, or not as gRPC wants it. Nothing was sent.
    #[error("{problem}")]
    Unreceived {
        /// DEADLINE_EXCEEDED for one that does not come, else what tonic says.
        code: Code,
        /// What is wrong with it.
        problem: String,
    },
    /// The request's bytes are not a message of its type. Nothing was sent.
    #[error("the request is not a valid message: {0}")]
    Malformed(String),
    /// The upstream's dialect lacks the operation. Nothing was sent.
    #[error("the dialect {dialect} of {family} does not have this operation")]
    Unsupported {
        /// The family.
        family: Arc<str>,
        /// The dialect of the upstream.
        dialect: Arc<str>,
    },
    /// The caller named an upstream that does not exist or does not serve the
    /// rpc. Nothing was sent.
    #[error("{0}")]
    NoUpstream(String),
    /// The configuration lacks what the call needs: an upstream for the family, a
    /// default one, a project id, an endpoint. Nothing was sent.
    #[error("{0}")]
    NotConfigured(String),
    /// Too much is under way, or the upstream is known to be down. Nothing was sent.
    #[error("{problem}")]
    Overload {
        /// RESOURCE_EXHAUSTED for our own limits, UNAVAILABLE for an open breaker.
        code: Code,
        /// What is full or down.
        problem: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller brought no credentials, or those that are configured cannot be sent.
    /// The call itself was not sent.
    #[error("{problem}")]
    Credential {
        /// UNAUTHENTICATED, PERMISSION_DENIED, FAILED_PRECONDITION or UNAVAILABLE.
        code: Code,
        /// What failed, and what to do. Never a secret.
        problem: String,
    },
    /// The gateway could not log in: the text, which names its user and where it logs
    /// in, is for its operators; callers are told no more than what `code` says. The
    /// call itself was not sent.
    #[error("{problem}")]
    Login {
        /// UNAUTHENTICATED, PERMISSION_DENIED, FAILED_PRECONDITION or UNAVAILABLE.
        code: Code,
        /// What failed, and what to do. Never a secret.
        problem: String,
    },
    /// The deadline passed. `sent` says whether the upstream may have acted.
    #[error("the deadline passed{}", if *.sent { "; the upstream may have acted" } else { " before anything was sent" })]
    Deadline {
        /// Whether an attempt had gone out.
        sent: bool,
    },
    /// The deadline of a stream that reads passed while it went on. What was read
    /// was told.
    #[error("the deadline of the stream passed")]
    StreamDeadline,
    /// No connection came about. Nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The call went out and no whole answer came. The upstream may have acted,
    /// and the call may be sent again, as its idempotency says.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// As `NoAnswer`, of a call that must not be sent twice: `upstream` turns the
    /// one into the other by the call's idempotency.
    #[error("no answer: {0}; the upstream may have acted, look before sending it again")]
    OutcomeUnknown(String),
    /// The answer is longer than the limit. The upstream has acted.
    #[error("the answer is longer than {limit} bytes (setting max_response_bytes)")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The answer came and was not passed on: there is no room for it, or its caller
    /// takes nothing of it. The upstream has acted.
    #[error("{problem}")]
    Undelivered {
        /// RESOURCE_EXHAUSTED for no room, DEADLINE_EXCEEDED for no reader.
        code: Code,
        /// What is full, or what was waited for.
        problem: String,
    },
    /// The upstream answered with an error.
    #[error("{}", .0.message)]
    Upstream(Box<Fault>),
    /// The upstream's answer is not what the contract says. The upstream has acted.
    #[error("the upstream's answer cannot be read: {path}{}{problem}", if .path.is_empty() { "" } else { ": " })]
    Decode {
        /// Path of the member: `software_deployments[3].creation_time`; empty
        /// for the body as a whole.
        path: String,
        /// What was found and what was expected.
        problem: String,
        /// The upstream's id of the request, once the answer's headers were read.
        request_id: Option<String>,
    },
    /// The upstream answered success, and in it why it will not do it.
    #[error("{problem}")]
    Refused {
        /// Its own words.
        problem: String,
        /// The upstream's id of the request.
        request_id: Option<String>,
    },
    /// The list that is streamed has begun anew: what was told is right, the rest
    /// is not known. The upstream has acted, as it does for reads.
    #[error("the list began anew while it was read; read it again")]
    Restarted,
    /// The gateway is stopping. Nothing was sent.
    #[error("the gateway is stopping")]
    Draining,
}

/// An upstream's error reply as its family reads it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The gRPC code.
    pub code: Code,
    /// Stable, for programs: `error.type`, `SVCSTG.00100411`, `KNAE02102-E`.
    pub reason: String,
    /// `ErrorInfo.domain`: `heat`, `servicestage.huaweicloud`, `jp1ao`...
    pub domain: &'static str,
    /// For people: the upstream's own words. No tracebacks, no HTML. Empty when
    /// it gave none.
    pub message: String,
    /// The HTTP status.
    pub http_status: u16,
    /// The upstream's id of the request.
    pub request_id: Option<String>,
    /// When to try again, from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The call was surely not processed, so that any call may be sent again.
    pub not_processed: bool,
    /// Trying again may help (for calls that may be sent twice).
    pub transient: bool,
    /// The credentials were refused: the lease is dropped and renewed once.
    pub credential_refused: bool,
    /// Fields at fault: path and description.
    pub fields: Vec<(String, String)>,
    /// More for `ErrorInfo.metadata`. What stands under [`HINT`] is told in the
    /// status text too.
    pub metadata: Vec<(&'static str, String)>,
    /// `LocalizedMessage.locale` when `message` is in the caller's language.
    pub locale: Option<String>,
}

/// The key in [`Fault::metadata`] of the gateway's own words: what the upstream's
/// words leave out.
pub const HINT: &str = "hint";

/// When a caller may try again after meeting a gateway that stops.
const AFTER_DRAINING: Duration = Duration::from_secs(1);

/// What a status says about where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Full rpc name: `openstack.orchestration.v1.StackService/GetStack`.
    pub operation: &'a str,
    /// Name of the upstream, or empty before one was picked.
    pub upstream: &'a str,
    /// The caller's or our own request id.
    pub request_id: &'a str,
    /// The rpc's own call had been answered before, and its stream begun: what
    /// fails now is what follows, and to ask again would be to call again.
    pub begun: bool,
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
            Transcoding::Refused {
                problem,
                request_id,
            } => Self::Refused {
                problem,
                request_id,
            },
        }
    }
}

impl Error {
    /// An answer that is not what the contract says, at this path of it.
    pub(crate) fn decode(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Decode {
            path: path.into(),
            problem: problem.into(),
            request_id: None,
        }
    }

    /// The upstream's id of the request, where its answer came and said so.
    fn request_id(&self) -> Option<&str> {
        match self {
            Self::Upstream(fault) => fault.request_id.as_deref(),
            Self::Decode { request_id, .. } | Self::Refused { request_id, .. } => {
                request_id.as_deref()
            }
            _ => None,
        }
    }

    /// The gRPC code of the error.
    pub fn code(&self) -> Code {
        match self {
            Self::Binding { .. }
            | Self::Violations(_)
            | Self::Malformed(_)
            | Self::NoUpstream(_)
            | Self::Refused { .. } => Code::InvalidArgument,
            Self::Restarted => Code::Aborted,
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::NotConfigured(_) => Code::FailedPrecondition,
            Self::Overload { code, .. }
            | Self::Credential { code, .. }
            | Self::Login { code, .. }
            | Self::Undelivered { code, .. }
            | Self::Unreceived { code, .. }
            | Self::Stream { code, .. } => *code,
            Self::Deadline { .. } | Self::StreamDeadline => Code::DeadlineExceeded,
            Self::Connect(_) | Self::NoAnswer(_) | Self::Draining => Code::Unavailable,
            // UNAVAILABLE would make clients send it again by themselves.
            Self::OutcomeUnknown(_) => Code::Unknown,
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Upstream(fault) => fault.code,
            Self::Decode { .. } => Code::Internal,
        }
    }

    /// Whether trying again, later or elsewhere, may help. Whether the call may
    /// be sent twice is another question, which its idempotency answers.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Overload { .. }
            | Self::Deadline { .. }
            | Self::StreamDeadline
            | Self::Connect(_)
            | Self::NoAnswer(_)
            | Self::Restarted
            | Self::Draining => true,
            Self::Credential { code, .. } | Self::Login { code, .. } => *code == Code::Unavailable,
            Self::Undelivered { code, .. } => *code == Code::ResourceExhausted,
            Self::Upstream(fault) => {
                fault.transient
                    || fault.not_processed
                    || matches!(fault.code, Code::Unavailable | Code::ResourceExhausted)
            }
            Self::Binding { .. }
            | Self::Violations(_)
            | Self::Stream { .. }
            | Self::Unreceived { .. }
            | Self::Malformed(_)
            | Self::Unsupported { .. }
            | Self::NoUpstream(_)
            | Self::NotConfigured(_)
            | Self::OutcomeUnknown(_)
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Decode { .. } => false,
        }
    }

    /// When trying again has use, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overload { retry_after, .. } => Some(*retry_after),
            Self::Upstream(fault) => fault.retry_after,
            Self::Draining => Some(AFTER_DRAINING),
            _ => None,
        }
    }

    /// The error as a gRPC status with `google.rpc` details. It stays below
    /// 7 KiB of metadata whatever the upstream said; longer texts are cut and say so.
    pub fn status(&self, context: &Context<'_>) -> tonic::Status {
        status::status(self, context)
    }

    /// The error for the log: what the caller sees, less the values of the call
    /// that the upstream's words or the caller's own may hold.
    pub fn log_text(&self) -> String {
        match self {
            Self::Binding { field, .. } => format!("{field}: refused before sending"),
            Self::Refused { .. } => "refused within a success".to_owned(),
            Self::Violations(all) => format!("{} fields: refused before sending", all.len()),
            Self::Upstream(fault) => {
                let request = fault.request_id.as_deref().unwrap_or("unknown");
                format!(
                    "the upstream answered {} {} (its request id: {request})",
                    fault.http_status, fault.reason
                )
            }
            other => other.to_string(),
        }
    }
}
