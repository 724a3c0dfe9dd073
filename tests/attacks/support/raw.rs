//! A gRPC client on the `h2` crate: its flow control and its streams are in the test's hands.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A connection; closed when dropped.
pub struct Connection {
    pub h2: SendRequest<Bytes>,
    task: JoinHandle<()>,
}

/// The end of a call.
#[derive(Debug)]
pub struct Unary {
    pub headers: HeaderMap,
    /// The messages of the response, each with its prefix of 5 bytes.
    pub body: Vec<u8>,
    pub code: u32,
    /// `grpc-message`, percent-encoded.
    pub message: String,
}

/// Why a call had no response.
#[derive(Debug)]
pub enum CallError {
    /// The gateway has not processed the request: another connection may be used.
    Unprocessed(h2::Error),
    Failed(h2::Error),
    NoStatus(u16),
}

impl CallError {
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Unprocessed(_))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unprocessed(error) => write!(f, "unprocessed: {error}"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::NoStatus(status) => write!(f, "HTTP {status} without a gRPC status"),
        }
    }
}

/// Connects with default settings.
pub async fn connect(gateway: SocketAddr) -> Result<Connection, String> {
    let mut builder = Builder::new();
    builder.initial_window_size(1 << 20);
    builder.initial_connection_window_size(1 << 20);
    connect_with(gateway, &builder).await
}

/// Connects with settings, such as windows of 0 bytes.
pub async fn connect_with(gateway: SocketAddr, builder: &Builder) -> Result<Connection, String> {
    let stream = TcpStream::connect(gateway)
        .await
        .map_err(|e| e.to_string())?;
    handshake(stream, builder).await
}

/// Does the HTTP/2 handshake on a connection.
pub async fn handshake<T>(stream: T, builder: &Builder) -> Result<Connection, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (h2, connection) = builder
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|e| e.to_string())?;
    let task = tokio::spawn(async move {
        // Its error is also that of its streams.
        let _ = connection.await;
    });
    Ok(Connection { h2, task })
}

/// Opens a TCP connection from another address of the loopback network, such as 127.0.0.2.
pub async fn connect_from(source: IpAddr, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(gateway).await
}

/// Returns the headers of a call: `package.Service/Method`.
pub fn request(method: &str) -> Request<()> {
    Request::post(format!("http://gateway/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// As [`request`], with the credential `attacker`, which is passed through.
pub fn attack(method: &str) -> Request<()> {
    let mut request = request(method);
    let token = http::HeaderValue::from_static("attacker");
    request.headers_mut().insert("x-auth-token", token);
    request
}

/// Returns a gRPC frame with this message.
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Returns a message with one string or bytes field.
pub fn string_field(number: u32, value: &str) -> Bytes {
    let mut message = Vec::new();
    prost::encoding::bytes::encode(number, &value.as_bytes().to_vec(), &mut message);
    message.into()
}

impl Connection {
    /// Returns whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.task.is_finished()
    }

    /// Sends the headers of a request, and leaves its body open.
    pub async fn open(
        &self,
        request: Request<()>,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), CallError> {
        let mut h2 = self
            .h2
            .clone()
            .ready()
            .await
            .map_err(CallError::Unprocessed)?;
        h2.send_request(request, false)
            .map_err(CallError::Unprocessed)
    }

    /// Sends a complete request with one message. The response is not awaited.
    pub async fn send(
        &self,
        request: Request<()>,
        message: impl AsRef<[u8]>,
    ) -> Result<h2::client::ResponseFuture, CallError> {
        let (response, mut body) = self.open(request).await?;
        body.send_data(frame(message.as_ref()), true)
            .map_err(CallError::Failed)?;
        Ok(response)
    }

    /// Makes a call and reads its response to the end.
    pub async fn unary(
        &self,
        request: Request<()>,
        message: impl AsRef<[u8]>,
    ) -> Result<Unary, CallError> {
        finish(self.send(request, message).await?).await
    }
}

/// Waits for a response and reads it to its end.
pub async fn finish(response: h2::client::ResponseFuture) -> Result<Unary, CallError> {
    let response = response.await.map_err(failed)?;
    let (parts, body) = response.into_parts();
    let (bytes, trailers) = read(body).await?;
    let status = |headers: &HeaderMap| {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = headers.get("grpc-message");
        let message = message
            .and_then(|text| text.to_str().ok())
            .unwrap_or_default();
        Some((code, message.to_owned()))
    };
    let (code, message) = trailers
        .as_ref()
        .and_then(status)
        .or_else(|| status(&parts.headers))
        .ok_or(CallError::NoStatus(parts.status.as_u16()))?;
    Ok(Unary {
        headers: parts.headers,
        body: bytes,
        code,
        message,
    })
}

/// Reads a body to its end.
pub async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), CallError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(failed)?;
        // Capacity of a stream that has ended is returned to the connection.
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, body.trailers().await.map_err(failed)?))
}

/// Reads one response's head. For tests that leave the body unread.
pub async fn head(response: h2::client::ResponseFuture) -> Result<Response<RecvStream>, CallError> {
    response.await.map_err(failed)
}

fn failed(error: h2::Error) -> CallError {
    let unprocessed = error.is_remote()
        && ((error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
            || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)));
    match unprocessed {
        true => CallError::Unprocessed(error),
        false => CallError::Failed(error),
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
