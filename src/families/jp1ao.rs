//! Hitachi JP1/Automatic Operation, and Ops Center Automator, which has the same API.
//! Source: docs/apis/jp1ao.md.

mod error_mapping;
mod property_check;

use crate::upstream::family::Family;

/// The family `jp1ao`. Its dialects are versions: 10 lacks most mutating operations, 11 has
/// another path for one action. Source: docs/apis/jp1ao.md, "Version differences".
pub static FAMILY: Family = Family {
    name: "jp1ao",
    dialects: &["v12", "v11", "v10"],
    fault: error_mapping::fault,
    error_status: error_mapping::error_status,
    // The paths of the protos begin with it.
    endpoint_suffixes: &["/Automation/v1"],
    // Source: docs/apis/jp1ao.md, "Authentication and transport".
    credential_kinds: &["passthrough", "none", "token", "basic", "hsso"],
    catalog_type: None,
    bare_project_names: false,
    // Required. Source: docs/apis/jp1ao.md, "Authentication and transport".
    headers: &[("accept", "application/json")],
    // Required too: `en`, `ja` or `zh`; anything else means English.
    accept_language: Some("en"),
    redirect_anchor: None,
    correlation: None,
    request_id_headers: &["x-request-id"],
    probe: "/Automation/v1/configuration/version",
    not_processed: &[],
    checkers: &[("property-definitions", property_check::check)],
};
