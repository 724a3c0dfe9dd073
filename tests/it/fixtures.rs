//! Replays recorded exchanges: the gateway sends the same request and returns the same
//! response; an error exchange gives its gRPC code and details.

use std::sync::{Arc, Mutex};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::compare::{self, differences};
use crate::support::recorder::Answer;
use crate::support::{Gateway, Recorder, json_file, upstream};

/// Heat exchanges whose request the gateway rejects with INVALID_ARGUMENT, as Heat does with
/// HTTP 400. Nothing is sent.
const REJECTED_REQUESTS: &[(&str, &str)] = &[(
    "software_configs.list.limit_negative",
    "a negative page size is rejected before sending",
)];

/// Heat exchanges whose request cannot be expressed in gRPC, or not exactly. Their response is
/// replayed anyway.
const INEXPRESSIBLE_REQUESTS: &[(&str, &str)] = &[
    (
        "software_configs.create.inputs_not_list",
        "inputs are a list",
    ),
    (
        "software_configs.create.input_without_name",
        "a required name is checked before sending",
    ),
    (
        "software_configs.create.malformed_json",
        "no malformed JSON is ever sent",
    ),
    (
        "software_configs.create.no_body",
        "the body is never missing",
    ),
    (
        "software_configs.create.no_content_type",
        "the type is always sent",
    ),
    (
        "software_configs.create.null_fields",
        "null is said by leaving out",
    ),
    (
        "software_configs.create.oversize",
        "the recording describes its body in words",
    ),
    ("software_configs.list.limit_bad", "the limit is a number"),
    ("software_configs.list.unknown_param", "no such field"),
    (
        "software_configs.show.trailing_slash",
        "no path ends in a slash",
    ),
    ("software_deployments.create.duplicate_id", "no such field"),
    (
        "software_deployments.create.given_deployment_id",
        "no such field",
    ),
    (
        "software_deployments.create.output_values",
        "not a field of create: Heat ignores it",
    ),
    (
        "software_deployments.create.status_number",
        "a status is text",
    ),
    ("software_deployments.create.unknown_field", "no such field"),
    (
        "software_deployments.create.not_an_object",
        "a body is an object",
    ),
    (
        "software_deployments.create.no_server",
        "a required field is checked before sending",
    ),
    (
        "software_deployments.create.empty_object",
        "a required field is checked before sending",
    ),
    ("software_deployments.list.unknown_param", "no such field"),
    (
        "software_deployments.update.malformed_json",
        "no malformed JSON is ever sent",
    ),
    (
        "software_deployments.update.no_body",
        "the body is never missing",
    ),
    (
        "software_deployments.update.server_id_ignored",
        "no such field",
    ),
    (
        "software_deployments.update.status_null",
        "null is said by leaving out",
    ),
    ("software_deployments.update.unknown_field", "no such field"),
    ("software_deployments.update.updated_at", "no such field"),
    (
        "software_deployments.update.updated_at_bad",
        "no such field",
    ),
    ("events.list.limit_bad", "the limit is a number"),
    ("events.list.sort_bad", "a direction is one of two"),
    ("resource_types.template.bad_type", "a type is one of two"),
    ("resources.list.nested_depth_bad", "the depth is a number"),
    (
        "resources.mark_unhealthy.missing",
        "a required field is checked before sending",
    ),
    (
        "resources.signal.malformed_json",
        "no malformed JSON is ever sent",
    ),
    ("stacks.actions.none", "each action is an rpc"),
    ("stacks.actions.two", "each action is an rpc"),
    ("stacks.actions.unknown", "each action is an rpc"),
    ("stacks.create.bad_disable_rollback", "it is true or false"),
    ("stacks.create.bad_timeout", "the timeout is a number"),
    (
        "stacks.create.malformed_json",
        "no malformed JSON is ever sent",
    ),
    ("stacks.create.no_body", "the body is never missing"),
    ("stacks.create.not_an_object", "a body is an object"),
    ("stacks.detail.ok", "no such field: Heat ignores it"),
    ("stacks.list.filter_stack_status", "no such field"),
    ("stacks.list.filter_unknown", "no such field"),
    ("stacks.list.limit_bad", "the limit is a number"),
    (
        "stacks.update.malformed_json",
        "no malformed JSON is ever sent",
    ),
    ("validate.malformed_json", "no malformed JSON is ever sent"),
];

/// Exchanges whose method and path belong to no operation.
const NO_OPERATION: &[&str] = &[
    "healthcheck.ok",
    "routes.unknown",
    "software_configs.collection.method_not_allowed",
    "software_configs.update.method_not_allowed",
    "software_deployments.metadata.no_server",
    "software_deployments.update.patch_not_allowed",
    "software_deployments.update.post_not_allowed",
    // Redirects that the gateway does not follow.
    "stacks.lookup.by_name.subpath",
    "stacks.lookup.by_name.template",
    "stacks.lookup.delete_by_name",
    "stacks.lookup.post_by_name",
    "versions.v1",
];

/// Finds the rpc of a REST request by verb and path, and by the body where several rpcs share
/// them.
fn rpc_of(gateway: &Gateway, verb: &str, path: &str, body: &Value) -> Option<MethodDescriptor> {
    let package = "openstack.orchestration.v1";
    let mut found: Vec<MethodDescriptor> = gateway
        .client
        .methods(package)
        .into_iter()
        .filter(|m| !m.is_server_streaming() && http_rule(m).0.eq_ignore_ascii_case(verb))
        .filter(|m| values(&http_rule(m).1, path).is_some())
        .collect();
    let has = |name: &str| body.get(name).is_some();
    if path.ends_with("/actions") {
        let constant = |m: &MethodDescriptor| {
            compare::method_rule(m, "constant_body")
                .and_then(|v| serde_json::from_str::<Value>(v.as_str().unwrap()).ok())
        };
        let same = found.iter().find(|m| constant(m).as_ref() == Some(body));
        return same.or(found.first()).cloned();
    }
    found.retain(|m| (m.name() == "AdoptStack") == has("adopt_stack_data"));
    // Literal segments have precedence over variables.
    found.sort_by_key(|m| http_rule(m).1.matches('{').count());
    found.into_iter().next()
}

/// Returns the decoded path values by a template; `None` where it does not match.
fn values(template: &str, path: &str) -> Option<Map<String, Value>> {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .unwrap()
            .into_owned()
    };
    let mut values = Map::new();
    let mut rest = path.split('/');
    for part in template.split('/') {
        let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
            if rest.next()? != part {
                return None;
            }
            continue;
        };
        if let Some(name) = name.strip_suffix("=**") {
            let all: Vec<&str> = rest.by_ref().collect();
            // One segment, except for the name of an ARN.
            if all.len() != 1 && !all.first().is_some_and(|first| first.starts_with("arn")) {
                return None;
            }
            values.insert(name.into(), decode(&all.join("/")).into());
        } else {
            values.insert(name.into(), decode(rest.next()?).into());
        }
    }
    rest.next().is_none().then_some(values)
}

/// Makes the request message of a REST request: path values by the template of
/// the rpc, query and body by name. Fails where a member has no field.
fn request_of(method: &MethodDescriptor, path: &str, body: &Value) -> Result<Value, String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (_, template, body_field, _) = http_rule(method);
    let mut request = values(&template, path).ok_or("the path does not fit")?;
    let mut members: Vec<(String, Value)> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(k, v)| (k.into_owned(), Value::from(v)))
        .collect();
    match body {
        Value::Null => {}
        _ if compare::method_rule(method, "constant_body").is_some() => {}
        _ if !matches!(&*body_field, "" | "*") => {
            request.insert(body_field, body.clone());
        }
        Value::Object(object) => members.extend(object.clone()),
        other => return Err(format!("the body {other} is no object")),
    }
    for (name, value) in members {
        let (name, value) = member(&method.input(), &name, value)?;
        request.insert(name, value);
    }
    Ok(Value::Object(request))
}

/// Converts a REST member to a member of the message in proto3 JSON.
fn member(
    message: &MessageDescriptor,
    name: &str,
    value: Value,
) -> Result<(String, Value), String> {
    let is_json = |f: &FieldDescriptor| matches!(f.kind(), Kind::Message(_));
    let field = message
        .fields()
        .filter(|f| compare::rest_names(f)[0] == name && compare::rule(f, "raw_of").is_none())
        // Two fields of a oneof share the name: the type of the value decides.
        .min_by_key(|f| is_json(f) != value.is_object())
        .ok_or_else(|| format!("no field {name}"))?;
    let raw = format!("{}_raw", field.name());
    let (name, value) = match (field.kind(), value) {
        (Kind::Enum(_), value) if message.get_field_by_name(&raw).is_some() => (raw, value),
        (Kind::Enum(all), value) => {
            let text = value.as_str().unwrap_or_default().to_uppercase();
            let found = all
                .values()
                .find(|v| v.name().ends_with(&format!("_{text}")));
            let found = found.ok_or_else(|| format!("{value} is no {}", all.name()))?;
            (field.name().to_owned(), found.name().into())
        }
        (Kind::Bool, Value::String(text)) => {
            let value = text.parse::<bool>().map_err(|e| format!("{name}: {e}"))?;
            (field.name().to_owned(), value.into())
        }
        (Kind::String, Value::String(text)) if field.is_list() => {
            let list: Vec<&str> = match compare::rule(&field, "form") {
                Some(_) => text.split(',').collect(),
                None => vec![&text],
            };
            (field.name().to_owned(), json!(list))
        }
        (Kind::Message(below), value)
            if !field.is_map() && !below.full_name().starts_with("google.protobuf.") =>
        {
            let inner = |value: Value| match value {
                Value::Object(members) => members
                    .into_iter()
                    .map(|(name, value)| member(&below, &name, value))
                    .collect::<Result<Map<_, _>, _>>()
                    .map(Value::Object),
                other => Err(format!("{other} is no object")),
            };
            let value = match value {
                Value::Array(items) => {
                    Value::Array(items.into_iter().map(inner).collect::<Result<_, _>>()?)
                }
                value => inner(value)?,
            };
            (field.name().to_owned(), value)
        }
        (_, value) => (field.name().to_owned(), value),
    };
    Ok((name, value))
}

/// Returns verb, template, body and response body of the annotation.
fn http_rule(method: &MethodDescriptor) -> (String, String, String, String) {
    let extension = method
        .parent_pool()
        .get_extension_by_name("google.api.http")
        .expect("annotations");
    let rule = method.options().get_extension(&extension).into_owned();
    let rule = rule.as_message().unwrap();
    let text = |name: &str| {
        let field = rule.get_field_by_name(name);
        field
            .and_then(|f| Some(f.as_str()?.to_owned()))
            .unwrap_or_default()
    };
    let (verb, template) = ["get", "put", "post", "delete", "patch"]
        .iter()
        .map(|verb| (*verb, text(verb)))
        .find(|(_, template)| !template.is_empty())
        .unwrap();
    (verb.into(), template, text("body"), text("response_body"))
}

/// Makes a request that binds, instead of a recorded one that cannot be expressed.
fn minimal_request(method: &MethodDescriptor, path: &str) -> Value {
    let mut request = request_of(method, path, &Value::Null).unwrap();
    for (name, value) in [
        ("config_id", json!("c")),
        ("server_id", json!("s")),
        ("action_raw", json!("CREATE")),
        ("stack_name", json!("s")),
        ("mark_unhealthy", json!(true)),
    ] {
        if method.input().get_field_by_name(name).is_some() && request.get(name).is_none() {
            request[name] = value;
        }
    }
    request
}

/// Returns the body as the response message has it.
fn response_of(method: &MethodDescriptor, response: &Value) -> Value {
    let body = &response["body"];
    if let Some(location) = response["headers"]["Location"].as_str()
        && method.name() == "FindStack"
    {
        let end: Vec<&str> = location.rsplit('/').take(2).collect();
        return json!({"stack_name": end[1], "stack_id": end[0]});
    }
    let (_, _, _, response_body) = http_rule(method);
    if !response_body.is_empty() {
        return json!({response_body: body});
    }
    if method.output().fields().next().is_none() {
        // A text that confirms the call.
        return Value::Null;
    }
    body.clone()
}

#[tokio::test]
async fn heat() {
    let mut replayed = 0;
    let mut names: Vec<String> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/heat"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter_map(|n| n.strip_suffix(".json").map(str::to_owned))
            // Keystone's exchanges.
            .filter(|n| !n.starts_with("auth.tokens."))
            .collect();
    names.sort();
    // One gateway, and an upstream that responds as the current exchange.
    let answer = Arc::new(Mutex::new(Answer::json(500, &Value::Null)));
    let answering = answer.clone();
    let recorder = Recorder::start(move |_| answering.lock().unwrap().clone()).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    for name in &names {
        if NO_OPERATION.contains(&name.as_str()) {
            continue;
        }
        replay(name, &gateway, &recorder, &answer).await;
        replayed += 1;
    }
    assert!(replayed >= 200, "only {replayed} exchanges replayed");
    gateway.running.stop().await.unwrap();
}

async fn replay(name: &str, gateway: &Gateway, recorder: &Recorder, answer: &Mutex<Answer>) {
    let exchange = json_file(&format!("fixtures/heat/{name}.json"));
    let (request, response) = (&exchange["request"], &exchange["response"]);
    let verb = request["method"].as_str().unwrap();
    let path = request["path"].as_str().unwrap().trim_end_matches('/');
    let bare = path.split('?').next().unwrap();
    let body = match &request["body"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or(request["body"].clone()),
        body => body.clone(),
    };
    let mut body = body;
    if body["files"] == json!({}) {
        // An empty map is an absent one.
        body.as_object_mut().unwrap().remove("files");
    }
    let method = rpc_of(gateway, verb, bare, &body)
        .unwrap_or_else(|| panic!("{name}: no rpc for {verb} {path}"));
    let mut told = Answer::json(
        response["status"].as_u64().unwrap() as u16,
        &response["body"],
    );
    if response["body"].is_null() && response["status"] == 200 {
        told = Answer::text(200, "application/json", "null");
    }
    for (header, value) in response["headers"].as_object().unwrap() {
        let header = header.to_lowercase();
        if !["content-length", "content-type", "connection"].contains(&&*header) {
            told = told.with(&header, value.as_str().unwrap());
        }
    }
    *answer.lock().unwrap() = told;
    let not_said = INEXPRESSIBLE_REQUESTS.iter().find(|(n, _)| *n == name);
    let message = request_of(&method, path, &body);
    let message = match (not_said, message) {
        (Some(_), _) => minimal_request(&method, bare),
        (None, Ok(message)) => message,
        (None, Err(problem)) => panic!("{name}: {problem}"),
    };
    let rpc = format!("{}/{}", method.parent_service().name(), method.name());
    let result = gateway.client.call_with(&rpc, message, &[]).await;
    let seen = recorder.take();
    if REJECTED_REQUESTS.iter().any(|(n, _)| *n == name) {
        assert_eq!(response["status"], 400, "{name}");
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        assert!(seen.is_empty(), "{name}: sent {seen:?}");
        return;
    }
    assert_eq!(seen.len(), 1, "{name}: sent once: {result:?}");
    if not_said.is_none() {
        let plain = |path: &str| {
            let path = percent_encoding::percent_decode_str(path);
            path.decode_utf8().unwrap().into_owned()
        };
        assert_eq!(
            (&*seen[0].method, plain(seen[0].path())),
            (verb, plain(bare)),
            "{name}"
        );
        let query = path.split_once('?').map_or("", |(_, q)| q);
        let mut pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        pairs.sort();
        assert_eq!(seen[0].pairs(), pairs, "{name}");
        assert!(
            compare::same(&seen[0].json(), &body),
            "{name}: sent {} instead of {body}",
            seen[0].json()
        );
    }
    assert_eq!(seen[0].header("accept"), "application/json", "{name}");
    let request_id = response["headers"]["X-Openstack-Request-Id"].as_str();
    match result {
        Ok(got) => {
            assert!(
                response["status"].as_u64().unwrap() < 303,
                "{name}: OK for an error"
            );
            let found = differences(got.get_ref(), &response_of(&method, response));
            assert_eq!(found, Vec::<String>::new(), "{name}");
            let got_id = got
                .metadata()
                .get("x-openstack-request-id")
                .map(|v| v.to_str().unwrap());
            assert_eq!(got_id, request_id, "{name}");
        }
        Err(status) => heat_error(name, response, &status),
    }
}

/// The code and details that an error exchange must give.
fn heat_error(name: &str, response: &Value, status: &Status) {
    let http = response["status"].as_u64().unwrap();
    let kind = response["body"]["error"]["type"]
        .as_str()
        .unwrap_or_default();
    let want = match (http, kind) {
        // The gateway is configured without credentials.
        (401, _) => Code::FailedPrecondition,
        (403, _) => Code::PermissionDenied,
        (404, "NotFound" | "EntityNotFound" | "ResourceNotFound" | "HTTPNotFound" | "") => {
            Code::NotFound
        }
        (400, "RequestLimitExceeded") => Code::ResourceExhausted,
        // The server does not implement it; or not in this state.
        (400, "NotSupported") if name.ends_with(".disabled") => Code::Unimplemented,
        (400, "NotSupported") => Code::FailedPrecondition,
        (400, _) => Code::InvalidArgument,
        (409, "StackExists") => Code::AlreadyExists,
        (409, "ActionInProgress") => Code::Aborted,
        (500, "InvalidRestrictedAction") => Code::FailedPrecondition,
        (500, "RemoteError" | "KeyError") => Code::Internal,
        other => panic!("{name}: no code agreed for {other:?}"),
    };
    assert_eq!(status.code(), want, "{name}: {status:?}");
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("{name}: no ErrorInfo"));
    if !kind.is_empty() {
        assert_eq!(info.reason, kind, "{name}");
    }
    assert_eq!(info.domain, "heat", "{name}");
    assert_eq!(info.metadata["http_status"], http.to_string(), "{name}");
    if let Some(message) = response["body"]["error"]["message"].as_str() {
        // Line breaks are blanks in a status.
        let message = message.trim().replace('\n', " ");
        assert!(
            status.message().contains(&message),
            "{name}: {}",
            status.message()
        );
    }
    if let Some(id) = response["headers"]["X-Openstack-Request-Id"].as_str() {
        assert_eq!(details.request_info().unwrap().request_id, id, "{name}");
    }
    assert!(!format!("{status:?}").contains("traceback"), "{name}");
}
