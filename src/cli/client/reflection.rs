//! Reads the services and types of a gateway by server reflection.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::exit_code;
use super::failure::Failure;
use super::gateway::Gateway;

/// Limit of all files of a gateway, in bytes.
const MAX_FILES_BYTES: usize = 64 << 20;

/// What the gateway serves.
#[derive(Debug)]
pub(in crate::cli) struct Api {
    pool: DescriptorPool,
    /// The names of the services, sorted.
    services: Vec<String>,
}

/// What is read of a file to find its dependencies.
#[derive(Clone, PartialEq, prost::Message)]
struct FileHead {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, repeated, tag = "3")]
    dependencies: Vec<String>,
}

/// A descriptor set whose files stay encoded, with their options.
#[derive(Clone, PartialEq, prost::Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

impl Api {
    /// Reads the services that an rpc of this name can belong to; with none all services.
    pub(in crate::cli) async fn load(
        gateway: &Gateway,
        rpc: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut stream = Reflection::open(gateway).await?;
        let mut services = stream.services().await?;
        services.sort();
        let wanted: Vec<&String> = match rpc.and_then(|rpc| rpc.split_once('/')) {
            Some((service, _)) => {
                let end = format!(".{service}");
                let named = |name: &&String| **name == service || name.ends_with(&end);
                services.iter().filter(named).collect()
            }
            None => Vec::new(),
        };
        let wanted = match wanted.is_empty() {
            true => services.iter().collect(),
            false => wanted,
        };
        for service in wanted {
            stream.read_service(service).await?;
        }
        stream.read_dependencies().await?;
        let pool = stream.pool()?;
        let services = services
            .into_iter()
            .filter(|name| pool.get_service_by_name(name).is_some())
            .collect();
        Ok(Self { pool, services })
    }

    pub(in crate::cli) fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// Returns the services, sorted by name.
    pub(in crate::cli) fn services(&self) -> impl Iterator<Item = ServiceDescriptor> + '_ {
        let names = self.services.iter();
        names.filter_map(|name| self.pool.get_service_by_name(name))
    }

    /// Returns the rpcs, sorted by service.
    pub(in crate::cli) fn methods(&self) -> Vec<MethodDescriptor> {
        let services = self.services();
        services
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect()
    }
}

/// A stream of server reflection: one response per request.
struct Reflection<'g> {
    gateway: &'g Gateway,
    requests: mpsc::Sender<ServerReflectionRequest>,
    responses: Streaming<ServerReflectionResponse>,
    /// Encoded files with their dependencies, by name.
    files: BTreeMap<String, (Bytes, Vec<String>)>,
    bytes: usize,
}

impl<'g> Reflection<'g> {
    async fn open(gateway: &'g Gateway) -> Result<Self, Failure> {
        let (requests, receiver) = mpsc::channel(1);
        let mut client = ServerReflectionClient::new(gateway.channel())
            .max_decoding_message_size(MAX_FILES_BYTES);
        let request = gateway.request(ReceiverStream::new(receiver));
        match client.server_reflection_info(request).await {
            Ok(response) => Ok(Self {
                gateway,
                requests,
                responses: response.into_inner(),
                files: BTreeMap::new(),
                bytes: 0,
            }),
            Err(status) => Err(failure(gateway, &status).await),
        }
    }

    async fn ask(&mut self, request: MessageRequest) -> Result<MessageResponse, Failure> {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        // Fails only if the stream has ended, which the response says.
        let _ = self.requests.send(request).await;
        let ended = || Failure::unknown("the gateway has ended server reflection");
        match self.responses.message().await {
            Ok(Some(response)) => {
                self.gateway.set_established();
                response.message_response.ok_or_else(ended)
            }
            Ok(None) => Err(ended()),
            Err(status) => Err(failure(self.gateway, &status).await),
        }
    }

    async fn services(&mut self) -> Result<Vec<String>, Failure> {
        match self
            .ask(MessageRequest::ListServices(String::new()))
            .await?
        {
            MessageResponse::ListServicesResponse(list) => Ok(list
                .service
                .into_iter()
                .map(|service| service.name)
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads the file of a service, and those that are sent with it. A service that reflection
    /// lists and does not describe is left out.
    async fn read_service(&mut self, name: &str) -> Result<(), Failure> {
        let request = MessageRequest::FileContainingSymbol(name.to_owned());
        match self.ask(request).await? {
            MessageResponse::FileDescriptorResponse(response) => {
                self.add(response.file_descriptor_proto)
            }
            MessageResponse::ErrorResponse(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads the dependencies that were not sent with their files.
    async fn read_dependencies(&mut self) -> Result<(), Failure> {
        let mut requested = BTreeSet::new();
        loop {
            let mut dependencies = self.files.values().flat_map(|(_, names)| names);
            let missing = dependencies
                .find(|name| !self.files.contains_key(*name) && !requested.contains(*name));
            let Some(name) = missing.cloned() else {
                return Ok(());
            };
            requested.insert(name.clone());
            match self.ask(MessageRequest::FileByFilename(name)).await? {
                MessageResponse::FileDescriptorResponse(response) => {
                    self.add(response.file_descriptor_proto)?;
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn add(&mut self, files: Vec<Vec<u8>>) -> Result<(), Failure> {
        for file in files {
            let file = Bytes::from(file);
            let head = FileHead::decode(file.clone())
                .map_err(|e| Failure::unknown(format!("server reflection: {e}")))?;
            self.bytes += file.len();
            if self.bytes > MAX_FILES_BYTES {
                let mib = MAX_FILES_BYTES >> 20;
                let problem = format!("server reflection has sent more than {mib} MiB");
                return Err(Failure::unknown(problem));
            }
            let name = head.name.unwrap_or_default();
            self.files.entry(name).or_insert((file, head.dependencies));
        }
        Ok(())
    }

    /// Returns all files, each after its dependencies.
    fn pool(&self) -> Result<DescriptorPool, Failure> {
        fn visit(
            name: &str,
            files: &BTreeMap<String, (Bytes, Vec<String>)>,
            visited: &mut BTreeSet<String>,
            sorted: &mut Vec<Bytes>,
        ) {
            let Some((file, dependencies)) = files.get(name) else {
                return;
            };
            if visited.insert(name.to_owned()) {
                for dependency in dependencies {
                    visit(dependency, files, visited, sorted);
                }
                sorted.push(file.clone());
            }
        }
        let (mut visited, mut files) = (BTreeSet::new(), Vec::new());
        for name in self.files.keys() {
            visit(name, &self.files, &mut visited, &mut files);
        }
        let mut pool = DescriptorPool::new();
        pool.decode_file_descriptor_set(&*EncodedSet { files }.encode_to_vec())
            .map_err(|e| Failure::unknown(format!("the descriptors of the gateway: {e}")))?;
        Ok(pool)
    }
}

fn unexpected(response: &MessageResponse) -> Failure {
    match response {
        MessageResponse::ErrorResponse(error) => {
            let status = Status::new(Code::from(error.error_code), error.error_message.clone());
            Failure {
                code: exit_code::FAILED,
                lines: vec![format!(
                    "server reflection: {}",
                    super::failure::line(&status)
                )],
            }
        }
        _ => Failure::unknown("server reflection has sent another kind of response"),
    }
}

/// Describes why reflection has failed.
async fn failure(gateway: &Gateway, status: &Status) -> Failure {
    let mut lines = gateway.describe(status).await;
    if status.code() == Code::Unimplemented {
        lines.push("  the server has no reflection (grpc.reflection.v1): is it a gateway?".into());
    }
    Failure {
        code: exit_code::of_status(status),
        lines,
    }
}
