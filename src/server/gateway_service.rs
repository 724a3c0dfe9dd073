//! `drawbridge.v1.GatewayService`: lists the upstreams.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::drawbridge::v1::gateway_service_server::GatewayService;
use crate::api::drawbridge::v1::{
    ListUpstreamsRequest, ListUpstreamsResponse, Upstream, UpstreamState,
};
use crate::server::dispatcher::Dispatcher;
use crate::server::visibility::Visibility;
use crate::upstream::Health;

/// Serves the rpcs from the dispatcher's tables.
#[derive(Debug)]
pub struct Service(pub Arc<Dispatcher>);

#[tonic::async_trait]
impl GatewayService for Service {
    async fn list_upstreams(
        &self,
        request: Request<ListUpstreamsRequest>,
    ) -> Result<Response<ListUpstreamsResponse>, Status> {
        let family = &request.get_ref().family;
        let visibility = request.extensions().get::<Visibility>();
        let is_visible = |upstream: &str| {
            visibility.is_none_or(|visibility| self.0.may_use(visibility, upstream))
        };
        let mut upstreams: Vec<Upstream> = self
            .0
            .upstreams
            .all()
            .iter()
            .filter(|u| family.is_empty() || u.settings.family == *family)
            .filter(|u| is_visible(&u.settings.name))
            .map(|u| Upstream {
                name: u.settings.name.clone(),
                family: u.settings.family.clone(),
                dialect: u.settings.dialect.clone(),
                is_default: self.0.upstreams.is_default(u),
                endpoint: u
                    .settings
                    .endpoint
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                credentials: u.settings.auth.kind().to_owned(),
                state: match u.health() {
                    Health::Unknown => UpstreamState::Unspecified,
                    Health::Healthy => UpstreamState::Healthy,
                    Health::Unhealthy => UpstreamState::Unhealthy,
                }
                .into(),
            })
            .collect();
        upstreams.sort_by(|a, b| (&a.family, &a.name).cmp(&(&b.family, &b.name)));
        Ok(Response::new(ListUpstreamsResponse { upstreams }))
    }
}
