//! Regular expressions from clients and templates, matched in linear time and limited
//! in size.

use regex_lite::RegexBuilder;

/// Maximum size of the compiled form, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 16;

/// Matches `text` from its start, or completely. An invalid pattern never matches.
pub(super) fn matches(pattern: &str, text: &str, complete: bool) -> bool {
    let end = if complete { "$" } else { "" };
    RegexBuilder::new(&format!("^(?:{pattern}){end}"))
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .is_ok_and(|expression| expression.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, complete, want) in [
            ("[a-z]+", "abc1", false, true),
            ("[a-z]+", "abc1", true, false),
            ("b", "abc", false, false),
            ("(", "(", false, false),
            ("a|b$", "b", true, true),
        ] {
            assert_eq!(matches(pattern, text, complete), want, "{pattern} {text}");
        }
    }
}
