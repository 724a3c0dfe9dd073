//! Reads descriptor sets. Sets that the descriptor library cannot serve are rejected with
//! the proto file and the reason.

use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::{Diagnostic, Source};
use crate::json::wire::{self, Value};
use crate::schema::Schema;

/// The number of `FileDescriptorSet.file`.
const FILE: u32 = 1;

/// The number of `FileDescriptorProto.edition`.
const EDITION: u32 = 14;

/// Messages of `google.protobuf` that have a value, and nothing else.
const WRAPPERS: [&str; 9] = [
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];

/// Builds the descriptors of a set and its tables. Panics for some contradictions.
pub(super) fn read(source: &Source) -> Result<(DescriptorPool, Schema), Vec<Diagnostic>> {
    let set = match FileDescriptorSet::decode(&*source.bytes) {
        Ok(set) => set,
        Err(problem) => return Err(vec![incomplete(source, &problem.to_string())]),
    };
    let diagnostics = check(&set, &source.bytes);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let pool = DescriptorPool::decode(&*source.bytes)
        .map_err(|problem| vec![incomplete(source, &problem.to_string())])?;
    let schema = Schema::build(&pool)?;
    Ok((pool, schema))
}

/// Reports a set that is not what a compiler writes.
pub(super) fn incomplete(source: &Source, problem: &str) -> Diagnostic {
    Diagnostic {
        file: source.name.clone(),
        element: String::new(),
        option: String::new(),
        problem: format!(
            "not a complete descriptor set ({problem}): create one with `buf build -o my.binpb`, \
             or `protoc --include_imports --descriptor_set_out=my.binpb`"
        ),
    }
}

/// Reports what the library does not check.
fn check(set: &FileDescriptorSet, bytes: &[u8]) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let raw = wire::all(bytes, FILE).unwrap_or_default();
    for (at, file) in set.file.iter().enumerate() {
        let mut report = |element: &str, problem: String| {
            diagnostics.push(Diagnostic {
                file: file.name().to_owned(),
                element: element.to_owned(),
                option: String::new(),
                problem,
            });
        };
        match file.syntax.as_deref() {
            None | Some("proto2" | "proto3") => {}
            Some("editions") => {
                let edition = raw.get(at).and_then(|file| wire::last(file, EDITION).ok()?);
                let edition = match edition {
                    Some(Value::Varint(1_000)) => " 2023",
                    Some(Value::Varint(1_001)) => " 2024",
                    _ => "",
                };
                let problem = format!(
                    "uses edition{edition}, and editions are not supported: write `syntax = \
                     \"proto3\"`"
                );
                report("", problem);
                continue;
            }
            Some(other) => {
                report("", format!("the syntax `{other}` is not known"));
                continue;
            }
        }
        for message in &file.message_type {
            check_message(message, file.package(), &mut report);
        }
    }
    diagnostics
}

fn check_message(message: &DescriptorProto, parent: &str, report: &mut impl FnMut(&str, String)) {
    let name = match parent {
        "" => message.name().to_owned(),
        parent => format!("{parent}.{}", message.name()),
    };
    let has = |number, field_name| {
        let mut fields = message.field.iter();
        fields.any(|field| field.number() == number && field.name() == field_name)
    };
    let is_entry = message.options.as_ref().is_some_and(|o| o.map_entry());
    if is_entry && !(message.field.len() == 2 && has(1, "key") && has(2, "value")) {
        report(&name, "is the entry of a map without key and value".into());
    }
    let wrapper = name.strip_prefix("google.protobuf.");
    if wrapper.is_some_and(|name| WRAPPERS.contains(&name))
        && !(message.field.len() == 1 && has(1, "value"))
    {
        report(&name, "is a well-known type without its value".into());
    }
    for nested in &message.nested_type {
        check_message(nested, &name, report);
    }
}
