//! Reads a growing text line by line, also when the upstream drops the oldest part of it,
//! as many do to bound their logs.
//!
//! Offsets count all bytes since the first read, including dropped ones. Each read begins
//! a little before the wanted offset, at the text that was read last, the anchor. If the
//! response does not begin with the anchor, the text has moved, and is searched for it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::position::{Page, ReadPosition, offset};
use crate::error::Error;
use drawbridge_transcoder::contract::{Entry, Log};

/// The largest anchor, in bytes; at anchor_size a quarter of one read.
const MAX_ANCHOR_BYTES: usize = 1_024;
/// The largest number of parts that are searched for the anchor.
const MAX_SEARCHED_PARTS: u32 = 64;

/// A text that is read in parts.
pub(super) trait Parts: Sync {
    /// Reads at most `size` bytes from an offset of the upstream on.
    fn part(&self, from: u64, size: u32) -> impl Future<Output = Result<String, Error>> + Send;
}

/// What all readers of a text share.
#[derive(Debug, Default)]
pub(super) struct TextProgress {
    /// The last read had nothing new.
    idle: AtomicBool,
    /// How many bytes the upstream has dropped since the first read, as far as known.
    dropped: AtomicU64,
}

/// Reads the text after `at`. `sizes` are the bytes of one read, and those of a read
/// after one that had nothing new.
pub(super) async fn page(
    parts: &impl Parts,
    progress: &TextProgress,
    at: ReadPosition,
    sizes: (u32, u32),
) -> Result<Page, Error> {
    let text = Text {
        parts,
        progress,
        sizes,
    };
    let dropped = progress.dropped.load(Relaxed);
    let reached = at.marker.as_deref().map_or(0, offset);
    let anchor_size = MAX_ANCHOR_BYTES.min(sizes.0 as usize / 4);
    if reached == 0 {
        return Ok(lines(&text.read(0, 0).await?, dropped, &at, anchor_size));
    }
    let from = reached.saturating_sub(dropped);
    if from == 0 && reached == dropped && at.anchor.is_empty() {
        return Ok(lines(&text.read(0, 0).await?, reached, &at, anchor_size));
    }
    // The client's offset has no anchor; a line must have ended there.
    let is_requested = at.anchor.is_empty();
    let mut at = at;
    if is_requested {
        at.anchor = "\n".into();
    }
    if let Some(start) = from.checked_sub(at.anchor.len() as u64) {
        let read = text.read(start, at.anchor.len()).await?;
        match read.strip_prefix(&*at.anchor) {
            Some(rest) => return Ok(lines(rest, reached, &at, anchor_size)),
            None if is_requested && !read.is_empty() => {
                at.anchor = Box::default();
                return Ok(lines(&text.read(from, 0).await?, reached, &at, anchor_size));
            }
            None => {}
        }
    }
    text.read_moved(reached, &at, anchor_size).await
}

struct Text<'a, P> {
    parts: &'a P,
    progress: &'a TextProgress,
    sizes: (u32, u32),
}

impl<P: Parts> Text<'_, P> {
    /// Reads the text at `from`, whose first `known` bytes are not new.
    async fn read(&self, from: u64, known: usize) -> Result<String, Error> {
        let (first_size, max_size) = self.sizes;
        let mut size = match self.progress.idle.load(Relaxed) {
            false => first_size,
            true => max_size,
        };
        loop {
            let bytes = size.saturating_add(known as u32).min(max_size);
            let text = self.parts.part(from, bytes).await?;
            let idle = text.len() <= known;
            self.progress.idle.store(idle, Relaxed);
            if !idle || size >= max_size {
                return Ok(text);
            }
            // The upstream omits a line that is longer than the read.
            size = max_size;
        }
    }

    /// Reads a text that has moved: after the anchor if the text still has it, otherwise
    /// from the new start, with a gap before it.
    async fn read_moved(
        &self,
        reached: u64,
        at: &ReadPosition,
        anchor_size: usize,
    ) -> Result<Page, Error> {
        let last_line = at.anchor.trim_end_matches('\n').rfind('\n');
        let last_line = &at.anchor[last_line.map_or(0, |end| end + 1)..];
        for anchor in [&*at.anchor, last_line] {
            if let Some((rest, at_front)) = self.find(anchor, reached).await? {
                let dropped = reached.saturating_sub(at_front);
                self.progress.dropped.fetch_max(dropped, Relaxed);
                return Ok(lines(&rest, reached, at, anchor_size));
            }
        }
        // The gap counts as a byte, so that offsets still increase.
        let mark = reached.saturating_add(1);
        let dropped = self.progress.dropped.fetch_max(mark, Relaxed).max(mark);
        let mut page = lines(
            &self.read(0, 0).await?,
            dropped,
            &ReadPosition::default(),
            anchor_size,
        );
        page.entries.insert(0, Entry::gap(mark.to_string().into()));
        Ok(page)
    }

    /// Searches the text for `anchor`. Returns the text after it, to the end of that
    /// part, and its offset.
    async fn find(&self, anchor: &str, reached: u64) -> Result<Option<(String, u64)>, Error> {
        let mut read = 0;
        let mut kept = String::new();
        for _ in 0..MAX_SEARCHED_PARTS {
            // A line break alone may be anywhere.
            if anchor.trim_end().is_empty() || read > reached {
                break;
            }
            let part = self.parts.part(read, self.sizes.1).await?;
            if part.is_empty() {
                break;
            }
            read += part.len() as u64;
            kept.push_str(&part);
            if let Some(found) = kept.find(anchor) {
                let rest = kept.split_off(found + anchor.len());
                let at = read - rest.len() as u64;
                return Ok(Some((rest, at)));
            }
            // The anchor may span two parts.
            kept = end_of(&kept, anchor.len()).to_owned();
        }
        Ok(None)
    }
}

/// Splits a text that begins at `from`, after `at`, into lines. The key of a line is the
/// offset after it. `anchor_size` is the size of the anchor.
fn lines(text: &str, from: u64, at: &ReadPosition, anchor_size: usize) -> Page {
    let mut page = Page {
        last: text.is_empty(),
        ..Page::default()
    };
    let mut rest = text;
    let mut offset = from;
    if at.open {
        // The line break of the previous line.
        let end = ["\r\n", "\n"].iter().find(|end| rest.starts_with(**end));
        let end = end.map_or(0, |end| end.len());
        rest = &rest[end..];
        offset += end as u64;
    }
    for line in rest.split_inclusive('\n') {
        let begin = offset;
        offset += line.len() as u64;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        page.entries.push(Entry {
            key: offset.to_string().into(),
            order: None,
            bytes: Log::line(line, begin),
        });
    }
    page.next = Some(ReadPosition {
        marker: Some(offset.to_string().into()),
        open: match text.is_empty() {
            true => at.open,
            false => !text.ends_with('\n'),
        },
        anchor: anchor(&at.anchor, text, anchor_size),
    });
    page
}

/// Returns the anchor: the last bytes that were read, without a partial first line.
fn anchor(before: &str, text: &str, anchor_size: usize) -> Box<str> {
    let all = before.len() + text.len();
    let new = end_of(text, anchor_size);
    let kept = [end_of(before, anchor_size - new.len()), new].concat();
    let trimmed = match kept.find('\n') {
        Some(end) if kept.len() < all && end + 1 < kept.len() => &kept[end + 1..],
        _ => &kept,
    };
    trimmed.into()
}

/// Returns at most so many bytes at the end of a text.
fn end_of(text: &str, size: usize) -> &str {
    let mut from = text.len().saturating_sub(size);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A scripted upstream with one text.
    #[derive(Default)]
    struct ScriptedText {
        text: Mutex<String>,
        progress: TextProgress,
    }

    impl Parts for ScriptedText {
        async fn part(&self, from: u64, size: u32) -> Result<String, Error> {
            let text = self.text.lock().unwrap();
            let rest = text.get(from as usize..).unwrap_or_default();
            let part = &rest[..rest.len().min(size as usize)];
            Ok(part[..part.rfind('\n').map_or(0, |end| end + 1)].to_owned())
        }
    }

    impl ScriptedText {
        fn of(text: &str) -> Self {
            Self {
                text: Mutex::new(text.to_owned()),
                ..Self::default()
            }
        }

        /// Drops bytes at the start and appends a text.
        fn rotate(&self, dropped: usize, appended: &str) {
            let mut text = self.text.lock().unwrap();
            text.drain(..dropped);
            text.push_str(appended);
        }

        /// Reads to the end. Returns each line with the offset after it.
        async fn read_to_end(&self, at: &mut ReadPosition) -> String {
            let mut lines = Vec::new();
            loop {
                let page = page(self, &self.progress, at.clone(), (80, 1_000)).await;
                let page = page.unwrap();
                *at = page.next.unwrap();
                for entry in page.entries {
                    let line = match entry.is_gap() {
                        true => "GAP".to_owned(),
                        false => String::from_utf8_lossy(&entry.bytes[2..]).into_owned(),
                    };
                    let line = line.split('\u{10}').next().unwrap().to_owned();
                    lines.push(format!("{line}@{}", entry.key));
                }
                if page.last {
                    return lines.join(" ");
                }
            }
        }
    }

    fn reached(offset: u64) -> ReadPosition {
        ReadPosition {
            marker: Some(offset.to_string().into()),
            ..ReadPosition::default()
        }
    }

    #[tokio::test]
    async fn text_is_followed_after_its_start_is_dropped() {
        let script = ScriptedText::of("one\ntwo\n");
        let mut at = ReadPosition::default();
        assert_eq!(script.read_to_end(&mut at).await, "one@4 two@8");
        assert_eq!(script.read_to_end(&mut at).await, "");
        // The anchor has moved to the start, and a long line follows.
        let long = "l".repeat(100);
        script.rotate(4, &format!("three\n{long}\n"));
        assert_eq!(
            script.read_to_end(&mut at).await,
            format!("three@14 {long}@115")
        );
        script.rotate(4, "four\n");
        assert_eq!(script.read_to_end(&mut at).await, "four@120");
        // A later reader counts the same offsets.
        let mut late = ReadPosition::default();
        assert_eq!(
            script.read_to_end(&mut late).await,
            format!("three@14 {long}@115 four@120")
        );
        // The anchor was dropped, and perhaps more.
        script.rotate(6 + 101 + 5, "five\nsix\n");
        assert_eq!(
            script.read_to_end(&mut at).await,
            "GAP@121 five@126 six@130"
        );
        assert_eq!(script.read_to_end(&mut at).await, "");
        script.rotate(9, "");
        assert_eq!(script.read_to_end(&mut at).await, "GAP@131");
        assert_eq!(script.read_to_end(&mut at).await, "");
        script.rotate(0, "seven\n");
        assert_eq!(script.read_to_end(&mut at).await, "seven@137");
    }

    #[tokio::test]
    async fn text_is_read_from_a_requested_offset() {
        for (offset, want, then) in [
            (0, "one@4 two@8", "newer@14"),
            (4, "two@8", "newer@14"),
            // In the middle of a line, as requested.
            (5, "wo@8", "newer@14"),
            // The line before the offset is not known.
            (8, "", "GAP@9 two@13 newer@19"),
            (9, "GAP@10 one@14 two@18", "newer@24"),
            (5_000, "GAP@5001 one@5005 two@5009", "newer@5015"),
        ] {
            let script = ScriptedText::of("one\ntwo\n");
            let mut at = reached(offset);
            assert_eq!(script.read_to_end(&mut at).await, want, "{offset}");
            script.rotate(4, "newer\n");
            assert_eq!(script.read_to_end(&mut at).await, then, "{offset}");
        }
    }

    #[test]
    fn texts_are_split_into_lines() {
        let split = |text, from, open| {
            let at = ReadPosition {
                open,
                ..ReadPosition::default()
            };
            let page = lines(text, from, &at, MAX_ANCHOR_BYTES);
            let keys: Vec<String> = page.entries.iter().map(|e| e.key.to_string()).collect();
            let next = page.next.unwrap();
            (keys.join(" "), next.marker.unwrap().to_string(), next.open)
        };
        for (text, from, open, keys, next, still_open) in [
            ("", 7, false, "", "7", false),
            ("", 7, true, "", "7", true),
            ("a\nbc\n", 0, false, "2 5", "5", false),
            ("a\r\n\r\nb", 10, false, "13 15 16", "16", true),
            ("\nb\n", 16, true, "19", "19", false),
            ("\nb\n", 16, false, "17 19", "19", false),
            ("日本\n", 3, false, "10", "10", false),
        ] {
            let want = (keys.to_owned(), next.to_owned(), still_open);
            assert_eq!(split(text, from, open), want, "{text:?}");
        }
    }

    #[test]
    fn anchor_has_no_partial_first_line() {
        let long = "x".repeat(2_000);
        for (before, text, want) in [
            ("", "", ""),
            ("a\n", "", "a\n"),
            ("a\n", "b\n", "a\nb\n"),
            ("a\n", &*long, &long[..MAX_ANCHOR_BYTES]),
            (&format!("{long}\nb\n"), "c\n", "b\nc\n"),
            ("", &format!("{long}\nb\n"), "b\n"),
            (
                "",
                &format!("{long}\n"),
                &format!("{}\n", &long[..MAX_ANCHOR_BYTES - 1]),
            ),
            ("", &"日".repeat(400), &"日".repeat(341)),
        ] {
            assert_eq!(
                &*anchor(before, text, MAX_ANCHOR_BYTES),
                want,
                "{before} {text}"
            );
        }
    }
}
