//! The page of the admin listener in Chromium, and the lines that it copies in a shell and in
//! Python.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::browser::chromium;
use crate::python::{python, tests};
use crate::support::{settings, start};

const TOKEN: &str = "a-token-of-the-visitor";

/// Held while packages are installed, because tests run in parallel.
static INSTALLATION: Mutex<()> = Mutex::new(());

/// Installs the packages of `page/` below `target/`, copies its scripts there, and returns the
/// directory.
fn scripts() -> PathBuf {
    let _one = INSTALLATION.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-node");
    std::fs::create_dir_all(&directory).unwrap();
    let source = tests("real_systems/page");
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
    }
    let mut npm = Command::new("npm");
    npm.args([
        "ci",
        "--silent",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    let status = npm.current_dir(&directory).status();
    let installed = status.unwrap_or_else(|e| panic!("npm is required: {e}"));
    assert!(installed.success(), "a package index of npm is required");
    directory
}

#[test]
fn copied_lines_are_what_a_shell_and_python_read() {
    let mut node = Command::new("node");
    node.arg("copy.test.mjs").current_dir(scripts());
    node.env(
        "PAGE_SOURCE",
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page"),
    );
    assert!(node.status().unwrap().success());
}

/// Forwards the connections of an address to another one, until it is dropped.
struct Relay(JoinHandle<()>);

impl Relay {
    fn new(listener: TcpListener, target: String) -> Self {
        Self(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let target = target.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }))
    }

    /// Closes the listener and its connections.
    async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_works_in_chromium() {
    let (directory, chromium, python) = tokio::task::spawn_blocking(|| {
        let python = python("page-venv", "real_systems/page/requirements.txt");
        (scripts(), chromium(), python)
    })
    .await
    .unwrap();
    let steps = sandbox::Settings {
        step: Duration::from_millis(50),
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), steps)
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut upstreams = quickstart::upstreams(&sandbox);
    let heat = upstreams[0].endpoint.as_mut().unwrap();
    let target = format!("127.0.0.1:{}", heat.port().unwrap());
    heat.set_port(Some(address.port())).unwrap();
    let mut relay = Some(Relay::new(listener, target.clone()));

    let mut config = settings(upstreams);
    config.client_tokens = vec![TOKEN.into()];
    config.server.health_check_interval = Duration::from_millis(200);
    let gateway = start(config).await.unwrap();

    let mut node = Command::new("node");
    node.arg("page.test.mjs")
        .current_dir(directory)
        .env("PAGE_URL", format!("http://{}", gateway.admin.unwrap()))
        .env("PAGE_TOKEN", TOKEN)
        .env("CHROMIUM", chromium)
        .env("PYTHON", python)
        .env(
            "PROGRAMS",
            Path::new(env!("CARGO_BIN_EXE_drawbridge"))
                .parent()
                .unwrap(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let runtime = tokio::runtime::Handle::current();
    let script = tokio::task::spawn_blocking(move || {
        let mut node = node.spawn().unwrap();
        let mut answers = node.stdin.take().unwrap();
        let lines = BufReader::new(node.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            match &*line {
                "> down" => {
                    if let Some(relay) = relay.take() {
                        runtime.block_on(relay.stop());
                    }
                }
                "> up" => {
                    let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
                    let _context = runtime.enter();
                    relay = Some(Relay::new(listener, target.clone()));
                }
                line => {
                    println!("{line}");
                    continue;
                }
            }
            answers.write_all(b"done\n").unwrap();
        }
        node.wait().unwrap()
    });
    assert!(script.await.unwrap().success());
    gateway.stop().await.unwrap();
}
