//! Software deployments: docs/apis/heat.md, "Software deployments" and "Software
//! deployment states"; tests/real-heat/OBSERVED.md, "Software deployments".

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::message::Response;
use super::software_configs::{self, Config};
use super::{
    Context, Heat, MAX_CONFIGS_OR_DEPLOYMENTS, column, falsy, fault, limit_exceeded, not_found,
    remote_error, value_error,
};
use crate::CONFIG_ID;

pub(super) struct Deployment {
    pub id: String,
    project: String,
    /// Another project with access. Never shown.
    stack_user_project_id: Option<String>,
    server_id: String,
    pub config_id: String,
    input_values: Value,
    pub output_values: Value,
    action: Value,
    status: Value,
    status_reason: Value,
    creation_time: String,
    /// Missing until the first update.
    updated_time: Option<String>,
    /// Start of the simulated server agent; `None` once a client has set a status or
    /// the agent is done.
    simulated_since: Option<Instant>,
}

impl Deployment {
    /// Builds the preloaded deployment, which is complete (example:
    /// `tests/seeds/3-rts-query-software-deployments.txt`).
    pub fn preloaded(project: &str, server: &str, made: &str) -> Self {
        Self {
            id: "ef422fa5-719a-419e-a10c-72e3a367b0b8".to_owned(),
            project: project.to_owned(),
            stack_user_project_id: None,
            server_id: server.to_owned(),
            config_id: CONFIG_ID.to_owned(),
            input_values: json!({"foo": "fu", "bar": "barmy"}),
            output_values: json!({
                "deploy_stdout": "Writing to /tmp/barmy\nWritten to /tmp/barmy\n",
                "deploy_stderr": "",
                "deploy_status_code": 0,
                "result": "The file /tmp/barmy contains fu",
            }),
            action: json!("CREATE"),
            status: json!("COMPLETE"),
            status_reason: json!("Outputs received"),
            creation_time: made.to_owned(),
            updated_time: Some(made.to_owned()),
            simulated_since: None,
        }
    }

    pub fn show(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "server_id": self.server_id,
            "input_values": self.input_values,
            "output_values": self.output_values,
            "action": self.action,
            "status": self.status,
            "status_reason": self.status_reason,
            "config_id": self.config_id,
            "creation_time": self.creation_time,
        });
        if let Some(updated) = &self.updated_time {
            shown["updated_time"] = json!(updated);
        }
        shown
    }

    /// Builds the deployment of a stack's resource; IN_PROGRESS if `waits`.
    pub fn of_stack(
        project: &str,
        server: &str,
        config: &str,
        action: &str,
        waits: bool,
        input_values: &Value,
        made: &str,
    ) -> Self {
        let (status, reason) = match waits {
            true => ("IN_PROGRESS", "Deploy data available"),
            false => ("COMPLETE", "Not waiting for outputs signal"),
        };
        Self {
            id: Uuid::new_v4().to_string(),
            project: project.to_owned(),
            stack_user_project_id: None,
            server_id: server.to_owned(),
            config_id: config.to_owned(),
            input_values: match input_values {
                Value::Null => json!({}),
                values => values.clone(),
            },
            output_values: Value::Null,
            action: json!(action),
            status: json!(status),
            status_reason: json!(reason),
            creation_time: made.to_owned(),
            updated_time: None,
            simulated_since: None,
        }
    }

    /// Restarts a deployment with new values, keeping its identity.
    pub fn restart(&mut self, new: Self, now: &str) {
        *self = Self {
            id: std::mem::take(&mut self.id),
            creation_time: std::mem::take(&mut self.creation_time),
            updated_time: Some(now.to_owned()),
            ..new
        };
    }

    pub fn in_progress(&self) -> bool {
        self.status == "IN_PROGRESS"
    }

    /// Applies a signal of the server: keeps only declared outputs and `deploy_*`
    /// (docs/apis/heat.md, "Software deployment states"). Returns the reason if it
    /// failed.
    pub fn apply_signal(
        &mut self,
        config: Option<&Config>,
        details: &Value,
        now: &str,
    ) -> Option<String> {
        let mut outputs = Map::new();
        let mut failures = Vec::new();
        let code = &details["deploy_status_code"];
        if !matches!(code, Value::Null) && *code != json!(0) && *code != json!("0") {
            failures.push(format!(
                "deploy_status_code : Deployment exited with non-zero status code: {}",
                python_str(code)
            ));
        }
        for output in config.map(|config| &config.outputs[..]).unwrap_or_default() {
            if let Some(name) = output["name"].as_str()
                && let Some(value) = details.get(name)
            {
                outputs.insert(name.to_owned(), value.clone());
                if output["error_output"] == json!(true) {
                    failures.push(format!("{name} : {}", python_str(value)));
                }
            }
        }
        for name in ["deploy_stdout", "deploy_stderr", "deploy_status_code"] {
            outputs.insert(name.to_owned(), details[name].clone());
        }
        self.output_values = Value::Object(outputs);
        self.updated_time = Some(now.to_owned());
        let failed = (!failures.is_empty()).then(|| failures.join(", "));
        self.status = json!(if failed.is_some() {
            "FAILED"
        } else {
            "COMPLETE"
        });
        self.status_reason = json!(failed.as_deref().unwrap_or("Outputs received"));
        failed
    }

    fn is_visible_to(&self, project: &str) -> bool {
        self.project == project || self.stack_user_project_id.as_deref() == Some(project)
    }

    /// Applies the report of the simulated agent once a step has elapsed.
    ///
    /// With the transport TEMP_URL_SIGNAL the report is in Swift until a client reads
    /// the deployment by its id; listing does not fetch it.
    fn simulate_agent(&mut self, config: Option<&Config>, by_id: bool, context: &Context) {
        let Some(since) = self.simulated_since else {
            return;
        };
        if !context.settings.play
            || context.now.at.saturating_duration_since(since) < context.settings.step
        {
            return;
        }
        if !by_id && self.signals_by_temp_url(config) {
            return;
        }
        self.simulated_since = None;
        self.updated_time = Some(context.now.text.clone());
        let script = config
            .and_then(|config| config.config.as_str())
            .unwrap_or_default();
        if script.contains("exit 1") || self.input_values["fail"] == json!(true) {
            self.status = json!("FAILED");
            self.status_reason =
                json!("deploy_status_code : Deployment exited with non-zero status code: 1");
            self.output_values = json!({"deploy_stdout": "", "deploy_stderr": "the sandbox failed it\n", "deploy_status_code": 1});
            return;
        }
        self.status = json!("COMPLETE");
        self.status_reason = json!("Outputs received");
        let mut outputs = Map::new();
        for output in config.map(|config| &config.outputs[..]).unwrap_or_default() {
            // An error output would make the deployment fail.
            if let (Some(name), Some(kind), Some(false)) = (
                output["name"].as_str(),
                output["type"].as_str(),
                output["error_output"].as_bool(),
            ) {
                outputs.insert(name.to_owned(), self.sample_output(name, kind));
            }
        }
        outputs.insert(
            "deploy_stdout".to_owned(),
            json!(format!("Deployed to {}\n", self.server_id)),
        );
        outputs.insert("deploy_stderr".to_owned(), json!(""));
        outputs.insert("deploy_status_code".to_owned(), json!(0));
        self.output_values = Value::Object(outputs);
    }

    fn sample_output(&self, name: &str, kind: &str) -> Value {
        match kind {
            "Number" => json!(42),
            "Boolean" => json!(true),
            "Json" => json!({"server_id": self.server_id}),
            "CommaDelimitedList" => json!([name]),
            _ => json!(format!("{name} of {}", self.server_id)),
        }
    }

    fn signals_by_temp_url(&self, config: Option<&Config>) -> bool {
        let transport = "deploy_signal_transport";
        let wanted = json!("TEMP_URL_SIGNAL");
        let inputs = config.map(|config| &config.inputs[..]).unwrap_or_default();
        self.input_values[transport] == wanted
            || inputs.iter().any(|input| {
                input["name"] == transport
                    && (input["value"] == wanted || input["default"] == wanted)
            })
    }
}

/// Heat only checks that the config exists and a server is named.
pub(super) fn create(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let body = context.body()?;
    let config_id = match &body["config_id"] {
        Value::String(id) => software_configs::find(heat, context.project, id)?
            .id
            .clone(),
        Value::Null => return Err(not_found("Software config", "None")),
        other => return Err(not_found("Software config", &other.to_string())),
    };
    let server_id = match &body["server_id"] {
        Value::String(id) => id.clone(),
        // Observed: the database rejects it.
        Value::Null => return Err(remote_error()),
        _ => return Err(value_error()),
    };
    let stack_user_project_id = body["stack_user_project_id"].as_str().map(str::to_owned);
    if stack_user_project_id
        .as_ref()
        .is_some_and(|id| id.chars().count() > 64)
    {
        let message = "Data supplied was not valid: \"stack_user_project_id\" should be no more than 64 characters";
        return Err(fault(StatusCode::BAD_REQUEST, "Invalid", Some(message)));
    }
    if heat
        .deployments
        .iter()
        .filter(|deployment| deployment.project == context.project)
        .count()
        >= MAX_CONFIGS_OR_DEPLOYMENTS
    {
        return Err(limit_exceeded(&format!(
            "You have reached the maximum software deployments per project, {MAX_CONFIGS_OR_DEPLOYMENTS}. \
             Please delete some software deployments."
        )));
    }
    let deployment = Deployment {
        id: Uuid::new_v4().to_string(),
        project: context.project.to_owned(),
        stack_user_project_id,
        server_id,
        config_id,
        input_values: match &body["input_values"] {
            Value::Null => json!({}),
            values => values.clone(),
        },
        // `output_values` is ignored here.
        output_values: Value::Null,
        action: column(&body["action"])?,
        status: column(&body["status"])?,
        status_reason: json!(python_str(&body["status_reason"])),
        creation_time: context.now.text.clone(),
        updated_time: None,
        simulated_since: (body["status"] == "IN_PROGRESS").then_some(context.now.at),
    };
    let mut shown = deployment.show();
    shown["action"] = body["action"].clone();
    shown["status"] = body["status"].clone();
    heat.deployments.push(deployment);
    Ok(Response::ok(json!({"software_deployment": shown})))
}

/// Oldest first, never paged; only `server_id` filters.
pub(super) fn list(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let server = context.request.parameter("server_id");
    let Heat {
        configs,
        deployments,
        ..
    } = heat;
    let found: Vec<Value> = deployments
        .iter_mut()
        .filter(|deployment| deployment.is_visible_to(context.project))
        .filter(|deployment| server.is_none_or(|server| deployment.server_id == server))
        .map(|deployment| {
            deployment.simulate_agent(config_of(configs, &deployment.config_id), false, context);
            deployment.show()
        })
        .collect();
    Ok(Response::ok(json!({"software_deployments": found})))
}

pub(super) fn show(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let Heat {
        configs,
        deployments,
        ..
    } = heat;
    let deployment = find(deployments, context)?;
    deployment.simulate_agent(config_of(configs, &deployment.config_id), true, context);
    Ok(Response::ok(
        json!({"software_deployment": deployment.show()}),
    ))
}

/// Members that Python treats as true replace the current ones; even `{}` updates
/// `updated_time`. A new `config_id` is stored, but the response has the old one.
pub(super) fn update(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let body = context.body()?;
    let Heat {
        configs,
        deployments,
        ..
    } = heat;
    let deployment = find(deployments, context)?;
    deployment.simulate_agent(config_of(configs, &deployment.config_id), false, context);
    let given = |name: &str| Some(&body[name]).filter(|value| !falsy(value));
    let config_id = match given("config_id") {
        None => None,
        Some(id) => {
            let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            if config_of(configs, &id).is_none_or(|config| config.project != deployment.project) {
                return Err(not_found("Software config", &id));
            }
            Some(id)
        }
    };
    let action = given("action").map(column).transpose()?;
    let status = given("status").map(column).transpose()?;
    if let Some(values) = given("input_values") {
        deployment.input_values = values.clone();
    }
    if let Some(values) = given("output_values") {
        deployment.output_values = values.clone();
    }
    if let Some(action) = action {
        deployment.action = action;
    }
    if let Some(status) = status {
        deployment.status = status;
        deployment.simulated_since = None;
    }
    if let Some(reason) = given("status_reason") {
        deployment.status_reason = json!(python_str(reason));
    }
    deployment.updated_time = Some(context.now.text.clone());
    let shown = deployment.show();
    if let Some(config_id) = config_id {
        deployment.config_id = config_id;
    }
    Ok(Response::ok(json!({"software_deployment": shown})))
}

/// Does not delete the config.
pub(super) fn delete(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let id = find(&mut heat.deployments, context)?.id.clone();
    heat.deployments.retain(|deployment| deployment.id != id);
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

/// Returns the configs of a server's deployments, sorted by name; a config that two
/// deployments use is listed twice.
pub(super) fn metadata(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let mut found: Vec<&Config> = heat
        .deployments
        .iter()
        .filter(|deployment| {
            deployment.is_visible_to(context.project) && deployment.server_id == context.id()
        })
        .filter_map(|deployment| config_of(&heat.configs, &deployment.config_id))
        .collect();
    found.sort_by_key(|config| config.name.as_str().map(str::to_owned));
    let shown: Vec<Value> = found.into_iter().map(Config::show).collect();
    Ok(Response::ok(json!({"metadata": shown})))
}

fn find<'a>(
    deployments: &'a mut [Deployment],
    context: &Context,
) -> Result<&'a mut Deployment, Response> {
    let mut seen = deployments
        .iter_mut()
        .filter(|deployment| deployment.is_visible_to(context.project));
    seen.find(|deployment| deployment.id == context.id())
        .ok_or_else(|| not_found("Deployment", context.id()))
}

fn config_of<'a>(configs: &'a [Config], id: &str) -> Option<&'a Config> {
    configs.iter().find(|config| config.id == id)
}

/// Python's `str()`, which turns a missing reason into "None" (observed).
fn python_str(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
