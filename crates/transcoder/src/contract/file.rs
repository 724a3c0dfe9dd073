//! Files that come and go: which rpcs take or give one, and in which fields.

use http::{HeaderValue, Method as Verb};
use prost_reflect::MethodDescriptor;

use super::diagnostics::Diagnostics;
use crate::Error;
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;
use crate::json::wire::{self, Malformed, Value};
use crate::schema::{Field, Kind, MessageId, Schema};

/// A compiled `drawbridge.v1.Upload`.
#[derive(Debug)]
pub struct Upload {
    /// The name of the part.
    pub part: Box<str>,
    /// The name of the field that has the file's name.
    pub name_field: Box<str>,
    /// The name of the field that has a piece of the file.
    pub chunk_field: Box<str>,
    name: u32,
    chunk: u32,
}

/// A compiled `drawbridge.v1.Download`.
#[derive(Debug)]
pub struct Download {
    /// What is sent as `Accept`.
    pub accept: HeaderValue,
    name: u32,
    chunk: u32,
}

impl Upload {
    /// The file's name, where this message of the request has one.
    pub fn file_name<'a>(&self, message: &'a [u8]) -> Result<&'a str, Error> {
        std::str::from_utf8(bytes(message, self.name)?)
            .map_err(|_| Error::Malformed(format!("{} is not UTF-8", self.name_field)))
    }

    /// The piece of the file in this message of the request; empty for none.
    pub fn piece<'a>(&self, message: &'a [u8]) -> Result<&'a [u8], Error> {
        bytes(message, self.chunk)
    }
}

impl Download {
    /// The message with the file's name.
    pub fn named(&self, name: &str) -> Vec<u8> {
        message(self.name, name.as_bytes())
    }

    /// The message with a piece of the file.
    pub fn piece(&self, piece: &[u8]) -> Vec<u8> {
        message(self.chunk, piece)
    }
}

fn message(number: u32, value: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(value.len() + 16);
    if !value.is_empty() {
        wire::write_bytes(&mut message, number, value);
    }
    message
}

/// The last value of a field of texts or bytes; empty for none.
fn bytes(message: &[u8], number: u32) -> Result<&[u8], Error> {
    match wire::last(message, number) {
        Ok(None) => Ok(&[]),
        Ok(Some(Value::Bytes(bytes))) => Ok(bytes),
        Ok(Some(_)) => Err(Error::Malformed(Malformed::Alien.to_string())),
        Err(problem) => Err(Error::Malformed(problem.to_string())),
    }
}

/// Whether the rpc streams as its `upload` and `download` say, and is nothing else
/// that streams.
pub(super) fn streams_fit(
    rpc: &MethodDescriptor,
    rules: &MethodRules,
    diagnostics: &mut Diagnostics<'_>,
) -> bool {
    let before = diagnostics.all.len();
    if rules.upload.is_some() {
        if !rpc.is_client_streaming() || rpc.is_server_streaming() {
            diagnostics.report_rule(
                "upload",
                "an upload is client-streaming, and no more: write `(stream ...) returns (...)`",
            );
        }
        alone(
            diagnostics,
            "upload",
            &others(rules, rules.download.is_some()),
        );
    } else if rules.download.is_some() {
        if !rpc.is_server_streaming() {
            diagnostics.report_rule(
                "download",
                "a download is server-streaming: write `returns (stream ...)`",
            );
        }
        alone(diagnostics, "download", &others(rules, false));
    }
    diagnostics.all.len() == before
}

fn others(rules: &MethodRules, download: bool) -> [(&'static str, bool); 6] {
    [
        ("download", download),
        ("watch", rules.watch.is_some()),
        ("pages", !rules.pages.is_empty()),
        ("paging", rules.paging.is_some()),
        ("merge_pages", rules.merge_pages.is_some()),
        ("location", !rules.location.is_empty()),
    ]
}

/// Refuses rules that do not go together with `rule`.
fn alone(diagnostics: &mut Diagnostics<'_>, rule: &str, others: &[(&str, bool)]) {
    for (other, _) in others.iter().filter(|(_, is_set)| *is_set) {
        let problem = format!("does not go together with `{other}`: leave out one of them");
        diagnostics.report_rule(rule, problem);
    }
}

/// Compiles the `upload` of an rpc.
pub(super) fn upload(
    rules: &MethodRules,
    http: &HttpRule,
    verb: &Verb,
    (schema, input): (&Schema, MessageId),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Upload> {
    const RULE: &str = "upload";
    let rule = rules.upload.as_ref()?;
    if !http.body.is_empty() || !matches!(*verb, Verb::POST | Verb::PUT | Verb::PATCH) {
        diagnostics.report_rule(
            RULE,
            "the body is the file: the REST call is a POST, PUT or PATCH without `body`",
        );
    }
    let others = [
        ("action", rules.action.is_some()),
        ("check", rules.check.is_some()),
        ("resolve", !rules.resolve.is_empty()),
        ("constant_body", !rules.constant_body.is_empty()),
        ("constant_members", !rules.constant_members.is_empty()),
        ("count_members", !rules.count_members.is_empty()),
    ];
    alone(diagnostics, RULE, &others);
    let part = match &*rule.part {
        "" => "file",
        part => part,
    };
    if !part
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.[]".contains(&b))
    {
        diagnostics.report_rule(
            "upload.part",
            "must be of letters, digits and `-`, `_`, `.`, `[`, `]`",
        );
    }
    let mut of = |what: &str, name: &str, kind| {
        let field = field(schema, input, what, name, kind, diagnostics)?;
        if !field.gateway_only {
            let problem = format!("`{name}` would be sent elsewhere too: make it `gateway_only`");
            diagnostics.report_rule(what, problem);
        }
        Some(field)
    };
    let name = of("upload.file_name", &rule.file_name, Kind::String);
    let chunk = of("upload.chunk", &rule.chunk, Kind::Bytes);
    let (name, chunk) = (name?, chunk?);
    Some(Upload {
        part: part.into(),
        name_field: name.name.clone(),
        chunk_field: chunk.name.clone(),
        name: name.number,
        chunk: chunk.number,
    })
}

/// Compiles the `download` of an rpc.
pub(super) fn download(
    rules: &MethodRules,
    http: &HttpRule,
    (schema, output): (&Schema, MessageId),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Download> {
    let rule = rules.download.as_ref()?;
    let others = [
        ("response_body", !http.response_body.is_empty()),
        ("response_choices", !rules.response_choices.is_empty()),
    ];
    alone(diagnostics, "download", &others);
    let accept = match &*rule.accept {
        "" => Some(HeaderValue::from_static("application/octet-stream")),
        accept => HeaderValue::from_str(accept).ok(),
    };
    if accept.is_none() {
        diagnostics.report_rule("download.accept", "cannot be the value of a header");
    }
    let mut of = |what: &str, name: &str, kind| {
        Some(field(schema, output, what, name, kind, diagnostics)?.number)
    };
    let name = of("download.file_name", &rule.file_name, Kind::String);
    let chunk = of("download.chunk", &rule.chunk, Kind::Bytes);
    Some(Download {
        accept: accept?,
        name: name?,
        chunk: chunk?,
    })
}

/// The field of this name, if it is one value of this kind.
fn field<'a>(
    schema: &'a Schema,
    id: MessageId,
    rule: &str,
    name: &str,
    kind: Kind,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<&'a Field> {
    let message = schema.message(id);
    let found = message
        .field(name)
        .map(|(_, field)| field)
        .filter(|field| field.is_single() && field.kind == kind);
    if found.is_none() {
        let kind = match kind {
            Kind::String => "string",
            _ => "bytes",
        };
        let problem = format!("{} has no {kind} field `{name}`", message.name);
        diagnostics.report_rule(rule, problem);
    }
    found
}
