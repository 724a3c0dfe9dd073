//! What grows when it is converted ends at the limit, before it is allocated.

use super::*;
use crate::output_limit::{LimitMet, limited};

/// Converts and returns the length and the capacity of the output.
fn to_json_within(limit: usize, wire: &[u8]) -> Result<(usize, usize), LimitMet> {
    let mut out = Vec::new();
    limited(limit, || {
        to_json(&SCHEMA, id("All"), wire, &|_| false, &mut out).is_ok()
    })?;
    Ok((out.len(), out.capacity()))
}

fn to_wire_within(limit: usize, text: &str) -> Result<(usize, usize), LimitMet> {
    let mut out = Vec::new();
    limited(limit, || {
        to_wire(&SCHEMA, id("All"), text.as_bytes(), &mut out).is_ok()
    })?;
    Ok((out.len(), out.capacity()))
}

#[test]
fn output_ends_at_the_limit_in_both_directions() {
    let strings: Vec<u8> = (0..2_000).flat_map(|_| bytes(54, "")).collect();
    let objects: Vec<u8> = (0..2_000).flat_map(|_| bytes(57, "")).collect();
    for (name, wire, length) in [
        ("escapes", bytes(54, "\u{1}".repeat(10_000)), 60_000),
        (
            "escapes behind text",
            bytes(54, "ab\u{1}\"".repeat(3_000)),
            30_000,
        ),
        ("empty strings", strings, 6_000),
        ("empty objects", objects, 6_000),
    ] {
        let (full, _) = to_json_within(usize::MAX, &wire).unwrap();
        assert!((length..length + 100).contains(&full), "{name}: {full}");
        // The first capacity is a little more than the input.
        let first = wire.len() * 5 / 4;
        let limit = full.max(first) + 200;
        let (again, capacity) = to_json_within(limit, &wire).unwrap();
        assert!(again == full && capacity <= limit, "{name}: {capacity}");
        if full > 2 * first {
            assert_eq!(to_json_within(full - 100, &wire), Err(LimitMet), "{name}");
        }
    }
    let zeros = format!("[{}0]", "0,".repeat(10_000));
    let text = "\\u0001".repeat(1_000);
    for (name, json, length) in [
        ("numbers", format!(r#"{{"list":{zeros}}}"#), 110_000),
        (
            "numbers of a value",
            format!(r#"{{"value":{zeros}}}"#),
            110_000,
        ),
        ("escapes", format!(r#"{{"strings":["{text}"]}}"#), 1_000),
        (
            "members",
            format!(r#"{{"strings":[{}""]}}"#, r#""","#.repeat(2_000)),
            6_000,
        ),
    ] {
        let (full, _) = to_wire_within(usize::MAX, &json).unwrap();
        assert!((length..length + 100).contains(&full), "{name}: {full}");
        let limit = full.max(json.len()) + 200;
        let (again, capacity) = to_wire_within(limit, &json).unwrap();
        assert!(again == full && capacity <= limit, "{name}: {capacity}");
        if full > 2 * json.len() {
            assert_eq!(to_wire_within(full - 100, &json), Err(LimitMet), "{name}");
        }
    }
}
