//! One row for each variant of [`Error`]. Everything that depends on the variant is read
//! from here: the status, the retry policy, the log.

use std::borrow::Cow;

use tonic::Code;

use super::{Error, LoginFailure};

/// Which calls may be retried after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// None: the result would be the same, or only the client can decide.
    Never,
    /// Idempotent calls: the upstream may have acted.
    IfIdempotent,
    /// All calls: the upstream certainly did not act.
    Always,
}

/// The audience of an error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// The client and the operators: it is sent and logged.
    All,
    /// The client only, since it may hold values of the request or of the upstream's
    /// resources.
    Client,
    /// The operators only, since it names the gateway's user and its identity service.
    Operators,
}

/// The properties of an error.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row<'a> {
    /// The gRPC code.
    pub(super) code: Code,
    /// `ErrorInfo.reason`: stable, for programs. Form: <https://google.aip.dev/193>.
    pub(super) reason: Cow<'a, str>,
    /// Whether the call may have reached the upstream.
    pub(super) sent: bool,
    /// Whether trying again, later or elsewhere, may help.
    pub(super) transient: bool,
    /// Which calls the gateway may retry.
    pub(super) retry: Retry,
    /// The audience of the text.
    pub(super) audience: Audience,
    /// Whether the client's text begins with the name of the upstream.
    pub(super) names_upstream: bool,
}

const SENT: bool = true;
const NOT_SENT: bool = false;
const TRANSIENT: bool = true;
const PERMANENT: bool = false;
const PREFIX: bool = true;
const NO_PREFIX: bool = false;

fn row(
    code: Code,
    reason: &str,
    sent: bool,
    transient: bool,
    retry: Retry,
    audience: Audience,
    names_upstream: bool,
) -> Row<'_> {
    Row {
        code,
        reason: Cow::Borrowed(reason),
        sent,
        transient,
        retry,
        audience,
        names_upstream,
    }
}

impl Error {
    /// Returns the row of the variant. Exhaustive, so that a new variant needs one.
    #[rustfmt::skip] // one row a line
    pub(super) fn row(&self) -> Row<'_> {
        use Audience::{All, Client, Operators};
        use Code::*;
        use Retry::{Always, IfIdempotent, Never};
        match self {
            Self::Binding { .. } =>
                row(InvalidArgument, "INVALID_FIELD", NOT_SENT, PERMANENT, Never, Client, NO_PREFIX),
            Self::FieldViolations(_) =>
                row(InvalidArgument, "INVALID_FIELD", NOT_SENT, PERMANENT, Never, Client, NO_PREFIX),
            Self::RequestStream { code: code @ ResourceExhausted, .. } =>
                row(*code, "FILE_TOO_LARGE", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::RequestStream { code, .. } =>
                row(*code, "STREAM_BROKEN", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::RequestNotReceived { code, .. } =>
                row(*code, "REQUEST_NOT_RECEIVED", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::RequestTooLarge { .. } =>
                row(ResourceExhausted, "REQUEST_TOO_LARGE", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::MetadataTooLarge { .. } =>
                row(ResourceExhausted, "METADATA_TOO_LARGE", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::UnknownMethod(_) =>
                row(Unimplemented, "UNKNOWN_METHOD", NOT_SENT, PERMANENT, Never, Client, NO_PREFIX),
            Self::Malformed(_) =>
                row(InvalidArgument, "MALFORMED_REQUEST", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::NotServed(_) =>
                row(Unimplemented, "RPC_NOT_SERVED", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::Unsupported { .. } =>
                row(Unimplemented, "DIALECT_LACKS_OPERATION", NOT_SENT, PERMANENT, Never, All, PREFIX),
            Self::UnknownUpstream(_) =>
                row(InvalidArgument, "UNKNOWN_UPSTREAM", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::NotConfigured(_) =>
                row(FailedPrecondition, "NOT_CONFIGURED", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::Overload { code: code @ Unavailable, .. } =>
                row(*code, "CIRCUIT_BREAKER_OPEN", NOT_SENT, TRANSIENT, Never, All, PREFIX),
            Self::Overload { code, .. } =>
                row(*code, "OVERLOADED", NOT_SENT, TRANSIENT, Never, All, PREFIX),
            Self::Credential { code: code @ Unauthenticated, .. } =>
                row(*code, "CREDENTIALS_REJECTED", NOT_SENT, PERMANENT, Never, All, PREFIX),
            Self::Credential { code, .. } =>
                row(*code, "LOGIN_NOT_POSSIBLE", NOT_SENT, PERMANENT, Never, All, PREFIX),
            Self::IssuerKeysUnknown =>
                row(Unavailable, "ISSUER_KEYS_UNKNOWN", NOT_SENT, TRANSIENT, Never, All, NO_PREFIX),
            Self::PermissionDenied(_) =>
                row(PermissionDenied, "POLICY_DENIED", NOT_SENT, PERMANENT, Never, All, NO_PREFIX),
            Self::PlaintextCredentials { .. } =>
                row(FailedPrecondition, "PLAINTEXT_CREDENTIALS", NOT_SENT, PERMANENT, Never, All, PREFIX),
            Self::Login { failure: LoginFailure::Rejected, .. } =>
                row(FailedPrecondition, "LOGIN_REJECTED", NOT_SENT, PERMANENT, Never, Operators, PREFIX),
            Self::Login { failure: LoginFailure::NotPossible, .. } =>
                row(FailedPrecondition, "LOGIN_NOT_POSSIBLE", NOT_SENT, PERMANENT, Never, Operators, PREFIX),
            Self::Login { failure: LoginFailure::Deadline, .. } =>
                row(DeadlineExceeded, "DEADLINE_EXCEEDED", NOT_SENT, TRANSIENT, Never, Operators, PREFIX),
            Self::Login { failure: LoginFailure::Unavailable | LoginFailure::Failed, .. } =>
                row(Unavailable, "LOGIN_UNAVAILABLE", NOT_SENT, TRANSIENT, Never, Operators, PREFIX),
            Self::Deadline { sent } =>
                row(DeadlineExceeded, "DEADLINE_EXCEEDED", *sent, TRANSIENT, Never, All, PREFIX),
            Self::StreamDeadline =>
                row(DeadlineExceeded, "DEADLINE_EXCEEDED", SENT, TRANSIENT, Never, All, PREFIX),
            Self::Connect(_) =>
                row(Unavailable, "CANNOT_CONNECT", NOT_SENT, TRANSIENT, Always, All, PREFIX),
            Self::Certificate(_) =>
                row(Unavailable, "CERTIFICATE_NOT_TRUSTED", NOT_SENT, TRANSIENT, Never, All, PREFIX),
            Self::NoResponse(_) =>
                row(Unavailable, "NO_RESPONSE", SENT, TRANSIENT, IfIdempotent, All, PREFIX),
            // Not UNAVAILABLE, since clients retry that by themselves.
            Self::OutcomeUnknown(_) =>
                row(Unknown, "OUTCOME_UNKNOWN", SENT, PERMANENT, Never, All, PREFIX),
            Self::ResponseTooLarge { .. } =>
                row(ResourceExhausted, "RESPONSE_TOO_LARGE", SENT, PERMANENT, Never, All, PREFIX),
            Self::ResponseNotDelivered { code, .. } =>
                row(*code, "RESPONSE_NOT_DELIVERED", SENT, *code == ResourceExhausted, Never, All, PREFIX),
            Self::Upstream(fault) => Row {
                code: fault.code,
                reason: match fault.reason.is_empty() {
                    true => Cow::Owned(format!("HTTP_{}", fault.http_status)),
                    false => Cow::Borrowed(&fault.reason),
                },
                sent: !fault.not_processed,
                transient: fault.transient
                    || fault.not_processed
                    || matches!(fault.code, Unavailable | ResourceExhausted),
                retry: match (fault.not_processed, fault.transient) {
                    (true, _) => Always,
                    (false, true) => IfIdempotent,
                    (false, false) => Never,
                },
                audience: Client,
                // A proxy's message does not name the upstream.
                names_upstream: matches!(fault.http_status, 502..=504),
            },
            Self::Decode { .. } | Self::NotTheResource { .. } =>
                row(Internal, "UNREADABLE_RESPONSE", SENT, PERMANENT, Never, All, PREFIX),
            Self::ErrorInSuccess { .. } =>
                row(InvalidArgument, "ERROR_IN_SUCCESS", SENT, PERMANENT, Never, Client, NO_PREFIX),
            Self::ListRestarted =>
                row(Aborted, "LIST_RESTARTED", SENT, TRANSIENT, Never, All, PREFIX),
            Self::SlowReader { .. } =>
                row(Aborted, "SLOW_READER", SENT, TRANSIENT, Never, All, PREFIX),
            Self::ConnectionTooOld =>
                row(Unavailable, "CONNECTION_TOO_OLD", NOT_SENT, TRANSIENT, Never, All, NO_PREFIX),
            Self::Draining =>
                row(Unavailable, "DRAINING", NOT_SENT, TRANSIENT, Never, All, NO_PREFIX),
            Self::UpstreamChanged =>
                row(Unavailable, "UPSTREAM_CHANGED", NOT_SENT, TRANSIENT, Never, All, PREFIX),
        }
    }
}

#[cfg(test)]
mod tests;
