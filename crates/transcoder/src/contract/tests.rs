//! The rules of the contract, on small protos that are compiled here.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value as Json, json};

use self::test_contract::{
    DO, STARTED, TestContract, descriptors, descriptors_of, families, jobs, printed, proto,
};
use super::*;
use crate::api::drawbridge::v1::WatchEvent;
use crate::call::Reply;

/// Returns the descriptor set of `proto/`.
static BUILT_IN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto"));
    let mut files = Vec::new();
    collect(root, root, &mut files);
    files.sort();
    let mut compiler = protox::Compiler::new([root]).expect("proto/ is there");
    compiler
        .include_imports(true)
        .open_files(&files)
        .expect("proto/ compiles");
    compiler.encode_file_descriptor_set()
});

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of protos") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path.strip_prefix(root).expect("below proto").to_owned());
        }
    }
}

/// Returns a proto of one service with one unary rpc.
fn unary(options: &str, messages: &str) -> String {
    proto(&format!(
        "service S {{ rpc Do(Req) returns (Res) {{ {options} }} }} {messages}"
    ))
}

fn diagnostics(proto: &str) -> Vec<Diagnostic> {
    let source = Source::new("t.binpb", descriptors(proto));
    Contract::compile(vec![source], &families)
        .map(|_| ())
        .expect_err(proto)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn body(call: &Call) -> Option<&str> {
    call.body.as_deref().map(text)
}

/// Returns field and problem of `Error::Binding`.
fn fault(error: &Error) -> (&str, &str) {
    match error {
        Error::Binding { field, problem } => (field, problem),
        other => panic!("not a binding error: {other:?}"),
    }
}

trait Bind {
    fn bind(&self, request: Json) -> Result<Call, Error>;
    fn bind_in(&self, request: Json, dialect: &str) -> Result<Call, Error>;
}

impl Bind for TestContract {
    fn bind(&self, request: Json) -> Result<Call, Error> {
        self.bind_in(request, "")
    }

    fn bind_in(&self, request: Json, dialect: &str) -> Result<Call, Error> {
        self.rpc("Do").bind(&self.wire("t.Req", request), dialect)
    }
}

mod bare_text;
mod bind;
mod decode;
mod diagnostics;
mod download;
mod expression;
mod left_out;
mod named_field;
mod paging;
mod random_input;
mod raw_body;
mod required_omitted;
mod resolve;
mod served_types;
mod test_contract;
mod urls;
mod watch;
pub(crate) mod watch_calls;
mod watch_log;
