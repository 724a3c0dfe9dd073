//! Error messages of Python's `json` module, which Heat returns to clients.
//!
//! serde_json decides what is valid; this module only finds the position and the
//! reason.

/// Returns the message of Python's `JSONDecodeError`, or `None` if Python accepts the
/// text (`NaN`, for example).
pub(super) fn json_error(text: &str) -> Option<String> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
    };
    let (what, at) = match reader.document() {
        Ok(()) => return None,
        Err(found) => found,
    };
    let before = &reader.chars[..at.min(reader.chars.len())];
    let line = before.iter().filter(|&&c| c == '\n').count() + 1;
    let column = match before.iter().rposition(|&c| c == '\n') {
        Some(newline) => at - newline,
        None => at + 1,
    };
    Some(format!("{what}: line {line} column {column} (char {at})"))
}

/// Formats a value like Python's `json.dumps`, with a space after `,` and `:`.
pub(super) fn dumps(value: &serde_json::Value) -> String {
    let mut out = String::new();
    dump(value, &mut out);
    out
}

fn dump(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                dump(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(": ");
                dump(member, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Reason, and index of the character.
type SyntaxError = (&'static str, usize);

/// Maximum nesting depth; deeper errors are reported without a position.
const MAX_DEPTH: usize = 128;

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn document(&mut self) -> Result<(), SyntaxError> {
        self.space();
        self.value(0)?;
        self.space();
        match self.peek() {
            Some(_) => Err(("Extra data", self.at)),
            None => Ok(()),
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), SyntaxError> {
        match self.peek() {
            _ if depth > MAX_DEPTH => Err(("Expecting value", self.at)),
            Some('{') => self.members('}', depth),
            Some('[') => self.members(']', depth),
            Some('"') => self.string(),
            Some('-' | '0'..='9') => self.number(),
            _ => self.word(),
        }
    }

    /// Reads the members of an object or array.
    fn members(&mut self, end: char, depth: usize) -> Result<(), SyntaxError> {
        let object = end == '}';
        self.at += 1;
        self.space();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(());
        }
        loop {
            if object {
                if self.peek() != Some('"') {
                    return Err(("Expecting property name enclosed in double quotes", self.at));
                }
                self.string()?;
                self.space();
                if self.peek() != Some(':') {
                    return Err(("Expecting ':' delimiter", self.at));
                }
                self.at += 1;
                self.space();
            }
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(c) if c == end => break,
                Some(',') => self.at += 1,
                _ => return Err(("Expecting ',' delimiter", self.at)),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), SyntaxError> {
        let begin = self.at;
        self.at += 1;
        loop {
            let c = self
                .peek()
                .ok_or(("Unterminated string starting at", begin))?;
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(());
                }
                '\\' => self.escape(begin)?,
                '\0'..='\u{1f}' => return Err(("Invalid control character at", self.at)),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self, begin: usize) -> Result<(), SyntaxError> {
        let backslash = self.at;
        self.at += 1;
        match self.peek() {
            None => Err(("Unterminated string starting at", begin)),
            Some('u') => {
                let digits = self.chars.get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(char::is_ascii_hexdigit)) {
                    return Err(("Invalid \\uXXXX escape", self.at));
                }
                self.at += 5;
                Ok(())
            }
            Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(("Invalid \\escape", backslash)),
        }
    }

    /// Reads the longest valid number, as Python does; the rest is another token's
    /// error.
    fn number(&mut self) -> Result<(), SyntaxError> {
        let begin = self.at;
        if self.peek() == Some('-') {
            self.at += 1;
            if self.peek() == Some('I') {
                self.at = begin;
                return self.word();
            }
        }
        match self.peek() {
            Some('0') => self.at += 1,
            Some('1'..='9') => self.digits(),
            _ => {
                self.at = begin;
                return Err(("Expecting value", begin));
            }
        }
        if self.peek() == Some('.') && self.digit_at(self.at + 1) {
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.chars.get(self.at + 1), Some('+' | '-')));
            if self.digit_at(self.at + 1 + sign) {
                self.at += 1 + sign;
                self.digits();
            }
        }
        Ok(())
    }

    fn digit_at(&self, at: usize) -> bool {
        self.chars.get(at).is_some_and(char::is_ascii_digit)
    }

    fn digits(&mut self) {
        while self.digit_at(self.at) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<(), SyntaxError> {
        for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
            let end = self.at + word.len();
            if self
                .chars
                .get(self.at..end)
                .is_some_and(|found| found.iter().copied().eq(word.chars()))
            {
                self.at = end;
                return Ok(());
            }
        }
        Err(("Expecting value", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::{dumps, json_error};

    #[test]
    fn dumps_with_spaces() {
        let value = serde_json::json!({"k": [1, {"a": null}], "é": "\""});
        assert_eq!(dumps(&value), r#"{"k": [1, {"a": null}], "é": "\""}"#);
    }

    /// The expected messages are those of CPython 3.11.
    #[test]
    fn messages_are_those_of_cpython() {
        for (text, want) in [
            (
                r#"{"name": "x", "#,
                "Expecting property name enclosed in double quotes: line 1 column 15 (char 14)",
            ),
            (
                r#"{"config": a}"#,
                "Expecting value: line 1 column 12 (char 11)",
            ),
            (
                r#"{"a" 1}"#,
                "Expecting ':' delimiter: line 1 column 6 (char 5)",
            ),
            (
                r#"{"a": 1 "b"}"#,
                "Expecting ',' delimiter: line 1 column 9 (char 8)",
            ),
            (
                "{\"a\": 1\n\n",
                "Expecting ',' delimiter: line 3 column 1 (char 9)",
            ),
            (
                r#"{"a": "b"#,
                "Unterminated string starting at: line 1 column 7 (char 6)",
            ),
            (
                "{\"a\":\n\"b\tc\"}",
                "Invalid control character at: line 2 column 3 (char 8)",
            ),
            (
                r#"{"a": "\x"}"#,
                "Invalid \\escape: line 1 column 8 (char 7)",
            ),
            (
                r#"{"a": "\u12"}"#,
                "Invalid \\uXXXX escape: line 1 column 9 (char 8)",
            ),
            (
                r#"{"a": [1, 2,]}"#,
                "Expecting value: line 1 column 13 (char 12)",
            ),
            (
                r#"{"a": 01}"#,
                "Expecting ',' delimiter: line 1 column 8 (char 7)",
            ),
            (r#"{"a": -}"#, "Expecting value: line 1 column 7 (char 6)"),
            (r#"{} {}"#, "Extra data: line 1 column 4 (char 3)"),
            (
                "{",
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            ),
        ] {
            assert_eq!(json_error(text).as_deref(), Some(want), "{text}");
        }
        for text in ["{}", r#"{"a": NaN, "b": [-Infinity, 1e5, 1.5, null]}"#] {
            assert_eq!(json_error(text), None, "{text}");
        }
    }
}
