//! Compiles Drawbridge's options and the messages of a watch to Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // When it runs, not when it was compiled: a target directory may be copied.
    let proto = &format!("{}/../../proto", std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo:rerun-if-changed={proto}/drawbridge");
    println!("cargo:rerun-if-changed={proto}/google");
    let mut compiler = protox::Compiler::new([proto])?;
    compiler.include_imports(true).open_files([
        "drawbridge/v1/options.proto",
        "drawbridge/v1/watch.proto",
        "google/api/annotations.proto",
    ])?;
    prost_build::Config::new()
        .include_file("api.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
