//! Attacks on the memory of what is made of responses: windows of logs, items of lists,
//! documents of actions.

use crate::memory::recovered_from;
use crate::support::raw::Connection;
use crate::support::upstream::Received;
use crate::support::{Gateway, Honest, MIB, Reply, Upstream, eventually, raw, within};

const WATCH_EVENTS: &str = "openstack.orchestration.v1.StackEventService/WatchStackEvents";
const WATCH_LIST: &str =
    "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployments";
const STREAM_LIST: &str = "openstack.orchestration.v1.SoftwareConfigService/StreamSoftwareConfigs";
const SUBMIT: &str = "hitachi.automation.v1.AutomationService/SubmitService";

const RESOURCE_EXHAUSTED: u32 = 8;

fn start(budget: u64, upstream: &Upstream) -> Gateway {
    let server = format!("[server]\nmax_memory_bytes = {budget}\n");
    Gateway::start(&(server + &upstream.heat("") + &upstream.jp1ao("")))
}

/// Opens a stream and reads it to its end, or until it waits for something new.
async fn open(connection: &Connection, method: &str, message: Vec<u8>) -> h2::RecvStream {
    let call = connection.send(raw::attack(method), message).await;
    let response = raw::head(call.unwrap()).await.unwrap();
    response.into_body()
}

/// Waits until the share of the client is used up.
async fn is_used_up(gateway: &Gateway) {
    eventually("the share of the client is used up", async || {
        let rejected = gateway
            .metric(r#"drawbridge_memory_rejections_total{reason="client"}"#)
            .await;
        (rejected > 5.0).then_some(())
    })
    .await;
}

/// Pages of 100 events with 14 kB each, up to 300.
fn events(request: &Received) -> Reply {
    let target = &request.target;
    let after = target.split("marker=").nth(1).map_or(0, |rest| {
        let number = rest.split('&').next().unwrap_or_default();
        number.parse::<usize>().unwrap()
    });
    if after >= 300 || target.contains("sort_dir=desc") {
        return Reply::ok(r#"{"events": []}"#);
    }
    let reason = "x".repeat(14_000);
    let events = (after + 1..=after + 100)
        .map(|id| format!(r#"{{"id": "{id}", "resource_status_reason": "{reason}"}}"#));
    let events = events.collect::<Vec<_>>().join(",");
    Reply::ok(format!(r#"{{"events": [{events}]}}"#))
}

/// Each log keeps 4 MiB of its end for its readers, if there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_logs_draw_from_the_budget() {
    const BUDGET: u64 = 32 * MIB;
    let upstream = Upstream::start(events);
    let gateway = start(BUDGET, &upstream);
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let connection = raw::connect(gateway.grpc).await.unwrap();
    let mut streams = Vec::new();
    for number in 0..60 {
        let mut message = raw::string_field(2, "stack").to_vec();
        message.extend_from_slice(&raw::string_field(3, &format!("id{number}")));
        let mut body = open(&connection, WATCH_EVENTS, message).await;
        streams.push(tokio::spawn(async move {
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
            }
        }));
    }
    is_used_up(&gateway).await;
    honest.succeeds(5).await;
    drop(connection);
    recovered_from(BUDGET, gateway, honest, before).await;
}

/// Short items take many times their length in a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_watched_lists_draw_from_the_budget() {
    const BUDGET: u64 = 32 * MIB;
    let items = (0..60_000).map(|id| format!(r#"{{"id":"{id}"}}"#));
    let items = items.collect::<Vec<_>>().join(",");
    let list = format!(r#"{{"software_deployments":[{items}]}}"#);
    let upstream = Upstream::start(move |_| Reply::ok(list.clone()));
    let gateway = start(BUDGET, &upstream);
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let connection = raw::connect_with(gateway.grpc, &builder).await.unwrap();
    let mut streams = Vec::new();
    for number in 0..15 {
        let message = raw::string_field(2, &number.to_string()).to_vec();
        let call = connection.send(raw::attack(WATCH_LIST), message).await;
        streams.push(call.unwrap());
    }
    for response in streams {
        raw::head(response).await.unwrap();
    }
    is_used_up(&gateway).await;
    honest.succeeds(5).await;
    drop(connection);
    recovered_from(BUDGET, gateway, honest, before).await;
}

/// A list of two million empty items, watched and streamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_items_draw_from_the_budget() {
    const BUDGET: u64 = 48 * MIB;
    let items = "{},".repeat(2_000_000);
    let upstream = Upstream::start(move |request| {
        let name = match request.target.contains("software_configs") {
            true => "software_configs",
            false => "software_deployments",
        };
        Reply::ok(format!(r#"{{"{name}":[{items}{{}}]}}"#))
    });
    let gateway = start(BUDGET, &upstream);
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let connection = raw::connect(gateway.grpc).await.unwrap();
    // More items than `watch.max_items`, and no memory for as many keys.
    for (method, code) in [(WATCH_LIST, 13), (STREAM_LIST, RESOURCE_EXHAUSTED)] {
        let call = connection.unary(raw::attack(method), []);
        let ended = within(method, call).await.unwrap();
        assert_eq!(ended.code, code, "{method}: {}", ended.message);
    }
    honest.succeeds(2).await;
    drop(connection);
    recovered_from(BUDGET, gateway, honest, before).await;
}

/// Documents of actions are checked as messages, and taken apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_actions_draw_from_the_budget() {
    const BUDGET: u64 = 32 * MIB;
    let zeros = "0,".repeat(2_000_000);
    let document = format!(
        r#"{{"instanceID":1,"name":"submit","parameters":[{{"scheduleType":"immediate"}}],
            "other":[{zeros}0]}}"#
    );
    let upstream = Upstream::start(move |_| Reply::ok(document.clone()));
    let gateway = start(BUDGET, &upstream);
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let connection = raw::connect(gateway.grpc).await.unwrap();
    // SubmitServiceRequest: id and name
    let message = [&[8, 1][..], &raw::string_field(3, "name")].concat();
    let mut calls = Vec::new();
    for _ in 0..8 {
        let call = connection.send(raw::attack(SUBMIT), &message).await;
        calls.push(call.unwrap());
    }
    for call in calls {
        let ended = within("a call ends", raw::finish(call)).await.unwrap();
        assert_eq!(ended.code, RESOURCE_EXHAUSTED, "{}", ended.message);
    }
    honest.succeeds(2).await;
    drop(connection);
    recovered_from(BUDGET, gateway, honest, before).await;
}
