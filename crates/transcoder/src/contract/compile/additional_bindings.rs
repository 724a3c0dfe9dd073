//! Compiles the `additional_bindings` of `google.api.http`.

use prost_reflect::MethodDescriptor;

use super::fields::{constants, marks, plans};
use super::route::Route;
use super::{declares_idempotency, idempotency};
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;
use crate::contract::Method;
use crate::contract::bind::Binding;
use crate::contract::diagnostics::{Diagnostics, HTTP};
use crate::contract::path_template::Template;
use crate::schema::FieldIndex;

/// Compiles the `additional_bindings` of an rpc.
pub(super) fn additional_bindings(
    rpc: &MethodDescriptor,
    http: &HttpRule,
    rules: &MethodRules,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<Binding> {
    if !http.additional_bindings.is_empty() && !rules.path_in.is_empty() {
        diagnostics.report_rule("path_in", "cannot be combined with `additional_bindings`");
    }
    let mut bindings: Vec<Binding> = Vec::new();
    for (at, rule) in http.additional_bindings.iter().enumerate() {
        let before = diagnostics.all.len();
        let problem = if !rule.additional_bindings.is_empty() {
            Some("must not have `additional_bindings` itself")
        } else if rule.response_body != http.response_body {
            Some("must have the `response_body` of the rule that contains it")
        } else if rules.upload.is_some() && !rule.body.is_empty() {
            Some("must not have a `body`: the rpc uploads a file")
        } else {
            None
        };
        match problem {
            Some(problem) => diagnostics.report(HTTP, problem),
            None => {
                let binding = additional_binding(rpc, rule, rules, method, diagnostics);
                let hiding = binding.iter().find_map(|binding| {
                    let mut before = std::iter::once(&method.binding).chain(&bindings);
                    before.position(|other: &Binding| other.hides(binding))
                });
                if let Some(other) = hiding.filter(|_| diagnostics.all.len() == before) {
                    let other = match other {
                        0 => "the rule itself".to_owned(),
                        at => format!("additional binding {at}"),
                    };
                    let problem = format!(
                        "is never used: wherever its path fields are set, {other} fits and \
                         comes first; move it up, or remove it"
                    );
                    diagnostics.report(HTTP, problem);
                }
                bindings.extend(binding);
            }
        }
        for diagnostic in &mut diagnostics.all[before..] {
            let problem = std::mem::take(&mut diagnostic.problem);
            diagnostic.problem = format!("additional binding {}: {problem}", at + 1);
        }
    }
    bindings
}

fn additional_binding(
    rpc: &MethodDescriptor,
    http: &HttpRule,
    rules: &MethodRules,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Binding> {
    let (schema, input) = (&method.schema, method.input);
    let mut route = Route {
        schema,
        input,
        rules,
        diagnostics,
    };
    let (verb, text) = route.verb_and_template(http)?;
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(problem) => {
            let problem = format!("path `{text}`: {problem}");
            route.diagnostics.report(HTTP, problem);
            return None;
        }
    };
    let path = route.path(template);
    let body = route.body(http, method.action.as_ref());
    let counts = route.counts(&body);
    let edited: Vec<FieldIndex> = method
        .action
        .iter()
        .flat_map(|action| &action.edits)
        .map(|edit| edit.field)
        .collect();
    let marks = marks(schema, input, &path, &body, rules, diagnostics);
    let constant_members = constants(schema, input, &body, &marks, rules, diagnostics);
    let plans = plans(schema, input, &path, &body, (&marks, &edited), diagnostics);
    Some(Binding {
        idempotency: idempotency(rpc, &verb),
        declares_idempotency: declares_idempotency(rpc),
        verb,
        schema: schema.clone(),
        input,
        path,
        constant_query: method.binding.constant_query.clone(),
        body,
        constant_members,
        counts,
        at_least_one: method.binding.at_least_one.clone(),
        other_paths: Vec::new(),
        plans,
        additional: Vec::new(),
    })
}
