//! Checks values of properties against their definitions, before a service is submitted.
//!
//! Source: docs/apis/jp1ao.md, "Properties". The values of `type` are not documented: likely
//! ones are recognized, any other is a string. JP1/AO rejects what is not checked here.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use regex_lite::RegexBuilder;
use serde_json::{Map, Value};

use crate::api::hitachi::automation::v1::PropertyDefinition;

/// Limit of a pattern's compiled size.
const MAX_PATTERN_BYTES: usize = 1 << 16;

/// Limit of the texts that are matched; together with that of the pattern, of the time.
const MAX_MATCHED_BYTES: usize = 4 << 10;

/// Returns the invalid `values`, by key. `document` is the action's document, with the
/// current values.
pub(super) fn check(
    definitions: &[Bytes],
    values: &Map<String, Value>,
    document: &[u8],
) -> Vec<(String, String)> {
    let definitions: Vec<PropertyDefinition> = definitions
        .iter()
        .filter_map(|wire| PropertyDefinition::decode(wire.clone()).ok())
        .collect();
    let by_key: HashMap<&str, &PropertyDefinition> = definitions
        .iter()
        .filter_map(|definition| Some((definition.key_name.as_deref()?, definition)))
        .collect();
    let present = present(document);
    let mut problems = Vec::new();
    for (key, value) in values {
        let Some(definition) = by_key.get(&**key) else {
            continue;
        };
        // A service can override `readOnly` and `hidden`: what its document lists is open.
        let closed = match present.contains_key(key) {
            true => Ok(()),
            false => is_open(definition),
        };
        if let Err(problem) = closed.and_then(|()| check_value(definition, value)) {
            problems.push((key.clone(), problem));
        }
    }
    for definition in &definitions {
        let Some(key) = &definition.key_name else {
            continue;
        };
        let empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
        // Only properties of the document can be missing.
        if definition.required()
            && !values.contains_key(key)
            && present.get(key).is_some_and(|has_value| !has_value)
            && empty(&definition.default_value)
        {
            problems.push((key.clone(), "is required".to_owned()));
        }
    }
    problems
}

/// The kind of value of a definition.
enum Kind {
    Integer,
    Number,
    Boolean,
    Text,
}

impl Kind {
    fn of(definition: &PropertyDefinition) -> Self {
        let letters: String = definition
            .r#type()
            .chars()
            .filter(char::is_ascii_alphabetic)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match &*letters {
            "integer" | "int" | "long" | "short" => Kind::Integer,
            "double" | "float" | "decimal" | "number" => Kind::Number,
            "boolean" | "bool" => Kind::Boolean,
            _ => Kind::Text,
        }
    }
}

/// Fails if the definition does not allow a value. A service can override `readOnly` and
/// `hidden`. Source: docs/apis/jp1ao.md, "Properties".
fn is_open(definition: &PropertyDefinition) -> Result<(), String> {
    if definition.read_only() {
        return Err("is read-only".into());
    }
    if definition.hidden() || matches!(definition.visibility(), "hidden" | "none") {
        return Err("is hidden: it cannot be set".into());
    }
    Ok(())
}

/// Checks one value against its definition.
fn check_value(definition: &PropertyDefinition, value: &Value) -> Result<(), String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return Err("must be a string, a number or a bool".into()),
    };
    if text.is_empty() {
        return match definition.required() {
            true => Err("is required and must not be empty".into()),
            false => Ok(()),
        };
    }
    match Kind::of(definition) {
        Kind::Integer => {
            let number: i128 = text.parse().map_err(|_| "must be an integer".to_owned())?;
            range(definition, number as f64)?;
        }
        Kind::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => range(definition, number)?,
            _ => return Err("must be a number".into()),
        },
        Kind::Boolean if !matches!(&*text, "true" | "false" | "TRUE" | "FALSE") => {
            return Err("must be true or false".into());
        }
        Kind::Boolean => {}
        Kind::Text => length(definition, text.chars().count())?,
    }
    choice(definition, &text)?;
    pattern(definition, &text)
}

fn range(definition: &PropertyDefinition, number: f64) -> Result<(), String> {
    if let Some(min) = definition.min_value.filter(|min| number < *min) {
        return Err(format!("must be at least {min}"));
    }
    if let Some(max) = definition.max_value.filter(|max| number > *max) {
        return Err(format!("must be at most {max}"));
    }
    Ok(())
}

fn length(definition: &PropertyDefinition, characters: usize) -> Result<(), String> {
    let characters = i64::try_from(characters).unwrap_or(i64::MAX);
    if let Some(min) = definition.min_length.filter(|min| characters < *min) {
        return Err(format!("must have at least {min} characters"));
    }
    // 0 means no limit.
    if let Some(max) = definition
        .max_length
        .filter(|max| *max > 0 && characters > *max)
    {
        return Err(format!("must have at most {max} characters"));
    }
    Ok(())
}

/// Fails unless the text is one of the listed values, or several separated by commas.
fn choice(definition: &PropertyDefinition, text: &str) -> Result<(), String> {
    let list = definition.value_list();
    let known: Vec<&str> = list.split(',').map(str::trim).collect();
    if list.trim().is_empty() || known.contains(&text) {
        return Ok(());
    }
    if text.split(',').all(|one| known.contains(&one.trim())) {
        return Ok(());
    }
    Err(format!("must be one of: {}", known.join(", ")))
}

/// Fails if the pattern matches no part of the text: the manual does not say whether it must
/// match all of it. What another regular expression dialect may see differently is left to
/// JP1/AO: a pattern that is invalid here, and characters beyond ASCII where the pattern has
/// classes such as `\w`.
fn pattern(definition: &PropertyDefinition, text: &str) -> Result<(), String> {
    let pattern = definition.pattern();
    let depends_on_dialect = !text.is_ascii() && pattern.contains('\\');
    if pattern.is_empty() || depends_on_dialect || text.len() > MAX_MATCHED_BYTES {
        return Ok(());
    }
    match RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
    {
        Ok(regex) if !regex.is_match(text) => Err(format!("must match `{pattern}`")),
        _ => Ok(()),
    }
}

/// Returns the keys in the document, and whether each has a value.
fn present(document: &[u8]) -> HashMap<String, bool> {
    let mut found = HashMap::new();
    if let Ok(document) = serde_json::from_slice::<Value>(document) {
        collect(&document["parameters"], &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut HashMap<String, bool>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(object) => {
            if let Some(Value::String(key)) = object.get("keyName") {
                let empty = matches!(object.get("value"), None | Some(Value::Null))
                    || object.get("value").and_then(Value::as_str) == Some("");
                found.insert(key.clone(), !empty);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(change: impl FnOnce(&mut PropertyDefinition)) -> PropertyDefinition {
        let mut definition = PropertyDefinition {
            key_name: Some("k".into()),
            ..PropertyDefinition::default()
        };
        change(&mut definition);
        definition
    }

    fn typed(name: &str) -> PropertyDefinition {
        definition(|d| {
            d.r#type = Some(name.into());
            d.min_value = Some(1.0);
            d.max_value = Some(10.0);
            d.min_length = Some(2);
            d.max_length = Some(3);
        })
    }

    fn with(change: impl FnOnce(&mut PropertyDefinition)) -> PropertyDefinition {
        definition(change)
    }

    #[test]
    fn values_are_checked_against_their_definition() {
        for (definition, value, want) in [
            (typed("integer"), json!(5), ""),
            (typed("Integer"), json!("10"), ""),
            (typed("long"), json!(0), "must be at least 1"),
            (typed("int"), json!("11"), "must be at most 10"),
            (typed("integer"), json!(1.5), "must be an integer"),
            (typed("integer"), json!("five"), "must be an integer"),
            (typed("integer"), json!(true), "must be an integer"),
            (typed("double"), json!(1.5), ""),
            (typed("double"), json!("10.5"), "must be at most 10"),
            (typed("double"), json!("NaN"), "must be a number"),
            (typed("boolean"), json!(true), ""),
            (typed("boolean"), json!("FALSE"), ""),
            (typed("boolean"), json!("yes"), "must be true or false"),
            (typed("string"), json!("ab"), ""),
            // Characters, not bytes.
            (typed("string"), json!("日本語"), ""),
            (typed("string"), json!("a"), "must have at least 2"),
            (typed("unknown"), json!("abcd"), "must have at most 3"),
            (typed("string"), json!(null), "must be a string"),
            (typed("string"), json!(["a"]), "must be a string"),
            (with(|d| d.max_length = Some(0)), json!("any"), ""),
            (with(|d| d.required = Some(true)), json!(""), "is required"),
            (with(|d| d.min_length = Some(2)), json!(""), ""),
            (with(|d| d.value_list = Some("a, b".into())), json!("b"), ""),
            (
                with(|d| d.value_list = Some("a,b".into())),
                json!("a,b"),
                "",
            ),
            (
                with(|d| d.value_list = Some("a,b".into())),
                json!("c"),
                "must be one of: a, b",
            ),
            (with(|d| d.pattern = Some("^[0-9]+$".into())), json!(12), ""),
            (
                with(|d| d.pattern = Some("^[0-9]+$".into())),
                json!("x"),
                "must match",
            ),
            // Characters beyond ASCII.
            (
                with(|d| d.pattern = Some("^\\w+$".into())),
                json!("日本"),
                "",
            ),
            (
                with(|d| d.pattern = Some("^\\w+$".into())),
                json!("a b"),
                "must match",
            ),
            (
                with(|d| d.pattern = Some("^[^a]+$".into())),
                json!("日a本"),
                "must match",
            ),
            // Another regular expression dialect.
            (with(|d| d.pattern = Some("(?!x)".into())), json!("x"), ""),
            (
                with(|d| d.pattern = Some("((a{99}){99}){99}".into())),
                json!("x"),
                "",
            ),
        ] {
            match check_value(&definition, &value) {
                Ok(()) => assert_eq!(want, "", "{value} of {definition:?}"),
                Err(problem) => assert!(
                    !want.is_empty() && problem.contains(want),
                    "{value}: {problem}, not {want}"
                ),
            }
        }
    }

    #[test]
    fn document_of_a_service_opens_properties() {
        for (definition, want) in [
            (with(|d| d.read_only = Some(true)), "is read-only"),
            (with(|d| d.hidden = Some(true)), "is hidden"),
            (with(|d| d.visibility = Some("none".into())), "is hidden"),
            (with(|d| d.visibility = Some("exec".into())), ""),
        ] {
            let definitions = [Bytes::from(definition.encode_to_vec())];
            let values = json!({"k": "x"});
            let problem = |document: Value| {
                let document = document.to_string();
                let values = values.as_object().unwrap();
                check(&definitions, values, document.as_bytes()).pop()
            };
            let rejected = problem(json!({"parameters": []})).unwrap_or_default().1;
            assert!(rejected.starts_with(want) && rejected.is_empty() == want.is_empty());
            let document = json!({"parameters": [{"keyName": "k", "value": ""}]});
            assert_eq!(problem(document), None, "{want}");
        }
    }

    #[test]
    fn required_properties_of_the_document_must_have_a_value() {
        let wire = |key: &str, change: fn(&mut PropertyDefinition)| {
            let definition = definition(|d| {
                d.key_name = Some(key.into());
                d.required = Some(true);
                change(d);
            });
            Bytes::from(definition.encode_to_vec())
        };
        let definitions = [
            wire("given", |_| {}),
            wire("empty", |_| {}),
            wire("null", |_| {}),
            wire("has a default", |d| d.default_value = Some("d".into())),
            wire("has a value", |_| {}),
            wire("elsewhere", |_| {}),
            Bytes::from_static(b"\xff"),
        ];
        // Nested: the manual allows both.
        let document = json!({"parameters": [{"scheduleType": "immediate"}, [
            {"keyName": "given", "value": ""}, {"keyName": "empty", "value": ""},
            {"keyName": "null", "value": null}, {"keyName": "has a default", "value": ""},
            {"keyName": "has a value", "value": "v"}
        ]]});
        let values = json!({"given": "x", "unknown": 1});
        let problems = check(
            &definitions,
            values.as_object().unwrap(),
            document.to_string().as_bytes(),
        );
        let keys: Vec<&str> = problems.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["empty", "null"], "{problems:?}");
        assert!(check(&definitions, &Map::new(), b"<html>").is_empty());
    }
}
