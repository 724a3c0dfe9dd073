//! Compares the reading of configuration that users already have with the tools that they
//! have it for: curl, Python's urllib, requests and openstacksdk.

use std::process::Command;

use crate::python::{python, tests};

/// Runs a script below `tests/openstacksdk` and returns its output.
fn run(script: &str, arguments: &[&str]) -> String {
    let python = python("openstacksdk-venv", "openstacksdk/requirements.txt");
    let mut command = Command::new(python);
    command
        .arg(tests("openstacksdk").join(script))
        .args(arguments);
    let output = command.output().unwrap();
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
