//! Turns the request message of one rpc into its response message. A unary call, in the
//! order of its steps:
//!
//! 1. `name_lookup` finds the path fields that the client left empty.
//! 2. The transcoder binds the message to a REST call (`Method::bind`).
//! 3. `call_context` sends it by `crate::upstream`, which adds the credential, within the
//!    deadline; `action` fetches, edits and sends a document instead.
//! 4. The transcoder decodes the reply (`Method::decode`).
//! 5. `unary` reads further pages by the `pager` and merges them, if the rpc says so.
//!
//! Streams: `list_stream` sends each item of a list, read by the `pager`; `upload`
//! collects a file and sends it in one call; `download` sends a file in chunks;
//! `stream_limiter` bounds the open streams. `health_check` makes the read that shows whether
//! an upstream serves. Watches are in `crate::watch`.

pub mod action;
pub mod call_context;
mod download;
pub mod health_check;
pub mod list_stream;
pub mod name_lookup;
pub mod pager;
pub mod stream_limiter;
pub mod unary;
mod upload;

pub use download::FileStream;
pub use upload::{RequestMessages, Uploads};
