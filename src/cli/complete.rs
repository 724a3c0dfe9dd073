//! Completions of command lines: `drawbridge completions SHELL` prints a script, which runs the
//! hidden command for each completion. That one knows the commands and flags, and asks the
//! gateway for services and rpcs within a short deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgAction, Args, Command, ValueEnum};
use prost_reflect::MethodDescriptor;

use super::client::gateway::Gateway;
use super::client::names::{full_name, shortened};
use super::client::options::ConnectionOptions;
use super::client::reflection::Api;
use super::client::rules::MethodKind;
use super::client::text::first_sentence;
use super::client::{comments, variable};

/// The name of the hidden command.
pub(super) const COMMAND: &str = "__complete";
/// The gateway has this long to respond: a person waits.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Arguments of `drawbridge completions`.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = "\
Examples:
  source <(drawbridge completions bash)                    # in ~/.bashrc
  source <(drawbridge completions zsh)                     # in ~/.zshrc, after compinit
  drawbridge completions fish | source                     # in ~/.config/fish/config.fish

Names of services and rpcs are those of the gateway that --gateway or DRAWBRIDGE_GATEWAY names.")]
pub struct ScriptOptions {
    /// The shell.
    pub(super) shell: Shell,
}

/// Arguments of the hidden command.
#[derive(Args, Clone, Debug)]
pub struct Options {
    shell: Shell,
    /// The words after the name of the program; the last one is to be completed.
    #[arg(last = true)]
    words: Vec<String>,
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash, version 4 or newer.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// Without candidates the shells complete names of files.
const BASH: &str = r#"_drawbridge() {
    # Not COMP_WORDS, which are split at the colon of a URL.
    local line=${COMP_LINE:0:COMP_POINT} words IFS=$' \t\n'
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    IFS=$'\n'
    COMPREPLY=($("${words[0]}" __complete bash -- "${words[@]:1}" 2>/dev/null))
}
complete -o bashdefault -o default -F _drawbridge drawbridge
"#;
const ZSH: &str = r#"#compdef drawbridge
_drawbridge() {
    local -a found
    found=("${(@f)$(${words[1]} __complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then
        _describe -V drawbridge found
    else
        _files
    fi
}
compdef _drawbridge drawbridge
"#;
const FISH: &str = r#"function __drawbridge_complete
    set -l words (commandline -opc)
    set -l found ($words[1] __complete fish -- $words[2..] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c drawbridge -f -k -a '(__drawbridge_complete)'
"#;

/// Returns the script of a shell.
pub(super) fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    }
}

/// A word that can follow, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    word: String,
    about: String,
}

impl Candidate {
    fn new(word: impl Into<String>, about: &str) -> Self {
        Self {
            word: word.into(),
            about: first_sentence(about),
        }
    }

    fn line(&self, shell: Shell) -> String {
        match shell {
            Shell::Bash => format!("{}\n", self.word),
            Shell::Zsh => format!("{}:{}\n", self.word.replace(':', r"\:"), self.about),
            Shell::Fish => format!("{}\t{}\n", self.word, self.about),
        }
    }
}

/// Returns the candidates for the last word, a line each. Nothing if the gateway does not
/// respond.
pub(super) async fn run(options: &Options) -> String {
    let command = super::command();
    let line = CommandLine::parse(&command, &options.words);
    let mut candidates = line.candidates();
    if let Some(wanted) = line.names() {
        let found = tokio::time::timeout(TIMEOUT, names(&line, wanted)).await;
        candidates.extend(found.ok().flatten().unwrap_or_default());
    }
    candidates.retain(|candidate| candidate.word.starts_with(line.current));
    candidates
        .iter()
        .map(|candidate| candidate.line(options.shell))
        .collect()
}

/// Which names of the gateway can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Services,
    Methods,
    Watches,
    Symbols,
}

/// The words of an incomplete command line.
#[derive(Debug)]
struct CommandLine<'c> {
    /// The root, and the commands below it.
    commands: Vec<&'c Command>,
    /// The flag whose value is the last word.
    flag: Option<&'c clap::Arg>,
    /// The number of words before the last one that are no flags or values of flags.
    positionals: usize,
    /// The values of flags.
    values: BTreeMap<&'c str, Vec<&'c str>>,
    current: &'c str,
}

impl<'c> CommandLine<'c> {
    fn parse(root: &'c Command, words: &'c [String]) -> Self {
        let (current, before) = match words.split_last() {
            Some((current, before)) => (&**current, before),
            None => ("", words),
        };
        let mut line = Self {
            commands: vec![root],
            flag: None,
            positionals: 0,
            values: BTreeMap::new(),
            current,
        };
        for word in before {
            if let Some(flag) = line.flag.take() {
                line.values
                    .entry(flag.get_id().as_str())
                    .or_default()
                    .push(word);
            } else if let Some(name) = word.strip_prefix("--") {
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (name, None),
                };
                let flag = line.args().find(|arg| arg.get_long() == Some(name));
                match (flag, value) {
                    (Some(flag), Some(value)) => {
                        line.values
                            .entry(flag.get_id().as_str())
                            .or_default()
                            .push(value);
                    }
                    (flag, None) => line.flag = flag.filter(|flag| takes_value(flag)),
                    (None, Some(_)) => {}
                }
            } else if let Some(letter) = word.strip_prefix('-').and_then(|word| word.chars().last())
            {
                let flag = line.args().find(|arg| arg.get_short() == Some(letter));
                line.flag = flag.filter(|flag| takes_value(flag));
            } else if let Some(command) = line.subcommand(word) {
                line.commands.push(command);
                line.positionals = 0;
            } else {
                line.positionals += 1;
            }
        }
        line
    }

    fn command(&self) -> &'c Command {
        self.commands[self.commands.len() - 1]
    }

    fn subcommand(&self, word: &str) -> Option<&'c Command> {
        let command = self.command();
        let found = command.find_subcommand(word);
        found.filter(|_| self.positionals == 0)
    }

    /// Returns the arguments of the command, and the global ones of those above it.
    fn args(&self) -> impl Iterator<Item = &'c clap::Arg> + '_ {
        let last = self.commands.len() - 1;
        let commands = self.commands.iter().enumerate().rev();
        commands.flat_map(move |(depth, command)| {
            let args = command.get_arguments();
            args.filter(move |arg| depth == last || arg.is_global_set())
        })
    }

    /// Returns the commands, flags and values that can follow.
    fn candidates(&self) -> Vec<Candidate> {
        if let Some(flag) = self.flag {
            return values(flag);
        }
        if self.current.starts_with('-') {
            let flags = self.args().filter(|arg| !arg.is_hide_set());
            let flags = flags.filter_map(|arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                Some(Candidate::new(format!("--{}", arg.get_long()?), &help))
            });
            let help = Candidate::new("--help", "Print help");
            return flags.chain([help]).collect();
        }
        let mut candidates = Vec::new();
        if self.positionals == 0 {
            let commands = self.command().get_subcommands();
            let commands = commands.filter(|command| !command.is_hide_set());
            candidates.extend(commands.map(|command| {
                let about = command.get_about().map(ToString::to_string);
                Candidate::new(command.get_name(), &about.unwrap_or_default())
            }));
        }
        let mut positionals = self.command().get_positionals();
        if let Some(positional) = positionals.nth(self.positionals) {
            candidates.extend(values(positional));
        }
        candidates
    }

    /// Returns which names of the gateway can follow.
    fn names(&self) -> Option<Names> {
        if self.flag.is_some() || self.current.starts_with('-') || self.positionals > 0 {
            return None;
        }
        match self.command().get_name() {
            "call" => Some(Names::Methods),
            "watch" => Some(Names::Watches),
            "ls" => Some(Names::Services),
            "describe" => Some(Names::Symbols),
            _ => None,
        }
    }

    /// Returns the options of the connection.
    fn connection(&self) -> ConnectionOptions {
        let all = |name: &str| self.values.get(name).cloned().unwrap_or_default();
        let last = |name: &str| all(name).last().map(|value| (*value).to_owned());
        ConnectionOptions {
            gateway: last("gateway"),
            metadata: all("metadata").into_iter().map(str::to_owned).collect(),
            ca: last("ca").map(Into::into),
            cert: last("cert").map(Into::into),
            key: last("key").map(Into::into),
            server_name: last("server-name"),
        }
    }
}

fn takes_value(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// Returns the values of an argument: those that it is limited to, or the words in lower case of
/// a name such as `json|name|FILE`.
fn values(arg: &clap::Arg) -> Vec<Candidate> {
    let values = arg.get_possible_values();
    if values.is_empty() {
        let names = arg.get_value_names().unwrap_or_default();
        let words = names.iter().flat_map(|name| name.split('|'));
        let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
        return words
            .filter(|word| word.contains(char::is_alphabetic))
            .filter(is_word)
            .map(|word| Candidate::new(word, ""))
            .collect();
    }
    let values = values.iter().filter(|value| !value.is_hide_set());
    let values = values.map(|value| {
        let help = value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        Candidate::new(value.get_name(), &help)
    });
    values.collect()
}

/// Asks the gateway for its names.
async fn names(line: &CommandLine<'_>, wanted: Names) -> Option<Vec<Candidate>> {
    let gateway = Gateway::connect(&line.connection(), &variable).await.ok()?;
    let api = Api::load(&gateway, None).await.ok()?;
    let services: Vec<String> = api.services().map(|s| s.full_name().to_owned()).collect();
    let known: Vec<&str> = services.iter().map(String::as_str).collect();
    let mut candidates = Vec::new();
    if matches!(wanted, Names::Services | Names::Symbols) {
        for service in api.services() {
            let comment = comments::of(&service.parent_file(), service.path());
            let full = service.full_name();
            let forms = [shortened(full, &known), full];
            candidates.extend(matching(&forms, &comment, line.current));
        }
    }
    if wanted != Names::Services {
        let is_wanted = |method: &MethodDescriptor| {
            wanted != Names::Watches || MethodKind::of(method) == MethodKind::Watch
        };
        let methods: Vec<MethodDescriptor> = api.methods();
        let names: Vec<String> = methods.iter().map(full_name).collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        for (method, full) in methods.iter().zip(&known) {
            if !is_wanted(method) {
                continue;
            }
            let comment = comments::of(&method.parent_file(), method.path());
            let short = shortened(full, &known);
            let is_only = known
                .iter()
                .filter(|name| name.ends_with(&format!("/{}", method.name())));
            let bare = if is_only.count() == 1 {
                method.name()
            } else {
                short
            };
            candidates.extend(matching(&[short, bare, full], &comment, line.current));
        }
    }
    Some(candidates)
}

/// Returns the first of the forms of a name that continues the word.
fn matching(forms: &[&str], comment: &str, current: &str) -> Option<Candidate> {
    let form = forms.iter().find(|form| form.starts_with(current))?;
    Some(Candidate::new(*form, comment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn candidates(text: &str) -> Vec<String> {
        let (command, words) = (crate::cli::command(), words(text));
        let line = CommandLine::parse(&command, &words);
        let candidates = line.candidates().into_iter();
        let words = candidates.map(|candidate| candidate.word);
        words
            .filter(|word| word.starts_with(line.current))
            .collect()
    }

    #[test]
    fn commands_flags_and_values_follow() {
        for (text, want) in [
            ("des", &["describe"][..]),
            ("completions ", &["bash", "zsh", "fish"]),
            ("watch ", &["stack", "deployment", "job", "task", "help"]),
            ("watch st", &["stack"]),
            ("call --ti", &["--timeout"]),
            ("watch stack shop --ti", &["--timeout"]),
            ("ls -o ", &["json", "name"]),
            ("ls --output j", &["json"]),
            ("call -o ", &["json", "name"]),
            ("call --output n", &["name"]),
            ("call -o templ", &[]),
            ("call -d ", &[]),
            ("config example key", &["keystone"]),
            (
                "config example a",
                &["application_credential", "ak_sk", "all"],
            ),
            ("watch --output n", &["name"]),
            ("call --gateway ", &[]),
            ("config e", &["example"]),
            ("call GetStack ", &[]),
            ("__c", &[]),
            ("nonsense ", &[]),
        ] {
            let mut got = candidates(text);
            got.retain(|word| text != "watch " || word != "help" || want.contains(&"help"));
            let want: Vec<&str> = want.iter().copied().filter(|w| *w != "help").collect();
            got.retain(|word| word != "help");
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn names_follow_where_an_rpc_is_expected() {
        for (text, want) in [
            ("call ", Some(Names::Methods)),
            ("call --gateway http://a Get", Some(Names::Methods)),
            ("call -o json Get", Some(Names::Methods)),
            ("call -v Get", Some(Names::Methods)),
            ("call GetStack ", None),
            ("call --gateway ", None),
            ("call --", None),
            ("watch W", Some(Names::Watches)),
            ("watch stack ", None),
            ("ls ", Some(Names::Services)),
            ("describe ", Some(Names::Symbols)),
            ("serve ", None),
        ] {
            let (command, words) = (crate::cli::command(), words(text));
            let line = CommandLine::parse(&command, &words);
            assert_eq!(line.names(), want, "{text}");
        }
        let words = words("call --gateway a --gateway=b --metadata x=1 --ca c.pem G");
        let command = crate::cli::command();
        let connection = CommandLine::parse(&command, &words).connection();
        assert_eq!(connection.gateway.as_deref(), Some("b"));
        assert_eq!(connection.metadata, ["x=1"]);
        assert_eq!(connection.ca, Some("c.pem".into()));
    }
}
