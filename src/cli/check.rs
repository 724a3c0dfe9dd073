//! `drawbridge check`: is the configuration good, and do the upstreams let us in?

use std::time::Duration;

use tonic::Code;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::downstream::Caller;
use crate::error::Error;
use crate::upstream::{Operation, Upstream, Upstreams};
use drawbridge_transcoder::call::{Call, Idempotency, Media};

/// How long one login and one probe may last.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Prints a line per upstream; fails when one is not reached or refuses the login.
pub async fn run(config: &Config) -> Result<(), Vec<String>> {
    let contract = config.contract()?;
    println!("contract: {} rpcs", contract.methods().len());
    let upstreams = Upstreams::build(&config.upstreams, crate::families::family, |_| None)?;
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
    // Whose credentials they are is known with a call only.
    if kind == "passthrough" {
        return Ok(format!(
            "credentials are the callers' own; {}",
            reach(upstream).await?
        ));
    }
    let lease = upstream
        .credentials
        .lease(&Caller::default(), Deadline::after(TIMEOUT))
        .await
        .map_err(|e| e.to_string())?;
    let project = lease.project_id.as_deref();
    let project = project
        .map(|p| format!(", project {p}"))
        .unwrap_or_default();
    let there = reach(upstream).await?;
    let accepted = match upstream.family.login_check {
        Some((path, query)) if kind != "none" => accepted(upstream, path, query).await?,
        _ => "",
    };
    Ok(format!("credentials {kind}{project}{accepted}; {there}"))
}

/// Whether it is there.
async fn reach(upstream: &Upstream) -> Result<&'static str, String> {
    match upstream.ask(TIMEOUT).await {
        Some(Ok(())) => Ok("it answers"),
        Some(Err(e)) => Err(format!("does not answer: {e}; is the endpoint right?")),
        None => Ok("not asked, its endpoint is known by login only"),
    }
}

/// Whether a call with the credentials is let in. Only a word against them
/// counts: the upstream may lack the call.
async fn accepted(upstream: &Upstream, path: &str, query: &str) -> Result<&'static str, String> {
    let call = Call {
        verb: http::Method::GET,
        project: path.find("{project_id}").map(|at| at..at),
        path: path.replace("{project_id}", ""),
        query: query.to_owned(),
        body: None,
        idempotency: Idempotency::NoSideEffects,
        media: Media::default(),
    };
    let operation = Operation {
        rpc: "check",
        dialect_optional: true,
        unverified_in: &[],
        also_success: &[],
        anonymous: false,
    };
    let deadline = Deadline::after(TIMEOUT);
    match upstream
        .call(operation, &call, &Caller::default(), deadline)
        .await
    {
        Ok(_) => Ok(" accepted"),
        Err(Error::Upstream(fault))
            if !matches!(fault.code, Code::Unauthenticated | Code::PermissionDenied) =>
        {
            Ok(" not refused")
        }
        Err(e) => Err(format!("refuses the credentials, or the call: {e}")),
    }
}
