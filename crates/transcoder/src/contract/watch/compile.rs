//! Compiles the options of a watch.

use std::collections::HashSet;
use std::time::Duration;

use super::call_compiler::CallCompiler;
use super::field_path::{FieldPath, Part};
use super::fields::{bool_field, shared_fields};
use super::side_read::SideRead;
use super::state::{State, StateOptions, States};
use super::{EVENT, Tables, final_after, refresh, start, unknown};
use crate::api::drawbridge::v1 as rules;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::rpc_lookup::{RpcLookup, check_same_call};
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
        diagnostics.report_rule("watch.poll", rpcs.unknown("poll", &rule.poll));
        return None;
    };
    if method.action.is_some() || poll.action.is_some() {
        diagnostics.report_rule(
            "watch",
            "an action cannot be polled: it must not be repeated",
        );
    }
    if rule.start.is_none() {
        check_same_call(method, poll, "watch.poll", diagnostics);
    }

    let (item, item_type) = Part::find(schema, poll.output, &rule.item)
        .map_err(|problem| diagnostics.report_rule("watch.item", problem))
        .ok()?;
    if let Part::One(index) | Part::List(index) = item {
        // Another watch may have set the same.
        let _ = poll.watched_member.set(index);
    }
    let list = matches!(item, Part::List(_));
    let message = schema.message(item_type);
    let key = key(rule, list, message, diagnostics);
    let additional_keys = additional_keys(rule, list, schema, item_type, diagnostics);
    let options = StateOptions {
        state: &rule.state,
        succeeded: &rule.succeeded,
        failed: &rule.failed,
        option: "watch",
    };
    let state = State::compile(&options, schema, item_type, diagnostics);
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
    let refresh = refresh::compile(rule, list.then_some(item_type), method, rpcs, diagnostics);
    if let (Some((_, table)), Some(key)) = (&refresh, key)
        && message.fields[usize::from(key)].kind != table.kind
    {
        diagnostics.report_rule(
            "watch.refresh",
            format!(
                "`{}` has a key of another type than `{}`",
                rule.refresh, rule.key
            ),
        );
    }
    if rules::OnNotFound::try_from(rule.on_not_found).is_err() {
        diagnostics.report_rule("watch.on_not_found", "is not a known value");
    }
    let (initial_interval, max_interval) = intervals(rule, diagnostics);

    if list && poll.paging.is_some() {
        let problem = "has `paging`: a watch needs a complete list";
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
                let problem = "is for a single resource, but `item` is a list";
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
                let problem = "the watch has no `state`: set it";
                diagnostics.report_rule(&format!("watch.{option}"), problem);
            }
        }
    }
    if !rule.not_found_succeeds_after.is_empty()
        && rule.on_not_found() == rules::OnNotFound::Succeed
    {
        let problem = "has no effect with ON_NOT_FOUND_SUCCEED: remove one of them";
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
    let side_reads: Vec<SideRead> = rule
        .side_read
        .iter()
        .filter_map(|side| calls.side(side, diagnostics))
        .collect();
    let fallback = match &rule.fallback {
        Some(fallback) => Some(calls.fallback(fallback, diagnostics)?),
        None => None,
    };
    let (mut final_after_rules, mut not_found_succeeds_after) = (Vec::new(), States::default());
    let (mut follow_after, mut unknown) = (States::default(), None);
    if let Some(state) = &state {
        follow_after = state.ends(
            schema,
            &rule.follow_after,
            "watch.follow_after",
            diagnostics,
        );
        if !rule.follow_after.is_empty() && rule.follow.is_empty() {
            let problem = "needs `follow`: name its field";
            diagnostics.report_rule("watch.follow_after", problem);
        }
        if let Some(rule) = &rule.unknown {
            unknown = unknown::compile(state, rule, schema, item_type, diagnostics);
        }
        final_after_rules = rule
            .final_after
            .iter()
            .filter_map(|hold| final_after::compile(state, hold, schema, item_type, diagnostics))
            .collect();
        not_found_succeeds_after = state.states(
            schema,
            &rule.not_found_succeeds_after,
            "watch.not_found_succeeds_after",
            diagnostics,
        );
    }
    let set_when_final = if rule.set_when_final.is_empty() {
        None
    } else {
        let index = set_when_final(&rule.set_when_final, schema, poll, diagnostics)?;
        Some(schema.message(poll.input).fields[usize::from(index)].number)
    };
    let mut further_call_fields = HashSet::new();
    side_reads
        .iter()
        .for_each(|side| side.add_request_fields(&mut further_call_fields));
    fallback
        .iter()
        .for_each(|fallback| fallback.add_request_fields(&mut further_call_fields));

    let (refresh_rpc, refresh) = refresh.unzip();
    Some(Watch {
        poll: poll.clone(),
        refresh: refresh_rpc,
        list,
        initial_interval,
        max_interval,
        not_found_succeeds: rule.on_not_found() == rules::OnNotFound::Succeed,
        start,
        side_reads,
        final_after: final_after_rules,
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
            not_found_succeeds_after,
            follow_after,
            unknown,
            set_when_final,
            fields: shared_fields(schema, method.input, poll.input),
            further_call_fields: further_call_fields.into_iter().collect(),
        },
    })
}

/// Compiles the first pause and the longest one.
pub(super) fn intervals(
    rule: &rules::Watch,
    diagnostics: &mut Diagnostics<'_>,
) -> (Duration, Duration) {
    let initial_interval = interval(
        rule.initial_interval.as_ref(),
        "initial_interval",
        diagnostics,
    );
    let max_interval = interval(rule.max_interval.as_ref(), "max_interval", diagnostics);
    let first = initial_interval.unwrap_or(Duration::from_secs(1));
    let max = max_interval.unwrap_or(Duration::from_secs(10).max(first));
    // A `max_interval` bounds the default of `initial_interval`, too.
    let first = if initial_interval.is_none() {
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
            diagnostics.report_rule("watch.key", "is for lists, but `item` is a single resource");
            return None;
        }
        (true, true) => {
            diagnostics.report_rule(
                "watch.key",
                "is missing: name the field that identifies an item of the list",
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
        let problem = format!("`{}` must be a single string or integer", rule.key);
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
        let problem = "is for lists without `refresh`";
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

/// Returns the field numbers of event and item in the stream's messages.
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
            " besides the named ones"
        },
        schema.message(item).name
    );
    diagnostics.report_rule("watch", problem);
    None
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

/// Compiles `set_when_final`: the bool of the poll's request that makes the poll
/// cheaper when false.
fn set_when_final(
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
        let problem = format!("`{name}` must be `optional`: otherwise `false` is not sent");
        diagnostics.report_rule("watch.set_when_final", problem);
    }
    Some(index)
}
