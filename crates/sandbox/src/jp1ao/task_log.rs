//! Log of a task, with a maximum size (V12 2.7.21).

use std::time::SystemTime;

use super::time_format;

/// Maximum size of a log. JP1/AO limits it as well (AG12 8.9.3).
const MAX_LOG_BYTES: usize = 64 << 10;

/// Complete lines with line ends.
#[derive(Clone, Debug, Default)]
pub struct Log {
    text: String,
}

impl Log {
    /// Appends a line. Removes line ends within the text.
    pub fn line(&mut self, at: SystemTime, text: &str) {
        let text: String = text
            .chars()
            .take(1000)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        self.text
            .push_str(&format!("{} {text}\n", time_format::format(at, false)));
        let over = self.text.len().saturating_sub(MAX_LOG_BYTES);
        if over > 0 {
            let bytes = self.text.as_bytes();
            let line = bytes.iter().skip(over).position(|byte| *byte == b'\n');
            self.text.drain(..line.map_or(0, |end| over + end + 1));
        }
    }

    /// Returns the complete lines in `size` bytes after `offset`, or before it if
    /// reversed. A line that exceeds the size is omitted. An offset outside the log
    /// yields nothing; one within a character is moved to the character's end.
    pub fn read(&self, offset: Option<usize>, size: usize, reverse: bool) -> &str {
        let boundary = |mut at: usize| {
            while !self.text.is_char_boundary(at) {
                at += 1;
            }
            at
        };
        let end = self.text.len();
        if reverse {
            let to = boundary(offset.unwrap_or(end).min(end));
            let part = &self.text[boundary(to.saturating_sub(size))..to];
            if part.len() == to {
                return part;
            }
            // The first line is complete only if a line ends just before it.
            let before = self.text[..to - part.len()].ends_with('\n');
            return match part.find('\n') {
                _ if before => part,
                Some(first) => &part[first + 1..],
                None => "",
            };
        }
        let from = boundary(offset.unwrap_or(0).min(end));
        let part = &self.text.as_bytes()[from..from.saturating_add(size).min(end)];
        match part.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => &self.text[from..=from + last],
            None => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    /// `one\n`, `zwölf\n` (7 bytes), `three\n`: 17 bytes.
    fn log() -> Log {
        Log {
            text: "one\nzwölf\nthree\n".to_owned(),
        }
    }

    #[test]
    fn only_complete_lines_are_returned() {
        for (offset, size, want) in [
            (None, 1000, "one\nzwölf\nthree\n"),
            (None, usize::MAX, "one\nzwölf\nthree\n"),
            (Some(0), 17, "one\nzwölf\nthree\n"),
            (Some(0), 16, "one\nzwölf\n"),
            (Some(0), 4, "one\n"),
            (Some(0), 3, ""),
            (Some(4), 7, "zwölf\n"),
            (Some(4), 6, ""),
            (Some(11), 100, "three\n"),
            (Some(12), 100, "hree\n"),
            // Within the ö: moved to its end.
            (Some(7), 4, "lf\n"),
            (Some(17), 100, ""),
            (Some(18), 100, ""),
            (Some(usize::MAX), usize::MAX, ""),
            (None, 0, ""),
        ] {
            assert_eq!(log().read(offset, size, false), want, "{offset:?} {size}");
        }
    }

    #[test]
    fn reverse_reads_backwards() {
        for (offset, size, want) in [
            (None, 1000, "one\nzwölf\nthree\n"),
            (None, 17, "one\nzwölf\nthree\n"),
            (None, 16, "zwölf\nthree\n"),
            (None, 13, "zwölf\nthree\n"),
            (None, 6, "three\n"),
            (None, 5, ""),
            (Some(11), 7, "zwölf\n"),
            (Some(11), 100, "one\nzwölf\n"),
            (Some(0), 100, ""),
            (Some(99), 6, "three\n"),
            (None, usize::MAX, "one\nzwölf\nthree\n"),
        ] {
            assert_eq!(log().read(offset, size, true), want, "{offset:?} {size}");
        }
    }

    #[test]
    fn oldest_complete_lines_are_dropped() {
        let mut log = Log::default();
        for line in 0..5000 {
            log.line(UNIX_EPOCH, &format!("line {line}\nof 日本"));
        }
        assert!(log.text.len() <= MAX_LOG_BYTES);
        assert!(
            log.text.starts_with("1970-01-01T09:00:00.000+09:00 line "),
            "{}",
            &log.text[..40]
        );
        assert!(log.text.ends_with("line 4999 of 日本\n"));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_input_does_not_panic(lines in proptest::collection::vec(".{0,20}", 0..20), offset: Option<usize>, near in 0usize..300, size in 0usize..300) {
            let mut log = Log::default();
            for line in &lines {
                log.line(UNIX_EPOCH, line);
            }
            for offset in [offset, Some(near)] {
                for reverse in [false, true] {
                    let part = log.read(offset, size, reverse);
                    proptest::prop_assert!(part.len() <= size && (part.is_empty() || part.ends_with('\n') || reverse));
                }
            }
        }
    }
}
