//! Compiles `proto/` with protox, a protobuf compiler in Rust: to a descriptor set, from
//! which the gateway serves its methods, and to Rust code for the few messages and services
//! that Rust code uses (prost-build for messages, tonic-build for services). Packs the files
//! themselves into an archive, for `drawbridge protos`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::{Compression, GzBuilder};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic_build::manual;

/// Messages and services that the library uses. Those that they refer to are added. Code for
/// all of `proto/` would be 40,000 lines.
const USED_BY_LIBRARY: [&str; 2] = [
    ".drawbridge.v1.GatewayService",
    ".hitachi.automation.v1.PropertyDefinition",
];

/// Further messages and services that tests and benches use.
const USED_BY_TESTS: [&str; 2] = [
    ".openstack.orchestration.v1.ListStacksRequest",
    ".openstack.orchestration.v1.SoftwareDeploymentService",
];

/// Types that `drawbridge-transcoder` generates.
const EXTERNAL_TYPES: [&str; 3] = [
    ".drawbridge.v1.Outcome",
    ".drawbridge.v1.WatchEvent",
    ".drawbridge.v1.WatchEventType",
];

/// The unit of a tar archive, in bytes.
const BLOCK: usize = 512;

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
    // Encoded by protox, because prost drops options that it does not know, and the contract
    // consists of those.
    fs::write(
        out.join("contract.binpb"),
        compiler.encode_file_descriptor_set(),
    )?;
    fs::write(out.join("protos.tar.gz"), archive(&files)?)?;
    let set = compiler.file_descriptor_set();
    generate(select(&set, &USED_BY_LIBRARY), out.join("library"))?;
    generate(select(&set, &USED_BY_TESTS), out.join("tests"))?;
    Ok(())
}

/// Writes `api.rs`, and the files that it includes, to this directory.
fn generate(set: FileDescriptorSet, directory: PathBuf) -> io::Result<()> {
    fs::create_dir_all(&directory)?;
    let mut config = prost_build::Config::new();
    config
        .out_dir(directory)
        .include_file("api.rs")
        .service_generator(Box::new(ServiceGenerator));
    for name in EXTERNAL_TYPES {
        let path = name.replace('.', "::");
        config.extern_path(name, format!("::drawbridge_transcoder::api{path}"));
    }
    config.compile_fds(set)
}

/// Generates the client and the server trait of each service with tonic-build.
struct ServiceGenerator;

impl prost_build::ServiceGenerator for ServiceGenerator {
    fn generate(&mut self, service: prost_build::Service, code: &mut String) {
        // The code of a service is a module of its own, below that of the messages.
        let rust_type = |name: &str| match name.starts_with("::") {
            true => name.to_owned(),
            false => format!("super::{name}"),
        };
        let mut builder = manual::Service::builder()
            .name(&service.name)
            .package(&service.package);
        for method in &service.methods {
            let mut rpc = manual::Method::builder()
                .name(&method.name)
                .route_name(&method.proto_name)
                .input_type(rust_type(&method.input_type))
                .output_type(rust_type(&method.output_type))
                .codec_path("tonic_prost::ProstCodec");
            if method.client_streaming {
                rpc = rpc.client_streaming();
            }
            if method.server_streaming {
                rpc = rpc.server_streaming();
            }
            builder = builder.method(rpc.build());
        }
        let service = builder.build();
        let mut generator = tonic_build::CodeGenBuilder::new();
        generator.build_transport(false);
        for part in [
            generator.generate_client(&service, "super"),
            generator.generate_server(&service, "super"),
        ] {
            code.push_str(&part.to_string());
        }
    }
}

/// Returns a gzip-compressed tar archive (ustar) of the files, below `proto/`. The same files
/// give the same bytes: there are no times and owners.
fn archive(files: &[PathBuf]) -> io::Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0);
    let mut archive = gzip.write(Vec::new(), Compression::best());
    for file in files {
        let path = Path::new("proto").join(file);
        let text = fs::read(&path)?;
        archive.write_all(&tar_header(&path, text.len())?)?;
        archive.write_all(&text)?;
        archive.write_all(&vec![0; text.len().next_multiple_of(BLOCK) - text.len()])?;
    }
    // The end of an archive.
    archive.write_all(&[0; 2 * BLOCK])?;
    archive.finish()
}

/// Returns the header of a file that all can read.
fn tar_header(path: &Path, size: usize) -> io::Result<[u8; BLOCK]> {
    const NAME_LENGTH: usize = 100;
    let name = path.to_str().filter(|name| name.len() < NAME_LENGTH);
    let name = name.ok_or_else(|| io::Error::other(format!("the path is long: {path:?}")))?;
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..][..text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    // The checksum counts itself as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

/// Returns the services and messages with these names and all that they refer to, without
/// comments, whose positions would no longer match.
fn select(set: &FileDescriptorSet, names: &[&str]) -> FileDescriptorSet {
    let mut kept: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut set = set.clone();
    // Repeated until nothing is added: a message may refer to one of an earlier file.
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
                    add_field_types(message, &mut kept);
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

/// Returns whether this type, or one nested in it, is kept.
fn is_kept(kept: &BTreeSet<String>, name: &str) -> bool {
    let nested = format!("{name}.");
    kept.contains(name) || kept.iter().any(|other| other.starts_with(&nested))
}

/// Adds the types of the fields of a message and of its nested messages.
fn add_field_types(message: &DescriptorProto, kept: &mut BTreeSet<String>) {
    for field in &message.field {
        if matches!(field.r#type(), Type::Message | Type::Group | Type::Enum) {
            kept.insert(field.type_name().to_owned());
        }
    }
    for nested in &message.nested_type {
        add_field_types(nested, kept);
    }
}

/// Adds the `.proto` files below a directory, relative to `proto/`.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path.strip_prefix("proto").unwrap_or(&path).to_owned());
        }
    }
    Ok(())
}
