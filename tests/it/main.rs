//! Whole paths: a gRPC client, a real gateway on port 0, and an upstream that
//! says what it saw: a recorder, the sandbox, or a real Heat.

mod support;

mod check;
mod environment;
mod expiry;
mod faults;
mod files;
mod first_run;
mod fixtures;
mod heat;
mod heat_dialects;
mod heat_life;
mod heat_stacks;
mod jp1ao;
mod jp1ao_python;
mod jp1ao_sandbox;
mod large;
mod layers;
mod logs;
mod operations;
mod own_api;
mod paging;
mod readme;
mod real_heat;
mod resolve;
mod sandbox;
mod seeds;
mod server;
mod servicestage;
mod servicestage_sdk;
mod signer;
mod terminal;
mod terminal_job;
mod terminal_stack;
mod terminal_task;
mod watch;
mod watch_stack;
