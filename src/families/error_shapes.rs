//! Reads the error bodies of REST APIs by the names of their members, which are similar
//! everywhere: as data, not by product. Names are compared without case, `_` and `-`.

use serde_json::{Map, Value};

use crate::error::cut;
use crate::families::error_body::message as clean;

/// Members with an object that describes the error.
const WRAPPERS: &[&str] = &["error", "fault", "err", "value"];

/// Members with the message, the most specific first: a text, or a list of texts.
const MESSAGES: &[&str] = &[
    "errordescription",
    "detail",
    "message",
    "errormessage",
    "errorsummary",
    "errormessages",
    "errormsg",
    "faultstring",
    "msg",
    "description",
    "title",
    "error",
    "errors",
];

/// Members with the reason, for programs.
const REASONS: &[&str] = &["errorcode", "code", "reason"];

/// Members with the id of the request.
const REQUEST_IDS: &[&str] = &["requestid", "traceid", "correlationid"];

/// Members of the error with an object that adds to it (OData).
const INNER: &str = "innererror";

/// Members with invalid fields: a list of objects, or a map from fields to lists of problems.
const FIELD_LISTS: &[&str] = &[
    "fieldviolations",
    "causes",
    "errorcauses",
    "@message.extendedinfo",
    "violations",
    "parameterviolations",
    "propertyviolations",
    "classviolations",
    "errordetails",
    "invalidparams",
    "invalidparameters",
    "validationerrors",
    "fielderrors",
    "modelstate",
    "errors",
    "detail",
    "details",
    "message",
    "messages",
    "error",
    "fields",
    "issues",
];

/// Those of them whose maps may also have a problem instead of a list.
const FIELD_MAPS: &[&str] = &[
    "validationerrors",
    "fielderrors",
    "modelstate",
    "errors",
    "messages",
    "fields",
];

/// Lists of invalid fields inside an item of [`FIELD_LISTS`].
const NESTED_LISTS: &[&str] = &["fieldviolations", "causes", "fields"];

/// Members of an invalid field: where it is; a text or a path as a list.
const FIELDS: &[&str] = &[
    "field",
    "loc",
    "propertypath",
    "propertyref",
    "pointer",
    "param",
    "parameter",
    "path",
    "property",
    "propertyname",
    "target",
    "attribute",
    "location",
    "name",
    "key",
    "context",
    "relatedproperties",
];

/// Members of an invalid field: what is wrong with it.
const PROBLEMS: &[&str] = &[
    "description",
    "defaultmessage",
    "message",
    "msg",
    "errormessage",
    "errorsummary",
    "messages",
    "reason",
    "detail",
    "title",
    "error",
];

/// Keys of a map of fields for problems of no one field.
const NO_FIELD: &[&str] = &["nonfielderrors", "base", "all", ""];

/// Parts of the names of members whose values are not shown.
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "authorization",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "cookie",
    "session",
    "auth",
];

/// Limits of what is read: fields, texts in a message, levels of nested fields.
const MAX_FIELDS: usize = 100;
const MAX_TEXTS: usize = 5;
const MAX_DEPTH: usize = 4;
/// Limit of a reason and of a request id.
const MAX_ID_BYTES: usize = 128;
/// Limit of a body that is shown since nothing was recognized.
const MAX_EXCERPT_BYTES: usize = 300;
/// A longer word may be a secret, and is not shown.
const MAX_WORD_CHARS: usize = 40;

/// The values of an error body.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ErrorBody {
    /// For programs.
    pub(crate) reason: Option<String>,
    /// For people.
    pub(crate) message: Option<String>,
    /// The id of the request.
    pub(crate) request_id: Option<String>,
    /// The invalid fields: path and problem.
    pub(crate) fields: Vec<(String, String)>,
}

/// Reads an error body.
pub(crate) fn read(body: &Value) -> ErrorBody {
    let nodes = nodes(body);
    let mut found = Found::default();
    'nodes: for node in &nodes {
        for name in FIELD_LISTS {
            if let Some(list) = get(node, name) {
                found.collect(list, "", FIELD_MAPS.contains(name), MAX_DEPTH);
            }
            if !found.fields.is_empty() {
                break 'nodes;
            }
        }
    }
    let mut message = first_text(&nodes, MESSAGES);
    let mut reason = reason(&nodes);
    // CouchDB: the error is a word, and the reason a text.
    let word = nodes.iter().find_map(|node| id(get(node, "error")?));
    if word.is_some()
        && message == word
        && let Some(text) = first_text(&nodes, &["reason"])
    {
        (message, reason) = (Some(text), word);
    }
    if message.is_none() && found.fields.is_empty() && is_map_of_lists(body, MAX_DEPTH) {
        found.collect(body, "", false, MAX_DEPTH);
    }
    // What a list says in addition: `{"message": "failed", "errors": ["the cause"]}`.
    let mut added = false;
    for text in found.texts.into_iter().take(MAX_TEXTS) {
        match &mut message {
            Some(message) if message.contains(&text) => {}
            Some(message) => {
                let separator = match message.ends_with(['.', ':', ';']) {
                    _ if added => "; ",
                    true => " ",
                    false => ": ",
                };
                added = true;
                message.push_str(separator);
                message.push_str(&text);
            }
            None => message = Some(text),
        }
    }
    let of_fields = || {
        let fields = found.fields.iter().take(MAX_TEXTS);
        let texts: Vec<String> = fields
            .map(|(field, text)| format!("{field}: {text}"))
            .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    };
    // Elasticsearch: a sentence, where the reason of others is a word.
    let message = message.or_else(|| first_text(&nodes, &["reason"]));
    ErrorBody {
        message: message.or_else(of_fields),
        reason,
        request_id: nodes
            .iter()
            .find_map(|node| REQUEST_IDS.iter().find_map(|name| id(get(node, name)?))),
        fields: found.fields,
    }
}

/// Returns the objects that may describe the error, the most specific first: in a wrapper, the
/// body itself, the only member, and the first of a list of errors.
fn nodes(body: &Value) -> Vec<&Value> {
    let body = match body {
        Value::Array(items) => items.first().unwrap_or(&Value::Null),
        body => body,
    };
    let mut nodes = Vec::new();
    for name in WRAPPERS {
        if let Some(inner @ Value::Object(_)) = get(body, name) {
            nodes.push(inner);
            nodes.extend(get(inner, "detail").filter(|detail| detail.is_object()));
        }
    }
    nodes.push(body);
    if let Value::Object(members) = body
        && members.len() == 1
    {
        for inner in members.values().filter(|value| value.is_object()) {
            let wrapped = WRAPPERS.iter().filter_map(|name| get(inner, name));
            nodes.extend(wrapped.filter(|value| value.is_object()));
            nodes.push(inner);
        }
    }
    let first = get(body, "errors").or_else(|| get(body, "error"));
    nodes.extend(
        first
            .and_then(|list| list.get(0))
            .filter(|first| first.is_object()),
    );
    let inner = nodes.iter().find_map(|node| get(node, INNER));
    nodes.extend(inner.filter(|inner| inner.is_object()));
    // GraphQL: `errors[].extensions.code`; others: `meta.request_id`.
    for name in ["extensions", "meta"] {
        let inner = nodes.iter().find_map(|node| get(node, name));
        nodes.extend(inner.filter(|inner| inner.is_object()));
    }
    nodes
}

fn reason(nodes: &[&Value]) -> Option<String> {
    let of = |names: &[&str], accepts: fn(&str) -> bool| {
        nodes.iter().find_map(|node| {
            let values = names.iter().filter_map(|name| id(get(node, name)?));
            values.into_iter().find(|text| accepts(text))
        })
    };
    // `google.rpc.Status` has a name, other APIs a number or `Failure`.
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let is_word = |text: &str| text.parse::<f64>().is_err();
    error_info(nodes)
        .or_else(|| of(&["status"], is_name))
        .or_else(|| of(REASONS, is_word))
        .or_else(|| of(&["error"], is_word))
        .or_else(|| of(REASONS, |_| true))
        .or_else(|| {
            of(&["type"], is_type).map(|kind| kind.rsplit('#').next().map(str::to_owned))?
        })
}

/// Whether a type says more than the HTTP status does. Source: RFC 9457, section 4.2.1; those
/// of ASP.NET name sections of RFC 9110.
fn is_type(text: &str) -> bool {
    let is_of_http = ["tools.ietf.org/", "rfc-editor.org/", "httpstatuses."]
        .iter()
        .any(|host| text.contains(host));
    !matches!(text, "about:blank" | "error") && !is_of_http
}

/// Returns the reason of `google.rpc.ErrorInfo`.
fn error_info(nodes: &[&Value]) -> Option<String> {
    let details = nodes
        .iter()
        .find_map(|node| get(node, "details")?.as_array())?;
    let info = details.iter().find(|detail| {
        let kind = detail.get("@type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with("google.rpc.ErrorInfo"))
    });
    id(get(info?, "reason")?)
}

/// Returns the member of this name, which is in normal form.
pub(super) fn get<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let members = value.as_object()?;
    let found = members.iter().find(|(key, _)| is_named(key, name));
    found
        .map(|(_, value)| value)
        .filter(|value| !value.is_null())
}

/// Compares without case, `_` and `-`.
pub(super) fn is_named(key: &str, name: &str) -> bool {
    let key = key.bytes().filter(|b| !matches!(b, b'_' | b'-'));
    key.map(|b| b.to_ascii_lowercase()).eq(name.bytes())
}

/// Returns a short text without white space, or a number.
fn id(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let is_id = !text.is_empty() && text.len() <= MAX_ID_BYTES;
    (is_id && !text.contains(char::is_whitespace)).then_some(text)
}

/// Returns the first of these members that is a text or a list of texts.
fn first_text(nodes: &[&Value], names: &[&str]) -> Option<String> {
    nodes
        .iter()
        .find_map(|node| names.iter().find_map(|name| texts(get(node, name)?)))
}

/// Returns a text, or the joined texts of a list that has nothing else.
fn texts(value: &Value) -> Option<String> {
    match value {
        // Ironic: the error as JSON in a text.
        Value::String(text) if text.trim_start().starts_with('{') => {
            let inner: Option<Value> = serde_json::from_str(text).ok();
            let inner = inner.and_then(|inner| first_text(&[&inner], &["faultstring", "message"]));
            inner.or_else(|| Some(clean(text)))
        }
        Value::String(text) => Some(clean(text)).filter(|text| !text.is_empty()),
        Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            let texts = texts?;
            let shown: Vec<String> = texts
                .iter()
                .take(MAX_TEXTS)
                .map(|text| clean(text))
                .collect();
            (!shown.is_empty()).then(|| shown.join("; "))
        }
        // OData, versions 2 and 3: `{"lang": "en", "value": "the text"}`.
        Value::Object(_) => {
            get(value, "lang")?;
            get(value, "value")
                .filter(|text| text.is_string())
                .and_then(texts)
        }
        _ => None,
    }
}

/// Whether each member is a list of texts, or a nested one of these: Django's errors by field.
fn is_map_of_lists(body: &Value, depth: usize) -> bool {
    let is_nested = |value: &Value| match value {
        Value::Array(items) if items.iter().all(Value::is_object) => {
            // The valid items of a list are empty objects.
            let is_valid = |item: &Value| item.as_object().is_some_and(Map::is_empty);
            items.iter().any(|item| !is_valid(item))
                && items
                    .iter()
                    .all(|item| is_valid(item) || is_map_of_lists(item, depth - 1))
        }
        Value::Array(_) => texts(value).is_some(),
        value => is_map_of_lists(value, depth - 1),
    };
    let members = body.as_object().filter(|members| !members.is_empty());
    depth > 0 && members.is_some_and(|members| members.values().all(is_nested))
}

/// What lists and maps of errors contain.
#[derive(Default)]
struct Found {
    fields: Vec<(String, String)>,
    /// Problems of no one field.
    texts: Vec<String>,
}

impl Found {
    /// Reads a list of errors, or a map by field below `prefix`. `plain`: a field may have
    /// a problem instead of a list.
    fn collect(&mut self, value: &Value, prefix: &str, plain: bool, depth: usize) {
        if depth == 0 {
            return;
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.item(item, prefix, depth)),
            Value::Object(members) => {
                let nested = nested_list(value);
                match nested {
                    Some(list) => self.collect(list, prefix, plain, depth - 1),
                    // The error itself, and no map of fields.
                    None if ["message", "code", "type"].iter().any(|name| {
                        get(value, name)
                            .is_some_and(|member| member.is_string() || member.is_number())
                    }) => {}
                    None => self.map(members, prefix, plain, depth),
                }
            }
            _ => {}
        }
    }

    /// Reads one of a list of errors.
    fn item(&mut self, item: &Value, prefix: &str, depth: usize) {
        if let Some(list) = nested_list(item) {
            return self.collect(list, prefix, false, depth - 1);
        }
        // Other details of a `google.rpc.Status`.
        if get(item, "@type").is_some() {
            return;
        }
        let problem = match item {
            Value::String(_) => texts(item),
            item => first_text(&[item], PROBLEMS),
        };
        let source = get(item, "source").unwrap_or(item);
        let field = [item, source]
            .iter()
            .find_map(|node| FIELDS.iter().find_map(|name| path(get(node, name)?)));
        match (field, problem) {
            (Some(field), problem) => {
                self.field(
                    join(prefix, &field),
                    // GitHub: `missing_field`.
                    problem
                        .or_else(|| id(get(item, "code")?))
                        .unwrap_or_else(|| "invalid".into()),
                );
            }
            (None, Some(problem)) => self.texts.push(problem),
            (None, None) => {}
        }
    }

    fn map(&mut self, members: &Map<String, Value>, prefix: &str, plain: bool, depth: usize) {
        for (key, value) in members {
            let field = match NO_FIELD.iter().any(|name| is_named(key, name)) {
                true => prefix.to_owned(),
                false => join(prefix, key),
            };
            match value {
                Value::String(_) if !plain => {}
                Value::String(_) | Value::Array(_) if texts(value).is_some() => {
                    let problem = texts(value).unwrap_or_default();
                    match field.is_empty() {
                        true => self.texts.push(problem),
                        false => self.field(field, problem),
                    }
                }
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    for (n, item) in items.iter().enumerate() {
                        match first_text(&[item], PROBLEMS) {
                            Some(problem) => self.field(field.clone(), problem),
                            None => {
                                let field = format!("{field}[{n}]");
                                self.collect(item, &field, plain, depth - 1);
                            }
                        }
                    }
                }
                Value::Object(_) if plain || is_map_of_lists(value, depth - 1) => {
                    self.collect(value, &field, plain, depth - 1)
                }
                _ => {}
            }
        }
    }

    fn field(&mut self, field: String, problem: String) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.push((clean(&field), problem));
        }
    }
}

/// Returns the list of invalid fields inside an item.
fn nested_list(value: &Value) -> Option<&Value> {
    let mut lists = NESTED_LISTS.iter().filter_map(|name| get(value, name));
    lists.find(|list| {
        let items = list.as_array();
        items.is_some_and(|items| items.first().is_some_and(Value::is_object))
    })
}

/// Returns the path of a field: a text, or a list like `["body", "items", 0, "name"]`.
fn path(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Array(parts) => {
            let mut path = String::new();
            // FastAPI: the fields of the body are those of the request.
            let skip = usize::from(parts.len() > 1 && parts[0].as_str() == Some("body"));
            for part in parts.iter().skip(skip) {
                match part {
                    Value::String(name) => path = join(&path, name),
                    Value::Number(index) => path.push_str(&format!("[{index}]")),
                    _ => return None,
                }
            }
            Some(path).filter(|path| !path.is_empty())
        }
        _ => None,
    }
}

fn join(prefix: &str, name: &str) -> String {
    match prefix.is_empty() {
        true => name.to_owned(),
        false => format!("{prefix}.{name}"),
    }
}

/// Returns the beginning of a body of which nothing was recognized, without secrets; empty
/// if it has no value.
pub(crate) fn excerpt(body: &Value) -> String {
    let mut body = body.clone();
    match redact(&mut body, MAX_DEPTH) {
        true => cut(&body.to_string(), MAX_EXCERPT_BYTES),
        false => String::new(),
    }
}

/// Replaces what may be secret. Returns whether any other value is left.
fn redact(value: &mut Value, depth: usize) -> bool {
    match value {
        Value::String(text) => {
            let is_long = |word: &str| word.chars().count() > MAX_WORD_CHARS;
            if text.split_whitespace().any(is_long) {
                *text = "...".into();
                return false;
            }
            *text = clean(text);
            !text.is_empty()
        }
        Value::Array(_) | Value::Object(_) if depth == 0 => {
            *value = "...".into();
            false
        }
        Value::Array(items) => {
            // Each item is redacted, whatever the first one has.
            let mut any = false;
            for item in items {
                any |= redact(item, depth - 1);
            }
            any
        }
        Value::Object(members) => {
            let mut any = false;
            for (key, value) in members {
                let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
                let name = name.to_ascii_lowercase();
                match SECRETS.iter().any(|secret| name.contains(secret)) {
                    true => *value = "...".into(),
                    // It repeats the HTTP status, or is the reason.
                    false if value.is_number() && (name == "code" || name == "status") => {}
                    false => any |= redact(value, depth - 1),
                }
            }
            any
        }
        value => !value.is_null(),
    }
}

#[cfg(test)]
mod tests;
