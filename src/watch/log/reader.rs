//! The response stream of a log: one client's reader.
//!
//! A reader that starts before the window of the tail reads pages of its own until it has
//! caught up (`CatchUp`), then the window that all readers of the loop share (`Tail`). A
//! slow reader that falls behind the window catches up again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};

use super::super::shared_loop::{End, Phase, Published, Subscription};
use super::super::stream::WatchStream;
use super::position::{Page, Position, ReadPosition};
use super::source::PageFuture;
use super::tail::{Mark, MarkReceiver, Tail, WindowEntry, WindowRead};
use crate::deadline::Deadline;
use crate::engine::pager::{PageProgress, ProgressGuard};
use crate::error::Error;
use crate::memory::Reservation;
use crate::watch::poll_backoff::{FailureTolerance, PollBackoff};
use crate::watch::source::is_not_found;
use drawbridge_transcoder::api::drawbridge::v1::{Outcome, WatchEvent, WatchEventType};
use drawbridge_transcoder::contract::Method;

/// How many entries are read from the window at once.
const ENTRIES_PER_READ: usize = 64;
/// After this many more successful rounds, one has begun after now; the first may have begun
/// earlier.
const ROUNDS_UNTIL_CERTAIN: u64 = 2;

/// Where a client starts to read.
pub(super) enum StartAt {
    /// After this position.
    Position(Position),
    /// After all entries that exist when the rpc arrives.
    Now,
}

/// The encoded messages of a log. On request it ends with OK once the resource of the log is
/// final and all entries were sent.
pub(in super::super) struct LogStream(State);

/// The states of a stream.
enum State {
    /// The reader may have an event now.
    Ready(Box<Reader>),
    /// Everything was sent. `Ready` comes next, when the future ends.
    Waiting(Pin<Box<dyn Future<Output = Box<Reader>> + Send>>),
    /// The end was sent.
    Ended,
}

/// What a reader does next.
enum Event {
    Message(Bytes),
    Pending,
    End(Result<(), Error>),
}

/// Decodes the outcome of a message of a watch.
pub(super) type DecodeOutcome = dyn Fn(&[u8]) -> Option<Outcome> + Send + Sync;

/// The watch of the log's resource. The log ends after it.
pub(super) struct EndWatch {
    stream: Box<WatchStream>,
    decode: Box<DecodeOutcome>,
    outcome: Outcome,
    /// The watch has had a message without an outcome: the resource has become final since.
    was_pending: bool,
    /// The watch has ended; the log ends when so many rounds of the loop have succeeded.
    rounds: Option<u64>,
    /// Makes the next round begin at once.
    round_end: Option<MarkReceiver>,
    /// The outcome was sent.
    outcome_sent: bool,
}

impl EndWatch {
    pub(super) fn new(stream: Box<WatchStream>, method: Arc<Method>) -> Self {
        let decode = move |message: &[u8]| {
            let log = method.log.as_ref()?;
            Some(log.ends_event(message)?.outcome())
        };
        Self::with(stream, Box::new(decode))
    }

    pub(super) fn with(stream: Box<WatchStream>, decode: Box<DecodeOutcome>) -> Self {
        Self {
            stream,
            decode,
            outcome: Outcome::Unspecified,
            was_pending: false,
            rounds: None,
            round_end: None,
            outcome_sent: false,
        }
    }
}

/// One client's reader.
struct Reader {
    subscription: Subscription<Tail>,
    mode: Mode,
    position: Position,
    /// The number of the next entry to read from the window.
    next: u64,
    /// Entries of the window may have been sent from a page until so many rounds of the
    /// loop have succeeded.
    dedup_until: Option<u64>,
    queue: VecDeque<WindowEntry>,
    /// The memory of the entries of the last page.
    page_reservation: Reservation,
    initial: Initial,
    /// The marker to resume after all entries that were sent.
    marker: Box<str>,
    observed_at: SystemTime,
    /// Since when the reader's own reads fail.
    own_unconfirmed_since: Option<SystemTime>,
    /// The `unconfirmed_since` that was sent last.
    sent_unconfirmed_since: Option<SystemTime>,
    end: Option<EndWatch>,
    failed: Option<Error>,
    bookmark_at: Instant,
    deadline: Option<Instant>,
}

/// Which entries are sent as INITIAL: those that existed when the reader joined.
enum Initial {
    /// All up to the end of the reader's own pages. `Until` comes next.
    Pages,
    /// All up to a mark that the loop has not found yet. `Until` comes next.
    Unmarked(MarkReceiver),
    /// All entries of the window up to this number. `Sent` comes next, with a bookmark.
    Until(u64),
    /// None any more.
    Sent,
}

/// Where a reader gets entries from.
enum Mode {
    /// From pages of its own.
    CatchUp(CatchUp),
    /// From the window of the loop.
    Tail,
}

struct CatchUp {
    reading: Option<PageFuture>,
    retry_at: Option<Instant>,
    backoff: PollBackoff,
    tolerance: FailureTolerance,
    /// The last read was NOT_FOUND: perhaps of an older replica.
    not_found: bool,
    guard: ProgressGuard,
}

impl LogStream {
    /// Waits until the log was read. An error here is the response to the rpc, not the
    /// end of a stream.
    pub(super) async fn open(
        mut subscription: Subscription<Tail>,
        start: StartAt,
        end: Option<EndWatch>,
        deadline: Option<Deadline>,
    ) -> Result<Self, Error> {
        let opening = match start {
            StartAt::Now => Opening::now(&mut subscription).await?,
            StartAt::Position(position) => Opening::at(&mut subscription, position).await?,
        };
        let bookmark_at = Instant::now() + subscription.registry.settings.bookmark_interval;
        let mut reader = Box::new(Reader {
            dedup_until: opening.dedup_until,
            subscription,
            mode: opening.mode,
            marker: opening.position.marker().into(),
            position: opening.position,
            next: opening.next,
            queue: VecDeque::new(),
            page_reservation: Reservation::default(),
            initial: opening.initial,
            observed_at: opening.observed_at,
            own_unconfirmed_since: None,
            sent_unconfirmed_since: None,
            end,
            failed: None,
            bookmark_at,
            deadline: deadline.map(Deadline::instant),
        });
        if let Mode::CatchUp(_) = reader.mode {
            let at = reader.position.at();
            let page = start_read(&reader.subscription, at).await?;
            reader.handle_page(Ok(page));
        }
        match reader.failed.take() {
            Some(error) => Err(error),
            None => Ok(Self(State::Ready(reader))),
        }
    }
}

/// Where and how a reader starts.
struct Opening {
    position: Position,
    mode: Mode,
    next: u64,
    dedup_until: Option<u64>,
    initial: Initial,
    observed_at: SystemTime,
}

impl Opening {
    /// Starts at the end of the log, as found by a round that begins after the reader has
    /// joined: what the last round has found may be older than the rpc.
    async fn now(subscription: &mut Subscription<Tail>) -> Result<Self, Error> {
        let Ok(mark) = subscription.request_round().await else {
            return Err(subscription.error().await);
        };
        let Mark {
            head,
            marker,
            observed_at,
        } = mark?;
        let mut position = Position::new((!marker.is_empty()).then_some(marker), false);
        // The window has each entry after the mark exactly once.
        position.forget();
        Ok(Self {
            position,
            mode: Mode::Tail,
            next: head,
            dedup_until: None,
            initial: Initial::Until(head),
            observed_at,
        })
    }

    async fn at(subscription: &mut Subscription<Tail>, position: Position) -> Result<Self, Error> {
        let shared = Arc::clone(&subscription.shared);
        // A reader that starts before the window reads pages of its own.
        let covers = || shared.source.covers(position.offset());
        let mark = covers().map(|_| subscription.request_round());
        let (observed_at, rounds) = {
            let is_read = |published: &Published<Tail>| !published.phase.is_unread();
            let published = subscription.published.wait_for(is_read).await;
            let published = published.map_err(|_| Error::Draining)?;
            match &published.phase {
                Phase::Following(observed) => (observed.observed_at, published.succeeded),
                Phase::Ended(_, End::Failed(error)) => return Err(error.clone()),
                Phase::Ended(..) | Phase::Unread => return Err(Error::Draining),
            }
        };
        let window = mark.zip(covers());
        let (mode, next, initial) = match window {
            Some((mark, first)) => (Mode::Tail, first, Initial::Unmarked(mark)),
            None => {
                let mode = Mode::CatchUp(CatchUp::new(subscription));
                (mode, shared.source.head(), Initial::Pages)
            }
        };
        Ok(Self {
            position,
            mode,
            next,
            dedup_until: Some(rounds + ROUNDS_UNTIL_CERTAIN),
            initial,
            observed_at,
        })
    }
}

impl CatchUp {
    fn new(subscription: &Subscription<Tail>) -> Self {
        let rules = subscription.shared.source.rules;
        let registry = &subscription.registry;
        Self {
            reading: None,
            retry_at: None,
            backoff: PollBackoff::new(rules.initial_interval, rules.max_interval, registry.random),
            tolerance: FailureTolerance::new(registry.settings.failure_tolerance),
            not_found: false,
            guard: ProgressGuard::default(),
        }
    }
}

impl Stream for LogStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.0 {
                State::Ended => return Poll::Ready(None),
                State::Waiting(wait) => match wait.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(reader) => self.0 = State::Ready(reader),
                },
                State::Ready(reader) => match reader.next_event() {
                    Event::Message(message) => return Poll::Ready(Some(Ok(message))),
                    Event::Pending => {
                        let State::Ready(reader) = std::mem::replace(&mut self.0, State::Ended)
                        else {
                            return Poll::Ready(None);
                        };
                        self.0 = State::Waiting(Box::pin(reader.wait()));
                    }
                    Event::End(end) => {
                        self.0 = State::Ended;
                        return Poll::Ready(end.err().map(Err));
                    }
                },
            }
        }
    }
}

impl Reader {
    /// Waits for a page, a new state of the loop, an event of the end watch, a due
    /// bookmark or the deadline.
    async fn wait(mut self: Box<Self>) -> Box<Self> {
        let mut until = self.deadline.unwrap_or(self.bookmark_at);
        until = until.min(self.bookmark_at);
        let mut reading = None;
        if let Mode::CatchUp(own) = &mut self.mode {
            match own.retry_at {
                Some(at) if at > Instant::now() => until = until.min(at),
                _ => {
                    own.retry_at = None;
                    let at = self.position.at();
                    let started = own.reading.take();
                    reading = Some(started.unwrap_or_else(|| start_read(&self.subscription, at)));
                }
            }
        }
        let mut page = None;
        let mut event = None;
        tokio::select! {
            // The sender lives as long as this subscription.
            Ok(()) = self.subscription.published.changed() => {}
            read = next_page(&mut reading) => page = Some(read),
            message = next_end_event(&mut self.end) => event = Some(message),
            mark = next_mark(&mut self.initial) => self.initial = mark,
            () = tokio::time::sleep_until(until) => {}
        }
        match page {
            Some(read) => self.handle_page(read),
            None => {
                if let Mode::CatchUp(own) = &mut self.mode {
                    own.reading = reading;
                }
            }
        }
        if let Some(message) = event {
            self.handle_end_event(message);
        }
        self
    }

    /// Handles a page of the reader's own.
    fn handle_page(&mut self, read: Result<Page, Error>) {
        let Mode::CatchUp(own) = &mut self.mode else {
            return;
        };
        match read {
            Ok(mut page) => {
                self.page_reservation = std::mem::take(&mut page.reservation);
                own.tolerance.recovered();
                own.not_found = false;
                self.own_unconfirmed_since = None;
                self.observed_at = (self.subscription.registry.clock)();
                let (last, is_empty) = (page.last, page.entries.is_empty());
                let before = self.position.at();
                let new = self.position.advance(page);
                own.backoff.reset();
                let progress = PageProgress {
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
                self.queue.extend(new.map(|entry| WindowEntry {
                    marker: entry.key.clone(),
                    entry,
                    late: false,
                    observed_at,
                }));
                if last {
                    self.mode = Mode::Tail;
                    if !matches!(self.initial, Initial::Sent) {
                        self.initial = Initial::Until(self.next);
                    }
                    self.dedup_until =
                        Some(self.subscription.shared.succeeded() + ROUNDS_UNTIL_CERTAIN);
                }
            }
            Err(error) if is_not_found(&error) && !own.not_found => {
                own.not_found = true;
                own.retry_at = Some(Instant::now() + own.backoff.reset());
            }
            Err(error) => match own.tolerance.tolerate(&error, own.backoff.grow()) {
                Some(pause) => {
                    own.retry_at = Some(Instant::now() + pause);
                    self.own_unconfirmed_since.get_or_insert(self.observed_at);
                }
                None => self.failed = Some(error),
            },
        }
    }

    /// Handles a message, or the end, of the end watch.
    fn handle_end_event(&mut self, message: Option<Result<Bytes, Error>>) {
        let Some(end) = &mut self.end else {
            return;
        };
        match message {
            Some(Ok(message)) => {
                if let Some(outcome) = (end.decode)(&message) {
                    end.outcome = match outcome {
                        Outcome::Unspecified => end.outcome,
                        outcome => outcome,
                    };
                    end.was_pending |= end.outcome == Outcome::Unspecified;
                }
            }
            Some(Err(error)) => self.failed = Some(error),
            None => {
                let shared = &self.subscription.shared;
                end.rounds = Some(shared.shorten_pauses());
                // An upstream can write the last entries after the final state, as Heat does:
                // a resource that has just become final gets the pause between two rounds.
                if !end.was_pending {
                    end.round_end = Some(shared.request_next_round());
                }
            }
        }
    }

    /// Returns the next message, or the end. The deadline and a drain end the stream
    /// before the next message.
    fn next_event(&mut self) -> Event {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Event::End(Err(Error::StreamDeadline));
        }
        let planned_end = self.subscription.published.borrow().phase.planned_end();
        if let Some(error) = planned_end {
            return Event::End(Err(error));
        }
        let event = match self.advance() {
            Event::Pending if self.bookmark_at <= now => {
                Event::Message(self.bookmark(Outcome::Unspecified))
            }
            event => event,
        };
        if let Event::Message(_) = event {
            self.bookmark_at = now + self.subscription.registry.settings.bookmark_interval;
        }
        event
    }

    fn advance(&mut self) -> Event {
        loop {
            if let Some(item) = self.queue.pop_front() {
                return Event::Message(self.entry_message(item));
            }
            if let Some(error) = self.failed.take() {
                return Event::End(Err(error));
            }
            // Before the window is read: entries added after this wake the reader again.
            let status = LoopStatus::of(&self.subscription.published.borrow_and_update());
            if let Mode::Tail = self.mode {
                if let Initial::Unmarked(mark) = &mut self.initial
                    && let Some(initial) = Initial::now(mark)
                {
                    self.initial = initial;
                }
                if let Initial::Until(number) = self.initial
                    && number <= self.next
                {
                    self.initial = Initial::Sent;
                    return Event::Message(self.bookmark(Outcome::Unspecified));
                }
                let before = self.next;
                self.read_window();
                if self.next != before || self.failed.is_some() {
                    continue;
                }
                self.observed_at = self.observed_at.max(status.observed_at);
                if self
                    .dedup_until
                    .is_some_and(|rounds| rounds <= status.succeeded)
                {
                    self.dedup_until = None;
                    self.position.forget();
                }
            }
            let caught_up = matches!(self.mode, Mode::Tail);
            if let Some(end) = status.end {
                return Event::End(end);
            }
            if caught_up
                && let Some(end) = &mut self.end
                && end.rounds.is_some_and(|rounds| rounds <= status.succeeded)
            {
                if std::mem::replace(&mut end.outcome_sent, true) {
                    return Event::End(Ok(()));
                }
                let outcome = end.outcome;
                return Event::Message(self.bookmark(outcome));
            }
            return match self.unconfirmed(&status) == self.sent_unconfirmed_since {
                true => Event::Pending,
                false => Event::Message(self.bookmark(Outcome::Unspecified)),
            };
        }
    }

    /// Reads new entries from the window.
    fn read_window(&mut self) {
        // To remove duplicates, reads all at once and searches for the entry at which the
        // log was opened.
        let most = match self.initial {
            Initial::Until(number) => usize::try_from(number - self.next).unwrap_or(usize::MAX),
            _ if self.dedup_until.is_some() => usize::MAX,
            _ => ENTRIES_PER_READ,
        };
        match self.subscription.shared.source.read(self.next, most) {
            WindowRead::Entries(mut entries) => {
                self.next += entries.len() as u64;
                if self.dedup_until.is_some() {
                    let is_start = |read: &WindowEntry| self.position.started_behind(&read.entry);
                    let skip = entries.iter().rposition(is_start).map_or(0, |at| at + 1);
                    entries.drain(..skip);
                }
                let check =
                    self.dedup_until.is_some() || self.subscription.shared.source.rules.text;
                for item in entries {
                    if !check || !self.position.has(&item.entry) {
                        self.queue.push_back(item);
                    }
                }
            }
            WindowRead::Gap(late, head) => {
                for item in late {
                    let known = self.position.has(&item.entry);
                    self.position.mark_sent(&item.entry, true);
                    if !known {
                        self.queue.push_back(item);
                    }
                }
                self.next = head;
                self.mode = Mode::CatchUp(CatchUp::new(&self.subscription));
            }
            WindowRead::TooSlow => {
                self.failed = Some(Error::SlowReader {
                    marker: self.marker.clone(),
                    retry_after: self.subscription.shared.source.rules.initial_interval,
                });
            }
        }
    }

    fn entry_message(&mut self, item: WindowEntry) -> Bytes {
        if let Mode::Tail = self.mode
            && !item.late
        {
            self.position.mark_sent(&item.entry, false);
        }
        self.marker = match item.late && !self.marker.is_empty() {
            // The entries after it were sent before.
            true => self.marker.clone(),
            false => item.marker,
        };
        self.sent_unconfirmed_since = None;
        let lost = item.entry.is_gap();
        let kind = match self.initial {
            _ if lost => WatchEventType::Gap,
            Initial::Sent => WatchEventType::Added,
            _ => WatchEventType::Initial,
        };
        let event = WatchEvent {
            r#type: kind.into(),
            observed_at: Some(item.observed_at.into()),
            ..WatchEvent::default()
        };
        let source = &self.subscription.shared.source.source;
        let item = (!lost).then_some(&*item.entry.bytes);
        source.message(&event, item, &self.marker)
    }

    fn unconfirmed(&self, status: &LoopStatus) -> Option<SystemTime> {
        match self.mode {
            Mode::CatchUp(_) => self.own_unconfirmed_since,
            Mode::Tail => status.unconfirmed.then_some(status.observed_at),
        }
    }

    fn bookmark(&mut self, outcome: Outcome) -> Bytes {
        let status = LoopStatus::of(&self.subscription.published.borrow());
        let unconfirmed = self.unconfirmed(&status);
        self.sent_unconfirmed_since = unconfirmed;
        let event = WatchEvent {
            r#type: WatchEventType::Bookmark.into(),
            observed_at: Some(self.observed_at.into()),
            outcome: outcome.into(),
            unconfirmed_since: unconfirmed.map(Into::into),
            incomplete: false,
        };
        let source = &self.subscription.shared.source.source;
        source.message(&event, None, &self.marker)
    }
}

/// What a reader needs of the published value.
struct LoopStatus {
    observed_at: SystemTime,
    unconfirmed: bool,
    /// The number of rounds that have succeeded.
    succeeded: u64,
    end: Option<Result<(), Error>>,
}

impl LoopStatus {
    fn of(published: &Published<Tail>) -> Self {
        let observed = published.phase.observed();
        Self {
            observed_at: observed.map_or(SystemTime::UNIX_EPOCH, |observed| observed.observed_at),
            unconfirmed: observed.is_some_and(|observed| observed.unconfirmed),
            succeeded: published.succeeded,
            end: match &published.phase {
                Phase::Ended(_, End::Failed(error)) => Some(Err(error.clone())),
                Phase::Ended(_, End::Completed(_)) => Some(Ok(())),
                Phase::Unread | Phase::Following(_) => None,
            },
        }
    }
}

/// Starts a read of a page.
fn start_read(subscription: &Subscription<Tail>, at: ReadPosition) -> PageFuture {
    subscription.registry.polls.fetch_add(1, Ordering::Relaxed);
    Arc::clone(&subscription.shared.source.source).page(at)
}

/// Waits for the page of a read in progress; forever if there is none.
async fn next_page(reading: &mut Option<PageFuture>) -> Result<Page, Error> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

impl Initial {
    /// Returns the mark if the loop has found it.
    fn now(mark: &mut MarkReceiver) -> Option<Self> {
        match mark.try_recv() {
            Ok(mark) => Some(Self::until(mark.ok())),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Self::until(None)),
        }
    }

    /// Until this mark. Without one the loop has ended, and all entries of the window are
    /// initial.
    fn until(mark: Option<Mark>) -> Self {
        Self::Until(mark.map_or(u64::MAX, |mark| mark.head))
    }
}

/// Waits until the loop has found the mark; forever if none is expected.
async fn next_mark(initial: &mut Initial) -> Initial {
    match initial {
        Initial::Unmarked(mark) => Initial::until(mark.await.ok().and_then(Result::ok)),
        _ => std::future::pending().await,
    }
}

/// Waits for the next message of the end watch; forever if there is none.
async fn next_end_event(end: &mut Option<EndWatch>) -> Option<Result<Bytes, Error>> {
    match end {
        Some(end) if end.rounds.is_none() => end.stream.next().await,
        _ => std::future::pending().await,
    }
}
