//! The tests of `support/heat_suite.rs` and a Python client, with a real OpenStack Heat and
//! Keystone on loopback.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::python::tests;
use crate::support::Gateway;
use crate::support::heat_suite::transcript::{check_transcript, transcript, write_transcript};
use crate::support::heat_suite::{
    HeatTarget, configs_and_deployments, gateway_settings, stack_lifecycle,
};

/// A running Heat. Stops when dropped; its data is kept for the next run.
struct RealHeat {
    folder: PathBuf,
    ports: [String; 2],
    /// Variables that `up` prints: addresses and accounts.
    env: Vec<(String, String)>,
}

/// File with the ports of a successful run, whose data can be reused.
const PORTS: &str = "ports";

/// Returns the ports of Keystone and Heat: those of the last run, because its data contains
/// them. If they are in use or the last run failed, deletes the data and returns free ports.
fn ports(folder: &Path) -> [String; 2] {
    let file = folder.join(PORTS);
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port));
    if folder.exists() {
        let _ = Command::new(tests("real-heat/down")).arg(folder).status();
    }
    if let Ok(text) = std::fs::read_to_string(&file) {
        std::fs::remove_file(&file).unwrap();
        let last: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if let Ok(last) = <[String; 2]>::try_from(last)
            && last
                .iter()
                .all(|port| port.parse().is_ok_and(|port| bind(port).is_ok()))
        {
            return last;
        }
    }
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).unwrap();
    let held = [bind(0).unwrap(), bind(0).unwrap()];
    held.map(|listener| listener.local_addr().unwrap().port().to_string())
}

/// Starts the services with these settings. Returns the variables that `up` prints.
fn up(
    folder: &Path,
    [keystone, heat]: &[String; 2],
    settings: &[(&str, &str)],
) -> Vec<(String, String)> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-heat-venv");
    let out = Command::new(tests("real-heat/up"))
        .arg(folder)
        .env("REAL_HEAT_VENV", venv)
        .env("REAL_HEAT_KEYSTONE_PORT", keystone)
        .env("REAL_HEAT_HEAT_PORT", heat)
        .env("REAL_HEAT_ABANDON", "false")
        .envs(settings.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(out.status.success(), "tests/real-heat/up failed");
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter_map(|l| l.strip_prefix("export ")?.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

impl RealHeat {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-heat");
        let ports = ports(&folder);
        eprintln!("starting a real Heat (the first time takes about a minute)");
        let env = up(&folder, &ports, &[]);
        Self { folder, ports, env }
    }

    /// Restarts the services with other settings and the same data.
    fn restart(self, settings: &[(&str, &str)]) -> Self {
        up(&self.folder, &self.ports, settings);
        self
    }

    /// Marks the data as reusable by the next run.
    fn keep_data(&self) {
        std::fs::write(self.folder.join(PORTS), self.ports.join(" ")).unwrap();
    }

    fn get(&self, name: &str) -> String {
        self.env
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.clone())
            .expect(name)
    }
}

impl Drop for RealHeat {
    fn drop(&mut self) {
        let down = tests("real-heat/down");
        let _ = Command::new(down).arg(&self.folder).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heat_suite_passes_on_real_heat() {
    let heat = tokio::task::spawn_blocking(RealHeat::start).await.unwrap();
    let target = HeatTarget {
        heat: heat.get("REAL_HEAT_URL"),
        keystone: heat.get("OS_AUTH_URL"),
        password: heat.get("OS_PASSWORD"),
    };
    let got = transcript(&target).await;
    if std::env::var_os("UPDATE_TRANSCRIPT").is_some() {
        write_transcript(&got);
    }
    check_transcript(&got);
    configs_and_deployments(&target).await;
    stack_lifecycle::create_update_and_delete(&target).await;
    python(&heat, &target).await;
    let heat = tokio::task::spawn_blocking(|| heat.restart(&[("REAL_HEAT_ABANDON", "true")]));
    let heat = heat.await.unwrap();
    stack_lifecycle::abandon_and_adopt(&target).await;
    heat.keep_data();
}

/// Runs a Python client with stubs generated from the protos, while OpenStack's own client
/// changes resources directly at Heat.
async fn python(heat: &RealHeat, target: &HeatTarget) {
    let gateway = Gateway::with(vec![gateway_settings(target)]).await;
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let python = temporary.join("real-heat-venv/bin/python");
    let mut command = Command::new(&python);
    command
        .arg(tests("python/main_job.py"))
        .env("DRAWBRIDGE_ADDR", gateway.running.grpc.to_string())
        .env("DRAWBRIDGE_STUBS", temporary.join("python-stubs"))
        .envs(heat.env.iter().map(|(k, v)| (k, v)));
    let requirements = tests("python/requirements.txt");
    let status = tokio::task::spawn_blocking(move || {
        let installed = Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-input",
                "-r",
            ])
            .arg(requirements)
            .status()
            .unwrap();
        assert!(installed.success(), "pip install");
        command.status().unwrap()
    })
    .await
    .unwrap();
    assert!(status.success(), "tests/python/main_job.py");
    gateway.running.stop().await.unwrap();
}
