//! Lists that ServiceStage pages by `limit` and `offset`: unary pages, and streams.

use serde_json::{Value, json};
use tonic::Code;

use super::{assert_signed, keys};
use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, upstream};

/// A list: its service, its noun in the rpcs, its JSON member, the field of a stream's message,
/// and the fields of the path.
type List = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const LISTS: &[List] = &[
    (
        "EnvironmentService",
        "Environments",
        "environments",
        "environment",
        &[],
    ),
    (
        "ApplicationService",
        "Applications",
        "applications",
        "application",
        &[],
    ),
    (
        "ComponentService",
        "Components",
        "components",
        "component",
        &[],
    ),
    (
        "ComponentService",
        "ComponentsInApplication",
        "components",
        "component",
        &["application_id"],
    ),
    (
        "ComponentService",
        "ComponentRecords",
        "records",
        "record",
        &["application_id", "component_id"],
    ),
    (
        "ConfigurationService",
        "ConfigGroups",
        "config_groups",
        "config_group",
        &[],
    ),
    ("ConfigurationService", "Configs", "configs", "config", &[]),
];

/// Pages as ServiceStage does: at most 1,000 and at most `limit` items, from `offset` on. Items
/// without an id have a version.
fn answer(seen: &Seen, member: &str, ids: &[usize], count: bool) -> Answer {
    let pairs = seen.pairs();
    let number = |name: &str| {
        let found = pairs.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.parse::<usize>().unwrap())
    };
    let page: Vec<Value> = ids
        .iter()
        .skip(number("offset").unwrap_or(0))
        .take(number("limit").unwrap_or(1_000))
        .map(|id| json!({if member == "records" { "version" } else { "id" }: id.to_string()}))
        .collect();
    let mut body = json!({member: page});
    if count {
        body["count"] = json!(ids.len());
    }
    Answer::json(200, &body)
}

/// Starts a gateway with an upstream that has a list.
async fn serve(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (Recorder, Gateway) {
    let recorder = Recorder::start(answer).await;
    let mut settings = upstream("u", "servicestage", &recorder.url());
    settings.auth = keys(false);
    (recorder, Gateway::with(vec![settings]).await)
}

/// Makes a request of the list with more fields.
fn request(path: &[&str], fields: Value) -> Value {
    let mut request = fields;
    for name in path {
        request[name] = json!("x");
    }
    request
}

fn id(item: &Value) -> usize {
    let text = item["id"].as_str().or(item["version"].as_str());
    text.unwrap().parse().unwrap()
}

/// Reads a stream to its end: the items, and the status of a failure.
async fn drain(
    gateway: &Gateway,
    rpc: &str,
    request: Value,
    field: &str,
) -> (Vec<usize>, Option<Code>) {
    let mut stream = gateway.client.watch(rpc, request, &[]).await.unwrap();
    let mut items = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => items.push(id(&to_json(&message)[field])),
            Err(status) => return (items, Some(status.code())),
        }
    }
    (items, None)
}

/// Returns the queries that were sent; each request must be signed.
fn queries(recorder: &Recorder, what: &str) -> Vec<String> {
    let seen = recorder.take();
    seen.iter().for_each(|seen| assert_signed(seen, what));
    seen.iter().map(|seen| seen.query().to_owned()).collect()
}

#[tokio::test]
async fn every_list_is_paged_and_streamed() {
    let ids: Vec<usize> = (0..250).collect();
    for &(service, noun, member, field, path) in LISTS {
        let all = ids.clone();
        let (recorder, gateway) = serve(move |seen| answer(seen, member, &all, true)).await;
        let list = format!("{service}/List{noun}");
        let (mut token, mut got) = (String::new(), Vec::new());
        for (size, last) in [(100, false), (100, false), (100, true)] {
            let fields = json!({"page_size": size, "page_token": token, "order_raw": "asc"});
            let page = gateway.client.call(&list, request(path, fields)).await;
            let page = to_json(&page.unwrap_or_else(|e| panic!("{list}: {e:?}")));
            assert_eq!(page["count"], 250, "{list}");
            got.extend(page[member].as_array().unwrap().iter().map(id));
            token = page["next_page_token"].as_str().unwrap_or("").to_owned();
            assert_eq!(token.is_empty(), last, "{list}: {token}");
        }
        assert_eq!(got, ids, "{list}");
        let want = [
            "limit=100&order=asc",
            "limit=100&offset=100&order=asc",
            "limit=100&offset=200&order=asc",
        ];
        assert_eq!(queries(&recorder, &list), want, "{list}");

        // An unset size is not sent; a size of 0 returns no items.
        for (fields, query, items, token) in [
            (json!({}), "", 250, None),
            (json!({"page_size": 0}), "limit=0", 0, None),
            (
                json!({"page_size": 40, "page_token": "200"}),
                "limit=40&offset=200",
                40,
                Some("240"),
            ),
        ] {
            let page = gateway.client.call(&list, request(path, fields)).await;
            let page = to_json(&page.unwrap());
            let found = page[member].as_array().map_or(0, Vec::len);
            assert_eq!(found, items, "{list} {query}");
            assert_eq!(page["next_page_token"].as_str(), token, "{list} {query}");
            assert_eq!(queries(&recorder, &list), [query], "{list}");
        }

        // A stream reads the largest pages.
        let stream = format!("{service}/Stream{noun}");
        let fields = request(path, json!({}));
        let (got, end) = drain(&gateway, &stream, fields, field).await;
        assert_eq!((got, end), (ids.clone(), None), "{stream}");
        let want = ["limit=100", "limit=100&offset=100", "limit=100&offset=200"];
        assert_eq!(queries(&recorder, &stream), want, "{stream}");
        let fields = request(path, json!({"page_size": 30, "page_token": "220"}));
        let (got, end) = drain(&gateway, &stream, fields, field).await;
        assert_eq!((&got[..], end), (&ids[220..], None), "{stream}");
        assert_eq!(queries(&recorder, &stream), ["limit=30&offset=220"]);
        gateway.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn lists_without_a_count_and_lists_that_shift_are_complete() {
    let (service, _, member, field, _) = LISTS[0];
    let stream = format!("{service}/StreamEnvironments");

    // `count` may be absent: then a full page has a next one. Q12.
    for (count, pages) in [(0, 1), (199, 2), (200, 3)] {
        let ids: Vec<usize> = (0..count).collect();
        let all = ids.clone();
        let (recorder, gateway) = serve(move |seen| answer(seen, member, &all, false)).await;
        let got = drain(&gateway, &stream, json!({}), field).await;
        assert_eq!(got, (ids, None), "{count}");
        assert_eq!(recorder.seen().len(), pages, "{count}");
        gateway.running.stop().await.unwrap();
    }

    // Two items are created after the first page: items that shift are sent once.
    let (recorder, gateway) = serve(move |seen| {
        let first = if seen.query().contains("offset") {
            0
        } else {
            2
        };
        let ids: Vec<usize> = (first..12).collect();
        answer(seen, member, &ids, true)
    })
    .await;
    let (got, end) = drain(&gateway, &stream, json!({"page_size": 5}), field).await;
    assert_eq!((got, end), ((2..12).collect(), None));
    assert_eq!(recorder.seen().len(), 3);
    gateway.running.stop().await.unwrap();

    // An upstream that ignores `offset` returns the first page for ever.
    let (recorder, gateway) = serve(move |seen| {
        let mut seen = seen.clone();
        seen.target = seen.target.replace("offset=", "x=");
        answer(&seen, member, &(0..12).collect::<Vec<_>>(), true)
    })
    .await;
    let (got, end) = drain(&gateway, &stream, json!({"page_size": 5}), field).await;
    assert_eq!((got, end), ((0..5).collect(), Some(Code::Aborted)));
    assert_eq!(recorder.seen().len(), 2);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn invalid_token_or_size_is_rejected() {
    let (recorder, gateway) = serve(|seen| answer(seen, "environments", &[], true)).await;
    for token in ["-1", "1.5", "x", " 1", "99999999999999999999"] {
        let fields = json!({"page_size": 5, "page_token": token});
        let error = gateway
            .client
            .call("EnvironmentService/ListEnvironments", fields)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{token}");
        assert_eq!(
            error.message(),
            "page_token: must be the `next_page_token` of an earlier response"
        );
    }
    for size in [0, -1] {
        let error = gateway
            .client
            .watch(
                "EnvironmentService/StreamEnvironments",
                json!({"page_size": size}),
                &[],
            )
            .await
            .err()
            .expect("refused");
        assert_eq!(error.code(), Code::InvalidArgument, "{size}");
        assert_eq!(error.message(), "page_size: must be at least 1");
    }
    assert!(recorder.seen().is_empty());
    gateway.running.stop().await.unwrap();
}
