//! Reads requests from JSON: arguments, files and standard input.

use std::io::Read as _;

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::exit_code;
use super::failure::Failure;
use super::names::{did_you_mean, similar};
use super::text::sanitize;

/// How many fields or values an error lists.
const MAX_LISTED: usize = 40;

/// Reads the JSON documents of an argument: JSON, `@FILE`, or `@-` for standard input. Each can
/// have several documents.
fn documents(argument: &str) -> Result<Vec<Value>, String> {
    let (origin, text) = match argument.strip_prefix('@') {
        None => ("the request".to_owned(), argument.to_owned()),
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| format!("standard input: {e}"))?;
            ("standard input".to_owned(), text)
        }
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            (path.to_owned(), text)
        }
    };
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let documents: Result<Vec<Value>, _> = documents.collect();
    let documents = documents.map_err(|e| format!("{origin}: is not JSON: {e}"))?;
    match documents.is_empty() {
        true => Err(format!("{origin}: has no JSON document")),
        false => Ok(documents),
    }
}

/// Reads the requests in arguments, by default one without fields.
pub(in crate::cli) async fn all(
    descriptor: &MessageDescriptor,
    arguments: &[String],
    data: &[String],
) -> Result<Vec<DynamicMessage>, Failure> {
    let arguments: Vec<String> = arguments.iter().chain(data).cloned().collect();
    let documents = match arguments.is_empty() {
        true => vec![Value::Object(Map::new())],
        false => {
            // Standard input can block.
            let read = tokio::task::spawn_blocking(move || {
                let read = arguments.iter().map(|argument| documents(argument));
                read.collect::<Result<Vec<_>, String>>()
            });
            let read = read.await.map_err(|e| Failure::unknown(e.to_string()))?;
            read.map_err(Failure::unknown)?.concat()
        }
    };
    let messages = documents
        .iter()
        .map(|document| message(descriptor, document));
    let messages: Result<_, Vec<String>> = messages.collect();
    messages.map_err(|lines| Failure {
        code: exit_code::UNKNOWN,
        lines,
    })
}

/// Makes a message of JSON in the mapping of protobuf, with the names of fields as in the proto
/// or in lowerCamelCase.
fn message(
    descriptor: &MessageDescriptor,
    document: &Value,
) -> Result<DynamicMessage, Vec<String>> {
    let mut problems = Vec::new();
    find_unknown(descriptor, document, "", &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    decode(descriptor, document).map_err(|problem| {
        let located = locate(descriptor, document, "");
        let (path, problem) = located.unwrap_or((String::new(), problem));
        vec![match &*path {
            "" => format!("the request: {problem}"),
            path => format!("{path}: {problem}"),
        }]
    })
}

fn decode(descriptor: &MessageDescriptor, document: &Value) -> Result<DynamicMessage, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), document, &options)
        .map_err(|e| sanitize(&e.to_string()))
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

/// Collects the members without a field, each with the fields that there are.
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
        for_each_message(&field, value, &path, &mut |message, value, path| {
            find_unknown(message, value, path, problems);
        });
    }
}

/// Visits the messages in the value of a field: one, those of a list, or those of a map.
fn for_each_message(
    field: &FieldDescriptor,
    value: &Value,
    path: &str,
    visit: &mut dyn FnMut(&MessageDescriptor, &Value, &str),
) {
    let Kind::Message(message) = field.kind() else {
        return;
    };
    if field.is_map() {
        let Kind::Message(of_value) = message.map_entry_value_field().kind() else {
            return;
        };
        for (key, value) in value.as_object().into_iter().flatten() {
            visit(&of_value, value, &format!("{path}[{}]", sanitize(key)));
        }
    } else if field.is_list() {
        for (index, value) in value.as_array().into_iter().flatten().enumerate() {
            visit(&message, value, &format!("{path}[{index}]"));
        }
    } else {
        visit(&message, value, path);
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

/// Finds the innermost field whose value cannot be read, and says why.
fn locate(
    descriptor: &MessageDescriptor,
    document: &Value,
    path: &str,
) -> Option<(String, String)> {
    let Value::Object(members) = document else {
        return None;
    };
    if has_own_json(descriptor) {
        return None;
    }
    for (name, value) in members {
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        let Err(problem) = decode(descriptor, &alone) else {
            continue;
        };
        let field = field_of(descriptor, name)?;
        let path = join(path, name);
        let mut inner = None;
        for_each_message(&field, value, &path, &mut |message, value, path| {
            inner = inner.take().or_else(|| {
                let problem = decode(message, value).err()?;
                Some(locate(message, value, path).unwrap_or((path.to_owned(), problem)))
            });
        });
        return Some(inner.unwrap_or_else(|| (path, value_problem(&field, value, problem))));
    }
    None
}

/// Describes a value that its field does not take; of an enum with the values that there are.
fn value_problem(field: &FieldDescriptor, value: &Value, problem: String) -> String {
    let kind = match field.kind() {
        Kind::Message(message) if field.is_map() => message.map_entry_value_field().kind(),
        kind => kind,
    };
    let Kind::Enum(kind) = kind else {
        return problem;
    };
    let names: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let given: Vec<&Value> = match value {
        Value::Array(values) => values.iter().collect(),
        Value::Object(values) => values.values().collect(),
        value => vec![value],
    };
    let unknown = given.iter().filter_map(|value| value.as_str());
    let Some(unknown) = unknown.into_iter().find(|text| !known.contains(text)) else {
        return problem;
    };
    // The prefix of a value may be left out by a client that knows the REST API.
    let suffix = format!("_{}", unknown.to_ascii_uppercase());
    let by_suffix: Vec<&str> = known
        .iter()
        .copied()
        .filter(|name| name.ends_with(&suffix))
        .collect();
    let similar = match by_suffix.is_empty() {
        true => similar(unknown, &known),
        false => by_suffix,
    };
    let hint = did_you_mean(&similar);
    let listed = listed(&known, "values");
    format!(
        "{} has no value {}{hint}{listed}",
        kind.name(),
        sanitize(unknown)
    )
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
                vec![format!(
                    "byName[a].zzzzzz: Item has no such field {of_item}"
                )],
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
                vec![format!("colors: Color has no value GREEN {colors}")],
            ),
            (
                json!({"stack_name": 5}),
                vec!["stack_name: invalid type: integer `5`, expected a string".to_owned()],
            ),
            (
                json!({"items": [{"count": "x"}]}),
                vec!["items[0].count: invalid digit found in string".to_owned()],
            ),
            (
                json!([1]),
                vec!["the request: invalid type: sequence, expected a map".to_owned()],
            ),
        ] {
            assert_eq!(
                message(&request, &document).unwrap_err(),
                want,
                "{document}"
            );
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
            assert!(message(&request, &document).is_ok(), "{document}");
        }
    }

    #[test]
    fn argument_is_json_or_a_file_with_documents() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("requests.json");
        std::fs::write(&file, "{\"a\": 1}\n{\"b\": 2} [3]\n").unwrap();
        let argument = format!("@{}", file.display());
        let want = vec![json!({"a": 1}), json!({"b": 2}), json!([3])];
        assert_eq!(documents(&argument).unwrap(), want);
        assert_eq!(documents("{}").unwrap(), [json!({})]);
        std::fs::write(&file, " \n").unwrap();
        for (argument, want) in [
            (&*argument, "has no JSON document"),
            ("", "the request: has no JSON document"),
            (
                "{\"a\": }",
                "the request: is not JSON: expected value at line 1 column 7",
            ),
            ("@/no/such", "/no/such: No such file"),
        ] {
            let problem = documents(argument).unwrap_err();
            assert!(problem.contains(want), "{problem}");
        }
    }
}
