//! Any bytes become JSON that others can read, or a problem.
#![no_main]

use drawbridge_transcoder::json;
use drawbridge_fuzz::{SCHEMA, pick};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let Some((_, id, wire)) = pick(input) else {
        return;
    };
    let mut text = Vec::new();
    if json::to_json(&SCHEMA, id, wire, &|_| false, &mut text).is_ok() {
        let text = std::str::from_utf8(&text).expect("JSON is UTF-8");
        serde_json::from_str::<&RawValue>(text).expect(text);
    }
    for field in 0..SCHEMA.message(id).fields.len() {
        let _ = json::texts(&SCHEMA, id, field as u16, wire);
    }
});
