//! Compiles the REST call of an rpc: HTTP method, path, body.

use bytes::Bytes;
use http::Method as Verb;

use super::fields::field_named;
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;
use crate::api::google::api::http_rule::Pattern;
use crate::contract::Action;
use crate::contract::bind::{Body, PathField, Piece};
use crate::contract::diagnostics::{Diagnostics, HTTP, check_json};
use crate::contract::path_template::{Part, Template, Variable};
use crate::contract::raw_body::RawBody;
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema};

/// Compiles the options that describe the REST call.
pub(super) struct Route<'a, 'p> {
    pub schema: &'a Schema,
    pub input: MessageId,
    pub rules: &'a MethodRules,
    pub diagnostics: &'a mut Diagnostics<'p>,
}

impl Route<'_, '_> {
    pub fn verb_and_template(&mut self, http: &HttpRule) -> Option<(Verb, String)> {
        let (verb, path) = match &http.pattern {
            Some(Pattern::Get(path)) => (Verb::GET, path),
            Some(Pattern::Put(path)) => (Verb::PUT, path),
            Some(Pattern::Post(path)) => (Verb::POST, path),
            Some(Pattern::Delete(path)) => (Verb::DELETE, path),
            Some(Pattern::Patch(path)) => (Verb::PATCH, path),
            Some(Pattern::Custom(custom)) => match Verb::from_bytes(custom.kind.as_bytes()) {
                Ok(verb) if custom.kind != "*" => (verb, &custom.path),
                _ => {
                    let problem = format!(
                        "`{}` is not an HTTP method: name one, as in `custom {{ kind: \"HEAD\" }}`",
                        custom.kind
                    );
                    self.diagnostics.report(HTTP, problem);
                    return None;
                }
            },
            None => {
                self.diagnostics.report(
                    HTTP,
                    "has no path: give one with get, put, post, delete, patch or custom",
                );
                return None;
            }
        };
        Some((verb, path.clone()))
    }

    pub fn path(&mut self, template: Template) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for part in template.parts {
            match part {
                Part::Literal(text) => pieces.push(Piece::Literal(text)),
                Part::Variable(variable) => match self.path_field(variable) {
                    Ok(field) => pieces.push(Piece::Field(field)),
                    Err(problem) => self.diagnostics.report(HTTP, problem),
                },
            }
        }
        let fields = &self.schema.message(self.input).fields;
        for (index, field) in (0..).zip(fields) {
            let is_in_path = pieces.iter().any(|piece| match piece {
                Piece::Field(field) => field.steps.is_empty() && field.index == index,
                Piece::Literal(_) => false,
            });
            if field.project_id && !is_in_path {
                let problem = format!(
                    "the field `{}` defaults to the upstream's project id and must be in the \
                     path: add `{{{}}}`",
                    field.name, field.name
                );
                self.diagnostics.report(HTTP, problem);
            }
        }
        pieces
    }

    /// Compiles `path_in`: the paths of dialects whose path differs.
    pub fn other_paths(&mut self) -> Vec<(Box<str>, Vec<Piece>)> {
        let rules = self.rules;
        let mut paths: Vec<(Box<str>, Vec<Piece>)> = Vec::new();
        for (dialect, text) in &rules.path_in {
            if rules.absent_in.contains(dialect) {
                let problem = format!("`{dialect}` is also in `absent_in`: remove one of them");
                self.diagnostics.report_rule("path_in", problem);
            }
            match Template::parse(text) {
                Ok(template) => paths.push((dialect.as_str().into(), self.path(template))),
                Err(problem) => {
                    let problem = format!("path `{text}`: {problem}");
                    self.diagnostics.report_rule("path_in", problem);
                }
            }
        }
        paths.sort_by(|(a, _), (b, _)| a.cmp(b));
        paths
    }

    /// Compiles `at_least_one`: groups of fields of which one must be set.
    pub fn groups(&mut self) -> Vec<Vec<FieldIndex>> {
        let rules = self.rules;
        let request = self.schema.message(self.input);
        let mut groups = Vec::new();
        for group in &rules.at_least_one {
            let mut fields = Vec::new();
            for name in &group.fields {
                match request.field(name) {
                    Some((index, _)) => fields.push(index),
                    None => {
                        let problem = format!("{} has no field `{name}`", request.name);
                        self.diagnostics.report_rule("at_least_one", problem);
                    }
                }
            }
            if group.fields.len() < 2 {
                self.diagnostics.report_rule(
                    "at_least_one",
                    "needs at least two fields: mark a single one REQUIRED",
                );
            }
            groups.push(fields);
        }
        groups
    }

    /// Compiles `count_members`: members of the body with the number of elements of a
    /// field.
    pub fn counts(&mut self, body: &Body) -> Vec<(Box<str>, FieldIndex)> {
        let rules = self.rules;
        let request = self.schema.message(self.input);
        let mut counts = Vec::new();
        for (name, of) in &rules.count_members {
            let taken = request.fields.iter().any(|f| *f.wire_name == **name);
            let problem = match request.field(of) {
                _ if !matches!(body, Body::Fields) => "needs the body `*`".to_owned(),
                _ if name.is_empty() || taken => "must have a name that no field has".to_owned(),
                Some((index, field)) if field.cardinality == Cardinality::Repeated => {
                    let name = serde_json::Value::from(name.as_str());
                    counts.push((format!("{name}:").into(), index));
                    continue;
                }
                _ => format!("`{of}` is not a repeated field of this message"),
            };
            let problem = format!("`{name}`: {problem}");
            self.diagnostics.report_rule("count_members", problem);
        }
        counts.sort();
        counts
    }

    fn path_field(&self, variable: Variable) -> Result<PathField, String> {
        let fault = |problem: String| format!("path variable `{{{}}}`: {problem}", variable.path);
        let mut id = self.input;
        let mut steps = Vec::new();
        let mut names = variable.path.split('.').peekable();
        while let Some(name) = names.next() {
            let message = self.schema.message(id);
            let Some((index, field)) = message.field(name) else {
                return Err(fault(format!("{} has no field `{name}`", message.name)));
            };
            if let Cardinality::Repeated | Cardinality::Map = field.cardinality {
                return Err(fault(format!("`{name}` is a list or map, not one value")));
            }
            if field.gateway_only || field.output_only || !field.absent_in.is_empty() {
                return Err(fault(format!(
                    "`{name}` is not always sent (`gateway_only`, OUTPUT_ONLY or `absent_in`), \
                     but the path needs it"
                )));
            }
            match (field.kind, names.peek()) {
                (Kind::Message(below), Some(_)) => {
                    steps.push(index);
                    id = below;
                }
                (Kind::Message(_), None) => {
                    return Err(fault(format!(
                        "`{name}` is a message: name a field of it, as in `{{{}.id}}`",
                        variable.path
                    )));
                }
                (_, Some(_)) => return Err(fault(format!("`{name}` is not a message"))),
                (_, None) => {
                    return Ok(PathField {
                        steps,
                        index,
                        project_id: field.project_id,
                        variable,
                    });
                }
            }
        }
        Err(fault("names no field".into()))
    }

    pub fn body(&mut self, http: &HttpRule, action: Option<&Action>) -> Body {
        let rules = self.rules;
        if !rules.constant_body.is_empty() {
            if !http.body.is_empty() || action.is_some() {
                self.diagnostics.report_rule(
                    "constant_body",
                    "the rpc already has a body: remove one of them",
                );
            }
            if let Err(problem) = check_json(&rules.constant_body) {
                self.diagnostics.report_rule("constant_body", problem);
            }
            return Body::Constant(Bytes::from(rules.constant_body.clone()));
        }
        if let Some(action) = action {
            let document = action
                .document
                .map(|index| &*self.schema.message(self.input).fields[usize::from(index)].name);
            if !http.body.is_empty() && document != Some(&*http.body) {
                self.diagnostics.report(
                    HTTP,
                    "the body of an action is its document: remove `body`, or name the field of \
                     the document",
                );
            }
            return match action.document {
                Some(index) => Body::Field { index },
                None => Body::None,
            };
        }
        match &*http.body {
            "" => Body::None,
            "*" => match RawBody::of_request(self.schema, self.input, rules) {
                Some(raw) => Body::Raw(raw),
                None => Body::Fields,
            },
            name => match field_named(self.schema, self.input, name, self.diagnostics, "body") {
                Some(index) => {
                    let field = &self.schema.message(self.input).fields[usize::from(index)];
                    if field.gateway_only || field.query || field.output_only {
                        let problem =
                            format!("body `{name}` is a field that is not sent in a body");
                        self.diagnostics.report(HTTP, problem);
                    }
                    match RawBody::of_field(self.schema, self.input, index, rules) {
                        Some(raw) => Body::Raw(raw),
                        None => Body::Field { index },
                    }
                }
                None => Body::None,
            },
        }
    }
}
