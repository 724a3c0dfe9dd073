//! What ServiceStage's errors mean, and those of the API gateway and the IAM in
//! front of it.
//!
//! Source of the codes: ServiceStage API reference, "Error codes"; API Gateway
//! user guide, "Error codes". Of the shapes: the same, the official SDK and
//! captures of it.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tonic::Code;

use crate::error::{Fault, HINT};
use crate::families::common::{self, is_transient, redirect_hint, said};
use crate::families::error_body::{
    clock_hint, http_reason, json, member, metadata, retry_after, verbatim,
};
use crate::upstream::family::FaultContext;
use drawbridge_transcoder::call::Reply;

/// The object is not there, which is answered with HTTP 401. Source: the
/// vendor's Terraform provider, which reads it so.
const OBJECT_NOT_FOUND: &str = "SVCSTG.00100401";
/// IAM authentication failed: a bad or expired token, or a wrong signature.
const IAM_REFUSED: &str = "APIGW.0301";
/// Application authentication failed.
const APP_REFUSED: &str = "APIGW.0303";
/// When to try again after throttling that does not say: the gateway counts per
/// second at the least. An estimate of ours.
const AFTER_THROTTLING: Duration = Duration::from_secs(1);

/// What a ServiceStage code says that its HTTP status does not.
fn meaning(reason: &str) -> Option<Code> {
    Some(match reason.strip_prefix("SVCSTG.")? {
        // Not found: object, application, component, request, environment,
        // instance, load balancer, job, release, snapshot, template image.
        "00100401" | "00100403" | "00100404" | "00100408" | "00100411" | "00100412"
        | "00100424" | "00100429" | "00100433" | "00100436" | "00100438" => Code::NotFound,
        // The version, the environment's name, the application's name are in use.
        "00100441" | "00100449" | "00100458" => Code::AlreadyExists,
        // Components are deployed yet; no base resource; no artifact.
        "00100402" | "00100422" | "00100425" => Code::FailedPrecondition,
        _ => return None,
    })
}

/// An error body, of whichever producer.
#[derive(Default)]
struct Words {
    reason: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
}

/// Reads an error reply.
pub(super) fn fault(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    read(context, reply, SystemTime::now())
}

fn read(context: &FaultContext<'_>, reply: &Reply, now: SystemTime) -> Fault {
    let words = json(reply).as_ref().map(words).unwrap_or_default();
    let status = reply.status.as_u16();
    let reason = words.reason.unwrap_or_else(|| http_reason(reply.status));
    let code = code(context, reply, &reason);
    let said = match words.message {
        // Names and patterns in it may stand in `<...>`: JSON holds no HTML.
        Some(own) if !reply.status.is_redirection() => verbatim(&own),
        other => said(reply, other),
    };
    let clock = match status {
        401 | 403 if code != Code::NotFound => clock_hint(&reply.headers, now),
        _ => None,
    };
    let retry_after = retry_after(&reply.headers, now);
    Fault {
        code,
        // A wrong signature stays wrong, and five in a row lock the key.
        credential_rejected: status == 401
            && code == Code::Unauthenticated
            && reason != APP_REFUSED
            && !is_signature(&reason, &said),
        reason,
        domain: "servicestage.huaweicloud",
        message: said,
        http_status: status,
        request_id: (header(reply, "x-request-id").or(words.request_id))
            .or_else(|| header(reply, "x-iam-trace-id")),
        retry_after: match status {
            429 => retry_after.or(Some(AFTER_THROTTLING)),
            _ => retry_after,
        },
        // Only throttling says so for sure: a 503 may be a load balancer's, of a job
        // that was started. Source: the SDK, which repeats 429 alone if anything.
        not_processed: status == 429,
        transient: is_transient(reply.status),
        fields: Vec::new(),
        metadata: metadata([
            (HINT, clock.or_else(|| redirect_hint(reply.status))),
            ("error_detail", words.detail.map(|text| verbatim(&text))),
        ]),
        locale: None,
    }
}

/// Reads the body: at its top, else one level down in any object member.
fn words(body: &Value) -> Words {
    let inner = body.as_object().into_iter().flat_map(|o| o.values());
    let inner = inner.filter(|value| value.is_object());
    std::iter::once(body)
        .chain(inner)
        .map(|value| Words {
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
        .find(|words| words.reason.is_some() || words.message.is_some())
        .unwrap_or_default()
}

fn code(context: &FaultContext<'_>, reply: &Reply, reason: &str) -> Code {
    let meaning = meaning(reason);
    match (reply.status.as_u16(), meaning) {
        (400, Some(code)) => code,
        (409, Some(Code::AlreadyExists)) => Code::AlreadyExists,
        (401, _) if reason == OBJECT_NOT_FOUND => Code::NotFound,
        // The region does not offer the API.
        (404, _) if matches!(reason, "APIGW.0101" | "APIGW.0103") => Code::Unimplemented,
        // In use.
        (409, _) if context.rpc.starts_with("Delete") => Code::FailedPrecondition,
        (409, _) => Code::Aborted,
        (413 | 414 | 494, _) => Code::InvalidArgument,
        // Source of these two: the mapping of issue 4.
        (504, _) => Code::DeadlineExceeded,
        (300..=399, _) => Code::Unavailable,
        _ => common::code(context, reply),
    }
}

/// Whether a refusal is about a signature, and not about a token.
fn is_signature(reason: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    reason == IAM_REFUSED
        && ["aksk", "ak/sk", "signature", "secretkey", "x-sdk-date"]
            .iter()
            .any(|word| message.contains(word))
}

fn header(reply: &Reply, name: &str) -> Option<String> {
    let text = reply.headers.get(name)?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
