//! Writes the lines of the log to standard error on a thread of its own, so that nothing waits
//! for the reader of the log.
//!
//! A small own queue: `tracing-appender` limits lines, not bytes, writes no line about drops,
//! and allocates for each line.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::repeated;

/// Limit of the lines that wait to be written. Those beyond are dropped.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Pause before a write to a full pipe that does not block is tried again.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(20);

/// The writer of this process's standard error.
static STDERR: LazyLock<LogWriter> = LazyLock::new(LogWriter::start);

/// Lines that were dropped since the process started.
static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines of the log were dropped, because nothing read standard error in time.
pub fn dropped_lines() -> u64 {
    DROPPED_LINES.load(Relaxed)
}

/// Waits until all lines are written, sums of repeated ones included, at most for `limit`.
pub fn flush(limit: Duration) {
    repeated::report_all();
    STDERR.queue.flush(limit);
}

/// Makes the thread look for sums of repeated lines.
pub(super) fn wake() {
    // Locked, since the thread may be between looking for them and waiting.
    let _state = STDERR.queue.lock();
    STDERR.queue.changed.notify_all();
}

/// Writes lines to standard error without waiting. Lines that do not fit into the queue are
/// dropped.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    queue: Arc<Queue>,
    /// Whether lines are queued even if they do not fit: fatal errors.
    is_urgent: bool,
}

impl LogWriter {
    /// Returns the writer for the lines of the log.
    pub(super) fn stderr() -> Self {
        STDERR.clone()
    }

    /// Returns the writer for lines that must not be dropped.
    pub(super) fn urgent() -> Self {
        Self {
            is_urgent: true,
            ..STDERR.clone()
        }
    }

    /// Starts the thread of standard error.
    fn start() -> Self {
        let queue = Arc::new(Queue::default());
        let writer = queue.clone();
        let stderr = Stderr::open();
        // Without a thread, which fails only if the process can start none at all, the lines
        // stay in the queue.
        let _ = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(stderr));
        Self {
            queue,
            is_urgent: false,
        }
    }
}

/// One line, written at once by tracing's formatter.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The file of standard error. Not [`io::Stderr`], whose lock the thread would hold while a
/// write blocks.
enum Stderr {
    File(File),
    Locked(io::Stderr),
}

impl Stderr {
    fn open() -> Self {
        let stderr = io::stderr();
        match stderr.as_fd().try_clone_to_owned() {
            Ok(file) => Self::File(File::from(file)),
            Err(_) => Self::Locked(stderr),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Locked(stderr) => stderr.write(bytes),
        }
    }

    /// Writes all bytes, however long it takes. Gives up if standard error is broken.
    fn write_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return,
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(FULL_PIPE_PAUSE);
                }
                Err(_) => return,
            }
        }
    }
}

/// The lines that wait to be written.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Notified of the first line, and when all lines are written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Lines that were dropped since the last report.
    dropped: u64,
    is_writing: bool,
}

impl Queue {
    fn push(&self, line: &[u8], is_urgent: bool) {
        let mut state = self.lock();
        if !is_urgent && state.pending.len() + line.len() > MAX_PENDING_BYTES {
            state.dropped += 1;
            DROPPED_LINES.fetch_add(1, Relaxed);
            return;
        }
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written, at most for `limit`.
    fn flush(&self, limit: Duration) {
        let is_busy = |state: &mut State| !state.pending.is_empty() || state.is_writing;
        let _ = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
    }

    /// Writes lines until the process ends.
    fn run(&self, mut stderr: Stderr) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.next(&mut lines);
            stderr.write_all(&lines);
            lines.clear();
            if lines.capacity() > MAX_PENDING_BYTES / 8 {
                lines = Vec::new();
            }
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "lines of the log were dropped: standard error is read too slowly"
                );
            }
        }
    }

    /// Moves the lines that wait to `lines`, once there are any, and returns how many were
    /// dropped. Meanwhile reports repeated lines.
    fn next(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        state.is_writing = false;
        if state.pending.is_empty() {
            self.changed.notify_all();
        }
        while state.pending.is_empty() {
            let Some(next_report) = repeated::next_report() else {
                state = self.wait(state, None);
                continue;
            };
            let remaining = next_report.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                drop(state);
                // Its lines go through the log's own filter and format, back into this queue.
                repeated::report(Instant::now());
                state = self.lock();
            } else {
                state = self.wait(state, Some(remaining));
            }
        }
        std::mem::swap(&mut state.pending, lines);
        state.is_writing = true;
        std::mem::take(&mut state.dropped)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match limit {
            None => self.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
            Some(limit) => {
                let result = self.changed.wait_timeout(state, limit);
                result.unwrap_or_else(|e| e.into_inner()).0
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a queue whose lines go to a pipe.
    fn piped() -> (Arc<Queue>, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Arc::new(Queue::default());
        let running = queue.clone();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        std::thread::spawn(move || running.run(Stderr::File(file)));
        (queue, reader)
    }

    #[test]
    fn lines_without_a_reader_are_dropped_and_counted() {
        use io::Read as _;
        let (queue, mut reader) = piped();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        // What fits into the pipe and the queue, and more.
        for _ in 0..3_000 {
            queue.push(&line, false);
        }
        let dropped = queue.lock().dropped;
        assert!((1_000..2_000).contains(&dropped), "{dropped}");
        queue.push(b"fatal\n", true);
        // Nothing reads: the limit ends it.
        queue.flush(Duration::from_millis(10));
        let reading = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut chunk = [0; 64 << 10];
            while !text.ends_with(b"fatal\n") {
                let read = reader.read(&mut chunk).unwrap();
                text.extend_from_slice(&chunk[..read]);
            }
            text
        });
        queue.flush(Duration::from_secs(60));
        let text = reading.join().unwrap();
        let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(lines, 3_000 - dropped + 1);
    }

    #[test]
    fn broken_standard_error_blocks_nothing() {
        let (queue, reader) = piped();
        drop(reader);
        queue.push(b"line\n", false);
        queue.flush(Duration::from_secs(60));
        assert!(queue.lock().pending.is_empty());
    }
}
