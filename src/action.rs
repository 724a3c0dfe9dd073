//! Two-step calls: a document is fetched, edited in place and posted.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::contract::{Action, Method};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::rest::{Call, Caller, Reply};
use crate::upstream::{Operation, Upstream};

/// Carries out a two-step call: the document is the caller's own, or is fetched
/// and edited; then it is sent. Not atomic: between the steps the state can
/// change, and the upstream then refuses the second.
pub async fn call(
    upstream: &Upstream,
    method: &Method,
    action: &Action,
    request: &[u8],
    call: Call,
    caller: &Caller,
    deadline: Deadline,
) -> Result<Reply, Error> {
    let operation = Operation::of(method);
    let document = match method.document(request)? {
        Some(document) => document,
        None => {
            let fetch = method.document_call(&call);
            let reply = upstream.call(operation, &fetch, caller, deadline).await?;
            edit(&reply.body, action)?
        }
    };
    let call = Call {
        body: Some(document),
        ..call
    };
    upstream.call(operation, &call, caller, deadline).await
}

/// Edits the fetched JSON `document` for `action`: sets the member that names the
/// action and adds the members that must be there; one that is `null` counts as
/// missing. All else stays as it came, in its order and to the digit; an `href`
/// among it is passed back, never followed. A document that is not a JSON object
/// is `Error::Decode`.
pub fn edit(document: &[u8], action: &Action) -> Result<Bytes, Error> {
    let mut members: Members = serde_json::from_slice(document).map_err(unreadable)?;
    if let Some((name, value)) = &action.name {
        let value = serde_json::value::to_raw_value(value).map_err(unreadable)?;
        match members.find(name) {
            Some(at) => members.0[at].1 = value,
            None => members.0.insert(0, (name.to_string(), value)),
        }
    }
    for (name, json) in &action.members {
        let found = members.find(name);
        if found.is_some_and(|at| members.0[at].1.get() != "null") {
            continue;
        }
        let value = RawValue::from_string(json.to_string()).map_err(unreadable)?;
        match found {
            Some(at) => members.0[at].1 = value,
            None => members.0.push((name.to_string(), value)),
        }
    }
    serde_json::to_vec(&members)
        .map(Bytes::from)
        .map_err(unreadable)
}

/// The error without serde's own words, which may quote the document.
fn unreadable(error: serde_json::Error) -> Error {
    let problem = match error.classify() {
        Category::Data => "expected the document of the action, a JSON object".to_owned(),
        _ => format!(
            "expected the document of the action, found broken JSON at line {} column {}",
            error.line(),
            error.column()
        ),
    };
    Error::Decode {
        path: String::new(),
        problem,
    }
}

/// The members of a JSON object, in order, their values as text. Of a name given
/// twice, the first place and the last value count, as for most readers.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members(Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    match members.find(&name) {
                        Some(at) => members.0[at].1 = value,
                        None => members.0.push((name, value)),
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
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
        }
    }

    #[test]
    fn documents_are_edited_in_place() {
        for (document, want) in [
            // The four members of the API: nothing but the name is touched.
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
            // A name given twice stays once.
            (
                r#"{"name":1,"method":"POST","href":"a","href":"b","name":2,"parameters":[1]}"#,
                r#"{"name":"release","method":"POST","href":"b","parameters":[1]}"#,
            ),
        ] {
            let edited = edit(document.as_bytes(), &release()).unwrap();
            assert_eq!(std::str::from_utf8(&edited).unwrap(), want, "{document}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
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
            let error = edit(document.as_bytes(), &release()).unwrap_err();
            let Error::Decode { path, problem } = &error else {
                panic!("{document}: {error:?}");
            };
            assert!(path.is_empty(), "{document}");
            assert!(problem.contains(want), "{document}: {problem}");
            assert!(!problem.contains("secret"), "{document}: {problem}");
        }
    }
}
