//! Sections of the file, read key by key. What is asked for is known; what is
//! left over is an error.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::{Env, Problem, read_file, read_text, set};

/// What an address must be.
pub(super) const ADDRESS: &str = "must be an IP address and a port, as 127.0.0.1:50051";

/// The longest duration: a year.
const MAX_SECS: f64 = 31_536_000.0;

/// Ends of keys that a reader may leave out.
const UNITS: [&str; 4] = ["_env", "_file", "_secs", "_bytes"];

/// All that is wrong, as it is found.
pub(super) struct Report {
    file: String,
    /// Where each line begins.
    lines: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self {
            file: file.to_owned(),
            lines: breaks.map(|(at, _)| at + 1).collect(),
            problems: RefCell::default(),
        }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Tells of a problem at this byte of the file.
    pub(super) fn tell(&self, at: usize, key: &str, problem: &str) {
        self.push(Problem {
            file: self.file.clone(),
            line: Some(1 + self.lines.partition_point(|start| *start <= at)),
            key: key.to_owned(),
            problem: problem.to_owned(),
        });
    }

    pub(super) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The value, if nothing is wrong; else the problems in the file's order.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<Problem>> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        let mut told = HashSet::new();
        problems.retain(|problem| told.insert(problem.to_string()));
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(problems)
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A table of the file. One that is not there has no keys.
pub(super) struct Section<'a> {
    report: &'a Report,
    table: Option<&'a DeTable<'a>>,
    path: String,
    at: usize,
    folder: &'a Path,
    env: Env<'a>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(
        report: &'a Report,
        table: &'a DeTable<'a>,
        folder: &'a Path,
        env: Env<'a>,
    ) -> Self {
        Self {
            report,
            table: Some(table),
            path: String::new(),
            at: 0,
            folder,
            env,
            asked: RefCell::default(),
        }
    }

    /// The environment.
    pub(super) fn env(&self) -> Env<'a> {
        self.env
    }

    /// The whole name of a key.
    fn name(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.asked.borrow().iter().any(|asked| asked == key) {
            self.asked.borrow_mut().push(key.to_owned());
        }
        let entry = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(entry.1)
    }

    /// Tells of a problem with this key, where it stands or else where the
    /// section does.
    pub(super) fn wrong(&self, key: &str, problem: &str) {
        let found = self.table.and_then(|table| {
            let entry = table.iter().find(|(name, _)| name.get_ref() == key)?;
            Some(entry.0.span().start)
        });
        self.report
            .tell(found.unwrap_or(self.at), &self.name(key), problem);
    }

    /// Tells of a problem at another place of the file.
    pub(super) fn wrong_at(&self, at: usize, key: &str, problem: &str) {
        self.report.tell(at, &self.name(key), problem);
    }

    fn sort(&self, key: &str, wanted: &str, value: &DeValue<'_>) {
        self.wrong(key, &format!("must be {wanted}, is {}", kind(value)));
    }

    /// The table of this name; an empty one where it is not there.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let found = self.get(key);
        let table = found.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.sort(key, &format!("a table, [{}]", self.name(key)), other);
                None
            }
        });
        self.below(
            key,
            table,
            found.map_or(self.at, |value| value.span().start),
        )
    }

    /// The tables of an array of tables.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(found) = self.get(key) else {
            return Vec::new();
        };
        let wanted = format!("a list of tables, [[{}]]", self.name(key));
        let DeValue::Array(items) = found.get_ref() else {
            self.sort(key, &wanted, found.get_ref());
            return Vec::new();
        };
        let tables = items.iter().filter_map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(self.below(key, Some(table), item.span().start)),
            other => {
                self.sort(key, &wanted, other);
                None
            }
        });
        tables.collect()
    }

    fn below(&self, key: &str, table: Option<&'a DeTable<'a>>, at: usize) -> Section<'a> {
        Section {
            report: self.report,
            table,
            path: self.name(key),
            at,
            folder: self.folder,
            env: self.env,
            asked: RefCell::default(),
        }
    }

    /// A text; an empty one is an error.
    pub(super) fn text(&self, key: &str) -> Option<Found<String>> {
        let found = self.get(key)?;
        match found.get_ref() {
            DeValue::String(text) if text.trim().is_empty() => {
                self.wrong(key, "is empty: give it a value or leave it out");
                None
            }
            DeValue::String(text) => Some(Found {
                value: text.trim().to_owned(),
                at: found.span().start,
            }),
            other => {
                self.sort(key, "a text in quotes", other);
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&self, key: &str) -> Option<Found<String>> {
        if !self.has(key) {
            self.wrong(key, "is missing");
        }
        self.text(key)
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)?.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                self.sort(key, "true or false", other);
                None
            }
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let DeValue::Integer(n) = self.get(key)?.get_ref() else {
            self.sort(key, "a whole number", self.get(key)?.get_ref());
            return None;
        };
        let n = i64::from_str_radix(n.as_str(), n.radix()).ok();
        let n = n.filter(|n| (min..=max).contains(n));
        if n.is_none() {
            self.wrong(key, &format!("must be from {min} to {max}"));
        }
        n
    }

    /// A number of things or bytes.
    pub(super) fn size(&self, key: &str, min: i64, into: &mut usize) {
        if let Some(n) = self.number(key, min, 1 << 40) {
            *into = usize::try_from(n).unwrap_or(usize::MAX);
        }
    }

    /// Seconds, more than none.
    pub(super) fn duration(&self, key: &str, into: &mut Duration) {
        self.seconds(key, 0.001, into);
    }

    /// Seconds, or none.
    pub(super) fn duration_or_zero(&self, key: &str, into: &mut Duration) {
        self.seconds(key, 0.0, into);
    }

    fn seconds(&self, key: &str, min: f64, into: &mut Duration) {
        let Some(found) = self.get(key) else { return };
        let seconds = match found.get_ref() {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
                .ok()
                .map(|n| n as f64),
            DeValue::Float(n) => n.as_str().parse().ok(),
            other => return self.sort(key, "a number of seconds", other),
        };
        match seconds.filter(|s: &f64| (min..=MAX_SECS).contains(s)) {
            Some(seconds) => *into = Duration::from_secs_f64(seconds),
            None => self.wrong(key, &format!("must be from {min} to {MAX_SECS} seconds")),
        }
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let near = nearest(&text.value, words.iter().copied());
            self.wrong(key, &format!("must be one of {}{near}", words.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn address(&self, key: &str) -> Option<SocketAddr> {
        let parsed = self.text(key)?.value.parse();
        if parsed.is_err() {
            self.wrong(key, ADDRESS);
        }
        parsed.ok()
    }

    /// An http or https address without credentials, query and fragment.
    pub(super) fn url(&self, key: &str) -> Option<Url> {
        let text = self.text(key)?.value;
        let problem = match Url::parse(&text) {
            Err(e) => format!("is not a URL: {e}"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                "must begin with https:// or http://".to_owned()
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                "must have no query and no fragment".to_owned()
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "must hold no credentials: they belong to [upstream.auth]".to_owned()
            }
            Ok(url) => return Some(url),
        };
        self.wrong(key, &problem);
        None
    }

    /// The path of a file that is there, relative to the configuration.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        let path = self.folder.join(self.text(key)?.value);
        if !path.is_file() {
            self.wrong(key, &format!("there is no file {}", path.display()));
            return None;
        }
        Some(path)
    }

    /// What a file holds.
    pub(super) fn file(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        read_file(&path)
            .map_err(|problem| self.wrong(key, &problem))
            .ok()
    }

    /// What a file holds that must be named.
    pub(super) fn required_file(&self, key: &str) -> Option<Vec<u8>> {
        self.required_text(key)?;
        self.file(key)
    }

    /// Whether a secret is given, in whichever way.
    pub(super) fn has_secret(&self, key: &str) -> bool {
        let [env, file] = [format!("{key}_env"), format!("{key}_file")];
        self.has(&env) || self.has(&file) || self.has(key)
    }

    /// A secret: the variable that `KEY_env` names, or the file `KEY_file`.
    pub(super) fn secret(&self, key: &str) -> Option<SecretString> {
        let [env, file] = [format!("{key}_env"), format!("{key}_file")];
        if self.has(key) {
            let problem = format!("secrets do not stand in this file: use {env} or {file}");
            self.wrong(key, &problem);
            return None;
        }
        if self.has(&env) && self.has(&file) {
            self.wrong(&file, &format!("there is {env} too: leave one out"));
            return None;
        }
        if self.has(&env) {
            let variable = self.text(&env)?.value;
            let value = set(self.env, &variable);
            if value.is_none() {
                self.wrong(&env, &format!("the variable {variable} is not set"));
            }
            return value.map(SecretString::from);
        }
        let path = self.path(&file)?;
        match read_text(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.wrong(&file, &format!("{} is empty", path.display()));
                None
            }
            Ok(text) => Some(SecretString::from(text.trim())),
            Err(problem) => {
                self.wrong(&file, &problem);
                None
            }
        }
    }

    /// A secret that must be there.
    pub(super) fn required_secret(&self, key: &str) -> Option<SecretString> {
        if !self.has_secret(key) {
            self.wrong(
                &format!("{key}_env"),
                &format!("is missing: name a variable here, or a file in {key}_file"),
            );
            return None;
        }
        self.secret(key)
    }

    /// Says that these keys may be there, whether they are asked for or not.
    pub(super) fn know(&self, keys: &[&str]) {
        let mut asked = self.asked.borrow_mut();
        asked.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Tells of every key that is not known.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref();
            if !asked.iter().any(|known| known == name) {
                let near = nearest(name, asked.iter().map(String::as_str));
                let at = key.span().start;
                self.wrong_at(at, name, &format!("unknown key{near}"));
            }
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Returns `, did you mean X?` for the known word that is spelled most alike, or else for
/// the shortest that has every part of `word`: `drain_timeout_secs` for `drain_secs`.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    let alike = |candidate: &str| {
        let bare = UNITS.iter().find_map(|unit| candidate.strip_suffix(unit));
        let forms = std::iter::once(candidate).chain(bare);
        let least = forms.map(|form| distance(word, form)).min()?;
        (least <= 1 + word.len() / 5).then_some(least)
    };
    let parts: Vec<&str> = word.split('_').collect();
    let is_only_unit = UNITS.iter().any(|unit| &unit[1..] == word);
    let contains_all = |candidate: &str| {
        let all = parts
            .iter()
            .all(|part| candidate.split('_').any(|p| p == *part));
        (all && !is_only_unit).then_some(64 + candidate.len())
    };
    let near = known
        .filter_map(|candidate| {
            let rank = alike(candidate).or_else(|| contains_all(candidate))?;
            Some((rank, candidate))
        })
        .min_by_key(|(rank, _)| *rank);
    near.map_or_else(String::new, |(_, candidate)| {
        format!(", did you mean {candidate}?")
    })
}

/// How many letters must be changed, added or left out (Levenshtein).
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
