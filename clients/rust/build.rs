//! Generates Rust code of all protos: one module per package, as `drawbridge_example::…`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The protos of the clone; in a project of your own, those of `drawbridge protos`.
const PROTOS: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTOS}");
    let mut files = Vec::new();
    for package in ["drawbridge", "hitachi", "huaweicloud", "openstack"] {
        collect(&Path::new(PROTOS).join(package), &mut files)?;
    }
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("api.rs")
        .compile_fds(protox::compile(files, [PROTOS])?)?;
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
