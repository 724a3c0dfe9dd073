//! Tests of logs over a scripted source, in paused time.

mod end_watch;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use tokio_stream::StreamExt;
use tonic::Code;

use super::position::{Page, ReadPosition};
use super::source::{LogRules, PageFuture};
use super::*;
use crate::credentials::CredentialId;
use crate::memory::Memory;
use crate::watch::Settings;
use drawbridge_transcoder::api::drawbridge::v1::{Outcome, WatchEvent};
use drawbridge_transcoder::contract::{Entry, Order};

const S: fn(u64) -> Duration = Duration::from_secs;
const PAGE: usize = 10;

/// A scripted list, oldest first. Keys are like `7.c`, whose time is 7.
#[derive(Default)]
struct ScriptedLog {
    list: Mutex<Vec<String>>,
    reads: AtomicUsize,
    /// The list ignores_markers markers.
    ignores_markers: AtomicBool,
    /// The list is not paged: each read returns all of it.
    unpaged: bool,
    /// The log is a text of lines with one byte.
    text: bool,
    fails: AtomicBool,
    /// Seconds that a read takes. It returns what existed when it began.
    delay: AtomicU64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(message, optional, tag = "1")]
    event: Option<WatchEvent>,
    #[prost(string, optional, tag = "2")]
    item: Option<String>,
    #[prost(string, tag = "3")]
    marker: String,
}

fn entry(key: &String) -> Entry {
    Entry {
        key: key.as_str().into(),
        order: key
            .split('.')
            .next()
            .map(|t| Order::Number(t.parse().unwrap())),
        bytes: Bytes::copy_from_slice(key.as_bytes()),
    }
}

impl ScriptedLog {
    fn counting(to: usize) -> Arc<Self> {
        let log = Self::default();
        *log.list.lock().unwrap() = (0..to).map(|n| n.to_string()).collect();
        Arc::new(log)
    }

    fn add(&self, keys: &[&str]) {
        self.list
            .lock()
            .unwrap()
            .extend(keys.iter().map(ToString::to_string));
    }

    async fn delays(&self) {
        match self.delay.load(Ordering::Relaxed) {
            0 => {}
            seconds => tokio::time::sleep(S(seconds)).await,
        }
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn read(&self, at: Option<&str>) -> Result<Page, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Connect("refused".to_owned()));
        }
        let list = self.list.lock().unwrap();
        if self.text {
            let from = at.map_or(0, |at| at.parse().unwrap());
            let lines = list.iter().enumerate().skip(from).take(PAGE);
            let entries: Vec<Entry> = lines
                .map(|(number, line)| Entry {
                    key: (number + 1).to_string().into(),
                    ..entry(line)
                })
                .collect();
            return Ok(Page {
                last: entries.is_empty(),
                next: Some(ReadPosition {
                    marker: Some((from + entries.len()).to_string().into()),
                    ..ReadPosition::default()
                }),
                entries,
                ..Page::default()
            });
        }
        // An unknown marker is ignored.
        let known = at.and_then(|at| list.iter().position(|key| key == at));
        let ignores_markers = self.unpaged || self.ignores_markers.load(Ordering::Relaxed);
        let from = known.filter(|_| !ignores_markers).map_or(0, |at| at + 1);
        let most = if self.unpaged { usize::MAX } else { PAGE };
        let entries: Vec<Entry> = list[from..].iter().take(most).map(entry).collect();
        Ok(Page {
            last: self.unpaged || entries.len() < PAGE,
            entries,
            whole: self.unpaged,
            ..Page::default()
        })
    }
}

impl LogSource for ScriptedLog {
    fn memory(&self) -> Memory {
        Memory::default()
    }

    fn rules(&self) -> LogRules {
        LogRules {
            initial_interval: S(1),
            max_interval: S(4),
            look_back: if self.unpaged || self.text { 0 } else { 3 },
            text: self.text,
        }
    }

    fn page(self: Arc<Self>, at: ReadPosition) -> PageFuture {
        Box::pin(async move {
            let page = self.read(at.marker.as_deref());
            self.delays().await;
            page
        })
    }

    fn newest(self: Arc<Self>) -> PageFuture {
        if self.unpaged {
            return self.page(ReadPosition::default());
        }
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::Connect("refused".to_owned()));
            }
            let page = {
                let list = self.list.lock().unwrap();
                let entries = &list[list.len().saturating_sub(PAGE)..];
                Page {
                    last: entries.len() < PAGE,
                    entries: entries.iter().map(entry).collect(),
                    ..Page::default()
                }
            };
            self.delays().await;
            Ok(page)
        })
    }

    fn take_retry_after(&self) -> Duration {
        Duration::ZERO
    }

    fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes {
        let message = Message {
            event: Some(*event),
            item: item.map(|item| String::from_utf8(item.to_vec()).unwrap()),
            marker: marker.to_owned(),
        };
        message.encode_to_vec().into()
    }
}

fn watches() -> Watches {
    Watches::with(Settings::default(), || SystemTime::UNIX_EPOCH, || 0.5)
}

fn key() -> Key {
    Key {
        upstream: "cloud".into(),
        instances: (0, 0),
        operation: "test.v1.LogService/WatchLog".into(),
        verb: http::Method::GET,
        path: "/log".to_owned(),
        project: None,
        query: String::new(),
        body: None,
        credential: CredentialId([0; 32]),
        language: None,
        discriminator: Vec::new(),
    }
}

async fn open(
    watches: &Watches,
    log: &Arc<ScriptedLog>,
    start: StartAt,
) -> Result<WatchStream, Error> {
    let source = || -> Arc<dyn LogSource> { log.clone() };
    watches
        .open_log(Client::default(), key(), start, None, None, source)
        .await
}

async fn from(watches: &Watches, log: &Arc<ScriptedLog>, marker: &str) -> WatchStream {
    let marker = (!marker.is_empty()).then(|| marker.into());
    let start = StartAt::Position(Position::new(marker, log.text));
    open(watches, log, start).await.unwrap()
}

/// Returns the next message as text.
async fn next(stream: &mut WatchStream) -> String {
    let message = tokio::time::timeout(S(3_600), stream.next()).await;
    match message.expect("it is sent within an hour") {
        Some(Ok(message)) => {
            let message = Message::decode(message).unwrap();
            let event = message.event.unwrap();
            assert_eq!(event.outcome(), Outcome::Unspecified);
            let kind = event
                .r#type()
                .as_str_name()
                .replace("WATCH_EVENT_TYPE_", "");
            let since = event.unconfirmed_since.map_or("", |_| " unconfirmed");
            match message.item {
                Some(item) => format!("{kind} {item}{since}"),
                None => format!("{kind} at {}{since}", message.marker),
            }
        }
        Some(Err(error)) => format!("ERROR {error}"),
        None => "END".to_owned(),
    }
}

async fn all(stream: &mut WatchStream, count: usize) -> String {
    let mut sent = Vec::new();
    for _ in 0..count {
        sent.push(next(stream).await);
    }
    sent.join(", ")
}

/// Returns the next entries, without bookmarks.
async fn entries(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut sent = Vec::new();
    while sent.len() < count {
        let text = next(stream).await;
        match text.split_once(' ') {
            Some(("INITIAL" | "ADDED", entry)) => sent.push(entry.to_owned()),
            Some(("BOOKMARK", _)) => {}
            _ => panic!("{text} after {} entries", sent.len()),
        }
    }
    sent
}

/// Polls a future once, and drops it if it is not ready.
async fn polled_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

async fn assert_silent(stream: &mut WatchStream, time: Duration) {
    if let Ok(sent) = tokio::time::timeout(time, stream.next()).await {
        panic!("sent {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn log_is_read_from_the_start_a_marker_or_now() {
    for unpaged in [false, true] {
        let log = Arc::new(ScriptedLog {
            unpaged,
            ..ScriptedLog::default()
        });
        // Several entries have equal times.
        log.add(&["1.a", "2.a", "2.b", "2.c"]);
        let watches = watches();
        let mut start = from(&watches, &log, "").await;
        assert_eq!(
            all(&mut start, 5).await,
            "INITIAL 1.a, INITIAL 2.a, INITIAL 2.b, INITIAL 2.c, BOOKMARK at 2.c"
        );
        let mut marker = from(&watches, &log, "2.b").await;
        assert_eq!(all(&mut marker, 2).await, "INITIAL 2.c, BOOKMARK at 2.c");
        let mut now = open(&watches, &log, StartAt::Now).await.unwrap();
        assert_eq!(next(&mut now).await, "BOOKMARK at 2.c");
        log.add(&["2.d", "3.a"]);
        for stream in [&mut start, &mut marker, &mut now] {
            assert_eq!(all(stream, 2).await, "ADDED 2.d, ADDED 3.a", "{unpaged}");
        }
        for stream in [&mut start, &mut marker, &mut now] {
            assert_silent(stream, S(5)).await;
        }
        assert_eq!(watches.stats().loops, 1, "one loop for all");
        // The tail has not read this entry yet; it is not sent again.
        log.add(&["4.a", "4.b"]);
        let mut ahead = from(&watches, &log, "4.a").await;
        assert_eq!(all(&mut ahead, 2).await, "INITIAL 4.b, BOOKMARK at 4.b");
        assert_eq!(all(&mut start, 2).await, "ADDED 4.a, ADDED 4.b");
        log.add(&["5"]);
        assert_eq!(next(&mut ahead).await, "ADDED 5", "{unpaged}");
        drop((start, marker, now, ahead));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let stats = watches.stats();
        assert_eq!((stats.open_streams, stats.loops), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn from_now_starts_at_the_end_of_the_list_when_the_rpc_arrives() {
    for unpaged in [false, true] {
        let log = Arc::new(ScriptedLog {
            unpaged,
            ..ScriptedLog::default()
        });
        log.add(&["1", "3"]);
        let watches = watches();
        let mut start = from(&watches, &log, "").await;
        assert_eq!(
            all(&mut start, 3).await,
            "INITIAL 1, INITIAL 3, BOOKMARK at 3"
        );
        // The tail has not read these; one precedes entries that it has read.
        log.add(&["4", "5"]);
        log.list.lock().unwrap().insert(1, "2".to_owned());
        let arrived = tokio::time::Instant::now();
        let mut now = open(&watches, &log, StartAt::Now).await.unwrap();
        assert_eq!(
            arrived.elapsed(),
            S(0),
            "it does not wait for the next regular poll"
        );
        log.add(&["6"]);
        // These are read before the client reads its first message.
        let mut sent = entries(&mut start, 4).await;
        sent.sort();
        assert_eq!(sent, ["2", "4", "5", "6"]);
        log.add(&["7"]);
        assert_eq!(
            all(&mut now, 3).await,
            "BOOKMARK at 5, ADDED 6, ADDED 7",
            "{unpaged}"
        );
        assert_eq!(entries(&mut start, 1).await, ["7"]);
        for stream in [&mut start, &mut now] {
            assert_silent(stream, S(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn round_begun_before_the_rpc_is_not_its_start() {
    for first in [false, true] {
        let (watches, log) = (watches(), ScriptedLog::counting(3));
        // A client keeps the loop running.
        let mut before = None;
        if !first {
            before = Some(open(&watches, &log, StartAt::Now).await.unwrap());
        }
        log.delay.store(2, Ordering::Relaxed);
        let reads = log.reads();
        let join = || async {
            while log.reads() == reads {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            log.add(&["3"]);
            open(&watches, &log, StartAt::Now).await.unwrap()
        };
        let mut now = if first {
            let (first, now) = tokio::join!(open(&watches, &log, StartAt::Now), join());
            before = Some(first.unwrap());
            now
        } else {
            join().await
        };
        assert_eq!(next(&mut now).await, "BOOKMARK at 3", "{first}");
        let mut before = before.unwrap();
        assert_eq!(
            all(&mut before, 2).await,
            "BOOKMARK at 2, ADDED 3",
            "{first}"
        );
        log.delay.store(0, Ordering::Relaxed);
        log.add(&["4"]);
        for stream in [&mut before, &mut now] {
            assert_eq!(next(stream).await, "ADDED 4");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_join_together_share_one_round() {
    let (watches, log) = (watches(), ScriptedLog::counting(3));
    let mut first = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut first).await, "BOOKMARK at 2");
    log.delay.store(2, Ordering::Relaxed);
    log.add(&["3"]);
    let reads = log.reads();
    // All join before the first one has its mark.
    let join = |_| {
        let (watches, log) = (watches.clone(), Arc::clone(&log));
        async move { open(&watches, &log, StartAt::Now).await.unwrap() }
    };
    let mut joining: tokio::task::JoinSet<_> = (0..1_000).map(join).collect();
    while let Some(stream) = joining.join_next().await {
        assert_eq!(next(&mut stream.unwrap()).await, "BOOKMARK at 3");
    }
    // The newest page, and the entries after the marker.
    assert_eq!(log.reads(), reads + 2);
    assert_eq!(next(&mut first).await, "ADDED 3");
}

#[tokio::test(start_paused = true)]
async fn client_that_leaves_before_its_mark_causes_no_read() {
    let (watches, log) = (watches(), ScriptedLog::counting(3));
    let mut first = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut first).await, "BOOKMARK at 2");
    let reads = log.reads();
    let join = open(&watches, &log, StartAt::Now);
    assert!(polled_once(join).await.is_none(), "it waits for a round");
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.reads(), reads);
    let stats = watches.stats();
    assert_eq!((stats.open_streams, stats.loops), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn from_now_fails_with_the_error_of_its_round() {
    let (watches, log) = (watches(), ScriptedLog::counting(3));
    let mut first = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut first).await, "BOOKMARK at 2");
    log.fails.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = open(&watches, &log, StartAt::Now).await.err().unwrap();
        assert_eq!(error.code(), Code::Unavailable);
    }
    // The failure is tolerated for the first client.
    assert_eq!(next(&mut first).await, "BOOKMARK at 2 unconfirmed");
    log.fails.store(false, Ordering::Relaxed);
    let mut now = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut now).await, "BOOKMARK at 2");
    // The loop ends while a client joins.
    let (joining, ()) = tokio::join!(open(&watches, &log, StartAt::Now), async {
        watches.drain();
    });
    assert!(matches!(joining.err(), Some(Error::Draining)));
}

#[tokio::test(start_paused = true)]
async fn lines_that_exist_when_the_rpc_arrives_are_initial() {
    let log = Arc::new(ScriptedLog {
        text: true,
        delay: AtomicU64::new(1),
        ..ScriptedLog::default()
    });
    let lines = |range: std::ops::Range<usize>, kind: &str| -> Vec<String> {
        range.map(|n| format!("{kind} {n}")).collect()
    };
    let add = |range: std::ops::Range<usize>| {
        let mut list = log.list.lock().unwrap();
        list.extend(range.map(|n| n.to_string()));
    };
    add(0..25);
    let watches = watches();
    let mut first = from(&watches, &log, "").await;
    // Sent as they are read, all before the bookmark.
    let mut want = lines(0..25, "INITIAL");
    want.push("BOOKMARK at 25".to_owned());
    assert_eq!(all(&mut first, 26).await, want.join(", "));
    // The tail has not read these.
    add(25..30);
    let mut joins = from(&watches, &log, "").await;
    let mut want = lines(0..30, "INITIAL");
    want.push("BOOKMARK at 30".to_owned());
    assert_eq!(all(&mut joins, 31).await, want.join(", "));
    // Reads fail for a moment.
    log.fails.store(true, Ordering::Relaxed);
    add(30..32);
    let mut late = from(&watches, &log, "").await;
    let mut want = lines(0..30, "INITIAL");
    want.push("BOOKMARK at 30 unconfirmed".to_owned());
    assert_eq!(all(&mut late, 31).await, want.join(", "));
    let reads = log.reads();
    assert_silent(&mut late, S(20)).await;
    assert!(log.reads() - reads <= 10, "at the regular interval");
    log.fails.store(false, Ordering::Relaxed);
    assert_eq!(
        all(&mut late, 3).await,
        "INITIAL 30, INITIAL 31, BOOKMARK at 32"
    );
    add(32..33);
    assert_eq!(next(&mut late).await, "ADDED 32");
    let want: Vec<_> = (25..33).map(|n| n.to_string()).collect();
    assert_eq!(entries(&mut first, 8).await, want);
    assert_eq!(watches.stats().loops, 1);
}

#[tokio::test(start_paused = true)]
async fn each_of_fifty_thousand_entries_is_sent_once() {
    let (watches, log) = (watches(), ScriptedLog::counting(50_000));
    let mut stream = from(&watches, &log, "").await;
    let mut sent = entries(&mut stream, 20_000).await;
    // The list does not end at a full page with nothing after it.
    log.list
        .lock()
        .unwrap()
        .extend((50_000..50_010).map(|n| n.to_string()));
    sent.extend(entries(&mut stream, 30_010).await);
    let want: Vec<String> = (0..50_010).map(|n| n.to_string()).collect();
    assert!(sent == want);
    // A client that reconnects misses no entry and gets none again.
    drop(stream);
    log.add(&["50010"]);
    let mut stream = from(&watches, &log, "50009").await;
    assert_eq!(entries(&mut stream, 1).await, ["50010"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK at 50010");
    assert_silent(&mut stream, S(20)).await;
}

#[tokio::test(start_paused = true)]
async fn purged_marker_repeats_no_entry() {
    let (watches, log) = (watches(), ScriptedLog::counting(5_000));
    let mut stream = from(&watches, &log, "99").await;
    assert_eq!(entries(&mut stream, 4_900).await.last().unwrap(), "4999");
    assert_eq!(next(&mut stream).await, "BOOKMARK at 4999");
    // Only the marker was purged: the first page has no new entries.
    log.list.lock().unwrap().retain(|key| key != "4999");
    assert_silent(&mut stream, S(20)).await;
    log.add(&["5000"]);
    assert_eq!(next(&mut stream).await, "ADDED 5000");
    // All sent entries were purged: the first page is new.
    *log.list.lock().unwrap() = (6_000..6_025).map(|n| n.to_string()).collect();
    let want: Vec<String> = (6_000..6_025).map(|n| n.to_string()).collect();
    assert_eq!(entries(&mut stream, 25).await, want);
    assert_silent(&mut stream, S(20)).await;
    // An unknown marker of a client starts at the beginning.
    let mut odd = from(&watches, &log, "nonsense").await;
    assert_eq!(entries(&mut odd, 25).await, want);
}

#[tokio::test(start_paused = true)]
async fn entry_added_before_the_marker_is_sent_late() {
    for unpaged in [false, true] {
        let (watches, log) = (
            watches(),
            Arc::new(ScriptedLog {
                unpaged,
                ..ScriptedLog::default()
            }),
        );
        log.add(&["1", "3", "5"]);
        let mut stream = from(&watches, &log, "1").await;
        assert_eq!(
            all(&mut stream, 3).await,
            "INITIAL 3, INITIAL 5, BOOKMARK at 5"
        );
        log.list.lock().unwrap().insert(2, "4".to_owned());
        let message = stream.next().await.unwrap().unwrap();
        let message = Message::decode(message).unwrap();
        assert_eq!(message.item.unwrap(), "4");
        assert_eq!(message.marker, "5", "to resume after all sent entries");
        log.add(&["6"]);
        assert_eq!(next(&mut stream).await, "ADDED 6");
        assert_silent(&mut stream, S(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn upstream_that_ignores_markers_fails_the_watch() {
    let (watches, log) = (watches(), ScriptedLog::counting(25));
    log.ignores_markers.store(true, Ordering::Relaxed);
    let mut stream = from(&watches, &log, "").await;
    assert_eq!(entries(&mut stream, 10).await.len(), 10);
    assert!(
        next(&mut stream)
            .await
            .contains("does not continue after its marker")
    );
    assert_eq!(next(&mut stream).await, "END");
    assert!(log.reads.load(Ordering::Relaxed) < 10);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_catches_up_without_loss() {
    let (watches, log) = (watches(), ScriptedLog::counting(5));
    let mut slow = from(&watches, &log, "").await;
    let mut fast = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut fast).await, "BOOKMARK at 4");
    assert_eq!(entries(&mut slow, 5).await.len(), 5);
    assert_eq!(next(&mut slow).await, "BOOKMARK at 4");
    // More entries than the window has, one of them late.
    log.list
        .lock()
        .unwrap()
        .extend((10..3_000).map(|n| n.to_string()));
    assert_eq!(entries(&mut fast, 2_990).await.len(), 2_990);
    log.list
        .lock()
        .unwrap()
        .insert(3_000 - 12, "2990.late".to_owned());
    assert_eq!(entries(&mut fast, 1).await, ["2990.late"]);
    log.list
        .lock()
        .unwrap()
        .extend((3_000..5_000).map(|n| n.to_string()));
    assert_eq!(entries(&mut fast, 2_000).await.len(), 2_000);
    let mut sent = entries(&mut slow, 4_991).await;
    assert_silent(&mut slow, S(20)).await;
    sent.sort_by_key(|key| key.split('.').next().unwrap().parse::<u32>().unwrap());
    sent.dedup();
    assert_eq!(sent.len(), 4_991);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_of_an_unpaged_list_gets_each_entry_once() {
    let log = Arc::new(ScriptedLog {
        unpaged: true,
        ..ScriptedLog::default()
    });
    log.add(&["0", "1", "2", "3", "4"]);
    let watches = watches();
    let mut slow = from(&watches, &log, "").await;
    let mut fast = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut fast).await, "BOOKMARK at 4");
    assert_eq!(entries(&mut slow, 5).await.len(), 5);
    assert_eq!(next(&mut slow).await, "BOOKMARK at 4");
    // By now the reader has dropped its memory of sent keys.
    assert_eq!(next(&mut slow).await, "BOOKMARK at 4");
    // More entries than the window has, one of them late.
    let more = |keys: std::ops::Range<u32>| {
        let mut list = log.list.lock().unwrap();
        list.extend(keys.map(|n| n.to_string()));
    };
    more(10..3_000);
    assert_eq!(entries(&mut fast, 2_990).await.len(), 2_990);
    log.list.lock().unwrap().insert(3, "2.late".to_owned());
    assert_eq!(entries(&mut fast, 1).await, ["2.late"]);
    more(3_000..5_000);
    assert_eq!(entries(&mut fast, 2_000).await.len(), 2_000);
    let mut want = vec!["2.late".to_owned()];
    want.extend((10..5_000).map(|n| n.to_string()));
    assert!(entries(&mut slow, want.len()).await == want);
    for stream in [&mut slow, &mut fast] {
        assert_silent(stream, S(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reader_that_misses_late_entries_is_aborted_with_its_marker() {
    let log = Arc::new(ScriptedLog {
        unpaged: true,
        ..ScriptedLog::default()
    });
    log.add(&["0", "1", "2", "3", "4"]);
    let watches = watches();
    let mut slow = from(&watches, &log, "").await;
    let mut fast = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut fast).await, "BOOKMARK at 4");
    assert_eq!(entries(&mut slow, 5).await.len(), 5);
    assert_eq!(next(&mut slow).await, "BOOKMARK at 4");
    // More late entries than the window keeps.
    for batch in 0..5 {
        let late: Vec<String> = (0..500).map(|n| format!("2.{batch}.{n}")).collect();
        log.list.lock().unwrap().splice(3..3, late);
        assert_eq!(entries(&mut fast, 500).await.len(), 500);
    }
    let error = slow.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert_eq!(
        error.to_string(),
        "the client reads too slowly: resume from the marker `4`"
    );
}

#[tokio::test(start_paused = true)]
async fn reader_beyond_the_end_of_a_text_does_not_affect_others() {
    let log = Arc::new(ScriptedLog {
        text: true,
        ..ScriptedLog::default()
    });
    log.add(&["1", "2", "3"]);
    let watches = watches();
    let mut far = from(&watches, &log, "10000000").await;
    assert_eq!(next(&mut far).await, "BOOKMARK at 10000000");
    let mut start = from(&watches, &log, "").await;
    let mut zero = from(&watches, &log, "0").await;
    for stream in [&mut start, &mut zero] {
        assert_eq!(entries(stream, 3).await, ["1", "2", "3"]);
        assert!(next(stream).await.starts_with("BOOKMARK"));
    }
    log.add(&["4"]);
    for stream in [&mut start, &mut zero] {
        assert_eq!(next(stream).await, "ADDED 4");
    }
    assert_eq!(
        watches.stats().loops,
        2,
        "one from the start, one beyond the end"
    );
}

thread_local! {
    static BEGAN: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) };
}

/// Returns the paused time as wall-clock time from 1,000 s on.
fn clock() -> SystemTime {
    let began = BEGAN.get().expect("set by the test");
    SystemTime::UNIX_EPOCH + S(1_000) + began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn observed_at_is_the_time_of_the_read() {
    for text in [true, false] {
        let log = Arc::new(ScriptedLog {
            text,
            ..ScriptedLog::default()
        });
        log.add(&["1", "2", "3"]);
        BEGAN.set(Some(tokio::time::Instant::now()));
        let watches = Watches::with(Settings::default(), clock, || 0.5);
        let mut stream = from(&watches, &log, "").await;
        let mut sent = async |count: usize| {
            let mut seconds = Vec::new();
            for _ in 0..count {
                let message = stream.next().await.unwrap().unwrap();
                let event = Message::decode(message).unwrap().event.unwrap();
                seconds.push(event.observed_at.unwrap().seconds);
            }
            seconds
        };
        // Three entries and a bookmark, all from the first read.
        assert_eq!(sent(4).await, [1_000; 4], "text: {text}");
        tokio::time::advance(S(20)).await;
        log.add(&["4"]);
        let [read] = sent(1).await[..] else { panic!() };
        assert!((1_020..=1_040).contains(&read), "text: {text}: {read}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_are_short_only_until_the_requested_round() {
    let log = Arc::new(ScriptedLog {
        unpaged: true,
        ..ScriptedLog::default()
    });
    log.add(&["1"]);
    let watches = watches();
    let mut stream = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut stream).await, "BOOKMARK at 1");
    assert_silent(&mut stream, S(20)).await;
    let tail = Arc::clone(watches.0.lock().logs.values().next().unwrap());
    let rounds = tail.succeeded();
    assert_eq!(tail.shorten_pauses(), rounds + 1);
    assert_silent(&mut stream, Duration::from_millis(1_500)).await;
    assert_eq!(tail.succeeded(), rounds + 1);
    assert_eq!(next(&mut stream).await, "BOOKMARK at 1");
    let rounds = tail.succeeded();
    assert_silent(&mut stream, S(20)).await;
    let slow = tail.succeeded() - rounds;
    assert!(slow <= 6, "{slow} rounds of 4 s in 20 s");
}

#[tokio::test(start_paused = true)]
async fn log_loops_count_against_the_limit_of_loops() {
    let settings = Settings {
        max_poll_loops: 1,
        ..Settings::default()
    };
    let watches = Watches::with(settings, || SystemTime::UNIX_EPOCH, || 0.5);
    let _log = from(&watches, &ScriptedLog::counting(5), "").await;
    let refused = |error: Option<Error>| error.unwrap().code() == Code::ResourceExhausted;
    assert!(refused(watches.0.check_limits(Client::default()).err()));
    let source = || panic!("the limit is reached");
    let loops = watches
        .open(Client::default(), key(), false, None, source)
        .await;
    assert!(refused(loops.err()));
}

#[tokio::test(start_paused = true)]
async fn failures_are_tolerated_and_reported() {
    let (watches, log) = (watches(), ScriptedLog::counting(25));
    let mut stream = from(&watches, &log, "").await;
    assert_eq!(entries(&mut stream, 10).await.len(), 10);
    log.fails.store(true, Ordering::Relaxed);
    assert_eq!(next(&mut stream).await, "BOOKMARK at 9 unconfirmed");
    log.fails.store(false, Ordering::Relaxed);
    assert_eq!(entries(&mut stream, 15).await.len(), 15);
    assert_eq!(next(&mut stream).await, "BOOKMARK at 24");
    log.fails.store(true, Ordering::Relaxed);
    assert_eq!(next(&mut stream).await, "BOOKMARK at 24 unconfirmed");
    log.add(&["25"]);
    log.fails.store(false, Ordering::Relaxed);
    assert_eq!(
        all(&mut stream, 2).await,
        "ADDED 25, BOOKMARK at 25",
        "confirmed by the read that brings it"
    );
    // A failure of the first read is the error of the rpc.
    drop(stream);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    log.fails.store(true, Ordering::Relaxed);
    let start = StartAt::Position(Position::new(None, false));
    let error = open(&watches, &log, start).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_logs() {
    let (watches, log) = (watches(), ScriptedLog::counting(25));
    let mut reading = from(&watches, &log, "").await;
    let mut now = open(&watches, &log, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut now).await, "BOOKMARK at 24");
    watches.drain();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    for stream in [&mut reading, &mut now] {
        assert_eq!(all(stream, 2).await, "ERROR the gateway is stopping, END");
    }
    assert!(matches!(
        open(&watches, &log, StartAt::Now).await.err(),
        Some(Error::Draining)
    ));
}
