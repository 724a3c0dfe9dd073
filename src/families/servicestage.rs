//! Huawei Cloud ServiceStage v3. Source: docs/apis/servicestage.md.

mod error_mapping;

use crate::upstream::family::Family;

/// The family `servicestage`. It has no dialects: a region that lacks an operation responds
/// `APIGW.0101`.
pub static FAMILY: Family = Family {
    name: "servicestage",
    dialects: &[],
    fault: error_mapping::fault,
    error_status: error_mapping::error_status,
    // The paths of the protos begin with the version.
    endpoint_suffixes: &["/v3/{project_id}/cas", "/v3/{project_id}", "/v3"],
    // The endpoint of a region is configured: IAM's catalog may lack the service.
    // Source: docs/apis/servicestage.md, "Authentication".
    credential_kinds: &["passthrough", "none", "token", "keystone", "ak_sk"],
    catalog_type: None,
    // The project of a region has the region's name, in the user's own domain.
    // Source: docs/apis/servicestage.md, "Token".
    bare_project_names: true,
    // The manual requires the content type on every call; the official SDK sends and signs
    // it without a body too.
    headers: &[
        ("accept", "application/json"),
        ("content-type", "application/json"),
    ],
    accept_language: None,
    redirect_anchor: None,
    correlation: None,
    request_id_headers: &["x-request-id", "x-iam-trace-id"],
    // All calls need credentials; a rejection is a response too.
    probe: "/",
    not_processed: &[],
    checkers: &[],
};
