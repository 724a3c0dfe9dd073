//! A contract compiled from a proto of one test. The gateway's tests include this file.

use std::path::Path;

use drawbridge_transcoder::contract::{Contract, Diagnostic, Method, Source};
use drawbridge_transcoder::family::{Evidence, FamilyRules};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use serde_json::Value as Json;

/// Returns the rules of a family, with the checkers that the tests and `proto/` name.
pub(crate) fn families(name: &str) -> FamilyRules {
    FamilyRules {
        error_status: Some(fault_status),
        request_id_headers: &["x-request-id"],
        checkers: match name {
            "jp1ao" => &[("property-definitions", |_, _, _| Vec::new())],
            _ => &[],
        },
    }
}

/// Recognizes `{"fault": ...}`, unless the response declares `fault`.
fn fault_status(body: &[u8], evidence: Evidence<'_>) -> Option<u16> {
    let is_fault = match evidence {
        Evidence::NotTheResource => true,
        Evidence::MayBeTheResource(members) => !members.has("fault"),
    };
    (is_fault && body.starts_with(b"{\"fault\"")).then_some(503)
}

/// Proto files in memory, by name.
struct InMemory(Vec<(String, String)>);

impl FileResolver for InMemory {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        let names = self.0.iter().map(|(name, _)| name);
        names.clone().find(|name| path == Path::new(name)).cloned()
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

pub(crate) fn descriptors(proto: &str) -> Vec<u8> {
    descriptors_of(&[("t.proto", proto)])
}

/// Compiles these files, of which `t.proto` imports the others.
pub(crate) fn descriptors_of(files: &[(&str, &str)]) -> Vec<u8> {
    let files = files.iter();
    let files = files.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let mut resolver = ChainFileResolver::new();
    resolver.add(InMemory(files.clone().collect()));
    // This file is compiled in the workspace's root package, too.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = ["proto", "../../proto"]
        .map(|folder| package.join(folder))
        .into_iter()
        .find(|folder| folder.is_dir())
        .expect("the workspace's protos");
    resolver.add(IncludeFileResolver::new(folder));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler
        .open_file("t.proto")
        .unwrap_or_else(|problem| panic!("{problem:?}\n{:?}", files.collect::<Vec<_>>()));
    compiler.encode_file_descriptor_set()
}

/// Returns the package `t` with all imports and these definitions.
pub(crate) fn proto(rest: &str) -> String {
    format!(
        r#"syntax = "proto3";
        package t;
        import "drawbridge/v1/options.proto";
        import "drawbridge/v1/watch.proto";
        import "google/api/annotations.proto";
        import "google/api/field_behavior.proto";
        import "google/protobuf/duration.proto";
        import "google/protobuf/struct.proto";
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        {rest}"#
    )
}

pub(crate) struct TestContract {
    pub(crate) contract: Contract,
    pool: DescriptorPool,
}

impl TestContract {
    pub(crate) fn new(proto: &str) -> Self {
        let bytes = descriptors(proto);
        let pool = DescriptorPool::decode(&*bytes).unwrap();
        let source = Source::new("t.binpb", bytes);
        match Contract::compile(vec![source], &families) {
            Ok(contract) => Self { contract, pool },
            Err(diagnostics) => panic!("{}\n{proto}", printed(&diagnostics)),
        }
    }

    pub(crate) fn rpc(&self, name: &str) -> &Method {
        let path = format!("/t.S/{name}");
        self.contract.method(&path).expect(name)
    }

    /// Returns the protobuf bytes of proto3 JSON.
    pub(crate) fn wire(&self, message: &str, json: Json) -> Vec<u8> {
        let descriptor = self.pool.get_message_by_name(message).expect(message);
        DynamicMessage::deserialize(descriptor, json)
            .unwrap()
            .encode_to_vec()
    }

    /// Returns the proto3 JSON of protobuf bytes.
    pub(crate) fn json(&self, message: &str, wire: &[u8]) -> Json {
        let descriptor = self.pool.get_message_by_name(message).expect(message);
        let message = DynamicMessage::decode(descriptor, wire).unwrap();
        let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .unwrap()
    }
}

pub(crate) fn printed(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    lines.join("\n")
}

/// Returns a service of jobs and add-ons that uses all options of a watch.
pub(crate) fn jobs(rules: &str, response: &str) -> String {
    proto(&format!(
        r#"
        service AddonService {{
          rpc Do(DoReq) returns (DoRes) {{
            option (google.api.http) = {{post: "/v1/{{p}}/addons/{{addon}}/do" body: "*"}};
          }}
          rpc GetAddon(AddonReq) returns (Addon) {{
            option (google.api.http) = {{get: "/v1/{{p}}/addons/{{addon}}"}};
          }}
          rpc DoAndWatch(DoWatchReq) returns (stream WatchRes) {{
            option (google.api.http) = {{post: "/v1/{{p}}/addons/{{addon}}/do" body: "*"}};
            option (drawbridge.v1.method).watch = {{ {rules} }};
          }}
          rpc Invoke(DoReq) returns (DoRes) {{
            option (google.api.http) = {{post: "/v1/{{p}}/addons/{{addon}}/invoke"}};
            option (drawbridge.v1.method).action = {{}};
          }}
        }}
        service S {{
          rpc GetJob(JobReq) returns (JobRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/jobs/{{job_id}}"}};
            option idempotency_level = NO_SIDE_EFFECTS;
          }}
          rpc ListSteps(StepsReq) returns (StepsRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/steps"}};
          }}
          rpc ListJobs(JobsReq) returns (JobsRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/jobs"}};
          }}
          rpc Watch(WatchJobReq) returns (stream WatchJobRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/jobs/{{job_id}}"}};
            option (drawbridge.v1.method).watch = {{
              poll: "GetJob" item: "job" set_when_final: "full" initial_interval: {{nanos: 10000000}}
              state: "state" succeeded: "OK" failed: ["BAD", "LOST"]
              not_found_succeeds_after: "LEAVING"
              final_after: {{states: "BAD" field: "sticky" value: "false" duration: {{seconds: 10}}}}
              final_after: {{states: "LOST" polls: 3}}
              side_read: {{
                call: "ListSteps" item: "steps" field: "steps" when: "steps"
                bind: {{from: "uuid" to: "filter.job"}}
                bind: {{request: "depth" to: "depth"}}
              }}
              side_read: {{
                call: "ListSteps" item: "steps" field: "progress" count_by: "state"
                bind: {{from: "uuid" to: "filter.job"}} states: "BUSY"
              }}
              fallback: {{
                call: "AddonService.GetAddon" field: "addon" after: 3
                bind: {{request: "addon" to: "addon"}}
                state: "state" succeeded: "OK" on_not_found: ON_NOT_FOUND_SUCCEED
                must_match: {{item: "job_id"}}
              }}
            }};
          }}
        }}
        message DoReq {{ string p = 1; string addon = 2; string action = 3; }}
        message DoRes {{ string job_id = 1; google.protobuf.Value urls = 2; int64 number = 3; }}
        message AddonReq {{ string p = 1; string addon = 2; }}
        message Addon {{ string id = 1; string job_id = 2; string state = 3; }}
        message JobReq {{ string job_id = 1; string p = 2; optional bool full = 3; }}
        message JobRes {{ Job job = 1; }}
        message Job {{ string uuid = 1; string state = 2; bool sticky = 3; map<string, string> more = 4; }}
        message JobsReq {{ string p = 1; int64 group = 2; }}
        message JobsRes {{ repeated Job jobs = 1; }}
        message StepsReq {{ string p = 1; Filter filter = 2; int32 depth = 3; }}
        message Filter {{ string job = 1; }}
        message StepsRes {{ repeated Step steps = 1; string name = 2; }}
        message Step {{ string name = 1; string state = 2; }}
        message DoWatchReq {{ string p = 3; string addon = 2; string action = 1; }}
        message WatchRes {{
          drawbridge.v1.WatchEvent event = 1; Job job = 2; {response}
        }}
        message WatchJobReq {{
          string p = 1;
          string job_id = 2;
          string addon = 3 [(drawbridge.v1.field).gateway_only = true];
          bool steps = 4 [(drawbridge.v1.field).gateway_only = true];
          int32 depth = 5 [(drawbridge.v1.field).gateway_only = true];
          bool other = 6 [(drawbridge.v1.field).gateway_only = true];
        }}
        message WatchJobRes {{
          drawbridge.v1.WatchEvent event = 1;
          Job job = 2;
          repeated Step steps = 3;
          map<string, int32> progress = 4;
          Addon addon = 5;
        }}"#
    ))
}

pub(crate) const DO: &str =
    r#"poll: "S.GetJob" item: "job" start: {call: "Do" bind: {from: "job_id" to: "job_id"}}"#;
pub(crate) const FIND: &str = r#"poll: "S.GetJob" item: "job" start: {
    call: "Do" field: "begun"
    bind: {from: "urls" pattern: "/jobs/{}" to: "job_id"}
    find: {
      call: "S.ListJobs" item: "jobs"
      bind: {from: "urls" pattern: "/groups/{}" to: "group"}
      bind_poll: {from: "uuid" to: "job_id"}
    }}"#;
pub(crate) const STARTED: &str = "DoRes started = 3;";
