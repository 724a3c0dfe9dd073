//! Any bytes become a contract that binds and decodes, or diagnostics.
//!
//! The first two bytes select a place of a real descriptor set that the rest of the input
//! replaces; an input without such a place is a set by itself. Half of the mutations keep the
//! wire format: they change one field somewhere in the nested messages.
#![no_main]

use drawbridge_fuzz::{DESCRIPTOR_SET, wire_mutation};
use drawbridge_transcoder::contract::{Contract, Source};
use drawbridge_transcoder::family::FamilyRules;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(
    init: {
        // libFuzzer's hook aborts at each panic. `Contract::compile` reports those of the
        // descriptor library as a diagnostic; any other still aborts, in libfuzzer-sys.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    },
    |input: &[u8]| {
        compile(input.to_vec());
        if let Some((place, patch)) = input.split_first_chunk::<2>() {
            let mut set = DESCRIPTOR_SET.clone();
            let start = usize::from(u16::from_le_bytes(*place)) % set.len();
            let end = set.len().min(start + patch.len());
            set.splice(start..end, patch.iter().copied());
            compile(set);
        }
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0
        && let Some(mutated) = wire_mutation::mutate(&data[..size], seed)
        && mutated.len() <= max_size
    {
        data[..mutated.len()].copy_from_slice(&mutated);
        return mutated.len();
    }
    fuzzer_mutate(data, size, max_size)
});

fn compile(bytes: Vec<u8>) {
    let source = Source::new("fuzz.binpb", bytes);
    let Ok(contract) = Contract::compile(vec![source], &|_| FamilyRules::default()) else {
        return;
    };
    contract.warnings();
    for method in contract.methods() {
        let _ = method.bind(b"", "");
        let _ = method.bind(b"\x0a\x01a", "");
    }
}
