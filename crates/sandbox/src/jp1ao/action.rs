//! The convention of all actions: a document to fetch, edit and post, and an envelope
//! as the response (docs/apis/jp1ao.md, "Actions").

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::errors::ApiError;
use super::{Call, HandlerResult, Jp1aoLinks, Jp1aoVersion, list, ok};

/// Maximum number of properties in one call.
const MAX_ARGUMENTS: usize = 1000;

/// Builds the document of an action of `objects/...` with its arguments. The first
/// argument may be separate from the others ([`super::Jp1aoOptions`]).
pub fn document(call: &Call<'_>, path: &str, action: &str, arguments: Vec<Value>) -> Value {
    let (name, method, href) = match action {
        "update" | "delete" => (
            action,
            if action == "update" { "PUT" } else { "DELETE" },
            call.link(path),
        ),
        // The document has the name of a sibling, with the correct link
        // (docs/apis/jp1ao.md, "Quirks").
        "rerunStepStart" => (
            "rerunStart",
            "POST",
            call.link(&format!("{path}/actions/{action}/invoke")),
        ),
        // The schema of detailhelp says `export` and POST (docs/apis/jp1ao.md,
        // "Quirks").
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
    let space = if call.options.links == Jp1aoLinks::Spaced {
        " "
    } else {
        ""
    };
    let parameters = match arguments.split_first() {
        None if call.options.version == Jp1aoVersion::V10 => Value::Null,
        Some((first, rest)) if call.options.nested_parameters && !rest.is_empty() => {
            json!([first, rest])
        }
        _ => arguments.into(),
    };
    json!({"name": name, "href": format!("{space}{href}"), "method": method, "parameters": parameters})
}

/// Returns the list of an object's actions, without arguments, as is usual for lists of
/// links.
pub fn listed(call: &Call<'_>, path: &str, actions: &[&str]) -> HandlerResult {
    let documents = actions
        .iter()
        .map(|action| document(call, path, action, Vec::new()));
    list::unpaged(call, documents.collect())
}

/// Returns the document.
pub fn shown(call: &Call<'_>, path: &str, action: &str, arguments: Vec<Value>) -> HandlerResult {
    call.reject_other_parameters(&[&["alt"]])?;
    Ok(ok(&document(call, path, action, arguments)))
}

/// Returns the arguments of a posted document: the objects in `parameters`, at any
/// nesting level. The document must have its four members and its own name.
pub fn arguments(call: &Call<'_>, action: &str) -> Result<Vec<Map<String, Value>>, ApiError> {
    call.reject_other_parameters(&[&["alt"]])?;
    let mut document = call.body()?;
    let named = document.get("name").and_then(Value::as_str) == Some(action);
    let linked = document.get("href").is_some_and(Value::is_string);
    let posted = document.get("method").and_then(Value::as_str) == Some("POST");
    if !(named && linked && posted) {
        return Err(ApiError::body("it is not the document of the action"));
    }
    let mut found = Vec::new();
    match document.remove("parameters") {
        Some(Value::Null) => {}
        Some(Value::Array(items)) => flatten(items, &mut found)?,
        _ => return Err(ApiError::body("parameters is no list")),
    }
    Ok(found)
}

/// Recursion is bounded by the JSON parser's maximum depth of 128.
fn flatten(items: Vec<Value>, found: &mut Vec<Map<String, Value>>) -> Result<(), ApiError> {
    for item in items {
        match item {
            Value::Array(items) => flatten(items, found)?,
            Value::Object(_) if found.len() == MAX_ARGUMENTS => {
                return Err(ApiError::body(format!(
                    "more than {MAX_ARGUMENTS} arguments"
                )));
            }
            Value::Object(argument) => found.push(argument),
            _ => return Err(ApiError::body("an argument is no object")),
        }
    }
    Ok(())
}

/// Rejects arguments, for actions without any.
pub fn no_arguments(call: &Call<'_>, action: &str) -> Result<(), ApiError> {
    match arguments(call, action)?.is_empty() {
        true => Ok(()),
        false => Err(ApiError::body("the action takes no arguments")),
    }
}

/// Builds the envelope of an action (docs/apis/jp1ao.md, "Action result"). Actions
/// complete at once, so all three times are equal. `affected` are paths, `objects/...`.
pub fn envelope(call: &Call<'_>, affected: &[String]) -> Value {
    let id = Uuid::new_v4().to_string();
    let now = call.time(call.now);
    let links = affected.iter().map(|path| call.link(path));
    match call.options.schema_envelope {
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

/// Returns an envelope as the response.
pub fn done(call: &Call<'_>, affected: &[String]) -> HandlerResult {
    Ok(ok(&envelope(call, affected)))
}
