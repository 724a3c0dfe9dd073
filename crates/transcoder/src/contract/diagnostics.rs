//! Reads options, and collects diagnostics: each names file, element and option.

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

use super::Diagnostic;

/// The option of a REST call.
pub(super) const HTTP: &str = "google.api.http";

/// The extensions of a descriptor pool. A set that does not import them has no options.
pub(super) struct Options {
    pool: DescriptorPool,
}

impl Options {
    pub fn of(pool: &DescriptorPool) -> Self {
        Self { pool: pool.clone() }
    }

    /// Reads an extension as its message; none when it is not set.
    pub fn read<T: prost::Message + Default>(
        &self,
        options: &DynamicMessage,
        name: &str,
    ) -> Result<Option<T>, String> {
        let Some(extension) = self.pool.get_extension_by_name(name) else {
            return Ok(None);
        };
        if !options.has_extension(&extension) {
            return Ok(None);
        }
        match &*options.get_extension(&extension) {
            Value::Message(message) => message
                .transcode_to()
                .map(Some)
                .map_err(|problem| format!("cannot be read: {problem}")),
            _ => Err("is not a message".into()),
        }
    }
}

/// Collects the diagnostics of one element.
pub(super) struct Diagnostics<'a> {
    pub file: String,
    pub element: String,
    pub all: &'a mut Vec<Diagnostic>,
}

impl<'a> Diagnostics<'a> {
    /// Returns the collector of an rpc.
    pub fn of_rpc(rpc: &MethodDescriptor, all: &'a mut Vec<Diagnostic>) -> Self {
        Self {
            file: rpc.parent_file().name().to_owned(),
            element: rpc.full_name().to_owned(),
            all,
        }
    }

    /// Reports an invalid option. The same diagnostic is kept once.
    pub fn report(&mut self, option: &str, problem: impl Into<String>) {
        let diagnostic = Diagnostic {
            file: self.file.clone(),
            element: self.element.clone(),
            option: option.to_owned(),
            problem: problem.into(),
        };
        if !self.all.contains(&diagnostic) {
            self.all.push(diagnostic);
        }
    }

    /// Reports an invalid rule of `(drawbridge.v1.method)`.
    pub fn report_rule(&mut self, rule: &str, problem: impl Into<String>) {
        self.report(&format!("(drawbridge.v1.method).{rule}"), problem);
    }

    /// Returns the value of an option, or reports why it is invalid.
    pub fn value_or_report<T: Default>(
        &mut self,
        option: &str,
        read: Result<Option<T>, String>,
    ) -> Option<T> {
        read.unwrap_or_else(|problem| {
            self.report(option, problem);
            None
        })
    }
}

/// Fails where the text is not exactly one JSON value.
pub(super) fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|problem| format!("is not JSON: {problem}"))
}

/// Fails where RFC 3986 does not allow the text as a query.
pub(super) fn check_query(text: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
    match text.chars().find(|c| !fine(*c)) {
        None if text.starts_with(['?', '&']) || text.ends_with('&') => {
            Err("must not begin with `?` or `&`, or end with `&`".into())
        }
        None => Ok(()),
        Some(c) => Err(format!("`{c}` must be percent-encoded")),
    }
}
