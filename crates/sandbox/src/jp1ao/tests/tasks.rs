use super::*;

#[tokio::test(start_paused = true)]
async fn task_waits_for_a_response() {
    let client = TestClient::new();
    let task = client
        .submit(2005, |document| {
            document["parameters"][0]["name"] = "夜の仕事".into()
        })
        .await;
    let shown = client.read(&task).await;
    assert_eq!(
        (&shown["name"], &shown["status"]),
        (&json!("夜の仕事"), &json!("inProgress"))
    );
    assert_eq!(
        (&shown["completionTime"], &shown["scheduledStartTime"]),
        (&json!(""), &Value::Null)
    );
    let id = shown["instanceID"].as_u64().unwrap();
    let steps_of = async || {
        let got = client.get(&format!("FlowSteps?taskID={id}")).await;
        got.all("status")
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        steps_of().await,
        ["inProgress", "waiting", "waiting", "waiting"]
    );
    for action in ["archive", "response", "rerunStart", "rerunStepStart"] {
        assert_eq!(client.invoke(&task, action).await.status, 409, "{action}");
    }
    assert_eq!(
        client.get(&format!("{task}/actions/response")).await.status,
        409
    );

    let log = async |query: &str| {
        let body = client.read(&format!("TaskLogs?taskID={id}{query}")).await;
        body["data"][0]["taskLog"].as_str().unwrap().to_owned()
    };
    let early = log("").await;
    steps(3).await;
    assert_eq!(client.status(&task).await, "waitingForInput");
    assert_eq!(
        steps_of().await,
        ["completed", "completed", "waitingForInput", "waiting"]
    );
    steps(1000).await;
    assert_eq!(
        client.status(&task).await,
        "waitingForInput",
        "it waits for a person"
    );

    // The log is append-only: later reads begin with the earlier text.
    let whole = log("").await;
    assert!(whole.starts_with(&early) && whole.len() > early.len() && whole.contains("Go on?"));
    assert_eq!(
        format!("{early}{}", log(&format!("&offset={}", early.len())).await),
        whole
    );
    let last = whole.lines().last().unwrap().len() + 1;
    assert_eq!(
        log(&format!("&readSize={last}&reverse")).await,
        whole[whole.len() - last..]
    );
    assert_eq!(
        log(&format!("&readSize={}&reverse", last - 1)).await,
        "",
        "no half lines"
    );
    assert_eq!(log(&format!("&offset={}", whole.len())).await, "");

    let document = client.read(&format!("{task}/actions/response")).await;
    let argument = &document["parameters"][0];
    assert_eq!(
        (&argument["labelbutton1"], &argument["labelbutton2"]),
        (&json!("Continue"), &json!("Cancel"))
    );
    let answered = |edit: Value| {
        let client = client.by(JP1AO_USERNAME);
        let task = task.clone();
        async move {
            let edit = edit.as_object().unwrap().clone();
            let got = client.act(&task, "response", |document| {
                for (name, value) in edit {
                    let argument = document["parameters"][0].as_object_mut().unwrap();
                    match value.is_number() && name.starts_with("label") {
                        true => argument.shift_remove(&name),
                        false => argument.insert(name, value),
                    };
                }
            });
            got.await.status
        }
    };
    for wrong in [
        json!({}),
        json!({"labelbutton1": null, "labelbutton2": null}),
        json!({"labelbutton1": true, "labelbutton2": true}),
        json!({"labelbutton3": true}),
        json!({"labelbutton1": "Other"}),
        json!({"labelbutton日": "x"}),
        json!({"labelbutton1": true, "taskId": 1}),
        json!({"labelbutton1": true, "instanceId": "1"}),
    ] {
        assert_eq!(answered(wrong.clone()).await, 400, "{wrong}");
    }
    // 0 means omitted. Only one button is left then.
    assert_eq!(answered(json!({"labelbutton2": 0})).await, 200);
    assert_eq!(client.status(&task).await, "inProgress");
    assert_eq!(status_of_second_response(&client, &task).await, 409);
    steps(1).await;
    let shown = client.read(&task).await;
    assert_eq!(shown["status"], "completed");
    assert!(shown["completionTime"].is_string() && shown["stepTime"].is_string());
    assert_eq!(steps_of().await, ["completed"; 4]);
    assert!(log("").await.contains("The response was Continue."));
}

async fn status_of_second_response(client: &TestClient, task: &str) -> u16 {
    client.get(&format!("{task}/actions/response")).await.status
}

#[tokio::test(start_paused = true)]
async fn each_form_of_a_button_is_accepted() {
    for (edit, failed) in [
        (json!({"labelbutton1": true}), false),
        (json!({"labelbutton2": "selected"}), true),
        (json!({"labelbutton1": "", "labelbutton2": "Cancel"}), true),
        (
            json!({"labelbutton1": "Continue", "labelbutton2": false}),
            false,
        ),
        (json!({"labelbutton1": null}), true),
    ] {
        let client = TestClient::new();
        let task = client.submit(2005, |_| {}).await;
        steps(3).await;
        let got = client
            .act(&task, "response", |document| {
                for (name, value) in edit.as_object().unwrap() {
                    document["parameters"][0][name] = value.clone();
                }
            })
            .await;
        assert_eq!(got.status, 200, "{edit}: {}", got.body);
        steps(1).await;
        assert_eq!(
            client.status(&task).await,
            if failed { "failed" } else { "completed" },
            "{edit}"
        );
    }
}

fn fail_at(step: &'static str) -> impl FnOnce(&mut Value) {
    move |document| {
        for argument in document["parameters"].as_array_mut().unwrap() {
            if argument["keyName"] == preload::FAIL_AT_PROPERTY {
                argument["value"] = step.into();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_task_is_rerun_and_archived() {
    let client = TestClient::new();
    let task = client.submit(2008, fail_at("2")).await;
    steps(2).await;
    assert_eq!(client.status(&task).await, "inProgressWithError");
    steps(1).await;
    assert_eq!(client.status(&task).await, "failed");
    assert_eq!(client.invoke(&task, "stop").await.status, 409);
    // The document of this action has the name of a sibling; the request must use the
    // action's name.
    let document = client.read(&format!("{task}/actions/rerunStepStart")).await;
    assert_eq!(document["name"], "rerunStart");
    assert!(
        document["href"]
            .as_str()
            .unwrap()
            .ends_with("/actions/rerunStepStart/invoke")
    );
    let got = client
        .send(
            "POST",
            &format!("{task}/actions/rerunStepStart/invoke"),
            document,
        )
        .await;
    assert_eq!(got.status, 400);
    assert_eq!(
        client.act(&task, "rerunStepStart", |_| {}).await.status,
        200
    );
    steps(1).await;
    assert_eq!(client.status(&task).await, "completed");

    let other = client.submit(2008, fail_at("1")).await;
    steps(2).await;
    assert_eq!(client.act(&other, "rerunStart", |_| {}).await.status, 200);
    steps(3).await;
    assert_eq!(client.status(&other).await, "completed");

    // Changed notes are stored and move to the history.
    let mut shown = client.read(&other).await;
    (shown["notes"], shown["toDo"], shown["status"]) =
        ("seen".into(), true.into(), "failed".into());
    let got = client.send("PUT", &other, shown).await;
    assert_eq!(
        (&got.body["notes"], &got.body["toDo"], &got.body["status"]),
        (&json!("seen"), &json!(true), &json!("completed"))
    );
    let got = client.act(&other, "archive", |_| {}).await;
    assert_eq!(got.status, 200);
    assert_eq!(client.get(&other).await.status, 404);
    let id: u64 = other.strip_prefix("Tasks/").unwrap().parse().unwrap();
    let filter = encoded(&format!("(taskID = {id})"));
    let found = client
        .read(&format!("TaskHistories?HQL::filter={filter}"))
        .await;
    assert_eq!(found["count"], 1);
    assert_eq!(
        (&found["data"][0]["notes"], &found["data"][0]["status"]),
        (&json!("seen"), &json!("completed"))
    );
}

#[tokio::test(start_paused = true)]
async fn stop_ends_running_tasks() {
    let client = TestClient::new();
    for (service, action, after, wait, at_once, at_last) in [
        (2008, "stop", 0, 1, "inProgressTerminating", "failed"),
        (2008, "stop", 2, 1, "inProgressTerminating", "completed"),
        (2008, "forceStop", 0, 0, "failed", "failed"),
        (2005, "stop", 3, 1, "inProgressTerminating", "failed"),
    ] {
        let task = client.submit(service, |_| {}).await;
        steps(after).await;
        assert_eq!(
            client.act(&task, action, |_| {}).await.status,
            200,
            "{action} after {after}"
        );
        assert_eq!(
            client.status(&task).await,
            at_once,
            "{action} after {after}"
        );
        assert_eq!(
            client.invoke(&task, action).await.status,
            409,
            "{action} after {after}"
        );
        steps(wait).await;
        assert_eq!(
            client.status(&task).await,
            at_last,
            "{action} after {after}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_schedules_are_suspended_and_canceled() {
    let client = TestClient::new();
    let later = time_format::format(
        client.upstreams.clock.now() + Duration::from_secs(3600),
        false,
    );
    let plan = |document: &mut Value| {
        document["parameters"][0]["scheduleType"] = "schedule".into();
        document["parameters"][0]["scheduledStartTime"] = later.as_str().into();
    };
    let task = client.submit(2008, plan).await;
    let shown = client.read(&task).await;
    assert_eq!(
        (&shown["status"], &shown["scheduledStartTime"]),
        (&json!("waiting"), &json!(later))
    );
    let schedule = format!("Schedules/{}", shown["scheduleID"]);
    let of_task = async |task: &str| client.status(task).await;
    let running = async || {
        client
            .get("Schedules?scheduleStatus=running")
            .await
            .all("instanceID")
            .len()
    };
    for (action, status, task_status, left) in [
        ("resume", 409, "waiting", 1),
        ("suspend", 200, "suspended", 0),
        ("suspend", 200, "suspended", 0),
        ("resume", 200, "waiting", 1),
        ("cancel", 200, "canceled", 0),
        ("cancel", 200, "canceled", 0),
        ("suspend", 409, "canceled", 0),
    ] {
        let got = client.act(&schedule, action, |_| {}).await;
        assert_eq!(got.status, status, "{action}: {}", got.body);
        assert_eq!(of_task(&task).await, task_status, "{action}");
        assert_eq!(running().await, left, "{action}");
    }
    // Without any action it starts at its time.
    let task = client.submit(2008, plan).await;
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(of_task(&task).await, "waiting");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(of_task(&task).await, "inProgress");
    let schedule = format!("Schedules/{}", client.read(&task).await["scheduleID"]);
    assert_eq!(
        client.act(&schedule, "cancel", |_| {}).await.status,
        409,
        "it runs"
    );
}

#[tokio::test(start_paused = true)]
async fn recurrence_creates_the_next_task() {
    let client = TestClient::new();
    let task = client
        .submit(2008, |document| {
            document["parameters"][0]["scheduleType"] = "recurrence".into();
            document["parameters"][0]["recurrenceInterval"] = "daily".into();
            document["parameters"][0]["recurrenceTime"] = "03:00".into();
        })
        .await;
    let schedule = client.read(&task).await["scheduleID"].clone();
    let statuses = async || {
        let all = client
            .get(&format!("Tasks?scheduleID={schedule}"))
            .await
            .all("status");
        all.iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(statuses().await, ["waiting"]);
    for want in [
        &["completed", "waiting"][..],
        &["completed", "completed", "waiting"],
        &["completed", "completed", "completed", "waiting"],
    ] {
        for _ in 0..24 {
            tokio::time::advance(Duration::from_secs(3600)).await;
            statuses().await;
        }
        assert_eq!(statuses().await, want);
    }
    // After a year without requests there is one more task, not hundreds.
    tokio::time::advance(Duration::from_secs(365 * 24 * 3600)).await;
    assert_eq!(statuses().await.len(), 5);
    assert_eq!(
        client
            .act(&format!("Schedules/{schedule}"), "cancel", |_| {})
            .await
            .status,
        200
    );
    tokio::time::advance(Duration::from_secs(7 * 24 * 3600)).await;
    assert_eq!(statuses().await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn invalid_submits_are_rejected() {
    let client = TestClient::new();
    for (service, edit, status) in [
        (2007, json!([0, "name", "x"]), 409),
        (2005, json!([0, "name", ""]), 400),
        (2005, json!([0, "name", "x".repeat(129)]), 400),
        (2005, json!([0, "name", 5]), 400),
        (2005, json!([0, "scheduleType", "never"]), 400),
        (2005, json!([0, "scheduleType", "schedule"]), 400),
        (2005, json!([1, "value", ""]), 400),
        (2005, json!([1, "value", "x".repeat(257)]), 400),
        (2005, json!([2, "value", "0"]), 400),
        (2005, json!([2, "value", "1025"]), 400),
        (2005, json!([2, "value", "ten"]), 400),
        (2005, json!([3, "value", "fat"]), 400),
        (2005, json!([4, "value", "perhaps"]), 400),
        (2005, json!([1, "keyName", "no.such"]), 400),
        (2005, json!([2, "value", "1024"]), 200),
    ] {
        let got = client
            .act(&format!("Services/{service}"), "submit", |document| {
                let at = edit[0].as_u64().unwrap() as usize;
                document["parameters"][at][edit[1].as_str().unwrap()] = edit[2].clone();
            })
            .await;
        assert_eq!(got.status, status, "{edit}: {}", got.body);
    }
    let twice = |document: &mut Value| {
        let schedule = document["parameters"][0].clone();
        document["parameters"]
            .as_array_mut()
            .unwrap()
            .push(schedule);
    };
    assert_eq!(
        client.act("Services/2005", "submit", twice).await.status,
        400
    );
    assert_eq!(
        client
            .act(
                "Services/2005",
                "submit",
                |document| document["parameters"] = json!([])
            )
            .await
            .status,
        400
    );
    assert_eq!(
        client.get("Tasks").await.body["count"],
        1,
        "only the last of the first ones"
    );
}

#[tokio::test(start_paused = true)]
async fn resubmit_keeps_the_values() {
    let client = TestClient::new();
    let first = client
        .submit(2005, |document| {
            document["parameters"][0]["name"] = "first".into();
            document["parameters"][2]["value"] = "99".into();
        })
        .await;
    let got = client.act(&first, "resubmit", |document| {
        assert_eq!(document["parameters"][0]["name"], "first");
        assert_eq!(
            document["parameters"][2],
            json!({"keyName": "disk.sizeGB", "value": "99"})
        );
    });
    let got = got.await;
    assert_eq!(got.status, 200, "{}", got.body);
    let ids = client
        .get("Tasks?HQL::sortBy=instanceID%20DESC")
        .await
        .all("instanceID");
    assert_eq!(ids.len(), 2);
    let values = client
        .get(&format!("PropertyValues?taskID={}", ids[0]))
        .await;
    assert!(values.all("value").contains(&json!("99")));
}

#[tokio::test(start_paused = true)]
async fn only_debug_tasks_are_deleted() {
    let client = TestClient::new();
    let debug = client.submit(2009, |_| {}).await;
    let normal = client.submit(2008, |_| {}).await;
    for _ in 0..2 {
        let got = client.send("DELETE", &debug, Value::Null).await;
        assert_eq!((got.status, got.bytes.len()), (204, 0));
    }
    let got = client.send("DELETE", &normal, Value::Null).await;
    assert_eq!((got.status, got.header("content-type")), (303, "text/html"));
    assert!(
        got.header("location")
            .ends_with(&format!("/objects/{normal}/actions/archive"))
    );
    assert!(got.bytes.starts_with(b"<html>"));
    assert_eq!(client.get(&normal).await.status, 200, "it is still there");
}

#[tokio::test(start_paused = true)]
async fn histories_are_listed_and_deleted_by_their_times() {
    let client = TestClient::new();
    let mut times = Vec::new();
    for service in [2008, 2005, 2008] {
        let task = client.submit(service, |_| {}).await;
        steps(2).await;
        assert_eq!(client.invoke(&task, "forceStop").await.status, 200);
        times.push(
            client.read(&task).await["completionTime"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
        assert_eq!(client.invoke(&task, "archive").await.status, 200);
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    let ids = client.get("TaskHistories").await.all("instanceID");
    assert_eq!(ids.len(), 3);
    let of = async |query: &str| {
        let all = client
            .get(&format!("TaskHistories{query}"))
            .await
            .all("instanceID");
        all.iter()
            .map(|id| ids.iter().position(|one| one == id).unwrap())
            .collect::<Vec<_>>()
    };
    let [first, second] = [encoded(&times[0]), encoded(&times[1])];
    for (query, want) in [
        (String::new(), vec![0, 1, 2]),
        (format!("?end={first}"), vec![0]),
        (format!("?start={first}"), vec![1, 2]),
        (format!("?start={first}&end={second}"), vec![1]),
        ("?serviceGroupID=1001".to_owned(), vec![1]),
        ("?q=MACHINES%20night".to_owned(), vec![0, 2]),
        ("?tags=Night%20shift".to_owned(), vec![0, 2]),
    ] {
        assert_eq!(of(&query).await, want, "{query}");
    }
    for wrong in ["?start=2026", "?end=x", "?serviceGroupID=x", "?other=1"] {
        assert_eq!(
            client
                .send("DELETE", &format!("TaskHistories{wrong}"), Value::Null)
                .await
                .status,
            400,
            "{wrong}"
        );
    }
    let one = format!("TaskHistories/{}", ids[2]);
    assert_eq!(client.read(&one).await["submitter"], "system");
    assert_eq!(
        client.get(&format!("{one}/actions")).await.all("name"),
        ["delete"]
    );
    for (path, left) in [
        (
            format!("TaskHistories?start={first}&serviceGroupID=1001"),
            vec![0, 2],
        ),
        (one.clone(), vec![0]),
        (one, vec![0]),
        ("TaskHistories".to_owned(), vec![]),
    ] {
        assert_eq!(client.send("DELETE", &path, Value::Null).await.status, 204);
        assert_eq!(of("").await, left, "{path}");
    }
}

#[tokio::test]
async fn invalid_task_requests_are_rejected() {
    let client = TestClient::of(Settings {
        play: false,
        ..Settings::default()
    });
    for (path, status) in [
        ("FlowSteps", 400),
        ("FlowSteps?taskID=x", 400),
        ("FlowSteps?taskID=6001&taskID=6001", 400),
        ("FlowSteps?taskID=6001&q=x", 400),
        ("FlowSteps?taskID=1", 404),
        ("FlowSteps?taskID=6001", 200),
        ("FlowSteps/1", 404),
        ("TaskLogs", 400),
        ("TaskLogs?taskID=6001&readSize=0", 400),
        ("TaskLogs?taskID=6001&readSize=99999999", 400),
        ("TaskLogs?taskID=6001&offset=-1", 400),
        ("TaskLogs?taskID=6001&reverse=true", 400),
        ("TaskLogs?taskID=6001&offset=99999999999", 200),
        ("Tasks/6001", 200),
        ("Tasks/6001/actions/fly", 404),
        ("Tasks/06001", 200),
        ("Tasks/-6001", 404),
        ("Tasks/18446744073709551616", 404),
        ("Tasks/", 404),
        ("Tasks/%E6%97%A5", 404),
        ("Tasks/..%2F..%2F..", 404),
        ("Tasks/6001/actions/stop/invoke", 405),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    // If `play` is off, nothing progresses.
    let task = client.submit(2005, |_| {}).await;
    assert_eq!(client.status(&task).await, "waiting");
}

#[tokio::test(start_paused = true)]
async fn task_limit_archives_finished_tasks() {
    let client = TestClient::new();
    let document = client.read("Services/2008/actions/submit").await;
    for _ in 0..1100 {
        let got = client
            .send(
                "POST",
                "Services/2008/actions/submit/invoke",
                document.clone(),
            )
            .await;
        assert_eq!(got.status, 200, "{}", got.body);
        steps(5).await;
    }
    let count = async |path: &str| client.read(path).await["count"].as_u64().unwrap();
    assert_eq!(count("Tasks").await, 1000, "the oldest were archived");
    assert_eq!(count("TaskHistories").await, 100);
    // If no task is finished, none can be archived.
    let later = json!({"scheduleType": "schedule", "scheduledStartTime": "2199", "name": "x"});
    let mut status = 200;
    for _ in 0..1001 {
        let mut document = document.clone();
        document["parameters"] = json!([later]);
        status = client
            .send("POST", "Services/2008/actions/submit/invoke", document)
            .await
            .status;
    }
    assert_eq!(status, 400);
    assert_eq!(count("Tasks?pageSize=1").await, 1000);
    assert!(count("Schedules?pageSize=1").await <= 2000);
}
