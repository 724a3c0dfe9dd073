//! Compiles `proto/` with a pure-Rust compiler: to a descriptor set, which is the
//! gateway's program, and to Rust code for the few messages that Rust code uses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// What the library uses: messages and services, and whatever these refer to. The
/// contract's rpcs are served from tables; code for all of it would be 40,000 lines.
const USED: [&str; 2] = [
    ".drawbridge.v1.GatewayService",
    ".hitachi.automation.v1.PropertyDefinition",
];

/// What tests and benches use beside that.
const USED_BY_TESTS: [&str; 2] = [
    ".openstack.orchestration.v1.ListStacksRequest",
    ".openstack.orchestration.v1.SoftwareDeploymentService",
];

/// What `drawbridge-transcoder` has generated.
const TRANSCODERS: [&str; 3] = [
    ".drawbridge.v1.Outcome",
    ".drawbridge.v1.WatchEvent",
    ".drawbridge.v1.WatchEventType",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(Path::new("proto"), &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Encoded by protox: prost's own encoding drops the options that the contract is made of.
    fs::write(
        out.join("contract.binpb"),
        compiler.encode_file_descriptor_set(),
    )?;
    let set = compiler.file_descriptor_set();
    generate(only(&set, &USED), out.join("library"))?;
    generate(only(&set, &USED_BY_TESTS), out.join("tests"))?;
    Ok(())
}

/// Writes `api.rs`, and what it includes, to this folder.
fn generate(set: FileDescriptorSet, folder: PathBuf) -> std::io::Result<()> {
    fs::create_dir_all(&folder)?;
    let mut config = tonic_prost_build::configure().out_dir(folder);
    for name in TRANSCODERS {
        let path = name.replace('.', "::");
        config = config.extern_path(name, format!("::drawbridge_transcoder::api{path}"));
    }
    config.include_file("api.rs").compile_fds(set)
}

/// The services and messages with these names, and all that they refer to. Without
/// comments, which go by position.
fn only(set: &FileDescriptorSet, names: &[&str]) -> FileDescriptorSet {
    let mut kept: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut set = set.clone();
    // Until nothing is added: a message may refer to one that was passed already.
    loop {
        let before = kept.len();
        for file in &set.file {
            let full = |name: &str| format!(".{}.{name}", file.package());
            for service in &file.service {
                if kept.contains(&full(service.name())) {
                    for method in &service.method {
                        kept.insert(method.input_type().to_owned());
                        kept.insert(method.output_type().to_owned());
                    }
                }
            }
            for message in &file.message_type {
                if is_kept(&kept, &full(message.name())) {
                    refer(message, &mut kept);
                }
            }
        }
        if kept.len() == before {
            break;
        }
    }
    for file in &mut set.file {
        let package = file.package().to_owned();
        let keep = |name: &str| is_kept(&kept, &format!(".{package}.{name}"));
        file.message_type.retain(|message| keep(message.name()));
        file.enum_type.retain(|kind| keep(kind.name()));
        file.service.retain(|service| keep(service.name()));
        file.extension.clear();
        file.source_code_info = None;
    }
    set.file.retain(|file| {
        !(file.message_type.is_empty() && file.enum_type.is_empty() && file.service.is_empty())
    });
    set
}

/// Whether this, or something inside of it, is used.
fn is_kept(kept: &BTreeSet<String>, name: &str) -> bool {
    let inside = format!("{name}.");
    kept.contains(name) || kept.iter().any(|other| other.starts_with(&inside))
}

/// Adds the types of a message's fields, and of those of the messages inside of it.
fn refer(message: &DescriptorProto, kept: &mut BTreeSet<String>) {
    for field in &message.field {
        if matches!(field.r#type(), Type::Message | Type::Group | Type::Enum) {
            kept.insert(field.type_name().to_owned());
        }
    }
    for nested in &message.nested_type {
        refer(nested, kept);
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path.strip_prefix("proto").expect("below proto").to_owned());
        }
    }
    Ok(())
}
