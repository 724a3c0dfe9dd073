//! Any text becomes a message that others can read and that can be written
//! again, or a problem.
#![no_main]

use drawbridge_transcoder::json;
use drawbridge_fuzz::{POOL, SCHEMA, pick};
use libfuzzer_sys::fuzz_target;
use prost_reflect::DynamicMessage;

fuzz_target!(|input: &[u8]| {
    let Some((name, id, text)) = pick(input) else {
        return;
    };
    let mut wire = Vec::new();
    if json::to_wire(&SCHEMA, id, text, &mut wire).is_ok() {
        let descriptor = POOL.get_message_by_name(name).expect("it is picked from the pool");
        DynamicMessage::decode(descriptor, wire.as_slice()).expect("a message that others read");
    }
});
