//! The binary without a configuration, and as the sandbox.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

#[test]
fn without_a_configuration_it_explains_itself_and_serves_nothing() {
    for arguments in [&[][..], &["serve"], &["check"]] {
        let output = run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains("there is no configuration file"), "{text}");
        assert!(text.contains("drawbridge sandbox"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn examples_need_no_gateway() {
    let output = run(&["examples", "--gateway", "127.0.0.1:7"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("127.0.0.1:7 openstack.orchestration.v1.StackService/CreateStack"));
}
