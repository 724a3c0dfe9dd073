//! One HTTP exchange. The only place that knows the HTTP client.

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use crate::error::Error;
use crate::rest::Reply;

/// How to reach an upstream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// How long connecting may last. Default: 10 s.
    pub connect_timeout: std::time::Duration,
    /// How long the upstream may be silent. Default: 100 s (Heat waits 60 s for its engine).
    pub read_timeout: std::time::Duration,
    /// Longest body read, in bytes. Default: 16 MiB.
    pub max_response_bytes: usize,
    /// Use the `HTTP_PROXY` family of variables. Default: true.
    pub proxy_from_environment: bool,
}

/// A request as it goes out.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The HTTP method.
    pub verb: Method,
    /// The whole address, encoded exactly as it is sent.
    pub url: Url,
    /// The headers; secret values are marked sensitive.
    pub headers: HeaderMap,
    /// The body, or none.
    pub body: Option<Bytes>,
}

/// A pool of connections to one upstream. Never follows redirects.
#[derive(Clone, Debug)]
pub struct Transport {
    client: reqwest::Client,
    max_response_bytes: usize,
}

impl Transport {
    /// Makes the client; connects nowhere.
    pub fn new(_settings: &Settings) -> Result<Self, String> {
        todo!()
    }

    /// Sends the request and reads the whole answer. Dropping the future closes
    /// the upstream request. Fails with `Connect`, `NoAnswer` or `TooLarge`.
    pub async fn exchange(&self, _exchange: Exchange) -> Result<Reply, Error> {
        todo!()
    }
}
