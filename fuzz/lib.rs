//! What the targets need: the tables of the transcoder's own test proto.

pub mod wire_mutation;

use std::path::Path;
use std::sync::LazyLock;

use drawbridge_transcoder::schema::{MessageId, Schema};
use prost_reflect::DescriptorPool;

/// The messages that are fuzzed; the first byte of an input picks one.
const MESSAGES: [&str; 4] = ["test.All", "test.Ruled", "test.Envelope", "test.Inner"];

/// The encoded descriptor set of the test proto.
pub static DESCRIPTOR_SET: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = [root.join("crates/transcoder/src/json/tests"), root.join("proto")];
    let mut compiler = protox::Compiler::new(folders).expect("the folders are there");
    compiler
        .include_imports(true)
        .open_file("test.proto")
        .expect("the test proto compiles");
    compiler.encode_file_descriptor_set()
});

/// The test proto as descriptors.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR_SET.as_slice()).expect("protox encodes what it compiles")
});

/// The test proto as tables.
pub static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::build(&POOL).expect("the test proto has no contradictions"));

/// The message that an input is for, and the rest of the input.
pub fn pick(input: &[u8]) -> Option<(&'static str, MessageId, &[u8])> {
    let (first, rest) = input.split_first()?;
    let name = MESSAGES[usize::from(*first) % MESSAGES.len()];
    Some((name, SCHEMA.message_id(name)?, rest))
}
