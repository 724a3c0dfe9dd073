//! Reads the messages of a request, or those of a response of tonic. Received bytes draw from the
//! memory of their client; a message stays compressed until the call may use it.

use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use http::HeaderMap;
use tonic::{Code, Status};

use super::client_json::JsonMessages;
use super::request_body_timeout::TimeoutBody;
use crate::deadline::Deadline;
use crate::engine::RequestMessages;
use crate::error::Error;
use crate::memory::{LONG_BYTES, Memory, Reservation, SHORT_BYTES, Turn};

/// The length of the prefix of a message: the compressed flag and the length. Source: gRPC
/// over HTTP/2, "Length-Prefixed-Message".
const PREFIX_BYTES: usize = 5;

/// The first capacity of the buffer of a message that arrives in parts. Its length costs its
/// sender nothing, so that it is not trusted.
const FIRST_CAPACITY: usize = 32 << 10;

/// Reads the messages of one request.
pub(super) struct MessageReader<B = TimeoutBody> {
    body: B,
    /// What of the last frame is not read yet.
    rest: Bytes,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// The message that is being read.
    message: Option<Partial>,
    max_bytes: usize,
    /// Whether messages may be compressed.
    is_compressed: bool,
    /// Whether the body is one message, without a prefix; not any more when it was read.
    is_bare: bool,
    /// Set if messages are JSON.
    json: Option<JsonMessages>,
    memory: Memory,
    /// What followed the data.
    trailers: Option<Box<HeaderMap>>,
    /// When messages of a stream must be decompressed.
    deadline: Deadline,
}

/// A message of which a part has arrived.
struct Partial {
    buffer: Buffer,
    length: usize,
    is_compressed: bool,
}

/// A message as it has arrived.
pub(super) struct RawMessage {
    bytes: Bytes,
    is_compressed: bool,
    json: Option<JsonMessages>,
    max_bytes: usize,
    /// For what is decompressed.
    memory: Memory,
    /// Whether more of the request may follow, which HTTP/2 holds while the message waits for
    /// its turn: as much as the message will take is then reserved before.
    is_followed: bool,
}

/// A buffer whose memory is reserved before it grows.
struct Buffer {
    bytes: Vec<u8>,
    reservation: Reservation,
}

impl Buffer {
    fn new(memory: &Memory) -> Self {
        Self {
            bytes: Vec::new(),
            reservation: memory.empty(),
        }
    }

    /// Sets the capacity, which is not less than the length.
    fn set_capacity(&mut self, capacity: usize) -> Result<(), Error> {
        if capacity <= SHORT_BYTES {
            self.bytes.reserve_exact(capacity - self.bytes.len());
            return Ok(());
        }
        self.reservation.replace(capacity)?;
        let mut larger = Vec::with_capacity(capacity);
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
        self.reservation.resize(capacity)?;
        Ok(())
    }

    fn finish(self) -> Bytes {
        self.reservation.attach(self.bytes)
    }
}

/// Returns the error of a request that is not written as its protocol says. That is the fault of
/// the client, unlike INTERNAL, which libraries of gRPC use.
fn invalid(problem: &str) -> Error {
    Error::RequestNotReceived {
        code: Code::InvalidArgument,
        problem: problem.to_owned(),
    }
}

impl<B: http_body::Body<Data = Bytes, Error = Status> + Unpin> MessageReader<B> {
    /// Reads messages of at most `max_bytes` each, compressed or not.
    pub(super) fn new(
        body: B,
        max_bytes: usize,
        is_compressed: bool,
        memory: Memory,
        deadline: Deadline,
    ) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            message: None,
            max_bytes,
            is_compressed,
            is_bare: false,
            json: None,
            memory,
            trailers: None,
            deadline,
        }
    }

    /// Reads a body that is one message without a prefix, if `is_bare`, and messages that are
    /// JSON, if `json` is set.
    pub(super) fn in_format(mut self, is_bare: bool, json: Option<JsonMessages>) -> Self {
        self.is_bare = is_bare;
        self.json = json;
        self
    }

    /// Returns the trailers, which have arrived with the end.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    /// Reads the message of an rpc that has exactly one, and the end of the request.
    pub(super) async fn only(&mut self) -> Result<RawMessage, Error> {
        // Source: gRPC, "Status codes and their use in gRPC", cardinality violation.
        let invalid = |problem: &str| Error::RequestNotReceived {
            code: Code::Unimplemented,
            problem: problem.to_owned(),
        };
        let is_bare = self.is_bare;
        let message = std::future::poll_fn(|cx| self.poll_message(cx)).await?;
        let message = message.ok_or_else(|| invalid("the request has no message"))?;
        if is_bare {
            return Ok(message);
        }
        loop {
            if !self.rest.is_empty() {
                return Err(invalid("the request has more than one message"));
            }
            if !std::future::poll_fn(|cx| self.poll_data(cx)).await? {
                return Ok(message);
            }
        }
    }

    /// Reads the next message; none at the end of the request.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<RawMessage>, Error>> {
        loop {
            if let Some(message) = self.read()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if !ready!(self.poll_data(cx))? {
                if std::mem::take(&mut self.is_bare) {
                    let mut message = self.message.take().unwrap_or_else(|| self.begin_bare());
                    // Source: Connect protocol, "Unary-Request".
                    message.is_compressed &= !message.buffer.bytes.is_empty();
                    return Poll::Ready(Ok(Some(self.finish(message))));
                }
                let is_complete = self.prefix_len == 0 && self.message.is_none();
                return Poll::Ready(match is_complete {
                    true => Ok(None),
                    false => Err(invalid("the request ends within a message")),
                });
            }
        }
    }

    /// Reads the next data into `rest`, which is empty. Returns false at the end of the request.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(false)),
                Some(frame) => frame,
            };
            let frame =
                frame.map_err(|status| Error::request_not_received(&status, self.max_bytes))?;
            match frame.into_data() {
                Ok(data) if !data.is_empty() => {
                    self.rest = data;
                    return Poll::Ready(Ok(true));
                }
                Ok(_) => {}
                Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
            }
        }
    }

    /// Reads `rest`. Returns the message if it is complete; otherwise `rest` is empty.
    fn read(&mut self) -> Result<Option<RawMessage>, Error> {
        if self.message.is_none() && self.is_bare {
            self.message = Some(self.begin_bare());
        }
        if self.message.is_none() {
            let missing = &mut self.prefix[self.prefix_len..];
            let count = missing.len().min(self.rest.len());
            self.rest.copy_to_slice(&mut missing[..count]);
            self.prefix_len += count;
            if self.prefix_len < PREFIX_BYTES {
                return Ok(None);
            }
            self.message = Some(self.begin()?);
            self.prefix_len = 0;
        }
        let Some(mut message) = self.message.take() else {
            return Ok(None);
        };
        let bytes = &message.buffer.bytes;
        let end = message.length.min(bytes.len() + self.rest.len());
        if end > bytes.capacity() {
            let doubled = bytes.capacity().saturating_mul(2).max(FIRST_CAPACITY);
            let capacity = message.length.min(doubled).max(end);
            message.buffer.set_capacity(capacity)?;
        }
        let bytes = &mut message.buffer.bytes;
        let count = end - bytes.len();
        bytes.extend_from_slice(&self.rest[..count]);
        self.rest.advance(count);
        if self.rest.is_empty() {
            // An empty slice would keep the memory of the frame.
            self.rest = Bytes::new();
        }
        if self.is_bare && !self.rest.is_empty() {
            let limit = self.max_bytes;
            return Err(Error::RequestTooLarge { limit });
        }
        if end < message.length || self.is_bare {
            self.message = Some(message);
            return Ok(None);
        }
        Ok(Some(self.finish(message)))
    }

    /// Begins a message that ends with the body.
    fn begin_bare(&self) -> Partial {
        Partial {
            buffer: Buffer::new(&self.memory),
            length: self.max_bytes,
            is_compressed: self.is_compressed,
        }
    }

    fn finish(&self, message: Partial) -> RawMessage {
        let bytes = message.buffer.finish();
        RawMessage {
            is_compressed: message.is_compressed,
            bytes,
            json: self.json.clone(),
            max_bytes: self.max_bytes,
            memory: match message.is_compressed || self.json.is_some() {
                true => self.memory.clone(),
                false => Memory::default(),
            },
            is_followed: false,
        }
    }

    /// Reads the prefix of a message.
    fn begin(&self) -> Result<Partial, Error> {
        let [flag, length @ ..] = self.prefix;
        match flag {
            0 => {}
            1 if self.is_compressed => {}
            1 => {
                let problem = "a message is compressed, and the request names no compression";
                return Err(invalid(problem));
            }
            _ => {
                let problem = "the compressed flag of a message is neither 0 nor 1";
                return Err(invalid(problem));
            }
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.max_bytes {
            let limit = self.max_bytes;
            return Err(Error::RequestTooLarge { limit });
        }
        Ok(Partial {
            buffer: Buffer::new(&self.memory),
            length,
            is_compressed: flag == 1,
        })
    }
}

impl<B> RequestMessages for MessageReader<B>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin + Send,
{
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let message = std::future::poll_fn(|cx| self.poll_message(cx)).await?;
        match message {
            None => Ok(None),
            Some(mut message) => {
                message.is_followed = true;
                message.decode(self.deadline).await.map(Some)
            }
        }
    }
}

impl RawMessage {
    /// Returns the message in protobuf's encoding; a long one after its turn.
    pub(super) async fn decode(mut self, deadline: Deadline) -> Result<Bytes, Error> {
        let Some(json) = self.json.take() else {
            return self.decompress(deadline).await;
        };
        let memory = self.memory.clone();
        let text = self.decompress(deadline).await?;
        let turn = deadline.bound(memory.turn(text.len())).await?;
        turn.run(|| json.decode(&text, &memory))
    }

    async fn decompress(self, deadline: Deadline) -> Result<Bytes, Error> {
        if !self.is_compressed {
            return Ok(self.bytes);
        }
        // What is longer than its end says is invalid: it is not decompressed without a turn.
        let turn = match self.decompressed_bytes() {
            ..=LONG_BYTES => Turn::default(),
            long => {
                let _room = match self.is_followed {
                    true => Some(self.memory.reserve(long.min(self.max_bytes))?),
                    false => None,
                };
                deadline.bound(self.memory.turn(long)).await?
            }
        };
        turn.run(|| self.inflate())
    }

    /// Returns how long the message says that it is. Source: RFC 1952, "ISIZE".
    fn decompressed_bytes(&self) -> usize {
        let end = self.bytes.last_chunk().copied().unwrap_or_default();
        u32::from_le_bytes(end) as usize
    }

    fn inflate(&self) -> Result<Bytes, Error> {
        let stated = self.decompressed_bytes();
        let limit = match stated {
            ..=LONG_BYTES => self.max_bytes.min(LONG_BYTES),
            _ => self.max_bytes,
        };
        let too_long = || match limit < self.max_bytes {
            true => invalid(&format!(
                "a message cannot be decompressed: it is longer than {stated} bytes, the length \
                 at its end"
            )),
            false => Error::RequestTooLarge { limit },
        };
        let mut decoder = MultiGzDecoder::new(&*self.bytes);
        let mut buffer = Buffer::new(&self.memory);
        let mut length = 0;
        let mut capacity = SHORT_BYTES.min(limit + 1);
        loop {
            if length == buffer.bytes.len() {
                if length > limit {
                    return Err(too_long());
                }
                buffer.set_capacity(capacity)?;
                buffer.bytes.resize(capacity, 0);
                capacity = capacity.saturating_mul(2).min(limit + 1);
            }
            let read = decoder.read(&mut buffer.bytes[length..]);
            match read {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) => {
                    let problem = format!("a message cannot be decompressed: {error}");
                    return Err(invalid(&problem));
                }
            }
        }
        if length > limit {
            return Err(too_long());
        }
        buffer.bytes.truncate(length);
        if buffer.bytes.capacity() > SHORT_BYTES {
            buffer.bytes.shrink_to_fit();
            buffer.reservation.resize(length)?;
        }
        Ok(buffer.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Write as _;
    use std::time::Duration;

    use tonic::body::Body;

    use super::*;
    use crate::memory::MemoryBudget;
    use crate::server::request_body_timeout::RequestTimeouts;

    const MAX: usize = 100_000;

    /// A body that ends with END_STREAM.
    struct Frames(VecDeque<Vec<u8>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            let next = self.0.pop_front();
            Poll::Ready(next.map(|data| Ok(http_body::Frame::data(data.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn reader(frames: Vec<Vec<u8>>, is_compressed: bool, memory: &Memory) -> MessageReader {
        let body = Body::new(Frames(frames.into()));
        let timeouts = RequestTimeouts {
            idle: Duration::from_secs(30),
            min_bytes_per_sec: 0,
            total: Duration::from_secs(60),
        };
        let body = TimeoutBody::new(body, soon(), timeouts);
        MessageReader::new(body, MAX, is_compressed, memory.clone(), soon())
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag][..], &length, message].concat()
    }

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn message_is_read_wherever_frames_end() {
        let message: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
        for length in [0, 1, 300, SHORT_BYTES, SHORT_BYTES + 1, 70_000] {
            let message = &message[..length];
            let wire = framed(0, message);
            for frame in [1, 2, 5, 6, 7, 1_000, 16_384, 80_000] {
                if length > 1_000 && frame < 1_000 {
                    continue;
                }
                let frames = wire.chunks(frame).map(<[u8]>::to_vec).collect();
                let mut reader = reader(frames, false, &Memory::default());
                let read = reader.only().await.unwrap().decode(soon()).await.unwrap();
                assert_eq!(read, message, "{length} in frames of {frame}");
            }
        }
        // Compressed, in two members, and not compressed although it could be.
        let members = [gzip(&message[..9]), gzip(&message[9..])].concat();
        for wire in [
            framed(1, &gzip(&message)),
            framed(1, &members),
            framed(0, &message),
        ] {
            let mut reader = reader(vec![wire], true, &Memory::default());
            assert_eq!(
                reader.only().await.unwrap().decode(soon()).await.unwrap(),
                message
            );
        }
        // Several messages, in frames of any length.
        let wire = [framed(0, b"a"), framed(0, b""), framed(0, &message)].concat();
        let frames = wire.chunks(7_000).map(<[u8]>::to_vec).collect();
        let mut reader = reader(frames, false, &Memory::default());
        let mut read = Vec::new();
        while let Some(message) = reader.next().await.unwrap() {
            read.push(message);
        }
        assert_eq!(read, [&b"a"[..], b"", &message]);
    }

    #[tokio::test]
    async fn invalid_request_is_an_error() {
        let long = u32::try_from(MAX + 1).unwrap().to_be_bytes();
        for (frames, is_compressed, want, text) in [
            (vec![], false, Code::Unimplemented, "no message"),
            (
                vec![vec![0, 0]],
                false,
                Code::InvalidArgument,
                "ends within",
            ),
            (
                vec![vec![0, 0, 0, 0, 2, 1]],
                false,
                Code::InvalidArgument,
                "ends within",
            ),
            (vec![framed(2, b"")], false, Code::InvalidArgument, "flag"),
            (
                vec![framed(1, b"")],
                false,
                Code::InvalidArgument,
                "names no compression",
            ),
            (
                vec![framed(1, b"x")],
                true,
                Code::InvalidArgument,
                "decompressed",
            ),
            // Within the gzip, before its checksum, and after its end.
            (
                vec![framed(1, &gzip(b"abc")[..10])],
                true,
                Code::InvalidArgument,
                "decompressed",
            ),
            (
                vec![framed(1, &[&gzip(b"abc")[..20], &[0; 8]].concat())],
                true,
                Code::InvalidArgument,
                "decompressed",
            ),
            (
                vec![framed(1, &[&gzip(b"abc")[..], b"xy"].concat())],
                true,
                Code::InvalidArgument,
                "decompressed",
            ),
            (
                vec![framed(0, b""), framed(0, b"")],
                false,
                Code::Unimplemented,
                "more than one",
            ),
            (
                vec![[&[0][..], &long].concat()],
                false,
                Code::ResourceExhausted,
                "max_request_bytes",
            ),
            // 1 MB in 1 kB.
            (
                vec![framed(1, &gzip(&[7; 1_000_000]))],
                true,
                Code::ResourceExhausted,
                "max_request_bytes",
            ),
        ] {
            let mut reader = reader(frames, is_compressed, &Memory::default());
            let error = match reader.only().await {
                Ok(raw) => raw.decode(soon()).await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.code(), want, "{text}: {error}");
            assert!(error.to_string().contains(text), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn memory_is_reserved_for_what_has_arrived_and_for_what_is_decompressed() {
        const KIB: u64 = 1 << 10;
        let budget = MemoryBudget::new(1 << 20);
        let memory = budget.open(1);
        let used = || budget.stats().used;
        // The prefix promises 90 kB, of which 20 kB arrive.
        let promise = framed(0, &[7; 90_000])[..20_000].to_vec();
        let mut half = reader(vec![promise], false, &memory);
        let error = half.only().await.err().unwrap();
        assert!(error.to_string().contains("ends within"), "{error}");
        let held = used();
        assert!((20 * KIB..=96 * KIB).contains(&held), "{held}");
        drop(half);
        // While it is compressed, only that counts.
        let mut reader = reader(vec![framed(1, &gzip(&[7; 90_000]))], true, &memory);
        let raw = reader.only().await.unwrap();
        assert!(used() <= 64 * KIB, "{}", used());
        let message = raw.decode(soon()).await.unwrap();
        assert!((88 * KIB..=160 * KIB).contains(&used()), "{}", used());
        drop((reader, message));
        // Nothing is taken that the budget does not have.
        let rest = memory.reserve(480 << 10).unwrap();
        let limit = budget.stats().limit - used();
        assert!(limit > 0);
        let mut reader = super::tests::reader(vec![framed(1, &gzip(&[7; 99_000]))], true, &memory);
        let raw = reader.only().await.unwrap();
        let error = raw.decode(soon()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.to_string().contains("max_memory_bytes"), "{error}");
        assert!(error.retry_after().is_some());
        drop(rest);
    }

    /// While a message of an upload waits for its turn, HTTP/2 holds more of the request.
    #[tokio::test]
    async fn long_message_of_a_stream_waits_with_its_memory() {
        const MIB: u64 = 1 << 20;
        let budget = MemoryBudget::new(64 << 20);
        let memory = budget.open(1);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let others: Vec<_> = (2..100).map(|client| budget.open(client)).collect();
        let mut running = Vec::new();
        for other in &others {
            if let Poll::Ready(turn) = std::pin::pin!(other.turn(LONG_BYTES + 1)).poll(&mut cx) {
                running.push(turn);
            }
        }
        let open = || {
            let message = framed(1, &gzip(&[7; 3 << 20]));
            let body = Body::new(Frames(vec![message].into()));
            let timeouts = RequestTimeouts {
                idle: Duration::from_secs(30),
                min_bytes_per_sec: 0,
                total: Duration::from_secs(60),
            };
            let body = TimeoutBody::new(body, soon(), timeouts);
            MessageReader::new(body, 4 << 20, true, memory.clone(), soon())
        };
        let mut only = open();
        let raw = only.only().await.unwrap();
        let mut unary = std::pin::pin!(raw.decode(soon()));
        assert!(unary.as_mut().poll(&mut cx).is_pending());
        assert!(budget.stats().used < MIB, "{:?}", budget.stats());
        let mut upload = open();
        let mut next = std::pin::pin!(upload.next());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(budget.stats().used >= 3 * MIB, "{:?}", budget.stats());
        drop(running);
        assert_eq!(unary.await.unwrap().len(), 3 << 20);
        assert_eq!(next.await.unwrap().unwrap().len(), 3 << 20);
    }
}
