use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::families::error_body::tests::{recorded, reply};
use drawbridge_transcoder::call::Idempotency;

fn context(rpc: &str) -> FaultContext<'_> {
    FaultContext {
        dialect: "",
        rpc,
        dialect_optional: false,
        idempotency: Idempotency::NonIdempotent,
    }
}

#[test]
fn recorded_errors_have_the_expected_code() {
    let mut seen = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/servicestage");
    for entry in fs::read_dir(folder).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a text");
        let exchange: Value = serde_json::from_str(&text).expect("an exchange");
        for variant in exchange["response_variants"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let status = variant["status"].as_u64().expect("a status");
            if status < 300 {
                continue;
            }
            let name = path.file_stem().expect("a name").to_string_lossy();
            let fault = fault(&context(&name), &recorded(variant));
            let body = &variant["body"];
            let message = body["error_message"]
                .as_str()
                .or(body["error_msg"].as_str());
            assert_eq!(Some(&*fault.message), message, "{name}");
            assert_eq!(
                fault.request_id.as_deref(),
                body["request_id"].as_str(),
                "{name}"
            );
            assert_eq!(fault.domain, "servicestage.huaweicloud", "{name}");
            assert!(
                !fault.credential_rejected,
                "{name}: another login does not help"
            );
            seen.insert(format!("{status} {} {:?}", fault.reason, fault.code));
        }
    }
    let seen: Vec<_> = seen.iter().map(String::as_str).collect();
    assert_eq!(
        seen,
        [
            "400 SVCSTG.00100400 InvalidArgument",
            "400 SVCSTG.00100414 InvalidArgument",
            "400 SVCSTG.00100418 InvalidArgument",
            "400 SVCSTG.00100449 AlreadyExists",
            "400 SVCSTG.00100458 AlreadyExists",
            "401 APIGW.0301 Unauthenticated",
            "401 SVCSTG.00100401 NotFound",
            "404 SVCSTG.00100404 NotFound",
            "404 SVCSTG.00100411 NotFound",
            "404 SVCSTG.00100429 NotFound",
            "409 SVCSTG.00100400 FailedPrecondition",
            "409 SVCSTG.00100402 Aborted",
            "429 APIGW.0308 ResourceExhausted",
            "500 APIGW.0705 Internal",
        ]
    );
}

#[test]
fn status_and_reason_decide_the_code() {
    use Code::*;
    for (status, reason, rpc, want) in [
        (400, "SVCSTG.00100402", "DeleteX", FailedPrecondition),
        (400, "SVCSTG.00100422", "CreateX", FailedPrecondition),
        (400, "SVCSTG.00100425", "CreateX", FailedPrecondition),
        (400, "SVCSTG.00100403", "GetX", NotFound),
        (400, "SVCSTG.00100438", "GetX", NotFound),
        (400, "SVCSTG.00100441", "CreateX", AlreadyExists),
        (400, "SVCSTG.REPO.0400", "CreateX", InvalidArgument),
        (400, "APIGW.0201", "CreateX", InvalidArgument),
        (403, "APIGW.0302", "GetX", PermissionDenied),
        (404, "APIGW.0101", "GetX", Unimplemented),
        (404, "APIGW.0103", "GetX", Unimplemented),
        (404, "SVCSTG.00100404", "GetX", NotFound),
        (405, "", "GetX", Unimplemented),
        (409, "SVCSTG.00100449", "CreateX", AlreadyExists),
        (409, "SVCSTG.00100400", "DeleteX", FailedPrecondition),
        (409, "SVCSTG.00100400", "ExecuteX", Aborted),
        (413, "APIGW.0201", "CreateX", ResourceExhausted),
        (414, "APIGW.0201", "GetX", InvalidArgument),
        (494, "APIGW.0201", "GetX", InvalidArgument),
        (502, "APIGW.0201", "GetX", Unavailable),
        (503, "APIGW.0801", "GetX", Unavailable),
        (504, "APIGW.0201", "GetX", DeadlineExceeded),
        (302, "", "GetX", Unavailable),
    ] {
        let body = format!(r#"{{"error_code":"{reason}","error_msg":"m"}}"#);
        let fault = fault(&context(rpc), &reply(status, &[], body));
        assert_eq!(fault.code, want, "{status} {reason}");
        assert_eq!(fault.transient, (502..=504).contains(&status), "{status}");
    }
}

#[test]
fn all_body_formats_are_read() {
    for (body, reason, message, detail) in [
        (
            r#"{"error_code":"SVCSTG.1","error_message":"m","error_msg":"n","error_detail":"d"}"#,
            "SVCSTG.1",
            "m",
            Some("d"),
        ),
        (
            r#"{"error":{"code":401,"message":"m","title":"Unauthorized"}}"#,
            "401",
            "m",
            None,
        ),
        (r#"{"errorCode":"A","errorMsg":"m"}"#, "A", "m", None),
        (
            r#"{"code":7,"message":"m","detail":"d"}"#,
            "7",
            "m",
            Some("d"),
        ),
        (
            r#"{"error_code":"A","error_message":"name <order svc> must match <x>","error_detail":"<y> is"}"#,
            "A",
            "name <order svc> must match <x>",
            Some("<y> is"),
        ),
        (
            r#"{"n":1,"fault":{"errorMessage":"m"}}"#,
            "HTTP_400",
            "m",
            None,
        ),
        ("<html><body>m</body></html>", "HTTP_400", "m", None),
        ("", "HTTP_400", "", None),
        (
            r#"{"a":{"b":{"message":"too deep"}}}"#,
            "HTTP_400",
            r#"{"a":{"b":{"message":"too deep"}}}"#,
            None,
        ),
    ] {
        let fault = fault(&context("GetX"), &reply(400, &[], body));
        assert_eq!(fault.reason, reason, "{body}");
        assert_eq!(fault.message, message, "{body}");
        let found = fault
            .metadata
            .iter()
            .find(|(key, _)| *key == "error_detail");
        assert_eq!(found.map(|(_, text)| text.as_str()), detail, "{body}");
    }
}

#[test]
fn request_id_is_read_from_header_or_body() {
    let body = r#"{"error_code":"A","error_msg":"m","request_id":"of-body"}"#;
    let both = [("x-request-id", "of-header"), ("x-iam-trace-id", "of-iam")];
    for (headers, body, want) in [
        (&both[..], body, Some("of-header")),
        (&both[1..], body, Some("of-body")),
        (&both[1..], "", Some("of-iam")),
        (&[], "", None),
    ] {
        let fault = fault(&context("GetX"), &reply(400, headers, body));
        assert_eq!(fault.request_id.as_deref(), want);
    }
}

#[test]
fn only_a_rejected_token_is_renewed() {
    for (status, reason, message, rejected) in [
        (
            401,
            "APIGW.0301",
            "Incorrect IAM authentication information: decrypt token fail",
            true,
        ),
        (
            401,
            "APIGW.0301",
            "Incorrect IAM authentication information: verify aksk signature fail",
            false,
        ),
        (401, "APIGW.0301", "Signature expired", false),
        (
            401,
            "APIGW.0303",
            "Incorrect app authentication information",
            false,
        ),
        (401, "IAM.0001", "the token is not valid", true),
        (401, "SVCSTG.00100401", "object not found", false),
        (403, "APIGW.0302", "forbidden", false),
    ] {
        let body = format!(r#"{{"error_code":"{reason}","error_msg":"{message}"}}"#);
        let fault = fault(&context("GetX"), &reply(status, &[], body));
        assert_eq!(fault.credential_rejected, rejected, "{message}");
    }
}

#[test]
fn wrong_clock_has_a_hint() {
    let date = [("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let late = theirs - Duration::from_secs(3_600);
    for (status, reason, now, want) in [
        (401, "APIGW.0301", late, true),
        (403, "APIGW.0302", late, true),
        (401, "APIGW.0301", theirs, false),
        (401, "SVCSTG.00100401", late, false),
        (400, "APIGW.0201", late, false),
    ] {
        let body = format!(r#"{{"error_code":"{reason}","error_msg":"m"}}"#);
        let fault = read(&context("GetX"), &reply(status, &date, body), now);
        let has_hint = fault
            .metadata
            .iter()
            .any(|(_, text)| text.contains("clock is 3600 s behind"));
        assert_eq!(has_hint, want, "{status} {reason}");
    }
}

#[test]
fn throttling_has_retry_info() {
    for (headers, want) in [(&[("retry-after", "9")][..], 9), (&[], 1)] {
        let fault = fault(&context("GetX"), &reply(429, headers, ""));
        assert_eq!(fault.retry_after, Some(Duration::from_secs(want)));
        assert!(fault.not_processed && fault.transient);
    }
}

#[test]
fn only_throttling_is_not_processed() {
    for (status, not_processed) in [(429, true), (503, false), (413, false), (502, false)] {
        let later = &[("retry-after", "1")];
        let fault = fault(&context("CreateX"), &reply(status, later, ""));
        assert_eq!(fault.not_processed, not_processed, "{status}");
        assert_eq!(fault.retry_after, Some(Duration::from_secs(1)), "{status}");
    }
}

#[test]
fn error_bodies_in_a_success_are_recognized() {
    // As in RefreshComponent, whose response has a `message` only.
    for (body, want) in [
        (
            r#"{"error_code":"SVCSTG.00100401","error_msg":"m"}"#,
            Some(400),
        ),
        (
            r#"{"errorCode":"SVCSTG.00100458","message":"m"}"#,
            Some(409),
        ),
        (
            r#"{"error":{"code":"SVCSTG.00100411","message":"m"}}"#,
            Some(400),
        ),
        (r#"{"code":"APIGW.0101","message":"m"}"#, Some(500)),
        (r#"{"code":404,"message":"m"}"#, Some(404)),
        (r#"{"message":"OK"}"#, None),
        (r#"{"message":"OK","code":"0"}"#, None),
    ] {
        for evidence in [
            Evidence::NotTheResource,
            Evidence::MayBeTheResource(&["message"]),
        ] {
            assert_eq!(error_status(body.as_bytes(), evidence), want, "{body}");
        }
    }
}
