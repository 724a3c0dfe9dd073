//! Replays the captures: the gateway sends the same request, signed, and returns each response
//! completely; an error has its gRPC code and details.

use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{RecordedGateway, assert_signed, rpc};
use crate::support::compare::{self, differences};
use crate::support::recorder::Answer;
use crate::support::{client, json_file, request};

const REQUEST_ID: &str = "8f6d5b7c9a0e1f2d3c4b5a6978e0f1d2";

/// Not calls of ServiceStage: the vectors of the signer and the login at IAM, which the tests
/// of `credentials` use.
const OTHERS: &[&str] = &["signing_vectors", "IamCreateToken"];

#[tokio::test]
async fn captures_are_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/servicestage");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter_map(|n| n.strip_suffix(".json").map(str::to_owned))
        .filter(|n| !OTHERS.contains(&n.as_str()))
        .collect();
    names.sort();
    let recordings = [
        RecordedGateway::new(false).await,
        RecordedGateway::new(true).await,
    ];
    let mut replayed = 0;
    for name in &names {
        let capture = json_file(&format!("fixtures/servicestage/{name}.json"));
        let temporary = name.ends_with("_TemporaryCredentials");
        replayed += replay(&recordings[usize::from(temporary)], name, &capture).await;
    }
    assert!(names.len() >= 79, "only {} captures", names.len());
    assert!(replayed >= 108, "only {replayed} answers replayed");
    for recording in recordings {
        recording.gateway.running.stop().await.unwrap();
    }
}

/// Replays a capture once per response, and returns their number.
async fn replay(recording: &RecordedGateway, name: &str, capture: &Value) -> usize {
    let recorded = &capture["request"];
    let rpc = rpc(
        &recording.gateway.client,
        capture["rpc"].as_str().unwrap_or(name),
    );
    let method = recording.gateway.client.method(&rpc);
    let (verb, path) = (text(&recorded["method"]), text(&recorded["path"]));
    let mut query: Vec<(String, String)> = recorded["query"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), text(value).to_owned()))
        .collect();
    query.sort();
    let message = request::of(&method, path, &query, &recorded["body"])
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let variants = capture["response_variants"].as_array();
    let responses = std::iter::once(&capture["response"]).chain(variants.into_iter().flatten());
    let mut count = 0;
    for response in responses {
        let status = response["status"].as_u64().unwrap() as u16;
        let mut answer = Answer::json(status, &response["body"]).with("x-request-id", REQUEST_ID);
        if status == 429 {
            answer = answer.with("retry-after", "7200");
        }
        let (result, seen) = recording.exchange(&rpc, message.clone(), answer).await;
        assert_eq!(seen.len(), 1, "{name} {status}: sent once: {result:?}");
        let seen = &seen[0];
        assert_eq!((seen.method.as_str(), seen.path()), (verb, path), "{name}");
        assert_eq!(seen.pairs(), query, "{name}");
        let body = seen.json();
        assert!(
            compare::same(&body, &recorded["body"]),
            "{name}: sent {body}"
        );
        assert_eq!(seen.header("content-type"), "application/json", "{name}");
        assert_signed(seen, name);
        if text(&recorded["headers"]["Authorization"]).contains("x-security-token") {
            assert_eq!(seen.header("x-security-token"), "SECURITYTOKENTEST+/=");
            assert!(seen.header("authorization").contains("x-security-token"));
        }
        match result {
            Ok(got) => {
                assert!(status < 300, "{name}: OK for {status}");
                let lost = lost(&method, got.get_ref(), &response["body"]);
                assert_eq!(lost, Vec::<String>::new(), "{name}");
                let id = got
                    .metadata()
                    .get("x-request-id")
                    .map(|v| v.to_str().unwrap());
                assert_eq!(id, Some(REQUEST_ID), "{name}");
            }
            Err(error) => assert_error(name, status, &response["body"], &error),
        }
        count += 1;
    }
    count
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the members of a body that the message lacks.
pub(super) fn lost(
    method: &MethodDescriptor,
    message: &DynamicMessage,
    body: &Value,
) -> Vec<String> {
    let Some(field) = request::response_body(method) else {
        return differences(message, body);
    };
    let inner = message.get_field(&field).into_owned();
    let inner = inner.as_message().expect("a message");
    if field.kind().as_message().unwrap().name() == "Struct" {
        let got = client::json(inner);
        return match compare::same(&got, body) {
            true => Vec::new(),
            false => vec![format!("{got} is not {body}")],
        };
    }
    // In 2024, a single add-on was returned in a list.
    let body = match field.name() {
        "addon" => body.get("addons").map_or(body, |list| &list[0]),
        _ => body,
    };
    differences(inner, body)
}

fn assert_error(name: &str, status: u16, body: &Value, error: &Status) {
    let code = text(&body["error_code"]);
    let want = match (status, code) {
        (401, "SVCSTG.00100401") | (404, _) => Code::NotFound,
        (401, _) => Code::FailedPrecondition,
        (429, _) => Code::ResourceExhausted,
        (409, _) if name.starts_with("Delete") => Code::FailedPrecondition,
        (409, _) => Code::Aborted,
        (400, "SVCSTG.00100449" | "SVCSTG.00100458") => Code::AlreadyExists,
        (400, _) => Code::InvalidArgument,
        (500, _) => Code::Internal,
        other => panic!("{name}: no code agreed for {other:?}"),
    };
    assert_eq!(error.code(), want, "{name}: {error:?}");
    let details = error.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, code, "{name}");
    assert_eq!(info.domain, "servicestage.huaweicloud", "{name}");
    assert_eq!(info.metadata["http_status"], status.to_string(), "{name}");
    let said = body["error_message"]
        .as_str()
        .or(body["error_msg"].as_str());
    assert!(error.message().contains(said.unwrap()), "{name}: {error:?}");
    let request_id = &details.request_info().unwrap().request_id;
    assert_eq!(request_id, REQUEST_ID, "{name}");
    if status == 429 {
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(wait.as_secs(), 7200, "{name}");
    }
}
