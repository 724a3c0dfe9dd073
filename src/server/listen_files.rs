//! Reads the files of `[listen]` again, so that rotated certificates and client tokens need no
//! restart.

use std::time::SystemTime;

use crate::config::ListenFiles;
use crate::reload::FileSource;

/// The result of reading the configuration or files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The gateway reads nothing again.
    NoFiles,
    /// Their contents apply.
    Applied,
    /// They are invalid: the last contents stay.
    Refused,
}

/// The files of `[listen]`, and what they contained last.
pub(super) struct Watched<A> {
    /// None if there are none.
    source: Option<FileSource<ListenFiles>>,
    last: ListenFiles,
    /// The last problem, which is logged once.
    problem: String,
    apply: A,
}

impl<A: FnMut(&ListenFiles) -> Result<(), String>> Watched<A> {
    /// Watches the files, which contain `last`. `apply` is called after each change; if it fails,
    /// the last contents stay.
    pub(super) fn new(
        source: Option<FileSource<ListenFiles>>,
        last: ListenFiles,
        apply: A,
    ) -> Self {
        Self {
            source,
            last,
            problem: String::new(),
            apply,
        }
    }

    /// Returns what the files contained last.
    pub(super) fn last(&self) -> &ListenFiles {
        &self.last
    }

    /// Reads other files from now on.
    pub(super) fn set_source(&mut self, source: Option<FileSource<ListenFiles>>) {
        self.source = source;
    }

    /// Reads the files, and applies a change.
    pub(super) async fn reload(&mut self) -> Reloaded {
        let Some(source) = self.source.clone() else {
            return Reloaded::NoFiles;
        };
        match tokio::task::spawn_blocking(move || source.read()).await {
            Ok(read) => self.change(read),
            Err(_) => Reloaded::Refused,
        }
    }

    /// Applies the contents of the files if they have changed.
    pub(super) fn change(&mut self, read: Result<ListenFiles, String>) -> Reloaded {
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

    #[tokio::test]
    async fn changed_files_apply_unless_they_are_invalid() {
        let on_disk = Arc::new(Mutex::new(Ok(files(&["a"]))));
        let (applied, changes) = std::sync::mpsc::channel();
        let disk = on_disk.clone();
        let source = FileSource::new(move || disk.lock().unwrap().clone());
        let apply = move |files: &ListenFiles| {
            if files.client_tokens == ["unusable".into()] {
                return Err("unusable".to_owned());
            }
            applied.send(files.clone()).map_err(|e| e.to_string())
        };
        let mut watched = Watched::new(Some(source), files(&["a"]), apply);
        assert_eq!(watched.reload().await, Reloaded::Applied);
        assert!(changes.try_recv().is_err(), "nothing has changed");
        *on_disk.lock().unwrap() = Ok(files(&["a", "b"]));
        assert_eq!(watched.reload().await, Reloaded::Applied);
        assert_eq!(changes.try_recv(), Ok(files(&["a", "b"])));
        // A file that is being replaced keeps the last tokens.
        for problem in [Err("has no token".to_owned()), Ok(files(&["unusable"]))] {
            *on_disk.lock().unwrap() = problem;
            assert_eq!(watched.reload().await, Reloaded::Refused);
            assert!(changes.try_recv().is_err());
        }
        assert_eq!(watched.last(), &files(&["a", "b"]));
        *on_disk.lock().unwrap() = Ok(files(&["c"]));
        assert_eq!(watched.reload().await, Reloaded::Applied);
        assert_eq!(changes.try_recv(), Ok(files(&["c"])));
        watched.set_source(None);
        assert_eq!(watched.reload().await, Reloaded::NoFiles);
    }
}
