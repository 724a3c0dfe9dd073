//! Software deployments in stacks.

use serde_json::{Map, Value, json};

use super::super::engine::Now;
use super::super::software_configs::Config;
use super::super::software_deployments::Deployment;
use super::super::{Heat, functions};
use super::Started;

/// Starts an action of a deployment.
pub(super) fn deployment(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    action: &'static str,
    now: &Now,
) -> Started {
    let quick = Started {
        takes: Some(now.resource_duration()),
        failure: None,
    };
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return quick;
    };
    let (project, stack_id, stack_name) =
        (stack.project.clone(), stack.id.clone(), stack.name.clone());
    let Some(found) = stack.resource_mut(resource) else {
        return quick;
    };
    let property = |name: &str| found.properties.get(name).cloned().unwrap_or_default();
    let transport = match property("signal_transport") {
        Value::String(transport) => transport,
        _ => "CFN_SIGNAL".to_owned(),
    };
    let old = found.physical_id.clone();
    match action {
        "CREATE" | "UPDATE" => {
            let wanted = property("config");
            let config = heat
                .configs
                .iter()
                .find(|config| json!(config.id) == wanted);
            let mut derived = match config {
                Some(config) => config.clone(),
                None => Config::of_stack(&project, &found.physical_name, &Map::new(), &now.text),
            };
            let server = functions::text(&property("server"));
            derived.derive(
                &property("input_values"),
                &[
                    (
                        "deploy_server_id",
                        "ID of the server being deployed to",
                        &server,
                    ),
                    (
                        "deploy_action",
                        "Name of the current action being deployed",
                        action,
                    ),
                    (
                        "deploy_stack_id",
                        "ID of the stack this deployment belongs to",
                        &format!("{stack_name}/{stack_id}"),
                    ),
                    (
                        "deploy_resource_name",
                        "Name of this deployment resource in the stack",
                        &found.name,
                    ),
                    (
                        "deploy_signal_transport",
                        "How the server should signal to heat with the deployment output values.",
                        &transport,
                    ),
                ],
                &now.text,
            );
            let waits = transport != "NO_SIGNAL";
            let derived_id = derived.id.clone();
            heat.configs.push(derived);
            let made = Deployment::of_stack(
                &project,
                &server,
                &derived_id,
                action,
                waits,
                &property("input_values"),
                &now.text,
            );
            if action == "CREATE" {
                found.physical_id = made.id.clone();
                heat.deployments.push(made);
            } else if let Some(there) = heat.deployments.iter_mut().find(|other| other.id == old) {
                let before = there.config_id.clone();
                there.restart(made, &now.text);
                heat.configs.retain(|config| config.id != before);
            }
            // With simulated progress the sandbox also acts as the server's agent.
            match waits && !now.settings.play {
                true => Started {
                    takes: None,
                    failure: None,
                },
                false => quick,
            }
        }
        "DELETE" => {
            let gone = heat.deployments.iter().find(|other| other.id == old);
            let derived = gone.map(|gone| gone.config_id.clone());
            heat.deployments.retain(|other| other.id != old);
            heat.configs
                .retain(|config| Some(&config.id) != derived.as_ref());
            quick
        }
        _ => quick,
    }
}

/// Finishes the work of a resource's action.
pub fn ended(heat: &mut Heat, serial: u64, resource: u64, action: &str, well: bool, now: &Now) {
    let Some(found) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.resource_mut(resource))
    else {
        return;
    };
    if found.kind == "OS::Heat::SoftwareDeployment" && well && matches!(action, "CREATE" | "UPDATE")
    {
        let id = found.physical_id.clone();
        let deployment = heat.deployments.iter_mut().find(|other| other.id == id);
        if let Some(deployment) = deployment.filter(|deployment| deployment.in_progress()) {
            let config = heat
                .configs
                .iter()
                .find(|config| config.id == deployment.config_id);
            // Still in progress only if the sandbox simulates the agent.
            deployment.apply_signal(config, &json!({"deploy_status_code": 0}), &now.text);
        }
    }
}
