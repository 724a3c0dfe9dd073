//! `drawbridge check`: checks the configuration, the annotations, the certificate of the
//! listener, and with each upstream a login and one read of its API.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::check_policy::{self, Decision, Question};
use crate::config::{Config, NO_POLICY, PLAINTEXT_TOKENS, Problem, TRUSTED_SIDECAR};
use crate::contract::{Contract, Method};
use crate::credentials::{Scope, Settings as Auth};
use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::engine::health_check::{self, Shown};
use crate::spelling::nearest;
use crate::telemetry;
use crate::upstream::{Upstream, Upstreams};

/// Timeout of the login and the read of one upstream. All are checked at the same time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The options of the command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Check only this upstream. Can be repeated. Default: all.
    #[arg(long, value_name = "NAME")]
    pub upstream: Vec<String>,
    /// Say instead which rule of the policy allows or denies a call to this client: `token:ci`,
    /// `jwt:NAME`, `certificate:NAME` or `anonymous`. Nothing is called.
    #[arg(
        long = "as",
        value_name = "IDENTITY",
        requires = "method",
        conflicts_with = "json"
    )]
    pub identity: Option<String>,
    /// The rpc of that call, by --upstream or the default one.
    #[arg(value_name = "SERVICE/METHOD", requires = "identity")]
    pub method: Option<String>,
    /// The request of that call, as JSON.
    #[arg(value_name = "JSON", requires = "method")]
    pub request: Option<String>,
}

/// What the check has found.
#[derive(Debug, Default)]
pub struct Report {
    /// What prevents the start, or fails.
    pub problems: Vec<Problem>,
    /// What is probably a mistake.
    pub warnings: Vec<Problem>,
    /// How many rpcs the gateway serves.
    pub rpcs: usize,
    /// The rpcs that the configuration does not select.
    pub not_selected: Vec<String>,
    /// The upstreams in the order of the configuration.
    pub upstreams: Vec<Checked>,
}

/// The result of one upstream.
#[derive(Debug)]
pub struct Checked {
    name: String,
    family: String,
    dialect: String,
    kind: &'static str,
    user: String,
    auth_place: Option<String>,
    project: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    elapsed: Duration,
    /// Whether certificates are not verified.
    insecure: bool,
    /// The rpc that was called.
    read: Option<String>,
    result: Result<Shown, String>,
}

/// Decides about the call of `--as`.
pub(super) fn decide(config: &Config, options: &Options) -> Result<Decision, Failure> {
    let question = Question {
        identity: options.identity.as_deref().unwrap_or_default(),
        method: options.method.as_deref().unwrap_or_default(),
        json: options.request.as_deref(),
        upstream: options.upstream.first().map(String::as_str),
    };
    check_policy::decide(config, question)
}

/// Checks the configuration and prints the report. Returns whether all is well.
pub(super) async fn run(
    config: Result<Config, Vec<Problem>>,
    options: &Options,
) -> Result<bool, Failure> {
    // Its exit code is that of other invalid arguments.
    let mut usage = None;
    let mut report = match config {
        Ok(config) => match check(&config, &options.upstream).await {
            Err(Failure::Usage(problem)) if options.json => {
                usage = Some(Failure::Usage(problem.clone()));
                Report {
                    problems: vec![problem.into()],
                    ..Report::default()
                }
            }
            report => report?,
        },
        Err(problems) => {
            let mut problems = problems;
            if !options.upstream.is_empty() {
                let hint = "--upstream checks one upstream; the file as a whole must be valid";
                problems.push(Problem::from(hint.to_owned()));
            }
            if !options.json {
                return Err(problems.into());
            }
            Report {
                problems,
                ..Report::default()
            }
        }
    };
    let traces = telemetry::traces_problem();
    let traces = traces.map(|problem| format!("traces are not exported: {problem}"));
    report.warnings.extend(traces.map(Problem::from));
    let text = match options.json {
        true => format!("{:#}\n", report.json()),
        false => report.text(),
    };
    // A reader that has left, such as `head`, is not a failure.
    let mut stdout = std::io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match usage {
        Some(failure) => Err(failure),
        None => Ok(report.is_ok()),
    }
}

/// Checks what the configuration names; of the upstreams those with these names, or all.
pub async fn check(config: &Config, names: &[String]) -> Result<Report, Failure> {
    check_names(config, names)?;
    let contract = match config.contract() {
        Ok(contract) => contract,
        Err(problems) => {
            return Ok(Report {
                problems: problems.into_iter().map(Problem::from).collect(),
                warnings: config.warnings.clone(),
                ..Report::default()
            });
        }
    };
    let mut report = Report {
        rpcs: contract.methods().len(),
        not_selected: texts(&contract.not_selected()).collect(),
        warnings: config.warnings.clone(),
        ..Report::default()
    };
    if let Err(problems) = config.policy(&contract) {
        report.problems.extend(problems);
    }
    if config.policy.is_empty() && config.authenticates_clients() {
        report.warnings.push(Problem::from(NO_POLICY.to_owned()));
    }
    if config.trusts_sidecar {
        report
            .warnings
            .push(Problem::from(TRUSTED_SIDECAR.to_owned()));
    }
    let left_out = contract.warnings();
    report.warnings.extend(texts(&left_out).map(Problem::from));
    if config.has_plaintext_tokens() {
        let place = format!("listen on {}", config.listen);
        let warning = Problem::from(format!("{place}: {PLAINTEXT_TOKENS}"));
        report.warnings.push(warning);
    }
    if let Some(tls) = &config.tls {
        let now = std::time::SystemTime::now();
        report.problems.extend(tls.problems(now));
        report.warnings.extend(tls.warnings(now));
    }
    let upstreams = match Upstreams::build(&config.upstreams, crate::families::family, |_| None) {
        Ok(upstreams) => upstreams,
        Err(problems) => {
            report
                .problems
                .extend(problems.into_iter().map(Problem::from));
            return Ok(report);
        }
    };
    report.warnings.extend(without_default(&upstreams));
    report.upstreams = check_all(&upstreams, &contract, names).await;
    Ok(report)
}

/// Rejects names that no upstream has.
fn check_names(config: &Config, names: &[String]) -> Result<(), Failure> {
    let known: Vec<&str> = config.upstreams.iter().map(|u| &*u.name).collect();
    match names.iter().find(|name| !known.contains(&&***name)) {
        None => Ok(()),
        Some(name) => Err(Failure::Usage(format!(
            "no upstream is named {name}{}; there are: {}",
            nearest(name, known.iter().copied()),
            known.join(", ")
        ))),
    }
}

/// Checks the upstreams at the same time.
async fn check_all(upstreams: &Upstreams, contract: &Contract, names: &[String]) -> Vec<Checked> {
    let mut tasks = tokio::task::JoinSet::new();
    let chosen = upstreams
        .all()
        .iter()
        .filter(|upstream| names.is_empty() || names.contains(&upstream.settings.name));
    for (n, upstream) in chosen.enumerate() {
        let method = contract.health_check(&upstream.settings.family).cloned();
        let upstream = upstream.clone();
        tasks.spawn(async move { (n, check_one(&upstream, method.as_ref()).await) });
    }
    let mut checked = tasks.join_all().await;
    checked.sort_by_key(|(n, _)| *n);
    checked.into_iter().map(|(_, checked)| checked).collect()
}

async fn check_one(upstream: &Arc<Upstream>, method: Option<&Arc<Method>>) -> Checked {
    let started = Instant::now();
    let result = health_check::check(upstream, method.map(|method| &**method), TIMEOUT).await;
    let elapsed = started.elapsed();
    // Of the finished login: it is not repeated.
    let credential = match (&result, &upstream.settings.auth) {
        (Err(_), _) | (_, Auth::Passthrough) => None,
        _ => {
            let (client, now) = (
                Downstream::default(),
                Deadline::after(Duration::from_secs(1)),
            );
            upstream.credentials.get(&client, now).await.ok()
        }
    };
    let scope = credential.as_ref().map(|c| c.scope.clone());
    let Scope { project, region } = scope.unwrap_or_default();
    let project_id = credential.and_then(|credential| credential.project_id.clone());
    let settings = &upstream.settings;
    Checked {
        name: settings.name.clone(),
        family: settings.family.clone(),
        dialect: settings.dialect.clone(),
        kind: settings.auth.kind(),
        user: settings.auth.user(),
        auth_place: settings.auth_place.clone(),
        project: project.or(settings.project_id.clone()).or(project_id),
        region,
        endpoint: upstream.endpoint_text(),
        elapsed,
        insecure: settings.transport.insecure_skip_verify,
        read: method.map(|method| method.path[1..].to_owned()),
        result,
    }
}

/// Returns a warning per family whose upstreams clients must name.
fn without_default(upstreams: &Upstreams) -> Vec<Problem> {
    let all = || upstreams.all().iter();
    let mut families: Vec<&str> = all().map(|u| &*u.settings.family).collect();
    families.sort_unstable();
    families.dedup();
    families
        .into_iter()
        .filter(|family| !upstreams.of(family).any(|u| upstreams.is_default(u)))
        .map(|family| {
            let names: Vec<&str> = upstreams.of(family).map(|u| &*u.settings.name).collect();
            Problem::from(format!(
                "family {family}: no upstream is the default: calls without the metadata \
                 `drawbridge-upstream` fail; set `default = true` of one of {}",
                names.join(", ")
            ))
        })
        .collect()
}

impl Report {
    /// Returns whether nothing failed.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty() && self.failed() == 0
    }

    fn failed(&self) -> usize {
        self.upstreams.iter().filter(|u| u.result.is_err()).count()
    }

    /// Returns the report as lines: one per problem, warning and upstream.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.rpcs > 0 {
            let _ = writeln!(text, "contract: {} rpcs", self.rpcs);
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        for rpc in &self.not_selected {
            let _ = writeln!(text, "not selected: {rpc}");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "FAILED  {problem}");
        }
        let width = self.upstreams.iter().map(|u| u.name.len()).max();
        let width = width.unwrap_or_default();
        for upstream in &self.upstreams {
            let _ = writeln!(text, "{:width$}  {}", upstream.name, upstream.text());
        }
        let (failed, all) = (self.failed(), self.upstreams.len());
        if failed > 0 {
            let _ = writeln!(text, "{failed} of {all} failed");
        }
        text
    }

    /// Returns the report as a JSON document.
    pub fn json(&self) -> Value {
        let problem = |problem: &Problem| {
            json!({
                "file": non_empty(&problem.file),
                "line": problem.line,
                "key": non_empty(&problem.key),
                "problem": problem.problem,
            })
        };
        json!({
            "ok": self.is_ok(),
            "rpcs": self.rpcs,
            "not_selected": self.not_selected,
            "problems": self.problems.iter().map(problem).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(problem).collect::<Vec<_>>(),
            "checked": self.upstreams.len(),
            "failed": self.failed(),
            "upstreams": self.upstreams.iter().map(Checked::json).collect::<Vec<_>>(),
        })
    }
}

impl Checked {
    fn text(&self) -> String {
        let shown = match &self.result {
            Ok(shown) => shown,
            Err(problem) => {
                let place = self.auth_place.as_ref();
                let place = place.map(|place| format!(" (login of {place})"));
                return format!("FAILED  {problem}{}", place.unwrap_or_default());
            }
        };
        let mut parts = vec![self.user.clone()];
        parts.extend(self.project.as_ref().map(|p| format!("project {p}")));
        parts.extend(self.region.as_ref().map(|r| format!("region {r}")));
        parts.extend(self.endpoint.clone());
        let insecure = "INSECURE: certificates are not verified";
        parts.extend(self.insecure.then(|| insecure.to_owned()));
        let (text, millis) = (parts.join(", "), self.elapsed.as_millis());
        format!("OK  {text} ({millis} ms){}", self.restriction(shown))
    }

    /// Returns what a successful check could not show.
    fn restriction(&self, shown: &Shown) -> String {
        let Shown::Responds(status) = shown else {
            return String::new();
        };
        let why = match (&self.read, self.kind) {
            (None, _) => "the protos name no `health_check`",
            (Some(_), "passthrough") => "only clients have credentials",
            (Some(_), _) => "no credentials are configured",
        };
        format!(
            ": it responds HTTP {}; not more is checked, since {why}",
            status.as_u16()
        )
    }

    fn json(&self) -> Value {
        let status = match &self.result {
            Ok(Shown::Responds(status)) => Some(status.as_u16()),
            _ => None,
        };
        json!({
            "name": self.name,
            "ok": self.result.is_ok(),
            "problem": self.result.as_ref().err(),
            "family": self.family,
            "dialect": non_empty(&self.dialect),
            "credentials": self.kind,
            "user": self.user,
            "credentials_in": self.auth_place,
            "project": self.project,
            "region": self.region,
            "endpoint": self.endpoint,
            "insecure_skip_verify": self.insecure,
            "elapsed_ms": self.elapsed.as_millis() as u64,
            "read": self.read,
            "serves": matches!(self.result, Ok(Shown::Serves)),
            "http_status": status,
        })
    }
}

fn texts<T: ToString>(all: &[T]) -> impl Iterator<Item = String> {
    all.iter().map(ToString::to_string)
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
