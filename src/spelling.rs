//! Hints for misspelt words.

/// Suffixes of keys that a user may forget.
const SUFFIXES: [&str; 4] = ["_env", "_file", "_secs", "_bytes"];

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
        (all && !is_suffix).then_some(64 + candidate.len())
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

/// Returns the Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
