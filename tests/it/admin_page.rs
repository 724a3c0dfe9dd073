//! The page of the admin listener: its files and headers, the requests that it serves, its JSON.

use std::net::SocketAddr;
use std::time::Duration;

use drawbridge::admin::FILES;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, http_get, nowhere, settings, upstream};

/// A response of the admin listener.
pub struct Page {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Page {
    /// Returns a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// Sends a request with these headers, and `host` unless they have one. Returns the response
/// with its chunks joined.
pub async fn send(
    admin: SocketAddr,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Page {
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request += &format!("host: {admin}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, rest) = response.split_once("\r\n\r\n").unwrap();
    let mut page = Page {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: rest.to_owned(),
    };
    if page.header("transfer-encoding") == Some("chunked") {
        page.body.clear();
        let mut rest = rest;
        while let Some((size, chunk)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            page.body += &chunk[..size];
            rest = chunk[size..].trim_start_matches("\r\n");
            if size == 0 {
                break;
            }
        }
    }
    page
}

pub async fn get(admin: SocketAddr, path: &str) -> Page {
    send(admin, ("GET", path), &[], "").await
}

#[tokio::test]
async fn files_are_small_and_may_load_nothing_else() {
    let size: usize = FILES.iter().map(|file| file.content.len()).sum();
    assert!(size < 100_000, "{size} bytes");
    let gateway = Gateway::with(vec![upstream(
        "heat",
        "heat",
        &format!("http://{}", nowhere()),
    )])
    .await;
    let admin = gateway.running.admin.unwrap();
    for file in FILES {
        let page = get(admin, file.path).await;
        assert_eq!(
            (page.status, &*page.body),
            (200, file.content),
            "{}",
            file.path
        );
        let kind = match file.path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript",
            Some((_, "css")) => "text/css",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/html",
        };
        assert!(page.header("content-type").unwrap().starts_with(kind));
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        let etag = page.header("etag").unwrap();
        for (known, want) in [(etag, 304), ("\"other\"", 200)] {
            let known = [("if-none-match", known)];
            let page = send(admin, ("GET", file.path), &known, "").await;
            assert_eq!(page.status, want, "{}", file.path);
            assert_eq!(page.body.is_empty(), want == 304);
            assert_eq!(page.header("etag"), Some(etag));
        }
        // Neither scripts and styles in the markup, nor addresses of other hosts.
        for forbidden in [
            "<style",
            " style=",
            " onclick=",
            "innerHTML",
            "eval(",
            "https://",
        ] {
            assert!(
                !file.content.contains(forbidden),
                "{}: {forbidden}",
                file.path
            );
        }
        let other_hosts = file.content.matches("http://").count();
        let namespaces = file.content.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(other_hosts, namespaces, "{}", file.path);
    }
    for (path, status) in [("/", 200), ("/api/status", 200), ("/page/none.js", 404)] {
        let page = get(admin, path).await;
        assert_eq!(page.status, status, "{path}");
        if status == 200 {
            let policy = page.header("content-security-policy").unwrap();
            for rule in [
                "default-src 'none'",
                "connect-src 'self'",
                "frame-ancestors 'none'",
            ] {
                assert!(policy.contains(rule), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        }
    }
    assert_eq!(
        get(admin, "/api/status").await.header("cache-control"),
        Some("no-store")
    );
}

#[tokio::test]
async fn other_hosts_and_websites_are_rejected() {
    let gateway = Gateway::with(vec![upstream(
        "heat",
        "heat",
        &format!("http://{}", nowhere()),
    )])
    .await;
    let admin = gateway.running.admin.unwrap();
    for (header, file, api) in [
        (("host", "localhost:50052"), 200, 200),
        (("host", "attacker.test"), 403, 403),
        (("sec-fetch-site", "same-origin"), 200, 200),
        // A link to the page may be followed.
        (("sec-fetch-site", "cross-site"), 200, 403),
        (("origin", "http://attacker.test"), 200, 403),
    ] {
        for (path, want) in [("/", file), ("/page/main.js", file), ("/api/status", api)] {
            let page = send(admin, ("GET", path), &[header], "").await;
            assert_eq!(page.status, want, "{path} {header:?}");
            if want == 403 {
                assert!(page.json()["error"].is_string());
            }
        }
        // Monitoring is as before.
        for path in ["/metrics", "/livez", "/readyz"] {
            let page = send(admin, ("GET", path), &[header], "").await;
            assert_eq!(page.status, 200, "{path} {header:?}");
        }
    }
}

#[tokio::test]
async fn page_is_off_beyond_loopback_unless_configured() {
    for (address, page, want) in [
        ([127, 0, 0, 1], None, 200),
        ([127, 0, 0, 1], Some(false), 404),
        ([0, 0, 0, 0], None, 404),
        ([0, 0, 0, 0], Some(true), 200),
    ] {
        let heat = upstream("heat", "heat", &format!("http://{}", nowhere()));
        let mut config = settings(vec![heat]);
        config.admin = Some((address, 0).into());
        config.admin_page = page;
        let gateway = Gateway::start(config).await;
        let port = gateway.running.admin.unwrap().port();
        let admin = SocketAddr::from(([127, 0, 0, 1], port));
        for path in ["/", "/page/main.js", "/api/status"] {
            assert_eq!(
                get(admin, path).await.status,
                want,
                "{path} {address:?} {page:?}"
            );
        }
        assert_eq!(http_get(&format!("http://{admin}/readyz")).await.0, 200);
    }
}

#[tokio::test]
async fn status_shows_upstreams_watches_and_failed_calls_without_values() {
    const LIST: &str = "SoftwareDeploymentService/ListSoftwareDeployments";
    let secret = "hunter2-of-the-request";
    let recorder = Recorder::start(move |seen| match seen.path() {
        path if path.ends_with("/software_deployments") => {
            Answer::json(404, &json!({"error": {"message": format!("no {secret}")}}))
        }
        _ => Answer::json(
            200,
            &json!({"software_deployment": {"id": "d1", "status": "IN_PROGRESS"}}),
        ),
    })
    .await;
    let mut up = upstream("up", "heat", &recorder.url());
    up.max_concurrent_calls = 7;
    let mut config = settings(vec![
        up,
        upstream("down", "jp1ao", &format!("http://{}", nowhere())),
    ]);
    config.server.health_check_interval = Duration::from_secs(60);
    config.client_tokens = vec!["a-token-of-a-client".into()];
    let gateway = Gateway::start(config).await;
    let admin = gateway.running.admin.unwrap();
    let token = [("drawbridge-token", "a-token-of-a-client")];
    let with_token = |request_id| [token[0], ("x-request-id", request_id)];
    let request = json!({"server_id": secret});
    let failed = gateway
        .client
        .call_with(LIST, request.clone(), &with_token("r-7"))
        .await;
    assert_eq!(failed.unwrap_err().code(), Code::NotFound);
    for _ in 0..3 {
        let failed = gateway.client.call(LIST, request.clone()).await;
        assert_eq!(failed.unwrap_err().code(), Code::Unauthenticated);
    }
    let watched = json!({"deployment_id": "d1"});
    let mut watch = gateway
        .client
        .watch(
            "SoftwareDeploymentService/WatchSoftwareDeployment",
            watched,
            &token,
        )
        .await
        .unwrap();
    watch.event().await;
    // The first health check of the other upstream decides its state.
    let page = loop {
        let page = get(admin, "/api/status").await;
        if page.json()["upstreams"][1]["state"] == "unhealthy" {
            break page;
        }
        tokio::task::yield_now().await;
    };
    for text in [secret, "a-token-of-a-client"] {
        assert!(!page.body.contains(text), "{}", page.body);
    }
    let status = page.json();
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["name"], "up");
    assert_eq!(
        (&upstream["expiry"], &upstream["max_in_flight"]),
        (&json!("never"), &json!(7))
    );
    assert_eq!(upstream["calls"], json!({"NOT_FOUND": 1}));
    let responses = upstream["latencies"].as_array().unwrap().iter();
    assert!(responses.map(|n| n.as_u64().unwrap()).sum::<u64>() >= 2);
    let down = &status["upstreams"][1];
    let reason = down["last_failure"]["reason"].as_str().unwrap();
    assert!(reason.contains("cannot connect"), "{reason}");
    assert_eq!(status["gateway"]["unauthenticated"], 3);
    assert_eq!(status["watches"]["total"], 1);
    let watch = &status["watches"]["listed"][0];
    assert_eq!(watch["path"], "/v1/…/software_deployments/d1");
    for (key, want) in [
        ("kind", json!("resource")),
        ("state", json!("IN_PROGRESS")),
        ("outcome", json!("pending")),
        ("streams", json!(1)),
        ("is_unconfirmed", json!(false)),
    ] {
        assert_eq!(watch[key], want, "{watch}");
    }
    let failed = status["failed_calls"].as_array().unwrap();
    let summary: Vec<_> = failed
        .iter()
        .map(|call| json!([call["code"], call["kind"], call["upstream"], call["count"]]))
        .collect();
    assert_eq!(
        summary,
        [
            json!(["UNAUTHENTICATED", failed[0]["kind"], "", 3]),
            json!(["NOT_FOUND", "HTTP_404", "up", 1])
        ]
    );
    assert_eq!(failed[1]["request_id"], "r-7");
    assert!(failed[1]["operation"].as_str().unwrap().ends_with(LIST));
}
