//! The error mapping of APIs without a family of their own, by the rules of HTTP.

use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Map, Value};
use tonic::Code;

use crate::error::{Fault, HINT};
use crate::families::error_body::{http_reason, json, message, metadata, page_text};
use crate::families::error_markers::{STATUS, error_object, is_error, named_status};
use crate::families::error_shapes;
use crate::http_client::retry_after::retry_after;
use crate::upstream::family::{Family, FaultContext};
use drawbridge_transcoder::call::Reply;
use drawbridge_transcoder::family::Evidence;

/// The family of all other names.
pub(crate) static COMMON: Family = Family {
    name: "",
    dialects: &[],
    fault,
    error_status,
    endpoint_suffixes: &[],
    credential_kinds: &[],
    catalog_type: None,
    bare_project_names: false,
    headers: &[("accept", "application/json")],
    accept_language: None,
    redirect_anchor: None,
    correlation: None,
    request_id_headers: &["x-request-id", "x-amzn-requestid", "x-correlation-id"],
    probe: "/",
    not_processed: &[],
    checkers: &[],
};

/// Maps an error reply by its HTTP status and the common JSON error bodies.
pub(crate) fn fault(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    let body = json(reply);
    let error = body.as_ref().map(error_shapes::read).unwrap_or_default();
    let status = reply.status;
    let retry_after = retry_after(reply, SystemTime::now());
    let own_code = body.as_ref().and_then(status_code);
    let code = own_code.unwrap_or_else(|| code(context, reply));
    Fault {
        code,
        reason: error.reason.unwrap_or_else(|| http_reason(status)),
        domain: "rest",
        message: fault_message(reply, error.message),
        http_status: status.as_u16(),
        request_id: COMMON.request_id(&reply.headers).or(error.request_id),
        retry_after,
        not_processed: not_processed(reply),
        transient: is_transient(status),
        is_unrelated: false,
        credential_rejected: status == StatusCode::UNAUTHORIZED,
        fields: error.fields,
        metadata: metadata([(HINT, endpoint_hint(status))]),
        locale: None,
        in_success: false,
    }
}

/// Recognizes the common error bodies in a success: the same that `error_shapes` reads,
/// where a member says that it is an error.
pub(crate) fn error_status(body: &[u8], evidence: Evidence<'_>) -> Option<u16> {
    let body = error_object(body, evidence)?;
    let inner = body.as_object().into_iter().flat_map(Map::values);
    let values = std::iter::once(&body).chain(inner.filter(|value| value.is_object()));
    let is_error = is_error(&body, evidence) || numbered_code(&body).is_some();
    is_error.then(|| named_status(values, STATUS))
}

/// Returns the code of an HTTP status, by the comments of `google.rpc.Code`.
/// Source: googleapis, `google/rpc/code.proto`. gRPC's own table
/// (`http-grpc-status-mapping.md`) is for broken servers, not for REST errors.
pub(crate) fn code(context: &FaultContext<'_>, reply: &Reply) -> Code {
    match reply.status.as_u16() {
        // No response that the request allows.
        304 => Code::Internal,
        300..=399 => Code::FailedPrecondition,
        401 => Code::Unauthenticated,
        402 | 403 | 451 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        407 | 412 | 421 | 423 | 424 | 426 | 428 => Code::FailedPrecondition,
        408 => Code::DeadlineExceeded,
        409 if context.rpc.starts_with("Create") => Code::AlreadyExists,
        409 => Code::Aborted,
        416 => Code::OutOfRange,
        // 413 is a limit of the size, or with `Retry-After` of the rate.
        413 | 429 | 507 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        502..=504 => Code::Unavailable,
        400..=498 => Code::InvalidArgument,
        500..=599 => Code::Internal,
        _ => Code::Unknown,
    }
}

/// Returns whether the HTTP status is transient.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 502 | 503 | 504)
}

/// Returns whether the call was certainly not processed: a rate limit counts calls before
/// they are processed. A proxy adds `Retry-After` also to the 503 of a call that it has
/// forwarded; the 503s of which a family knows more are in [`Family::not_processed`].
pub(crate) fn not_processed(reply: &Reply) -> bool {
    reply.status == StatusCode::TOO_MANY_REQUESTS
}

/// Returns the message of a fault: the one found in the body, else one of the common error
/// bodies, else the body's text. A redirect has a fixed message, since its body may name an
/// internal host.
pub(crate) fn fault_message(reply: &Reply, found: Option<String>) -> String {
    if reply.status == StatusCode::NOT_MODIFIED {
        return "the upstream responded 304 Not Modified to a request without a condition"
            .to_owned();
    }
    if reply.status.is_redirection() {
        return "the upstream redirects to another URL".to_owned();
    }
    if let Some(text) = found {
        return message(&text);
    }
    match json(reply) {
        Some(body) => error_shapes::read(&body)
            .message
            .unwrap_or_else(|| error_shapes::excerpt(&body)),
        None => page_text(reply),
    }
}

/// Returns the hint for a status that concerns the endpoint, and not the resource.
pub(crate) fn endpoint_hint(status: StatusCode) -> Option<String> {
    let hint = match status.as_u16() {
        304 => "a cache in front of it is wrong",
        300..=399 => "not followed: check the endpoint in the gateway's configuration",
        421 => {
            "the server does not serve this host: check the endpoint in the gateway's \
             configuration, and the proxies in front of it"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Returns the code of a `google.rpc.Status` in JSON, with or without `{"error": ...}`.
fn status_code(body: &Value) -> Option<Code> {
    let inner = match body.get("error") {
        Some(inner @ Value::Object(_)) => inner,
        _ => body,
    };
    let name = inner.get("status").and_then(Value::as_str);
    name.and_then(named_code).or_else(|| numbered_code(inner))
}

/// Returns the code of a `google.rpc.Status` by name.
fn named_code(name: &str) -> Option<Code> {
    Some(match name {
        "CANCELLED" => Code::Cancelled,
        "UNKNOWN" => Code::Unknown,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        "NOT_FOUND" => Code::NotFound,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "FAILED_PRECONDITION" => Code::FailedPrecondition,
        "ABORTED" => Code::Aborted,
        "OUT_OF_RANGE" => Code::OutOfRange,
        "UNIMPLEMENTED" => Code::Unimplemented,
        "INTERNAL" => Code::Internal,
        "UNAVAILABLE" => Code::Unavailable,
        "DATA_LOSS" => Code::DataLoss,
        "UNAUTHENTICATED" => Code::Unauthenticated,
        _ => return None,
    })
}

/// Returns the code of a `google.rpc.Status` by number, as grpc-gateway writes it: only if
/// `code`, `message` and `details` are all there.
fn numbered_code(status: &Value) -> Option<Code> {
    status.get("details")?.as_array()?;
    status.get("message")?.as_str()?;
    match status.get("code")?.as_i64()? {
        code @ 1..=16 => Some(Code::from_i32(code as i32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::error_body::tests::reply;
    use crate::upstream::family::gateway_error_hint;
    use drawbridge_transcoder::call::Idempotency;

    fn context(rpc: &str, idempotency: Idempotency) -> FaultContext<'_> {
        FaultContext {
            dialect: "",
            rpc,
            dialect_optional: false,
            idempotency,
        }
    }

    #[test]
    fn gateway_errors_have_a_hint() {
        let (get, post) = (Idempotency::NoSideEffects, Idempotency::NonIdempotent);
        for (status, idempotency, not_processed, want) in [
            (
                502,
                get,
                false,
                "a proxy in front of it got no valid response from it; try again later",
            ),
            (
                502,
                post,
                false,
                "; the upstream may have acted: check before you repeat the call",
            ),
            (
                503,
                get,
                false,
                "it does not serve at the moment; try again later",
            ),
            (
                503,
                post,
                false,
                "; the upstream may have acted: check before you repeat the call",
            ),
            (
                503,
                post,
                true,
                "it does not serve at the moment; try again later",
            ),
            (
                504,
                get,
                false,
                "a proxy in front of it got no response from it in time; try again",
            ),
            (500, get, false, ""),
            (404, get, false, ""),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let hint = gateway_error_hint(status, idempotency, not_processed).unwrap_or_default();
            assert!(hint.contains(want), "{status} {idempotency:?}: {hint}");
            assert_eq!(hint.is_empty(), want.is_empty(), "{status}: {hint}");
        }
    }

    #[test]
    fn http_status_decides_the_code() {
        for (status, want, transient) in [
            (302, Code::FailedPrecondition, false),
            (304, Code::Internal, false),
            (400, Code::InvalidArgument, false),
            (401, Code::Unauthenticated, false),
            (403, Code::PermissionDenied, false),
            (404, Code::NotFound, false),
            (405, Code::Unimplemented, false),
            (408, Code::DeadlineExceeded, true),
            (409, Code::Aborted, false),
            (410, Code::NotFound, false),
            (412, Code::FailedPrecondition, false),
            (413, Code::ResourceExhausted, false),
            (418, Code::InvalidArgument, false),
            (421, Code::FailedPrecondition, false),
            (422, Code::InvalidArgument, false),
            (429, Code::ResourceExhausted, true),
            (499, Code::Cancelled, false),
            (500, Code::Internal, false),
            (501, Code::Unimplemented, false),
            (502, Code::Unavailable, true),
            (503, Code::Unavailable, true),
            (504, Code::Unavailable, true),
            (599, Code::Internal, false),
            (999, Code::Unknown, false),
        ] {
            let fault = fault(
                &context("GetX", Idempotency::NoSideEffects),
                &reply(status, &[], ""),
            );
            assert_eq!(fault.code, want, "{status}");
            assert_eq!(fault.transient, transient, "{status}");
            assert_eq!(fault.reason, format!("HTTP_{status}"));
            assert_eq!(fault.credential_rejected, status == 401);
            assert_eq!(fault.not_processed, status == 429);
            assert_eq!(fault.message.is_empty(), !(300..400).contains(&status));
        }
        let create = context("CreateX", Idempotency::NonIdempotent);
        assert_eq!(
            fault(&create, &reply(409, &[], "")).code,
            Code::AlreadyExists
        );
        let later = &[("retry-after", "3"), ("x-request-id", "r1")];
        for (status, code) in [(413, Code::ResourceExhausted), (503, Code::Unavailable)] {
            let fault = fault(&create, &reply(status, later, ""));
            // A proxy may add the header to the response of a call that it has forwarded.
            assert_eq!((fault.code, fault.not_processed), (code, false), "{status}");
            assert_eq!(fault.retry_after.map(|wait| wait.as_secs()), Some(3));
            assert_eq!(fault.request_id.as_deref(), Some("r1"));
        }
    }

    #[test]
    fn common_error_bodies_are_read() {
        for (body, code, reason, message, fields) in [
            (
                r#"{"error":{"code":409,"message":"exists","status":"ALREADY_EXISTS"}}"#,
                Code::AlreadyExists,
                "ALREADY_EXISTS",
                "exists",
                0,
            ),
            (
                r#"{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT","details":[
                    {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"NAME_TAKEN"},
                    {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[
                        {"field":"a","description":"b"}]}]}}"#,
                Code::InvalidArgument,
                "NAME_TAKEN",
                "bad",
                1,
            ),
            (
                r#"{"code":5,"message":"gone","details":[]}"#,
                Code::NotFound,
                "5",
                "gone",
                0,
            ),
            (r#"{"code":5,"message":"m"}"#, Code::Internal, "5", "m", 0),
            (r#"{"message":"m"}"#, Code::Internal, "HTTP_500", "m", 0),
            (
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
                Code::Internal,
                "invalid_grant",
                "expired",
                0,
            ),
            (
                r#"{"error":"it broke"}"#,
                Code::Internal,
                "HTTP_500",
                "it broke",
                0,
            ),
            (
                r#"{"type":"https://x.test/low","title":"Low","detail":"too low","status":500,
                    "errors":[{"pointer":"/n","detail":"below 1"},{"pointer":"/m"},7]}"#,
                Code::Internal,
                "https://x.test/low",
                "too low",
                2,
            ),
            (
                r#"{"type":"about:blank","title":"Not Good"}"#,
                Code::Internal,
                "HTTP_500",
                "Not Good",
                0,
            ),
            (
                r#"{"errors":["first","second"]}"#,
                Code::Internal,
                "HTTP_500",
                "first; second",
                0,
            ),
            (
                r#"{"errors":[{"message":"m"}]}"#,
                Code::Internal,
                "HTTP_500",
                "m",
                0,
            ),
            // As Python writes it.
            (
                r#"{"message":"NaN is \"NaN\"","values":[NaN,-Infinity,1e400,-1.5]}"#,
                Code::Internal,
                "HTTP_500",
                "NaN is \"NaN\"",
                0,
            ),
            (
                r#"{"error":{"message":"<b>bold</b>"}}"#,
                Code::Internal,
                "HTTP_500",
                "bold",
                0,
            ),
            ("<h1>Oops</h1>", Code::Internal, "HTTP_500", "Oops", 0),
            ("[1]", Code::Internal, "HTTP_500", "[1]", 0),
            ("{\"message\":", Code::Internal, "HTTP_500", "", 0),
        ] {
            let context = context("GetX", Idempotency::NoSideEffects);
            let fault = fault(&context, &reply(500, &[], body));
            assert_eq!(fault.code, code, "{body}");
            assert_eq!(fault.reason, reason, "{body}");
            assert_eq!(fault.message, message, "{body}");
            assert_eq!(fault.fields.len(), fields, "{body}");
        }
    }

    #[test]
    fn target_of_a_redirect_is_not_in_the_fault() {
        let reply = reply(302, &[("location", "http://inside.test:8004/")], "");
        let fault = fault(&context("GetX", Idempotency::NoSideEffects), &reply);
        let debug = format!("{fault:?}");
        assert!(
            debug.contains("not followed") && !debug.contains("inside"),
            "{debug}"
        );
    }

    /// What a body is of which nothing is known, of one that lacks the resource, and of one
    /// that could be the resource, whose response declares `message` and `status`.
    #[test]
    fn error_bodies_in_a_success_are_recognized() {
        for (body, without_resource, beside_resource) in [
            (
                r#"{"error":{"code":404,"message":"m"}}"#,
                Some(404),
                Some(404),
            ),
            (r#"{"error":"it broke"}"#, Some(500), Some(500)),
            (r#"{"errors":[{"message":"m"}]}"#, Some(500), Some(500)),
            (
                r#"{"error_code":"X.1","error_msg":"m"}"#,
                Some(500),
                Some(500),
            ),
            (r#"{"code":409,"message":"m"}"#, Some(409), Some(409)),
            (
                r#"{"code":"404 Not Found","title":"t"}"#,
                Some(404),
                Some(404),
            ),
            (
                r#"{"type":"about:blank","title":"t","status":422}"#,
                Some(422),
                Some(422),
            ),
            (
                r#"{"timestamp":1,"status":503,"error":"Down","path":"/x"}"#,
                Some(503),
                Some(503),
            ),
            (r#"{"success":false,"message":"m"}"#, Some(500), Some(500)),
            // JSend, Kubernetes, Apigee, Jira, Spring, AWS, Tencent, Azure, JSON-RPC, OpenStack.
            (
                r#"{"status":"fail","data":{"name":"required"}}"#,
                Some(500),
                None,
            ),
            (
                r#"{"status":"error","message":"m","type":"x"}"#,
                Some(500),
                Some(500),
            ),
            (
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
                    "message":"m","reason":"NotFound","code":404}"#,
                Some(404),
                Some(404),
            ),
            (
                r#"{"fault":{"faultstring":"m","detail":{"errorcode":"x"}}}"#,
                Some(500),
                Some(500),
            ),
            (
                r#"{"errorMessages":["m"],"errors":{}}"#,
                Some(500),
                Some(500),
            ),
            (r#"{"exception":"a.B","message":"m"}"#, Some(500), Some(500)),
            (
                r#"{"__type":"a#ResourceNotFoundException","message":"m"}"#,
                Some(500),
                Some(500),
            ),
            (
                r#"{"Response":{"Error":{"Code":"X","Message":"m"},"RequestId":"r"}}"#,
                Some(500),
                Some(500),
            ),
            (
                r#"{"Error":{"Code":"X","Message":"m"}}"#,
                Some(500),
                Some(500),
            ),
            (r#"{"code":"NotFound","message":"m"}"#, Some(500), Some(500)),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":-32600}}"#,
                Some(500),
                Some(500),
            ),
            (
                r#"{"NeutronError":{"type":"X","message":"m"}}"#,
                Some(500),
                Some(500),
            ),
            (r#"{"errcode":40013,"errmsg":"m"}"#, Some(500), Some(500)),
            (
                r#"{"errors":[{"message":"m"}],"data":null}"#,
                Some(500),
                Some(500),
            ),
            (r#"{"isError":true,"message":"m"}"#, Some(500), Some(500)),
            (r#"{"success":"false"}"#, Some(500), None),
            // A state, if the response declares it or has other members.
            (r#"{"status":"error"}"#, Some(500), None),
            (r#"{"status":"failed"}"#, Some(500), None),
            (r#"{"status":"error","id":7}"#, None, None),
            (r#"{"status":"error","message":"m","id":7}"#, None, None),
            (r#"{"status":"running","message":"m"}"#, None, None),
            (
                r#"{"status":"success","message":"m","data":null}"#,
                None,
                None,
            ),
            (
                r#"{"kind":"Status","status":"Success","details":{}}"#,
                None,
                None,
            ),
            (r#"{"errcode":0,"errmsg":"request ok"}"#, None, None),
            (r#"{"error":{"code":0,"message":"done"}}"#, None, None),
            (r#"{"fault":true,"message":"m"}"#, None, None),
            (r#"{"lastError":{"message":"m"},"id":7}"#, None, None),
            (
                r#"{"Response":{"RequestId":"r","message":"m"}}"#,
                None,
                None,
            ),
            (r#"{"code":"CREATED","message":"m"}"#, None, None),
            (r#"{"type":"vm","title":"t","message":"m"}"#, None, None),
            // Members that the response declares, or that no error body has.
            (r#"{"status":503,"message":"m"}"#, Some(503), None),
            (r#"{"error":{"message":"m"},"outputs":{}}"#, Some(500), None),
            // Nothing is wrong.
            (r#"{"code":200,"message":"OK"}"#, None, None),
            (
                r#"{"code":"202 Accepted","title":"Accepted","message":"m"}"#,
                None,
                None,
            ),
            (r#"{"error_code":0,"error_msg":"success"}"#, None, None),
            (r#"{"error":null,"errors":[],"message":"m"}"#, None, None),
            (r#"{"error":false,"code":"0"}"#, None, None),
            (r#"{"success":true,"message":"m"}"#, None, None),
            (r#"{"code":10000,"message":"m"}"#, None, None),
            (r#"{"message":"m"}"#, None, None),
            ("{}", None, None),
            ("[]", None, None),
            ("OK", None, None),
        ] {
            let body = body.as_bytes();
            let text = String::from_utf8_lossy(body);
            let found = error_status(body, Evidence::NotTheResource);
            assert_eq!(found, without_resource, "{text}");
            let found = error_status(body, Evidence::MayBeTheResource(&["message", "status"]));
            assert_eq!(found, beside_resource, "beside the resource: {text}");
        }
        // Without the members of a resource that the response has, a text that it does not
        // declare explains the error.
        let body = br#"{"status":"error","message":"m"}"#;
        for (members, want) in [
            (["id", "status"], Some(500)),
            (["id", "message"], Some(500)),
            (["code", "status"], None),
            (["message", "status"], None),
        ] {
            let found = error_status(body, Evidence::MayBeTheResource(&members));
            assert_eq!(found, want, "{members:?}");
        }
    }
}
