//! Descriptors of the process (`ulimit -n`): how many the connections of clients may use, so
//! that upstreams and the admin listener have some left.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection_limits::CLOSING_DIVISOR;
use crate::config::Config;
use crate::upstream::default_downloads;

/// What the process itself needs: the runtime, listeners, the log, files that are read again,
/// and the sockets of name lookups.
const OWN_DESCRIPTORS: u64 = 32;

/// Connections to an upstream beyond its concurrent calls and downloads: logins, health checks,
/// idle ones.
const SPARE_PER_UPSTREAM: u64 = 8;

/// The most connections of the admin listener. At the limit, the one whose last request is the
/// longest ago is closed: attackers cannot keep probes and scrapes out.
const MAX_ADMIN_CONNECTIONS: u64 = 64;

/// Raises the soft limit of open descriptors to the hard limit.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "cannot raise the limit of open descriptors");
        }
    }
}

/// How the descriptors of the process are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorShares {
    /// The most connections of clients.
    pub(super) clients: usize,
    /// The most connections of the admin listener.
    pub(super) admin: usize,
    /// The most concurrent calls of each upstream.
    pub(super) calls_per_upstream: usize,
}

impl DescriptorShares {
    /// Divides the descriptors that the process may open. Upstreams are the numbers of their
    /// concurrent calls and open downloads.
    pub(super) fn of_process(upstreams: &[(usize, usize)]) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        Self::of(limit.unwrap_or(u64::MAX), upstreams)
    }

    /// Divides `limit` descriptors. Upstreams get what their calls and downloads need, and at most
    /// three eighths; the admin listener at most an eighth; clients the rest.
    fn of(limit: u64, upstreams: &[(usize, usize)]) -> Self {
        let rest = limit - OWN_DESCRIPTORS.min(limit / 4);
        let admin = MAX_ADMIN_CONNECTIONS.min(rest / 8).max(1);
        let count = upstreams.len().max(1) as u64;
        let needed = upstreams.iter().map(connections);
        let needed = needed.fold(0, u64::saturating_add);
        let upstreams = needed.min(rest / 8 * 3);
        let per_upstream = upstreams / count;
        let calls_per_upstream = match upstreams == needed {
            true => u64::MAX,
            false => calls_of(per_upstream - SPARE_PER_UPSTREAM.min(per_upstream / 2)),
        };
        let clients = rest - upstreams - admin.min(rest);
        let open = clients - clients / (CLOSING_DIVISOR as u64 + 1);
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        Self {
            clients: size(open),
            admin: size(admin),
            calls_per_upstream: size(calls_per_upstream),
        }
    }
}

/// Returns how many connections an upstream needs.
fn connections((calls, downloads): &(usize, usize)) -> u64 {
    (*calls as u64)
        .saturating_add(*downloads as u64)
        .saturating_add(SPARE_PER_UPSTREAM)
}

/// Returns how many concurrent calls leave connections for their downloads.
fn calls_of(connections: u64) -> u64 {
    let at_least = connections / 5 * 4;
    (at_least..=connections)
        .take_while(|calls| calls + default_downloads(*calls as usize) as u64 <= connections)
        .last()
        .unwrap_or(at_least)
}

/// Divides the descriptors of the process. Where they do not suffice, lowers the concurrent
/// calls of upstreams, and says so.
pub(super) fn share(config: &mut Config) -> DescriptorShares {
    let upstreams = config.upstreams.iter();
    let calls = upstreams.map(|u| (u.max_concurrent_calls, u.downloads()));
    let calls: Vec<(usize, usize)> = calls.collect();
    let mut shares = DescriptorShares::of_process(&calls);
    let wanted = config.server.max_connections as usize;
    let most_calls = calls.into_iter().map(|(calls, _)| calls).max();
    let most_calls = most_calls.unwrap_or_default();
    if shares.clients < wanted || shares.calls_per_upstream < most_calls {
        tracing::warn!(
            max_connections = shares.clients.min(wanted),
            max_concurrent_calls = shares.calls_per_upstream.min(most_calls),
            "limits are lower than configured: raise the limit of open descriptors (`ulimit -n`)"
        );
    }
    shares.clients = shares.clients.min(wanted);
    for upstream in &mut config.upstreams {
        let calls = &mut upstream.max_concurrent_calls;
        // Also where `max_downloads` alone takes more than there are.
        if shares.calls_per_upstream < usize::MAX {
            *calls = (*calls).min(shares.calls_per_upstream);
            let downloads = default_downloads(*calls);
            upstream.max_downloads = upstream.downloads().min(downloads);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_upstreams_and_admin() {
        let no_limit = usize::MAX;
        for (limit, calls, clients, admin, calls_per_upstream) in [
            // 16 for the process itself, 6 for admin, 18 for the upstream, less an eighth of the
            // rest that may be closing.
            (64, vec![256], 22, 6, 8),
            (64, vec![4], 26, 6, no_limit),
            (256, vec![256], 100, 28, 60),
            // 1024 - 32 - 64 - (256 + 64 + 8), less an eighth.
            (1_024, vec![256], 534, 64, no_limit),
            (1_024, vec![], 825, 64, no_limit),
            (1_024, vec![256, 256, 256], 495, 64, 92),
            (1 << 20, vec![256], 931_691, 64, no_limit),
            (0, vec![1], 1, 1, 1),
            (1, vec![1], 1, 1, 1),
            (16, vec![256], 8, 1, 1),
        ] {
            let with_downloads = |calls: &usize| (*calls, default_downloads(*calls));
            let upstreams: Vec<_> = calls.iter().map(with_downloads).collect();
            let got = DescriptorShares::of(limit, &upstreams);
            let want = DescriptorShares {
                clients,
                admin,
                calls_per_upstream,
            };
            assert_eq!(got, want, "{limit} {calls:?}");
        }
        // A setting of 128 more downloads.
        let clients = |downloads| DescriptorShares::of(2_048, &[(256, downloads)]).clients;
        assert_eq!((clients(64), clients(192)), (1_444, 1_330));
        // No overflow.
        let most = (usize::MAX, usize::MAX);
        DescriptorShares::of(u64::MAX, &[most, most]);
    }
}
