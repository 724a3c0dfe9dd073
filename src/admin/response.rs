//! Responses of the page, and which requests get them.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::middleware::{self, Next};
use serde::Serialize;
use serde_json::json;

use super::guard::{Guard, Rejection};

/// A check of the headers of a request.
type Check = fn(&Guard, &HeaderMap) -> Result<(), Rejection>;

/// Rejects the requests that do not pass a check.
pub(super) fn checked(routes: Router, guard: Guard, check: Check) -> Router {
    let layer = move |request: Request, next: Next| async move {
        match check(&guard, request.headers()) {
            Ok(()) => next.run(request).await,
            Err(rejection) => rejected(rejection),
        }
    };
    routes.route_layer(middleware::from_fn(layer))
}

/// Returns JSON that no cache keeps.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => respond(StatusCode::OK, "application/json", text),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, "application/json", "{}"),
    }
}

/// Returns the problem as JSON.
pub(super) fn problem(status: StatusCode, problem: &str) -> Response<Body> {
    let text = json!({ "error": problem }).to_string();
    respond(status, "application/json", text)
}

/// Returns the response to a request whose method the path does not have.
pub(super) async fn other_method() -> Response<Body> {
    let text = "calls are POST requests, all others GET";
    problem(StatusCode::METHOD_NOT_ALLOWED, text)
}

fn rejected(rejection: Rejection) -> Response<Body> {
    problem(rejection.status, rejection.problem)
}

/// Returns a response that no cache keeps.
pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let value = HeaderValue::from_static(content_type);
    headers.insert(header::CONTENT_TYPE, value);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
