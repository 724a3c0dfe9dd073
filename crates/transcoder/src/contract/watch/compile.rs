//! From what an rpc says of its watch to the tables.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::call_compiler::CallCompiler;
use super::field_path::{FieldPath, Part};
use super::fields::{bool_field, shared_fields};
use super::side_read::SideRead;
use super::start;
use super::state::{State, States, Written};
use super::{EVENT, Refresh, Tables};
use crate::api::drawbridge::v1 as rules;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::rpc_lookup::{RpcLookup, check_same_call, unknown_rpc};
use crate::contract::{Method, Watch};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, Message, MessageId, Schema};

/// Compiles the watch of `method`.
pub(in crate::contract) fn compile(
    rule: &rules::Watch,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Watch> {
    let schema = &*method.schema;
    let Some(poll) = rpcs.find(&rule.poll) else {
        diagnostics.report_rule("watch.poll", unknown_rpc("poll", &rule.poll));
        return None;
    };
    if method.action.is_some() || poll.action.is_some() {
        diagnostics.report_rule(
            "watch",
            "an action cannot be watched: it is not to be done twice",
        );
    }
    if rule.start.is_none() {
        check_same_call(method, poll, "watch.poll", diagnostics);
    }

    let (item, item_type) = Part::find(schema, poll.output, &rule.item)
        .map_err(|problem| diagnostics.report_rule("watch.item", problem))
        .ok()?;
    let list = matches!(item, Part::List(_));
    let message = schema.message(item_type);
    let key = key(rule, list, message, diagnostics);
    let additional_keys = additional_keys(rule, list, schema, item_type, diagnostics);
    let written = Written {
        state: &rule.state,
        well: &rule.succeeded,
        badly: &rule.failed,
        option: "watch",
    };
    let state = State::compile(&written, schema, item_type, diagnostics);
    let (event_number, item_number) = stream_fields(rule, method, item_type, diagnostics)?;
    let follow = if rule.follow.is_empty() {
        None
    } else {
        bool_field(
            &rule.follow,
            schema,
            method.input,
            "watch.follow",
            diagnostics,
        )
        .map(|(index, _)| index)
    };
    let refresh = refresh(rule, list.then_some(item_type), method, rpcs, diagnostics);
    if let (Some((_, table)), Some(key)) = (&refresh, key)
        && message.fields[usize::from(key)].kind != table.kind
    {
        diagnostics.report_rule(
            "watch.refresh",
            format!(
                "`{}` takes a key of another type than `{}`",
                rule.refresh, rule.key
            ),
        );
    }
    if rules::OnNotFound::try_from(rule.on_not_found).is_err() {
        diagnostics.report_rule("watch.on_not_found", "is not a value that is known");
    }
    let (first_interval, max_interval) = intervals(rule, diagnostics);

    if list && poll.paging.is_some() {
        let problem = "comes in pages: a watch reads a list whole";
        diagnostics.report_rule("watch.poll", problem);
    }
    if list {
        for (given, option) in [
            (!rule.side_read.is_empty(), "side_read"),
            (!rule.final_after.is_empty(), "final_after"),
            (
                !rule.not_found_succeeds_after.is_empty(),
                "not_found_succeeds_after",
            ),
            (!rule.follow_after.is_empty(), "follow_after"),
            (rule.unknown.is_some(), "unknown"),
            (rule.fallback.is_some(), "fallback"),
            (!rule.set_when_final.is_empty(), "set_when_final"),
        ] {
            if given {
                let problem = "is for one thing; what is watched is a list";
                diagnostics.report_rule(&format!("watch.{option}"), problem);
            }
        }
    }
    if state.is_none() {
        for (given, option) in [
            (!rule.final_after.is_empty(), "final_after"),
            (
                !rule.not_found_succeeds_after.is_empty(),
                "not_found_succeeds_after",
            ),
            (!rule.follow_after.is_empty(), "follow_after"),
            (rule.unknown.is_some(), "unknown"),
        ] {
            if given {
                let problem = "the watch has no `state`: name it";
                diagnostics.report_rule(&format!("watch.{option}"), problem);
            }
        }
    }
    if !rule.not_found_succeeds_after.is_empty()
        && rule.on_not_found() == rules::OnNotFound::Succeed
    {
        let problem = "says nothing beside ON_NOT_FOUND_SUCCEED: leave out one of them";
        diagnostics.report_rule("watch.not_found_succeeds_after", problem);
    }
    let calls = CallCompiler {
        schema,
        rpcs,
        method,
        poll,
        item: item_type,
        state: state.as_ref(),
    };
    let start = match &rule.start {
        Some(start) => Some(calls.start(start, diagnostics)?),
        None => None,
    };
    let side: Vec<SideRead> = rule
        .side_read
        .iter()
        .filter_map(|side| calls.side(side, diagnostics))
        .collect();
    let fallback = match &rule.fallback {
        Some(fallback) => Some(calls.fallback(fallback, diagnostics)?),
        None => None,
    };
    let (mut hold, mut gone_well) = (Vec::new(), States::default());
    let (mut follow_after, mut unknown) = (States::default(), None);
    if let Some(state) = &state {
        follow_after = state.ends(
            schema,
            &rule.follow_after,
            "watch.follow_after",
            diagnostics,
        );
        if !rule.follow_after.is_empty() && rule.follow.is_empty() {
            let problem = "says after what to go on: name the field of `follow`";
            diagnostics.report_rule("watch.follow_after", problem);
        }
        if let Some(rule) = &rule.unknown {
            unknown = state.unknown(rule, schema, item_type, diagnostics);
        }
        hold = rule
            .final_after
            .iter()
            .filter_map(|hold| state.hold(hold, schema, item_type, diagnostics))
            .collect();
        gone_well = state.states(
            schema,
            &rule.not_found_succeeds_after,
            "watch.not_found_succeeds_after",
            diagnostics,
        );
    }
    let light = if rule.set_when_final.is_empty() {
        None
    } else {
        let index = light(&rule.set_when_final, schema, poll, diagnostics)?;
        Some(schema.message(poll.input).fields[usize::from(index)].number)
    };
    let mut aside = HashSet::new();
    side.iter().for_each(|side| side.asked(&mut aside));
    fallback
        .iter()
        .for_each(|fallback| fallback.asked(&mut aside));

    let (refresh_rpc, refresh) = refresh.unzip();
    Some(Watch {
        poll: poll.clone(),
        refresh: refresh_rpc,
        list,
        first_interval,
        max_interval,
        gone_ends_well: rule.on_not_found() == rules::OnNotFound::Succeed,
        start,
        side,
        hold,
        fallback,
        tables: Tables {
            input: method.input,
            output: method.output,
            follow,
            item,
            item_type,
            key,
            additional_keys,
            state,
            event_number,
            item_number,
            refresh,
            gone_well,
            follow_after,
            unknown,
            light,
            fields: shared_fields(schema, method.input, poll.input),
            aside: aside.into_iter().collect(),
        },
    })
}

/// The pauses: the first one, and the longest.
pub(super) fn intervals(
    rule: &rules::Watch,
    diagnostics: &mut Diagnostics<'_>,
) -> (Duration, Duration) {
    let first_interval = interval(
        rule.initial_interval.as_ref(),
        "initial_interval",
        diagnostics,
    );
    let max_interval = interval(rule.max_interval.as_ref(), "max_interval", diagnostics);
    let first = first_interval.unwrap_or(Duration::from_secs(1));
    let max = max_interval.unwrap_or(Duration::from_secs(10).max(first));
    // A longest pause that is given bounds the default of the first one, too.
    let first = if first_interval.is_none() {
        first.min(max)
    } else {
        first
    };
    if first > max {
        diagnostics.report_rule("watch.max_interval", "is shorter than initial_interval");
    }
    (first, max)
}

pub(super) fn key(
    rule: &rules::Watch,
    list: bool,
    item: &Message,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<FieldIndex> {
    match (list, rule.key.is_empty()) {
        (false, true) => return None,
        (false, false) => {
            diagnostics.report_rule("watch.key", "is for lists; what is watched is one thing");
            return None;
        }
        (true, true) => {
            diagnostics.report_rule(
                "watch.key",
                "is missing: name the field that tells the items of the list apart",
            );
            return None;
        }
        (true, false) => {}
    }
    let Some((index, field)) = item.field(&rule.key) else {
        let problem = format!("{} has no field `{}`", item.name, rule.key);
        diagnostics.report_rule("watch.key", problem);
        return None;
    };
    if !field.is_key() {
        let problem = format!("`{}` must be one string or integer", rule.key);
        diagnostics.report_rule("watch.key", problem);
    }
    Some(index)
}

fn additional_keys(
    rule: &rules::Watch,
    list: bool,
    schema: &Schema,
    item: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<FieldPath> {
    let fits = rule.additional_keys.is_empty() || (list && rule.refresh.is_empty());
    if !fits {
        let problem = "is for lists whose items are not read by their key (`refresh`)";
        diagnostics.report_rule("watch.additional_keys", problem);
    }
    let mut field_paths = Vec::new();
    for name in &rule.additional_keys {
        match FieldPath::find(schema, item, name) {
            Ok(field_path) => field_paths.push(field_path),
            Err(problem) => diagnostics.report_rule("watch.additional_keys", problem),
        }
    }
    field_paths
}

/// The numbers of the fields of the stream's messages: the event's, the item's.
fn stream_fields(
    rule: &rules::Watch,
    method: &Method,
    item: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(u32, u32)> {
    let schema = &*method.schema;
    let message = schema.message(method.output);
    let started = rule
        .start
        .as_ref()
        .map(|start| start::field_name(&start.field));
    let mut named = HashSet::new();
    let sides = rule.side_read.iter().map(|side| &*side.field);
    let fallback = rule.fallback.as_ref().map(|fallback| &*fallback.field);
    for name in started.into_iter().chain(sides).chain(fallback) {
        if !named.insert(name) {
            let problem = format!("the field `{name}` of {} is named twice", message.name);
            diagnostics.report_rule("watch", problem);
        }
    }
    let is_event = |field: &&Field| match field.kind {
        Kind::Message(id) => &*schema.message(id).name == EVENT,
        _ => false,
    };
    let (events, others): (Vec<&Field>, Vec<&Field>) = message
        .fields
        .iter()
        .filter(|field| !named.contains(&*field.name))
        .partition(|field| is_event(field));
    if let ([event], [other]) = (&*events, &*others)
        && event.cardinality == Cardinality::Explicit
        && (other.kind, other.cardinality) == (Kind::Message(item), Cardinality::Explicit)
    {
        return Some((event.number, other.number));
    }
    let problem = format!(
        "{} must have two fields{}: one {EVENT} and one {}",
        message.name,
        if named.is_empty() {
            ""
        } else {
            " beside those that are named"
        },
        schema.message(item).name
    );
    diagnostics.report_rule("watch", problem);
    None
}

fn refresh(
    rule: &rules::Watch,
    item: Option<MessageId>,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Arc<Method>, Refresh)> {
    if rule.refresh.is_empty() {
        return None;
    }
    let Some(item) = item else {
        diagnostics.report_rule(
            "watch.refresh",
            "is for lists; what is watched is one thing",
        );
        return None;
    };
    let Some(rpc) = rpcs.find(&rule.refresh) else {
        diagnostics.report_rule("watch.refresh", unknown_rpc("refresh", &rule.refresh));
        return None;
    };
    let schema = &*method.schema;
    let ours = schema.message(method.input);
    let mut copied = Vec::new();
    let mut keys = Vec::new();
    for (steps, field) in rpc.binding.path_fields() {
        let known = ours.field(&field.name).filter(|(index, known)| {
            known.kind == field.kind
                && method.binding.path_fields().any(|(s, f)| {
                    s.is_empty() && f.number == ours.fields[usize::from(*index)].number
                })
        });
        match known {
            Some((_, known)) if steps.is_empty() => copied.push((known.number, field.number)),
            // The upstream's own stands in.
            None if field.project_id => {}
            _ => keys.push((steps, field)),
        }
    }
    let [(steps, key)] = &*keys else {
        let problem = format!(
            "`{}` must have one path field beside those of the watch, for the key: it has {}",
            rule.refresh,
            keys.len()
        );
        diagnostics.report_rule("watch.refresh", problem);
        return None;
    };
    if !steps.is_empty() || !key.is_key() {
        let problem = format!(
            "`{}`: the path field must be a string or integer",
            rule.refresh
        );
        diagnostics.report_rule("watch.refresh", problem);
        return None;
    }
    let theirs = schema.message(rpc.input);
    for field in theirs.fields.iter().filter(|field| field.required) {
        let filled = field.number == key.number
            || field.project_id
            || copied.iter().any(|(_, number)| *number == field.number);
        if !filled {
            let problem = format!(
                "`{}`: nothing fills its REQUIRED field `{}`",
                rule.refresh, field.name
            );
            diagnostics.report_rule("watch.refresh", problem);
        }
    }
    let response = schema.message(rpc.output);
    let holds = |field: &&Field| {
        (field.kind, field.cardinality) == (Kind::Message(item), Cardinality::Explicit)
    };
    let mut holders = response.fields.iter().filter(holds);
    let item = match (rpc.output == item, holders.next(), holders.next()) {
        (true, _, _) => None,
        (false, Some(holder), None) => Some(holder.number),
        _ => {
            let problem = format!(
                "{} must have one field of type {}",
                response.name,
                schema.message(item).name
            );
            diagnostics.report_rule("watch.refresh", problem);
            return None;
        }
    };
    let table = Refresh {
        copied,
        number: key.number,
        kind: key.kind,
        item,
    };
    Some((rpc.clone(), table))
}

fn interval(
    given: Option<&prost_types::Duration>,
    option: &str,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Duration> {
    match Duration::try_from(*given?) {
        Ok(pause) if (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&pause) => {
            Some(pause)
        }
        _ => {
            diagnostics.report_rule(&format!("watch.{option}"), "must be 10 ms to 1 day");
            None
        }
    }
}

/// The bool of the poll's request that makes it cheaper when false.
fn light(
    name: &str,
    schema: &Schema,
    poll: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<FieldIndex> {
    let (index, field) = bool_field(
        name,
        schema,
        poll.input,
        "watch.set_when_final",
        diagnostics,
    )?;
    if field.cardinality != Cardinality::Explicit {
        let problem = format!("`{name}` must be `optional`: else its false is not sent");
        diagnostics.report_rule("watch.set_when_final", problem);
    }
    Some(index)
}
