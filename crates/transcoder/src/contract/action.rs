//! `action`: a call in two steps. The document is fetched, edited and sent.

mod edit;

use super::diagnostics::{Diagnostics, check_json};
use super::path_template::Template;
use crate::api::drawbridge::v1 as rules;
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema, Shape};

pub use edit::{Edit, EditTarget};

/// A compiled `drawbridge.v1.DocumentAction`.
#[derive(Debug)]
pub struct Action {
    /// The document's member with the name of the action, and its value.
    pub name: Option<(Box<str>, Box<str>)>,
    /// Members that are added to a document without them, with their JSON.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// The field of the request that holds the document.
    pub document: Option<FieldIndex>,
    /// What to change in the document.
    pub edits: Vec<Edit>,
    /// Whether the document is fetched from the path of the call itself.
    pub same_path: bool,
    /// Whether offsets of times in the document get a colon: `+0900` becomes `+09:00`.
    pub colon_offsets: bool,
}

/// Compiles the `action` of an rpc whose path is `template`.
pub(super) fn compile(
    rule: &rules::DocumentAction,
    template: &Template,
    schema: &Schema,
    input: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Action {
    if template.last_literal().is_none() && !rule.same_path {
        diagnostics.report_rule(
            "action",
            "the path must end in a fixed segment, as `/invoke`: without it, it is the \
             document's path",
        );
    }
    if rule.name_member.is_empty() && !rule.name_value.is_empty() {
        diagnostics.report_rule("action.name_member", "is missing: `name_value` needs it");
    }
    let mut members: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (name, json) in &rule.members {
        if let Err(problem) = check_json(json) {
            let problem = format!("`{name}`: {problem}");
            diagnostics.report_rule("action.members", problem);
        }
        members.push((name.as_str().into(), json.as_str().into()));
    }
    // A map has no order: sorted, so that bodies are reproducible.
    members.sort();
    let mut document = None;
    if !rule.document.is_empty() {
        let request = schema.message(input);
        match request.field(&rule.document) {
            None => {
                let problem = format!("{} has no field `{}`", request.name, rule.document);
                diagnostics.report_rule("action.document", problem);
            }
            Some((index, field)) => {
                let is_object = matches!(field.kind, Kind::Message(id)
                    if matches!(schema.message(id).shape,
                        Shape::Object | Shape::Struct | Shape::Value));
                if !is_object || field.cardinality != Cardinality::Explicit {
                    diagnostics.report_rule(
                        "action.document",
                        "must be a single message, for example a google.protobuf.Struct",
                    );
                }
                document = Some(index);
            }
        }
    }
    Action {
        name: (!rule.name_member.is_empty()).then(|| {
            (
                rule.name_member.as_str().into(),
                rule.name_value.as_str().into(),
            )
        }),
        members,
        document,
        same_path: rule.same_path,
        colon_offsets: rule.rfc3339_offsets,
        edits: edit::compile(&rule.edits, schema, input, diagnostics),
    }
}
