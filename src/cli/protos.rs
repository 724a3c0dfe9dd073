//! `drawbridge protos`: writes what clients are made from to a directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use drawbridge_transcoder::call::Idempotency;
use prost::Message;
use serde_json::{Value, json};

use super::Failure;
use crate::contract::{Contract, PROTO_ARCHIVE};

/// The service that the gateway implements itself. All of its rpcs are reads.
const GATEWAY_SERVICE: &str = "drawbridge.v1.GatewayService";

/// The options of the command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// The directory. It is created if it does not exist; files in it are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the files, and returns a line for each.
pub(super) fn run(options: &Options, contract: &Contract) -> Result<String, Failure> {
    let files = [
        (
            "protos.tar.gz",
            "the protos and those that they import; `tar -xzf` makes the directory proto/",
            PROTO_ARCHIVE.to_vec(),
        ),
        (
            "drawbridge.binpb",
            "all of it as a FileDescriptorSet, with imports and comments",
            merge(contract.descriptor_sets()),
        ),
        (
            "service_config.direct.json",
            "gRPC service config: repeats what is idempotent",
            pretty(&direct(contract)),
        ),
        (
            "service_config.mesh.json",
            "gRPC service config: repeats nothing, for clients behind a mesh that does",
            pretty(&mesh()),
        ),
    ];
    let mut report = String::new();
    fs::create_dir_all(&options.out).map_err(|e| cannot_write(&options.out, &e))?;
    for (name, text, content) in files {
        let path = options.out.join(name);
        fs::write(&path, content).map_err(|e| cannot_write(&path, &e))?;
        report += &format!("{}  {text}\n", path.display());
    }
    Ok(report)
}

fn cannot_write(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::from(vec![format!("{}: cannot write: {error}", path.display())])
}

fn pretty(config: &Value) -> Vec<u8> {
    format!("{config:#}\n").into_bytes()
}

/// A FileDescriptorSet whose files are not decoded, so that options are kept.
#[derive(Message)]
struct FileSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// The name of a FileDescriptorProto.
#[derive(Message)]
struct FileName {
    #[prost(string, tag = "1")]
    name: String,
}

/// Returns one descriptor set with each file once: sets of users contain imports that the
/// built-in one has, too.
fn merge(sets: &[Vec<u8>]) -> Vec<u8> {
    let mut names = BTreeSet::new();
    let mut merged = FileSet::default();
    for set in sets {
        let set = FileSet::decode(&**set).unwrap_or_default();
        merged.file.extend(
            set.file
                .into_iter()
                .filter(|file| FileName::decode(&**file).is_ok_and(|file| names.insert(file.name))),
        );
    }
    merged.encode_to_vec()
}

/// Returns the config for clients that call the gateway directly: rpcs that are idempotent are
/// called again if the gateway is unavailable, for example while it restarts. A stream is
/// repeated only before its first message.
fn direct(contract: &Contract) -> Value {
    let repeatable = contract
        .methods()
        .into_iter()
        .filter(|method| method.idempotency != Idempotency::NonIdempotent)
        .map(|method| json!({"service": method.service, "method": method.name}));
    let names: Vec<_> = [json!({"service": GATEWAY_SERVICE})]
        .into_iter()
        .chain(repeatable)
        .collect();
    json!({
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{
            "name": names,
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    })
}

/// Returns the config for clients whose proxy balances and repeats calls.
fn mesh() -> Value {
    json!({
        "loadBalancingConfig": [{"pick_first": {}}],
        "methodConfig": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, rest: &[u8]) -> Vec<u8> {
        let mut file = FileName { name: name.into() }.encode_to_vec();
        file.extend(rest);
        file
    }

    #[test]
    fn file_of_several_sets_is_written_once_and_unchanged() {
        // Field 8, the options, with an extension that prost does not know.
        let options = [0x42, 0x03, 0xca, 0x3e, 0x00];
        let set = |files: &[&str]| {
            let file = files.iter().map(|name| file(name, &options)).collect();
            FileSet { file }.encode_to_vec()
        };
        let merged = merge(&[set(&["a", "b"]), set(&["b", "c"])]);
        assert_eq!(merged, set(&["a", "b", "c"]));
    }
}
