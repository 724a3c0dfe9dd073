//! Properties of any input.

use proptest::prelude::*;

use super::*;

pub(super) fn built_in() -> Contract {
    let source = Source::new("built-in", super::BUILT_IN.clone());
    Contract::compile(vec![source], &super::families).unwrap_or_else(|r| panic!("{}", printed(&r)))
}

#[test]
fn path_values_round_trip() {
    let test = TestContract::new(&unary(
        "option (google.api.http) = {get: \"/v1/{id}/x\"};",
        "message Req { string id = 1; string q = 2; } message Res {}",
    ));
    proptest!(|(value in any::<String>())| {
        let mut wire = Vec::new();
        crate::json::wire::write_bytes(&mut wire, 1, value.as_bytes());
        crate::json::wire::write_bytes(&mut wire, 2, value.as_bytes());
        let dots = value.split('/').any(|segment| matches!(segment, "." | ".."));
        match test.rpc("Do").bind(&wire, "") {
            Err(error) => {
                prop_assert!(value.is_empty() || dots, "{:?}: {}", value, error);
            }
            Ok(call) => {
                prop_assert!(!value.is_empty() && !dots);
                let segments: Vec<&str> = call.path.split('/').collect();
                prop_assert_eq!(segments.len(), 4);
                let query = call.query.strip_prefix("q=");
                prop_assert_eq!(query, Some(segments[2]), "one encoding for both");
                let decoded = percent_encoding::percent_decode_str(segments[2]);
                prop_assert_eq!(decoded.decode_utf8().unwrap(), value);
                let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
                prop_assert!(segments[2].bytes().all(unreserved));
            }
        }
    });
}

#[test]
fn random_requests_do_not_panic() {
    let contract = built_in();
    let methods = contract.methods();
    let call = |bytes: &[u8]| {
        let message = Bytes::copy_from_slice(bytes);
        let reply = Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: message.clone(),
        };
        for method in &methods {
            let _ = method.bind(bytes, "rackspace");
            let _ = method.document(bytes);
            if let Ok(decoded) = method.decode(&reply) {
                // Decoding never succeeds without a message in the body, unless the response
                // has no fields.
                let text = bytes.trim_ascii();
                let has_no_fields = method.schema.message(method.output).fields.is_empty();
                assert!(
                    text.is_empty() || has_no_fields || crate::json::check(text).is_ok(),
                    "{}: {bytes:?} is {decoded:?}",
                    method.path
                );
            }
            let Some(watch) = &method.watch else {
                continue;
            };
            watch.follows(bytes);
            for item in watch.items(&message).unwrap_or_default() {
                let _ = (
                    watch.key(&item),
                    watch.outcome(&item),
                    watch.state_text(&item),
                );
            }
            let _ = watch.refreshed(&message);
            let _ = watch.refresh_call(bytes, "1", "");
        }
    };
    // Small field numbers and lengths reach more code than random bytes.
    let field = (1u32..12, proptest::collection::vec(any::<u8>(), 0..20));
    let wire = proptest::collection::vec(field, 0..8).prop_map(|fields| {
        let mut wire = Vec::new();
        for (number, value) in fields {
            crate::json::wire::write_bytes(&mut wire, number, &value);
        }
        wire
    });
    let any_bytes = proptest::collection::vec(any::<u8>(), 0..64);
    let text = "[\\[\\]{}\":,0-9a-z ]{0,40}".prop_map(String::into_bytes);
    proptest!(|(bytes in prop_oneof![wire, any_bytes, text])| call(&bytes));
}

#[test]
fn damaged_descriptor_sets_do_not_panic() {
    let set = descriptors(&unary(
        "option (google.api.http) = {
           get: \"/x/{id}\" additional_bindings {get: \"/y/{e}\"}
         };",
        "message Req { string id = 1; E e = 2; map<string, E> m = 3; oneof o { Res r = 4; } }
         message Res { google.protobuf.StringValue s = 1; repeated Res more = 2; }
         enum E { E_UNSPECIFIED = 0; E_A = 1; }",
    ));
    // The file of the test is the last one, and the smallest.
    let tail = set.len() - 700;
    let patch = proptest::collection::vec(any::<u8>(), 1..4);
    proptest!(ProptestConfig::with_cases(128), |(at in tail..set.len(), patch in patch)| {
        let mut bytes = set.clone();
        let end = bytes.len().min(at + patch.len());
        bytes.splice(at..end, patch);
        let name = "t.binpb".to_owned();
        if let Ok(contract) = Contract::compile(vec![Source::new(name, bytes)], &super::families) {
            for method in contract.methods() {
                let _ = method.bind(b"", "");
                let _ = method.bind(b"\x0a\x01a\x22\x02\x0a\x00", "");
            }
        }
    });
}

/// A request of the deepest nesting is bound and its reply decoded; a deeper one is an error.
#[test]
fn nesting_limit_holds_for_requests_and_replies() {
    let test = TestContract::new(&proto(
        r#"service S {
             rpc Do(Node) returns (Node) { option (google.api.http) = {post: "/x" body: "*"}; }
           }
           message Node {
             string id = 1 [(google.api.field_behavior) = REQUIRED];
             string read_only = 2 [(google.api.field_behavior) = OUTPUT_ONLY];
             Node next = 3;
             repeated Node all = 4;
             map<string, Node> named = 5;
           }"#,
    ));
    let check = move || {
        use crate::json::wire::write_bytes;
        let field = |number: u32, value: &[u8]| {
            let mut out = Vec::new();
            write_bytes(&mut out, number, value);
            out
        };
        let leaf = || [field(1, b"a"), field(2, b"b")].concat();
        for number in [3, 4, 5] {
            let nested = |levels: usize| {
                (0..levels).fold(leaf(), |inner, _| {
                    let inner = match number {
                        5 => [field(1, b"k"), field(2, &inner)].concat(),
                        _ => inner,
                    };
                    [leaf(), field(number, &inner)].concat()
                })
            };
            let deepest = if number == 5 { 50 } else { 100 };
            let rpc = test.rpc("Do");
            let call = rpc.bind(&nested(deepest), "").unwrap();
            let reply = Reply {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: call.body.unwrap(),
            };
            assert!(rpc.decode(&reply).is_ok(), "{number}");
            for deep in [deepest + 1, 3_000] {
                assert!(rpc.bind(&nested(deep), "").is_err(), "{number} {deep}");
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    thread.spawn(check).unwrap().join().unwrap();
}
