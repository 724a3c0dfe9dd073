//! Rpcs of a descriptor set that are not served.

use super::*;

const MESSAGES: &str = "
    message Req { string id = 1; }
    message Res { string id = 1; }";

const GET: &str = r#"rpc Get(Req) returns (Res) { option (google.api.http) = {get: "/x/{id}"}; }"#;

fn source(text: &str, include: &[&str], exclude: &[&str]) -> Source {
    let owned = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
    Source {
        selection: Selection {
            include: owned(include),
            exclude: owned(exclude),
        },
        ..Source::new("t.binpb", descriptors(&proto(text)))
    }
}

#[track_caller]
fn compile(source: Source) -> Contract {
    Contract::compile(vec![source], &families).unwrap_or_else(|all| panic!("{}", printed(&all)))
}

fn problems(source: Source) -> String {
    let compiled = Contract::compile(vec![source], &families);
    printed(&compiled.map(|_| ()).expect_err("a diagnostic"))
}

fn paths(contract: &Contract) -> Vec<&str> {
    contract
        .methods()
        .iter()
        .map(|method| &*method.path)
        .collect()
}

#[test]
fn rpcs_without_rest_call_and_plain_streams_are_left_out() {
    use LeftOutReason::*;
    let http = r#"option (google.api.http) = {get: "/v1/x"};"#;
    let empty = "option (google.api.http) = {};";
    let deprecated = r#"option deprecated = true; option (google.api.http) = {get: "/v1/x"};"#;
    let custom = r#"option (google.api.http) = {custom: {kind: "HEAD" path: "/v1/x"}};"#;
    for (rpc, options, want) in [
        ("rpc Do(Req) returns (Res)", "", Some(NoRestCall)),
        ("rpc Do(Req) returns (Res)", empty, Some(NoRestCall)),
        (
            "rpc Do(Req) returns (Res)",
            "option idempotency_level = NO_SIDE_EFFECTS;",
            Some(NoRestCall),
        ),
        (
            "rpc Do(Req) returns (Res)",
            "option (drawbridge.v1.method) = {};",
            Some(NoRestCall),
        ),
        ("rpc Do(Req) returns (stream Res)", "", Some(ServerStream)),
        ("rpc Do(Req) returns (stream Res)", http, Some(ServerStream)),
        ("rpc Do(stream Req) returns (Res)", "", Some(ClientStream)),
        ("rpc Do(stream Req) returns (Res)", http, Some(ClientStream)),
        (
            "rpc Do(stream Req) returns (stream Res)",
            "",
            Some(BothStreams),
        ),
        (
            "rpc Do(stream Req) returns (stream Res)",
            http,
            Some(BothStreams),
        ),
        ("rpc Do(Req) returns (Res)", http, None),
        ("rpc Do(Req) returns (Res)", deprecated, None),
        ("rpc Do(Req) returns (Res)", custom, None),
    ] {
        let text = format!("service S {{ {GET} {rpc} {{ {options} }} }} {MESSAGES}");
        let contract = compile(source(&text, &[], &[]));
        let left_out = contract.left_out().get("/t.S/Do");
        assert_eq!(left_out.map(|rpc| rpc.reason), want, "{rpc} {options}");
        assert_eq!(contract.method("/t.S/Do").is_some(), want.is_none());
        assert!(contract.method("/t.S/Get").is_some(), "{rpc} {options}");
        assert_eq!(contract.services().len(), 1, "{rpc} {options}");
        let warnings = printed(&contract.warnings());
        match want {
            None => assert_eq!(warnings, ""),
            Some(reason) => {
                assert_eq!(
                    warnings,
                    format!("t.proto: t.S.Do: is not served: {reason}")
                );
                assert_eq!(
                    left_out.unwrap().to_string(),
                    format!("t.S.Do (t.proto) is not served: {reason}")
                );
            }
        }
    }
}

#[test]
fn incomplete_annotations_are_errors() {
    for (rpc, options, want) in [
        (
            "rpc Do(Req) returns (Res)",
            r#"option (google.api.http) = {body: "*"};"#,
            "has no path",
        ),
        (
            "rpc Do(Req) returns (Res)",
            "option (drawbridge.v1.method).location = \"id\";",
            "is missing: annotate the REST call",
        ),
        (
            "rpc Do(Req) returns (stream Res)",
            "option (drawbridge.v1.method).constant_query = \"a=b\";",
            "must be a watch",
        ),
    ] {
        let text = format!("service S {{ {GET} {rpc} {{ {options} }} }} {MESSAGES}");
        let problems = problems(source(&text, &[], &[]));
        assert!(problems.contains(want), "{rpc} {options}\n{problems}");
    }
}

#[test]
fn service_without_served_rpc_is_one_warning() {
    let text = format!(
        "service S {{ {GET} }}
         service Plain {{ rpc A(Req) returns (Res); rpc B(Req) returns (Res); }}
         service Mixed {{ rpc C(Req) returns (Res); rpc D(Req) returns (stream Res); }}
         service Empty {{}}
         {MESSAGES}"
    );
    let contract = compile(source(&text, &[], &[]));
    assert_eq!(
        printed(&contract.warnings()),
        format!(
            "t.proto: t.Mixed: no rpc of this service is served: C: {}; D: {}\n\
             t.proto: t.Plain: no rpc of this service is served: A and 1 more: {}",
            LeftOutReason::NoRestCall,
            LeftOutReason::ServerStream,
            LeftOutReason::NoRestCall
        )
    );
    assert_eq!(contract.services().into_keys().collect::<Vec<_>>(), ["t.S"]);
}

#[test]
fn file_without_package_is_no_problem_without_rest_calls() {
    let text = "syntax = \"proto3\"; service S { rpc A(Req) returns (Req); } message Req {}";
    let source = Source::new("t.binpb", descriptors(text));
    let contract = compile(source);
    assert!(contract.left_out().contains_key("/S/A"));
}

#[test]
fn selection_limits_what_is_served_and_checked() {
    // Invalid: the path has no such field.
    let bad = r#"rpc Bad(Req) returns (Res) { option (google.api.http) = {get: "/{no}"}; }"#;
    let text = format!(
        "service S {{ {GET} rpc Plain(Req) returns (Res); {bad} }}
         service T {{ {GET} rpc Flow(stream Req) returns (stream Res); }} {MESSAGES}"
    );
    for (include, exclude, want) in [
        (&[][..], &["t.S.Bad"][..], &["/t.S/Get", "/t.T/Get"][..]),
        (&[], &["t.S/Bad", "t.T"], &["/t.S/Get"]),
        (&[], &["t.S"], &["/t.T/Get"]),
        (&["t.T"], &[], &["/t.T/Get"]),
        (&["t.S.Get", "t.T"], &[], &["/t.S/Get", "/t.T/Get"]),
        (&["t.S.Get", "t.T"], &["t.T.Get"], &["/t.S/Get"]),
        (&["t"], &["t.S.Bad"], &["/t.S/Get", "/t.T/Get"]),
    ] {
        let got = Contract::compile(vec![source(&text, include, exclude)], &families);
        match got {
            Ok(contract) => {
                assert_eq!(paths(&contract), want, "{include:?} {exclude:?}");
                assert!(!contract.not_selected().is_empty());
            }
            // Everything of `t.T` is excluded or cannot be served.
            Err(all) => {
                assert_eq!(exclude, ["t.T.Get"]);
                assert!(printed(&all).contains("selects no rpc that can be served"));
            }
        }
    }
    let contract = compile(source(&text, &["t.T"], &[]));
    assert!(
        contract.left_out()["/t.S/Get"]
            .to_string()
            .contains("`include` or `exclude`")
    );
    assert_eq!(
        printed(&contract.warnings()),
        format!(
            "t.proto: t.T.Flow: is not served: {}",
            LeftOutReason::BothStreams
        )
    );
}

#[test]
fn descriptor_set_of_which_nothing_is_served_is_named() {
    let rpcs = format!("service S {{ {GET} }} {MESSAGES}");
    let plain = format!("service S {{ rpc Plain(Req) returns (Res); }} {MESSAGES}");
    for (text, exclude, want) in [
        (
            &rpcs,
            "t",
            "`exclude` leaves out all of them: remove an entry",
        ),
        (
            &rpcs,
            "t.S.Get",
            "`exclude` leaves out all of them: remove an entry",
        ),
        (&plain, "", "annotate an rpc"),
        (&MESSAGES.to_owned(), "", "it has no service"),
    ] {
        let exclude: &[&str] = if exclude.is_empty() { &[] } else { &[exclude] };
        let warnings = printed(&compile(source(text, &[], exclude)).warnings());
        let last = warnings.lines().last().unwrap();
        let want = format!("t.binpb: no rpc of this descriptor set is served: {want}");
        assert!(last.starts_with(&want), "{exclude:?}\n{warnings}");
    }
    assert!(compile(source(&rpcs, &[], &[])).warnings().is_empty());
    let empty = problems(Source::new("empty.binpb", Vec::new()));
    let want = "empty.binpb: not a complete descriptor set (it has no file): create one with";
    assert!(empty.starts_with(want), "{empty}");
}

#[test]
fn selected_rpcs_that_cannot_be_served_are_errors() {
    let text = format!(
        "service S {{ {GET} rpc Plain(Req) returns (Res); }}
         service T {{ rpc Flow(Req) returns (stream Res); }} {MESSAGES}"
    );
    for (include, exclude, want) in [
        (
            "t.S.Plain",
            "",
            "t.proto: t.S.Plain: google.api.http: `include` selects the rpc, but it has no",
        ),
        (
            "t.T",
            "",
            "t.binpb: t.T: include: selects no rpc that can be served: t.T.Flow: it is \
             server-streaming",
        ),
        (
            "t.U",
            "",
            "t.binpb: t.U: include: is not a package, a service or an rpc",
        ),
        (
            "t.S",
            "t.S.Gett",
            "t.binpb: t.S.Gett: exclude: is not a package, a service or an rpc",
        ),
        (
            "t.S.Get",
            "t.S",
            "t.binpb: t.S.Get: include: selects no rpc that can be served",
        ),
    ] {
        let exclude: &[&str] = if exclude.is_empty() { &[] } else { &[exclude] };
        let problems = problems(source(&text, &[include], exclude));
        assert!(
            problems.starts_with(want),
            "{include} {exclude:?}\n{problems}"
        );
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}

#[test]
fn annotation_that_names_a_left_out_rpc_names_both() {
    let plain = "rpc Plain(Req) returns (Res);";
    let list = r#"rpc List(Req) returns (ListRes) {
        option (google.api.http) = {get: "/x"};
    }"#;
    for (rpc, option) in [
        (
            r#"rpc Do(Req) returns (stream WatchRes) {
                 option (google.api.http) = {get: "/x/{id}"};
                 option (drawbridge.v1.method).watch = {poll: "Plain" item: "id"};
               }"#,
            "watch.poll",
        ),
        (
            r#"rpc Do(Req) returns (stream SideRes) {
                 option (google.api.http) = {get: "/x/{id}"};
                 option (drawbridge.v1.method).watch = {
                   poll: "Get" side_read: {call: "Plain" field: "list"}
                 };
               }"#,
            "watch.side_read.call",
        ),
        (
            r#"rpc Do(Req) returns (stream WatchRes) {
                 option (google.api.http) = {post: "/x/{id}"};
                 option (drawbridge.v1.method).watch = {
                   poll: "Get" start: {call: "Plain"}
                 };
               }"#,
            "watch.start.call",
        ),
        (
            r#"rpc Do(Req) returns (stream Res) {
                 option (google.api.http) = {get: "/x"};
                 option (drawbridge.v1.method).pages = "Plain";
               }"#,
            "pages",
        ),
        (
            r#"rpc Do(Req) returns (Res) {
                 option (google.api.http) = {get: "/x/{id}"};
                 option (drawbridge.v1.method).resolve = "Plain";
               }"#,
            "resolve",
        ),
    ] {
        let text = format!(
            "service S {{ {GET} {plain} {list} {rpc} }} {MESSAGES}
             message ListRes {{ repeated Res items = 1; }}
             message WatchRes {{ drawbridge.v1.WatchEvent event = 1; Res res = 2; }}
             message SideRes {{
               drawbridge.v1.WatchEvent event = 1; Res res = 2; ListRes list = 3;
             }}"
        );
        let problems = problems(source(&text, &[], &[]));
        let want = format!(
            "t.proto: t.S.Do: (drawbridge.v1.method).{option}: t.S.Plain (t.proto) is not served: \
             it has no `google.api.http`"
        );
        assert!(problems.contains(&want), "{option}\n{problems}");
    }
}

#[test]
fn watch_whose_poll_is_not_selected_is_an_error() {
    let text = jobs(DO, STARTED);
    let problems = problems(Source {
        selection: Selection {
            include: Vec::new(),
            exclude: vec!["t.S.GetJob".to_owned()],
        },
        ..Source::new("t.binpb", descriptors(&text))
    });
    for watch in ["t.S.Watch", "t.AddonService.DoAndWatch"] {
        let want = format!(
            "{watch}: (drawbridge.v1.method).watch.poll: t.S.GetJob (t.proto) is not served: \
             `include` or `exclude`"
        );
        assert!(problems.contains(&want), "{want}\n{problems}");
    }
}

#[test]
fn descriptor_sets_can_share_files_and_services() {
    let text = format!("service S {{ {GET} rpc Plain(Req) returns (Res); }} {MESSAGES}");
    let changed = text.replace("/x/{id}", "/y/{id}");
    let sets = |first: Source, second: Source| Contract::compile(vec![first, second], &families);
    let same = sets(source(&text, &[], &[]), source(&text, &[], &[])).unwrap();
    assert_eq!(paths(&same), ["/t.S/Get"]);
    assert_eq!(same.warnings().len(), 1);

    let all = sets(source(&text, &[], &[]), source(&changed, &[], &[])).unwrap_err();
    assert!(printed(&all).starts_with("t.proto: t.S: service: is in two descriptor sets"));
    let chosen = sets(source(&text, &[], &["t.S"]), source(&changed, &[], &[])).unwrap();
    assert_eq!(&*chosen.method("/t.S/Get").unwrap().template, "/y/{id}");
    assert_eq!(chosen.left_out().len(), 1, "Plain");
}

#[test]
fn services_of_the_gateway_are_not_read() {
    let text = r#"syntax = "proto3"; package grpc.health.v1;
        service Health { rpc Check(Req) returns (Req); } message Req {}"#;
    let health = |include: &[&str]| Source {
        selection: Selection {
            include: include.iter().map(|entry| (*entry).to_owned()).collect(),
            exclude: Vec::new(),
        },
        ..Source::new("t.binpb", descriptors(text))
    };
    let contract = compile(health(&[]));
    assert!(contract.left_out().is_empty() && contract.methods().is_empty());
    assert_eq!(
        problems(health(&["grpc.health.v1.Health"])),
        "t.binpb: grpc.health.v1.Health: include: is implemented by the gateway itself"
    );
}

#[test]
fn panic_while_compiling_is_a_diagnostic() {
    let text = format!("service S {{ {GET} }} {MESSAGES}");
    let source = source(&text, &[], &[]);
    let all = Contract::compile(vec![source], &|_| panic!("as a library does")).unwrap_err();
    let want = "t.binpb: not a complete descriptor set (its descriptors are contradictory)";
    assert!(printed(&all).starts_with(want), "{}", printed(&all));
}

#[test]
fn built_in_protos_are_served_completely() {
    assert!(random_input::built_in().left_out().is_empty());
}
