//! `(drawbridge.v1.file).health_check`.

use super::*;

/// Returns a service of one rpc, whose file names it as health check.
fn checked(rpc: &str, named: &str) -> String {
    proto(&format!(
        r#"option (drawbridge.v1.file) = {{family: "acme" health_check: "{named}"}};
        service S {{ {rpc} }}
        message Req {{ string id = 1; }}
        message Strict {{ string id = 1 [(google.api.field_behavior) = REQUIRED]; }}
        message Res {{ string id = 1; }}"#
    ))
}

#[test]
fn health_check_is_a_read_without_required_fields() {
    for (rpc, named, want) in [
        (
            r#"rpc Do(Req) returns (Res) { option (google.api.http) = {get: "/x"}; }"#,
            "Do",
            "`Do` is not an rpc of the package t",
        ),
        (
            r#"rpc Do(Req) returns (Res) { option (google.api.http) = {get: "/x"}; }"#,
            "S.Dont",
            "`S.Dont` is not an rpc of the package t, or is itself invalid: write `Service.Rpc`",
        ),
        (
            r#"rpc Do(Req) returns (Res) { option (google.api.http) = {post: "/x" body: "*"}; }"#,
            "S.Do",
            "`S.Do` is a POST that may change something: name a read",
        ),
        (
            r#"rpc Do(Req) returns (Res) { option (google.api.http) = {delete: "/x"}; }"#,
            "S.Do",
            "is a DELETE that may change something",
        ),
        (
            r#"rpc Do(Req) returns (Res) {
                 option (google.api.http) = {get: "/x"};
                 option idempotency_level = IDEMPOTENCY_UNKNOWN;
               }"#,
            "S.Do",
            "is a GET that may change something",
        ),
        (
            r#"rpc Do(Req) returns (Res) { option (google.api.http) = {get: "/x/{id}"}; }"#,
            "S.Do",
            "must have no required field: id: ",
        ),
        (
            r#"rpc Do(Strict) returns (Res) { option (google.api.http) = {get: "/x"}; }"#,
            "S.Do",
            "must have no required field: id: ",
        ),
        (
            r#"rpc Do(Req) returns (Res) {
                 option (google.api.http) = {get: "/x"};
                 option (drawbridge.v1.method).anonymous = true;
               }"#,
            "S.Do",
            "sends no credential",
        ),
    ] {
        refused(&checked(rpc, named), "file health_check", want, rpc);
    }
}

#[test]
fn health_check_of_a_family_is_found() {
    let rpc = r#"rpc Do(Req) returns (Res) { option (google.api.http) = {get: "/x"}; }
                 rpc Search(Req) returns (Res) {
                   option (google.api.http) = {post: "/x:search" body: "*"};
                   option idempotency_level = NO_SIDE_EFFECTS;
                 }"#;
    for named in ["Do", "Search"] {
        let test = TestContract::new(&checked(rpc, &format!("S.{named}")));
        let method = test.contract.health_check("acme").expect(named);
        assert_eq!(&*method.name, named);
        assert!(test.contract.health_check("t").is_none());
    }
    let source = Source {
        name: "built-in".into(),
        bytes: BUILT_IN.clone(),
        selection: Selection::default(),
    };
    let contract = Contract::compile(vec![source], &families).expect("proto/ is valid");
    for (family, dialects) in [
        ("heat", &["openstack", "rts", "rackspace"][..]),
        ("jp1ao", &["v12", "v11", "v10"]),
        ("servicestage", &[""]),
    ] {
        let method = contract.health_check(family).expect(family);
        for dialect in dialects {
            assert!(method.is_in(dialect), "{family} {dialect}");
            method.bind(b"", dialect).expect(dialect);
        }
    }
}
