//! Files: from a stream of pieces to one REST call, and from one reply to a stream
//! of pieces.

mod download;
mod upload;

pub use download::FileStream;
pub use upload::{Received, Uploads};
