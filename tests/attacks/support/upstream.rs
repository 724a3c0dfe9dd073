//! An upstream that a test scripts: HTTP/1.1 on a thread of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The path prefix of the honest client's calls, which every upstream answers.
pub const HONEST: &str = "honest";

/// A request that the upstream has received.
#[derive(Debug)]
pub struct Received {
    pub method: String,
    pub target: String,
    /// By name in lower case.
    pub headers: HashMap<String, String>,
    pub body_bytes: usize,
}

/// What the upstream does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A complete JSON response.
    Json(u16, Vec<u8>),
    /// These bytes, head included; then the connection is closed.
    Raw(Vec<u8>),
    /// The first bytes, then the second ones until the gateway closes the connection.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing; the connection stays open.
    Hang,
    /// Closes the connection.
    Close,
}

impl Reply {
    /// A response with status 200.
    pub fn ok(json: impl Into<Vec<u8>>) -> Self {
        Self::Json(200, json.into())
    }
}

/// Time without a request after which a connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// A scripted upstream; stops when dropped.
pub struct Upstream {
    pub address: SocketAddr,
    requests: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

impl Upstream {
    /// Starts one whose script serves all requests but those of the honest client.
    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<AtomicU64>::default();
        let (script, count) = (Arc::new(script), requests.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, script, count) => {}
                }
            });
        });
        Self {
            address,
            requests,
            _stop: stop,
        }
    }

    /// Starts one that answers every request with an empty object.
    pub fn plain() -> Self {
        Self::start(|_| Reply::ok("{}"))
    }

    /// Returns how many requests were received, without those of the honest client.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns the configuration of a Heat upstream, with these keys in addition. Clients'
    /// credentials are passed through.
    pub fn heat(&self, more: &str) -> String {
        format!(
            "[[upstream]]\nname = \"heat\"\nfamily = \"heat\"\nendpoint = \"http://{}\"\n\
             project_id = \"p1\"\nproxy_from_env = false\n{more}\n",
            self.address
        )
    }

    /// As [`Upstream::heat`], of JP1/AO.
    pub fn jp1ao(&self, more: &str) -> String {
        format!(
            "[[upstream]]\nname = \"jp1ao\"\nfamily = \"jp1ao\"\nendpoint = \"http://{}\"\n\
             proxy_from_env = false\n{more}\n",
            self.address
        )
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>, requests: Arc<AtomicU64>) {
    loop {
        // A pause where this process itself has no descriptors left.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (script, requests) = (script.clone(), requests.clone());
        tokio::spawn(async move {
            // The gateway may close the connection at any time.
            let _ = serve(stream, script, requests).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    script: Arc<Script>,
    requests: Arc<AtomicU64>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    // Idle connections are closed, as by other servers: the gateway's pool gets empty.
    while let Ok(received) = tokio::time::timeout(IDLE_TIMEOUT, receive(&mut stream)).await {
        let Some(request) = received? else {
            return Ok(());
        };
        let is_honest = request.target.contains(HONEST);
        let is_probe = !request.headers.contains_key("x-request-id")
            && !request.headers.contains_key("x-openstack-request-id");
        let reply = match (is_honest, is_probe) {
            (true, _) => {
                Reply::ok(r#"{"software_deployment":{"id":"honest","status":"COMPLETE"}}"#)
            }
            (false, true) => Reply::ok("{}"),
            (false, false) => {
                requests.fetch_add(1, Ordering::Relaxed);
                script(&request)
            }
        };
        match reply {
            Reply::Json(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
            }
            Reply::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Endless(first, again) => {
                stream.write_all(&first).await?;
                loop {
                    stream.write_all(&again).await?;
                }
            }
            Reply::Hang => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
            }
            Reply::Close => return Ok(()),
        }
    }
    Ok(())
}

/// Reads the next request; `None` at the end of the connection.
async fn receive(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Received>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next(), first.next());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut request = Received {
        method: method.unwrap_or_default().to_owned(),
        target: target.unwrap_or_default().to_owned(),
        body_bytes: 0,
        headers,
    };
    if let Some(length) = request.headers.get("content-length") {
        let mut left: usize = length.parse().unwrap_or_default();
        request.body_bytes = left;
        let mut chunk = vec![0; 64 << 10];
        while left > 0 {
            let wanted = left.min(chunk.len());
            let length = stream.read(&mut chunk[..wanted]).await?;
            if length == 0 {
                return Ok(None);
            }
            left -= length;
        }
    }
    Ok(Some(request))
}
