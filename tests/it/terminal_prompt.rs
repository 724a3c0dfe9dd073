//! `drawbridge watch` in a pseudo-terminal prompts for the response to the question of a task.

use serde_json::json;

use crate::command_call::sandbox;
use crate::support::Gateway;
use crate::terminal_view::Terminal;

const PROMPT: &str = "task 10001: respond with 1 to 2:";

/// The last row is the prompt, and nothing was typed.
fn is_asked(rows: &[String]) -> bool {
    rows.last().is_some_and(|row| row.trim_end() == PROMPT)
}

fn has(rows: &[String], what: &str) -> bool {
    rows.iter().any(|row| row.contains(what))
}

/// Submits the service whose task asks whether to go on.
const SUBMIT: &str = r#"{"id": 2005, "name": "disk", "properties": {"disk.sizeGB": 64}}"#;

async fn submit(gateway: &Gateway) {
    let request = serde_json::from_str(SUBMIT).unwrap();
    let submit = "AutomationService/SubmitService";
    gateway.client.call(submit, request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn question_is_asked_and_answered_on_a_terminal() {
    for args in [
        &["task", "10001"][..],
        &["TaskService/SubmitServiceAndWatch", SUBMIT],
    ] {
        let (_sandbox, gateway) = sandbox().await;
        if args[0] == "task" {
            submit(&gateway).await;
        }
        let mut view = Terminal::start(&gateway, args, 100, &[("NO_COLOR", "1")]);
        let rows = view.until(is_asked).await;
        assert!(has(&rows, "responses 1: Continue"), "{rows:#?}");
        assert!(has(&rows, "responses 2: Cancel"), "{rows:#?}");
        // The prompt is instead of a line to paste.
        assert!(!has(&rows, "drawbridge call"), "{rows:#?}");
        // Neither an empty line nor a mistake responds.
        view.type_line("");
        view.type_line("7");
        let rows = view
            .until(|rows| has(rows, "7 is no response") && is_asked(rows))
            .await;
        assert!(has(&rows, "drawbridge: 7 is no response"), "{rows:#?}");
        view.type_line("cancel");
        let (code, rows, _) = view.end().await;
        // The button Cancel fails the task of the sandbox.
        assert_eq!(code, Some(1), "{args:?}: {rows:#?}");
        assert!(!is_asked(&rows), "{rows:#?}");
    }
}

/// Another client responds: the prompt goes, and the watch continues.
#[tokio::test(flavor = "multi_thread")]
async fn question_that_another_client_answers_is_no_longer_asked() {
    let (_sandbox, gateway) = sandbox().await;
    submit(&gateway).await;
    let mut view = Terminal::start(&gateway, &["task", "10001"], 100, &[("NO_COLOR", "1")]);
    view.until(is_asked).await;
    let response = json!({"id": 10001, "labels": {"labelbutton1": "true"}});
    let respond = "TaskService/RespondTask";
    gateway.client.call(respond, response).await.unwrap();
    let (code, rows, raw) = view.end().await;
    assert_eq!(code, Some(0), "{rows:#?}");
    assert!(raw.contains("The response was Continue."), "{raw}");
    assert!(has(&rows, "task 10001 succeeded completed"), "{rows:#?}");
    assert!(!has(&rows, PROMPT), "{rows:#?}");
}
