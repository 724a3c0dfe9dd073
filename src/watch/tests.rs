//! Loops and streams over a scripted upstream, in paused time.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use prost::Message as _;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::Code;

use super::snapshot::Item;
use super::source::{PollRules, ReadFuture, SnapshotRead};
use super::*;
use crate::credentials::CredentialId;
use crate::error::Fault;
use drawbridge_transcoder::api::drawbridge::v1::{
    Outcome as ToldOutcome, WatchEvent, WatchEventType,
};
use drawbridge_transcoder::contract::Outcome;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// An upstream that answers each poll with what it is told to.
struct World {
    rules: PollRules,
    answer: Mutex<Answer>,
    polls: Mutex<Vec<Instant>>,
    encoded: AtomicUsize,
}

#[derive(Clone)]
enum Answer {
    Items(Vec<Item>),
    Fails(Error),
    Nothing,
    Gone(Item),
    /// Takes so long, then answers with these.
    Late(Duration, Vec<Item>),
    Panics,
}

/// What the tests' own messages look like.
#[derive(Clone, PartialEq, prost::Message)]
struct Told {
    #[prost(message, optional, tag = "1")]
    event: Option<WatchEvent>,
    #[prost(bytes = "vec", optional, tag = "2")]
    item: Option<Vec<u8>>,
}

impl SnapshotSource for World {
    fn rules(&self) -> PollRules {
        self.rules
    }

    fn continues_after(&self, item: &Item) -> bool {
        item.bytes.as_deref() != Some(b"final")
    }

    fn read(&self) -> ReadFuture<'_> {
        self.polls.lock().unwrap().push(Instant::now());
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            let mut items = match answer {
                Answer::Items(items) => items,
                Answer::Fails(error) => return Err(error),
                Answer::Nothing => return Ok(SnapshotRead::NotFound),
                Answer::Gone(item) => return Ok(SnapshotRead::Deleted(item)),
                Answer::Late(delay, items) => {
                    tokio::time::sleep(delay).await;
                    items
                }
                Answer::Panics => panic!("as scripted"),
            };
            if !self.rules.list {
                items.iter_mut().for_each(|item| item.key = "".into());
            }
            Ok(SnapshotRead::Items(items))
        })
    }

    fn message(&self, event: &WatchEvent, item: Option<&Item>) -> Bytes {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let told = Told {
            event: Some(*event),
            item: item
                .and_then(|item| item.bytes.as_ref())
                .map(|bytes| bytes.to_vec()),
        };
        told.encode_to_vec().into()
    }

    /// `1 2` says the same as `2 1`.
    fn is_equivalent(&self, old: &Item, new: &Item) -> bool {
        let words = |item: &Item| {
            let text = String::from_utf8(item.bytes.clone().unwrap().to_vec()).unwrap();
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            words.sort_unstable();
            words
        };
        words(old) == words(new)
    }
}

impl World {
    fn of(list: bool, items: &[&str]) -> Arc<Self> {
        Self::with(list, false, items)
    }

    fn with(list: bool, not_found_succeeds: bool, items: &[&str]) -> Arc<Self> {
        Self::new(list, not_found_succeeds, false, items)
    }

    fn started_by_call() -> Arc<Self> {
        Self::new(false, false, true, &[])
    }

    fn new(
        list: bool,
        not_found_succeeds: bool,
        started_by_call: bool,
        items: &[&str],
    ) -> Arc<Self> {
        Arc::new(Self {
            rules: PollRules {
                list,
                first_interval: S(1),
                max_interval: S(4),
                not_found_succeeds,
                started_by_call,
            },
            answer: Mutex::new(Answer::Items(self::items(items))),
            polls: Mutex::default(),
            encoded: AtomicUsize::new(0),
        })
    }

    fn is(&self, texts: &[&str]) {
        self.answers(Answer::Items(items(texts)));
    }

    fn fails(&self, error: Error) {
        self.answers(Answer::Fails(error));
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn polls(&self) -> usize {
        self.polls.lock().unwrap().len()
    }

    /// When polls began, in milliseconds after the first one.
    fn poll_times(&self) -> Vec<u128> {
        let polls = self.polls.lock().unwrap();
        polls
            .iter()
            .map(|at| (*at - polls[0]).as_millis())
            .collect()
    }
}

/// Items from texts like `a=1`: the key, and what changes. `done`, `broken` and
/// `final` have settled, and who follows goes on after the first two.
fn items(texts: &[&str]) -> Vec<Item> {
    texts
        .iter()
        .map(|text| Item {
            key: if text.contains("a=") {
                "a"
            } else {
                text.split('=').next().unwrap_or_default()
            }
            .into(),
            bytes: Some(Bytes::copy_from_slice(text.as_bytes())),
            side: Bytes::new(),
            poll_soon: text.starts_with("poll_soon"),
            outcome: match *text {
                "done" | "final" => Outcome::Succeeded,
                "broken" => Outcome::Failed,
                _ => Outcome::Pending,
            },
        })
        .collect()
}

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The paused clock as wall time: seconds since `watches()`.
fn clock() -> SystemTime {
    let start = START.get().expect("set by watches()");
    SystemTime::UNIX_EPOCH + start.elapsed()
}

fn watches_with(settings: Settings) -> Watches {
    START.set(Some(Instant::now()));
    Watches::with(settings, clock, || 0.5)
}

fn watches() -> Watches {
    watches_with(Settings {
        failure_tolerance: S(60),
        ..Settings::default()
    })
}

fn key(path: &str, credential: u8) -> Key {
    Key {
        upstream: "cloud".into(),
        rpc: "/test.v1.ThingService/WatchThing".into(),
        verb: http::Method::GET,
        path: path.to_owned(),
        project: None,
        query: String::new(),
        body: None,
        credential: CredentialId([credential; 32]),
        language: None,
        discriminator: Vec::new(),
    }
}

impl Watches {
    async fn see(&self, world: &Arc<World>) -> WatchStream {
        self.try_see(world).await.expect("the first poll succeeds")
    }

    async fn try_see(&self, world: &Arc<World>) -> Result<WatchStream, Error> {
        let source = || -> Arc<dyn SnapshotSource> { world.clone() };
        within_an_hour(self.open(key("/thing", 0), false, None, source)).await
    }

    async fn follow(&self, world: &Arc<World>) -> WatchStream {
        let source = || -> Arc<dyn SnapshotSource> { world.clone() };
        self.open(key("/thing", 0), true, None, source)
            .await
            .expect("the first poll succeeds")
    }

    /// The stream behind a call that was made.
    fn started(&self, world: &Arc<World>, deadline: Option<Deadline>) -> WatchStream {
        let source = || -> Arc<dyn SnapshotSource> { world.clone() };
        let source = || SnapshotLoop::new(source());
        let subscription = self
            .0
            .subscribe(&Arc::new(key("/thing", 0)), false, source)
            .unwrap();
        let event = WatchEvent {
            r#type: WatchEventType::Started.into(),
            observed_at: Some(clock().into()),
            ..WatchEvent::default()
        };
        WatchStream::started(world.message(&event, None), subscription, deadline)
    }
}

/// What never comes fails the test.
async fn within_an_hour<T>(work: impl Future<Output = T>) -> T {
    let hour = tokio::time::timeout(S(3_600), work);
    hour.await.expect("it comes within an hour")
}

/// The next message, as text.
async fn next(stream: &mut WatchStream) -> String {
    let message = match within_an_hour(stream.next()).await {
        Some(Ok(message)) => message,
        Some(Err(error)) => return format!("ERROR {error}"),
        None => return "END".to_owned(),
    };
    let told = Told::decode(message).expect("a message");
    let event = told.event.expect("an event");
    let mut text = event
        .r#type()
        .as_str_name()
        .trim_start_matches("WATCH_EVENT_TYPE_")
        .to_owned();
    if let Some(item) = told.item {
        text += &format!(" {}", String::from_utf8(item).unwrap());
    }
    match event.outcome() {
        ToldOutcome::Unspecified => {}
        ToldOutcome::Succeeded => text += " [well]",
        ToldOutcome::Failed => text += " [badly]",
    }
    if let Some(since) = event.unconfirmed_since {
        text += &format!(" unconfirmed since {}", since.seconds);
    }
    assert!(event.observed_at.is_some(), "{text}");
    assert_ne!(event.r#type(), WatchEventType::Unspecified);
    text
}

async fn all(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(next(stream).await);
    }
    told
}

/// Nothing comes for so long.
async fn silent(stream: &mut WatchStream, time: Duration) {
    if let Ok(told) = tokio::time::timeout(time, stream.next()).await {
        panic!("told {told:?}");
    }
}

/// Lets all tasks run until they wait.
async fn let_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn fault(code: Code, retry_after: Option<Duration>) -> Error {
    Error::Upstream(Box::new(Fault {
        code,
        reason: String::new(),
        domain: "test",
        message: format!("{code:?}"),
        http_status: 500,
        request_id: None,
        retry_after,
        not_processed: false,
        transient: false,
        credential_rejected: false,
        fields: Vec::new(),
        metadata: Vec::new(),
        locale: None,
    }))
}

fn down() -> Error {
    Error::Connect("refused".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_share_one_poll() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        streams.push(watches.see(&world).await);
    }
    for stream in &mut streams {
        assert_eq!(next(stream).await, "INITIAL 1");
    }
    assert_eq!(world.polls(), 1);
    assert_eq!(
        watches.stats(),
        Stats {
            watchers: 1_000,
            loops: 1,
            polls_total: 1
        }
    );
    for text in ["2", "3"] {
        world.is(&[text]);
        let before = world.encoded.load(Ordering::Relaxed);
        for stream in &mut streams {
            assert_eq!(next(stream).await, format!("MODIFIED {text}"));
        }
        assert_eq!(
            world.encoded.load(Ordering::Relaxed) - before,
            1,
            "encoded once"
        );
    }
    assert_eq!(world.poll_times(), [0, 1_000, 2_000]);

    drop(streams);
    let_run().await;
    let stats = watches.stats();
    assert_eq!((stats.watchers, stats.loops), (0, 0));
    tokio::time::sleep(S(60)).await;
    assert_eq!(world.polls(), 3, "polling has stopped");
    assert_eq!(Arc::strong_count(&world), 1, "nothing is left");

    let mut again = watches.see(&world).await;
    assert_eq!(next(&mut again).await, "INITIAL 3");
    world.is(&["4"]);
    assert_eq!(next(&mut again).await, "MODIFIED 4");
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_first_read_is_under_way_waits_for_it() {
    let (watches, world) = (watches(), World::of(false, &[]));
    world.answers(Answer::Late(S(2), items(&["1"])));
    let (a, b) = tokio::join!(watches.see(&world), watches.see(&world));
    for mut stream in [a, b] {
        assert_eq!(next(&mut stream).await, "INITIAL 1");
    }
    assert_eq!(world.polls(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_through_anothers_eyes() {
    let watches = watches();
    let (mine, yours) = (World::of(false, &["mine"]), World::of(false, &["yours"]));
    let open = |credential, world: &Arc<World>| {
        let (watches, world) = (watches.clone(), Arc::clone(world));
        async move {
            watches
                .open(key("/thing", credential), false, None, || world.clone())
                .await
                .unwrap()
        }
    };
    let (mut a, mut b) = (open(1, &mine).await, open(2, &yours).await);
    assert_eq!(next(&mut a).await, "INITIAL mine");
    assert_eq!(next(&mut b).await, "INITIAL yours");
    assert_eq!(watches.stats().loops, 2);
    assert_eq!((mine.polls(), yours.polls()), (1, 1));
}

#[test]
fn every_part_of_a_key_tells_watches_apart() {
    let changes: [fn(&mut Key); 11] = [
        |_| {},
        |key| key.upstream = "other".into(),
        |key| key.rpc = "/test.v1.ThingService/WatchOther".into(),
        |key| key.verb = http::Method::POST,
        |key| key.path = "/other".to_owned(),
        |key| key.project = Some(1..1),
        |key| key.query = "a=1".to_owned(),
        |key| key.body = Some(Bytes::from_static(b"{}")),
        |key| key.credential = CredentialId([9; 32]),
        |key| key.language = Some(http::HeaderValue::from_static("ja")),
        |key| key.discriminator = vec![1],
    ];
    let mut keys = HashSet::new();
    for change in changes {
        let mut key = key("/thing", 0);
        change(&mut key);
        keys.insert(key);
    }
    assert_eq!(keys.len(), changes.len());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut slow = watches.see(&world).await;
    assert_eq!(next(&mut slow).await, "INITIAL 1");
    for text in ["2", "3", "4"] {
        world.is(&[text]);
        tokio::time::sleep(S(1)).await;
    }
    assert_eq!(next(&mut slow).await, "MODIFIED 4");
    for text in ["5", "4"] {
        world.is(&[text]);
        tokio::time::sleep(S(1)).await;
    }
    // There and back again.
    silent(&mut slow, S(5)).await;
    world.is(&["done"]);
    tokio::time::sleep(S(5)).await;
    world.is(&["1"]);
    tokio::time::sleep(S(5)).await;
    assert_eq!(all(&mut slow, 2).await, ["MODIFIED done [well]", "END"]);
}

#[tokio::test(start_paused = true)]
async fn a_settled_thing_ends_the_watch() {
    for (text, last) in [
        ("done", "MODIFIED done [well]"),
        ("broken", "MODIFIED broken [badly]"),
    ] {
        let (watches, world) = (watches(), World::of(false, &["1"]));
        let mut stream = watches.see(&world).await;
        assert_eq!(next(&mut stream).await, "INITIAL 1");
        world.is(&[text]);
        assert_eq!(all(&mut stream, 3).await, [last, "END", "END"]);
        let_run().await;
        assert_eq!(watches.stats().loops, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_settled_before_is_told_and_ends() {
    let (watches, world) = (watches(), World::of(false, &["done"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(all(&mut stream, 2).await, ["INITIAL done [well]", "END"]);
    tokio::time::sleep(S(60)).await;
    assert_eq!(world.polls(), 1);
    assert_eq!(watches.stats().loops, 0, "though the stream is still held");
}

#[tokio::test(start_paused = true)]
async fn who_follows_goes_on_after_settling() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut ends = watches.see(&world).await;
    let mut slow = watches.see(&world).await;
    let mut follows = watches.follow(&world).await;
    for stream in [&mut ends, &mut slow, &mut follows] {
        assert_eq!(next(stream).await, "INITIAL 1");
    }
    world.is(&["done"]);
    assert_eq!(all(&mut ends, 2).await, ["MODIFIED done [well]", "END"]);
    assert_eq!(next(&mut follows).await, "MODIFIED done [well]");

    let mut late = watches.see(&world).await;
    assert_eq!(all(&mut late, 2).await, ["INITIAL done [well]", "END"]);

    world.is(&["2"]);
    assert_eq!(next(&mut follows).await, "MODIFIED 2");
    let mut joins = watches.see(&world).await;
    assert_eq!(next(&mut joins).await, "INITIAL 2");
    // The settled state was the last one for this reader, however slow.
    assert_eq!(all(&mut slow, 2).await, ["MODIFIED done [well]", "END"]);
    silent(&mut joins, S(20)).await;

    drop(follows);
    world.is(&["broken"]);
    assert_eq!(all(&mut joins, 2).await, ["MODIFIED broken [badly]", "END"]);
    assert_eq!(watches.stats().loops, 0, "nobody follows any more");
}

#[tokio::test(start_paused = true)]
async fn who_follows_ends_where_nothing_can_come() {
    let (watches, world) = (watches(), World::of(false, &["broken"]));
    let mut follows = watches.follow(&world).await;
    let mut slow = watches.follow(&world).await;
    assert_eq!(next(&mut follows).await, "INITIAL broken [badly]");
    world.is(&["again"]);
    assert_eq!(next(&mut follows).await, "MODIFIED again");
    world.is(&["final"]);
    assert_eq!(all(&mut follows, 2).await, ["MODIFIED final [well]", "END"]);
    // What was there at the beginning is told first.
    let told = ["INITIAL broken [badly]", "MODIFIED final [well]", "END"];
    assert_eq!(all(&mut slow, 3).await, told);
    let mut late = watches.follow(&world).await;
    assert_eq!(all(&mut late, 2).await, ["INITIAL final [well]", "END"]);
    assert_eq!(watches.stats().loops, 0);
}

#[tokio::test(start_paused = true)]
async fn gone_as_the_annotation_says() {
    let gone = "ERROR deleted since it was last read: NotFound";
    for (ends_well, list, want) in [
        (false, false, &[gone, "END"][..]),
        (true, false, &["DELETED a=1 [well]", "END"]),
        (false, true, &["BOOKMARK", gone, "END"]),
        (
            true,
            true,
            &["BOOKMARK", "DELETED a=1", "DELETED b=1", "END"],
        ),
    ] {
        let things: &[&str] = if list { &["a=1", "b=1"] } else { &["a=1"] };
        let (watches, world) = (watches(), World::with(list, ends_well, things));
        let mut stream = watches.see(&world).await;
        for thing in things {
            assert_eq!(next(&mut stream).await, format!("INITIAL {thing}"));
        }
        world.fails(fault(Code::NotFound, None));
        assert_eq!(all(&mut stream, want.len()).await, want);
        assert_eq!(watches.stats().loops, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_state_is_told_before_it_is_gone() {
    let (watches, world) = (watches(), World::with(false, true, &["1"]));
    let mut slow = watches.see(&world).await;
    assert_eq!(next(&mut slow).await, "INITIAL 1");
    world.is(&["2"]);
    tokio::time::sleep(MS(1_500)).await;
    world.fails(fault(Code::NotFound, None));
    tokio::time::sleep(S(9)).await;
    assert_eq!(
        all(&mut slow, 3).await,
        ["MODIFIED 2", "DELETED 2 [well]", "END"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_the_rpcs_own() {
    for error in [
        fault(Code::NotFound, None),
        fault(Code::Unavailable, None),
        down(),
    ] {
        let (watches, world) = (watches(), World::of(false, &[]));
        world.fails(error.clone());
        let (a, b) = tokio::join!(watches.try_see(&world), watches.try_see(&world));
        for got in [a, b] {
            assert_eq!(got.err().unwrap().to_string(), error.to_string());
        }
        assert_eq!(world.polls(), 1);
        let stats = watches.stats();
        assert_eq!((stats.watchers, stats.loops), (0, 0));
        world.is(&["1"]);
        assert_eq!(next(&mut watches.see(&world).await).await, "INITIAL 1");
    }
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_borne_and_seen() {
    for error in [
        down(),
        Error::NoResponse("reset".to_owned()),
        Error::Deadline { sent: true },
        fault(Code::Unavailable, None),
        fault(Code::ResourceExhausted, None),
    ] {
        let (watches, world) = (watches(), World::of(false, &["1"]));
        let mut stream = watches.see(&world).await;
        assert_eq!(next(&mut stream).await, "INITIAL 1");
        tokio::time::sleep(MS(3_000)).await; // SnapshotRead at 0, 1 and 2.5 s.
        world.fails(error);
        // At once, and again with each bookmark.
        let unconfirmed = "BOOKMARK unconfirmed since 2";
        assert_eq!(all(&mut stream, 2).await, [unconfirmed; 2]);
        let mut joins = watches.see(&world).await;
        assert_eq!(next(&mut joins).await, "INITIAL 1 unconfirmed since 2");

        world.is(&["1"]);
        for stream in [&mut stream, &mut joins] {
            assert_eq!(next(stream).await, "BOOKMARK");
        }
        world.fails(down());
        assert!(next(&mut stream).await.contains("unconfirmed"));
        world.is(&["2"]);
        assert_eq!(next(&mut stream).await, "MODIFIED 2");
        silent(&mut stream, S(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_borne_up_to_a_limit() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut streams = [watches.see(&world).await, watches.see(&world).await];
    world.fails(down());
    for stream in &mut streams {
        assert_eq!(
            all(stream, 2).await,
            ["INITIAL 1", "BOOKMARK unconfirmed since 0"]
        );
    }
    let failing_since = Instant::now();
    for stream in &mut streams {
        let mut told = next(stream).await;
        while told.starts_with("BOOKMARK") {
            told = next(stream).await;
        }
        assert_eq!(told, "ERROR cannot connect: refused");
        assert_eq!(next(stream).await, "END");
    }
    assert_eq!(failing_since.elapsed().as_secs(), 60);
    assert_eq!(watches.stats().loops, 0);
}

#[tokio::test(start_paused = true)]
async fn lasting_failures_end_all_watches_at_once() {
    for error in [
        fault(Code::PermissionDenied, None),
        fault(Code::Unauthenticated, None),
        Error::decode("status", "a number"),
    ] {
        let (watches, world) = (watches(), World::of(false, &["1"]));
        let mut streams = [watches.see(&world).await, watches.follow(&world).await];
        world.fails(error.clone());
        for stream in &mut streams {
            let want = ["INITIAL 1".to_owned(), format!("ERROR {error}")];
            assert_eq!(all(stream, 2).await, want);
        }
        assert_eq!((world.polls(), watches.stats().loops), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_cadence_follows_what_happens() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    silent(&mut stream, S(17)).await;
    world.is(&["2"]);
    assert_eq!(next(&mut stream).await, "MODIFIED 2");
    silent(&mut stream, S(2)).await;
    assert_eq!(
        world.poll_times(),
        [
            0, 1_000, 2_500, 4_750, 8_125, 12_125, 16_125, 20_125, 21_125
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_respected() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    world.fails(fault(Code::Unavailable, Some(S(20))));
    assert_eq!(
        all(&mut stream, 2).await,
        ["INITIAL 1", "BOOKMARK unconfirmed since 0"]
    );
    world.is(&["1"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    assert_eq!(world.poll_times(), [0, 1_000, 21_000]);

    world.fails(fault(Code::Unavailable, Some(S(3_600))));
    assert_eq!(
        next(&mut stream).await,
        "ERROR Unavailable",
        "never in time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_hangs_is_given_up() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    world.answers(Answer::Late(S(3_600), Vec::new()));
    tokio::time::sleep(S(2)).await;
    // A bookmark in the silence; then the poll, begun after a second, has failed.
    let told = all(&mut stream, 2).await;
    assert_eq!(told, ["BOOKMARK", "BOOKMARK unconfirmed since 0"]);
    world.is(&["2"]);
    assert_eq!(next(&mut stream).await, "MODIFIED 2");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_break_the_silence() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    let start = Instant::now();
    for bookmark in 1..=3 {
        let message = stream.next().await.unwrap().unwrap();
        let event = Told::decode(message).unwrap().event.unwrap();
        assert_eq!(event.r#type(), WatchEventType::Bookmark);
        assert_eq!(start.elapsed().as_secs(), bookmark * 30);
        // SnapshotRead within the longest interval.
        let seconds = event.observed_at.unwrap().seconds as u64;
        assert!((bookmark * 30 - 4..=bookmark * 30).contains(&seconds));
    }
    assert_eq!(watches.stats().polls_total as usize, world.polls());
}

#[tokio::test(start_paused = true)]
async fn odd_bookmark_intervals_neither_spin_nor_panic() {
    for (interval, want) in [(S(0), S(1)), (Duration::MAX, S(86_400))] {
        let watches = watches_with(Settings {
            bookmark_interval: interval,
            ..Settings::default()
        });
        let world = World::of(false, &["1"]);
        let mut stream = watches.see(&world).await;
        assert_eq!(next(&mut stream).await, "INITIAL 1");
        silent(&mut stream, want - MS(500)).await;
        assert_eq!(next(&mut stream).await, "BOOKMARK");
    }
}

#[tokio::test(start_paused = true)]
async fn draining_ends_everything() {
    let (watches, world) = (watches(), World::of(true, &["a=1", "b=1"]));
    let mut waits = watches.see(&world).await;
    assert_eq!(
        all(&mut waits, 3).await,
        ["INITIAL a=1", "INITIAL b=1", "BOOKMARK"]
    );
    let mut in_the_middle = watches.see(&world).await;
    assert_eq!(next(&mut in_the_middle).await, "INITIAL a=1");
    let hangs = World::of(false, &[]);
    hangs.answers(Answer::Late(S(20), Vec::new()));
    let opens = watches.open(key("/other", 0), false, None, || hangs.clone());
    let drains = async {
        let_run().await;
        watches.drain();
    };
    let (opened, ()) = tokio::join!(opens, drains);
    assert!(matches!(opened.err(), Some(Error::Draining)));
    let_run().await;
    for stream in [&mut waits, &mut in_the_middle] {
        assert_eq!(
            all(stream, 2).await,
            ["ERROR the gateway is stopping", "END"]
        );
    }
    assert!(matches!(
        watches.try_see(&world).await.err(),
        Some(Error::Draining)
    ));
    drop((waits, in_the_middle));
    let stats = watches.stats();
    assert_eq!((stats.watchers, stats.loops), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_itself_at_its_deadline() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let deadline = Some(Deadline::after(S(5)));
    let open = |path, world: &Arc<World>| {
        let (watches, world) = (watches.clone(), Arc::clone(world));
        async move {
            watches
                .open(key(path, 0), false, deadline, || world.clone())
                .await
        }
    };
    let mut bounded = open("/thing", &world).await.unwrap();
    let mut endless = watches.see(&world).await;
    let passed = "ERROR the deadline of the stream passed";
    assert_eq!(all(&mut bounded, 3).await, ["INITIAL 1", passed, "END"]);
    assert_eq!(START.get().unwrap().elapsed(), S(5));
    assert_eq!(next(&mut endless).await, "INITIAL 1");
    world.is(&["2"]);
    assert_eq!(next(&mut endless).await, "MODIFIED 2", "others go on");

    // It ends the wait for the first message too.
    let hangs = World::of(false, &[]);
    hangs.answers(Answer::Late(S(20), Vec::new()));
    let error = open("/other", &hangs).await.err();
    assert!(matches!(error, Some(Error::Deadline { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_is_told_item_by_item() {
    let (watches, world) = (watches(), World::of(true, &["a=1", "b=1", "c=1"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(
        all(&mut stream, 4).await,
        ["INITIAL a=1", "INITIAL b=1", "INITIAL c=1", "BOOKMARK"]
    );
    world.is(&["c=1", "b=1", "a=1"]);
    silent(&mut stream, S(10)).await;
    world.is(&["d=1", "c=1", "b=2"]);
    assert_eq!(
        all(&mut stream, 3).await,
        ["ADDED d=1", "MODIFIED b=2", "DELETED a=1"]
    );
    world.is(&["d=1", "c=1", "b=2", "d=2"]);
    assert_eq!(next(&mut stream).await, "MODIFIED d=2", "the last of a key");
    world.is(&["done"]);
    assert_eq!(
        all(&mut stream, 4).await,
        [
            "ADDED done [well]",
            "DELETED c=1",
            "DELETED b=2",
            "DELETED d=2"
        ]
    );
    // One settled item does not settle a list.
    world.is(&[]);
    assert_eq!(next(&mut stream).await, "DELETED done [well]");
    silent(&mut stream, S(20)).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_told_too() {
    let (watches, world) = (watches(), World::of(true, &[]));
    let mut stream = watches.see(&world).await;
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    world.is(&["a=1"]);
    assert_eq!(next(&mut stream).await, "ADDED a=1");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_list_gets_what_differs_in_the_end() {
    let (watches, world) = (watches(), World::of(true, &["a=1", "b=1"]));
    let mut slow = watches.see(&world).await;
    assert_eq!(next(&mut slow).await, "INITIAL a=1");
    for state in [&["a=2", "b=1", "x=1"][..], &["a=2", "x=2"], &["a=3", "c=1"]] {
        world.is(state);
        tokio::time::sleep(S(1)).await;
    }
    assert_eq!(
        all(&mut slow, 5).await,
        [
            "INITIAL b=1",
            "BOOKMARK",
            "MODIFIED a=3",
            "ADDED c=1",
            "DELETED b=1"
        ]
    );
    silent(&mut slow, S(20)).await;
}

#[tokio::test(start_paused = true)]
async fn that_the_call_was_made_is_told_whatever_comes() {
    let draining = "ERROR the gateway is stopping";
    let late = "ERROR the deadline passed; the upstream may have acted";
    for (drains, passes, read_first, want) in [
        (true, false, false, draining),
        (false, true, false, late),
        (true, true, false, late),
        (true, false, true, draining),
        (false, true, true, late),
    ] {
        let (watches, world) = (watches(), World::started_by_call());
        world.answers(Answer::Late(S(20), Vec::new()));
        let mut stream = watches.started(&world, Some(Deadline::after(S(5))));
        let mut told = Vec::new();
        if read_first {
            told.push(next(&mut stream).await);
        }
        if drains {
            let_run().await;
            watches.drain();
            let_run().await;
        }
        if passes {
            tokio::time::sleep(S(5)).await;
        }
        told.extend(all(&mut stream, 3 - told.len()).await);
        let case = (drains, passes, read_first);
        assert_eq!(told, ["STARTED", want, "END"], "{case:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_call_began_may_fail_at_first() {
    let watches = watches();
    let world = World::started_by_call();
    let begin = || watches.started(&world, None);
    world.fails(down());
    let mut stream = begin();
    assert_eq!(next(&mut stream).await, "STARTED");
    // Signs of life before anything was read.
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    world.answers(Answer::Nothing);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    world.is(&["1"]);
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    world.is(&["done"]);
    assert_eq!(all(&mut stream, 2).await, ["MODIFIED done [well]", "END"]);

    for (answer, want) in [
        (
            Answer::Fails(fault(Code::PermissionDenied, None)),
            &["ERROR PermissionDenied"][..],
        ),
        (
            Answer::Fails(down()),
            &["BOOKMARK", "BOOKMARK", "ERROR cannot connect: refused"],
        ),
        (
            Answer::Gone(items(&["done"]).remove(0)),
            &["DELETED done [well]", "END"],
        ),
        (
            Answer::Panics,
            &["ERROR no response: the poll loop has stopped", "END"],
        ),
    ] {
        world.answers(answer);
        let mut stream = begin();
        assert_eq!(next(&mut stream).await, "STARTED");
        assert_eq!(all(&mut stream, want.len()).await, want);
        drop(stream);
        let_run().await;
        assert_eq!(watches.stats().loops, 0);
    }
    let stream = begin();
    drop(stream);
    let_run().await;
    assert_eq!(watches.stats().watchers, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_elsewhere_from_the_first_read_is_told() {
    let (watches, world) = (watches(), World::of(false, &[]));
    world.answers(Answer::Gone(items(&["done"]).remove(0)));
    let mut stream = watches.see(&world).await;
    assert_eq!(all(&mut stream, 2).await, ["DELETED done [well]", "END"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_for_a_moment_is_unconfirmed() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(next(&mut stream).await, "INITIAL 1");
    world.answers(Answer::Nothing);
    assert_eq!(next(&mut stream).await, "BOOKMARK unconfirmed since 0");
    world.is(&["1"]);
    assert_eq!(next(&mut stream).await, "BOOKMARK");
    world.answers(Answer::Gone(items(&["1"]).remove(0)));
    assert_eq!(all(&mut stream, 2).await, ["DELETED 1", "END"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_move_is_read_soon_again() {
    let (watches, world) = (watches(), World::of(false, &["poll_soon"]));
    let mut stream = watches.see(&world).await;
    assert_eq!(next(&mut stream).await, "INITIAL poll_soon");
    silent(&mut stream, MS(4_500)).await;
    assert_eq!(world.poll_times(), [0, 1_000, 2_000, 3_000, 4_000]);
}

#[tokio::test(start_paused = true)]
async fn what_says_the_same_in_another_order_is_no_change() {
    let (watches, world) = (watches(), World::of(true, &["a=1 2", "b=1 2"]));
    let mut stream = watches.see(&world).await;
    all(&mut stream, 3).await;
    world.is(&["b=1 2", "2 a=1"]);
    silent(&mut stream, S(10)).await;
    world.is(&["b=1 3", "2 a=1"]);
    assert_eq!(next(&mut stream).await, "MODIFIED b=1 3");
    silent(&mut stream, S(10)).await;
}

#[tokio::test(start_paused = true)]
async fn who_joins_gets_the_present_state_without_a_poll() {
    let (watches, world) = (watches(), World::of(true, &["a=1"]));
    let mut first = watches.see(&world).await;
    assert_eq!(all(&mut first, 2).await, ["INITIAL a=1", "BOOKMARK"]);
    world.is(&["a=2", "b=1"]);
    assert_eq!(all(&mut first, 2).await, ["MODIFIED a=2", "ADDED b=1"]);
    let (polls, at) = (world.polls(), Instant::now());
    let mut joins = watches.see(&world).await;
    assert_eq!(
        all(&mut joins, 3).await,
        ["INITIAL a=2", "INITIAL b=1", "BOOKMARK"]
    );
    assert_eq!((world.polls(), at.elapsed()), (polls, S(0)));
    world.is(&["a=2"]);
    for stream in [&mut first, &mut joins] {
        assert_eq!(next(stream).await, "DELETED b=1");
    }
}

#[tokio::test(start_paused = true)]
async fn who_joins_during_a_read_waits_for_it() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut first = watches.see(&world).await;
    assert_eq!(next(&mut first).await, "INITIAL 1");
    for answer in ["1", "2"] {
        world.answers(Answer::Late(S(2), items(&[answer])));
        let before = world.polls();
        while world.polls() == before {
            tokio::time::sleep(MS(1)).await;
        }
        let (polls, at) = (world.polls(), Instant::now());
        let mut joins = watches.see(&world).await;
        assert_eq!(next(&mut joins).await, format!("INITIAL {answer}"));
        assert_eq!(world.polls(), polls);
        assert!(at.elapsed() >= MS(1_990), "told {:?} later", at.elapsed());
    }
    assert_eq!(next(&mut first).await, "MODIFIED 2");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_read_before_the_call_is_read_again() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut follows = watches.follow(&world).await;
    assert_eq!(next(&mut follows).await, "INITIAL 1");
    world.is(&["done"]);
    assert_eq!(next(&mut follows).await, "MODIFIED done [well]");
    silent(&mut follows, S(10)).await;
    // It still has settled, or it moves since the last poll.
    let (polls, at) = (world.polls(), Instant::now());
    let mut joins = watches.see(&world).await;
    assert_eq!(all(&mut joins, 2).await, ["INITIAL done [well]", "END"]);
    world.is(&["2"]);
    let mut joins = watches.see(&world).await;
    assert_eq!(next(&mut joins).await, "INITIAL 2");
    assert_eq!((world.polls(), at.elapsed()), (polls + 2, S(0)));
    world.is(&["broken"]);
    assert_eq!(all(&mut joins, 2).await, ["MODIFIED broken [badly]", "END"]);
    // It cannot be read: the rpc fails as it does where no one else watches.
    world.fails(down());
    let error = watches.try_see(&world).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    world.is(&["done"]);
    let mut joins = watches.see(&world).await;
    assert_eq!(all(&mut joins, 2).await, ["INITIAL done [well]", "END"]);
    assert_eq!(watches.stats().loops, 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_of_a_read_that_began_before_the_call_is_not_its_end() {
    for followed in [false, true] {
        let (watches, world) = (watches(), World::of(false, &["1"]));
        let mut first = watches.see(&world).await;
        let mut follows = None;
        if followed {
            follows = Some(watches.follow(&world).await);
        }
        assert_eq!(next(&mut first).await, "INITIAL 1");
        world.answers(Answer::Late(S(2), items(&["done"])));
        let before = world.polls();
        while world.polls() == before {
            tokio::time::sleep(MS(1)).await;
        }
        world.is(&["2"]);
        let (a, b) = tokio::join!(watches.see(&world), watches.see(&world));
        for mut joins in [a, b] {
            assert_eq!(next(&mut joins).await, "INITIAL 2", "{followed}");
        }
        assert_eq!(all(&mut first, 2).await, ["MODIFIED done [well]", "END"]);
        assert_eq!(world.polls(), before + 2, "one read for both");
        if let Some(mut follows) = follows {
            // It skips what is past.
            assert_eq!(all(&mut follows, 2).await, ["INITIAL 1", "MODIFIED 2"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_as_the_last_one_leaves_is_served() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    for text in ["1", "2", "3"] {
        world.is(&[text]);
        // No task has run in between: the loop is there and has not seen it.
        drop(stream);
        stream = watches.see(&world).await;
        assert!(next(&mut stream).await.starts_with("INITIAL"));
        world.is(&["next"]);
        assert_eq!(next(&mut stream).await, "MODIFIED next");
        // The loop has seen it.
        drop(stream);
        let_run().await;
        assert_eq!(watches.stats().loops, 0);
        world.is(&[text]);
        stream = watches.see(&world).await;
        assert_eq!(next(&mut stream).await, format!("INITIAL {text}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_stays_for_who_came_in_the_last_moment() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let stream = watches.see(&world).await;
    let there = || {
        let loops = watches.0.lock();
        let (key, shared) = loops.snapshots.iter().next().expect("one loop");
        (Arc::clone(key), Arc::clone(shared))
    };
    let (key, shared) = there();
    assert!(!watches.0.remove_if_left(&key, &shared), "it is watched");
    drop(stream);
    let stream = watches.see(&world).await;
    assert!(!watches.0.remove_if_left(&key, &shared), "watched again");
    drop(stream);
    assert!(watches.0.remove_if_left(&key, &shared));

    // A loop that is out takes no other one with it.
    let _anew = watches.see(&world).await;
    assert!(!Arc::ptr_eq(&shared, &there().1));
    watches.0.remove_if(&key, &shared, || true);
    assert_eq!(watches.stats().loops, 1);
}

#[test]
fn a_loop_that_a_stopped_runtime_drops_is_removed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let source = || SnapshotLoop::new(world.clone());
    let key = Arc::new(key("/thing", 0));
    let subscription = watches.0.subscribe(&key, false, source).unwrap();
    assert_eq!(watches.stats().loops, 0);
    assert!(matches!(
        subscription.published.borrow().phase,
        shared_loop::Phase::Ended(..)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn coming_and_going_in_parallel_leaves_nothing() {
    let watches = Watches::new(Settings::default());
    let world = World::of(false, &["1"]);
    let mut comers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (watches, world) = (watches.clone(), Arc::clone(&world));
        comers.spawn(async move {
            for round in 0..200 {
                let mut stream = watches.see(&world).await;
                assert_eq!(next(&mut stream).await, "INITIAL 1");
                if round % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    while let Some(done) = comers.join_next().await {
        done.expect("each one was served");
    }
    let gone = async {
        while watches.stats().loops > 0 || Arc::strong_count(&world) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(S(30), gone)
        .await
        .expect("loops end with their last watcher");
    assert_eq!(watches.stats().watchers, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_be_dropped_in_every_state() {
    let (watches, world) = (watches(), World::with(true, true, &["a=1", "b=1"]));
    // Before the first read is there.
    world.answers(Answer::Late(S(5), items(&["a=1", "b=1"])));
    assert!(
        tokio::time::timeout(S(1), watches.see(&world))
            .await
            .is_err()
    );
    let_run().await;
    assert_eq!(watches.stats().loops, 0, "the read was broken off");
    world.is(&["a=1", "b=1"]);
    // Untouched; amid the items; waiting; amid a step, a difference, a farewell.
    for reads in 0..9 {
        world.is(&["a=1", "b=1"]);
        let mut stream = watches.see(&world).await;
        for _ in 0..reads.min(3) {
            next(&mut stream).await;
        }
        if reads >= 3 {
            silent(&mut stream, MS(100)).await;
        }
        if reads >= 4 {
            world.is(&["a=2", "b=2", "c=2"]);
            next(&mut stream).await;
        }
        if reads >= 5 {
            world.is(&["a=3", "b=3"]);
            tokio::time::sleep(S(2)).await;
            world.is(&["a=4", "b=4"]);
            tokio::time::sleep(S(2)).await;
            all(&mut stream, 3).await;
        }
        if reads >= 6 {
            world.fails(fault(Code::NotFound, None));
            all(&mut stream, reads - 4).await;
        }
        drop(stream);
        let_run().await;
        let stats = watches.stats();
        assert_eq!((stats.watchers, stats.loops), (0, 0), "{reads}");
        assert_eq!(Arc::strong_count(&world), 1, "{reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_watches_and_no_more() {
    let (watches, world) = (watches(), World::of(false, &["1"]));
    let mut stream = watches.see(&world).await;
    world.answers(Answer::Panics);
    assert_eq!(
        all(&mut stream, 3).await,
        [
            "INITIAL 1",
            "ERROR no response: the poll loop has stopped",
            "END"
        ]
    );
    assert!(watches.try_see(&world).await.is_err());
    world.is(&["2"]);
    assert_eq!(next(&mut watches.see(&world).await).await, "INITIAL 2");
}

#[tokio::test(start_paused = true)]
async fn places_are_limited() {
    let watches = watches_with(Settings {
        max_streams: 3,
        max_poll_loops: 2,
        ..Settings::default()
    });
    let world = World::of(false, &["1"]);
    let open = |path| {
        let (watches, world) = (watches.clone(), Arc::clone(&world));
        async move {
            watches
                .open(key(path, 0), false, None, || world.clone())
                .await
        }
    };
    let mut streams = vec![open("/a").await.unwrap(), open("/b").await.unwrap()];
    let refusal = |result: Result<WatchStream, Error>| match result.err() {
        Some(Error::Overload { code, problem, .. }) => {
            assert_eq!(code, Code::ResourceExhausted);
            problem
        }
        other => panic!("{other:?}"),
    };
    assert!(refusal(open("/c").await).contains("`watch.max_poll_loops`"));
    streams.push(open("/a").await.unwrap());
    assert!(refusal(open("/a").await).contains("`watch.max_streams`"));
    // Streams of lists count as well.
    let place = || {
        watches
            .streams()
            .acquire()
            .map(|_| unreachable!("all are taken"))
    };
    assert!(refusal(place()).contains("`watch.max_streams`"));
    streams.clear();
    let_run().await;
    streams.push(open("/c").await.unwrap());
    assert_eq!(watches.stats().watchers, 1);
    let places = [
        watches.streams().acquire().unwrap(),
        watches.streams().acquire().unwrap(),
    ];
    assert!(refusal(open("/c").await).contains("too many streams"));
    drop(places);
    assert_eq!(watches.stats().watchers, 1);
    watches.drain();
    assert!(matches!(
        watches.streams().acquire().err(),
        Some(Error::Draining)
    ));
}
