//! Arguments, configuration, telemetry, run, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drawbridge::config::Config;
use drawbridge::{check, first_run, server, telemetry, terminal};
#[cfg(feature = "sandbox")]
use drawbridge_sandbox::{Sandbox, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A gRPC gateway to the REST APIs that deploy and automate infrastructure.
///
/// Without a configuration file it serves an embedded sandbox on loopback, to try
/// out.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration file; see drawbridge.example.toml. `watch` and `coverage`
    /// need none.
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "DRAWBRIDGE_CONFIG",
        global = true
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve (what is done without a command).
    Serve,
    /// Check the configuration, the contract and each upstream's login, and exit.
    Check,
    /// Print the table of what is covered: rpc, REST call, dialects.
    Coverage,
    /// Show how something goes on, over a running gateway. Exit code: 0 it settled
    /// well, 1 it settled badly, 2 it could not be told.
    Watch(Box<terminal::Options>),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(&[format!("cannot start: {e}")]),
    };
    if let Some(Command::Watch(options)) = &args.command {
        let code = runtime.block_on(watch(options));
        runtime.shutdown_background();
        return code;
    }
    let result = runtime.block_on(run(&args));
    // Tasks that are left belong to calls that were cut off.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => fail(&problems),
    }
}

fn fail(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("drawbridge: {problem}");
    }
    ExitCode::FAILURE
}

async fn watch(options: &terminal::Options) -> ExitCode {
    match drawbridge::contract::with_built_in(&[]) {
        Ok(contract) => ExitCode::from(terminal::run(options, &contract).await),
        Err(problems) => {
            fail(&problems);
            ExitCode::from(2)
        }
    }
}

async fn run(args: &Args) -> Result<(), Vec<String>> {
    if let Some(Command::Coverage) = args.command {
        print!("{}", drawbridge::contract::with_built_in(&[])?.coverage());
        return Ok(());
    }
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(args.config.as_deref(), &env)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    match args.command {
        Some(Command::Check) => check::run(&config).await,
        _ => serve(config).await,
    }
}

async fn serve(config: Config) -> Result<(), Vec<String>> {
    let telemetry = telemetry::Telemetry::start(&config.log).map_err(|e| vec![e])?;
    #[cfg(feature = "sandbox")]
    let (config, sandbox) = with_sandbox(config).await?;
    #[cfg(not(feature = "sandbox"))]
    if config.sandbox {
        return Err(vec!["this build contains no sandbox: give a configuration with an [[upstream]], or build with the feature `sandbox`".to_owned()]);
    }
    let running = server::start(config, telemetry.traces()).await?;
    print!("{}", first_run::listening(&running));
    #[cfg(feature = "sandbox")]
    if let Some(sandbox) = &sandbox {
        print!("{}", first_run::examples(&running, sandbox));
    }
    let signal = stop_signal()
        .await
        .map_err(|e| vec![format!("cannot wait for signals: {e}")])?;
    tracing::info!(signal, "draining: watches end, calls may finish");
    running.stop().await.map_err(|e| vec![e])
}

/// Starts the sandbox where the configuration has it, and adds its upstreams.
#[cfg(feature = "sandbox")]
async fn with_sandbox(mut config: Config) -> Result<(Config, Option<Sandbox>), Vec<String>> {
    if !config.sandbox {
        return Ok((config, None));
    }
    let started = Sandbox::start(([127, 0, 0, 1], 0).into(), Settings::default())
        .await
        .map_err(|e| vec![format!("cannot start the sandbox: {e}")])?;
    config.upstreams.extend(first_run::upstreams(&started));
    Ok((config, Some(started)))
}

/// SIGTERM or SIGINT, by name.
async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
