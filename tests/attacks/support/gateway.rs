//! The built gateway as a child process, measured by `/proc`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{MIB, eventually, mib};

/// How much memory may remain after an attack: caches, and what the allocator keeps.
const MEMORY_SLACK_BYTES: u64 = 64 * MIB;

/// How the gateway is started.
#[derive(Debug, Default)]
pub struct Options {
    /// The configuration, without `[listen]`: `[server]`, `[[upstream]]` and others.
    pub config: String,
    /// Keys of `[listen]`, and its sections, in addition to the addresses.
    pub listen: String,
    /// Files to write next to the configuration.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// `ulimit -n`: soft and hard limit of open files.
    pub max_descriptors: Option<u32>,
    /// Standard error is a pipe that is not read, instead of a file.
    pub unread_log: bool,
    pub env: Vec<(&'static str, String)>,
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    folder: TempDir,
    /// Kept open, so that writes to them do not fail.
    _stdout: BufReader<ChildStdout>,
    unread_log: Option<ChildStderr>,
}

/// What the gateway holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub rss_bytes: u64,
    pub descriptors: u64,
}

impl Gateway {
    /// Starts a gateway with this configuration, on free ports.
    pub fn start(config: &str) -> Self {
        Self::start_with(Options {
            config: config.to_owned(),
            ..Options::default()
        })
    }

    pub fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("drawbridge.toml");
        let listen = "[listen]\ngrpc = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";
        let text = format!("{listen}{}\n{}", options.listen, options.config);
        std::fs::write(&config, text).unwrap();
        for (name, content) in &options.files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let binary = env!("CARGO_BIN_EXE_drawbridge");
        let mut command = match options.max_descriptors {
            Some(limit) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, binary]);
                shell
            }
            None => Command::new(binary),
        };
        let stderr = match options.unread_log {
            true => Stdio::piped(),
            false => File::create(folder.path().join("log")).unwrap().into(),
        };
        let mut child = command
            .arg("--config")
            .arg(&config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .envs(options.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut grpc, mut admin) = (None, None);
        while admin.is_none() {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let log = std::fs::read_to_string(folder.path().join("log"));
                panic!("it did not start: {log:?}");
            }
            if let Some(address) = line.trim().strip_prefix("drawbridge serves gRPC on ") {
                grpc = Some(address.parse().unwrap());
            }
            if let Some(url) = line.trim().strip_prefix("admin listener: http://") {
                admin = Some(url.split('/').next().unwrap().parse().unwrap());
            }
        }
        Self {
            grpc: grpc.unwrap(),
            admin: admin.unwrap(),
            unread_log: child.stderr.take(),
            child,
            folder,
            _stdout: stdout,
        }
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns memory and descriptors of this moment.
    pub fn usage(&self) -> Usage {
        Usage {
            rss_bytes: self.status_bytes("VmRSS"),
            descriptors: std::fs::read_dir(self.proc("fd")).unwrap().count() as u64,
        }
    }

    /// Returns the largest RSS since the start, or since [`Gateway::reset_peak`].
    pub fn peak_rss_bytes(&self) -> u64 {
        self.status_bytes("VmHWM")
    }

    /// Makes the peak that of this moment.
    pub fn reset_peak(&self) {
        std::fs::write(self.proc("clear_refs"), "5").unwrap();
    }

    /// Asserts that RSS has not grown by more than `bytes` since `before`, at any time.
    pub fn assert_peak_below(&self, before: Usage, bytes: u64) {
        let growth = self.peak_rss_bytes().saturating_sub(before.rss_bytes);
        let from = mib(before.rss_bytes);
        println!("RSS grew by {} MiB from {from} MiB", mib(growth));
        assert!(
            growth <= bytes,
            "RSS grew by {} MiB, allowed are {} MiB",
            mib(growth),
            mib(bytes)
        );
    }

    /// Returns the CPU time used so far, of all threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        // After the name in parentheses: state is field 3, utime 14, stime 15, in ticks.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Waits until descriptors and memory are back where they were `before`. Open connections
    /// of an honest client count: finish it first.
    pub async fn recovers(&self, before: Usage) {
        self.descriptors_recover(before).await;
        eventually("memory is returned", async || {
            let rss = self.usage().rss_bytes;
            (rss <= before.rss_bytes + MEMORY_SLACK_BYTES).then_some(())
        })
        .await;
    }

    /// Waits until there are no more descriptors than `before`. Idle connections to the
    /// upstream may remain: at most 8.
    pub async fn descriptors_recover(&self, before: Usage) {
        eventually("descriptors are closed", async || {
            (self.usage().descriptors <= before.descriptors + 8).then_some(())
        })
        .await;
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Reads what is left of an unread log, after the process was killed.
    pub fn kill_and_read_log(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut text = String::new();
        if let Some(mut log) = self.unread_log.take() {
            log.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Returns the value of a metric, with its labels as they are written; 0 if it is absent.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/metrics").await.expect("metrics");
        let line = text.lines().find_map(|line| {
            let (metric, value) = line.rsplit_once(' ')?;
            (metric == name).then_some(value)
        });
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Gets a page of the admin listener within the honest client's deadline.
    pub async fn admin_get(&self, path: &str) -> Result<String, String> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
                self.admin
            );
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            std::io::Result::Ok(text)
        };
        let text = tokio::time::timeout(super::honest::DEADLINE, exchange)
            .await
            .map_err(|_| "no response before the deadline".to_owned())?
            .map_err(|e| e.to_string())?;
        match text.starts_with("HTTP/1.1 200") {
            true => Ok(text),
            false => Err(text),
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.unwrap().success());
    }

    /// Waits for the end of the process.
    pub fn exits(&mut self) -> std::process::ExitStatus {
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "it does not exit"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.unwrap().trim_matches(|c: char| !c.is_ascii_digit());
        kib.parse::<u64>().unwrap() << 10
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // What the gateway said, for a test that fails.
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.folder.path().join("log"))
        {
            let tail = log.len().saturating_sub(4_000);
            let tail = log.get(tail..).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "log of the gateway, its end:\n{tail}");
        }
        // The process may have exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
