//! The suite of `heat.rs`, and a Python client, against a real OpenStack Heat
//! and Keystone on loopback. Needs Python 3.11 or newer and a package index;
//! where they are not, says in one line what is left out. In CI nothing may be.

mod stacks;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::heat::{Place, before, check_transcript, through_the_gateway, transcript};
use crate::support::Gateway;

/// A running Heat; stopped when dropped, its data kept for the next run.
struct RealHeat {
    /// None: somebody else started it and stops it.
    folder: Option<PathBuf>,
    env: Vec<(String, String)>,
}

fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

/// Keystone's port and Heat's: those of the last run, since the data knows them.
/// Where they are taken, other ones and no data.
fn ports(folder: &Path) -> [String; 2] {
    let file = folder.join("ports");
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port));
    if let Ok(text) = std::fs::read_to_string(&file) {
        let last: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let _ = Command::new(tests("real-heat/down")).arg(folder).status();
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
    let ports = held.map(|listener| listener.local_addr().unwrap().port().to_string());
    std::fs::write(file, ports.join(" ")).unwrap();
    ports
}

/// Whether there is what a real Heat needs; if not, why.
fn possible() -> Result<(), String> {
    let python = Command::new("python3")
        .args([
            "-c",
            "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))",
        ])
        .stderr(Stdio::null())
        .status();
    if !python.is_ok_and(|s| s.success()) {
        return Err("no Python 3.11 or newer with venv".into());
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-heat-venv/installed.txt");
    if venv.exists() {
        return Ok(());
    }
    let index = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-cache-dir",
            "-q",
            "-d",
        ])
        .arg(std::env::temp_dir().join("drawbridge-pip"))
        .arg("wheel")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if index.is_ok_and(|s| s.success()) {
        Ok(())
    } else {
        Err("no Python package index".into())
    }
}

impl RealHeat {
    /// Starts one, unless the environment is that of one which runs already
    /// (`eval "$(tests/real-heat/up DIR)"`).
    fn start() -> Self {
        let running: Vec<(String, String)> = std::env::vars()
            .filter(|(name, _)| name.starts_with("OS_") || name.starts_with("REAL_HEAT_"))
            .collect();
        if running.iter().any(|(name, _)| name == "REAL_HEAT_URL") {
            return Self {
                folder: None,
                env: running,
            };
        }
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = temporary.join("real-heat");
        let [keystone, heat] = ports(&folder);
        eprintln!("starting a real Heat (the first time takes about a minute)");
        let out = Command::new(tests("real-heat/up"))
            .arg(&folder)
            .env("REAL_HEAT_VENV", temporary.join("real-heat-venv"))
            .env("REAL_HEAT_KEYSTONE_PORT", keystone)
            .env("REAL_HEAT_HEAT_PORT", heat)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(out.status.success(), "tests/real-heat/up failed");
        let env = String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .filter_map(|l| l.strip_prefix("export ")?.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Self {
            folder: Some(folder),
            env,
        }
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
        if let Some(folder) = &self.folder {
            let _ = Command::new(tests("real-heat/down")).arg(folder).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_heat() {
    if let Err(why) = possible() {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI nothing is left out: {why}"
        );
        eprintln!("LEFT OUT: the suite against real Heat: {why}");
        return;
    }
    let heat = tokio::task::spawn_blocking(RealHeat::start).await.unwrap();
    let place = Place {
        heat: heat.get("REAL_HEAT_URL"),
        keystone: heat.get("OS_AUTH_URL"),
        password: heat.get("OS_PASSWORD"),
    };
    let got = transcript(&place).await;
    if std::env::var_os("UPDATE_TRANSCRIPT").is_some() {
        let text = serde_json::to_string_pretty(&got).unwrap();
        std::fs::write(tests("fixtures/heat_transcript.json"), text + "\n").unwrap();
    }
    check_transcript(&got);
    through_the_gateway(&place).await;
    stacks::life(&place).await;
    python(&heat, &place).await;
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
