//! Evaluation of HOT's intrinsic functions such as `get_param` and `get_attr`.
//!
//! Source: Heat's template guide, "Intrinsic functions"; results as observed.

use serde_json::{Map, Value, json};

use super::super::python_json;

/// Values that a template's functions can refer to.
pub(super) trait Scope {
    /// Returns the value of a parameter or pseudo parameter.
    fn parameter(&self, name: &str) -> Option<Value>;
    /// Returns the value of `get_resource`; `None` for an unknown resource.
    fn reference(&self, name: &str) -> Option<Value>;
    /// Returns an attribute, or Heat's message if it does not exist.
    fn attribute(&self, resource: &str, attribute: &str) -> Result<Value, String>;
    /// Returns a file sent with the template.
    fn file(&self, name: &str) -> Option<&str>;
}

/// Maximum nesting depth; deeper values are not evaluated.
const MAX_DEPTH: usize = 64;
/// Maximum size of the result of a function, in characters or members.
const MAX_RESULT_SIZE: usize = 1 << 20;

/// Supported functions of template version 2018-08-31.
pub(super) const NAMES: [&str; 9] = [
    "get_param",
    "get_resource",
    "get_attr",
    "get_file",
    "str_replace",
    "list_join",
    "repeat",
    "str_split",
    "digest",
];

/// Returns name and argument if the map is a function.
pub(super) fn function(value: &Value) -> Option<(&str, &Value)> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    let (name, argument) = members.iter().next()?;
    (NAMES.contains(&name.as_str()) && name != "digest").then_some((name, argument))
}

/// Evaluates all functions in a value. Fails with Heat's message.
pub(super) fn resolve(value: &Value, scope: &dyn Scope) -> Result<Value, String> {
    resolved(value, scope, 0)
}

fn resolved(value: &Value, scope: &dyn Scope, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Ok(value.clone());
    }
    let inner = |value: &Value| resolved(value, scope, depth + 1);
    if let Some((name, argument)) = function(value) {
        // `repeat` resolves its template itself, once for each item.
        if name == "repeat" {
            return repeat(argument, scope, depth);
        }
        return call(name, &inner(argument)?, scope);
    }
    Ok(match value {
        Value::Array(items) => Value::Array(items.iter().map(inner).collect::<Result<_, _>>()?),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, member)| Ok((name.clone(), inner(member)?)))
                .collect::<Result<Map<_, _>, String>>()?,
        ),
        other => other.clone(),
    })
}

fn call(name: &str, argument: &Value, scope: &dyn Scope) -> Result<Value, String> {
    match name {
        "get_param" => {
            let (name, path) = split_path(argument)
                .ok_or_else(|| format!("Argument to \"{name}\" must be a string or a list"))?;
            let value = scope
                .parameter(name)
                .ok_or_else(|| format!("The Parameter ({name}) was not provided."))?;
            Ok(value_at_path(&value, path))
        }
        "get_resource" => {
            let name = argument
                .as_str()
                .ok_or("Arguments to \"get_resource\" must be a string")?;
            scope
                .reference(name)
                .ok_or_else(|| format!("The specified reference \"{name}\" is incorrect."))
        }
        "get_attr" => {
            let (resource, path) = split_path(argument)
                .ok_or("Arguments to \"get_attr\" must be of the form [resource_name, attribute, (path), ...]")?;
            let Some((attribute, path)) = path.split_first() else {
                return Ok(Value::Null);
            };
            let value = scope.attribute(resource, &text(attribute))?;
            Ok(value_at_path(&value, path))
        }
        "get_file" => {
            let name = argument
                .as_str()
                .ok_or("Argument to \"get_file\" must be a string")?;
            scope.file(name).map(|file| json!(file)).ok_or_else(|| {
                format!("No content found in the \"files\" section for get_file path: {name}")
            })
        }
        "str_replace" => str_replace(argument),
        "list_join" => list_join(argument),
        "str_split" => str_split(argument),
        _ => Ok(Value::Null),
    }
}

/// Splits off the name before a path: `"a"` or `["a", ...]`.
fn split_path(argument: &Value) -> Option<(&str, &[Value])> {
    match argument {
        Value::String(name) => Some((name, &[])),
        Value::Array(items) => {
            let (name, path) = items.split_first()?;
            Some((name.as_str()?, path))
        }
        _ => None,
    }
}

/// Returns the value at a path; "" if it does not exist (observed for json parameters).
fn value_at_path(value: &Value, path: &[Value]) -> Value {
    let mut at = value;
    for step in path {
        let index = step
            .as_u64()
            .or_else(|| step.as_str().and_then(|step| step.parse().ok()))
            .and_then(|index| usize::try_from(index).ok());
        let next = match at {
            Value::Object(members) => members.get(&text(step)),
            Value::Array(items) => index.and_then(|index| items.get(index)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Value::Null,
        }
    }
    at.clone()
}

/// Formats a scalar as text, lists and maps as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        other => python_json::dumps(other),
    }
}

fn check_size(text: String) -> Result<String, String> {
    match text.len() <= MAX_RESULT_SIZE {
        true => Ok(text),
        false => Err("the value is too long".to_owned()),
    }
}

fn str_replace(argument: &Value) -> Result<Value, String> {
    let template = argument["template"]
        .as_str()
        .ok_or("\"str_replace\" template must be a string")?;
    let params = argument["params"]
        .as_object()
        .ok_or("\"str_replace\" params must be a map")?;
    let mut names: Vec<&String> = params.keys().filter(|name| !name.is_empty()).collect();
    // Longest name first, as Heat does.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut out = String::new();
    let mut rest = template;
    'outer: while let Some(c) = rest.chars().next() {
        for name in &names {
            if let Some(after) = rest.strip_prefix(name.as_str()) {
                out = check_size(out + &text(&params[*name]))?;
                rest = after;
                continue 'outer;
            }
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Ok(json!(out))
}

fn list_join(argument: &Value) -> Result<Value, String> {
    let wrong = "\"list_join\" must have a delimiter and lists";
    let (delimiter, lists) = argument
        .as_array()
        .and_then(|items| items.split_first())
        .ok_or(wrong)?;
    let items: Vec<String> = lists
        .iter()
        .map(|list| match list {
            Value::Null => Ok(&[][..]),
            Value::Array(items) => Ok(&items[..]),
            _ => Err(wrong),
        })
        .collect::<Result<Vec<_>, _>>()?
        .concat()
        .iter()
        .map(text)
        .collect();
    check_size(items.join(delimiter.as_str().ok_or(wrong)?)).map(Value::from)
}

fn str_split(argument: &Value) -> Result<Value, String> {
    let items = argument.as_array().ok_or("\"str_split\" must be a list")?;
    let (Some(delimiter), Some(text)) = (
        items
            .first()
            .and_then(Value::as_str)
            .filter(|d| !d.is_empty()),
        items.get(1).and_then(Value::as_str),
    ) else {
        return Err("\"str_split\" must have a delimiter and a string".to_owned());
    };
    let parts: Vec<Value> = text.split(delimiter).map(Value::from).collect();
    match items.get(2) {
        Some(index) => Ok(value_at_path(
            &Value::Array(parts),
            std::slice::from_ref(index),
        )),
        None => Ok(Value::Array(parts)),
    }
}

/// `for_each` maps each variable to a list; the result has the template once for each
/// combination of their items.
fn repeat(argument: &Value, scope: &dyn Scope, depth: usize) -> Result<Value, String> {
    let wrong = "\"repeat\" must have \"for_each\" and \"template\"";
    let for_each = argument["for_each"].as_object().ok_or(wrong)?;
    let template = argument.get("template").ok_or(wrong)?;
    let mut made = vec![template.clone()];
    for (name, list) in for_each {
        let list = match resolved(list, scope, depth + 1)? {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            _ => return Err("Values to \"for_each\" argument must be lists".to_owned()),
        };
        if made.len().saturating_mul(list.len()) > 10_000 {
            return Err("\"repeat\" makes too many items".to_owned());
        }
        made = made
            .iter()
            .flat_map(|template| list.iter().map(|item| replaced(template, name, item, 0)))
            .collect();
    }
    let made: Result<Vec<Value>, String> = made
        .iter()
        .map(|item| resolved(item, scope, depth + 1))
        .collect();
    Ok(Value::Array(made?))
}

/// Replaces every `name` in the strings of a value.
pub(super) fn replaced(value: &Value, name: &str, by: &Value, depth: usize) -> Value {
    match value {
        _ if depth > MAX_DEPTH || name.is_empty() => value.clone(),
        Value::String(text) if text == name => by.clone(),
        Value::String(found) => json!(found.replace(name, &text(by))),
        Value::Array(items) => items
            .iter()
            .map(|item| replaced(item, name, by, depth + 1))
            .collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| {
                (
                    key.replace(name, &text(by)),
                    replaced(member, name, by, depth + 1),
                )
            })
            .collect(),
        other => other.clone(),
    }
}

/// Collects the attributes that a value refers to: resource, attribute and path.
pub(super) fn attributes(value: &Value, path: &str, found: &mut Vec<[String; 3]>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                attributes(item, &format!("{path}[{index}]"), found, depth + 1);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                attributes(member, &format!("{path}.{name}"), found, depth + 1);
            }
        }
        _ => {}
    }
    if let Some(("get_attr", argument)) = function(value)
        && let Some((resource, [attribute, ..])) = split_path(argument)
    {
        let place = format!("{path}.get_attr");
        found.push([resource.to_owned(), text(attribute), place]);
    }
}

/// Collects the resources that a value refers to, each with the path of the reference.
pub(super) fn references(
    value: &Value,
    path: &str,
    found: &mut Vec<(String, String)>,
    depth: usize,
) {
    if depth > MAX_DEPTH {
        return;
    }
    if let Some((name, argument)) = function(value) {
        if let ("get_resource" | "get_attr", Some((resource, _))) = (name, split_path(argument)) {
            found.push((resource.to_owned(), path.to_owned()));
        }
        return references(argument, path, found, depth + 1);
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                references(item, &format!("{path}[{index}]"), found, depth + 1);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                references(member, &format!("{path}.{name}"), found, depth + 1);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestScope;

    impl Scope for TestScope {
        fn parameter(&self, name: &str) -> Option<Value> {
            (name == "p").then(|| json!({"k": ["a", "b"]}))
        }
        fn reference(&self, name: &str) -> Option<Value> {
            (name == "r").then(|| json!("r-id"))
        }
        fn attribute(&self, resource: &str, attribute: &str) -> Result<Value, String> {
            match (resource, attribute) {
                ("r", "map") => Ok(json!({"x": [1, 2]})),
                _ => Err("no such attribute".to_owned()),
            }
        }
        fn file(&self, name: &str) -> Option<&str> {
            (name == "f").then_some("text")
        }
    }

    #[test]
    fn functions_are_resolved() {
        for (value, want) in [
            (json!({"get_param": ["p", "k", 1]}), json!("b")),
            (json!({"get_param": ["p", "k", "x"]}), json!(null)),
            (json!([{"get_resource": "r"}]), json!(["r-id"])),
            (json!({"get_attr": ["r", "map", "x", 0]}), json!(1)),
            (json!({"get_file": "f"}), json!("text")),
            (
                json!({"str_replace": {"template": "$a $ab", "params": {"$a": 1, "$ab": [true]}}}),
                json!("1 [true]"),
            ),
            (
                json!({"list_join": ["-", {"get_param": ["p", "k"]}, ["c"]]}),
                json!("a-b-c"),
            ),
            (json!({"str_split": [",", "a,b", 1]}), json!("b")),
            (
                json!({"repeat": {"for_each": {"%x%": ["1", "2"], "%y%": ["a"]}, "template": {"n": "%x%%y%"}}}),
                json!([{"n": "1a"}, {"n": "2a"}]),
            ),
            // Two members, or an unknown name: an ordinary map.
            (
                json!({"get_param": "p", "b": 1}),
                json!({"get_param": "p", "b": 1}),
            ),
            (json!({"dance": 1}), json!({"dance": 1})),
        ] {
            assert_eq!(resolve(&value, &TestScope), Ok(want), "{value}");
        }
        for value in [
            json!({"get_param": "q"}),
            json!({"get_attr": ["r", "no"]}),
            json!({"get_file": "g"}),
            json!({"list_join": 1}),
        ] {
            assert!(resolve(&value, &TestScope).is_err(), "{value}");
        }
    }

    #[test]
    fn references_have_paths() {
        let mut found = Vec::new();
        let value = json!({"a": [{"get_attr": ["r", "x"]}], "b": {"list_join": [",", [{"get_resource": "s"}]]}});
        references(&value, "Properties", &mut found, 0);
        assert_eq!(
            found,
            [
                ("r".to_owned(), "Properties.a[0]".to_owned()),
                ("s".to_owned(), "Properties.b[1][0]".to_owned())
            ]
        );
    }
}
