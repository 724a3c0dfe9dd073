//! Service groups, tags, the user and the version (V12 2.10 to 2.12).

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::access::Role;
use super::errors::ApiError;
use super::list::{self, Kind, ListSchema, csv};
use super::preload::{SERVICE_GROUPS, TAG_GROUPS};
use super::{
    Call, HandlerResult, Jp1ao, Jp1aoVersion, histories, id, no_function, ok, services, tasks,
    templates,
};

const SERVICE_GROUP: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("objectID", Kind::Text),
        ("name", Kind::Text),
        ("description", Kind::Text),
    ],
    searched: &[],
    equal: &[],
};

const TAG_GROUP: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("name", Kind::Text),
        ("tags", Kind::Other),
    ],
    searched: &[],
    equal: &[],
};

const TAG: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("name", Kind::Text),
        ("tagGroupID", Kind::Long),
        ("tagGroupName", Kind::Text),
    ],
    searched: &[],
    equal: &[],
};

/// Describes the user. The V12 example spells `instanceID` here, its schema
/// `instanceId`.
pub fn user(call: &Call<'_>) -> HandlerResult {
    get(call)?;
    let words: &[&str] = match call.user.role {
        Role::Submit => &["View", "Execute"],
        Role::Modify => &["View", "Execute", "Modify"],
        Role::Develop => &["View", "Execute", "Develop", "Modify"],
        Role::Admin => &["View", "Execute", "Develop", "Modify", "Admin"],
    };
    let group = |object: &str, name: &str| {
        let id = match call.options.schema_envelope {
            true => "instanceId",
            false => "instanceID",
        };
        json!({id: object, "name": name, "description": "", "accessPermission": words})
    };
    let groups: Vec<Value> = match call.user.sees_all() {
        true => vec![group("Automation_RG_ALL", "All Service Groups")],
        false => SERVICE_GROUPS
            .iter()
            .filter(|one| call.user.sees(one.id))
            .map(|one| group(one.object, one.name))
            .collect(),
    };
    let manages: &[&str] = if call.user.role == Role::Admin {
        &["User Management"]
    } else {
        &[]
    };
    let mut shown = json!({
        "userName": call.user.name,
        "fullName": call.user.full_name,
        "description": "",
        "email": "",
        "accessPermission": manages,
        "resourceGroup": groups,
    });
    if call.options.version == Jp1aoVersion::V10
        && let Some(members) = shown.as_object_mut()
    {
        members.retain(|name, _| !["fullName", "description", "email"].contains(&name.as_str()));
    }
    Ok(ok(&shown))
}

/// The manual of version 12 still prints the version of 11.
pub fn version(call: &Call<'_>) -> HandlerResult {
    get(call)?;
    let (product, api) = match call.options.version {
        Jp1aoVersion::V10 => ("10-50-00", "01.00.00"),
        Jp1aoVersion::V11 | Jp1aoVersion::V12 => ("11-00-00", "01.01.00"),
    };
    Ok(ok(&json!({
        "productName": "JP1/Automatic Operation",
        "productVersion": product,
        "apiVersion": api,
    })))
}

fn get(call: &Call<'_>) -> Result<(), ApiError> {
    match call.request.method {
        Method::GET => call.reject_other_parameters(&[&["alt"]]),
        _ => Err(ApiError::Method),
    }
}

pub fn service_groups(call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    let mut seen = SERVICE_GROUPS
        .iter()
        .filter(|group| call.user.sees(group.id));
    let show = |group: &super::preload::ServiceGroup| json!({"instanceID": group.id, "objectID": group.object, "name": group.name, "description": group.description});
    match (&call.request.method, rest) {
        (&Method::GET, []) => list::handle(call, seen.map(show).collect(), &SERVICE_GROUP, &[]),
        (&Method::GET, [wanted, rest @ ..]) if rest.is_empty() || *rest == ["actions"] => {
            let wanted = id(wanted)?;
            let group = seen
                .find(|group| group.id == wanted)
                .ok_or(ApiError::Absent)?;
            match rest {
                [] => {
                    call.reject_other_parameters(&[&["alt"]])?;
                    Ok(ok(&show(group)))
                }
                _ => list::unpaged(call, Vec::new()),
            }
        }
        _ => Err(no_function(rest, &[])),
    }
}

pub fn tag_groups(call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let show = |(at, (name, tags)): (usize, &(&str, &[&str]))| json!({"instanceID": at + 1, "name": name, "tags": tags.join(",")});
            let groups = TAG_GROUPS.iter().enumerate().map(show).collect();
            list::handle(call, groups, &TAG_GROUP, &[])
        }
        (_, []) => Err(ApiError::Method),
        _ => Err(ApiError::NoFunction),
    }
}

/// Lists all tags, or those used by the matching resources of a type. `detail` adds
/// their group.
pub fn tags(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => {}
        (_, []) => return Err(ApiError::Method),
        _ => return Err(ApiError::NoFunction),
    }
    const OWN: &[&str] = &["detail", "resourceType"];
    let known = TAG_GROUPS
        .iter()
        .enumerate()
        .flat_map(|(group, (name, tags))| {
            tags.iter().map(move |tag| (*tag, Some((group + 1, *name))))
        });
    let show = |at: usize, tag: &str, group: Option<(usize, &str)>| {
        let mut shown = json!({"instanceID": at + 1, "name": tag});
        if call.request.has("detail") {
            shown["tagGroupID"] = group.map(|(id, _)| id).into();
            shown["tagGroupName"] = group.map(|(_, name)| name).into();
        }
        shown
    };
    let Some(resource) = call.request.parameter("resourceType") else {
        let all = known
            .enumerate()
            .map(|(at, (tag, group))| show(at, tag, group))
            .collect();
        return list::handle(call, all, &TAG, OWN);
    };
    let (items, shape) = match resource {
        "ServiceTemplate" => (templates::all(jp1ao, call), &templates::LIST_SCHEMA),
        "Service" => (services::all(jp1ao, call), &services::LIST_SCHEMA),
        "Task" => (tasks::all(jp1ao, call), &tasks::LIST_SCHEMA),
        "TaskHistory" => (histories::all(jp1ao, call), &histories::LIST_SCHEMA),
        _ => return Err(ApiError::Query("resourceType".to_owned())),
    };
    let found = list::matching(call, items, shape, OWN)?;
    let used: BTreeSet<&str> = found
        .iter()
        .filter_map(|item| item["tags"].as_str())
        .flat_map(csv)
        .collect();
    let group = |tag: &str| {
        known
            .clone()
            .find(|(known, _)| *known == tag)
            .and_then(|(_, group)| group)
    };
    let data: Vec<Value> = used
        .iter()
        .enumerate()
        .map(|(at, tag)| show(at, tag, group(tag)))
        .collect();
    let count = data.len();
    Ok(ok(&json!({"data": data, "count": count})))
}
