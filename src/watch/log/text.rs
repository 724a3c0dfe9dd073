//! How a text that grows is read line by line, and what is done when it has lost
//! its front: many upstreams bound their logs and drop the oldest part.
//!
//! Offsets go on counting as if nothing had gone. Each read begins a little before
//! what is wanted, with what was read last: when that does not come first, the text
//! has moved, and is looked through for it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::position::{At, Page, offset};
use crate::error::Error;
use drawbridge_transcoder::contract::{Entry, Log};

/// The most that is kept of what was read last, in bytes; no more than a quarter of
/// what is read at once.
const ANCHOR: usize = 1_024;
/// The most parts that are looked through.
const MAX_PARTS: u32 = 64;

/// A text that is read in parts.
pub(super) trait Parts: Sync {
    /// At most `size` bytes from an offset on, as the upstream counts it.
    fn part(&self, from: u64, size: u32) -> impl Future<Output = Result<String, Error>> + Send;
}

/// What all reads of a text know of it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last read brought nothing new.
    idle: AtomicBool,
    /// How much of its front has gone since it was first read, as far as was seen.
    gone: AtomicU64,
}

/// Reads what stands behind `at`; `sizes` is how much is read at once, and how much
/// when nothing came.
pub(super) async fn page(
    parts: &impl Parts,
    progress: &Progress,
    at: At,
    sizes: (u32, u32),
) -> Result<Page, Error> {
    let text = Text {
        parts,
        progress,
        sizes,
    };
    let gone = progress.gone.load(Relaxed);
    let behind = at.marker.as_deref().map_or(0, offset);
    let most = ANCHOR.min(sizes.0 as usize / 4);
    if behind == 0 {
        return Ok(lines(&text.read(0, 0).await?, gone, &at, most));
    }
    let from = behind.saturating_sub(gone);
    if from == 0 && behind == gone && at.anchor.is_empty() {
        return Ok(lines(&text.read(0, 0).await?, behind, &at, most));
    }
    // Of an offset that a caller gave, only that a line has ended there.
    let given = at.anchor.is_empty();
    let mut at = at;
    if given {
        at.anchor = "\n".into();
    }
    if let Some(start) = from.checked_sub(at.anchor.len() as u64) {
        let read = text.read(start, at.anchor.len()).await?;
        match read.strip_prefix(&*at.anchor) {
            Some(rest) => return Ok(lines(rest, behind, &at, most)),
            None if given && !read.is_empty() => {
                at.anchor = Box::default();
                return Ok(lines(&text.read(from, 0).await?, behind, &at, most));
            }
            None => {}
        }
    }
    text.moved(behind, &at, most).await
}

struct Text<'a, P> {
    parts: &'a P,
    progress: &'a Progress,
    sizes: (u32, u32),
}

impl<P: Parts> Text<'_, P> {
    /// What stands at `from`, of which the first `known` bytes are not new.
    async fn read(&self, from: u64, known: usize) -> Result<String, Error> {
        let (first_size, max_size) = self.sizes;
        let mut size = match self.progress.idle.load(Relaxed) {
            false => first_size,
            true => max_size,
        };
        loop {
            let whole = size.saturating_add(known as u32).min(max_size);
            let text = self.parts.part(from, whole).await?;
            let idle = text.len() <= known;
            self.progress.idle.store(idle, Relaxed);
            if !idle || size >= max_size {
                return Ok(text);
            }
            // A line longer than what was asked for does not come at all.
            size = max_size;
        }
    }

    /// The text does not stand any more where it stood: goes on behind what was read
    /// last, if that is left, and else from what is the front now, behind a mark that
    /// something is lost.
    async fn moved(&self, behind: u64, at: &At, most: usize) -> Result<Page, Error> {
        let last_line = at.anchor.trim_end_matches('\n').rfind('\n');
        let last_line = &at.anchor[last_line.map_or(0, |end| end + 1)..];
        for anchor in [&*at.anchor, last_line] {
            if let Some((rest, at_front)) = self.find(anchor, behind).await? {
                let gone = behind.saturating_sub(at_front);
                self.progress.gone.fetch_max(gone, Relaxed);
                return Ok(lines(&rest, behind, at, most));
            }
        }
        // The mark counts as a byte, so that offsets still only grow.
        let mark = behind.saturating_add(1);
        let gone = self.progress.gone.fetch_max(mark, Relaxed).max(mark);
        let mut page = lines(&self.read(0, 0).await?, gone, &At::default(), most);
        page.entries.insert(0, Entry::lost(mark.to_string().into()));
        Ok(page)
    }

    /// What stands behind the first place of `anchor` within the part that has it,
    /// and the offset there.
    async fn find(&self, anchor: &str, behind: u64) -> Result<Option<(String, u64)>, Error> {
        let mut read = 0;
        let mut kept = String::new();
        for _ in 0..MAX_PARTS {
            // The end of a line alone stands anywhere.
            if anchor.trim_end().is_empty() || read > behind {
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
            // It may stand across two parts.
            kept = end_of(&kept, anchor.len()).to_owned();
        }
        Ok(None)
    }
}

/// The lines of a text that begins at `from`, behind `at`; each has the offset behind
/// it as its key. `most` bytes are kept of it.
fn lines(text: &str, from: u64, at: &At, most: usize) -> Page {
    let mut page = Page {
        last: text.is_empty(),
        ..Page::default()
    };
    let mut rest = text;
    let mut offset = from;
    if at.open {
        // The end of the line before.
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
    page.next = Some(At {
        marker: Some(offset.to_string().into()),
        open: match text.is_empty() {
            true => at.open,
            false => !text.ends_with('\n'),
        },
        anchor: anchor(&at.anchor, text, most),
    });
    page
}

/// The end of what was read, as far as it is kept: whole lines, if it has one.
fn anchor(before: &str, text: &str, most: usize) -> Box<str> {
    let all = before.len() + text.len();
    let new = end_of(text, most);
    let kept = [end_of(before, most - new.len()), new].concat();
    let whole = match kept.find('\n') {
        Some(end) if kept.len() < all && end + 1 < kept.len() => &kept[end + 1..],
        _ => &kept,
    };
    whole.into()
}

/// At most so many bytes at the end of a text.
fn end_of(text: &str, most: usize) -> &str {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A text that is read as the upstream has it.
    #[derive(Default)]
    struct World {
        text: Mutex<String>,
        progress: Progress,
    }

    impl Parts for World {
        async fn part(&self, from: u64, size: u32) -> Result<String, Error> {
            let text = self.text.lock().unwrap();
            let rest = text.get(from as usize..).unwrap_or_default();
            let part = &rest[..rest.len().min(size as usize)];
            Ok(part[..part.rfind('\n').map_or(0, |end| end + 1)].to_owned())
        }
    }

    impl World {
        fn of(text: &str) -> Self {
            Self {
                text: Mutex::new(text.to_owned()),
                ..Self::default()
            }
        }

        /// So many bytes go at the front, and this comes.
        fn rolls(&self, gone: usize, come: &str) {
            let mut text = self.text.lock().unwrap();
            text.drain(..gone);
            text.push_str(come);
        }

        /// Reads to the end: what is told, with the offsets behind it.
        async fn told(&self, at: &mut At) -> String {
            let mut told = Vec::new();
            loop {
                let page = page(self, &self.progress, at.clone(), (80, 1_000)).await;
                let page = page.unwrap();
                *at = page.next.unwrap();
                for entry in page.entries {
                    let line = match entry.is_lost() {
                        true => "GAP".to_owned(),
                        false => String::from_utf8_lossy(&entry.bytes[2..]).into_owned(),
                    };
                    let line = line.split('\u{10}').next().unwrap().to_owned();
                    told.push(format!("{line}@{}", entry.key));
                }
                if page.last {
                    return told.join(" ");
                }
            }
        }
    }

    fn behind(offset: u64) -> At {
        At {
            marker: Some(offset.to_string().into()),
            ..At::default()
        }
    }

    #[tokio::test]
    async fn a_text_that_loses_its_front_is_followed() {
        let world = World::of("one\ntwo\n");
        let mut at = At::default();
        assert_eq!(world.told(&mut at).await, "one@4 two@8");
        assert_eq!(world.told(&mut at).await, "");
        // What was read last has moved to the front, and a long line comes.
        let long = "l".repeat(100);
        world.rolls(4, &format!("three\n{long}\n"));
        assert_eq!(world.told(&mut at).await, format!("three@14 {long}@115"));
        world.rolls(4, "four\n");
        assert_eq!(world.told(&mut at).await, "four@120");
        // A reader that comes later counts as all others.
        let mut late = At::default();
        assert_eq!(
            world.told(&mut late).await,
            format!("three@14 {long}@115 four@120")
        );
        // It has all gone, and more with it, perhaps.
        world.rolls(6 + 101 + 5, "five\nsix\n");
        assert_eq!(world.told(&mut at).await, "GAP@121 five@126 six@130");
        assert_eq!(world.told(&mut at).await, "");
        world.rolls(9, "");
        assert_eq!(world.told(&mut at).await, "GAP@131");
        assert_eq!(world.told(&mut at).await, "");
        world.rolls(0, "seven\n");
        assert_eq!(world.told(&mut at).await, "seven@137");
    }

    #[tokio::test]
    async fn where_a_caller_begins() {
        for (offset, want, then) in [
            (0, "one@4 two@8", "newer@14"),
            (4, "two@8", "newer@14"),
            // Within a line, as he says.
            (5, "wo@8", "newer@14"),
            // What he was told before is not known.
            (8, "", "GAP@9 two@13 newer@19"),
            (9, "GAP@10 one@14 two@18", "newer@24"),
            (5_000, "GAP@5001 one@5005 two@5009", "newer@5015"),
        ] {
            let world = World::of("one\ntwo\n");
            let mut at = behind(offset);
            assert_eq!(world.told(&mut at).await, want, "{offset}");
            world.rolls(4, "newer\n");
            assert_eq!(world.told(&mut at).await, then, "{offset}");
        }
    }

    #[test]
    fn texts_become_lines() {
        let told = |text, from, open| {
            let at = At {
                open,
                ..At::default()
            };
            let page = lines(text, from, &at, ANCHOR);
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
            assert_eq!(told(text, from, open), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_kept_is_whole_lines() {
        let long = "x".repeat(2_000);
        for (before, text, want) in [
            ("", "", ""),
            ("a\n", "", "a\n"),
            ("a\n", "b\n", "a\nb\n"),
            ("a\n", &*long, &long[..ANCHOR]),
            (&format!("{long}\nb\n"), "c\n", "b\nc\n"),
            ("", &format!("{long}\nb\n"), "b\n"),
            (
                "",
                &format!("{long}\n"),
                &format!("{}\n", &long[..ANCHOR - 1]),
            ),
            ("", &"日".repeat(400), &"日".repeat(341)),
        ] {
            assert_eq!(&*anchor(before, text, ANCHOR), want, "{before} {text}");
        }
    }
}
