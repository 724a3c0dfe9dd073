//! `drawbridge watch stack NAME` with the sandbox, over connections that break.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use drawbridge::cli::quickstart;
use drawbridge_sandbox as sandbox;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::support::client::json as to_json;
use crate::support::{Gateway, nowhere};
use crate::terminal::timeless;

/// A stack that waits for a signal: `first` is created at once, `last` after the signal.
fn template() -> Value {
    json!({"heat_template_version": "2018-08-31",
        "resources": {
            "first": {"type": "OS::Heat::RandomString"},
            "handle": {"type": "OS::Heat::WaitConditionHandle"},
            "wait": {"type": "OS::Heat::WaitCondition", "depends_on": "first",
                "properties": {"handle": {"get_resource": "handle"}, "timeout": 300}},
            "last": {"type": "OS::Heat::TestResource", "depends_on": "wait"}},
        "outputs": {"answer": {"value": {"get_attr": ["last", "output"]}}}})
}

/// Starts a sandbox with the stack `web` in progress, and a gateway.
async fn stack() -> (sandbox::Sandbox, Gateway) {
    let settings = sandbox::Settings {
        play: false,
        ..sandbox::Settings::default()
    };
    let sandbox = sandbox::Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let request = json!({"stack_name": "web", "template_json": template(),
        "disable_rollback": false});
    let created = gateway.client.call("StackService/CreateStack", request);
    created.await.unwrap();
    (sandbox, gateway)
}

/// Signals the stack: it succeeds with `SUCCESS` and fails with `FAILURE`.
async fn signal(gateway: &Gateway, status: &str) {
    let request = json!({"stack_name": "web", "resource_name": "handle",
        "data": {"status": status, "reason": "as told"}});
    let rpc = "StackResourceService/SignalStackResource";
    gateway.client.call(rpc, request).await.unwrap();
}

/// Returns the ids of all events of the stack, oldest first.
async fn events(gateway: &Gateway) -> Vec<String> {
    let request = json!({"stack_name": "web", "sort_dir": "SORT_DIRECTION_ASC"});
    let rpc = "StackEventService/ListStackEvents";
    let got = to_json(&gateway.client.call(rpc, request).await.unwrap());
    let events = got["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A running view with pipes. Killed when dropped.
struct View {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl View {
    fn of(stack: &str, gateway: SocketAddr, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .args(["watch", "stack", stack, "--gateway"])
            .arg(format!("http://{gateway}"))
            .args(more)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).unwrap() > 0 {
                assert!(line.ends_with('\n'), "half a line: {line}");
                line.pop();
                if tell.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Reads lines up to and including one that matches.
    async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(line) = self.lines.recv().await {
            told.push(line);
            if wanted(told.last().unwrap()) {
                return told;
            }
        }
        panic!("it has ended: {told:#?}");
    }

    /// Reads the rest: the lines, the exit code and standard error.
    async fn end(mut self) -> (Vec<String>, Option<i32>, String) {
        let mut told = Vec::new();
        while let Some(line) = self.lines.recv().await {
            told.push(line);
        }
        let mut said = String::new();
        let mut err = self.child.stderr.take().unwrap();
        err.read_to_string(&mut said).unwrap();
        (told, self.child.wait().unwrap().code(), said)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // The process may have exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP proxy to a gateway whose connections can be cut.
struct Wire {
    address: SocketAddr,
    cut: broadcast::Sender<()>,
    task: JoinHandle<()>,
}

impl Wire {
    async fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, _) = broadcast::channel(1);
        let cuts = cut.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(gateway).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        Self { address, cut, task }
    }

    /// Cuts all connections; new ones are accepted.
    fn cut(&self) {
        self.cut.send(()).expect("a connection");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn events_and_resources_are_printed() {
    let (_sandbox, gateway) = stack().await;
    let mut view = View::of("web", gateway.running.grpc, &[]);
    let waits = |line: &str| timeless(line) == "~ wait CREATE_IN_PROGRESS";
    let mut told = view.until(waits).await;
    signal(&gateway, "SUCCESS").await;
    let (rest, code, said) = view.end().await;
    assert_eq!((code, &*said), (Some(0), ""));
    told.extend(rest);
    let told: Vec<&str> = told.iter().map(|line| timeless(line)).collect();
    for want in [
        "~ stack web CREATE_IN_PROGRESS Stack CREATE started",
        "+ first CREATE_COMPLETE",
        "+ handle SIGNAL_COMPLETE Signal: status:SUCCESS reason:as told",
        "+ wait CREATE_COMPLETE",
        "+ last CREATE_COMPLETE",
        "+ stack web CREATE_COMPLETE Stack CREATE completed successfully",
    ] {
        let count = told.iter().filter(|line| **line == want).count();
        assert_eq!(count, 1, "{want}: {told:#?}");
    }
    // The stack's own events are its states: each is one line, and the final one the last.
    let own = told
        .iter()
        .filter(|line| line.contains("stack web CREATE_"));
    assert_eq!(own.count(), 2, "{told:#?}");
    assert!(
        !told
            .iter()
            .any(|line| line.contains(" web CREATE_") && !line.contains("stack web"))
    );
    let [.., end, output, summary] = &told[..] else {
        panic!("{told:#?}");
    };
    assert_eq!(
        *end,
        "+ stack web CREATE_COMPLETE Stack CREATE completed successfully"
    );
    assert_eq!(*output, "+ output answer test_string");
    assert!(
        summary.ends_with("+ stack web succeeded CREATE_COMPLETE, 4 of 4 complete"),
        "{summary}"
    );
}

#[tokio::test]
async fn failure_and_rollback_are_printed_as_json() {
    let (_sandbox, gateway) = stack().await;
    let mut view = View::of("web", gateway.running.grpc, &["--json"]);
    let waits = |line: &str| line.contains("\"wait\"");
    let mut told = view.until(waits).await;
    signal(&gateway, "FAILURE").await;
    let (rest, code, said) = view.end().await;
    assert_eq!((code, &*said), (Some(1), ""));
    told.extend(rest);
    let told: Vec<Value> = told
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    // The final message of the state, and all events.
    let of = |stream: &str| -> Vec<&Value> {
        let lines = told.iter().filter(|line| line["stream"] == stream);
        lines.map(|line| &line["message"]).collect()
    };
    let states = of("WatchStack");
    let last = states.last().unwrap();
    assert_eq!(last["event"]["outcome"], "OUTCOME_FAILED");
    assert_eq!(last["stack"]["stackStatusRaw"], "ROLLBACK_COMPLETE");
    let ids: Vec<&str> = of("WatchStackEvents")
        .iter()
        .filter_map(|message| message["stackEvent"]["id"].as_str())
        .collect();
    assert_eq!(ids, events(&gateway).await);
    assert_eq!(states.len() + of("WatchStackEvents").len(), told.len());
}

#[tokio::test]
async fn broken_stream_is_resumed() {
    let (_sandbox, gateway) = stack().await;
    let wire = Wire::to(gateway.running.grpc).await;
    let mut view = View::of("web", wire.address, &["--json"]);
    let waits = |line: &str| line.contains("\"wait\"");
    let anew = |line: &str| {
        line.contains("\"WatchStack\"") && line.contains("\"WATCH_EVENT_TYPE_INITIAL\"")
    };
    let mut told = view.until(waits).await;
    if !told.iter().any(|line| anew(line)) {
        told.extend(view.until(anew).await);
    }
    // After each break, the state is sent again.
    for _ in 0..3 {
        wire.cut();
        told.extend(view.until(anew).await);
    }
    signal(&gateway, "SUCCESS").await;
    let (rest, code, said) = view.end().await;
    told.extend(rest);
    assert_eq!(code, Some(0), "{said}");
    let lost = "WatchStack: the connection to the gateway at http://";
    assert!(said.contains(lost), "{said}");
    assert!(said.contains("; retrying"), "{said}");
    let ids: Vec<String> = told
        .iter()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let id = line["message"]["stackEvent"]["id"].as_str()?;
            Some(id.to_owned())
        })
        .collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len());
    assert_eq!(ids, events(&gateway).await);
}

#[tokio::test]
async fn unknown_stack_and_gateway_print_errors() {
    let (_sandbox, gateway) = stack().await;
    let view = View::of("nowhere", gateway.running.grpc, &[]);
    let (told, code, said) = view.end().await;
    assert_eq!((told.len(), code), (0, Some(2)), "{said}");
    assert!(said.starts_with("drawbridge: NOT_FOUND: "), "{said}");
    // Details are indented.
    let count = said.lines().filter(|line| !line.starts_with("  ")).count();
    assert_eq!(count, 1, "{said}");
    // No gateway listens at this address: one line, and no further attempt.
    let address = nowhere();
    for more in [&[][..], &["--json"]] {
        let view = View::of("web", address, more);
        let (told, code, said) = view.end().await;
        assert_eq!((told.len(), code), (0, Some(2)), "{said}");
        let start = format!("drawbridge: cannot reach the gateway at http://{address}/: ");
        assert!(said.starts_with(&start), "{said}");
        assert!(
            said.ends_with("start it, or name another with --gateway URL\n"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_ends_the_view() {
    let (_sandbox, gateway) = stack().await;
    for more in [&[][..], &["--json"]] {
        let mut view = View::of("web", gateway.running.grpc, more);
        view.until(|line| line.contains("wait")).await;
        let killed = Command::new("kill")
            .args(["-INT", &view.child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let (_, code, said) = view.end().await;
        assert_eq!((code, &*said), (Some(130), ""));
    }
}
