//! The official clients of Connect and gRPC-Web: connect-node in Node, connect-web and grpc-web
//! in headless Chromium, and curl. They call the sandbox through a gateway.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};

use crate::python::tests;
use crate::support::{Gateway, settings};

/// Held while packages are installed, because tests run in parallel.
static INSTALLATION: Mutex<()> = Mutex::new(());

/// The oldest Node that the packages accept.
const NODE_MAJOR: u32 = 20;

/// The names of Chromium, from Debian and others.
const CHROMIUM: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Runs a command, and returns its output. Panics where it fails.
fn run(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).flat_map(|folder| {
        let names = names.to_vec();
        names.into_iter().map(move |name| folder.join(name))
    });
    all.find(|file| file.is_file())
}

/// Returns Chromium, which Debian's package manager installs if it may.
pub fn chromium() -> PathBuf {
    if let Some(found) = find(&CHROMIUM) {
        return found;
    }
    if find(&["apt-get"]).is_some() && rustix::process::geteuid().is_root() {
        run(Command::new("apt-get").args(["update", "-q"]));
        let install = ["install", "-y", "-q", "--no-install-recommends", "chromium"];
        run(Command::new("apt-get").args(install));
    }
    find(&CHROMIUM).expect("Chromium is required: apt-get install chromium")
}

/// Returns the folder with the scripts, and the packages of their lock file.
fn scripts() -> PathBuf {
    let _one = INSTALLATION.lock().unwrap_or_else(PoisonError::into_inner);
    let version = run(Command::new("node").arg("--version"));
    let major = version.trim().trim_start_matches('v').split('.').next();
    let major = major.and_then(|major| major.parse::<u32>().ok());
    assert!(
        major.is_some_and(|major| major >= NODE_MAJOR),
        "Node {NODE_MAJOR} or newer is required, this is {version}"
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    std::fs::create_dir_all(&folder).unwrap();
    let source = tests("real_systems/browser");
    let stamp = folder.join("installed.json");
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let wanted = std::fs::read(source.join("package-lock.json")).unwrap();
    if !std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        let ci = ["ci", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(ci).current_dir(&folder));
        std::fs::write(stamp, wanted).unwrap();
    }
    std::fs::write(
        folder.join("contract.binpb"),
        drawbridge::contract::BUILT_IN,
    )
    .unwrap();
    let bundle = [
        "--bundle",
        "page.mjs",
        "--outfile=page.js",
        "--log-level=warning",
    ];
    let esbuild = folder.join("node_modules/.bin/esbuild");
    run(Command::new(esbuild).args(bundle).current_dir(&folder));
    std::fs::write(folder.join("index.html"), "<script src=page.js></script>").unwrap();
    folder
}

/// Serves the page from an origin of its own, and returns that.
async fn page(folder: PathBuf) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let name = match request.uri().path() {
            "/" => "index.html".to_owned(),
            path => path.trim_start_matches('/').to_owned(),
        };
        let content_type = match name.rsplit_once('.') {
            Some((_, "html")) => "text/html",
            Some((_, "js")) => "text/javascript",
            _ => "application/octet-stream",
        };
        let content = std::fs::read(folder.join(name)).unwrap_or_default();
        async move { ([("content-type", content_type)], content) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    origin
}

async fn start(origins: &[String]) -> (Sandbox, Gateway) {
    let settings_ = sandbox::Settings {
        step: Duration::from_millis(200),
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings_);
    let sandbox = sandbox.await.unwrap();
    let mut config = settings(quickstart::upstreams(&sandbox));
    config.web.allowed_origins = origins.to_vec();
    config.web.connect_get = !origins.is_empty();
    (sandbox, Gateway::start(config).await)
}

async fn node(folder: &Path, arguments: Vec<String>) -> String {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(folder);
    // The gateway is not behind a proxy.
    command.env("NO_PROXY", "127.0.0.1");
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_node_passes_by_each_protocol() {
    let folder = tokio::task::spawn_blocking(scripts).await.unwrap();
    let (sandbox, gateway) = start(&[]).await;
    let url = format!("http://{}", gateway.running.grpc);
    let arguments = ["node.mjs".to_owned(), url, "contract.binpb".to_owned()];
    let text = node(&folder, arguments.to_vec()).await;
    for name in [
        "grpc",
        "connect-json-http1",
        "connect-proto-http1",
        "grpc-web-http1",
        "connect-json-http2",
        "connect-proto-http2",
        "grpc-web-http2",
    ] {
        assert!(text.contains(&format!("node {name}: 8 checks")), "{text}");
    }
    gateway.running.stop().await.unwrap();
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_chromium_call_where_they_are_allowed() {
    let (chromium, folder) = tokio::task::spawn_blocking(|| (chromium(), scripts()))
        .await
        .unwrap();
    let origin = page(folder.clone()).await;
    for is_allowed in [true, false] {
        let origins = is_allowed.then(|| origin.clone());
        let (sandbox, gateway) = start(origins.as_slice()).await;
        let text = node(
            &folder,
            vec![
                "chromium.mjs".to_owned(),
                chromium.display().to_string(),
                origin.clone(),
                format!("http://{}", gateway.running.grpc),
                if is_allowed { "yes" } else { "no" }.to_owned(),
            ],
        )
        .await;
        if is_allowed {
            for name in ["connect-json", "connect-proto", "connect-get", "grpc-web"] {
                assert!(
                    text.contains(&format!("chromium {name}: 8 checks")),
                    "{text}"
                );
            }
            assert!(text.contains("chromium grpc-web text: 4 checks"), "{text}");
        } else {
            assert!(text.contains("chromium is not allowed: "), "{text}");
            assert!(text.contains("Failed to fetch"), "{text}");
        }
        gateway.running.stop().await.unwrap();
        sandbox.stop().await;
    }
}

/// The README's line, as pasted but for the address.
#[tokio::test(flavor = "multi_thread")]
async fn curl_of_the_readme_works() {
    let (sandbox, gateway) = start(&[]).await;
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|line| line.starts_with("curl "));
    let line = line.expect("a line with curl");
    let address = gateway.running.grpc.to_string();
    let get = line.replace("127.0.0.1:50051", &address);
    let body = r#"{"stack_name":"shop","template":"heat_template_version: 2018-08-31"}"#;
    let create = get
        .replace(r#"{"stack_name":"shop"}"#, body)
        .replace("/GetStack", "/CreateStack");
    for line in [create, get] {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{line} -sS --fail-with-body")]);
        command.env("NO_PROXY", "127.0.0.1");
        let text = tokio::task::spawn_blocking(move || run(&mut command));
        let text = text.await.unwrap();
        assert!(text.starts_with(r#"{"stack":{"#), "{text}");
    }
    gateway.running.stop().await.unwrap();
    sandbox.stop().await;
}
