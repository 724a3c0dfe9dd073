//! Texts of upstreams and gateways, made safe for a terminal and a shell.

/// Returns the text on one line, with control characters and bidirectional marks replaced: a
/// terminal would interpret them.
pub(in crate::cli) fn sanitize(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => ' ',
            c => visible(c),
        })
        .collect()
}

/// As [`sanitize`], and keeps the ends of lines.
pub(in crate::cli) fn sanitize_lines(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' { c } else { visible(c) })
        .collect()
}

fn visible(c: char) -> char {
    match is_interpreted(c) {
        true => '\u{fffd}',
        false => c,
    }
}

/// Returns whether a terminal interprets a character instead of showing it.
fn is_interpreted(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what a terminal would interpret in a JSON document. Its value stays the same.
pub(in crate::cli) fn escape_json(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    for c in document.chars() {
        // Line breaks are between the parts of a document; all others are in its texts.
        match c != '\n' && is_interpreted(c) {
            true => text += &format!("\\u{:04x}", u32::from(c)),
            false => text.push(c),
        }
    }
    text
}

/// Quotes an argument for a shell, if it has to be.
pub(in crate::cli) fn shell_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:=@%+,".contains(c);
    // zsh replaces `=a` by the path of `a`.
    match !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Returns the first sentence of a comment, without its period.
pub(in crate::cli) fn first_sentence(comment: &str) -> String {
    let paragraph = comment.split("\n\n").next().unwrap_or_default();
    let line = sanitize(paragraph.trim());
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_nothing_that_a_terminal_interprets() {
        let value = serde_json::json!({"a": "\u{1b}[2J \u{9b}2J \u{202e}x \u{7f}\n é"});
        for document in [value.to_string(), format!("{value:#}")] {
            let escaped = escape_json(&document);
            let has_controls = escaped.chars().any(|c| c != '\n' && is_interpreted(c));
            assert!(!has_controls, "{escaped}");
            let read: serde_json::Value = serde_json::from_str(&escaped).unwrap();
            assert_eq!(read, value);
        }
    }

    #[test]
    fn sentences_end_at_a_period_and_a_space() {
        for (comment, want) in [
            ("Lists stacks.\nWithout deleted ones.\n", "Lists stacks"),
            (
                "Reads `a.b`\nof a stack.\n\nMore.",
                "Reads `a.b` of a stack",
            ),
            ("", ""),
        ] {
            assert_eq!(first_sentence(comment), want);
        }
    }
}
