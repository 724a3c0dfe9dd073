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
    match c {
        c if c.is_control() => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
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
