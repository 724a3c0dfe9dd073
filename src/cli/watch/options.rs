//! Arguments of `drawbridge watch`, and the streams to open for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};

use drawbridge_transcoder::contract::{Contract, Method};
use drawbridge_transcoder::json::wire;
use drawbridge_transcoder::schema::Kind;
use prost_reflect::MessageDescriptor;

/// Arguments of `drawbridge watch`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The resource to watch.
    #[command(subcommand)]
    pub subject: Subject,
    /// URL of the gateway. With https:// its certificate is checked against the CA certificates
    /// of the system, or against --ca.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        global = true
    )]
    pub gateway: String,
    /// Name of the upstream. Default: the default upstream of the family.
    #[arg(long, value_name = "NAME", global = true)]
    pub upstream: Option<String>,
    /// Project id. Default: that of the upstream.
    #[arg(long, value_name = "ID", global = true)]
    pub project: Option<String>,
    /// End after this time if the state is not final by then, with exit code 124: 90 (seconds),
    /// 30s, 10m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, global = true)]
    pub timeout: Option<Duration>,
    /// Print each message as one line of JSON, in the JSON mapping of protobuf.
    #[arg(long, global = true)]
    pub json: bool,
    /// Further request metadata; may be repeated. Set secrets in the environment instead:
    /// DRAWBRIDGE_TOKEN is sent as `drawbridge-token`, which authenticates clients of the
    /// gateway, OS_TOKEN as `x-auth-token`, for upstreams of the kind passthrough.
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    pub metadata: Vec<String>,
    /// CA certificate of the gateway, PEM.
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    pub key: Option<PathBuf>,
}

/// Parses `90`, `30s`, `10m` or `1h30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || "write seconds, or for example 30s, 10m or 1h30m".to_owned();
    let mut seconds = 0_u64;
    let mut rest = text;
    // Each unit at most once, and the longest first.
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = rest.split_at(digits.unwrap_or(rest.len()));
        let (unit_seconds, unit_len) = match unit.as_bytes().first() {
            Some(b's') => (1, 1),
            Some(b'm') => (60, 1),
            Some(b'h') => (3_600, 1),
            // A bare number.
            None if last_unit == u64::MAX => (1, 0),
            _ => return Err(invalid()),
        };
        if unit_seconds >= last_unit {
            return Err(invalid());
        }
        last_unit = unit_seconds;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let part = number.checked_mul(unit_seconds).ok_or_else(invalid)?;
        seconds = seconds.checked_add(part).ok_or_else(invalid)?;
        rest = unit.get(unit_len..).unwrap_or_default();
    }
    match seconds {
        0 => Err("must be longer than 0".to_owned()),
        // Longer ones overflow a clock.
        _ if seconds > MAX_TIMEOUT_SECONDS => Err("must be at most 10 years".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// Maximum of `--timeout`.
const MAX_TIMEOUT_SECONDS: u64 = 10 * 366 * 86_400;

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
    /// The program with its options.
    grpcurl: String,
    id: u64,
    /// `HOST:PORT` of the gateway, quoted.
    address: String,
}

impl Answer {
    /// Returns the command that selects this button, ready to paste into a shell.
    pub(super) fn command(&self, label: &str) -> String {
        let Self {
            grpcurl,
            id,
            address,
        } = self;
        let label = shell_json(label);
        format!(
            r#"{grpcurl} -d '{{"id": {id}, "labels": {{{label}: "true"}}}}' {address} {JP1AO}.TaskService/RespondTask"#
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

/// Returns the option of a header whose value is in a variable of the shell.
fn header_from_variable(name: &str, variable: &str) -> String {
    match shell_quoted(name) == name {
        true => format!(r#" -H "{name}: ${variable}""#),
        false => format!(r#" -H {}"${variable}""#, shell_quoted(&format!("{name}: "))),
    }
}

/// Returns the variable for the value of a header, for example `X_KEY` for `x-key`.
fn variable_of(name: &str) -> String {
    let mut variable = String::new();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        variable.push('_');
    }
    variable.extend(name.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    }));
    variable
}

/// Quotes an argument for a shell, if it has to be.
fn shell_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:=@%+,".contains(c);
    // zsh replaces `=a` by the path of `a`.
    match !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
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

    /// Returns the command that responds to the question of a task. Secrets are in it as the
    /// names of variables.
    pub(super) fn answer(&self, env: &dyn Fn(&str) -> Option<String>) -> Option<Answer> {
        let Subject::Task { id } = self.subject else {
            return None;
        };
        let url = url::Url::parse(&self.gateway).ok()?;
        let is_tls = url.scheme() == "https";
        let port = url.port().unwrap_or(if is_tls { 443 } else { 80 });
        let mut grpcurl = "grpcurl".to_owned();
        if !is_tls {
            grpcurl += " -plaintext";
        }
        let files = [
            ("cacert", &self.ca),
            ("cert", &self.cert),
            ("key", &self.key),
        ];
        for (flag, file) in files {
            if let Some(file) = file {
                grpcurl += &format!(" -{flag} {}", shell_quoted(&file.to_string_lossy()));
            }
        }
        if let Some(upstream) = &self.upstream {
            let header = format!("drawbridge-upstream: {upstream}");
            grpcurl += &format!(" -H {}", shell_quoted(&header));
        }
        let variables = [
            ("drawbridge-token", "DRAWBRIDGE_TOKEN"),
            ("x-auth-token", "OS_TOKEN"),
        ];
        for (name, variable) in variables {
            if env(variable).is_some() {
                grpcurl += &header_from_variable(name, variable);
            }
        }
        for text in &self.metadata {
            // The value can be a secret, and the output is kept in the logs of a CI.
            if let Some((name, _)) = text.split_once('=') {
                grpcurl += &header_from_variable(name, &variable_of(name));
            }
        }
        Some(Answer {
            grpcurl,
            id,
            address: shell_quoted(&format!("{}:{port}", url.host_str()?)),
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
                    true => Some(super::proto_json::response(contract, &path)?),
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

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, want) in [
            ("90", Some(90)),
            ("1", Some(1)),
            ("30s", Some(30)),
            ("10m", Some(600)),
            ("2h", Some(7_200)),
            ("1h30m", Some(5_400)),
            ("1h0m5s", Some(3_605)),
            ("0", None),
            ("0s", None),
            ("", None),
            ("m", None),
            ("5m5", None),
            ("5m5m", None),
            ("5s1m", None),
            ("-1", None),
            ("1.5", None),
            ("1 m", None),
            ("1d", None),
            ("5é", None),
            ("99999999999999999999", None),
            ("9999999999999999999h", None),
            ("9999999999", None),
        ] {
            let got = parse_duration(text).ok();
            assert_eq!(got, want.map(Duration::from_secs), "{text}");
        }
    }

    fn options(gateway: &str, args: &[&str]) -> Options {
        #[derive(Debug, clap::Parser)]
        struct Args {
            #[command(flatten)]
            options: Options,
        }
        let all = ["watch", "task", "7", "--gateway", gateway];
        let all = all.iter().chain(args).copied();
        <Args as clap::Parser>::parse_from(all).options
    }

    fn answer(gateway: &str, args: &[&str], env: &[&str]) -> String {
        let env = |name: &str| env.contains(&name).then(|| "secret".to_owned());
        options(gateway, args)
            .answer(&env)
            .unwrap()
            .command("labelbutton1")
    }

    #[test]
    fn answer_calls_the_same_gateway_with_the_same_credentials() {
        let end = "-d '{\"id\": 7, \"labels\": {\"labelbutton1\": \"true\"}}'";
        let rpc = "hitachi.automation.v1.TaskService/RespondTask";
        assert_eq!(
            answer("http://127.0.0.1:50051", &[], &[]),
            format!("grpcurl -plaintext {end} 127.0.0.1:50051 {rpc}")
        );
        assert_eq!(
            answer(
                "https://[::1]:50051",
                &["--ca", "my ca.pem"],
                &["DRAWBRIDGE_TOKEN"]
            ),
            format!(
                "grpcurl -cacert 'my ca.pem' -H \"drawbridge-token: $DRAWBRIDGE_TOKEN\" {end} \
                 '[::1]:50051' {rpc}"
            )
        );
        let more = ["--upstream", "it's", "--metadata", "x-my-key=hidden"];
        assert_eq!(
            answer("https://gw.example", &more, &["OS_TOKEN"]),
            format!(
                "grpcurl -H 'drawbridge-upstream: it'\\''s' -H \"x-auth-token: $OS_TOKEN\" \
                 -H \"x-my-key: $X_MY_KEY\" {end} gw.example:443 {rpc}"
            )
        );
    }

    /// Runs a command in a shell whose `grpcurl` prints its arguments.
    #[cfg(unix)]
    fn shell_arguments(command: &str, env: &[(&str, &str)]) -> Vec<String> {
        let program = "grpcurl() { printf '%s\\0' \"$@\"; }";
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
        let env = [
            ("DRAWBRIDGE_TOKEN", secret),
            ("OS_TOKEN", "token"),
            ("X_MY_KEY", secret),
            ("_1_A_B_", "digit"),
        ];
        let file = |name: &str| format!("{odd}/{name}.pem");
        let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
        let mut options = options(
            "https://[::1]:50051",
            &[
                ["--ca", &*ca],
                ["--cert", &*cert],
                ["--key", &*key],
                ["--upstream", odd],
                ["--metadata", "x-my-key=hidden"],
                ["--metadata", "1.a$b'=hidden"],
            ]
            .concat(),
        );
        let command = |options: &Options| {
            let set = |name: &str| {
                let mut env = env.iter();
                env.find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            options.answer(&set).unwrap().command(label)
        };
        let upstream = format!("drawbridge-upstream: {odd}");
        let (token, own) = (
            format!("drawbridge-token: {secret}"),
            format!("x-my-key: {secret}"),
        );
        let arguments = shell_arguments(&command(&options), &env);
        let (request, others): (Vec<_>, Vec<_>) = arguments
            .iter()
            .partition(|argument| argument.starts_with('{'));
        let want = [
            "-cacert",
            &ca,
            "-cert",
            &cert,
            "-key",
            &key,
            "-H",
            &upstream,
            "-H",
            &token,
            "-H",
            "x-auth-token: token",
            "-H",
            &own,
            "-H",
            "1.a$b': digit",
            "-d",
            "[::1]:50051",
            "hitachi.automation.v1.TaskService/RespondTask",
        ];
        assert_eq!(others, want);
        let request: serde_json::Value = serde_json::from_str(request[0]).unwrap();
        assert_eq!(
            request,
            serde_json::json!({"id": 7, "labels": {label: "true"}})
        );
        // The files of a shell's home, and options that look like one.
        for name in ["~/ca.pem", "-x", "=a", "ca[1].pem", "", " "] {
            options.ca = Some(name.into());
            assert_eq!(shell_arguments(&command(&options), &env)[1], name);
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
