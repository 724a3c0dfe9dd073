use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::error::{Fault, LoginFailure};

const CONTEXT: StatusContext<'static> = StatusContext {
    operation: "openstack.orchestration.v1.StackService/GetStack",
    upstream: "north",
    request_id: "gw-1",
    start_succeeded: false,
};

fn fault() -> Fault {
    Fault {
        code: Code::AlreadyExists,
        reason: "StackExists".into(),
        domain: "heat",
        message: "The Stack (a) already exists.".into(),
        http_status: 409,
        request_id: Some("req-1".into()),
        retry_after: None,
        not_processed: false,
        transient: false,
        is_unrelated: false,
        credential_rejected: false,
        fields: Vec::new(),
        metadata: vec![("title", "Conflict".into())],
        locale: None,
        in_success: false,
    }
}

fn upstream(fault: Fault) -> Error {
    Error::Upstream(Box::new(fault))
}

/// The bytes of a status as metadata, names included.
fn size(status: &Status) -> usize {
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).expect("valid headers");
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum()
}

#[test]
fn status_has_code_reason_and_text_of_the_error() {
    let text = |s: &str| s.to_owned();
    for (error, code, reason, sent, transient, message) in [
        (
            Error::RequestStream {
                code: Code::ResourceExhausted,
                problem: text("the file is longer than 9 bytes"),
            },
            Code::ResourceExhausted,
            "FILE_TOO_LARGE",
            "false",
            false,
            "the file is longer than 9 bytes",
        ),
        (
            Error::RequestStream {
                code: Code::Cancelled,
                problem: text("the stream ended early: reset"),
            },
            Code::Cancelled,
            "STREAM_BROKEN",
            "false",
            false,
            "the stream ended early: reset",
        ),
        (
            Error::Binding {
                field: text("deployment.config_id"),
                problem: text("required"),
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
            "false",
            false,
            "deployment.config_id: required",
        ),
        (
            Error::Malformed(text("cut off at byte 3")),
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "false",
            false,
            "the request is not a valid message: cut off at byte 3",
        ),
        (
            Error::NotServed("a.S.Get (a.proto) is not served".into()),
            Code::Unimplemented,
            "RPC_NOT_SERVED",
            "false",
            false,
            "a.S.Get (a.proto) is not served",
        ),
        (
            Error::Unsupported {
                family: Arc::from("heat"),
                dialect: Arc::from("rackspace"),
            },
            Code::Unimplemented,
            "DIALECT_LACKS_OPERATION",
            "false",
            false,
            "upstream north: the dialect rackspace of heat does not have this operation",
        ),
        (
            Error::UnknownUpstream(text("no upstream is named x")),
            Code::InvalidArgument,
            "UNKNOWN_UPSTREAM",
            "false",
            false,
            "no upstream is named x",
        ),
        (
            Error::NotConfigured(text("no upstream for the family heat")),
            Code::FailedPrecondition,
            "NOT_CONFIGURED",
            "false",
            false,
            "no upstream for the family heat",
        ),
        (
            Error::Overload {
                code: Code::ResourceExhausted,
                problem: text("1024 calls are waiting"),
                retry_after: Duration::from_secs(1),
            },
            Code::ResourceExhausted,
            "OVERLOADED",
            "false",
            true,
            "upstream north: 1024 calls are waiting",
        ),
        (
            Error::Overload {
                code: Code::Unavailable,
                problem: text("it does not respond"),
                retry_after: Duration::from_secs(1),
            },
            Code::Unavailable,
            "CIRCUIT_BREAKER_OPEN",
            "false",
            true,
            "upstream north: it does not respond",
        ),
        (
            Error::Credential {
                code: Code::Unauthenticated,
                problem: text("send x-auth-token"),
            },
            Code::Unauthenticated,
            "CREDENTIALS_REJECTED",
            "false",
            false,
            "upstream north: send x-auth-token",
        ),
        (
            Error::Login {
                failure: LoginFailure::Unavailable,
                problem: text("no login at https://inside.test as user robot"),
                retry_after: Some(Duration::from_secs(3)),
            },
            Code::Unavailable,
            "LOGIN_UNAVAILABLE",
            "false",
            true,
            "upstream north: the gateway cannot log in at the moment; its log has the cause",
        ),
        (
            Error::Login {
                failure: LoginFailure::Rejected,
                problem: text("rejected at https://inside.test as user robot"),
                retry_after: None,
            },
            Code::FailedPrecondition,
            "LOGIN_REJECTED",
            "false",
            false,
            "upstream north: the gateway was rejected at login: its operator must check its \
             credentials; its log has the cause",
        ),
        (
            Error::ResponseNotDelivered {
                code: Code::ResourceExhausted,
                problem: text("no room"),
                retry_after: None,
            },
            Code::ResourceExhausted,
            "RESPONSE_NOT_DELIVERED",
            "true",
            true,
            "upstream north: no room",
        ),
        (
            Error::Deadline { sent: true },
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            "true",
            true,
            "upstream north: the deadline passed; the upstream may have acted",
        ),
        (
            Error::StreamDeadline,
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            "true",
            true,
            "upstream north: the deadline of the stream passed",
        ),
        (
            Error::Connect(text("connection refused")),
            Code::Unavailable,
            "CANNOT_CONNECT",
            "false",
            true,
            "upstream north: cannot connect: connection refused",
        ),
        (
            Error::NoResponse(text("connection closed")),
            Code::Unavailable,
            "NO_RESPONSE",
            "true",
            true,
            "upstream north: no response: connection closed",
        ),
        (
            Error::OutcomeUnknown(text("connection closed")),
            Code::Unknown,
            "OUTCOME_UNKNOWN",
            "true",
            false,
            "upstream north: no response: connection closed; the upstream may have acted: \
             check before you repeat the call",
        ),
        (
            Error::ResponseTooLarge { limit: 5 },
            Code::ResourceExhausted,
            "RESPONSE_TOO_LARGE",
            "true",
            false,
            "upstream north: the response is longer than 5 bytes (setting max_response_bytes)",
        ),
        (
            upstream(fault()),
            Code::AlreadyExists,
            "StackExists",
            "true",
            false,
            "The Stack (a) already exists.",
        ),
        (
            Error::decode(text("a[3].b"), text("a number, expected text")),
            Code::Internal,
            "UNREADABLE_RESPONSE",
            "true",
            false,
            "upstream north: the upstream's response cannot be read: a[3].b: a number, expected text",
        ),
        (
            Error::Draining,
            Code::Unavailable,
            "DRAINING",
            "false",
            true,
            "the gateway is stopping",
        ),
    ] {
        let status = error.status(&CONTEXT);
        assert_eq!(status.code(), code, "{error:?}");
        assert_eq!(status.message(), message, "{error:?}");
        assert_eq!(error.is_transient(), transient, "{error:?}");
        let details = status.get_error_details();
        let info = details.error_info().expect("ErrorInfo");
        assert_eq!(info.reason, reason, "{error:?}");
        assert_eq!(info.metadata["sent"], sent, "{error:?}");
        assert_eq!(info.metadata["operation"], CONTEXT.operation);
        assert_eq!(info.metadata["upstream"], "north");
        let request = details.request_info().expect("RequestInfo");
        assert_eq!(request.serving_data, "gw-1");
    }
}

#[test]
fn errors_after_a_start_are_sent_and_have_no_retry_info() {
    let overload = Error::Overload {
        code: Code::ResourceExhausted,
        problem: "too many watches at once".into(),
        retry_after: Duration::from_secs(10),
    };
    let unprocessed = upstream(Fault {
        not_processed: true,
        retry_after: Some(Duration::from_secs(3)),
        ..fault()
    });
    for (error, retry_before) in [
        (Error::Draining, Some(1)),
        (overload, Some(10)),
        (Error::Connect("connection refused".into()), None),
        (unprocessed, Some(3)),
    ] {
        for start_succeeded in [false, true] {
            let context = StatusContext {
                start_succeeded,
                ..CONTEXT
            };
            let details = error.status(&context).get_error_details();
            let info = details.error_info().expect("ErrorInfo");
            assert_eq!(
                info.metadata["sent"],
                start_succeeded.to_string(),
                "{error:?}"
            );
            let retry = details.retry_info().and_then(|info| info.retry_delay);
            let want = retry_before
                .filter(|_| !start_succeeded)
                .map(Duration::from_secs);
            assert_eq!(retry, want, "{error:?}, start_succeeded: {start_succeeded}");
        }
    }
}

#[test]
fn details_have_the_values_of_the_fault() {
    let error = upstream(Fault {
        retry_after: Some(Duration::from_millis(1500)),
        fields: vec![("name".into(), "too long".into())],
        metadata: vec![
            ("title", "Conflict".into()),
            (HINT, "choose another".into()),
        ],
        locale: Some("en".into()),
        ..fault()
    });
    let status = error.status(&CONTEXT);
    assert_eq!(
        status.message(),
        "The Stack (a) already exists. (choose another)"
    );
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!(
        (&*info.domain, &*info.metadata["http_status"]),
        ("heat", "409")
    );
    assert_eq!(info.metadata["title"], "Conflict");
    assert_eq!(
        details.request_info().expect("RequestInfo").request_id,
        "req-1"
    );
    let delay = details.retry_info().expect("RetryInfo").retry_delay;
    assert_eq!(delay, Some(Duration::from_millis(1500)));
    let bad = details.bad_request().expect("BadRequest");
    assert_eq!(bad.field_violations[0].field, "name");
    let local = details.localized_message().expect("LocalizedMessage");
    assert_eq!((&*local.locale, &*local.message), ("en", status.message()));
}

#[test]
fn fault_without_message_names_upstream_and_http_status() {
    let error = upstream(Fault {
        message: " \n".into(),
        reason: String::new(),
        code: Code::Ok,
        ..fault()
    });
    let status = error.status(&CONTEXT);
    assert_eq!(status.code(), Code::Unknown, "an error is never OK");
    assert_eq!(
        status.message(),
        "upstream north responded HTTP 409 without a message"
    );
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "HTTP_409");
}

#[test]
fn status_stays_below_8_kilobytes() {
    for (name, unit) in [
        ("text", "a stack failed "),
        ("letters", "a"),
        ("lines", "a\n\t"),
        ("japanese", "サービスの状態が不正です。\n"),
        ("emoji", "🌉"),
    ] {
        for locale in [None, Some("ja".to_owned())] {
            let message = unit.repeat(20_000 / unit.len() + 1);
            let error = upstream(Fault {
                reason: message.clone(),
                request_id: Some(message.clone()),
                fields: vec![(message.clone(), message.clone()); 1_000],
                metadata: vec![("hint", message.clone()), ("title", message.clone())],
                retry_after: Some(Duration::from_secs(u64::MAX)),
                locale: locale.clone(),
                message,
                ..fault()
            });
            let context = StatusContext {
                operation: &"o".repeat(5_000),
                upstream: &"u".repeat(5_000),
                request_id: &"r".repeat(5_000),
                start_succeeded: false,
            };
            let status = error.status(&context);
            let size = size(&status);
            assert!(size < 8_000, "{name}, {locale:?}: {size} bytes");
            assert!(
                size > 4_000,
                "{name}, {locale:?}: {size} bytes, cut too much"
            );
            let text = status.message();
            assert!(text.starts_with(&*visible(unit)), "{name}: {text}");
            assert!(text.ends_with(" bytes more)"), "{name}: {text}");
            assert!(status.get_error_details().error_info().is_some());
        }
    }
}

#[test]
fn last_violation_counts_the_omitted_ones() {
    let fields: Vec<_> = (0..1_000)
        .map(|n| (format!("stack.parameters[{n}]"), "unknown".to_owned()))
        .collect();
    let status = upstream(Fault { fields, ..fault() }).status(&CONTEXT);
    assert!(size(&status) < 8_000, "{} bytes", size(&status));
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    assert!(violations.len() > 20, "{}", violations.len());
    let last = &violations[violations.len() - 1];
    let rest = 1_000 - (violations.len() - 1);
    assert_eq!(last.description, format!("{rest} more fields are invalid"));
}

#[test]
fn log_omits_values_of_the_call() {
    let error = Error::Binding {
        field: "password".into(),
        problem: "hunter2 is too short".into(),
    };
    assert_eq!(error.log_text(), "password: rejected before sending");
    assert_eq!(
        upstream(Fault {
            message: "hunter2".into(),
            ..fault()
        })
        .log_text(),
        "the upstream responded 409 StackExists (its request id: req-1)"
    );
    assert_eq!(
        Error::Connect("connection refused".into()).log_text(),
        "cannot connect: connection refused"
    );
}

#[test]
fn truncated_text_says_how_many_bytes_are_missing() {
    for (text, max, want) in [
        ("short", 10, "short"),
        ("0123456789", 10, "0123456789"),
        (
            "0123456789012345678901234567890",
            30,
            "012345... (25 bytes more)",
        ),
        ("ああああああああああああ", 30, "ああ... (30 bytes more)"),
        ("0123456789", 3, "... (10 bytes more)"),
    ] {
        assert_eq!(cut(text, max), want);
    }
}

#[test]
fn characters_that_change_the_display_of_others_are_replaced() {
    for (text, want) in [
        ("plain é 日", "plain é 日"),
        ("a\nb\r\nc\td", "a b c d"),
        ("a\u{2028}b\u{85}c", "a b c"),
        (
            "\u{1b}[31mred\u{7f}\u{9b}",
            "\u{fffd}[31mred\u{fffd}\u{fffd}",
        ),
        ("nul\0", "nul\u{fffd}"),
        ("\u{202e}gnp.exe\u{2066}", "\u{fffd}gnp.exe\u{fffd}"),
    ] {
        assert_eq!(visible(text), want);
    }
    let mut fault = crate::upstream::tests::fault(400);
    fault.message = "bad\u{1b}[2J\r\nX-Injected: yes".into();
    fault.reason = "R\u{202e}".into();
    fault.fields = vec![("a\nb".into(), "c\u{7}".into())];
    fault.metadata = vec![("title", "t\u{1b}".into())];
    let status = Error::Upstream(Box::new(fault)).status(&StatusContext::default());
    assert_eq!(status.message(), "bad\u{fffd}[2J X-Injected: yes");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (&*info.reason, &*info.metadata["title"]),
        ("R\u{fffd}", "t\u{fffd}")
    );
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(
        (&*violations[0].field, &*violations[0].description),
        ("a b", "c\u{fffd}")
    );
}
