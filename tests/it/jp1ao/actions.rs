//! Two-step actions, submissions, updates.

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use super::{Ao, V1, calls, envelope, start, start_as, submission, submitting};
use crate::support::client::json as to_json;
use crate::support::compare::same;
use crate::support::recorder::Answer;

/// Each action fetches the document, names it after the action whatever it contains
/// (quirks 6 and 7), adds missing members, and sends it to the documented path whatever its
/// `href` is (quirk 11). GETs have no body, POSTs have one (quirk 22).
#[tokio::test]
async fn action_is_fetched_and_invoked() {
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
        ("AutomationService/SubmitService", "Services", "submit"),
        ("AutomationService/ResetServiceCounter", "Services", "reset"),
        ("AutomationService/ReleaseService", "Services", "release"),
        (
            "AutomationService/MaintainService",
            "Services",
            "maintenance",
        ),
        ("AutomationService/DisableService", "Services", "disable"),
        (
            "AutomationService/ApplyTemplate",
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
        // The definitions of properties are read before.
        seen.retain(|seen| !seen.path().ends_with("/PropertyDefinitions"));
        let path = format!("{V1}/objects/{resource}/41/actions/{action}");
        let sent: Vec<_> = seen
            .iter()
            .map(|s| (s.method.as_str(), s.target.clone()))
            .collect();
        assert_eq!(
            sent,
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

        // A document in the request is sent without the first step.
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

/// Schedules and values replace those of the document in place, flat or nested.
#[tokio::test]
async fn submission_is_edited_in_place() {
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
            .call("AutomationService/SubmitService", request)
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
        // The same order: `preserve_order` keeps it.
        assert_eq!(
            std::str::from_utf8(&sent.body).unwrap(),
            expected.to_string(),
            "{schedule}"
        );
    }
}

/// Values are checked before the submission; each invalid one is named.
#[tokio::test]
async fn invalid_submission_is_not_sent() {
    let (recorder, gateway) = start(submitting(true)).await;
    for (properties, want) in [
        // `host` is required, has no default and is empty in the document.
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
            vec![("properties[host]", "must be a string")],
        ),
        (
            json!({"host": "a", "unknown": "x"}),
            vec![(
                "properties[unknown]",
                "is not in the document of the action",
            )],
        ),
    ] {
        let request = json!({"id": 41, "properties": properties});
        let error = gateway
            .client
            .call("AutomationService/SubmitService", request)
            .await
            .unwrap_err();
        assert_eq!(
            error.code(),
            Code::InvalidArgument,
            "{properties}: {error:?}"
        );
        let details = error.get_error_details();
        let mut violations: Vec<_> = details.bad_request().unwrap().field_violations.clone();
        violations.sort_by(|a, b| a.field.cmp(&b.field));
        let mut want = want;
        want.sort();
        assert_eq!(violations.len(), want.len(), "{properties}: {violations:?}");
        for (violation, (field, problem)) in violations.iter().zip(want) {
            assert_eq!(violation.field, field, "{properties}");
            assert!(violation.description.contains(problem), "{violation:?}");
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

/// Values are not sent where there are more definitions than are read.
#[tokio::test]
async fn values_are_not_sent_with_too_many_definitions() {
    let ok = submitting(false);
    let (recorder, gateway) = start(move |seen| {
        if !seen.path().ends_with("/PropertyDefinitions") {
            return ok(seen);
        }
        // Each page is full, and differs from the one before.
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
            "AutomationService/SubmitService",
            json!({"id": 41, "properties": {"k99999": "a"}}),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("more than 5000"), "{error:?}");
    assert!(recorder.seen().iter().all(|seen| seen.method == "GET"));
}

/// Definitions behind a page without items are checked.
#[tokio::test]
async fn all_pages_of_definitions_are_checked() {
    let ok = submitting(false);
    let (recorder, gateway) = start(move |seen| {
        if !seen.path().ends_with("/PropertyDefinitions") {
            return ok(seen);
        }
        let page = seen.pairs().into_iter().find(|(name, _)| name == "page");
        let definition = json!({"instanceID": 1, "keyName": "host", "type": "integer"});
        let data = match &*page.unwrap().1 {
            "3" => json!([definition]),
            _ => json!([]),
        };
        Answer::json(200, &json!({"data": data, "pagination": {"numPages": 3}}))
    })
    .await;
    let request = json!({"id": 41, "properties": {"host": "a"}});
    let error = gateway
        .client
        .call("AutomationService/SubmitService", request)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("must be an integer"), "{error:?}");
    assert!(recorder.seen().iter().all(|seen| seen.method == "GET"));
}

/// A submission is not retried, however it fails.
#[tokio::test]
async fn submission_is_not_retried() {
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
                "AutomationService/SubmitService",
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

/// The response to a step is written into the document's own members.
#[tokio::test]
async fn response_to_a_step_is_written_into_the_document() {
    let prompt = json!({"name": "response", "href": "h", "method": "POST", "parameters": [
        {"instanceId": 5, "labelbutton1": "Retry", "labelbutton2": "Give up", "taskId": 41}]});
    let document = prompt.clone();
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
        same(parameters, &prompt["parameters"]),
        "the prompt: {parameters}"
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
    let mut expected = prompt.clone();
    expected["parameters"][0]["labelbutton2"] = json!("pressed");
    assert_eq!(recorder.seen().last().unwrap().json(), expected);
}

/// Updates read the resource, change the fields of the request, and write it back.
#[tokio::test]
async fn update_keeps_unset_fields() {
    let ao = Ao::new().await;
    for (rpc, path, request, before, change) in [
        (
            "AutomationService/UpdateService",
            "Services/41",
            json!({"favorite": false, "tags": {}, "name": "新"}),
            json!({"instanceID": 41, "name": "old", "tags": "a,b", "favorite": true, "zz": 1.50,
                   "resetTime": null}),
            json!({"name": "新", "tags": "", "favorite": false}),
        ),
        (
            "AutomationService/UpdateService",
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

/// The body of a batch is a list envelope.
#[tokio::test]
async fn batch_update_sends_a_list_envelope() {
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

/// `reset` returns a document or an envelope (quirk 8); `detailhelp` returns a wrong name,
/// and only its `href` is used (quirk 6).
#[tokio::test]
async fn reset_and_detailhelp_accept_both_reply_forms() {
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
            .call("AutomationService/ResetServiceCounter", json!({"id": 7}))
            .await
            .unwrap();
        let got = to_json(&got);
        assert_eq!(got.as_object().unwrap().keys().collect::<Vec<_>>(), [field]);
    }
    for rpc in [
        "AutomationService/GetServiceHelpUrl",
        "ServiceTemplateService/GetServiceTemplateHelpUrl",
    ] {
        let document = json!({
            "name": "export", "href": "http://h/help", "method": "POST", "parameters": [{"a": ["b"]}],
        });
        let answer = document.clone();
        let (recorder, gateway) = ao.answers(move |_| Answer::json(200, &answer));
        let got = gateway.client.call(rpc, json!({"id": 7})).await.unwrap();
        assert_eq!(to_json(&got), document);
        assert!(recorder.seen()[0].target.ends_with("/7/actions/detailhelp"));
    }
    // A failure within a 200 is returned as data.
    let (_recorder, gateway) = ao.answers(move |seen| match seen.method.as_str() {
        "GET" => Answer::json(200, &document),
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

/// Version 11 has another path (quirk 10), version 10 lacks operations (quirk 21).
#[tokio::test]
async fn versions_differ_in_paths_and_operations() {
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
            .call("AutomationService/ApplyTemplate", request)
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
        ("AutomationService/ReleaseService", json!({"id": 1})),
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

/// A body that is not the document of the rpc is neither edited nor sent.
#[tokio::test]
async fn other_body_is_not_edited_and_sent_back() {
    let ao = Ao::new().await;
    let template = "AutomationService/GetSubmitServiceAction";
    for (rpc, request) in [
        ("TaskService/UpdateTask", json!({"id": 7, "notes": "n"})),
        (
            "PropertyService/UpdatePropertyValue",
            json!({"id": 7, "value": "v"}),
        ),
        ("AutomationService/ReleaseService", json!({"id": 7})),
        (template, json!({"id": 7})),
    ] {
        for body in [
            json!({"maintenance": true}),
            json!({"error": {"message": "maintenance"}}),
            json!({"messageID": "KNAE02102-E", "message": "maintenance"}),
            json!({}),
        ] {
            let answer = Answer::json(200, &body);
            let (recorder, gateway) = ao.answers(move |_| answer.clone());
            let error = gateway.client.call(rpc, request.clone()).await.unwrap_err();
            assert_eq!(error.code(), Code::Internal, "{rpc} {body}: {error:?}");
            assert_eq!(calls(recorder).len(), 1, "{rpc} {body}: only read");
            let is_unchanged = error.message().contains("nothing was changed");
            assert_eq!(is_unchanged, rpc != template, "{rpc} {body}: {error:?}");
        }
    }
}
