//! Errors and the end of streams in the JSON of Connect. Source: Connect protocol, "Error and
//! EndStreamResponse" and "Error Codes".

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes};
use drawbridge_transcoder::contract::CanonicalJson;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

/// The flag of the last message of a stream.
const END_STREAM: u8 = 2;

/// The headers in which gRPC has its status.
const STATUS_HEADERS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// The details of errors, for those who read them without a library.
static DETAILS: LazyLock<Option<CanonicalJson>> =
    LazyLock::new(|| CanonicalJson::new(tonic_types::pb::FILE_DESCRIPTOR_SET));

/// Returns the name of a code, and its HTTP status.
fn code(code: Code) -> (&'static str, u16) {
    match code {
        // Not an error: never sent as one.
        Code::Ok => ("unknown", 500),
        Code::Cancelled => ("canceled", 499),
        Code::Unknown => ("unknown", 500),
        Code::InvalidArgument => ("invalid_argument", 400),
        Code::DeadlineExceeded => ("deadline_exceeded", 504),
        Code::NotFound => ("not_found", 404),
        Code::AlreadyExists => ("already_exists", 409),
        Code::PermissionDenied => ("permission_denied", 403),
        Code::ResourceExhausted => ("resource_exhausted", 429),
        Code::FailedPrecondition => ("failed_precondition", 400),
        Code::Aborted => ("aborted", 409),
        Code::OutOfRange => ("out_of_range", 400),
        Code::Unimplemented => ("unimplemented", 501),
        Code::Internal => ("internal", 500),
        Code::Unavailable => ("unavailable", 503),
        Code::DataLoss => ("data_loss", 500),
        Code::Unauthenticated => ("unauthenticated", 401),
    }
}

/// Moves the status out of the headers of a response, with what else gRPC has there.
pub(super) fn take_status(headers: &mut HeaderMap) -> HeaderMap {
    let mut status = HeaderMap::new();
    for name in STATUS_HEADERS {
        if let Some(value) = headers.remove(name) {
            status.insert(name, value);
        }
    }
    status
}

/// Returns the HTTP status and the body of a unary call that has failed.
pub(super) fn unary_error(trailers: &HeaderMap) -> (StatusCode, Bytes) {
    let status = status(trailers);
    let (_, http) = code(status.code());
    let http = StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (http, Value::from(error(&status)).to_string().into())
}

/// Returns the message that ends a stream with these trailers.
pub(super) fn end_of_stream(trailers: &HeaderMap) -> Bytes {
    let mut end = Map::new();
    let status = status(trailers);
    if status.code() != Code::Ok {
        end.insert("error".to_owned(), error(&status).into());
    }
    let mut metadata = Map::new();
    for name in trailers.keys() {
        if STATUS_HEADERS.contains(&name.as_str()) || name == CONTENT_TYPE {
            continue;
        }
        let values = trailers.get_all(name).iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        metadata.insert(name.as_str().to_owned(), values.into());
    }
    if !metadata.is_empty() {
        end.insert("metadata".to_owned(), metadata.into());
    }
    let text = Value::from(end).to_string();
    let mut frame = Vec::with_capacity(5 + text.len());
    frame.put_u8(END_STREAM);
    frame.put_u32(u32::try_from(text.len()).unwrap_or_default());
    frame.put_slice(text.as_bytes());
    frame.into()
}

/// Reads the status in trailers, or in the headers of a response without a message.
fn status(trailers: &HeaderMap) -> Status {
    let missing = || Status::internal("the response has no status");
    Status::from_header_map(trailers).unwrap_or_else(missing)
}

fn error(status: &Status) -> Map<String, Value> {
    let (name, _) = code(status.code());
    let mut error = Map::from_iter([("code".to_owned(), name.into())]);
    if !status.message().is_empty() {
        error.insert("message".to_owned(), status.message().into());
    }
    let details = tonic_types::pb::Status::decode(status.details());
    let details = details.map(|status| status.details).unwrap_or_default();
    if !details.is_empty() {
        let details: Vec<Value> = details.iter().map(detail).collect();
        error.insert("details".to_owned(), details.into());
    }
    error
}

fn detail(detail: &prost_types::Any) -> Value {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let value = STANDARD_NO_PAD.encode(&detail.value);
    let mut json = json!({"type": name, "value": value});
    let debug = DETAILS.as_ref().and_then(|types| {
        let text = types.to_json(types.message(name)?, &detail.value).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    });
    if let Some(debug) = debug {
        json["debug"] = debug;
    }
    json
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn trailers(status: &Status) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        trailers
    }

    /// Source: Connect protocol, "Error Codes".
    #[test]
    fn each_code_has_its_name_and_http_status() {
        for (number, name, http) in [
            (1, "canceled", 499),
            (2, "unknown", 500),
            (3, "invalid_argument", 400),
            (4, "deadline_exceeded", 504),
            (5, "not_found", 404),
            (6, "already_exists", 409),
            (7, "permission_denied", 403),
            (8, "resource_exhausted", 429),
            (9, "failed_precondition", 400),
            (10, "aborted", 409),
            (11, "out_of_range", 400),
            (12, "unimplemented", 501),
            (13, "internal", 500),
            (14, "unavailable", 503),
            (15, "data_loss", 500),
            (16, "unauthenticated", 401),
        ] {
            let status = Status::new(Code::from_i32(number), "ü \"x\"");
            let (got, body) = unary_error(&trailers(&status));
            assert_eq!(got.as_u16(), http, "{name}");
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, json!({"code": name, "message": "ü \"x\""}));
        }
    }

    #[test]
    fn details_are_encoded_and_readable() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(60)));
        details.add_bad_request_violation("a.b", "is missing");
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let (_, body) = unary_error(&trailers(&status));
        let body: Value = serde_json::from_slice(&body).unwrap();
        // The value is that of the protocol's own example, with 60 s.
        let retry = json!({"type": "google.rpc.RetryInfo", "value": "CgIIPA",
            "debug": {"retryDelay": "60s"}});
        let all = body["details"].as_array().unwrap();
        assert!(all.contains(&retry), "{body}");
        let violation = json!({"fieldViolations": [{"field": "a.b", "description": "is missing"}]});
        assert!(all.iter().any(|one| one["debug"] == violation), "{body}");
    }

    #[test]
    fn stream_ends_with_its_error_and_metadata() {
        let read = |frame: Bytes| {
            assert_eq!(frame[0], 2);
            let length = u32::from_be_bytes(frame[1..5].try_into().unwrap());
            assert_eq!(length as usize, frame.len() - 5);
            serde_json::from_slice::<Value>(&frame[5..]).unwrap()
        };
        assert_eq!(read(end_of_stream(&trailers(&Status::ok("")))), json!({}));
        let mut failed = trailers(&Status::unavailable("gone"));
        failed.insert("x-request-id", "r-1".parse().unwrap());
        let want = json!({"error": {"code": "unavailable", "message": "gone"},
            "metadata": {"x-request-id": ["r-1"]}});
        assert_eq!(read(end_of_stream(&failed)), want);
        let none = read(end_of_stream(&HeaderMap::new()));
        assert_eq!(none["error"]["code"], "internal");
    }
}
