//! The JSON of clients: protobuf's own mapping, <https://protobuf.dev/programming-guides/json>.
//! That of upstreams follows the annotations instead.

use std::collections::HashMap;

use bytes::Bytes;
use prost_reflect::DescriptorPool;

use super::Source;
use super::descriptor_set::pool;
use crate::json::{self, Problem};
use crate::output_limit::finished;
use crate::schema::{MessageId, Schema};

/// Converts messages of a descriptor set to canonical JSON and back. Its tables take memory of
/// their own: they are built where clients use JSON.
#[derive(Debug)]
pub struct CanonicalJson {
    schema: Schema,
    rpcs: HashMap<Box<str>, Rpc>,
}

/// The messages of an rpc in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// The request message.
    pub input: MessageId,
    /// The response message.
    pub output: MessageId,
}

impl CanonicalJson {
    /// Builds the tables of an encoded `FileDescriptorSet`. None where it cannot be read.
    pub fn new(set: &[u8]) -> Option<Self> {
        let pool = pool(&Source::new("", set.to_vec())).ok()?;
        Some(Self::of(&pool))
    }

    /// Builds the tables of these descriptors.
    pub fn of(pool: &DescriptorPool) -> Self {
        let schema = Schema::canonical(pool);
        let mut rpcs = HashMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let message = |name: &str| schema.message_id(name);
                if let (Some(input), Some(output)) = (
                    message(method.input().full_name()),
                    message(method.output().full_name()),
                ) {
                    let path = format!("/{}/{}", service.full_name(), method.name());
                    rpcs.insert(path.into(), Rpc { input, output });
                }
            }
        }
        Self { schema, rpcs }
    }

    /// Returns the messages of the rpc at this gRPC path.
    pub fn rpc(&self, path: &str) -> Option<Rpc> {
        self.rpcs.get(path).copied()
    }

    /// Returns the message of this full name.
    pub fn message(&self, name: &str) -> Option<MessageId> {
        self.schema.message_id(name)
    }

    /// Reads a message. Fails for members that it does not have, and for values that it cannot
    /// hold.
    pub fn to_wire(&self, message: MessageId, text: &[u8]) -> Result<Bytes, Problem> {
        let mut wire = Vec::new();
        json::to_wire(&self.schema, message, text, &mut wire)?;
        Ok(finished(wire))
    }

    /// Writes a message. Fields with their default value are left out, unless they have presence.
    pub fn to_json(&self, message: MessageId, wire: &[u8]) -> Result<Bytes, Problem> {
        let mut text = Vec::new();
        json::to_json(&self.schema, message, wire, &|_| false, &mut text)?;
        Ok(finished(text))
    }
}
