//! The first decision about a request: whether it is gRPC, whether the client may
//! call, and what serves the path.

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

/// Puts the dispatcher before tonic's own services.
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

/// Serves rpcs of the contract with the dispatcher and all else (health,
/// reflection, the gateway's own service) with tonic's routes.
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
            let response = self.dispatcher.announce(rejection.response());
            return Box::pin(async move { Ok(response) });
        }
        let timeouts = self.dispatcher.request_timeouts;
        let path = request.uri().path();
        // Health is asked by load balancers, which have no tokens.
        if !path.starts_with("/grpc.health.")
            && let Err(error) = self.tokens.admit(request.headers())
        {
            let status = self.dispatcher.refuse(path, &error);
            let response = self.dispatcher.announce(status.into_http());
            return Box::pin(async move { Ok(response) });
        }
        if let Some(served) = self.dispatcher.served(path) {
            let dispatcher = self.dispatcher.clone();
            let deadline = dispatcher.deadline(request.headers());
            let request = request.map(|body| TimeoutBody::new(body, deadline, timeouts));
            return Box::pin(async move {
                let response = dispatcher.serve(&served, request, deadline).await;
                Ok(dispatcher.announce(response))
            });
        }
        let until = Deadline::after(timeouts.total);
        let request = request.map(|body| Body::new(TimeoutBody::new(body, until, timeouts)));
        let response = self.routes.call(request);
        let dispatcher = self.dispatcher.clone();
        Box::pin(async move {
            Ok(match response.await {
                Ok(response) => dispatcher.announce(dispatcher.write_timeout.guard(response)),
                Err(never) => match never {},
            })
        })
    }
}
