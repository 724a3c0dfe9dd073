//! Arguments of `drawbridge watch`.

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::client::duration;
use crate::cli::client::options::{ConnectionOptions, UpstreamOption};

/// Arguments of `drawbridge watch`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  drawbridge watch stack shop
  drawbridge watch stack shop depot --timeout 10m -o name
  drawbridge watch TaskService/SubmitServiceAndWatch '{\"id\": 2008, \"name\": \"night shift\"}'
  drawbridge watch WatchStack '{\"stack_name\": \"shop\"}' -o json

Exit codes: 0 succeeded, 1 failed, 2 without an outcome, 124 --timeout, 130 Ctrl-C.")]
pub struct Options {
    /// The resources to watch.
    #[command(subcommand)]
    pub subject: Option<Subject>,
    /// A watch rpc instead of a resource; the package, and the service, may be left out where
    /// that is unambiguous.
    #[arg(value_name = "SERVICE/METHOD")]
    pub method: Option<String>,
    /// The request as JSON, or @FILE; @- is standard input. Each document is a watch. Default: {}.
    #[arg(value_name = "JSON")]
    pub requests: Vec<String>,
    /// The same as JSON; may be repeated.
    #[arg(long = "data", short, value_name = "JSON|@FILE")]
    pub data: Vec<String>,
    /// Project id: the field `project_id` of the request. Default: that of the upstream.
    #[arg(long, value_name = "ID", global = true)]
    pub project: Option<String>,
    /// End after this time if the state is not final by then, with exit code 124: 90 (seconds),
    /// 30s, 10m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, global = true)]
    pub timeout: Option<Duration>,
    /// Format of the output. Default: lines for people.
    #[arg(
        long,
        short,
        value_name = "json|name",
        global = true,
        conflicts_with = "json"
    )]
    pub output: Option<Format>,
    /// The same as -o json.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
    #[command(flatten)]
    pub upstream: UpstreamOption,
}

/// Format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Each message as one line of JSON, in the JSON mapping of protobuf.
    Json,
    /// The name of each resource when it has succeeded, and nothing else.
    Name,
}

/// The resources to watch.
#[derive(Clone, Debug, Subcommand)]
pub enum Subject {
    /// OpenStack stacks: their states, resources and events.
    Stack {
        /// Names, UUIDs or ARNs.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// OpenStack software deployments.
    Deployment {
        /// UUIDs.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// ServiceStage jobs and their tasks.
    Job {
        /// Ids.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// JP1/AO tasks, their steps and their logs.
    Task {
        /// Numbers.
        #[arg(required = true, value_name = "ID", value_parser = task_id)]
        ids: Vec<u64>,
    },
}

/// Parses the id of a task.
fn task_id(text: &str) -> Result<u64, String> {
    // JP1/AO has ids of 64 bits with a sign.
    let id = text.parse::<u64>().ok();
    id.filter(|id| i64::try_from(*id).is_ok()).ok_or_else(|| {
        "write the number of a task, for example 10001; `drawbridge call ListTasks` lists them"
            .to_owned()
    })
}

/// The kinds of resources, as they are written.
const KINDS: [&str; 4] = ["stack", "deployment", "job", "task"];

impl Subject {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Stack { .. } => "stack",
            Self::Deployment { .. } => "deployment",
            Self::Job { .. } => "job",
            Self::Task { .. } => "task",
        }
    }

    /// Returns the names or ids, each once.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = match self {
            Self::Stack { names } => names.clone(),
            Self::Deployment { ids } | Self::Job { ids } => ids.clone(),
            Self::Task { ids } => ids.iter().map(u64::to_string).collect(),
        };
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

/// The command that responds to the question of a task.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The flags of the connection.
    flags: String,
}

impl Answer {
    /// Returns the command that selects this button of a task, ready to paste into a shell.
    pub(super) fn command(&self, id: u64, label: &str) -> String {
        let flags = &self.flags;
        let label = shell_json(label);
        format!(
            r#"drawbridge call {RESPOND} '{{"id": {id}, "labels": {{{label}: "true"}}}}'{flags}"#
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

/// The rpc that responds to the question of a task.
pub(super) const RESPOND: &str = "hitachi.automation.v1.TaskService/RespondTask";

impl Options {
    pub(super) fn format(&self) -> Option<Format> {
        match self.json {
            true => Some(Format::Json),
            false => self.output,
        }
    }

    /// Returns the command that responds to the question of a task, in the same environment.
    pub(super) fn answer(&self) -> Answer {
        Answer {
            flags: self.connection.as_flags() + &self.upstream.as_flag(),
        }
    }

    /// Checks that there is one subject and that each flag has an effect, and returns what is
    /// wrong.
    pub(super) fn problem(&self) -> Option<String> {
        if self.project.as_deref() == Some("") {
            return Some("--project: the id is empty".to_owned());
        }
        match (&self.subject, &self.method) {
            (Some(_), Some(method)) => Some(format!("`{method}` before the kind of a resource")),
            (Some(subject), None) => self.problem_of(subject),
            (None, method) if method.as_ref().is_none_or(|name| name.trim().is_empty()) => {
                Some(format!(
                    "write what to watch: {} with its name, or SERVICE/METHOD",
                    KINDS.join(", ")
                ))
            }
            (None, Some(word)) if !word.contains(['/', '.']) => {
                // A misspelled kind, reported without a gateway.
                let near = crate::spelling::nearest(word, KINDS.into_iter());
                (!near.is_empty()).then(|| format!("no kind `{word}`{near}"))
            }
            _ => None,
        }
    }

    fn problem_of(&self, subject: &Subject) -> Option<String> {
        let kind = subject.kind();
        if !self.data.is_empty() {
            return Some(format!("-d is for SERVICE/METHOD, not for {kind}"));
        }
        if self.project.is_some() && matches!(subject, Subject::Task { .. }) {
            return Some("--project: JP1/AO has no projects".to_owned());
        }
        if subject.names().iter().any(|name| name.trim().is_empty()) {
            return Some(format!("the name of a {kind} is empty"));
        }
        None
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
                " --metadata \"x-my-key=$X_MY_KEY\" --upstream 'it'\\''s'",
            ),
        ] {
            let answer = options(args).answer();
            assert_eq!(answer.command(7, "labelbutton1"), format!("{start}{end}"));
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
            ["--metadata", "x-my-key=hidden"],
            ["--metadata", "1.a$b'=hidden"],
            ["--upstream", odd],
        ];
        let mut options = options(&args.concat());
        let command = |options: &Options| options.answer().command(7, label);
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
        (want[9], want[11]) = (&own, "1.a$b'=digit");
        assert_eq!(arguments[3..], want);
        // The files of a shell's home, and options that look like one.
        for name in ["~/ca.pem", "-x", "=a", "ca[1].pem", "", " "] {
            options.connection.ca = Some(name.into());
            assert_eq!(shell_arguments(&command(&options), &env)[6], name);
        }
    }

    #[test]
    fn flags_without_effect_are_rejected() {
        #[derive(Debug, clap::Parser)]
        struct Args {
            #[command(flatten)]
            options: Options,
        }
        for (args, want) in [
            (&["stack", "a", "a", "b"][..], None),
            (&["stack", "a", "--project", "p"], None),
            (&["WatchStack", "{}", "--project", "p"], None),
            (
                &["task", "7", "--project", "p"],
                Some("--project: JP1/AO has no projects"),
            ),
            (
                &["-d", "{}", "stack", "a"],
                Some("-d is for SERVICE/METHOD, not for stack"),
            ),
            (
                &["stack", "a", "--project", ""],
                Some("--project: the id is empty"),
            ),
            (&["job", " "], Some("the name of a job is empty")),
            (&["stack", "a", ""], Some("the name of a stack is empty")),
        ] {
            let all = [&["watch"], args].concat();
            let options = <Args as clap::Parser>::parse_from(all).options;
            assert_eq!(options.problem().as_deref(), want, "{args:?}");
        }
        let twice = <Args as clap::Parser>::parse_from(["watch", "stack", "a", "b", "a"]);
        assert_eq!(twice.options.subject.unwrap().names(), ["a", "b"]);
        for id in ["x", "-1", "1.5", "", "99999999999999999999"] {
            assert!(
                task_id(id)
                    .unwrap_err()
                    .starts_with("write the number of a task")
            );
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
