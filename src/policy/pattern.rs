//! Patterns of names and values. `*` is the only wildcard.

use crate::downstream::{Identity, IdentityKind};

/// A pattern of a name, in which `*` matches any text. Upper and lower case differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

/// A pattern of a value in a request, in which `*` matches letters, digits and `-_.~@:+` and
/// blanks. What else a value has could mean something else to the upstream: a path, a list, a
/// wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuePattern(Box<str>);

impl Pattern {
    /// Returns the pattern of this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it has no wildcard.
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Returns whether it matches a text.
    pub fn matches(&self, text: &str) -> bool {
        matches(&self.0, text, |_| true)
    }

    /// Returns whether it matches an identity: its text, or its name if the pattern has no kind.
    pub(super) fn matches_identity(&self, identity: &Identity) -> bool {
        let has_kind = IdentityKind::ALL.iter().any(|kind| {
            let rest = self.0.strip_prefix(kind.word());
            rest.is_some_and(|rest| rest.starts_with(':'))
        });
        match has_kind {
            true => self.matches(identity.as_str()),
            false => self.matches(identity.name()),
        }
    }
}

impl ValuePattern {
    /// Returns the pattern of this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it matches a value.
    pub fn matches(&self, value: &str) -> bool {
        let is_plain = |text: &str| {
            text.chars()
                .all(|c| c.is_alphanumeric() || "-_.~@:+ ".contains(c))
        };
        // Of a path, the segments `.` and `..` name other resources.
        !matches!(value, "." | "..") && matches(&self.0, value, is_plain)
    }
}

/// Returns whether a pattern matches a text, in which `is_wild` accepts what a `*` matches.
fn matches(pattern: &str, text: &str, is_wild: impl Fn(&str) -> bool) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            let matched = text.strip_suffix(part);
            return matched.is_some_and(is_wild);
        }
        // The first occurrence: later wildcards can match all that follows it.
        let Some((before, after)) = text.split_once(part) else {
            return false;
        };
        if !is_wild(before) {
            return false;
        }
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_text() {
        for (pattern, text, want) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*b", "ab", true),
            ("*b", "ba", false),
            ("a*b", "ab", true),
            ("a*b", "a", false),
            ("aa*aa", "aaa", false),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "axcxb", false),
            ("a**c", "abc", true),
            ("*x*", "axb", true),
            ("*x*", "ab", false),
            ("spiffe://a/*", "spiffe://a/b/c", true),
            ("spiffe://a/*", "spiffe://ab", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                want,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn star_in_a_value_matches_plain_text_only() {
        for (pattern, value, want) in [
            ("shop-*", "shop-1", true),
            ("shop-*", "shop-", true),
            ("shop-*", "shop-café 2", true),
            ("shop-*", "Shop-1", false),
            ("shop-*", "shop-1/../other", false),
            ("shop-*", "shop-1%2Fother", false),
            ("shop-*", "shop-1\\other", false),
            ("shop-*", "shop-*", false),
            ("shop-*", "shop-?", false),
            ("shop-*", "shop-1,other", false),
            ("shop-*", "shop-1;other", false),
            ("shop-*", "shop-1&x=y", false),
            ("shop-*", "shop-1\0", false),
            ("shop-*", "shop-1\n", false),
            ("shop-*", "xshop-1", false),
            ("*", "..", false),
            ("*", ".", false),
            ("*", "...", true),
            ("a/b", "a/b", true),
            ("a*b*c", "a/b-c", false),
            ("a*b*c", "a-b/c", false),
        ] {
            assert_eq!(
                ValuePattern::new(pattern).matches(value),
                want,
                "{pattern} {value}"
            );
        }
    }

    #[test]
    fn pattern_without_a_kind_matches_the_name() {
        let identity = |text| Identity::parse(text).unwrap();
        for (pattern, text, want) in [
            ("token:ci", "token:ci", true),
            ("token:ci", "jwt:ci", false),
            ("token:*", "token:ci", true),
            ("token:*", "certificate:ci", false),
            ("ci", "token:ci", true),
            ("ci", "jwt:ci", true),
            ("spiffe://a/*", "certificate:spiffe://a/b", true),
            ("*", "jwt:x", true),
            // The kind of an identity cannot be matched by a wildcard.
            ("*:ci", "token:ci", false),
            ("*:ci", "jwt:a:ci", true),
            ("anonymous", "token:anonymous", true),
        ] {
            let got = Pattern::new(pattern).matches_identity(&identity(text));
            assert_eq!(got, want, "{pattern} {text}");
        }
    }
}
