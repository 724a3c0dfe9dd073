//! Compresses messages. Source: gRPC, "Compression".

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::Memory;

/// Compresses the message of a response, a long one after its turn. None where there is no
/// memory or no time for it: the message is then sent uncompressed.
pub(super) async fn compressed(
    message: &[u8],
    memory: &Memory,
    deadline: Deadline,
) -> Option<Bytes> {
    let reservation = memory.reserve_long(message.len()).ok()?;
    let turn = deadline.bound(memory.turn(message.len())).await.ok()?;
    let compressed = turn.run(|| gzip(message)).ok()?;
    Some(reservation.attach(compressed))
}

/// Compresses a message with gzip.
pub(super) fn gzip(message: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(message);
    written
        .and_then(|()| encoder.finish())
        .map_err(|error| Error::Malformed(format!("the response cannot be compressed: {error}")))
}
