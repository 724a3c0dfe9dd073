//! Logs over a scripted upstream, in paused time.

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
use crate::watch::Settings;
use drawbridge_transcoder::api::drawbridge::v1::{Outcome, WatchEvent};
use drawbridge_transcoder::contract::{Entry, Order};

const S: fn(u64) -> Duration = Duration::from_secs;
const PAGE: usize = 10;

/// A list as an upstream keeps it, oldest first: keys like `7.c`, which stand at
/// the time 7.
#[derive(Default)]
struct World {
    list: Mutex<Vec<String>>,
    reads: AtomicUsize,
    /// Markers are ignored.
    ignores: AtomicBool,
    /// There are no pages: all of it comes with every read.
    whole: bool,
    /// It is a text, each line of which is one long.
    text: bool,
    fails: AtomicBool,
    /// A read has what was there when it began, and brings it so many seconds later.
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

impl World {
    fn counting(to: usize) -> Arc<Self> {
        let world = Self::default();
        *world.list.lock().unwrap() = (0..to).map(|n| n.to_string()).collect();
        Arc::new(world)
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
                whole: false,
            });
        }
        // One that is not known is ignored.
        let known = at.and_then(|at| list.iter().position(|key| key == at));
        let ignores = self.whole || self.ignores.load(Ordering::Relaxed);
        let from = known.filter(|_| !ignores).map_or(0, |at| at + 1);
        let most = if self.whole { usize::MAX } else { PAGE };
        let entries: Vec<Entry> = list[from..].iter().take(most).map(entry).collect();
        Ok(Page {
            last: self.whole || entries.len() < PAGE,
            entries,
            whole: self.whole,
            next: None,
        })
    }
}

impl LogSource for World {
    fn rules(&self) -> LogRules {
        LogRules {
            first_interval: S(1),
            max_interval: S(4),
            look_back: if self.whole || self.text { 0 } else { 3 },
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
        if self.whole {
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
        rpc: "/test.v1.LogService/WatchLog".into(),
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

async fn open(watches: &Watches, world: &Arc<World>, begin: StartAt) -> Result<WatchStream, Error> {
    let source = || -> Arc<dyn LogSource> { world.clone() };
    watches.open_log(key(), begin, None, None, source).await
}

async fn from(watches: &Watches, world: &Arc<World>, marker: &str) -> WatchStream {
    let marker = (!marker.is_empty()).then(|| marker.into());
    let begin = StartAt::Position(Position::new(marker, world.text));
    open(watches, world, begin).await.unwrap()
}

/// The next message, as text.
async fn next(stream: &mut WatchStream) -> String {
    let message = tokio::time::timeout(S(3_600), stream.next()).await;
    match message.expect("it comes within an hour") {
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
                None => format!("{kind} behind {}{since}", message.marker),
            }
        }
        Some(Err(error)) => format!("ERROR {error}"),
        None => "END".to_owned(),
    }
}

async fn all(stream: &mut WatchStream, count: usize) -> String {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(next(stream).await);
    }
    told.join(", ")
}

/// The next entries, without the messages in between.
async fn entries(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let text = next(stream).await;
        match text.split_once(' ') {
            Some(("INITIAL" | "ADDED", entry)) => told.push(entry.to_owned()),
            Some(("BOOKMARK", _)) => {}
            _ => panic!("{text} after {} entries", told.len()),
        }
    }
    told
}

/// Polls a future once, and drops it where it is not ready.
async fn polled_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

async fn silent(stream: &mut WatchStream, time: Duration) {
    if let Ok(told) = tokio::time::timeout(time, stream.next()).await {
        panic!("told {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn from_the_start_from_a_marker_and_from_now() {
    for whole in [false, true] {
        let world = Arc::new(World {
            whole,
            ..World::default()
        });
        // Equal times are no matter.
        world.add(&["1.a", "2.a", "2.b", "2.c"]);
        let watches = watches();
        let mut start = from(&watches, &world, "").await;
        assert_eq!(
            all(&mut start, 5).await,
            "INITIAL 1.a, INITIAL 2.a, INITIAL 2.b, INITIAL 2.c, BOOKMARK behind 2.c"
        );
        let mut marker = from(&watches, &world, "2.b").await;
        assert_eq!(
            all(&mut marker, 2).await,
            "INITIAL 2.c, BOOKMARK behind 2.c"
        );
        let mut now = open(&watches, &world, StartAt::Now).await.unwrap();
        assert_eq!(next(&mut now).await, "BOOKMARK behind 2.c");
        world.add(&["2.d", "3.a"]);
        for stream in [&mut start, &mut marker, &mut now] {
            assert_eq!(all(stream, 2).await, "ADDED 2.d, ADDED 3.a", "{whole}");
        }
        for stream in [&mut start, &mut marker, &mut now] {
            silent(stream, S(5)).await;
        }
        assert_eq!(watches.stats().loops, 1, "one tail for all");
        // Even though it was not told by the tail yet, it is not told again.
        world.add(&["4.a", "4.b"]);
        let mut ahead = from(&watches, &world, "4.a").await;
        assert_eq!(all(&mut ahead, 2).await, "INITIAL 4.b, BOOKMARK behind 4.b");
        assert_eq!(all(&mut start, 2).await, "ADDED 4.a, ADDED 4.b");
        world.add(&["5"]);
        assert_eq!(next(&mut ahead).await, "ADDED 5", "{whole}");
        drop((start, marker, now, ahead));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let stats = watches.stats();
        assert_eq!((stats.watchers, stats.loops), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn from_now_begins_where_the_list_ends_when_the_call_arrives() {
    for whole in [false, true] {
        let world = Arc::new(World {
            whole,
            ..World::default()
        });
        world.add(&["1", "3"]);
        let watches = watches();
        let mut start = from(&watches, &world, "").await;
        assert_eq!(
            all(&mut start, 3).await,
            "INITIAL 1, INITIAL 3, BOOKMARK behind 3"
        );
        // The tail has not read these, one of which stands before what it has read.
        world.add(&["4", "5"]);
        world.list.lock().unwrap().insert(1, "2".to_owned());
        let arrived = tokio::time::Instant::now();
        let mut now = open(&watches, &world, StartAt::Now).await.unwrap();
        assert_eq!(arrived.elapsed(), S(0), "it waits for no poll that is due");
        world.add(&["6"]);
        // These are read before the client reads its first message.
        let mut told = entries(&mut start, 4).await;
        told.sort();
        assert_eq!(told, ["2", "4", "5", "6"]);
        world.add(&["7"]);
        assert_eq!(
            all(&mut now, 3).await,
            "BOOKMARK behind 5, ADDED 6, ADDED 7",
            "{whole}"
        );
        assert_eq!(entries(&mut start, 1).await, ["7"]);
        for stream in [&mut start, &mut now] {
            silent(stream, S(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_began_before_the_call_is_not_its_present() {
    for first in [false, true] {
        let (watches, world) = (watches(), World::counting(3));
        // A client without news of its own keeps the tail.
        let mut before = None;
        if !first {
            before = Some(open(&watches, &world, StartAt::Now).await.unwrap());
        }
        world.delay.store(2, Ordering::Relaxed);
        let reads = world.reads();
        let join = || async {
            while world.reads() == reads {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.add(&["3"]);
            open(&watches, &world, StartAt::Now).await.unwrap()
        };
        let mut now = if first {
            let (begins, now) = tokio::join!(open(&watches, &world, StartAt::Now), join());
            before = Some(begins.unwrap());
            now
        } else {
            join().await
        };
        assert_eq!(next(&mut now).await, "BOOKMARK behind 3", "{first}");
        let mut before = before.unwrap();
        assert_eq!(
            all(&mut before, 2).await,
            "BOOKMARK behind 2, ADDED 3",
            "{first}"
        );
        world.delay.store(0, Ordering::Relaxed);
        world.add(&["4"]);
        for stream in [&mut before, &mut now] {
            assert_eq!(next(stream).await, "ADDED 4");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_join_together_share_one_round() {
    let (watches, world) = (watches(), World::counting(3));
    let mut first = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut first).await, "BOOKMARK behind 2");
    world.delay.store(2, Ordering::Relaxed);
    world.add(&["3"]);
    let reads = world.reads();
    // All join before the first of them has its read.
    let join = |_| {
        let (watches, world) = (watches.clone(), Arc::clone(&world));
        async move { open(&watches, &world, StartAt::Now).await.unwrap() }
    };
    let mut joining: tokio::task::JoinSet<_> = (0..1_000).map(join).collect();
    while let Some(stream) = joining.join_next().await {
        assert_eq!(next(&mut stream.unwrap()).await, "BOOKMARK behind 3");
    }
    // The newest page and what is behind the marker.
    assert_eq!(world.reads(), reads + 2);
    assert_eq!(next(&mut first).await, "ADDED 3");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_before_its_mark_costs_no_read() {
    let (watches, world) = (watches(), World::counting(3));
    let mut first = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut first).await, "BOOKMARK behind 2");
    let reads = world.reads();
    let join = open(&watches, &world, StartAt::Now);
    assert!(polled_once(join).await.is_none(), "it waits for a read");
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.reads(), reads);
    let stats = watches.stats();
    assert_eq!((stats.watchers, stats.loops), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn from_now_fails_as_its_first_read_does() {
    let (watches, world) = (watches(), World::counting(3));
    let mut first = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut first).await, "BOOKMARK behind 2");
    world.fails.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = open(&watches, &world, StartAt::Now).await.err().unwrap();
        assert_eq!(error.code(), Code::Unavailable);
    }
    // The failure is tolerated for the client that is there.
    assert_eq!(next(&mut first).await, "BOOKMARK behind 2 unconfirmed");
    world.fails.store(false, Ordering::Relaxed);
    let mut now = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut now).await, "BOOKMARK behind 2");
    // Its tail ends while it joins.
    let (joining, ()) = tokio::join!(open(&watches, &world, StartAt::Now), async {
        watches.drain();
    });
    assert!(matches!(joining.err(), Some(Error::Draining)));
}

#[tokio::test(start_paused = true)]
async fn a_text_is_present_up_to_its_end_when_the_call_arrives() {
    let world = Arc::new(World {
        text: true,
        delay: AtomicU64::new(1),
        ..World::default()
    });
    let lines = |range: std::ops::Range<usize>, kind: &str| -> Vec<String> {
        range.map(|n| format!("{kind} {n}")).collect()
    };
    let add = |range: std::ops::Range<usize>| {
        let mut list = world.list.lock().unwrap();
        list.extend(range.map(|n| n.to_string()));
    };
    add(0..25);
    let watches = watches();
    let mut first = from(&watches, &world, "").await;
    // Sent as they are read, and all of them before the end of what is present.
    let mut want = lines(0..25, "INITIAL");
    want.push("BOOKMARK behind 25".to_owned());
    assert_eq!(all(&mut first, 26).await, want.join(", "));
    // The tail has not read these.
    add(25..30);
    let mut joins = from(&watches, &world, "").await;
    let mut want = lines(0..30, "INITIAL");
    want.push("BOOKMARK behind 30".to_owned());
    assert_eq!(all(&mut joins, 31).await, want.join(", "));
    // It cannot be read for a moment.
    world.fails.store(true, Ordering::Relaxed);
    add(30..32);
    let mut late = from(&watches, &world, "").await;
    let mut want = lines(0..30, "INITIAL");
    want.push("BOOKMARK behind 30 unconfirmed".to_owned());
    assert_eq!(all(&mut late, 31).await, want.join(", "));
    let reads = world.reads();
    silent(&mut late, S(20)).await;
    assert!(world.reads() - reads <= 10, "at the pace of polls");
    world.fails.store(false, Ordering::Relaxed);
    assert_eq!(
        all(&mut late, 3).await,
        "INITIAL 30, INITIAL 31, BOOKMARK behind 32"
    );
    add(32..33);
    assert_eq!(next(&mut late).await, "ADDED 32");
    let want: Vec<_> = (25..33).map(|n| n.to_string()).collect();
    assert_eq!(entries(&mut first, 8).await, want);
    assert_eq!(watches.stats().loops, 1);
}

#[tokio::test(start_paused = true)]
async fn fifty_thousand_each_once_while_more_come() {
    let (watches, world) = (watches(), World::counting(50_000));
    let mut stream = from(&watches, &world, "").await;
    let mut told = entries(&mut stream, 20_000).await;
    // A whole page, and nothing behind it, is no end.
    world
        .list
        .lock()
        .unwrap()
        .extend((50_000..50_010).map(|n| n.to_string()));
    told.extend(entries(&mut stream, 30_010).await);
    let want: Vec<String> = (0..50_010).map(|n| n.to_string()).collect();
    assert!(told == want);
    // Reconnect: nothing lost, nothing twice.
    drop(stream);
    world.add(&["50010"]);
    let mut stream = from(&watches, &world, "50009").await;
    assert_eq!(entries(&mut stream, 1).await, ["50010"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 50010");
    silent(&mut stream, S(20)).await;
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_is_purged_restarts_the_list_unseen() {
    let (watches, world) = (watches(), World::counting(5_000));
    let mut stream = from(&watches, &world, "99").await;
    assert_eq!(entries(&mut stream, 4_900).await.last().unwrap(), "4999");
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 4999");
    // The marker alone is gone: page one comes, and nothing of it is new.
    world.list.lock().unwrap().retain(|key| key != "4999");
    silent(&mut stream, S(20)).await;
    world.add(&["5000"]);
    assert_eq!(next(&mut stream).await, "ADDED 5000");
    // All that was told is gone: page one is what is new.
    *world.list.lock().unwrap() = (6_000..6_025).map(|n| n.to_string()).collect();
    let want: Vec<String> = (6_000..6_025).map(|n| n.to_string()).collect();
    assert_eq!(entries(&mut stream, 25).await, want);
    silent(&mut stream, S(20)).await;
    // A caller's marker that is not known begins at the start.
    let mut odd = from(&watches, &world, "nonsense").await;
    assert_eq!(entries(&mut odd, 25).await, want);
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_the_marker_is_told_late() {
    for whole in [false, true] {
        let (watches, world) = (
            watches(),
            Arc::new(World {
                whole,
                ..World::default()
            }),
        );
        world.add(&["1", "3", "5"]);
        let mut stream = from(&watches, &world, "1").await;
        assert_eq!(
            all(&mut stream, 3).await,
            "INITIAL 3, INITIAL 5, BOOKMARK behind 5"
        );
        world.list.lock().unwrap().insert(2, "4".to_owned());
        let message = stream.next().await.unwrap().unwrap();
        let message = Message::decode(message).unwrap();
        assert_eq!(message.item.unwrap(), "4");
        assert_eq!(message.marker, "5", "to resume behind all that was told");
        world.add(&["6"]);
        assert_eq!(next(&mut stream).await, "ADDED 6");
        silent(&mut stream, S(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_ignores_markers_is_no_endless_loop() {
    let (watches, world) = (watches(), World::counting(25));
    world.ignores.store(true, Ordering::Relaxed);
    let mut stream = from(&watches, &world, "").await;
    assert_eq!(entries(&mut stream, 10).await.len(), 10);
    assert!(
        next(&mut stream)
            .await
            .contains("does not go on behind its marker")
    );
    assert_eq!(next(&mut stream).await, "END");
    assert!(world.reads.load(Ordering::Relaxed) < 10);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_catches_up_and_loses_nothing() {
    let (watches, world) = (watches(), World::counting(5));
    let mut slow = from(&watches, &world, "").await;
    let mut fast = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut fast).await, "BOOKMARK behind 4");
    assert_eq!(entries(&mut slow, 5).await.len(), 5);
    assert_eq!(next(&mut slow).await, "BOOKMARK behind 4");
    // More than stands in the window, with one that comes late.
    world
        .list
        .lock()
        .unwrap()
        .extend((10..3_000).map(|n| n.to_string()));
    assert_eq!(entries(&mut fast, 2_990).await.len(), 2_990);
    world
        .list
        .lock()
        .unwrap()
        .insert(3_000 - 12, "2990.late".to_owned());
    assert_eq!(entries(&mut fast, 1).await, ["2990.late"]);
    world
        .list
        .lock()
        .unwrap()
        .extend((3_000..5_000).map(|n| n.to_string()));
    assert_eq!(entries(&mut fast, 2_000).await.len(), 2_000);
    let mut told = entries(&mut slow, 4_991).await;
    silent(&mut slow, S(20)).await;
    told.sort_by_key(|key| key.split('.').next().unwrap().parse::<u32>().unwrap());
    told.dedup();
    assert_eq!(told.len(), 4_991);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_whole_list_is_told_nothing_twice() {
    let world = Arc::new(World {
        whole: true,
        ..World::default()
    });
    world.add(&["0", "1", "2", "3", "4"]);
    let watches = watches();
    let mut slow = from(&watches, &world, "").await;
    let mut fast = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut fast).await, "BOOKMARK behind 4");
    assert_eq!(entries(&mut slow, 5).await.len(), 5);
    assert_eq!(next(&mut slow).await, "BOOKMARK behind 4");
    // By now it has given back the memory of what it told.
    assert_eq!(next(&mut slow).await, "BOOKMARK behind 4");
    // More than stands in the window, with one that comes late.
    let more = |keys: std::ops::Range<u32>| {
        let mut list = world.list.lock().unwrap();
        list.extend(keys.map(|n| n.to_string()));
    };
    more(10..3_000);
    assert_eq!(entries(&mut fast, 2_990).await.len(), 2_990);
    world.list.lock().unwrap().insert(3, "2.late".to_owned());
    assert_eq!(entries(&mut fast, 1).await, ["2.late"]);
    more(3_000..5_000);
    assert_eq!(entries(&mut fast, 2_000).await.len(), 2_000);
    let mut want = vec!["2.late".to_owned()];
    want.extend((10..5_000).map(|n| n.to_string()));
    assert!(entries(&mut slow, want.len()).await == want);
    for stream in [&mut slow, &mut fast] {
        silent(stream, S(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_begins_a_text_behind_its_end_keeps_nothing_from_others() {
    let world = Arc::new(World {
        text: true,
        ..World::default()
    });
    world.add(&["1", "2", "3"]);
    let watches = watches();
    let mut far = from(&watches, &world, "10000000").await;
    assert_eq!(next(&mut far).await, "BOOKMARK behind 10000000");
    let mut start = from(&watches, &world, "").await;
    let mut zero = from(&watches, &world, "0").await;
    for stream in [&mut start, &mut zero] {
        assert_eq!(entries(stream, 3).await, ["1", "2", "3"]);
        assert!(next(stream).await.starts_with("BOOKMARK"));
    }
    world.add(&["4"]);
    for stream in [&mut start, &mut zero] {
        assert_eq!(next(stream).await, "ADDED 4");
    }
    assert_eq!(
        watches.stats().loops,
        2,
        "one from the start, one far behind"
    );
}

thread_local! {
    static BEGAN: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) };
}

/// The paused clock as wall time, which began at 1,000.
fn clock() -> SystemTime {
    let began = BEGAN.get().expect("set by the test");
    SystemTime::UNIX_EPOCH + S(1_000) + began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn all_that_is_told_says_when_it_was_read() {
    for text in [true, false] {
        let world = Arc::new(World {
            text,
            ..World::default()
        });
        world.add(&["1", "2", "3"]);
        BEGAN.set(Some(tokio::time::Instant::now()));
        let watches = Watches::with(Settings::default(), clock, || 0.5);
        let mut stream = from(&watches, &world, "").await;
        let mut told = async |count: usize| {
            let mut seconds = Vec::new();
            for _ in 0..count {
                let message = stream.next().await.unwrap().unwrap();
                let event = Message::decode(message).unwrap().event.unwrap();
                seconds.push(event.observed_at.unwrap().seconds);
            }
            seconds
        };
        // Three entries and a bookmark, all of the first read.
        assert_eq!(told(4).await, [1_000; 4], "text: {text}");
        tokio::time::advance(S(20)).await;
        world.add(&["4"]);
        let [read] = told(1).await[..] else { panic!() };
        assert!((1_020..=1_040).contains(&read), "text: {text}: {read}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tail_hurries_no_longer_than_it_is_awaited() {
    let world = Arc::new(World {
        whole: true,
        ..World::default()
    });
    world.add(&["1"]);
    let watches = watches();
    let mut stream = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 1");
    silent(&mut stream, S(20)).await;
    let tail = Arc::clone(watches.0.lock().logs.values().next().unwrap());
    let rounds = tail.succeeded();
    tail.hurry(rounds + 2);
    silent(&mut stream, S(3)).await;
    assert_eq!(tail.succeeded(), rounds + 2);
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 1");
    let rounds = tail.succeeded();
    silent(&mut stream, S(20)).await;
    let slow = tail.succeeded() - rounds;
    assert!(slow <= 6, "{slow} rounds of 4 s in 20 s");
}

#[tokio::test(start_paused = true)]
async fn tails_take_the_places_of_loops() {
    let settings = Settings {
        max_poll_loops: 1,
        ..Settings::default()
    };
    let watches = Watches::with(settings, || SystemTime::UNIX_EPOCH, || 0.5);
    let _log = from(&watches, &World::counting(5), "").await;
    let refused = |error: Option<Error>| error.unwrap().code() == Code::ResourceExhausted;
    assert!(refused(watches.0.has_room().err()));
    let begins = || panic!("there is no place");
    let loops = watches.open(key(), false, None, begins).await;
    assert!(refused(loops.err()));
}

#[tokio::test(start_paused = true)]
async fn failures_are_borne_and_told() {
    let (watches, world) = (watches(), World::counting(25));
    let mut stream = from(&watches, &world, "").await;
    assert_eq!(entries(&mut stream, 10).await.len(), 10);
    world.fails.store(true, Ordering::Relaxed);
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 9 unconfirmed");
    world.fails.store(false, Ordering::Relaxed);
    assert_eq!(entries(&mut stream, 15).await.len(), 15);
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 24");
    world.fails.store(true, Ordering::Relaxed);
    assert_eq!(next(&mut stream).await, "BOOKMARK behind 24 unconfirmed");
    world.add(&["25"]);
    world.fails.store(false, Ordering::Relaxed);
    assert_eq!(
        all(&mut stream, 2).await,
        "ADDED 25, BOOKMARK behind 25",
        "confirmed by the read that brings it"
    );
    // From the start on, it is the rpc's own error.
    drop(stream);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    world.fails.store(true, Ordering::Relaxed);
    let begin = StartAt::Position(Position::new(None, false));
    let error = open(&watches, &world, begin).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_logs() {
    let (watches, world) = (watches(), World::counting(25));
    let mut behind = from(&watches, &world, "").await;
    let mut now = open(&watches, &world, StartAt::Now).await.unwrap();
    assert_eq!(next(&mut now).await, "BOOKMARK behind 24");
    watches.drain();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    for stream in [&mut behind, &mut now] {
        assert_eq!(all(stream, 2).await, "ERROR the gateway is stopping, END");
    }
    assert!(matches!(
        open(&watches, &world, StartAt::Now).await.err(),
        Some(Error::Draining)
    ));
}
