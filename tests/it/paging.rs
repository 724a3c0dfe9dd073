//! Long lists: unary pages, and streams over all pages.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tonic::Code;

use crate::support::client::{Watch, json as to_json};
use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, http_get, settings, upstream};

const LIST: &str = "StackService/ListStacks";
const STACKS: &str = "StackService/StreamStacks";
const EVENTS: &str = "StackEventService/StreamStackEvents";

/// A list as Heat pages it: an unknown marker is ignored.
struct List {
    member: &'static str,
    ids: Mutex<Vec<String>>,
    /// The most items of a page.
    cap: usize,
    /// The other member of each item.
    filling: String,
}

impl List {
    fn of(member: &'static str, count: usize) -> Self {
        Self {
            member,
            ids: Mutex::new((0..count).map(id).collect()),
            cap: usize::MAX,
            filling: String::new(),
        }
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let ids = self.ids.lock().unwrap();
        let query = seen.pairs();
        let get = |name| {
            query
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let after = get("marker").and_then(|marker| ids.iter().position(|id| id == marker));
        let limit = get("limit")
            .map_or(usize::MAX, |l| l.parse().unwrap())
            .min(self.cap);
        let page: Vec<Value> = ids[after.map_or(0, |at| at + 1)..]
            .iter()
            .take(limit)
            .map(|id| json!({"id": id, "description": self.filling}))
            .collect();
        let full = page.len() == limit;
        let mut body = json!({self.member: page});
        if full && self.member == "stacks" {
            body["links"] = json!([{"rel": "next", "href": "http://elsewhere.example.test/"}]);
        }
        Answer::json(200, &body)
    }
}

fn id(n: usize) -> String {
    format!("id-{n:06}")
}

async fn serve(list: Arc<List>) -> (Recorder, Gateway) {
    let recorder = Recorder::start(move |seen| list.answer(seen)).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    (recorder, gateway)
}

/// Reads a stream to its end: the ids, and the status of a failure.
async fn drain(stream: &mut Watch, field: &str) -> (Vec<String>, Option<tonic::Status>) {
    let mut ids = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => ids.push(to_json(&message)[field]["id"].as_str().unwrap().to_owned()),
            Err(status) => return (ids, Some(status)),
        }
    }
    (ids, None)
}

#[tokio::test]
async fn unary_pages_are_linked_by_token() {
    let list = Arc::new(List::of("stacks", 7));
    let (recorder, gateway) = serve(list).await;
    let mut token = String::new();
    let mut ids = Vec::new();
    for want in [3, 3, 1] {
        let request = json!({"page_size": 3, "page_token": token, "show_nested": true});
        let page = to_json(&gateway.client.call(LIST, request).await.unwrap());
        let stacks = page["stacks"].as_array().unwrap();
        assert_eq!(stacks.len(), want);
        ids.extend(stacks.iter().map(|s| s["id"].as_str().unwrap().to_owned()));
        token = page["next_page_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert_eq!(token.is_empty(), want == 1);
    }
    assert_eq!(ids, (0..7).map(id).collect::<Vec<_>>());
    assert_eq!(
        recorder
            .seen()
            .iter()
            .map(|s| s.query().to_owned())
            .collect::<Vec<_>>(),
        [
            "limit=3&show_nested=true",
            "limit=3&marker=id-000002&show_nested=true",
            "limit=3&marker=id-000005&show_nested=true"
        ]
    );
    // A page size of 0 returns no items and no token.
    let none = to_json(
        &gateway
            .client
            .call(LIST, json!({"page_size": 0}))
            .await
            .unwrap(),
    );
    assert_eq!(none.get("next_page_token"), None);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn stream_sends_five_thousand_stacks_once_each() {
    // The last page is full: one more call shows that it is the last.
    for (count, size, calls) in [
        (5_000, 500, 11),
        (4_999, 500, 10),
        (0, 100, 1),
        (100, 100, 2),
    ] {
        let (recorder, gateway) = serve(Arc::new(List::of("stacks", count))).await;
        let request = json!({"page_size": size});
        let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
        let (ids, end) = drain(&mut stream, "stack").await;
        assert!(end.is_none(), "{end:?}");
        assert_eq!(ids, (0..count).map(id).collect::<Vec<_>>());
        assert_eq!(recorder.seen().len(), calls, "{count} by {size}");
        gateway.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn stream_continues_after_short_pages_with_a_next_link() {
    let mut list = List::of("stacks", 250);
    list.cap = 100;
    let (recorder, gateway) = serve(Arc::new(list)).await;
    let request = json!({"page_size": 1000});
    let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
    let (ids, end) = drain(&mut stream, "stack").await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(ids.len(), 250);
    assert_eq!(recorder.seen().len(), 3);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn stream_sends_fifty_thousand_events_once_each() {
    let list = Arc::new(List::of("events", 50_000));
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let recorder = Recorder::start(move |seen| {
        if seen.path() == "/v1/p1/stacks/web" {
            counted.fetch_add(1, Ordering::Relaxed);
            return Answer::json(302, &Value::Null).with("location", "/v1/p1/stacks/web/17");
        }
        assert_eq!(seen.path(), "/v1/p1/stacks/web/17/events");
        list.answer(seen)
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"stack_name": "web", "page_size": 1000});
    let mut stream = gateway.client.watch(EVENTS, request, &[]).await.unwrap();
    let (ids, end) = drain(&mut stream, "event").await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(ids.len(), 50_000);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 50_000);
    assert_eq!(lookups.load(Ordering::Relaxed), 1);
    // 50 full pages, and an empty one.
    assert_eq!(recorder.seen().len(), 1 + 51);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn next_page_is_read_when_the_client_reads() {
    const PAGE: usize = 50;
    let mut list = List::of("stacks", 40 * PAGE);
    // A page is 1.5 MB, far more than fits into windows and buffers.
    list.filling = "x".repeat(30_000);
    let (recorder, gateway) = serve(Arc::new(list)).await;
    let request = json!({"page_size": PAGE});
    let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
    let mut ids = HashSet::new();
    while let Some(message) = stream.next().await {
        let message = to_json(&message.unwrap());
        ids.insert(message["stack"]["id"].as_str().unwrap().to_owned());
        // The page being read, and the next one, whose first items are buffered.
        let read = recorder.seen().len();
        let needed = ids.len().div_ceil(PAGE);
        assert!(
            read <= needed + 1,
            "{read} pages read for {} items",
            ids.len()
        );
    }
    assert_eq!(ids.len(), 40 * PAGE);
    assert_eq!(recorder.seen().len(), 41);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn cancelled_stream_reads_no_more_pages() {
    let mut list = List::of("stacks", 10_000);
    list.filling = "x".repeat(30_000);
    let (recorder, gateway) = serve(Arc::new(list)).await;
    let request = json!({"page_size": 50});
    let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let read = recorder.seen().len();
    // The gateway still serves, and reads no more pages.
    gateway
        .client
        .call(LIST, json!({"page_size": 1}))
        .await
        .unwrap();
    assert!(recorder.seen().len() <= read + 2);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn restarted_list_aborts_the_stream() {
    // The marker of the third page is deleted while the second is read.
    let list = Arc::new(List::of("stacks", 1_000));
    let answering = list.clone();
    let recorder = Recorder::start(move |seen| {
        let answer = answering.answer(seen);
        if seen.query().contains(&id(9)) {
            answering
                .ids
                .lock()
                .unwrap()
                .retain(|known| *known != id(19));
        }
        answer
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"page_size": 10});
    let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
    let (ids, end) = drain(&mut stream, "stack").await;
    assert_eq!(ids, (0..20).map(id).collect::<Vec<_>>());
    let status = end.unwrap();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert_eq!(recorder.seen().len(), 3);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn upstream_without_paging_does_not_loop() {
    // Limit and marker are ignored: the complete list is one page. Where its length equals
    // the limit, the next page is the same again.
    for (count, want) in [(7, None), (5, Some(Code::Aborted)), (3, None)] {
        let page: Vec<Value> = (0..count).map(|n| json!({"id": id(n)})).collect();
        let recorder = Recorder::fixed(Answer::json(200, &json!({"events": page}))).await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let request = json!({"stack_name": "web", "stack_id": "17", "page_size": 5});
        let mut stream = gateway.client.watch(EVENTS, request, &[]).await.unwrap();
        let (ids, end) = drain(&mut stream, "event").await;
        assert_eq!(ids.len(), count);
        assert_eq!(end.map(|status| status.code()), want, "{count}");
        assert!(recorder.seen().len() <= 2);
        gateway.running.stop().await.unwrap();
    }
    // RTS has no paging: no parameters are sent.
    let page: Vec<Value> = (0..5).map(|n| json!({"id": id(n)})).collect();
    let recorder = Recorder::fixed(Answer::json(200, &json!({"events": page}))).await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.dialect = "rts".into();
    let gateway = Gateway::with(vec![settings]).await;
    let request = json!({"stack_name": "web", "stack_id": "17", "page_size": 5});
    let mut stream = gateway.client.watch(EVENTS, request, &[]).await.unwrap();
    let (ids, end) = drain(&mut stream, "event").await;
    assert_eq!((ids.len(), end.is_none()), (5, true));
    assert_eq!(recorder.seen()[0].query(), "");
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn items_that_shift_to_the_next_page_are_sent_once() {
    // Another stack is inserted before the marker, and the item before the marker moves
    // behind it.
    let list = Arc::new(List::of("stacks", 30));
    let answering = list.clone();
    let recorder = Recorder::start(move |seen| {
        let answer = answering.answer(seen);
        if !seen.query().contains("marker") {
            let mut ids = answering.ids.lock().unwrap();
            let moved = ids.remove(8);
            ids.insert(9, moved);
        }
        answer
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"page_size": 10});
    let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
    let (ids, end) = drain(&mut stream, "stack").await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(ids, (0..30).map(id).collect::<Vec<_>>());
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn errors_are_sent_at_their_position() {
    let failing = Arc::new(Mutex::new(1));
    let list = List::of("stacks", 100);
    let when = failing.clone();
    let recorder = Recorder::start(move |seen| {
        let mut left = when.lock().unwrap();
        *left -= 1;
        match *left {
            0 => Answer::json(
                403,
                &json!({"code": 403, "title": "Forbidden", "error": {"type": "Forbidden", "message": "no"}}),
            ),
            _ => list.answer(seen),
        }
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"page_size": 10});
    let refused = gateway.client.watch(STACKS, request.clone(), &[]).await;
    assert_eq!(refused.err().unwrap().code(), Code::PermissionDenied);
    *failing.lock().unwrap() = 3;
    let mut stream = gateway.client.watch(STACKS, request, &[]).await.unwrap();
    let (ids, end) = drain(&mut stream, "stack").await;
    assert_eq!(ids.len(), 20);
    assert_eq!(end.unwrap().code(), Code::PermissionDenied);

    // An invalid page size or token is rejected before anything is sent.
    let sent = recorder.seen().len();
    for request in [json!({"page_size": 0}), json!({"page_size": -1})] {
        let status = gateway
            .client
            .watch(STACKS, request, &[])
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert_eq!(recorder.seen().len(), sent);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn open_list_streams_are_limited() {
    let list = Arc::new(List::of("stacks", 3_000));
    let answering = Arc::clone(&list);
    let recorder = Recorder::start(move |seen| answering.answer(seen)).await;
    let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
    config.watch.max_streams = 1;
    let gateway = Gateway::start(config).await;
    // A larger page size is reduced to the maximum.
    let request = json!({"page_size": 100_000});
    let stream = gateway.client.watch(STACKS, request.clone(), &[]).await;
    let mut stream = stream.unwrap();
    let (_, gauges) = http_get(&metrics(&gateway)).await;
    assert!(gauges.contains("drawbridge_open_streams 1\n"), "{gauges}");
    let (ids, end) = drain(&mut stream, "stack").await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(ids.len(), 3_000);
    let sizes: Vec<String> = recorder
        .take()
        .iter()
        .map(|seen| seen.query().to_owned())
        .collect();
    assert!(
        sizes.len() >= 3 && sizes.iter().all(|query| query.contains("limit=1000")),
        "{sizes:?}"
    );

    // A stream that ends or is cancelled returns its permit.
    let first = gateway
        .client
        .watch(STACKS, request.clone(), &[])
        .await
        .unwrap();
    let status = gateway
        .client
        .watch(STACKS, request.clone(), &[])
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status
            .message()
            .contains("too many streams at once (setting `watch.max_streams`)")
    );
    drop(first);
    let next_watch = async {
        while let Err(status) = gateway.client.watch(STACKS, request.clone(), &[]).await {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, next_watch)
        .await
        .expect("its permit is returned");
    gateway.running.stop().await.unwrap();
}

fn metrics(gateway: &Gateway) -> String {
    format!("http://{}/metrics", gateway.running.admin.unwrap())
}
