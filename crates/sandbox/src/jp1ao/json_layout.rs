//! JSON in JP1/AO's layout.

use serde_json::Value;

/// Formats with two spaces of indentation, a space on both sides of the colon, CR LF
/// line ends and a final line end. Source: the response in
/// `tests/seeds/5-jp1ao-service-release.json`; it also yields the Content-Length of the
/// sample requests.
pub fn print(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0);
    out.push_str("\r\n");
    out
}

fn write(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Array(items) => {
            out.push_str("[ ");
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write(out, item, depth);
            }
            out.push_str(if items.is_empty() { "]" } else { " ]" });
        }
        Value::Object(members) if members.is_empty() => out.push_str("{ }"),
        Value::Object(members) => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate() {
                out.push_str(if at > 0 { ",\r\n" } else { "\r\n" });
                indent(out, depth + 1);
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(" : ");
                write(out, member, depth + 1);
            }
            out.push_str("\r\n");
            indent(out, depth);
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn layout_is_that_of_the_samples() {
        let text = print(&json!({"a": [], "b": ["x", 1], "日": {}, "c": [{"d": null}]}));
        assert_eq!(
            text,
            "{\r\n  \"a\" : [ ],\r\n  \"b\" : [ \"x\", 1 ],\r\n  \"日\" : { },\r\n  \"c\" : [ {\r\n    \"d\" : null\r\n  } ]\r\n}\r\n"
        );
    }

    /// Content-Length of the samples: release and disable 175, maintenance 183.
    #[test]
    fn content_length_is_that_of_the_samples() {
        for (action, length) in [("release", 175), ("disable", 175), ("maintenance", 183)] {
            let href = format!(
                "http://10.196.184.182:22015/Automation/v1/objects/Services/2004/actions/{action}/invoke"
            );
            let document =
                json!({"name": action, "href": href, "method": "POST", "parameters": []});
            assert_eq!(print(&document).len(), length, "{action}");
        }
    }
}
