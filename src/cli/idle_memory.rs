//! Returns the memory of a burst to the system. The allocator keeps what is freed in a heap per
//! thread, and returns it only while that thread allocates: an idle gateway would keep it.
//!
//! Each thread must do it itself. The watch below starts a round, and wakes the workers of the
//! runtime; each worker takes part before it sleeps again. Between rounds this costs a worker
//! one comparison each time it sleeps.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Returns the free memory of the calling thread to the system.
pub type Collect = fn();

static COLLECT: OnceLock<Collect> = OnceLock::new();

/// The number of the latest round.
static ROUND: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The latest round that this thread took part in.
    static LATEST: Cell<u64> = const { Cell::new(0) };
}

/// Interval of the measurements, and minimum time between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Memory above the lowest so far that is worth a round.
const SLACK_BYTES: u64 = 16 << 20;

/// A round that returns less was the last one for now: the memory is in use.
const MIN_RETURNED_BYTES: u64 = 1 << 20;

/// Time between rounds that return nothing: initial and maximum. It doubles each time.
const MIN_PAUSE: Duration = Duration::from_secs(4);
const MAX_PAUSE: Duration = Duration::from_secs(32);

/// Share of a core above which the process is busy: returned memory would soon be needed again.
const BUSY_SHARE: f64 = 0.25;

/// A busy process has a round at least so often.
const MAX_BUSY: Duration = Duration::from_secs(10);

/// Tasks per round and worker, so that all workers wake.
const TASKS_PER_WORKER: usize = 4;

/// Sets what [`take_part`] calls. Without it nothing is returned.
pub(super) fn set(collect: Collect) {
    // Set once, at the start of the process.
    let _ = COLLECT.set(collect);
}

/// Takes part in the latest round, if this thread has not yet. Called by the workers of the
/// runtime before they sleep.
pub(super) fn take_part() {
    let round = ROUND.load(Relaxed);
    if LATEST.get() != round {
        LATEST.set(round);
        if let Some(collect) = COLLECT.get() {
            collect();
        }
    }
}

/// Starts rounds while memory can be returned, until dropped.
pub(super) async fn watch() -> Infallible {
    // Before the first call, however early it is.
    let mut rounds = Rounds {
        lowest_bytes: Measured::now().map(|measured| measured.rss_bytes),
        ..Rounds::default()
    };
    loop {
        sleep(INTERVAL).await;
        let Some(measured) = Measured::now() else {
            // Not Linux.
            return std::future::pending().await;
        };
        if rounds.is_due(measured, Instant::now()) {
            start_round();
        }
    }
}

/// Starts a round, and wakes the workers.
fn start_round() {
    ROUND.fetch_add(1, Relaxed);
    take_part();
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    for _ in 0..workers * TASKS_PER_WORKER {
        tokio::spawn(async { take_part() });
    }
}

/// What the process uses.
#[derive(Clone, Copy, Debug)]
struct Measured {
    rss_bytes: u64,
    /// Since it started.
    cpu: Duration,
    tasks: usize,
}

impl Measured {
    fn now() -> Option<Self> {
        // Source: proc(5), "/proc/pid/statm" and "/proc/pid/stat"; pages of 4 KiB or more, and
        // ticks of 10 ms.
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Some(Self {
            rss_bytes: pages * 4_096,
            cpu: Duration::from_millis(ticks * 10),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
        })
    }
}

/// Decides when a round is due.
#[derive(Debug, Default)]
struct Rounds {
    /// The lowest memory so far.
    lowest_bytes: Option<u64>,
    latest: Option<(Instant, Measured)>,
    /// The latest round, and the usage at its time.
    round: Option<(Instant, Measured)>,
    pause: Duration,
}

impl Rounds {
    fn is_due(&mut self, measured: Measured, now: Instant) -> bool {
        let lowest = self.lowest_bytes.get_or_insert(measured.rss_bytes);
        *lowest = measured.rss_bytes.min(*lowest);
        let has_slack = measured.rss_bytes > *lowest + SLACK_BYTES;
        let latest = self.latest.replace((now, measured));
        if !has_slack {
            self.pause = Duration::ZERO;
            return false;
        }
        let is_busy = latest.is_none_or(|(then, before)| {
            let cpu = measured.cpu.saturating_sub(before.cpu).as_secs_f64();
            cpu > BUSY_SHARE * now.duration_since(then).as_secs_f64()
        });
        let since_round = self.round.map(|(then, _)| now.duration_since(then));
        if is_busy && since_round.is_some_and(|since| since < MAX_BUSY) {
            return false;
        }
        if let Some((_, at_round)) = self.round {
            let returned = at_round.rss_bytes.saturating_sub(measured.rss_bytes);
            let has_ended_tasks = measured.tasks < at_round.tasks;
            let has_grown = measured.rss_bytes > at_round.rss_bytes + SLACK_BYTES;
            if returned >= MIN_RETURNED_BYTES || has_ended_tasks || has_grown {
                self.pause = Duration::ZERO;
            } else if since_round.is_some_and(|since| since < self.pause.max(INTERVAL)) {
                return false;
            } else {
                self.pause = (self.pause * 2).clamp(MIN_PAUSE, MAX_PAUSE);
            }
        }
        self.round = Some((now, measured));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn rounds_follow_what_can_be_returned() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        let mut cpu = Duration::ZERO;
        for (secs, mib, cpu_share, tasks, want) in [
            (0, 44, 0.0, 10, false),
            // A burst, busy.
            (1, 800, 1.5, 300, true),
            (2, 1_600, 1.5, 300, false),
            (5, 1_600, 1.5, 300, false),
            (11, 1_600, 1.5, 300, true),
            // Idle: as long as it returns something.
            (12, 1_600, 0.0, 12, true),
            (13, 700, 0.0, 12, true),
            (14, 80, 0.0, 12, true),
            // The rest is in use: less and less often.
            (15, 80, 0.0, 12, true),
            (16, 80, 0.0, 12, false),
            (18, 80, 0.0, 12, false),
            (19, 80, 0.0, 12, true),
            (26, 80, 0.0, 12, false),
            (27, 80, 0.0, 12, true),
            // Its tasks end.
            (30, 80, 0.0, 8, true),
            (31, 50, 0.0, 8, false),
            // Another burst.
            (40, 90, 0.0, 8, true),
        ] {
            cpu += Duration::from_secs_f64(cpu_share * 10.0);
            let measured = Measured {
                rss_bytes: mib * MIB,
                cpu,
                tasks,
            };
            let now = start + Duration::from_secs(secs);
            let due = rounds.is_due(measured, now);
            assert_eq!(due, want, "{secs} s: {rounds:?}");
        }
    }

    #[tokio::test]
    async fn process_is_measured() {
        let measured = Measured::now().unwrap();
        assert!(measured.rss_bytes > MIB, "{measured:?}");
    }
}
