//! A scripted HTTP server for tests: sends the given responses and records each request
//! byte for byte.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a test waits for an expected event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The response to one request.
#[derive(Clone)]
pub(crate) enum TestResponse {
    /// These bytes; the connection stays open.
    Keep(Vec<u8>),
    /// These bytes, and the connection is closed.
    Close(Vec<u8>),
    /// None. [`TestEvent::Disconnected`] follows when the client closes the connection.
    Hang,
}

/// An observed event.
#[derive(Debug)]
pub(crate) enum TestEvent {
    /// A complete request: head (request line and headers, CRLF) and body.
    Request { head: String, body: Vec<u8> },
    /// The client closed a connection whose request had no response.
    Disconnected,
}

/// A running server; stops when dropped.
pub(crate) struct TestServer {
    pub address: SocketAddr,
    events: mpsc::UnboundedReceiver<TestEvent>,
    task: JoinHandle<()>,
}

impl TestServer {
    /// Listens on loopback. Responds 500 after the last of the responses.
    pub(crate) async fn start(responses: impl IntoIterator<Item = TestResponse>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let responses = Arc::new(Mutex::new(responses.into_iter().collect::<VecDeque<_>>()));
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, responses.clone(), sender.clone()));
            }
        });
        Self {
            address,
            events,
            task,
        }
    }

    /// Returns `http://127.0.0.1:port` with this path.
    pub(crate) fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Waits for the next request and returns its head and body.
    pub(crate) async fn request(&mut self) -> (String, Vec<u8>) {
        match self.next().await {
            TestEvent::Request { head, body } => (head, body),
            TestEvent::Disconnected => panic!("the client disconnected; a request was expected"),
        }
    }

    /// Waits until the client closes a request that has no response.
    pub(crate) async fn expect_disconnect(&mut self) {
        assert!(matches!(self.next().await, TestEvent::Disconnected));
    }

    async fn next(&mut self) -> TestEvent {
        let event = tokio::time::timeout(EVENT_TIMEOUT, self.events.recv()).await;
        event.expect("no event").expect("the server runs")
    }

    /// Returns how many events were observed and not yet read.
    pub(crate) fn unread_requests(&self) -> usize {
        self.events.len()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns an address that accepts no connections. The port stays bound until the process
/// ends, so that no other socket gets it.
pub(crate) fn unused_address() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Returns a response with `content-length`.
pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!(
        "HTTP/1.1 {status} Reason\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

async fn serve(
    mut stream: TcpStream,
    responses: Arc<Mutex<VecDeque<TestResponse>>>,
    events: mpsc::UnboundedSender<TestEvent>,
) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = buffer.split_off(at + 4);
                break String::from_utf8(std::mem::replace(&mut buffer, rest)).unwrap();
            }
            if !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                return;
            }
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        while buffer.len() < length {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                return;
            }
        }
        let rest = buffer.split_off(length);
        let body = std::mem::replace(&mut buffer, rest);
        let _ = events.send(TestEvent::Request { head, body });
        let response = responses.lock().unwrap().pop_front();
        match response.unwrap_or_else(|| TestResponse::Keep(reply(500, &[], "no more responses"))) {
            TestResponse::Keep(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            TestResponse::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            TestResponse::Hang => {
                let _ = stream.read_buf(&mut buffer).await;
                let _ = events.send(TestEvent::Disconnected);
                return;
            }
        }
    }
}
