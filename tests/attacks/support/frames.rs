//! HTTP/2 frames by hand, for clients that break the rules. Source: RFC 9113, "HTTP Frames".

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// Returns one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Encodes headers as literals that are not indexed. Source: RFC 7541, "Literal Header Field
/// without Indexing".
pub fn header_block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            let length = text.len();
            match length {
                0..127 => block.push(length as u8),
                _ => {
                    block.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Returns the header block of a call: `package.Service/Method`.
pub fn call(method: &str) -> Vec<u8> {
    header_block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &format!("/{method}")),
        (":authority", "gateway"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// Opens a connection and sends the preface with empty settings.
pub async fn connect(gateway: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// Sends `bytes` again and again until the gateway closes the connection or `limit` bytes are
/// sent, while all that arrives is discarded. Returns whether the gateway has closed it.
pub async fn flood(stream: TcpStream, bytes: impl FnMut() -> Vec<u8>, limit: u64) -> bool {
    let (mut reader, mut writer) = stream.into_split();
    let mut bytes = bytes;
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    let mut sent = 0;
    while sent < limit {
        let bytes = bytes();
        sent += bytes.len() as u64;
        if writer.write_all(&bytes).await.is_err() {
            return true;
        }
    }
    let closed = reading.is_finished();
    reading.abort();
    closed
}

/// Waits until the gateway closes the connection. Returns what it sent before.
pub async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is as good as an end.
    let _ = tokio::time::timeout(super::CONDITION_TIMEOUT, stream.read_to_end(&mut bytes))
        .await
        .expect("the gateway closes the connection");
    bytes
}
