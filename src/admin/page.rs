//! The page of the admin listener: its files, and the JSON that they read. Everything is part
//! of the binary, and the browser may load and run nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::middleware;
use axum::routing::{any, get};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;

use super::explorer::Explorer;
use super::guard::Guard;
use super::response::{checked, json, other_method, problem, respond};
use super::status::Status;

/// What the browser may do: load the files of this listener, and fetch from it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The response to other paths below `/api`.
const UNKNOWN_API: &str = "there is /api/status, /api/services, /api/method and /api/call";

/// Headers of every response.
const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=()",
    ),
];

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its path.
    pub path: &'static str,
    content_type: &'static str,
    /// Its bytes.
    pub content: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($path:literal, $name:literal, $content_type:expr) => {
        File {
            path: $path,
            content_type: $content_type,
            content: include_str!(concat!("page/", $name)),
        }
    };
}

/// The files of the page.
pub const FILES: &[File] = &[
    file!("/", "index.html", "text/html; charset=utf-8"),
    file!("/page/page.css", "page.css", "text/css; charset=utf-8"),
    file!("/page/icon.svg", "icon.svg", "image/svg+xml"),
    file!("/page/theme.js", "theme.js", SCRIPT),
    file!("/page/main.js", "main.js", SCRIPT),
    file!("/page/dom.js", "dom.js", SCRIPT),
    file!("/page/status.js", "status.js", SCRIPT),
    file!("/page/explorer.js", "explorer.js", SCRIPT),
    file!("/page/form.js", "form.js", SCRIPT),
    file!("/page/call.js", "call.js", SCRIPT),
    file!("/page/copy.js", "copy.js", SCRIPT),
];

/// What the page shows and calls.
#[derive(Clone)]
pub struct Page {
    /// The address of the admin listener, as configured.
    pub address: SocketAddr,
    /// Reads the status.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Describes and calls methods.
    pub explorer: Arc<Explorer>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Page {
    /// Returns the routes of the page.
    pub(super) fn routes(self) -> Router {
        let guard = Guard::new(self.address);
        let mut files = Router::new();
        for file in FILES {
            let etag = etag(file.content);
            let serve = async move |headers: HeaderMap| serve(*file, etag.clone(), &headers);
            files = files.route(file.path, get(serve));
        }
        let status = self.status.clone();
        let unknown = async || problem(StatusCode::NOT_FOUND, UNKNOWN_API);
        let api = Router::new()
            .route(
                "/api/status",
                get(async move || json(&status())).fallback(other_method),
            )
            .route("/api/{*rest}", any(unknown));
        checked(files, guard, Guard::check_host)
            .merge(checked(api, guard, Guard::check_api))
            .merge(self.explorer.routes(guard))
            .layer(middleware::map_response(add_headers))
    }
}

/// Adds [`HEADERS`].
async fn add_headers(mut response: Response<Body>) -> Response<Body> {
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Serves a file. The browser keeps it, and asks each time whether it has changed: the gateway
/// may be another version.
fn serve(file: File, etag: HeaderValue, request: &HeaderMap) -> Response<Body> {
    let known = request.get_all(header::IF_NONE_MATCH).iter();
    let is_known = known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/").as_bytes() == etag.as_bytes());
    let mut response = match is_known {
        true => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false => respond(StatusCode::OK, file.content_type, file.content),
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Returns the entity tag of a file.
fn etag(content: &str) -> HeaderValue {
    let digest = digest::digest(&digest::SHA256, content.as_bytes());
    let text = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12]);
    HeaderValue::from_str(&format!("\"{text}\"")).unwrap_or(HeaderValue::from_static("\"page\""))
}
