//! Tests of JP1/AO's REST calls, without a socket and with paused time.

mod lists;
mod properties;
mod protocol;
mod services;
mod tasks;
mod templates;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::{JP1AO_PASSWORD, JP1AO_USERNAME, Settings, router};

/// A sandbox and a user.
struct TestClient {
    upstreams: Arc<Upstreams>,
    user: &'static str,
}

struct TestResponse {
    status: u16,
    headers: HeaderMap,
    bytes: Bytes,
    /// Null if the body is empty or not JSON.
    body: Value,
}

impl TestResponse {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns a member of every item of the list.
    fn all(&self, name: &str) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one[name].clone())
            .collect()
    }
}

fn test_settings() -> Settings {
    Settings {
        preload: false,
        ..Settings::default()
    }
}

impl TestClient {
    /// Tasks progress at two seconds a step; no task exists at the start.
    fn new() -> Self {
        Self::with(Jp1aoOptions::default())
    }

    fn with(options: Jp1aoOptions) -> Self {
        Self::of(Settings {
            jp1ao: options,
            ..test_settings()
        })
    }

    fn of(settings: Settings) -> Self {
        let upstreams = Upstreams::new("http://127.0.0.1:1".to_owned(), settings);
        Self {
            upstreams: Arc::new(upstreams),
            user: JP1AO_USERNAME,
        }
    }

    /// Returns the same sandbox with another user.
    fn by(&self, user: &'static str) -> Self {
        Self {
            upstreams: self.upstreams.clone(),
            user,
        }
    }

    fn basic(&self) -> String {
        format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{}:{JP1AO_PASSWORD}", self.user))
        )
    }

    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> TestResponse {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = router(self.upstreams.clone())
            .oneshot(request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        TestResponse {
            status: parts.status.as_u16(),
            headers: parts.headers,
            bytes,
            body,
        }
    }

    /// Calls `/Automation/v1/objects/...`, with a JSON body unless it is null.
    async fn send(&self, method: &str, path: &str, body: Value) -> TestResponse {
        let authorization = self.basic();
        let path = format!("/Automation/v1/objects/{path}");
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.raw(method, &path, &[("authorization", &authorization)], text)
            .await
    }

    async fn get(&self, path: &str) -> TestResponse {
        self.send("GET", path, Value::Null).await
    }

    /// Returns the body of a GET, which must succeed.
    async fn read(&self, path: &str) -> Value {
        let got = self.get(path).await;
        assert_eq!(got.status, 200, "{path}: {}", got.body);
        got.body
    }

    /// Fetches an action's document, edits it and posts it.
    async fn act(&self, path: &str, action: &str, edit: impl FnOnce(&mut Value)) -> TestResponse {
        let mut document = self.read(&format!("{path}/actions/{action}")).await;
        // Named after the action, not the document, as a client must do.
        document["name"] = action.into();
        edit(&mut document);
        self.send("POST", &format!("{path}/actions/{action}/invoke"), document)
            .await
    }

    /// Posts a document without arguments, without fetching it.
    async fn invoke(&self, path: &str, action: &str) -> TestResponse {
        let document = json!({"name": action, "href": "x", "method": "POST", "parameters": []});
        self.send("POST", &format!("{path}/actions/{action}/invoke"), document)
            .await
    }

    /// Submits a service. Returns the task's path.
    async fn submit(&self, service: u64, edit: impl FnOnce(&mut Value)) -> String {
        let got = self
            .act(&format!("Services/{service}"), "submit", edit)
            .await;
        assert!(matches!(got.status, 200 | 201), "{}", got.body);
        let affected = got.body["affectedResource"].as_array().unwrap();
        let task = affected
            .iter()
            .filter_map(|url| url.as_str()?.split_once("/objects/"));
        task.map(|(_, path)| path)
            .find(|path| path.starts_with("Tasks/"))
            .unwrap()
            .to_owned()
    }

    async fn status(&self, task: &str) -> Value {
        self.read(task).await["status"].clone()
    }
}

/// Advances the clock by a number of steps.
async fn steps(steps: u32) {
    tokio::time::advance(Duration::from_secs(2) * steps).await;
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
