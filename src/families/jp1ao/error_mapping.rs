//! JP1/AO's error mapping. Source: docs/apis/jp1ao.md, "Error body" and "Error codes".
//!
//! Several HTTP statuses have two meanings; the hint names both.

use std::time::{Duration, SystemTime};

use tonic::Code;
use url::Url;

use super::FAMILY;
use crate::error::{Fault, HINT};
use crate::families::common::{self, endpoint_hint, fault_message, is_transient, not_processed};
use crate::families::error_body::{http_reason, json, member, message, metadata};
use crate::families::error_markers::{error_object, is_set};
use crate::families::error_shapes;
use crate::http_client::retry_after::retry_after;
use crate::upstream::family::FaultContext;
use drawbridge_transcoder::call::Reply;
use drawbridge_transcoder::family::Evidence;

/// `RetryInfo` of a 412 without `Retry-After`. An estimate: the server is starting or under
/// maintenance.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(3);

/// Maps an error reply.
pub(super) fn fault(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    let body = json(reply);
    let get = |name: &str| member(body.as_ref()?, &[name]);
    let status = reply.status.as_u16();
    let other = body.as_ref().map(error_shapes::read).unwrap_or_default();
    let unavailable = status == 412 && !is_definition(context);
    let archive = must_be_archived(context, status);
    let own = get("message");
    let locale = own.as_deref().and_then(|text| locale(reply, text));
    let retry_after = retry_after(reply, SystemTime::now());
    Fault {
        code: code(context, reply),
        reason: match get("messageID").filter(|id| !id.contains(char::is_whitespace)) {
            Some(id) => id,
            None if archive => "ARCHIVE_REQUIRED".to_owned(),
            // Of a gateway in front of it.
            None => other.reason.unwrap_or_else(|| http_reason(reply.status)),
        },
        domain: FAMILY.name,
        message: if archive {
            "nothing was deleted: a task of this kind is archived, not deleted".to_owned()
        } else {
            fault_message(reply, own)
        },
        http_status: status,
        request_id: FAMILY.request_id(&reply.headers).or(other.request_id),
        retry_after: match unavailable {
            true => retry_after.or(Some(RETRY_AFTER_UNAVAILABLE)),
            false => retry_after,
        },
        not_processed: not_processed(reply),
        transient: unavailable || is_transient(reply.status),
        is_unrelated: false,
        credential_rejected: status == 401,
        fields: Vec::new(),
        metadata: metadata([
            (HINT, hint(context, reply)),
            (
                "message_data",
                get("messageData").map(|text| message(&text)),
            ),
            ("application", get("application")),
            (
                "error_source",
                get("errorSource").and_then(|url| path(&url)),
            ),
        ]),
        // The gateway's own message for redirects is always English.
        locale: locale.filter(|_| !reply.status.is_redirection()),
        in_success: false,
    }
}

/// Recognizes an error body in a success: JP1/AO's own, and those of a proxy in front of it.
pub(super) fn error_status(body: &[u8], evidence: Evidence<'_>) -> Option<u16> {
    let object = error_object(body, evidence)?;
    let is_own = ["messageID", "errorSource"]
        .iter()
        .any(|name| is_set(object.get(*name)));
    if is_own {
        return Some(500);
    }
    common::error_status(body, evidence)
}

fn code(context: &FaultContext<'_>, reply: &Reply) -> Code {
    match reply.status.as_u16() {
        status if must_be_archived(context, status) => Code::FailedPrecondition,
        // Source: docs/apis/jp1ao.md, "Error codes".
        300..=399 => Code::Internal,
        // A defect of the gateway, except for a file that the client uploads.
        415 if context.rpc.starts_with("Import") => Code::InvalidArgument,
        406 | 415 => Code::Internal,
        // Wrong state, or dependents exist: a retry does not help.
        409 => Code::FailedPrecondition,
        412 if is_definition(context) => Code::Aborted,
        412 => Code::Unavailable,
        _ => common::code(context, reply),
    }
}

/// Returns whether the reply is the redirect that means that the task must be archived
/// instead of deleted. Source: docs/apis/jp1ao.md, "Error codes".
fn must_be_archived(context: &FaultContext<'_>, status: u16) -> bool {
    status == 303 && context.rpc.starts_with("Delete")
}

/// Returns whether the call lists the actions of a property definition, for which alone 412
/// means a conflict. Source: docs/apis/jp1ao.md, "Properties".
fn is_definition(context: &FaultContext<'_>) -> bool {
    context.rpc == "ListPropertyDefinitionActions"
}

/// Returns the cause or advice that the upstream's message lacks.
fn hint(context: &FaultContext<'_>, reply: &Reply) -> Option<String> {
    let hint = match reply.status.as_u16() {
        status if must_be_archived(context, status) => "archive the task instead",
        401 => "the login was rejected, or its user lacks the permission for this service group",
        404 => "the resource does not exist, or the user has no permission for it",
        409 => "its state, or a dependent resource, does not allow this",
        412 if !is_definition(context) => "the server is not available at the moment",
        _ => return endpoint_hint(reply.status),
    };
    Some(hint.to_owned())
}

/// Returns the language of the message: of `Content-Language` or `Language`, else English,
/// the default, if the text is ASCII. Source: docs/apis/jp1ao.md, "Response headers".
fn locale(reply: &Reply, text: &str) -> Option<String> {
    ["content-language", "language"]
        .iter()
        .find_map(|name| {
            let value = reply.headers.get(*name)?.to_str().ok()?;
            let first = value.split(',').next()?.trim();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            (!first.is_empty() && first.len() <= 35 && first.chars().all(plain))
                .then(|| first.to_owned())
        })
        .or_else(|| text.is_ascii().then(|| "en".to_owned()))
}

/// Returns the path of `errorSource`. Host and port are internal to the upstream, and the
/// query may have values of the request.
fn path(source: &str) -> Option<String> {
    let source = source.trim();
    if let Ok(url) = Url::parse(source) {
        return (!url.cannot_be_a_base()).then(|| url.path().to_owned());
    }
    // For example `http://:22015/...`, which is not a valid URL.
    let rest = match source.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => source,
    };
    let path = rest.split(['?', '#']).next()?;
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::error_body::tests::reply;
    use drawbridge_transcoder::call::Idempotency;

    fn context(rpc: &str) -> FaultContext<'_> {
        FaultContext {
            dialect: "",
            rpc,
            dialect_optional: false,
            idempotency: Idempotency::NoSideEffects,
        }
    }

    const BODY: &str = r#"{
        "errorSource": "http://jp1ao.inside.test:22015/Automation/v1/objects/Services/7?q=a",
        "message": "The resource does not exist,\nor there is no access.",
        "messageID": "KNAE02102-E", "application": "Automation", "messageData": "7"}"#;

    #[test]
    fn status_and_rpc_decide_the_code() {
        use Code::*;
        for (status, rpc, want, transient) in [
            (303, "DeleteTask", FailedPrecondition, false),
            (303, "GetTask", Internal, false),
            (302, "DeleteTask", Internal, false),
            (400, "GetService", InvalidArgument, false),
            (401, "GetService", Unauthenticated, false),
            (403, "GetService", PermissionDenied, false),
            (404, "GetService", NotFound, false),
            (405, "ForceStopTask", Unimplemented, false),
            (406, "GetService", Internal, false),
            (409, "DeleteService", FailedPrecondition, false),
            (409, "CreateThing", FailedPrecondition, false),
            (412, "ReleaseService", Unavailable, true),
            (412, "ListPropertyDefinitions", Unavailable, true),
            (412, "GetPropertyDefinition", Unavailable, true),
            (412, "ListPropertyDefinitionActions", Aborted, false),
            (415, "GetService", Internal, false),
            (415, "ImportServiceTemplate", InvalidArgument, false),
            (500, "GetService", Internal, false),
            (502, "GetService", Unavailable, true),
            (503, "GetService", Unavailable, true),
            (504, "GetService", Unavailable, true),
        ] {
            let fault = fault(&context(rpc), &reply(status, &[], BODY));
            assert_eq!(fault.code, want, "{status} {rpc}");
            assert_eq!(fault.transient, transient, "{status} {rpc}");
            assert_eq!(fault.reason, "KNAE02102-E");
            assert_eq!(fault.credential_rejected, status == 401);
            let wait = fault.retry_after.map(|wait| wait.as_secs());
            assert_eq!(
                wait,
                (status == 412 && transient).then_some(3),
                "{status} {rpc}"
            );
            assert!(!format!("{fault:?}").contains("inside"), "without a host");
        }
        let later = reply(412, &[("retry-after", "20")], BODY);
        let wait = fault(&context("GetX"), &later).retry_after;
        assert_eq!(wait, Some(Duration::from_secs(20)));
    }

    #[test]
    fn body_is_read_without_host_and_query() {
        let fault = fault(&context("GetService"), &reply(404, &[], BODY));
        assert_eq!(
            fault.message,
            "The resource does not exist,\nor there is no access."
        );
        assert_eq!(
            fault.metadata,
            [
                (
                    HINT,
                    "the resource does not exist, or the user has no permission for it".to_owned()
                ),
                ("message_data", "7".to_owned()),
                ("application", "Automation".to_owned()),
                (
                    "error_source",
                    "/Automation/v1/objects/Services/7".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn bodies_without_json_or_message_id_are_read() {
        for (status, rpc, body, reason, message) in [
            (
                400,
                "GetX",
                r#"{"messageID":"generic error","message":"m"}"#,
                "HTTP_400",
                "m",
            ),
            (
                404,
                "GetX",
                r#"{"error_code":"APIGW.0101","error_msg":"no API"}"#,
                "APIGW.0101",
                "no API",
            ),
            (500, "GetX", "", "HTTP_500", ""),
            (
                500,
                "GetX",
                "<html><body>Maintenance</body></html>",
                "HTTP_500",
                "Maintenance",
            ),
            (
                303,
                "DeleteTask",
                "<html>See <a href='http://inside:1/'>there</a></html>",
                "ARCHIVE_REQUIRED",
                "nothing was deleted: a task of this kind is archived, not deleted",
            ),
        ] {
            let fault = fault(&context(rpc), &reply(status, &[], body));
            assert_eq!(
                (&*fault.reason, &*fault.message),
                (reason, message),
                "{body}"
            );
        }
    }

    #[test]
    fn locale_is_read_from_headers_or_ascii() {
        let japanese = r#"{"message":"サービスがありません。"}"#;
        for (headers, body, want) in [
            (
                &[("content-language", "ja-JP")][..],
                japanese,
                Some("ja-JP"),
            ),
            (&[("language", "ja, en")], japanese, Some("ja")),
            (&[("language", "not a tag")], BODY, Some("en")),
            (&[], BODY, Some("en")),
            (&[], japanese, None),
            (&[("language", "ja")], "", None),
        ] {
            let fault = fault(&context("GetX"), &reply(404, headers, body));
            assert_eq!(fault.locale.as_deref(), want, "{headers:?} {body}");
        }
    }

    #[test]
    fn error_source_is_reduced_to_its_path() {
        for (source, want) in [
            (
                "http://host:22015/Automation/v1/x?y=1",
                Some("/Automation/v1/x"),
            ),
            (" https://host/a#b", Some("/a")),
            ("http://:22015/a?b", Some("/a")),
            ("http://host:/a", Some("/a")),
            ("/Automation/v1/x?y", Some("/Automation/v1/x")),
            ("host:22015", None),
            ("http://:22015", None),
            ("host.inside.test", None),
            ("", None),
        ] {
            assert_eq!(path(source).as_deref(), want, "{source}");
        }
    }
}
