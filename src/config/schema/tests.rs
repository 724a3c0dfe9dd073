use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use super::*;
use crate::cli::EXAMPLES;

/// Returns what makes a document invalid; none if it is valid. Knows the keywords that `schema`
/// uses, and panics at others: the second test stage uses a complete validator.
fn problem(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let rules = match schema {
        Value::Bool(true) => return None,
        Value::Object(rules) => rules,
        _ => return Some(format!("{at}: not allowed")),
    };
    let is_valid = |schema: &Value| problem(schema, value, at).is_none();
    let holds = |keyword: &str, rule: &Value| -> bool {
        let list = || rule.as_array().unwrap();
        let object = value.as_object();
        match keyword {
            "$schema" | "title" | "description" | "default" | "format" | "then" | "else" => true,
            "properties" | "additionalProperties" | "items" | "allOf" | "if" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                "number" => value.is_number(),
                other => panic!("the type {other}"),
            },
            "enum" => list().contains(value),
            "const" => rule == value,
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "required" => {
                let mut names = list().iter().map(|name| name.as_str().unwrap());
                object.is_none_or(|object| names.all(|name| object.contains_key(name)))
            }
            "maxProperties" => object.is_none_or(|o| o.len() as u64 <= rule.as_u64().unwrap()),
            "propertyNames" => object.is_none_or(|object| {
                let mut names = object.keys().map(|name| Value::from(&**name));
                names.all(|name| problem(rule, &name, at).is_none())
            }),
            "not" => !is_valid(rule),
            "anyOf" => list().iter().any(is_valid),
            "oneOf" => list().iter().filter(|rule| is_valid(rule)).count() == 1,
            other => panic!("the keyword {other}"),
        }
    };
    // The problem of a rule that applies without a choice.
    let applied = rules.iter().flat_map(|(keyword, rule)| match &**keyword {
        "allOf" => rule.as_array().unwrap().iter().collect(),
        "if" => {
            let branch = if is_valid(rule) { "then" } else { "else" };
            rules.get(branch).into_iter().collect()
        }
        _ => Vec::new(),
    });
    let mut applied = applied.filter_map(|rule| problem(rule, value, at));
    if let Some(problem) = applied.next() {
        return Some(problem);
    }
    if let Some((keyword, rule)) = rules.iter().find(|(keyword, rule)| !holds(keyword, rule)) {
        return Some(format!("{at}: {keyword} {rule}"));
    }
    let known = rules.get("properties").and_then(Value::as_object);
    for (name, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        let rule = known.and_then(|known| known.get(name));
        let rule = rule.or(rules.get("additionalProperties"));
        if let Some(problem) = rule.and_then(|rule| problem(rule, value, &at)) {
            return Some(problem);
        }
    }
    let items = value.as_array().into_iter().flatten().enumerate();
    let mut items =
        items.filter_map(|(n, item)| problem(rules.get("items")?, item, &format!("{at}/{n}")));
    items.next()
}

/// Returns why the schema does not accept a configuration file.
pub(in crate::config) fn problem_of(text: &str) -> Option<String> {
    let document: Value = toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    problem(&schema(), &document, "")
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn committed_schema_is_current() {
    let path = file("docs/drawbridge.schema.json");
    let current = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == current,
        "UPDATE_DOCS=1 writes docs/drawbridge.schema.json"
    );
}

#[test]
fn examples_are_valid() {
    for (name, text) in EXAMPLES {
        assert_eq!(problem_of(text), None, "{name}");
    }
}

/// The configuration in the documents, whatever else in TOML they contain.
#[test]
fn configuration_in_documents_is_valid() {
    let mut count = 0;
    let documents = fs::read_dir(file("docs")).unwrap();
    let documents = documents.map(|entry| entry.unwrap().path());
    for path in documents.chain([file("README.md")]) {
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            assert_eq!(problem_of(block), None, "{}:\n{block}", path.display());
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

/// Each key is in `drawbridge.example.toml`, and has a text; a text is that of a key.
#[test]
fn each_key_has_a_description() {
    fn paths(schema: &Value, path: &str, found: &mut Vec<String>) {
        let schema = schema.get("items").unwrap_or(schema);
        for (name, key) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}{name}");
            let without = key.get("description").is_none();
            assert!(
                !without,
                "{path} needs a line in config/schema/descriptions.rs"
            );
            paths(key, &format!("{path}."), found);
            found.push(path);
        }
    }
    let mut found = Vec::new();
    paths(&schema(), "", &mut found);
    let example = EXAMPLES.iter().find(|(name, _)| *name == "all").unwrap().1;
    for path in &found {
        let name = path.rsplit('.').next().unwrap();
        let secret = ["_env", "_file"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let secret = secret.map(|name| format!("{name}_*"));
        let named = example.contains(name) || secret.is_some_and(|name| example.contains(&name));
        assert!(named, "{path} is not in drawbridge.example.toml");
    }
    for (path, _) in descriptions::DESCRIPTIONS {
        let [env, source] = ["_env", "_file"].map(|end| format!("{path}{end}"));
        let used = |path: &str| found.iter().any(|found| found == path);
        assert!(
            used(path) || used(&env) && used(&source),
            "{path} is no key"
        );
    }
}

/// The tables of keys, which readers allow, are those that readers read.
#[test]
fn each_kind_reads_the_keys_that_it_has() {
    for kind in auth::describe() {
        let mut read: Vec<&str> = kind.keys.iter().map(|key| &*key.path).collect();
        let mut names = kind.names.clone();
        read.sort_unstable();
        names.sort_unstable();
        assert_eq!(read, names, "{:?}", kind.name);
    }
}

/// Numbers and flags, which keep a value if they are absent, say which.
#[test]
fn numbers_and_flags_have_their_defaults() {
    fn check(schema: &Value, path: &str) {
        let schema = schema.get("items").unwrap_or(schema);
        for (name, key) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let plain = ["integer", "number", "boolean"]
                .iter()
                .any(|kind| key["type"] == *kind);
            // The default of others depends on more.
            if plain && !["from_env", "page"].contains(&&**name) {
                assert!(key.get("default").is_some(), "{path}");
            }
            check(key, &path);
        }
    }
    let schema = schema();
    check(&schema, "");
    let server = &schema["properties"]["server"]["properties"];
    assert_eq!(server["keepalive_timeout_secs"]["default"], 20);
    assert_eq!(server["max_metadata_bytes"]["minimum"], 1024);
    assert_eq!(server["max_metadata_bytes"]["default"], 65_536);
    assert_eq!(
        schema["properties"]["log"]["properties"]["level"]["default"],
        "info"
    );
}

/// The files with mistakes of `tests/fixtures/config/wrong.toml`, which the second test stage
/// holds against another validator as well.
#[test]
fn mistakes_are_found() {
    let cases = fs::read_to_string(file("tests/fixtures/config/wrong.toml")).unwrap();
    let cases: Vec<&str> = cases.split("### ").skip(1).collect();
    assert!(cases.len() > 40, "{}", cases.len());
    for case in cases {
        let (want, text) = case.split_once('\n').unwrap();
        let found = problem_of(text).unwrap_or_else(|| panic!("accepted: {case}"));
        assert!(found.contains(want.trim()), "{found} has no {case}");
    }
}
