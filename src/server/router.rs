//! The first look at a request: may this caller call, and who serves the path?

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service};

use crate::deadline::Deadline;
use crate::error::Error;
use crate::server::dispatcher::Engine;
use crate::server::protocol;
use crate::server::request_body_timeout::{Arriving, LONGEST};

/// Metadata in which callers bring a token of the gateway's own, where the
/// configuration asks for one.
pub const TOKEN: &str = "drawbridge-token";

/// Callers' tokens, as digests. Empty: no token is asked for.
#[derive(Clone, Debug, Default)]
pub struct CallerTokens(Arc<[[u8; 32]]>);

impl CallerTokens {
    /// Keeps digests of the tokens.
    pub fn new(tokens: &[SecretString]) -> Self {
        Self(
            tokens
                .iter()
                .map(|t| hash(t.expose_secret().as_bytes()))
                .collect(),
        )
    }

    fn admit(&self, headers: &http::HeaderMap) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let given = headers.get(TOKEN).map(|v| hash(v.as_bytes()));
        // Digests are compared: the time it takes tells nothing of a token.
        let known = given.is_some_and(|given| self.0.contains(&given));
        if known {
            return Ok(());
        }
        Err(Error::Credential {
            code: tonic::Code::Unauthenticated,
            problem: match given {
                Some(_) => format!("the gateway does not know this `{TOKEN}`"),
                None => {
                    format!("the gateway wants a token of its own: send it as metadata `{TOKEN}`")
                }
            },
        })
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Puts the engine before tonic's own services.
#[derive(Clone, Debug)]
pub struct FrontLayer {
    pub engine: Arc<Engine>,
    pub tokens: CallerTokens,
}

impl Layer<Routes> for FrontLayer {
    type Service = Front;

    fn layer(&self, routes: Routes) -> Front {
        Front {
            engine: self.engine.clone(),
            tokens: self.tokens.clone(),
            routes,
        }
    }
}

/// Serves rpcs of the contract with the engine and all else (health,
/// reflection, the gateway's own service) with tonic's routes.
#[derive(Clone, Debug)]
pub struct Front {
    engine: Arc<Engine>,
    tokens: CallerTokens,
    routes: Routes,
}

impl Service<Request<Body>> for Front {
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
            self.engine.metrics.refused.inc();
            tracing::debug!(?rejection, "request rejected");
            let response = self.engine.announce(rejection.response());
            return Box::pin(async move { Ok(response) });
        }
        let path = request.uri().path();
        // Health is asked by load balancers, which have no tokens.
        if !path.starts_with("/grpc.health.")
            && let Err(error) = self.tokens.admit(request.headers())
        {
            let status = self.engine.refuse(path, &error);
            let response = self.engine.announce(status.into_http());
            return Box::pin(async move { Ok(response) });
        }
        if let Some(served) = self.engine.served(path) {
            let engine = self.engine.clone();
            let deadline = engine.deadline(request.headers());
            let request = request.map(|body| Arriving::new(body, deadline));
            return Box::pin(async move {
                let response = engine.serve(&served, request, deadline).await;
                Ok(engine.announce(response))
            });
        }
        let until = Deadline::after(LONGEST);
        let request = request.map(|body| Body::new(Arriving::new(body, until)));
        let response = self.routes.call(request);
        let engine = self.engine.clone();
        Box::pin(async move {
            Ok(match response.await {
                Ok(response) => engine.announce(engine.departures.send(response)),
                Err(never) => match never {},
            })
        })
    }
}
