//! Huawei Cloud ServiceStage v3.

mod error_mapping;

use crate::upstream::family::Family;

/// The family `servicestage`. It has no dialects: regions that lack an operation
/// answer `APIGW.0101`.
pub static FAMILY: Family = Family {
    name: "servicestage",
    dialects: &[],
    fault: error_mapping::fault,
    // The paths of the protos begin with the version.
    endpoint_suffixes: &["/v3/{project_id}/cas", "/v3/{project_id}", "/v3"],
    // Its endpoint is configured per region: IAM's catalog is not relied upon.
    catalog_type: None,
    // The project of a region has the region's name, in the user's own domain.
    // Source: Identity and Access Management API, "Obtaining a user token".
    bare_project_names: true,
    // The manual asks for the content type on every call, and the official SDK
    // sends and signs it without a body too.
    headers: &[
        ("accept", "application/json"),
        ("content-type", "application/json"),
    ],
    accept_language: None,
    redirect_anchor: None,
    request_id_headers: &["x-request-id", "x-iam-trace-id"],
    // No call is free of credentials; a refusal shows as well that it is there.
    probe: "/",
    login_check: Some(("/v3/{project_id}/cas/environments", "limit=1")),
    checkers: &[],
};
