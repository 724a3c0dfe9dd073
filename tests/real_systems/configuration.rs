//! Compares the reading of configuration that users already have with the tools that they
//! have it for: curl, Python's urllib, requests and openstacksdk.

use std::process::Command;

use crate::python::{python, tests};

/// Runs a script below `tests/openstacksdk`, in an empty directory and with the configuration
/// of `tests/fixtures/clouds`, and returns its output.
fn run(script: &str, arguments: &[&str]) -> String {
    let python = python("openstacksdk-venv", "openstacksdk/requirements.txt");
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(python)
        .arg(tests("openstacksdk").join(script))
        .args(arguments)
        .current_dir(empty.path())
        .env("XDG_CONFIG_HOME", tests("fixtures/clouds"))
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {problem}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn table_of_no_proxy_says_what_the_tools_do() {
    let table = tests("fixtures/config/no_proxy.tsv");
    let answers = run("no_proxy.py", &[table.to_str().unwrap()]);
    let table = std::fs::read_to_string(table).unwrap();
    let mut rows = table.lines().skip(1);
    for answer in answers.lines() {
        let row: Vec<&str> = rows.next().unwrap().split('\t').collect();
        assert_eq!(row[2..5].join("\t"), answer, "{row:?}");
    }
    assert_eq!(rows.next(), None);
}

/// What the gateway reads is in `readings.tsv`, which the first test stage checks.
#[test]
fn clouds_are_read_as_by_openstacksdk() {
    let files = [
        "openstack/clouds.yaml",
        "files/duplicates.yaml",
        "files/clouds.json",
    ];
    let root = tests("fixtures/clouds");
    let paths = files.map(|file| root.join(file).to_str().unwrap().to_owned());
    let theirs = run("clouds.py", &paths.each_ref().map(String::as_str));
    let table = std::fs::read_to_string(root.join("readings.tsv")).unwrap();
    let mut ours = table.lines().skip(1);
    let mut compared = 0;
    for theirs in theirs.lines() {
        let row: Vec<&str> = ours.next().unwrap().split('\t').collect();
        let theirs: Vec<&str> = theirs.split('\t').collect();
        assert_eq!(row[..2], theirs[..2]);
        // What is not supported is an error that says so.
        if row[2].starts_with("error: ") {
            continue;
        }
        assert_eq!(row[2], theirs[2], "{row:?}");
        compared += 1;
    }
    assert_eq!(ours.next(), None);
    assert!(compared > 40, "{compared}");
}

#[test]
fn vendor_profiles_are_those_of_openstacksdk() {
    let ours = include_str!("../../src/credentials/clouds_yaml/vendors.yaml");
    assert_eq!(run("vendors.py", &[]), ours);
}
