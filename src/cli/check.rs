//! `drawbridge check`: checks the configuration, the annotations and the login to each upstream.

use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::Error;
use crate::upstream::{MethodProperties, RequestContext, Upstream, Upstreams};
use drawbridge_transcoder::call::{Call, Idempotency, Media};

/// Timeout of a login, and of a health check.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Prints a line per upstream. Fails if one does not respond or rejects the credentials.
pub async fn run(config: &Config) -> Result<(), Vec<String>> {
    for notice in config.notices.iter().filter(|notice| notice.is_warning) {
        println!("warning: {}", notice.text);
    }
    let contract = config.contract()?;
    println!("contract: {} rpcs", contract.methods().len());
    for warning in contract.warnings() {
        println!("warning: {warning}");
    }
    for left_out in contract.not_selected() {
        println!("not selected: {left_out}");
    }
    let upstreams = Upstreams::build(&config.upstreams, crate::families::family, |_| None)?;
    let mut problems = Vec::new();
    for upstream in upstreams.all() {
        let name = &upstream.settings.name;
        match check(upstream).await {
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

async fn check(upstream: &Upstream) -> Result<String, String> {
    let kind = upstream.settings.auth.kind();
    // Only a call has credentials.
    if kind == "passthrough" {
        return Ok(format!(
            "credentials are those of each client; {}",
            reach(upstream).await?
        ));
    }
    let credential = upstream
        .credentials
        .get(&Downstream::default(), Deadline::after(TIMEOUT))
        .await
        .map_err(|e| e.to_string())?;
    let project = credential.project_id.as_deref();
    let project = project
        .map(|p| format!(", project {p}"))
        .unwrap_or_default();
    let health = reach(upstream).await?;
    let accepted = match upstream.family.login_check {
        Some((path, query)) if kind != "none" => accepted(upstream, path, query).await?,
        _ => "",
    };
    Ok(format!("credentials {kind}{project}{accepted}; {health}"))
}

/// Checks whether the upstream responds.
async fn reach(upstream: &Upstream) -> Result<&'static str, String> {
    match upstream.try_probe(TIMEOUT).await {
        Some(Ok(())) => Ok("it responds"),
        Some(Err(e)) => Err(format!("does not respond: {e}; check the endpoint")),
        None => Ok("not checked, because the endpoint comes from the login"),
    }
}

/// Checks whether the upstream accepts the credentials, with one call. Other failures than
/// UNAUTHENTICATED and PERMISSION_DENIED are no problem: the upstream may lack that call.
async fn accepted(upstream: &Upstream, path: &str, query: &str) -> Result<&'static str, String> {
    let call = Call {
        verb: http::Method::GET,
        project: path.find("{project_id}").map(|at| at..at),
        path: path.replace("{project_id}", ""),
        query: query.to_owned(),
        body: None,
        idempotency: Idempotency::NoSideEffects,
        declares_idempotency: false,
        media: Media::default(),
    };
    let method = MethodProperties {
        operation: "check",
        rpc: "check",
        dialect_optional: true,
        unverified_in: &[],
        also_success: &[],
        anonymous: false,
    };
    let context = RequestContext {
        method,
        client: &Downstream::default(),
        deadline: Deadline::after(TIMEOUT),
        body_slot: None,
    };
    match upstream.call(&context, &call).await {
        Ok(_) => Ok(" accepted"),
        Err(Error::Upstream(fault)) if !matches!(fault.http_status, 401 | 403) => {
            Ok(" not rejected")
        }
        Err(e) => Err(format!("rejects the credentials, or the call: {e}")),
    }
}
