//! Path templates of `google.api.http`, applied from message to URL: the value of a
//! field becomes path segments.
//!
//! Grammar: `google/api/http.proto`. In addition, `/` alone and a trailing `/` are
//! accepted, since some APIs have such paths. `*` and `**` outside a variable are
//! rejected, since no field would fill them.

use percent_encoding::utf8_percent_encode;

use crate::call::RESERVED;

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template {
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// One part of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Percent-encoded text, slashes included.
    Literal(Box<str>),
    /// The value of a field.
    Variable(Variable),
}

/// `{path=pattern}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// The field, as in the template: `stack_id`, `stack.id`.
    pub path: Box<str>,
    /// The form of the value; by default `*`.
    pub pattern: Vec<Segment>,
}

/// One segment of a variable's pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Literal(Box<str>),
    /// `*`: any one segment.
    One,
    /// `**`: any number of segments.
    Rest,
}

impl Template {
    /// Parses a template; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(mut rest) = text.strip_prefix('/') else {
            return Err(format!("`{text}` does not begin with `/`"));
        };
        let mut parts = Vec::new();
        let mut literal = String::from("/");
        // Each round parses one segment and the `/` or `:verb` after it.
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('{') {
                let Some((inside, after)) = inside.split_once('}') else {
                    return Err(format!("`{{{inside}` is not closed"));
                };
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Variable(Variable::parse(inside)?));
                rest = after;
            } else {
                let end = rest.find(['/', '{']).unwrap_or(rest.len());
                let (segment, after) = rest.split_at(end);
                if after.starts_with('{') {
                    return Err(format!(
                        "`{segment}{after}`: a variable must be a complete segment"
                    ));
                }
                check_literal(segment)?;
                literal.push_str(segment);
                rest = after;
            }
            if let Some(after) = rest.strip_prefix('/') {
                literal.push('/');
                rest = after;
            } else if let Some(verb) = rest.strip_prefix(':') {
                if verb.contains('/') {
                    return Err(format!("`:{verb}`: a verb must end the path"));
                }
                check_literal(verb)?;
                literal.push(':');
                literal.push_str(verb);
                rest = "";
            } else if !rest.is_empty() {
                return Err(format!("`{rest}`: a variable must be a complete segment"));
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self { parts })
    }

    /// Returns the last segment when it is fixed text and not the only segment.
    pub fn last_literal(&self) -> Option<&str> {
        let Some(Part::Literal(text)) = self.parts.last() else {
            return None;
        };
        let (before, last) = text.rsplit_once('/')?;
        let fixed = !last.is_empty() && !last.contains(':');
        (fixed && (self.parts.len() > 1 || !before.is_empty())).then_some(last)
    }
}

impl Variable {
    fn parse(text: &str) -> Result<Self, String> {
        let (path, pattern) = match text.split_once('=') {
            Some((path, pattern)) => (path, pattern),
            None => (text, "*"),
        };
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !path.split('.').all(is_name) {
            return Err(format!("`{{{text}}}`: `{path}` is not the name of a field"));
        }
        let mut segments = Vec::new();
        for segment in pattern.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(format!("`{{{text}}}`: `**` must end the pattern"));
            }
            segments.push(match segment {
                "*" => Segment::One,
                "**" => Segment::Rest,
                literal => {
                    check_literal(literal)?;
                    // A pattern is compared with the value before that is encoded.
                    if literal.contains('%') {
                        return Err(format!("`{{{text}}}`: a pattern cannot contain `%`"));
                    }
                    Segment::Literal(literal.into())
                }
            });
        }
        Ok(Self {
            path: path.into(),
            pattern: segments,
        })
    }

    /// Returns whether every value fits that is not empty.
    pub fn fits_all(&self) -> bool {
        matches!(*self.pattern, [Segment::One] | [Segment::Rest])
    }

    /// Returns whether the value, which is not empty, has the form of the pattern.
    pub fn fits(&self, value: &str) -> bool {
        if *self.pattern == [Segment::One] {
            return true;
        }
        let mut segments = value.split('/');
        for expected in &self.pattern {
            let fits = match (expected, segments.next()) {
                (Segment::Rest, _) => return true,
                (Segment::One, Some(_)) => true,
                (Segment::Literal(literal), Some(segment)) => *segment == **literal,
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        segments.next().is_none()
    }

    /// Appends `value` to `out`, percent-encoded. The error says why it cannot be in a
    /// path; `out` is then undefined.
    pub fn write(&self, value: &str, out: &mut String) -> Result<(), String> {
        if value.is_empty() {
            return Err("is part of the path and must not be empty".into());
        }
        // Within one segment, too: the slash is encoded there, but servers that decode
        // a path before they route it would see the dots again.
        if let Some(dots) = value.split('/').find(|s| matches!(*s, "." | "..")) {
            return Err(format!(
                "must not have `{dots}` as a path segment: it would name another resource"
            ));
        }
        if *self.pattern == [Segment::One] {
            encode(value, out);
            return Ok(());
        }
        let mut segments = value.split('/');
        for (at, expected) in self.pattern.iter().enumerate() {
            if at > 0 {
                out.push('/');
            }
            match expected {
                Segment::Rest => {
                    for (at, segment) in segments.by_ref().enumerate() {
                        if at > 0 {
                            out.push('/');
                        }
                        encode(self.filled(segment)?, out);
                    }
                }
                Segment::One => match segments.next() {
                    Some(segment) => encode(self.filled(segment)?, out),
                    None => return Err(self.mismatch()),
                },
                Segment::Literal(literal) => match segments.next() {
                    Some(segment) if *segment == **literal => out.push_str(literal),
                    _ => return Err(self.mismatch()),
                },
            }
        }
        match segments.next() {
            None => Ok(()),
            Some(_) => Err(self.mismatch()),
        }
    }

    fn filled<'v>(&self, segment: &'v str) -> Result<&'v str, String> {
        if segment.is_empty() {
            return Err(match *self.pattern == [Segment::Rest] {
                true => "must not have an empty segment, at its ends or between two `/`".into(),
                false => format!("{}, and none of its segments may be empty", self.mismatch()),
            });
        }
        Ok(segment)
    }

    fn mismatch(&self) -> String {
        let pattern: Vec<&str> = self
            .pattern
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text,
                Segment::One => "*",
                Segment::Rest => "**",
            })
            .collect();
        format!("must have the form `{}`", pattern.join("/"))
    }
}

/// Appends `text` to `out`; all but unreserved characters become upper-case `%XX`.
pub(super) fn encode(text: &str, out: &mut String) {
    out.extend(utf8_percent_encode(text, RESERVED));
}

/// Checks a fixed segment: the characters that RFC 3986 allows in one, but not `.` or
/// `..`.
fn check_literal(text: &str) -> Result<(), String> {
    match text {
        "" => return Err("a segment is empty".into()),
        "*" | "**" => {
            return Err(format!(
                "`{text}` has no field: name one, as in `{{name={text}}}`"
            ));
        }
        "." | ".." => return Err(format!("`{text}` cannot be a segment")),
        _ => {}
    }
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let fine = match byte {
            b'%' => {
                let hex = bytes.get(at + 1..at + 3);
                hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            }
            b'?' => {
                return Err(format!(
                    "`{text}`: a path has no query: use `constant_query`"
                ));
            }
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' | b':' | b'@' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !fine {
            return Err(format!(
                "`{text}`: `{}` must be percent-encoded",
                text[at..].chars().next().unwrap_or_default()
            ));
        }
    }
    Ok(())
}

/// Returns a path template with `{}` in place of its variables.
pub(super) fn shape(template: &str) -> String {
    let mut shape = String::with_capacity(template.len());
    let mut parts = template.split('{');
    shape.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let after = part.split_once('}').map_or("", |(_, after)| after);
        shape.push_str("{}");
        shape.push_str(after);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Part {
        Part::Literal(text.into())
    }

    fn variable(path: &str, pattern: Vec<Segment>) -> Part {
        Part::Variable(Variable {
            path: path.into(),
            pattern,
        })
    }

    #[test]
    fn templates_parse() {
        use Segment::{Literal, One, Rest};
        for (text, want) in [
            ("/", vec![literal("/")]),
            ("/v1/stacks", vec![literal("/v1/stacks")]),
            ("/v1/stacks/", vec![literal("/v1/stacks/")]),
            (
                "/v1/{project_id}/stacks/{stack.id}",
                vec![
                    literal("/v1/"),
                    variable("project_id", vec![One]),
                    literal("/stacks/"),
                    variable("stack.id", vec![One]),
                ],
            ),
            (
                "/v1/{name=projects/*/things/**}:undelete",
                vec![
                    literal("/v1/"),
                    variable(
                        "name",
                        vec![
                            Literal("projects".into()),
                            One,
                            Literal("things".into()),
                            Rest,
                        ],
                    ),
                    literal(":undelete"),
                ],
            ),
            (
                "/{a=*}/{b=**}",
                vec![
                    literal("/"),
                    variable("a", vec![One]),
                    literal("/"),
                    variable("b", vec![Rest]),
                ],
            ),
            ("/v1/a%20b:c", vec![literal("/v1/a%20b:c")]),
        ] {
            assert_eq!(Template::parse(text).unwrap().parts, want, "{text}");
        }
    }

    #[test]
    fn malformed_templates_are_rejected() {
        for (text, want) in [
            ("", "does not begin with `/`"),
            ("v1/stacks", "does not begin with `/`"),
            ("/v1//stacks", "a segment is empty"),
            ("/v1/{a", "is not closed"),
            ("/v1/{}", "is not the name of a field"),
            ("/v1/{a..b}", "is not the name of a field"),
            ("/v1/{1a}", "is not the name of a field"),
            ("/v1/{a={b}}", "must be percent-encoded"),
            ("/v1/{a}b", "a variable must be a complete segment"),
            ("/v1/{a}{b}", "a variable must be a complete segment"),
            ("/v1/a{b}", "a variable must be a complete segment"),
            ("/v1/{a=**/b}", "`**` must end the pattern"),
            ("/v1/{a=b//c}", "a segment is empty"),
            ("/v1/{a=b%20c}", "a pattern cannot contain `%`"),
            ("/v1/*", "`*` has no field"),
            ("/v1/**", "`**` has no field"),
            ("/v1/../x", "`..` cannot be a segment"),
            ("/v1/x?y=1", "use `constant_query`"),
            ("/v1/x#y", "must be percent-encoded"),
            ("/v1/a b", "must be percent-encoded"),
            ("/v1/ä", "`ä` must be percent-encoded"),
            ("/v1/%2", "`%` must be percent-encoded"),
            ("/v1/{a}:", "a segment is empty"),
            ("/v1/{a}:b/c", "a verb must end the path"),
            ("/v1/}", "must be percent-encoded"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    fn write(pattern: &str, value: &str) -> Result<String, String> {
        let mut out = String::new();
        Variable::parse(&format!("v={pattern}"))
            .unwrap()
            .write(value, &mut out)
            .map(|()| out)
    }

    #[test]
    fn values_are_encoded_segment_by_segment() {
        for (pattern, value, want) in [
            ("*", "abc-._~09", "abc-._~09"),
            ("*", "a/b", "a%2Fb"),
            ("*", "a b+c", "a%20b%2Bc"),
            (
                "*",
                "?#&=;:@!$'()*,",
                "%3F%23%26%3D%3B%3A%40%21%24%27%28%29%2A%2C",
            ),
            ("*", "%2e%2e", "%252e%252e"),
            ("*", "...", "..."),
            ("*", "a..b", "a..b"),
            ("*", "line\nbreak\r\0\u{7f}", "line%0Abreak%0D%00%7F"),
            ("*", "スタック", "%E3%82%B9%E3%82%BF%E3%83%83%E3%82%AF"),
            ("*", "\\..\\", "%5C..%5C"),
            ("**", "a/b c/d", "a/b%20c/d"),
            ("projects/*", "projects/p 1", "projects/p%201"),
            (
                "projects/*/things/**",
                "projects/p/things/a/b",
                "projects/p/things/a/b",
            ),
            ("op:s/*", "op:s/1", "op:s/1"),
        ] {
            assert_eq!(
                write(pattern, value).as_deref(),
                Ok(want),
                "{pattern} {value}"
            );
        }
    }

    #[test]
    fn values_that_would_change_the_path_are_rejected() {
        for (pattern, value, want) in [
            ("*", "", "must not be empty"),
            ("**", "", "must not be empty"),
            ("*", ".", "`.` as a path segment"),
            ("*", "..", "`..` as a path segment"),
            ("*", "a/../b", "`..` as a path segment"),
            ("**", "a/../b", "`..` as a path segment"),
            ("**", "a//b", "none of its segments may be empty"),
            ("**", "/a", "none of its segments may be empty"),
            ("**", "a/", "none of its segments may be empty"),
            ("projects/*", "projects", "the form `projects/*`"),
            (
                "projects/*",
                "projects/",
                "none of its segments may be empty",
            ),
            ("projects/*", "project/p", "the form `projects/*`"),
            ("projects/*", "projects/p/q", "the form `projects/*`"),
            ("projects/*/**", "projects/..", "`..` as a path segment"),
        ] {
            let error = write(pattern, value).expect_err(value);
            assert!(error.contains(want), "{pattern} {value}: {error}");
        }
    }

    #[test]
    fn last_literal_is_the_fixed_last_segment() {
        for (text, want) in [
            ("/a/{b}/invoke", Some("invoke")),
            ("/a/invoke", Some("invoke")),
            ("/invoke", None),
            ("/a/{b}", None),
            ("/a/{b}:invoke", None),
            ("/a/b:invoke", None),
            ("/a/{b}/", None),
            ("/", None),
        ] {
            assert_eq!(
                Template::parse(text).unwrap().last_literal(),
                want,
                "{text}"
            );
        }
    }
}
