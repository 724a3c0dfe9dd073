use std::io::Write as _;

use http::StatusCode;

use super::test_server::{TestResponse, TestServer, reply, unused_address};
use super::*;
use crate::memory::MemoryBudget;

const LIMIT: usize = 1 << 20;

fn settings() -> Settings {
    Settings {
        max_response_bytes: LIMIT,
        proxy_from_env: false,
        ..Settings::default()
    }
}

fn transport() -> Transport {
    Transport::new(&settings()).unwrap()
}

/// Returns a transport with each of the two clients.
fn both(settings: &Settings) -> [Transport; 2] {
    let transport = Transport::new(settings).unwrap();
    let reqwest_client = through_reqwest(&transport);
    [transport, reqwest_client]
}

/// Returns a transport that sends everything through reqwest, which reads its own proxies.
fn through_reqwest(transport: &Transport) -> Transport {
    Transport {
        proxies: Arc::new(proxies(&[("ALL_PROXY", "http://proxy.invalid")])),
        ..transport.clone()
    }
}

fn proxies(variables: &[(&str, &str)]) -> Proxies {
    let variables = variables.iter();
    Proxies::new(variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn request(verb: Method, url: Url, body: Option<&'static str>) -> HttpRequest {
    HttpRequest {
        verb,
        url,
        headers: HeaderMap::new(),
        body: body.map(|text| Bytes::from_static(text.as_bytes())),
        memory: Default::default(),
    }
}

fn get(url: Url) -> HttpRequest {
    request(Method::GET, url, None)
}

#[tokio::test]
async fn requests_are_sent_unchanged_with_few_headers() {
    let mut server =
        TestServer::start((0..14).map(|_| TestResponse::Keep(reply(200, &[], "{}")))).await;
    for (verb, body, length) in [
        (Method::GET, None, None),
        (Method::DELETE, None, None),
        (Method::DELETE, Some(r#"{"a":1}"#), Some("7")),
        (Method::POST, Some(r#"{"a":1}"#), Some("7")),
        (Method::POST, None, Some("0")),
        (Method::PUT, Some(""), Some("0")),
        (Method::PATCH, None, Some("0")),
    ] {
        for transport in both(&settings()) {
            // Encoded by the gateway, and sent unchanged.
            let path = "/v1/a%2Fb/~x*(1):@,;=+$&!/%E2%82%AC%20..?q=a%2Bb%20c&r=%27~*%2E%2E";
            let sent = request(verb.clone(), server.url(path), body);
            transport.exchange(sent).await.unwrap();
            let (head, seen) = server.request().await;
            assert_eq!(
                head.lines().next(),
                Some(&*format!("{verb} {path} HTTP/1.1"))
            );
            let header = |name: &str| {
                head.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            assert_eq!(header("content-length"), length, "{verb} {body:?}");
            assert_eq!(header("transfer-encoding"), None);
            assert_eq!(header("content-type"), None);
            assert_eq!(header("accept-encoding"), Some("gzip"));
            assert_eq!(header("accept"), Some("*/*"));
            assert_eq!(header("user-agent"), Some(USER_AGENT));
            assert_eq!(header("referer"), None);
            assert_eq!(header("host"), Some(&*server.address.to_string()));
            assert_eq!(
                head.lines().filter(|line| !line.is_empty()).count(),
                5 + usize::from(length.is_some())
            );
            assert_eq!(seen, body.unwrap_or_default().as_bytes());
        }
    }
}

#[tokio::test]
async fn replies_of_all_framings_are_read() {
    let responses = [
        TestResponse::Keep(reply(200, &[("x-id", "7")], "{}")),
        TestResponse::Keep(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        TestResponse::Keep(reply(302, &[("location", "http://192.0.2.1/")], "")),
        TestResponse::Close(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()),
        TestResponse::Keep(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
                .to_vec(),
        ),
    ];
    for transport in both(&settings()) {
        let server = TestServer::start(responses.clone()).await;
        for (status, body) in [
            (200, "{}"),
            (204, ""),
            (302, ""),
            (200, "until the end"),
            (200, "abc"),
        ] {
            let reply = transport.exchange(get(server.url("/"))).await.unwrap();
            assert_eq!(
                (reply.status, &*reply.body),
                (StatusCode::from_u16(status).unwrap(), body.as_bytes())
            );
        }
    }
}

fn gzip_of_zeros(length: usize) -> Vec<u8> {
    // A small stream with a large content, made without a library: one literal 0, then
    // matches of 258 bytes at distance 1, in the fixed Huffman code.
    // Source: RFC 1951, section 3.2.6; RFC 1952 for the frame.
    struct Bits(Vec<u8>, u32);
    impl Bits {
        fn put(&mut self, value: u32, count: u32) {
            for i in 0..count {
                if self.1.is_multiple_of(8) {
                    self.0.push(0);
                }
                *self.0.last_mut().unwrap() |= ((value >> i & 1) as u8) << (self.1 % 8);
                self.1 += 1;
            }
        }
        fn code(&mut self, value: u32, count: u32) {
            self.put(value.reverse_bits() >> (32 - count), count);
        }
    }
    assert_eq!(length % 258, 1);
    let mut bits = Bits(Vec::new(), 0);
    bits.put(1, 1);
    bits.put(1, 2);
    bits.code(0x30, 8);
    for _ in 0..length / 258 {
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
    }
    bits.code(0, 7);
    let crc = {
        let mut crc = !0u32;
        for _ in 0..length {
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0xEDB8_8320
                } else {
                    crc >> 1
                };
            }
        }
        !crc
    };
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.append(&mut bits.0);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out
}

#[tokio::test]
async fn longer_bodies_than_the_limit_are_rejected() {
    let gzip = [("content-encoding", "gzip")];
    let small = 258 * 100 + 1;
    let large = 258 * 8_000 + 1;
    let chunk = |n: usize| format!("{n:x}\r\n{}\r\n", "x".repeat(n)).into_bytes();
    let chunked = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        chunk(LIMIT),
        chunk(1),
        b"0\r\n\r\n".to_vec(),
    ]
    .concat();
    for (bytes, want) in [
        (reply(200, &[], vec![b'x'; LIMIT]), Some(LIMIT)),
        (reply(200, &[], vec![b'x'; LIMIT + 1]), None),
        (reply(200, &[], vec![b'x'; 20 << 20]), None),
        (chunked, None),
        (reply(200, &gzip, gzip_of_zeros(small)), Some(small)),
        (reply(200, &gzip, gzip_of_zeros(large)), None),
    ] {
        for transport in both(&settings()) {
            let server = TestServer::start([TestResponse::Close(bytes.clone())]).await;
            let got = transport.exchange(get(server.url("/"))).await;
            match want {
                Some(length) => assert_eq!(got.unwrap().body.len(), length),
                None => assert!(
                    matches!(got, Err(Error::ResponseTooLarge { limit: LIMIT })),
                    "{got:?}"
                ),
            }
        }
    }
}

#[tokio::test]
async fn incomplete_response_is_no_response() {
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\":",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nab",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    ] {
        for transport in both(&settings()) {
            let server = TestServer::start([TestResponse::Close(bytes.to_vec())]).await;
            let mut url = server.url("/there?key=s3cret");
            url.set_username("user").unwrap();
            url.set_password(Some("s3cret")).unwrap();
            match transport.exchange(get(url)).await {
                Err(Error::NoResponse(text)) => {
                    assert!(!text.is_empty() && text.len() <= MAX_CAUSE_BYTES);
                    assert!(
                        !text.contains("s3cret") && !text.contains("there"),
                        "{text}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// TLS servers respond to plaintext with an alert, or close the connection.
#[tokio::test]
async fn plaintext_to_a_tls_port_says_so() {
    let alert = [0x15, 3, 3, 0, 2, 2, 10];
    for verb in [Method::GET, Method::POST] {
        for response in [
            TestResponse::Keep(alert.to_vec()),
            TestResponse::Close(alert.to_vec()),
        ] {
            let server = TestServer::start([response]).await;
            let mut request = get(server.url("/there"));
            request.verb = verb.clone();
            match Transport::new(&settings()).unwrap().exchange(request).await {
                Err(Error::Connect(text)) => {
                    assert_eq!(text, "the server speaks TLS at this port: write https://");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let server = TestServer::start([
        TestResponse::Close(Vec::new()),
        TestResponse::Keep(reply(200, &[], "")),
        TestResponse::Close(Vec::new()),
    ]);
    let server = server.await;
    let transport = Transport::new(&settings()).unwrap();
    let exchange = async || transport.exchange(get(server.url("/"))).await;
    let hint = "if the port expects TLS, write https://";
    let text = exchange().await.unwrap_err().to_string();
    assert!(
        text.starts_with("no response: ") && text.contains(hint),
        "{text}"
    );
    // A connection that has brought a response speaks HTTP.
    exchange().await.unwrap();
    let text = exchange().await.unwrap_err().to_string();
    assert!(
        text.starts_with("no response: ") && !text.contains(hint),
        "{text}"
    );
}

#[tokio::test]
async fn body_with_an_invalid_coding_is_a_response() {
    for transport in both(&settings()) {
        let response = |status| {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-encoding: gzip\r\n");
            format!("{head}content-length: 4\r\n\r\nabcd").into_bytes()
        };
        let responses = [200, 404].map(|status| TestResponse::Close(response(status)));
        let server = TestServer::start(responses).await;
        match transport.exchange(get(server.url("/"))).await {
            Err(Error::NotTheResource { problem, .. }) => {
                assert_eq!(problem, "Content-Encoding: the gzip coding is invalid")
            }
            other => panic!("{other:?}"),
        }
        // The status of an error is enough.
        let reply = transport.exchange(get(server.url("/"))).await.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body), (404, &b""[..]));
    }
}

#[tokio::test]
async fn failed_connection_is_a_connect_error() {
    let unused = unused_address();
    let plaintext = TestServer::start([]).await;
    let settings = Settings {
        // Some resolvers are slow to report that a name does not exist.
        connect_timeout: Duration::from_millis(500),
        ..settings()
    };
    for url in [
        format!("http://user:s3cret@{unused}/there?key=s3cret"),
        "http://nowhere.invalid/there".into(),
        // A plaintext server.
        format!("https://{}/there", plaintext.address),
    ] {
        for transport in both(&settings) {
            match transport.exchange(get(url.parse().unwrap())).await {
                Err(Error::Connect(text)) => {
                    assert!(!text.is_empty(), "{url}");
                    assert!(
                        !text.contains("s3cret") && !text.contains("there"),
                        "{text}"
                    );
                }
                other => panic!("{url}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn read_timeout_applies_to_head_and_body() {
    let settings = Settings {
        read_timeout: Duration::from_millis(20),
        ..settings()
    };
    let partial = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec();
    for response in [TestResponse::Hang, TestResponse::Keep(partial)] {
        for transport in both(&settings) {
            let result = loop {
                let server = TestServer::start([response.clone()]).await;
                let result = transport.exchange(get(server.url("/"))).await;
                // On a busy machine, opening the connection can take as long.
                let is_late =
                    matches!(&result, Err(Error::Connect(text)) if text.contains("read_timeout"));
                if !is_late {
                    break result;
                }
            };
            match result {
                Err(Error::NoResponse(text)) => {
                    assert!(text.contains("(setting read_timeout)"), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn cancelled_exchange_closes_the_request() {
    for transport in both(&settings()) {
        let mut server = TestServer::start([TestResponse::Hang]).await;
        let sent = get(server.url("/"));
        let call = tokio::spawn(async move { transport.exchange(sent).await });
        server.request().await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        server.expect_disconnect().await;
    }
}

#[test]
fn ca_file_without_certificates_is_rejected() {
    let settings = |path: &std::path::Path| Settings {
        ca_file: Some(path.to_owned()),
        ..Settings::default()
    };
    let missing = Transport::new(&settings("/nowhere/ca.pem".as_ref())).unwrap_err();
    assert!(
        missing.starts_with("ca_file /nowhere/ca.pem: "),
        "{missing}"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"not a certificate").unwrap();
    let empty = Transport::new(&settings(file.path())).unwrap_err();
    assert!(empty.ends_with("contains no PEM certificate"), "{empty}");
}

/// A response draws from the memory of its client while it is read, with `Content-Length` and
/// without, and returns it with its body.
#[tokio::test]
async fn response_draws_from_the_memory_of_its_client() {
    const MIB: u64 = 1 << 20;
    let long = "x".repeat(3 << 20);
    let chunk = format!("{:x}\r\n{long}\r\n", long.len());
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = || format!("{head}{chunk}0\r\n\r\n").into_bytes();
    let responses = [
        reply(200, &[], &long),
        chunked(),
        chunked(),
        reply(200, &[], "{}"),
    ];
    let server = TestServer::start(responses.map(TestResponse::Keep)).await;
    let transport = Transport::new(&Settings {
        max_response_bytes: 4 << 20,
        proxy_from_env: false,
        ..Settings::default()
    })
    .unwrap();
    let budget = MemoryBudget::new(16 << 20);
    let memory = budget.open(1);
    let get = || HttpRequest {
        memory: memory.clone(),
        ..get(server.url("/"))
    };
    for _ in 0..2 {
        let reply = transport.exchange(get()).await.unwrap();
        assert_eq!(reply.body.len(), long.len());
        let used = budget.stats().used;
        assert!((3 * MIB..4 * MIB).contains(&used), "{used}");
        // A part of the body keeps it.
        let part = reply.body.slice(..10);
        drop(reply);
        assert_eq!(budget.stats().used, used);
        drop(part);
        assert!(budget.stats().used < MIB);
    }
    let _other = memory.reserve(6 << 20).unwrap();
    let error = transport.exchange(get()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("max_memory_bytes"), "{error}");
    assert!(error.retry_after().is_some());
    // A short one still fits.
    assert_eq!(transport.exchange(get()).await.unwrap().body, "{}");
}

#[tokio::test]
async fn error_names_the_proxy_without_its_password() {
    let unused = unused_address();
    let proxies = proxies(&[("HTTP_PROXY", &format!("http://user:s3cret@{unused}"))]);
    let transport = Transport::with_proxies(&settings(), Arc::new(proxies)).unwrap();
    let url = "http://api.test/v1?key=s3cret".parse().unwrap();
    let error = transport.exchange(get(url)).await.unwrap_err().to_string();
    let want = format!("http://api.test through the proxy http://{unused}: ");
    assert!(error.contains(&want), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn excluded_proxy_gets_nothing() {
    let reply = || TestResponse::Keep(reply(200, &[], "{}"));
    let mut proxy = TestServer::start([reply(), reply()]).await;
    let mut upstream = TestServer::start((0..10).map(|_| reply())).await;
    let transports = |no_proxy: &str| {
        let url = proxy.url("/");
        let proxies = proxies(&[("HTTP_PROXY", url.as_str()), ("NO_PROXY", no_proxy)]);
        let transport = Transport::with_proxies(&settings(), Arc::new(proxies)).unwrap();
        let reqwest_client = through_reqwest(&transport);
        [transport, reqwest_client]
    };
    let port = upstream.address.port();
    // Connects to this machine, and is no address of loopback.
    let url = |path: &str| -> Url { format!("http://0.0.0.0:{port}{path}").parse().unwrap() };
    for no_proxy in ["*", "0.0.0.0", &format!("0.0.0.0:{port}"), "0.0.0.0/8"] {
        for transport in transports(no_proxy) {
            transport.exchange(get(url("/v1"))).await.unwrap();
            let (head, _) = upstream.request().await;
            assert!(head.starts_with("GET /v1 HTTP/1.1"), "{no_proxy}: {head}");
        }
    }
    for transport in transports("") {
        transport.exchange(get(upstream.url("/v1"))).await.unwrap();
        let (head, _) = upstream.request().await;
        assert!(head.starts_with("GET /v1 HTTP/1.1"), "loopback: {head}");
    }
    // The first request that the proxy sees is the first one that is not excluded.
    for transport in transports(&format!("0.0.0.0:{}", port ^ 1)) {
        transport.exchange(get(url("/v2"))).await.unwrap();
        let (head, _) = proxy.request().await;
        let whole = format!("GET {} HTTP/1.1", url("/v2"));
        assert!(head.starts_with(&whole), "{head}");
    }
}

/// A server that rejects a request by its headers responds and closes the connection while
/// the body is being sent.
#[tokio::test]
async fn response_before_the_end_of_the_body_is_read() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            let too_large = "HTTP/1.1 413 Too Large\r\ncontent-length: 9\r\n\r\ntoo large";
            stream.write_all(too_large.as_bytes()).await.unwrap();
            // Closed with unread data, which resets the connection.
        }
    });
    let transport = transport();
    let body = Bytes::from(vec![b'x'; 4 << 20]);
    for _ in 0..20 {
        let mut large = request(Method::POST, url.clone(), None);
        large.body = Some(body.clone());
        let reply = transport.exchange(large).await.unwrap();
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(reply.body, "too large");
    }
    server.abort();
}

/// Nothing is sent before there is a connection, TLS handshake included.
#[tokio::test]
async fn endless_tls_handshake_is_no_sent_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("https://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let request = || request(Method::POST, url.clone(), Some("{}"));
    let soon = Deadline::after(Duration::from_millis(50));
    let error = transport().exchange_until(request(), soon).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::Deadline { sent: false }),
        "{error:?}"
    );
    for (change, setting) in [
        (
            (|s| s.connect_timeout = Duration::from_millis(50)) as fn(&mut Settings),
            "connect_timeout",
        ),
        (
            |s| s.read_timeout = Duration::from_millis(50),
            "read_timeout",
        ),
    ] {
        let mut settings = settings();
        change(&mut settings);
        match Transport::new(&settings).unwrap().exchange(request()).await {
            Err(Error::Connect(text)) => assert!(text.contains(setting), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    // A request that was sent may have had an effect.
    let mut server = TestServer::start([TestResponse::Hang]).await;
    let transport = transport();
    let sent = get(server.url("/"));
    let later = Deadline::after(Duration::from_secs(1));
    let (error, _) = tokio::join!(transport.exchange_until(sent, later), server.request());
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Deadline { sent: true }), "{error:?}");
}

/// What an upstream sends without end fails within bounds, with an error that says what it is.
#[tokio::test]
async fn endless_responses_fail_within_bounds() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let chunked = format!("{OK}transfer-encoding: chunked\r\n\r\n");
    for (what, first, again, want) in [
        ("100", String::new(), CONTINUE, "more than 32 informational"),
        (
            "103",
            CONTINUE.repeat(3),
            HINTS,
            "more than 32 informational",
        ),
        (
            "headers",
            OK.to_owned(),
            "a: b\r\n",
            "message head is too large",
        ),
        (
            "a header",
            format!("{OK}a: "),
            "bbbbbbbb",
            "message head is too large",
        ),
        (
            "a status line",
            "HTTP/1.1 200 ".to_owned(),
            "OK OK OK",
            "message head is too large",
        ),
        (
            "a body",
            format!("{OK}\r\n"),
            "aaaaaaaa",
            "longer than 1048576 bytes",
        ),
        (
            "chunks",
            chunked.clone(),
            "1\r\na\r\n",
            "longer than 1048576 bytes",
        ),
        (
            "chunk extensions",
            chunked.clone(),
            "1;e=e\r\na\r\n",
            "chunk extensions over limit",
        ),
        (
            "a chunk extension",
            format!("{chunked}1;"),
            "eeeeeeee",
            "chunk extensions over limit",
        ),
        (
            "trailers",
            format!("{chunked}1\r\na\r\n0\r\n"),
            "a: b\r\n",
            "trailer",
        ),
    ] {
        let url = endless(first, again).await;
        let result = transport().exchange(get(url)).await;
        let error = result
            .map(|reply| reply.body.len())
            .unwrap_err()
            .to_string();
        assert!(error.contains(want), "{what}: {error}");
    }
    let few = CONTINUE.repeat(32) + &format!("{OK}content-length: 2\r\n\r\n{{}}");
    let server = TestServer::start([TestResponse::Keep(few.into_bytes())]).await;
    let reply = transport().exchange(get(server.url("/"))).await.unwrap();
    assert_eq!(reply.body, "{}");
}

/// Starts a server whose response begins with `first` and goes on with `again`, for as long as
/// it is read.
async fn endless(first: String, again: &'static str) -> Url {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        let again = again.repeat(1_000);
        let mut next = first.as_bytes();
        while stream.write_all(next).await.is_ok() {
            next = again.as_bytes();
        }
    });
    url.parse().unwrap()
}
