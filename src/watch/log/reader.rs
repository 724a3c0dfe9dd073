//! What one caller is told of a log: a future that is polled, never a task.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::Code;

use super::super::stream::WatchStream;
use super::position::{Page, Position};
use super::source::Reading;
use super::tail::{Joined, Mark, News, Share, Stage, Told};
use super::{Joins, Seat};
use crate::deadline::Deadline;
use crate::engine::pager::{Progress, ProgressGuard};
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
    /// With what comes from now on: behind all that is there when the call arrives.
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
    present: Present,
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

/// How much of what was there when the reader joined is still to be sent.
enum Present {
    /// All up to the end of pages of its own.
    Pages,
    /// All up to a mark that the tail has not found yet.
    Unmarked(Joined),
    /// All entries of the window up to this number.
    Until(u64),
    /// Nothing.
    Sent,
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
    guard: ProgressGuard,
}

impl LogStream {
    /// Waits until the log was read. An error here is the answer to the rpc.
    pub(super) async fn open(
        joins: Joins,
        begin: Begin,
        end: Option<End>,
        deadline: Option<Deadline>,
    ) -> Result<Self, Error> {
        let Joins {
            mut news,
            seat,
            joined,
        } = joins;
        let begins = match begin {
            Begin::Now => Begins::now(&mut news, joined).await?,
            Begin::At(position) => Begins::at(&mut news, joined, &seat, position).await?,
        };
        let silent_until = Instant::now() + seat.registry.settings.bookmark_interval;
        let mut reader = Box::new(Reader {
            doubtful: begins.doubtful,
            news,
            seat,
            mode: begins.mode,
            marker: begins.position.marker().into(),
            position: begins.position,
            next: begins.next,
            queue: VecDeque::new(),
            present: begins.present,
            observed_at: begins.observed_at,
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

/// Where and how a reader begins.
struct Begins {
    position: Position,
    mode: Mode,
    next: u64,
    doubtful: Option<u64>,
    present: Present,
    observed_at: SystemTime,
}

impl Begins {
    /// Begins at the end that a round has found since the reader joined: the end of
    /// the last round may be older than its call.
    async fn now(news: &mut watch::Receiver<News>, joined: Option<Joined>) -> Result<Self, Error> {
        let mark = match joined {
            Some(joined) => joined.await.ok(),
            None => None,
        };
        let Some(mark) = mark else {
            // The tail ends.
            let ended = |news: &News| matches!(news.stage, Stage::Ended(_));
            let news = news.wait_for(ended).await.map_err(|_| Error::Draining)?;
            return Err(match &news.stage {
                Stage::Ended(error) => error.clone(),
                _ => Error::Draining,
            });
        };
        let Mark {
            head,
            marker,
            observed_at,
        } = mark?;
        let mut position = Position::new((!marker.is_empty()).then_some(marker), false);
        // The tail sends each entry behind the mark once.
        position.forget();
        Ok(Self {
            position,
            mode: Mode::Tail,
            next: head,
            doubtful: None,
            present: Present::Until(head),
            observed_at,
        })
    }

    async fn at(
        news: &mut watch::Receiver<News>,
        joined: Option<Joined>,
        seat: &Seat,
        position: Position,
    ) -> Result<Self, Error> {
        let (observed_at, rounds) = {
            let news = news
                .wait_for(|news| !matches!(news.stage, Stage::Unread))
                .await
                .map_err(|_| Error::Draining)?;
            if let Stage::Ended(error) = &news.stage {
                return Err(error.clone());
            }
            (news.observed_at, news.rounds)
        };
        let window = joined.zip(seat.tail.covers(position.offset()));
        let (mode, next, present) = match window {
            Some((joined, first)) => (Mode::Tail, first, Present::Unmarked(joined)),
            None => {
                let mode = Mode::CatchUp(CatchUp::new(seat));
                (mode, seat.tail.head(), Present::Pages)
            }
        };
        Ok(Self {
            position,
            mode,
            next,
            doubtful: Some(rounds + ROUNDS),
            present,
            observed_at,
        })
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
            patience: Patience::new(registry.settings.failure_tolerance),
            guard: ProgressGuard::default(),
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
            mark = marked(&mut self.present) => self.present = mark,
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
                let (last, is_empty) = (page.last, page.entries.is_empty());
                let before = self.position.at();
                let new = self.position.take(page);
                own.cadence.changed();
                let progress = Progress {
                    is_last: last,
                    is_empty,
                    has_new: !new.is_empty(),
                    has_moved: self.position.at() != before,
                };
                if let Err(error) = own.guard.check(progress) {
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
                    if !matches!(self.present, Present::Sent) {
                        self.present = Present::Until(self.next);
                    }
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
                if let Present::Unmarked(joined) = &mut self.present
                    && let Some(present) = Present::now(joined)
                {
                    self.present = present;
                }
                if let Present::Until(number) = self.present
                    && number <= self.next
                {
                    self.present = Present::Sent;
                    return Tell::Message(self.bookmark(Outcome::Unspecified));
                }
                let before = self.next;
                self.share();
                if self.next != before || self.failed.is_some() {
                    continue;
                }
                self.observed_at = self.observed_at.max(news.observed_at);
                if self.doubtful.is_some_and(|rounds| rounds <= news.rounds) {
                    self.doubtful = None;
                    self.position.forget();
                }
            }
            let caught_up = matches!(self.mode, Mode::Tail);
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
        let most = match self.present {
            Present::Until(number) => usize::try_from(number - self.next).unwrap_or(usize::MAX),
            _ if self.doubtful.is_some() => usize::MAX,
            _ => AT_ONCE,
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
            _ if lost => WatchEventType::Gap,
            Present::Sent => WatchEventType::Added,
            _ => WatchEventType::Initial,
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

impl Present {
    /// What the tail has found; none where it has found nothing yet.
    fn now(joined: &mut Joined) -> Option<Self> {
        match joined.try_recv() {
            Ok(mark) => Some(Self::until(mark.ok())),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Self::until(None)),
        }
    }

    /// Up to this mark. Without one the tail ends, and all that it has is sent.
    fn until(mark: Option<Mark>) -> Self {
        Self::Until(mark.map_or(u64::MAX, |mark| mark.head))
    }
}

/// Returns when the tail has found the mark; never, where none is looked for.
async fn marked(present: &mut Present) -> Present {
    match present {
        Present::Unmarked(joined) => Present::until(joined.await.ok().and_then(Result::ok)),
        _ => std::future::pending().await,
    }
}

/// The next message of the watch that ends the log; never, where there is none.
async fn next(end: &mut Option<End>) -> Option<Result<Bytes, Error>> {
    match end {
        Some(end) if end.rounds.is_none() => end.stream.next().await,
        _ => std::future::pending().await,
    }
}
