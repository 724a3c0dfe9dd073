//! `upload`: the client streams a file, which is sent as multipart/form-data.

use http::Method as Verb;

use super::diagnostics::Diagnostics;
use super::file_fields::{field, report_combinations};
use crate::Error;
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;
use crate::json::wire::{self, Malformed, Value};
use crate::schema::{Kind, MessageId, Schema};

/// A compiled `drawbridge.v1.Upload`.
#[derive(Debug)]
pub struct Upload {
    /// The name of the multipart part.
    pub part: Box<str>,
    /// The name of the field with the file's name.
    pub name_field: Box<str>,
    /// The name of the field with a chunk of the file.
    pub chunk_field: Box<str>,
    name: u32,
    chunk: u32,
}

impl Upload {
    /// Returns the file's name, if this message of the request stream has one.
    pub fn file_name<'a>(&self, message: &'a [u8]) -> Result<&'a str, Error> {
        std::str::from_utf8(bytes(message, self.name)?)
            .map_err(|_| Error::Malformed(format!("{} is not UTF-8", self.name_field)))
    }

    /// Returns the chunk in this message of the request stream; empty for none.
    pub fn piece<'a>(&self, message: &'a [u8]) -> Result<&'a [u8], Error> {
        bytes(message, self.chunk)
    }
}

/// Returns the last value of a string or bytes field; empty for none.
fn bytes(message: &[u8], number: u32) -> Result<&[u8], Error> {
    match wire::last(message, number) {
        Ok(None) => Ok(&[]),
        Ok(Some(Value::Bytes(bytes))) => Ok(bytes),
        Ok(Some(_)) => Err(Error::Malformed(Malformed::Alien.to_string())),
        Err(problem) => Err(Error::Malformed(problem.to_string())),
    }
}

/// Compiles the `upload` of an rpc.
pub(super) fn compile(
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
            "the body is the file: use POST, PUT or PATCH without `body`",
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
    report_combinations(diagnostics, RULE, &others);
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
            "must consist of letters, digits, `-`, `_`, `.`, `[`, `]`",
        );
    }
    let mut of = |what: &str, name: &str, kind| {
        let field = field(schema, input, what, name, kind, diagnostics)?;
        if !field.gateway_only {
            let problem = format!(
                "`{name}` would also be sent as a parameter: mark it \
                                   `gateway_only`"
            );
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
