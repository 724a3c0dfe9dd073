//! Python with pinned packages, where it can be had. In CI it must be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// One environment is made at a time: tests run side by side.
static MAKING: Mutex<()> = Mutex::new(());

/// A file below `tests/`.
pub fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

/// The Python of a virtual environment with exactly the packages of
/// `tests/{requirements}`, made the first time. None where there is no Python or no
/// package index: says in one line that `what` is left out, and fails in CI.
pub fn python(name: &str, requirements: &str, what: &str) -> Option<PathBuf> {
    match environment(name, &tests(requirements)) {
        Ok(python) => Some(python),
        Err(why) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "in CI nothing is left out: {what}: {why}"
            );
            eprintln!("LEFT OUT: {what}: {why}");
            None
        }
    }
}

fn environment(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    let wanted = std::fs::read(requirements).unwrap();
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let runs = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let version = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    if !runs(Command::new("python3").args(["-c", version])) {
        return Err("no Python 3.11 or newer with venv".into());
    }
    let _ = std::fs::remove_dir_all(&folder);
    if !runs(Command::new("python3").args(["-m", "venv"]).arg(&folder)) {
        return Err(format!("python3 -m venv {} failed", folder.display()));
    }
    let pip = ["-m", "pip", "install", "-q", "--no-input", "--no-deps"];
    if !runs(Command::new(&python).args(pip).arg("-r").arg(requirements)) {
        return Err("pip found no package index, or not all packages for this machine".into());
    }
    std::fs::write(stamp, wanted).unwrap();
    Ok(python)
}
