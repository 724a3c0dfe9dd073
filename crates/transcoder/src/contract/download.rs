//! `download`: the response body is a file, which is streamed to the client.

mod file_check;

use http::HeaderValue;

use super::diagnostics::Diagnostics;
use super::file_fields::{field, report_combinations};
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;
use crate::json::wire;
use crate::schema::{Kind, MessageId, Schema};
pub use file_check::{MAX_START_BYTES, ObjectScan};

/// A compiled `drawbridge.v1.Download`.
#[derive(Debug)]
pub struct Download {
    /// The `Accept` header of the call.
    pub accept: HeaderValue,
    name: u32,
    chunk: u32,
}

impl Download {
    /// Encodes the message with the file's name.
    pub fn named(&self, name: &str) -> Vec<u8> {
        message(self.name, name.as_bytes())
    }

    /// Encodes a message with a chunk of the file.
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

/// Compiles the `download` of an rpc.
pub(super) fn compile(
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
    report_combinations(diagnostics, "download", &others);
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
