//! The refusals: ServiceStage's own and those of the API gateway in front of it.
//! Codes: `servicestage.md` (a). Texts: ours.

use http::StatusCode;
use serde_json::json;

use crate::plain::Answer;

/// ServiceStage's own shape: `error_message`.
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(
        status,
        json!({"error_code": format!("SVCSTG.{code}"), "error_message": message}),
    )
}

/// The API gateway's shape: `error_msg`, and a request id that is added later.
pub fn gateway(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(
        status,
        json!({"error_code": format!("APIGW.{code}"), "error_msg": message}),
    )
}

/// The body or the query is not what it must be.
pub fn invalid(message: impl AsRef<str>) -> Answer {
    refusal(StatusCode::BAD_REQUEST, "00100400", message.as_ref())
}

/// No such environment, application, component or add-on: 401, and not 404, as
/// another official client saw it (3, "NF").
pub fn missing() -> Answer {
    refusal(
        StatusCode::UNAUTHORIZED,
        "00100401",
        "The object does not exist.",
    )
}

/// No such thing of any other kind: their pages publish 404.
pub fn absent() -> Answer {
    refusal(
        StatusCode::NOT_FOUND,
        "00100401",
        "The object does not exist.",
    )
}

/// Components stand in the way of a deletion.
pub fn deployed() -> Answer {
    refusal(
        StatusCode::BAD_REQUEST,
        "00100402",
        "Components are still deployed.",
    )
}

/// Something else is being done to it; status and code as in the fixture
/// `BatchOperateComponents.json`.
pub fn busy() -> Answer {
    refusal(
        StatusCode::CONFLICT,
        "00100402",
        "Another operation is under way.",
    )
}

/// Bad values that have a code of their own: all are 400.
pub fn bad(code: &str, message: &str) -> Answer {
    refusal(StatusCode::BAD_REQUEST, code, message)
}

/// No such action.
pub fn no_action() -> Answer {
    bad("00100418", "The action is not defined.")
}

/// No such path, or not with this method.
pub fn no_api() -> Answer {
    gateway(
        StatusCode::NOT_FOUND,
        "0101",
        "The API does not exist or has not been published in the environment.",
    )
}
