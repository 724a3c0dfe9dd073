//! `docs/cli.md` and the manual page have the commands and arguments of the binary, and the
//! examples in help texts run as pasted.

use std::fmt::Write as _;
use std::process::Command;

use clap::{Arg, Command as ClapCommand};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::command_call::{ok, output, sandbox, stack};

const PAGE: &str = "docs/cli.md";
const MANUAL: &str = "docs/drawbridge.1";
const BEGIN: &str = "<!-- commands -->\n";
const END: &str = "<!-- /commands -->\n";

fn path(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Compares a file, or writes it with UPDATE_DOCS.
fn check(file: &str, generated: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path(file), generated).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path(file)).unwrap();
    let hint = "run UPDATE_DOCS=1 cargo test --test it -- cli_docs";
    assert!(
        found == generated,
        "{file} differs from the arguments: {hint}"
    );
}

/// Returns the commands that are shown, each with its name: `watch stack`.
fn commands() -> Vec<(String, ClapCommand)> {
    fn collect(prefix: &str, command: &ClapCommand, into: &mut Vec<(String, ClapCommand)>) {
        for command in command.get_subcommands() {
            if command.is_hide_set() || command.get_name() == "help" {
                continue;
            }
            let name = format!("{prefix}{}", command.get_name());
            into.push((name.clone(), command.clone()));
            collect(&format!("{name} "), command, into);
        }
    }
    let mut found = Vec::new();
    collect("", &drawbridge::cli::command(), &mut found);
    found
}

/// Returns the arguments of a command that are not those of every command.
fn arguments(command: &ClapCommand) -> Vec<&Arg> {
    let arguments = command.get_arguments();
    let is_own = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help" && !is_connection(arg);
    arguments.filter(is_own).collect()
}

fn is_connection(arg: &Arg) -> bool {
    arg.get_help_heading() == Some("Connection")
}

/// Formats an argument: `-d, --data JSON|@FILE`.
fn written(arg: &Arg) -> String {
    let short = arg.get_short().map(|letter| format!("-{letter}"));
    let long = arg.get_long().map(|name| format!("--{name}"));
    let mut text: String = [short, long]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        let value = names.join(" ");
        let value = match arg.is_positional() && !arg.is_required_set() {
            true => format!("[{value}]"),
            false => value,
        };
        text += &format!("{}{value}", if text.is_empty() { "" } else { " " });
    }
    text
}

fn help(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    let values = values.iter().filter(|value| !value.is_hide_set());
    let values: Vec<String> = values
        .filter(|_| arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {help}", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    match values.is_empty() {
        true => help,
        false => format!("{help}. {}", values.join("; ")),
    }
}

fn about(command: &ClapCommand) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    about.map(ToString::to_string).unwrap_or_default()
}

fn table<'a>(arguments: impl IntoIterator<Item = &'a Arg>) -> String {
    let mut text = "| argument | meaning |\n|---|---|\n".to_owned();
    for arg in arguments {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        // No escapes in code: a bar would end the cell there, too.
        let written = cell(&written(arg));
        writeln!(text, "| `{written}` | {} |", cell(&help(arg))).unwrap();
    }
    text
}

#[test]
fn page_has_the_commands_and_arguments() {
    let mut text = String::new();
    for (name, command) in commands() {
        let level = if name.contains(' ') { "####" } else { "###" };
        let own = arguments(&command);
        write!(
            text,
            "\n{level} drawbridge {name}\n\n{}.\n",
            about(&command).trim_end_matches('.')
        )
        .unwrap();
        if !own.is_empty() {
            let own: Vec<&Arg> = own
                .into_iter()
                .filter(|arg| !is_inherited(&name, arg))
                .collect();
            if !own.is_empty() {
                write!(text, "\n{}", table(own)).unwrap();
            }
        }
        if let Some(after) = command.get_after_help() {
            let after = after.to_string();
            let (_, examples) = after.split_once("Examples:\n").unwrap();
            let examples = examples.split("\n\n").next().unwrap();
            let lines: Vec<&str> = examples.lines().map(str::trim_start).collect();
            write!(text, "\n```sh\n{}\n```\n", lines.join("\n")).unwrap();
        }
    }
    let call = commands()
        .into_iter()
        .find(|(name, _)| name == "call")
        .unwrap()
        .1;
    let connection = call.get_arguments().filter(|arg| is_connection(arg));
    write!(
        text,
        "\n### Connection\n\nOf `call`, `watch`, `ls`, `describe` and `health`:\n\n{}\n",
        table(connection)
    )
    .unwrap();
    let page = std::fs::read_to_string(path(PAGE)).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect(BEGIN);
    let (_, tail) = rest.split_once(END).expect(END);
    check(PAGE, &format!("{head}{BEGIN}{text}{END}{tail}"));
}

/// Returns whether an argument of a command is one of the command above it, too.
fn is_inherited(name: &str, arg: &Arg) -> bool {
    let Some((above, _)) = name.rsplit_once(' ') else {
        return false;
    };
    let commands = commands();
    let above = commands.iter().find(|(name, _)| name == above);
    above.is_some_and(|(_, above)| {
        above
            .get_arguments()
            .any(|known| known.get_id() == arg.get_id())
    })
}

/// Every exit code that a help text names is in the table, and every variable in the other one.
#[test]
fn page_has_the_exit_codes_and_variables() {
    let page = std::fs::read_to_string(path(PAGE)).unwrap();
    for code in [0, 1, 2, 3, 4, 124, 130, 143] {
        assert!(page.contains(&format!("\n| {code} | ")), "{code}");
    }
    for (_, command) in commands() {
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let words = help.split(|c: char| !c.is_ascii_uppercase() && c != '_');
            for word in words.filter(|word| word.starts_with("DRAWBRIDGE_")) {
                assert!(page.contains(&format!("`{word}`")), "{word}");
            }
        }
    }
}

#[test]
fn manual_has_the_commands_and_arguments() {
    let root = drawbridge::cli::command()
        .version("")
        .disable_help_subcommand(true);
    let man = Man::new(root.clone())
        .title("drawbridge")
        .section("1")
        .date("")
        .source("drawbridge")
        .manual("");
    let mut out = Vec::new();
    man.render_title(&mut out).unwrap();
    man.render_name_section(&mut out).unwrap();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("drawbridge"), roman(" [COMMAND] [ARGUMENTS]")]);
    let section = |roff: &mut Roff, arg: &Arg| {
        roff.control("TP", []);
        roff.text([bold(written(arg))]);
        roff.text([roman(help(arg).replace('`', ""))]);
    };
    for (name, command) in commands() {
        roff.control("SH", [&*format!("drawbridge {name}").to_uppercase()]);
        let mut synopsis = format!("drawbridge {name}");
        for arg in arguments(&command)
            .into_iter()
            .filter(|arg| arg.is_positional())
        {
            synopsis += &format!(" {}", written(arg));
        }
        roff.text([bold(synopsis)]);
        roff.control("PP", []);
        roff.text([roman(about(&command).replace('\n', " ").replace('`', ""))]);
        for arg in arguments(&command) {
            if !is_inherited(&name, arg) {
                section(&mut roff, arg);
            }
        }
        if let Some(after) = command.get_after_help() {
            roff.control("PP", []);
            roff.control("nf", []);
            for line in after.to_string().lines() {
                roff.text([roman(line)]);
            }
            roff.control("fi", []);
        }
    }
    roff.control("SH", ["CONNECTION"]);
    roff.text([roman("Of call, watch, ls, describe and health:")]);
    let call = commands()
        .into_iter()
        .find(|(name, _)| name == "call")
        .unwrap()
        .1;
    for arg in call.get_arguments().filter(|arg| is_connection(arg)) {
        section(&mut roff, arg);
    }
    roff.to_writer(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    check(MANUAL, &(lines.join("\n") + "\n"));
}

/// Runs the examples of the commands that call a gateway in a shell, in their order.
#[tokio::test(flavor = "multi_thread")]
async fn examples_of_help_texts_run_as_pasted() {
    let (_sandbox, gateway) = sandbox().await;
    ok(
        &gateway,
        &["call", "CreateStack", &stack("shop"), &stack("depot")],
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_drawbridge"));
    let mut count = 0;
    for name in ["call", "watch", "ls", "describe", "health"] {
        let (_, command) = commands()
            .into_iter()
            .find(|(known, _)| known == name)
            .unwrap();
        let after = command.get_after_help().unwrap().to_string();
        let examples = after.lines().filter(|line| line.starts_with("  "));
        for line in examples {
            let mut shell = Command::new("/bin/sh");
            shell
                .args(["-euc", line])
                .env_clear()
                .env(
                    "PATH",
                    format!("{}:/usr/bin:/bin", binary.parent().unwrap().display()),
                )
                .env("DRAWBRIDGE_GATEWAY", gateway.running.grpc.to_string())
                .current_dir(folder.path());
            let out = output(shell).await;
            assert!(out.status.success(), "{line}: {out:?}");
            count += 1;
        }
    }
    assert!(count >= 15, "{count}");
}
