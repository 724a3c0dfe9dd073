//! Clients that open as many streams as they can: others still get theirs.

use http::HeaderValue;

use crate::support::{Gateway, Honest, Options, Reply, Upstream, raw, within};

const MIB: u64 = 1 << 20;
const WATCH: &str = "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
const EXPORT: &str = "hitachi.automation.v1.ServiceTemplateService/ExportServiceTemplate";
const RESOURCE_EXHAUSTED: u32 = 8;

/// Opens a watch of a deployment. Returns its stream when it has sent a message, else the
/// status.
async fn watch(
    connection: &raw::Connection,
    token: &str,
    id: &str,
) -> Result<h2::RecvStream, raw::Unary> {
    let mut request = raw::request(WATCH);
    let token = HeaderValue::from_str(token).unwrap();
    request.headers_mut().insert("x-auth-token", token);
    let response = connection.send(request, raw::string_field(2, id)).await;
    let response = within("a watch has a response", response.unwrap()).await;
    let response = response.unwrap();
    if response.headers().contains_key("grpc-status") {
        let (parts, _) = response.into_parts();
        let text = |name| {
            let value = parts.headers.get(name).map(HeaderValue::to_str);
            value.and_then(Result::ok).unwrap_or_default().to_owned()
        };
        return Err(raw::Unary {
            code: text("grpc-status").parse().unwrap(),
            message: text("grpc-message"),
            headers: parts.headers,
            body: Vec::new(),
        });
    }
    let mut body = response.into_body();
    let first = within("a watch sends a message", body.data()).await;
    first.unwrap().unwrap();
    Ok(body)
}

/// One client opens watches with one credential, and with another one each time, until it gets no
/// more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_poll_loops_of_one_client_leave_some_to_others() {
    let upstream = Upstream::start(|_| {
        Reply::ok(r#"{"software_deployment":{"id":"d","status":"IN_PROGRESS"}}"#)
    });
    for (setting, message) in [
        ("max_streams", "too many streams of this client"),
        ("max_poll_loops", "too many poll loops of this client"),
    ] {
        for one_credential in [true, false] {
            let config = format!("[watch]\n{setting} = 40\n{}", upstream.heat(""));
            let gateway = Gateway::start(&config);
            let honest = Honest::start(gateway.grpc);
            honest.succeeds(2).await;
            let before = gateway.usage();
            let connection = raw::connect(gateway.grpc).await.unwrap();
            if one_credential {
                // The upstream accepts it.
                drop(watch(&connection, "attacker", "d").await.unwrap());
            }
            let mut open = Vec::new();
            let mut rejected = Vec::new();
            for number in 0..100 {
                let token = match one_credential {
                    true => "attacker".to_owned(),
                    false => format!("invented-{number}"),
                };
                match watch(&connection, &token, &format!("d{number}")).await {
                    Ok(body) => open.push(body),
                    Err(status) => rejected.push(status),
                }
            }
            // Three quarters, and seven eighths.
            let want = if one_credential { 30 } else { 35 };
            assert_eq!(open.len(), want, "{setting}");
            for status in rejected {
                assert_eq!(status.code, RESOURCE_EXHAUSTED);
                let text = status.message.replace("%20", " ");
                assert!(text.contains(message), "{text}");
                assert!(status.headers.contains_key("grpc-status-details-bin"));
            }
            // The honest client, whose credential is accepted.
            let other = raw::connect(gateway.grpc).await.unwrap();
            let watched = watch(&other, "honest", "honest").await;
            assert!(watched.is_ok(), "{setting}");
            honest.finish().await;
            drop((open, connection, watched, other));
            gateway.assert_peak_below(before, 64 * MIB);
            gateway.recovers(before).await;
        }
    }
}

/// Downloads of an endless file, each with a connection to the upstream, where descriptors are
/// few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_leave_descriptors_to_calls() {
    let upstream = Upstream::start(|request| {
        if !request.target.contains("invoke") {
            return Reply::ok(r#"{"name":"export","instanceID":1,"parameters":[]}"#);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\n";
        Reply::Endless(head.into(), vec![7; 64 << 10])
    });
    let gateway = Gateway::start_with(Options {
        config: upstream.heat("") + &upstream.jp1ao(""),
        max_descriptors: Some(256),
        ..Options::default()
    });
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 10);
    let connection = raw::connect_with(gateway.grpc, &builder).await.unwrap();
    let mut open = Vec::new();
    let mut rejected = 0;
    for _ in 0..400 {
        // ExportServiceTemplateRequest.id
        let call = connection.send(raw::attack(EXPORT), [8, 1]).await.unwrap();
        let response = within("a download begins", raw::head(call)).await.unwrap();
        match response.headers().get("grpc-status") {
            None => open.push(response),
            Some(status) => {
                assert_eq!(status, "8");
                rejected += 1;
            }
        }
    }
    println!(
        "{} downloads are open, {rejected} were rejected",
        open.len()
    );
    assert!(!open.is_empty() && open.len() < 50, "{}", open.len());
    honest.finish().await;
    drop((open, connection));
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}
