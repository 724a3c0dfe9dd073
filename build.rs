//! Compiles `proto/` with a pure-Rust compiler: to a descriptor set, which is
//! the gateway's program, and to Rust messages for clients, tests and the few
//! places that look into a message.

use std::path::{Path, PathBuf};
use std::{env, fs};

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
    // The engine serves the contract's rpcs from tables; code for services is made
    // only where it is called: the gateway's own, and the one of benches/gateway.rs.
    // All of it would be 40,000 lines.
    let mut set = compiler.file_descriptor_set();
    // The options are the transcoder's.
    set.file
        .retain(|f| f.name() != "drawbridge/v1/options.proto");
    for file in &mut set.file {
        file.service
            .retain(|s| matches!(s.name(), "GatewayService" | "SoftwareDeploymentService"));
    }
    tonic_prost_build::configure()
        .extern_path(
            ".drawbridge.v1.WatchEvent",
            "::drawbridge_transcoder::api::drawbridge::v1::WatchEvent",
        )
        .extern_path(
            ".drawbridge.v1.WatchEventType",
            "::drawbridge_transcoder::api::drawbridge::v1::WatchEventType",
        )
        .extern_path(
            ".drawbridge.v1.Outcome",
            "::drawbridge_transcoder::api::drawbridge::v1::Outcome",
        )
        .include_file("api.rs")
        .compile_fds(set)?;
    Ok(())
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
