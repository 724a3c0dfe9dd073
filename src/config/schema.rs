//! `drawbridge config schema`: a JSON Schema of the configuration file, for editors.
//!
//! Its source are the readers of the file: they run over absent sections and describe each key
//! with its type, range, choices and default. Only the texts (`descriptions`) and the rules about
//! more than one key are written here.

mod descriptions;
#[cfg(test)]
pub(super) mod tests;

use serde_json::{Value, json};

use super::reader::{KeySchema, Report, Section};
use super::{Config, auth, policy, upstreams};
use crate::families::family;
use descriptions::description;

/// The version of JSON Schema, which the TOML plugins of editors know.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// Returns the JSON Schema of the configuration file.
pub fn schema() -> Value {
    let mut root = json!({
        "$schema": DIALECT,
        "title": "Configuration of Drawbridge",
        "description": "https://toml.io; the paths in it are relative to the file",
        "type": "object",
    });
    for key in describe() {
        insert(&mut root, &key.path, &key.schema, key.is_required);
    }
    let kinds = auth::describe();
    for kind in &kinds {
        for key in &kind.keys {
            insert(
                &mut root,
                &format!("upstream.auth.{}", key.path),
                &key.schema,
                false,
            );
        }
    }
    let upstream = &mut root["properties"]["upstream"]["items"];
    upstream["allOf"] = family_rules();
    upstream["properties"]["auth"]["allOf"] = auth_rules(&kinds);
    root
}

/// Returns the keys outside `[upstream.auth]`.
fn describe() -> Vec<KeySchema> {
    let report = Report::describing();
    let root = Section::absent(&report, "", &|_| None);
    let mut config = Config::empty();
    config.read_sections(&root);
    for section in root.sections("upstream") {
        upstreams::read(&section);
    }
    for section in root.sections("policy") {
        policy::read(&section, 1);
    }
    for section in root.sections("descriptors") {
        super::descriptors(&section);
    }
    drop(root);
    let keys = report.into_described().into_iter();
    keys.filter(|key| !key.path.starts_with("upstream.auth."))
        .collect()
}

/// Adds a key below the objects that its path names.
fn insert(root: &mut Value, path: &str, schema: &Value, is_required: bool) {
    let mut object = root;
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        object = &mut object["properties"][parent];
        if object["type"] == "array" {
            object = &mut object["items"];
        }
    }
    let mut schema = schema.clone();
    if schema["type"] == "array" && schema.get("items").is_none() {
        schema["items"] = closed_object();
    }
    if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
        schema = closed_object();
    }
    if let Some(text) = text(path) {
        schema["description"] = text.into();
    }
    object["additionalProperties"] = false.into();
    let properties = &mut object["properties"];
    if properties.get(name).is_none() {
        properties[name] = schema;
    }
    if is_required {
        if object.get("required").is_none() {
            object["required"] = json!([]);
        }
        if let Some(required) = object["required"].as_array_mut() {
            required.push(name.into());
        }
    }
}

fn closed_object() -> Value {
    json!({"type": "object", "additionalProperties": false})
}

/// Returns the description of a key, of a secret with where it comes from.
fn text(path: &str) -> Option<String> {
    if let Some(text) = description(path) {
        return Some(text.to_owned());
    }
    let (secret, source) = path.rsplit_once('_')?;
    let secret = description(secret)?;
    match source {
        "env" => Some(format!(
            "{secret}: the name of the environment variable with it."
        )),
        "file" => Some(format!(
            "{secret}: the path of the file with it, which is read again when it changes."
        )),
        _ => None,
    }
}

/// Returns the rule that an object whose `key` is one of `values` meets `then`.
fn rule(key: &str, value: &str, then: Value) -> Value {
    json!({
        "if": {"type": "object", "properties": {key: {"const": value}}, "required": [key]},
        "then": then,
    })
}

/// Returns the dialects and the kinds of credentials of each built-in family.
fn family_rules() -> Value {
    let rules = upstreams::FAMILIES.iter().map(|name| {
        let (dialects, kinds) = (family(name).dialects, family(name).credential_kinds);
        let dialect = match dialects {
            [] => json!(false),
            [first, ..] => json!({"enum": dialects, "default": first}),
        };
        let mut auth = json!({"kind": {"enum": kinds}});
        if !kinds.contains(&"keystone") {
            auth["cloud"] = json!(false);
            auth["from_env"] = json!(false);
        }
        let properties = json!({"dialect": dialect, "auth": {"properties": auth}});
        rule("family", name, json!({"properties": properties}))
    });
    rules.collect()
}

/// Returns the keys of each kind of credentials, and which of them belong together.
fn auth_rules(kinds: &[auth::KindSchema]) -> Value {
    let is_elsewhere = || {
        let sources = json!([{"required": ["cloud"]}, {"required": ["from_env"]}]);
        json!({"type": "object", "anyOf": sources})
    };
    let mut rules = Vec::new();
    for kind in kinds {
        let mut then = json!({"propertyNames": {"enum": kind.names}});
        let required = kind.keys.iter().filter(|key| key.is_required);
        let required: Vec<&str> = required.map(|key| &*key.path).collect();
        match kind.name {
            // A login from elsewhere.
            None => {
                then["oneOf"] = is_elsewhere()["anyOf"].take();
                then["properties"] = json!({
                    "kind": {"const": "keystone"},
                    "from_env": {"const": true},
                });
                let is_keystone = json!({
                    "anyOf": [
                        {"not": {"required": ["kind"]}},
                        {"properties": {"kind": {"const": "keystone"}}},
                    ],
                });
                rules.push(json!({"if": {"allOf": [is_elsewhere(), is_keystone]}, "then": then}));
                continue;
            }
            Some("keystone") => {
                let mut own = then;
                own["required"] = json!(["auth_url"]);
                own["oneOf"] = json!([
                    secret(&["application_credential_secret"]),
                    secret(&["password"]),
                    secret(&["token"]),
                ]);
                then = json!({"if": is_elsewhere(), "else": own});
            }
            Some("rackspace") => {
                then["required"] = json!(required);
                then["oneOf"] = json!([secret(&["api_key"]), secret(&["password"])]);
            }
            Some("ak_sk") => {
                let keys = json!({
                    "required": ["access_key"],
                    "oneOf": secret(&["secret_key"])["oneOf"],
                });
                let from_env =
                    json!({"properties": {"from_env": {"const": true}}, "required": ["from_env"]});
                then["if"] = from_env;
                then["else"] = keys;
            }
            Some("token") => then["oneOf"] = secret(&["token"])["oneOf"].take(),
            Some("basic" | "hsso") => {
                then["required"] = json!(required);
                then["oneOf"] = secret(&["password"])["oneOf"].take();
            }
            Some(_) => {}
        }
        rules.push(rule("kind", kind.name.unwrap_or_default(), then));
    }
    // Without a kind and a login from elsewhere it is passthrough, which has no keys.
    rules.push(json!({
        "if": {"type": "object", "not": {"anyOf": [{"required": ["kind"]}, is_elsewhere()]}},
        "then": {"maxProperties": 0},
    }));
    Value::Array(rules)
}

/// Returns the rule that exactly one source of one of these secrets is set.
fn secret(names: &[&str]) -> Value {
    let sources = names.iter().flat_map(|name| {
        ["env", "file"].map(|source| json!({"required": [format!("{name}_{source}")]}))
    });
    let sources: Vec<Value> = sources.collect();
    json!({"oneOf": sources})
}
