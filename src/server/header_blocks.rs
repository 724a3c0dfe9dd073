//! The header blocks of an HTTP/2 connection that are not complete. h2 decodes what has arrived
//! of a block, and a byte of it can be a header, which takes a hundred in memory. No call has
//! begun until its block is complete, so that the connection draws from the budget for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::memory::{Memory, MemoryBudget, Reservation};

/// The connection preface. Source: RFC 9113, "HTTP/2 Connection Preface".
const PREFACE_BYTES: usize = 24;

/// The head of a frame, the types of those that make a header block, and the flag of the last
/// one. Source: RFC 9113, "Frame Format", "HEADERS" and "CONTINUATION".
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The memory of decoded headers, as a multiple of the size that HTTP/2 limits: names, values
/// and 32 bytes each.
const DECODED_FACTOR: usize = 5;

/// Finds the header blocks in the bytes that a connection receives.
#[derive(Debug)]
pub(super) struct HeaderBlocks {
    budget: MemoryBudget,
    /// The digest of the key of the connection's client.
    client: u64,
    /// The size of all headers of one block that HTTP/2 accepts.
    max_bytes: usize,
    timeout: Duration,
    /// Bytes that belong to the preface or to the payload of a frame.
    skip: usize,
    /// The beginning of a frame.
    head: [u8; FRAME_HEAD_BYTES],
    head_len: usize,
    incomplete: Option<Incomplete>,
}

/// A block that has begun, and when it must be complete.
#[derive(Debug)]
struct Incomplete {
    _memory: Memory,
    _reservation: Reservation,
    timer: Pin<Box<Sleep>>,
}

impl HeaderBlocks {
    /// Follows a connection of a client, which has received nothing yet. Blocks of at most
    /// `max_bytes` have to be complete within `timeout`.
    pub(super) fn new(
        budget: MemoryBudget,
        client: u64,
        max_bytes: usize,
        timeout: Duration,
    ) -> Self {
        Self {
            budget,
            client,
            max_bytes,
            timeout,
            skip: PREFACE_BYTES,
            head: [0; FRAME_HEAD_BYTES],
            head_len: 0,
            incomplete: None,
        }
    }

    /// Reads bytes that have arrived. Fails if the budget has no space for the block that they
    /// begin.
    pub(super) fn received(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let missing = &mut self.head[self.head_len..];
            let count = missing.len().min(bytes.len());
            missing[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.head_len += count;
            if self.head_len < FRAME_HEAD_BYTES {
                return Ok(());
            }
            self.head_len = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            if !matches!(kind, HEADERS | CONTINUATION) {
                continue;
            }
            match flags & END_HEADERS == 0 {
                true => self.begin()?,
                false => self.incomplete = None,
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.incomplete.is_some() {
            return Ok(());
        }
        // Most connections have no such block: they need no account for it.
        let memory = self.budget.open(self.client);
        let reserved = memory.reserve(DECODED_FACTOR * self.max_bytes);
        let reservation = reserved.map_err(|exhausted| io::Error::other(exhausted.to_string()))?;
        self.incomplete = Some(Incomplete {
            _memory: memory,
            _reservation: reservation,
            timer: Box::pin(sleep(self.timeout)),
        });
        Ok(())
    }

    /// Waits until a block is late; without one for ever.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(incomplete) = &mut self.incomplete else {
            return Poll::Pending;
        };
        ready!(incomplete.timer.as_mut().poll(cx));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    /// The payloads look like the heads of frames that begin a block.
    #[tokio::test(start_paused = true)]
    async fn incomplete_block_draws_from_the_budget_until_its_end() {
        let payload = frame(HEADERS, 0, &[]).repeat(3);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut wanted = vec![0; bytes.len()];
        for (kind, flags, held) in [
            (4, 0, 0),
            (HEADERS, END_HEADERS, 0),
            (HEADERS, 0, 5_000),
            (CONTINUATION, 0, 5_000),
            (CONTINUATION, END_HEADERS, 0),
            (0, 1, 0),
            (HEADERS, 1, 5_000),
        ] {
            let frame = frame(kind, flags, &payload);
            // Known with the last byte of the head.
            let before = wanted.last().copied().unwrap();
            wanted.extend([before; FRAME_HEAD_BYTES - 1]);
            wanted.extend(vec![held; 1 + payload.len()]);
            bytes.extend(frame);
        }
        for part in [1, 7, bytes.len()] {
            let budget = MemoryBudget::new(1 << 20);
            let mut blocks = HeaderBlocks::new(budget.clone(), 1, 1_000, TIMEOUT);
            for (bytes, wanted) in bytes.chunks(part).zip(wanted.chunks(part)) {
                blocks.received(bytes).unwrap();
                let wanted = wanted.last().copied().unwrap();
                assert_eq!(budget.stats().used > 0, wanted > 0, "{part}");
            }
            let late = std::future::poll_fn(|cx| blocks.poll_late(cx));
            let begun = tokio::time::Instant::now();
            late.await;
            assert_eq!(begun.elapsed(), TIMEOUT);
        }
    }

    #[tokio::test]
    async fn block_without_memory_fails() {
        let budget = MemoryBudget::new(1 << 20);
        let connection = || HeaderBlocks::new(budget.clone(), 1, 100_000, TIMEOUT);
        let begin = [vec![0; PREFACE_BYTES], frame(HEADERS, 0, &[])].concat();
        let mut first = connection();
        first.received(&begin).unwrap();
        assert!(connection().received(&begin).is_err());
        first
            .received(&frame(CONTINUATION, END_HEADERS, &[]))
            .unwrap();
        connection().received(&begin).unwrap();
    }
}
