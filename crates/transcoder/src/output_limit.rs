//! Limits the memory of what a conversion writes, which can be many times its input: escapes
//! make JSON six times as long, numbers of a `ListValue` make a message five times as long.
//!
//! The limit is that of the thread while [`limited`] runs: a conversion does not wait and does
//! not start threads. Without one, buffers grow as a `Vec` does. With [`extensible`], the limit
//! itself grows.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

/// Room that is there for a short value and its tag or quotes.
pub(crate) const SHORT_VALUE: usize = 64;

/// Unused capacity that a finished buffer may keep.
const MAX_SPARE_BYTES: usize = 4 << 10;

/// The capacity up to which a buffer doubles when it grows: a longer one grows by half.
const MAX_DOUBLED_BYTES: usize = 1 << 20;

/// Asks for a higher limit, of so many bytes. Returns whether it now is the limit.
pub type Extend = Box<dyn FnMut(usize) -> bool>;

thread_local! {
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
    static IS_MET: Cell<bool> = const { Cell::new(false) };
    static EXTEND: RefCell<Option<Extend>> = const { RefCell::new(None) };
}

/// The state of the thread before a conversion; restored when dropped, also by a panic.
struct Before {
    limit: usize,
    is_met: bool,
    extend: Option<Extend>,
}

impl Before {
    fn replace(limit: usize, extend: Option<Extend>) -> Self {
        Self {
            limit: LIMIT.replace(limit),
            is_met: IS_MET.replace(false),
            extend: EXTEND.replace(extend),
        }
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        LIMIT.set(self.limit);
        IS_MET.set(self.is_met);
        EXTEND.set(self.extend.take());
    }
}

/// The output needs more memory than the limit. The conversion can be repeated with a higher
/// one: it has no other effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output is longer than the limit")]
pub struct LimitMet;

/// Runs a conversion whose output buffer holds at most `max_bytes`. If it needs more, its
/// result is dropped.
pub fn limited<T>(max_bytes: usize, convert: impl FnOnce() -> T) -> Result<T, LimitMet> {
    run(max_bytes, None, convert)
}

/// As [`limited`], with a limit that grows with the output as long as `extend` agrees.
pub fn extensible<T>(
    max_bytes: usize,
    extend: Extend,
    convert: impl FnOnce() -> T,
) -> Result<T, LimitMet> {
    run(max_bytes, Some(extend), convert)
}

fn run<T>(
    max_bytes: usize,
    extend: Option<Extend>,
    convert: impl FnOnce() -> T,
) -> Result<T, LimitMet> {
    let _before = Before::replace(max_bytes, extend);
    let result = convert();
    match IS_MET.get() {
        true => Err(LimitMet),
        false => Ok(result),
    }
}

/// Makes room for so many bytes. Returns false, and fails the conversion, if the limit does
/// not allow it.
#[inline]
pub fn has_room(out: &mut Vec<u8>, bytes: usize) -> bool {
    out.capacity() - out.len() >= bytes || grow(out, bytes)
}

#[cold]
fn grow(out: &mut Vec<u8>, bytes: usize) -> bool {
    let needed = out.len().saturating_add(bytes);
    let more = match out.capacity() {
        capacity @ ..MAX_DOUBLED_BYTES => capacity,
        capacity => capacity / 2,
    };
    let wanted = out.capacity().saturating_add(more).max(needed);
    let mut limit = LIMIT.get();
    let may_extend =
        || EXTEND.with_borrow_mut(|extend| extend.as_mut().is_some_and(|extend| extend(wanted)));
    if needed > limit && may_extend() {
        limit = wanted;
        LIMIT.set(limit);
    }
    if needed > limit {
        IS_MET.set(true);
        return false;
    }
    out.reserve_exact(wanted.min(limit) - out.len());
    true
}

/// Returns a finished buffer without the capacity that it does not use.
pub(crate) fn finished(mut out: Vec<u8>) -> Bytes {
    if out.capacity() - out.len() > MAX_SPARE_BYTES + out.len() / 8 {
        out.shrink_to_fit();
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_grows_up_to_the_limit_and_the_result_behind_it_is_dropped() {
        let fill = |bytes: usize| {
            let mut out = Vec::new();
            while out.len() < bytes && has_room(&mut out, 10) {
                out.extend_from_slice(&[7; 10]);
            }
            out
        };
        let out = limited(1_000, || fill(900)).unwrap();
        assert!(out.len() == 900 && out.capacity() <= 1_000);
        assert_eq!(limited(1_000, || fill(1_001)), Err(LimitMet));
        assert_eq!(
            limited(1_000, || limited(10, || fill(11))),
            Ok(Err(LimitMet))
        );
        // No limit is left behind, nor by a panic.
        assert_eq!(fill(5_000).len(), 5_000);
        let panics = std::panic::catch_unwind(|| limited(10, || panic!("in a conversion")));
        assert!(panics.is_err() && fill(5_000).len() == 5_000);
    }

    #[test]
    fn limit_grows_with_the_output_until_there_is_no_more() {
        let fill = |bytes: usize| {
            let mut out = Vec::new();
            while out.len() < bytes && has_room(&mut out, 10) {
                out.extend_from_slice(&[7; 10]);
            }
            out
        };
        let up_to = |most: usize| Box::new(move |bytes| bytes <= most);
        let out = extensible(100, up_to(10_000), || fill(5_000)).unwrap();
        assert_eq!(out.len(), 5_000);
        assert_eq!(extensible(100, up_to(4_999), || fill(5_000)), Err(LimitMet));
        // An inner conversion does not extend its own limit.
        let inner = extensible(100, up_to(9_000), || limited(10, || fill(11)));
        assert_eq!(inner, Ok(Err(LimitMet)));
    }
}
