//! JP1/AO through the gateway, against an upstream that responds as the manuals print, also
//! where they contradict each other. Numbers of quirks are those of docs/apis/jp1ao.md,
//! "Quirks".

mod actions;
mod errors;
mod requests;
mod resources;
mod watches;

use std::sync::{Arc, Mutex};

use drawbridge::upstream::Settings;
use serde_json::{Value, json};

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

/// A gateway and a JP1/AO whose responses change from case to case: starting them takes
/// longer than most cases.
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
        // Failures of one case must not open the circuit breaker for the next.
        settings.circuit_breaker_failures = 0;
        change(&mut settings);
        let gateway = Gateway::with(vec![settings]).await;
        Self {
            recorder,
            gateway,
            answer,
        }
    }

    /// Changes the responses and forgets the recorded requests.
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
    let line = |seen: &Seen| format!("{} {}", seen.method, seen.target);
    recorder.seen().iter().map(line).collect()
}

/// The document of a submission. The manual does not say whether the values are flat or
/// nested.
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
