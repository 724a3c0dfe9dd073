//! Recorded exchanges replayed: the gateway sends that request and gives back
//! that response; an error exchange gives the code and details a caller wants.

use prost_reflect::{Kind, MethodDescriptor};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::compare::{self, differences, rest_names};
use crate::support::recorder::Answer;
use crate::support::{Gateway, Recorder, json_file, upstream};

/// The request of these Heat exchanges cannot be said in gRPC, or not exactly;
/// their response is replayed all the same.
const REQUEST_NOT_SAID: &[(&str, &str)] = &[
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
];

/// No operation has this method and path: there is nothing to replay.
const NO_OPERATION: &[&str] = &[
    "software_configs.collection.method_not_allowed",
    "software_configs.update.method_not_allowed",
    "software_deployments.metadata.no_server",
    "software_deployments.update.patch_not_allowed",
    "software_deployments.update.post_not_allowed",
];

fn heat_rpc(method: &str, path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
    Some(match (method, segments.as_slice()) {
        ("GET", ["software_configs"]) => "SoftwareConfigService/ListSoftwareConfigs",
        ("POST", ["software_configs"]) => "SoftwareConfigService/CreateSoftwareConfig",
        ("GET", ["software_configs", _]) => "SoftwareConfigService/GetSoftwareConfig",
        ("DELETE", ["software_configs", _]) => "SoftwareConfigService/DeleteSoftwareConfig",
        ("GET", ["software_deployments"]) => "SoftwareDeploymentService/ListSoftwareDeployments",
        ("POST", ["software_deployments"]) => "SoftwareDeploymentService/CreateSoftwareDeployment",
        ("GET", ["software_deployments", "metadata"]) => return None,
        ("GET", ["software_deployments", _]) => "SoftwareDeploymentService/GetSoftwareDeployment",
        ("PUT", ["software_deployments", _]) => {
            "SoftwareDeploymentService/UpdateSoftwareDeployment"
        }
        ("DELETE", ["software_deployments", _]) => {
            "SoftwareDeploymentService/DeleteSoftwareDeployment"
        }
        ("GET", ["software_deployments", "metadata", _]) => {
            "SoftwareDeploymentService/ListServerDeploymentMetadata"
        }
        _ => return None,
    })
}

/// Makes the request message of a REST request: path values by the template of
/// the rpc, query and body by name. Fails where a member has no field.
fn request_of(method: &MethodDescriptor, path: &str, body: &Value) -> Result<Value, String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut request = Map::new();
    let template = template(method);
    for (part, value) in template.split('/').zip(path.split('/')) {
        if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            request.insert(name.to_owned(), json!(value));
        }
    }
    let mut members: Vec<(String, Value)> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(k, v)| (k.into_owned(), Value::from(v)))
        .collect();
    match body {
        Value::Null => {}
        Value::Object(object) => members.extend(object.clone()),
        other => return Err(format!("the body {other} is no object")),
    }
    for (name, value) in members {
        let Some(field) = method
            .input()
            .fields()
            .find(|f| compare::rest_names(f)[0] == name && compare::rule(f, "raw_of").is_none())
        else {
            return Err(format!("no field {name}"));
        };
        let name = match field.kind() {
            Kind::Enum(_) => format!("{}_raw", field.name()),
            _ => field.name().to_owned(),
        };
        let value = match (field.kind(), &value) {
            (Kind::Bool, Value::String(text)) => json!(text == "true"),
            _ => to_proto(&field, value),
        };
        request.insert(name, value);
    }
    Ok(Value::Object(request))
}

/// REST names to proto names, all the way down typed messages.
fn to_proto(field: &prost_reflect::FieldDescriptor, value: Value) -> Value {
    let Kind::Message(message) = field.kind() else {
        return value;
    };
    if message.full_name().starts_with("google.protobuf.") || field.is_map() {
        return value;
    }
    match value {
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| to_proto(field, item))
                .collect(),
        ),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| {
                    match message
                        .fields()
                        .find(|f| rest_names(f)[0] == name && compare::rule(f, "raw_of").is_none())
                    {
                        Some(f) if matches!(f.kind(), Kind::Enum(_)) => {
                            (format!("{}_raw", f.name()), value)
                        }
                        Some(f) => (f.name().to_owned(), to_proto(&f, value)),
                        None => (name, value),
                    }
                })
                .collect(),
        ),
        other => other,
    }
}

fn template(method: &MethodDescriptor) -> String {
    let extension = method
        .parent_pool()
        .get_extension_by_name("google.api.http")
        .expect("annotations");
    let rule = method.options().get_extension(&extension).into_owned();
    let rule = rule.as_message().unwrap();
    ["get", "put", "post", "delete", "patch"]
        .iter()
        .filter_map(|verb| {
            Some(rule.get_field_by_name(verb)?.as_str()?.to_owned()).filter(|t| !t.is_empty())
        })
        .next()
        .unwrap()
}

/// A request for the rpc that binds, where the recorded one cannot be said.
fn stand_in(method: &MethodDescriptor, path: &str) -> Value {
    let mut request = request_of(method, path.split('?').next().unwrap(), &Value::Null).unwrap();
    for (name, value) in [
        ("config_id", "c"),
        ("server_id", "s"),
        ("action_raw", "CREATE"),
    ] {
        if method.input().get_field_by_name(name).is_some() && request.get(name).is_none() {
            request[name] = json!(value);
        }
    }
    request
}

#[tokio::test]
async fn heat() {
    let mut replayed = 0;
    let mut names: Vec<String> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/heat"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter_map(|n| n.strip_suffix(".json").map(str::to_owned))
            .filter(|n| n.starts_with("software_") || n.starts_with("auth.heat."))
            .collect();
    names.sort();
    for name in &names {
        let exchange = json_file(&format!("fixtures/heat/{name}.json"));
        let (request, response) = (&exchange["request"], &exchange["response"]);
        let (verb, path) = (
            request["method"].as_str().unwrap(),
            request["path"].as_str().unwrap(),
        );
        let bare = path.split('?').next().unwrap();
        let Some(rpc) = heat_rpc(verb, bare) else {
            let known = NO_OPERATION.contains(&name.as_str()) || !bare.contains("/software_");
            assert!(known, "{name}: no rpc for {verb} {path}");
            continue;
        };
        assert!(
            !NO_OPERATION.contains(&name.as_str()),
            "{name} has an operation now"
        );
        let mut answer = Answer::json(
            response["status"].as_u64().unwrap() as u16,
            &response["body"],
        );
        for (header, value) in response["headers"].as_object().unwrap() {
            if !["content-length", "content-type", "connection"]
                .contains(&header.to_lowercase().as_str())
            {
                answer = answer.with(&header.to_lowercase(), value.as_str().unwrap());
            }
        }
        let recorder = Recorder::fixed(answer).await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let method = gateway.client.method(rpc);
        let body = match &request["body"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or(request["body"].clone()),
            body => body.clone(),
        };
        let not_said = REQUEST_NOT_SAID.iter().find(|(n, _)| n == name);
        let message = match not_said {
            Some(_) => stand_in(&method, bare.trim_end_matches('/')),
            None => request_of(&method, path, &body).unwrap_or_else(|e| panic!("{name}: {e}")),
        };
        let result = gateway.client.call_with(rpc, message, &[]).await;
        let seen = recorder.seen();
        assert_eq!(seen.len(), 1, "{name}: sent once: {result:?}");
        if not_said.is_none() {
            assert_eq!(
                (seen[0].method.as_str(), seen[0].path()),
                (verb, bare),
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
                    response["status"].as_u64().unwrap() < 300,
                    "{name}: OK for an error"
                );
                let found = differences(got.get_ref(), &response["body"]);
                assert_eq!(found, Vec::<String>::new(), "{name}");
                let got_id = got
                    .metadata()
                    .get("x-openstack-request-id")
                    .map(|v| v.to_str().unwrap());
                assert_eq!(got_id, request_id, "{name}");
            }
            Err(status) => heat_error(name, response, &status),
        }
        gateway.running.stop().await.unwrap();
        replayed += 1;
    }
    assert!(replayed >= 80, "only {replayed} exchanges replayed");
}

/// The code and details that an error exchange must give.
fn heat_error(name: &str, response: &Value, status: &Status) {
    let http = response["status"].as_u64().unwrap();
    let kind = response["body"]["error"]["type"]
        .as_str()
        .unwrap_or_default();
    let want = match (http, kind) {
        (401, _) => Code::Unauthenticated,
        (403, _) => Code::PermissionDenied,
        (404, "NotFound") => Code::NotFound,
        (404, "") => Code::NotFound,
        (400, "RequestLimitExceeded") => Code::ResourceExhausted,
        (400, _) => Code::InvalidArgument,
        (500, "InvalidRestrictedAction") => Code::FailedPrecondition,
        (500, "RemoteError") => Code::Internal,
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
        assert!(
            status.message().contains(message),
            "{name}: {}",
            status.message()
        );
    }
    if let Some(id) = response["headers"]["X-Openstack-Request-Id"].as_str() {
        assert_eq!(details.request_info().unwrap().request_id, id, "{name}");
    }
    assert!(!format!("{status:?}").contains("traceback"), "{name}");
}
