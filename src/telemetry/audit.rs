//! The audit log: a line for each call that can change something, and for each rejection. No line
//! has a body, a token or another value of a request than the path of its REST call.
//!
//! A file of its own is written by a thread of its own, so that no call waits for it. Lines that do
//! not fit into its queue are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::json;

/// How many lines wait to be written to the file.
const MAX_PENDING_LINES: usize = 8_192;

/// How many lines are written at once.
const MAX_BATCH_LINES: usize = 256;

/// `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether lines are written to the log, whose target is `drawbridge::telemetry::audit`.
    pub log: bool,
    /// A file to which each line is appended as JSON.
    pub file: Option<PathBuf>,
}

/// Writes audit lines.
#[derive(Debug)]
pub struct AuditLog {
    log: bool,
    file: Option<AuditFile>,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct AuditLine<'a> {
    /// Whether the call was rejected before anything was sent: not authenticated, not allowed, or
    /// beyond a limit.
    pub is_rejection: bool,
    /// The identity of the client; none if it has not authenticated itself.
    pub identity: Option<&'a str>,
    /// The rpc; empty for a path that names none.
    pub operation: &'a str,
    /// The upstream; empty before one is selected.
    pub upstream: &'a str,
    /// The HTTP method and the path of the REST call; none if it was not made.
    pub rest_call: Option<(&'a str, &'a str)>,
    /// The gRPC code.
    pub code: &'static str,
    /// `ErrorInfo.reason`; empty for OK.
    pub reason: &'a str,
    /// The rule of the policy that comes closest to allowing the call.
    pub rule: Option<&'a str>,
    /// The gateway's id of the request.
    pub request_id: &'a str,
    /// The upstream's id of the request.
    pub upstream_request_id: Option<&'a str>,
    /// The time since the headers of the request; none where it is not measured.
    pub elapsed: Option<Duration>,
}

impl AuditLine<'_> {
    /// Returns the line as JSON.
    fn json(&self, now: SystemTime) -> String {
        let verb = self.rest_call.map(|(verb, _)| verb);
        let path = self.rest_call.map(|(_, path)| path);
        let mut line = json!({
            "time": prost_types::Timestamp::from(now).to_string(),
            "kind": self.kind(),
            "identity": self.identity,
            "operation": non_empty(self.operation),
            "upstream": non_empty(self.upstream),
            "http_method": verb,
            "path": path,
            "code": self.code,
            "reason": non_empty(self.reason),
            "rule": self.rule,
            "request_id": non_empty(self.request_id),
            "upstream_request_id": self.upstream_request_id,
            "elapsed_ms": self.elapsed.map(|elapsed| elapsed.as_millis() as u64),
        });
        if let Some(members) = line.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        let mut text = line.to_string();
        text.push('\n');
        text
    }

    fn kind(&self) -> &'static str {
        match self.is_rejection {
            true => "rejection",
            false => "call",
        }
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl AuditLog {
    /// Opens the file, if there is one.
    ///
    /// # Errors
    ///
    /// Fails for a file that cannot be opened or made.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let file = settings.file.as_deref().map(AuditFile::open);
        Ok(Self {
            log: settings.log,
            file: file.transpose()?,
        })
    }

    /// Writes a line. Does not wait.
    pub fn write(&self, line: &AuditLine<'_>) {
        if self.log {
            tracing::info!(
                kind = line.kind(),
                identity = line.identity,
                operation = non_empty(line.operation),
                upstream = non_empty(line.upstream),
                http_method = line.rest_call.map(|(verb, _)| verb),
                path = line.rest_call.map(|(_, path)| path),
                code = line.code,
                reason = non_empty(line.reason),
                rule = line.rule,
                request_id = non_empty(line.request_id),
                upstream_request_id = line.upstream_request_id,
                elapsed_ms = line.elapsed.map(|elapsed| elapsed.as_millis() as u64),
                "audit"
            );
        }
        if let Some(file) = &self.file {
            file.push(line.json(SystemTime::now()));
        }
    }

    /// Returns how many lines were dropped, because the file could not be written in time or at
    /// all.
    pub fn dropped_lines(&self) -> u64 {
        let file = self.file.as_ref();
        file.map_or(0, |file| file.dropped.load(Relaxed))
    }

    /// Waits until all lines are written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let Some(file) = &self.file else { return };
        let (done, written) = sync_channel(1);
        if file.queue.try_send(Job::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

/// A file to which lines are appended.
#[derive(Debug)]
struct AuditFile {
    queue: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

/// What the thread of a file does.
#[derive(Debug)]
enum Job {
    Line(String),
    /// Reports that all lines before are written.
    Flush(SyncSender<()>),
}

impl AuditFile {
    fn open(path: &Path) -> Result<Self, String> {
        let cannot =
            |e: std::io::Error| format!("audit.file: cannot write {}: {e}", path.display());
        let file = append_to(path).map_err(cannot)?;
        let (queue, jobs) = sync_channel(MAX_PENDING_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            path: path.to_owned(),
            file: Some(file),
            dropped: dropped.clone(),
            is_broken: false,
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(cannot)?;
        Ok(Self { queue, dropped })
    }

    fn push(&self, line: String) {
        match self.queue.try_send(Job::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Opens a file that only its owner can read.
fn append_to(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    dropped: Arc<AtomicU64>,
    /// Whether the last write has failed, which is logged once.
    is_broken: bool,
}

impl Writer {
    /// Writes lines until the log is dropped.
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut lines = String::new();
            let mut count = 0;
            let mut flushed = Vec::new();
            for job in std::iter::once(first).chain(jobs.try_iter().take(MAX_BATCH_LINES)) {
                match job {
                    Job::Line(line) => {
                        lines.push_str(&line);
                        count += 1;
                    }
                    Job::Flush(done) => flushed.push(done),
                }
            }
            self.write(&lines, count);
            for done in flushed {
                // The requester may have given up.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, lines: &str, count: u64) {
        if count == 0 {
            return;
        }
        match self.try_write(lines) {
            Ok(()) => self.is_broken = false,
            Err(error) => {
                self.dropped.fetch_add(count, Relaxed);
                self.file = None;
                if !std::mem::replace(&mut self.is_broken, true) {
                    let path = self.path.display().to_string();
                    tracing::error!(path, %error, "cannot write the audit log: lines are dropped");
                }
            }
        }
    }

    /// Appends lines; to a new file if the last one was moved or deleted, as logrotate does.
    fn try_write(&mut self, lines: &str) -> std::io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) if is_at(&file, &self.path) => file,
            _ => append_to(&self.path)?,
        };
        let written = file.write_all(lines.as_bytes());
        self.file = Some(file);
        written
    }
}

/// Returns whether the path still leads to this file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity =
        |meta: std::io::Result<std::fs::Metadata>| meta.ok().map(|meta| (meta.dev(), meta.ino()));
    let at_path = identity(std::fs::metadata(path));
    at_path.is_some() && at_path == identity(file.metadata())
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: AuditLine<'static> = AuditLine {
        is_rejection: false,
        identity: Some("token:ci"),
        operation: "a.A/Delete",
        upstream: "north",
        rest_call: Some(("DELETE", "/v1/p1/things/\"x\"")),
        code: "OK",
        reason: "",
        rule: None,
        request_id: "r-1",
        upstream_request_id: None,
        elapsed: Some(Duration::from_millis(7)),
    };

    fn open(path: &Path) -> AuditLog {
        let file = Some(path.to_owned());
        AuditLog::open(&Settings { log: false, file }).unwrap()
    }

    #[test]
    fn lines_are_json_and_go_to_the_new_file_after_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (
            directory.path().join("audit"),
            directory.path().join("audit.1"),
        );
        std::fs::write(&path, "before\n").unwrap();
        let log = open(&path);
        let limit = Duration::from_secs(60);
        log.write(&LINE);
        log.flush(limit);
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.strip_prefix("before\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["path"], "/v1/p1/things/\"x\"");
        assert_eq!(json["elapsed_ms"], 7);
        assert!(json.get("reason").is_none() && json.get("rule").is_none());
        std::fs::rename(&path, &moved).unwrap();
        log.write(&LINE);
        log.flush(limit);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), text);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.write(&LINE);
        log.flush(limit);
        assert_eq!(log.dropped_lines(), 1);
        std::fs::remove_dir(&path).unwrap();
        log.write(&LINE);
        log.flush(limit);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn full_queue_drops_lines_and_counts_them() {
        let (queue, jobs) = sync_channel(2);
        let file = AuditFile {
            queue,
            dropped: Arc::default(),
        };
        for _ in 0..5 {
            file.push("line\n".to_owned());
        }
        assert_eq!(file.dropped.load(Relaxed), 3);
        assert_eq!(jobs.try_iter().count(), 2);
        drop(jobs);
        file.push("line\n".to_owned());
        assert_eq!(file.dropped.load(Relaxed), 4);
    }
}
