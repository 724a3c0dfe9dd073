//! An HTTP server that answers what it is told to, and tells what it saw, byte
//! for byte. For tests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes; the connection stays open.
    Keep(Vec<u8>),
    /// These bytes, and the connection is closed.
    Close(Vec<u8>),
    /// Nothing. [`Seen::Left`] follows when the client closes.
    Hang,
}

/// What was seen.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A whole request: head (request line and headers, CRLF) and body.
    Request { head: String, body: Vec<u8> },
    /// The client closed a connection whose request was left hanging.
    Left,
}

/// A running server; ends when dropped.
pub(crate) struct Script {
    pub address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

impl Script {
    /// Listens on loopback. When the answers run out, it answers 500.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let (told, seen) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answers.clone(), told.clone()));
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// `http://127.0.0.1:port` and this path.
    pub(crate) fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// The next request: head and body.
    pub(crate) async fn request(&mut self) -> (String, Vec<u8>) {
        match self.next().await {
            Seen::Request { head, body } => (head, body),
            Seen::Left => panic!("the client left; a request was expected"),
        }
    }

    /// The client closes a request left hanging.
    pub(crate) async fn left(&mut self) {
        assert!(matches!(self.next().await, Seen::Left));
    }

    async fn next(&mut self) -> Seen {
        let seen = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        seen.expect("nothing came").expect("the server runs")
    }

    /// How many requests were seen and not yet taken.
    pub(crate) fn untaken(&self) -> usize {
        self.seen.len()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens: bound to the end of the process, so that no one
/// else gets its port.
pub(crate) fn nowhere() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// A reply with a length.
pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!(
        "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n",
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
    answers: Arc<Mutex<VecDeque<Answer>>>,
    told: mpsc::UnboundedSender<Seen>,
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
        let _ = told.send(Seen::Request { head, body });
        let answer = answers.lock().unwrap().pop_front();
        match answer.unwrap_or_else(|| Answer::Keep(reply(500, &[], "the script is over"))) {
            Answer::Keep(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Answer::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Answer::Hang => {
                let _ = stream.read_buf(&mut buffer).await;
                let _ = told.send(Seen::Left);
                return;
            }
        }
    }
}
