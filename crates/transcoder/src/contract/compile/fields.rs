//! Compiles options that name single fields and members of messages.

use crate::api::drawbridge::v1::{self as rules, MethodRules};
use crate::contract::bind::{Body, Piece};
use crate::contract::diagnostics::{Diagnostics, HTTP, check_json};
use crate::contract::plan::{BodyFields, Layout, Mark, Plan, dialects};
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema, Shape};

/// Compiles `response_choices`.
pub(super) fn response_choices(
    schema: &Schema,
    output: MessageId,
    rules: &MethodRules,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<(Box<str>, FieldIndex)> {
    let message = schema.message(output);
    let mut choices: Vec<(Box<str>, FieldIndex)> = Vec::new();
    for rules::ResponseChoice {
        member,
        field: name,
    } in &rules.response_choices
    {
        let problem = match message.field(name) {
            None => format!("{} has no field `{name}`", message.name),
            Some(_) if member.is_empty() => "`member` is empty".to_owned(),
            Some(_) if choices.iter().any(|(known, _)| **known == **member) => {
                format!("`{member}` is listed twice")
            }
            Some((index, field)) => match (field.kind, field.cardinality) {
                (Kind::Message(_), Cardinality::Explicit) => {
                    choices.push((member.as_str().into(), index));
                    continue;
                }
                _ => format!("`{name}` must be a single message"),
            },
        };
        diagnostics.report_rule("response_choices", problem);
    }
    choices
}

/// Finds the field that `body` or `response_body` names; none for an empty name.
pub(super) fn field_named(
    schema: &Schema,
    id: MessageId,
    name: &str,
    diagnostics: &mut Diagnostics<'_>,
    what: &str,
) -> Option<FieldIndex> {
    if name.is_empty() {
        return None;
    }
    let message = schema.message(id);
    match message.field(name) {
        Some((index, _)) => Some(index),
        None => {
            let problem = format!("{what} `{name}`: {} has no such field", message.name);
            diagnostics.report(HTTP, problem);
            None
        }
    }
}

/// Compiles a plan for each dialect that differs, after the one for all others.
pub(super) fn plans(
    schema: &Schema,
    input: MessageId,
    path: &[Piece],
    body: &Body,
    (marks, edited): (&[(Vec<FieldIndex>, Mark)], &[FieldIndex]),
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<(Box<str>, Plan)> {
    let in_path: Vec<Vec<FieldIndex>> = path
        .iter()
        .filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Field(field) => {
                let mut steps = field.steps.clone();
                steps.push(field.index);
                Some(steps)
            }
        })
        .collect();
    let layout = Layout {
        schema,
        input,
        path: &in_path,
        body: match body {
            Body::None | Body::Constant(_) => BodyFields::None,
            Body::Fields => BodyFields::Rest,
            Body::Field { index, .. } => BodyFields::One(*index),
            Body::Raw(raw) => raw.field.map_or(BodyFields::Rest, BodyFields::One),
        },
        marks,
        edited,
    };
    let mut plans = Vec::new();
    for dialect in std::iter::once("").chain(dialects(schema, input)) {
        let (plan, faults) = Plan::new(&layout, dialect);
        for (field, problem) in faults {
            diagnostics.report(HTTP, format!("query parameter `{field}`: {problem}"));
        }
        plans.push((dialect.into(), plan));
    }
    plans
}

/// Compiles `required` and `omitted`: the fields of messages in the body that they
/// name.
pub(super) fn marks(
    schema: &Schema,
    input: MessageId,
    path: &[Piece],
    body: &Body,
    rules: &MethodRules,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<(Vec<FieldIndex>, Mark)> {
    let of = |rule, names: &[String], mark, diagnostics: &mut Diagnostics<'_>| -> Vec<_> {
        let steps = names.iter().filter_map(|name| {
            steps(schema, input, path, body, name)
                .map_err(|problem| diagnostics.report_rule(rule, format!("`{name}`: {problem}")))
                .ok()
        });
        steps.map(|steps| (steps, mark)).collect()
    };
    let mut marks = of("required", &rules.required, Mark::Required, diagnostics);
    let omitted = of("omitted", &rules.omitted, Mark::Omitted, diagnostics);
    for (steps, _) in &omitted {
        if marks
            .iter()
            .any(|(required, _)| required.starts_with(steps))
        {
            diagnostics.report_rule("omitted", "a field in `required` cannot be omitted");
        }
    }
    marks.extend(omitted);
    marks
}

/// Returns the indices that lead to a field in a message of the body.
fn steps(
    schema: &Schema,
    input: MessageId,
    path: &[Piece],
    body: &Body,
    name: &str,
) -> Result<Vec<FieldIndex>, String> {
    let mut id = input;
    let mut steps = Vec::new();
    let mut names = name.split('.').peekable();
    while let Some(name) = names.next() {
        let message = schema.message(id);
        let Some((index, field)) = message.field(name) else {
            return Err(format!("{} has no field `{name}`", message.name));
        };
        steps.push(index);
        if names.peek().is_none() {
            break;
        }
        match field.kind {
            Kind::Message(below)
                if schema.message(below).shape == Shape::Object
                    && field.cardinality != Cardinality::Map =>
            {
                id = below;
            }
            _ => return Err(format!("`{name}` is not a message with fields")),
        }
    }
    if steps.len() < 2 {
        return Err("is a field of the request itself: annotate it there".into());
    }
    let first = &schema.message(input).fields[usize::from(steps[0])];
    let in_body = match body {
        Body::Fields => !first.query,
        Body::Field { index, .. } => *index == steps[0],
        Body::None | Body::Constant(_) | Body::Raw(_) => false,
    };
    let in_path = path.iter().any(|piece| match piece {
        Piece::Field(field) => [&*field.steps, &[field.index]].concat() == steps,
        Piece::Literal(_) => false,
    });
    match in_body && !in_path && !first.gateway_only && !first.output_only {
        true => Ok(steps),
        false => Err("is not in the body".into()),
    }
}

/// Compiles `constant_members` to JSON.
pub(super) fn constants(
    schema: &Schema,
    input: MessageId,
    body: &Body,
    marks: &[(Vec<FieldIndex>, Mark)],
    rules: &MethodRules,
    diagnostics: &mut Diagnostics<'_>,
) -> Box<str> {
    const RULE: &str = "constant_members";
    if rules.constant_members.is_empty() {
        return "".into();
    }
    let (message, above) = match body {
        Body::Fields => (Some(input), None),
        Body::Field { index, .. } => {
            let field = &schema.message(input).fields[usize::from(*index)];
            match (field.kind, field.cardinality) {
                (Kind::Message(id), Cardinality::Explicit) => (Some(id), Some(*index)),
                _ => (None, None),
            }
        }
        Body::None | Body::Constant(_) | Body::Raw(_) => (None, None),
    };
    let message = message
        .map(|id| schema.message(id))
        .filter(|message| message.shape == Shape::Object && !message.as_array);
    let Some(message) = message else {
        diagnostics.report_rule(RULE, "the body must be a message with fields");
        return "".into();
    };
    let mut members: Vec<String> = Vec::new();
    for (name, json) in &rules.constant_members {
        if let Err(problem) = check_json(json) {
            diagnostics.report_rule(RULE, format!("`{name}`: {problem}"));
        }
        let omitted = |index| {
            let steps: Vec<FieldIndex> = above.into_iter().chain([index]).collect();
            marks.contains(&(steps, Mark::Omitted))
        };
        if message
            .names
            .get(name.as_bytes())
            .is_some_and(|index| !omitted(index))
        {
            let problem = format!(
                "`{name}` is also a field of {}: remove one, or name the field in `omitted`",
                message.name
            );
            diagnostics.report_rule(RULE, problem);
        }
        members.push(format!("{}:{json}", serde_json::Value::from(name.as_str())));
    }
    // A map has no order: sorted, so that bodies are reproducible.
    members.sort();
    members.join(",").into()
}

/// Compiles `also_success`: statuses outside 200 to 299.
pub(super) fn statuses(rules: &MethodRules, diagnostics: &mut Diagnostics<'_>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for status in &rules.also_success {
        match u16::try_from(*status) {
            Ok(status @ (100..=199 | 300..=599)) => statuses.push(status),
            _ => diagnostics.report_rule(
                "also_success",
                format!("{status} is not an HTTP status outside 200 to 299"),
            ),
        }
    }
    statuses
}
