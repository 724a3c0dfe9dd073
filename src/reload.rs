//! Values that come from files and are read again when the files change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often files are read again.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// Reads a value from its files.
pub struct FileSource<T>(Arc<dyn Fn() -> Result<T, String> + Send + Sync>);

impl<T> FileSource<T> {
    /// Makes a source of a function, which is called from calls and must not wait.
    pub fn new(read: impl Fn() -> Result<T, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the value. Fails with the problem.
    pub fn read(&self) -> Result<T, String> {
        (self.0)()
    }
}

impl<T> Clone for FileSource<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for FileSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").finish_non_exhaustive()
    }
}
