//! Routes a request: chooses its protocol, checks the size of the metadata and the client's
//! token, then calls the dispatcher or one of gRPC's own services.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, Uri};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::{self, Error, cut};
use crate::memory::{CALL_BYTES, Memory, SHORT_BYTES};
use crate::server::admission::{add_accepted_encodings, is_compressed};
use crate::server::authn::ClientTokens;
use crate::server::charged_body::{ChargedBody, ChargedResponse};
use crate::server::connection_memory::ConnectionMemory;
use crate::server::dispatcher::Dispatcher;
use crate::server::message_format::{Encoding, MessageFormat};
use crate::server::protocol::{
    self, Browsers, OwnRequest, Protocol, Rejection, WebCall, own_response,
};
use crate::server::request_body_timeout::TimeoutBody;
use crate::server::request_message::MessageReader;
use crate::server::stream_info::is_logged;
use crate::spelling::nearest;

/// The rpcs that [`Routes`] serve, without the leading slash.
const OWN_METHODS: [&str; 5] = [
    "drawbridge.v1.GatewayService/ListUpstreams",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    REFLECTION_ALPHA,
];

/// Both versions of reflection are the same on the wire: [`Routes`] serve v1.
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
const REFLECTION_PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// What an entry of the metadata counts in addition to its name and its value. Source: RFC 9113,
/// "SETTINGS_MAX_HEADER_LIST_SIZE".
const METADATA_ENTRY_BYTES: usize = 32;

/// What an entry needs in memory in addition to that: its place in the map.
const METADATA_ENTRY_MEMORY: usize = 96;

/// The longest part of a client's path that an error repeats, in bytes.
const MAX_QUOTED_BYTES: usize = 120;

/// Serves the rpcs of the contract by the dispatcher, and those of [`OWN_METHODS`] by tonic's
/// routes.
#[derive(Clone, Debug)]
pub struct Router {
    dispatcher: Arc<Dispatcher>,
    tokens: ClientTokens,
    routes: Routes,
    browsers: Browsers,
    max_metadata_bytes: usize,
}

/// The response to one request.
pub(super) type ResponseFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

impl Router {
    /// Routes to the dispatcher and to these routes.
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        tokens: ClientTokens,
        routes: Routes,
        browsers: Browsers,
        max_metadata_bytes: u32,
    ) -> Self {
        Self {
            dispatcher,
            tokens,
            routes,
            browsers,
            max_metadata_bytes: max_metadata_bytes as usize,
        }
    }

    /// Returns the dispatcher.
    #[cfg(test)]
    pub(super) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Serves one request of a connection.
    pub(super) fn respond(
        &self,
        request: Request<Body>,
        connection: &ConnectionMemory,
    ) -> ResponseFuture {
        match protocol::choose(&request, self.browsers.connect_get()) {
            Ok(Protocol::Grpc) => self.call(request, connection, Encoding::default(), None),
            Ok(protocol) => self.respond_web(protocol, request, connection),
            Err(rejection) => self.not_a_call(rejection, request.method()),
        }
    }

    /// Serves one request of a browser, or of another client of gRPC-Web or Connect.
    fn respond_web(
        &self,
        protocol: Protocol,
        request: Request<Body>,
        connection: &ConnectionMemory,
    ) -> ResponseFuture {
        let cors = match self.browsers.check(protocol, &request) {
            Ok(cors) => cors,
            Err(rejection) => return self.not_a_call(rejection, request.method()),
        };
        let protocol = match protocol {
            Protocol::Web(protocol) => protocol,
            Protocol::Grpc | Protocol::Preflight => {
                let mut response = self.browsers.preflight(request.headers());
                cors.add(&mut response);
                return self.ready(response);
            }
        };
        let (call, request, encoding) = WebCall::begin(protocol, request);
        let response = match encoding {
            Ok(encoding) => self.call(request, connection, encoding, Some(&call)),
            Err(error) => self.reject(request.uri().path(), request.headers(), &error),
        };
        Box::pin(async move {
            let mut response = call.respond(response.await);
            cors.add(&mut response);
            response
        })
    }

    /// Rejects a request that is not a call.
    fn not_a_call(&self, rejection: Rejection, method: &http::Method) -> ResponseFuture {
        self.dispatcher.metrics.unsupported.inc();
        tracing::debug!(?rejection, "request rejected");
        self.ready(rejection.response(method))
    }

    /// Serves one call, whose messages are encoded in this way. `web` is set if its protocol is
    /// not gRPC.
    fn call(
        &self,
        request: Request<Body>,
        connection: &ConnectionMemory,
        encoding: Encoding,
        web: Option<&WebCall>,
    ) -> ResponseFuture {
        let path = request.uri().path();
        let size = metadata_size(request.headers());
        if size > self.max_metadata_bytes {
            let limit = self.max_metadata_bytes;
            let error = Error::MetadataTooLarge { size, limit };
            return self.reject(path, request.headers(), &error);
        }
        // Health needs no token: load balancers have none.
        let peer = match path.starts_with("/grpc.health.") {
            true => Ok(connection.peer()),
            false => self
                .tokens
                .authenticate(request.headers(), connection.peer()),
        };
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                let status = self.dispatcher.reject(path, request.headers(), &error);
                return self.ready(status.into_http());
            }
        };
        let memory = connection.of(peer);
        let call_bytes = call_bytes(request.headers(), size);
        let timeouts = self.dispatcher.request_timeouts;
        if let Some(method) = self.dispatcher.method(path) {
            if let Some(Err(rejection)) = web.map(|web| web.check_kind(&method.method)) {
                return self.not_a_call(rejection, request.method());
            }
            let dispatcher = self.dispatcher.clone();
            let admission = match dispatcher.admission(request.headers(), call_bytes, memory) {
                Ok(admission) => admission,
                Err(error) => return self.reject(path, request.headers(), &error),
            };
            let deadline = admission.deadline;
            let request = request.map(|body| TimeoutBody::new(body, deadline, timeouts));
            return Box::pin(async move {
                let response = dispatcher.serve(&method, request, peer, (admission, encoding));
                dispatcher.mark_sandbox(response.await)
            });
        }
        if let Some(status) = self.dispatcher.not_served(path, request.headers()) {
            return self.ready(status.into_http());
        }
        let Some(own) = own_method(path) else {
            let error = Error::UnknownMethod(self.unknown_method(path));
            return self.reject(path, request.headers(), &error);
        };
        if let Some(Err(rejection)) = web.map(|web| web.check_own_kind(own)) {
            return self.not_a_call(rejection, request.method());
        }
        let reservation = match memory.reserve(call_bytes) {
            Ok(reservation) => reservation,
            Err(exhausted) => return self.reject(path, request.headers(), &exhausted.into()),
        };
        let is_compressed = match encoding == Encoding::default() {
            // Tonic reads it.
            true => Ok(false),
            false => is_compressed(request.headers()),
        };
        let is_compressed = match is_compressed {
            Ok(is_compressed) => is_compressed,
            Err(error) => return self.reject(path, request.headers(), &error),
        };
        let until = Deadline::after(timeouts.total);
        let request = request.map(|body| match encoding.is_bare {
            true => TimeoutBody::new(body, until, timeouts),
            false => TimeoutBody::of_requests(body, until, timeouts),
        });
        let (dispatcher, routes) = (self.dispatcher.clone(), self.routes.clone());
        Box::pin(async move {
            let response = match own_format(&dispatcher, encoding, is_compressed, own).await {
                Ok(format) => {
                    let own = (own, format, until);
                    serve_own(routes, &dispatcher, request, own, &memory).await
                }
                Err(error) => error.status(&error::StatusContext::default()).into_http(),
            };
            let response = response.map(|body| {
                Body::new(ChargedResponse {
                    body,
                    memory: memory.clone(),
                    reservation: Some(reservation),
                })
            });
            dispatcher.mark_sandbox(dispatcher.write_timeout.guard(response, memory))
        })
    }

    /// Rejects a request before an rpc is selected.
    fn reject(&self, path: &str, headers: &HeaderMap, error: &Error) -> ResponseFuture {
        self.dispatcher.metrics.unsupported.inc();
        let mut client = Downstream::from_metadata(headers);
        client.identify();
        let request_id = client.request_id.as_ref();
        let request_id = request_id.and_then(|id| id.to_str().ok());
        let operation = match self.dispatcher.method(path) {
            Some(_) => &path[1..],
            None => own_method(path).unwrap_or_default(),
        };
        let id = request_id.unwrap_or_default();
        self.dispatcher.record_rejection(operation, id, error);
        let (message, reason) = ("request rejected", error.log_text());
        if is_logged(message, error, false) {
            tracing::info!(operation, request_id, reason, "{message}");
        }
        let mut status = error.status(&error::StatusContext {
            operation,
            request_id: request_id.unwrap_or_default(),
            ..error::StatusContext::default()
        });
        if let Some(id) = client.request_id {
            status.metadata_mut().as_mut().insert("x-request-id", id);
        }
        let mut response = status.into_http();
        add_accepted_encodings(error, &mut response);
        self.ready(response)
    }

    fn ready(&self, response: Response<Body>) -> ResponseFuture {
        let response = self.dispatcher.mark_sandbox(response);
        Box::pin(std::future::ready(response))
    }

    /// Explains a path that names no rpc, with the most similar rpc or service.
    fn unknown_method(&self, path: &str) -> String {
        let quoted = |text: &str| cut(text, MAX_QUOTED_BYTES);
        let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.split_once('/')) else {
            return format!(
                "{} is not the path of an rpc: /package.Service/Method",
                quoted(path)
            );
        };
        let contract = self.dispatcher.methods.keys().map(|path| &path[1..]);
        let all: BTreeSet<(&str, &str)> = contract
            .chain(OWN_METHODS)
            .filter_map(|name| name.split_once('/'))
            .collect();
        let of_service = |wanted: &str| {
            let methods = all.iter().filter(move |(service, _)| *service == wanted);
            methods.map(|(_, method)| *method).collect::<Vec<_>>()
        };
        let methods = of_service(service);
        if !methods.is_empty() {
            let near = nearest(method, methods.into_iter());
            return format!("{service} has no rpc {}{near}", quoted(method));
        }
        let services: BTreeSet<&str> = all.iter().map(|(service, _)| *service).collect();
        // Without its package, or with another version of it.
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
        let same_name = services
            .iter()
            .copied()
            .filter(|known| last(known) == last(service));
        let same_name = nearest_or_only(service, same_name.collect());
        let near = same_name.unwrap_or_else(|| nearest(service, services.iter().copied()));
        format!(
            "this gateway does not serve {} (reflection lists its services){near}",
            quoted(service)
        )
    }
}

/// Returns the hint for the most similar of these services, if there are any.
fn nearest_or_only(service: &str, candidates: Vec<&str>) -> Option<String> {
    let first = *candidates.first()?;
    let near = nearest(service, candidates.into_iter());
    Some(match near.is_empty() {
        true => format!(", did you mean {first}?"),
        false => near,
    })
}

/// Returns the entry of [`OWN_METHODS`] at this path.
fn own_method(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix('/')?;
    OWN_METHODS.into_iter().find(|own| *own == name)
}

/// Returns the size of the metadata as HTTP/2 counts it.
fn metadata_size(headers: &HeaderMap) -> usize {
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + METADATA_ENTRY_BYTES
    };
    headers.iter().map(size).sum()
}

/// Returns what a call with metadata of this size counts for.
fn call_bytes(headers: &HeaderMap, metadata_bytes: usize) -> usize {
    let entries = headers.len() * METADATA_ENTRY_MEMORY;
    CALL_BYTES + (metadata_bytes + entries).saturating_sub(SHORT_BYTES)
}

/// Returns the format of the messages of one of tonic's rpcs, if tonic does not read it itself.
async fn own_format(
    dispatcher: &Dispatcher,
    encoding: Encoding,
    is_compressed: bool,
    own: &str,
) -> Result<Option<(MessageFormat, bool)>, Error> {
    if encoding == Encoding::default() {
        return Ok(None);
    }
    let json = match encoding.is_json {
        true => Some(dispatcher.client_json.rpc(&format!("/{own}")).await?),
        false => None,
    };
    let format = MessageFormat::new(encoding, json, is_compressed);
    Ok(Some((format, is_compressed)))
}

/// Serves one of tonic's rpcs. `format` is set, and whether the request is compressed, if its
/// messages are not those of gRPC.
async fn serve_own(
    mut routes: Routes,
    dispatcher: &Dispatcher,
    request: Request<TimeoutBody>,
    (own, format, until): (&'static str, Option<(MessageFormat, bool)>, Deadline),
    memory: &Memory,
) -> Response<Body> {
    let max_bytes = dispatcher.max_request_bytes;
    let mut request = request.map(|body| match &format {
        None => Body::new(ChargedBody::new(body, memory.clone(), max_bytes)),
        Some((format, is_compressed)) => {
            let reader = MessageReader::new(body, max_bytes, *is_compressed, memory.clone(), until);
            let reader = reader.in_format(format.is_bare, format.json.clone());
            Body::new(OwnRequest::new(reader))
        }
    });
    if format.is_some() {
        request.headers_mut().remove("grpc-encoding");
    }
    request.extensions_mut().insert(memory.clone());
    if own == REFLECTION_ALPHA {
        *request.uri_mut() = Uri::from(PathAndQuery::from_static(REFLECTION_PATH));
    }
    let response = match routes.call(request).await {
        Ok(response) => own_status(response, max_bytes),
        Err(never) => match never {},
    };
    match format {
        None => response,
        Some((format, _)) => own_response(response, format, memory.clone(), until).await,
    }
}

/// Replaces the status with which tonic rejects a request message that is too long.
fn own_status(response: Response<Body>, max_request_bytes: usize) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    if !matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) {
        return response;
    }
    let error = Error::request_not_received(&status, max_request_bytes);
    error.status(&error::StatusContext::default()).into_http()
}
