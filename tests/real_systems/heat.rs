//! The suite of `support/heat_suite.rs`, and a Python client, against a real
//! OpenStack Heat and Keystone on loopback.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::python::tests;
use crate::support::Gateway;
use crate::support::heat_suite::{
    Place, before, check_transcript, life, through_the_gateway, transcript, write_transcript,
};

/// A running Heat; stopped when dropped, its data kept for the next run.
struct RealHeat {
    folder: PathBuf,
    ports: [String; 2],
    /// What `up` prints: addresses and accounts.
    env: Vec<(String, String)>,
}

/// Of a run that ended well: its data is as new, and its ports stand there.
const PORTS: &str = "ports";

/// Keystone's port and Heat's: those of the last run, since the data knows them.
/// Where they are taken, or the last run did not end well and left who knows what,
/// other ones and no data.
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

/// Brings it up with these settings, and returns what there is to know of it.
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

    /// Restarts it with other settings, its data kept.
    fn restart(self, settings: &[(&str, &str)]) -> Self {
        up(&self.folder, &self.ports, settings);
        self
    }

    /// Marks the data as clean: the next run reuses it.
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
async fn the_suite_holds_on_real_heat() {
    let heat = tokio::task::spawn_blocking(RealHeat::start).await.unwrap();
    let place = Place {
        heat: heat.get("REAL_HEAT_URL"),
        keystone: heat.get("OS_AUTH_URL"),
        password: heat.get("OS_PASSWORD"),
    };
    let got = transcript(&place).await;
    if std::env::var_os("UPDATE_TRANSCRIPT").is_some() {
        write_transcript(&got);
    }
    check_transcript(&got);
    through_the_gateway(&place).await;
    life::life(&place).await;
    python(&heat, &place).await;
    let heat = tokio::task::spawn_blocking(|| heat.restart(&[("REAL_HEAT_ABANDON", "true")]));
    let heat = heat.await.unwrap();
    life::moved(&place).await;
    heat.keep_data();
}

/// The main job, as a user has it: a Python client with stubs generated from the
/// protos, while OpenStack's own client changes things straight at Heat.
async fn python(heat: &RealHeat, place: &Place) {
    let gateway = Gateway::with(vec![before(place)]).await;
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
