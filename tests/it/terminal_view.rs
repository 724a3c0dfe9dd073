//! `drawbridge watch` in pseudo-terminals, and over TLS.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write as _};
use std::num::NonZero;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drawbridge::config::Tls;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_json::{Value, json};

use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, upstream};
use crate::terminal::text;

/// Longer than anything here takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A view in a pseudo-terminal. Killed when dropped.
pub struct Terminal {
    child: Child,
    master: OwnedFd,
    slave: File,
    chunks: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
    screen: vt100::Parser,
    rows: u16,
    raw: Vec<u8>,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn nonzero(length: u16) -> NonZero<u16> {
    NonZero::new(length).unwrap()
}

fn path(name: &CStr) -> &str {
    name.to_str().unwrap()
}

impl Terminal {
    /// Starts the view in a terminal with this many columns.
    pub fn start(gateway: &Gateway, args: &[&str], columns: u16, env: &[(&str, &str)]) -> Self {
        Self::start_sized(gateway, args, (columns, 50), env)
    }

    /// As [`Terminal::start`], with this many columns and rows. None, as of a serial console that
    /// does not know its size, are a screen of 80 columns.
    fn start_sized(
        gateway: &Gateway,
        args: &[&str],
        size: (u16, u16),
        env: &[(&str, &str)],
    ) -> Self {
        Self::start_command(gateway, &[&["watch"], args].concat(), size, env)
    }

    /// Starts any command of a client.
    fn start_command(
        gateway: &Gateway,
        args: &[&str],
        (columns, rows): (u16, u16),
        env: &[(&str, &str)],
    ) -> Self {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        rustix::termios::tcsetwinsize(&master, size(columns, rows)).unwrap();
        let open = || {
            let mut options = File::options();
            options.read(true).write(true).open(path(&name)).unwrap()
        };
        let child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .args(args)
            .args(["--gateway", &format!("http://{}", gateway.running.grpc)])
            .env_clear()
            .env("TERM", "xterm-256color")
            // Those of a shell that has exported the size of an earlier terminal.
            .env("COLUMNS", "80")
            .envs(env.iter().copied())
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let mut out = File::from(master.try_clone().unwrap());
        let (sender, chunks) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The read fails when the last process has closed the terminal.
            while let Ok(read) = out.read(&mut buffer) {
                if read == 0 || sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            master,
            slave: open(),
            chunks,
            screen: match (columns, rows) {
                (0, _) | (_, 0) => vt100::Parser::new(nonzero(24), nonzero(80), 0),
                _ => vt100::Parser::new(nonzero(rows), nonzero(columns), 0),
            },
            rows,
            raw: Vec::new(),
        }
    }

    /// Resizes the terminal, and signals it as the kernel does to a foreground process. What
    /// the process has written before is on the screen of the old size.
    async fn resize(&mut self, columns: u16) {
        const MARKER: u8 = 0x07;
        self.signal(rustix::process::Signal::STOP);
        let id = rustix::process::Pid::from_child(&self.child);
        let stopped = rustix::process::WaitOptions::UNTRACED;
        let (_, status) = rustix::process::waitpid(Some(id), stopped)
            .unwrap()
            .unwrap();
        assert!(status.stopped());
        self.slave.write_all(&[MARKER]).unwrap();
        while !self.raw.contains(&MARKER) {
            assert!(self.read().await);
        }
        rustix::termios::tcsetwinsize(self.master.as_fd(), size(columns, self.rows)).unwrap();
        self.screen
            .screen_mut()
            .set_size(nonzero(self.rows), nonzero(columns));
        self.signal(rustix::process::Signal::WINCH);
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    async fn read(&mut self) -> bool {
        match self.chunks.recv().await {
            Some(chunk) => {
                self.screen.process(&chunk);
                self.raw.extend(chunk);
                true
            }
            None => false,
        }
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) {
        let mut keyboard = File::from(self.master.try_clone().unwrap());
        keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Reads until the screen is as wanted.
    pub async fn until(&mut self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let until = async {
            loop {
                let rows = self.screen_rows();
                if wanted(&rows) {
                    return rows;
                }
                assert!(self.read().await, "it has ended: {rows:#?}");
            }
        };
        let until = tokio::time::timeout(TEST_TIMEOUT, until).await;
        until.unwrap_or_else(|_| panic!("not on the screen: {:#?}", self.screen_rows()))
    }

    /// Returns the rows of the screen that are not empty.
    fn screen_rows(&self) -> Vec<String> {
        let screen = self.screen.screen();
        let rows = screen.rows(0, screen.size().1.get());
        rows.filter(|row| !row.trim().is_empty()).collect()
    }

    /// Reads the rest. Returns the exit code, the rows of the screen and all bytes.
    pub async fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        // The read ends when nothing has the terminal open.
        drop(std::mem::replace(
            &mut self.slave,
            File::open("/dev/null").unwrap(),
        ));
        while self.read().await {}
        let code = self.child.wait().unwrap().code();
        let rows = self.screen_rows();
        let raw = String::from_utf8(std::mem::take(&mut self.raw)).unwrap();
        (code, rows, raw)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The process may have exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ServiceStage whose job has three tasks, the first of which has the name `name`. A test
/// completes them one by one.
struct Job {
    gateway: Gateway,
    recorder: Recorder,
    done: Arc<AtomicUsize>,
}

impl Job {
    async fn start(name: &'static str) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let current = Arc::clone(&done);
        let recorder = Recorder::start(move |_| {
            let done = current.load(Ordering::SeqCst);
            let tasks: Vec<Value> = [name, "deploy", "verify"]
                .iter()
                .enumerate()
                .map(|(number, name)| {
                    let status = match number < done {
                        true => "SUCCEEDED",
                        false => "RUNNING",
                    };
                    json!({"task_id": number.to_string(), "task_name": name,
                        "task_status": status})
                })
                .collect();
            let status = if done < 3 { "RUNNING" } else { "SUCCEEDED" };
            let job = json!({"job_id": "J", "execution_status": status});
            Answer::json(200, &json!({"task_count": 3, "job": job, "tasks": tasks}))
        })
        .await;
        Self {
            gateway: Gateway::with(vec![upstream("u", "servicestage", &recorder.url())]).await,
            recorder,
            done,
        }
    }

    fn complete(&self, done: usize) {
        self.done.store(done, Ordering::SeqCst);
    }
}

/// Returns the rows of the status line, which has the counts.
fn status_rows(rows: &[String]) -> Vec<&str> {
    let is_status = |row: &&String| row.contains("/3 ") && row.contains("RUNNING");
    rows.iter().filter(is_status).map(|row| &**row).collect()
}

#[tokio::test]
async fn status_line_fits_terminals_that_are_resized() {
    for (columns, resized) in [(80, 40), (40, 200), (200, 40), (200, 80), (80, 20)] {
        let job = Job::start("pull").await;
        let mut view = Terminal::start(&job.gateway, &["job", "J"], columns, &[("NO_COLOR", "1")]);
        let is_drawn = |counts: &'static str| {
            move |rows: &[String]| status_rows(rows).iter().any(|row| row.contains(counts))
        };
        let rows = view.until(is_drawn("0/3 ")).await;
        assert_eq!(status_rows(&rows).len(), 1, "{columns}: {rows:#?}");
        job.complete(1);
        view.until(is_drawn("1/3 ")).await;
        view.resize(resized).await;
        job.complete(2);
        // Three more draws with the new size: each replaces the one before.
        let rows = view.until(is_drawn("2/3 ")).await;
        assert_eq!(status_rows(&rows).len(), 1, "{columns}: {rows:#?}");
        assert!(rows.last().unwrap().contains("2/3 "), "{rows:#?}");
        for _ in 0..3 {
            let before = view.raw.len();
            view.signal(rustix::process::Signal::WINCH);
            while view.raw[before..]
                .iter()
                .filter(|byte| **byte == b'/')
                .count()
                == 0
            {
                assert!(view.read().await);
            }
        }
        let rows = view.screen_rows();
        assert!(status_rows(&rows).len() <= 1, "{columns}: {rows:#?}");
        job.complete(3);
        let (code, rows, raw) = view.end().await;
        assert_eq!(code, Some(0), "{rows:#?}");
        assert!(status_rows(&rows).is_empty(), "{columns}: {rows:#?}");
        assert!(!rows.concat().contains(['█', '░']), "{columns}: {rows:#?}");
        // Not of the screen, which cuts its rows when it becomes narrower.
        for line in ["pull SUCCEEDED", "deploy SUCCEEDED", "verify SUCCEEDED"] {
            assert_eq!(raw.matches(line).count(), 1, "{columns}: {raw}");
        }
    }
}

/// Sizes that no person chooses: of a serial console, of a tiling window manager, of a wall.
#[tokio::test]
async fn odd_sizes_lose_no_line_and_do_not_flood() {
    for size in [
        (0, 0),
        (0, 24),
        (80, 0),
        (2, 1),
        (3, 200),
        (9, 2),
        (59, 1),
        (2_000, 3),
    ] {
        let job = Job::start("pull").await;
        let mut view =
            Terminal::start_sized(&job.gateway, &["job", "J"], size, &[("NO_COLOR", "1")]);
        while !view.raw.windows(12).any(|text| text == b"pull RUNNING") {
            assert!(view.read().await, "{size:?}");
        }
        for _ in 0..20 {
            view.signal(rustix::process::Signal::WINCH);
        }
        job.complete(3);
        let (code, _, raw) = view.end().await;
        assert_eq!(code, Some(0), "{size:?}: {raw}");
        for line in [
            "pull SUCCEEDED",
            "deploy SUCCEEDED",
            "verify SUCCEEDED",
            "job J succeeded",
        ] {
            assert_eq!(raw.matches(line).count(), 1, "{size:?}: {raw}");
        }
        // A status line that is redrawn adds no line, however often.
        assert!(raw.matches('\n').count() < 20, "{size:?}: {raw}");
    }
}

#[tokio::test]
async fn bar_has_the_columns_that_are_left() {
    for columns in [200, 80, 40, 20] {
        let job = Job::start("pull").await;
        let mut view = Terminal::start(&job.gateway, &["job", "J"], columns, &[]);
        let rows = view.until(|rows| !status_rows(rows).is_empty()).await;
        let row = rows.last().unwrap().trim_end();
        let bar = row.chars().filter(|c| matches!(c, '█' | '░')).count();
        match columns {
            // Whatever the width, the counts and the state are there.
            20 => assert_eq!(bar, 0, "{row}"),
            40 => {
                assert!((4..24).contains(&bar), "{row}");
                // One column is free, and two for `^C`.
                assert_eq!(row.chars().count(), 37, "{row}");
            }
            _ => assert_eq!(bar, 24, "{row}"),
        }
    }
}

#[tokio::test]
async fn wide_and_long_names_leave_one_status_line() {
    let long: &'static str = Box::leak("日本語の名前-".repeat(30).into_boxed_str());
    let job = Job::start(long).await;
    for id in [
        "J",
        "日本語の名前のとても長いジョブ識別子日本語の名前のとても長いジョブ識別子",
    ] {
        job.complete(0);
        let mut view = Terminal::start(&job.gateway, &["job", id], 40, &[]);
        let rows = view.until(|rows| !status_rows(rows).is_empty()).await;
        assert_eq!(status_rows(&rows).len(), 1, "{rows:#?}");
        job.complete(3);
        let (code, rows, _) = view.end().await;
        assert_eq!(code, Some(0), "{rows:#?}");
        assert!(!rows.concat().contains("0/3"), "{rows:#?}");
    }
}

#[tokio::test]
async fn terminal_without_cursor_or_colour_is_respected() {
    let job = Job::start("pull").await;
    job.complete(3);
    for (env, has_escapes, has_colour) in [
        (&[][..], true, true),
        (&[("NO_COLOR", "1")], true, false),
        (&[("TERM", "dumb")], false, false),
    ] {
        let view = Terminal::start(&job.gateway, &["job", "J"], 80, env);
        let (code, rows, raw) = view.end().await;
        assert_eq!(code, Some(0), "{rows:#?}");
        assert_eq!(raw.contains('\u{1b}'), has_escapes, "{env:?} {raw:?}");
        assert_eq!(raw.contains("\u{1b}[32m"), has_colour, "{env:?} {raw:?}");
        let sign = if has_escapes { "✔" } else { "+" };
        let end = format!("{sign} job J SUCCEEDED");
        assert!(rows.iter().any(|row| row.ends_with(&end)), "{rows:#?}");
    }
}

#[tokio::test]
async fn ctrl_c_and_errors_leave_no_status_line() {
    let job = Job::start("pull").await;
    let mut view = Terminal::start(&job.gateway, &["job", "J"], 80, &[]);
    view.until(|rows| !status_rows(rows).is_empty()).await;
    view.signal(rustix::process::Signal::INT);
    let (code, rows, _) = view.end().await;
    assert_eq!(code, Some(130), "{rows:#?}");
    assert!(status_rows(&rows).is_empty(), "{rows:#?}");
    // A terminal of 80 columns may wrap it.
    let want = "… job J interrupted RUNNING, 0 of 3 complete (watched for ";
    assert!(rows.concat().contains(want), "{rows:#?}");

    // The error is on standard error, here the same terminal.
    let view = Terminal::start(&job.gateway, &["stack", "s"], 80, &[]);
    let (code, rows, _) = view.end().await;
    assert_eq!(code, Some(2), "{rows:#?}");
    assert!(
        rows[0].starts_with("drawbridge: FAILED_PRECONDITION"),
        "{rows:#?}"
    );
    assert!(!rows.concat().contains("waiting"), "{rows:#?}");
}

/// A terminal gets a file only if it is text.
#[tokio::test]
async fn binary_file_is_not_written_to_a_terminal() {
    let (_sandbox, gateway) = crate::command_call::sandbox().await;
    let export = ["call", "ExportServiceTemplate", r#"{"id": 3001}"#];
    let view = Terminal::start_command(&gateway, &export, (80, 50), &[]);
    let (code, rows, raw) = view.end().await;
    assert_eq!(code, Some(2), "{rows:#?}");
    let want = "drawbridge: the response is a binary file, and the output a terminal: ";
    assert!(raw.starts_with(want), "{raw}");

    let (_recorder, gateway) = crate::command_call::own_api().await;
    let report = ["call", "GetReport", r#"{"rollout_id": "r1"}"#];
    let view = Terminal::start_command(&gateway, &report, (80, 50), &[]);
    let (code, rows, _) = view.end().await;
    assert_eq!(code, Some(0), "{rows:#?}");
    assert_eq!(
        rows.join(" ").split_whitespace().collect::<Vec<_>>(),
        ["all", "is", "well"]
    );
}

/// The terminal writes `^C` behind the status line.
#[tokio::test]
async fn echo_of_ctrl_c_leaves_no_status_line() {
    let job = Job::start("pull").await;
    for columns in [200, 80, 60, 40, 20] {
        let mut view = Terminal::start(&job.gateway, &["job", "J"], columns, &[]);
        view.until(|rows| !status_rows(rows).is_empty()).await;
        view.slave.write_all(b"^C").unwrap();
        view.signal(rustix::process::Signal::INT);
        let (code, rows, _) = view.end().await;
        assert_eq!(code, Some(130), "{rows:#?}");
        assert!(status_rows(&rows).is_empty(), "{columns}: {rows:#?}");
        assert!(!rows.concat().contains(['█', '░']), "{columns}: {rows:#?}");
    }
}

#[tokio::test]
async fn timeout_has_an_exit_code_and_the_last_state() {
    let job = Job::start("pull").await;
    for more in [&[][..], &["--json"]] {
        // The state is read, then the timeout ends the view: a job that never ends has no
        // other end.
        let mut args = vec!["job", "J", "--timeout", "2s"];
        args.extend(more);
        let out = crate::terminal::run(&job.gateway, &args).await;
        assert_eq!(out.status.code(), Some(124), "{out:?}");
        let said = text(&out.stderr);
        let start = "drawbridge: no final state within ";
        assert!(said.starts_with(start), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let out = crate::terminal::run(&job.gateway, &["job", "J", "--timeout", "soon"]).await;
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(text(&out.stderr).contains("30s, 10m or 1h30m"), "{out:?}");
}

/// A CA of one test.
struct Ca {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Runs the command with this URL of the gateway and these system CA certificates.
async fn run_at(url: &str, system_ca: &std::path::Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    command
        .args(["watch", "job", "J", "--gateway", url])
        .args(args)
        .env_clear()
        .env("SSL_CERT_FILE", system_ca)
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn tls_problems_are_one_line_and_not_retried() {
    let (ca, other) = (Ca::new(), Ca::new());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        File::create(&path)
            .unwrap()
            .write_all(pem.as_bytes())
            .unwrap();
        path
    };
    let (ca_file, other_file) = (file("ca.pem", &ca.pem), file("other.pem", &other.pem));
    let (certificate, key) = ca.issue("localhost");
    let job = Job::start("pull").await;
    job.complete(3);
    let recorder = job.recorder.url();
    let mut config = settings(vec![upstream("u", "servicestage", &recorder)]);
    config.tls = Some(Tls {
        certificate: certificate.into_bytes(),
        key: key.into(),
        client_ca: None,
    });
    let running = crate::support::start(config).await.unwrap();
    let port = running.grpc.port();
    let url = format!("https://localhost:{port}");

    // The CA certificates of the system, and --ca instead of them.
    let out = run_at(&url, &ca_file, &[]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let ca_arg = ca_file.to_str().unwrap();
    let out = run_at(&url, &other_file, &["--ca", ca_arg]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");

    let plaintext = format!("http://localhost:{port}");
    let by_address = format!("https://127.0.0.1:{port}");
    let no_tls = format!("https://{}", job.gateway.running.grpc);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http1 = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The start of a request, so that the connection is not reset.
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let other_arg = other_file.to_str().unwrap();
    let no_pem = file("no.pem", "not PEM");
    let no_pem = no_pem.to_str().unwrap();
    let no_tls_hint = no_tls.replace("https", "try --gateway http");
    let plaintext_hint = format!("try --gateway https://localhost:{port}");
    for (url, args, want) in [
        (&url, &[][..], "give its CA with --ca FILE"),
        (
            &url,
            &["--ca", other_arg],
            "is not signed by the CA of --ca",
        ),
        (&by_address, &["--ca", ca_arg], "certificate is not valid"),
        (
            &url,
            &["--ca", "/no/such.pem"],
            "drawbridge: --ca /no/such.pem: No such file",
        ),
        (&url, &["--ca", no_pem], "no.pem: has no certificate in PEM"),
        (
            &url,
            &["--cert", ca_arg, "--key", no_pem],
            "no.pem: has no private key in PEM",
        ),
        (
            &url,
            &["--cert", ca_arg],
            "needs its private key, with --key FILE",
        ),
        (&plaintext, &[], &*plaintext_hint),
        (&no_tls, &["--ca", ca_arg], &*no_tls_hint),
        (&http1, &[], "gRPC needs HTTP/2"),
    ] {
        let out = run_at(url, &other_file, args).await;
        assert_eq!(out.status.code(), Some(2), "{url} {out:?}");
        let said = text(&out.stderr);
        assert!(said.contains(want), "{url} {said}");
        assert_eq!(said.lines().count(), 1, "{url} {said}");
        assert!(!said.contains("retrying"), "{url} {said}");
        assert!(out.stdout.is_empty(), "{url} {out:?}");
    }
    running.stop().await.unwrap();
}
