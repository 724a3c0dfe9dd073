//! A proxy to an upstream that records the responses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use drawbridge::http_client::{HttpRequest, Transport};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::upstream;

/// A response: the status, and the body as JSON, null for none.
pub type Answered = (u16, Value);

/// Forwards everything unchanged; stops when dropped.
pub struct Tee {
    address: SocketAddr,
    answers: Arc<Mutex<Vec<Answered>>>,
    task: JoinHandle<()>,
}

impl Tee {
    /// Starts a proxy to the upstream at `url`.
    pub async fn before(url: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let transport = Transport::new(&upstream("t", "heat", url).transport).unwrap();
        let answers: Arc<Mutex<Vec<Answered>>> = Arc::default();
        let (url, log) = (url.to_owned(), answers.clone());
        let router = axum::Router::new().fallback(move |request: Request| {
            let (url, log, transport) = (url.clone(), log.clone(), transport.clone());
            async move { pass(request, &url, &transport, &log).await }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            answers,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the responses since the last `take`, without those to health probes.
    pub fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    request: Request,
    url: &str,
    transport: &Transport,
    log: &Mutex<Vec<Answered>>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    // Hop-by-hop headers. `host` is forwarded: it is signed.
    for name in [
        "connection",
        "content-length",
        "transfer-encoding",
        "accept-encoding",
    ] {
        parts.headers.remove(name);
    }
    // Health probes have no request id.
    let is_call = parts.headers.contains_key("x-request-id");
    let exchange = HttpRequest {
        verb: parts.method,
        url: format!("{url}{}", parts.uri).parse().unwrap(),
        headers: parts.headers,
        body: (!body.is_empty()).then_some(body),
        memory: Default::default(),
    };
    let reply = transport.exchange(exchange).await.unwrap();
    if is_call {
        let body = match reply.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&reply.body).unwrap(),
        };
        log.lock().unwrap().push((reply.status.as_u16(), body));
    }
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = reply.status;
    for (name, value) in &reply.headers {
        if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
