//! Routes a request: checks the protocol and the client's token, then calls the dispatcher
//! or one of the services that tonic's `Routes` serve.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service};

use crate::deadline::Deadline;
use crate::server::authn::ClientTokens;
use crate::server::dispatcher::Dispatcher;
use crate::server::protocol;
use crate::server::request_body_timeout::TimeoutBody;

/// Wraps tonic's routes in a [`Router`].
#[derive(Clone, Debug)]
pub struct RouterLayer {
    pub dispatcher: Arc<Dispatcher>,
    pub tokens: ClientTokens,
}

impl Layer<Routes> for RouterLayer {
    type Service = Router;

    fn layer(&self, routes: Routes) -> Router {
        Router {
            dispatcher: self.dispatcher.clone(),
            tokens: self.tokens.clone(),
            routes,
        }
    }
}

/// Serves the rpcs of the contract by the dispatcher, and everything else (health,
/// reflection, `GatewayService`) by tonic's routes.
#[derive(Clone, Debug)]
pub struct Router {
    dispatcher: Arc<Dispatcher>,
    tokens: ClientTokens,
    routes: Routes,
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match Service::<Request<Body>>::poll_ready(&mut self.routes, cx) {
            Poll::Ready(_) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(rejection) = protocol::check(&request) {
            self.dispatcher.metrics.unsupported.inc();
            tracing::debug!(?rejection, "request rejected");
            let response = self.dispatcher.mark_sandbox(rejection.response());
            return Box::pin(async move { Ok(response) });
        }
        let timeouts = self.dispatcher.request_timeouts;
        let path = request.uri().path();
        // Health needs no token: load balancers have none.
        if !path.starts_with("/grpc.health.")
            && let Err(error) = self.tokens.authenticate(request.headers())
        {
            let status = self.dispatcher.reject(path, &error);
            let response = self.dispatcher.mark_sandbox(status.into_http());
            return Box::pin(async move { Ok(response) });
        }
        if let Some(method) = self.dispatcher.method(path) {
            let dispatcher = self.dispatcher.clone();
            let deadline = dispatcher.deadline(request.headers());
            let request = request.map(|body| TimeoutBody::new(body, deadline, timeouts));
            return Box::pin(async move {
                let response = dispatcher.serve(&method, request, deadline).await;
                Ok(dispatcher.mark_sandbox(response))
            });
        }
        if let Some(status) = self.dispatcher.not_served(path, request.headers()) {
            let response = self.dispatcher.mark_sandbox(status.into_http());
            return Box::pin(async move { Ok(response) });
        }
        let until = Deadline::after(timeouts.total);
        let request = request.map(|body| Body::new(TimeoutBody::new(body, until, timeouts)));
        let response = self.routes.call(request);
        let dispatcher = self.dispatcher.clone();
        Box::pin(async move {
            Ok(match response.await {
                Ok(response) => dispatcher.mark_sandbox(dispatcher.write_timeout.guard(response)),
                Err(never) => match never {},
            })
        })
    }
}
