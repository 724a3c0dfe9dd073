//! Lane groups and their lanes. Source: docs/apis/servicestage.md, "LaneGroupService
//! and LaneService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Type, Member, Object, fill, member, optional, required, text, texts};
use super::errors::{invalid, resource_not_found, unknown_action, unknown_api};
use super::{Call, Project};
use crate::message::Response;

const GATEWAY: &[Member] = &[
    required("engine_id", Type::Text(64)),
    required("id", Type::Text(64)),
    optional("name", Type::Text(64)),
    optional(
        "target_services",
        Type::List(&[required("host", Type::Text(256))]),
    ),
];
const GROUP: &[Member] = &[
    required("name", Type::Text(64)),
    optional("gateways", Type::List(GATEWAY)),
    optional("description", Type::Text(128)),
];
const RULE: &[Member] = &[
    required("type", Type::OneOf(&["HEADER"])),
    optional("key", Type::Text(256)),
    optional("value", Type::Text(256)),
    optional("condition", Type::OneOf(&["EXACT", "PREFIX", "REGEX"])),
];
const ROUTE: &[Member] = &[
    optional("gray_release_type", Type::OneOf(&["WEIGHT", "CONTENT"])),
    optional(
        "swimlanes",
        Type::List(&[
            required("id", Type::Text(64)),
            optional("rule_match_mode", Type::OneOf(&["ALL", "ANY"])),
            optional("rules", Type::List(RULE)),
            optional("weight", Type::Integer),
        ]),
    ),
];
const VIEW: &[Member] = &[required("swimlanes", Type::Texts)];
const LANES_ACTION: &[Member] = &[
    required("action", Type::Text(64)),
    required("swimlanes", Type::Texts),
];
const LANE: &[Member] = &[
    required("name", Type::Text(64)),
    required("tag", Type::Text(64)),
    required("type", Type::OneOf(&["BASE", "GRAY"])),
];
/// Which members can be changed is not fully established.
const UPDATE_LANE_BODY: &[Member] = &[
    optional("name", Type::Text(64)),
    optional("tag", Type::Text(64)),
];
const LANE_ACTION: &[Member] = &[required("route_status", Type::Text(64))];
const INSTANCES: &[Member] = &[
    required("action", Type::Text(64)),
    required("instance_ids", Type::Texts),
];

/// Maximum number of instances of a lane; the sandbox's own limit.
const MAX_INSTANCES: usize = 1000;

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    match rest {
        ["swimlane"] => by_engine(call, state),
        ["swimlane-group", id, "swimlane", rest @ ..] => {
            state.lane_groups.get(id).ok_or_else(resource_not_found)?;
            lanes(call, state, id, rest)
        }
        ["swimlane-group", rest @ ..] => groups(call, state, rest),
        _ => Err(unknown_api()),
    }
}

fn groups(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    let done = || Ok(Response::empty(StatusCode::OK));
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(GROUP)?;
            fill(
                &mut body,
                json!({"gateways": [], "description": "", "gray_release_type": "CONTENT"}),
            );
            call.stamp(&mut body);
            let response = Response::ok(view(state, &body));
            state.lane_groups.add(body)?;
            Ok(response)
        }
        (&Method::GET, []) => {
            let mut views: Vec<Value> = (state.lane_groups.iter())
                .map(|group| {
                    let mut view = view(state, group);
                    view["gateway_engine_ids"] = view["engine_ids"].clone();
                    view
                })
                .collect();
            views.reverse();
            // The only camelCase key of these responses.
            Ok(Response::ok(
                json!({"count": views.len(), "swimlaneGroups": views}),
            ))
        }
        (&Method::GET, ["target-services"]) => {
            let gateway = call.request.parameter("gateway_id");
            let groups = state.lane_groups.iter();
            let services: Vec<Value> = groups
                .flat_map(|group| target_services(group, gateway))
                .collect();
            Ok(Response::ok(json!({"target_services": services})))
        }
        (&Method::GET, [id]) => {
            let group = state.lane_groups.get(id).ok_or_else(resource_not_found)?;
            let mut view = view(state, group);
            view["swimlanes"] = json!(of_group(state, id).map(lane_view).collect::<Vec<_>>());
            Ok(Response::ok(view))
        }
        (&Method::PUT, [id]) => {
            let group = state
                .lane_groups
                .get_mut(id)
                .ok_or_else(resource_not_found)?;
            call.merge_body(group, call.body(GROUP)?);
            let group = group.clone();
            Ok(Response::ok(view(state, &group)))
        }
        (&Method::DELETE, [id]) => {
            state
                .lane_groups
                .remove(id)
                .ok_or_else(resource_not_found)?;
            state
                .lanes
                .retain(|lane| text(lane, "swimlane_group_id") != *id);
            done()
        }
        (&Method::PUT, [id, "route"]) => route(call, state, id),
        (&Method::GET, [id, "view"]) => {
            let group = state.lane_groups.get(id).ok_or_else(resource_not_found)?;
            // All lanes if no view is set.
            let shown = match group.get("view") {
                Some(shown) => shown.clone(),
                None => json!(
                    of_group(state, id)
                        .map(|l| member(l, "id"))
                        .collect::<Vec<_>>()
                ),
            };
            Ok(Response::ok(json!({"swimlanes": shown})))
        }
        (&Method::PUT, [id, "view"]) => {
            let body = call.body(VIEW)?;
            let lanes = texts(&body, "swimlanes");
            check_lanes_in_group(state, id, &lanes)?;
            let group = state
                .lane_groups
                .get_mut(id)
                .ok_or_else(resource_not_found)?;
            group.insert("view".into(), json!(lanes));
            Ok(Response::ok(json!({"swimlanes": lanes})))
        }
        (&Method::POST, [id, "swimlanes-action"]) => {
            state.lane_groups.get(id).ok_or_else(resource_not_found)?;
            let body = call.body(LANES_ACTION)?;
            let lanes = texts(&body, "swimlanes");
            check_lanes_in_group(state, id, &lanes)?;
            let handle_application = |lane: &Object| lanes.iter().any(|id| id == text(lane, "id"));
            match text(&body, "action") {
                "DELETE" => state.lanes.retain(|lane| !handle_application(lane)),
                status @ ("ENABLE" | "DISABLED") => {
                    for lane in state
                        .lanes
                        .iter_mut()
                        .filter(|lane| handle_application(lane))
                    {
                        lane.insert("route_status".into(), json!(status));
                    }
                }
                _ => return Err(unknown_action()),
            }
            done()
        }
        _ => Err(unknown_api()),
    }
}

/// Sets the routing rules of a lane group.
fn route(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Response, Response> {
    state.lane_groups.get(id).ok_or_else(resource_not_found)?;
    let mut body = call.body(ROUTE)?;
    let routes = body.remove("swimlanes").unwrap_or_default();
    let routes: Vec<&Object> = (routes.as_array().into_iter().flatten())
        .filter_map(Value::as_object)
        .collect();
    let ids: Vec<String> = routes
        .iter()
        .map(|route| text(route, "id").to_owned())
        .collect();
    check_lanes_in_group(state, id, &ids)?;
    if routes.iter().any(|route| {
        let weight = route.get("weight").and_then(Value::as_i64);
        weight.is_some_and(|weight| !(0..=100).contains(&weight))
    }) {
        return Err(invalid("weight must be from 0 to 100."));
    }
    for route in routes {
        if let Some(lane) = state.lanes.get_mut(text(route, "id")) {
            let members = ["rule_match_mode", "rules", "weight"];
            let known = members.iter().filter_map(|name| {
                let value = route.get(*name)?.clone();
                Some(((*name).to_owned(), value))
            });
            call.merge_body(lane, known.collect());
        }
    }
    let group = state
        .lane_groups
        .get_mut(id)
        .ok_or_else(resource_not_found)?;
    call.merge_body(group, body);
    let group = group.clone();
    Ok(Response::ok(view(state, &group)))
}

/// Handles the lanes of an existing group.
fn lanes(
    call: &Call<'_>,
    state: &mut Project,
    group: &str,
    rest: &[&str],
) -> Result<Response, Response> {
    if let [id, ..] = rest {
        check_lanes_in_group(state, group, &[(*id).to_owned()])?;
    }
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(LANE)?;
            let kind = text(&body, "type");
            let is_first = of_group(state, group).next().is_none();
            if is_first != (kind == "BASE") {
                return Err(invalid("The first lane must be BASE, all later ones GRAY."));
            }
            let defaults = json!({
                "swimlane_group_id": group,
                "route_status": if is_first { "ENABLE" } else { "DISABLED" },
                "rule_match_mode": "ALL",
                "rules": [],
                "weight": if is_first { 100 } else { 0 },
                "instances": [],
            });
            fill(&mut body, defaults);
            call.stamp(&mut body);
            let response = Response::ok(lane_view(&body));
            state.lanes.add(body)?;
            Ok(response)
        }
        (&Method::GET, []) => {
            let views: Vec<Value> = of_group(state, group).map(lane_view).collect();
            let count = views.len();
            Ok(Response::ok(json!({"swimlanes": views, "count": count})))
        }
        (&Method::DELETE, [id]) => {
            state.lanes.remove(id).ok_or_else(resource_not_found)?;
            Ok(Response::empty(StatusCode::OK))
        }
        (method, [id, rest @ ..]) => {
            let lane = state.lanes.get_mut(id).ok_or_else(resource_not_found)?;
            match (method, rest) {
                (&Method::GET, []) => {}
                (&Method::PUT, []) => {
                    let body = call.body(UPDATE_LANE_BODY)?;
                    call.merge_body(lane, body);
                }
                (&Method::POST, ["action"]) => {
                    let body = call.body(LANE_ACTION)?;
                    if !matches!(text(&body, "route_status"), "ENABLE" | "DISABLED") {
                        return Err(unknown_action());
                    }
                    call.merge_body(lane, body);
                }
                (&Method::POST, ["components-action"]) | (&Method::PUT, ["instances"]) => {
                    instances(call, lane, ["ADD", "REMOVE"])?;
                }
                // Lower case here.
                (&Method::PUT, ["component-instances"]) => {
                    instances(call, lane, ["add", "delete"])?;
                }
                _ => return Err(unknown_api()),
            }
            Ok(Response::ok(lane_view(lane)))
        }
        _ => Err(unknown_api()),
    }
}

/// Adds instances to a lane or removes them.
fn instances(call: &Call<'_>, lane: &mut Object, [add, remove]: [&str; 2]) -> Result<(), Response> {
    let body = call.body(INSTANCES)?;
    let ids = texts(&body, "instance_ids");
    let mut all = member(lane, "instances")
        .as_array()
        .cloned()
        .unwrap_or_default();
    let named = |instance: &Value, id: &String| instance["instance_id"] == **id;
    match text(&body, "action") {
        action if action == add => {
            for id in &ids {
                if !all.iter().any(|instance| named(instance, id)) {
                    all.push(json!({"instance_id": id}));
                }
            }
        }
        action if action == remove => {
            all.retain(|instance| !ids.iter().any(|id| named(instance, id)));
        }
        _ => return Err(unknown_action()),
    }
    if all.len() > MAX_INSTANCES {
        return Err(invalid("There are too many instances."));
    }
    call.merge_body(
        lane,
        Object::from_iter([("instances".to_owned(), json!(all))]),
    );
    Ok(())
}

/// Lists the lanes of all groups with a gateway of the engine.
fn by_engine(call: &Call<'_>, state: &Project) -> Result<Response, Response> {
    if call.method() != Method::GET {
        return Err(unknown_api());
    }
    let engine = call.request.parameter("engine_id");
    let engine = engine.ok_or_else(|| invalid("engine_id is missing."))?;
    let mut views = Vec::new();
    for group in state.lane_groups.iter() {
        if !engine_ids(group).iter().any(|id| id == engine) {
            continue;
        }
        for lane in of_group(state, text(group, "id")) {
            let mut view = lane_view(lane);
            view["swimlane_group"] = json!({
                "id": member(group, "id"),
                "name": member(group, "name"),
                "gray_release_type": member(group, "gray_release_type"),
                "routeInGroupTags": [],
            });
            views.push(view);
        }
    }
    Ok(Response::ok(
        json!({"count": views.len(), "swimlanes": views}),
    ))
}

fn of_group<'a>(state: &'a Project, group: &str) -> impl Iterator<Item = &'a Object> {
    let group = group.to_owned();
    let lanes = state.lanes.iter();
    lanes.filter(move |lane| text(lane, "swimlane_group_id") == group)
}

/// Fails if one of the ids is not a lane of the group.
fn check_lanes_in_group(state: &Project, group: &str, lanes: &[String]) -> Result<(), Response> {
    let handle_application =
        |id: &String| of_group(state, group).any(|lane| text(lane, "id") == id);
    match lanes.iter().all(handle_application) {
        true => Ok(()),
        false => Err(resource_not_found()),
    }
}

fn gateways(group: &Object) -> impl Iterator<Item = &Value> {
    let list = member(group, "gateways").as_array();
    list.into_iter().flatten()
}

fn engine_ids(group: &Object) -> Vec<String> {
    let mut ids: Vec<String> = gateways(group)
        .filter_map(|gateway| gateway["engine_id"].as_str())
        .map(str::to_owned)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns the services behind the group's gateways, or behind one of them.
fn target_services(group: &Object, gateway: Option<&str>) -> Vec<Value> {
    gateways(group)
        .filter(|of| gateway.is_none_or(|id| of["id"] == id))
        .flat_map(|of| of["target_services"].as_array().into_iter().flatten())
        .cloned()
        .collect()
}

fn view(state: &Project, group: &Object) -> Value {
    let mut view = group.clone();
    view.remove("view");
    let count = of_group(state, text(group, "id")).count();
    view.insert("engine_ids".into(), json!(engine_ids(group)));
    view.insert("swimlane_count".into(), json!(count));
    view.insert(
        "target_services".into(),
        json!(target_services(group, None)),
    );
    Value::Object(with_text_times(view))
}

fn lane_view(lane: &Object) -> Value {
    let mut view = lane.clone();
    let count = member(lane, "instances").as_array().map_or(0, Vec::len);
    view.insert("instance_count".into(), json!(count));
    Value::Object(with_text_times(view))
}

/// Formats the times as text, as in lane groups and lanes.
fn with_text_times(mut view: Object) -> Object {
    for name in ["create_time", "update_time"] {
        if let Some(time) = view.get(name).and_then(Value::as_i64) {
            view.insert(name.to_owned(), json!(time.to_string()));
        }
    }
    view
}
