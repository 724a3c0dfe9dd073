use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

use super::*;
use crate::contract::Contract;

const STACKS: &str = "openstack.orchestration.v1.StackService";

static CONTRACT: LazyLock<Contract> =
    LazyLock::new(|| crate::contract::with_built_in(&[]).unwrap());
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(crate::contract::BUILT_IN).unwrap());

fn rule(identity: &str) -> Rule {
    Rule {
        name: format!("for {identity}"),
        place: "d.toml:7".to_owned(),
        identities: vec![Pattern::new(identity)],
        upstreams: Vec::new(),
        services: Vec::new(),
        methods: Vec::new(),
        read_only: false,
        fields: Vec::new(),
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, Vec<ValuePattern>)> {
    let field = |(name, value): &(&str, &str)| ((*name).to_owned(), vec![ValuePattern::new(value)]);
    fields.iter().map(field).collect()
}

fn compiled(rules: &[Rule]) -> Result<Policy, Vec<(usize, &'static str, String)>> {
    let subject = Subject {
        methods: &CONTRACT.methods(),
        upstreams: &["north", "south", "stage"],
    };
    compile(rules, subject)
}

/// Returns the request of an rpc, encoded.
fn request(path: &str, json: &Value) -> Vec<u8> {
    let (service, method) = path[1..].split_once('/').unwrap();
    let service = POOL.get_service_by_name(service).unwrap();
    let method = service.methods().find(|m| m.name() == method).unwrap();
    let message = DynamicMessage::deserialize(method.input(), json);
    message.unwrap().encode_to_vec()
}

/// Returns whether a call is allowed, first without and then with its request.
fn allows(policy: &Policy, identity: &str, path: &str, upstream: &str, json: &Value) -> bool {
    let identity = Identity::parse(identity);
    let call = Call {
        identity: identity.as_ref(),
        path,
        upstream,
    };
    let request = request(path, json);
    match policy.check(call, Request::NotRead) {
        Ok(allowed) if allowed.by_request => {
            policy.check(call, Request::OfClient(&request)).is_ok()
        }
        Ok(_) => {
            assert!(policy.check(call, Request::OfClient(&request)).is_ok());
            true
        }
        Err(_) => {
            assert!(policy.check(call, Request::OfClient(&request)).is_err());
            false
        }
    }
}

/// Each row of the matrix is an identity, each column a call by an upstream.
#[test]
fn matrix_of_identities_rpcs_and_upstreams() {
    let policy = compiled(&[
        Rule {
            upstreams: patterns(&["north"]),
            services: patterns(&["StackService"]),
            ..rule("token:ci")
        },
        Rule {
            read_only: true,
            ..rule("certificate:spiffe://a/readers/*")
        },
        Rule {
            methods: patterns(&["StackService/Get*", "WatchStack"]),
            ..rule("jwt:*")
        },
        Rule {
            upstreams: patterns(&["*th"]),
            ..rule("ops")
        },
        Rule {
            services: patterns(&["openstack.*"]),
            methods: patterns(&["GetBuildInfo"]),
            ..rule(ANONYMOUS)
        },
    ])
    .unwrap();
    let paths = [
        "StackService/GetStack",
        "StackService/WatchStack",
        "StackService/DeleteStack",
        "MetaService/GetBuildInfo",
        "SoftwareConfigService/DeleteSoftwareConfig",
    ];
    for (identity, want) in [
        ("token:ci", ["n", "n", "n", "", ""]),
        ("token:ci2", ["", "", "", "", ""]),
        ("jwt:ci", ["ns", "ns", "", "", ""]),
        (
            "certificate:spiffe://a/readers/x/y",
            ["ns", "ns", "", "ns", ""],
        ),
        ("certificate:spiffe://a/readers", ["", "", "", "", ""]),
        ("certificate:spiffe://b/readers/x", ["", "", "", "", ""]),
        ("token:ops", ["ns", "ns", "ns", "ns", "ns"]),
        ("certificate:ops", ["ns", "ns", "ns", "ns", "ns"]),
        ("token:Ops", ["", "", "", "", ""]),
        ("", ["", "", "", "ns", ""]),
    ] {
        for (path, want) in paths.iter().zip(want) {
            let path = format!("/openstack.orchestration.v1.{path}");
            for upstream in ["north", "south"] {
                let got = allows(&policy, identity, &path, upstream, &json!({}));
                let want = want.contains(&upstream[..1]);
                assert_eq!(got, want, "{identity} {path} {upstream}");
                let known = Identity::parse(identity);
                let may = policy.may_use(known.as_ref(), &path, Some(upstream));
                assert_eq!(may, want, "{identity} {path} {upstream}");
            }
        }
    }
}

#[test]
fn field_must_name_the_resource_and_nothing_else_may() {
    let policy = compiled(&[
        Rule {
            fields: fields(&[("project_id", "p1"), ("stack_name", "shop-*")]),
            ..rule("ci")
        },
        Rule {
            fields: fields(&[("stack_name", "shop-*")]),
            ..rule("ops")
        },
        Rule {
            fields: fields(&[("project_id", "p1")]),
            ..rule("lister")
        },
    ])
    .unwrap();
    let shop = json!({"project_id": "p1", "stack_name": "shop-1"});
    for (identity, method, json, want) in [
        ("ci", "GetStack", shop.clone(), true),
        ("ci", "WatchStack", shop.clone(), true),
        ("ci", "DeleteStack", shop.clone(), true),
        ("ci", "CreateStack", shop.clone(), true),
        ("ci", "GetStack", json!({"stack_name": "shop-1"}), false),
        (
            "ci",
            "GetStack",
            json!({"project_id": "p2", "stack_name": "shop-1"}),
            false,
        ),
        ("ci", "GetStack", json!({"project_id": "p1"}), false),
        ("ops", "GetStack", json!({}), false),
        ("ops", "GetStack", json!({"stack_name": ""}), false),
        ("ops", "GetStack", json!({"stack_id": "s1"}), false),
        (
            "ops",
            "GetStack",
            json!({"stack_name": "shop-1", "stack_id": "s1"}),
            false,
        ),
        ("ops", "GetStack", json!({"stack_name": "other"}), false),
        ("ops", "GetStack", json!({"stack_name": "SHOP-1"}), false),
        (
            "ops",
            "GetStack",
            json!({"stack_name": "shop-1/../../other"}),
            false,
        ),
        ("ops", "GetStack", json!({"stack_name": "shop-*"}), false),
        ("ops", "GetStack", json!({"stack_name": "shop-1"}), true),
        ("ops", "FindStack", json!({"identity": "shop-1"}), false),
        ("ops", "UpdateStack", json!({"stack_name": "shop-1"}), true),
        ("ops", "CreateStack", json!({"stack_name": "shop-1"}), true),
        ("ops", "CreateStack", json!({"stack_name": "other"}), false),
        // Lists and streams of pages.
        ("ops", "ListStacks", json!({}), false),
        ("ops", "StreamStacks", json!({}), false),
        ("ci", "ListStacks", json!({"project_id": "p1"}), false),
        ("lister", "ListStacks", json!({"project_id": "p1"}), true),
        ("lister", "StreamStacks", json!({"project_id": "p1"}), true),
        ("lister", "ListStacks", json!({"project_id": "p2"}), false),
        ("lister", "ListStacks", json!({}), false),
        (
            "lister",
            "GetStack",
            json!({"project_id": "p1", "stack_id": "s1"}),
            true,
        ),
    ] {
        let (identity, path) = (format!("token:{identity}"), format!("/{STACKS}/{method}"));
        let got = allows(&policy, &identity, &path, "north", &json);
        assert_eq!(got, want, "{identity} {method} {json}");
    }
}

#[test]
fn second_occurrence_on_the_wire_is_not_overlooked() {
    let policy = compiled(&[Rule {
        fields: fields(&[("stack_name", "shop-*")]),
        ..rule("ci")
    }])
    .unwrap();
    let path = format!("/{STACKS}/GetStack");
    let identity = Identity::parse("token:ci");
    let call = Call {
        identity: identity.as_ref(),
        path: &path,
        upstream: "north",
    };
    let one = request(&path, &json!({"stack_name": "shop-1"}));
    let other = request(&path, &json!({"stack_name": "other"}));
    let check = |request: &[u8]| policy.check(call, Request::OfClient(request)).is_ok();
    assert!(check(&one));
    for request in [[&*other, &one].concat(), [&*one, &other].concat()] {
        assert!(!check(&request));
    }
    assert!(!check(&[&*one, b"\xff"].concat()), "what cannot be read");
    // A lookup appends what it has found: the last one counts.
    let found = |request: &[u8]| policy.check(call, Request::LookedUp(request)).is_ok();
    let id = request(&path, &json!({"stack_id": "s1"}));
    assert!(found(&[&*one, &id, &one].concat()));
    assert!(!found(&[&*one, &id, &other].concat()));
}

#[test]
fn watch_that_begins_with_a_call_needs_the_rules_of_both() {
    const SERVICE: &str = "huaweicloud.servicestage.v3.ComponentService";
    let starting = CONTRACT.methods().into_iter().find_map(|method| {
        let start = method.watch.as_ref()?.start.as_ref()?;
        (*method.service == *SERVICE).then(|| (method.clone(), start.rpc.clone()))
    });
    let (watch, start) = starting.unwrap();
    for (methods, read_only, want) in [
        (vec![&*watch.name], false, false),
        (vec![&*start.name], false, false),
        (vec![&*watch.name, &*start.name], false, true),
        (vec![&*watch.name, &*start.name], true, false),
    ] {
        let policy = compiled(&[Rule {
            methods: patterns(&methods),
            ..rule("ci")
        }]);
        let policy = match read_only {
            false => policy.unwrap(),
            // Another rule, so that this one is not empty.
            true => compiled(&[Rule {
                read_only,
                ..rule("ci")
            }])
            .unwrap(),
        };
        let got = allows(&policy, "token:ci", &watch.path, "stage", &json!({}));
        assert_eq!(got, want, "{methods:?} {read_only}");
    }
}

#[test]
fn denial_names_the_rule_that_comes_closest() {
    let policy = compiled(&[
        rule("ops"),
        Rule {
            fields: fields(&[("stack_name", "shop-*")]),
            ..rule("ci")
        },
    ])
    .unwrap();
    let identity = Identity::parse("token:ci");
    let path = format!("/{STACKS}/GetStack");
    for (path, json, rule, text) in [
        (
            format!("/{STACKS}/ListStacks"),
            json!({}),
            None,
            "no rule allows token:ci to call openstack.orchestration.v1.StackService/ListStacks of \
             upstream north",
        ),
        (
            path.clone(),
            json!({"stack_name": "secret"}),
            Some("for ci"),
            "only if `stack_name` is shop-*",
        ),
        (
            path.clone(),
            json!({}),
            Some("for ci"),
            "only if `stack_name` is set",
        ),
        (
            path.clone(),
            json!({"stack_name": "shop-1", "stack_id": "s1"}),
            Some("for ci"),
            "`stack_id` is not set",
        ),
    ] {
        let call = Call {
            identity: identity.as_ref(),
            path: &path,
            upstream: "north",
        };
        let request = request(&path, &json);
        let denied = policy.check(call, Request::OfClient(&request)).unwrap_err();
        assert!(denied.problem.contains(text), "{denied}");
        assert!(!denied.problem.contains("secret"), "{denied}");
        let found = denied
            .rule
            .as_ref()
            .map(|(name, place)| (&**name, &**place));
        assert_eq!(found, rule.map(|rule| (rule, "d.toml:7")));
    }
}

#[test]
fn rules_about_what_does_not_exist_are_reported() {
    let all = || rule("*");
    for (rule, key, text) in [
        (
            Rule {
                upstreams: patterns(&["nort"]),
                ..all()
            },
            "upstreams",
            "nort is not the name of an upstream, did you mean north?",
        ),
        (
            Rule {
                services: patterns(&["StackServce"]),
                ..all()
            },
            "services",
            "StackServce is not a service, did you mean StackService?",
        ),
        (
            Rule {
                methods: patterns(&["GetStak"]),
                ..all()
            },
            "methods",
            "GetStak is not an rpc, did you mean GetStack?",
        ),
        (
            Rule {
                methods: patterns(&["StackService/GetStak"]),
                ..all()
            },
            "methods",
            "did you mean StackService/GetStack?",
        ),
        (
            Rule {
                services: patterns(&["acme.*"]),
                ..all()
            },
            "services",
            "acme.* is not a service",
        ),
        (
            Rule {
                services: patterns(&["StackService"]),
                methods: patterns(&["GetBuildInfo"]),
                ..all()
            },
            "methods",
            "the rule allows no rpc",
        ),
        (
            Rule {
                methods: patterns(&["DeleteStack"]),
                read_only: true,
                ..all()
            },
            "methods",
            "the rule allows no rpc",
        ),
        (
            Rule {
                services: patterns(&["StackService"]),
                fields: fields(&[("stack_nam", "x")]),
                ..all()
            },
            "fields",
            "no rpc of the rule has a field `stack_nam`, did you mean stack_name?",
        ),
        (
            Rule {
                methods: patterns(&["ListStacks"]),
                fields: fields(&[("page_token", "1")]),
                ..all()
            },
            "fields",
            "`page_token` only selects items of a list in",
        ),
    ] {
        let problems = compiled(&[rule]).unwrap_err();
        assert_eq!((problems[0].0, problems[0].1), (0, key), "{problems:?}");
        assert!(problems[0].2.contains(text), "{problems:?}");
    }
}

/// Tokens and rules change one after the other: such a rule is only reported.
#[test]
fn identity_without_a_token_is_reported() {
    let rules = [rule("token:cI"), rule("token:*"), rule("jwt:ci")];
    let found = unknown_tokens(&rules, &["ci", "ops"]);
    let problem = "token:cI is not the name of a client token, did you mean ci?";
    assert_eq!(found, [(0, problem.to_owned())]);
    assert_eq!(unknown_tokens(&rules, &[]), []);
}
