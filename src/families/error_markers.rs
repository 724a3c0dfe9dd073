//! Recognizes an error in the body of a response with a success status: by members that say
//! so, not by members that errors merely have, such as `message` and `status`. Names are
//! compared without case, `_` and `-`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::families::error_body::{MAX_JSON_BYTES, parse};
use crate::families::error_shapes::{get, is_named};
use drawbridge_transcoder::family::{Evidence, Members};

/// Members of error bodies that say that something is wrong, or what.
const ERROR_MEMBERS: &[&str] = &[
    "code",
    "errcode",
    "errmsg",
    "errno",
    "error",
    "errorcode",
    "errordetail",
    "errordescription",
    "errormessage",
    "errormessages",
    "errormsg",
    "errors",
    "errorsource",
    "exception",
    "explanation",
    "failed",
    "fault",
    "haserror",
    "haserrors",
    "iserror",
    "issuccess",
    "messageid",
    "ok",
    "result",
    "status",
    "statuscode",
    "success",
    "title",
    "type",
];

/// Members that describe an error further.
const DETAIL_MEMBERS: &[&str] = &[
    "application",
    "correlationid",
    "description",
    "detail",
    "details",
    "documentationurl",
    "domain",
    "encodedauthorizationmessage",
    "erroruri",
    "exceptionmessage",
    "exceptiontype",
    "extensions",
    "help",
    "hint",
    "hostid",
    "instance",
    "javaclassname",
    "message",
    "messagedata",
    "method",
    "msg",
    "path",
    "reason",
    "recommend",
    "requestid",
    "stacktrace",
    "statustext",
    "timestamp",
    "trace",
    "traceback",
    "traceid",
    "warningmessages",
];

/// Members that some error bodies have, and most resources too: `data` of JSend, the rest of
/// a JSON-RPC response and of a Kubernetes `Status`.
const SHARED_MEMBERS: &[&str] = &["apiversion", "data", "id", "jsonrpc", "kind", "metadata"];

/// How the names end of members that contain an error: `NeutronError`, `RemoteException`.
const WRAPPER_ENDS: &[&str] = &["error", "exception", "fault"];

/// Members that contain the member `error`.
const ENVELOPES: &[&str] = &["errorresponse", "response"];

/// Members with a text that explains the error.
const TEXTS: &[&str] = &[
    "message",
    "msg",
    "error",
    "title",
    "detail",
    "details",
    "type",
    "errormessage",
    "errmsg",
    "exception",
    "faultstring",
    "reason",
];

/// Members with an HTTP status.
pub(crate) const STATUS: &[&str] = &["code", "status", "statuscode", "errorcode"];

/// Values of `status` and `result` that say that the call has failed.
const FAILURES: &[&str] = &["error", "fail", "failure"];

/// Parts of words that name an error, as `code` has them: `ResourceNotFound`.
const ERROR_WORDS: &[&str] = &[
    "conflict",
    "denied",
    "error",
    "exceeded",
    "exception",
    "fail",
    "fault",
    "forbidden",
    "invalid",
    "missing",
    "notallowed",
    "notfound",
    "throttl",
    "timeout",
    "unauthorized",
    "unavailable",
    "unsupported",
];

/// Parses a body that may be an error with a success status. None if it is too large, is no
/// object, or has members that no error body has although it can be the resource.
pub(crate) fn error_object(body: &[u8], evidence: Evidence<'_>) -> Option<Value> {
    if body.len() > MAX_JSON_BYTES {
        return None;
    }
    match body.first() {
        Some(b'{') => {}
        Some(b'[') if matches!(evidence, Evidence::NotTheResource) => return error_in_list(body),
        _ => return None,
    }
    if let Evidence::MayBeTheResource(members) = evidence {
        // Ends at the first other member, since most bodies are resources.
        let names: ErrorNames<'_> = serde_json::from_slice(body).ok()?;
        if !names.shows(members) {
            return None;
        }
    }
    let value = parse(body)?;
    (matches!(evidence, Evidence::NotTheResource) || is_only_error(&value)).then_some(value)
}

/// Returns the first of the errors in a list of nothing else, as Salesforce answers:
/// `[{"message": "...", "errorCode": "..."}]`.
fn error_in_list(body: &[u8]) -> Option<Value> {
    match parse(body)? {
        Value::Array(items) if items.iter().all(is_only_error) => items.into_iter().next(),
        _ => None,
    }
}

/// Returns whether the body says that the call has failed.
pub(crate) fn is_error(body: &Value, evidence: Evidence<'_>) -> bool {
    is_marked(body) || is_only_error(body) && is_marked_in_context(body, evidence)
}

/// Returns whether a member says that the call has failed, whatever the others are.
fn is_marked(body: &Value) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| is_set(get(body, name)));
    has(&["error", "errors", "errorcode"])
        || names_status(body, STATUS) && has(TEXTS)
        || get(body, "messageid")
            .and_then(Value::as_str)
            .is_some_and(is_error_id)
            && has(TEXTS)
        || has(&["errorsource"]) && has(&["messageid", "message", "msg"])
        || (is_false(body, "ok") || is_false(body, "success")) && has(TEXTS)
}

/// Returns whether a member says that the call has failed, in a body that has only members of
/// error bodies. In that of a resource it could describe the resource.
fn is_marked_in_context(body: &Value, evidence: Evidence<'_>) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| is_set(get(body, name)));
    let word = |name: &str| get(body, name).and_then(Value::as_str).map(str::trim);
    let is_word = |name: &str, words: &[&str]| {
        word(name).is_some_and(|word| words.iter().any(|one| word.eq_ignore_ascii_case(one)))
    };
    let is_certain = matches!(evidence, Evidence::NotTheResource);
    let has_text = has(TEXTS);
    let failed = is_word("status", FAILURES) || is_word("result", FAILURES);
    // A state, too: only if the body cannot be the resource.
    let ended = is_certain && (is_word("status", &["failed"]) || is_word("result", &["failed"]));
    let names_error = |name: &str| word(name).is_some_and(names_error);
    let is_true = |name: &str| get(body, name) == Some(&Value::Bool(true));
    (failed || ended) && (is_certain || has_text)
        // JSend has the invalid fields in `data`.
        || word("status") == Some("fail") && has(&["data"])
        || is_status_of_kubernetes(body) && is_word("status", &["failure"])
        || ["ok", "success", "issuccess"].iter().any(|name| is_false(body, name))
            && (is_certain || has_text)
        || ["iserror", "haserror", "haserrors", "failed"].iter().any(|name| is_true(name))
            && (is_certain || has_text)
        || has(&["errcode", "errno"]) && has_text
        || ["errormessages", "errordetail", "exception", "fault"]
            .iter()
            .any(|name| get(body, name).is_some_and(|v| !v.is_boolean() && is_set(Some(v))))
        || !says_success(body) && has(&["errormessage", "errormsg", "errmsg"])
        || ["code", "type"].iter().any(|name| names_error(name)) && has(&["message", "msg"])
        || is_wrapped(body)
}

/// Returns whether all members are those of error bodies, apart from `null`.
fn is_only_error(body: &Value) -> bool {
    let Some(members) = body.as_object() else {
        return false;
    };
    let is_shared = |name: &str| match normal(name) {
        "data" => {
            let status = get(body, "status").and_then(Value::as_str);
            matches!(status, Some("error" | "fail"))
        }
        "id" | "jsonrpc" => get(body, "jsonrpc").is_some(),
        _ => is_status_of_kubernetes(body),
    };
    let mut members = members.iter().filter(|(_, value)| !value.is_null());
    members.all(|(name, value)| match kind(name) {
        Some(Name::Error | Name::Detail) => true,
        Some(Name::Shared) => is_shared(name),
        Some(Name::Wrapper) => value.is_object() && is_wrapped(body),
        None => false,
    })
}

fn is_status_of_kubernetes(body: &Value) -> bool {
    get(body, "kind").and_then(Value::as_str) == Some("Status")
}

/// Returns whether the only member is an object that describes an error: `RemoteException`.
fn is_wrapped(body: &Value) -> bool {
    let mut members = body.as_object().into_iter().flat_map(Map::iter);
    let (Some((name, inner)), None) = (members.next(), members.next()) else {
        return false;
    };
    let signs: &[&str] = match ENVELOPES.iter().any(|known| is_named(name, known)) {
        true => &["error", "errors"],
        false => &["message", "msg", "code", "error", "type"],
    };
    kind(name) == Some(Name::Wrapper) && signs.iter().any(|sign| is_set(get(inner, sign)))
}

/// Returns whether a code says that nothing is wrong: 0, 200, `ok`.
fn says_success(body: &Value) -> bool {
    ["code", "errcode", "errno", "errorcode"]
        .iter()
        .any(|name| get(body, name).is_some_and(|value| !is_set(Some(value))))
}

/// Returns whether a message id of Hitachi's products is that of an error: `KNAE02004-E`.
/// Source: docs/apis/jp1ao.md.
fn is_error_id(id: &str) -> bool {
    let number = id.trim().strip_suffix("-E").unwrap_or_default();
    let digits = number.trim_start_matches(|c: char| c.is_ascii_uppercase());
    number.starts_with("KN") && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn names_error(word: &str) -> bool {
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    let word = word.to_ascii_lowercase();
    ERROR_WORDS.iter().any(|part| word.contains(part))
}

fn is_false(body: &Value, name: &str) -> bool {
    match get(body, name) {
        Some(Value::Bool(value)) => !value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("false"),
        _ => false,
    }
}

/// Returns whether a member of this value says that something is wrong: a text, a value in an
/// object or a list, or `true`. A code of 0 or 200 says that nothing is.
pub(crate) fn is_set(value: Option<&Value>) -> bool {
    const GOOD: &[&str] = &[
        "0", "200", "ok", "success", "none", "null", "false", "no error", "noerror",
    ];
    match value {
        Some(Value::String(text)) => {
            let text = text.trim();
            !text.is_empty() && !GOOD.iter().any(|good| text.eq_ignore_ascii_case(good))
        }
        Some(Value::Number(number)) => !matches!(number.as_i64(), Some(0 | 200..=299)),
        Some(object @ Value::Object(members)) => {
            !says_success(object) && members.values().any(|value| is_set(Some(value)))
        }
        Some(Value::Array(items)) => items.iter().any(|item| is_set(Some(item))),
        Some(Value::Bool(is_error)) => *is_error,
        Some(Value::Null) | None => false,
    }
}

/// Returns whether one of these members is an HTTP status from 400 to 599.
pub(crate) fn names_status(value: &Value, names: &[&str]) -> bool {
    names.iter().any(|name| {
        let one = get(value, name).and_then(status_of);
        one.is_some()
    })
}

/// Returns the HTTP status that an error body names in one of these members, as a number
/// or a text that begins with one: `404`, `"404 Not Found"`. 500 if there is none.
pub(crate) fn named_status<'a>(values: impl IntoIterator<Item = &'a Value>, names: &[&str]) -> u16 {
    let mut values = values.into_iter();
    let found = values.find_map(|value| {
        let mut members = names.iter().filter_map(|name| get(value, name));
        members.find_map(status_of)
    });
    found.unwrap_or(500)
}

/// Returns the HTTP status of an error in a value: `404`, `"404 Not Found"`.
fn status_of(value: &Value) -> Option<u16> {
    let status = match value {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok()?,
        Value::String(text) => text.split_whitespace().next()?.parse().ok()?,
        _ => return None,
    };
    (400..600).contains(&status).then_some(status)
}

/// What a member of an error body is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Error,
    Detail,
    Shared,
    Wrapper,
}

fn kind(name: &str) -> Option<Name> {
    let of = |all: &[&'static str]| all.iter().find(|known| is_named(name, known)).copied();
    if of(ERROR_MEMBERS).is_some() {
        return Some(Name::Error);
    }
    if of(DETAIL_MEMBERS).is_some() {
        return Some(Name::Detail);
    }
    if of(SHARED_MEMBERS).is_some() {
        return Some(Name::Shared);
    }
    if of(ENVELOPES).is_some() {
        return Some(Name::Wrapper);
    }
    let bytes = name.as_bytes();
    let ends_with = |end: &&&str| {
        let at = bytes.len().checked_sub(end.len());
        at.is_some_and(|at| bytes[at..].eq_ignore_ascii_case(end.as_bytes()))
    };
    WRAPPER_ENDS.iter().find(ends_with).map(|_| Name::Wrapper)
}

fn normal(name: &str) -> &'static str {
    let found = SHARED_MEMBERS.iter().find(|known| is_named(name, known));
    found.copied().unwrap_or_default()
}

/// The members of an object that may be an error; fails for an object with a member that no
/// error body has.
struct ErrorNames<'a>(Vec<(Cow<'a, str>, Name)>);

impl ErrorNames<'_> {
    /// Returns whether the members can show an error next to those that the response has: one
    /// that says so is not a field of it, or, if the response has members that no error body
    /// has and none of these is there, one that explains it.
    fn shows(&self, members: &dyn Members) -> bool {
        let is_own = |name: &str| !matches!(kind(name), Some(Name::Error | Name::Detail));
        let mut undeclared = self.0.iter().filter(|(name, _)| !members.has(name));
        undeclared.any(|(_, kind)| match kind {
            Name::Error | Name::Wrapper => true,
            Name::Detail | Name::Shared => members.any(&is_own),
        })
    }
}

impl<'de> Deserialize<'de> for ErrorNames<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = ErrorNames<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error body")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ErrorNames<'de>, A::Error> {
                let mut names = ErrorNames(Vec::new());
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let kind = kind(&name);
                    if map.next_value::<Option<IgnoredAny>>()?.is_none() {
                        continue;
                    }
                    match kind {
                        Some(kind) => names.0.push((name, kind)),
                        None => return Err(A::Error::custom("no error body")),
                    }
                }
                Ok(names)
            }
        }
        deserializer.deserialize_map(Names)
    }
}
