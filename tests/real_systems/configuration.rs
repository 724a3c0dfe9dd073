//! Compares the reading of configuration that users already have with the tools that they
//! have it for: curl, Python's urllib, requests and openstacksdk. Validates examples of the
//! gateway's own file with jsonschema.

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
        "files/variants.yaml",
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

/// The first test stage has a validator of its own, of the keywords that the schema uses.
#[test]
fn schema_of_the_configuration_is_that_of_jsonschema() {
    let python = python("jsonschema-venv", "config_schema/requirements.txt");
    let drawbridge = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        let output = command.arg("config").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let schema = write("schema.json", drawbridge(&["schema"]));
    let kinds = "minimal cloud from_env keystone application_credential rackspace ak_sk basic \
                 hsso token passthrough none all";
    let mut files: Vec<_> = kinds
        .split(' ')
        .map(|kind| write(kind, drawbridge(&["example", kind])))
        .collect();
    let valid = files.len();
    files.push(tests("fixtures/config/wrong.toml"));
    let output = Command::new(python)
        .arg(tests("config_schema/validate.py"))
        .arg(schema)
        .args(files)
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    for (n, (name, result)) in lines.iter().enumerate() {
        assert_eq!(n < valid, *result == "valid", "{name}: {result}");
    }
    assert!(lines.len() > valid + 40, "{text}");
}
