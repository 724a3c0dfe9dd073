//! Arguments of `drawbridge watch`, and the streams to open for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};

use drawbridge_transcoder::contract::{Contract, Method};
use drawbridge_transcoder::json::wire;
use drawbridge_transcoder::schema::Kind;
use prost_reflect::MessageDescriptor;

use crate::cli::client::options::ConnectionOptions;
use crate::cli::client::{duration, proto_json};

/// Arguments of `drawbridge watch`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The resource to watch.
    #[command(subcommand)]
    pub subject: Subject,
    /// Project id. Default: that of the upstream.
    #[arg(long, value_name = "ID", global = true)]
    pub project: Option<String>,
    /// End after this time if the state is not final by then, with exit code 124: 90 (seconds),
    /// 30s, 10m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, global = true)]
    pub timeout: Option<Duration>,
    /// Print each message as one line of JSON, in the JSON mapping of protobuf.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

/// The resource to watch.
#[derive(Clone, Debug, Subcommand)]
pub enum Subject {
    /// An OpenStack stack: its state, resources and events.
    Stack {
        /// Name, UUID or ARN.
        name: String,
    },
    /// An OpenStack software deployment.
    Deployment {
        /// UUID.
        id: String,
    },
    /// A ServiceStage job and its tasks.
    Job {
        /// Id.
        id: String,
    },
    /// A JP1/AO task, its steps and its log.
    Task {
        /// Number.
        id: u64,
    },
}

/// One stream of a view, with the name of its rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The states of the resource. The view ends when this stream ends.
    State(&'static str),
    /// Events of the resource.
    Events(&'static str),
    /// Lines of a log.
    Log(&'static str),
}

impl Source {
    /// Returns the name of the rpc.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::State(name) | Self::Events(name) | Self::Log(name) => name,
        }
    }
}

/// The command that responds to the question of a task.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    id: u64,
    /// The flags of the connection.
    flags: String,
}

impl Answer {
    /// Returns the command that selects this button, ready to paste into a shell.
    pub(super) fn command(&self, label: &str) -> String {
        let Self { id, flags } = self;
        let label = shell_json(label);
        format!(
            r#"drawbridge call {JP1AO}.TaskService/RespondTask '{{"id": {id}, "labels": {{{label}: "true"}}}}'{flags}"#
        )
    }
}

/// Writes a text as JSON between single quotes of a shell. The text is the upstream's: all that
/// a shell or a terminal could interpret is escaped.
fn shell_json(text: &str) -> String {
    let mut json = String::from('"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit).map(char::from) {
            Ok(c) if c.is_ascii_alphanumeric() || " .,:;_-+/()".contains(c) => json.push(c),
            _ => json += &format!("\\u{unit:04x}"),
        }
    }
    json + "\""
}

/// A stream to open.
#[derive(Clone, Debug)]
pub(super) struct StreamRequest {
    pub(super) source: Source,
    pub(super) method: Arc<Method>,
    pub(super) request: Bytes,
    /// For events and logs: the request field to resume at, and the message member that has
    /// its value.
    pub(super) resume: Option<(u32, Box<str>)>,
    /// The response message, if it is printed in the JSON mapping of protobuf.
    pub(super) descriptor: Option<MessageDescriptor>,
}

const HEAT: &str = "openstack.orchestration.v1";
const SERVICESTAGE: &str = "huaweicloud.servicestage.v3";
const JP1AO: &str = "hitachi.automation.v1";

impl Options {
    /// Returns the title of the view.
    pub(super) fn title(&self) -> String {
        match &self.subject {
            Subject::Stack { name } => format!("stack {name}"),
            Subject::Deployment { id } => format!("deployment {id}"),
            Subject::Job { id } => format!("job {id}"),
            Subject::Task { id } => format!("task {id}"),
        }
    }

    /// Returns the command that responds to the question of a task, in the same environment.
    pub(super) fn answer(&self) -> Option<Answer> {
        let Subject::Task { id } = self.subject else {
            return None;
        };
        Some(Answer {
            id,
            flags: self.connection.as_flags(),
        })
    }

    /// Returns the streams of the view, beginning with that of the state. Without that one
    /// in the contract there are none; others may be missing.
    pub(super) fn stream_requests(&self, contract: &Contract) -> Vec<StreamRequest> {
        let stream_request =
            |package: &str, service: &str, source: Source, fields: &[(&str, &str)]| {
                let path = format!("/{package}.{service}/{}", source.name());
                let method = contract.method(&path)?;
                let resume = match source {
                    Source::State(_) => None,
                    Source::Events(_) => Some(("marker", "marker")),
                    Source::Log(_) => Some(("offset", "next_offset")),
                };
                let input = method.schema.message(method.input);
                let resume = match resume {
                    Some((field, member)) => {
                        let output = method.schema.message(method.output);
                        let member = output.field(member)?.1.wire_name.clone();
                        Some((input.field(field)?.1.number, member))
                    }
                    None => None,
                };
                let mut request = Vec::new();
                let project = self
                    .project
                    .as_deref()
                    .map(|project| ("project_id", project));
                for (name, value) in fields.iter().copied().chain(project) {
                    let Some((_, field)) = input.field(name) else {
                        continue;
                    };
                    match (field.kind, value.parse()) {
                        (Kind::String, _) => {
                            wire::write_bytes(&mut request, field.number, value.as_bytes());
                        }
                        (_, Ok(number)) => wire::write_uint(&mut request, field.number, number),
                        _ => {}
                    }
                }
                let descriptor = match self.json {
                    true => Some(proto_json::response(contract, &path)?),
                    false => None,
                };
                Some(StreamRequest {
                    source,
                    method: method.clone(),
                    request: request.into(),
                    resume,
                    descriptor,
                })
            };
        let stream_requests = match &self.subject {
            Subject::Stack { name } => [
                stream_request(
                    HEAT,
                    "StackService",
                    Source::State("WatchStack"),
                    &[("stack_name", name)],
                ),
                stream_request(
                    HEAT,
                    "StackEventService",
                    Source::Events("WatchStackEvents"),
                    &[("stack_name", name), ("until_final", "1")],
                ),
            ],
            Subject::Deployment { id } => [
                stream_request(
                    HEAT,
                    "SoftwareDeploymentService",
                    Source::State("WatchSoftwareDeployment"),
                    &[("deployment_id", id)],
                ),
                None,
            ],
            Subject::Job { id } => [
                stream_request(
                    SERVICESTAGE,
                    "JobService",
                    Source::State("WatchJob"),
                    &[("job_id", id)],
                ),
                None,
            ],
            Subject::Task { id } => {
                let id = id.to_string();
                [
                    stream_request(
                        JP1AO,
                        "TaskService",
                        Source::State("WatchTask"),
                        &[("id", &id), ("steps", "1")],
                    ),
                    stream_request(
                        JP1AO,
                        "TaskService",
                        Source::Log("WatchTaskLog"),
                        &[("task_id", &id)],
                    ),
                ]
            }
        };
        match stream_requests {
            [None, _] => Vec::new(),
            stream_requests => stream_requests.into_iter().flatten().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        #[derive(Debug, clap::Parser)]
        struct Args {
            #[command(flatten)]
            options: Options,
        }
        let all = ["watch", "task", "7"];
        let all = all.iter().chain(args).copied();
        <Args as clap::Parser>::parse_from(all).options
    }

    #[test]
    fn answer_calls_the_same_gateway_with_the_same_credentials() {
        let start = "drawbridge call hitachi.automation.v1.TaskService/RespondTask \
                     '{\"id\": 7, \"labels\": {\"labelbutton1\": \"true\"}}'";
        let more = ["--upstream", "it's", "--metadata", "x-my-key=hidden"];
        for (args, end) in [
            (&[][..], ""),
            (
                &["--gateway", "https://[::1]:50051", "--ca", "my ca.pem"],
                " --gateway 'https://[::1]:50051' --ca 'my ca.pem'",
            ),
            (
                &more,
                " --upstream 'it'\\''s' --metadata \"x-my-key=$X_MY_KEY\"",
            ),
        ] {
            let answer = options(args).answer().unwrap();
            assert_eq!(answer.command("labelbutton1"), format!("{start}{end}"));
        }
    }

    /// Runs a command in a shell whose `drawbridge` prints its arguments.
    #[cfg(unix)]
    fn shell_arguments(command: &str, env: &[(&str, &str)]) -> Vec<String> {
        let program = "drawbridge() { printf '%s\\0' \"$@\"; }";
        let folder = tempfile::tempdir().unwrap();
        let output = std::process::Command::new("/bin/sh")
            .args(["-euc", &format!("{program}\n{command}")])
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {problem}");
        let text = String::from_utf8(output.stdout).unwrap();
        let arguments = text.split_terminator('\0').map(str::to_owned);
        arguments.collect()
    }

    /// What the shell makes of the command: nothing in it is interpreted.
    #[cfg(unix)]
    #[test]
    fn shell_reads_each_argument_of_the_answer() {
        let odd = r#"it's "$HOME" `id` $(id) \ *~;&|<>#!"#;
        let label = "label'; $(id) \"x\" \\ \u{e9}";
        let secret = r#"a'b"c $d \"#;
        let env = [("X_MY_KEY", secret), ("_1_A_B_", "digit")];
        let file = |name: &str| format!("{odd}/{name}.pem");
        let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
        let args = [
            ["--gateway", "https://[::1]:50051"],
            ["--ca", &*ca],
            ["--cert", &*cert],
            ["--key", &*key],
            ["--upstream", odd],
            ["--metadata", "x-my-key=hidden"],
            ["--metadata", "1.a$b'=hidden"],
        ];
        let mut options = options(&args.concat());
        let command = |options: &Options| options.answer().unwrap().command(label);
        let arguments = shell_arguments(&command(&options), &env);
        let own = format!("x-my-key={secret}");
        assert_eq!(
            arguments[..2],
            ["call", "hitachi.automation.v1.TaskService/RespondTask"]
        );
        let request: serde_json::Value = serde_json::from_str(&arguments[2]).unwrap();
        assert_eq!(
            request,
            serde_json::json!({"id": 7, "labels": {label: "true"}})
        );
        let mut want = args.concat();
        (want[11], want[13]) = (&own, "1.a$b'=digit");
        assert_eq!(arguments[3..], want);
        // The files of a shell's home, and options that look like one.
        for name in ["~/ca.pem", "-x", "=a", "ca[1].pem", "", " "] {
            options.connection.ca = Some(name.into());
            assert_eq!(shell_arguments(&command(&options), &env)[6], name);
        }
    }

    #[test]
    fn label_cannot_leave_its_quotes() {
        for (label, want) in [
            ("labelbutton1", r#""labelbutton1""#),
            (
                "label'; rm -rf ~ #",
                r#""label\u0027; rm -rf \u007e \u0023""#,
            ),
            (
                "label\"\\$(x)`\n\u{1b}\u{202e}",
                r#""label\u0022\u005c\u0024(x)\u0060\u000a\u001b\u202e""#,
            ),
            ("label😀", r#""label\ud83d\ude00""#),
        ] {
            assert_eq!(shell_json(label), want);
            let read: String = serde_json::from_str(want).unwrap();
            assert_eq!(read, label);
        }
    }
}
