//! Command line: the arguments, and one module per command.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "commands write their results and errors to the terminal"
)]

mod banner;
mod call;
pub mod check;
mod check_policy;
mod client;
mod complete;
mod config_examples;
mod describe;
mod health;
mod idle_memory;
mod ls;
mod protos;
#[cfg(feature = "sandbox")]
pub mod quickstart;
#[cfg(feature = "sandbox")]
mod sandbox;
mod serve;
mod token;
pub mod watch;

#[cfg(test)]
pub(crate) use config_examples::EXAMPLES;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, ConfigSource, Environment, Overlay, Problem};
use crate::contract::Contract;
use crate::telemetry::{self, with_json_lines};

/// How long the process waits for the reader of its standard error before it exits.
const MAX_FLUSH_TIME: Duration = Duration::from_secs(1);

/// The manual page, which a test generates.
const MANUAL: &str = include_str!("../docs/drawbridge.1");

/// A gRPC gateway to the REST APIs that deploy and automate infrastructure.
#[derive(Debug, Parser)]
#[command(name = "drawbridge", version)]
struct Args {
    /// Configuration file, described in drawbridge.example.toml. Required by `serve` and
    /// `check`, optional for `sandbox`, `coverage` and `protos`; others read none. Default: the
    /// value of DRAWBRIDGE_CONFIG.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve the configured upstreams (default).
    ///
    /// SIGTERM drains after `server.drain_delay_secs`, SIGINT at once. Exit code: 0 after a
    /// drain, 143 or 130 if a second SIGTERM or SIGINT ends it.
    Serve,
    /// Serve embedded upstreams of all three families, to try the gateway.
    ///
    /// Nothing real is called. The configuration file is optional and must not have upstreams.
    #[cfg(feature = "sandbox")]
    Sandbox {
        /// Accept listeners that other machines can reach. Any client may call the sandbox.
        #[arg(long)]
        listen_beyond_loopback: bool,
    },
    /// Print example calls to paste while `drawbridge sandbox` runs.
    #[cfg(feature = "sandbox")]
    Examples {
        /// Address of the gateway.
        #[arg(long, value_name = "HOST:PORT", default_value = quickstart::DEFAULT_ADDRESS)]
        gateway: String,
        /// Call the gateway over TLS.
        #[arg(long)]
        tls: bool,
    },
    /// Check the configuration, log in to each upstream and make one read, and exit.
    ///
    /// Checks the annotations and the certificate of the listener, too. With --as it says instead
    /// which rule of the policy allows or denies a call. Exit code: 0 if all is well or allowed,
    /// 1 if something failed or is denied, 2 for invalid arguments.
    Check(check::Options),
    /// Print configuration files to begin with, or the schema of the configuration file.
    #[command(subcommand)]
    Config(config_examples::ConfigCommand),
    /// Print a table of all rpcs with their REST calls and dialects.
    ///
    /// Those of the configuration file's descriptors are included.
    Coverage,
    /// Write what clients are made from to a directory: protos, descriptor set, service configs.
    ///
    /// The configuration file's descriptors are included.
    Protos(protos::Options),
    /// Make a client token: prints it, and writes its name and digest for the tokens file.
    Token(token::Options),
    /// Watch resources, or any watch rpc, through a running gateway until their states are final.
    Watch(Box<watch::Options>),
    /// Call an rpc of a running gateway with JSON.
    Call(Box<call::Options>),
    /// List the services of a running gateway, or the rpcs of one.
    Ls(Box<ls::Options>),
    /// Describe a service, an rpc or a type of a running gateway, with its comments.
    Describe(Box<describe::Options>),
    /// Ask a running gateway for its health: SERVING or not.
    ///
    /// A probe for images without a shell, as an exec probe of Kubernetes or HEALTHCHECK.
    Health(Box<health::Options>),
    /// Print the completions of a shell, with the services and rpcs of the gateway.
    Completions(complete::ScriptOptions),
    /// Print the manual page.
    Man,
    /// Print what can follow the words of a command line.
    #[command(name = complete::COMMAND, hide = true)]
    Complete(complete::Options),
}

impl Command {
    /// Returns the name of a command that reads no configuration file.
    fn without_config(&self) -> Option<&'static str> {
        match self {
            Self::Serve | Self::Check(_) | Self::Coverage | Self::Protos(_) => None,
            #[cfg(feature = "sandbox")]
            Self::Sandbox { .. } => None,
            #[cfg(feature = "sandbox")]
            Self::Examples { .. } => Some("examples"),
            Self::Config(_) => Some("config"),
            Self::Watch(_) => Some("watch"),
            Self::Call(_) => Some("call"),
            Self::Ls(_) => Some("ls"),
            Self::Describe(_) => Some("describe"),
            Self::Health(_) => Some("health"),
            Self::Completions(_) => Some("completions"),
            Self::Man => Some("man"),
            Self::Token(_) => Some("token"),
            Self::Complete(_) => Some(complete::COMMAND),
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Its arguments are invalid, or the configuration is missing. Exit code 2.
    Usage(String),
    /// It found these problems. Exit code 1.
    Problems(Vec<Problem>),
}

impl From<Vec<String>> for Failure {
    fn from(problems: Vec<String>) -> Self {
        Self::Problems(problems.into_iter().map(Problem::from).collect())
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Problems(problems)
    }
}

/// Returns the commands with their arguments.
pub fn command() -> clap::Command {
    Args::command()
}

/// Parses the arguments, runs the command and returns its exit code. `collect` returns the free
/// memory of the calling thread to the system.
pub fn main(collect: idle_memory::Collect) -> ExitCode {
    idle_memory::set(collect);
    let code = run_command();
    telemetry::flush(MAX_FLUSH_TIME);
    code
}

fn run_command() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if e.use_stderr() && Config::has_json_log(None, &env) => {
            return fail(Failure::Usage(e.to_string().trim().to_owned()), true);
        }
        Err(e) => e.exit(),
    };
    if args.config.is_some()
        && let Some(name) = args.command.as_ref().and_then(Command::without_config)
    {
        let problem = format!(
            "--config: `{name}` reads no configuration file; serve, check, sandbox, coverage and \
             protos do"
        );
        return fail(Failure::Usage(problem), Config::has_json_log(None, &env));
    }
    // Not read by clap, which rejects a variable that is set but empty.
    let variable = || std::env::var_os("DRAWBRIDGE_CONFIG").filter(|path| !path.is_empty());
    let path = args.config.or_else(|| variable().map(PathBuf::from));
    let path = path.as_deref();
    let fail = |failure| fail(failure, Config::has_json_log(path, &env));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Tokio's default are the CPUs of the process: by its affinity and the cgroup's quota.
    if let Some(threads) = Config::worker_threads(path, &Overlay::of_process()) {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().on_thread_park(idle_memory::take_part);
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(Failure::from(vec![format!("cannot start: {e}")])),
    };
    let result = runtime.block_on(run(args.command.unwrap_or(Command::Serve), path));
    // The remaining tasks belong to calls that were cut off.
    runtime.shutdown_background();
    result.unwrap_or_else(fail)
}

/// Writes a failure to standard error, in the format of the log, and returns the exit code.
fn fail(failure: Failure, json: bool) -> ExitCode {
    let (code, problems) = match failure {
        Failure::Usage(text) => (ExitCode::from(2), vec![Problem::from(text)]),
        Failure::Problems(problems) => (ExitCode::FAILURE, problems),
    };
    if json {
        with_json_lines(|| {
            for problem in &problems {
                tracing::error!(
                    file = non_empty(&problem.file),
                    line = problem.line,
                    key = non_empty(&problem.key),
                    "{}",
                    problem.problem
                );
            }
        });
    } else {
        for problem in problems {
            print_error(&problem.to_string());
        }
    }
    code
}

/// Writes the warnings of a configuration to the log.
fn log_warnings(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!(
            file = non_empty(&warning.file),
            line = warning.line,
            key = non_empty(&warning.key),
            "{}",
            warning.problem
        );
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Writes to standard output. A reader that has left, such as `head`, is not a failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    match (stdout.write_all(text.as_bytes())).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::from(vec![format!(
            "cannot write to standard output: {e}"
        )])),
        _ => Ok(()),
    }
}

/// Writes to standard output. Returns false if that is not possible: the reader has left.
fn print_text(text: &str) -> bool {
    let mut stdout = io::stdout();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.is_ok()
}

/// Writes a line to standard error, which may be closed.
fn print_error(text: &str) {
    telemetry::print_line(&format!("drawbridge: {text}"));
}

async fn run(command: Command, path: Option<&Path>) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve => return Ok(serve::run(load(path, "serve")?).await?),
        #[cfg(feature = "sandbox")]
        Command::Sandbox {
            listen_beyond_loopback,
        } => return sandbox::run(path, listen_beyond_loopback).await,
        #[cfg(feature = "sandbox")]
        Command::Examples { gateway, tls } => {
            let examples = quickstart::examples(&gateway, tls);
            print(&quickstart::as_started(&examples, &banner::program()))?;
        }
        Command::Check(options) if options.identity.is_some() => {
            let decision = check::decide(&load(path, "check")?, &options)?;
            print(&format!("{}\n", decision.text))?;
            return Ok(match decision.is_allowed {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            });
        }
        Command::Check(options) => {
            let config = match load(path, "check") {
                Err(Failure::Problems(problems)) => Err(problems),
                loaded => Ok(loaded?),
            };
            return Ok(match check::run(config, &options).await? {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            });
        }
        Command::Config(config_examples::ConfigCommand::Example { kind }) => {
            print(config_examples::example(&kind)?)?;
        }
        Command::Config(config_examples::ConfigCommand::Schema) => {
            print(&format!("{:#}\n", crate::config::schema()))?;
        }
        Command::Coverage => print(&contract(path, "coverage")?.coverage())?,
        Command::Protos(options) => print(&protos::run(&options, &contract(path, "protos")?)?)?,
        Command::Token(options) => print(&token::run(&options)?)?,
        Command::Watch(options) => {
            let contract = crate::contract::with_built_in(&[])?;
            return Ok(ExitCode::from(watch::run(&options, &contract).await));
        }
        Command::Call(options) => return Ok(ExitCode::from(call::run(&options).await)),
        Command::Ls(options) => return Ok(ExitCode::from(ls::run(&options).await)),
        Command::Health(options) => return Ok(ExitCode::from(health::run(&options).await)),
        Command::Completions(options) => print(complete::script(options.shell))?,
        Command::Man => print(MANUAL)?,
        Command::Complete(options) => print(&complete::run(&options).await)?,
        Command::Describe(options) => return Ok(ExitCode::from(describe::run(&options).await)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the contract of the configuration file, or the built-in one without a file.
fn contract(path: Option<&Path>, command: &str) -> Result<Contract, Failure> {
    Ok(match path {
        Some(_) => load(path, command)?.contract()?,
        None => crate::contract::with_built_in(&[])?,
    })
}

/// Reads the configuration file, which `command` requires.
fn load(path: Option<&Path>, command: &str) -> Result<Config, Failure> {
    if path.is_none() && Overlay::of_process().is_empty() {
        let try_out = match cfg!(feature = "sandbox") {
            true => "\n  drawbridge sandbox                           needs no file",
            false => "",
        };
        return Err(Failure::Usage(format!(
            "no configuration file was given, and `{command}` requires one\n\
             \n  drawbridge {command} --config drawbridge.toml   \
             (or the variable DRAWBRIDGE_CONFIG){try_out}\n\
             \nThe smallest file:\n\
             \n  [[upstream]]\n  name = \"north\"\n  family = \"heat\"\n  \
             auth = {{ cloud = \"north\" }}   # an entry of clouds.yaml\n\
             \n`drawbridge config example KIND` prints others, and `all` describes every key."
        )));
    }
    let path = path.map(Path::to_owned);
    let source = ConfigSource::new(move || {
        let environment = Environment::default();
        let path = path.as_deref();
        let overlay = Overlay::of_process();
        let mut config = Config::load_with(path, overlay, &|name| environment.get(name))?;
        config.warnings.extend(environment.warnings());
        Ok(config)
    });
    let mut config = source.read()?;
    config.source = Some(source);
    Ok(config)
}
