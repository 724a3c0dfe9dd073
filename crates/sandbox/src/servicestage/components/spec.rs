//! Bodies that describe a component.

use serde_json::{Value, json};

use super::super::body::{
    Kind as Type, Member, Object, is_component_name_char, member, optional, required, text,
};
use super::super::errors::{bad_value, invalid};
use super::super::runtime_stacks;
use crate::message::Response;

const STACK: Type = Type::Object(&[
    required("name", Type::Text(64)),
    required("type", Type::Text(64)),
    // Another official client omits it.
    optional("version", Type::Text(64)),
    required("deploy_mode", Type::OneOf(&["container", "virtualmachine"])),
]);
const SOURCE: Type = Type::Object(&[
    required("kind", Type::OneOf(&["code", "package", "image"])),
    optional("url", Type::Text(2048)),
]);
const BUILD: Type = Type::Object(&[optional("parameters", Type::Object(&[]))]);
const STRATEGY: Type = Type::Object(&[
    required(
        "type",
        Type::OneOf(&["OneBatchRelease", "RollingRelease", "GrayRelease"]),
    ),
    optional(
        "rolling_release",
        Type::Object(&[required("batches", Type::Integer)]),
    ),
    optional("gray_release", Type::Object(&[])),
]);
const PROBE: Type = Type::Object(&[
    required("type", Type::OneOf(&["http", "tcp", "command"])),
    required("delay", Type::Integer),
    required("timeout", Type::Integer),
]);
const HOOK: Type = Type::Object(&[required("type", Type::OneOf(&["http", "command"]))]);
const REFERRED: Type = Type::List(&[
    required("type", Type::Text(64)),
    optional("id", Type::Text(64)),
]);

/// Members of a component's spec.
pub const SPEC: &[Member] = &[
    required("name", Type::Name(is_component_name_char)),
    optional("description", Type::Text(128)),
    optional("labels", Type::Labels),
    required("runtime_stack", STACK),
    optional("source", SOURCE),
    optional("build", BUILD),
    optional("environment_id", Type::Text(64)),
    optional("limit_cpu", Type::Number),
    optional("limit_memory", Type::Number),
    optional("request_cpu", Type::Number),
    optional("request_memory", Type::Number),
    optional("replica", Type::Integer),
    required("version", Type::Version),
    optional("swimlane_id", Type::Text(64)),
    optional("envs", Type::List(&[required("name", Type::Text(64))])),
    optional(
        "storages",
        Type::List(&[
            required("type", Type::Text(64)),
            required("name", Type::Text(64)),
        ]),
    ),
    optional("deploy_strategy", STRATEGY),
    optional("command", Type::Object(&[])),
    optional("post_start", HOOK),
    optional("pre_stop", HOOK),
    optional("mesher", Type::Object(&[required("port", Type::Integer)])),
    optional("timezone", Type::Text(64)),
    optional("jvm_opts", Type::Text(4096)),
    optional("tomcat_opts", Type::Object(&[])),
    optional("logs", Type::List(&[required("log_path", Type::Text(512))])),
    optional("custom_metric", Type::Object(&[])),
    // Three shapes are in use (docs/apis/servicestage.md, "Quirks").
    optional("affinity", Type::Any),
    optional("anti_affinity", Type::Any),
    optional("liveness_probe", PROBE),
    optional("readiness_probe", PROBE),
    optional("refer_resources", REFERRED),
    optional("external_accesses", Type::List(&[])),
    optional("create_mode", Type::Text(64)),
    optional("workload_name", Type::Text(64)),
    optional("workload_kind", Type::Text(64)),
    optional("config_mode", Type::Text(64)),
    optional("workload_content", Type::Text(usize::MAX)),
    optional("update_strategy", Type::Object(&[])),
    optional("enterprise_project_id", Type::Text(64)),
    optional("pod_labels", Type::Any),
];

pub const TEMPLATE_SOURCE: Type = Type::Object(&[
    required("storage", Type::OneOf(&["devcloud", "obs", "http"])),
    required("url", Type::Text(2048)),
]);
pub const FROM_TEMPLATE: &[Member] = &[
    required("environment_id", Type::Text(64)),
    required("application_id", Type::Text(64)),
    required("template_source", TEMPLATE_SOURCE),
    optional("input_values", Type::Object(&[])),
];
pub const PARSE: &[Member] = &[
    required("template_source", TEMPLATE_SOURCE),
    optional("component_id", Type::Text(64)),
];
pub const ACTION: &[Member] = &[
    required("action", Type::Text(64)),
    optional(
        "parameters",
        Type::Object(&[
            optional("replica", Type::Integer),
            optional("hosts", Type::Texts),
            optional("version", Type::Text(64)),
        ]),
    ),
];

/// Checks the rules for a deployable spec that the tables do not express.
pub fn check(spec: &Object, is_new: bool) -> Result<(), Response> {
    if !runtime_stacks::TYPES.contains(
        &member(spec, "runtime_stack")["type"]
            .as_str()
            .unwrap_or_default(),
    ) {
        return Err(bad_value("00100420", "The runtime is not supported."));
    }
    if text(spec, "create_mode") == "import" {
        return match ["workload_name", "workload_kind"]
            .iter()
            .find(|name| text(spec, name).is_empty())
        {
            Some(name) => Err(invalid(format!("{name} is missing."))),
            None => Ok(()),
        };
    }
    let source = spec
        .get("source")
        .ok_or_else(|| invalid("source is missing."))?;
    let artifact = |name: &str| source[name].as_str().is_some_and(|text| !text.is_empty());
    let found = match source["kind"].as_str() {
        Some("code") => artifact("repo_url") || artifact("web_url") || artifact("url"),
        _ => artifact("url"),
    };
    if !found {
        return Err(bad_value("00100425", "The artifact is empty."));
    }
    let resources = member(spec, "refer_resources").as_array();
    if is_new && resources.is_none_or(Vec::is_empty) {
        return Err(bad_value("00100422", "The base resource is empty."));
    }
    if member(spec, "replica").as_f64().is_some_and(|n| n < 0.0) {
        return Err(invalid("replica must not be negative."));
    }
    Ok(())
}

/// Content of every template package.
pub fn template() -> Value {
    json!({
        "template": {"component.yaml": "replicas: ${replicas}\nimage: ${image}\n"},
        "variables": {
            "replicas": {"type": "number", "default": 1, "description": "How many."},
            "image": {"type": "string", "default": "swr.example.com/acme/app:1.0.0", "description": "What."},
        },
    })
}

/// Builds the spec of a template with its inputs.
pub fn of_template(name: &str, inputs: &Value) -> Value {
    let replicas = inputs["replicas"]
        .as_str()
        .and_then(|text| text.parse::<i32>().ok());
    let image = inputs["image"]
        .as_str()
        .unwrap_or("swr.example.com/acme/app:1.0.0");
    json!({
        "name": name,
        "description": "",
        "labels": [],
        "runtime_stack": {"name": "Docker", "type": "Docker", "version": "1.0.0", "deploy_mode": "container"},
        "source": {"kind": "image", "url": image, "storage": "swr", "auth": "iam"},
        "replica": replicas.unwrap_or(1).max(0),
        "version": "1.0.0",
        "refer_resources": [],
    })
}
