//! The contract: descriptors as compiled methods. Every refusal names file, rpc
//! and option, and stops the start.

pub mod schema;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::rest::{Call, Idempotency, Reply};
use schema::{MessageId, Schema};

/// Why a descriptor set cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The proto file.
    pub file: String,
    /// The rpc, message, field or enum value: its full name.
    pub element: String,
    /// The option at fault: `google.api.http`, `(drawbridge.v1.method).watch.poll`.
    pub option: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}: {}",
            self.file, self.element, self.option, self.problem
        )
    }
}

/// All methods that the gateway serves, by gRPC path.
#[derive(Debug)]
pub struct Contract {
    methods: HashMap<Box<str>, Arc<Method>>,
    descriptor_sets: Vec<Vec<u8>>,
}

/// One rpc, compiled.
#[derive(Debug)]
pub struct Method {
    /// The gRPC path: `/openstack.orchestration.v1.StackService/GetStack`.
    pub path: Box<str>,
    /// The full name of the service.
    pub service: Box<str>,
    /// The rpc's own name.
    pub name: Box<str>,
    /// The family of upstreams that serve it.
    pub family: Box<str>,
    /// Whether it may be sent twice.
    pub idempotency: Idempotency,
    /// Dialects that lack it.
    pub absent_in: Vec<Box<str>>,
    /// HTTP statuses outside 200 to 299 that are success too.
    pub also_success: Vec<u16>,
    /// The request message.
    pub input: MessageId,
    /// The response message.
    pub output: MessageId,
    /// The tables of its descriptor set.
    pub schema: Arc<Schema>,
    /// Set for a watch.
    pub watch: Option<Watch>,
    /// Set for a two-step call.
    pub action: Option<Action>,
}

/// A compiled `drawbridge.v1.Action`.
#[derive(Debug)]
pub struct Action {
    /// The document's member that names the action, and its value.
    pub name: Option<(Box<str>, Box<str>)>,
    /// Members that the document must have, with the JSON text to add.
    pub members: Vec<(Box<str>, Box<str>)>,
}

/// A compiled `drawbridge.v1.Watch`.
#[derive(Debug)]
pub struct Watch {
    /// The rpc to poll.
    pub poll: Arc<Method>,
    /// Lists only: the rpc that reads one item by its key.
    pub refresh: Option<Arc<Method>>,
    /// Whether a list is watched, told item by item.
    pub list: bool,
    /// The pause after the first read and after each change.
    pub first_interval: Duration,
    /// The longest pause while nothing changes.
    pub max_interval: Duration,
    /// The watch ends well when the thing is gone after it was seen once.
    pub gone_ends_well: bool,
}

/// Whether a watched thing has come to an end, as its state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// More is to come.
    Open,
    /// Settled as it should.
    EndedWell,
    /// Settled, and not as it should.
    EndedBadly,
}

/// A descriptor set and where it came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// `built-in`, or the file's path.
    pub name: String,
    /// The encoded `FileDescriptorSet`.
    pub bytes: Vec<u8>,
}

/// A response message, ready to be sent.
#[derive(Debug)]
pub struct Decoded {
    /// The protobuf bytes.
    pub message: Bytes,
    /// See [`crate::transcode::Notes`].
    pub notes: crate::transcode::Notes,
}

impl Contract {
    /// Compiles the descriptor sets; the services of `drawbridge.v1` and of gRPC
    /// itself are left out, being the gateway's own.
    pub fn compile(_sources: Vec<Source>) -> Result<Self, Vec<Refusal>> {
        todo!()
    }

    /// The method at this gRPC path.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// All methods, sorted by path.
    pub fn methods(&self) -> Vec<&Arc<Method>> {
        let mut methods: Vec<_> = self.methods.values().collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        methods
    }

    /// The encoded descriptor sets, for server reflection.
    pub fn descriptor_sets(&self) -> &[Vec<u8>] {
        &self.descriptor_sets
    }
}

impl Method {
    /// Binds a request message to the REST call it stands for. Checks REQUIRED
    /// fields, path values and the wire format; nothing is guessed.
    pub fn bind(&self, _request: &[u8], _dialect: &str) -> Result<Call, Error> {
        todo!()
    }

    /// Reads a successful reply as the response message.
    pub fn decode(&self, _reply: &Reply) -> Result<Decoded, Error> {
        todo!()
    }

    /// For a two-step call: the document the caller has set in the request, as
    /// JSON, or none.
    pub fn document(&self, _request: &[u8]) -> Result<Option<Bytes>, Error> {
        todo!()
    }

    /// Whether this HTTP status is success for the method.
    pub fn is_success(&self, status: http::StatusCode) -> bool {
        status.is_success() || self.also_success.contains(&status.as_u16())
    }
}

impl Watch {
    /// Whether the request asks to go on after settling.
    pub fn follows(&self, _request: &[u8]) -> bool {
        todo!()
    }

    /// What is watched, in a response message of the polled rpc: the item, the
    /// whole, or each item of the list, as slices of `response` without a copy.
    pub fn items(&self, _response: &Bytes) -> Result<Vec<Bytes>, Error> {
        todo!()
    }

    /// Lists only: the identity of an item.
    pub fn key(&self, _item: &[u8]) -> Result<Box<str>, Error> {
        todo!()
    }

    /// Lists with `refresh` only: the call that reads the item of this key, from
    /// the list's own request.
    pub fn refresh_call(&self, _request: &[u8], _key: &str, _dialect: &str) -> Result<Call, Error> {
        todo!()
    }

    /// Whether the item has settled.
    pub fn outcome(&self, _item: &[u8]) -> Outcome {
        todo!()
    }

    /// Encodes a message of the stream.
    pub fn message(
        &self,
        _event: &crate::api::drawbridge::v1::WatchEvent,
        _item: Option<&[u8]>,
    ) -> Bytes {
        todo!()
    }
}
