//! Compresses messages. Source: gRPC, "Compression".

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::Error;

/// Compresses a message with gzip.
pub(super) fn gzip(message: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(message);
    written
        .and_then(|()| encoder.finish())
        .map_err(|error| Error::Malformed(format!("the response cannot be compressed: {error}")))
}
