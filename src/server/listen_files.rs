//! Reads the files of `[listen]` again, so that rotated certificates and client tokens need no
//! restart.

use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::config::ListenFiles;
use crate::reload::{FileSource, INTERVAL};

/// Requests to read the files at once.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<Reloaded>>);

/// The result of reading the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The gateway reads no files of `[listen]` again.
    NoFiles,
    /// Their contents apply.
    Applied,
    /// They are invalid: the last contents stay.
    Refused,
}

impl ReloadHandle {
    /// Reads the files, and returns when a change applies or is refused.
    pub async fn reload(&self) -> Reloaded {
        let (done, completed) = oneshot::channel();
        match self.0.send(done).await {
            Ok(()) => completed.await.unwrap_or(Reloaded::NoFiles),
            Err(_) => Reloaded::NoFiles,
        }
    }
}

/// The files of `[listen]`, and what they contained last.
pub(super) struct Watched<A> {
    source: FileSource<ListenFiles>,
    last: ListenFiles,
    /// The last problem, which is logged once.
    problem: String,
    apply: A,
    requests: mpsc::Receiver<oneshot::Sender<Reloaded>>,
}

/// Returns a handle and the requests of it.
pub(super) fn requests() -> (ReloadHandle, mpsc::Receiver<oneshot::Sender<Reloaded>>) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadHandle(sender), receiver)
}

impl<A: FnMut(&ListenFiles) -> Result<(), String>> Watched<A> {
    /// Watches the files, which contain `last`. `apply` is called after each change; if it fails,
    /// the last contents stay.
    pub(super) fn new(
        source: FileSource<ListenFiles>,
        last: ListenFiles,
        requests: mpsc::Receiver<oneshot::Sender<Reloaded>>,
        apply: A,
    ) -> Self {
        Self {
            source,
            last,
            problem: String::new(),
            apply,
            requests,
        }
    }

    /// Reads the files at the interval and at each request, until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let next = Instant::now() + INTERVAL;
            let request = tokio::select! {
                () = sleep_until(next) => None,
                request = self.requests.recv() => request,
            };
            let source = self.source.clone();
            let read = tokio::task::spawn_blocking(move || source.read());
            let result = match read.await {
                Ok(read) => self.change(read),
                Err(_) => Reloaded::Refused,
            };
            if let Some(done) = request {
                // The requester may have left.
                let _ = done.send(result);
            }
        }
    }

    /// Applies the contents of the files if they have changed.
    fn change(&mut self, read: Result<ListenFiles, String>) -> Reloaded {
        let applied = read.and_then(|files| {
            if files == self.last {
                return Ok(());
            }
            let certificate_changed = files.tls != self.last.tls;
            if let Some(tls) = files.tls.as_ref().filter(|_| certificate_changed)
                && let Some(problem) = tls.problems(SystemTime::now()).first()
            {
                return Err(problem.to_string());
            }
            (self.apply)(&files)?;
            if certificate_changed {
                tracing::info!(
                    "the files of listen.tls have changed: they apply to new connections"
                );
                let tls = files.tls.iter();
                for warning in tls.flat_map(|tls| tls.warnings(SystemTime::now())) {
                    tracing::warn!(key = warning.key, "{}", warning.problem);
                }
            }
            if files.client_tokens != self.last.client_tokens {
                tracing::info!(
                    tokens = files.client_tokens.len(),
                    "client tokens have changed"
                );
            }
            self.last = files;
            Ok(())
        });
        match applied {
            Ok(()) => {
                self.problem.clear();
                return Reloaded::Applied;
            }
            Err(problem) if problem == self.problem => {}
            Err(problem) => {
                tracing::warn!(
                    problem,
                    "cannot use the changed files of [listen]: the last ones stay"
                );
                self.problem = problem;
            }
        }
        Reloaded::Refused
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn files(tokens: &[&str]) -> ListenFiles {
        ListenFiles {
            tls: None,
            client_tokens: tokens.iter().map(|token| (*token).into()).collect(),
            jwt: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_read_at_the_interval_and_on_request() {
        let on_disk = Arc::new(Mutex::new(Ok(files(&["a"]))));
        let (applied, mut changes) = mpsc::unbounded_channel();
        let (handle, requests) = requests();
        let disk = on_disk.clone();
        let source = FileSource::new(move || disk.lock().unwrap().clone());
        let apply = move |files: &ListenFiles| {
            if files.client_tokens == ["unusable".into()] {
                return Err("unusable".to_owned());
            }
            applied.send(files.clone()).map_err(|e| e.to_string())
        };
        let started = Instant::now();
        let watched = Watched::new(source, files(&["a"]), requests, apply);
        let task = tokio::spawn(watched.run());
        *on_disk.lock().unwrap() = Ok(files(&["a", "b"]));
        assert_eq!(changes.recv().await, Some(files(&["a", "b"])));
        assert_eq!(started.elapsed(), INTERVAL);
        // A file that is being replaced keeps the last tokens.
        for problem in [Err("has no token".to_owned()), Ok(files(&["unusable"]))] {
            *on_disk.lock().unwrap() = problem;
            assert_eq!(handle.reload().await, Reloaded::Refused);
            assert!(changes.try_recv().is_err());
        }
        *on_disk.lock().unwrap() = Ok(files(&["a", "b"]));
        assert_eq!(handle.reload().await, Reloaded::Applied);
        assert!(changes.try_recv().is_err(), "nothing has changed");
        *on_disk.lock().unwrap() = Ok(files(&["c"]));
        assert_eq!(handle.reload().await, Reloaded::Applied);
        assert_eq!(changes.try_recv(), Ok(files(&["c"])));
        assert_eq!(started.elapsed(), INTERVAL, "requests do not wait");
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(handle.reload().await, Reloaded::NoFiles);
    }
}
