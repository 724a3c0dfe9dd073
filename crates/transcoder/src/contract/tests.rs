//! The contract's rules, shown on small protos that are compiled here.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use serde_json::{Value as Json, json};

use super::*;
use crate::api::drawbridge::v1::WatchEvent;
use crate::rest::Reply;

/// One proto file that exists in a test alone.
struct Alone(String);

impl FileResolver for Alone {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        (path == Path::new("t.proto")).then(|| "t.proto".to_owned())
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "t.proto" {
            File::from_source(name, &self.0)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

pub(crate) fn descriptors(proto: &str) -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Alone(proto.to_owned()));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    resolver.add(IncludeFileResolver::new(folder));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler
        .open_file("t.proto")
        .unwrap_or_else(|problem| panic!("{problem:?}\n{proto}"));
    compiler.encode_file_descriptor_set()
}

/// The package `t` with all imports and what is given.
pub(crate) fn proto(rest: &str) -> String {
    format!(
        r#"syntax = "proto3";
        package t;
        import "drawbridge/v1/options.proto";
        import "drawbridge/v1/watch.proto";
        import "google/api/annotations.proto";
        import "google/api/field_behavior.proto";
        import "google/protobuf/duration.proto";
        import "google/protobuf/struct.proto";
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        {rest}"#
    )
}

/// One service with one rpc of these options, and messages.
fn unary(options: &str, messages: &str) -> String {
    proto(&format!(
        "service S {{ rpc Do(Req) returns (Res) {{ {options} }} }} {messages}"
    ))
}

pub(crate) struct World {
    pub contract: Contract,
    pool: DescriptorPool,
}

impl World {
    pub fn new(proto: &str) -> Self {
        let bytes = descriptors(proto);
        let pool = DescriptorPool::decode(&*bytes).unwrap();
        let source = Source {
            name: "t.binpb".into(),
            bytes,
        };
        match Contract::compile(vec![source]) {
            Ok(contract) => Self { contract, pool },
            Err(refusals) => panic!("{}\n{proto}", told(&refusals)),
        }
    }

    pub fn rpc(&self, name: &str) -> &Method {
        let path = format!("/t.S/{name}");
        self.contract.method(&path).expect(name)
    }

    /// The protobuf bytes of a message given as proto3 JSON.
    pub fn wire(&self, message: &str, json: Json) -> Vec<u8> {
        let descriptor = self.pool.get_message_by_name(message).expect(message);
        DynamicMessage::deserialize(descriptor, json)
            .unwrap()
            .encode_to_vec()
    }

    /// The proto3 JSON of a message given as protobuf bytes.
    pub fn json(&self, message: &str, wire: &[u8]) -> Json {
        let descriptor = self.pool.get_message_by_name(message).expect(message);
        let message = DynamicMessage::decode(descriptor, wire).unwrap();
        let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .unwrap()
    }

    fn bind(&self, request: Json) -> Result<Call, Error> {
        self.bind_in(request, "")
    }

    fn bind_in(&self, request: Json, dialect: &str) -> Result<Call, Error> {
        self.rpc("Do").bind(&self.wire("t.Req", request), dialect)
    }
}

fn told(refusals: &[Refusal]) -> String {
    let lines: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    lines.join("\n")
}

fn refusals(proto: &str) -> Vec<Refusal> {
    let source = Source {
        name: "t.binpb".into(),
        bytes: descriptors(proto),
    };
    Contract::compile(vec![source])
        .map(|_| ())
        .expect_err(proto)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn body(call: &Call) -> Option<&str> {
    call.body.as_deref().map(text)
}

/// The field and the problem of `Error::Binding`.
fn fault(error: &Error) -> (&str, &str) {
    match error {
        Error::Binding { field, problem } => (field, problem),
        other => panic!("not a binding error: {other:?}"),
    }
}

mod binding;
mod decoding;
mod expressions;
pub(crate) mod following;
mod logging;
mod paging;
mod properties;
mod refusing;
mod sharing;
mod watching;
