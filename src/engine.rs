//! One rpc from request message to response message: `unary` binds, calls and
//! decodes; `action` does it in two steps; `name_lookup` finds what a client left out
//! of the path; `list_stream` reads page after page; `upload` and `download` transfer
//! files; `stream_limiter` bounds how many streams are open.

pub mod action;
pub mod call_context;
mod download;
pub mod list_stream;
pub mod name_lookup;
pub mod pager;
pub mod stream_limiter;
pub mod unary;
mod upload;

pub use download::FileStream;
pub use upload::{Received, Uploads};
