//! Values of properties against their definitions, before a service is submitted.
//!
//! Source: JP1/AO Command and API Reference 12 and 13, 2.9.1 and 2.9.2. The texts
//! of `type` are not printed there: those that are likely are known, any other is
//! a text. What cannot be told here is left for JP1/AO to refuse.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use regex::RegexBuilder;
use serde_json::{Map, Value};

use crate::api::hitachi::automation::v1::PropertyDefinition;

/// Bytes that a pattern's automaton may take.
const PATTERN_LIMIT: usize = 1 << 20;

/// Compares `values` with the definitions: what is wrong, by key. `document` is the
/// action's document, which has the values that hold where none is given.
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
        // A service has its own word on both: what its document asks for is taken.
        let closed = match present.contains_key(key) {
            true => Ok(()),
            false => is_open(definition),
        };
        if let Err(problem) = closed.and_then(|()| one(definition, value)) {
            problems.push((key.clone(), problem));
        }
    }
    for definition in &definitions {
        let Some(key) = &definition.key_name else {
            continue;
        };
        let empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
        // What the action does not take cannot be missing from it.
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

/// What kind of value a definition wants.
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

/// Whether values can be given at all, unless a service says otherwise: `readOnly`
/// and `hidden` can be changed for one service (2.9.6).
fn is_open(definition: &PropertyDefinition) -> Result<(), String> {
    if definition.read_only() {
        return Err("is read-only".into());
    }
    if definition.hidden() || matches!(definition.visibility(), "hidden" | "none") {
        return Err("is hidden: it cannot be given".into());
    }
    Ok(())
}

/// Checks one value.
fn one(definition: &PropertyDefinition, value: &Value) -> Result<(), String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return Err("must be a text, a number or a bool".into()),
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
    if let Some(least) = definition.min_value.filter(|least| number < *least) {
        return Err(format!("must be at least {least}"));
    }
    if let Some(greatest) = definition.max_value.filter(|most| number > *most) {
        return Err(format!("must be at most {greatest}"));
    }
    Ok(())
}

fn length(definition: &PropertyDefinition, characters: usize) -> Result<(), String> {
    let characters = i64::try_from(characters).unwrap_or(i64::MAX);
    if let Some(fewest) = definition.min_length.filter(|least| characters < *least) {
        return Err(format!("must have at least {fewest} characters"));
    }
    // A limit of 0 would leave no value at all: it stands for none.
    if let Some(most) = definition
        .max_length
        .filter(|most| *most > 0 && characters > *most)
    {
        return Err(format!("must have at most {most} characters"));
    }
    Ok(())
}

/// One of the values to choose from, or several with commas.
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

/// The manual does not say whether a pattern must match the whole value: what it
/// matches in a part of it is let through. So is a pattern of another dialect of
/// regular expressions.
fn pattern(definition: &PropertyDefinition, text: &str) -> Result<(), String> {
    let pattern = definition.pattern();
    if pattern.is_empty() {
        return Ok(());
    }
    match RegexBuilder::new(pattern).size_limit(PATTERN_LIMIT).build() {
        Ok(regex) if !regex.is_match(text) => Err(format!("must match `{pattern}`")),
        _ => Ok(()),
    }
}

/// The keys that the document has, and whether each has a value.
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
    fn values() {
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
            (typed("unheard of"), json!("abcd"), "must have at most 3"),
            (typed("string"), json!(null), "must be a text"),
            (typed("string"), json!(["a"]), "must be a text"),
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
            // Another dialect: not ours to judge.
            (with(|d| d.pattern = Some("(?!x)".into())), json!("x"), ""),
            (
                with(|d| d.pattern = Some("((a{99}){99}){99}".into())),
                json!("x"),
                "",
            ),
        ] {
            match one(&definition, &value) {
                Ok(()) => assert_eq!(want, "", "{value} of {definition:?}"),
                Err(problem) => assert!(
                    !want.is_empty() && problem.contains(want),
                    "{value}: {problem}, not {want}"
                ),
            }
        }
    }

    #[test]
    fn a_services_document_says_what_can_be_given() {
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
            let refused = problem(json!({"parameters": []})).unwrap_or_default().1;
            assert!(refused.starts_with(want) && refused.is_empty() == want.is_empty());
            let asked = json!({"parameters": [{"keyName": "k", "value": ""}]});
            assert_eq!(problem(asked), None, "{want}");
        }
    }

    #[test]
    fn what_is_missing() {
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
        // Nested, as the manual leaves open.
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
