//! Exit codes, the same for all commands.

use std::error::Error as _;

use tonic::Status;

/// The call or the resource has succeeded.
pub(in crate::cli) const SUCCEEDED: u8 = 0;
/// The gateway has responded an error, the resource has failed, or a check has found problems.
pub(in crate::cli) const FAILED: u8 = 1;
/// Without an outcome: invalid arguments, no gateway, or a broken connection; of a watch also a
/// resource that does not exist.
pub(in crate::cli) const UNKNOWN: u8 = 2;
/// After `--timeout`, that of timeout(1).
pub(in crate::cli) const TIMED_OUT: u8 = 124;
/// After Ctrl-C, as in shells.
pub(in crate::cli) const INTERRUPTED: u8 = 130;

/// Returns the exit code of a call with this status: an error that the gateway has responded is
/// known, a broken connection is not.
pub(in crate::cli) fn of_status(status: &Status) -> u8 {
    match status.source() {
        None => FAILED,
        Some(_) => UNKNOWN,
    }
}

/// Returns the exit code of several calls or watches.
pub(in crate::cli) fn of_all(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| match *code {
        SUCCEEDED => 0,
        UNKNOWN => 1,
        FAILED => 2,
        _ => 3,
    };
    codes.into_iter().max_by_key(rank).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_more_than_what_is_unknown() {
        for (codes, want) in [
            (&[SUCCEEDED, SUCCEEDED][..], SUCCEEDED),
            (&[SUCCEEDED, UNKNOWN], UNKNOWN),
            (&[FAILED, UNKNOWN, SUCCEEDED], FAILED),
            (&[FAILED, TIMED_OUT], TIMED_OUT),
            (&[], UNKNOWN),
        ] {
            assert_eq!(of_all(codes.iter().copied()), want, "{codes:?}");
        }
    }
}
