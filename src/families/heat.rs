//! OpenStack Heat Orchestration v1, and the APIs derived from it: Open Telekom Cloud's RTS
//! and Rackspace Cloud Orchestration. Source: docs/apis/heat.md.

mod error_mapping;

use crate::downstream::CorrelationHeader;
use crate::upstream::family::Family;

/// Heat as OpenStack publishes it.
pub const OPENSTACK: &str = "openstack";
/// Resource Template Service of Open Telekom Cloud, a Heat of about release 6 (Mitaka).
/// Source: docs/apis/heat.md, "Versions behind RTS and Rackspace".
pub const RTS: &str = "rts";
/// Rackspace Cloud Orchestration, a Heat between Juno and Liberty.
/// Source: docs/apis/heat.md, "Versions behind RTS and Rackspace".
pub const RACKSPACE: &str = "rackspace";

/// The family `heat`.
pub static FAMILY: Family = Family {
    name: "heat",
    dialects: &[OPENSTACK, RTS, RACKSPACE],
    fault: error_mapping::fault,
    error_status: error_mapping::error_status,
    // A catalog's URL ends in the project, a configured one often in the version.
    endpoint_suffixes: &["/v1/{project_id}", "/v1"],
    // Also in Rackspace's catalog; the service-access page of its manual is wrong.
    credential_kinds: &[
        "passthrough",
        "none",
        "token",
        "keystone",
        "rackspace",
        "ak_sk",
        "basic",
    ],
    catalog_type: Some("orchestration"),
    bare_project_names: false,
    // With any other `Accept`, the router's 202, 302 and 404 are HTML. Observed on Heat
    // 27.0.1.
    headers: &[("accept", "application/json")],
    accept_language: None,
    // The canonical path of a stack has name and id; for either alone, Heat redirects to a
    // URL with its own host name, often an internal one.
    // Source: docs/apis/heat.md, "Redirects and FindStack".
    redirect_anchor: Some("stacks"),
    // The global request id of oslo.middleware: Heat, Keystone and the services that Heat calls
    // log it. Source: docs/apis/heat.md, "Rules for every call".
    correlation: Some(CorrelationHeader {
        name: "x-openstack-request-id",
        prefix: "req-",
    }),
    // Heat's own first, then those of older OpenStack and of Rackspace's proxies.
    request_id_headers: &[
        "x-openstack-request-id",
        "x-compute-request-id",
        "x-trans-id",
        "x-request-id",
    ],
    // The list of versions needs no credentials.
    probe: "/",
    // The token middleware, before the API reads the request.
    // Source: docs/apis/heat.md, "Body shapes".
    not_processed: &[(503, "Keystone service is temporarily unavailable")],
    checkers: &[],
};
