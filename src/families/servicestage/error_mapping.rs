//! The error mapping of ServiceStage, and of the API gateway and the IAM in front of it.
//! Source: docs/apis/servicestage.md, "Body shapes", "Codes" and "Mapping to gRPC".

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tonic::Code;

use crate::error::{Fault, HINT};
use crate::families::common::{self, endpoint_hint, fault_message, is_transient};
use crate::families::error_body::{clock_hint, http_reason, json, member, metadata, plain_message};
use crate::families::error_markers::{error_object, named_status};
use crate::families::error_shapes;
use crate::http_client::retry_after::retry_after;
use crate::upstream::family::FaultContext;
use drawbridge_transcoder::call::Reply;
use drawbridge_transcoder::family::Evidence;

/// The object does not exist; sent with HTTP 401.
/// Source: docs/apis/servicestage.md, "Mapping to gRPC".
const OBJECT_NOT_FOUND: &str = "SVCSTG.00100401";
/// IAM authentication failed: a bad or expired token, or a wrong signature.
const IAM_REJECTED: &str = "APIGW.0301";
/// Application authentication failed.
const APP_REJECTED: &str = "APIGW.0303";
/// `RetryInfo` of a 429 without `Retry-After`. An estimate: the API gateway counts at least
/// per second.
const RETRY_AFTER_THROTTLING: Duration = Duration::from_secs(1);

/// Returns the gRPC code of a ServiceStage code that is more specific than the HTTP status.
fn code_of_reason(reason: &str) -> Option<Code> {
    Some(match reason.strip_prefix("SVCSTG.")? {
        // Not found: object, application, component, request, environment,
        // instance, load balancer, job, release, snapshot, template image.
        "00100401" | "00100403" | "00100404" | "00100408" | "00100411" | "00100412"
        | "00100424" | "00100429" | "00100433" | "00100436" | "00100438" => Code::NotFound,
        // In use: version, name of the environment, name of the application.
        "00100441" | "00100449" | "00100458" => Code::AlreadyExists,
        // Components are still deployed; no base resource; no artifact.
        "00100402" | "00100422" | "00100425" => Code::FailedPrecondition,
        _ => return None,
    })
}

/// The values of an error body, of any of the producers.
#[derive(Default)]
struct ErrorBody {
    reason: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
}

/// Maps an error reply.
pub(super) fn fault(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    read(context, reply, SystemTime::now())
}

fn read(context: &FaultContext<'_>, reply: &Reply, now: SystemTime) -> Fault {
    let json = json(reply);
    let other = json.as_ref().map(error_shapes::read).unwrap_or_default();
    let body = json.as_ref().map(error_body).unwrap_or_default();
    let status = reply.status.as_u16();
    let reason = body.reason.unwrap_or_else(|| http_reason(reply.status));
    let code = code(context, reply, &reason);
    let message = match body.message {
        // Not HTML: it may contain names and patterns in `<...>`.
        Some(own) if !reply.status.is_redirection() => plain_message(&own),
        other => fault_message(reply, other),
    };
    let clock = match status {
        401 | 403 if code != Code::NotFound => clock_hint(&reply.headers, now),
        _ => None,
    };
    let retry_after = retry_after(reply, now);
    Fault {
        code,
        // Another signature fails too, and five consecutive failures lock the key.
        is_unrelated: false,
        credential_rejected: status == 401
            && code == Code::Unauthenticated
            && reason != APP_REJECTED
            && !is_signature_error(&reason, &message),
        reason,
        domain: "servicestage.huaweicloud",
        message,
        http_status: status,
        request_id: (header(reply, "x-request-id").or(body.request_id))
            .or_else(|| header(reply, "x-iam-trace-id"))
            .or(other.request_id),
        retry_after: match status {
            429 => retry_after.or(Some(RETRY_AFTER_THROTTLING)),
            _ => retry_after,
        },
        // Not 503: a load balancer can send it for a job that has started. The official SDK
        // retries 429 only.
        not_processed: status == 429,
        transient: is_transient(reply.status),
        fields: Vec::new(),
        metadata: metadata([
            (HINT, clock.or_else(|| endpoint_hint(reply.status))),
            ("error_detail", body.detail.map(|text| plain_message(&text))),
        ]),
        locale: None,
        in_success: false,
    }
}

/// Reads the values from the top level of the body, else from any object one level below.
fn error_body(body: &Value) -> ErrorBody {
    let inner = body.as_object().into_iter().flat_map(|o| o.values());
    let inner = inner.filter(|value| value.is_object());
    std::iter::once(body)
        .chain(inner)
        .map(|value| ErrorBody {
            reason: member(value, &["error_code", "errorCode", "code"])
                .filter(|reason| !reason.contains(char::is_whitespace)),
            message: member(
                value,
                &[
                    "error_message",
                    "error_msg",
                    "errorMessage",
                    "errorMsg",
                    "message",
                ],
            ),
            detail: member(value, &["error_detail", "detail"]),
            request_id: member(body, &["request_id"]).or_else(|| member(value, &["request_id"])),
        })
        .find(|found| found.reason.is_some() || found.message.is_some())
        .unwrap_or_default()
}

/// Recognizes an error body in a success, of any of the producers.
pub(super) fn error_status(body: &[u8], evidence: Evidence<'_>) -> Option<u16> {
    let object = error_object(body, evidence)?;
    let error = error_body(&object);
    match error.reason.as_deref().and_then(code_of_reason) {
        // Their codes are mapped from these statuses.
        Some(Code::AlreadyExists) => return Some(409),
        Some(_) => return Some(400),
        None => {}
    }
    let is_code = |reason: &String| reason.contains('.');
    if error.reason.as_ref().is_some_and(is_code) && error.message.is_some() {
        let values = std::iter::once(&object).chain(object.get("error"));
        return Some(named_status(values, &["code", "error_code"]));
    }
    common::error_status(body, evidence)
}

fn code(context: &FaultContext<'_>, reply: &Reply, reason: &str) -> Code {
    let of_reason = code_of_reason(reason);
    match (reply.status.as_u16(), of_reason) {
        (400, Some(code)) => code,
        (409, Some(Code::AlreadyExists)) => Code::AlreadyExists,
        (401, _) if reason == OBJECT_NOT_FOUND => Code::NotFound,
        // The region does not offer the API.
        (404, _) if matches!(reason, "APIGW.0101" | "APIGW.0103") => Code::Unimplemented,
        // In use.
        (409, _) if context.rpc.starts_with("Delete") => Code::FailedPrecondition,
        (409, _) => Code::Aborted,
        (414 | 494, _) => Code::InvalidArgument,
        // Source of these two: docs/apis/servicestage.md, "Mapping to gRPC".
        (504, _) => Code::DeadlineExceeded,
        (300..=303 | 305..=399, _) => Code::Unavailable,
        _ => common::code(context, reply),
    }
}

/// Returns whether a rejection is about a signature, not about a token.
fn is_signature_error(reason: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    reason == IAM_REJECTED
        && ["aksk", "ak/sk", "signature", "secretkey", "x-sdk-date"]
            .iter()
            .any(|part| message.contains(part))
}

fn header(reply: &Reply, name: &str) -> Option<String> {
    let text = reply.headers.get(name)?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
