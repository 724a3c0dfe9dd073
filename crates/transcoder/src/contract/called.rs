//! The rpc that a stream polls or lists: the stream's calls are those of that rpc.

use std::sync::Arc;

use super::Method;
use super::watch::fields::{shared_fields, translated};
use crate::Error;
use crate::call::Call;

/// The rpc of a stream's calls.
#[derive(Debug)]
pub(super) struct Called {
    rpc: Arc<Method>,
    /// Fields that the stream's request and that of the rpc have in common: number in
    /// each.
    fields: Vec<(u32, u32)>,
    /// The parameters of the stream's own `constant_query` that the rpc does not have.
    more_query: Box<str>,
}

impl Called {
    /// Links a stream to the rpc that it polls or lists.
    pub fn new(stream: &Method, rpc: &Arc<Method>) -> Self {
        let of_rpc: Vec<&str> = rpc.binding.constant_query.split('&').collect();
        let own = stream.binding.constant_query.split('&');
        let more: Vec<&str> = own.filter(|one| !of_rpc.contains(one)).collect();
        Self {
            rpc: Arc::clone(rpc),
            fields: shared_fields(&stream.schema, stream.input, rpc.input),
            more_query: more.join("&").into(),
        }
    }

    /// Returns the rpc.
    pub fn rpc(&self) -> &Method {
        &self.rpc
    }

    /// Returns the request of the rpc, from that of the stream.
    pub fn request(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        translated(request, &self.fields)
    }

    /// Binds the request of the stream to the call of the rpc.
    pub fn bind(&self, request: &[u8], dialect: &str) -> Result<Call, Error> {
        let mut call = self.rpc.bind(&self.request(request)?, dialect)?;
        if !self.more_query.is_empty() {
            if !call.query.is_empty() {
                call.query.push('&');
            }
            call.query.push_str(&self.more_query);
        }
        Ok(call)
    }
}
