//! Lists far longer than the gateway's buffers, read from the sandbox. The gateway is a
//! process of its own, so that its memory can be measured.

use std::collections::HashSet;

use drawbridge_sandbox::{self as sandbox, Sandbox};
use prost::Message;
use serde_json::{Value, json};

use crate::support::Client;
use crate::support::process::Process;

const STACKS: usize = 5_000;
const EVENTS: usize = 50_000;
/// The most bytes that the gateway's memory grows by while a list is streamed. The events
/// are about 35 MB of JSON, a page of them 0.1 MB.
const MAX_GROWTH_BYTES: u64 = 6 << 20;

/// A gateway whose memory is measured.
struct MeasuredGateway(Process);

impl MeasuredGateway {
    fn before(sandbox: &Sandbox) -> Self {
        let upstream = format!(
            r#"
[[upstream]]
name = "heat"
family = "heat"
endpoint = "{}"
project_id = "{}"

[upstream.auth]
kind = "keystone"
auth_url = "{}"
username = "{}"
user_domain_name = "{}"
password_env = "SANDBOX_PASSWORD"
project_name = "{}"
project_domain_name = "{}"
"#,
            sandbox.heat_url(),
            sandbox::PROJECT_ID,
            sandbox.keystone_url(),
            sandbox::USERNAME,
            sandbox::DOMAIN,
            sandbox::PROJECT_NAME,
            sandbox::DOMAIN,
        );
        let password = ("SANDBOX_PASSWORD", sandbox::PASSWORD);
        Self(Process::start(
            &upstream,
            &[password, ("DRAWBRIDGE_LOG", "error")],
        ))
    }

    /// Returns a value of `/proc/{pid}/status` in bytes; `None` on other systems than Linux.
    fn memory(&self, name: &str) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes = line.trim_matches(|c: char| !c.is_ascii_digit());
        Some(kilobytes.parse::<u64>().ok()? << 10)
    }

    /// Runs `work` and returns by how much the peak of the memory exceeds its present size;
    /// `None` where the system does not report it.
    async fn rise<T>(&self, work: impl Future<Output = T>) -> (T, Option<u64>) {
        // 5 resets the peak. Source: proc_pid_clear_refs(5).
        let anew = std::fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5");
        let before = self.memory("VmRSS:").filter(|_| anew.is_ok());
        let done = work.await;
        let peak = self.memory("VmHWM:");
        let rise = before.and_then(|before| Some(peak?.saturating_sub(before)));
        (done, rise)
    }
}

/// Reads a stream that must end with OK: the ids, and the bytes of its messages.
async fn walk(client: &Client, rpc: &str, field: &str, request: Value) -> (Vec<String>, usize) {
    let mut stream = client.watch(rpc, request, &[]).await.unwrap();
    let (mut ids, mut bytes) = (Vec::new(), 0);
    while let Some(message) = stream.next().await {
        let message = message.unwrap();
        bytes += message.encoded_len();
        let item = message.get_field_by_name(field).unwrap();
        let id = item.as_message().unwrap().get_field_by_name("id").unwrap();
        ids.push(id.as_str().unwrap().to_owned());
    }
    (ids, bytes)
}

#[tokio::test]
async fn memory_is_flat_with_fifty_thousand_events() {
    let settings = sandbox::Settings {
        preload: false,
        events_kept: EVENTS,
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    sandbox.seed_stacks(STACKS - 1, 3);
    sandbox.seed_stacks(1, EVENTS);
    let long = format!("seeded-{}", STACKS - 1);
    let process = MeasuredGateway::before(&sandbox);
    let client = Client::connect(
        process.0.address,
        &[drawbridge::contract::BUILT_IN.to_vec()],
    )
    .await;
    let stacks = async |size: usize| {
        let request = json!({"page_size": size});
        walk(&client, "StackService/StreamStacks", "stack", request).await
    };
    let events = async |size: usize| {
        let request = json!({"stack_name": long, "page_size": size});
        let rpc = "StackEventService/StreamStackEvents";
        walk(&client, rpc, "event", request).await
    };
    // A first run for what is allocated once: connections, a token, the allocator's reserve.
    stacks(500).await;

    let flat = |what: &str, count: usize, bytes: usize, rise: Option<u64>| {
        eprintln!("{count} {what}, {bytes} bytes of messages: peak memory {rise:?} bytes more");
        assert!(
            rise.is_none_or(|rise| rise < MAX_GROWTH_BYTES),
            "{what}: {rise:?} bytes"
        );
    };
    let ((ids, bytes), rise) = process.rise(stacks(100)).await;
    assert_eq!(ids.len(), STACKS);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), STACKS);
    flat("stacks", STACKS, bytes, rise);

    let ((ids, bytes), rise) = process.rise(events(500)).await;
    assert_eq!(ids.len(), EVENTS);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), EVENTS);
    assert!(bytes > 2 * MAX_GROWTH_BYTES as usize, "{bytes}");
    flat("events", EVENTS, bytes, rise);

    // The measurement is sensitive: it shows a fifth of the events in one response.
    let request = json!({"stack_name": long, "page_size": EVENTS / 5});
    let (page, rise) = process
        .rise(client.call("StackEventService/ListStackEvents", request))
        .await;
    let page = page.unwrap();
    let count = page.get_field_by_name("events").unwrap();
    assert_eq!(count.as_list().unwrap().len(), EVENTS / 5);
    eprintln!("{} events at once: {rise:?} bytes more", EVENTS / 5);
    assert!(rise.is_none_or(|rise| rise > MAX_GROWTH_BYTES), "{rise:?}");
}
