//! OpenStack Heat Orchestration v1, and what others made of it: Open Telekom
//! Cloud's RTS and Rackspace Cloud Orchestration.

mod error_mapping;

use crate::upstream::family::Family;

/// Heat as OpenStack publishes it.
pub const OPENSTACK: &str = "openstack";
/// Resource Template Service of Open Telekom Cloud, a Heat of about release 6
/// (Mitaka). Source: the template versions and operations that its manual lists.
pub const RTS: &str = "rts";
/// Rackspace Cloud Orchestration, a Heat between Juno and Liberty. Source: the
/// span of its manual's pages.
pub const RACKSPACE: &str = "rackspace";

/// The family `heat`.
pub static FAMILY: Family = Family {
    name: "heat",
    dialects: &[OPENSTACK, RTS, RACKSPACE],
    fault: error_mapping::fault,
    // A catalog's url ends in the project, a configured one often in the version.
    endpoint_suffixes: &["/v1/{project_id}", "/v1"],
    // Rackspace's too. Source: its catalog; the manual's service-access page is wrong.
    catalog_type: Some("orchestration"),
    bare_project_names: false,
    // With any other `Accept`, 202, 302 and 404 of the router are HTML. Seen on
    // Heat 27.0.1.
    headers: &[("accept", "application/json")],
    accept_language: None,
    // Stacks have their canonical address by name and id; by either alone, Heat
    // redirects to an address as it sees itself, often an internal one.
    redirect_anchor: Some("stacks"),
    // Heat's own; then what older OpenStack and Rackspace's proxies add.
    request_id_headers: &[
        "x-openstack-request-id",
        "x-compute-request-id",
        "x-trans-id",
        "x-request-id",
    ],
    // The list of versions, without credentials.
    probe: "/",
    // Any reader may. Source: Heat's default policies.
    login_check: Some(("/v1/{project_id}/build_info", "")),
    checkers: &[],
};
