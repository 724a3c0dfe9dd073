//! Diagnostics at start: those of all options here, the others by option in the modules
//! below.

mod action;
mod fields;
mod health_check;
mod merge_pages;
mod method_rules;
mod response_choices;
mod routes;
mod upload_download;
mod watch;
mod watch_final;

use super::*;

const PLAIN: &str = r#"
    message Req { string id = 1; }
    message Res { string id = 1; }"#;

/// Returns the single diagnostic of a proto, and checks that it names the file.
fn one(proto: &str) -> Diagnostic {
    let diagnostics = diagnostics(proto);
    assert_eq!(diagnostics.len(), 1, "{}\n{proto}", printed(&diagnostics));
    assert_eq!(diagnostics[0].file, "t.proto", "{proto}");
    diagnostics[0].clone()
}

/// Returns the diagnostics of annotations as `(option, problem)`.
fn of_rules(proto: &str) -> Vec<(String, String)> {
    let diagnostics = diagnostics(proto);
    let rules = diagnostics.iter().filter_map(|diagnostic| {
        let option = diagnostic.option.strip_prefix("(drawbridge.v1.")?;
        Some((option.replace(").", " "), diagnostic.problem.clone()))
    });
    rules.collect()
}

#[track_caller]
fn refused(proto: &str, option: &str, want: &str, case: &str) {
    let found = of_rules(proto);
    let hit = |(at, problem): &(String, String)| at == option && problem.contains(want);
    assert!(found.len() == 1 && hit(&found[0]), "{case}\n{found:?}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let diagnostics = diagnostics(&proto(
        r#"service S {
             rpc A(Req) returns (Res) { option (drawbridge.v1.method).anonymous = true; }
             rpc B(Req) returns (Res) { option (google.api.http) = {get: "/{a}/{b}"}; }
           }
           message Req { string id = 1; }
           message Res {}"#,
    ));
    let elements: Vec<&str> = diagnostics.iter().map(|r| &*r.element).collect();
    assert_eq!(elements, ["t.S.A", "t.S.B", "t.S.B"]);
    assert_eq!(
        diagnostics[1].to_string(),
        "t.proto: t.S.B: google.api.http: path variable `{a}`: t.Req has no field `a`"
    );
}

#[test]
fn unreadable_and_duplicate_descriptor_sets_are_reported() {
    let sources = |second: Vec<u8>| {
        [
            (
                "first.binpb",
                descriptors(&unary("option (google.api.http) = {get: \"/x\"};", PLAIN)),
            ),
            ("second.binpb", second),
        ]
        .map(|(name, bytes)| Source::new(name, bytes))
        .to_vec()
    };
    let diagnostics =
        Contract::compile(sources(b"no descriptors".to_vec()), &super::families).unwrap_err();
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].file, "second.binpb");
    assert!(
        diagnostics[0]
            .problem
            .contains("create one with `buf build"),
        "{}",
        diagnostics[0]
    );
    assert!(
        diagnostics[0]
            .to_string()
            .starts_with("second.binpb: not a complete"),
        "{}",
        diagnostics[0]
    );

    let again = descriptors(&unary("option (google.api.http) = {get: \"/y\"};", PLAIN));
    let diagnostics = Contract::compile(sources(again), &super::families).unwrap_err();
    assert_eq!(
        printed(&diagnostics),
        "t.proto: t.S: service: is in two descriptor sets, first.binpb and second.binpb, with \
         different annotations: remove one, or leave it out with `exclude`"
    );
}

/// Returns a service with one rpc of this message: `get: "/x"`.
fn service_of(message: &str) -> Vec<u8> {
    use crate::json::wire::write_bytes;
    let [mut service, mut rpc, mut options, mut http] = [const { Vec::new() }; 4];
    write_bytes(&mut http, 2, b"/x");
    write_bytes(&mut options, 72_295_728, &http);
    write_bytes(&mut rpc, 1, b"Do");
    write_bytes(&mut rpc, 2, message.as_bytes());
    write_bytes(&mut rpc, 3, message.as_bytes());
    write_bytes(&mut rpc, 4, &options);
    write_bytes(&mut service, 1, b"S");
    write_bytes(&mut service, 2, &rpc);
    service
}

#[test]
fn editions_and_sets_of_no_compiler_are_reported() {
    use prost::Message as _;
    use prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        MessageOptions,
    };
    let file = |syntax: &str, package: &str, message: DescriptorProto| FileDescriptorProto {
        name: Some("e.proto".into()),
        package: Some(package.into()),
        syntax: Some(syntax.into()),
        message_type: vec![message],
        ..Default::default()
    };
    let field = |kind: i32, type_name: Option<&str>| FieldDescriptorProto {
        name: Some("f".into()),
        number: Some(1),
        label: Some(1),
        r#type: Some(kind),
        type_name: type_name.map(Into::into),
        ..Default::default()
    };
    let message = |name: &str, fields: Vec<FieldDescriptorProto>| DescriptorProto {
        name: Some(name.into()),
        field: fields,
        ..Default::default()
    };
    let compiled = |file: FileDescriptorProto, edition: u64| {
        let service = service_of(&format!(
            ".{}.{}",
            file.package(),
            file.message_type[0].name()
        ));
        let mut file = file.encode_to_vec();
        if edition > 0 {
            crate::json::wire::write_uint(&mut file, 14, edition);
        }
        crate::json::wire::write_bytes(&mut file, 6, &service);
        let mut bytes = descriptors(&proto(""));
        let imports = FileDescriptorSet::decode(&*bytes).unwrap().file.len();
        crate::json::wire::write_bytes(&mut bytes, 1, &file);
        let set = FileDescriptorSet::decode(&*bytes).unwrap();
        assert_eq!(set.file.len(), imports + 1);
        Contract::compile(vec![Source::new("my.binpb", bytes)], &super::families)
    };
    // `features.message_encoding = DELIMITED` makes the type a group.
    let delimited = message("M", vec![field(10, Some(".p.M"))]);
    let entry = DescriptorProto {
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..Default::default()
        }),
        ..message("MEntry", Vec::new())
    };
    let map = DescriptorProto {
        nested_type: vec![entry],
        ..message(
            "M",
            vec![FieldDescriptorProto {
                label: Some(3),
                ..field(11, Some(".p.M.MEntry"))
            }],
        )
    };
    let plain = message("M", vec![field(9, None)]);
    for (file, edition, want) in [
        (
            file("editions", "p", plain.clone()),
            1_000,
            "e.proto: uses edition 2023, and editions",
        ),
        (
            file("editions", "p", plain.clone()),
            1_001,
            "e.proto: uses edition 2024, and editions",
        ),
        (
            file("editions", "p", delimited.clone()),
            1_000,
            "e.proto: uses edition 2023",
        ),
        (
            file("editions", "p", plain.clone()),
            0,
            "e.proto: uses edition, and editions",
        ),
        // A tool that writes no syntax.
        (
            FileDescriptorProto {
                syntax: None,
                ..file("", "p", plain.clone())
            },
            1_000,
            "e.proto: uses edition 2023, and editions",
        ),
        (
            file("proto3", "p", plain.clone()),
            1_001,
            "e.proto: uses edition 2024, and editions",
        ),
        (
            file("", "p", plain.clone()),
            0,
            "e.proto: the syntax `` is not known",
        ),
        (
            file("proto4", "p", plain),
            0,
            "e.proto: the syntax `proto4` is not known",
        ),
        (
            file("proto2", "p", delimited),
            0,
            "groups are not supported",
        ),
        (
            file("proto3", "p", map),
            0,
            "e.proto: p.M.MEntry: is the entry of a map without",
        ),
        (
            file(
                "proto3",
                "google.protobuf",
                message("StringValue", Vec::new()),
            ),
            0,
            "e.proto: google.protobuf.StringValue: is a well-known type without its value",
        ),
        (
            file("proto3", "p", message("M", vec![field(11, Some(".p.No"))])),
            0,
            "my.binpb: not a complete descriptor set",
        ),
    ] {
        let text = printed(&compiled(file, edition).unwrap_err());
        assert!(text.contains(want), "{want}\n{text}");
    }
}

#[test]
fn file_without_package_needs_a_family() {
    let diagnostics = diagnostics(
        r#"syntax = "proto3";
           import "google/api/annotations.proto";
           service S { rpc Do(Req) returns (Req) { option (google.api.http) = {get: "/x"}; } }
           message Req {}"#,
    );
    assert_eq!(diagnostics[0].option, "(drawbridge.v1.file).family");
}

#[test]
fn sets_without_our_options_compile_and_grpc_services_are_left_out() {
    let proto = r#"syntax = "proto3";
        package grpc.own;
        import "drawbridge/v1/gateway.proto";
        service S { rpc Do(stream Req) returns (Req) {} }
        message Req {}"#;
    assert!(TestContract::new(proto).contract.methods().is_empty());

    let test = TestContract::new(
        r#"syntax = "proto3";
        package t;
        import "google/api/annotations.proto";
        service S {
          rpc Do(Req) returns (Req) {
            option (google.api.http) = {
              get: "/x/{id}"
              additional_bindings {get: "/y/{name}"}
            };
          }
        }
        message Req { string id = 1; string name = 2; }"#,
    );
    assert_eq!(test.contract.services(), BTreeMap::from([("t.S", "t")]));
    assert_eq!(test.bind(json!({"id": "1"})).unwrap().path, "/x/1");
}

#[test]
fn built_in_protos_have_no_diagnostics() {
    let source = Source::new("built-in", super::BUILT_IN.clone());
    let contract = Contract::compile(vec![source], &super::families)
        .unwrap_or_else(|r| panic!("{}", printed(&r)));
    assert!(!contract.methods().is_empty());
    assert_eq!(contract.descriptor_sets(), [super::BUILT_IN.as_slice()]);
    let services = contract.services();
    assert_eq!(services.get("drawbridge.v1.GatewayService"), None);
    let family = services.get("openstack.orchestration.v1.SoftwareDeploymentService");
    assert_eq!(family, Some(&"heat"));
    let table = contract.coverage();
    let row = "| `openstack.orchestration.v1.SoftwareDeploymentService` | \
               `WatchSoftwareDeployment` (stream) | \
               `GET /v1/{project_id}/software_deployments/{deployment_id}` |";
    assert!(table.contains(row), "{table}");
    assert_eq!(table.lines().count(), contract.methods().len() + 2);
}
