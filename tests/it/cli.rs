//! The binary without a configuration, and as the sandbox.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

#[test]
fn missing_configuration_prints_help_and_serves_nothing() {
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

#[test]
fn empty_config_variable_is_unset() {
    for (command, code) in [("serve", 2), ("check", 2), ("coverage", 0), ("examples", 0)] {
        let output = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .arg(command)
            .env_clear()
            .env("DRAWBRIDGE_CONFIG", "")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}: {text}");
    }
}

#[test]
fn banner_announces_the_sandbox_and_fits_a_terminal() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .arg("sandbox")
        .env_clear()
        .env("DRAWBRIDGE_LISTEN", "127.0.0.1:0")
        .env("DRAWBRIDGE_ADMIN", "off")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut banner = Vec::new();
    for line in stdout.lines() {
        banner.push(line.unwrap());
        if banner
            .last()
            .is_some_and(|line| line.contains("Ctrl-C stops"))
        {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(banner[0].starts_with("SANDBOX"), "{banner:?}");
    // One more line with the admin listener.
    assert!(banner.len() <= 7, "{banner:?}");
    assert!(banner.iter().all(|line| line.len() <= 80), "{banner:?}");
}
