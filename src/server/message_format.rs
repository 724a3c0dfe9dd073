//! How the messages of a call are written: as gRPC does, or as the protocols of the web do.

use bytes::Bytes;

use super::client_json::JsonMessages;
use super::compression::{compressed, gzip};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::Memory;

/// What a protocol says about the messages of a call. The default is that of gRPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Whether request and response are one message each, without the prefix of gRPC.
    pub(super) is_bare: bool,
    /// Whether messages are JSON.
    pub(super) is_json: bool,
    /// Whether the client accepts gzip; none: if it has compressed its request.
    pub(super) accepts_gzip: Option<bool>,
}

/// The length from which a message is compressed for a client that only accepts it, as browsers
/// always do.
const MIN_GZIP_BYTES: usize = 1 << 10;

/// The format of the messages of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct MessageFormat {
    /// Whether the response is one message without a prefix.
    pub(super) is_bare: bool,
    pub(super) json: Option<JsonMessages>,
    /// The length from which messages of the response are compressed; none: never.
    gzip_from: Option<usize>,
}

impl MessageFormat {
    /// Creates the format of a call, whose request is compressed or not.
    pub(super) fn new(encoding: Encoding, json: Option<JsonMessages>, is_compressed: bool) -> Self {
        Self {
            is_bare: encoding.is_bare,
            json,
            gzip_from: match (encoding.accepts_gzip, is_compressed) {
                (None | Some(true), true) => Some(0),
                (Some(true), false) => Some(MIN_GZIP_BYTES),
                (None, false) | (Some(false), _) => None,
            },
        }
    }

    /// Returns whether messages of the response may be compressed.
    pub(super) fn may_compress(&self) -> bool {
        self.gzip_from.is_some()
    }

    /// Encodes the message of a response, a long one after its turn. Returns whether it is
    /// compressed: not without memory or time for it.
    pub(super) async fn encode(
        &self,
        message: &mut Bytes,
        memory: &Memory,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        if let Some(json) = &self.json {
            let turn = deadline.bound(memory.turn(message.len())).await?;
            *message = turn.run(|| json.encode(message, memory))?;
        }
        if self.compresses(message)
            && let Some(compressed) = compressed(message, memory, deadline).await
        {
            *message = compressed;
            return Ok(true);
        }
        Ok(false)
    }

    /// As [`Self::encode`], for a message of a stream. Its memory is that of the frame.
    pub(super) fn encode_now(
        &self,
        message: Bytes,
        memory: &Memory,
    ) -> Result<(Bytes, bool), Error> {
        let message = match &self.json {
            None => message,
            Some(json) => json.encode(&message, memory)?,
        };
        match self.compresses(&message) {
            true => Ok((gzip(&message)?.into(), true)),
            false => Ok((message, false)),
        }
    }

    fn compresses(&self, message: &[u8]) -> bool {
        self.gzip_from.is_some_and(|from| message.len() >= from)
    }
}
