//! Compares a message with a REST body, member by member.

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, ReflectMessage};
use serde_json::Value;

use super::client::json;

/// Returns all differences, each with its path. A null or missing member equals an unset
/// field; in arbitrary JSON null is null; times are compared as instants, enums by the texts of
/// their value and by their `_raw` text, numbers by value.
pub fn differences(message: &DynamicMessage, rest: &Value) -> Vec<String> {
    let mut found = Vec::new();
    object(message, rest, "", &mut found);
    found
}

fn object(message: &DynamicMessage, rest: &Value, path: &str, found: &mut Vec<String>) {
    let Some(members) = rest.as_object() else {
        if let (Some(items), Some(field)) = (rest.as_array(), array_field(message)) {
            return list(message, &field, items, path, found);
        }
        let bare_text = message_rule(&message.descriptor(), "bare_text");
        if let (true, Some(name)) = (rest.is_string(), bare_text) {
            let mut whole = serde_json::Map::new();
            whole.insert(name.as_str().unwrap().to_owned(), rest.clone());
            return object(message, &Value::Object(whole), path, found);
        }
        if !(rest.is_null() && message.fields().next().is_none()) {
            found.push(format!("{path}: {rest} is no object"));
        }
        return;
    };
    let descriptor = message.descriptor();
    let mut known = Vec::new();
    let mut extras = Value::Null;
    for field in descriptor.fields() {
        let is_derived = |name: &&str| rule(&field, name).is_some();
        if ["raw_of", "urls_of", "gateway_only"].iter().any(is_derived) {
            continue;
        }
        if rule(&field, "additional_properties").is_some() {
            extras = json(message)[field.name()].clone();
            continue;
        }
        let names = rest_names(&field);
        let member = names.iter().find_map(|n| members.get(n));
        known.extend(names.clone());
        let path = format!("{path}.{}", names[0]);
        value(message, &field, member, &path, found);
    }
    for (name, member) in members.iter().filter(|(n, _)| !known.contains(n)) {
        if extras.get(name).is_some_and(|got| same(got, member)) {
            continue;
        }
        found.push(format!("{path}.{name}: the message has no such field"));
    }
}

fn value(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    member: Option<&Value>,
    path: &str,
    found: &mut Vec<String>,
) {
    let rest = member.unwrap_or(&Value::Null);
    let mut differ =
        |got: &dyn std::fmt::Display| found.push(format!("{path}: {got} is not {rest}"));
    let own = json(message);
    let got = &own[field.name()];
    let is = |name: &str| matches!(field.kind(), Kind::Message(m) if m.full_name() == name);
    if is("google.protobuf.Value") && !field.is_list() {
        // Arbitrary JSON: null differs from missing.
        if message.has_field(field) != member.is_some() || !same(got, rest) {
            differ(got);
        }
    } else if matches!(field.kind(), Kind::Enum(_)) && !field.is_list() {
        let raw = format!("{}_raw", field.name());
        if !same(&own[raw.as_str()], rest) {
            differ(&own[raw.as_str()]);
        }
        let number = message.get_field(field).as_enum_number();
        let want = enum_number(field, rest);
        if number != Some(want) {
            found.push(format!("{path}: enum {number:?} is not {want} ({rest})"));
        }
    } else if rest.is_null() {
        if message.has_field(field) {
            differ(got);
        }
    } else if is("google.protobuf.Timestamp") {
        let millis = rule(field, "form").and_then(|f| f.as_enum_number()) == Some(2);
        let when = |v: &Value| match v.as_str() {
            Some(text) if !millis || text.contains('-') => instant(text),
            Some(text) => Some(of_millis(text.parse().ok()?)),
            None => Some(of_millis(v.as_i64().filter(|_| millis)?)),
        };
        if when(got).is_none() || when(got) != when(rest) {
            differ(got);
        }
    } else if let (Kind::Message(_), true, false) = (field.kind(), field.is_list(), field.is_map())
    {
        match rest.as_array() {
            Some(items) => list(message, field, items, path, found),
            None => differ(&"a list"),
        }
    } else if let (Some(members), true) = (rest.as_object(), has_message_values(field)) {
        entries(message, field, members, path, found);
    } else if let (Value::Bool(told), Value::String(text)) = (got, rest) {
        // A bool as text.
        if rule(field, "form").is_none() || *text != told.to_string() {
            differ(told);
        }
    } else if let (Kind::Message(m), false) = (field.kind(), field.is_map()) {
        if m.full_name().starts_with("google.protobuf.") {
            if !same(got, rest) {
                differ(got);
            }
        } else {
            object(
                message.get_field(field).as_message().unwrap(),
                rest,
                path,
                found,
            );
        }
    } else if let (Value::Array(list), Value::String(text)) = (got, rest) {
        // A comma list.
        let texts: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .collect();
        if *list != texts {
            differ(got);
        }
    } else {
        let default;
        let got = if got.is_null() {
            // An implicit field at its default is not in the JSON.
            default = match rest {
                Value::String(_) => Value::from(""),
                Value::Bool(_) => Value::from(false),
                Value::Number(_) => Value::from(0),
                Value::Array(_) => Value::Array(Vec::new()),
                Value::Object(_) => Value::Object(serde_json::Map::new()),
                _ => Value::Null,
            };
            if field.supports_presence() {
                got
            } else {
                &default
            }
        } else {
            got
        };
        if !same(got, rest) {
            differ(got);
        }
    }
}

/// The items of a list of messages.
fn list(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    items: &[Value],
    path: &str,
    found: &mut Vec<String>,
) {
    let got = message.get_field(field);
    let got = got.as_list().unwrap();
    if got.len() != items.len() {
        return found.push(format!(
            "{path}: {} items are not {}",
            got.len(),
            items.len()
        ));
    }
    for (i, (got, rest)) in got.iter().zip(items).enumerate() {
        let path = format!("{path}[{i}]");
        match got.as_message() {
            Some(got) if !got.descriptor().full_name().starts_with("google.protobuf.") => {
                object(got, rest, &path, found);
            }
            Some(got) => {
                let got = json(got);
                if !same(&got, rest) {
                    found.push(format!("{path}: {got} is not {rest}"));
                }
            }
            None => found.push(format!("{path}: is no message")),
        }
    }
}

/// Returns whether the field is a map of messages of the contract's own.
fn has_message_values(field: &FieldDescriptor) -> bool {
    let Kind::Message(entry) = field.kind() else {
        return false;
    };
    field.is_map()
        && matches!(entry.map_entry_value_field().kind(), Kind::Message(m)
            if !m.full_name().starts_with("google.protobuf."))
}

/// The entries of a map of messages.
fn entries(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    members: &serde_json::Map<String, Value>,
    path: &str,
    found: &mut Vec<String>,
) {
    let got = message.get_field(field);
    let got = got.as_map().unwrap();
    if got.len() != members.len() {
        found.push(format!(
            "{path}: {} entries are not {}",
            got.len(),
            members.len()
        ));
    }
    for (name, rest) in members {
        let path = format!("{path}.{name}");
        match got.get(&prost_reflect::MapKey::String(name.clone())) {
            Some(got) => object(got.as_message().unwrap(), rest, &path, found),
            None => found.push(format!("{path}: is missing")),
        }
    }
}

/// The field that a bare array is read as.
pub fn array_field(message: &DynamicMessage) -> Option<FieldDescriptor> {
    let descriptor = message.descriptor();
    ["as_array", "bare_array"].iter().find_map(|option| {
        let name = message_rule(&descriptor, option)?;
        descriptor.get_field_by_name(name.as_str()?)
    })
}

/// The value of a member of `(drawbridge.v1.message)`, if it is set.
pub fn message_rule(
    message: &prost_reflect::MessageDescriptor,
    member: &str,
) -> Option<prost_reflect::Value> {
    let extension = message
        .parent_pool()
        .get_extension_by_name("drawbridge.v1.message")?;
    let options = message.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let rules = options.get_extension(&extension).into_owned();
    let rules = rules.as_message()?;
    let member = rules.descriptor().get_field_by_name(member)?;
    rules
        .has_field(&member)
        .then(|| rules.get_field(&member).into_owned())
}

/// The value of a member of `(drawbridge.v1.method)`, if it is set.
pub fn method_rule(
    method: &prost_reflect::MethodDescriptor,
    member: &str,
) -> Option<prost_reflect::Value> {
    let extension = method
        .parent_pool()
        .get_extension_by_name("drawbridge.v1.method")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let rules = options.get_extension(&extension).into_owned();
    let rules = rules.as_message()?;
    let member = rules.descriptor().get_field_by_name(member)?;
    rules
        .has_field(&member)
        .then(|| rules.get_field(&member).into_owned())
}

fn of_millis(millis: i64) -> (i64, i32) {
    let nanos = millis.rem_euclid(1000) as i32 * 1_000_000;
    (millis.div_euclid(1000), nanos)
}

/// Equal as JSON, numbers by value.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.as_f64() == y.as_f64() && x.as_f64().is_some())
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        // A number where a string is documented.
        (Value::String(x), Value::Number(y)) => *x == y.to_string(),
        _ => a == b,
    }
}

fn instant(text: &str) -> Option<(i64, i32)> {
    let mut text = text.trim().replace(' ', "T");
    // `+0900` without a colon, and times without a zone.
    let zone = text.len().checked_sub(5).map(|at| text.split_at(at));
    if let Some((_, zone)) = zone
        && zone.starts_with(['+', '-'])
        && zone[1..].bytes().all(|b| b.is_ascii_digit())
    {
        text.insert(text.len() - 2, ':');
    } else if !text.ends_with('Z') && !text[10..].contains(['+', '-']) {
        text.push('Z');
    }
    let time: prost_types::Timestamp = text.parse().ok()?;
    Some((time.seconds, time.nanos))
}

/// Returns the REST names of a field, the canonical one first.
pub fn rest_names(field: &FieldDescriptor) -> Vec<String> {
    let file_is_camel = file_naming_is_json(field);
    let mut names = vec![match rule(field, "name") {
        Some(name) => name.as_str().unwrap().to_owned(),
        None if file_is_camel => field.json_name().to_owned(),
        None => field.name().to_owned(),
    }];
    if let Some(aliases) = rule(field, "aliases") {
        names.extend(
            aliases
                .as_list()
                .unwrap()
                .iter()
                .map(|a| a.as_str().unwrap().to_owned()),
        );
    }
    names
}

/// Returns the number of the enum value that has the member as one of its texts; 0 for none.
fn enum_number(field: &FieldDescriptor, member: &Value) -> i32 {
    let Kind::Enum(of_enum) = field.kind() else {
        panic!("{} is no enum", field.full_name());
    };
    let text = match member {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return 0,
    };
    let option = |options: DynamicMessage, extension: &str, name: &str| {
        let pool = of_enum.parent_pool();
        let extension = pool.get_extension_by_name(extension)?;
        let rules = options.get_extension(&extension).into_owned();
        let value = rules.as_message()?.get_field_by_name(name)?.into_owned();
        Some(value)
    };
    let lenient = option(of_enum.options(), "drawbridge.v1.enum_type", "lenient");
    let is_lenient = lenient.is_some_and(|value| value.as_bool() == Some(true));
    let letters = |text: &str| -> String {
        let letters = text.chars().filter(|c| c.is_ascii_alphabetic());
        letters.collect::<String>().to_ascii_lowercase()
    };
    let prefix = upper_snake(of_enum.name()) + "_";
    let mut values = of_enum.values().filter(|value| value.number() != 0);
    let found = values.find(|value| {
        let own = |name| option(value.options(), "drawbridge.v1.enum_value", name);
        let name = own("name").and_then(|name| name.as_str().map(str::to_owned));
        let name = name.filter(|name| !name.is_empty());
        let short = value.name().strip_prefix(&*prefix).unwrap_or(value.name());
        let mut texts = vec![name.unwrap_or(short.to_owned()), value.name().to_owned()];
        if let Some(aliases) = own("aliases") {
            let aliases = aliases.as_list().unwrap_or_default().iter();
            texts.extend(aliases.filter_map(|alias| alias.as_str().map(str::to_owned)));
        }
        let equals = |own: &String| *own == text || is_lenient && letters(own) == letters(&text);
        texts.iter().any(equals)
    });
    found.map_or(0, |value| value.number())
}

/// Returns `TASK_STATUS` for `TaskStatus`.
fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for (i, c) in name.char_indices() {
        if i > 0 && c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_uppercase());
    }
    snake
}

/// The value of a member of `(drawbridge.v1.field)`, if it is set.
pub fn rule(field: &FieldDescriptor, member: &str) -> Option<prost_reflect::Value> {
    let extension: ExtensionDescriptor = field
        .parent_pool()
        .get_extension_by_name("drawbridge.v1.field")?;
    let options = field.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let rules = options.get_extension(&extension).into_owned();
    let rules = rules.as_message()?;
    let member = rules.descriptor().get_field_by_name(member)?;
    rules
        .has_field(&member)
        .then(|| rules.get_field(&member).into_owned())
}

fn file_naming_is_json(field: &FieldDescriptor) -> bool {
    let Some(extension) = field
        .parent_pool()
        .get_extension_by_name("drawbridge.v1.file")
    else {
        return false;
    };
    let options = field.parent_file().options();
    if !options.has_extension(&extension) {
        return false;
    }
    let rules = options.get_extension(&extension).into_owned();
    let rules = rules.as_message().unwrap();
    let naming = rules.get_field_by_name("naming").unwrap().into_owned();
    naming.as_enum_number() == Some(2)
}
