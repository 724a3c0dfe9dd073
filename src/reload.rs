//! Values that come from files and are read again when the files change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often files are read again.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// Reads a value from its files.
pub struct FileSource<T> {
    read: Arc<dyn Fn() -> Result<T, String> + Send + Sync>,
    upstream: Arc<str>,
    files: Arc<str>,
}

impl<T> FileSource<T> {
    /// Makes a source of a function, which is called from calls and must not wait.
    pub fn new(read: impl Fn() -> Result<T, String> + Send + Sync + 'static) -> Self {
        Self {
            read: Arc::new(read),
            upstream: Arc::from(""),
            files: Arc::from(""),
        }
    }

    /// Names the upstream and the files, for the log.
    pub fn named(self, upstream: &str, files: &str) -> Self {
        Self {
            upstream: Arc::from(upstream),
            files: Arc::from(files),
            ..self
        }
    }

    pub(crate) fn upstream(&self) -> &str {
        &self.upstream
    }

    pub(crate) fn files(&self) -> &str {
        &self.files
    }

    /// Reads the value. Fails with the problem.
    pub fn read(&self) -> Result<T, String> {
        (self.read)()
    }
}

impl<T> Clone for FileSource<T> {
    fn clone(&self) -> Self {
        Self {
            read: self.read.clone(),
            upstream: self.upstream.clone(),
            files: self.files.clone(),
        }
    }
}

impl<T> fmt::Debug for FileSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").finish_non_exhaustive()
    }
}
