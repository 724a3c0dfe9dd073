//! What the commands that call a gateway share.
//!
//! In reading order: `options` has the arguments of a connection, `gateway` connects,
//! `reflection` reads the services and types of the gateway, `names` finds an rpc or a type by a
//! short name, `request` reads JSON into a message, `proto_json` writes messages as JSON,
//! `resource_name` finds the names of resources in them, `comments` and `rules` read comments and
//! annotations, `failure` describes the status of a failed call, `diagnosis` says why a gateway
//! cannot be reached, `exit_code` has the exit codes.

pub(super) mod comments;
mod diagnosis;
pub(super) mod duration;
pub(super) mod exit_code;
pub(super) mod failure;
pub(super) mod gateway;
pub(super) mod names;
pub(super) mod options;
pub(super) mod proto_json;
pub(super) mod reflection;
pub(super) mod request;
pub(super) mod resource_name;
pub(super) mod rules;
pub(super) mod text;

/// Reads a variable of the environment; one that is empty counts as unset.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
