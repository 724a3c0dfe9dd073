//! JP1/AO through the gateway, against an upstream that answers as its manuals
//! print and as they contradict themselves. Numbers of quirks are those of the
//! fact sheet, section (g).

use std::sync::{Arc, Mutex};

use drawbridge::upstream::Settings;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::client::json as to_json;
use crate::support::compare::{differences, same};
use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, upstream};

const V1: &str = "/Automation/v1";

async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (Recorder, Gateway) {
    start_as("v12", answer).await
}

async fn start_as(
    dialect: &str,
    answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> (Recorder, Gateway) {
    let recorder = Recorder::start(answer).await;
    let settings = Settings {
        dialect: dialect.to_owned(),
        ..upstream("ao", "jp1ao", &recorder.url())
    };
    let gateway = Gateway::with(vec![settings]).await;
    (recorder, gateway)
}

type Answerer = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A gateway before a JP1/AO that answers otherwise from case to case: to start one
/// takes longer than most cases.
struct Ao {
    recorder: Recorder,
    gateway: Gateway,
    answer: Arc<Mutex<Answerer>>,
}

impl Ao {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let answer: Arc<Mutex<Answerer>> =
            Arc::new(Mutex::new(Box::new(|_| Answer::json(500, &Value::Null))));
        let answers = Arc::clone(&answer);
        let recorder = Recorder::start(move |seen| (*answers.lock().unwrap())(seen)).await;
        let mut settings = upstream("ao", "jp1ao", &recorder.url());
        // Failures of one case are not those of the next.
        settings.circuit_breaker_failures = 0;
        change(&mut settings);
        let gateway = Gateway::with(vec![settings]).await;
        Self {
            recorder,
            gateway,
            answer,
        }
    }

    /// From now on it answers so, and nothing was seen yet.
    fn answers(
        &self,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> (&Recorder, &Gateway) {
        *self.answer.lock().unwrap() = Box::new(answer);
        self.recorder.take();
        (&self.recorder, &self.gateway)
    }
}

fn envelope() -> Value {
    json!({
        "instanceID": "11111111-2222-3333-4444-555555555555",
        "created": "2026-01-02T03:04:05.678+09:00", "updated": "2026-01-02T03:04:05.678+09:00",
        "completed": "2026-01-02T03:04:05.678+09:00", "state": "success",
        "affectedResource": ["http://ao.example:22015/Automation/v1/objects/Tasks/41"],
        "result": []
    })
}

fn calls(recorder: &Recorder) -> Vec<String> {
    let told = |seen: &Seen| format!("{} {}", seen.method, seen.target);
    recorder.seen().iter().map(told).collect()
}

/// Every action: the document is fetched, named after the action called whatever
/// it says itself (quirks 6 and 7), completed, and sent to the documented path
/// whatever its `href` says (quirk 11). GETs have no body, POSTs have one (22).
#[tokio::test]
async fn actions_are_fetched_and_invoked() {
    let (recorder, gateway) = start(|seen| match seen.method.as_str() {
        "GET" if seen.path().ends_with("/PropertyDefinitions") => {
            Answer::json(200, &json!({"data": [], "count": 0}))
        }
        "GET" => Answer::text(
            200,
            "application/json",
            r#"{"href":" http://inside.example:/x","name":"export","zz":1.50,"parameters":null}"#,
        ),
        _ => Answer::json(200, &envelope()),
    })
    .await;
    for (rpc, resource, action) in [
        (
            "AutomationServiceService/SubmitService",
            "Services",
            "submit",
        ),
        (
            "AutomationServiceService/ResetServiceCounter",
            "Services",
            "reset",
        ),
        (
            "AutomationServiceService/ReleaseService",
            "Services",
            "release",
        ),
        (
            "AutomationServiceService/MaintainService",
            "Services",
            "maintenance",
        ),
        (
            "AutomationServiceService/DisableService",
            "Services",
            "disable",
        ),
        (
            "AutomationServiceService/ApplyTemplate",
            "Services",
            "applyTemplate",
        ),
        (
            "ServiceTemplateService/BindServiceTemplate",
            "ServiceTemplates",
            "bind",
        ),
        ("ScheduleService/CancelSchedule", "Schedules", "cancel"),
        ("ScheduleService/SuspendSchedule", "Schedules", "suspend"),
        ("ScheduleService/ResumeSchedule", "Schedules", "resume"),
        ("TaskService/StopTask", "Tasks", "stop"),
        ("TaskService/ForceStopTask", "Tasks", "forceStop"),
        ("TaskService/ResubmitTask", "Tasks", "resubmit"),
        ("TaskService/RespondTask", "Tasks", "response"),
        ("TaskService/RetryTask", "Tasks", "rerunStart"),
        (
            "TaskService/RetryTaskFromNextStep",
            "Tasks",
            "rerunStepStart",
        ),
        ("TaskService/ArchiveTask", "Tasks", "archive"),
    ] {
        recorder.take();
        let got = gateway.client.call(rpc, json!({"id": 41})).await;
        let got = to_json(&got.unwrap_or_else(|e| panic!("{rpc}: {e:?}")));
        assert_eq!(
            got["action_result"]["state"], "ACTION_STATE_SUCCESS",
            "{rpc}"
        );
        let mut seen = recorder.take();
        // The definitions of properties are read in between.
        seen.retain(|seen| !seen.path().ends_with("/PropertyDefinitions"));
        let path = format!("{V1}/objects/{resource}/41/actions/{action}");
        let told: Vec<_> = seen
            .iter()
            .map(|s| (s.method.as_str(), s.target.clone()))
            .collect();
        assert_eq!(
            told,
            [("GET", path.clone()), ("POST", format!("{path}/invoke"))],
            "{rpc}"
        );
        assert!(seen[0].body.is_empty(), "{rpc}");
        assert_eq!(
            std::str::from_utf8(&seen[1].body).unwrap(),
            format!(
                r#"{{"href":" http://inside.example:/x","name":"{action}","zz":1.50,"parameters":[],"method":"POST"}}"#
            ),
            "{rpc}"
        );

        // With a document there is one step, and the document is the caller's.
        let template =
            json!({"name": "mine", "method": "POST", "parameters": [], "more": {"zz": 1}});
        let request = json!({"id": 41, "template": template});
        gateway.client.call(rpc, request).await.unwrap();
        let mut seen = recorder.take();
        seen.retain(|seen| !seen.path().ends_with("/PropertyDefinitions"));
        assert_eq!(seen.len(), 1, "{rpc}");
        assert_eq!(
            seen[0].json(),
            json!({"name": "mine", "method": "POST", "parameters": [], "zz": 1}),
            "{rpc}"
        );
    }
}

/// The document of a submission, flat and nested, as the manual leaves open.
fn submission(nested: bool) -> Value {
    let values = json!([
        {"instanceID": 7, "keyName": "host", "value": "", "type": "string", "serviceID": 41},
        {"instanceID": 8, "keyName": "size", "value": "10", "type": "integer"},
        {"instanceID": 9, "keyName": "fast", "value": "false", "type": "boolean"}
    ]);
    let schedule = json!({"name": "n", "description": "d", "scheduleType": "immediate", "zz": 0});
    let parameters = if nested {
        json!([schedule, values])
    } else {
        json!([schedule, values[0], values[1], values[2]])
    };
    json!({"name": "submit", "href": "h", "method": "POST", "parameters": parameters})
}

fn definitions() -> Value {
    json!({"count": 4, "data": [
        {"instanceID": 1, "keyName": "host", "type": "string", "required": true, "maxLength": 8,
         "pattern": "^[^ ]*$"},
        {"instanceID": 2, "keyName": "size", "type": "integer", "minValue": "1", "maxValue": 100},
        {"instanceID": 3, "keyName": "fast", "type": "boolean"},
        {"instanceID": 4, "keyName": "secret", "type": "string", "readOnly": true, "hidden": true}
    ]})
}

fn submitting(nested: bool) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    move |seen| match (seen.method.as_str(), seen.path()) {
        ("GET", path) if path.ends_with("/PropertyDefinitions") => {
            Answer::json(200, &definitions())
        }
        ("GET", _) => Answer::json(200, &submission(nested)),
        // Version 10 answers 201 (quirk 9).
        _ => Answer::json(if nested { 201 } else { 200 }, &envelope()),
    }
}

/// Schedules and values go into the document in place, wherever their objects are.
#[tokio::test]
async fn submit() {
    let ao = Ao::new().await;
    for (nested, schedule, want) in [
        (
            false,
            json!({"immediate": {}}),
            json!({"scheduleType": "immediate"}),
        ),
        (
            true,
            json!({"name": "mine '日本'", "description": "", "at": "2026-01-02T03:04:05.5Z"}),
            json!({"name": "mine '日本'", "description": "", "scheduleType": "schedule",
                   "scheduledStartTime": "2026-01-02T03:04:05.500+00:00"}),
        ),
        (
            false,
            json!({"recurring": {"recurrence_interval": "monthly", "recurrence_last_day_of_month": false,
                   "recurrence_day_of_month": "1,15", "recurrence_time": "03:00"}}),
            json!({"scheduleType": "recurrence", "recurrenceInterval": "monthly", "recurrenceDayOfMonth": "1,15",
                   "recurrenceLastDayOfMonth": false, "recurrenceTime": "03:00"}),
        ),
    ] {
        let (recorder, gateway) = ao.answers(submitting(nested));
        let mut request = schedule.clone();
        request["id"] = json!(41);
        request["properties"] = json!({"host": "a/..'\"%", "size": 5, "fast": true});
        gateway
            .client
            .call("AutomationServiceService/SubmitService", request)
            .await
            .unwrap();
        let submit = format!("{V1}/objects/Services/41/actions/submit");
        assert_eq!(
            calls(recorder),
            [
                format!("GET {submit}"),
                format!("GET {V1}/objects/PropertyDefinitions?serviceID=41&page=1&pageSize=100"),
                format!("POST {submit}/invoke"),
            ]
        );
        let mut expected = submission(nested);
        for (name, value) in want.as_object().unwrap() {
            expected["parameters"][0][name] = value.clone();
        }
        for (at, value) in ["a/..'\"%", "5", "true"].iter().enumerate() {
            let place = match nested {
                true => &mut expected["parameters"][1][at],
                false => &mut expected["parameters"][at + 1],
            };
            place["value"] = json!(value);
        }
        let sent = &recorder.seen()[2];
        // Order and all: `preserve_order` keeps it.
        assert_eq!(
            std::str::from_utf8(&sent.body).unwrap(),
            expected.to_string(),
            "{schedule}"
        );
    }
}

/// Values are checked before anything is submitted; each one at fault is named.
#[tokio::test]
async fn submissions_are_checked() {
    let (recorder, gateway) = start(submitting(true)).await;
    for (properties, want) in [
        // `host` is required, has no default and stands empty in the document.
        (json!({}), vec![("properties[host]", "is required")]),
        (
            json!({"host": "much too long", "size": 101, "fast": "perhaps", "secret": "x"}),
            vec![
                ("properties[host]", "must have at most 8"),
                ("properties[size]", "must be at most 100"),
                ("properties[fast]", "must be true or false"),
                ("properties[secret]", "is read-only"),
            ],
        ),
        (
            json!({"host": "a b"}),
            vec![("properties[host]", "must match")],
        ),
        (
            json!({"host": [1]}),
            vec![("properties[host]", "must be a text")],
        ),
        (
            json!({"host": "a", "nobody": "x"}),
            vec![("properties[nobody]", "is not in the document of the action")],
        ),
    ] {
        let request = json!({"id": 41, "properties": properties});
        let error = gateway
            .client
            .call("AutomationServiceService/SubmitService", request)
            .await
            .unwrap_err();
        assert_eq!(
            error.code(),
            Code::InvalidArgument,
            "{properties}: {error:?}"
        );
        let details = error.get_error_details();
        let mut told: Vec<_> = details.bad_request().unwrap().field_violations.clone();
        told.sort_by(|a, b| a.field.cmp(&b.field));
        let mut want = want;
        want.sort();
        assert_eq!(told.len(), want.len(), "{properties}: {told:?}");
        for (told, (field, problem)) in told.iter().zip(want) {
            assert_eq!(told.field, field, "{properties}");
            assert!(told.description.contains(problem), "{told:?}");
        }
        assert_eq!(details.error_info().unwrap().metadata["sent"], "false");
    }
    let error = gateway
        .client
        .call(
            "TaskService/RespondTask",
            json!({"id": 41, "labels": {"labelbutton1": "x"}}),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(
        recorder.seen().iter().all(|seen| seen.method == "GET"),
        "nothing is submitted"
    );
}

/// Values are not sent where there are more definitions than are compared.
#[tokio::test]
async fn values_that_cannot_be_checked_are_not_sent() {
    let ok = submitting(false);
    let (recorder, gateway) = start(move |seen| {
        if !seen.path().ends_with("/PropertyDefinitions") {
            return ok(seen);
        }
        // Each page is full, and another.
        let start = seen.pairs().into_iter().find(|(name, _)| name == "page");
        let page: usize = start.unwrap().1.parse().unwrap();
        let one = |n| json!({"instanceID": n, "keyName": format!("k{n}"), "type": "string"});
        let data: Vec<Value> = (page * 100..(page + 1) * 100).map(one).collect();
        Answer::json(200, &json!({"count": 1_000_000, "data": data}))
    })
    .await;
    let error = gateway
        .client
        .call(
            "AutomationServiceService/SubmitService",
            json!({"id": 41, "properties": {"k99999": "a"}}),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("more than 5000"), "{error:?}");
    assert!(recorder.seen().iter().all(|seen| seen.method == "GET"));
}

/// A submission is never sent twice, whatever happens to it.
#[tokio::test]
async fn a_submission_is_sent_once() {
    let ao = Ao::new().await;
    for (status, code) in [
        (412, Code::Unavailable),
        (500, Code::Internal),
        (502, Code::Unknown),
        (504, Code::Unknown),
    ] {
        let ok = submitting(false);
        let (recorder, gateway) = ao.answers(move |seen| match seen.method.as_str() {
            "POST" => Answer::text(status, "text/html", "<html>down</html>"),
            _ => ok(seen),
        });
        let error = gateway
            .client
            .call(
                "AutomationServiceService/SubmitService",
                json!({"id": 41, "properties": {"host": "a"}}),
            )
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{status}");
        let posts = recorder
            .seen()
            .iter()
            .filter(|s| s.method == "POST")
            .count();
        assert_eq!(posts, 1, "{status}");
    }
}

/// What a step asks is answered in the document's own members.
#[tokio::test]
async fn respond() {
    let asked = json!({"name": "response", "href": "h", "method": "POST", "parameters": [
        {"instanceId": 5, "labelbutton1": "Retry", "labelbutton2": "Give up", "taskId": 41}]});
    let document = asked.clone();
    let (recorder, gateway) = start(move |seen| match seen.method.as_str() {
        "GET" => Answer::json(200, &document),
        _ => Answer::json(
            200,
            &json!({"instanceId": "i", "state": "running", "completed": ""}),
        ),
    })
    .await;
    let got = gateway
        .client
        .call("TaskService/GetRespondTaskAction", json!({"id": 41}))
        .await
        .unwrap();
    let parameters = &to_json(&got)["template"]["parameters"];
    assert!(
        same(parameters, &asked["parameters"]),
        "what it asks: {parameters}"
    );
    let request = json!({"id": 41, "labels": {"labelbutton2": "pressed"}});
    let got = gateway
        .client
        .call("TaskService/RespondTask", request)
        .await
        .unwrap();
    let got = to_json(&got);
    assert_eq!(got["action_result"]["state"], "ACTION_STATE_RUNNING");
    assert_eq!(got["action_result"]["instance_id"], "i");
    let mut expected = asked.clone();
    expected["parameters"][0]["labelbutton2"] = json!("pressed");
    assert_eq!(recorder.seen().last().unwrap().json(), expected);
}

/// Updates read the whole resource, change what is given, and write it back.
#[tokio::test]
async fn updates_keep_what_is_not_given() {
    let ao = Ao::new().await;
    for (rpc, path, request, before, change) in [
        (
            "AutomationServiceService/UpdateService",
            "Services/41",
            json!({"favorite": false, "tags": {}, "name": "新"}),
            json!({"instanceID": 41, "name": "old", "tags": "a,b", "favorite": true, "zz": 1.50,
                   "resetTime": null}),
            json!({"name": "新", "tags": "", "favorite": false}),
        ),
        (
            "AutomationServiceService/UpdateService",
            "Services/41",
            json!({"tags": {"tags": ["c d", "e"]},
                   "supported_schedule_type": {"supported_schedule_type": ["immediate"]}}),
            json!({"instanceID": 41, "tags": "a,b"}),
            json!({"tags": "c d,e", "supportedScheduleType": "immediate"}),
        ),
        (
            "TaskService/UpdateTask",
            "Tasks/41",
            json!({"to_do": true}),
            json!({"instanceID": 41, "toDo": false, "notes": "n"}),
            json!({"toDo": true}),
        ),
        (
            "PropertyService/UpdatePropertyValue",
            "PropertyValues/41",
            json!({"value": "v"}),
            json!({"instanceID": 41, "keyName": "k", "value": "********", "hidden": false}),
            json!({"value": "v"}),
        ),
    ] {
        let answer = before.clone();
        let (recorder, gateway) = ao.answers(move |_| Answer::json(200, &answer));
        let mut request = request;
        request["id"] = json!(41);
        gateway.client.call(rpc, request).await.unwrap();
        let path = format!("{V1}/objects/{path}");
        assert_eq!(
            calls(recorder),
            [format!("GET {path}"), format!("PUT {path}")],
            "{rpc}"
        );
        let mut expected = before;
        for (name, value) in change.as_object().unwrap() {
            expected[name] = value.clone();
        }
        assert_eq!(
            std::str::from_utf8(&recorder.seen()[1].body).unwrap(),
            expected.to_string(),
            "{rpc}"
        );
    }
}

/// The list envelope is the body of a batch.
#[tokio::test]
async fn values_are_set_in_a_batch() {
    let (recorder, gateway) = start(|_| Answer::json(200, &json!({"data": [], "count": 0}))).await;
    let data = json!([{"instance_id": 1, "value": "a"}, {"instance_id": 2, "hidden": false}]);
    for (service, query) in [(json!(7), "?serviceID=7"), (Value::Null, "")] {
        let request = json!({"service_id": service, "data": data});
        gateway
            .client
            .call("PropertyService/BatchUpdatePropertyValues", request)
            .await
            .unwrap();
        let seen = recorder.take();
        assert_eq!(seen[0].method, "PUT");
        assert_eq!(
            seen[0].target,
            format!("{V1}/objects/PropertyValues{query}")
        );
        assert_eq!(
            seen[0].json(),
            json!({"data": [{"instanceID": 1, "value": "a"}, {"instanceID": 2, "hidden": false}],
                   "pagination": {}, "count": 2})
        );
    }
}

/// Requests that would do too much, or that JP1/AO cannot take, are not sent
/// (quirks 18 and 19).
#[tokio::test]
async fn what_is_not_sent() {
    let (recorder, gateway) = start(|_| Answer::text(204, "text/plain", "")).await;
    for (rpc, request, field) in [
        ("TaskHistoryService/DeleteTaskHistories", json!({}), "start"),
        (
            "PropertyService/ListPropertyInformations",
            json!({}),
            "service_id",
        ),
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
        let told = &details.bad_request().unwrap().field_violations[0].field;
        assert_eq!(told, field, "{rpc} {request}");
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

/// Values are data in queries, whatever they hold.
#[tokio::test]
async fn values_in_queries() {
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
        // As the manual writes the name; all else is encoded.
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

/// Resources come through member by member; unknown members and texts break
/// nothing (quirks 1 to 5, 8, 12, 20 of section f and g).
#[tokio::test]
async fn resources_come_through() {
    let ao = Ao::new().await;
    let service = json!({
        "instanceID": 41, "name": "s", "description": "", "tags": "a,b c", "serviceTemplateName": "t",
        "createTime": "2026-01-02T03:04:05.678+0900", "modifyTime": "2026-01-02T03:04:05.678+09:00",
        "serviceState": "unheard of", "lastSubmitTime": null, "favorite": true, "failedCount": 0,
        "lastFailedTime": null, "resetTime": null, "latest": false, "serviceTemplateID": 5,
        "supportedActionType": "forceStop"
    });
    let task = json!({
        "instanceID": 9007199254740993_i64, "name": "t", "status": "inProgress",
        "startTime": "2026-01-02T03:04:05.678+0900", "completionTime": null, "submitter": "u",
        "scheduleType": "recurrence", "toDo": false, "notes": "日本", "tags": "",
        "stepTime": "2026-01-02T03:04:05.678+09:00", "scheduleID": 6, "serviceID": 41
    });
    let template = json!({
        "instanceID": 5, "keyName": "k", "vendorID": "v", "iconURL": "http://i", "needVUP": true,
        "releaseState": "debug", "supportedScheduleType": "immediate,schedule,recurrence",
        "usedServices": 2, "disableFeatures": ""
    });
    let definition = json!({
        "instanceID": 1, "keyName": "k", "required": true, "minValue": "1", "maxValue": 5.5,
        "maxLength": 10, "valueList": "a,b", "serviceTemplateID": 5
    });
    let history = json!({
        "instanceID": 2, "taskID": 41, "status": "completed", "archiveTime": "2026-01-02T03:04:05.678+0900",
        "recurrenceLastDayOfMonth": true, "toDo": true, "serviceGroupID": 3, "serviceState": "release"
    });
    let user = json!({
        "userName": "u", "accessPermission": ["User Management"],
        "resourceGroup": [{"instanceID": "Automation_RG_ALL", "name": "all", "accessPermission": ["View"]},
                          {"instanceId": "Automation_RG_1"}]
    });
    let version = json!({
        "productName": "JP1/Automatic Operation", "productVersion": "11-00-00", "apiVersion": "01.01.00"
    });
    let list = |item: &Value| json!({"data": [item], "count": 1, "pagination": {"page": 1, "pageSize": 100, "numPages": 1}});
    for (rpc, request, path, answer, field) in [
        (
            "AutomationServiceService/GetService",
            json!({"id": 41}),
            "objects/Services/41",
            service.clone(),
            "service",
        ),
        (
            "AutomationServiceService/ListServices",
            json!({}),
            "objects/Services",
            list(&service),
            "",
        ),
        (
            "TaskService/GetTask",
            json!({"id": 41}),
            "objects/Tasks/41",
            task.clone(),
            "task",
        ),
        (
            "TaskService/ListTasks",
            json!({}),
            "objects/Tasks",
            list(&task),
            "",
        ),
        (
            "ServiceTemplateService/GetServiceTemplate",
            json!({"id": 5}),
            "objects/ServiceTemplates/5",
            template.clone(),
            "service_template",
        ),
        (
            "ServiceTemplateService/ListServiceTemplates",
            json!({}),
            "objects/ServiceTemplates",
            list(&template),
            "",
        ),
        (
            "PropertyService/GetPropertyDefinition",
            json!({"id": 1}),
            "objects/PropertyDefinitions/1",
            definition.clone(),
            "property_definition",
        ),
        (
            "TaskHistoryService/GetTaskHistory",
            json!({"id": 2}),
            "objects/TaskHistories/2",
            history.clone(),
            "task_history",
        ),
        (
            "TaskHistoryService/ListTaskHistories",
            json!({}),
            "objects/TaskHistories",
            list(&history),
            "",
        ),
        (
            "ProductInfoService/GetCurrentUser",
            json!({}),
            "user",
            user,
            "user",
        ),
        (
            "ProductInfoService/GetVersion",
            json!({}),
            "configuration/version",
            version,
            "version",
        ),
        (
            "TagService/ListTagGroups",
            json!({}),
            "objects/TagGroups",
            list(&json!({"instanceID": 1, "name": "g", "tags": "a b,c"})),
            "",
        ),
        (
            "ServiceGroupService/GetServiceGroup",
            json!({"id": 1}),
            "objects/ServiceGroups/1",
            json!({"instanceID": 1, "objectID": "Automation_RG_DEFAULT", "name": "g"}),
            "service_group",
        ),
        (
            "PropertyService/ListPropertyValues",
            json!({}),
            "objects/PropertyValues",
            list(
                &json!({"instanceID": 1, "type": "string", "keyName": "k", "value": "v", "readOnly": false, "hidden": true, "serviceID": 4}),
            ),
            "",
        ),
    ] {
        let mut sent = answer.clone();
        // Quirk 20.
        sent["unheardOf"] = json!({"deep": [1, {"x": null}]});
        let (recorder, gateway) = ao.answers(move |_| Answer::json(200, &sent));
        let got = gateway.client.call(rpc, request).await;
        let got = got.unwrap_or_else(|e| panic!("{rpc}: {e:?}"));
        assert_eq!(recorder.seen()[0].target, format!("{V1}/{path}"), "{rpc}");
        let mut found = match field {
            "" => differences(&got, &answer),
            name => differences(
                got.get_field_by_name(name).unwrap().as_message().unwrap(),
                &answer,
            ),
        };
        // A second name, a number as text: told apart by their own tests.
        found.retain(|d| {
            !d.contains("minValue")
                && !d.contains("resourceGroup[1]")
                && !d.contains("next_page_token")
                && !d.contains("nextPageToken")
        });
        assert_eq!(found, Vec::<String>::new(), "{rpc}");
    }
}

/// Statuses in all forms that are known, and one that is not.
#[tokio::test]
async fn statuses_are_read_loosely() {
    const FORMS: &[(&str, &str)] = &[
        ("waiting", "TASK_STATUS_WAITING"),
        ("Holding", "TASK_STATUS_SUSPENDED"),
        ("suspended", "TASK_STATUS_SUSPENDED"),
        ("inProgress", "TASK_STATUS_IN_PROGRESS"),
        ("In Progress", "TASK_STATUS_IN_PROGRESS"),
        ("IN_PROGRESS", "TASK_STATUS_IN_PROGRESS"),
        ("running", "TASK_STATUS_IN_PROGRESS"),
        ("Waiting for Input", "TASK_STATUS_WAITING_FOR_INPUT"),
        ("waitingResponse", "TASK_STATUS_WAITING_FOR_INPUT"),
        ("inResponse", "TASK_STATUS_WAITING_FOR_INPUT"),
        (
            "In Progress (with Error)",
            "TASK_STATUS_IN_PROGRESS_WITH_ERROR",
        ),
        ("abnormalDetection", "TASK_STATUS_IN_PROGRESS_WITH_ERROR"),
        ("In Progress (Terminating)", "TASK_STATUS_TERMINATING"),
        ("stopped", "TASK_STATUS_TERMINATING"),
        ("Long Running", "TASK_STATUS_LONG_RUNNING"),
        ("COMPLETED", "TASK_STATUS_COMPLETED"),
        ("failed", "TASK_STATUS_FAILED"),
        ("cancelled", "TASK_STATUS_CANCELED"),
        ("Canceled", "TASK_STATUS_CANCELED"),
        ("unheard of", ""),
        ("完了", ""),
    ];
    let (_recorder, gateway) = start(|seen| {
        let id: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        Answer::json(200, &json!({"instanceID": id, "status": FORMS[id - 1].0}))
    })
    .await;
    for (at, (text, want)) in FORMS.iter().enumerate() {
        let request = json!({"id": at + 1});
        let got = gateway
            .client
            .call("TaskService/GetTask", request)
            .await
            .unwrap();
        let got = to_json(&got);
        let status = got["task"]["status"].as_str().unwrap_or_default();
        assert_eq!(status, *want, "{text}");
        assert_eq!(got["task"]["status_raw"], *text);
    }
}

/// Members that no manual page shows are kept beside those that are likely.
#[tokio::test]
async fn unknown_members_are_kept() {
    let body = json!({"count": 1, "data": [
        {"stepName": "copy", "status": "In Progress", "returnValue": 0, "odd": {"a": [1, null]}, "n": 1.5}]});
    let (_recorder, gateway) = start(move |_| Answer::json(200, &body)).await;
    let got = gateway
        .client
        .call("TaskService/ListTaskSteps", json!({"task_id": 1}))
        .await;
    let got = to_json(&got.unwrap());
    let step = &got["data"][0];
    assert_eq!(
        (&step["name"], &step["status"]),
        (&json!("copy"), &json!("In Progress"))
    );
    assert_eq!(step["return_code"], "0");
    assert_eq!(step["more"], json!({"odd": {"a": [1.0, null]}, "n": 1.5}));
}

/// JP1/AO may cut a list at 100 without a word: there is a next page all the same.
#[tokio::test]
async fn lists_without_pagination_go_on() {
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
        let asked = recorder.seen().pop().unwrap();
        assert!(asked.query().ends_with("page=2"), "{}", asked.target);
    }
}

/// The members of a log's part are not printed: likely shapes are read (2.7.21).
#[tokio::test]
async fn logs_of_several_shapes() {
    let ao = Ao::new().await;
    for (body, want) in [
        (json!({"data": ["a\nb\n"], "count": 1}), "a\nb\n"),
        (json!({"data": [{"logText": "a\n"}]}), "a\n"),
        (
            json!({"data": [{"taskID": 7, "Zeilen": "a\nb\n"}]}),
            "a\nb\n",
        ),
        (json!({"data": [{"taskID": 7}]}), ""),
        (json!({"data": []}), ""),
    ] {
        let (_, gateway) = ao.answers(move |seen| match seen.path() {
            path if path.ends_with("/TaskLogs") && seen.query().contains("offset=0") => {
                Answer::json(200, &body)
            }
            path if path.ends_with("/TaskLogs") => Answer::json(200, &json!({"data": []})),
            _ => Answer::json(200, &json!({"instanceID": 7, "status": "completed"})),
        });
        let log = gateway
            .client
            .watch("TaskService/WatchTaskLog", json!({"task_id": 7}), &[])
            .await;
        let (mut log, mut told) = (log.unwrap(), String::new());
        while let Some(message) = log.next().await {
            if let Some(line) = to_json(&message.unwrap())["line"]["text"].as_str() {
                told += &format!("{line}\n");
            }
        }
        assert_eq!(told, want);
    }
    let (_, gateway) = ao.answers(|_| Answer::json(200, &json!({"data": ["a\n"], "count": 1})));
    let got = gateway
        .client
        .call("TaskService/GetTaskLog", json!({"task_id": 7}));
    assert_eq!(to_json(&got.await.unwrap())["data"][0]["text"], "a\n");
}

/// A delete: 204 in its forms (quirk 5), and the 303 that is no success (quirk 4).
#[tokio::test]
async fn deletes() {
    let ao = Ao::new().await;
    for rpc in [
        "AutomationServiceService/DeleteService",
        "ServiceTemplateService/DeleteServiceTemplate",
        "TaskService/DeleteTask",
        "TaskHistoryService/DeleteTaskHistory",
    ] {
        let (recorder, gateway) = ao.answers(|_| Answer::text(204, "application/json", ""));
        let got = gateway.client.call(rpc, json!({"id": 7})).await.unwrap();
        assert_eq!(to_json(&got), json!({}));
        let seen = recorder.seen();
        assert_eq!(seen[0].method, "DELETE");
        assert!(
            seen[0].body.is_empty() && seen[0].header("content-type").is_empty(),
            "quirk 22"
        );
    }
    let (recorder, gateway) = ao.answers(|_| {
        Answer::text(303, "text/html", "<html>moved</html>").with(
            "location",
            "http://inside.example/Automation/v1/objects/Tasks/7/actions/archive",
        )
    });
    let error = gateway
        .client
        .call("TaskService/DeleteTask", json!({"id": 7}))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("nothing was deleted"),
        "{}",
        error.message()
    );
    assert_eq!(
        error.get_error_details().error_info().unwrap().reason,
        "ARCHIVE_REQUIRED"
    );
    assert_eq!(recorder.seen().len(), 1, "no redirect is followed");
}

/// `reset` answers a document or an envelope (quirk 8); `detailhelp` names itself
/// wrongly, and only its `href` counts (quirk 6).
#[tokio::test]
async fn odd_answers() {
    let ao = Ao::new().await;
    let document = json!({"name": "reset", "href": "h", "method": "POST", "parameters": []});
    for (answer, field) in [
        (document.clone(), "template"),
        (envelope(), "action_result"),
    ] {
        let first = document.clone();
        let (_recorder, gateway) = ao.answers(move |seen| match seen.method.as_str() {
            "GET" => Answer::json(200, &first),
            _ => Answer::json(200, &answer),
        });
        let got = gateway
            .client
            .call(
                "AutomationServiceService/ResetServiceCounter",
                json!({"id": 7}),
            )
            .await
            .unwrap();
        let got = to_json(&got);
        assert_eq!(got.as_object().unwrap().keys().collect::<Vec<_>>(), [field]);
    }
    for rpc in [
        "AutomationServiceService/GetServiceHelpUrl",
        "ServiceTemplateService/GetServiceTemplateHelpUrl",
    ] {
        let (recorder, gateway) = ao.answers(|_| {
            Answer::json(
                200,
                &json!({"name": "export", "href": "http://h/help", "method": "POST", "parameters": []}),
            )
        });
        let got = gateway.client.call(rpc, json!({"id": 7})).await.unwrap();
        assert_eq!(to_json(&got), json!({"href": "http://h/help"}));
        assert!(recorder.seen()[0].target.ends_with("/7/actions/detailhelp"));
    }
    // A failure within a 200 is told as data.
    let (_recorder, gateway) = ao.answers(|seen| match seen.method.as_str() {
        "GET" => Answer::json(200, &json!({})),
        _ => Answer::json(200, &json!({"state": "failed", "affectedResources": null})),
    });
    let got = gateway
        .client
        .call("TaskService/StopTask", json!({"id": 7}))
        .await
        .unwrap();
    assert_eq!(
        to_json(&got)["action_result"]["state"],
        "ACTION_STATE_FAILED"
    );
}

/// Versions differ: 11 has another path (quirk 10), 10 lacks operations (21).
#[tokio::test]
async fn versions() {
    for (dialect, path) in [
        ("v12", "objects/Services/7/actions/applyTemplate/invoke"),
        ("v11", "objects/Services/7/applyTemplate/invoke"),
    ] {
        // Version 11 misspells the member.
        let name = if dialect == "v11" {
            "insatnceID"
        } else {
            "instanceID"
        };
        let document = json!({"name": "applyTemplate", "href": "h", "method": "POST",
                              "parameters": [{ name: 5, "x": 1 }]});
        let first = document.clone();
        let (recorder, gateway) = start_as(dialect, move |seen| match seen.method.as_str() {
            "GET" => Answer::json(200, &first),
            _ => Answer::json(200, &envelope()),
        })
        .await;
        let request = json!({"id": 7, "service_template_id": 6});
        gateway
            .client
            .call("AutomationServiceService/ApplyTemplate", request)
            .await
            .unwrap();
        let seen = recorder.seen();
        assert_eq!(
            seen[0].target,
            format!("{V1}/objects/Services/7/actions/applyTemplate")
        );
        assert_eq!(seen[1].target, format!("{V1}/{path}"));
        assert_eq!(seen[1].json()["parameters"], json!([{ name: 6, "x": 1 }]));
    }
    let (recorder, gateway) = start_as("v10", |_| Answer::json(200, &json!({"data": []}))).await;
    for (rpc, request) in [
        ("TaskService/ForceStopTask", json!({"id": 1})),
        ("TaskHistoryService/ListTaskHistories", json!({})),
        ("TagService/ListTags", json!({})),
        ("AutomationServiceService/ReleaseService", json!({"id": 1})),
    ] {
        let error = gateway.client.call(rpc, request).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{rpc}");
        assert!(error.message().contains("v10"), "{}", error.message());
    }
    assert!(recorder.seen().is_empty());
    gateway
        .client
        .call("TaskService/ListTasks", json!({}))
        .await
        .unwrap();
}

/// What statuses mean, in whichever rpc they come.
#[tokio::test]
async fn errors() {
    // Each is told as it comes, without trying again.
    let ao = Ao::with(|settings| settings.max_attempts = 1).await;
    for (rpc, status, body, code, words) in [
        ("TaskService/GetTask", 400, "", Code::InvalidArgument, ""),
        (
            "TaskService/GetTask",
            401,
            "",
            Code::Unauthenticated,
            "lacks the permission",
        ),
        ("TaskService/GetTask", 403, "", Code::PermissionDenied, ""),
        (
            "TaskService/GetTask",
            404,
            "",
            Code::NotFound,
            "may not see it",
        ),
        ("TaskService/DeleteTask", 405, "", Code::Unimplemented, ""),
        ("TaskService/GetTask", 406, "", Code::Internal, ""),
        (
            "AutomationServiceService/DeleteService",
            409,
            "",
            Code::FailedPrecondition,
            "depends on it",
        ),
        (
            "TaskService/GetRespondTaskAction",
            409,
            "",
            Code::FailedPrecondition,
            "",
        ),
        (
            "TaskService/GetTask",
            412,
            "",
            Code::Unavailable,
            "not available",
        ),
        (
            "PropertyService/ListPropertyDefinitionActions",
            412,
            "",
            Code::Aborted,
            "",
        ),
        ("TaskService/GetTask", 500, "", Code::Internal, ""),
        (
            "TaskService/GetTask",
            500,
            "<html>x</html>",
            Code::Internal,
            "",
        ),
        (
            "TaskService/GetTask",
            400,
            r#"{"messageID":"generic error","message":"m"}"#,
            Code::InvalidArgument,
            "m",
        ),
        (
            "TaskService/GetTask",
            200,
            "<html>x</html>",
            Code::Internal,
            "",
        ),
        (
            "TaskService/GetTask",
            200,
            r#"{"instanceID": "x"}"#,
            Code::Internal,
            "instanceID",
        ),
        ("TaskService/GetTask", 302, "", Code::Internal, ""),
    ] {
        let kind = if body.starts_with('{') {
            "application/json"
        } else {
            "text/html"
        };
        let (_recorder, gateway) = ao.answers(move |_| Answer::text(status, kind, body));
        let error = gateway
            .client
            .call(rpc, json!({"id": 1}))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{rpc} {status} {body}: {error:?}");
        assert!(
            error.message().contains(words),
            "{status}: {}",
            error.message()
        );
        let wait = error.get_error_details().retry_info().is_some();
        assert_eq!(wait, code == Code::Unavailable, "{status}");
    }
}

/// 412 is a server that is down for now: reads recover by themselves (quirk 14).
#[tokio::test]
async fn a_read_outlasts_a_412() {
    let tries = std::sync::atomic::AtomicU32::new(0);
    let (recorder, gateway) =
        start(
            move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Answer::json(412, &json!({"message": "down"})).with("retry-after", "0"),
                _ => Answer::json(200, &json!({"instanceID": 1})),
            },
        )
        .await;
    gateway
        .client
        .call("TaskService/GetTask", json!({"id": 1}))
        .await
        .unwrap();
    assert_eq!(recorder.seen().len(), 2);
}

/// The caller's language goes to the upstream, and the message says which it is in.
#[tokio::test]
async fn languages() {
    let ao = Ao::new().await;
    for (asked, sent, said, locale) in [
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
            Answer::json(404, &json!({"message": said, "messageID": "KNAE02102-E"}))
        });
        let metadata: Vec<_> = asked
            .iter()
            .map(|asked| ("accept-language", *asked))
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
        assert!(message.message.contains(said));
    }
}

/// A submission is followed: what came of it, then the task; one call submits.
#[tokio::test]
async fn submit_and_watch() {
    let ao = Ao::new().await;
    for (affected, listed) in [
        (
            json!(["http://inside.example/Automation/v1/objects/Tasks/77"]),
            false,
        ),
        (
            json!("http://inside.example/Automation/v1/objects/Schedules/9"),
            true,
        ),
    ] {
        let ok = submitting(false);
        let (recorder, gateway) = ao.answers(move |seen| match (&*seen.method, seen.path()) {
            ("POST", _) => Answer::json(
                200,
                &json!({"state": "success", "affectedResource": affected}),
            ),
            (_, path) if path.ends_with("/Tasks/77") => {
                Answer::json(200, &json!({"instanceID": 77, "status": "Completed"}))
            }
            (_, path) if path.ends_with("/Tasks") => Answer::json(
                200,
                &json!({"data": [{"instanceID": 77, "scheduleID": 9}], "count": 1}),
            ),
            _ => ok(seen),
        });
        let request = json!({"id": 41, "properties": {"host": "a"}});
        let mut watch = gateway
            .client
            .watch("TaskService/SubmitServiceAndWatch", request, &[])
            .await
            .unwrap();
        let first = watch.event().await;
        assert_eq!(
            first["started"]["action_result"]["state"], "ACTION_STATE_SUCCESS",
            "{first}"
        );
        let event = watch.event().await;
        assert_eq!(event["task"]["instance_id"], 77, "{event}");
        assert_eq!(event["event"]["outcome"], "OUTCOME_SUCCEEDED", "{event}");
        assert!(watch.next().await.is_none());
        let seen = recorder.seen();
        assert_eq!(seen.iter().filter(|s| s.method == "POST").count(), 1);
        let lists = seen
            .iter()
            .filter(|s| s.target.contains("/Tasks?scheduleID=9"));
        assert_eq!(lists.count() > 0, listed);
    }
}

/// A task says what it asks while it waits; archived, it ends with its history.
#[tokio::test]
async fn watch_a_task_until_it_is_archived() {
    let reads = std::sync::atomic::AtomicU32::new(0);
    let (recorder, gateway) = start(move |seen| match seen.path() {
        path if path.ends_with("/Tasks/7") => {
            match reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Answer::json(200, &json!({"instanceID": 7, "status": "waitingResponse"})),
                _ => Answer::json(404, &json!({"messageID": "KNAE02102-E", "message": "no"})),
            }
        }
        path if path.ends_with("/actions/response") => Answer::json(
            200,
            &json!({"name": "response", "parameters": [{"labelbutton1": "Go"}]}),
        ),
        path if path.ends_with("/FlowSteps") => Answer::json(
            200,
            &json!({"data": [{"name": "copy", "status": "Completed"}], "count": 1}),
        ),
        _ => Answer::json(
            200,
            &json!({"data": [{"instanceID": 3, "taskID": 7, "status": "failed"}], "count": 1}),
        ),
    })
    .await;
    let request = json!({"id": 7, "steps": true});
    let mut watch = gateway
        .client
        .watch("TaskService/WatchTask", request, &[])
        .await
        .unwrap();
    let first = watch.event().await;
    assert_eq!(
        first["task"]["status"], "TASK_STATUS_WAITING_FOR_INPUT",
        "{first}"
    );
    assert_eq!(
        first["asks"]["parameters"][0]["labelbutton1"], "Go",
        "{first}"
    );
    assert_eq!(first["steps"][0]["name"], "copy", "{first}");
    let last = watch.event().await;
    assert_eq!(last["event"]["type"], "WATCH_EVENT_TYPE_DELETED", "{last}");
    assert_eq!(last["history"]["status"], "TASK_STATUS_FAILED", "{last}");
    assert!(watch.next().await.is_none());
    let seen = recorder.seen();
    let looked = seen
        .iter()
        .find(|s| s.path().ends_with("/TaskHistories"))
        .unwrap();
    assert_eq!(
        looked.pairs()[0],
        ("HQL::filter".to_owned(), "(taskID eq 7)".to_owned())
    );
}

/// A task of more steps than a page holds: the watch tells them all.
#[tokio::test]
async fn watch_a_task_of_many_steps() {
    let (recorder, gateway) = start(move |seen| {
        if seen.path().ends_with("/Tasks/7") {
            return Answer::json(200, &json!({"instanceID": 7, "status": "completed"}));
        }
        let (from, pages) = match seen.query().contains("page=2") {
            true => (100, 2),
            false => (0, 2),
        };
        let data: Vec<_> = (from + 1..=130.min(from + 100))
            .map(|id| json!({"instanceID": id, "status": "Completed"}))
            .collect();
        let body = json!({"data": data, "count": 130, "pagination": {"numPages": pages}});
        Answer::json(200, &body)
    })
    .await;
    let request = json!({"id": 7, "steps": true});
    let mut watch = gateway
        .client
        .watch("TaskService/WatchTask", request, &[])
        .await
        .unwrap();
    let told = watch.event().await;
    let steps = told["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 130);
    assert_eq!(steps[129]["instance_id"], 130);
    assert!(watch.next().await.is_none());
    let asked: Vec<_> = recorder
        .seen()
        .iter()
        .map(|seen| seen.query().to_owned())
        .collect();
    assert_eq!(asked, ["", "taskID=7", "taskID=7&page=2"]);
}

/// A status that nobody knows is no end, unless two polls in a row find the same time
/// of completion. Sheet, section (c).
#[tokio::test]
async fn an_unknown_status_ends_when_its_completion_stays() {
    const OVER: &str = "2026-01-02T03:04:05.678+09:00";
    const LATER: &str = "2026-01-02T03:04:06.000+09:00";
    const NONE: &str = "";
    // Status and completion of each read, then what the watch says of each.
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    const CASES: &[Case] = &[
        (&[("完了", OVER), ("完了", OVER)], &["", "FAILED"]),
        (
            &[("paused", OVER), ("paused", LATER), ("paused", LATER)],
            &["", "", "FAILED"],
        ),
        (
            &[("paused", OVER), ("halted", OVER), ("halted", OVER)],
            &["", "", "FAILED"],
        ),
        (
            &[("paused", OVER), ("inProgress", NONE), ("completed", OVER)],
            &["", "", "SUCCEEDED"],
        ),
        // Without a time it goes on, however long: here until it is known again.
        (
            &[
                ("paused", NONE),
                ("paused", NONE),
                ("paused", NONE),
                ("failed", NONE),
            ],
            &["", "FAILED"],
        ),
        // One that is known is no end by its time.
        (
            &[
                ("inProgress", OVER),
                ("inProgress", OVER),
                ("completed", OVER),
            ],
            &["", "SUCCEEDED"],
        ),
    ];
    let reads: Arc<Mutex<[usize; CASES.len()]>> = Arc::default();
    let counted = Arc::clone(&reads);
    let (_recorder, gateway) = start(move |seen| {
        let Some(case) = seen.path().strip_prefix("/Automation/v1/objects/Tasks/") else {
            return Answer::json(200, &json!({"data": [], "count": 0}));
        };
        let case: usize = case.parse().unwrap();
        let (polls, _) = CASES[case - 1];
        let mut reads = counted.lock().unwrap();
        let at = reads[case - 1].min(polls.len() - 1);
        reads[case - 1] += 1;
        let (status, completion) = polls[at];
        let completion = if completion.is_empty() {
            Value::Null
        } else {
            json!(completion)
        };
        Answer::json(
            200,
            &json!({"instanceID": case, "status": status, "completionTime": completion}),
        )
    })
    .await;
    let mut watches = tokio::task::JoinSet::new();
    for (case, (polls, want)) in CASES.iter().enumerate() {
        let client = gateway.client.clone();
        let reads = Arc::clone(&reads);
        watches.spawn(async move {
            let request = json!({"id": case + 1});
            let watch = client.watch("TaskService/WatchTask", request, &[]).await;
            let (mut watch, mut told) = (watch.unwrap(), Vec::new());
            while let Some(message) = watch.next().await {
                let message = to_json(&message.unwrap());
                assert!(message["task"]["status_raw"].is_string(), "{message}");
                let outcome = message["event"]["outcome"].as_str().unwrap_or_default();
                told.push(outcome.replace("OUTCOME_", ""));
            }
            assert_eq!(told, *want, "{polls:?}");
            assert_eq!(reads.lock().unwrap()[case], polls.len(), "{polls:?}");
        });
    }
    watches.join_all().await;
}
