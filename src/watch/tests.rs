//! Tests of poll loops and streams over a scripted source, in paused time.

mod ends;
mod events;
mod failures;
mod sharing;

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
use crate::downstream::ClientKey;
use crate::error::Fault;
use crate::http_client::retry_after::LongestWait;
use crate::memory::Memory;
use drawbridge_transcoder::api::drawbridge::v1::{
    Outcome as SentOutcome, WatchEvent, WatchEventType,
};
use drawbridge_transcoder::contract::Outcome;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// Returns a scripted result for each poll.
struct ScriptedSource {
    rules: PollRules,
    script: Mutex<Script>,
    polls: Mutex<Vec<Instant>>,
    encoded: AtomicUsize,
    retry_after: LongestWait,
    memory: Mutex<Memory>,
}

#[derive(Clone)]
enum Script {
    Items(Vec<Item>),
    Fails(Error),
    NotFound,
    Deleted(Item),
    /// Returns these items after this time.
    Delayed(Duration, Vec<Item>),
    /// Returns these items, with this `Retry-After`.
    RetryAfter(&'static str, Vec<Item>),
    Panics,
}

/// The message type of the tests.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(message, optional, tag = "1")]
    event: Option<WatchEvent>,
    #[prost(bytes = "vec", optional, tag = "2")]
    item: Option<Vec<u8>>,
}

impl SnapshotSource for ScriptedSource {
    fn memory(&self) -> Memory {
        self.memory.lock().unwrap().clone()
    }

    fn rules(&self) -> PollRules {
        self.rules
    }

    fn state_text(&self, item: &Item) -> Option<String> {
        let bytes = item.bytes.as_deref()?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn continues_after(&self, item: &Item) -> bool {
        item.bytes.as_deref() != Some(b"final")
    }

    fn read(&self) -> ReadFuture<'_> {
        self.polls.lock().unwrap().push(Instant::now());
        let script = self.script.lock().unwrap().clone();
        Box::pin(async move {
            let mut items = match script {
                Script::Items(items) => items,
                Script::Fails(error) => return Err(error),
                Script::NotFound => return Ok(SnapshotRead::NotFound),
                Script::Deleted(item) => return Ok(SnapshotRead::Deleted(item)),
                Script::Delayed(delay, items) => {
                    tokio::time::sleep(delay).await;
                    items
                }
                Script::RetryAfter(value, items) => {
                    let name = http::header::RETRY_AFTER;
                    let value = http::HeaderValue::from_static(value);
                    self.retry_after
                        .observe(&http::HeaderMap::from_iter([(name, value)]));
                    items
                }
                Script::Panics => panic!("as scripted"),
            };
            if !self.rules.list {
                items.iter_mut().for_each(|item| item.key = "".into());
            }
            Ok(SnapshotRead::Items(items))
        })
    }

    fn take_retry_after(&self) -> Duration {
        self.retry_after.take()
    }

    fn message(&self, event: &WatchEvent, item: Option<&Item>) -> Bytes {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let sent = Message {
            event: Some(*event),
            item: item
                .and_then(|item| item.bytes.as_ref())
                .map(|bytes| bytes.to_vec()),
        };
        sent.encode_to_vec().into()
    }

    /// `1 2` is equivalent to `2 1`.
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

impl ScriptedSource {
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
                initial_interval: S(1),
                max_interval: S(4),
                not_found_succeeds,
                started_by_call,
            },
            script: Mutex::new(Script::Items(self::items(items))),
            polls: Mutex::default(),
            encoded: AtomicUsize::new(0),
            retry_after: LongestWait::default(),
            memory: Mutex::default(),
        })
    }

    fn returns(&self, texts: &[&str]) {
        self.script(Script::Items(items(texts)));
    }

    fn fails(&self, error: Error) {
        self.script(Script::Fails(error));
    }

    fn script(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    fn polls(&self) -> usize {
        self.polls.lock().unwrap().len()
    }

    /// Returns when polls began, in milliseconds after the first one.
    fn poll_times(&self) -> Vec<u128> {
        let polls = self.polls.lock().unwrap();
        polls
            .iter()
            .map(|at| (*at - polls[0]).as_millis())
            .collect()
    }
}

/// Makes items from texts like `a=1`: the key and the state. `done`, `broken` and `final`
/// are final; a stream with `follow` continues after the first two.
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
            incomplete: false,
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

/// Returns the paused time as wall-clock time: seconds since `watches()`.
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
        instances: (0, 0),
        operation: "test.v1.ThingService/WatchThing".into(),
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
    async fn join(&self, source: &Arc<ScriptedSource>) -> WatchStream {
        self.try_join(source)
            .await
            .expect("the first poll succeeds")
    }

    async fn try_join(&self, source: &Arc<ScriptedSource>) -> Result<WatchStream, Error> {
        let source = || -> Arc<dyn SnapshotSource> { source.clone() };
        within_an_hour(self.open(Client::default(), key("/thing", 0), false, None, source)).await
    }

    async fn join_following(&self, source: &Arc<ScriptedSource>) -> WatchStream {
        let source = || -> Arc<dyn SnapshotSource> { source.clone() };
        self.open(Client::default(), key("/thing", 0), true, None, source)
            .await
            .expect("the first poll succeeds")
    }

    /// Opens a stream after the call that its watch begins with.
    fn started(&self, source: &Arc<ScriptedSource>, deadline: Option<Deadline>) -> WatchStream {
        let new_loop = || SnapshotLoop::new(source.clone());
        let subscription = self
            .0
            .subscribe(
                Client::default(),
                &Arc::new(key("/thing", 0)),
                false,
                new_loop,
            )
            .unwrap();
        let event = WatchEvent {
            r#type: WatchEventType::Started.into(),
            observed_at: Some(clock().into()),
            ..WatchEvent::default()
        };
        WatchStream::started(source.message(&event, None), subscription, deadline)
    }
}

/// Fails the test if `work` does not end.
async fn within_an_hour<T>(work: impl Future<Output = T>) -> T {
    let hour = tokio::time::timeout(S(3_600), work);
    hour.await.expect("it ends within an hour")
}

/// Returns the next message as text.
async fn next(stream: &mut WatchStream) -> String {
    let message = match within_an_hour(stream.next()).await {
        Some(Ok(message)) => message,
        Some(Err(error)) => return format!("ERROR {error}"),
        None => return "END".to_owned(),
    };
    let sent = Message::decode(message).expect("a message");
    let event = sent.event.expect("an event");
    let mut text = event
        .r#type()
        .as_str_name()
        .trim_start_matches("WATCH_EVENT_TYPE_")
        .to_owned();
    if let Some(item) = sent.item {
        text += &format!(" {}", String::from_utf8(item).unwrap());
    }
    match event.outcome() {
        SentOutcome::Unspecified => {}
        SentOutcome::Succeeded => text += " [SUCCEEDED]",
        SentOutcome::Failed => text += " [FAILED]",
    }
    if let Some(since) = event.unconfirmed_since {
        text += &format!(" unconfirmed since {}", since.seconds);
    }
    assert!(event.observed_at.is_some(), "{text}");
    assert_ne!(event.r#type(), WatchEventType::Unspecified);
    text
}

async fn all(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut sent = Vec::new();
    for _ in 0..count {
        sent.push(next(stream).await);
    }
    sent
}

/// Asserts that no message is sent for this time.
async fn assert_silent(stream: &mut WatchStream, time: Duration) {
    if let Ok(sent) = tokio::time::timeout(time, stream.next()).await {
        panic!("sent {sent:?}");
    }
}

/// Runs all tasks until they wait.
async fn run_tasks() {
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
        http_status: match code {
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::ResourceExhausted => 429,
            _ => 503,
        },
        request_id: None,
        retry_after,
        not_processed: false,
        transient: false,
        is_unrelated: false,
        credential_rejected: false,
        fields: Vec::new(),
        metadata: Vec::new(),
        locale: None,
        in_success: false,
    }))
}

/// A 404 of a router that does not know the path.
fn unrelated_not_found() -> Error {
    match fault(Code::NotFound, None) {
        Error::Upstream(mut fault) => {
            fault.is_unrelated = true;
            Error::Upstream(fault)
        }
        error => error,
    }
}

fn down() -> Error {
    Error::Connect("refused".to_owned())
}
