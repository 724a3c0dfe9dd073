//! What one caller is told of a log: a future that is polled, never a task.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::Code;

use super::super::stream::WatchStream;
use super::Seat;
use super::position::{Page, Position};
use super::source::Reading;
use super::tail::{News, Share, Stage, Told, goes_on};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::watch::poll_backoff::{Cadence, Patience};
use drawbridge_transcoder::api::drawbridge::v1::{Outcome, WatchEvent, WatchEventType};
use drawbridge_transcoder::contract::Method;

/// Entries taken from the window at once.
const AT_ONCE: usize = 64;
/// Rounds of the tail after which one has begun and ended since: the first may
/// have begun before.
const ROUNDS: u64 = 2;

/// Where a caller wants to begin.
pub(super) enum Begin {
    /// Behind this.
    At(Position),
    /// With what comes from now on.
    Now,
}

/// The messages of a log, encoded. Ends with OK when what it is about has settled
/// and all is told, where that was asked for.
pub(in super::super) struct LogStream(State);

/// Where a stream stands.
enum State {
    /// There may be something to tell at once.
    Telling(Box<Reader>),
    /// All is told; the future ends when there may be more.
    Waiting(Pin<Box<dyn Future<Output = Box<Reader>> + Send>>),
    /// The end was told.
    Over,
}

/// What a reader has to say.
enum Tell {
    Message(Bytes),
    NothingYet,
    Over(Result<(), Error>),
}

/// Reads the outcome that a message of a watch tells; none where it tells none.
type ReadOutcome = dyn Fn(&[u8]) -> Option<Outcome> + Send + Sync;

/// The watch whose end is the end of the log.
pub(super) struct End {
    stream: Box<WatchStream>,
    event: Box<ReadOutcome>,
    outcome: Outcome,
    /// It has ended; the log is at its end after so many rounds of the tail.
    rounds: Option<u64>,
    /// The outcome was told.
    told: bool,
}

impl End {
    pub(super) fn new(stream: Box<WatchStream>, method: Arc<Method>) -> Self {
        let event = move |message: &[u8]| {
            let log = method.log.as_ref()?;
            Some(log.ends_event(message)?.outcome())
        };
        Self {
            stream,
            event: Box::new(event),
            outcome: Outcome::Unspecified,
            rounds: None,
            told: false,
        }
    }
}

/// One caller.
struct Reader {
    news: watch::Receiver<News>,
    seat: Seat,
    mode: Mode,
    position: Position,
    /// The number of the next entry to take from the window.
    next: u64,
    /// What comes by the window may have come by a page, too, until the tail has
    /// made so many rounds: the next one but one begins after the last page.
    doubtful: Option<u64>,
    queue: VecDeque<Told>,
    /// What was there at the beginning is being told.
    present: bool,
    /// The marker behind what was told.
    marker: Box<str>,
    observed_at: SystemTime,
    /// Own reads fail since.
    unconfirmed_since: Option<SystemTime>,
    /// The `unconfirmed_since` that was told last.
    told_unconfirmed: Option<SystemTime>,
    end: Option<End>,
    failed: Option<Error>,
    silent_until: Instant,
    deadline: Option<Instant>,
}

/// How a reader reads.
enum Mode {
    /// By pages of its own.
    CatchUp(CatchUp),
    /// By the window.
    Tail,
}

struct CatchUp {
    reading: Option<Reading>,
    retry_at: Option<Instant>,
    cadence: Cadence,
    patience: Patience,
    /// Pages in a row that brought nothing new.
    idle: u32,
}

impl LogStream {
    /// Waits until the log was read. An error here is the answer to the rpc.
    pub(super) async fn open(
        mut news: watch::Receiver<News>,
        seat: Seat,
        begin: Begin,
        end: Option<End>,
        deadline: Option<Deadline>,
    ) -> Result<Self, Error> {
        let observed_at = {
            let news = news
                .wait_for(|news| !matches!(news.stage, Stage::Unread))
                .await
                .map_err(|_| Error::Draining)?;
            if let Stage::Ended(error) = &news.stage {
                return Err(error.clone());
            }
            news.observed_at
        };
        let (head, marker) = seat.tail.head();
        let doubtful = Some(news.borrow().rounds + ROUNDS);
        let (position, mode, next, marker) = match begin {
            Begin::Now => {
                let start = (!marker.is_empty()).then(|| marker.clone());
                (Position::new(start, false), Mode::Tail, head, marker)
            }
            Begin::At(position) => {
                let marker: Box<str> = position.marker().into();
                match seat.tail.covers(position.offset()) {
                    Some(first) => (position, Mode::Tail, first, marker),
                    None => {
                        let mode = Mode::CatchUp(CatchUp::new(&seat));
                        (position, mode, head, marker)
                    }
                }
            }
        };
        let silent_until = Instant::now() + seat.registry.settings.bookmark_interval;
        let mut reader = Box::new(Reader {
            doubtful,
            news,
            seat,
            mode,
            position,
            next,
            queue: VecDeque::new(),
            present: true,
            marker,
            observed_at,
            unconfirmed_since: None,
            told_unconfirmed: None,
            end,
            failed: None,
            silent_until,
            deadline: deadline.map(Deadline::instant),
        });
        if let Mode::CatchUp(_) = reader.mode {
            let at = reader.position.at();
            reader.seat.registry.polls.fetch_add(1, Ordering::Relaxed);
            let page = Arc::clone(&reader.seat.tail.source).page(at).await?;
            reader.took(Ok(page));
        }
        match reader.failed.take() {
            Some(error) => Err(error),
            None => Ok(Self(State::Telling(reader))),
        }
    }
}

impl CatchUp {
    fn new(seat: &Seat) -> Self {
        let rules = seat.tail.rules;
        let registry = &seat.registry;
        Self {
            reading: None,
            retry_at: None,
            cadence: Cadence::new(rules.first_interval, rules.max_interval, registry.random),
            patience: Patience::new(registry.settings.max_failing),
            idle: 0,
        }
    }
}

impl Stream for LogStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.0 {
                State::Over => return Poll::Ready(None),
                State::Waiting(wait) => match wait.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(reader) => self.0 = State::Telling(reader),
                },
                State::Telling(reader) => match reader.tell() {
                    Tell::Message(message) => return Poll::Ready(Some(Ok(message))),
                    Tell::NothingYet => {
                        let State::Telling(reader) = std::mem::replace(&mut self.0, State::Over)
                        else {
                            return Poll::Ready(None);
                        };
                        self.0 = State::Waiting(Box::pin(reader.wait()));
                    }
                    Tell::Over(end) => {
                        self.0 = State::Over;
                        return Poll::Ready(end.err().map(Err));
                    }
                },
            }
        }
    }
}

impl Reader {
    /// Waits for a page, news, the end of what the log is about, a due bookmark or
    /// the deadline.
    async fn wait(mut self: Box<Self>) -> Box<Self> {
        let mut until = self.deadline.unwrap_or(self.silent_until);
        until = until.min(self.silent_until);
        let mut reading = None;
        if let Mode::CatchUp(own) = &mut self.mode {
            match own.retry_at {
                Some(at) if at > Instant::now() => until = until.min(at),
                _ => {
                    own.retry_at = None;
                    let source = &self.seat.tail.source;
                    let at = self.position.at();
                    let started = own.reading.take().unwrap_or_else(|| {
                        self.seat.registry.polls.fetch_add(1, Ordering::Relaxed);
                        Arc::clone(source).page(at)
                    });
                    reading = Some(started);
                }
            }
        }
        let mut page = None;
        let mut event = None;
        tokio::select! {
            // The sender lives as long as this reader's seat.
            Ok(()) = self.news.changed() => {}
            read = ready(&mut reading) => page = Some(read),
            message = next(&mut self.end) => event = Some(message),
            () = tokio::time::sleep_until(until) => {}
        }
        match page {
            Some(read) => self.took(read),
            None => {
                if let Mode::CatchUp(own) = &mut self.mode {
                    own.reading = reading;
                }
            }
        }
        if let Some(message) = event {
            self.settles(message);
        }
        self
    }

    /// Goes on with what a read of its own has brought.
    fn took(&mut self, read: Result<Page, Error>) {
        let Mode::CatchUp(own) = &mut self.mode else {
            return;
        };
        match read {
            Ok(page) => {
                own.patience.recovered();
                self.unconfirmed_since = None;
                self.observed_at = (self.seat.registry.clock)();
                let (last, came) = (page.last, !page.entries.is_empty());
                let before = self.position.at();
                let new = self.position.take(page);
                own.idle = if new.is_empty() { own.idle + 1 } else { 0 };
                own.cadence.changed();
                if !last
                    && own.idle > 0
                    && let Err(error) = goes_on(own.idle, came, self.position.at() != before)
                {
                    self.failed = Some(error);
                }
                let new = new.late.into_iter().chain(new.entries);
                let observed_at = self.observed_at;
                self.queue.extend(new.map(|entry| Told {
                    marker: entry.key.clone(),
                    entry,
                    late: false,
                    observed_at,
                }));
                if last {
                    self.mode = Mode::Tail;
                    self.doubtful = Some(self.news.borrow().rounds + ROUNDS);
                }
            }
            Err(error) => match own.patience.bear(&error, own.cadence.unchanged()) {
                Some(pause) => {
                    own.retry_at = Some(Instant::now() + pause);
                    self.unconfirmed_since.get_or_insert(self.observed_at);
                }
                None => self.failed = Some(error),
            },
        }
    }

    /// The watch that ends the log has told something, or ended.
    fn settles(&mut self, message: Option<Result<Bytes, Error>>) {
        let Some(end) = &mut self.end else {
            return;
        };
        match message {
            Some(Ok(message)) => {
                if let Some(outcome) = (end.event)(&message) {
                    end.outcome = match outcome {
                        Outcome::Unspecified => end.outcome,
                        outcome => outcome,
                    };
                }
            }
            Some(Err(error)) => self.failed = Some(error),
            None => {
                let rounds = self.news.borrow().rounds + ROUNDS;
                end.rounds = Some(rounds);
                self.seat.tail.hurry(rounds);
            }
        }
    }

    /// The next message, if there is one by now.
    fn tell(&mut self) -> Tell {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Tell::Over(Err(Error::StreamDeadline));
        }
        if let Stage::Ended(Error::Draining) = &self.news.borrow().stage {
            return Tell::Over(Err(Error::Draining));
        }
        let tell = match self.next() {
            Tell::NothingYet if self.silent_until <= now => {
                Tell::Message(self.bookmark(Outcome::Unspecified))
            }
            tell => tell,
        };
        if let Tell::Message(_) = tell {
            self.silent_until = now + self.seat.registry.settings.bookmark_interval;
        }
        tell
    }

    fn next(&mut self) -> Tell {
        loop {
            if let Some(told) = self.queue.pop_front() {
                return Tell::Message(self.entry(told));
            }
            if let Some(error) = self.failed.take() {
                return Tell::Over(Err(error));
            }
            // Before the window: what it misses now wakes this reader again.
            let news = self.news.borrow_and_update().clone();
            if let Mode::Tail = self.mode {
                self.observed_at = self.observed_at.max(news.observed_at);
                let before = self.next;
                self.share();
                if self.next != before || self.failed.is_some() {
                    continue;
                }
                if self.doubtful.is_some_and(|rounds| rounds <= news.rounds) {
                    self.doubtful = None;
                    self.position.forget();
                }
            }
            let caught_up = matches!(self.mode, Mode::Tail);
            if self.present && caught_up {
                self.present = false;
                return Tell::Message(self.bookmark(Outcome::Unspecified));
            }
            if let Stage::Ended(error) = news.stage {
                return Tell::Over(Err(error));
            }
            if caught_up
                && let Some(end) = &mut self.end
                && end.rounds.is_some_and(|rounds| rounds <= news.rounds)
            {
                if std::mem::replace(&mut end.told, true) {
                    return Tell::Over(Ok(()));
                }
                let outcome = end.outcome;
                return Tell::Message(self.bookmark(outcome));
            }
            return match self.unconfirmed(&news) == self.told_unconfirmed {
                true => Tell::NothingYet,
                false => Tell::Message(self.bookmark(Outcome::Unspecified)),
            };
        }
    }

    /// Takes from the window what is new.
    fn share(&mut self) {
        // In doubt all at once, to find in it the entry behind which this began.
        let most = if self.doubtful.is_some() {
            usize::MAX
        } else {
            AT_ONCE
        };
        match self.seat.tail.share(self.next, most) {
            Share::Some(mut entries) => {
                self.next += entries.len() as u64;
                if self.doubtful.is_some() {
                    let began = |told: &Told| self.position.began_behind(&told.entry);
                    let skip = entries.iter().rposition(began).map_or(0, |at| at + 1);
                    entries.drain(..skip);
                }
                let check = self.doubtful.is_some() || self.seat.tail.rules.text;
                for told in entries {
                    if !check || !self.position.has(&told.entry) {
                        self.queue.push_back(told);
                    }
                }
            }
            Share::Gap(late, head) => {
                for told in late {
                    let known = self.position.has(&told.entry);
                    self.position.tell(&told.entry, true);
                    if !known {
                        self.queue.push_back(told);
                    }
                }
                self.next = head;
                self.mode = Mode::CatchUp(CatchUp::new(&self.seat));
            }
            Share::Lost => {
                self.failed = Some(Error::Overload {
                    code: Code::Aborted,
                    problem: format!(
                        "the reader is too slow, resume from the marker `{}`",
                        self.marker
                    ),
                    retry_after: self.seat.tail.rules.first_interval,
                });
            }
        }
    }

    fn entry(&mut self, told: Told) -> Bytes {
        if let Mode::Tail = self.mode
            && !told.late
        {
            self.position.tell(&told.entry, false);
        }
        self.marker = match told.late && !self.marker.is_empty() {
            // What it stands before was told.
            true => self.marker.clone(),
            false => told.marker,
        };
        self.told_unconfirmed = None;
        let lost = told.entry.is_lost();
        let kind = match self.present {
            _ if lost => WatchEventType::Lost,
            true => WatchEventType::Present,
            false => WatchEventType::Added,
        };
        let event = WatchEvent {
            r#type: kind.into(),
            observed_at: Some(told.observed_at.into()),
            ..WatchEvent::default()
        };
        let source = &self.seat.tail.source;
        let item = (!lost).then_some(&*told.entry.bytes);
        source.message(&event, item, &self.marker)
    }

    fn unconfirmed(&self, news: &News) -> Option<SystemTime> {
        match self.mode {
            Mode::CatchUp(_) => self.unconfirmed_since,
            Mode::Tail => news.unconfirmed.then_some(news.observed_at),
        }
    }

    fn bookmark(&mut self, outcome: Outcome) -> Bytes {
        let news = self.news.borrow().clone();
        let unconfirmed = self.unconfirmed(&news);
        if let Mode::Tail = self.mode {
            self.observed_at = self.observed_at.max(news.observed_at);
        }
        self.told_unconfirmed = unconfirmed;
        let event = WatchEvent {
            r#type: WatchEventType::Bookmark.into(),
            observed_at: Some(self.observed_at.into()),
            outcome: outcome.into(),
            unconfirmed_since: unconfirmed.map(Into::into),
        };
        self.seat.tail.source.message(&event, None, &self.marker)
    }
}

/// The page of a read under way; never, where there is none.
async fn ready(reading: &mut Option<Reading>) -> Result<Page, Error> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// The next message of the watch that ends the log; never, where there is none.
async fn next(end: &mut Option<End>) -> Option<Result<Bytes, Error>> {
    match end {
        Some(end) if end.rounds.is_none() => end.stream.next().await,
        _ => std::future::pending().await,
    }
}
