//! Resources, statuses and logs as they are read.

use serde_json::{Value, json};

use super::{Ao, V1, start};
use crate::support::client::json as to_json;
use crate::support::compare::differences;
use crate::support::recorder::Answer;

/// Resources are decoded member by member; unknown members and texts are accepted (quirks
/// 1 to 5, 8, 12, 20).
#[tokio::test]
async fn resource_is_decoded_completely() {
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
            "AutomationService/GetService",
            json!({"id": 41}),
            "objects/Services/41",
            service.clone(),
            "service",
        ),
        (
            "AutomationService/ListServices",
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
        // A second name and a number as text have their own tests.
        found.retain(|d| {
            !d.contains("minValue")
                && !d.contains("resourceGroup[1]")
                && !d.contains("next_page_token")
                && !d.contains("nextPageToken")
        });
        assert_eq!(found, Vec::<String>::new(), "{rpc}");
    }
}

/// Statuses are read in all known spellings; an unknown one is kept as text.
#[tokio::test]
async fn status_is_read_in_all_spellings() {
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

/// Undocumented members are kept together with the likely ones.
#[tokio::test]
async fn unknown_member_is_kept() {
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

/// The manual does not print the members of a log part: likely shapes are read.
#[tokio::test]
async fn log_is_read_in_several_shapes() {
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
        let (mut log, mut text) = (log.unwrap(), String::new());
        while let Some(message) = log.next().await {
            if let Some(line) = to_json(&message.unwrap())["line"]["text"].as_str() {
                text += &format!("{line}\n");
            }
        }
        assert_eq!(text, want);
    }
    let (_, gateway) = ao.answers(|_| Answer::json(200, &json!({"data": ["a\n"], "count": 1})));
    let got = gateway
        .client
        .call("TaskService/GetTaskLog", json!({"task_id": 7}));
    assert_eq!(to_json(&got.await.unwrap())["data"][0]["text"], "a\n");
}
