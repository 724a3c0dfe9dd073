//! Validation of request bodies with tables of members.
//!
//! Members that no table names are dropped, as the service does with unknown ones; the
//! content of a member is kept unchanged.

use serde_json::Value;

use super::errors::invalid;
use crate::message::Response;

/// A JSON object.
pub type Object = serde_json::Map<String, Value>;

/// Maximum size of a body, which bounds the memory of a resource; the sandbox's own
/// limit.
const MAX_BODY_BYTES: usize = 64 << 10;

/// A member of a body.
#[derive(Clone, Copy)]
pub struct Member {
    name: &'static str,
    kind: Kind,
    required: bool,
}

/// Type of a member.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string with a maximum number of characters.
    Text(usize),
    /// A string of 1 to 64 characters, all of which satisfy the function.
    Name(fn(char) -> bool),
    /// `^([0-9]+)(.[0-9]+){2,3}$`, at most 64 characters. The dot matches any character
    /// (docs/apis/servicestage.md, "Quirks").
    Version,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    Integer,
    Number,
    Flag,
    /// An object with at least these members.
    Object(&'static [Member]),
    /// A list of such objects.
    List(&'static [Member]),
    /// A list of strings.
    Texts,
    /// At most 20 pairs; key 1 to 36 characters, value 2 to 43
    /// (docs/apis/servicestage.md, "Common rules").
    Labels,
    Any,
}

/// Declares a required member; a string must not be empty.
pub const fn required(name: &'static str, kind: Kind) -> Member {
    Member {
        name,
        kind,
        required: true,
    }
}

/// Declares an optional member; null is absent.
pub const fn optional(name: &'static str, kind: Kind) -> Member {
    Member {
        name,
        kind,
        required: false,
    }
}

/// Characters of the names of environments (docs/apis/servicestage.md, "Common rules").
pub fn is_environment_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

/// Characters of the names of components.
pub fn is_component_name_char(c: char) -> bool {
    is_environment_name_char(c) || c == '_'
}

/// Characters of the names of applications and most other resources.
pub fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// Returns the members of the body that the table names.
pub fn read(body: &[u8], members: &[Member]) -> Result<Object, Response> {
    if body.len() > MAX_BODY_BYTES {
        return Err(invalid(
            "The body is longer than the 64 KiB that the sandbox keeps.",
        ));
    }
    let mut whole: Object =
        serde_json::from_slice(body).map_err(|_| invalid("The body is not a JSON object."))?;
    check(&whole, members, "")?;
    let mut known = Object::new();
    for member in members {
        if let Some(value) = whole.remove(member.name).filter(|value| !value.is_null()) {
            known.insert(member.name.to_owned(), value);
        }
    }
    Ok(known)
}

/// Sets defaults for missing members.
pub fn fill(body: &mut Object, defaults: Value) {
    if let Value::Object(defaults) = defaults {
        for (name, value) in defaults {
            body.entry(name).or_insert(value);
        }
    }
}

/// Returns the text of a member, or an empty string.
pub fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a member, or null.
pub fn member<'a>(object: &'a Object, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

/// Returns the strings of a list member.
pub fn texts(object: &Object, name: &str) -> Vec<String> {
    let list = object.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn check(object: &Object, members: &[Member], place: &str) -> Result<(), Response> {
    for member in members {
        let path = format!("{place}{}", member.name);
        match object.get(member.name).filter(|value| !value.is_null()) {
            None if member.required => return Err(invalid(format!("{path} is missing."))),
            None => {}
            Some(Value::String(text)) if text.is_empty() && member.required => {
                return Err(invalid(format!("{path} is missing.")));
            }
            Some(value) => check_value(value, member.kind, &path)?,
        }
    }
    Ok(())
}

fn check_value(value: &Value, kind: Kind, path: &str) -> Result<(), Response> {
    let text = value.as_str();
    let (good, must_be) = match kind {
        Kind::Text(max) => (
            text.is_some_and(|text| text.chars().count() <= max),
            format!("a string of at most {max} characters"),
        ),
        Kind::Name(allowed) => (
            text.is_some_and(|text| (1..=64).contains(&text.len()) && text.chars().all(allowed)),
            "a name of at most 64 of the allowed characters".to_owned(),
        ),
        Kind::Version => (text.is_some_and(is_version), "a version A.B.C".to_owned()),
        Kind::OneOf(known) => (
            text.is_some_and(|text| known.contains(&text)),
            format!("one of {}", known.join(", ")),
        ),
        Kind::Integer => (
            value.is_i64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
            "an integer".to_owned(),
        ),
        Kind::Number => (value.is_number(), "a number".to_owned()),
        Kind::Flag => (value.is_boolean(), "true or false".to_owned()),
        Kind::Object(members) => {
            if let Some(object) = value.as_object() {
                return check(object, members, &format!("{path}."));
            }
            (false, "an object".to_owned())
        }
        Kind::List(members) => {
            let objects = value
                .as_array()
                .map(|list| list.iter().map(Value::as_object));
            if let Some(objects) = objects.and_then(|list| list.collect::<Option<Vec<_>>>()) {
                return objects
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, object)| check(object, members, &format!("{path}[{i}].")));
            }
            (false, "a list of objects".to_owned())
        }
        Kind::Texts => (
            value
                .as_array()
                .is_some_and(|list| list.iter().all(Value::is_string)),
            "a list of strings".to_owned(),
        ),
        Kind::Labels => (
            is_labels(value),
            "a list of at most 20 labels with a key of 1 to 36 characters and a value of 2 to 43"
                .to_owned(),
        ),
        Kind::Any => (true, String::new()),
    };
    match good {
        true => Ok(()),
        false => Err(invalid(format!("{path} must be {must_be}."))),
    }
}

fn is_labels(value: &Value) -> bool {
    let fits = |label: &Value, member: &str, min: usize, max: usize| {
        let text = label.get(member).and_then(Value::as_str);
        text.is_some_and(|text| (min..=max).contains(&text.chars().count()))
    };
    value.as_array().is_some_and(|list| {
        let good = |label: &Value| fits(label, "key", 1, 36) && fits(label, "value", 2, 43);
        list.len() <= 20 && list.iter().all(good)
    })
}

fn is_version(text: &str) -> bool {
    let runs: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).collect();
    let separators = runs.len() - 1;
    // Because the dot matches any character, a digit between digits can be a separator.
    let hidden: usize = runs.iter().map(|run| run.len().saturating_sub(1) / 2).sum();
    let apart = runs.iter().all(|run| !run.is_empty());
    apart && separators <= 3 && separators + hidden >= 2 && text.len() <= 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions() {
        for (text, want) in [
            ("1.0.1", true),
            ("2023.0712.09204", true),
            ("1.2.3.4", true),
            ("1a0b1", true),
            ("12345", true),
            ("1.234", true),
            ("1.2.3.4.5", false),
            ("1.2", false),
            ("1.23", false),
            ("1..2", false),
            ("v1.2.3", false),
            ("", false),
        ] {
            assert_eq!(is_version(text), want, "{text}");
        }
    }

    #[test]
    fn bodies() {
        const TABLE: &[Member] = &[
            required("name", Kind::Name(is_environment_name_char)),
            optional("description", Kind::Text(3)),
            optional("labels", Kind::Labels),
            optional("replica", Kind::Integer),
            optional(
                "source",
                Kind::Object(&[required("kind", Kind::OneOf(&["image", "code"]))]),
            ),
            optional("list", Kind::List(&[required("id", Kind::Text(9))])),
            optional("ids", Kind::Texts),
        ];
        for (body, want) in [
            (json!({"name": "a-1", "other": 1}), None),
            (
                json!({"name": "a", "description": null, "replica": 2.0}),
                None,
            ),
            (json!([]), Some("The body is not a JSON object.")),
            (json!({}), Some("name is missing.")),
            (json!({"name": ""}), Some("name is missing.")),
            (json!({"name": null}), Some("name is missing.")),
            (json!({"name": "A"}), Some("name must be a name")),
            (json!({"name": 1}), Some("name must be a name")),
            (
                json!({"name": "a", "description": "four"}),
                Some("description must be a string of at most 3"),
            ),
            (
                json!({"name": "a", "replica": "2"}),
                Some("replica must be an integer."),
            ),
            (
                json!({"name": "a", "replica": 2.5}),
                Some("replica must be an integer."),
            ),
            (
                json!({"name": "a", "source": {}}),
                Some("source.kind is missing."),
            ),
            (
                json!({"name": "a", "source": {"kind": "x"}}),
                Some("source.kind must be one of image, code."),
            ),
            (
                json!({"name": "a", "list": [{"id": "1"}, {}]}),
                Some("list[1].id is missing."),
            ),
            (
                json!({"name": "a", "list": [1]}),
                Some("list must be a list of objects."),
            ),
            (
                json!({"name": "a", "ids": [1]}),
                Some("ids must be a list of strings."),
            ),
            (
                json!({"name": "a", "labels": [{"key": "k", "value": "vv"}]}),
                None,
            ),
            (
                json!({"name": "a", "labels": [{"key": "k", "value": "v"}]}),
                Some("labels must be a list"),
            ),
            (
                json!({"name": "a", "labels": vec![json!({"key": "k", "value": "vv"}); 21]}),
                Some("labels must be"),
            ),
        ] {
            let got = read(body.to_string().as_bytes(), TABLE);
            match (got, want) {
                (Ok(known), None) => assert!(!known.contains_key("other"), "{body}"),
                (Err(unauthorized), Some(want)) => {
                    let said = unauthorized.body.unwrap();
                    let said = said["error_message"].as_str().unwrap();
                    assert!(said.starts_with(want), "{body}: {said}");
                }
                (got, want) => panic!("{body}: {got:?}, wanted {want:?}"),
            }
        }
        let long = format!("{{\"name\":\"{}\"}}", "a".repeat(MAX_BODY_BYTES));
        assert!(read(long.as_bytes(), TABLE).is_err());
        let deep = "[".repeat(1000);
        assert!(read(deep.as_bytes(), TABLE).is_err());
    }
}
