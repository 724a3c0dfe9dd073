//! Long conversions: between protobuf and JSON, and of compressed messages. Their output draws
//! from the budget while it is written, and they take turns, since each occupies a core.
//!
//! A conversion does not wait for anything, so that the runtime cannot interrupt it: a hundred
//! messages of some MiB would keep all others from their workers for seconds. No more of them
//! run at once than there are cores, on threads besides the workers. Those of one client queue
//! before those of all: the next one of another client waits for as many as there are cores,
//! however many the first one has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Exhausted, Memory, Reservation, SHORT_BYTES};
use drawbridge_transcoder::output_limit::{extensible, limited};

/// The output of a conversion of a short input that `CALL_BYTES` covers.
const SHORT_OUTPUT_BYTES: usize = 8 << 10;

/// Conversions of shorter inputs, which take a few milliseconds, need no turn: changing threads
/// costs more than it gains, a third of the time of a list of 500 kB.
pub const LONG_BYTES: usize = 1 << 20;

/// How many long conversions run at once.
static MAX_LONG: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));

/// The turns of long conversions, in the order of their requests.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(*MAX_LONG))
    }
}

/// The turn of a conversion, until dropped. A short one needs none.
#[derive(Debug, Default)]
pub struct Turn<'a> {
    _of_all: Option<SemaphorePermit<'a>>,
    _of_client: Option<SemaphorePermit<'a>>,
    is_long: bool,
}

impl Turn<'_> {
    /// Runs a conversion. The workers of the runtime do not wait for a long one.
    pub fn run<T>(&self, convert: impl FnOnce() -> T) -> T {
        let has_workers = || {
            let runtime = Handle::try_current();
            runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
        };
        match self.is_long && has_workers() {
            true => tokio::task::block_in_place(convert),
            false => convert(),
        }
    }
}

impl Memory {
    /// Waits for the turn of a conversion of `input` bytes.
    pub async fn turn(&self, input: usize) -> Turn<'_> {
        let client = match &self.0 {
            Some(account) if input > LONG_BYTES => &account.client,
            _ => return Turn::default(),
        };
        // They are never closed.
        let of_client = client.turns.0.acquire().await.ok();
        let of_all = client.budget.turns.0.acquire().await.ok();
        Turn {
            _of_all: of_all,
            _of_client: of_client,
            is_long: true,
        }
    }

    /// Runs a conversion of `input` bytes, with memory reserved for its output before it is
    /// written: first a little more than the input has. Returns the result, and what is
    /// reserved.
    pub fn convert<T>(
        &self,
        input: usize,
        convert: impl Fn() -> T,
    ) -> Result<(T, Reservation), Exhausted> {
        if input <= SHORT_BYTES
            && let Ok(result) = limited(SHORT_OUTPUT_BYTES, &convert)
        {
            return Ok((result, Reservation::default()));
        }
        let limit = SHORT_OUTPUT_BYTES.max(input + input / 2 + SHORT_BYTES);
        let output = Rc::new(Output {
            reservation: RefCell::new(self.reserve(limit)?),
            exhausted: Cell::new(None),
        });
        let growing = output.clone();
        let converted = extensible(limit, Box::new(move |bytes| growing.grow(bytes)), convert);
        match converted {
            Ok(result) => Ok((result, output.reservation.take())),
            Err(_) => Err(output.exhausted.get().unwrap_or(Exhausted::Budget)),
        }
    }

    /// Returns the reservation of a conversion for what of its output is kept.
    pub fn keep(&self, mut converted: Reservation, bytes: usize) -> Result<Reservation, Exhausted> {
        if bytes <= SHORT_BYTES {
            return Ok(Reservation::default());
        }
        if converted.account.is_none() {
            return self.reserve(bytes);
        }
        converted.resize(bytes)?;
        Ok(converted)
    }
}

/// What a conversion has written.
struct Output {
    reservation: RefCell<Reservation>,
    exhausted: Cell<Option<Exhausted>>,
}

impl Output {
    fn grow(&self, bytes: usize) -> bool {
        let grown = self.reservation.borrow_mut().resize(bytes);
        self.exhausted.set(grown.err());
        grown.is_ok()
    }
}
