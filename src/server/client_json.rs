//! The JSON of clients: protobuf's own mapping. Its tables are built when the first client
//! sends JSON: most gateways need none.

use std::sync::Arc;

use bytes::Bytes;
use drawbridge_transcoder::contract::{CanonicalJson, Rpc};
use drawbridge_transcoder::json::Problem;
use tokio::sync::OnceCell;

use crate::error::Error;
use crate::memory::Memory;

/// The descriptor sets of the rpcs that tonic serves.
const OWN_SETS: [&[u8]; 3] = [
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// The tables of all rpcs.
#[derive(Debug, Default)]
pub(super) struct ClientJson {
    sets: Vec<Bytes>,
    tables: OnceCell<Vec<Arc<CanonicalJson>>>,
}

/// Converts the messages of one rpc.
#[derive(Clone, Debug)]
pub(super) struct JsonMessages {
    tables: Arc<CanonicalJson>,
    rpc: Rpc,
}

impl ClientJson {
    /// Serves the rpcs of these descriptor sets, and those of tonic.
    pub(super) fn new(sets: Vec<Bytes>) -> Self {
        Self {
            sets,
            tables: OnceCell::new(),
        }
    }

    /// Returns the descriptor sets.
    pub(super) fn sets(&self) -> &[Bytes] {
        &self.sets
    }

    /// Returns the messages of the rpc at this gRPC path, which is served.
    pub(super) async fn rpc(&self, path: &str) -> Result<JsonMessages, Error> {
        let build = || async {
            let own = OWN_SETS.map(Bytes::from_static);
            let sets: Vec<Bytes> = self.sets.iter().cloned().chain(own).collect();
            let built = tokio::task::spawn_blocking(move || {
                let tables = sets.iter().filter_map(|set| CanonicalJson::new(set));
                tables.map(Arc::new).collect()
            });
            built.await.unwrap_or_default()
        };
        let tables = self.tables.get_or_init(build).await;
        let mut found = tables.iter().filter_map(|tables| {
            Some(JsonMessages {
                rpc: tables.rpc(path)?,
                tables: tables.clone(),
            })
        });
        let missing = || Error::Malformed("JSON is not supported for this rpc".to_owned());
        found.next().ok_or_else(missing)
    }
}

impl JsonMessages {
    /// Reads a request message.
    pub(super) fn decode(&self, text: &[u8], memory: &Memory) -> Result<Bytes, Error> {
        let read = || self.tables.to_wire(self.rpc.input, text);
        convert(text.len(), memory, read, |problem| {
            match problem.path.is_empty() {
                true => Error::Malformed(problem.problem),
                false => Error::Binding {
                    field: problem.path,
                    problem: problem.problem,
                },
            }
        })
    }

    /// Writes a response message.
    pub(super) fn encode(&self, message: &[u8], memory: &Memory) -> Result<Bytes, Error> {
        let write = || self.tables.to_json(self.rpc.output, message);
        convert(message.len(), memory, write, |problem| Error::Decode {
            path: problem.path,
            problem: problem.problem,
            request_id: None,
        })
    }
}

/// Runs a conversion of `input` bytes, whose output draws from the memory of the client.
fn convert(
    input: usize,
    memory: &Memory,
    convert: impl Fn() -> Result<Bytes, Problem>,
    error: impl FnOnce(Problem) -> Error,
) -> Result<Bytes, Error> {
    let (result, mut reservation) = memory.convert(input, convert)?;
    let output = result.map_err(error)?;
    reservation.resize_long(output.len())?;
    Ok(reservation.attach(output))
}
