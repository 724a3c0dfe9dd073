//! Queries, and requests that are not sent.

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, Kind};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use super::{Ao, V1, start};
use crate::support::client::json as to_json;
use crate::support::recorder::Answer;

/// Requests that would delete too much, or that JP1/AO rejects, are not sent (quirks 18
/// and 19).
#[tokio::test]
async fn request_that_jp1ao_rejects_is_not_sent() {
    let (recorder, gateway) = start(|_| Answer::text(204, "text/plain", "")).await;
    for (rpc, request, field) in [
        ("TaskHistoryService/DeleteTaskHistories", json!({}), "start"),
        ("PropertyService/ListProperties", json!({}), "service_id"),
        (
            "PropertyService/ListPropertyGroups",
            json!({}),
            "service_template_id",
        ),
        ("TaskService/ListTaskSteps", json!({}), "task_id"),
        ("TaskService/GetTaskLog", json!({}), "task_id"),
        ("TaskService/GetTask", json!({}), "id"),
        (
            "PropertyService/BatchUpdatePropertyValues",
            json!({}),
            "data",
        ),
        (
            "TaskService/ListTasks",
            json!({"hql_filter": {"service_id_in": [-1]}}),
            "hql_filter.service_id_in[0]",
        ),
        (
            "TaskService/ListTasks",
            json!({"hql_sort_by": ["name'"]}),
            "hql_sort_by[0]",
        ),
        ("TaskService/ListTasks", json!({"tags": ["a,b"]}), "tags[0]"),
    ] {
        let error = gateway.client.call(rpc, request.clone()).await.unwrap_err();
        assert_eq!(
            error.code(),
            Code::InvalidArgument,
            "{rpc} {request}: {error:?}"
        );
        let details = error.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, field, "{rpc} {request}");
    }
    assert!(recorder.seen().is_empty());
    for (request, query) in [
        (json!({"delete_all": true}), ""),
        (
            json!({"start": "2026-01-01T00:00:00Z", "service_group_id": 3}),
            "?start=2026-01-01T00%3A00%3A00.000%2B00%3A00&serviceGroupID=3",
        ),
    ] {
        gateway
            .client
            .call("TaskHistoryService/DeleteTaskHistories", request)
            .await
            .unwrap();
        let seen = recorder.take();
        assert_eq!(seen[0].target, format!("{V1}/objects/TaskHistories{query}"));
        assert_eq!((&*seen[0].method, seen[0].body.len()), ("DELETE", 0));
    }
}

/// Values are escaped in queries and in filters.
#[tokio::test]
async fn values_are_escaped_in_queries() {
    let (recorder, gateway) = start(|_| Answer::json(200, &json!({"data": [], "count": 0}))).await;
    for value in [
        "it's",
        "a/b",
        "../..",
        "line\nfeed",
        "100%",
        "%27%2F",
        "日本語",
        "a&q=b#c",
        "+ +",
        "' or 1=1",
        "'",
        "''",
        "\\",
        "\\' or name <> '",
        "%2e%2e/%2E%2E",
        "%00",
        "\0",
        "\u{2028}\u{2029}",
        "\u{feff}\u{202e}",
        "') or (name ne '",
        "a'] or name in ['b",
        "&HQL::filter=x",
        ";q=1",
        "[name]",
        "𝄞 🦀",
        "\r\nX-Injected: 1",
    ] {
        let request = json!({
            "q": value, "tags": [value],
            "hql_filter": {"name": value, "status_in": [value, "failed"]},
        });
        gateway
            .client
            .call("TaskService/ListTasks", request)
            .await
            .unwrap();
        let seen = recorder.take();
        assert_eq!(seen[0].path(), format!("{V1}/objects/Tasks"));
        let quoted = value.replace('\'', "''");
        assert_eq!(
            seen[0].pairs(),
            [
                (
                    "HQL::filter".to_owned(),
                    format!("(name eq '{quoted}') and (status in ['{quoted}', 'failed'])"),
                ),
                ("q".to_owned(), value.to_owned()),
                ("tags".to_owned(), value.to_owned()),
            ],
            "{value:?}"
        );
        // The parameter's name is spelled as in the manual; everything else is encoded.
        assert!(
            seen[0].query().contains("HQL::filter=%28name"),
            "{}",
            seen[0].query()
        );
    }
    let request = json!({
        "hql_fields": ["instance_id", "toDo"], "hql_sort_by": ["submit_time desc", "name"],
        "page_token": "3", "page_size": 20,
    });
    gateway
        .client
        .call("TaskService/ListTasks", request)
        .await
        .unwrap();
    assert_eq!(
        recorder.take()[0].query(),
        "HQL::fields=instanceID%2CtoDo&HQL::sortBy=submitTime%20DESC%2Cname&page=3&pageSize=20"
    );
    let request = json!({"task_id": 5, "offset": 0, "read_size": 4096, "reverse": true});
    gateway
        .client
        .call("TaskService/GetTaskLog", request)
        .await
        .unwrap();
    assert_eq!(
        recorder.take()[0].target,
        format!("{V1}/objects/TaskLogs?taskID=5&offset=0&readSize=4096&reverse"),
        "quirk 17"
    );
}

/// JP1/AO may cut a list at 100 without `pagination`: there is a next page anyway.
#[tokio::test]
async fn list_cut_without_pagination_has_a_next_page() {
    let (recorder, gateway) = start(|seen| {
        let items = if seen.query().contains("page=2") {
            50
        } else {
            100
        };
        let data: Vec<_> = (1..=items).map(|id| json!({"instanceID": id})).collect();
        Answer::json(200, &json!({"data": data, "count": 150}))
    })
    .await;
    for (rpc, request) in [
        ("TaskService/ListTasks", json!({})),
        ("TaskService/ListTaskSteps", json!({"task_id": 1})),
        ("PropertyService/ListPropertyGroups", json!({"task_id": 1})),
    ] {
        let first = to_json(&gateway.client.call(rpc, request.clone()).await.unwrap());
        assert_eq!(first["next_page_token"], "2", "{rpc}");
        let mut request = request;
        request["page_token"] = "2".into();
        let second = to_json(&gateway.client.call(rpc, request).await.unwrap());
        assert_eq!(second["data"].as_array().map(Vec::len), Some(50), "{rpc}");
        assert_eq!(second["next_page_token"], Value::Null, "{rpc}");
        let second = recorder.seen().pop().unwrap();
        assert!(second.query().ends_with("page=2"), "{}", second.target);
    }
}

/// The client's language is sent to the upstream, and the message names its own.
#[tokio::test]
async fn language_is_forwarded_and_returned() {
    let ao = Ao::new().await;
    for (requested, sent, text, locale) in [
        (None, "en", "It is not there.", "en"),
        (Some("ja"), "ja", "ありません。", "ja"),
        (
            Some("ja-JP,en;q=0.5"),
            "ja-JP,en;q=0.5",
            "ありません。",
            "ja-JP",
        ),
    ] {
        let (recorder, gateway) = ao.answers(move |_| {
            Answer::json(404, &json!({"message": text, "messageID": "KNAE02102-E"}))
        });
        let metadata: Vec<_> = requested
            .iter()
            .map(|requested| ("accept-language", *requested))
            .collect();
        let error = gateway
            .client
            .call_with("TaskService/GetTask", json!({"id": 1}), &metadata)
            .await
            .unwrap_err();
        assert_eq!(recorder.seen()[0].header("accept-language"), sent);
        let details = error.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "KNAE02102-E");
        let message = details
            .localized_message()
            .expect("a message in a language");
        assert_eq!(message.locale, locale);
        assert!(message.message.contains(text));
    }
}

/// Each field of a filter is the condition that its name says.
#[test]
fn filter_fields_are_the_conditions_of_their_names() {
    const OPERATORS: [(&str, &str); 7] = [
        ("_not_in", "not in"),
        ("_in", "in"),
        ("_ne", "ne"),
        ("_starts", "starts"),
        ("_ends", "ends"),
        ("_after", "ge"),
        ("_before", "lt"),
    ];
    let contract = drawbridge::contract::with_built_in(&[]).unwrap();
    let pool = DescriptorPool::decode(drawbridge::contract::BUILT_IN).unwrap();
    let services = pool.services();
    let services = services.filter(|s| s.package_name() == "hitachi.automation.v1");
    let mut checked = 0;
    for rpc in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let Some(filter) = rpc.input().get_field_by_name("hql_filter") else {
            continue;
        };
        let path = format!("/{}/{}", rpc.parent_service().full_name(), rpc.name());
        let method = contract.method(&path).unwrap();
        let filters = filter.kind().as_message().unwrap().clone();
        for field in filters.fields().filter(|field| field.name() != "any_of") {
            let name = field.name();
            let is_single = !field.is_list();
            let operator = OPERATORS.iter().find(|(end, _)| name.ends_with(end));
            let (base, operator) = match operator {
                Some((end, operator)) => (name.strip_suffix(end).unwrap(), *operator),
                None => (name, "eq"),
            };
            assert_eq!(is_single, !operator.ends_with("in"), "{path} {name}");
            let member: String = match base {
                "created" => "createTime".into(),
                "modified" => "modifyTime".into(),
                "submitted" => "submitTime".into(),
                "started" => "startTime".into(),
                "completed" => "completionTime".into(),
                "archived" => "archiveTime".into(),
                _ => {
                    let words = base.split('_').enumerate();
                    let words = words.map(|(at, word)| match (at, word) {
                        (0, word) => word.to_owned(),
                        (_, "id") => "ID".to_owned(),
                        (_, word) => word[..1].to_uppercase() + &word[1..],
                    });
                    words.collect()
                }
            };
            let value = match field.kind() {
                Kind::Bool => json!(true),
                Kind::String => json!("1"),
                Kind::Message(_) => json!("2026-01-02T03:04:05Z"),
                _ => json!(1),
            };
            let value = if is_single { value } else { json!([value]) };
            let request = json!({
                "hqlFilter": {field.json_name(): value},
                "serviceId": 1, "serviceTemplateId": 1, "taskId": 1
            });
            let options = DeserializeOptions::new().deny_unknown_fields(false);
            let request = DynamicMessage::deserialize_with_options(rpc.input(), request, &options);
            let call = method.bind(&request.unwrap().encode_to_vec(), "").unwrap();
            let pairs: Vec<_> = url::form_urlencoded::parse(call.query.as_bytes()).collect();
            let sent = pairs.iter().find(|(name, _)| name == "HQL::filter");
            let sent = sent.map_or("", |(_, sent)| sent);
            let want = format!("({member} {operator} ");
            assert!(
                sent.starts_with(&want),
                "{path} {name}: {sent}, want {want}"
            );
            checked += 1;
        }
    }
    assert!(checked > 200, "{checked}");
}
