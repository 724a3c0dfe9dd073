//! A hand-written gateway for comparison: serde structs, conversions to prost messages, and
//! tonic handlers that call reqwest.

use std::collections::BTreeMap;

use crate::api::openstack::orchestration::v1 as pb;
use pb::software_deployment_service_server::SoftwareDeploymentService;
use prost_types::value::Kind;
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

/// The REST object.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Deployment {
    pub id: String,
    pub config_id: String,
    pub server_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_values: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_values: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_time: Option<String>,
}

/// `{"software_deployment": ...}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct One {
    pub software_deployment: Deployment,
}

/// `{"software_deployments": [...]}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Many {
    pub software_deployments: Vec<Deployment>,
}

#[derive(Serialize)]
struct Create {
    config_id: String,
    server_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_values: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<String>,
}

/// Converts arbitrary JSON to `google.protobuf.Value`.
pub fn to_value(value: serde_json::Value) -> prost_types::Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(b) => Kind::BoolValue(b),
        serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        serde_json::Value::String(s) => Kind::StringValue(s),
        serde_json::Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.into_iter().map(to_value).collect(),
        }),
        serde_json::Value::Object(members) => Kind::StructValue(prost_types::Struct {
            fields: members
                .into_iter()
                .map(|(k, v)| (k, to_value(v)))
                .collect::<BTreeMap<_, _>>(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Converts `google.protobuf.Value` to JSON.
pub fn from_value(value: prost_types::Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(b)) => b.into(),
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => (n as i64).into(),
        Some(Kind::NumberValue(n)) => n.into(),
        Some(Kind::StringValue(s)) => s.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(from_value).collect(),
        Some(Kind::StructValue(s)) => serde_json::Value::Object(
            s.fields
                .into_iter()
                .map(|(k, v)| (k, from_value(v)))
                .collect(),
        ),
    }
}

fn status_of(text: &str) -> pb::DeploymentStatus {
    match text {
        "IN_PROGRESS" => pb::DeploymentStatus::InProgress,
        "COMPLETE" => pb::DeploymentStatus::Complete,
        "FAILED" => pb::DeploymentStatus::Failed,
        _ => pb::DeploymentStatus::Unspecified,
    }
}

fn action_of(text: &str) -> pb::DeploymentAction {
    match text {
        "CREATE" => pb::DeploymentAction::Create,
        "UPDATE" => pb::DeploymentAction::Update,
        "DELETE" => pb::DeploymentAction::Delete,
        _ => pb::DeploymentAction::Unspecified,
    }
}

/// Converts the REST object to the message.
pub fn to_message(d: Deployment) -> pb::SoftwareDeployment {
    pb::SoftwareDeployment {
        id: d.id,
        config_id: d.config_id,
        server_id: d.server_id,
        input_values: d.input_values.map(to_value),
        output_values: d.output_values.map(to_value),
        action: d.action.as_deref().map_or(0, |a| action_of(a).into()),
        action_raw: d.action,
        status: d.status.as_deref().map_or(0, |s| status_of(s).into()),
        status_raw: d.status,
        status_reason: d.status_reason,
        creation_time: d.creation_time.and_then(|t| t.parse().ok()),
        updated_time: d.updated_time.and_then(|t| t.parse().ok()),
    }
}

/// The gateway, with one HTTP client and one endpoint.
pub struct Plain {
    client: reqwest::Client,
    base: String,
}

impl Plain {
    pub fn new(base: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            base: base.into(),
        }
    }

    fn url(&self, project: &str, rest: &str) -> String {
        let project = if project.is_empty() { "p1" } else { project };
        format!("{}/v1/{project}/software_deployments{rest}", self.base)
    }

    async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Status> {
        let response = request
            .header("accept", "application/json")
            .send()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        if !response.status().is_success() {
            return Err(Status::unknown(response.text().await.unwrap_or_default()));
        }
        let body = response
            .bytes()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        serde_json::from_slice(&body).map_err(|e| Status::internal(e.to_string()))
    }
}

#[tonic::async_trait]
impl SoftwareDeploymentService for Plain {
    async fn list_software_deployments(
        &self,
        request: Request<pb::ListSoftwareDeploymentsRequest>,
    ) -> Result<Response<pb::ListSoftwareDeploymentsResponse>, Status> {
        let r = request.into_inner();
        let many: Many = self
            .send(
                self.client
                    .get(self.url(&r.project_id, &format!("?server_id={}", r.server_id))),
            )
            .await?;
        Ok(Response::new(pb::ListSoftwareDeploymentsResponse {
            software_deployments: many
                .software_deployments
                .into_iter()
                .map(to_message)
                .collect(),
        }))
    }

    async fn create_software_deployment(
        &self,
        request: Request<pb::CreateSoftwareDeploymentRequest>,
    ) -> Result<Response<pb::CreateSoftwareDeploymentResponse>, Status> {
        let r = request.into_inner();
        let body = Create {
            input_values: r.input_values.map(from_value),
            action: (r.action != 0).then_some("CREATE"),
            status: (r.status != 0).then_some("IN_PROGRESS"),
            config_id: r.config_id,
            server_id: r.server_id,
            status_reason: r.status_reason,
        };
        let request = self
            .client
            .post(self.url(&r.project_id, ""))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).map_err(|e| Status::internal(e.to_string()))?);
        let one: One = self.send(request).await?;
        Ok(Response::new(pb::CreateSoftwareDeploymentResponse {
            software_deployment: Some(to_message(one.software_deployment)),
        }))
    }

    async fn get_software_deployment(
        &self,
        request: Request<pb::GetSoftwareDeploymentRequest>,
    ) -> Result<Response<pb::GetSoftwareDeploymentResponse>, Status> {
        let r = request.into_inner();
        let url = self.url(&r.project_id, &format!("/{}", r.deployment_id));
        let one: One = self.send(self.client.get(url)).await?;
        Ok(Response::new(pb::GetSoftwareDeploymentResponse {
            software_deployment: Some(to_message(one.software_deployment)),
        }))
    }

    async fn update_software_deployment(
        &self,
        _request: Request<pb::UpdateSoftwareDeploymentRequest>,
    ) -> Result<Response<pb::UpdateSoftwareDeploymentResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn delete_software_deployment(
        &self,
        _request: Request<pb::DeleteSoftwareDeploymentRequest>,
    ) -> Result<Response<pb::DeleteSoftwareDeploymentResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_server_deployment_metadata(
        &self,
        _request: Request<pb::ListServerDeploymentMetadataRequest>,
    ) -> Result<Response<pb::ListServerDeploymentMetadataResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type WatchSoftwareDeploymentStream =
        tokio_stream::Empty<Result<pb::WatchSoftwareDeploymentResponse, Status>>;

    async fn watch_software_deployment(
        &self,
        _request: Request<pb::WatchSoftwareDeploymentRequest>,
    ) -> Result<Response<Self::WatchSoftwareDeploymentStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type WatchSoftwareDeploymentsStream =
        tokio_stream::Empty<Result<pb::WatchSoftwareDeploymentsResponse, Status>>;

    async fn watch_software_deployments(
        &self,
        _request: Request<pb::WatchSoftwareDeploymentsRequest>,
    ) -> Result<Response<Self::WatchSoftwareDeploymentsStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
