//! The binary without a configuration, and its banners.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::json;

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
    // Lines run as pasted, wherever the program is.
    let program = env!("CARGO_BIN_EXE_drawbridge");
    assert!(text.contains(&format!("  {program} call StackService/CreateStack ")));
    assert!(text.contains(&format!("job=$({program} call ")));
    assert!(!text.contains(" drawbridge "), "{text}");
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
            .arg0("target/release/drawbridge")
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
        while !banner.contains(" list\n") {
            assert_ne!(stdout.read_line(&mut banner).unwrap(), 0, "{banner}");
        }
        // The line for `drawbridge` runs as pasted.
        let joined = banner.replace("\\\n", "");
        let program = "  target/release/drawbridge ";
        let line = joined.lines().find_map(|line| line.strip_prefix(program));
        let line = line.unwrap_or_else(|| panic!("{banner}"));
        assert!(line.contains(call), "{banner}");
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let called = run(&arguments);
        assert!(called.status.success(), "{line}: {called:?}");
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
        assert!(banner.lines().count() <= 8, "{banner}");
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

/// Runs the binary to its end with this file and these variables.
fn run_with(command: &[&str], file: &str, env: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("drawbridge.toml");
    std::fs::write(&config, file).unwrap();
    Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .args(command)
        .arg("--config")
        .arg(&config)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Parses each line as a JSON object.
fn json_lines(text: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(text).unwrap();
    let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(line).collect()
}

#[test]
fn fatal_errors_are_json_lines_in_json_mode() {
    let upstream = "[[upstream]]\nname = 'u'\nfamily = 'heat'\nendpoint = 'http://127.0.0.1:1'\n";
    let json = ("DRAWBRIDGE_LOG_FORMAT", "json");
    for (command, file, env, code, want) in [
        // By the environment.
        (
            "serve",
            "[listen]\ngrpc = 3\n",
            &[json][..],
            1,
            json!({"key": "listen.grpc", "line": 2, "level": "ERROR",
                "message": "must be a string in quotes, is an integer"}),
        ),
        // By the part of the file that can be read.
        (
            "serve",
            "[log]\nformat = 'json'\nlevel = 'off'\n[[upstream]\n",
            &[],
            1,
            json!({"line": 4, "level": "ERROR"}),
        ),
        // A failure after the log has started.
        (
            "serve",
            &format!("[log]\nformat = 'json'\nlevel = 'off'\n{upstream}"),
            &[("DRAWBRIDGE_LISTEN", "192.0.2.1:1")],
            1,
            json!({"level": "ERROR"}),
        ),
        (
            "serve",
            upstream,
            &[json, ("DRAWBRIDGE_LOG", "loud")],
            1,
            json!({"file": "environment", "key": "DRAWBRIDGE_LOG"}),
        ),
        (
            "--no-such-flag",
            upstream,
            &[json],
            2,
            json!({"level": "ERROR"}),
        ),
        ("sandbox", upstream, &[json], 1, json!({"level": "ERROR"})),
    ] {
        let output = run_with(&[command], file, env);
        assert_eq!(output.status.code(), Some(code), "{command} {file}");
        assert!(output.stdout.is_empty(), "{:?}", output.stdout);
        let lines = json_lines(&output.stderr);
        let found = lines.iter().any(|line| {
            let mut want = want.as_object().unwrap().iter();
            want.all(|(key, value)| &line[key] == value)
        });
        assert!(found, "{lines:?}");
        for line in &lines {
            assert!(
                line["timestamp"].is_string() && line["message"].is_string(),
                "{line}"
            );
        }
    }
    // Text where text is configured, whatever the file says.
    let file = "[log]\nformat = 'json'\n[listen]\ngrpc = 3\n";
    let output = run_with(&["serve"], file, &[("DRAWBRIDGE_LOG_FORMAT", "text")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("drawbridge.toml:4: listen.grpc: must be"),
        "{text}"
    );
}

#[test]
fn json_mode_has_a_line_for_listening_instead_of_the_banner() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("drawbridge.toml");
    let upstream = "[[upstream]]\nname = 'north'\nfamily = 'heat'\nauth = {kind = 'none'}\n\
                    endpoint = 'http://127.0.0.1:1'\n";
    std::fs::write(&config, upstream).unwrap();
    for (arguments, sandbox, upstreams) in [
        (
            vec!["serve", "--config", config.to_str().unwrap()],
            false,
            "north (heat)",
        ),
        (vec!["sandbox"], true, "sandbox-heat (heat), "),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .args(&arguments)
            .env_clear()
            .env("DRAWBRIDGE_LISTEN", "127.0.0.1:0")
            .env("DRAWBRIDGE_ADMIN", "127.0.0.1:0")
            .env("DRAWBRIDGE_LOG_FORMAT", "json")
            .env("DRAWBRIDGE_LISTN", "a typing error")
            .env("DRAWBRIDGE_PORT", "tcp://10.0.0.1:50051")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut lines = Vec::new();
        while lines
            .last()
            .is_none_or(|line: &serde_json::Value| line["message"] != "listening")
        {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "{lines:?}");
            lines.extend(json_lines(line.as_bytes()));
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty(), "{:?}", output.stdout);
        let listening = lines.last().unwrap();
        for address in ["address", "admin"] {
            let address = listening[address].as_str().unwrap();
            assert!(address.starts_with("127.0.0.1:"), "{listening}");
        }
        assert_eq!(listening["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(listening["sandbox"], sandbox);
        let named = listening["upstreams"].as_str().unwrap();
        assert!(named.starts_with(upstreams), "{listening}");
        let unknown: Vec<_> = lines
            .iter()
            .filter(|l| l["file"] == "environment")
            .collect();
        assert_eq!(unknown.len(), 1, "{unknown:?}");
        assert_eq!(
            (&unknown[0]["key"], &unknown[0]["level"]),
            (&json!("DRAWBRIDGE_LISTN"), &json!("WARN"))
        );
    }
}
