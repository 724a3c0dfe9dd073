//! `drawbridge token`: makes a client token.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

use super::Failure;
use crate::config::{ClientToken, name_problem};
use crate::telemetry::print_line;

/// The random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// The options of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// The name of the client, by which policy, log and metrics know it: `token:NAME`. Several
    /// tokens may have the same name, so that one replaces the other without an interruption.
    #[arg(value_name = "NAME")]
    name: String,
    /// Append the line to this tokens file, which is made if it does not exist. Without it, the
    /// line is written to standard error.
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
}

/// Makes a token and writes its line, which has the digest only. Returns the text to print: the
/// token, which is stored nowhere.
pub(super) fn run(options: &Options) -> Result<String, Failure> {
    if let Some(problem) = name_problem(&options.name) {
        return Err(Failure::Usage(format!("NAME: {problem}")));
    }
    let mut bytes = [0; TOKEN_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| vec!["the system has no random numbers".to_owned()])?;
    let token = SecretString::from(format!("dbt_{}", URL_SAFE_NO_PAD.encode(bytes)));
    let line = ClientToken::named(&options.name, &token).line();
    match &options.tokens_file {
        Some(path) => append(path, &line).map_err(|e| vec![format!("{}: {e}", path.display())])?,
        None => print_line(&format!("the line of the tokens file: {line}")),
    }
    Ok(format!("{}\n", token.expose_secret()))
}

/// Appends a line to a file, after a line break where the file lacks its last one.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let before = match std::fs::read(path) {
        Ok(before) => before,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    let is_open = before.last().is_some_and(|byte| *byte != b'\n');
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let start = if is_open { "\n" } else { "" };
    options
        .open(path)?
        .write_all(format!("{start}{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_appended_after_a_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        append(&path, "a").unwrap();
        append(&path, "b").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
        std::fs::write(&path, "plain").unwrap();
        append(&path, "c").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "plain\nc\n");
    }
}
