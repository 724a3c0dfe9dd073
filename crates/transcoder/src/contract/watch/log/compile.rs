//! Compiles the options of a log.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::EVENT;
use super::super::compile::{intervals, key};
use super::super::field_path::Part;
use super::{Elements, LINE, Log, LogKind, Param, Read, Tables};
use crate::api::drawbridge::v1 as rules;
use crate::contract::Method;
use crate::contract::diagnostics::{Diagnostics, check_query};
use crate::contract::path_template::encode;
use crate::contract::rpc_lookup::{RpcLookup, check_same_call};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, MessageId, Schema, Shape};

/// Number of reads of a list after which its newest page is read too.
const LOOK_BACK: u32 = 5;

/// Bytes per read of a text.
const FIRST_READ_BYTES: u32 = 64 << 10;

/// Bytes per read of a text after one without a line end.
const MAX_READ_BYTES: u32 = 4 << 20;

/// Returns whether these are the options of a log.
pub(in crate::contract) fn is_log(rule: &rules::Watch) -> bool {
    rule.log.is_some() || rule.text_log.is_some()
}

/// Compiles the log of `method`. The watches in `rpcs` are compiled already.
pub(in crate::contract) fn compile(
    rule: &rules::Watch,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Log> {
    let schema = &*method.schema;
    let Some(poll) = rpcs.find(&rule.poll) else {
        diagnostics.report_rule("watch.poll", rpcs.unknown("poll", &rule.poll));
        return None;
    };
    if method.action.is_some() || poll.action.is_some() {
        diagnostics.report_rule(
            "watch",
            "an action cannot be polled: it must not be repeated",
        );
    }
    for (set, option) in [
        (!rule.state.is_empty(), "state"),
        (!rule.succeeded.is_empty(), "succeeded"),
        (!rule.failed.is_empty(), "failed"),
        (!rule.refresh.is_empty(), "refresh"),
        (
            rule.on_not_found != 0 || !rule.not_found_succeeds_after.is_empty(),
            "on_not_found",
        ),
        (rule.start.is_some(), "start"),
        (!rule.side_read.is_empty(), "side_read"),
        (!rule.final_after.is_empty(), "final_after"),
        (!rule.follow_after.is_empty(), "follow_after"),
        (rule.unknown.is_some(), "unknown"),
        (rule.fallback.is_some(), "fallback"),
        (!rule.set_when_final.is_empty(), "set_when_final"),
    ] {
        if set {
            let option = format!("watch.{option}");
            diagnostics.report_rule(&option, "is not for logs: name a watch in `ends_with`");
        }
    }
    check_same_call(method, poll, "watch.poll", diagnostics);
    let (first, max) = intervals(rule, diagnostics);

    let (read, kind, item, marker_kind) = match (&rule.log, &rule.text_log) {
        (Some(log), None) => entries(rule, log, method, poll, diagnostics)?,
        (None, Some(log)) => text(rule, log, method, poll, diagnostics)?,
        _ => {
            diagnostics.report_rule(
                "watch.text_log",
                "cannot be combined with `log`: remove one \
                                                       of them",
            );
            return None;
        }
    };
    let (event, item, marker) = stream_fields(method, item, marker_kind, diagnostics)?;
    let mut flag = |name: &str, option: &str| {
        let field = local(name, option, method, diagnostics)?;
        let table = &schema.message(method.input).fields[usize::from(field)];
        if table.kind != Kind::Bool || !table.is_single() {
            diagnostics.report_rule(option, format!("`{name}` must be a single bool"));
            return None;
        }
        Some(field)
    };
    let follow = flag(&rule.follow, "watch.follow");
    let until_final = flag(&rule.until_final, "watch.until_final");
    let from_now = flag(&rule.from_now, "watch.from_now");
    if from_now.is_some() && matches!(kind, LogKind::Text { .. }) {
        diagnostics.report_rule(
            "watch.from_now",
            "is for entry logs: a text log resumes at an \
                                                   offset",
        );
    }
    let resume = resume(rule, method, marker_kind, diagnostics);
    let ends = ends(rule, method, rpcs, diagnostics);
    let (ends_with, ends, ends_event) = match ends {
        Some((watch, fields, event)) => (Some(watch), fields, event),
        None => (None, HashMap::new(), 0),
    };
    match (&ends_with, follow, until_final) {
        (None, None, None) | (Some(_), Some(_), None) | (Some(_), None, Some(_)) => {}
        (Some(_), _, _) => diagnostics.report_rule(
            "watch.ends_with",
            "needs exactly one of `follow` and `until_final`, so that clients can choose",
        ),
        (None, _, _) if rule.ends_with.is_empty() => diagnostics.report_rule(
            "watch.ends_with",
            "is missing: `follow` and `until_final` need it",
        ),
        (None, _, _) => {}
    }
    let ends_follow = ends_with
        .as_ref()
        .and_then(|ends| ends.watch.as_ref()?.follow_number());
    Some(Log {
        poll: poll.clone(),
        kind,
        ends_with,
        initial_interval: first,
        max_interval: max,
        tables: Tables {
            input: method.input,
            event,
            item,
            marker,
            resume,
            from_now,
            follow,
            until_final,
            ends,
            ends_event,
            ends_follow,
            read,
        },
    })
}

type Compiled = (Read, LogKind, MessageId, Kind);

fn entries(
    rule: &rules::Watch,
    log: &rules::EntryLog,
    method: &Method,
    poll: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Compiled> {
    let schema = &*method.schema;
    let (list, item) = match Part::find(schema, poll.output, &rule.item) {
        Ok((Part::List(list), item)) => {
            // Another watch may have set the same.
            let _ = poll.watched_member.set(list);
            (list, item)
        }
        Ok(_) => {
            diagnostics.report_rule("watch.item", "must be a list of entries");
            return None;
        }
        Err(problem) => {
            diagnostics.report_rule("watch.item", problem);
            return None;
        }
    };
    let message = schema.message(item);
    let key = key(rule, true, message, diagnostics)?;
    let mut order = None;
    if !log.order_by.is_empty() {
        match message.field(&log.order_by) {
            Some((index, field)) if is_order(schema, field) => order = Some(index),
            Some(_) => {
                let problem = format!("`{}` must be a Timestamp, integer or string", log.order_by);
                diagnostics.report_rule("watch.log.order_by", problem);
            }
            None => {
                let problem = format!("{} has no field `{}`", message.name, log.order_by);
                diagnostics.report_rule("watch.log.order_by", problem);
            }
        }
    }
    let marker = param(
        &log.marker,
        "watch.log.marker",
        method,
        poll,
        false,
        diagnostics,
    )?;
    let limit = param(
        &log.limit,
        "watch.log.limit",
        method,
        poll,
        false,
        diagnostics,
    )?;
    if !marker.absent_in.is_empty() && order.is_none() {
        diagnostics.report_rule(
            "watch.log.order_by",
            "is missing: dialects without a marker return entries in no known order",
        );
    }
    for (query, option) in [(&log.ascending, "ascending"), (&log.newest, "newest")] {
        if let Err(problem) = check_query(query) {
            diagnostics.report_rule(&format!("watch.log.{option}"), problem);
        }
    }
    let page_size = bounded(
        log.page_size,
        100,
        1_000,
        "watch.log.page_size",
        diagnostics,
    );
    let kind = LogKind::Entries {
        page_size: page_size as usize,
        look_back: LOOK_BACK,
    };
    let read = Read::Entries {
        list: schema.message(poll.output).fields[usize::from(list)].number,
        item,
        key,
        order,
        marker,
        limit,
        ascending: log.ascending.as_str().into(),
        newest: log.newest.as_str().into(),
        page_size: page_size as usize,
    };
    Some((read, kind, item, Kind::String))
}

fn text(
    rule: &rules::Watch,
    log: &rules::TextLog,
    method: &Method,
    poll: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Compiled> {
    let schema = &*method.schema;
    if !rule.item.is_empty() || !rule.key.is_empty() {
        diagnostics.report_rule(
            "watch.item",
            "is not for text logs: `text_log.text` names the field",
        );
    }
    let offset = param(
        &log.offset,
        "watch.text_log.offset",
        method,
        poll,
        true,
        diagnostics,
    )?;
    let size = param(
        &log.size,
        "watch.text_log.size",
        method,
        poll,
        true,
        diagnostics,
    )?;
    let mut at = poll.output;
    let mut steps = Vec::new();
    let mut elements = Elements::None;
    let mut names = log.text.split('.').peekable();
    while let Some(name) = names.next() {
        let table = schema.message(at);
        let Some((_, field)) = table.field(name) else {
            let problem = format!("`{}`: {} has no field `{name}`", log.text, table.name);
            diagnostics.report_rule("watch.text_log.text", problem);
            return None;
        };
        steps.push(field.number);
        elements = match (elements, field.cardinality) {
            (_, Cardinality::Repeated) if names.peek().is_none() => Elements::OptionalLines,
            (_, Cardinality::Repeated) => Elements::Lines,
            (Elements::Lines, Cardinality::Explicit) if names.peek().is_none() => {
                Elements::OptionalLines
            }
            (before, _) => before,
        };
        match (field.kind, names.peek()) {
            (Kind::Message(below), Some(_)) if field.cardinality != Cardinality::Map => at = below,
            (Kind::String, None) => {}
            _ => {
                let problem = format!("`{}` must lead to a string", log.text);
                diagnostics.report_rule("watch.text_log.text", problem);
                return None;
            }
        }
    }
    let table = schema.message(at);
    let additional_properties = table
        .additional_properties
        .map(|index| table.fields[usize::from(index)].number);
    let Some(item) = schema.message_id(LINE) else {
        diagnostics.report_rule(
            "watch.text_log",
            format!("the stream's messages must have a field of type {LINE}"),
        );
        return None;
    };
    let kind = LogKind::Text {
        first_size: FIRST_READ_BYTES,
        max_size: MAX_READ_BYTES,
    };
    let read = Read::Text {
        offset,
        size,
        steps,
        additional_properties,
        elements,
    };
    Some((read, kind, item, Kind::Int64))
}

fn bounded(
    given: i32,
    default: u32,
    most: u32,
    option: &str,
    diagnostics: &mut Diagnostics<'_>,
) -> u32 {
    match u32::try_from(given) {
        Ok(0) => default,
        Ok(given) if given <= most => given,
        _ => {
            diagnostics.report_rule(option, format!("must be 1 to {most}"));
            default
        }
    }
}

fn is_order(schema: &Schema, field: &Field) -> bool {
    let kind = match field.kind {
        Kind::Message(id) => schema.message(id).shape == Shape::Timestamp,
        _ => return field.is_key(),
    };
    kind && field.is_single()
}

/// Finds the query parameter of the polled rpc that the watch sets.
fn param(
    name: &str,
    option: &str,
    method: &Method,
    poll: &Method,
    number: bool,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Param> {
    let schema = &*method.schema;
    let request = schema.message(poll.input);
    let Some((_, field)) = request.field(name) else {
        let problem = match name {
            "" => format!("is missing: name the field of {}", request.name),
            _ => format!("{} has no field `{name}`", request.name),
        };
        diagnostics.report_rule(option, problem);
        return None;
    };
    let in_path = poll
        .binding
        .path_fields()
        .any(|(_, other)| other.number == field.number && other.name == field.name);
    let fits = match field.kind {
        Kind::String => !number,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => true,
        _ => false,
    };
    if !fits
        || !field.is_single()
        || in_path
        || field.gateway_only
        || poll.verb != http::Method::GET
    {
        let problem = format!(
            "`{name}` must be a single query parameter of `{}`",
            poll.name
        );
        diagnostics.report_rule(option, problem);
        return None;
    }
    let own = schema.message(method.input).field(name);
    if own.is_some_and(|(_, own)| !own.gateway_only) {
        let problem = format!("`{name}` is set by the watch: remove it from the request");
        diagnostics.report_rule(option, problem);
    }
    let mut quoted = String::new();
    encode(&field.wire_name, &mut quoted);
    Some(Param {
        name: quoted.into(),
        absent_in: field.absent_in.clone(),
    })
}

/// Finds a field of the log's own request, which must be `gateway_only`; none for an
/// empty name.
fn local(
    name: &str,
    option: &str,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<FieldIndex> {
    if name.is_empty() {
        return None;
    }
    let request = method.schema.message(method.input);
    match request.field(name) {
        Some((index, field)) if field.gateway_only => Some(index),
        Some(_) => {
            diagnostics.report_rule(option, format!("`{name}` must be marked `gateway_only`"));
            None
        }
        None => {
            let problem = format!("{} has no field `{name}`", request.name);
            diagnostics.report_rule(option, problem);
            None
        }
    }
}

fn resume(
    rule: &rules::Watch,
    method: &Method,
    kind: Kind,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<FieldIndex> {
    let index = local(&rule.resume, "watch.resume", method, diagnostics)?;
    let field = &method.schema.message(method.input).fields[usize::from(index)];
    if field.kind != kind || !field.is_single() {
        let problem = format!("`{}` must be a single {}", rule.resume, kind_name(kind));
        diagnostics.report_rule("watch.resume", problem);
        return None;
    }
    Some(index)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        _ => "int64",
    }
}

/// Returns the field numbers of event, item and marker in the stream's messages.
fn stream_fields(
    method: &Method,
    item: MessageId,
    marker: Kind,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(u32, u32, u32)> {
    let schema = &*method.schema;
    let message = schema.message(method.output);
    let event = event_number(schema, method.output);
    let of = |kind: Kind| {
        let mut fields = message
            .fields
            .iter()
            .filter(move |field| field.kind == kind && field.is_single());
        fields.next().filter(|_| fields.next().is_none())
    };
    if let (Some(event), Some(item), Some(marker), 3) = (
        event,
        of(Kind::Message(item)),
        of(marker),
        message.fields.len(),
    ) {
        return Some((event, item.number, marker.number));
    }
    let problem = format!(
        "{} must have three fields: one {EVENT}, one {} and one {} for the marker",
        message.name,
        schema.message(item).name,
        kind_name(marker)
    );
    diagnostics.report_rule("watch", problem);
    None
}

/// Returns the number of the single field of type `WatchEvent`.
fn event_number(schema: &Schema, message: MessageId) -> Option<u32> {
    let is_event = |field: &&Field| match field.kind {
        Kind::Message(id) => &*schema.message(id).name == EVENT && field.is_single(),
        _ => false,
    };
    let mut events = schema.message(message).fields.iter().filter(is_event);
    let event = events.next()?.number;
    events.next().is_none().then_some(event)
}

type Ends = (Arc<Method>, HashMap<u32, u32>, u32);

fn ends(
    rule: &rules::Watch,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Ends> {
    const OPTION: &str = "watch.ends_with";
    let name = &*rule.ends_with;
    if name.is_empty() {
        return None;
    }
    let found = rpcs.watch(name).filter(|other| {
        other.family == method.family
            && other
                .watch
                .as_ref()
                .is_some_and(|watch| !watch.list && watch.start.is_none())
    });
    let Some(watch) = found else {
        let problem = rpcs.left_out_or(name, || {
            format!("`{name}` is not a watch of a single resource in this family")
        });
        diagnostics.report_rule(OPTION, problem);
        return None;
    };
    let schema = &*method.schema;
    let ours = schema.message(method.input);
    let theirs = schema.message(watch.input);
    let mut fields = HashMap::new();
    for field in &theirs.fields {
        let named = rule.ends_fields.get(&*field.name);
        let named = named.map_or(&*field.name, String::as_str);
        let same = ours.field(named).filter(|(_, own)| {
            (own.kind, own.cardinality) == (field.kind, field.cardinality)
                && !own.gateway_only
                && !field.gateway_only
        });
        match same {
            Some((_, own)) => {
                fields.insert(own.number, field.number);
            }
            None if field.required => {
                let problem = format!("`{name}`: nothing sets its REQUIRED field `{}`", field.name);
                diagnostics.report_rule(OPTION, problem);
            }
            None => {}
        }
    }
    for (theirs_name, own) in &rule.ends_fields {
        let there = theirs.field(theirs_name);
        let fills = there.is_some_and(|(_, field)| fields.values().any(|n| *n == field.number));
        if !fills {
            let problem = format!("`{own}` cannot fill `{theirs_name}` of `{name}`");
            diagnostics.report_rule("watch.ends_fields", problem);
        }
    }
    let event = event_number(schema, watch.output)?;
    Some((Arc::clone(watch), fields, event))
}
