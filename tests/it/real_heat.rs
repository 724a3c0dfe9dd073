//! The suite of `heat.rs`, and a Python client, against a real OpenStack Heat
//! and Keystone on loopback. Needs Python 3.11 or newer and a package index;
//! where they are not, says in one line what is left out. In CI nothing may be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::heat::{Place, before, check_transcript, through_the_gateway, transcript};
use crate::heat_life;
use crate::support::Gateway;

/// A running Heat; stopped when dropped, its data kept for the next run.
struct RealHeat {
    /// Where it stands, and its ports; none: somebody else started it and stops it.
    own: Option<(PathBuf, [String; 2])>,
    env: Vec<(String, String)>,
}

fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
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
    /// Starts one, unless the environment is that of one which runs already
    /// (`eval "$(tests/real-heat/up DIR)"`).
    fn start() -> Self {
        let running: Vec<(String, String)> = std::env::vars()
            .filter(|(name, _)| name.starts_with("OS_") || name.starts_with("REAL_HEAT_"))
            .collect();
        if running.iter().any(|(name, _)| name == "REAL_HEAT_URL") {
            return Self {
                own: None,
                env: running,
            };
        }
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = temporary.join("real-heat");
        let ports = ports(&folder);
        eprintln!("starting a real Heat (the first time takes about a minute)");
        let env = up(&folder, &ports, &[]);
        Self {
            own: Some((folder, ports)),
            env,
        }
    }

    /// The same one with other settings, its data kept.
    fn again(self, settings: &[(&str, &str)]) -> Self {
        let (folder, ports) = self.own.as_ref().expect("one of our own");
        up(folder, ports, settings);
        self
    }

    /// All went well, and all that was made is gone: the next run may go on with it.
    fn ended_well(&self) {
        if let Some((folder, ports)) = &self.own {
            std::fs::write(folder.join(PORTS), ports.join(" ")).unwrap();
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
        if let Some((folder, _)) = &self.own {
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
    heat_life::life(&place).await;
    python(&heat, &place).await;
    if heat.own.is_none() {
        eprintln!("LEFT OUT: abandoning and adopting, which a Heat that runs already may not do");
        return;
    }
    let heat = tokio::task::spawn_blocking(|| heat.again(&[("REAL_HEAT_ABANDON", "true")]));
    let heat = heat.await.unwrap();
    heat_life::moved(&place).await;
    heat.ended_well();
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
