//! Reads requests from JSON: arguments, files and standard input.

use std::io::Read as _;

use drawbridge_transcoder::contract::CanonicalJson;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::exit_code;
use super::failure::Failure;
use super::names::{did_you_mean, similar};
use super::text::sanitize;

/// How many fields or values an error lists.
const MAX_LISTED: usize = 40;

/// A JSON document in an argument.
struct Document {
    /// The argument, as errors name it.
    origin: String,
    text: Box<RawValue>,
}

/// Reads the JSON documents of an argument: JSON, `@FILE`, or `@-` for standard input. Each can
/// have several documents.
fn documents(argument: &str) -> Result<Vec<Document>, String> {
    let (origin, text) = match argument.strip_prefix('@') {
        None => ("the request".to_owned(), argument.to_owned()),
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| format!("standard input: {e}"))?;
            ("standard input".to_owned(), text)
        }
        Some("") => return Err("@: write @FILE, or @- for standard input".to_owned()),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            (path.to_owned(), text)
        }
    };
    // Editors of Windows begin files with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>();
    let documents: Result<Vec<_>, _> = documents.collect();
    let documents = documents.map_err(|e| format!("{origin}: is not JSON: {e}"))?;
    match documents.is_empty() {
        true => Err(format!("{origin}: has no JSON document")),
        false => {
            let documents = documents.into_iter();
            let origin = || origin.clone();
            Ok(documents
                .map(|text| Document {
                    origin: origin(),
                    text,
                })
                .collect())
        }
    }
}

/// Reads the requests in arguments, by default one without fields.
pub(in crate::cli) async fn all(
    descriptor: &MessageDescriptor,
    arguments: &[String],
    data: &[String],
) -> Result<Vec<DynamicMessage>, Failure> {
    let arguments: Vec<String> = arguments.iter().chain(data).cloned().collect();
    if arguments.is_empty() {
        return Ok(vec![DynamicMessage::new(descriptor.clone())]);
    }
    let descriptor = descriptor.clone();
    // Standard input can block.
    let read = tokio::task::spawn_blocking(move || {
        let documents = arguments.iter().map(|argument| documents(argument));
        let documents = documents.collect::<Result<Vec<_>, String>>();
        let documents = documents.map_err(|problem| vec![problem])?;
        let json = CanonicalJson::of(descriptor.parent_pool());
        let messages = documents.iter().flatten();
        messages
            .map(|document| message(&descriptor, &json, document))
            .collect::<Result<_, Vec<String>>>()
    });
    let read = read.await.map_err(|e| Failure::unknown(e.to_string()))?;
    read.map_err(|lines| Failure {
        code: exit_code::UNKNOWN,
        lines,
    })
}

/// Makes a message of JSON in the mapping of protobuf, with the names of fields as in the proto
/// or in lowerCamelCase. The gateway reads the JSON of clients alike.
fn message(
    descriptor: &MessageDescriptor,
    json: &CanonicalJson,
    document: &Document,
) -> Result<DynamicMessage, Vec<String>> {
    let text = document.text.get();
    // All unknown names at once, with similar ones. Text that is not JSON fails below.
    if let Ok(value) = serde_json::from_str(text) {
        let mut problems = Vec::new();
        find_unknown(descriptor, &value, "", &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
    }
    let one = |problem: String| vec![format!("{}: {problem}", document.origin)];
    let message = json.message(descriptor.full_name());
    let message = message.ok_or_else(|| one("the gateway does not describe it".to_owned()))?;
    let wire = json.to_wire(message, text.as_bytes());
    let wire = wire.map_err(|problem| match &*problem.path {
        "" => one(problem.problem),
        _ => vec![sanitize(&problem.to_string())],
    })?;
    DynamicMessage::decode(descriptor.clone(), wire).map_err(|e| one(e.to_string()))
}

/// Returns whether the JSON of this message is not an object of its fields.
fn has_own_json(descriptor: &MessageDescriptor) -> bool {
    let name = descriptor.full_name();
    let Some(name) = name.strip_prefix("google.protobuf.") else {
        return false;
    };
    let names = [
        "Any",
        "Timestamp",
        "Duration",
        "FieldMask",
        "Struct",
        "ListValue",
        "Value",
        "Empty",
    ];
    // Wrappers, such as StringValue.
    names.contains(&name) || name.ends_with("Value")
}

fn field_of(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    let by_json = descriptor.get_field_by_json_name(name);
    by_json.or_else(|| descriptor.get_field_by_name(name))
}

fn join(path: &str, name: &str) -> String {
    let name = sanitize(name);
    match path {
        "" => name,
        path => format!("{path}.{name}"),
    }
}

/// Collects the members without a field, each with the fields that there are, and the names of
/// values that an enum does not have.
fn find_unknown(
    descriptor: &MessageDescriptor,
    document: &Value,
    path: &str,
    problems: &mut Vec<String>,
) {
    let Value::Object(members) = document else {
        return;
    };
    if has_own_json(descriptor) {
        return;
    }
    for (name, value) in members {
        let path = join(path, name);
        let Some(field) = field_of(descriptor, name) else {
            problems.push(unknown_field(descriptor, name, &path));
            continue;
        };
        for_each_value(&field, value, &path, &mut |kind, value, path| match kind {
            Kind::Message(message) => find_unknown(message, value, path, problems),
            Kind::Enum(kind) => {
                let text = value.as_str();
                problems.extend(text.and_then(|text| unknown_value(kind, text, path)));
            }
            _ => {}
        });
    }
}

/// Visits the value of a field: one, those of a list, or those of a map.
fn for_each_value(
    field: &FieldDescriptor,
    value: &Value,
    path: &str,
    visit: &mut dyn FnMut(&Kind, &Value, &str),
) {
    let kind = field.kind();
    match &kind {
        Kind::Message(entry) if field.is_map() => {
            let of_value = entry.map_entry_value_field().kind();
            for (key, value) in value.as_object().into_iter().flatten() {
                visit(&of_value, value, &join(path, key));
            }
        }
        _ if field.is_list() => {
            for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                visit(&kind, value, &format!("{path}[{index}]"));
            }
        }
        _ => visit(&kind, value, path),
    }
}

/// Describes a member without a field: similar fields first, then all.
fn unknown_field(descriptor: &MessageDescriptor, name: &str, path: &str) -> String {
    let fields: Vec<String> = descriptor.fields().map(|f| f.name().to_owned()).collect();
    let known: Vec<&str> = fields.iter().map(String::as_str).collect();
    let similar = similar(name, &known);
    let mut text = format!("{path}: {} has no such field", descriptor.name());
    text += &did_you_mean(&similar);
    text + &listed(&known, "fields")
}

fn listed(known: &[&str], what: &str) -> String {
    let shown = known.len().min(MAX_LISTED);
    match known {
        [] => format!(" (it has no {what})"),
        _ if shown < known.len() => format!(
            " ({what}: {} and {} more)",
            known[..shown].join(", "),
            known.len() - shown
        ),
        _ => format!(" ({what}: {})", known.join(", ")),
    }
}

/// Describes a text that an enum does not have: similar values first, then all.
fn unknown_value(kind: &EnumDescriptor, text: &str, path: &str) -> Option<String> {
    let names: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    if known.contains(&text) {
        return None;
    }
    // The prefix of a value may be left out by a client that knows the REST API.
    let suffix = format!("_{}", text.to_ascii_uppercase());
    let by_suffix: Vec<&str> = known
        .iter()
        .copied()
        .filter(|name| name.ends_with(&suffix))
        .collect();
    let similar = match by_suffix.is_empty() {
        true => similar(text, &known),
        false => by_suffix,
    };
    let hint = did_you_mean(&similar);
    let listed = listed(&known, "values");
    let (kind, text) = (kind.name(), sanitize(text));
    Some(format!("{path}: {kind} has no value {text}{hint}{listed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn api() -> prost_reflect::DescriptorPool {
        let folder = tempfile::tempdir().unwrap();
        let proto = "syntax = 'proto3'; package acme.v1;
            import 'google/protobuf/struct.proto';
            import 'google/protobuf/timestamp.proto';
            enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; COLOR_BLUE = 2; }
            message Item { string item_name = 1; int32 count = 2; Color color = 3; }
            message Nothing {}
            message Request {
              string stack_name = 1; int64 size = 2; repeated Item items = 3;
              map<string, Item> by_name = 4; google.protobuf.Struct any = 5;
              google.protobuf.Timestamp at = 6; Nothing nothing = 7; bytes data = 8;
              repeated Color colors = 9; Item item = 10; bool deep = 11;
            }";
        std::fs::write(folder.path().join("a.proto"), proto).unwrap();
        let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
        compiler.open_file("a.proto").unwrap();
        compiler.descriptor_pool()
    }

    fn read(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, Vec<String>> {
        let json = CanonicalJson::of(descriptor.parent_pool());
        let mut documents = documents(text).map_err(|problem| vec![problem])?;
        message(descriptor, &json, &documents.remove(0))
    }

    /// As the gateway reads the JSON of Connect: nothing is lost or guessed.
    #[test]
    fn what_the_gateway_rejects_is_rejected() {
        let pool = api();
        let request = pool.get_message_by_name("acme.v1.Request").unwrap();
        for (text, want) in [
            (
                r#"{"stack_name": "a", "stack_name": "b"}"#,
                "stack_name: the field is there twice",
            ),
            (
                r#"{"stack_name": "a", "stackName": "b"}"#,
                "stackName: the field is there twice",
            ),
            (
                r#"{"items": [{}, {"count": 1, "count": 2}]}"#,
                "items[1].count: the field is there twice",
            ),
            (
                r#"{"by_name": {"a": {}, "a": {}}}"#,
                "by_name.a: the key is there twice",
            ),
            (
                r#"{"items": [{"count": 1.5}]}"#,
                "items[0].count: expected an integer",
            ),
            ("null", "the request: expected an object, found null"),
        ] {
            let problems = read(&request, text).unwrap_err();
            assert!(problems[0].starts_with(want), "{text}: {problems:?}");
        }
    }

    #[test]
    fn unknown_fields_and_values_are_answered_with_those_that_exist() {
        let pool = api();
        let request = pool.get_message_by_name("acme.v1.Request").unwrap();
        let all = "(fields: stack_name, size, items, by_name, any, at, nothing, data, colors, \
                   item, deep)";
        let of_item = "(fields: item_name, count, color)";
        let colors = "(values: COLOR_UNSPECIFIED, COLOR_RED, COLOR_BLUE)";
        for (document, want) in [
            (
                json!({"stack_nam": "x"}),
                vec![format!(
                    "stack_nam: Request has no such field; did you mean stack_name? {all}"
                )],
            ),
            (
                json!({"name": "x", "items": [{}, {"cuont": 1}]}),
                vec![
                    format!(
                        "name: Request has no such field; did you mean by_name or stack_name? {all}"
                    ),
                    format!(
                        "items[1].cuont: Item has no such field; did you mean count? {of_item}"
                    ),
                ],
            ),
            (
                json!({"byName": {"a": {"zzzzzz": 1}}}),
                vec![format!("byName.a.zzzzzz: Item has no such field {of_item}")],
            ),
            (
                json!({"nothing": {"x": 1}}),
                vec!["nothing.x: Nothing has no such field (it has no fields)".to_owned()],
            ),
            (
                json!({"item": {"color": "COLOR_RAD"}}),
                vec![format!(
                    "item.color: Color has no value COLOR_RAD; did you mean COLOR_RED? {colors}"
                )],
            ),
            (
                json!({"items": [{"color": "blue"}]}),
                vec![format!(
                    "items[0].color: Color has no value blue; did you mean COLOR_BLUE? {colors}"
                )],
            ),
            (
                json!({"colors": ["COLOR_RED", "GREEN"]}),
                vec![format!("colors[1]: Color has no value GREEN {colors}")],
            ),
            (
                json!({"stack_name": 5}),
                vec!["stack_name: expected a string, found a JSON number".to_owned()],
            ),
            (
                json!({"items": [{"count": "x"}]}),
                vec!["items[0].count: expected an integer, found a JSON string".to_owned()],
            ),
            (
                json!([1]),
                vec!["the request: expected an object, found a JSON array".to_owned()],
            ),
        ] {
            let problems = read(&request, &document.to_string()).unwrap_err();
            assert_eq!(problems, want, "{document}");
        }
    }

    #[test]
    fn fields_are_named_as_in_the_proto_or_in_camel_case() {
        let pool = api();
        let request = pool.get_message_by_name("acme.v1.Request").unwrap();
        for document in [
            json!({"stack_name": "x", "size": "9007199254740993", "any": {"free": {"form": 1}}}),
            json!({"stackName": "x", "size": 5, "at": "2026-11-21T12:00:01Z", "nothing": {}}),
            json!({"by_name": {"a": {"color": 1}}, "item": null, "data": "aGk=", "deep": true}),
            json!({}),
        ] {
            read(&request, &document.to_string()).unwrap();
        }
    }

    #[test]
    fn argument_is_json_or_a_file_with_documents() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("requests.json");
        std::fs::write(&file, "{\"a\": 1}\n{\"b\": 2} [3]\n").unwrap();
        let argument = format!("@{}", file.display());
        let texts = |argument: &str| -> Result<Vec<String>, String> {
            let documents = documents(argument)?.into_iter();
            Ok(documents.map(|one| one.text.get().to_owned()).collect())
        };
        let want = [r#"{"a": 1}"#, r#"{"b": 2}"#, "[3]"];
        assert_eq!(texts(&argument).unwrap(), want);
        assert_eq!(texts("{}").unwrap(), ["{}"]);
        // As editors of Windows write it.
        std::fs::write(&file, "\u{feff}{\"a\": 1}\r\n").unwrap();
        assert_eq!(texts(&argument).unwrap(), want[..1]);
        std::fs::write(&file, " \n").unwrap();
        for (argument, want) in [
            (&*argument, "has no JSON document"),
            ("", "the request: has no JSON document"),
            (
                "{\"a\": }",
                "the request: is not JSON: expected value at line 1 column 7",
            ),
            ("@/no/such", "/no/such: No such file"),
            ("@", "@: write @FILE"),
        ] {
            let problem = texts(argument).unwrap_err();
            assert!(problem.contains(want), "{problem}");
        }
    }
}
