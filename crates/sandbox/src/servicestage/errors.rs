//! Errors of ServiceStage and of the API gateway in front of it. Codes:
//! docs/apis/servicestage.md, "Codes". The texts are the sandbox's own.

use http::StatusCode;
use serde_json::json;

use crate::message::Response;

/// Builds an error of ServiceStage, with `error_message`.
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    Response::json(
        status,
        json!({"error_code": format!("SVCSTG.{code}"), "error_message": message}),
    )
}

/// Builds an error of the API gateway, with `error_msg` and a request id that is added
/// later.
pub fn gateway(status: StatusCode, code: &str, message: &str) -> Response {
    Response::json(
        status,
        json!({"error_code": format!("APIGW.{code}"), "error_msg": message}),
    )
}

/// The body or the query is invalid.
pub fn invalid(message: impl AsRef<str>) -> Response {
    refusal(StatusCode::BAD_REQUEST, "00100400", message.as_ref())
}

/// An environment, application, component or add-on does not exist: 401, not 404, as
/// seen by another official client (docs/apis/servicestage.md, "Operations").
pub fn object_not_found() -> Response {
    refusal(
        StatusCode::UNAUTHORIZED,
        "00100401",
        "The object does not exist.",
    )
}

/// Another kind of resource does not exist: its pages document 404.
pub fn resource_not_found() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "00100401",
        "The object does not exist.",
    )
}

/// Components prevent a deletion.
pub fn has_components() -> Response {
    refusal(
        StatusCode::BAD_REQUEST,
        "00100402",
        "Components are still deployed.",
    )
}

/// Another job is running. Status and code are those of the fixture
/// `BatchOperateComponents.json`.
pub fn busy() -> Response {
    refusal(
        StatusCode::CONFLICT,
        "00100402",
        "Another operation is under way.",
    )
}

/// Invalid values with a code of their own: always 400.
pub fn bad_value(code: &str, message: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, code, message)
}

/// Unknown action.
pub fn unknown_action() -> Response {
    bad_value("00100418", "The action is not defined.")
}

/// Unknown path, or wrong method.
pub fn unknown_api() -> Response {
    gateway(
        StatusCode::NOT_FOUND,
        "0101",
        "The API does not exist or has not been published in the environment.",
    )
}
