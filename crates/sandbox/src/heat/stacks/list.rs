//! Lists of stacks: filters, order, paging.

use serde_json::{Value, json};

use super::super::super::message::Response;
use super::super::stack::Stack;
use super::super::{Context, Heat, boolean_parameter, direction, forbidden, limit, remote_error};

/// Filters with a column in Heat's database.
const COLUMNS: [&str; 7] = [
    "id", "name", "status", "action", "tenant", "username", "owner_id",
];

fn column<'a>(heat: &'a Heat, stack: &'a Stack, name: &str) -> &'a str {
    match name {
        "id" => &stack.id,
        "name" | "stack_name" => &stack.name,
        "status" => stack.status,
        "action" | "stack_action" => stack.action,
        "tenant" => &stack.project,
        "username" | "stack_owner" => &stack.owner,
        "owner_id" | "parent" => stack
            .parent
            .as_ref()
            .filter(|parent| parent.nested)
            .and_then(|parent| heat.stacks.get(parent.stack))
            .map_or("", |parent| &parent.id),
        "stack_status_reason" => &stack.reason,
        "stack_user_project_id" => &stack.user_project,
        _ => "",
    }
}

/// Synonyms of some filters, which `count` ignores (observed).
const SYNONYMS: [&str; 7] = [
    "stack_name",
    "stack_status",
    "stack_action",
    "stack_status_reason",
    "stack_owner",
    "parent",
    "stack_user_project_id",
];

pub fn list(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let flag = |name: &str| boolean_parameter(context, name, ".").map(|it| it.unwrap_or(false));
    let request = context.request;
    let limit = request
        .parameter("limit")
        .map(|text| limit(text, "limit"))
        .transpose()?;
    let counted = flag("with_count")?;
    let (deleted, nested) = (flag("show_deleted")?, flag("show_nested")?);
    flag("show_hidden")?;
    if flag("global_tenant")? {
        return Err(forbidden("stacks:global_index"));
    }
    let sort = direction(context)?;
    let keys: Vec<&str> = context
        .all("sort_keys")
        .into_iter()
        .filter(|key| {
            [
                "stack_name",
                "stack_status",
                "creation_time",
                "updated_time",
            ]
            .contains(key)
        })
        .collect();
    // Any sort key reverses the order (observed).
    let ascending = sort.map_or(!keys.is_empty(), |descending| !descending);

    let asked: Vec<(&str, Vec<&str>)> = COLUMNS
        .into_iter()
        .chain(SYNONYMS)
        .map(|name| (name, context.all(name)))
        .filter(|(_, wanted)| !wanted.is_empty())
        .collect();
    let visible = |stack: &&Stack| {
        stack.project == context.project
            && (deleted || !stack.deleted)
            && (nested || !stack.is_nested())
            && tagged(stack, context)
    };
    let plain = |stack: &Stack, (name, wanted): &(&str, Vec<&str>)| {
        wanted.contains(&column(heat, stack, name))
    };
    let of_filter = |stack: &Stack, filter: &(&str, Vec<&str>)| match filter.0 {
        "status" | "stack_status" => filter.1.iter().any(|wanted| {
            wanted == &stack.status
                || wanted
                    .strip_prefix(stack.action)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .is_some_and(|status| status == stack.status)
        }),
        _ => plain(stack, filter),
    };
    let count = match counted {
        false => None,
        true if asked.iter().any(|(name, _)| SYNONYMS.contains(name)) => {
            return Err(remote_error());
        }
        true => {
            let found = heat.stacks.all().filter(visible);
            Some(
                found
                    .filter(|stack| asked.iter().all(|filter| plain(stack, filter)))
                    .count(),
            )
        }
    };
    let mut found: Vec<&Stack> = heat
        .stacks
        .all()
        .filter(visible)
        .filter(|stack| asked.iter().all(|filter| of_filter(stack, filter)))
        .collect();
    // Stacks are sorted oldest first; a stable sort keeps that order among equals.
    for key in keys.iter().rev() {
        found.sort_by(|a, b| match *key {
            "stack_name" => a.name.cmp(&b.name),
            "stack_status" => a.status.cmp(b.status),
            "updated_time" => a.updated.cmp(&b.updated),
            _ => a.created.cmp(&b.created),
        });
    }
    if !ascending {
        found.reverse();
    }
    if let Some(marker) = request.parameter("marker")
        && let Some(at) = found.iter().position(|stack| stack.id == marker)
    {
        found.drain(..=at);
    }
    found.truncate(limit.unwrap_or(usize::MAX));
    let shown: Vec<Value> = found
        .iter()
        .map(|stack| stack.summary(heat, context.base))
        .collect();
    let mut response = json!({"stacks": shown});
    if limit.is_some_and(|limit| limit == found.len())
        && let Some(last) = found.last()
    {
        response["links"] = json!([{"rel": "next", "href": next(context, &last.id)}]);
    }
    if let Some(count) = count {
        response["count"] = json!(count);
    }
    Ok(Response::ok(response))
}

/// Builds the query of the next page.
fn next(context: &Context, marker: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let mut marked = false;
    for (name, value) in &context.request.query {
        match name.as_str() {
            "marker" => {
                query.append_pair(name, marker);
                marked = true;
            }
            _ => {
                query.append_pair(name, value);
            }
        }
    }
    if !marked {
        query.append_pair("marker", marker);
    }
    let query = query.finish();
    format!("{}/v1/{}/stacks?{query}", context.base, context.project)
}

/// Returns whether the four tag filters match a stack.
fn tagged(stack: &Stack, context: &Context) -> bool {
    let asked = |name: &str| {
        let text = context.request.parameter(name)?;
        Some(text.split(',').map(str::to_owned).collect::<Vec<String>>())
    };
    let all = |tags: &[String]| tags.iter().all(|tag| stack.tags.contains(tag));
    let any = |tags: &[String]| tags.iter().any(|tag| stack.tags.contains(tag));
    asked("tags").is_none_or(|tags| all(&tags))
        && asked("tags_any").is_none_or(|tags| any(&tags))
        && asked("not_tags").is_none_or(|tags| !all(&tags))
        && asked("not_tags_any").is_none_or(|tags| !any(&tags))
}

/// Returns all stacks, ignoring every parameter.
pub fn detail(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let shown: Vec<Value> = heat
        .stacks
        .all()
        .rev()
        .filter(|stack| stack.project == context.project && !stack.deleted && !stack.is_nested())
        .map(|stack| stack.summary(heat, context.base))
        .collect();
    Ok(Response::ok(json!({"stacks": shown})))
}
