//! Suggestions for misspelled words: configuration keys, variables, names, log levels.

/// Suffixes of keys that a user may forget.
const SUFFIXES: [&str; 4] = ["_env", "_file", "_secs", "_bytes"];

/// Limit of the compared part of a word, in characters.
const MAX_WORD_CHARS: usize = 64;

/// Returns `, did you mean X?` for the known word with the most similar spelling, or else for
/// the shortest one with all parts of `word`: `drain_timeout_secs` for `drain_secs`.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    let similarity = |candidate: &str| {
        let bare = SUFFIXES
            .iter()
            .find_map(|suffix| candidate.strip_suffix(suffix));
        let forms = std::iter::once(candidate).chain(bare);
        let least = forms.map(|form| distance(word, form)).min()?;
        (least <= 1 + word.len() / 5).then_some(least)
    };
    let parts: Vec<&str> = word.split('_').collect();
    let is_suffix = SUFFIXES.iter().any(|suffix| &suffix[1..] == word);
    let has_all_parts = |candidate: &str| {
        let all = parts
            .iter()
            .all(|part| candidate.split('_').any(|p| p == *part));
        (all && !is_suffix).then_some(MAX_WORD_CHARS + candidate.len())
    };
    let near = known
        .filter_map(|candidate| {
            let rank = similarity(candidate).or_else(|| has_all_parts(candidate))?;
            Some((rank, candidate))
        })
        .min_by_key(|(rank, _)| *rank);
    near.map_or_else(String::new, |(_, candidate)| {
        format!(", did you mean {candidate}?")
    })
}

/// Returns the number of edits between two words: inserted, deleted and replaced characters,
/// and swapped neighbors (optimal string alignment).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(MAX_WORD_CHARS).collect();
    let b: Vec<char> = b.chars().take(MAX_WORD_CHARS).collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_nearest_word() {
        let keys = [
            "endpoint",
            "drain_timeout_secs",
            "password_env",
            "password_file",
        ];
        let levels = ["error", "warn", "info"];
        for (word, known, want) in [
            ("pasword", &keys[..], ", did you mean password_env?"),
            ("drain", &keys, ", did you mean drain_timeout_secs?"),
            ("endpont", &keys, ", did you mean endpoint?"),
            ("timeout_secs", &keys, ", did you mean drain_timeout_secs?"),
            ("secs", &keys, ""),
            ("colour", &keys, ""),
            ("inof", &levels, ", did you mean info?"),
            ("eror", &levels, ", did you mean error?"),
            ("loud", &levels, ""),
        ] {
            assert_eq!(nearest(word, known.iter().copied()), want, "{word}");
        }
    }

    #[test]
    fn swapped_neighbors_are_one_edit() {
        for (a, b, want) in [
            ("", "", 0),
            ("abc", "", 3),
            ("inof", "info", 1),
            ("abc", "acb", 1),
            ("abc", "cab", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
            assert_eq!(distance(b, a), want, "{b} {a}");
        }
    }
}
