//! The action of `...AndWatch` is sent once, however its call or its stream fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tonic::Code;
use tonic_types::StatusExt;

use super::keys;
use super::watches::{Script, job, missing, ok, redeploy};
use crate::support::client::json as to_json;
use crate::support::recorder::Answer;
use crate::support::{Gateway, Recorder, json_file, settings, upstream};

const ACTION: &str = "AddonService/ExecuteAddonAction";
const ACTION_AND_WATCH: &str = "AddonService/ExecuteAddonActionAndWatch";
const WATCH_JOB: &str = "JobService/WatchJob";

async fn gateway(url: &str) -> Gateway {
    Gateway::with(vec![stage(url)]).await
}

fn stage(url: &str) -> drawbridge::upstream::Settings {
    let mut settings = upstream("u", "servicestage", url);
    settings.auth = keys(false);
    settings
}

/// Counts the requests with this verb.
fn count(recorder: &Recorder, verb: &str) -> usize {
    recorder.seen().iter().filter(|s| s.method == verb).count()
}

/// An upstream with these responses to the action, and then to polls of its job.
async fn cloud(action: Vec<Answer>, jobs: Vec<Answer>) -> Recorder {
    let script = Script::new(vec![
        ("POST", "/addons/d/action", action),
        ("GET", "/jobs/JOB1", jobs),
    ]);
    Recorder::start(move |seen| script.answer(seen)).await
}

fn started() -> Answer {
    ok(json!({"job_id": "JOB1"}))
}

#[tokio::test]
async fn rejected_call_rejects_the_watch() {
    let capture = json_file("fixtures/servicestage/ExecuteAddonAction.json");
    let variants = capture["response_variants"].as_array().unwrap();
    let answers = variants.iter().map(|variant| {
        let status = variant["status"].as_u64().unwrap() as u16;
        Answer::json(status, &variant["body"]).with("retry-after", "7200")
    });
    let proxy = |status| Answer::text(status, "text/html", "<h1>a proxy</h1>");
    let mut refused = 0;
    for answer in answers.chain([502, 503, 504].map(proxy)) {
        let recorder = cloud(vec![answer.clone()], vec![job("SUCCEEDED")]).await;
        let gateway = gateway(&recorder.url()).await;
        let alone = gateway.client.call(ACTION, redeploy()).await.unwrap_err();
        let watch = gateway
            .client
            .watch(ACTION_AND_WATCH, redeploy(), &[])
            .await;
        let status = watch.err().expect("no stream");
        let facts = |status: &tonic::Status| {
            let info = status.get_error_details().error_info().unwrap().clone();
            (status.code(), info.reason, info.metadata["sent"].clone())
        };
        assert_eq!(facts(&status), facts(&alone), "{answer:?}");
        assert_ne!(status.code(), Code::Ok);
        // One call without and one with the watch, and no polls.
        assert_eq!(count(&recorder, "POST"), 2, "{answer:?}");
        assert_eq!(count(&recorder, "GET"), 0, "{answer:?}");
        gateway.running.stop().await.unwrap();
        refused += 1;
    }
    assert!(refused >= 8, "{refused}");
}

#[tokio::test]
async fn call_without_a_response_is_not_retried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let waits = std::sync::Arc::new(tokio::sync::Notify::new());
    let waiting = waits.clone();
    // Reads a request and closes the connection; the second one gets no response.
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = [0; 8192];
            let read = stream.read(&mut text).await.unwrap();
            if text[..read].starts_with(b"POST") && counted.fetch_add(1, Ordering::SeqCst) == 1 {
                held.push(stream);
                waiting.notify_one();
            }
        }
    });
    let gateway = gateway(&url).await;
    let watch = gateway
        .client
        .watch(ACTION_AND_WATCH, redeploy(), &[])
        .await;
    let status = watch.err().expect("no stream");
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    assert!(status.message().contains("may have acted"), "{status:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    // The default deadline: a client's own timer would also end the call.
    let mut hasty = settings(vec![stage(&url)]);
    hasty.server.default_deadline = Duration::from_secs(20);
    let hasty = Gateway::start(hasty).await;
    let watch = hasty.client.watch(ACTION_AND_WATCH, redeploy(), &[]);
    let mut watch = Box::pin(watch);
    tokio::select! {
        _ = &mut watch => panic!("nobody answers"),
        () = waits.notified() => {}
    }
    // The call is sent, however long that took; the deadline is next.
    tokio::time::pause();
    let watch = watch.await;
    tokio::time::resume();
    let status = watch.err().expect("no stream");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["sent"], "true");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    server.abort();
    gateway.running.stop().await.unwrap();
}

/// A throttled call was not processed: it is retried.
#[tokio::test]
async fn unprocessed_call_is_retried() {
    let body = json!({"error_code": "APIGW.0308", "error_msg": "throttled"});
    let throttled = Answer::json(429, &body).with("retry-after", "0");
    let recorder = cloud(vec![throttled, started()], vec![job("SUCCEEDED")]).await;
    let gateway = gateway(&recorder.url()).await;
    let mut watch = (gateway
        .client
        .watch(ACTION_AND_WATCH, redeploy(), &[])
        .await)
        .unwrap();
    let first = watch.event().await;
    assert_eq!(first["started"], json!({"job_id": "JOB1"}));
    let last = watch.event().await;
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert!(watch.next().await.is_none());
    assert_eq!(count(&recorder, "POST"), 2);
    gateway.running.stop().await.unwrap();
}

/// `retry-after` of a load balancer does not prove that the call was not processed.
#[tokio::test]
async fn unavailable_action_with_retry_after_is_not_retried() {
    let body = json!({"error_code": "APIGW.0801", "error_msg": "unavailable"});
    for (status, want) in [(503, Code::Unknown), (413, Code::ResourceExhausted)] {
        let later = Answer::json(status, &body).with("retry-after", "0");
        let recorder = cloud(vec![later], vec![job("SUCCEEDED")]).await;
        let gateway = gateway(&recorder.url()).await;
        let alone = gateway.client.call(ACTION, redeploy()).await.unwrap_err();
        let watch = (gateway.client)
            .watch(ACTION_AND_WATCH, redeploy(), &[])
            .await;
        for status in [alone, watch.err().expect("no stream")] {
            assert_eq!(status.code(), want, "{status:?}");
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().metadata["sent"], "true");
        }
        assert_eq!(count(&recorder, "POST"), 2, "once each: {status}");
        gateway.running.stop().await.unwrap();
    }
}

/// Two clients that start the same action get one job each.
#[tokio::test]
async fn equal_actions_of_two_clients_are_both_sent() {
    let number = AtomicUsize::new(0);
    let recorder = Recorder::start(move |seen| match seen.method.as_str() {
        "POST" => {
            let number = number.fetch_add(1, Ordering::SeqCst);
            ok(json!({"job_id": format!("JOB{number}")}))
        }
        _ => job("SUCCEEDED"),
    })
    .await;
    let gateway = gateway(&recorder.url()).await;
    let mut watches = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = gateway.client.clone();
        watches.spawn(async move {
            let mut watch = (client.watch(ACTION_AND_WATCH, redeploy(), &[]).await).unwrap();
            let first = watch.event().await;
            while let Some(message) = watch.next().await {
                message.unwrap();
            }
            first["started"]["job_id"].as_str().unwrap().to_owned()
        });
    }
    let mut jobs = watches.join_all().await;
    jobs.sort();
    let want: Vec<String> = (0..8).map(|number| format!("JOB{number}")).collect();
    assert_eq!(jobs, want);
    assert_eq!(count(&recorder, "POST"), 8);
    for job in &want {
        let read = recorder
            .seen()
            .iter()
            .any(|seen| seen.path().ends_with(&format!("/jobs/{job}")));
        assert!(read, "{job}");
    }
    gateway.running.stop().await.unwrap();
}

/// After a cancelled call or a drain, the job can be watched by its id.
#[tokio::test]
async fn broken_stream_is_resumed_by_the_job() {
    for gateway_stops in [false, true] {
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let state = over.clone();
        let recorder = Recorder::start(move |seen| match seen.method.as_str() {
            "POST" => started(),
            _ if state.load(Ordering::SeqCst) => job("SUCCEEDED"),
            _ => job("RUNNING"),
        })
        .await;
        let mut gateway = gateway(&recorder.url()).await;
        let mut watch = (gateway
            .client
            .watch(ACTION_AND_WATCH, redeploy(), &[])
            .await)
            .unwrap();
        let first = watch.event().await;
        let id = first["started"]["job_id"].as_str().unwrap().to_owned();
        assert_eq!(
            watch.event().await["snapshot"]["job"]["execution_status_raw"],
            "RUNNING"
        );
        if gateway_stops {
            let stopping = gateway.running.stop();
            let (stopped, end) = tokio::join!(stopping, watch.next());
            stopped.unwrap();
            let status = end.expect("a status").unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            // `retry_info` would make clients repeat the action.
            let details = status.get_error_details();
            assert!(details.retry_info().is_none(), "{details:?}");
            assert_eq!(details.error_info().unwrap().metadata["sent"], "true");
            gateway = self::gateway(&recorder.url()).await;
        } else {
            drop(watch);
        }
        over.store(true, Ordering::SeqCst);
        let request = json!({"job_id": id, "environment_id": "e", "addon_id": "d"});
        let mut watch = gateway.client.watch(WATCH_JOB, request, &[]).await.unwrap();
        let last = watch.event().await;
        assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED", "{last}");
        assert!(watch.next().await.is_none());
        assert_eq!(count(&recorder, "POST"), 1, "{gateway_stops}");
        gateway.running.stop().await.unwrap();
    }
}

/// Failed polls do not repeat the action.
#[tokio::test]
async fn failed_polls_are_tolerated_or_end_the_stream() {
    let failing = |status: u16| {
        Answer::json(
            status,
            &json!({"error_code": "APIGW.0705", "error_msg": "no"}),
        )
    };
    let borne = vec![
        failing(503),
        failing(502),
        job("RUNNING"),
        failing(503),
        job("SUCCEEDED"),
    ];
    let forbidden = Answer::json(
        403,
        &json!({"error_code": "APIGW.0302", "error_msg": "no longer"}),
    );
    for (jobs, end) in [
        (borne, None),
        (
            vec![job("RUNNING"), forbidden],
            Some(Code::PermissionDenied),
        ),
        (
            vec![job("RUNNING"), missing(400, "SVCSTG.00100429")],
            Some(Code::NotFound),
        ),
    ] {
        let recorder = cloud(vec![started()], jobs).await;
        let gateway = gateway(&recorder.url()).await;
        let mut watch = (gateway
            .client
            .watch(ACTION_AND_WATCH, redeploy(), &[])
            .await)
            .unwrap();
        let (mut last, mut code) = (Value::Null, None);
        let ended = tokio::time::timeout(Duration::from_secs(120), async {
            while let Some(message) = watch.next().await {
                match message {
                    Ok(message) => last = to_json(&message),
                    Err(status) => {
                        let details = status.get_error_details();
                        assert!(details.retry_info().is_none(), "{status:?}");
                        assert_eq!(details.error_info().unwrap().metadata["sent"], "true");
                        code = Some(status.code());
                    }
                }
            }
        });
        ended.await.expect("it ends");
        assert_eq!(code, end, "{last}");
        let well = last["event"]["outcome"] == "OUTCOME_SUCCEEDED";
        assert_eq!(well, end.is_none(), "{last}");
        assert_eq!(count(&recorder, "POST"), 1);
        gateway.running.stop().await.unwrap();
    }
}
