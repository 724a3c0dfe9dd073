//! The open watches, for the page of the admin listener: one entry per poll loop.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use super::Watches;
use super::key::Key;
use super::log::Tail;
use super::shared_loop::{LoopMap, LoopSource, Progress, SharedLoop};
use super::snapshot_loop::SnapshotLoop;

/// The longest text of a state or of a path that is listed, in characters.
const MAX_TEXT_CHARS: usize = 200;

/// A resource, list or log that the gateway polls.
#[derive(Clone, Debug)]
pub struct OpenWatch {
    /// The rpc, as `package.Service/Method`.
    pub operation: Box<str>,
    /// The upstream.
    pub upstream: Box<str>,
    /// The path of the REST call, without its query.
    pub path: String,
    /// How many streams share it.
    pub streams: usize,
    /// When the first stream opened it.
    pub since: SystemTime,
    /// The reads that have succeeded.
    pub reads: u64,
    /// What the last one has found; none before the first one.
    pub observed: Option<ObservedWatch>,
}

/// What the reads of a watch have found.
#[derive(Clone, Debug)]
pub struct ObservedWatch {
    /// When.
    pub at: SystemTime,
    /// Whether the newest read has failed, or has not found the resource.
    pub is_unconfirmed: bool,
    /// The progress.
    pub progress: Progress,
}

impl Watches {
    /// Returns the number of watches, and at most `max` of them: those that cannot be read
    /// first, then the newest ones.
    pub fn open_watches(&self, max: usize) -> (usize, Vec<OpenWatch>) {
        let (snapshots, logs) = {
            let loops = self.0.lock();
            // Described after the lock is released.
            (pairs(&loops.snapshots), pairs(&loops.logs))
        };
        let snapshots = snapshots.into_iter().map(Loop::Snapshot);
        let mut all: Vec<Loop> = snapshots.chain(logs.into_iter().map(Loop::Log)).collect();
        let total = all.len();
        all.sort_by_cached_key(|one| match one {
            Loop::Snapshot((_, shared)) => rank(shared),
            Loop::Log((_, shared)) => rank(shared),
        });
        let listed = all.iter().take(max).map(|one| match one {
            Loop::Snapshot(pair) => describe(pair),
            Loop::Log(pair) => describe(pair),
        });
        (total, listed.collect())
    }
}

/// A loop, and what it polls.
type Pair<S> = (Arc<Key>, Arc<SharedLoop<S>>);

/// A loop of either kind.
enum Loop {
    Snapshot(Pair<SnapshotLoop>),
    Log(Pair<Tail>),
}

fn pairs<S: LoopSource>(loops: &LoopMap<S>) -> Vec<Pair<S>> {
    let pairs = loops.iter();
    pairs.map(|(key, one)| (key.clone(), one.clone())).collect()
}

fn rank<S: LoopSource>(shared: &SharedLoop<S>) -> (bool, Reverse<SystemTime>) {
    (!shared.is_unconfirmed(), Reverse(shared.since()))
}

fn describe<S: LoopSource>((key, shared): &Pair<S>) -> OpenWatch {
    let path = match &key.project {
        // The project is the same for all, and long.
        Some(project) => {
            let before = key.path.get(..project.start).unwrap_or_default();
            let after = key.path.get(project.end..).unwrap_or_default();
            format!("{before}…{after}")
        }
        None => key.path.clone(),
    };
    OpenWatch {
        operation: key.operation.clone(),
        upstream: key.upstream.clone(),
        path: path.chars().take(MAX_TEXT_CHARS).collect(),
        streams: shared.streams(),
        since: shared.since(),
        reads: shared.succeeded(),
        observed: shared.describe(|observed| ObservedWatch {
            at: observed.observed_at,
            is_unconfirmed: observed.unconfirmed,
            progress: match shared.source.progress(&observed.state) {
                Progress::Resource(text, outcome) => {
                    let cut = |text: String| text.chars().take(MAX_TEXT_CHARS).collect();
                    Progress::Resource(text.map(cut), outcome)
                }
                progress => progress,
            },
        }),
    }
}
