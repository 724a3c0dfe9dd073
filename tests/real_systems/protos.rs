//! Every proto is read alike by the compilers that generators of other languages are built on:
//! protox, which the gateway is built with, protoc 3.21 (that of Debian 12), buf, and protobufjs
//! as `@grpc/proto-loader` uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

use crate::python::{python, tests};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

/// The proto files without those of `google`, by their names in imports.
fn names() -> Vec<String> {
    fn collect(directory: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, names);
            } else {
                let name = path.strip_prefix(root()).unwrap();
                names.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    let mut names = Vec::new();
    collect(&root(), &mut names);
    names.retain(|name| !name.starts_with("google/"));
    names.sort();
    names
}

/// Runs a command and returns what it prints.
fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {problem}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is generated from a file.
type Elements = (
    Vec<DescriptorProto>,
    Vec<EnumDescriptorProto>,
    Vec<ServiceDescriptorProto>,
);

fn elements(set: FileDescriptorSet) -> BTreeMap<String, Elements> {
    let files = set.file.into_iter();
    files
        .filter(|file| !file.name().starts_with("google/"))
        .map(|file| {
            let name = file.name().to_owned();
            (name, (file.message_type, file.enum_type, file.service))
        })
        .collect()
}

/// The elements as protox reads them.
fn ours() -> BTreeMap<String, Elements> {
    elements(protox::compile(names(), [root()]).unwrap())
}

/// Compares the elements of each file with those of a descriptor set.
fn assert_read_alike(set: &Path) {
    let theirs = FileDescriptorSet::decode(&*std::fs::read(set).unwrap()).unwrap();
    let (ours, theirs) = (ours(), elements(theirs));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (name, file) in ours {
        assert!(file == theirs[&name], "{name} is read differently");
    }
}

fn tools() -> PathBuf {
    python("protos-venv", "protos/requirements.txt")
}

#[test]
fn protoc_3_21_reads_every_proto() {
    let directory = tempfile::tempdir().unwrap();
    let set = directory.path().join("set.binpb");
    let mut protoc = Command::new(tools());
    protoc.args(["-m", "grpc_tools.protoc"]).current_dir(root());
    assert_eq!(output(protoc.arg("--version")).trim(), "libprotoc 3.21.6");
    let mut protoc = Command::new(tools());
    protoc.args(["-m", "grpc_tools.protoc", "-I.", "--include_imports", "-o"]);
    output(protoc.arg(&set).args(names()).current_dir(root()));
    assert_read_alike(&set);
}

#[test]
fn buf_reads_every_proto() {
    let directory = tempfile::tempdir().unwrap();
    let set = directory.path().join("set.binpb");
    let mut buf = Command::new(tools().with_file_name("buf"));
    output(
        buf.args(["build", "-o"])
            .arg(&set)
            .current_dir(root().parent().unwrap()),
    );
    assert_read_alike(&set);
}

/// protobufjs has a parser of its own, with a smaller language of options.
#[test]
fn protobufjs_reads_every_proto() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("protos-node");
    std::fs::create_dir_all(&directory).unwrap();
    for file in ["package.json", "package-lock.json", "load.js"] {
        std::fs::copy(tests("protos").join(file), directory.join(file)).unwrap();
    }
    let mut npm = Command::new("npm");
    npm.args([
        "ci",
        "--silent",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    output(npm.current_dir(&directory));
    let mut node = Command::new("node");
    let theirs = output(node.arg("load.js").arg(root()).current_dir(&directory));

    let theirs: BTreeSet<String> = theirs.lines().map(str::to_owned).collect();
    let mut ours_by_path = BTreeSet::new();
    for (name, (_, _, services)) in ours() {
        let package = Path::new(&name)
            .parent()
            .unwrap()
            .to_str()
            .unwrap()
            .replace('/', ".");
        for service in services {
            for rpc in &service.method {
                let (requests, responses) = (rpc.client_streaming(), rpc.server_streaming());
                let path = format!("/{package}.{}/{}", service.name(), rpc.name());
                ours_by_path.insert(format!("{path} {requests} {responses}"));
            }
        }
    }
    assert!(ours_by_path.len() > 200, "{}", ours_by_path.len());
    assert_eq!(ours_by_path, theirs);
}
