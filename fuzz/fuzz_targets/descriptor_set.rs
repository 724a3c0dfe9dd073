//! Any bytes become a contract that binds and decodes, or diagnostics.
//!
//! The first two bytes select a place of a real descriptor set that the rest of the input
//! replaces; an input without such a place is a set by itself.
#![no_main]

use drawbridge_fuzz::DESCRIPTOR_SET;
use drawbridge_transcoder::contract::{Contract, Source};
use drawbridge_transcoder::family::FamilyRules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    compile(input.to_vec());
    if let Some((place, patch)) = input.split_first_chunk::<2>() {
        let mut set = DESCRIPTOR_SET.clone();
        let start = usize::from(u16::from_le_bytes(*place)) % set.len();
        let end = set.len().min(start + patch.len());
        set.splice(start..end, patch.iter().copied());
        compile(set);
    }
});

fn compile(bytes: Vec<u8>) {
    let name = "fuzz.binpb".to_owned();
    let sources = vec![Source { name, bytes }];
    let Ok(contract) = Contract::compile(sources, &|_| FamilyRules::default()) else {
        return;
    };
    for method in contract.methods() {
        let _ = method.bind(b"", "");
        let _ = method.bind(b"\x0a\x01a", "");
    }
}
