//! The built-in contract: `proto/`, compiled with the rules of the built-in families.

pub use drawbridge_transcoder::contract::{Contract, Method, Selection, Source};
use drawbridge_transcoder::family::FamilyRules;

use crate::families::family;

/// The descriptor set of `proto/`, with comments.
pub const BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.binpb"));

/// The files of `proto/`, a tar archive that is compressed with gzip.
pub const PROTO_ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protos.tar.gz"));

/// Compiles the built-in descriptor set and those of users.
///
/// # Errors
///
/// Returns all problems of the descriptor sets, each with file, element and option.
pub fn with_built_in(own: &[Source]) -> Result<Contract, Vec<String>> {
    let mut sources = vec![Source::new("built-in", BUILT_IN.to_vec())];
    sources.extend(own.iter().cloned());
    Contract::compile(sources, &family_rules)
        .map_err(|diagnostics| diagnostics.iter().map(ToString::to_string).collect())
}

/// Returns the rules that the transcoder needs of a family.
pub fn family_rules(name: &str) -> FamilyRules {
    let family = family(name);
    FamilyRules {
        request_id_headers: family.request_id_headers,
        checkers: family.checkers,
        error_status: Some(family.error_status),
    }
}
