//! Reads descriptor sets. Sets that the descriptor library cannot read are rejected with
//! the proto file and the reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

use super::{Diagnostic, Source};
use crate::json::wire::{self, Value};
use crate::schema::{Problems, Schema};

/// The number of `FileDescriptorSet.file`.
const FILE: u32 = 1;

/// The number of `FileDescriptorProto.syntax`.
const SYNTAX: u32 = 12;

/// The number of `FileDescriptorProto.edition`.
const EDITION: u32 = 14;

/// The syntax of a file with an edition.
const EDITIONS: &str = "editions";

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

/// A descriptor set.
pub(super) struct Set {
    pub pool: DescriptorPool,
    pub schema: Schema,
    /// The problems of its messages and enums.
    pub problems: Problems,
    /// The problem of each file with an edition, by name.
    pub editions: BTreeMap<String, Diagnostic>,
}

/// Builds the descriptors of a set and its tables. Panics for some contradictions.
pub(super) fn read(source: &Source) -> Result<Set, Vec<Diagnostic>> {
    let set = match FileDescriptorSet::decode(&*source.bytes) {
        Ok(set) => set,
        Err(problem) => return Err(vec![incomplete(source, &problem.to_string())]),
    };
    if set.file.is_empty() {
        return Err(vec![incomplete(source, "it has no file")]);
    }
    let diagnostics = check(&set);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let editions = editions(&set, &source.bytes);
    let pool = decode(&set, source, editions.is_empty())?;
    let (schema, mut problems) = Schema::with_problems(&pool);
    for (message, all) in pool.all_messages().zip(&mut problems.messages) {
        all.extend(editions.get(message.parent_file().name()).cloned());
    }
    for (descriptor, all) in pool.all_enums().zip(&mut problems.enums) {
        all.extend(editions.get(descriptor.parent_file().name()).cloned());
    }
    Ok(Set {
        pool,
        schema,
        problems,
        editions,
    })
}

/// Returns the descriptors of a set that [`read`] accepts.
pub(super) fn pool(source: &Source) -> Result<DescriptorPool, Vec<Diagnostic>> {
    let set = FileDescriptorSet::decode(&*source.bytes)
        .map_err(|problem| vec![incomplete(source, &problem.to_string())])?;
    let has_editions = !editions(&set, &source.bytes).is_empty();
    decode(&set, source, !has_editions)
}

fn decode(
    set: &FileDescriptorSet,
    source: &Source,
    is_plain: bool,
) -> Result<DescriptorPool, Vec<Diagnostic>> {
    let bytes = match is_plain {
        true => Cow::Borrowed(&*source.bytes),
        false => Cow::Owned(without_editions(set, &source.bytes)),
    };
    DescriptorPool::decode(&*bytes)
        .map_err(|problem| vec![incomplete(source, &problem.to_string())])
}

/// Returns the problem of each file with an edition.
fn editions(set: &FileDescriptorSet, bytes: &[u8]) -> BTreeMap<String, Diagnostic> {
    let raw = wire::all(bytes, FILE).unwrap_or_default();
    let problem = |(file, raw): (&FileDescriptorProto, &[u8])| {
        let name = edition(file, raw)?;
        let diagnostic = Diagnostic {
            file: file.name().to_owned(),
            element: String::new(),
            option: String::new(),
            problem: format!(
                "uses edition{name}, and editions are not supported: write `syntax = \
                 \"proto3\"`"
            ),
        };
        Some((diagnostic.file.clone(), diagnostic))
    };
    set.file.iter().zip(raw).filter_map(problem).collect()
}

/// Returns the name of the file's edition, after a space, where it has one: a compiler sets
/// `syntax` with it, other tools may not.
fn edition(file: &FileDescriptorProto, raw: &[u8]) -> Option<&'static str> {
    match wire::last(raw, EDITION) {
        Ok(Some(Value::Varint(1_000))) => Some(" 2023"),
        Ok(Some(Value::Varint(1_001))) => Some(" 2024"),
        // None, legacy, proto2 and proto3.
        Ok(None | Some(Value::Varint(0 | 900 | 998 | 999))) if file.syntax() != EDITIONS => None,
        _ => Some(""),
    }
}

/// Returns the set with proto2, the syntax with the fewest restrictions, instead of editions:
/// the descriptor library does not read editions. No served rpc uses these files.
fn without_editions(set: &FileDescriptorSet, bytes: &[u8]) -> Vec<u8> {
    let raw = wire::all(bytes, FILE).unwrap_or_default();
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for (file, raw) in set.file.iter().zip(raw) {
        let has_edition = edition(file, raw).is_some();
        let mut raw = raw.to_vec();
        if has_edition {
            // The last value of a field counts.
            wire::write_bytes(&mut raw, SYNTAX, b"proto2");
        }
        wire::write_bytes(&mut out, FILE, &raw);
    }
    out
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
fn check(set: &FileDescriptorSet) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for file in &set.file {
        let mut report = |element: &str, problem: String| {
            diagnostics.push(Diagnostic {
                file: file.name().to_owned(),
                element: element.to_owned(),
                option: String::new(),
                problem,
            });
        };
        match file.syntax.as_deref() {
            None | Some("proto2" | "proto3" | EDITIONS) => {}
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
