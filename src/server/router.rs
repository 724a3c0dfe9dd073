//! Routes a request: chooses its protocol, checks the size of the metadata and the client's
//! token, then calls the dispatcher or one of gRPC's own services.

use std::pin::Pin;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, Uri};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use crate::deadline::Deadline;
use crate::error::{self, Error};
use crate::memory::{CALL_BYTES, Memory, SHORT_BYTES};
use crate::server::admission::{add_accepted_encodings, is_compressed};
use crate::server::authn::{Caller, Refusal, SharedAccess};
use crate::server::charged_body::{ChargedBody, ChargedResponse};
use crate::server::connection_memory::ConnectionMemory;
use crate::server::dispatcher::Dispatcher;
use crate::server::message_format::{Encoding, MessageFormat};
use crate::server::protocol::{
    self, Browsers, Cors, OwnRequest, Protocol, Rejection, WebCall, own_response,
};
use crate::server::request_body_timeout::TimeoutBody;
use crate::server::request_message::MessageReader;
use crate::server::visibility::Visibility;
use crate::telemetry::RpcProtocol;

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

/// Serves the rpcs of the contract by the dispatcher, and those of [`OWN_METHODS`] by tonic's
/// routes.
#[derive(Clone, Debug)]
pub struct Router {
    dispatcher: Arc<Dispatcher>,
    access: SharedAccess,
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
        access: SharedAccess,
        routes: Routes,
        browsers: Browsers,
        max_metadata_bytes: u32,
    ) -> Self {
        Self {
            dispatcher,
            access,
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
        connection: &Arc<ConnectionMemory>,
    ) -> ResponseFuture {
        let chosen = protocol::check_head(&request)
            .and_then(|()| protocol::choose(&request, self.browsers.connect_get()));
        match chosen {
            Ok(Protocol::Grpc) => self.call(request, connection, Encoding::default(), None),
            Ok(protocol) => self.respond_web(protocol, request, connection),
            Err(rejection) => {
                let cors = self.browsers.cors(&request);
                self.not_a_call(rejection, request.method(), Some(&cors))
            }
        }
    }

    /// Serves one request of a browser, or of another client of gRPC-Web or Connect.
    fn respond_web(
        &self,
        protocol: Protocol,
        request: Request<Body>,
        connection: &Arc<ConnectionMemory>,
    ) -> ResponseFuture {
        let cors = self.browsers.cors(&request);
        if let Err(rejection) = self.browsers.check(protocol, &request) {
            return self.not_a_call(rejection, request.method(), Some(&cors));
        }
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
            Err(error) => self.reject(&request, call.rpc_protocol(), None, &error),
        };
        Box::pin(async move {
            let mut response = call.respond(response.await);
            cors.add(&mut response);
            response
        })
    }

    /// Rejects a request that is not a call.
    fn not_a_call(
        &self,
        rejection: Rejection,
        method: &http::Method,
        cors: Option<&Cors>,
    ) -> ResponseFuture {
        self.dispatcher.metrics.unsupported.inc();
        tracing::debug!(?rejection, "request rejected");
        let mut response = rejection.response(method);
        if let Some(cors) = cors {
            cors.add(&mut response);
        }
        self.ready(response)
    }

    /// Serves one call, whose messages are encoded in this way. `web` is set if its protocol is
    /// not gRPC.
    fn call(
        &self,
        request: Request<Body>,
        connection: &Arc<ConnectionMemory>,
        encoding: Encoding,
        web: Option<&WebCall>,
    ) -> ResponseFuture {
        let path = request.uri().path();
        let protocol = web.map_or(RpcProtocol::Grpc, WebCall::rpc_protocol);
        self.dispatcher.metrics.count_request(protocol);
        let size = metadata_size(request.headers());
        if size > self.max_metadata_bytes {
            let limit = self.max_metadata_bytes;
            let error = Error::MetadataTooLarge { size, limit };
            return self.reject(&request, protocol, None, &error);
        }
        match self.authenticate(path, request.headers(), connection) {
            Ok(caller) => self.call_as(caller, request, connection, encoding, web),
            Err(Refusal::UnknownKey(keys)) => {
                let (router, connection) = (self.clone(), connection.clone());
                let web = web.cloned();
                Box::pin(async move {
                    keys.refresh_on_demand().await;
                    let path = request.uri().path();
                    match router.authenticate(path, request.headers(), &connection) {
                        Ok(caller) => {
                            let web = web.as_ref();
                            (router.call_as(caller, request, &connection, encoding, web)).await
                        }
                        Err(refusal) => router.unauthenticated(&request, protocol, refusal).await,
                    }
                })
            }
            Err(refusal) => self.unauthenticated(&request, protocol, refusal),
        }
    }

    /// Returns the client of a request.
    fn authenticate(
        &self,
        path: &str,
        headers: &HeaderMap,
        connection: &ConnectionMemory,
    ) -> Result<Caller, Refusal> {
        match is_health(path) {
            // Load balancers have no token.
            true => Ok(Caller::from(connection.peer().clone())),
            false => self.access.load().authenticate(headers, connection.peer()),
        }
    }

    /// Rejects a request that is not authenticated.
    fn unauthenticated(
        &self,
        request: &Request<Body>,
        protocol: RpcProtocol,
        refusal: Refusal,
    ) -> ResponseFuture {
        self.dispatcher.metrics.unauthenticated.inc();
        let message = "request rejected: unauthenticated";
        let path = request.uri().path();
        // A path that is not in the contract could be any text: it is not logged.
        let operation = (self.dispatcher.method(path)).map_or("", |_| &path[1..]);
        let call = (operation, protocol, request.headers());
        let status = (self.dispatcher).reject(message, call, None, &refusal.into_error());
        self.ready(status.into_http())
    }

    /// Serves one call of this client; see [`Self::call`].
    fn call_as(
        &self,
        Caller {
            peer,
            by_bearer,
            policy,
        }: Caller,
        mut request: Request<Body>,
        connection: &ConnectionMemory,
        encoding: Encoding,
        web: Option<&WebCall>,
    ) -> ResponseFuture {
        let size = metadata_size(request.headers());
        let protocol = web.map_or(RpcProtocol::Grpc, WebCall::rpc_protocol);
        if by_bearer {
            // It is for the gateway: no upstream may receive it.
            request.headers_mut().remove(AUTHORIZATION);
        }
        let path = request.uri().path();
        let memory = connection.of(&peer);
        // A GET has its message in the query.
        let uri_bytes = request
            .uri()
            .path_and_query()
            .map_or(0, |p| p.as_str().len());
        let call_bytes = call_bytes(request.headers(), size + 2 * uri_bytes);
        let timeouts = self.dispatcher.request_timeouts;
        if let Some(method) = self.dispatcher.method(path) {
            if let Some(Err(rejection)) = web.map(|web| web.check_kind(&method.method)) {
                return self.not_a_call(rejection, request.method(), None);
            }
            let dispatcher = self.dispatcher.clone();
            let headers = request.headers();
            let admission = dispatcher.admission(headers, protocol, call_bytes, memory);
            let admission = admission.and_then(|mut admission| {
                let is_stream = method.method.is_stream();
                admission.slot = dispatcher.client_slot(&peer, is_stream)?;
                Ok(admission)
            });
            let admission = match admission {
                Ok(admission) => admission,
                Err(error) => return self.reject(&request, protocol, peer.identity(), &error),
            };
            let deadline = admission.deadline;
            let request = request.map(|body| TimeoutBody::new(body, deadline, timeouts));
            return Box::pin(async move {
                let client = (peer, policy);
                let response = dispatcher.serve(&method, request, client, (admission, encoding));
                dispatcher.mark_sandbox(response.await)
            });
        }
        let headers = request.headers();
        let not_served = (self.dispatcher).not_served(path, protocol, headers, peer.identity());
        if let Some(status) = not_served {
            return self.ready(status.into_http());
        }
        let Some(own) = own_method(path) else {
            let error = Error::UnknownMethod(self.unknown_method(path));
            return self.reject(&request, protocol, peer.identity(), &error);
        };
        if let Some(Err(rejection)) = web.map(|web| web.check_own_kind(own)) {
            return self.not_a_call(rejection, request.method(), None);
        }
        let slot = match is_health(path) {
            true => Ok(None),
            false => self.dispatcher.client_slot(&peer, false),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                return self.reject(&request, protocol, peer.identity(), &error);
            }
        };
        let reservation = match memory.reserve(call_bytes) {
            Ok(reservation) => reservation,
            Err(exhausted) => {
                return self.reject(&request, protocol, peer.identity(), &exhausted.into());
            }
        };
        let is_compressed = match is_compressed(request.headers()) {
            Ok(is_compressed) => is_compressed,
            Err(error) => return self.reject(&request, protocol, peer.identity(), &error),
        };
        let until = Deadline::after(timeouts.total);
        let request = request.map(|body| match encoding.is_bare {
            true => TimeoutBody::new(body, until, timeouts),
            false => TimeoutBody::of_requests(body, until, timeouts),
        });
        let mut request = request;
        if let Some(policy) = policy {
            let identity = peer.identity.clone();
            (request.extensions_mut()).insert(Visibility { identity, policy });
        }
        let (dispatcher, routes) = (self.dispatcher.clone(), self.routes.clone());
        Box::pin(async move {
            let _slot = slot;
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
    fn reject<B>(
        &self,
        request: &Request<B>,
        protocol: RpcProtocol,
        identity: Option<&str>,
        error: &Error,
    ) -> ResponseFuture {
        if !error.is_rejection() {
            self.dispatcher.metrics.unsupported.inc();
        }
        let path = request.uri().path();
        let operation = match self.dispatcher.method(path) {
            Some(_) => &path[1..],
            None => own_method(path).unwrap_or_default(),
        };
        let call = (operation, protocol, request.headers());
        let status = (self.dispatcher).reject("request rejected", call, identity, error);
        let mut response = status.into_http();
        add_accepted_encodings(error, &mut response);
        self.ready(response)
    }

    fn ready(&self, response: Response<Body>) -> ResponseFuture {
        let response = self.dispatcher.mark_sandbox(response);
        Box::pin(std::future::ready(response))
    }

    /// Explains a path that names no rpc.
    fn unknown_method(&self, path: &str) -> String {
        let contract = self.dispatcher.methods.keys().map(|path| &path[1..]);
        let server = ("this gateway", "reflection lists its services");
        error::unknown_rpc(server, path, contract.chain(OWN_METHODS))
    }
}

/// Returns whether the path is that of a health check, which is for all.
fn is_health(path: &str) -> bool {
    path.starts_with("/grpc.health.")
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

/// Returns the format of the messages of one of tonic's rpcs, if tonic does not read it itself: it
/// reads gRPC without compression.
async fn own_format(
    dispatcher: &Dispatcher,
    encoding: Encoding,
    is_compressed: bool,
    own: &str,
) -> Result<Option<(MessageFormat, bool)>, Error> {
    if encoding == Encoding::default() && !is_compressed {
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

/// Replaces the status with which tonic rejects a request message that is too long, or that it
/// cannot read.
fn own_status(response: Response<Body>, max_request_bytes: usize) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let error = match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            Error::request_not_received(&status, max_request_bytes)
        }
        // The services themselves do not fail with this code.
        Code::Internal => Error::RequestNotReceived {
            code: Code::InvalidArgument,
            problem: status.message().to_owned(),
        },
        _ => return response,
    };
    error.status(&error::StatusContext::default()).into_http()
}
