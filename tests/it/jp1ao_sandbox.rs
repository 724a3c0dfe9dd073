//! JP1/AO by gRPC, with the sandbox, which behaves as the manuals describe.

use std::future::Future;
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{
    Jp1aoLinks, Jp1aoOptions, Jp1aoSubmitted, Jp1aoVersion, RecordedRequest, Sandbox, Settings,
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::Gateway;
use crate::support::client::json as to_json;

/// Longer than any step here takes; a step of a task takes a millisecond.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

struct Place {
    sandbox: Sandbox,
    gateway: Gateway,
}

impl Place {
    async fn new(rules: Jp1aoOptions) -> Self {
        let settings = Settings {
            step: Duration::from_millis(1),
            jp1ao: rules,
            ..Settings::default()
        };
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
            .await
            .unwrap();
        let mut upstream = quickstart::upstreams(&sandbox).remove(2);
        upstream.dialect = match rules.version {
            Jp1aoVersion::V10 => "v10",
            Jp1aoVersion::V11 => "v11",
            Jp1aoVersion::V12 => "v12",
        }
        .to_owned();
        Self {
            gateway: Gateway::with(vec![upstream]).await,
            sandbox,
        }
    }

    async fn call(&self, method: &str, request: Value) -> Result<Value, Status> {
        let answer = self.gateway.client.call(method, request).await?;
        Ok(to_json(&answer))
    }

    async fn ok(&self, method: &str, request: Value) -> Value {
        let answer = self.call(method, request.clone()).await;
        answer.unwrap_or_else(|status| panic!("{method} {request}: {status:?}"))
    }

    async fn code(&self, method: &str, request: Value) -> Code {
        self.call(method, request)
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok)
    }

    /// Submits a service and returns the id of its task.
    async fn submit(&self, request: Value) -> Value {
        let answer = self.ok("AutomationService/SubmitService", request).await;
        assert_eq!(answer["action_result"]["state"], "ACTION_STATE_SUCCESS");
        let affected = answer["action_result"]["affected_resource"]
            .as_array()
            .unwrap()
            .clone();
        let path = affected[0]
            .as_str()
            .or(affected[0]["href"].as_str())
            .unwrap();
        let (rest, id) = path.rsplit_once('/').unwrap();
        if rest.ends_with("/Tasks") {
            return id.parse::<u64>().unwrap().into();
        }
        let tasks = self
            .ok("TaskService/ListTasks", json!({"schedule_id": id}))
            .await;
        tasks["data"][0]["instance_id"].as_u64().unwrap().into()
    }

    /// Waits until the task has this status.
    async fn until(&self, task: &Value, status: &str) -> Value {
        let mut last = Value::Null;
        let reached = async {
            loop {
                last = self.ok("TaskService/GetTask", json!({"id": task})).await["task"].clone();
                if last["status"] == status {
                    return last.clone();
                }
            }
        };
        within(reached).await
    }

    /// Returns the mutating requests that the sandbox has received.
    fn changes(&self) -> Vec<RecordedRequest> {
        let mut seen = self.sandbox.requests();
        seen.retain(|seen| seen.method != "GET");
        seen
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, what)
        .await
        .expect("it does not come to pass")
}

/// JP1/AO rejects its own times without a colon: the gateway adds it.
#[tokio::test]
async fn compact_times_are_sent_back_with_a_colon() {
    let rules = Jp1aoOptions {
        compact_offsets: true,
        ..Jp1aoOptions::default()
    };
    let place = Place::new(rules).await;
    let task = place.submit(json!({"id": 2005, "name": "t"})).await;
    for (rpc, id) in [
        ("AutomationService/UpdateService", json!(2005)),
        ("TaskService/UpdateTask", task),
    ] {
        let mut request = json!({"id": id});
        let flag = if rpc.starts_with("Task") {
            "to_do"
        } else {
            "favorite"
        };
        request[flag] = true.into();
        place.ok(rpc, request).await;
        let sent = place.changes().pop().unwrap();
        let sent = String::from_utf8(sent.body.to_vec()).unwrap();
        assert!(sent.contains("+09:00") && !sent.contains("+0900"), "{sent}");
    }
}

/// Seed 5: the document is fetched, edited and invoked.
#[tokio::test]
async fn service_is_released() {
    let rules = Jp1aoOptions {
        links: Jp1aoLinks::Plain,
        ..Jp1aoOptions::default()
    };
    let place = Place::new(rules).await;
    let release = "AutomationService/ReleaseService";
    let got = place.ok(release, json!({"id": 2004})).await;
    let result = &got["action_result"];
    assert_eq!(result["state"], "ACTION_STATE_SUCCESS");
    assert_eq!(
        (&result["created"], &result["created"]),
        (&result["updated"], &result["completed"])
    );
    assert_eq!(
        result["affected_resource"],
        json!(["http://10.196.184.182:22015/Automation/v1/objects/Services/2004"])
    );
    // The gateway's health probe reads the version.
    let mut seen = place.sandbox.requests();
    seen.retain(|seen| !seen.path_and_query.ends_with("/configuration/version"));
    let path = "/Automation/v1/objects/Services/2004/actions/release";
    let calls: Vec<_> = seen
        .iter()
        .map(|seen| (seen.method.as_str(), seen.path_and_query.as_str()))
        .collect();
    assert_eq!(
        calls[calls.len() - 2..],
        [("GET", path), ("POST", &*format!("{path}/invoke"))]
    );
    // The four members, with and without arguments.
    let invoke = &seen[seen.len() - 1];
    let document = r#"{"name":"release","href":"http://10.196.184.182:22015/Automation/v1/objects/Services/2004/actions/release/invoke","method":"POST","parameters":[ ]}"#;
    assert_eq!(std::str::from_utf8(&invoke.body).unwrap(), document);
    assert_eq!(
        invoke.headers["content-length"],
        document.len().to_string().as_str()
    );
    assert_eq!(invoke.headers["content-type"], "application/json");
    assert_eq!(invoke.headers["accept-language"], "en");

    // It is already released.
    let status = place.call(release, json!({"id": 2004})).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "KNAE02103-E"
    );
    assert_eq!(place.code(release, json!({"id": 99})).await, Code::NotFound);
}

/// 412 means that the server is stopped: UNAVAILABLE with `retry_info`, and no retry of a
/// mutating call.
#[tokio::test]
async fn stopped_server_is_unavailable_and_not_retried() {
    let place = Place::new(Jp1aoOptions::default()).await;
    let template = json!({"name": "release", "href": "", "method": "POST", "parameters": []});
    let request = json!({"id": 2004, "template": template});
    place.sandbox.make_jp1ao_unavailable(1000);
    let release = "AutomationService/ReleaseService";
    let status = place.call(release, request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    assert!(
        details
            .retry_info()
            .is_some_and(|info| info.retry_delay.is_some()),
        "{status:?}"
    );
    assert_eq!(details.error_info().unwrap().reason, "KNAE02113-E");
    assert_eq!(place.changes().len(), 1);
    place.sandbox.make_jp1ao_unavailable(0);
    let got = place.ok(release, request).await;
    assert_eq!(got["action_result"]["state"], "ACTION_STATE_SUCCESS");
}

/// A task from its submission to its history, as the manuals describe.
#[tokio::test]
async fn task_is_submitted_responded_to_and_archived() {
    let plain = Jp1aoOptions::default();
    for rules in [
        plain,
        Jp1aoOptions {
            compact_offsets: true,
            schema_envelope: true,
            links: Jp1aoLinks::Portless,
            nested_parameters: true,
            reset_envelope: true,
            submitted: Jp1aoSubmitted::Schedule,
            ..plain
        },
        Jp1aoOptions {
            version: Jp1aoVersion::V11,
            submitted: Jp1aoSubmitted::Task,
            ..plain
        },
    ] {
        let place = Place::new(rules).await;
        let name = "it's/..\\ \"100%\"\n日本語%2F";
        let task = place
            .submit(json!({"id": 2005, "name": name, "description": "夜",
                "properties": {"disk.sizeGB": 64, "disk.format": false, "common.vmName": name}}))
            .await;
        let waiting = place.until(&task, "TASK_STATUS_WAITING_FOR_INPUT").await;
        assert_eq!(
            (&waiting["name"], &waiting["description"]),
            (&json!(name), &json!("夜")),
            "{rules:?}"
        );
        assert!(
            waiting["start_time"].is_string() && waiting["completion_time"].is_null(),
            "{waiting}"
        );

        // Name and values are stored unchanged.
        let values = place
            .ok(
                "PropertyService/ListPropertyValues",
                json!({"task_id": task}),
            )
            .await;
        let value = |key: &str| {
            let mut all = values["data"].as_array().unwrap().iter();
            all.find(|one| one["key_name"] == key).unwrap()["value"].clone()
        };
        assert_eq!(
            [
                value("disk.sizeGB"),
                value("disk.format"),
                value("common.vmName")
            ],
            [json!("64"), json!("false"), json!(name)]
        );
        let found = place
            .ok(
                "TaskService/ListTasks",
                json!({"hql_filter": {"name": name, "status_in": ["waitingForInput"]}}),
            )
            .await;
        assert_eq!(found["data"].as_array().unwrap().len(), 1, "{found}");
        assert_eq!(found["data"][0]["instance_id"], waiting["instance_id"]);

        let steps = place
            .ok("TaskService/ListTaskSteps", json!({"task_id": task}))
            .await;
        let names: Vec<_> = steps["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| &step["status"])
            .collect();
        assert_eq!(
            names,
            ["completed", "completed", "waitingForInput", "waiting"]
        );

        let question = place
            .ok("TaskService/GetRespondTaskAction", json!({"id": task}))
            .await;
        assert!(question.to_string().contains("Continue"), "{question}");
        let respond = "TaskService/RespondTask";
        assert_eq!(
            place.code(respond, json!({"id": task})).await,
            Code::InvalidArgument,
            "no button is pressed"
        );
        place
            .ok(
                respond,
                json!({"id": task, "labels": {"labelbutton1": "true"}}),
            )
            .await;
        let done = place.until(&task, "TASK_STATUS_COMPLETED").await;
        assert!(done["completion_time"].is_string(), "{done}");
        assert_eq!(
            place.code(respond, json!({"id": task})).await,
            Code::FailedPrecondition
        );

        let log = place
            .ok("TaskService/GetTaskLog", json!({"task_id": task}))
            .await;
        let text = log["data"][0]["text"].as_str().unwrap();
        assert!(
            text.contains("The response was Continue.") && text.ends_with("completed.\n"),
            "{text}"
        );
        let part = json!({"task_id": task, "read_size": 120, "reverse": true});
        let last = place.ok("TaskService/GetTaskLog", part).await;
        assert!(
            text.ends_with(last["data"][0]["text"].as_str().unwrap()),
            "{last}"
        );

        // A normal task is not deleted: the error says what to do, and no redirect is followed.
        let status = place
            .call("TaskService/DeleteTask", json!({"id": task}))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("archive"), "{status:?}");
        place
            .ok(
                "TaskService/UpdateTask",
                json!({"id": task, "notes": name, "to_do": true}),
            )
            .await;
        place
            .ok("TaskService/ArchiveTask", json!({"id": task}))
            .await;
        assert_eq!(
            place.code("TaskService/GetTask", json!({"id": task})).await,
            Code::NotFound
        );
        let histories = "TaskHistoryService/ListTaskHistories";
        let kept = place.ok(histories, json!({"q": "100%"})).await;
        let kept = kept["data"].as_array().unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(
            kept[0]["task_id"]
                .as_str()
                .map(|id| id.parse::<u64>().unwrap())
                .or(kept[0]["task_id"].as_u64()),
            task.as_u64()
        );
        assert_eq!(
            (&kept[0]["notes"], &kept[0]["to_do"]),
            (&json!(name), &json!(true))
        );

        let delete = "TaskHistoryService/DeleteTaskHistories";
        let before = place.changes().len();
        assert_eq!(place.code(delete, json!({})).await, Code::InvalidArgument);
        assert_eq!(
            place.changes().len(),
            before,
            "nothing is sent without a filter"
        );
        place
            .ok(
                delete,
                json!({"start": "2020-01-01T00:00:00Z", "service_group_id": 1001}),
            )
            .await;
        let left = place.ok(histories, json!({})).await;
        assert!(left["data"].as_array().is_none_or(Vec::is_empty), "{left}");
        let reset = place
            .ok("AutomationService/ResetServiceCounter", json!({"id": 2005}))
            .await;
        let kind = if rules.reset_envelope {
            "action_result"
        } else {
            "template"
        };
        assert!(!reset[kind].is_null(), "{reset}");
    }
}

/// A failed task is retried; an action that its state does not allow fails.
#[tokio::test]
async fn failed_task_is_retried() {
    let place = Place::new(Jp1aoOptions::default()).await;
    for (method, fails_at) in [("RetryTask", 1), ("RetryTaskFromNextStep", 3)] {
        let task = place
            .submit(json!({"id": 2008, "properties": {"startvm.failAtStep": fails_at}}))
            .await;
        place.until(&task, "TASK_STATUS_FAILED").await;
        for refused in ["StopTask", "ForceStopTask", "RespondTask"] {
            let code = place
                .code(&format!("TaskService/{refused}"), json!({"id": task}))
                .await;
            assert_eq!(code, Code::FailedPrecondition, "{refused}");
        }
        place
            .ok(&format!("TaskService/{method}"), json!({"id": task}))
            .await;
        place.until(&task, "TASK_STATUS_COMPLETED").await;
        assert_eq!(
            place
                .code(&format!("TaskService/{method}"), json!({"id": task}))
                .await,
            Code::FailedPrecondition
        );
        // Resubmitted as a new task.
        let again = place
            .ok("TaskService/ResubmitTask", json!({"id": task}))
            .await;
        assert_eq!(again["action_result"]["state"], "ACTION_STATE_SUCCESS");
    }
    // A value that its definition forbids is rejected before anything is sent.
    let before = place.changes().len();
    for properties in [
        json!({"startvm.failAtStep": 4}),
        json!({"startvm.failAtStep": "soon"}),
        json!({"startvm.hosts": ""}),
    ] {
        let request = json!({"id": 2008, "properties": properties});
        let code = place.code("AutomationService/SubmitService", request).await;
        assert_eq!(code, Code::InvalidArgument, "{properties}");
    }
    assert_eq!(place.changes().len(), before);
}

/// Schedules are suspended, resumed and canceled; repeating an action is not an error.
#[tokio::test]
async fn schedule_is_suspended_resumed_and_canceled() {
    let place = Place::new(Jp1aoOptions::default()).await;
    for plan in [
        json!({"at": "2199-01-01T00:00:00Z"}),
        json!({"recurring": {"recurrence_interval": "monthly", "recurrence_last_day_of_month": true, "recurrence_start_date": "2199-01-01"}}),
    ] {
        let mut request = plan.clone();
        request["id"] = 2008.into();
        if plan.get("recurring").is_some() {
            // Starts later than the sandbox looks ahead.
            request["recurring"]["recurrence_start_date"] = "2100-01-01".into();
        }
        let task = place.submit(request).await;
        let shown = place.until(&task, "TASK_STATUS_WAITING").await;
        let schedule = json!({"id": shown["schedule_id"]});
        for (method, code, status) in [
            (
                "ResumeSchedule",
                Code::FailedPrecondition,
                "TASK_STATUS_WAITING",
            ),
            ("SuspendSchedule", Code::Ok, "TASK_STATUS_SUSPENDED"),
            ("SuspendSchedule", Code::Ok, "TASK_STATUS_SUSPENDED"),
            ("ResumeSchedule", Code::Ok, "TASK_STATUS_WAITING"),
            ("CancelSchedule", Code::Ok, "TASK_STATUS_CANCELED"),
            ("CancelSchedule", Code::Ok, "TASK_STATUS_CANCELED"),
        ] {
            assert_eq!(
                place
                    .code(&format!("ScheduleService/{method}"), schedule.clone())
                    .await,
                code,
                "{plan} {method}"
            );
            let now = place.ok("TaskService/GetTask", json!({"id": task})).await;
            assert_eq!(now["task"]["status"], status, "{plan} {method}");
        }
    }
}

/// Special characters in filters, names and notes are data.
#[tokio::test]
async fn special_characters_are_data() {
    let place = Place::new(Jp1aoOptions::default()).await;
    for name in [
        "it's",
        "''",
        "' or name <> '",
        "a/../b",
        "..",
        "%2e%2e%2f",
        "100%",
        "\"q\" \\",
        "two\r\nlines\t",
        "日本語 の名前",
        "a;b=c&d?e#f",
        "[x] (y), z",
        "+ +",
        "𝄞",
        "'",
        "\\'",
        "\u{2028}x\u{feff}",
        "%2e%2e",
        "%27 or 1 eq 1",
        "a'] or name in ['b",
        "\0",
    ] {
        let update = json!({"id": 2004, "name": name, "description": name, "tags": {"tags": ["a b", "日本"]}});
        let got = place.ok("AutomationService/UpdateService", update).await;
        assert_eq!(got["service"]["name"], name);
        for filter in [
            json!({"name": name}),
            json!({"name_starts": name}),
            json!({"name_ends": name}),
        ] {
            let list = json!({"hql_filter": filter, "hql_sort_by": ["name DESC"], "tags": ["日本", "a b"]});
            let got = place.ok("AutomationService/ListServices", list).await;
            assert_eq!(got["data"].as_array().unwrap().len(), 1, "{filter}: {got}");
            assert_eq!(
                (&got["data"][0]["name"], &got["data"][0]["description"]),
                (&json!(name), &json!(name))
            );
        }
    }
}

#[tokio::test]
async fn templates_are_filtered_by_every_operator() {
    let place = Place::new(Jp1aoOptions::default()).await;
    const LIST: &str = "ServiceTemplateService/ListServiceTemplates";
    let ids = async |filter: Value| {
        let found = place.ok(LIST, json!({"hql_filter": filter})).await;
        let found = found["data"].as_array().cloned().unwrap_or_default();
        found
            .iter()
            .map(|one| one["instance_id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let found = place.ok(LIST, json!({})).await;
    let first = found["data"][0].clone();
    let all = ids(json!({})).await;
    let id = first["instance_id"].as_i64().unwrap();
    let others = |field: &str| -> Vec<i64> {
        let found = found["data"].as_array().unwrap().iter();
        let others = found.filter(|one| one[field] != first[field]);
        others
            .map(|one| one["instance_id"].as_i64().unwrap())
            .collect()
    };
    let other_keys = others("key_name");
    let others = others("instance_id");
    assert!(!other_keys.is_empty());
    for (filter, want) in [
        (json!({"instance_id_ne": id}), &others),
        (json!({"instance_id_not_in": [id]}), &others),
        (json!({"key_name_ne": first["key_name"]}), &other_keys),
        (json!({"key_name_not_in": [first["key_name"]]}), &other_keys),
        (json!({"release_state_not_in": ["no"]}), &all),
        (json!({"description_ne": "no"}), &all),
        (json!({"supported_schedule_type_ne": "no"}), &all),
    ] {
        assert_eq!(ids(filter.clone()).await, *want, "{filter}");
    }
    let description = json!({"description": first["description"]});
    assert!(ids(description).await.contains(&id));
    let types: Vec<_> = first["supported_schedule_type"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    let types = json!({"supported_schedule_type": types.join(",")});
    assert!(ids(types).await.contains(&id));
}

/// Lists of tags and of properties can be filtered.
#[tokio::test]
async fn tags_and_properties_are_filtered() {
    let place = Place::new(Jp1aoOptions::default()).await;
    let names = async |rpc: &str, name: &str, request: Value| {
        let found = place.ok(rpc, request).await;
        let found = found["data"].as_array().cloned().unwrap_or_default();
        let names = found
            .iter()
            .map(|one| one[name].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    const GROUPS: &str = "TagService/ListTagGroups";
    let all = names(GROUPS, "name", json!({})).await;
    let filter = json!({"hql_filter": {"name": all[0]}});
    assert_eq!(names(GROUPS, "name", filter).await, all[..1]);
    assert!(all.len() > 1, "{all:?}");

    const TAGS: &str = "TagService/ListTags";
    let all = names(TAGS, "name", json!({})).await;
    let filter = json!({"tag_filter": {"name": all[0]}});
    assert_eq!(names(TAGS, "name", filter).await, all[..1]);
    let of = |service: u64| json!({"resource_type": "Service", "service_filter": {"instance_id_in": [service]}});
    assert_eq!(names(TAGS, "name", of(1)).await, [""; 0]);
    let service = place
        .ok("AutomationService/GetService", json!({"id": 2004}))
        .await;
    let tags: Vec<_> = service["service"]["tags"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut found = names(TAGS, "name", of(2004)).await;
    found.sort();
    let mut want: Vec<_> = tags
        .iter()
        .map(|tag| tag.as_str().unwrap().to_owned())
        .collect();
    want.sort();
    assert_eq!(found, want, "{service}");

    const PROPERTIES: &str = "PropertyService/ListProperties";
    let all = names(PROPERTIES, "key_name", json!({"service_id": 2004})).await;
    let filter = json!({"service_id": 2004, "hql_filter": {"key_name_in": [all[0]]}});
    assert_eq!(names(PROPERTIES, "key_name", filter).await, all[..1]);
    assert!(all.len() > 1, "{all:?}");
}

/// An operation that version 10 lacks is UNIMPLEMENTED; one that differs works.
#[tokio::test]
async fn version_10() {
    let rules = Jp1aoOptions {
        version: Jp1aoVersion::V10,
        ..Jp1aoOptions::default()
    };
    let place = Place::new(rules).await;
    for (method, request) in [
        ("AutomationService/ReleaseService", json!({"id": 2004})),
        ("TaskService/ForceStopTask", json!({"id": 1})),
        ("TaskHistoryService/ListTaskHistories", json!({})),
    ] {
        assert_eq!(
            place.code(method, request).await,
            Code::Unimplemented,
            "{method}"
        );
    }
    // The gateway's health probe reads the version.
    let mut sent = place.sandbox.requests();
    sent.retain(|seen| !seen.path_and_query.ends_with("/configuration/version"));
    assert!(sent.is_empty(), "{sent:?}");
    for (list, actions) in [
        ("ListPropertyDefinitions", "ListPropertyDefinitionActions"),
        ("ListPropertyValues", "ListPropertyValueActions"),
    ] {
        let of = |rpc: &str| format!("PropertyService/{rpc}");
        let found = place.ok(&of(list), json!({})).await;
        let id = found["data"][0]["instance_id"].clone();
        place.ok(&of(actions), json!({"id": id})).await;
    }
    let task = place.submit(json!({"id": 2008})).await;
    place.until(&task, "TASK_STATUS_COMPLETED").await;
    let version = place.ok("ProductInfoService/GetVersion", json!({})).await;
    assert!(version.to_string().contains("10-50-00"), "{version}");
}

/// With `follow`, a watch continues into the retry of a failed task, and so does its log; a
/// completed task ends both.
#[tokio::test]
async fn watch_follows_a_retried_task() {
    let place = Place::new(Jp1aoOptions::default()).await;
    let client = &place.gateway.client;
    let submit = json!({"id": 2008, "properties": {"startvm.failAtStep": 2}, "follow": true});
    let mut task = client
        .watch("TaskService/SubmitServiceAndWatch", submit, &[])
        .await
        .unwrap();
    let started = task.event().await;
    let affected = &started["started"]["action_result"]["affected_resource"][0];
    let id = affected.as_str().unwrap().rsplit('/').next().unwrap();
    let request = json!({"task_id": id, "follow": true});
    let log = client.watch("TaskService/WatchTaskLog", request, &[]).await;
    let mut log = log.unwrap();

    let mut outcomes = Vec::new();
    let told = async {
        while let Some(message) = task.next().await {
            let message = to_json(&message.unwrap());
            let Some(outcome) = message["event"]["outcome"].as_str() else {
                continue;
            };
            outcomes.push(outcome.to_owned());
            if outcome == "OUTCOME_FAILED" {
                place.ok("TaskService/RetryTask", json!({"id": id})).await;
            }
        }
    };
    within(told).await;
    assert_eq!(outcomes, ["OUTCOME_FAILED", "OUTCOME_SUCCEEDED"]);
    let rest = async {
        let (mut lines, mut last) = (Vec::new(), Value::Null);
        while let Some(message) = log.next().await {
            last = to_json(&message.unwrap());
            lines.extend(last["line"]["text"].as_str().map(str::to_owned));
        }
        (lines, last)
    };
    let (lines, last) = within(rest).await;
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED", "{last}");
    assert!(lines.last().unwrap().ends_with("completed."), "{lines:?}");

    // Archived before the first poll: the history has the outcome.
    place.ok("TaskService/ArchiveTask", json!({"id": id})).await;
    let archived = client
        .watch("TaskService/WatchTask", json!({"id": id}), &[])
        .await;
    let mut archived = archived.unwrap();
    let last = archived.event().await;
    assert_eq!(last["event"]["type"], "WATCH_EVENT_TYPE_DELETED", "{last}");
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED", "{last}");
    assert!(archived.next().await.is_none());
}

/// Watches of schedules and services send each change; no status is final, a deletion is.
#[tokio::test]
async fn schedules_and_services_are_watched() {
    let place = Place::new(Jp1aoOptions::default()).await;
    let watch = async |method: &str, id: &Value| {
        let watch = place.gateway.client.watch(method, json!({"id": id}), &[]);
        watch.await
    };
    let (schedules, services) = ("ScheduleService", "AutomationService");
    let task = place
        .submit(json!({"id": 2008, "at": "2199-01-01T00:00:00Z"}))
        .await;
    let task = place.until(&task, "TASK_STATUS_WAITING").await;
    for (service, kind, id, actions) in [
        (
            schedules,
            "Schedule",
            &task["schedule_id"],
            &["SuspendSchedule", "ResumeSchedule", "CancelSchedule"][..],
        ),
        (
            services,
            "Service",
            &json!(2004),
            &["ReleaseService", "MaintainService", "DeleteService"],
        ),
    ] {
        let field = kind.to_lowercase();
        let rpc = format!("{service}/Watch{kind}");
        let mut told = watch(&rpc, id).await.unwrap();
        let present = told.event().await;
        assert_eq!(present["event"]["type"], "WATCH_EVENT_TYPE_INITIAL");
        let mut last = present[&field].clone();
        for action in actions {
            place
                .ok(&format!("{service}/{action}"), json!({"id": id}))
                .await;
            if *action == "DeleteService" {
                let end = within(told.next()).await.unwrap().unwrap_err();
                assert_eq!(end.code(), Code::NotFound);
                assert!(end.message().contains("deleted since it was last read"));
                break;
            }
            let changed = within(told.event()).await;
            assert_eq!(changed["event"]["type"], "WATCH_EVENT_TYPE_MODIFIED");
            assert!(changed["event"]["outcome"].is_null(), "{changed}");
            assert_ne!(changed[&field], last, "{action}");
            let got = place
                .ok(&format!("{service}/Get{kind}"), json!({"id": id}))
                .await;
            last = changed[&field].clone();
            assert_eq!(last, got[&field], "{action}");
        }
        let unknown = watch(&rpc, &json!(99)).await.err().unwrap();
        assert_eq!(unknown.code(), Code::NotFound);
    }
}
