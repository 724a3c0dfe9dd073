//! Bodies that describe a component.

use serde_json::{Value, json};

use super::super::body::{Kind as Is, Member, Object, in_component_name, may, member, must, text};
use super::super::errors::{bad, invalid};
use super::super::runtime_stacks;
use crate::message::Answer;

const STACK: Is = Is::Object(&[
    must("name", Is::Text(64)),
    must("type", Is::Text(64)),
    // Another official client omits it.
    may("version", Is::Text(64)),
    must("deploy_mode", Is::OneOf(&["container", "virtualmachine"])),
]);
const SOURCE: Is = Is::Object(&[
    must("kind", Is::OneOf(&["code", "package", "image"])),
    may("url", Is::Text(2048)),
]);
const BUILD: Is = Is::Object(&[may("parameters", Is::Object(&[]))]);
const STRATEGY: Is = Is::Object(&[
    must(
        "type",
        Is::OneOf(&["OneBatchRelease", "RollingRelease", "GrayRelease"]),
    ),
    may(
        "rolling_release",
        Is::Object(&[must("batches", Is::Integer)]),
    ),
    may("gray_release", Is::Object(&[])),
]);
const PROBE: Is = Is::Object(&[
    must("type", Is::OneOf(&["http", "tcp", "command"])),
    must("delay", Is::Integer),
    must("timeout", Is::Integer),
]);
const HOOK: Is = Is::Object(&[must("type", Is::OneOf(&["http", "command"]))]);
const REFERRED: Is = Is::List(&[must("type", Is::Text(64)), may("id", Is::Text(64))]);

/// Members of a component's spec.
pub const SPEC: &[Member] = &[
    must("name", Is::Name(in_component_name)),
    may("description", Is::Text(128)),
    may("labels", Is::Labels),
    must("runtime_stack", STACK),
    may("source", SOURCE),
    may("build", BUILD),
    may("environment_id", Is::Text(64)),
    may("limit_cpu", Is::Number),
    may("limit_memory", Is::Number),
    may("request_cpu", Is::Number),
    may("request_memory", Is::Number),
    may("replica", Is::Integer),
    must("version", Is::Version),
    may("swimlane_id", Is::Text(64)),
    may("envs", Is::List(&[must("name", Is::Text(64))])),
    may(
        "storages",
        Is::List(&[must("type", Is::Text(64)), must("name", Is::Text(64))]),
    ),
    may("deploy_strategy", STRATEGY),
    may("command", Is::Object(&[])),
    may("post_start", HOOK),
    may("pre_stop", HOOK),
    may("mesher", Is::Object(&[must("port", Is::Integer)])),
    may("timezone", Is::Text(64)),
    may("jvm_opts", Is::Text(4096)),
    may("tomcat_opts", Is::Object(&[])),
    may("logs", Is::List(&[must("log_path", Is::Text(512))])),
    may("custom_metric", Is::Object(&[])),
    // Three shapes are in use (docs/apis/servicestage.md, "Quirks").
    may("affinity", Is::Any),
    may("anti_affinity", Is::Any),
    may("liveness_probe", PROBE),
    may("readiness_probe", PROBE),
    may("refer_resources", REFERRED),
    may("external_accesses", Is::List(&[])),
    may("create_mode", Is::Text(64)),
    may("workload_name", Is::Text(64)),
    may("workload_kind", Is::Text(64)),
    may("config_mode", Is::Text(64)),
    may("workload_content", Is::Text(usize::MAX)),
    may("update_strategy", Is::Object(&[])),
    may("enterprise_project_id", Is::Text(64)),
    may("pod_labels", Is::Any),
];

pub const TEMPLATE_SOURCE: Is = Is::Object(&[
    must("storage", Is::OneOf(&["devcloud", "obs", "http"])),
    must("url", Is::Text(2048)),
]);
pub const FROM_TEMPLATE: &[Member] = &[
    must("environment_id", Is::Text(64)),
    must("application_id", Is::Text(64)),
    must("template_source", TEMPLATE_SOURCE),
    may("input_values", Is::Object(&[])),
];
pub const PARSE: &[Member] = &[
    must("template_source", TEMPLATE_SOURCE),
    may("component_id", Is::Text(64)),
];
pub const ACTION: &[Member] = &[
    must("action", Is::Text(64)),
    may(
        "parameters",
        Is::Object(&[
            may("replica", Is::Integer),
            may("hosts", Is::Texts),
            may("version", Is::Text(64)),
        ]),
    ),
];

/// Checks the rules for a deployable spec that the tables do not express.
pub fn check(spec: &Object, is_new: bool) -> Result<(), Answer> {
    if !runtime_stacks::TYPES.contains(
        &member(spec, "runtime_stack")["type"]
            .as_str()
            .unwrap_or_default(),
    ) {
        return Err(bad("00100420", "The runtime is not supported."));
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
        return Err(bad("00100425", "The artifact is empty."));
    }
    let resources = member(spec, "refer_resources").as_array();
    if is_new && resources.is_none_or(Vec::is_empty) {
        return Err(bad("00100422", "The base resource is empty."));
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
