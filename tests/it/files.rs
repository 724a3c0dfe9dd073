//! Uploads and downloads, with a recorder and with the sandbox.

use std::time::Duration;

use bytes::Bytes;
use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use prost_reflect::{DynamicMessage, Value};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::own_api::compile;
use crate::support::client::{Watch, json as to_json};
use crate::support::recorder::{Answer, Recorder, Seen};
use crate::support::{Gateway, settings, upstream};
use crate::watch::metrics;

const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "google/api/annotations.proto";

option (drawbridge.v1.file) = { family: "acme" };

service FileService {
  rpc Put(stream PutRequest) returns (PutResponse) {
    option (google.api.http) = { post: "/api/{place}/files" };
    option (drawbridge.v1.method).upload = { part: "doc" file_name: "name" chunk: "data" };
  }
  rpc Take(TakeRequest) returns (stream TakeResponse) {
    option (google.api.http) = { get: "/api/files/{id}" };
    option (drawbridge.v1.method).download = {
      file_name: "name" chunk: "data" accept: "application/zip"
    };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
message PutRequest {
  string place = 1;
  string name = 2 [(drawbridge.v1.field).gateway_only = true];
  bytes data = 3 [(drawbridge.v1.field).gateway_only = true];
  string tag = 4;
}
message PutResponse { string id = 1; }
message TakeRequest { string id = 1; }
message TakeResponse { string name = 1; bytes data = 2; }
"#;

const PUT: &str = "FileService/Put";
const TAKE: &str = "FileService/Take";
const IMPORT: &str = "ServiceTemplateService/ImportServiceTemplate";
const EXPORT: &str = "ServiceTemplateService/ExportServiceTemplate";
const GET: &str = "ServiceTemplateService/GetServiceTemplate";

/// Longer than any step here takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn acme(answer: Answer) -> (Recorder, Gateway) {
    let recorder = Recorder::fixed(answer).await;
    let mut at = upstream("acme", "acme", &recorder.url());
    at.transport.max_response_bytes = 200_000;
    let mut config = settings(vec![at]);
    config.server.max_upload_bytes = 1_000;
    config.descriptors = vec![compile(PROTO).unwrap()];
    (recorder, Gateway::start(config).await)
}

/// Returns the recorded calls without health probes.
fn calls(recorder: &Recorder) -> Vec<Seen> {
    let mut seen = recorder.seen();
    seen.retain(|seen| seen.target != "/");
    seen
}

/// Makes a message of an upload.
fn message(
    gateway: &Gateway,
    method: &str,
    fields: &[(&str, &str)],
    data: &[u8],
) -> DynamicMessage {
    let mut message = DynamicMessage::new(gateway.client.method(method).input());
    for (name, value) in fields {
        message.set_field_by_name(name, Value::String((*value).to_owned()));
    }
    let chunk = if method == PUT { "data" } else { "chunk" };
    message.set_field_by_name(chunk, Value::Bytes(Bytes::copy_from_slice(data)));
    message
}

/// The fields of one message of an upload, and its chunk.
type Piece<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

async fn put(gateway: &Gateway, pieces: &[Piece<'_>]) -> Result<String, Status> {
    let messages: Vec<_> = pieces
        .iter()
        .map(|(fields, data)| message(gateway, PUT, fields, data))
        .collect();
    let answer = gateway
        .client
        .send(PUT, tokio_stream::iter(messages))
        .await?;
    Ok(to_json(&answer)["id"].as_str().unwrap().to_owned())
}

/// Downloads a file: its name and its chunks.
async fn take(
    gateway: &Gateway,
    method: &str,
    id: serde_json::Value,
) -> Result<(String, Vec<Bytes>), Status> {
    let fields = if method == TAKE {
        ("name", "data")
    } else {
        ("file_name", "chunk")
    };
    let mut stream = gateway.client.watch(method, json!({"id": id}), &[]).await?;
    let first = stream.next().await.expect("a first message")?;
    let name = first
        .get_field_by_name(fields.0)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    let mut pieces = Vec::new();
    while let Some(message) = stream.next().await.transpose()? {
        assert_eq!(
            message.get_field_by_name(fields.0).unwrap().as_str(),
            Some("")
        );
        pieces.push(
            message
                .get_field_by_name(fields.1)
                .unwrap()
                .as_bytes()
                .unwrap()
                .clone(),
        );
    }
    Ok((name, pieces))
}

#[tokio::test]
async fn upload_is_sent_as_one_multipart_form() {
    let (recorder, gateway) = acme(Answer::json(200, &json!({"id": "f1"}))).await;
    let first: &[(&str, &str)] = &[("place", "a b"), ("tag", "x&y"), ("name", "a\"b;é.zip")];
    let id = put(
        &gateway,
        &[(first, b"one\r\n--"), (&[], b""), (&[], b"two\0")],
    )
    .await;
    assert_eq!(id.unwrap(), "f1");
    let seen = calls(&recorder);
    let [seen] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(seen.target, "/api/a%20b/files?tag=x%26y");
    let boundary = seen
        .header("content-type")
        .strip_prefix("multipart/form-data; boundary=")
        .unwrap();
    let want = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"doc\"; filename=\"a%22b;é.zip\"\r\n\
         Content-Type: application/octet-stream\r\n\r\none\r\n--two\0\r\n--{boundary}--\r\n"
    );
    assert_eq!(String::from_utf8_lossy(&seen.body), want);
    assert_eq!(seen.header("content-length"), want.len().to_string());

    // A file of the maximum length; each upload has another boundary.
    let whole = [7; 1_000];
    put(&gateway, &[(&[("place", "p"), ("name", "n")], &whole)])
        .await
        .unwrap();
    let again = &calls(&recorder)[1];
    assert!(!again.header("content-type").contains(boundary));
    assert!(again.body.windows(1_000).any(|window| window == whole));
}

#[tokio::test]
async fn invalid_upload_is_not_forwarded() {
    let (recorder, gateway) = acme(Answer::json(200, &json!({"id": "f1"}))).await;
    let named: &[(&str, &str)] = &[("place", "p"), ("name", "n")];
    let long = "n".repeat(256);
    let half = [7; 501];
    for (pieces, code, want) in [
        (&[][..], Code::InvalidArgument, "no message"),
        (
            &[(named, &half[..]), (&[][..], &half)],
            Code::ResourceExhausted,
            "max_upload_bytes",
        ),
        (&[(named, b"")], Code::InvalidArgument, "the file is empty"),
        (
            &[(&[("place", "p")], b"x")],
            Code::InvalidArgument,
            "must name the file",
        ),
        (&[(&[("name", "n")], b"x")], Code::InvalidArgument, "place"),
        (
            &[(named, b"x"), (named, b"y")],
            Code::InvalidArgument,
            "only be set in the first message",
        ),
        (
            &[(&[("place", "p"), ("name", "a/b")], b"x")],
            Code::InvalidArgument,
            "no path",
        ),
        (
            &[(&[("place", "p"), ("name", "a\r\nb: c")], b"x")],
            Code::InvalidArgument,
            "no control",
        ),
        (
            &[(&[("place", "p"), ("name", &long)], b"x")],
            Code::InvalidArgument,
            "255 bytes",
        ),
    ] {
        let status = put(&gateway, pieces).await.unwrap_err();
        assert_eq!(status.code(), code, "{want}: {status:?}");
        assert!(status.message().contains(want), "{want}: {status:?}");
    }
    assert!(calls(&recorder).is_empty());
}

#[tokio::test]
async fn upload_is_not_retried() {
    let (recorder, gateway) = acme(Answer::json(503, &json!({}))).await;
    let status = put(&gateway, &[(&[("place", "p"), ("name", "n")], b"x")])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    assert_eq!(calls(&recorder).len(), 1);
}

#[tokio::test]
async fn cancelled_upload_is_not_forwarded() {
    let (recorder, gateway) = acme(Answer::json(200, &json!({"id": "f1"}))).await;
    // The upstream is connected: only the end of the file is missing.
    let named: &[(&str, &str)] = &[("place", "p"), ("name", "n")];
    put(&gateway, &[(named, b"whole")]).await.unwrap();
    let told = async |wanted: &[&str]| loop {
        let text = metrics(&gateway).await;
        let has =
            |line: &str| !line.starts_with('#') && wanted.iter().all(|word| line.contains(word));
        if text.lines().any(has) {
            return;
        }
        tokio::task::yield_now().await;
    };
    for n in 1..=20 {
        let first = message(&gateway, PUT, named, b"half");
        let client = gateway.client.clone();
        let sending = tokio::spawn(async move {
            let messages = tokio_stream::iter([first]).chain(tokio_stream::pending());
            client.send(PUT, messages).await
        });
        let began = told(&["drawbridge_rpc_calls_in_flight", " 1"]);
        tokio::time::timeout(TEST_TIMEOUT, began)
            .await
            .expect("the upload begins");
        sending.abort();
        let count = format!(" {n}");
        let wanted = ["FileService/Put", "CANCELLED", &count];
        tokio::time::timeout(TEST_TIMEOUT, told(&wanted))
            .await
            .expect("the upload is cancelled");
    }
    assert_eq!(calls(&recorder).len(), 1);
}

#[tokio::test]
async fn download_is_sent_in_chunks() {
    let file: Vec<u8> = (0..150_000u32).map(|n| n as u8).collect();
    let answer = Answer::text(200, "application/zip", file.clone());
    let disposition = "attachment; filename=\"../a b.zip\"";
    let (recorder, gateway) = acme(answer.with("content-disposition", disposition)).await;
    let (name, pieces) = take(&gateway, TAKE, "7".into()).await.unwrap();
    assert_eq!(name, "a b.zip");
    let mut lengths = pieces.iter().map(Bytes::len);
    assert!(lengths.all(|length| (1..=65_536).contains(&length)));
    assert_eq!(pieces.concat(), file);
    let seen = calls(&recorder);
    assert_eq!(
        (&*seen[0].target, seen[0].header("accept")),
        ("/api/files/7", "application/zip")
    );

    // A cancelled download does not affect others.
    let mut left = gateway
        .client
        .watch(TAKE, json!({"id": "7"}), &[])
        .await
        .unwrap();
    left.next().await.unwrap().unwrap();
    drop(left);
    assert_eq!(
        take(&gateway, TAKE, "7".into()).await.unwrap().1.concat(),
        file
    );

    // `max_response_bytes` limits what is kept in memory, not a file that is passed on.
    let long = vec![7; 1_000_001];
    let (_recorder, gateway) = acme(Answer::text(200, "application/zip", long.clone())).await;
    let (_, pieces) = take(&gateway, TAKE, "7".into()).await.unwrap();
    assert_eq!(pieces.concat(), long);
    let (_recorder, gateway) = acme(Answer::text(200, "application/zip", "")).await;
    assert_eq!(
        take(&gateway, TAKE, "7".into()).await.unwrap(),
        (String::new(), vec![])
    );
    let error = json!({"error": "no_such_file", "error_description": "look elsewhere"});
    let (_recorder, gateway) = acme(Answer::json(404, &error)).await;
    let status = take(&gateway, TAKE, "7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("look elsewhere"), "{status:?}");
}

/// What a download gets in place of the file, with HTTP 200, is an error; files that look
/// similar are passed on.
#[tokio::test]
async fn download_of_an_error_or_a_web_page_is_not_ok() {
    const HTML: &str = "<!doctype html><title>Sign in</title>";
    const ERROR: &str = r#"{"error":{"code":503,"message":"maintenance"}}"#;
    const BESIDE: &str = r#"{"id":7,"error":{"message":"exit 1"}}"#;
    let disposition = ("content-disposition", "attachment; filename=a.html");
    let none = ("x-none", "");
    for (media_type, header, body, want) in [
        ("text/html", none, HTML, Some(Code::Internal)),
        ("Text/HTML; charset=utf-8", none, "", Some(Code::Internal)),
        ("application/xhtml+xml", none, HTML, Some(Code::Internal)),
        ("text/html", disposition, HTML, None),
        ("application/zip", none, HTML, None),
        ("application/json", none, ERROR, Some(Code::Unavailable)),
        ("application/hal+json", none, ERROR, Some(Code::Unavailable)),
        ("application/json", disposition, ERROR, None),
        ("application/octet-stream", none, ERROR, None),
        // The rpc requests a zip file.
        ("application/json", none, BESIDE, Some(Code::Internal)),
        ("application/json", none, r#"{"id":7}"#, None),
        ("application/json", none, r#"[{"error":"e"}]"#, None),
        ("application/json", none, "", None),
        ("application/json", none, r#"{"error":"cut"#, None),
        (
            "application/problem+json",
            disposition,
            r#"{"title":"gone","status":410}"#,
            Some(Code::NotFound),
        ),
        (
            "application/problem+xml",
            none,
            "<x/>",
            Some(Code::Internal),
        ),
    ] {
        let answer = Answer::text(200, media_type, body).with(header.0, header.1);
        let (_recorder, gateway) = acme(answer).await;
        let result = take(&gateway, TAKE, "7".into()).await;
        let case = format!("{media_type} {header:?} {body}");
        match (result, want) {
            (Ok((_, pieces)), None) => assert_eq!(pieces.concat(), body.as_bytes(), "{case}"),
            (Err(status), Some(code)) => assert_eq!(status.code(), code, "{case}: {status:?}"),
            (result, _) => panic!("{case}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn part_of_a_file_is_not_the_file() {
    let disposition = ("content-disposition", "attachment; filename=a.zip");
    for header in [disposition, ("content-range", "bytes 0-3/9")] {
        let answer = Answer::text(206, "application/zip", "part").with(header.0, header.1);
        let (_recorder, gateway) = acme(answer).await;
        let status = take(&gateway, TAKE, "7".into()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains("HTTP 206"), "{status:?}");
    }
}

/// An upstream with one file, whose chunks the test sends.
struct Growing {
    file: mpsc::Sender<std::io::Result<Bytes>>,
    gateway: Gateway,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Growing {
    async fn start(headers: &[(&'static str, &'static str)], write_timeout: Duration) -> Self {
        let (file, chunks) = mpsc::channel(1);
        let headers = headers.iter().map(|(name, value)| {
            let value = http::HeaderValue::from_static(value);
            (http::HeaderName::from_static(name), value)
        });
        let headers: http::HeaderMap = headers.collect();
        let chunks = std::sync::Mutex::new(Some(chunks));
        let state = std::sync::Arc::new((headers, chunks));
        let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let state = state.clone();
            async move {
                let mut response = axum::response::Response::new(axum::body::Body::empty());
                // Not a health probe.
                if request.headers().contains_key("x-request-id") {
                    let chunks = state.1.lock().unwrap().take().expect("one download");
                    *response.body_mut() =
                        axum::body::Body::from_stream(ReceiverStream::new(chunks));
                    response.headers_mut().clone_from(&state.0);
                }
                response
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut config = settings(vec![upstream("acme", "acme", &format!("http://{address}"))]);
        config.server.response_write_timeout = write_timeout;
        config.descriptors = vec![compile(PROTO).unwrap()];
        let gateway = Gateway::start(config).await;
        Self {
            file,
            gateway,
            task,
        }
    }

    /// Opens the download and reads its first message, which has the name.
    async fn open(&self, metadata: &[(&str, &str)]) -> Result<Watch, Status> {
        let opened = self
            .gateway
            .client
            .watch(TAKE, json!({"id": "7"}), metadata);
        let mut stream = opened.await?;
        let first = stream.next().await.expect("a first message")?;
        assert!(data(&first).is_empty());
        Ok(stream)
    }

    async fn send(&self, chunk: impl Into<Bytes>) {
        self.file.send(Ok(chunk.into())).await.unwrap();
    }
}

fn data(message: &DynamicMessage) -> Bytes {
    let data = message.get_field_by_name("data").unwrap();
    data.as_bytes().unwrap().clone()
}

/// Reads exactly these bytes.
async fn read(stream: &mut Watch, mut wanted: &[u8]) {
    while !wanted.is_empty() {
        let message = stream.next().await.expect("a chunk").unwrap();
        let chunk = data(&message);
        assert!(wanted.starts_with(&chunk), "{chunk:?}");
        wanted = &wanted[chunk.len()..];
    }
}

#[tokio::test]
async fn endless_download_flows_until_the_client_leaves() {
    let upstream = Growing::start(&[], TEST_TIMEOUT).await;
    let mut stream = upstream.open(&[]).await.unwrap();
    // Each line arrives before the upstream sends the next one.
    for n in 0..100 {
        let line = format!("line {n}\n");
        upstream.send(line.clone()).await;
        read(&mut stream, line.as_bytes()).await;
    }
    drop(stream);
    let closed = tokio::time::timeout(TEST_TIMEOUT, upstream.file.closed());
    closed.await.expect("the upstream request is closed");
}

#[tokio::test]
async fn endless_json_flows_from_its_first_object() {
    let encoded = [("content-type", "application/json")];
    let mut upstream = Growing::start(&encoded, TEST_TIMEOUT).await;
    let opening = upstream.open(&[]);
    // The upstream sends the next line when the client has read this one.
    let (stream, ()) = tokio::join!(opening, upstream.send(" {\"line\": \"}\\\"{\"}\n"));
    let mut stream = stream.unwrap();
    read(&mut stream, b" {\"line\": \"}\\\"{\"}\n").await;
    upstream.send("{\"line\": 2}\n").await;
    read(&mut stream, b"{\"line\": 2}\n").await;
    upstream.file = mpsc::channel(1).0;
    assert_eq!(end(&mut stream).await, None);

    // One line in two chunks is an error.
    let upstream = Growing::start(&encoded, TEST_TIMEOUT).await;
    let sending = async {
        upstream.send("{\"error\":").await;
        upstream.send("\"no disk\"}").await;
    };
    let (opened, ()) = tokio::join!(upstream.open(&[]), sending);
    let status = opened.err().expect("an error");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("no disk"), "{status:?}");

    // A body that shows no error up to the limit is passed on.
    let mut upstream = Growing::start(&encoded, TEST_TIMEOUT).await;
    let long = format!("{{\"error\":\"{}", "x".repeat(70_000));
    let (stream, ()) = tokio::join!(upstream.open(&[]), upstream.send(long.clone()));
    let mut stream = stream.unwrap();
    read(&mut stream, long.as_bytes()).await;
    upstream.send("\"}").await;
    read(&mut stream, b"\"}").await;
    upstream.file = mpsc::channel(1).0;
    assert_eq!(end(&mut stream).await, None);
}

#[tokio::test]
async fn compressed_download_flows() {
    let encoded = [("content-encoding", "gzip")];
    let upstream = Growing::start(&encoded, TEST_TIMEOUT).await;
    let mut stream = upstream.open(&[]).await.unwrap();
    // Source: RFC 1952, section 2.3.
    upstream.send(&b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..]).await;
    for n in 0..3 {
        let line = format!("line {n}\n");
        // A stored block. Source: RFC 1951, section 3.2.4.
        let length = line.len() as u8;
        let block = [&[0, length, 0, !length, 0xff], line.as_bytes()].concat();
        upstream.send(block).await;
        read(&mut stream, line.as_bytes()).await;
    }
    // The end of the compressed data is missing.
    upstream
        .file
        .send(Err(std::io::Error::other("broken")))
        .await
        .unwrap();
    assert_eq!(end(&mut stream).await, Some(Code::Unavailable));
}

/// Reads to the end; none for OK.
async fn end(stream: &mut Watch) -> Option<Code> {
    loop {
        match stream.next().await {
            None => return None,
            Some(Ok(_)) => {}
            Some(Err(status)) => return Some(status.code()),
        }
    }
}

#[tokio::test]
async fn download_that_breaks_in_the_middle_is_not_ok() {
    for (headers, chunk, breaks, want) in [
        (&[][..], "half", true, Some(Code::Unavailable)),
        (&[], "all", false, None),
        (
            &[("content-length", "8")],
            "half",
            false,
            Some(Code::Unavailable),
        ),
        (&[("content-length", "4")], "half", false, None),
    ] {
        let mut upstream = Growing::start(headers, TEST_TIMEOUT).await;
        let mut stream = upstream.open(&[]).await.unwrap();
        upstream.send(chunk).await;
        read(&mut stream, chunk.as_bytes()).await;
        if breaks {
            let broken = std::io::Error::other("broken");
            upstream.file.send(Err(broken)).await.unwrap();
        }
        // The end of the file.
        upstream.file = mpsc::channel(1).0;
        assert_eq!(end(&mut stream).await, want, "{headers:?} {chunk}");
    }
}

#[tokio::test]
async fn download_ends_at_the_deadline_of_its_client() {
    let upstream = Growing::start(&[], TEST_TIMEOUT).await;
    // The upstream sends no chunk. A slow machine may not even begin in time.
    let code = match upstream.open(&[("grpc-timeout", "500m")]).await {
        Ok(mut stream) => end(&mut stream).await,
        Err(status) => Some(status.code()),
    };
    assert_eq!(code, Some(Code::DeadlineExceeded));
}

#[tokio::test]
async fn slow_client_holds_back_the_upstream() {
    const CHUNK_BYTES: usize = 64 << 10;
    let upstream = Growing::start(&[], Duration::from_secs(1)).await;
    let stream = upstream.open(&[]).await.unwrap();
    // The client reads nothing more, until the gateway drops the download.
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let mut sent = 0;
    let sending = async {
        while upstream.file.send(Ok(chunk.clone())).await.is_ok() {
            sent += CHUNK_BYTES;
            assert!(sent < 256 << 20, "nothing holds the upstream back");
        }
    };
    let sending = tokio::time::timeout(TEST_TIMEOUT, sending);
    sending.await.expect("the download is dropped");
    drop(stream);
}

/// An exported and deleted service template is restored by its import. The sandbox reads and
/// writes real zip files.
#[tokio::test]
async fn exported_service_template_can_be_imported() {
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), sandbox::Settings::default())
        .await
        .unwrap();
    let gateway = Gateway::with(vec![quickstart::upstreams(&sandbox).remove(2)]).await;
    let import = async |name: &str, file: &[u8]| {
        let mut messages = vec![message(&gateway, IMPORT, &[("file_name", name)], b"")];
        messages.extend(
            file.chunks(100)
                .map(|part| message(&gateway, IMPORT, &[], part)),
        );
        let answer = gateway
            .client
            .send(IMPORT, tokio_stream::iter(messages))
            .await?;
        Ok::<_, Status>(to_json(&answer)["action_result"].clone())
    };
    let (name, pieces) = take(&gateway, EXPORT, 3004.into()).await.unwrap();
    assert_eq!(name, "com.hitachi.software.dna_addDisk_01.14.00.st");
    let file = pieces.concat();
    assert!(file.starts_with(b"PK"), "a zip file");

    let delete = "ServiceTemplateService/DeleteServiceTemplate";
    gateway
        .client
        .call(delete, json!({"id": 3004}))
        .await
        .unwrap();
    let gone = gateway
        .client
        .call(GET, json!({"id": 3004}))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);

    let result = import(&name, &file).await.unwrap();
    assert_eq!(result["state"], "ACTION_STATE_SUCCESS", "{result}");
    let affected = result["affected_resource"][0].as_str().unwrap();
    let (_, id) = affected.rsplit_once("/ServiceTemplates/").unwrap();
    let id: u64 = id.parse().unwrap();
    let back = gateway.client.call(GET, json!({"id": id})).await.unwrap();
    assert_eq!(to_json(&back)["service_template"]["key_name"], "addDisk");
    let (_, again) = take(&gateway, EXPORT, id.into()).await.unwrap();
    assert_eq!(again.concat(), file, "the very file comes back");

    for (name, content) in [("a.st", &b"no zip"[..]), ("a.txt", &file)] {
        let status = import(name, content).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
    }
    let status = take(&gateway, EXPORT, 99_999.into()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}
