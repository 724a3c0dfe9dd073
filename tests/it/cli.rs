//! The binary without a configuration, and its banners.

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
fn missing_configuration_is_explained() {
    for arguments in [&[][..], &["serve"], &["check"]] {
        let output = run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains("no configuration file was given"), "{text}");
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
fn empty_variable_names_no_configuration() {
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
fn banners_say_what_is_listening_and_fit_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("drawbridge.toml");
    let upstream = "[[upstream]]\nname = 'u'\nfamily = 'heat'\nendpoint = 'http://127.0.0.1:1'\n";
    std::fs::write(&config, upstream).unwrap();
    for (arguments, first, call) in [
        (vec!["sandbox"], "SANDBOX", "TaskService/ListTasks"),
        (
            vec!["serve", "--config", config.to_str().unwrap()],
            "drawbridge serves gRPC on 127.0.0.1:",
            "GatewayService/ListUpstreams",
        ),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .args(&arguments)
            .env_clear()
            .env("DRAWBRIDGE_LISTEN", "127.0.0.1:0")
            .env("DRAWBRIDGE_ADMIN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains(call) {
            assert_ne!(stdout.read_line(&mut banner).unwrap(), 0, "{banner}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(banner.starts_with(first), "{banner}");
        for part in [
            "serves gRPC on 127",
            "/metrics /livez /readyz",
            "grpcurl -plaintext 127",
        ] {
            assert!(banner.contains(part), "{banner}");
        }
        assert!(banner.lines().count() <= 7, "{banner}");
        assert!(banner.lines().all(|line| line.len() <= 80), "{banner}");
    }
}

/// Any client may call the sandbox, so other machines reach it only where a flag says so.
#[test]
fn sandbox_listens_on_loopback_unless_a_flag_says_otherwise() {
    for (listen, admin, setting) in [
        ("0.0.0.0:0", "off", "DRAWBRIDGE_LISTEN"),
        ("[::]:0", "off", "DRAWBRIDGE_LISTEN"),
        ("127.0.0.1:0", "0.0.0.0:0", "DRAWBRIDGE_ADMIN"),
    ] {
        let sandbox = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
            command.arg("sandbox").args(arguments).env_clear();
            command
                .env("DRAWBRIDGE_LISTEN", listen)
                .env("DRAWBRIDGE_ADMIN", admin);
            command
        };
        let mut child = sandbox(&[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The first line of the banner, if it serves.
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(line, "", "{listen} {admin}");
        for part in [setting, "--listen-beyond-loopback"] {
            assert!(text.contains(part), "{text}");
        }
        if listen.starts_with('[') {
            // A machine may have no IPv6.
            continue;
        }
        let mut child = sandbox(&["--listen-beyond-loopback"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.starts_with("SANDBOX"), "{line}");
    }
}
