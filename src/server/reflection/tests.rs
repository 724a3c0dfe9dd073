use super::*;

const EXTENDEE: &str = "google.protobuf.MethodOptions";

/// All files that a gateway serves.
fn files() -> Files {
    Files::new([Bytes::from_static(crate::contract::BUILT_IN)]).unwrap()
}

fn answers(files: Files) -> Answers {
    Answers {
        visibility: None,
        services: vec!["a.A".to_owned()],
        files: Arc::new(files),
        sent: BTreeSet::new(),
    }
}

/// Returns the names of the files that a request is answered with, or the code of the error.
fn ask(answers: &mut Answers, request: MessageRequest) -> Result<Vec<String>, i32> {
    let request = ServerReflectionRequest {
        host: "h".to_owned(),
        message_request: Some(request),
    };
    let response = answers.response(request.clone());
    assert_eq!(response.valid_host, "h");
    assert_eq!(response.original_request, Some(request));
    match response.message_response.unwrap() {
        MessageResponse::FileDescriptorResponse(found) => Ok(found
            .file_descriptor_proto
            .iter()
            .map(|file| {
                let file = FileDescriptorProto::decode(&file[..]).unwrap();
                file.name().to_owned()
            })
            .collect()),
        MessageResponse::ErrorResponse(error) => {
            assert!(!error.error_message.is_empty());
            Err(error.error_code)
        }
        other => panic!("{other:?}"),
    }
}

fn symbol(name: &str) -> MessageRequest {
    MessageRequest::FileContainingSymbol(name.to_owned())
}

fn extension(message: &str, number: i32) -> MessageRequest {
    use tonic_reflection::pb::v1::ExtensionRequest;
    MessageRequest::FileContainingExtension(ExtensionRequest {
        containing_type: message.to_owned(),
        extension_number: number,
    })
}

#[test]
fn every_kind_of_symbol_is_found() {
    const STACK: &str = "openstack/orchestration/v1/stack.proto";
    for (name, want) in [
        ("openstack.orchestration.v1.StackService", Some(STACK)),
        (
            "openstack.orchestration.v1.StackService.GetStack",
            Some(STACK),
        ),
        ("openstack.orchestration.v1.StackService.Nope", None),
        ("openstack.orchestration.v1.Stack", Some(STACK)),
        ("openstack.orchestration.v1.Stack.stack_name", Some(STACK)),
        ("openstack.orchestration.v1.Stack.nope", None),
        ("openstack.orchestration.v1", None),
        ("openstack.orchestration.v1.Nope", None),
        ("", None),
        (".", None),
        (
            "drawbridge.v1.WatchEvent",
            Some("drawbridge/v1/watch.proto"),
        ),
        // A value is a sibling of its enum.
        (
            "drawbridge.v1.WATCH_EVENT_TYPE_INITIAL",
            Some("drawbridge/v1/watch.proto"),
        ),
        (
            "drawbridge.v1.WatchEventType.WATCH_EVENT_TYPE_INITIAL",
            Some("drawbridge/v1/watch.proto"),
        ),
        // An extension, and nested types.
        ("google.api.http", Some("google/api/annotations.proto")),
        (
            "google.rpc.ErrorInfo",
            Some("google/rpc/error_details.proto"),
        ),
        (
            "google.rpc.BadRequest.FieldViolation.description",
            Some("google/rpc/error_details.proto"),
        ),
        ("google.rpc.Status", Some("google/rpc/status.proto")),
        ("grpc.health.v1.Health", Some("grpc/health/v1/health.proto")),
        (
            "grpc.health.v1.HealthCheckResponse.SERVING",
            Some("grpc/health/v1/health.proto"),
        ),
        (
            "grpc.reflection.v1.ServerReflection",
            Some("grpc/reflection/v1/reflection.proto"),
        ),
        (
            "grpc.reflection.v1alpha.ServerReflection",
            Some("grpc/reflection/v1alpha/reflection.proto"),
        ),
    ] {
        let got = ask(&mut answers(files()), symbol(name));
        let got = got.map(|found| found[0].clone());
        let want = want.map(str::to_owned).ok_or(Code::NotFound as i32);
        assert_eq!(got, want, "{name}");
    }
}

/// Each file is sent with all that it imports, which a client needs to build it; on the same
/// stream only the file that is requested is repeated.
#[test]
fn dependencies_are_sent_once_per_stream() {
    let mut answers = answers(files());
    let stack = "openstack.orchestration.v1.StackService";
    let found = ask(&mut answers, symbol(stack)).unwrap();
    assert_eq!(found[0], "openstack/orchestration/v1/stack.proto");
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "{found:?}");
    assert!(unique.contains(&"google/protobuf/descriptor.proto".to_owned()));
    for name in &found {
        let file = &answers.files.files[answers.files.by_name[name]];
        let missing = file.dependencies.iter().find(|name| !unique.contains(name));
        assert_eq!(missing, None, "imported by {name}");
    }
    let again = ask(&mut answers, symbol(stack)).unwrap();
    assert_eq!(again, ["openstack/orchestration/v1/stack.proto"]);
    let by_name = MessageRequest::FileByFilename("google/protobuf/descriptor.proto".to_owned());
    assert_eq!(
        ask(&mut answers, by_name).unwrap(),
        ["google/protobuf/descriptor.proto"]
    );
    let unknown = MessageRequest::FileByFilename("no/such.proto".to_owned());
    assert_eq!(ask(&mut answers, unknown), Err(Code::NotFound as i32));
}

/// Every import of every file is served.
#[test]
fn no_dependency_is_missing() {
    let files = files();
    for (name, index) in &files.by_name {
        for dependency in &files.files[*index].dependencies {
            assert!(
                files.by_name.contains_key(dependency),
                "{name}: {dependency}"
            );
        }
    }
}

#[test]
fn extensions_are_found_by_message_and_number() {
    let mut answers = answers(files());
    let http = 72_295_728;
    assert_eq!(
        ask(&mut answers, extension(EXTENDEE, http)).unwrap()[0],
        "google/api/annotations.proto"
    );
    for (message, number) in [(EXTENDEE, 1), ("no.Such", http), ("google.rpc.Status", 1)] {
        let got = ask(&mut answers, extension(message, number));
        assert_eq!(got, Err(Code::NotFound as i32), "{message} {number}");
    }
    let mut numbers = |message: &str| {
        let request = MessageRequest::AllExtensionNumbersOfType(message.to_owned());
        answers.message(&request).map(|response| match response {
            MessageResponse::AllExtensionNumbersResponse(found) => {
                assert_eq!(found.base_type_name, message);
                found.extension_number
            }
            other => panic!("{other:?}"),
        })
    };
    let of_methods = numbers(EXTENDEE).unwrap();
    assert!(
        of_methods.contains(&http) && of_methods.is_sorted(),
        "{of_methods:?}"
    );
    assert_eq!(numbers("google.rpc.Status"), Ok(vec![]));
    assert!(numbers("no.Such").is_err());
}

/// Two sets can have a file of the same name.
#[test]
fn nested_extensions_and_files_of_the_same_name_are_found() {
    let set = |message: &str, number: i32| {
        let extension = prost_types::FieldDescriptorProto {
            name: Some("extra".to_owned()),
            number: Some(number),
            extendee: Some(".google.protobuf.MethodOptions".to_owned()),
            ..Default::default()
        };
        let nested = DescriptorProto {
            name: Some("Inner".to_owned()),
            extension: vec![extension],
            ..Default::default()
        };
        let outer = DescriptorProto {
            name: Some(message.to_owned()),
            nested_type: vec![nested],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("api.proto".to_owned()),
            message_type: vec![outer],
            ..Default::default()
        };
        prost_types::FileDescriptorSet { file: vec![file] }.encode_to_vec()
    };
    let (a, b) = (set("A", 50_001), set("B", 50_002));
    let mut answers =
        answers(Files::new([&a, &a, &b].map(|set| Bytes::copy_from_slice(set))).unwrap());
    for (message, number) in [("A", 50_001), ("B", 50_002)] {
        let name = format!("{message}.Inner.extra");
        for request in [symbol(message), symbol(&name), extension(EXTENDEE, number)] {
            let found = ask(&mut answers, request);
            assert_eq!(found, Ok(vec!["api.proto".to_owned()]), "{message}");
        }
    }
}

#[test]
fn empty_request_is_invalid() {
    let response = answers(files()).response(ServerReflectionRequest::default());
    let Some(MessageResponse::ErrorResponse(error)) = response.message_response else {
        panic!("{response:?}");
    };
    assert_eq!(error.error_code, Code::InvalidArgument as i32);
}

/// A client with a limit of 4 MiB gets the requested file, whatever it imports.
#[test]
fn long_dependencies_are_left_out() {
    let file = |name: &str, dependency: &[&str], size: usize| FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: dependency.iter().map(|name| (*name).to_owned()).collect(),
        package: Some("x".repeat(size)),
        ..FileDescriptorProto::default()
    };
    let set = prost_types::FileDescriptorSet {
        file: vec![
            file("a", &["b", "c"], 1),
            file("b", &["missing"], MAX_RESPONSE_BYTES - 100),
            file("c", &[], 100),
        ],
    };
    let mut answers = answers(Files::new([set.encode_to_vec().into()]).unwrap());
    let a = MessageRequest::FileByFilename("a".to_owned());
    assert_eq!(ask(&mut answers, a.clone()).unwrap(), ["a", "b"]);
    assert_eq!(ask(&mut answers, a).unwrap(), ["a", "c"]);
}
