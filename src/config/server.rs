//! Server options (`[server]`): limits and timeouts of the gRPC listener.

use std::time::Duration;

use super::reader::Section;

/// The smallest memory budget: a few long messages.
const MIN_MEMORY_BYTES: usize = 16 << 20;

/// Maximum of `worker_threads`.
pub(super) const MAX_WORKER_THREADS: u32 = 1_024;

/// Limits and timeouts of the gRPC listener: `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Maximum size of a request message, in bytes. Default: 4 MiB.
    pub max_request_bytes: usize,
    /// Maximum size of the request metadata, in bytes; each entry counts as name, value and
    /// 32 bytes (RFC 9113, "SETTINGS_MAX_HEADER_LIST_SIZE"). Default: 64 KiB.
    pub max_metadata_bytes: u32,
    /// Memory that calls may hold: requests, responses and what is made of them, in bytes. One
    /// client gets at most half of it. Default: half of the limit of the process's cgroup,
    /// else a quarter of the RAM.
    pub max_memory_bytes: Option<usize>,
    /// Maximum size of an uploaded file, in bytes. Default: 64 MiB.
    pub max_upload_bytes: usize,
    /// Maximum number of concurrent calls and streams on one connection. Default: 4,096.
    pub max_concurrent_streams: u32,
    /// Maximum number of connections. The limit of open descriptors may allow fewer.
    /// Default: 4,096.
    pub max_connections: u32,
    /// Maximum number of connections from one address; of IPv6, from one network of 64 bits.
    /// Zero, the default: half of all connections.
    pub max_connections_per_address: u32,
    /// Maximum time from the first byte, or the TLS handshake, to the preface of HTTP/2; of
    /// HTTP/1.1, to the complete headers of a request. Default: 10 s.
    pub preface_timeout: Duration,
    /// Time without a call after which a connection gets GOAWAY and is closed. Default: 5 min.
    pub connection_idle_timeout: Duration,
    /// Interval of HTTP/2 pings on an idle connection. Default: 30 s.
    pub keepalive_interval: Duration,
    /// Timeout of a ping, after which the connection is closed. Default: 20 s.
    pub keepalive_timeout: Duration,
    /// Age at which a connection gets GOAWAY: calls continue, new ones need another
    /// connection. Default: never.
    pub max_connection_age: Option<Duration>,
    /// Time after GOAWAY until the connection's watches and list streams end with
    /// UNAVAILABLE. Other calls complete within their deadlines. Default: 60 s.
    pub max_connection_age_grace: Duration,
    /// Deadline of calls without `grpc-timeout`. Default: 120 s, because Heat waits 60 s for
    /// its engine.
    pub default_deadline: Duration,
    /// Threads that serve calls. Zero: one for each CPU that the process may use, by its affinity
    /// and the cgroup's `cpu.max`.
    pub worker_threads: u32,
    /// Time after SIGTERM in which the gateway is not ready and accepts connections and calls
    /// all the same: load balancers learn of the first meanwhile. Default: 5 s; in the sandbox
    /// none.
    pub drain_delay: Duration,
    /// Time after that until the remaining calls are cut off. Default: 20 s.
    pub drain_timeout: Duration,
    /// Interval of health checks of each upstream. Default: 10 s. Zero: neither logins at
    /// start nor probes.
    pub health_check_interval: Duration,
    /// Maximum time without data of a request body, and time that it may lag behind
    /// `min_request_bytes_per_sec`. Default: 30 s.
    pub request_body_idle_timeout: Duration,
    /// Minimum rate at which clients read long responses and streams that have data for them.
    /// Zero: none. Default: 1 KiB per second.
    pub min_response_bytes_per_sec: u32,
    /// Minimum rate at which request messages and uploads arrive. Zero: none. Default: 1 KiB
    /// per second.
    pub min_request_bytes_per_sec: u32,
    /// Maximum time until a request body is complete, even if the client's deadline is later.
    /// Default: 15 min.
    pub request_timeout: Duration,
    /// Maximum time in which a client reads nothing of a response, after which the response is
    /// dropped. After twice this time its stream is reset. Default: 30 s.
    pub response_write_timeout: Duration,
    /// Maximum duration of a TLS handshake. Default: 10 s.
    pub tls_handshake_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_request_bytes: 4 << 20,
            max_metadata_bytes: 64 << 10,
            max_memory_bytes: None,
            max_upload_bytes: 64 << 20,
            max_concurrent_streams: 4_096,
            max_connections: 4_096,
            max_connections_per_address: 0,
            preface_timeout: Duration::from_secs(10),
            connection_idle_timeout: Duration::from_secs(5 * 60),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_connection_age: None,
            max_connection_age_grace: Duration::from_secs(60),
            default_deadline: Duration::from_secs(120),
            worker_threads: 0,
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(20),
            health_check_interval: Duration::from_secs(10),
            request_body_idle_timeout: Duration::from_secs(30),
            min_request_bytes_per_sec: 1 << 10,
            min_response_bytes_per_sec: 1 << 10,
            request_timeout: Duration::from_secs(15 * 60),
            response_write_timeout: Duration::from_secs(30),
            tls_handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl ServerOptions {
    /// Returns the memory budget, by the system where it is not set.
    pub fn max_memory_bytes(&self) -> usize {
        (self.max_memory_bytes).unwrap_or_else(crate::memory::default_budget)
    }

    /// Reads the section. Keys that are absent keep their values.
    pub(super) fn read(&mut self, section: &Section<'_>) {
        section.size("max_request_bytes", 1, &mut self.max_request_bytes);
        let max_metadata_bytes = &mut self.max_metadata_bytes;
        section.number_into("max_metadata_bytes", 1 << 10, 16 << 20, max_metadata_bytes);
        let mut budget = self.max_memory_bytes.unwrap_or_default();
        section.size("max_memory_bytes", 0, &mut budget);
        if (1..MIN_MEMORY_BYTES).contains(&budget) {
            let problem = format!("must be at least {MIN_MEMORY_BYTES}, or 0 for the default");
            section.invalid("max_memory_bytes", &problem);
        }
        self.max_memory_bytes = (budget > 0).then_some(budget);
        section.size("max_upload_bytes", 1, &mut self.max_upload_bytes);
        let max_concurrent_streams = &mut self.max_concurrent_streams;
        section.number_into(
            "max_concurrent_streams",
            1,
            u32::MAX,
            max_concurrent_streams,
        );
        section.number_into("max_connections", 1, 1 << 20, &mut self.max_connections);
        section.number_into(
            "max_connections_per_address",
            0,
            1 << 20,
            &mut self.max_connections_per_address,
        );
        section.duration("preface_timeout_secs", &mut self.preface_timeout);
        section.duration(
            "connection_idle_timeout_secs",
            &mut self.connection_idle_timeout,
        );
        section.duration("keepalive_interval_secs", &mut self.keepalive_interval);
        section.duration("keepalive_timeout_secs", &mut self.keepalive_timeout);
        let mut age = Duration::ZERO;
        section.duration_or_zero("max_connection_age_secs", &mut age);
        self.max_connection_age = (!age.is_zero()).then_some(age);
        section.duration_or_zero(
            "max_connection_age_grace_secs",
            &mut self.max_connection_age_grace,
        );
        section.duration("default_deadline_secs", &mut self.default_deadline);
        section.number_into(
            "worker_threads",
            0,
            MAX_WORKER_THREADS,
            &mut self.worker_threads,
        );
        section.duration_or_zero("drain_delay_secs", &mut self.drain_delay);
        section.duration_or_zero("drain_timeout_secs", &mut self.drain_timeout);
        section.duration_or_zero(
            "health_check_interval_secs",
            &mut self.health_check_interval,
        );
        section.duration(
            "request_body_idle_timeout_secs",
            &mut self.request_body_idle_timeout,
        );
        section.number_into(
            "min_request_bytes_per_sec",
            0,
            1 << 30,
            &mut self.min_request_bytes_per_sec,
        );
        section.duration("request_timeout_secs", &mut self.request_timeout);
        section.duration(
            "response_write_timeout_secs",
            &mut self.response_write_timeout,
        );
        section.number_into(
            "min_response_bytes_per_sec",
            0,
            1 << 30,
            &mut self.min_response_bytes_per_sec,
        );
        section.duration(
            "tls_handshake_timeout_secs",
            &mut self.tls_handshake_timeout,
        );
        section.finish();
    }
}
