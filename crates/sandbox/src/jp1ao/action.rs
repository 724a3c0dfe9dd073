//! The convention of all actions: a document to read, edit and post; an envelope
//! that comes back (`jp1ao.md`, 1).

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::words::Problem;
use super::{Call, Jp1aoLinks, Jp1aoVersion, Outcome, list, ok};

/// Properties in one call.
const MAX_ARGUMENTS: usize = 1000;

/// The document of an action of `objects/...`, with its arguments filled in. The
/// first of them may stand apart from the rest ([`super::Jp1aoRules`]).
pub fn document(call: &Call<'_>, path: &str, action: &str, arguments: Vec<Value>) -> Value {
    let (name, method, href) = match action {
        "update" | "delete" => (
            action,
            if action == "update" { "PUT" } else { "DELETE" },
            call.link(path),
        ),
        // The template gives the name of its sibling, with the right link (g.7).
        "rerunStepStart" => (
            "rerunStart",
            "POST",
            call.link(&format!("{path}/actions/{action}/invoke")),
        ),
        // The schema of detailhelp says `export` and POST (g.6).
        "detailhelp" => (
            "export",
            "POST",
            call.link(&format!("{path}/help/index.html"))
                .replace("/v1/objects/", "/help/"),
        ),
        _ => (
            action,
            "POST",
            call.link(&format!("{path}/actions/{action}/invoke")),
        ),
    };
    let space = if call.rules.links == Jp1aoLinks::Spaced {
        " "
    } else {
        ""
    };
    let parameters = match arguments.split_first() {
        None if call.rules.version == Jp1aoVersion::V10 => Value::Null,
        Some((first, rest)) if call.rules.nested_parameters && !rest.is_empty() => {
            json!([first, rest])
        }
        _ => arguments.into(),
    };
    json!({"name": name, "href": format!("{space}{href}"), "method": method, "parameters": parameters})
}

/// Answers the list of a thing's actions; all without arguments, as is usual for
/// lists of links.
pub fn listed(call: &Call<'_>, path: &str, actions: &[&str]) -> Outcome {
    let documents = actions
        .iter()
        .map(|action| document(call, path, action, Vec::new()));
    list::whole(call, documents.collect())
}

/// Answers the document.
pub fn shown(call: &Call<'_>, path: &str, action: &str, arguments: Vec<Value>) -> Outcome {
    call.only(&[&["alt"]])?;
    Ok(ok(&document(call, path, action, arguments)))
}

/// The arguments that came: the objects within `parameters`, however nested. The
/// document must have come back with its four members and its own name.
pub fn arguments(call: &Call<'_>, action: &str) -> Result<Vec<Map<String, Value>>, Problem> {
    call.only(&[&["alt"]])?;
    let mut document = call.body()?;
    let named = document.get("name").and_then(Value::as_str) == Some(action);
    let linked = document.get("href").is_some_and(Value::is_string);
    let posted = document.get("method").and_then(Value::as_str) == Some("POST");
    if !(named && linked && posted) {
        return Err(Problem::body("it is not the document of the action"));
    }
    let mut found = Vec::new();
    match document.remove("parameters") {
        Some(Value::Null) => {}
        Some(Value::Array(items)) => flatten(items, &mut found)?,
        _ => return Err(Problem::body("parameters is no list")),
    }
    Ok(found)
}

/// JSON is nested no deeper than 128, which the reader holds.
fn flatten(items: Vec<Value>, found: &mut Vec<Map<String, Value>>) -> Result<(), Problem> {
    for item in items {
        match item {
            Value::Array(items) => flatten(items, found)?,
            Value::Object(_) if found.len() == MAX_ARGUMENTS => {
                return Err(Problem::body(format!(
                    "more than {MAX_ARGUMENTS} arguments"
                )));
            }
            Value::Object(argument) => found.push(argument),
            _ => return Err(Problem::body("an argument is no object")),
        }
    }
    Ok(())
}

/// For actions that take none.
pub fn no_arguments(call: &Call<'_>, action: &str) -> Result<(), Problem> {
    match arguments(call, action)?.is_empty() {
        true => Ok(()),
        false => Err(Problem::body("the action takes no arguments")),
    }
}

/// What came of an action (1.1): done at once, so all three times are one.
/// `affected` are paths, `objects/...`.
pub fn envelope(call: &Call<'_>, affected: &[String]) -> Value {
    let id = Uuid::new_v4().to_string();
    let now = call.time(call.now);
    let links = affected.iter().map(|path| call.link(path));
    match call.rules.schema_envelope {
        false => json!({
            "instanceID": id,
            "created": now,
            "updated": now,
            "completed": now,
            "state": "success",
            "affectedResource": links.collect::<Vec<_>>(),
            "result": [],
        }),
        true => json!({
            "instanceId": id,
            "created": now,
            "updated": now,
            "completed": now,
            "state": "success",
            "affectedResources": links.map(|href| json!({"href": href})).collect::<Vec<_>>(),
            "result": [],
            "resultType": "",
        }),
    }
}

/// Answers with an envelope.
pub fn done(call: &Call<'_>, affected: &[String]) -> Outcome {
    Ok(ok(&envelope(call, affected)))
}
