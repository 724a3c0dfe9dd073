//! Regular expressions of callers and templates: matched in linear time, and
//! small ones only.

use regex::RegexBuilder;

/// The longest compiled form, in bytes.
const MAX_COMPILED: usize = 1 << 16;

/// Whether `text` matches from its start, or as a whole. A pattern that is not
/// one matches nothing.
pub(super) fn matches(pattern: &str, text: &str, whole: bool) -> bool {
    let end = if whole { "$" } else { "" };
    RegexBuilder::new(&format!("^(?:{pattern}){end}"))
        .size_limit(MAX_COMPILED)
        .build()
        .is_ok_and(|expression| expression.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, whole, want) in [
            ("[a-z]+", "abc1", false, true),
            ("[a-z]+", "abc1", true, false),
            ("b", "abc", false, false),
            ("(", "(", false, false),
            ("a|b$", "b", true, true),
        ] {
            assert_eq!(matches(pattern, text, whole), want, "{pattern} {text}");
        }
    }
}
