//! Errors of binding and decoding.

use crate::json::wire;

/// An error of binding a request or decoding a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request cannot become a REST call. Nothing was sent.
    #[error("{field}: {problem}")]
    Binding {
        /// Path of the field, as in the proto: `deployment.config_id`.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The request's bytes are not a message of its type. Nothing was sent.
    #[error("the request is not a valid message: {0}")]
    Malformed(String),
    /// The reply does not match the contract. The upstream has acted.
    #[error("the upstream's response cannot be read: {path}{}{problem}", if .path.is_empty() { "" } else { ": " })]
    Decode {
        /// Path of the member: `software_deployments[3].creation_time`; empty for the
        /// body itself.
        path: String,
        /// The value found and the value expected.
        problem: String,
        /// The upstream's id of the request, where the reply has one.
        request_id: Option<String>,
    },
    /// The reply has a success status, and its body is not the requested resource. The
    /// upstream has acted.
    #[error("the upstream's response cannot be read: {problem}")]
    NotTheResource {
        /// The missing member, or what the body is instead.
        problem: String,
        /// The upstream's id of the request, where the reply has one.
        request_id: Option<String>,
    },
    /// The reply has a success status, and its body is an error of the family.
    #[error("the upstream's response is an error, not the requested resource{}{missing}", if .missing.is_empty() { "" } else { ": " })]
    ErrorBody {
        /// The HTTP status of the error.
        status: u16,
        /// What the body lacks as the response of the rpc; empty if nothing.
        missing: String,
        /// The upstream's id of the request, where the reply has one.
        request_id: Option<String>,
    },
    /// The reply is a success whose body says why the upstream did not act.
    #[error("{problem}")]
    ErrorInSuccess {
        /// The text of the upstream.
        problem: String,
        /// The upstream's id of the request, where the reply has one.
        request_id: Option<String>,
    },
}

impl Error {
    /// Returns an error for a request whose bytes are not a message.
    pub(crate) fn malformed(problem: wire::Malformed) -> Self {
        Self::Malformed(problem.to_string())
    }

    /// Returns an error for a reply that does not match the contract at this path.
    pub(crate) fn decode(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Decode {
            path: path.into(),
            problem: problem.into(),
            request_id: None,
        }
    }

    /// Returns an error for a reply whose body is not the requested resource.
    pub(crate) fn not_the_resource(problem: impl Into<String>) -> Self {
        Self::NotTheResource {
            problem: problem.into(),
            request_id: None,
        }
    }

    /// Adds the upstream's id of the request to an error about its reply.
    pub(crate) fn of_request(mut self, id: Option<String>) -> Self {
        if let Self::Decode { request_id, .. }
        | Self::NotTheResource { request_id, .. }
        | Self::ErrorInSuccess { request_id, .. }
        | Self::ErrorBody { request_id, .. } = &mut self
        {
            *request_id = id;
        }
        self
    }
}
