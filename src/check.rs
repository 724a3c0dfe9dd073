//! `drawbridge check`: is the configuration good, and do the upstreams let us in?

use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::gateway;
use crate::rest::Caller;
use crate::telemetry::Metrics;
use crate::upstream::{State, Upstream};

/// How long one login and one probe may last.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Prints a line per upstream; fails when one is not reached or refuses the login.
pub async fn run(config: &Config) -> Result<(), Vec<String>> {
    let contract = gateway::compile(&config.descriptors)?;
    println!("contract: {} rpcs", contract.methods().len());
    let upstreams = gateway::build_upstreams(&config.upstreams, &Metrics::default())?;
    let mut problems = Vec::new();
    for upstream in upstreams.all() {
        let name = &upstream.settings.name;
        match look(upstream).await {
            Ok(line) => println!("upstream {name}: {line}"),
            Err(problem) => problems.push(format!("upstream {name}: {problem}")),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

async fn look(upstream: &Upstream) -> Result<String, String> {
    let kind = upstream.settings.auth.kind();
    let login = match kind {
        // Whose credentials they are is known with a call only.
        "passthrough" => "credentials are the callers' own".to_owned(),
        "none" => "no credentials".to_owned(),
        kind => {
            let lease = upstream
                .credentials
                .lease(&Caller::default(), Deadline::after(TIMEOUT))
                .await
                .map_err(|e| e.to_string())?;
            let project = lease
                .project_id
                .as_deref()
                .map(|p| format!(", project {p}"))
                .unwrap_or_default();
            format!("credentials {kind} ready{project}")
        }
    };
    match upstream.probe(TIMEOUT).await {
        State::Answering => Ok(format!("{login}; it answers")),
        State::Unknown => Ok(format!(
            "{login}; not asked, its endpoint is known by login only"
        )),
        State::NotAnswering => Err("it does not answer; is the endpoint right?".to_owned()),
    }
}
