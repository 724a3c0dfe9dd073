//! `google.api.http`: paths, bodies and queries.

use super::*;

#[test]
fn invalid_routes_are_reported() {
    let http = "google.api.http";
    for (options, messages, option, want) in [
        (
            "option (drawbridge.v1.method).anonymous = true;",
            PLAIN,
            http,
            "is missing: annotate the REST call",
        ),
        (
            "option (google.api.http) = {body: \"*\"};",
            PLAIN,
            http,
            "has no path",
        ),
        (
            "option (google.api.http) = {get: \"v1/x\"};",
            PLAIN,
            http,
            "does not begin with `/`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id\"};",
            PLAIN,
            http,
            "is not closed",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id=}\"};",
            PLAIN,
            http,
            "a segment is empty",
        ),
        (
            "option (google.api.http) = {custom: {kind: \"*\" path: \"/x\"}};",
            PLAIN,
            http,
            "`*` is not an HTTP method",
        ),
        (
            "option (google.api.http) = {custom: {kind: \"a b\" path: \"/x\"}};",
            PLAIN,
            http,
            "`a b` is not an HTTP method",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{no}\"};",
            PLAIN,
            http,
            "path variable `{no}`: t.Req has no field `no`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id.no}\"};",
            PLAIN,
            http,
            "`id` is not a message",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{sub}\"};",
            "message Req { Sub sub = 1; } message Sub { string id = 1; } message Res {}",
            http,
            "`sub` is a message: name a field of it, as in `{sub.id}`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{sub.no}\"};",
            "message Req { Sub sub = 1; } message Sub { string id = 1; } message Res {}",
            http,
            "t.Sub has no field `no`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{ids}\"};",
            "message Req { repeated string ids = 1; } message Res {}",
            http,
            "`ids` is a list or map",
        ),
        (
            "option (google.api.http) = {post: \"/v1/{m}\" body: \"*\"};",
            "message Req { map<string, string> m = 1; } message Res {}",
            http,
            "`m` is a list or map",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id}\"};",
            "message Req { string id = 1 [(drawbridge.v1.field).absent_in = \"x\"]; } message Res {}",
            http,
            "`id` is not always sent",
        ),
        (
            "option (google.api.http) = {get: \"/v1/x\"};",
            "message Req { string p = 1 [(drawbridge.v1.field).upstream_value = \"project_id\"]; }
             message Res {}",
            http,
            "the field `p` defaults to the upstream's project id and must be in the path",
        ),
        (
            "option (google.api.http) = {post: \"/v1/x\" body: \"no\"};",
            PLAIN,
            http,
            "body `no`: t.Req has no such field",
        ),
        (
            "option (google.api.http) = {post: \"/v1/x\" body: \"id\"};",
            "message Req { string id = 1 [(drawbridge.v1.field).gateway_only = true]; } message Res {}",
            http,
            "body `id` is a field that is not sent",
        ),
        (
            "option (google.api.http) = {get: \"/v1/x\" response_body: \"no\"};",
            PLAIN,
            http,
            "response_body `no`: t.Res has no such field",
        ),
    ] {
        let diagnostic = one(&unary(options, messages));
        assert_eq!(diagnostic.element, "t.S.Do", "{options}");
        assert_eq!(diagnostic.option, option, "{options}");
        assert!(diagnostic.problem.contains(want), "{options}\n{diagnostic}");
    }
}

#[test]
fn unsuitable_query_parameters_are_reported() {
    for (fields, want) in [
        (
            "map<string, string> m = 1;",
            "`m`: a map cannot be a query parameter",
        ),
        (
            "repeated Sub subs = 1;",
            "`subs`: a list of messages cannot be",
        ),
        (
            "google.protobuf.Struct s = 1;",
            "`s`: arbitrary JSON cannot be",
        ),
        (
            "google.protobuf.Value v = 1;",
            "`v`: arbitrary JSON cannot be",
        ),
        ("Sub sub = 1;", "`sub.map`: a map cannot be"),
        (
            "Bare bare = 1;",
            "`bare`: a message that is an array in JSON cannot be",
        ),
        ("Deep deep = 1;", "`deep.deep`: a recursive message"),
        (
            "Deep deep = 1;",
            "put it in a body, or mark it `gateway_only`",
        ),
    ] {
        let messages = format!(
            "message Req {{ {fields} }} message Res {{}}
             message Sub {{ map<string, string> map = 1; }}
             message Bare {{ option (drawbridge.v1.message).as_array = \"a\"; repeated string a = 1; }}
             message Deep {{ string a = 1; Deep deep = 2; }}"
        );
        let options = "option (google.api.http) = {get: \"/v1/x\"};";
        let diagnostic = one(&unary(options, &messages));
        assert_eq!(diagnostic.option, "google.api.http", "{fields}");
        assert!(diagnostic.problem.contains(want), "{fields}\n{diagnostic}");
    }
}

#[test]
fn invalid_additional_bindings_are_reported() {
    for (binding, want) in [
        (
            "get: \"/y/{no}\"",
            "path variable `{no}`: t.Req has no field `no`",
        ),
        ("get: \"y\"", "does not begin with `/`"),
        ("body: \"*\"", "has no path"),
        (
            "post: \"/y\" body: \"no\"",
            "body `no`: t.Req has no such field",
        ),
        (
            "get: \"/y\" additional_bindings {get: \"/z\"}",
            "must not have `additional_bindings` itself",
        ),
        (
            "get: \"/y\" response_body: \"id\"",
            "must have the `response_body`",
        ),
    ] {
        let diagnostic = one(&unary(
            &format!(
                "option (google.api.http) = {{
                   get: \"/x/{{id}}\"
                   additional_bindings {{get: \"/w\"}}
                   additional_bindings {{{binding}}}
                 }};"
            ),
            PLAIN,
        ));
        assert_eq!(diagnostic.option, "google.api.http", "{binding}");
        let problem = &diagnostic.problem;
        assert!(problem.starts_with("additional binding 2: "), "{problem}");
        assert!(problem.contains(want), "{binding}\n{problem}");
    }
}

#[test]
fn binding_that_is_never_used_is_reported() {
    const NEVER: Option<&str> = Some("is never used");
    let messages = r#"
        message Req {
          string a = 1; string b = 2; M m = 3;
          string p = 4 [(drawbridge.v1.field).upstream_value = "project_id"];
        }
        message M { string a = 1; }
        message Res {}"#;
    let path = "/{p}";
    for (first, second, want) in [
        ("/x", "/y", NEVER),
        ("/x", "/y/{a}", NEVER),
        ("/x/{a}", "/y/{a}", NEVER),
        ("/x/{a}", "/y/{a}/{b}", NEVER),
        ("/x/{a}", "/y/{b}/{a=things/*}", NEVER),
        ("/x/{a=**}", "/y/{b}/{a=things/*}", NEVER),
        ("/x/{a=things/*}", "/y/{a=things/*}/{b}", NEVER),
        ("/x/{m.a}", "/y/{m.a}/{b}", NEVER),
        ("/x/{a}/{b}", "/y/{a}", None),
        ("/x/{a}", "/y/{b}", None),
        ("/x/{a}", "/y", None),
        ("/x/{a}", "/y/{m.a}", None),
        ("/x/{a=things/*}", "/y/{a=others/*}", None),
        ("/x/{a=things/*}", "/y/{a}", None),
    ] {
        let rule = format!(
            "option (google.api.http) = {{
               get: \"{path}{first}\" additional_bindings {{post: \"{path}{second}\"}}
             }};"
        );
        let source = Source::new("t.binpb", descriptors(&unary(&rule, messages)));
        let found = Contract::compile(vec![source], &super::families).err();
        let found = found.map(|all| printed(&all));
        match want {
            None => assert_eq!(found, None, "{first} {second}"),
            Some(want) => {
                let found = found.unwrap_or_default();
                let start = "t.proto: t.S.Do: google.api.http: additional binding 1: ";
                assert!(found.starts_with(start), "{first} {second}: {found}");
                assert!(found.contains(want), "{first} {second}: {found}");
                assert!(found.contains("the rule itself fits"), "{found}");
            }
        }
    }
    let diagnostic = one(&unary(
        "option (google.api.http) = {
           get: \"/x/{a}/{b}\"
           additional_bindings {get: \"/y/{b}\"}
           additional_bindings {get: \"/z/{b}\"}
         };",
        "message Req { string a = 1; string b = 2; } message Res {}",
    ));
    let problem = diagnostic.problem;
    assert!(
        problem.starts_with("additional binding 2: is never used"),
        "{problem}"
    );
    assert!(problem.contains("additional binding 1 fits"), "{problem}");
}
