//! The log of the gateways that run on the thread of a test.

std::thread_local! {
    /// The log of this thread; `None` where no test reads it.
    static LOG: std::cell::RefCell<Option<Vec<u8>>> = const { std::cell::RefCell::new(None) };
}

struct ThisThread;

impl std::io::Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.iter_mut().for_each(|log| log.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Captures the log of this thread, on which the gateway of the test runs, too.
pub fn keep_log() {
    static ONE_FOR_ALL: std::sync::Once = std::sync::Once::new();
    // A subscriber of one thread misses callsites that another thread has registered first.
    ONE_FOR_ALL.call_once(|| {
        tracing_subscriber::fmt()
            .with_writer(|| ThisThread)
            .with_ansi(false)
            .init();
    });
    LOG.set(Some(Vec::new()));
}

/// Returns the lines of the log that contain a word.
pub fn logged(word: &str) -> Vec<String> {
    let bytes = LOG.with_borrow(|log| log.clone()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines = text.lines().filter(|line| line.contains(word));
    lines.map(str::to_owned).collect()
}
