//! Limits the memory of what a conversion writes, which can be many times its input: escapes
//! make JSON six times as long, numbers of a `ListValue` make a message five times as long.
//!
//! The limit is that of the thread while [`limited`] runs: a conversion does not wait and does
//! not start threads. Without one, buffers grow as a `Vec` does.

use std::cell::Cell;

use bytes::Bytes;

/// Room that is there for a short value and its tag or quotes.
pub(crate) const SHORT_VALUE: usize = 64;

/// Unused capacity that a finished buffer may keep.
const MAX_SPARE_BYTES: usize = 4 << 10;

thread_local! {
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
    static IS_MET: Cell<bool> = const { Cell::new(false) };
}

/// The output needs more memory than the limit. The conversion can be repeated with a higher
/// one: it has no other effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output is longer than the limit")]
pub struct LimitMet;

/// Runs a conversion whose output buffer holds at most `max_bytes`. If it needs more, its
/// result is dropped.
pub fn limited<T>(max_bytes: usize, convert: impl FnOnce() -> T) -> Result<T, LimitMet> {
    let before = (LIMIT.replace(max_bytes), IS_MET.replace(false));
    let result = convert();
    let is_met = IS_MET.replace(before.1);
    LIMIT.set(before.0);
    match is_met {
        true => Err(LimitMet),
        false => Ok(result),
    }
}

/// Makes room for so many bytes. Returns false, and fails the conversion, if the limit does
/// not allow it.
#[inline]
pub(crate) fn has_room(out: &mut Vec<u8>, bytes: usize) -> bool {
    out.capacity() - out.len() >= bytes || grow(out, bytes)
}

#[cold]
fn grow(out: &mut Vec<u8>, bytes: usize) -> bool {
    let limit = LIMIT.get();
    let needed = out.len().saturating_add(bytes);
    if needed > limit {
        IS_MET.set(true);
        return false;
    }
    let capacity = out.capacity().saturating_mul(2).max(needed).min(limit);
    out.reserve_exact(capacity - out.len());
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
        // No limit is left behind.
        assert_eq!(fill(5_000).len(), 5_000);
    }
}
