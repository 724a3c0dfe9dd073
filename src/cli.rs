//! The command line: arguments, then one module per command.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "commands write their results and errors to the terminal"
)]

pub mod check;
#[cfg(feature = "sandbox")]
pub mod quickstart;
#[cfg(feature = "sandbox")]
mod sandbox;
mod serve;
pub mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// A gRPC gateway to the REST APIs that deploy and automate infrastructure.
#[derive(Debug, Parser)]
#[command(name = "drawbridge", version)]
struct Args {
    /// The configuration file; see drawbridge.example.toml. Needed by `serve` and
    /// `check`. Default: the variable DRAWBRIDGE_CONFIG.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve the configured upstreams (the default command).
    Serve,
    /// Serve embedded upstreams of all three families, to try things out. Nothing
    /// real is called. A configuration file may set where to listen, but has no
    /// upstreams.
    #[cfg(feature = "sandbox")]
    Sandbox,
    /// Print calls to paste while `drawbridge sandbox` runs.
    #[cfg(feature = "sandbox")]
    Examples {
        /// Where the gateway listens.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
        gateway: String,
    },
    /// Check the configuration, the contract and each upstream's login, and exit.
    Check,
    /// Print the table of what is covered: rpc, REST call, dialects.
    Coverage,
    /// Watch a resource over a running gateway. Exit code: 0 it succeeded, 1 it
    /// failed, 2 unknown.
    Watch(Box<watch::Options>),
}

/// How a command ends unsuccessfully.
enum Failure {
    /// The command was used wrongly, or has nothing to work with: exit code 2.
    Usage(String),
    /// What it tried has failed: exit code 1.
    Problems(Vec<String>),
}

impl From<Vec<String>> for Failure {
    fn from(problems: Vec<String>) -> Self {
        Self::Problems(problems)
    }
}

/// Runs the command that the arguments name, and returns its exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(Failure::Problems(vec![format!("cannot start: {e}")])),
    };
    let result = runtime.block_on(run(args));
    // The tasks that are left belong to calls that were cut off.
    runtime.shutdown_background();
    result.unwrap_or_else(fail)
}

fn fail(failure: Failure) -> ExitCode {
    match failure {
        Failure::Usage(text) => {
            eprintln!("drawbridge: {text}");
            ExitCode::from(2)
        }
        Failure::Problems(problems) => {
            for problem in problems {
                eprintln!("drawbridge: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    // Not by clap, which rejects a variable that is set and empty.
    let variable = || std::env::var_os("DRAWBRIDGE_CONFIG").filter(|path| !path.is_empty());
    let path = args.config.or_else(|| variable().map(PathBuf::from));
    let path = path.as_deref();
    match args.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(load(path, "serve")?).await?,
        #[cfg(feature = "sandbox")]
        Command::Sandbox => sandbox::run(path).await?,
        #[cfg(feature = "sandbox")]
        Command::Examples { gateway } => print!("{}", quickstart::examples(&gateway, false)),
        Command::Check => check::run(&load(path, "check")?).await?,
        Command::Coverage => print!("{}", crate::contract::with_built_in(&[])?.coverage()),
        Command::Watch(options) => {
            let contract = crate::contract::with_built_in(&[])?;
            return Ok(ExitCode::from(watch::run(&options, &contract).await));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration file, which `command` needs.
fn load(path: Option<&std::path::Path>, command: &str) -> Result<Config, Failure> {
    let Some(path) = path else {
        let try_out = match cfg!(feature = "sandbox") {
            true => "\n  drawbridge sandbox                           tries it out, without a file",
            false => "",
        };
        return Err(Failure::Usage(format!(
            "there is no configuration file, and `{command}` needs one\n\
             \n  drawbridge {command} --config drawbridge.toml   \
             (or the variable DRAWBRIDGE_CONFIG){try_out}\n\
             \nThe smallest file:\n\
             \n  [[upstream]]\n  name = \"north\"\n  family = \"heat\"\n  \
             auth = {{ kind = \"keystone\", cloud = \"north\" }}   # an entry of clouds.yaml\n\
             \nEvery key is explained in drawbridge.example.toml."
        )));
    };
    let env = |name: &str| std::env::var(name).ok();
    Config::load(path, &env).map_err(problems)
}

/// Returns the problems of a configuration as lines.
fn problems(problems: Vec<crate::config::Problem>) -> Failure {
    Failure::Problems(problems.iter().map(ToString::to_string).collect())
}
