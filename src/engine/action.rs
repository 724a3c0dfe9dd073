//! Two-step calls: a document is fetched, edited in place and sent.

mod document;

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::call_context::CallContext;
use super::pager::{NumberCursor, OnRepeat, Pager};
use crate::error::Error;
use crate::memory::SHORT_BYTES;
use document::{Document, Object};
use drawbridge_transcoder::call::{Call, Reply};
use drawbridge_transcoder::contract::{Action, Check, Edit, EditTarget, Method};

/// The most pages of definitions that are read to check values.
const MAX_DEFINITION_PAGES: u32 = 50;

/// How much memory editing a document needs: a multiple of its length for the parts and the
/// edited document, and so much for each part.
const EDIT_FACTOR: usize = 3;
const PART_BYTES: usize = 64;

/// The most bytes that one field adds to a document.
const MAX_EDIT_BYTES: usize = 16 << 20;

/// Makes a two-step call: fetches the document, unless the client has sent one, edits it
/// and sends it. Not atomic: where the state changes between the steps, the upstream
/// rejects the second.
pub async fn call(
    context: CallContext<'_>,
    method: &Method,
    action: &Action,
    request: &[u8],
    call: Call,
) -> Result<Reply, Error> {
    let call = Call {
        body: Some(document(context, method, action, request).await?),
        ..call
    };
    context.call(method, &call).await
}

/// Returns the edited document, which draws from the memory of the client.
pub async fn document(
    context: CallContext<'_>,
    method: &Method,
    action: &Action,
    request: &[u8],
) -> Result<Bytes, Error> {
    let turn = context.turn(request.len()).await?;
    let memory = &context.client.memory;
    let (document, reservation) =
        turn.run(|| memory.convert(request.len(), || method.document(request)))?;
    drop(turn);
    let document = match document? {
        Some(document) => memory.keep(reservation, document.len())?.attach(document),
        None => {
            let fetch = method.document_call(request)?;
            let reply = context.call(method, &fetch).await?;
            context.check_document(method, &reply).await?;
            edit(context, &reply.body, || {
                check_document(reply.text(), action)?;
                prepare(reply.text(), action)
            })
            .await?
        }
    };
    let document = match action.colon_offsets {
        true => edit(context, &document, || Ok(document::with_colons(&document))).await?,
        false => document,
    };
    if let Some(check) = &method.check
        && let Some(definitions) = check.definitions()
    {
        check_values(context, method, check, definitions, request, &document).await?;
    }
    let mut edits = Vec::new();
    for edit in &action.edits {
        let value = || method.field_json(edit.field, request);
        let (value, reservation) = memory.convert(SHORT_BYTES, value)?;
        if let Some(value) = value? {
            edits.push((edit, reservation.attach(value)));
        }
    }
    if edits.is_empty() {
        return Ok(document);
    }
    edit(context, &document, || {
        let mut edited = Document::read(&document)?;
        for (edit, value) in &edits {
            apply(&mut edited, edit, value)?;
        }
        edited.write()
    })
    .await
}

/// Makes a document from another one; from a long one after its turn. It draws from the memory
/// of the client, and so do its parts until it is made.
async fn edit(
    context: CallContext<'_>,
    from: &[u8],
    make: impl FnOnce() -> Result<Bytes, Error>,
) -> Result<Bytes, Error> {
    let turn = context.turn(from.len()).await?;
    let parts = from.iter().filter(|byte| **byte == b',').count();
    let needed = EDIT_FACTOR * from.len() + PART_BYTES * parts;
    let mut reservation = (context.client.memory).reserve_long(needed)?;
    let document = turn.run(make)?;
    reservation.resize_long(document.len())?;
    Ok(reservation.attach(document))
}

/// Checks the values in the request against the definitions of the upstream.
async fn check_values(
    context: CallContext<'_>,
    method: &Method,
    check: &Check,
    definitions: &Method,
    request: &[u8],
    document: &[u8],
) -> Result<(), Error> {
    let values = match method.field_json(check.field, request)? {
        None => serde_json::Map::new(),
        Some(json) => serde_json::from_slice(&json).map_err(document::unreadable)?,
    };
    let too_many = Error::Binding {
        field: check.name.to_string(),
        problem: format!(
            "cannot be checked: the upstream has more than {} definitions",
            MAX_DEFINITION_PAGES as usize * Check::PAGE_SIZE
        ),
    };
    let cursor = NumberCursor::new(check, definitions, request);
    let mut pager = Pager::new(cursor, OnRepeat::End).with_limit(MAX_DEFINITION_PAGES, too_many);
    let mut items = Vec::new();
    while let Some(page) = pager.next(context).await? {
        items.extend(page.items);
    }
    let problems = (check.checker)(&items, &values, document);
    if problems.is_empty() {
        return Ok(());
    }
    let field = |key: String| format!("{}[{key}]", check.name);
    Err(Error::FieldViolations(
        problems
            .into_iter()
            .map(|(key, problem)| (field(key), problem))
            .collect(),
    ))
}

/// Writes the value of a request's field into the document.
fn apply(document: &mut Document, edit: &Edit, value: &[u8]) -> Result<(), Error> {
    let fault = |field: String, problem: &str| Error::Binding {
        field,
        problem: problem.to_owned(),
    };
    let value: Box<RawValue> = serde_json::from_slice(value).map_err(document::unreadable)?;
    // The entries of a map; empty for an edit that writes the value itself.
    let mut entries: Vec<(String, Box<RawValue>)> = Vec::new();
    if matches!(
        edit.target,
        EditTarget::Members | EditTarget::Entries | EditTarget::Keyed(_)
    ) {
        let object: Object = serde_json::from_str(value.get()).map_err(document::unreadable)?;
        for (name, value) in object.into_members() {
            let place = format!("{}[{name}]", edit.name);
            let value = convert(edit, value).map_err(|problem| fault(place, problem))?;
            entries.push((name, value));
        }
    }
    let mut placed = vec![false; entries.len()];
    let keyed: HashMap<&str, usize> = entries
        .iter()
        .enumerate()
        .map(|(at, (name, _))| (&**name, at))
        .collect();
    let whole = match edit.target {
        EditTarget::Member(_) | EditTarget::Marker => {
            convert(edit, value).map_err(|problem| fault(edit.name.to_string(), problem))?
        }
        _ => value,
    };
    // A value is copied into each matching object: a small document with many of them
    // must not exhaust the memory.
    let size = match edit.target {
        EditTarget::Member(_) | EditTarget::Marker => whole.get().len(),
        _ => entries
            .iter()
            .map(|(name, value)| name.len() + value.get().len())
            .sum(),
    };
    let mut written = 0;
    let mut found = false;
    document.objects(edit.parent_member.as_deref(), &mut |object| {
        let marker = match &*edit.member_prefixes {
            [] => None,
            marks => {
                let marker = object
                    .names()
                    .find(|name| marks.iter().any(|mark| name.starts_with(&**mark)));
                match marker {
                    Some(marker) => Some(marker.to_owned()),
                    None => return Ok(()),
                }
            }
        };
        // A keyed entry is only copied into the objects with its key.
        if !matches!(edit.target, EditTarget::Keyed(_)) {
            written += size;
        }
        if written > MAX_EDIT_BYTES {
            return Err(fault(
                edit.name.to_string(),
                "is copied into too many places of the document",
            ));
        }
        match (&edit.target, marker) {
            (EditTarget::Members, _) => {
                for (name, value) in &entries {
                    object.set(name, value.clone());
                }
            }
            (EditTarget::Entries, _) => {
                for ((name, value), placed) in entries.iter().zip(&mut placed) {
                    if object.get(name).is_some() {
                        object.set(name, value.clone());
                        *placed = true;
                    }
                }
            }
            (EditTarget::Keyed(member), Some(marker)) => {
                let key = object
                    .get(&marker)
                    .and_then(|text| serde_json::from_str::<String>(text.get()).ok());
                match key.and_then(|key| keyed.get(&*key)) {
                    Some(&at) => {
                        written += entries[at].1.get().len();
                        object.set(member, entries[at].1.clone());
                        placed[at] = true;
                    }
                    None => return Ok(()),
                }
            }
            (EditTarget::Member(member), _) => object.set(member, whole.clone()),
            (EditTarget::Marker, Some(marker)) => object.set(&marker, whole.clone()),
            // Rejected at start.
            (EditTarget::Keyed(_) | EditTarget::Marker, None) => return Ok(()),
        }
        found = true;
        for (name, json) in &edit.members {
            let value = RawValue::from_string(json.to_string()).map_err(document::unreadable)?;
            object.set(name, value);
        }
        Ok(())
    })?;
    let by_entry = matches!(edit.target, EditTarget::Entries | EditTarget::Keyed(_));
    if by_entry {
        return match entries.iter().zip(placed).find(|(_, placed)| !placed) {
            None => Ok(()),
            Some(((name, _), _)) => Err(fault(
                format!("{}[{name}]", edit.name),
                "is not in the document of the action",
            )),
        };
    }
    match found {
        true => Ok(()),
        false => Err(fault(
            edit.name.to_string(),
            "has no place in the document of the action: leave it out",
        )),
    }
}

/// Converts the value to a JSON string where the edit requires one.
fn convert(edit: &Edit, value: Box<RawValue>) -> Result<Box<RawValue>, &'static str> {
    if !edit.as_text {
        return Ok(value);
    }
    match serde_json::from_str(value.get()) {
        Ok(Value::String(_)) => Ok(value),
        // Keeps the digits of a number.
        Ok(Value::Number(_) | Value::Bool(_)) => {
            serde_json::value::to_raw_value(value.get()).map_err(|_| "cannot be written")
        }
        _ => Err("must be a string, a number or a bool"),
    }
}

/// Checks that a fetched document is one of the action: it has a member of those that the
/// action names, or any member if it names none.
fn check_document(document: &[u8], action: &Action) -> Result<(), Error> {
    let object: Object = serde_json::from_slice(document).map_err(document::unreadable)?;
    let mut named = (action.name.iter().map(|(name, _)| name))
        .chain(action.members.iter().map(|(name, _)| name))
        .peekable();
    let first = named.peek().map(|name| name.to_string());
    let is_document = match &first {
        Some(_) => named.any(|name| object.get(name).is_some()),
        None => object.names().next().is_some(),
    };
    match is_document {
        true => Ok(()),
        false => Err(Error::decode(
            "",
            format!(
                "not the document of the action: `{}` is missing; nothing was changed",
                first.unwrap_or_default()
            ),
        )),
    }
}

/// Prepares the fetched JSON `document` for `action`: sets the member that names the
/// action, and adds required members that are missing or `null`. Everything else keeps its
/// order and its digits; an `href` is sent back and never followed. A document that is not
/// a JSON object is `Error::Decode`.
fn prepare(document: &[u8], action: &Action) -> Result<Bytes, Error> {
    let mut object: Object = serde_json::from_slice(document).map_err(document::unreadable)?;
    if let Some((name, value)) = &action.name {
        let value = serde_json::value::to_raw_value(value).map_err(document::unreadable)?;
        match object.get(name) {
            Some(_) => object.set(name, value),
            None => object.set_first(name, value),
        }
    }
    for (name, json) in &action.members {
        if object.get(name).is_some_and(|value| value.get() != "null") {
            continue;
        }
        let value = RawValue::from_string(json.to_string()).map_err(document::unreadable)?;
        object.set(name, value);
    }
    document::write(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Action {
        Action {
            name: Some(("name".into(), "release".into())),
            members: [
                ("method", "\"POST\""),
                ("href", "\"\""),
                ("parameters", "[]"),
            ]
            .map(|(name, json)| (name.into(), json.into()))
            .into(),
            document: None,
            edits: Vec::new(),
            same_path: false,
            colon_offsets: false,
        }
    }

    #[test]
    fn documents_are_edited_in_place() {
        for (document, want) in [
            // The four members of the API: only the name is changed.
            (
                r#"{"name":"wrong","href":" http://inner:22015/x","method":"POST","parameters":[]}"#,
                r#"{"name":"release","href":" http://inner:22015/x","method":"POST","parameters":[]}"#,
            ),
            // Unknown members, order and the text of numbers are kept.
            (
                "{ \"zz\" : 12345678901234567890.10 , \"parameters\" : [ {\"b\":1e400, \"a\" :[]} ],\n\"method\":\"PUT\",\"href\":\"h\",\"name\":\"n\" }",
                "{\"zz\":12345678901234567890.10,\"parameters\":[ {\"b\":1e400, \"a\" :[]} ],\"method\":\"PUT\",\"href\":\"h\",\"name\":\"release\"}",
            ),
            // JP1/AO V10 documents `parameters: null`: the four members are always sent.
            (
                r#"{"name":"release","parameters":null}"#,
                r#"{"name":"release","parameters":[],"method":"POST","href":""}"#,
            ),
            (
                "{}",
                r#"{"name":"release","method":"POST","href":"","parameters":[]}"#,
            ),
            // Of duplicate members, one is kept.
            (
                r#"{"name":1,"method":"POST","href":"a","href":"b","name":2,"parameters":[1]}"#,
                r#"{"name":"release","method":"POST","href":"b","parameters":[1]}"#,
            ),
        ] {
            let edited = prepare(document.as_bytes(), &release()).unwrap();
            assert_eq!(std::str::from_utf8(&edited).unwrap(), want, "{document}");
        }
    }

    #[test]
    fn colon_is_added_to_offsets() {
        for (document, want) in [
            (
                r#"{"a":"2026-01-02T03:04:05.678+0900","b":["2026-01-02T03:04:05-0330", null]}"#,
                r#"{"a":"2026-01-02T03:04:05.678+09:00","b":["2026-01-02T03:04:05-03:30", null]}"#,
            ),
            // Valid offsets, invalid times and times within other text are kept to the byte.
            (
                r#"{ "a" : "2026-01-02T03:04:05.678+09:00", "b":"2026-13-02T03:04:05+0900" }"#,
                r#"{ "a" : "2026-01-02T03:04:05.678+09:00", "b":"2026-13-02T03:04:05+0900" }"#,
            ),
            (
                r#"{"a":"at 2026-01-02T03:04:05+0900","b":"\"2026-01-02T03:04:05+0900","c":"+0900","d":"\\"}"#,
                r#"{"a":"at 2026-01-02T03:04:05+0900","b":"\"2026-01-02T03:04:05+0900","c":"+0900","d":"\\"}"#,
            ),
            (
                r#"{"a":"日本日本日本日本日本0900"}"#,
                r#"{"a":"日本日本日本日本日本0900"}"#,
            ),
            (r#""\"#, r#""\"#),
        ] {
            let got = document::with_colons(document.as_bytes());
            assert_eq!(std::str::from_utf8(&got).unwrap(), want);
        }
    }

    // Would not complete with a linear search per member or entry.
    #[test]
    fn documents_with_many_members_are_edited_in_linear_time() {
        let edit = Edit {
            name: "properties".into(),
            parent_member: Some("parameters".into()),
            member_prefixes: vec!["keyName".into()],
            target: EditTarget::Keyed("value".into()),
            as_text: false,
            members: Vec::new(),
            field: 0,
        };
        let text = |value: fn(usize) -> usize| {
            let members = (0..300_000).map(|n| format!(r#""m{n}":{n},"#));
            let parameters = (0..50_000)
                .map(|n| format!(r#"{{"value":{},"keyName":"k{n}","n":{n}}}"#, value(n)))
                .collect::<Vec<_>>();
            let members = members.collect::<String>();
            format!(r#"{{{members}"parameters":[{}]}}"#, parameters.join(","))
        };
        let entries = (0..50_000).rev().map(|n| format!(r#""k{n}":{}"#, n + 1));
        let entries = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let mut document = Document::read(text(|_| 0).as_bytes()).unwrap();
        apply(&mut document, &edit, entries.as_bytes()).unwrap();
        // `assert_eq!` would print megabytes.
        assert!(document.write().unwrap() == text(|n| n + 1));

        let problem = apply(&mut document, &edit, br#"{"k7":1,"k50000":1}"#).unwrap_err();
        assert!(
            problem.to_string().starts_with("properties[k50000]"),
            "{problem}"
        );
    }

    #[test]
    fn value_that_makes_the_document_too_large_is_rejected() {
        let edit = Edit {
            name: "name".into(),
            parent_member: Some("parameters".into()),
            member_prefixes: vec!["scheduleType".into()],
            target: EditTarget::Member("name".into()),
            as_text: false,
            members: Vec::new(),
            field: 0,
        };
        let places = vec![r#"{"scheduleType":1}"#; 17].join(",");
        let document = format!(r#"{{"parameters":[{places}]}}"#);
        let mut document = Document::read(document.as_bytes()).unwrap();
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        let problem = apply(&mut document, &edit, long.as_bytes()).unwrap_err();
        assert!(problem.to_string().contains("too many places"), "{problem}");
        apply(&mut document, &edit, b"\"short\"").unwrap();
    }

    #[test]
    fn set_first_shifts_the_index_of_other_members() {
        let mut object: Object = serde_json::from_str(r#"{"a":1,"b":2}"#).unwrap();
        let value = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        object.set_first("first", value("0"));
        object.set("b", value("3"));
        object.set("c", value("4"));
        assert_eq!(object.get("first").unwrap().get(), "0");
        assert_eq!(object.get("a").unwrap().get(), "1");
        let json = document::write(&object).unwrap();
        assert_eq!(json, r#"{"first":0,"a":1,"b":3,"c":4}"#);
    }

    #[test]
    fn document_that_is_not_an_object_is_rejected() {
        for (document, want) in [
            ("[]", "a JSON object"),
            ("\"secret\"", "a JSON object"),
            ("null", "a JSON object"),
            ("", "broken JSON at line 1"),
            ("<html>", "broken JSON at line 1"),
            (r#"{"name":"#, "broken JSON"),
            ("{} trailing", "broken JSON"),
            ("{\"a\":\"\u{0}\"}", "broken JSON"),
        ] {
            let error = prepare(document.as_bytes(), &release()).unwrap_err();
            let Error::Decode { path, problem, .. } = &error else {
                panic!("{document}: {error:?}");
            };
            assert!(path.is_empty(), "{document}");
            assert!(problem.contains(want), "{document}: {problem}");
            assert!(!problem.contains("secret"), "{document}: {problem}");
        }
    }
}
