//! What the admin listener serves: `/metrics`, `/livez`, `/readyz`, and the `page` with the
//! `status` of the gateway and the `explorer` of its methods, for requests that `guard` admits.

mod explorer;
mod guard;
mod page;
mod response;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;

use crate::telemetry::Metrics;
pub use explorer::{Connection, Explorer};
pub use guard::{Guard, PAGE_HEADER, Rejection};
pub use page::{FILES, File, Page};
pub use status::{
    CallsByCode, FailedCallStatus, GatewayStatus, MAX_LISTED_WATCHES, Status, UpstreamStatus,
    WatchStatus, WatchesStatus, millis,
};

/// Whether the gateway accepts calls: from the start of serving until it drains.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Sets whether it does.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Returns whether it does.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Returns the routes of `/metrics`, `/livez` and `/readyz`, and those of the page.
pub fn routes(metrics: Metrics, readiness: Readiness, page: Option<Page>) -> Router {
    let page = page.map_or_else(Router::new, Page::routes);
    page.route(
        "/metrics",
        get(move || async move {
            match metrics.text() {
                Ok(text) => Ok((
                    [(
                        header::CONTENT_TYPE,
                        "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    )],
                    text,
                )),
                Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }),
    )
    .route("/livez", get(|| async { "ok\n" }))
    .route(
        "/readyz",
        get(move || async move {
            if readiness.get() {
                (StatusCode::OK, "ok\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
        }),
    )
}
