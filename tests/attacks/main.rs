//! Attacks on the gateway as a child process: raw HTTP/2 clients and hostile upstreams. Each
//! test checks that an honest client is served meanwhile, what the attack costs at its peak,
//! and that memory and descriptors come back.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]
#![cfg(target_os = "linux")]

mod support;

mod breaker;
mod connections;
mod floods;
mod harness;
mod http1;
mod idle_memory;
mod log;
mod memory;
mod memory_of_connections;
mod memory_of_watches;
mod readers;
mod requests;
mod streams;
