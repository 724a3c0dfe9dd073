//! `drawbridge ls`: lists the services of a running gateway, or the rpcs of one.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};
use serde_json::{Value, json};

use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::names::{self, Found};
use super::client::options::ConnectionOptions;
use super::client::reflection::Api;
use super::client::rules::{self, MethodKind};
use super::client::text::{first_sentence, sanitize};
use super::client::{comments, exit_code, variable};

/// Arguments of `drawbridge ls`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  drawbridge ls
  drawbridge ls StackService
  drawbridge ls deployment -o name
  drawbridge ls -o json

Exit codes: 0 listed, 1 the gateway responded an error, 2 no such service, or no gateway, \
130 Ctrl-C.")]
pub struct Options {
    /// A service, whose package may be left out, or a part of the name of services and rpcs.
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Format of the list. Default: names with the first sentence of their comments.
    #[arg(long, short, value_name = "json|name")]
    output: Option<Format>,
    #[command(flatten)]
    connection: ConnectionOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON document with kinds, types, REST calls and comments.
    Json,
    /// Full names only.
    Name,
}

/// Prints the list, and returns the exit code.
pub async fn run(options: &Options) -> u8 {
    tokio::select! {
        result = list(options) => match result {
            Ok(text) => {
                super::print_text(&text);
                exit_code::SUCCEEDED
            }
            Err(failure) => {
                failure.print();
                failure.code
            }
        },
        _ = tokio::signal::ctrl_c() => exit_code::INTERRUPTED,
    }
}

async fn list(options: &Options) -> Result<String, Failure> {
    options.service.as_deref().map_or(Ok(()), names::check)?;
    let gateway = Gateway::connect(&options.connection, &variable).await;
    let gateway = gateway.map_err(Failure::unknown)?;
    let api = Api::load(&gateway, None).await?;
    let selection = Selection::of(&api, options.service.as_deref())?;
    let columns = std::io::stdout()
        .is_terminal()
        .then(|| usize::from(console::Term::stdout().size().1));
    Ok(match options.output {
        Some(Format::Json) => format!("{:#}\n", selection.json()),
        Some(Format::Name) => selection.names(),
        None => selection.table(columns),
    })
}

/// What is listed.
enum Selection {
    Services(Vec<ServiceDescriptor>),
    Methods(Vec<MethodDescriptor>),
}

impl Selection {
    fn of(api: &Api, wanted: Option<&str>) -> Result<Self, Failure> {
        let services: Vec<ServiceDescriptor> = api.services().collect();
        let Some(wanted) = wanted else {
            return Ok(Self::Services(services));
        };
        let names: Vec<&str> = services.iter().map(|s| s.full_name()).collect();
        match names::find(wanted, &names) {
            Found::One(index) => Ok(Self::Methods(services[index].methods().collect())),
            Found::Several(several) => Err(Failure::unknown(names::ambiguous(wanted, &several))),
            Found::None(similar) => {
                let word = wanted.to_lowercase();
                let mut methods = api.methods();
                methods.retain(|m| names::full_name(m).to_lowercase().contains(&word));
                match methods.is_empty() {
                    false => Ok(Self::Methods(methods)),
                    true => {
                        let hint = names::did_you_mean(&similar);
                        let name = sanitize(wanted);
                        Err(Failure::unknown(format!("no service or rpc {name}{hint}")))
                    }
                }
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<String> = match self {
            Self::Services(services) => services.iter().map(|s| s.full_name().to_owned()).collect(),
            Self::Methods(methods) => methods.iter().map(names::full_name).collect(),
        };
        names.iter().map(|name| format!("{name}\n")).collect()
    }

    fn json(&self) -> Value {
        match self {
            Self::Services(services) => services
                .iter()
                .map(|service| {
                    let methods = service.methods().map(|method| method_json(&method));
                    json!({
                        "service": service.full_name(),
                        "comment": comments::of(&service.parent_file(), service.path()),
                        "methods": methods.collect::<Value>(),
                    })
                })
                .collect(),
            Self::Methods(methods) => methods.iter().map(method_json).collect(),
        }
    }

    /// Formats rows of a name, the kind of an rpc, and a sentence, at most this wide.
    fn table(&self, columns: Option<usize>) -> String {
        let rows: Vec<[String; 3]> = match self {
            Self::Services(services) => services
                .iter()
                .map(|service| {
                    let comment = comments::of(&service.parent_file(), service.path());
                    let count = service.methods().len();
                    [service.full_name().to_owned(), count.to_string(), comment]
                })
                .collect(),
            Self::Methods(methods) => {
                let first = methods.first().map(|m| m.parent_service().clone());
                let is_one = methods
                    .iter()
                    .all(|m| Some(m.parent_service()) == first.as_ref());
                methods
                    .iter()
                    .map(|method| {
                        let name = match is_one {
                            true => method.name().to_owned(),
                            false => names::short_name(method),
                        };
                        let kind = MethodKind::of(method).name().to_owned();
                        let comment = comments::of(&method.parent_file(), method.path());
                        [name, kind, comment]
                    })
                    .collect()
            }
        };
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let (names, kinds) = (width(0), width(1));
        let mut text = String::new();
        for [name, kind, comment] in &rows {
            let line = format!("{name:names$}  {kind:kinds$}  {}", first_sentence(comment));
            let line = match columns {
                Some(columns) => console::truncate_str(&line, columns, "…").into_owned(),
                None => line,
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

fn method_json(method: &MethodDescriptor) -> Value {
    json!({
        "method": names::full_name(method),
        "kind": MethodKind::of(method).name(),
        "request": method.input().full_name(),
        "response": method.output().full_name(),
        "route": rules::route(method),
        "comment": comments::of(&method.parent_file(), method.path()),
    })
}
