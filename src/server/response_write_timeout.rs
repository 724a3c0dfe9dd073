//! An answer on its way out: what its caller does not take, he loses. A connection that
//! is alive says little of one who reads, and what is kept for him is kept from others.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::error::{self, Error};
use drawbridge_transcoder::call::Room;

/// How long a caller may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether he does.
const LOOK: Duration = Duration::from_secs(5);
/// What HTTP/2 is given at once, and may lie about there: the payload of one frame, in
/// bytes.
pub const PIECE: usize = 16 << 10;

/// The answers that are on their way, long ones and streams. While there are any, one
/// task looks after all of them.
#[derive(Clone, Debug, Default)]
pub struct Departures(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    answers: Vec<Weak<Mutex<Answer>>>,
    /// There is a task that looks after them.
    looking: bool,
}

/// Says to whoever keeps the record of a stream that it is dropped because nobody took
/// it. Goes with the response, as an extension.
#[derive(Clone, Debug, Default)]
pub struct Untaken(Arc<AtomicBool>);

impl Untaken {
    /// Why it was dropped, if it was.
    pub fn error(&self) -> Option<Error> {
        self.0.load(Ordering::Acquire).then(untaken)
    }
}

/// The body of an answer, as HTTP/2 takes it.
struct Departing(Arc<Mutex<Answer>>);

#[derive(Debug)]
enum Answer {
    Going(Going),
    /// Nobody took it. `half`: he has a message in part.
    Lost {
        half: bool,
    },
    Over,
}

#[derive(Debug)]
struct Going {
    body: Body,
    /// What is still to be given of a long frame.
    rest: Bytes,
    /// Since when there is something that nobody has taken; none where the caller waits
    /// for us.
    since: Option<Instant>,
    untaken: Option<Untaken>,
    /// What the answer takes up.
    _room: Room,
}

impl Departures {
    /// The answer, which its caller has to take. Its [`Room`], if it brings one, is given
    /// back with it.
    pub fn send(&self, mut response: Response<Body>) -> Response<Body> {
        let length = response.body().size_hint().exact();
        if length.is_some_and(|length| length <= (5 + PIECE) as u64) {
            // HTTP/2 takes it at once, whether the caller does or not.
            return response;
        }
        let room = response.extensions_mut().remove::<Room>();
        let untaken = response.extensions_mut().remove::<Untaken>();
        response.map(|body| {
            let answer = Arc::new(Mutex::new(Answer::Going(Going {
                body,
                rest: Bytes::new(),
                since: Some(Instant::now()),
                untaken,
                _room: room.unwrap_or_default(),
            })));
            let mut known = lock(&self.0);
            known.answers.push(Arc::downgrade(&answer));
            if !std::mem::replace(&mut known.looking, true) {
                tokio::spawn(look(self.clone()));
            }
            Body::new(Departing(answer))
        })
    }
}

/// Looks after answers, as long as there are any.
async fn look(all: Departures) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        let mut answers = std::mem::take(&mut lock(&all.0).answers);
        answers.retain(|answer| match answer.upgrade() {
            Some(answer) => {
                // Dropped when nothing is locked: who knows what it does then.
                let lost = lock(&answer).lose(now);
                if let Some(lost) = &lost {
                    tracing::debug!("nobody takes an answer");
                    lost.untaken
                        .as_ref()
                        .inspect(|untaken| untaken.0.store(true, Ordering::Release));
                }
                lost.is_none()
            }
            None => false,
        });
        answers.shrink_to(2 * answers.len());
        let mut known = lock(&all.0);
        answers.append(&mut known.answers);
        known.answers = answers;
        if known.answers.is_empty() {
            known.looking = false;
            return;
        }
    }
}

impl Answer {
    /// What is lost by now: nobody took it.
    fn lose(&mut self, now: Instant) -> Option<Going> {
        let Self::Going(going) = self else {
            return None;
        };
        if now.duration_since(going.since?) < PATIENCE {
            return None;
        }
        // Of a known length no less can come. Else frames are whole messages.
        let half = !going.rest.is_empty() || going.body.size_hint().exact().is_some();
        match std::mem::replace(self, Self::Lost { half }) {
            Self::Going(going) => Some(going),
            _ => None,
        }
    }
}

impl Going {
    /// The next piece: a copy, lest one that lies about keep the whole.
    fn piece(&mut self) -> Bytes {
        let length = self.rest.len().min(PIECE);
        let piece = Bytes::copy_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        piece
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.since = None;
        let mut frame = None;
        if self.rest.is_empty() {
            frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            if let Some(Ok(data)) = &frame
                && let Some(data) = data.data_ref()
                && data.len() > PIECE
            {
                self.rest = data.clone();
            }
        }
        if !self.rest.is_empty() {
            frame = Some(Ok(Frame::data(self.piece())));
        }
        self.since = Some(Instant::now());
        Poll::Ready(frame)
    }
}

impl http_body::Body for Departing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut answer = lock(&self.0);
        match &mut *answer {
            Answer::Going(going) => {
                let frame = ready!(going.poll_frame(cx));
                if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
                    *answer = Answer::Over;
                }
                Poll::Ready(frame)
            }
            Answer::Lost { half } => {
                let half = *half;
                *answer = Answer::Over;
                let status = untaken().status(&error::Context {
                    operation: "",
                    upstream: "",
                    request_id: "",
                    begun: false,
                });
                let mut trailers = HeaderMap::new();
                Poll::Ready(Some(match half {
                    // The stream is reset: half a message is none.
                    true => Err(status),
                    false => (status.add_header(&mut trailers)).map(|()| Frame::trailers(trailers)),
                }))
            }
            Answer::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*lock(&self.0) {
            Answer::Going(going) => going.rest.is_empty() && going.body.is_end_stream(),
            Answer::Lost { .. } => false,
            Answer::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.0) {
            Answer::Going(going) if going.rest.is_empty() => going.body.size_hint(),
            Answer::Over => SizeHint::with_exact(0),
            Answer::Going(_) | Answer::Lost { .. } => SizeHint::default(),
        }
    }
}

/// Nobody took it.
fn untaken() -> Error {
    Error::Undelivered {
        code: Code::DeadlineExceeded,
        problem: format!(
            "nothing of the answer was taken for {} s",
            PATIENCE.as_secs()
        ),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::time::{advance, sleep};
    use tokio_stream::{Stream, StreamExt};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn frame(length: usize) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(vec![7; length].into()))
    }

    /// A stream on its way, and what it keeps.
    fn stream(
        departures: &Departures,
        frames: impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
    ) -> (Body, Arc<()>, Untaken) {
        let kept = Arc::new(());
        let inner = kept.clone();
        let frames = frames.map(move |frame| {
            let _keeps = &inner;
            frame
        });
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        let untaken = Untaken::default();
        response.extensions_mut().insert(untaken.clone());
        response.extensions_mut().insert(Room(Some(kept.clone())));
        (departures.send(response).into_body(), kept, untaken)
    }

    async fn taken(body: &mut Body) -> usize {
        let frame = body.frame().await.unwrap().unwrap();
        frame.into_data().unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped() {
        let departures = Departures::default();
        // Never looked at; looked at once; and in the middle of a message.
        for (length, takes) in [(3, 0), (3, 1), (3 * PIECE, 1)] {
            let frames = tokio_stream::iter([frame(length), frame(length), frame(length)]);
            let (mut body, kept, untaken) = stream(&departures, frames);
            for _ in 0..takes {
                assert_eq!(taken(&mut body).await, length.min(PIECE));
            }
            sleep(PATIENCE - SECOND).await;
            assert_eq!(Arc::strong_count(&kept), 3);
            sleep(SECOND + LOOK).await;
            assert_eq!(Arc::strong_count(&kept), 1);
            assert_eq!(untaken.error().unwrap().code(), Code::DeadlineExceeded);
            // When he comes back, he is told; half a message is reset.
            let end = body.frame().await.unwrap();
            match length > PIECE {
                true => assert_eq!(end.unwrap_err().code(), Code::DeadlineExceeded),
                false => {
                    let trailers = end.unwrap().into_trailers().unwrap();
                    let status = Status::from_header_map(&trailers).unwrap();
                    assert_eq!(status.code(), Code::DeadlineExceeded);
                    assert!(status.message().contains("was taken"), "{status:?}");
                }
            }
            assert!(body.is_end_stream() && body.frame().await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_his_time_or_waits_for_us_is_not_cut_off() {
        let departures = Departures::default();
        let frames = tokio_stream::iter([frame(2 * PIECE), frame(3)]);
        let (mut body, kept, untaken) = stream(&departures, frames.chain(tokio_stream::pending()));
        for want in [PIECE, PIECE, 3] {
            assert_eq!(taken(&mut body).await, want);
            sleep(PATIENCE - SECOND).await;
        }
        // Nothing comes, and he is there.
        assert!(tokio::time::timeout(SECOND, body.frame()).await.is_err());
        sleep(10 * PATIENCE).await;
        assert!(Arc::strong_count(&kept) == 3 && untaken.error().is_none());
        drop(body);
        assert_eq!(Arc::strong_count(&kept), 1);
        // Nobody looks where there is nothing to see.
        assert!(lock(&departures.0).looking);
        advance(2 * LOOK).await;
        sleep(LOOK).await;
        let known = lock(&departures.0);
        assert!(!known.looking && known.answers.capacity() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_known_length_is_reset() {
        let departures = Departures::default();
        let whole = |length| Response::new(Body::new(Full::new(Bytes::from(vec![7; length]))));
        let mut body = departures.send(whole(3 * PIECE)).into_body();
        assert_eq!(body.size_hint().exact(), Some(3 * PIECE as u64));
        sleep(PATIENCE + LOOK).await;
        body.frame().await.unwrap().unwrap_err();
        // A short one is HTTP/2's own affair.
        let body = departures.send(whole(PIECE)).into_body();
        assert!(lock(&departures.0).answers.is_empty());
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), PIECE);
    }
}
