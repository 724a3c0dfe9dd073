//! Python environments with pinned packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Held while an environment is created, because tests run in parallel.
static CREATION: Mutex<()> = Mutex::new(());

/// Returns the path of a file below `tests/`.
pub fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

/// Returns the Python of a virtual environment with exactly the packages of
/// `tests/{requirements}`, created on first use. Panics where that is impossible.
pub fn python(name: &str, requirements: &str) -> PathBuf {
    environment(name, &tests(requirements))
        .unwrap_or_else(|why| panic!("cannot install tests/{requirements}: {why}"))
}

fn environment(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let _one = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    let wanted = std::fs::read(requirements).unwrap();
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let version = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    run(Command::new("python3").args(["-c", version]))
        .map_err(|why| format!("Python 3.11 or newer with venv is required: {why}"))?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-input",
        "--no-deps",
        "-r",
    ];
    run(Command::new(&python).args(pip).arg(requirements))
        .map_err(|why| format!("a Python package index is required: {why}"))?;
    std::fs::write(stamp, wanted).unwrap();
    Ok(python)
}

/// Runs a command. Fails with its output.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Err(format!("{command:?}: {}\n{text}", output.status))
}
