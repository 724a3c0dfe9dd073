//! Expressions: a value never becomes syntax.

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;
use crate::json::wire::write_bytes;
use crate::schema::{Cardinality, Kind};

fn test() -> TestContract {
    TestContract::new(&unary(
        "option (google.api.http) = {get: \"/v1/x\"};",
        r#"message Req {
             F filter = 1 [(drawbridge.v1.field) = {name: "HQL::filter" form: FORM_EXPRESSION}];
             repeated string sort = 2 [(drawbridge.v1.field) = {
               form: FORM_COMMA_LIST field_names: {message: "Thing" suffixes: ["ASC", "DESC"]}}];
             repeated string each = 3 [(drawbridge.v1.field).field_names = {message: "t.Thing"}];
             string one = 4 [(drawbridge.v1.field).field_names = {message: "Thing"}];
           }
           message Thing {
             int64 instance_id = 1 [(drawbridge.v1.field).name = "instanceID"];
             E state = 2;
             string state_raw = 3 [(drawbridge.v1.field).raw_of = "state"];
             google.protobuf.Struct more = 4 [(drawbridge.v1.field).additional_properties = true];
           }
           message F {
             optional string name = 1 [(drawbridge.v1.field).condition = {}];
             optional string name_starts = 2 [
               (drawbridge.v1.field).condition = {member: "name" operator: "starts"}];
             repeated string status_in = 3 [(drawbridge.v1.field).condition.member = "status"];
             optional int64 n = 4 [(drawbridge.v1.field).condition.member = "serviceID"];
             repeated uint64 n_in = 5 [(drawbridge.v1.field).condition.member = "id"];
             optional bool b = 6 [(drawbridge.v1.field).condition.operator = "ne"];
             google.protobuf.Timestamp after = 7 [(drawbridge.v1.field) = {
               form: FORM_OFFSET_TIME condition: {member: "createTime" operator: "ge"}}];
             repeated F any_of = 8;
             F all_of = 9;
             optional E e = 10 [(drawbridge.v1.field).condition = {}];
           }
           enum E { E_UNSPECIFIED = 0; E_ONE = 1; }
           message Res {}"#,
    ))
}

/// Returns the decoded value of the query parameter.
fn filter(test: &TestContract, filter: Json) -> Result<Option<String>, Error> {
    let call = test.bind(json!({ "filter": filter }))?;
    if call.query.is_empty() {
        return Ok(None);
    }
    let value = call.query.strip_prefix("HQL::filter=").expect("the name");
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~%".contains(c);
    assert!(value.chars().all(fine), "all else is encoded: {value}");
    Ok(Some(
        percent_decode_str(value).decode_utf8().unwrap().into(),
    ))
}

#[test]
fn conditions_become_an_expression() {
    let test = test();
    for (request, want) in [
        (json!({}), None),
        (json!({"name": "web"}), Some("(name eq 'web')")),
        (json!({"name": ""}), Some("(name eq '')")),
        (
            json!({"name": "' or 1 eq 1 or name eq '"}),
            Some("(name eq ''' or 1 eq 1 or name eq ''')"),
        ),
        (json!({"name": "''"}), Some("(name eq '''''')")),
        (
            json!({"name": "a/../b\n%27 & ] ) 日本語\\'"}),
            Some("(name eq 'a/../b\n%27 & ] ) 日本語\\''')"),
        ),
        (
            json!({"nameStarts": "a", "statusIn": ["failed", "can'celed"], "n": 2015}),
            Some(
                "(name starts 'a') and (status in ['failed', 'can''celed']) and (serviceID eq 2015)",
            ),
        ),
        (
            json!({"nIn": ["0", "18446744073709551615"], "b": false}),
            Some("(id in [0, 18446744073709551615]) and (b ne false)"),
        ),
        (
            json!({"after": "2026-01-02T03:04:05.6789Z"}),
            Some("(createTime ge '2026-01-02T03:04:05.678+00:00')"),
        ),
        (
            json!({"after": "0001-01-01T00:00:00Z"}),
            Some("(createTime ge '0001-01-01T00:00:00.000+00:00')"),
        ),
        (json!({"e": "E_ONE"}), Some("(e eq 'ONE')")),
        (
            json!({"name": "a", "anyOf": [{"n": 1}, {"n": 2, "b": true}], "allOf": {"n": 3}}),
            Some(
                "(name eq 'a') and (((serviceID eq 1)) or ((serviceID eq 2) and (b ne true))) \
                 and ((serviceID eq 3))",
            ),
        ),
    ] {
        let got = filter(&test, request.clone()).unwrap();
        assert_eq!(got.as_deref(), want, "{request}");
        if let Some(got) = got {
            parse(&got);
        }
    }
}

#[test]
fn values_without_a_literal_are_rejected() {
    let test = test();
    let mut deep = json!({"n": 1});
    for _ in 0..12 {
        deep = json!({ "allOf": deep });
    }
    for (request, field, problem) in [
        (json!({"n": -1}), "filter.n", "must not be negative"),
        (
            json!({"anyOf": [{"n": 1}, {}]}),
            "filter.any_of[1]",
            "has no condition",
        ),
        (json!({"allOf": {}}), "filter.all_of", "has no condition"),
        (
            json!({"name": "x".repeat(4_097)}),
            "filter.name",
            "longer than 4096",
        ),
        (
            json!({"statusIn": vec!["x".repeat(99); 50]}),
            "filter.status_in",
            "longer than 4096",
        ),
        (
            deep,
            "filter.all_of.all_of.all_of.all_of.all_of.all_of.all_of.all_of.all_of",
            "too deep",
        ),
    ] {
        let error = filter(&test, request.clone()).unwrap_err();
        let (got, told) = fault(&error);
        assert_eq!(got, field, "{request}");
        assert!(told.contains(problem), "{request}: {told}");
    }
}

#[test]
fn field_names_become_rest_names() {
    let test = test();
    for (request, want) in [
        (
            json!({"sort": ["instance_id", "instanceID desc", "state_raw  ASC"]}),
            Ok("sort=instanceID%2CinstanceID%20DESC%2Cstate%20ASC"),
        ),
        (
            json!({"each": ["state", "instance_id"], "one": " instance_id"}),
            Ok("each=state&each=instanceID&one=instanceID"),
        ),
        (json!({"sort": ["instance_id, name"]}), Err("sort[0]")),
        (json!({"sort": ["name"]}), Err("sort[0]")),
        (json!({"sort": ["state", "state up"]}), Err("sort[1]")),
        (json!({"sort": ["state desc desc"]}), Err("sort[0]")),
        (json!({"one": "more"}), Err("one")),
        (json!({"one": "state desc"}), Err("one")),
        (json!({"one": "state&HQL::filter=1"}), Err("one")),
    ] {
        let got = test.bind(request.clone());
        match (&got, want) {
            (Ok(call), Ok(want)) => assert_eq!(call.query, want, "{request}"),
            (Err(error), Err(field)) => assert_eq!(fault(error).0, field, "{request}"),
            _ => panic!("{request}: {got:?}"),
        }
    }
}

#[test]
fn groups_require_at_least_one_field() {
    let test = TestContract::new(&unary(
        r#"option (google.api.http) = {delete: "/v1/x"};
           option (drawbridge.v1.method).at_least_one = {fields: ["since", "group", "all"]};"#,
        "message Req { optional int64 group = 1; google.protobuf.Timestamp since = 2;
           bool all = 3 [(drawbridge.v1.field).gateway_only = true]; string other = 4; }
         message Res {}",
    ));
    for (request, want) in [
        (json!({"group": 0}), Ok("group=0")),
        (json!({"all": true}), Ok("")),
        (json!({"all": true, "other": "o"}), Ok("other=o")),
        (
            json!({"since": "1970-01-01T00:00:00Z"}),
            Ok("since=1970-01-01T00%3A00%3A00Z"),
        ),
        (json!({}), Err("since")),
        (json!({"all": false, "other": "o"}), Err("since")),
    ] {
        let got = test.bind(request.clone());
        match (&got, want) {
            (Ok(call), Ok(want)) => assert_eq!(call.query, want, "{request}"),
            (Err(error), Err(field)) => assert_eq!(fault(error).0, field, "{request}"),
            _ => panic!("{request}: {got:?}"),
        }
    }
}

#[test]
fn count_members_path_in_and_response_choices_apply() {
    let test = TestContract::new(&unary(
        r#"option (google.api.http) = {put: "/v1/a/{id}" body: "*" response_body: "one"};
           option (drawbridge.v1.method) = {
             path_in: {key: "old" value: "/v0/{id}/a"}
             constant_members: {key: "pagination" value: "{}"}
             count_members: {key: "count" value: "data"}
             response_choices: {member: "state" field: "one"}
             response_choices: {member: "href" field: "two"}
           };"#,
        "message Req { string id = 1; repeated string data = 2; }
         message Res { One one = 1; Two two = 2; }
         message One { string state = 1; string href = 2; }
         message Two { string href = 1; }",
    ));
    for (request, dialect, path, sent) in [
        (
            json!({"id": "i", "data": ["a", "b"]}),
            "",
            "/v1/a/i",
            r#"{"pagination":{},"data":["a","b"],"count":2}"#,
        ),
        (
            json!({"id": "i"}),
            "old",
            "/v0/i/a",
            r#"{"pagination":{},"count":0}"#,
        ),
    ] {
        let call = test.bind_in(request.clone(), dialect).unwrap();
        assert_eq!(call.path, path, "{request}");
        assert_eq!(body(&call), Some(sent), "{request}");
    }
    for (text, want) in [
        (
            r#"{"state":"s","href":"h"}"#,
            json!({"one": {"state": "s", "href": "h"}}),
        ),
        (r#"{"href":"h"}"#, json!({"two": {"href": "h"}})),
        // Without the member of a choice, it is the `response_body`.
        (r#"{"state":"s"}"#, json!({"one": {"state": "s"}})),
    ] {
        let reply = Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(text),
        };
        let decoded = test.rpc("Do").decode(&reply).unwrap();
        assert_eq!(test.json("t.Res", &decoded.message), want, "{text}");
    }
}

/// A parsed expression. The parser shares no code with the writer.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    All(Vec<Said>),
    Any(Vec<Said>),
    Test(String, String, Vec<Literal>),
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Digits(String),
    Bool(bool),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Sign(char),
    Word(String),
    Text(String),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = rest.next() {
        match c {
            ' ' => {}
            '(' | ')' | '[' | ']' | ',' => tokens.push(Token::Sign(c)),
            '\'' => {
                let mut content = String::new();
                loop {
                    match rest.next().expect("an open quote") {
                        '\'' if rest.peek() == Some(&'\'') => {
                            rest.next();
                            content.push('\'');
                        }
                        '\'' => break,
                        c => content.push(c),
                    }
                }
                tokens.push(Token::Text(content));
            }
            c => {
                let mut word = String::from(c);
                while let Some(c) = rest.peek().filter(|c| c.is_ascii_alphanumeric()) {
                    word.push(*c);
                    rest.next();
                }
                assert!(
                    word.chars().all(|c| c.is_ascii_alphanumeric()),
                    "{word:?} in {text}"
                );
                tokens.push(Token::Word(word));
            }
        }
    }
    tokens
}

fn parse(text: &str) -> Said {
    let tokens = tokens(text);
    let mut at = 0;
    let said = expression(&tokens, &mut at);
    assert_eq!(at, tokens.len(), "there is more in {text}");
    said
}

fn expression(tokens: &[Token], at: &mut usize) -> Said {
    let mut parts = vec![term(tokens, at)];
    let mut joint: Option<String> = None;
    while let Some(Token::Word(word)) = tokens.get(*at)
        && (word == "and" || word == "or")
    {
        assert!(
            joint.as_ref().is_none_or(|j| j == word),
            "which binds first?"
        );
        joint = Some(word.clone());
        *at += 1;
        parts.push(term(tokens, at));
    }
    match joint.as_deref() {
        None => parts.remove(0),
        Some("or") => Said::Any(parts),
        Some(_) => Said::All(parts),
    }
}

fn term(tokens: &[Token], at: &mut usize) -> Said {
    let mut next = || {
        *at += 1;
        tokens[*at - 1].clone()
    };
    match next() {
        Token::Sign('(') => {
            let said = expression(tokens, at);
            assert_eq!(tokens[*at], Token::Sign(')'));
            *at += 1;
            said
        }
        Token::Word(member) => {
            let Token::Word(operator) = next() else {
                panic!("no operator");
            };
            let literal = |token| match token {
                Token::Text(text) => Literal::Text(text),
                Token::Word(word) if word == "true" => Literal::Bool(true),
                Token::Word(word) if word == "false" => Literal::Bool(false),
                Token::Word(word) => {
                    assert!(word.chars().all(|c| c.is_ascii_digit()), "{word}");
                    Literal::Digits(word)
                }
                sign => panic!("{sign:?} is no value"),
            };
            let mut values = Vec::new();
            match next() {
                Token::Sign('[') => loop {
                    values.push(literal(next()));
                    match next() {
                        Token::Sign(',') => {}
                        Token::Sign(']') => break,
                        other => panic!("{other:?} in a list"),
                    }
                },
                one => values.push(literal(one)),
            }
            Said::Test(member, operator, values)
        }
        other => panic!("{other:?} is no term"),
    }
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "['\\[\\](),% &=or nd\n\\\\]{0,12}",
        Just("x' or 'a' eq 'a".to_owned()),
        Just("..//%27%00日本'".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_stays_a_literal(
        name in proptest::option::of(hostile()),
        starts in proptest::option::of(hostile()),
        states in proptest::collection::vec(hostile(), 0..4),
        n in proptest::option::of(0_i64..),
        flag in proptest::option::of(any::<bool>()),
        any_of in proptest::collection::vec(hostile(), 0..3),
    ) {
        thread_local! {
            static WORLD: TestContract = test();
        }
        let text = |text: &String| Literal::Text(text.clone());
        let test = |member: &str, operator: &str, values| {
            Said::Test(member.to_owned(), operator.to_owned(), values)
        };
        let mut request = json!({});
        let mut want = Vec::new();
        if let Some(name) = &name {
            request["name"] = json!(name);
            want.push(test("name", "eq", vec![text(name)]));
        }
        if let Some(starts) = &starts {
            request["nameStarts"] = json!(starts);
            want.push(test("name", "starts", vec![text(starts)]));
        }
        if !states.is_empty() {
            request["statusIn"] = json!(states);
            want.push(test("status", "in", states.iter().map(text).collect()));
        }
        if let Some(n) = n {
            request["n"] = json!(n);
            want.push(test("serviceID", "eq", vec![Literal::Digits(n.to_string())]));
        }
        if let Some(flag) = flag {
            request["b"] = json!(flag);
            want.push(test("b", "ne", vec![Literal::Bool(flag)]));
        }
        let others: Vec<Said> = any_of.iter().map(|t| test("name", "eq", vec![text(t)])).collect();
        if !others.is_empty() {
            request["anyOf"] = any_of.iter().map(|t| json!({ "name": t })).collect();
            want.push(if others.len() == 1 { others[0].clone() } else { Said::Any(others) });
        }
        let got = WORLD.with(|test| filter(test, request)).unwrap();
        let want = match want.len() {
            0 => None,
            1 => want.pop(),
            _ => Some(Said::All(want)),
        };
        prop_assert_eq!(got.as_deref().map(parse), want);
    }
}

/// Every condition on a text or number of JP1/AO can be negated, and every id that a client
/// sends is checked.
#[test]
fn filters_of_jp1ao_are_complete() {
    let source = Source::new("built-in", BUILT_IN.clone());
    let contract = Contract::compile(vec![source], &families).unwrap();
    let mut operators: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for method in contract.methods().iter().filter(|m| &*m.family == "jp1ao") {
        let mut seen = vec![method.input];
        let mut at = 0;
        while let Some(id) = seen.get(at).copied() {
            at += 1;
            let message = method.schema.message(id);
            for field in &message.fields {
                let name = format!("{}.{}", message.name, field.name);
                if let Kind::Message(below) = field.kind
                    && !field.output_only
                    && !seen.contains(&below)
                {
                    seen.push(below);
                }
                let is_integer = matches!(field.kind, Kind::Int64 | Kind::Int32);
                let is_id = field.name.split('_').any(|word| word == "id");
                if is_integer && is_id && !field.output_only {
                    assert_eq!(field.minimum, Some(0), "{name}");
                }
                if let Some(condition) = &field.condition
                    && (field.kind == Kind::String || is_integer)
                {
                    let of = format!("{}.{}", message.name, condition.member);
                    let all = operators.entry(of).or_default();
                    let operator = condition.operator.to_string();
                    if !all.contains(&operator) {
                        all.push(operator);
                    }
                    let many = field.cardinality == Cardinality::Repeated;
                    assert_eq!(condition.operator.ends_with("in"), many, "{name}");
                }
            }
        }
    }
    for (of, all) in &operators {
        for wanted in ["in", "ne", "not in"] {
            assert!(all.iter().any(|one| one == wanted), "{of} lacks {wanted}");
        }
    }
    for member in [
        "description",
        "supportedScheduleType",
        "keyName",
        "vendorName",
    ] {
        let of = format!("hitachi.automation.v1.ServiceTemplateFilter.{member}");
        assert_eq!(operators[&of].len(), 6, "{of}");
    }
    let filter = contract
        .method("/hitachi.automation.v1.ServiceTemplateService/ListServiceTemplates")
        .unwrap();
    let mut conditions = Vec::new();
    write_bytes(&mut conditions, 43, b"it's");
    write_bytes(&mut conditions, 52, b"recurrence");
    let mut request = Vec::new();
    let (_, field) = filter
        .schema
        .message(filter.input)
        .field("hql_filter")
        .unwrap();
    write_bytes(&mut request, field.number, &conditions);
    let query = filter.bind(&request, "").unwrap().query;
    assert_eq!(
        percent_decode_str(&query).decode_utf8().unwrap(),
        "HQL::filter=(description eq 'it''s') and (supportedScheduleType not in ['recurrence'])"
    );
}
