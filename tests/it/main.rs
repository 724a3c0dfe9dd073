//! End-to-end tests: a gRPC client, a gateway on port 0, and an upstream that
//! records what it saw, or the sandbox. They need nothing but the crate registry;
//! `tests/real_systems` is the stage that needs more.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin_explorer;
mod admin_page;
mod annotations;
mod browsers;
mod check;
mod citations;
mod cli;
mod cli_docs;
mod command_call;
mod command_health;
mod command_watch;
mod cut_off;
mod drain;
mod environment;
mod expiry;
mod faults;
mod files;
mod fixtures;
mod health;
mod heat_dialects;
mod http1;
mod identity;
mod jp1ao;
mod jp1ao_sandbox;
mod large;
mod layers;
mod logins;
mod logs;
mod misconfiguration;
mod operations;
mod operator;
mod own_api;
mod own_api_selection;
mod own_paging;
mod own_watch;
mod paging;
mod policy;
mod protocols;
mod protos;
mod quickstart;
mod readme;
mod reload;
mod resolve;
mod responses;
mod rotation;
mod sandbox;
mod seeds;
mod server;
mod servicestage;
mod shared_limits;
mod terminal;
mod terminal_job;
mod terminal_prompt;
mod terminal_stack;
mod terminal_task;
#[cfg(unix)]
mod terminal_view;
mod watch;
mod watch_stack;
