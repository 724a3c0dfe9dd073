//! Which bodies of a response with HTTP 200 are the requested resource, and which are errors.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::own_api::compile;
use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, upstream};

const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "google/api/annotations.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";

option (drawbridge.v1.file) = { family: "acme" };

service ThingService {
  rpc Empty(Req) returns (google.protobuf.Empty) {
    option (google.api.http) = { post: "/x" };
  }
  rpc Struct(Req) returns (google.protobuf.Struct) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Value(Req) returns (google.protobuf.Value) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Map(Req) returns (MapRes) {
    option (google.api.http) = { get: "/x" response_body: "labels" };
  }
  rpc Result(Req) returns (ResultRes) {
    option (google.api.http) = { post: "/x" };
  }
  rpc Thing(Req) returns (ThingRes) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Health(Req) returns (HealthRes) {
    option (google.api.http) = { get: "/x" };
  }
  rpc ListThings(Req) returns (ListRes) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Array(Req) returns (google.protobuf.ListValue) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Build(Req) returns (BuildRes) {
    option (google.api.http) = { get: "/x" };
  }
  rpc GetJob(Req) returns (JobRes) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Deep(Req) returns (DeepRes) {
    option (google.api.http) = { get: "/x" };
  }
  rpc Text(Req) returns (google.protobuf.StringValue) {
    option (google.api.http) = { get: "/x" };
  }
}
message Req {}
message MapRes { map<string, google.protobuf.Value> labels = 1; }
message BuildRes { ThingRes api = 1; ThingRes engine = 2; }
message JobRes { optional int32 task_count = 1; ThingRes job = 2; repeated ThingRes tasks = 3; }
message DeepRes {
  string name = 1;
  ThingRes spec = 2;
  repeated string tags = 3;
  Lists lists = 4;
  None none = 5;
}
message Lists { repeated string a = 1; repeated string b = 2; }
message None {}
message ResultRes { string id = 1; string message = 2; }
message ThingRes { string id = 1; string status = 2; repeated string tags = 3; }
message HealthRes { string status = 1; string message = 2; }
message ListRes { repeated ThingRes items = 1; int32 total = 2; }
"#;

/// A gateway to an upstream whose answer the test sets before each call.
struct Acme {
    answer: Arc<Mutex<Answer>>,
    gateway: Gateway,
    _recorder: Recorder,
}

impl Acme {
    async fn start() -> Self {
        let answer = Arc::new(Mutex::new(Answer::json(200, &Value::Null)));
        let state = Arc::clone(&answer);
        let recorder = Recorder::start(move |_| state.lock().unwrap().clone()).await;
        let mut config = settings(vec![upstream("acme", "acme", &recorder.url())]);
        config.descriptors = vec![compile(PROTO).unwrap()];
        Self {
            answer,
            gateway: Gateway::start(config).await,
            _recorder: recorder,
        }
    }

    async fn call(&self, rpc: &str, answer: Answer) -> Result<Value, tonic::Status> {
        *self.answer.lock().unwrap() = answer;
        let method = format!("acme.v1.ThingService/{rpc}");
        let response = self.gateway.client.call(&method, json!({})).await?;
        Ok(to_json(&response))
    }
}

/// The rpcs, in the order of the results below.
const RPCS: [&str; 10] = [
    "Empty",
    "Struct",
    "Value",
    "Map",
    "Result",
    "Thing",
    "Health",
    "ListThings",
    "Array",
    "Text",
];

/// Each row: a body, and for each rpc `o` if it is the resource, or else `-`.
const BODIES: &[(&str, &str)] = &[
    ("", "oooo------"),
    ("null", "oooo------"),
    ("{}", "oooo------"),
    ("[]", "o-o-----o-"),
    ("true", "o-o------o"),
    ("OK", "o---------"),
    ("<html>x</html>", "----------"),
    (r#"{"status":"error","message":"m"}"#, "------o---"),
    (r#"{"status":"ERROR","message":"m","id":"7"}"#, "ooooooo---"),
    (r#"{"status":"fail","data":{"a":"b"}}"#, "------o---"),
    (r#"{"status":"failed"}"#, "-ooo-oo---"),
    (r#"{"status":"success","data":{"a":"b"}}"#, "oooo-oo---"),
    (r#"{"status":"error"}"#, "-ooo-oo---"),
    (r#"{"Error":{"Code":"X","Message":"m"}}"#, "----------"),
    (r#"{"error":"x","id":"1"}"#, "-ooooo----"),
    (
        r#"{"error":{"message":"maintenance"},"outputs":{}}"#,
        "-ooo------",
    ),
    (r#"{"fault":{"faultstring":"m"}}"#, "----------"),
    (r#"{"errorMessages":["gone"],"errors":{}}"#, "----------"),
    (r#"{"exception":"E","message":"m"}"#, "----------"),
    (
        r#"{"timestamp":1,"status":500,"error":"Internal Server Error","path":"/x"}"#,
        "----------",
    ),
    (
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"m","reason":"NotFound","code":404}"#,
        "----------",
    ),
    (r#"{"message":"m"}"#, "ooooo-o---"),
    (
        r#"{"message":"Internal server error","requestId":"r"}"#,
        "ooooo-o---",
    ),
    (r#"{"detail":"Not found."}"#, "oooo------"),
    (r#"{"code":"ResourceNotFound","message":"m"}"#, "----------"),
    (r#"{"code":1,"msg":"m","data":null}"#, "oooo------"),
    (r#"{"code":500,"msg":"m","data":null}"#, "----------"),
    (r#"{"code":0,"msg":"ok","data":{"id":"1"}}"#, "oooo------"),
    (r#"{"success":false}"#, "-ooo------"),
    (r#"{"success":false,"message":"m"}"#, "----------"),
    (r#"{"success":true,"message":"m"}"#, "ooooo-o---"),
    (r#"{"ok":false,"error":"not_authed"}"#, "----------"),
    (r#"{"errors":[{"message":"m"}],"data":null}"#, "----------"),
    (r#"{"items":[],"error":"backend timeout"}"#, "-ooo------"),
    (
        r#"{"items":[{"id":"a"}],"error":"backend timeout"}"#,
        "-ooo------",
    ),
    (r#"{"items":[{"id":"a"}],"errors":[]}"#, "oooo---o--"),
    (r#"{"items":[null,{"id":"a"}]}"#, "oooo------"),
    (r#"{"items":[{}]}"#, "oooo---o--"),
    (r#"{"items":[],"message":"no items"}"#, "ooooo-oo--"),
    (
        r#"{"items":[],"status":"error","message":"m"}"#,
        "ooooooo---",
    ),
    (r#"{"items":[],"code":500,"message":"m"}"#, "-oooo-o---"),
    (r#"{"id":"a","error":"boot failed"}"#, "-ooooo----"),
    (r#"{"id":"","tags":[],"error":"db"}"#, "-ooo------"),
    (r#"{"id":null,"error":"db"}"#, "----------"),
    (r#"{"tags":[],"error":"db"}"#, "-ooo------"),
    (r#"{"id":"a""#, "o---------"),
    (
        r#"{"messageID":"KNAE02004-E","message":"bad","errorSource":"/x"}"#,
        "----------",
    ),
    (
        r#"{"messageID":"KNAE02004-E","message":"bad"}"#,
        "----------",
    ),
    (r#"{"messageId":"7f3a","MD5":"x"}"#, "oooo------"),
    (r#"{"messageID":"m-1","message":"sent"}"#, "ooooo-o---"),
    (r#"[{"message":"x","errorCode":"INVALID"}]"#, "--o-----o-"),
    (r#"[{"message":"x"}]"#, "o-o-----o-"),
];

#[tokio::test]
async fn success_is_only_the_requested_resource() {
    let acme = Acme::start().await;
    for (body, want) in BODIES {
        let mut got = String::new();
        for rpc in RPCS {
            let answer = Answer::text(200, "application/json", *body);
            got.push(match acme.call(rpc, answer).await {
                Ok(_) => 'o',
                Err(_) => '-',
            });
        }
        assert_eq!(got, *want, "{body}");
    }
}

/// Each row: a body, and for each of `Build`, `GetJob` and `Deep` as above.
const WRAPPERS: &[(&str, &str)] = &[
    (r#"{"api":{},"engine":{}}"#, "---"),
    (r#"{"api":{"id":"1"},"engine":{}}"#, "o--"),
    (r#"{"api":{"id":""}}"#, "o--"),
    (r#"{"api":{"x":1},"engine":null}"#, "---"),
    (r#"{"job":{}}"#, "---"),
    (r#"{"job":{},"task_count":0,"tasks":[]}"#, "---"),
    (r#"{"job":{},"tasks":[{"id":"t"}]}"#, "---"),
    (r#"{"job":{"id":"j"},"tasks":[]}"#, "-o-"),
    (r#"{"tasks":[]}"#, "-o-"),
    (r#"{"spec":{}}"#, "---"),
    (r#"{"spec":{},"tags":[]}"#, "---"),
    (r#"{"spec":{},"tags":["t"]}"#, "--o"),
    (r#"{"spec":{},"name":""}"#, "--o"),
    (r#"{"tags":[]}"#, "--o"),
    (r#"{"lists":{}}"#, "--o"),
    (r#"{"none":{}}"#, "--o"),
];

#[tokio::test]
async fn resource_in_a_response_with_several_members_is_not_empty() {
    let acme = Acme::start().await;
    for (body, want) in WRAPPERS {
        let mut got = String::new();
        for rpc in ["Build", "GetJob", "Deep"] {
            let answer = Answer::text(200, "application/json", *body);
            got.push(match acme.call(rpc, answer).await {
                Ok(_) => 'o',
                Err(_) => '-',
            });
        }
        assert_eq!(got, *want, "{body}");
    }
    let answer = Answer::text(200, "application/json", r#"{"job":{},"tasks":[]}"#);
    let status = acme.call("GetJob", answer).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("in `job`"), "{status:?}");
}

/// A body that has arrived, and cannot be decoded, is a response.
#[tokio::test]
async fn body_that_is_not_in_its_coding_is_unreadable() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(br#"{"id":"a"}"#).unwrap();
    let gzip = encoder.finish().unwrap();
    let cut = gzip[..gzip.len() - 4].to_vec();
    let acme = Acme::start().await;
    for (body, what) in [
        (br#"{"id":"a"}"#.to_vec(), "the gzip coding is invalid"),
        (cut, "the body ends within its gzip coding"),
    ] {
        for (rpc, hint) in [("Thing", false), ("Empty", true), ("Result", true)] {
            let answer = Answer::text(200, "application/json", body.clone());
            let answer = answer.with("content-encoding", "gzip");
            let status = acme.call(rpc, answer).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{status:?}");
            let text = status.message();
            assert!(
                text.contains(what) && !text.contains("no response"),
                "{text}"
            );
            assert_eq!(text.contains("may have acted"), hint, "{rpc}: {text}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!(info.reason, "UNREADABLE_RESPONSE");
            assert_eq!(info.metadata["sent"], "true");
        }
        // The status of an error says what happened.
        let answer = Answer::text(404, "application/json", body);
        let answer = answer.with("content-encoding", "gzip");
        let status = acme.call("Thing", answer).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
    }
}
