//! Error statuses, retries and deletes.

use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use super::{Ao, start};
use crate::support::client::json as to_json;
use crate::support::recorder::Answer;

/// A delete succeeds with 204 in all its forms (quirk 5), and fails with 303 (quirk 4).
#[tokio::test]
async fn delete_follows_no_redirect() {
    let ao = Ao::new().await;
    for rpc in [
        "AutomationService/DeleteService",
        "ServiceTemplateService/DeleteServiceTemplate",
        "TaskService/DeleteTask",
        "TaskHistoryService/DeleteTaskHistory",
    ] {
        let (recorder, gateway) = ao.answers(|_| Answer::text(204, "application/json", ""));
        let got = gateway.client.call(rpc, json!({"id": 7})).await.unwrap();
        assert_eq!(to_json(&got), json!({}));
        let seen = recorder.seen();
        assert_eq!(seen[0].method, "DELETE");
        assert!(
            seen[0].body.is_empty() && seen[0].header("content-type").is_empty(),
            "quirk 22"
        );
    }
    let (recorder, gateway) = ao.answers(|_| {
        Answer::text(303, "text/html", "<html>moved</html>").with(
            "location",
            "http://inside.example/Automation/v1/objects/Tasks/7/actions/archive",
        )
    });
    let error = gateway
        .client
        .call("TaskService/DeleteTask", json!({"id": 7}))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("nothing was deleted"),
        "{}",
        error.message()
    );
    assert_eq!(
        error.get_error_details().error_info().unwrap().reason,
        "ARCHIVE_REQUIRED"
    );
    assert_eq!(recorder.seen().len(), 1, "no redirect is followed");
}

/// HTTP statuses map to gRPC codes, by rpc where they mean different things.
#[tokio::test]
async fn http_status_maps_to_grpc_code() {
    // One attempt, so that each error is returned at once.
    let ao = Ao::with(|settings| settings.max_attempts = 1).await;
    for (rpc, status, body, code, text) in [
        ("TaskService/GetTask", 400, "", Code::InvalidArgument, ""),
        (
            "TaskService/GetTask",
            401,
            "",
            Code::FailedPrecondition,
            "set [upstream.auth]",
        ),
        ("TaskService/GetTask", 403, "", Code::PermissionDenied, ""),
        (
            "TaskService/GetTask",
            404,
            "",
            Code::NotFound,
            "has no permission for it",
        ),
        // Of a proxy, and of a gateway in front of it: they say nothing about the resource.
        (
            "TaskService/GetTask",
            404,
            "<html><body><h1>404 Not Found</h1></body></html>",
            Code::Unimplemented,
            "the response is not the API's, but a proxy's",
        ),
        (
            "TaskService/DeleteTask",
            404,
            r#"{"message":"API not found","request_id":"r"}"#,
            Code::Unimplemented,
            "the upstream does not offer this operation",
        ),
        (
            "TaskService/DeleteTask",
            404,
            r#"{"error_code":"APIGW.0101","error_msg":"The API does not exist"}"#,
            Code::Unimplemented,
            "the upstream does not offer this operation",
        ),
        ("TaskService/DeleteTask", 405, "", Code::Unimplemented, ""),
        ("TaskService/GetTask", 406, "", Code::Internal, ""),
        (
            "AutomationService/DeleteService",
            409,
            "",
            Code::FailedPrecondition,
            "a dependent resource",
        ),
        (
            "TaskService/GetRespondTaskAction",
            409,
            "",
            Code::FailedPrecondition,
            "",
        ),
        (
            "TaskService/GetTask",
            412,
            "",
            Code::Unavailable,
            "not available",
        ),
        (
            "PropertyService/ListPropertyDefinitionActions",
            412,
            "",
            Code::Aborted,
            "",
        ),
        ("TaskService/GetTask", 500, "", Code::Internal, ""),
        (
            "TaskService/GetTask",
            500,
            "<html>x</html>",
            Code::Internal,
            "",
        ),
        (
            "TaskService/GetTask",
            400,
            r#"{"messageID":"generic error","message":"m"}"#,
            Code::InvalidArgument,
            "m",
        ),
        (
            "TaskService/GetTask",
            200,
            "<html>x</html>",
            Code::Internal,
            "",
        ),
        (
            "TaskService/GetTask",
            200,
            r#"{"instanceID": "x"}"#,
            Code::Internal,
            "instanceID",
        ),
        ("TaskService/GetTask", 302, "", Code::Internal, ""),
    ] {
        let kind = if body.starts_with('{') {
            "application/json"
        } else {
            "text/html"
        };
        let (_recorder, gateway) = ao.answers(move |_| Answer::text(status, kind, body));
        let error = gateway
            .client
            .call(rpc, json!({"id": 1}))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{rpc} {status} {body}: {error:?}");
        assert!(
            error.message().contains(text),
            "{status}: {}",
            error.message()
        );
        let has_retry_info = error.get_error_details().retry_info().is_some();
        assert_eq!(has_retry_info, code == Code::Unavailable, "{status}");
    }
}

/// 412 means a server that is down for a while: reads are retried (quirk 14).
#[tokio::test]
async fn read_is_retried_after_412() {
    let tries = std::sync::atomic::AtomicU32::new(0);
    let (recorder, gateway) =
        start(
            move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Answer::json(412, &json!({"message": "down"})).with("retry-after", "0"),
                _ => Answer::json(200, &json!({"instanceID": 1})),
            },
        )
        .await;
    gateway
        .client
        .call("TaskService/GetTask", json!({"id": 1}))
        .await
        .unwrap();
    assert_eq!(recorder.seen().len(), 2);
}
