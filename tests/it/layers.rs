//! Imports point one way. Each directory of `src/` may use what stands before it here.

use std::collections::BTreeSet;
use std::path::Path;

/// The directories and files of `src/`, from the bottom up.
const LAYERS: &[&[&str]] = &[
    &["api"],
    &["error"],
    &["deadline"],
    &["downstream"],
    &["http_client"],
    &["credentials"],
    &["upstream"],
    &["families"],
    &["contract"],
    &["engine", "telemetry"],
    &["watch"],
    &["config"],
    &["admin"],
    &["server"],
    &["cli"],
];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The code of a file without its tests and comments.
fn code(text: &str) -> String {
    let tests = text
        .find("\n#[cfg(test)]\nmod tests {")
        .unwrap_or(text.len());
    text[..tests]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn imports_never_point_upward() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut upward = BTreeSet::new();
    let mut seen = 0;
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let from = path.split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&from) || path.ends_with("tests.rs") || path.contains("tests/")
        {
            continue;
        }
        let from_rank = rank(from).unwrap_or_else(|| panic!("src/{path} has no layer"));
        for part in code(&std::fs::read_to_string(&file).unwrap())
            .split("crate::")
            .skip(1)
        {
            let to: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let Some(to_rank) = rank(&to) else { continue };
            seen += 1;
            if to != from && to_rank >= from_rank {
                upward.insert(format!("src/{path} imports {to}"));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn the_transcoder_needs_no_runtime() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["-p", "drawbridge-transcoder"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("prost-reflect"), "{tree}");
    for name in ["tokio", "hyper", "tonic", "reqwest"] {
        assert!(
            !tree
                .lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            "{tree}"
        );
    }
}
