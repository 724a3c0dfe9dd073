//! Messages and services generated from `proto/` for tests and benches.
#![allow(clippy::all, dead_code)]

include!(concat!(env!("OUT_DIR"), "/tests/api.rs"));
