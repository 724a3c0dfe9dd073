//! The second test stage, with software of others: OpenStack's Heat and Keystone, Huawei's
//! SDK, Python clients generated from the protos, curl, openstacksdk, and the official clients
//! of Connect and gRPC-Web in Node and Chromium, which the page is tested in, too.
//!
//! `cargo test --test real_systems` runs it; plain `cargo test` does not build it.
//! It needs Python 3.11 or newer, curl, Node.js 20 with npm, Chromium and both package indexes; it
//! installs pinned packages below `target/`, and as root on Debian Chromium. A missing requirement
//! is a failure; nothing is skipped.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests/it uses the rest")]
mod support;

mod browser;
mod configuration;
mod heat;
mod jp1ao_python;
mod page;
mod protos;
mod python;
mod servicestage_sdk;
mod servicestage_signer;
