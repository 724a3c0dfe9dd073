//! What Heat's errors mean.
//!
//! A Heat error is told by `error.type`, the class of the exception in the
//! server; the HTTP status alone says too little (`InvalidRestrictedAction` is a
//! 500). Source of the classes: `FaultWrapper.error_map` of
//! heat/api/middleware/fault.py, and heat/common/exception.py. Around Heat there
//! are the token middleware, the router, and the gateways of those who host it,
//! each with bodies of its own.

use std::time::SystemTime;

use http::StatusCode;
use serde_json::Value;
use tonic::Code;

use super::FAMILY;
use crate::error::{Fault, HINT};
use crate::families::common::{self, is_transient, not_processed, redirect_hint, said};
use crate::families::error_body::{http_reason, json, member, metadata, retry_after, verbatim};
use crate::upstream::family::FaultContext;
use drawbridge_transcoder::call::{Idempotency, Reply};

/// Classes of which a 400 says more than "invalid".
const STATE_FORBIDS: &[&str] = &[
    // The resource takes no signal.
    "ResourceActionNotSupported",
    // The service behind the resource is not there.
    "ResourceTypeUnavailable",
    // The server wants a user's name and password for deferred work.
    "MissingCredentialError",
    "InvalidRestrictedAction",
];

/// Limits: a body over 1 MiB, a template over 512 KiB, too many resources.
const LIMITS: &[&str] = &[
    "RequestLimitExceeded",
    "DownloadLimitExceeded",
    "StackResourceLimitExceeded",
];

/// An error body, of whichever producer.
#[derive(Debug, Default, PartialEq)]
struct Words {
    /// Heat's `error.type`, without the suffix of exceptions that crossed its bus.
    class: Option<String>,
    /// A stable word of other producers.
    reason: Option<String>,
    title: Option<String>,
    message: Option<String>,
    /// `message` is the generic sentence for the status.
    generic: bool,
    /// The router's body: no such route.
    router: bool,
}

/// Reads an error reply.
pub(super) fn fault(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    let words = json(reply).as_ref().map(words).unwrap_or_default();
    let class = words.class.as_deref();
    let code = code(context, reply, &words);
    let lost = class == Some("MessagingTimeout");
    let undelivered = class == Some("MessageDeliveryFailure");
    let torn = is_torn(reply.status, &words);
    let hint = hint(context, reply.status, &words, code);
    Fault {
        code,
        reason: (words.class.clone().or(words.reason)).unwrap_or_else(|| http_reason(reply.status)),
        domain: FAMILY.name,
        message: match words.message {
            // Heat's own, which may name a `<unicode string>` of YAML.
            Some(own) if words.class.is_some() => verbatim(&own),
            other => said(reply, other),
        },
        http_status: reply.status.as_u16(),
        request_id: FAMILY.request_id(&reply.headers),
        retry_after: retry_after(&reply.headers, SystemTime::now()),
        not_processed: undelivered || not_processed(reply),
        // Not ActionInProgress: an action takes minutes, a retry here seconds.
        transient: lost || undelivered || torn || is_transient(reply.status),
        credential_rejected: reply.status == StatusCode::UNAUTHORIZED,
        fields: Vec::new(),
        metadata: metadata([
            (HINT, hint),
            ("title", words.title),
            ("dialect", Some(context.dialect.to_owned())),
        ]),
        locale: None,
    }
}

/// Reads the body, most telling shape first. Traces are never looked at.
fn words(body: &Value) -> Words {
    let title = member(body, &["title"]);
    if let Some(error @ Value::Object(_)) = body.get("error") {
        // Heat's own, and the same of Rackspace with a `details`.
        if let Some(class) = member(error, &["type"]) {
            let own = member(error, &["message"]);
            let explanation = member(body, &["explanation"]);
            return Words {
                class: Some(class.strip_suffix("_Remote").unwrap_or(&class).to_owned()),
                title,
                generic: own.is_none() || own == explanation,
                message: own.or(explanation),
                ..Words::default()
            };
        }
        // The token middleware and Keystone.
        let title = member(error, &["title"]);
        return Words {
            reason: title.as_deref().map(|t| t.replace(' ', "")),
            message: member(error, &["message"]),
            title,
            ..Words::default()
        };
    }
    // IAM and the API gateway in front of RTS.
    if let Some(reason) = member(body, &["error_code", "errorCode"]) {
        return Words {
            reason: Some(reason),
            message: member(body, &["error_msg", "error_message", "message"]),
            ..Words::default()
        };
    }
    // Rackspace's named faults: `{"itemNotFound": {"code": 404, "message": "..."}}`.
    if let Some((name, only @ Value::Object(_))) = body.as_object().and_then(|o| o.iter().next())
        && only.get("code").is_some()
    {
        return Words {
            reason: Some(name.clone()),
            message: member(only, &["message", "details"]),
            ..Words::default()
        };
    }
    // The router's, where `code` is a text: `404 Not Found`.
    Words {
        router: title.is_some() && body.get("code").is_some_and(Value::is_string),
        message: member(body, &["message", "explanation"]),
        title,
        ..Words::default()
    }
}

/// The gRPC code: of the class if that is known, else of the HTTP status.
fn code(context: &FaultContext<'_>, reply: &Reply, words: &Words) -> Code {
    let class = words.class.as_deref().unwrap_or_default();
    let no_route =
        words.router || matches!(words.reason.as_deref(), Some("APIGW.0101" | "APIGW.0103"));
    match (reply.status.as_u16(), class) {
        (400, "NotSupported") if is_switched_off(words.message.as_deref()) => Code::Unimplemented,
        (400, "NotSupported") => Code::FailedPrecondition,
        (400, "StackExists") => Code::AlreadyExists,
        (400 | 500, class) if STATE_FORBIDS.contains(&class) => Code::FailedPrecondition,
        (400 | 403 | 500, class) if LIMITS.contains(&class) => Code::ResourceExhausted,
        (404, _) if is_torn(reply.status, words) => match context.idempotency {
            Idempotency::NonIdempotent => Code::Aborted,
            _ => Code::Unavailable,
        },
        // It is in the template, but was not created yet.
        (404, "ResourceNotAvailable") => Code::FailedPrecondition,
        (404, "") if no_route && context.dialect_optional => Code::Unimplemented,
        (409, "StackExists") => Code::AlreadyExists,
        (409, "ActionInProgress") => Code::Aborted,
        // Rackspace: a size or a rate, with or without a word on when to come back.
        (413, _) => Code::ResourceExhausted,
        (422, _) => Code::FailedPrecondition,
        (500, "RemoteError") if is_in_use(context) => Code::FailedPrecondition,
        (500, "MessageDeliveryFailure") => Code::Unavailable,
        // The engine was asked and did not answer in time: it may act yet.
        (500, "MessagingTimeout") if context.idempotency == Idempotency::NonIdempotent => {
            Code::Unknown
        }
        (500, "MessagingTimeout") => Code::Unavailable,
        _ => common::code(context, reply),
    }
}

/// Whether an error of the database says that something still refers to the config
/// that is to be deleted: Heat of Mitaka, which RTS is, does not look first. Source:
/// `delete_software_config` of heat/engine/service_software_config.py, stable/mitaka.
fn is_in_use(context: &FaultContext<'_>) -> bool {
    context.dialect == "rts" && context.rpc == "DeleteSoftwareConfig"
}

/// Whether a `NotSupported` is about a feature that is switched off, which no
/// change of state helps. Source: `stack_abandon`, `create_stack` and
/// `_validate_resource_type` of heat/engine/service.py.
fn is_switched_off(message: Option<&str>) -> bool {
    let message = message.unwrap_or_default();
    ["Stack Abandon", "Stack Adopt", "hidden"]
        .iter()
        .any(|feature| message.contains(feature))
}

/// Whether Heat has come upon a row that went while it read the stack: nothing is
/// missing, a moment later it answers. Observed of a GET of a stack, with and
/// without outputs, while its resources are being replaced; source:
/// `resource_prop_data_get` of heat/db/api.py.
fn is_torn(status: StatusCode, words: &Words) -> bool {
    let message = words.message.as_deref().unwrap_or_default();
    status == StatusCode::NOT_FOUND
        && words.class.as_deref() == Some("NotFound")
        && message.starts_with("ResourcePropertiesData with id ")
}

/// What Heat's own words leave out.
fn hint(
    context: &FaultContext<'_>,
    status: StatusCode,
    words: &Words,
    code: Code,
) -> Option<String> {
    let hint = match (status.as_u16(), words.class.as_deref()) {
        (300, _) => "the endpoint has no version that the upstream knows: it should end in /v1",
        (404, None) if words.router && code == Code::Unimplemented => {
            "this upstream does not offer the operation"
        }
        (404, None) if words.router => {
            "the upstream knows no such path: check the endpoint in the gateway's configuration"
        }
        (403, Some("HTTPForbidden" | "InvalidTenant")) => {
            "the project in the path must be the token's own"
        }
        (_, Some("MessagingTimeout")) if context.idempotency == Idempotency::NoSideEffects => {
            "heat's engine did not answer in time"
        }
        (_, Some("MessagingTimeout")) => {
            "heat's engine did not answer in time and may have acted, or may act yet"
        }
        (500, Some("RemoteError")) if is_in_use(context) => "a deployment may still refer to it",
        (400, Some(_)) if words.generic => "heat does not say what is wrong with the request",
        (500, Some(_)) if words.generic => "heat does not say what happened; its log does",
        _ => return redirect_hint(status),
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests;
