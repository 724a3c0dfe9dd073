//! Rejects a call by its metadata alone: nothing of its body is read, so that it costs neither
//! memory nor flow control window.
//!
//! [`Router`] calls [`Admission::of`] for each rpc of the contract, after it has checked the
//! protocol, the size of the metadata, the client's token and the path. The dispatcher then
//! selects the upstream by `Dispatcher::admit`, before it reads the message.
//!
//! [`Router`]: super::router::Router

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tonic::Code;
use tonic::body::Body;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::{Memory, Reservation};
use crate::server::client_limits::ClientSlot;
use crate::telemetry::RpcProtocol;

/// The compressions that are accepted, in the header that an unsupported one is answered with.
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,identity");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The longest name of a compression that an error repeats, in characters.
const MAX_ENCODING_CHARS: usize = 40;

/// What the metadata of a call says about it.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) protocol: RpcProtocol,
    /// When the call ends at the latest.
    pub(super) deadline: Deadline,
    /// Whether its messages may be compressed, with gzip.
    pub(super) is_compressed: bool,
    /// What its client draws from.
    pub(super) memory: Memory,
    /// What the call draws from it for its metadata and all that is short.
    pub(super) reservation: Reservation,
    /// Counts the call among those of its client, where that is limited.
    pub(super) slot: Option<ClientSlot>,
}

impl Admission {
    /// Reads the metadata of a call that counts for `call_bytes`. Fails for an invalid timeout,
    /// for a compression that is not supported, and if the memory budget has no space for a call.
    pub(super) fn of(
        headers: &HeaderMap,
        protocol: RpcProtocol,
        default_deadline: Duration,
        call_bytes: usize,
        memory: Memory,
    ) -> Result<Self, Error> {
        Ok(Self {
            protocol,
            deadline: Deadline::from_metadata(headers, default_deadline)?,
            is_compressed: is_compressed(headers)?,
            reservation: memory.reserve(call_bytes)?,
            memory,
            slot: None,
        })
    }
}

/// Reads `grpc-encoding`. Source: gRPC, "Compression".
pub(super) fn is_compressed(headers: &HeaderMap) -> Result<bool, Error> {
    let Some(encoding) = headers.get("grpc-encoding") else {
        return Ok(false);
    };
    match encoding.as_bytes() {
        b"gzip" => Ok(true),
        b"identity" => Ok(false),
        other => {
            let other = String::from_utf8_lossy(other);
            let name: String = other.chars().take(MAX_ENCODING_CHARS).collect();
            Err(Error::RequestNotReceived {
                code: Code::Unimplemented,
                problem: format!("the compression {name:?} is not supported: use gzip or none"),
            })
        }
    }
}

/// Adds the accepted compressions to the response to a call that has been rejected because of
/// its own. Source: gRPC, "Compression".
pub(super) fn add_accepted_encodings(error: &Error, response: &mut Response<Body>) {
    let is_encoding = matches!(error, Error::RequestNotReceived { code, .. }
        if *code == Code::Unimplemented);
    if is_encoding {
        response.headers_mut().insert(ACCEPT_ENCODING, ACCEPTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_timeout_and_unsupported_compression_are_rejected() {
        for (name, value, want) in [
            ("grpc-encoding", "gzip", Ok(true)),
            ("grpc-encoding", "identity", Ok(false)),
            ("grpc-timeout", "5S", Ok(false)),
            ("grpc-encoding", "zstd", Err(Code::Unimplemented)),
            ("grpc-encoding", "GZIP", Err(Code::Unimplemented)),
            ("grpc-encoding", "", Err(Code::Unimplemented)),
            ("grpc-timeout", "5", Err(Code::InvalidArgument)),
        ] {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]);
            let deadline = Duration::from_secs(7);
            let grpc = RpcProtocol::Grpc;
            let admission = Admission::of(&headers, grpc, deadline, 100, Memory::default());
            let got = admission.map(|a| a.is_compressed).map_err(|e| e.code());
            assert_eq!(got, want, "{name}: {value}");
        }
    }
}
