//! Heat's error mapping. Source: docs/apis/heat.md, "Body shapes" and "Causes and gRPC status".
//!
//! `error.type`, the class of the exception in the server, identifies an error; the HTTP
//! status is not precise enough (`InvalidRestrictedAction` is a 500). Source of the classes:
//! `FaultWrapper.error_map` of heat/api/middleware/fault.py, and heat/common/exception.py.
//! The token middleware, the router and the gateways of hosting providers respond with
//! bodies of their own.

use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Map, Value};
use tonic::Code;

use super::FAMILY;
use crate::error::{Fault, HINT};
use crate::families::common::{self, endpoint_hint, fault_message, is_transient, not_processed};
use crate::families::error_body::{http_reason, json, member, metadata, plain_message};
use crate::families::error_markers::{error_object, named_status, names_status};
use crate::families::error_shapes;
use crate::http_client::retry_after::retry_after;
use crate::upstream::family::FaultContext;
use drawbridge_transcoder::call::{Idempotency, Reply};
use drawbridge_transcoder::family::Evidence;

/// Classes of a 400 or 500 that mean FAILED_PRECONDITION.
const FAILED_PRECONDITION_CLASSES: &[&str] = &[
    // The resource does not accept signals.
    "ResourceActionNotSupported",
    // The service of the resource does not exist.
    "ResourceTypeUnavailable",
    // The server requires user name and password for deferred operations.
    "MissingCredentialError",
    "InvalidRestrictedAction",
];

/// Classes that mean RESOURCE_EXHAUSTED: a body over 1 MiB, a template over 512 KiB, too many
/// resources.
const LIMIT_CLASSES: &[&str] = &[
    "RequestLimitExceeded",
    "DownloadLimitExceeded",
    "StackResourceLimitExceeded",
];

/// The values of an error body, of any of the producers.
#[derive(Debug, Default, PartialEq)]
struct ErrorBody {
    /// Heat's `error.type`, without the suffix `_Remote` of exceptions from the engine.
    class: Option<String>,
    /// The error code of other producers.
    reason: Option<String>,
    title: Option<String>,
    message: Option<String>,
    /// Whether `message` is the generic text of the HTTP status.
    generic: bool,
    /// Whether it is the router's body: the route does not exist.
    router: bool,
    /// The request id, of API gateways.
    request_id: Option<String>,
}

/// Maps an error reply.
pub(super) fn fault(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    let json = json(reply);
    let other = json.as_ref().map(error_shapes::read).unwrap_or_default();
    let body = json.as_ref().map(error_body).unwrap_or_default();
    let class = body.class.as_deref();
    let code = code(context, reply, &body);
    let timed_out = class == Some("MessagingTimeout");
    let undelivered = class == Some("MessageDeliveryFailure");
    let row_deleted = is_deleted_row(reply.status, &body);
    let hint = hint(context, reply.status, &body, code);
    // The endpoint is wrong, or the operation is missing. Source: docs/apis/heat.md, "Causes and
    // gRPC status", shape B.
    let is_unrelated = reply.status == StatusCode::NOT_FOUND && body.router;
    Fault {
        code,
        reason: (body.class.clone().or(body.reason)).unwrap_or_else(|| http_reason(reply.status)),
        domain: FAMILY.name,
        message: match body.message {
            // Not HTML: it may contain the `<unicode string>` of YAML errors.
            Some(own) if body.class.is_some() => plain_message(&own),
            other => fault_message(reply, other),
        },
        http_status: reply.status.as_u16(),
        request_id: FAMILY
            .request_id(&reply.headers)
            .or(body.request_id)
            .or(other.request_id),
        retry_after: retry_after(reply, SystemTime::now()),
        not_processed: undelivered || not_processed(reply),
        // Not ActionInProgress: an action takes minutes, retries take seconds.
        transient: timed_out || undelivered || row_deleted || is_transient(reply.status),
        is_unrelated,
        credential_rejected: reply.status == StatusCode::UNAUTHORIZED,
        fields: Vec::new(),
        metadata: metadata([
            (HINT, hint),
            ("title", body.title),
            ("dialect", Some(context.dialect.to_owned())),
        ]),
        locale: None,
        in_success: false,
    }
}

/// Recognizes an error body in a success: Heat's own, and those of the token middleware, the
/// gateways of hosting providers and the router.
pub(super) fn error_status(body: &[u8], evidence: Evidence<'_>) -> Option<u16> {
    if let Some(fault) = error_object(body, Evidence::NotTheResource).filter(is_named_fault) {
        let inner = fault.as_object().into_iter().flat_map(Map::values);
        return Some(named_status(inner, &["code"]));
    }
    common::error_status(body, evidence)
}

/// Returns whether a body is one of Rackspace's named faults and nothing else:
/// `{"itemNotFound": {"code": 404, "message": "..."}}`.
fn is_named_fault(body: &Value) -> bool {
    let mut members = body.as_object().into_iter().flat_map(Map::values);
    match (members.next(), members.next()) {
        (Some(only), None) => {
            let names = ["code", "message", "details", "created"];
            let members = only.as_object();
            let is_known =
                |members: &Map<String, Value>| members.keys().all(|n| names.contains(&&**n));
            names_status(only, &["code"])
                && only.get("message").is_some()
                && members.is_some_and(is_known)
        }
        _ => false,
    }
}

/// Reads the body, the most specific format first. Tracebacks are never read.
fn error_body(body: &Value) -> ErrorBody {
    let title = member(body, &["title"]);
    if let Some(error @ Value::Object(_)) = body.get("error") {
        // Heat's own. Rackspace adds `details`.
        if let Some(class) = member(error, &["type"]) {
            let own = member(error, &["message"]);
            let explanation = member(body, &["explanation"]);
            return ErrorBody {
                class: Some(class.strip_suffix("_Remote").unwrap_or(&class).to_owned()),
                title,
                generic: own.is_none() || own == explanation,
                message: own.or(explanation),
                ..ErrorBody::default()
            };
        }
        // The token middleware and Keystone.
        let title = member(error, &["title"]);
        return ErrorBody {
            reason: title.as_deref().map(|t| t.replace(' ', "")),
            message: member(error, &["message"]),
            title,
            ..ErrorBody::default()
        };
    }
    // IAM and the API gateway in front of RTS.
    if let Some(reason) = member(body, &["error_code", "errorCode"]) {
        return ErrorBody {
            reason: Some(reason),
            message: member(body, &["error_msg", "error_message", "message"]),
            request_id: member(body, &["request_id"]),
            ..ErrorBody::default()
        };
    }
    // Rackspace's named faults: `{"itemNotFound": {"code": 404, "message": "..."}}`.
    if let Some((name, only @ Value::Object(_))) = body.as_object().and_then(|o| o.iter().next())
        && names_status(only, &["code"])
    {
        return ErrorBody {
            reason: Some(name.clone()),
            message: member(only, &["message", "details"]),
            ..ErrorBody::default()
        };
    }
    // The router, whose `code` is a string: `404 Not Found`.
    ErrorBody {
        router: title.is_some()
            && body.get("code").is_some_and(Value::is_string)
            && names_status(body, &["code"]),
        message: member(body, &["message", "explanation"]),
        request_id: member(body, &["request_id"]),
        title,
        ..ErrorBody::default()
    }
}

/// Returns the gRPC code of the class, else of the HTTP status.
fn code(context: &FaultContext<'_>, reply: &Reply, body: &ErrorBody) -> Code {
    let class = body.class.as_deref().unwrap_or_default();
    let no_route =
        body.router || matches!(body.reason.as_deref(), Some("APIGW.0101" | "APIGW.0103"));
    match (reply.status.as_u16(), class) {
        (400, "NotSupported") if is_disabled_feature(body.message.as_deref()) => {
            Code::Unimplemented
        }
        (400, "NotSupported") => Code::FailedPrecondition,
        (400, "StackExists") => Code::AlreadyExists,
        (400 | 500, class) if FAILED_PRECONDITION_CLASSES.contains(&class) => {
            Code::FailedPrecondition
        }
        (400 | 403 | 500, class) if LIMIT_CLASSES.contains(&class) => Code::ResourceExhausted,
        (404, _) if is_deleted_row(reply.status, body) => match context.idempotency {
            Idempotency::NonIdempotent => Code::Aborted,
            _ => Code::Unavailable,
        },
        // The resource is in the template and not created yet.
        (404, "ResourceNotAvailable") => Code::FailedPrecondition,
        (404, "") if no_route && context.dialect_optional => Code::Unimplemented,
        (409, "StackExists") => Code::AlreadyExists,
        (409, "ActionInProgress") => Code::Aborted,
        // Rackspace: a size or rate limit, with or without `Retry-After`.
        (413, _) => Code::ResourceExhausted,
        (422, _) => Code::FailedPrecondition,
        (500, "RemoteError") if is_in_use(context) => Code::FailedPrecondition,
        (500, "MessageDeliveryFailure") => Code::Unavailable,
        // The engine got the request and did not respond in time: it may still act.
        (500, "MessagingTimeout") if context.idempotency == Idempotency::NonIdempotent => {
            Code::Unknown
        }
        (500, "MessagingTimeout") => Code::Unavailable,
        _ => common::code(context, reply),
    }
}

/// Returns whether a database error means that a deployment still refers to the config to
/// delete: RTS is a Heat of Mitaka, which does not check it before. Source:
/// `delete_software_config` of heat/engine/service_software_config.py, stable/mitaka.
fn is_in_use(context: &FaultContext<'_>) -> bool {
    context.dialect == "rts" && context.rpc == "DeleteSoftwareConfig"
}

/// Returns whether a `NotSupported` is about a disabled feature, and not about the state.
/// Source: `stack_abandon`, `create_stack` and `_validate_resource_type` of
/// heat/engine/service.py.
fn is_disabled_feature(message: Option<&str>) -> bool {
    let message = message.unwrap_or_default();
    ["Stack Abandon", "Stack Adopt", "hidden"]
        .iter()
        .any(|feature| message.contains(feature))
}

/// Returns whether a 404 is about a database row that was deleted while Heat read the stack:
/// the stack exists, and the same call succeeds a moment later. Observed on GET of a stack,
/// with and without outputs, while its resources are being replaced; source:
/// `resource_prop_data_get` of heat/db/api.py.
fn is_deleted_row(status: StatusCode, body: &ErrorBody) -> bool {
    let message = body.message.as_deref().unwrap_or_default();
    status == StatusCode::NOT_FOUND
        && body.class.as_deref() == Some("NotFound")
        && message.starts_with("ResourcePropertiesData with id ")
}

/// Returns the cause or advice that Heat's message lacks.
fn hint(
    context: &FaultContext<'_>,
    status: StatusCode,
    body: &ErrorBody,
    code: Code,
) -> Option<String> {
    let hint = match (status.as_u16(), body.class.as_deref()) {
        (300, _) => "the version in the endpoint is unknown to the upstream: it should end in /v1",
        (404, None) if body.router && code == Code::Unimplemented => {
            "this upstream does not offer the operation"
        }
        (404, None) if body.router => {
            "the path does not exist: check the endpoint in the gateway's configuration"
        }
        (403, Some("HTTPForbidden" | "InvalidTenant")) => {
            "the project in the path must be the token's own"
        }
        (_, Some("MessagingTimeout")) if context.idempotency == Idempotency::NoSideEffects => {
            "heat's engine did not respond in time"
        }
        (_, Some("MessagingTimeout")) => {
            "heat's engine did not respond in time: it may have acted, or may still act"
        }
        (500, Some("RemoteError")) if is_in_use(context) => "a deployment may still refer to it",
        (400, Some(_)) if body.generic => "heat does not say what is wrong with the request",
        (500, Some(_)) if body.generic => "heat does not say what failed: its log has the cause",
        _ => return endpoint_hint(status),
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests;
