//! Compiles the `paging` of an rpc.

use super::{Key, NEXT_PAGE_TOKEN, PAGE_SIZE, PAGE_TOKEN, Paging, Param, Style};
use crate::api::drawbridge::v1::{self as rules, PagingStyle};
use crate::contract::diagnostics::Diagnostics;
use crate::schema::{Cardinality, Field, Kind, Message, MessageId, Schema};

/// Compiles the `paging` of an rpc.
pub(in crate::contract) fn compile(
    rule: &rules::Paging,
    schema: &Schema,
    (input, output): (MessageId, MessageId),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Paging> {
    let request = schema.message(input);
    let response = schema.message(output);
    let style = match rule.style() {
        PagingStyle::Marker => Style::Marker,
        PagingStyle::Offset => Style::Offset,
        PagingStyle::Page => Style::Page {
            first: u64::try_from(rule.first_page.unwrap_or(1)).unwrap_or_default(),
        },
        PagingStyle::Unspecified => {
            diagnostics.report_rule("paging.style", "is missing: set MARKER, OFFSET or PAGE");
            return None;
        }
    };
    if rule.first_page.is_some_and(|first| first < 0) {
        diagnostics.report_rule("paging.first_page", "must not be negative");
    }
    if rule.first_page.is_some() && !matches!(style, Style::Page { .. }) {
        diagnostics.report_rule("paging.first_page", "is for the style PAGE");
    }
    if rule.default_size < 0 {
        diagnostics.report_rule("paging.default_size", "must not be negative");
    }
    let size = param(request, PAGE_SIZE, is_number, diagnostics);
    let token = param(request, PAGE_TOKEN, is_text, diagnostics);
    let next = match response.field(NEXT_PAGE_TOKEN) {
        Some((_, field)) if is_text(field) && field.gateway_only => Some(field.number),
        _ => {
            let problem = format!(
                "{} needs `string {NEXT_PAGE_TOKEN}`, marked `gateway_only`: the gateway sets it",
                response.name
            );
            diagnostics.report_rule("paging", problem);
            None
        }
    };
    let Some((items, item)) = messages(response, &rule.items) else {
        let problem = format!(
            "`{}` is not a repeated message field of {}",
            rule.items, response.name
        );
        diagnostics.report_rule("paging.items", problem);
        return None;
    };
    let key = key(rule, schema.message(item), style, diagnostics);
    let total = total(rule, schema, output, style, diagnostics);
    if rule.total_counts_items && (rule.total.is_empty() || !matches!(style, Style::Page { .. })) {
        let problem = "is for the style PAGE with a `total`";
        diagnostics.report_rule("paging.total_counts_items", problem);
    }
    let links = links(rule, schema, response, style, diagnostics);
    Some(Paging {
        style,
        size: size?,
        token: token?,
        items: items.number,
        next: next?,
        total,
        total_counts_items: rule.total_counts_items,
        links,
        key,
        item,
        default_size: match u32::try_from(rule.default_size) {
            Ok(size) if size > 0 => size,
            _ => 100,
        },
        has_default_size: rule.default_size > 0,
    })
}

pub(in crate::contract) fn param(
    request: &Message,
    name: &str,
    fits: fn(&Field) -> bool,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Param> {
    match request.field(name) {
        Some((_, field)) if fits(field) && !field.gateway_only && !field.output_only => {
            Some(Param {
                number: field.number,
                absent_in: field.absent_in.clone(),
            })
        }
        _ => {
            let what = if name == PAGE_SIZE { "int32" } else { "string" };
            let problem = format!(
                "{} needs `{what} {name}`, with its REST name as `name`",
                request.name
            );
            diagnostics.report_rule("paging", problem);
            None
        }
    }
}

fn key(
    rule: &rules::Paging,
    item: &Message,
    style: Style,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Key> {
    if rule.key.is_empty() {
        if style == Style::Marker {
            diagnostics.report_rule(
                "paging.key",
                "is missing: the next page starts after the key of the last item",
            );
        }
        return None;
    }
    match item.field(&rule.key) {
        Some((_, field)) if field.is_key() => Some(Key {
            number: field.number,
            kind: field.kind,
        }),
        _ => {
            let problem = format!(
                "`{}` is not a single string or integer field of {}",
                rule.key, item.name
            );
            diagnostics.report_rule("paging.key", problem);
            None
        }
    }
}

fn total(
    rule: &rules::Paging,
    schema: &Schema,
    output: MessageId,
    style: Style,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<u32> {
    let mut steps = Vec::new();
    if rule.total.is_empty() {
        return steps;
    }
    if style == Style::Marker {
        diagnostics.report_rule("paging.total", "is for the styles OFFSET and PAGE");
        return steps;
    }
    let mut message = schema.message(output);
    let mut names = rule.total.split('.').peekable();
    while let Some(name) = names.next() {
        match message.field(name).map(|(_, field)| field) {
            Some(field) if names.peek().is_none() && is_number(field) => {
                steps.push(field.number);
                return steps;
            }
            Some(Field {
                number,
                kind: Kind::Message(below),
                cardinality: Cardinality::Explicit,
                ..
            }) if names.peek().is_some() => {
                steps.push(*number);
                message = schema.message(*below);
            }
            _ => {
                let problem = format!("`{name}` is not a single integer field of {}", message.name);
                diagnostics.report_rule("paging.total", problem);
                return Vec::new();
            }
        }
    }
    steps
}

fn links(
    rule: &rules::Paging,
    schema: &Schema,
    response: &Message,
    style: Style,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(u32, u32)> {
    if rule.next_links.is_empty() {
        return None;
    }
    if style != Style::Marker {
        diagnostics.report_rule("paging.next_links", "is for the style MARKER");
        return None;
    }
    let found = messages(response, &rule.next_links).and_then(|(field, link)| {
        let (_, rel) = schema.message(link).field("rel")?;
        is_text(rel).then_some((field.number, rel.number))
    });
    if found.is_none() {
        let problem = format!(
            "`{}` is not a repeated message field of {} with a string `rel`",
            rule.next_links, response.name
        );
        diagnostics.report_rule("paging.next_links", problem);
    }
    found
}

fn messages<'a>(message: &'a Message, name: &str) -> Option<(&'a Field, MessageId)> {
    let (_, field) = message.field(name)?;
    match (field.kind, field.cardinality) {
        (Kind::Message(id), Cardinality::Repeated) => Some((field, id)),
        _ => None,
    }
}

pub(in crate::contract) fn is_text(field: &Field) -> bool {
    field.is_single() && field.kind == Kind::String
}

pub(in crate::contract) fn is_number(field: &Field) -> bool {
    field.is_single()
        && matches!(
            field.kind,
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
        )
}
