use super::*;
use serde_json::json;

fn apply(view: &mut View, source: Source, message: Value) -> Vec<String> {
    let lines = view.apply(source, &message);
    let lines = lines.iter().map(|l| {
        let mark = format!("{:?}", l.mark);
        [&l.time, &mark, &l.subject, &l.state, &l.reason]
            .map(String::as_str)
            .join("|")
    });
    lines.collect()
}

const STATE: Source = Source::State;

#[test]
fn stack_has_a_line_per_change() {
    let mut view = View::new("stack web", None, false);
    let at = "2026-11-21T12:00:01Z";
    let of = |kind: &str, state: &str, progress: Value, outcome: &str| {
        json!({"event": {"type": kind, "observed_at": at, "outcome": outcome},
            "stack": {"stack_status": state, "stack_status_reason": "because"},
            "progress": progress})
    };
    let initial = of(
        "INITIAL",
        "CREATE_IN_PROGRESS",
        json!({"INIT_COMPLETE": 3, "CREATE_COMPLETE": 1}),
        "",
    );
    assert_eq!(
        apply(&mut view, STATE, initial.clone()),
        ["2026-11-21T12:00:01Z|Progress|stack web|CREATE_IN_PROGRESS|because"]
    );
    assert_eq!(view.status().parts, Some((1, 4)));
    // A resumed stream begins with the state that is already known.
    assert!(apply(&mut view, STATE, initial).is_empty());
    let event = json!({"event": {"type": "ADDED"}, "stack_event": {
        "event_time": "2026-11-21T12:00:07Z", "resource_name": "db\u{1b}[2J",
        "resource_status": "CREATE_FAILED", "resource_status_reason": "no room"}});
    assert_eq!(
        apply(&mut view, Source::Events, event),
        ["2026-11-21T12:00:07Z|Failure|db\u{fffd}[2J|CREATE_FAILED|no room"]
    );
    let failed = of(
        "MODIFIED",
        "CREATE_FAILED",
        json!({"CREATE_COMPLETE": 3, "CREATE_FAILED": 1}),
        "",
    );
    assert_eq!(
        apply(&mut view, STATE, failed),
        ["2026-11-21T12:00:01Z|Failure|stack web|CREATE_FAILED|because"]
    );
    assert_eq!(view.outcome(), None, "a rollback may follow");
    let rolled_back = of("MODIFIED", "ROLLBACK_COMPLETE", json!({}), "FAILED");
    assert!(apply(&mut view, STATE, rolled_back).is_empty());
    assert_eq!(view.outcome(), Some(false));
    let bookmark = json!({"event": {"type": "BOOKMARK", "unconfirmed_since": at}});
    assert!(apply(&mut view, STATE, bookmark).is_empty());
    assert_eq!(view.outcome(), Some(false));
    assert_eq!(
        view.status().unconfirmed.as_deref(),
        Some("2026-11-21T12:00:01Z")
    );
}

fn own_event(state: &str, time: &str, reason: &str) -> Value {
    json!({"event": {"type": "ADDED"}, "stack_event": {
        "event_time": time, "resource_name": "web", "physical_resource_id": "S",
        "resource_status": state, "resource_status_reason": reason}})
}

fn stack_state(kind: &str, state: &str, outcome: &str) -> Value {
    json!({"event": {"type": kind, "observed_at": "2026-11-21T12:00:09Z", "outcome": outcome},
        "stack": {"id": "S", "stack_status": state, "stack_status_reason": "from the state"}})
}

const EVENTS: Source = Source::Events;

#[test]
fn final_state_is_one_line_after_late_events() {
    let mut view = View::new("stack web", None, true);
    let initial = stack_state("INITIAL", "CREATE_IN_PROGRESS", "");
    assert!(apply(&mut view, STATE, initial).is_empty());
    assert_eq!(view.status().state, "CREATE_IN_PROGRESS");
    // The state is final before its events are read.
    let end = stack_state("MODIFIED", "ROLLBACK_COMPLETE", "FAILED");
    assert!(apply(&mut view, STATE, end).is_empty());
    let events = [
        ("CREATE_IN_PROGRESS", "2026-11-21T12:00:01.25Z", "started"),
        ("CREATE_FAILED", "2026-11-21T12:00:03Z", "None"),
        ("ROLLBACK_IN_PROGRESS", "2026-11-21T12:00:03+00:00", "back"),
        ("ROLLBACK_COMPLETE", "2026-11-21T12:01:08", "state changed"),
    ];
    let lines = events.map(|(state, time, reason)| {
        apply(&mut view, EVENTS, own_event(state, time, reason)).remove(0)
    });
    let want = [
        "2026-11-21T12:00:01Z|Progress|stack web|CREATE_IN_PROGRESS|started",
        "2026-11-21T12:00:03Z|Failure|stack web|CREATE_FAILED|",
        "2026-11-21T12:00:03+00:00|Progress|stack web|ROLLBACK_IN_PROGRESS|back",
        "2026-11-21T12:01:08Z|Failure|stack web|ROLLBACK_COMPLETE|",
    ];
    assert_eq!(lines, want);
    assert_eq!(view.end(), None, "an event has shown it");
    let summary = view.summary("failed", "5s").unwrap();
    assert_eq!(summary.reason, "ROLLBACK_COMPLETE (watched for 5s)");
    assert_eq!(summary.mark, Mark::Failure);
}

#[test]
fn final_state_without_an_event_is_the_last_line() {
    let mut view = View::new("stack web", None, true);
    apply(
        &mut view,
        STATE,
        stack_state("INITIAL", "CREATE_IN_PROGRESS", ""),
    );
    let event = own_event("CREATE_IN_PROGRESS", "2026-11-21T12:00:01Z", "");
    assert_eq!(apply(&mut view, EVENTS, event).len(), 1);
    apply(
        &mut view,
        STATE,
        stack_state("MODIFIED", "CREATE_COMPLETE", "SUCCEEDED"),
    );
    let end = view.end().unwrap();
    assert_eq!((&*end.state, end.mark), ("CREATE_COMPLETE", Mark::Success));
    assert_eq!(end.reason, "from the state");
    assert_eq!(view.end(), None);
}

#[test]
fn states_are_shown_once_events_have_failed() {
    let mut view = View::new("stack web", None, true);
    apply(
        &mut view,
        STATE,
        stack_state("INITIAL", "CREATE_IN_PROGRESS", ""),
    );
    let line = view.events_failed().unwrap();
    assert_eq!(line.state, "CREATE_IN_PROGRESS");
    let next = stack_state("MODIFIED", "CREATE_FAILED", "");
    assert_eq!(apply(&mut view, STATE, next).len(), 1);
    assert_eq!(view.end(), None);
}

#[test]
fn resource_of_the_name_of_the_stack_is_not_the_stack() {
    let mut view = View::new("stack web", None, true);
    apply(
        &mut view,
        STATE,
        stack_state("INITIAL", "CREATE_IN_PROGRESS", ""),
    );
    let mut event = own_event("CREATE_COMPLETE", "2026-11-21T12:00:01Z", "");
    event["stack_event"]["physical_resource_id"] = json!("another");
    let line = view.apply(EVENTS, &event).remove(0);
    assert_eq!(line.subject, "web");
    let mut event = own_event("CREATE_COMPLETE", "2026-11-21T12:00:01Z", "");
    event["stack_event"]["physical_resource_id"] = Value::Null;
    assert_eq!(view.apply(EVENTS, &event)[0].subject, "web");
}

#[test]
fn elapsed_time_is_that_between_reported_times() {
    let mut view = View::new("stack web", None, true);
    let mut elapsed = |name: &str, state: &str, time: &str| {
        let event = json!({"stack_event": {"resource_name": name, "event_time": time,
            "resource_status": state}});
        let line = view.apply(EVENTS, &event).remove(0);
        line.elapsed.map(|elapsed| elapsed.as_secs())
    };
    assert_eq!(
        elapsed("db", "CREATE_IN_PROGRESS", "2026-11-21T23:59:50Z"),
        None
    );
    assert_eq!(
        elapsed("net", "CREATE_COMPLETE", "2026-11-21T23:59:55Z"),
        None
    );
    assert_eq!(
        elapsed("db", "CREATE_COMPLETE", "2026-11-22T00:01:00Z"),
        Some(70)
    );
    // Each action anew; a clock that went back says nothing.
    assert_eq!(
        elapsed("db", "UPDATE_IN_PROGRESS", "2026-11-22T00:02:00Z"),
        None
    );
    assert_eq!(elapsed("db", "UPDATE_FAILED", "2026-11-22T00:01:00Z"), None);

    // Of a step the times that the upstream reports, not those of the polls.
    let at = |second: u32| format!("2026-11-21T21:00:{second:02}.5+09:00");
    for (step, want) in [
        (json!({"startTime": at(1), "endTime": at(22)}), Some(21)),
        (json!({"startTime": at(22), "endTime": at(1)}), None),
        (json!({"endTime": at(22)}), None),
        (json!({"startTime": at(1)}), None),
        (json!({"startTime": null, "endTime": "soon"}), None),
        (json!({}), None),
    ] {
        let mut view = View::new("task 7", None, false);
        let mut apply = |status: &str, second: u32, times: &Value| {
            let mut step = json!({"name": "one", "status": status});
            let members = times.as_object().unwrap().clone();
            step.as_object_mut().unwrap().extend(members);
            let message = json!({"steps": [step],
                "event": {"type": "MODIFIED", "observed_at": format!("2026-11-21T12:00:{second:02}Z")}});
            view.apply(STATE, &message)[0]
                .elapsed
                .map(|elapsed| elapsed.as_secs())
        };
        assert_eq!(apply("inProgress", 5, &step), None, "{step}");
        assert_eq!(apply("completed", 30, &step), want, "{step}");
    }
}

#[test]
fn summary_counts_and_names_failures() {
    let mut view = View::new("stack web", None, true);
    assert_eq!(view.summary("timed out", "5s"), None);
    let state = json!({"event": {"type": "INITIAL"}, "progress": {"CREATE_COMPLETE": 3,
        "CREATE_FAILED": 2}, "stack": {"stack_status": "CREATE_IN_PROGRESS"}});
    view.apply(STATE, &state);
    let mut event = |name: &str, state: &str| {
        let event = json!({"stack_event": {"resource_name": name, "resource_status": state}});
        view.apply(EVENTS, &event);
    };
    event("retried", "CREATE_FAILED");
    event("db", "CREATE_FAILED");
    event("net", "CREATE_FAILED");
    event("retried", "CREATE_COMPLETE");
    let summary = view.summary("timed out", "1m05s").unwrap();
    assert_eq!(
        (&*summary.subject, &*summary.state),
        ("stack web", "timed out")
    );
    assert_eq!(
        summary.reason,
        "CREATE_IN_PROGRESS, 3 of 5 complete, failed: net and 1 more (watched for 1m05s)"
    );
    assert_eq!(summary.mark, Mark::Progress);
}

#[test]
fn times_have_their_zone() {
    for (text, want) in [
        ("2026-11-21T12:00:01Z", "2026-11-21T12:00:01Z"),
        ("2026-11-21T12:00:01.123456789Z", "2026-11-21T12:00:01Z"),
        ("2026-11-21T12:00:01.5+09:00", "2026-11-21T12:00:01+09:00"),
        ("2026-11-21T12:00:01", "2026-11-21T12:00:01Z"),
        ("2026-11-21T12:00:01.5", "2026-11-21T12:00:01Z"),
        ("12:00", ""),
        ("", ""),
    ] {
        assert_eq!(time(Some(&Value::from(text))), want);
    }
    assert_eq!(time(None), "");
}

#[test]
fn jobs_and_tasks_have_a_line_per_step() {
    let mut view = View::new("job J", None, false);
    let of = |one: &str, two: &str, job: &str| {
        json!({"event": {"type": "MODIFIED"}, "snapshot": {"job": {"execution_status": job},
            "tasks": [{"task_name": "pull", "task_status": one},
                {"task_status": two, "messages": "m"}]}})
    };
    assert_eq!(
        apply(&mut view, STATE, of("SUCCEEDED", "RUNNING", "RUNNING")),
        [
            "|Success|pull|SUCCEEDED|",
            "|Progress|step 2|RUNNING|m",
            "|Progress|job J|RUNNING|"
        ]
    );
    assert_eq!(view.status().parts, Some((1, 2)));
    assert_eq!(
        apply(&mut view, STATE, of("SUCCEEDED", "FAILED", "FAILED")),
        ["|Failure|step 2|FAILED|m", "|Failure|job J|FAILED|"]
    );
    let line = json!({"event": {}, "line": {"text": "a\tb"}, "next_offset": 4});
    assert_eq!(apply(&mut view, Source::Log, line), ["|Info|||a b"]);
    let gap = json!({"event": {"type": "GAP"}, "next_offset": 5});
    let lines = apply(&mut view, Source::Log, gap);
    assert!(lines[0].contains("lines are missing"), "{lines:?}");
}

#[test]
fn question_of_a_task_is_shown_once() {
    let mut view = View::new("task 7", None, false);
    let of = |kind: &str, status: &str, parameters: Value| {
        let respond_action = match parameters {
            Value::Null => json!({}),
            parameters => json!({"name": "response", "parameters": parameters}),
        };
        json!({"event": {"type": kind}, "task": {"instanceID": 7, "status": status},
            "respondAction": respond_action})
    };
    let question = json!([[{"instanceId": 1, "taskId": 7, "labelbutton1": "Go\u{1b}[2J",
        "labelbutton2": "Stop"}]]);
    let asking = of("MODIFIED", "waitingForInput", question);
    // A terminal asks for the number.
    let questions = [
        "|Progress|responses||1: Go\u{fffd}[2J",
        "|Progress|responses||2: Stop",
    ];
    let lines = apply(&mut view, STATE, asking.clone());
    assert_eq!(lines[0], "|Progress|task 7|waitingForInput|");
    assert_eq!(lines[1..], questions);
    let labels = [("labelbutton1", "Go\u{fffd}[2J"), ("labelbutton2", "Stop")];
    let question = view.question().unwrap();
    assert_eq!(question.task, 7);
    assert_eq!(
        question.responses,
        labels.map(|(label, text)| (label.into(), text.into()))
    );
    assert!(apply(&mut view, STATE, asking.clone()).is_empty());
    let bookmark = json!({"event": {"type": "BOOKMARK"}});
    assert!(apply(&mut view, STATE, bookmark).is_empty());
    assert!(apply(&mut view, STATE, asking.clone()).is_empty());
    // The task gets a response, and waits for the next.
    let continued = of("MODIFIED", "inProgress", Value::Null);
    assert_eq!(
        apply(&mut view, STATE, continued),
        ["|Progress|task 7|inProgress|"]
    );
    assert_eq!(view.question(), None);
    assert_eq!(apply(&mut view, STATE, asking).len(), 3);
    // The task is archived. Its final state is the last line.
    let archived = json!({"event": {"type": "DELETED", "outcome": "FAILED"},
        "history": {"status": "failed"}});
    assert!(apply(&mut view, STATE, archived).is_empty());
    let end = view.end().unwrap();
    assert_eq!((&*end.subject, &*end.state), ("task 7", "failed"));
    assert_eq!(end.mark, Mark::Failure);
    assert_eq!(view.outcome(), Some(false));
}

#[test]
fn progress_counts_resources_of_the_current_action() {
    for (state, counts, want) in [
        (
            "CREATE_IN_PROGRESS",
            json!({"INIT_COMPLETE": 2, "CREATE_COMPLETE": 1}),
            Some((1, 3)),
        ),
        (
            "UPDATE_IN_PROGRESS",
            json!({"CREATE_COMPLETE": 2, "UPDATE_IN_PROGRESS": 1}),
            Some((2, 3)),
        ),
        (
            "DELETE_IN_PROGRESS",
            json!({"CREATE_COMPLETE": 2, "DELETE_COMPLETE": 1}),
            Some((1, 3)),
        ),
        (
            "SUSPEND_IN_PROGRESS",
            json!({"CREATE_COMPLETE": 2, "SUSPEND_COMPLETE": 2}),
            Some((2, 4)),
        ),
        ("CREATE_COMPLETE", json!({}), None),
    ] {
        assert_eq!(
            progress(counts.as_object().unwrap(), state),
            want,
            "{state} {counts}"
        );
    }
}

#[test]
fn outputs_are_sanitized_and_truncated() {
    let mut view = View::new("deployment d", None, false);
    let message = json!({"event": {"type": "MODIFIED", "outcome": "SUCCEEDED"},
        "software_deployment": {"status": "COMPLETE",
            "output_values": {"deploy_status_code": 0, "deploy_stdout": "one\ntwo\u{1b}\r\n",
                "nothing": null, "long": "x".repeat(300)}}});
    assert!(apply(&mut view, STATE, message).is_empty());
    assert_eq!(view.end().unwrap().mark, Mark::Success);
    let lines = view.output_lines(true);
    assert_eq!(
        (lines.len(), &*lines[0].subject, &*lines[0].reason),
        (3, "output deploy_status_code", "0")
    );
    assert_eq!(lines[1].reason, "one two\u{fffd}");
    assert_eq!(lines[2].reason.len(), 203);
}

#[test]
fn list_has_a_line_per_change_of_an_item() {
    let mut view = View::new("WatchDeployments", None, false);
    let of = |kind: &str, outcome: &str, key: &str, state: &str| {
        json!({"event": {"type": kind, "outcome": outcome, "observed_at": "2026-11-21T12:00:01Z"},
            "watched": {"key": key, "state": state, "has_outcome": true}})
    };
    let at = "2026-11-21T12:00:01Z";
    for (message, want, status) in [
        (
            of("INITIAL", "", "d1", "IN_PROGRESS"),
            Some(format!("{at}|Progress|d1|IN_PROGRESS|")),
            "1 item",
        ),
        (of("BOOKMARK", "", "", ""), None, "1 item"),
        (
            of("ADDED", "FAILED", "d2", "FAILED"),
            Some(format!("{at}|Failure|d2|FAILED|")),
            "2 items",
        ),
        (
            of("MODIFIED", "", "d1", ""),
            Some(format!("{at}|Info|d1|MODIFIED|")),
            "2 items",
        ),
        (
            of("DELETED", "", "d1", "COMPLETE"),
            Some(format!("{at}|Info|d1|DELETED|")),
            "1 item",
        ),
    ] {
        let lines = apply(&mut view, Source::Items, message);
        assert_eq!(lines, want.into_iter().collect::<Vec<_>>());
        assert_eq!(view.status().state, status);
    }
}

#[test]
fn start_of_a_watch_is_shown_with_its_response() {
    let mut view = View::new("Submit 7", None, false);
    let event = json!({"type": "STARTED", "outcome": "", "observed_at": "2026-11-21T12:00:01Z"});
    let message = json!({"event": event, "started": {"jobId": "J"}});
    let lines = apply(&mut view, STATE, message);
    let want = r#"2026-11-21T12:00:01Z|Progress|Submit 7|STARTED|{"jobId":"J"}"#;
    assert_eq!(lines, [want]);
    assert_eq!(view.outcome(), None);
}

/// A watch without an annotated state shows what changes, and its state where a field is called so.
#[test]
fn change_of_a_resource_or_an_item_is_shown() {
    let of = |kind: &str, key: &str, state: &str, fields: Value| {
        json!({"event": {"type": kind}, "watched": {"key": key, "state": state,
            "has_outcome": false, "item": fields}})
    };
    for (source, key, subject) in [
        (Source::State, "", "WatchService 7"),
        (Source::Items, "web", "web"),
    ] {
        let mut view = View::new("WatchService 7", None, false);
        for (kind, state, fields, want) in [
            (
                "INITIAL",
                "CREATE_IN_PROGRESS",
                json!({"version": "1", "tags": ["a"]}),
                Some("Progress|{}|CREATE_IN_PROGRESS|"),
            ),
            ("BOOKMARK", "", json!(null), None),
            (
                "MODIFIED",
                "CREATE_COMPLETE",
                json!({"version": "2", "tags": ["a"]}),
                Some("Success|{}|CREATE_COMPLETE|"),
            ),
            (
                "MODIFIED",
                "CREATE_COMPLETE",
                json!({"version": "3\n", "name": "n"}),
                Some("Success|{}|CREATE_COMPLETE|version: \"3\\n\", name: \"n\", tags: none"),
            ),
            (
                "MODIFIED",
                "",
                json!({"version": "3\n"}),
                Some("Info|{}|MODIFIED|name: none"),
            ),
            ("DELETED", "", json!({}), Some("Info|{}|DELETED|")),
        ] {
            let key = if kind == "BOOKMARK" { "" } else { key };
            let lines = apply(&mut view, source, of(kind, key, state, fields));
            let want = want.map(|want| format!("|{}", want.replace("{}", subject)));
            assert_eq!(
                lines,
                want.into_iter().collect::<Vec<_>>(),
                "{kind} {state}"
            );
        }
    }
    // An own API whose resource has parts with states.
    let mut view = View::new("WatchRollout r", None, false);
    let message = json!({"event": {"type": "INITIAL"}, "watched": {"state": "busy",
        "has_outcome": true, "parts": [{"name": "web01", "status": "succeeded"},
            {"name": "web02", "status": "busy"}]}});
    let want = [
        "|Success|web01|succeeded|",
        "|Progress|web02|busy|",
        "|Progress|WatchRollout r|busy|",
    ];
    assert_eq!(apply(&mut view, STATE, message), want);
    assert_eq!(view.status().parts, Some((1, 2)));
}
