//! Sections of the configuration file, read key by key. A key that no code reads is an error.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::reload::write_value;
use super::{Env, Problem, non_empty, read_file, read_text};
use crate::credentials::clouds_yaml::Notice;
use crate::spelling::nearest;

/// The problem of an invalid address.
pub(super) const ADDRESS: &str = "must be an IP address and a port, like 127.0.0.1:50051";

/// An IP address and a port, as a regular expression of JSON Schema.
const ADDRESS_PATTERN: &str = r"([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}";

/// A URL without credentials, query and fragment, as a regular expression of JSON Schema.
const URL_PATTERN: &str = r"^https?://[^/?#@]+(/[^?#]*)?$";

/// Maximum duration in seconds: a year.
const MAX_DURATION_SECS: f64 = 31_536_000.0;

/// A key as its reader describes it.
#[derive(Debug)]
pub(super) struct KeySchema {
    /// Its path, for example `upstream.auth.kind`.
    pub(super) path: String,
    /// Its type, range, choices and default.
    pub(super) schema: Value,
    /// Whether it must be present.
    pub(super) is_required: bool,
}

impl KeySchema {
    pub(super) fn new(path: String, schema: Value) -> Self {
        Self {
            path,
            schema,
            is_required: false,
        }
    }
}

/// Collects problems.
pub(super) struct Report {
    file: String,
    /// The offset of each line but the first.
    lines: Vec<usize>,
    /// The first offset behind the text: the place of the first variable.
    end: usize,
    /// The variables of the environment that are keys, by their places.
    variables: Vec<String>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    ignored_keys: RefCell<Vec<String>>,
    /// The keys that the readers read, if they are to be described.
    described: Option<RefCell<Vec<KeySchema>>>,
}

impl Report {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self {
            file: file.to_owned(),
            lines: breaks.map(|(at, _)| at + 1).collect(),
            end: text.len() + 1,
            variables: Vec::new(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            ignored_keys: RefCell::default(),
            described: None,
        }
    }

    /// Returns a report for readers that describe what they read instead of reading it.
    pub(super) fn describing() -> Self {
        Self {
            described: Some(RefCell::default()),
            ..Self::new("", "")
        }
    }

    /// Returns the keys that were read, in this order, each once.
    pub(super) fn into_described(self) -> Vec<KeySchema> {
        self.described.map(RefCell::into_inner).unwrap_or_default()
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Adds a problem at this byte offset of the file.
    pub(super) fn add_at(&self, at: usize, key: &str, problem: &str) {
        self.add(self.at(at, key, problem));
    }

    /// Names the variables whose values are read as keys.
    pub(super) fn set_variables<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.variables = names.map(str::to_owned).collect();
    }

    /// Returns the place of a variable, behind the text.
    pub(super) fn place_of_variable(&self, number: usize) -> usize {
        self.end + number
    }

    /// Returns the variable at a place; none for a place in the file.
    fn variable_at(&self, at: usize) -> Option<&str> {
        let number = at.checked_sub(self.end)?;
        self.variables.get(number).map(String::as_str)
    }

    /// Adds a problem at this byte offset that does not prevent the start.
    pub(super) fn warn_at(&self, at: usize, key: &str, problem: &str) {
        self.warn(self.at(at, key, problem));
    }

    /// Returns a problem at this byte offset of the file, or of the variable at this place.
    fn at(&self, at: usize, key: &str, problem: &str) -> Problem {
        if let Some(variable) = self.variable_at(at) {
            let last = key.rsplit('.').next().unwrap_or_default().to_uppercase();
            return match variable.ends_with(&last) {
                true => Problem::of_variable(variable, problem),
                // Of another key of the same table.
                false => Problem::of_variable(variable, &format!("{key}: {problem}")),
            };
        }
        Problem {
            file: self.file.clone(),
            line: Some(1 + self.lines.partition_point(|start| *start <= at)),
            key: key.to_owned(),
            problem: problem.to_owned(),
        }
    }

    /// Adds a problem that does not prevent the start.
    pub(super) fn warn(&self, problem: Problem) {
        self.warnings.borrow_mut().push(problem);
    }

    /// Returns the warnings, and removes them.
    pub(super) fn take_warnings(&self) -> Vec<Problem> {
        self.warnings.take()
    }

    pub(super) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Returns the ignored keys, and removes them.
    pub(super) fn take_ignored_keys(&self) -> Vec<String> {
        self.ignored_keys.take()
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Returns the value if there are no problems, otherwise the problems by line.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<Problem>> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.to_string()));
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(problems)
        }
    }
}

/// A value and its byte offset in the file.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A table of the file. An absent table has no keys.
pub(super) struct Section<'a> {
    report: &'a Report,
    table: Option<&'a DeTable<'a>>,
    path: String,
    at: usize,
    directory: &'a Path,
    env: Env<'a>,
    /// The keys that were read.
    known: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(
        report: &'a Report,
        table: &'a DeTable<'a>,
        directory: &'a Path,
        env: Env<'a>,
    ) -> Self {
        Self {
            report,
            table: Some(table),
            path: String::new(),
            at: 0,
            directory,
            env,
            known: RefCell::default(),
        }
    }

    /// Returns an absent section, whose readers describe their keys if `report` does.
    pub(super) fn absent(report: &'a Report, path: &str, env: Env<'a>) -> Self {
        Self {
            report,
            table: None,
            path: path.to_owned(),
            at: 0,
            directory: Path::new(""),
            env,
            known: RefCell::default(),
        }
    }

    /// Describes a key that is read here. The first description of a key, which is that of the
    /// most specific reader, stays.
    fn describe(&self, key: &str, schema: impl FnOnce() -> Value) {
        let Some(described) = &self.report.described else {
            return;
        };
        let path = self.name(key);
        let mut described = described.borrow_mut();
        if !described.iter().any(|key| key.path == path) {
            described.push(KeySchema::new(path, schema()));
        }
    }

    /// Describes a key that must be present.
    pub(super) fn describe_required(&self, key: &str) {
        self.change_description(key, |key| key.is_required = true);
    }

    /// Describes the value that an absent key has.
    pub(super) fn describe_default(&self, key: &str, value: impl Into<Value>) {
        self.change_description(key, |key| key.schema["default"] = value.into());
    }

    /// Adds a rule to the description of a key.
    pub(super) fn describe_rule(&self, key: &str, rule: &str, value: impl FnOnce() -> Value) {
        self.change_description(key, |key| key.schema[rule] = value());
    }

    fn change_description(&self, key: &str, change: impl FnOnce(&mut KeySchema)) {
        if let Some(described) = &self.report.described {
            let path = self.name(key);
            let mut described = described.borrow_mut();
            described
                .iter_mut()
                .find(|key| key.path == path)
                .map(change);
        }
    }

    /// Returns the environment.
    pub(super) fn env(&self) -> Env<'a> {
        self.env
    }

    /// Returns the full name of a key, for example `upstream.auth.kind`.
    fn name(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Returns whether the section has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.borrow().iter().any(|known| known == key) {
            self.known.borrow_mut().push(key.to_owned());
        }
        let entry = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(entry.1)
    }

    /// Reports a problem of a key, at the key or, if it is absent, at the section.
    pub(super) fn invalid(&self, key: &str, problem: &str) {
        self.report
            .add_at(self.start(key), &self.name(key), problem);
    }

    /// Returns the byte offset of a key; of the section, if it does not have the key.
    pub(super) fn start(&self, key: &str) -> usize {
        let found = self.table.and_then(|table| {
            let entry = table.iter().find(|(name, _)| name.get_ref() == key)?;
            Some(entry.0.span().start)
        });
        found.unwrap_or(self.at)
    }

    /// Reports a problem of a key that does not prevent the start.
    pub(super) fn warn(&self, key: &str, problem: &str) {
        self.warn_at(self.start(key), key, problem);
    }

    /// Reports a problem of a key at this byte offset of the file.
    pub(super) fn invalid_at(&self, at: usize, key: &str, problem: &str) {
        self.report.add_at(at, &self.name(key), problem);
    }

    /// Reports a problem with a place of its own.
    pub(super) fn add(&self, problem: Problem) {
        self.report.add(problem);
    }

    /// Reports what another file has and what does not prevent the start: a warning, or a key
    /// that is ignored.
    pub(super) fn notice(&self, notice: Notice) {
        match notice.is_warning {
            true => self.report.warn(Problem::from(notice.text)),
            false => self.report.ignored_keys.borrow_mut().push(notice.text),
        }
    }

    /// Reports a problem of a key at this byte offset that does not prevent the start.
    pub(super) fn warn_at(&self, at: usize, key: &str, problem: &str) {
        self.report
            .warn(self.report.at(at, &self.name(key), problem));
    }

    fn wrong_type(&self, key: &str, wanted: &str, value: &DeValue<'_>) {
        self.invalid(key, &format!("must be {wanted}, is {}", kind(value)));
    }

    /// Returns the table of this name, an empty one if it is absent.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        self.describe(key, || json!({"type": "object"}));
        let found = self.get(key);
        let table = found.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong_type(key, &format!("a table, [{}]", self.name(key)), other);
                None
            }
        });
        self.below(
            key,
            table,
            found.map_or(self.at, |value| value.span().start),
        )
    }

    /// Returns the table of this name, if it is present.
    pub(super) fn optional_section(&self, key: &str) -> Option<Section<'a>> {
        let section = self.section(key);
        (self.has(key) || self.report.described.is_some()).then_some(section)
    }

    /// Returns the tables of an array of tables.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        self.describe(key, || json!({"type": "array"}));
        if self.report.described.is_some() {
            return vec![self.below(key, None, 0)];
        }
        let Some(found) = self.get(key) else {
            return Vec::new();
        };
        let wanted = format!("an array of tables, [[{}]]", self.name(key));
        let DeValue::Array(items) = found.get_ref() else {
            self.wrong_type(key, &wanted, found.get_ref());
            return Vec::new();
        };
        let tables = items.iter().filter_map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(self.below(key, Some(table), item.span().start)),
            other => {
                self.wrong_type(key, &wanted, other);
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
            directory: self.directory,
            env: self.env,
            known: RefCell::default(),
        }
    }

    /// Returns the table as a text that is the same for equal tables.
    pub(super) fn text_of_all(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.table.into_iter().flatten() {
            text.push_str(key.get_ref());
            text.push('=');
            write_value(value.get_ref(), &mut text);
            text.push(';');
        }
        text
    }

    /// Returns the text of a value that a variable has, whatever the type of its key.
    fn variable(&self, found: &'a Spanned<DeValue<'a>>) -> Option<&'a str> {
        self.report.variable_at(found.span().start)?;
        found.get_ref().as_str().map(str::trim)
    }

    /// Reads a string. A blank one is an error.
    pub(super) fn text(&self, key: &str) -> Option<Found<String>> {
        self.describe(key, || json!({"type": "string", "pattern": "\\S"}));
        let found = self.get(key)?;
        match found.get_ref() {
            DeValue::String(text) if text.trim().is_empty() => {
                self.invalid(key, "is empty: set a value or remove the key");
                None
            }
            DeValue::String(text) => Some(Found {
                value: text.trim().to_owned(),
                at: found.span().start,
            }),
            other => {
                self.wrong_type(key, "a string in quotes", other);
                None
            }
        }
    }

    /// Reads a string that must be present.
    pub(super) fn required_text(&self, key: &str) -> Option<Found<String>> {
        if !self.has(key) {
            self.invalid(key, "is missing");
        }
        let text = self.text(key);
        self.describe_required(key);
        text
    }

    /// Returns the file and the line of the section: `drawbridge.toml:12`.
    pub(super) fn place(&self) -> String {
        let place = self.report.at(self.at, "", "");
        match place.line {
            Some(line) => format!("{}:{line}", place.file),
            None => place.file,
        }
    }

    /// Reads a table with a string, or an array of strings, for each key.
    pub(super) fn text_map(&self, key: &str) -> Option<Vec<(String, Vec<Found<String>>)>> {
        let text = || json!({"type": "string", "pattern": "\\S"});
        self.describe(key, || {
            let values = json!([text(), {"type": "array", "items": text()}]);
            json!({"type": "object", "additionalProperties": {"anyOf": values}})
        });
        let Some(found) = self.get(key) else {
            return Some(Vec::new());
        };
        let DeValue::Table(table) = found.get_ref() else {
            self.wrong_type(key, "a table of strings", found.get_ref());
            return None;
        };
        let section = self.below(key, Some(table), found.span().start);
        let entries = table.iter().filter_map(|(name, value)| {
            let name = name.get_ref();
            let values = match value.get_ref() {
                DeValue::Array(_) => section.texts(name)?,
                _ => vec![section.text(name)?],
            };
            if values.is_empty() {
                section.invalid(name, "allows nothing: name a value, or remove the key");
            }
            Some((name.to_string(), values))
        });
        Some(entries.collect())
    }

    /// Reads an array of strings, none of them blank.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<Found<String>>> {
        let items = || json!({"type": "string", "pattern": "\\S"});
        self.describe(key, || json!({"type": "array", "items": items()}));
        let found = self.get(key)?;
        if let Some(text) = self.variable(found) {
            let texts = text
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty());
            let found = texts.map(|text| Found {
                value: text.to_owned(),
                at: found.span().start,
            });
            return Some(found.collect());
        }
        let wanted = "an array of strings in quotes";
        let DeValue::Array(items) = found.get_ref() else {
            self.wrong_type(key, wanted, found.get_ref());
            return None;
        };
        let texts = items.iter().filter_map(|item| match item.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => Some(Found {
                value: text.trim().to_owned(),
                at: item.span().start,
            }),
            DeValue::String(_) => {
                self.invalid_at(item.span().start, key, "has an empty string");
                None
            }
            other => {
                self.wrong_type(key, wanted, other);
                None
            }
        });
        Some(texts.collect())
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.describe(key, || json!({"type": "boolean"}));
        let found = self.get(key)?;
        if let Some(flag) = self.variable(found).and_then(|text| text.parse().ok()) {
            return Some(flag);
        }
        match found.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                self.wrong_type(key, "true or false", other);
                None
            }
        }
    }

    /// Reads a flag, if present.
    pub(super) fn flag_into(&self, key: &str, into: &mut bool) {
        let flag = self.flag(key);
        self.describe_default(key, *into);
        *into = flag.unwrap_or(*into);
    }

    /// Reads an integer from `min` to `max`, if present.
    pub(super) fn number_into(&self, key: &str, min: u32, max: u32, into: &mut u32) {
        let n = self.number(key, i64::from(min), i64::from(max));
        self.describe_default(key, *into);
        *into = n.and_then(|n| n.try_into().ok()).unwrap_or(*into);
    }

    /// Reads an integer from `min` to `max`.
    pub(super) fn number(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        self.describe(
            key,
            || json!({"type": "integer", "minimum": min, "maximum": max}),
        );
        let found = self.get(key)?;
        let n = match (
            self.variable(found).and_then(|text| text.parse().ok()),
            found.get_ref(),
        ) {
            (Some(n), _) => Some(n),
            (None, DeValue::Integer(n)) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            (None, other) => {
                self.wrong_type(key, "an integer", other);
                return None;
            }
        };
        let n = n.filter(|n| (min..=max).contains(n));
        if n.is_none() {
            self.invalid(key, &format!("must be from {min} to {max}"));
        }
        n
    }

    /// Reads a count or a number of bytes, if present.
    pub(super) fn size(&self, key: &str, min: i64, into: &mut usize) {
        let n = self.number(key, min, 1 << 40);
        self.describe_default(key, *into);
        if let Some(n) = n {
            *into = usize::try_from(n).unwrap_or(usize::MAX);
        }
    }

    /// Reads a positive number of seconds, if present.
    pub(super) fn duration(&self, key: &str, into: &mut Duration) {
        self.seconds(key, 0.001, into);
    }

    /// Reads a number of seconds, if present. It may be 0.
    pub(super) fn duration_or_zero(&self, key: &str, into: &mut Duration) {
        self.seconds(key, 0.0, into);
    }

    fn seconds(&self, key: &str, min: f64, into: &mut Duration) {
        let [least, most] = [min, MAX_DURATION_SECS].map(number);
        self.describe(
            key,
            || json!({"type": "number", "minimum": least, "maximum": most}),
        );
        self.describe_default(key, number(into.as_secs_f64()));
        let Some(found) = self.get(key) else { return };
        let of_variable = self.variable(found).and_then(|text| text.parse().ok());
        let seconds = match found.get_ref() {
            DeValue::String(_) if of_variable.is_some() => of_variable,
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
                .ok()
                .map(|n| n as f64),
            DeValue::Float(n) => n.as_str().parse().ok(),
            other => return self.wrong_type(key, "a number of seconds", other),
        };
        match seconds.filter(|s: &f64| (min..=MAX_DURATION_SECS).contains(s)) {
            Some(seconds) => *into = Duration::from_secs_f64(seconds),
            None => self.invalid(
                key,
                &format!("must be from {min} to {MAX_DURATION_SECS} seconds"),
            ),
        }
    }

    /// Reads one of these words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        self.describe(
            key,
            || json!({"type": "string", "enum": words().collect::<Vec<_>>()}),
        );
        let text = self.text(key)?;
        let found = choices.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let near = nearest(&text.value, words.iter().copied());
            self.invalid(key, &format!("must be one of {}{near}", words.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn address(&self, key: &str) -> Option<SocketAddr> {
        self.describe(
            key,
            || json!({"type": "string", "pattern": format!("^{ADDRESS_PATTERN}$")}),
        );
        let parsed = self.text(key)?.value.parse();
        if parsed.is_err() {
            self.invalid(key, ADDRESS);
        }
        parsed.ok()
    }

    /// Reads an address, or `off`.
    pub(super) fn address_or_off(&self, key: &str) -> Option<Option<SocketAddr>> {
        self.describe(
            key,
            || json!({"type": "string", "pattern": format!("^(off|{ADDRESS_PATTERN})$")}),
        );
        match &*self.text(key)?.value {
            "off" => Some(None),
            _ => self.address(key).map(Some),
        }
    }

    /// Reads an `http` or `https` URL without credentials, query and fragment.
    pub(super) fn url(&self, key: &str) -> Option<Url> {
        self.describe(
            key,
            || json!({"type": "string", "format": "uri", "pattern": URL_PATTERN}),
        );
        let text = self.text(key)?.value;
        let problem = match Url::parse(&text) {
            Err(e) => format!("is not a URL: {e}"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                "must begin with https:// or http://".to_owned()
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                "must not have a query or a fragment".to_owned()
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "must not contain credentials: set them in [upstream.auth]".to_owned()
            }
            Ok(url) => return Some(url),
        };
        self.invalid(key, &problem);
        None
    }

    /// Reads the path of an existing file, relative to the configuration file.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        let path = self.directory.join(self.text(key)?.value);
        if !path.is_file() {
            let problem = match path.is_dir() {
                true => format!("{} is a directory: name a file in it", path.display()),
                false => format!("the file {} does not exist", path.display()),
            };
            self.invalid(key, &problem);
            return None;
        }
        Some(path)
    }

    /// Reads the path of a file that may not exist yet, relative to the configuration file. Its
    /// directory must exist.
    pub(super) fn new_path(&self, key: &str) -> Option<PathBuf> {
        let path = self.directory.join(self.text(key)?.value);
        let parent = path.parent().unwrap_or(Path::new(""));
        let problem = match parent.as_os_str().is_empty() || parent.is_dir() {
            true if path.is_dir() => {
                format!("{} is a directory: name a file in it", path.display())
            }
            true => return Some(path),
            false => format!("the directory {} does not exist", parent.display()),
        };
        self.invalid(key, &problem);
        None
    }

    /// Returns the contents of the file that the key names.
    pub(super) fn file(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        read_file(&path)
            .map_err(|problem| self.invalid(key, &problem))
            .ok()
    }

    /// Returns the contents of a file whose key must be present.
    pub(super) fn required_file(&self, key: &str) -> Option<Vec<u8>> {
        self.required_text(key)?;
        self.file(key)
    }

    /// Returns whether the section has `KEY_env`, `KEY_file` or, wrongly, `KEY`.
    pub(super) fn has_secret(&self, key: &str) -> bool {
        let [env, file] = [format!("{key}_env"), format!("{key}_file")];
        for key in [&env, &file] {
            self.describe(key, || json!({"type": "string", "pattern": "\\S"}));
        }
        self.has(&env) || self.has(&file) || self.has(key)
    }

    /// Reads a secret from the variable that `KEY_env` names or the file that `KEY_file` names.
    pub(super) fn secret(&self, key: &str) -> Option<SecretString> {
        let [env, file] = [format!("{key}_env"), format!("{key}_file")];
        if self.has(key) {
            let problem =
                format!("must not be in this file because it is a secret: use {env} or {file}");
            self.invalid(key, &problem);
            return None;
        }
        if self.has(&env) && self.has(&file) {
            self.invalid(&file, &format!("conflicts with {env}: remove one of them"));
            return None;
        }
        if self.has(&env) {
            let variable = self.text(&env)?.value;
            let value = non_empty(self.env, &variable);
            if value.is_none() {
                self.invalid(
                    &env,
                    &format!("the variable {variable} is not set, or empty"),
                );
            }
            return value.map(SecretString::from);
        }
        let path = self.path(&file)?;
        match read_text(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.invalid(&file, &format!("{} is empty", path.display()));
                None
            }
            Ok(text) => Some(SecretString::from(text.trim())),
            Err(problem) => {
                self.invalid(&file, &problem);
                None
            }
        }
    }

    /// Reads a secret that must be present.
    pub(super) fn required_secret(&self, key: &str) -> Option<SecretString> {
        if !self.has_secret(key) {
            self.invalid(
                &format!("{key}_env"),
                &format!("is missing: set it to the name of a variable, or {key}_file to a file"),
            );
            return None;
        }
        self.secret(key)
    }

    /// Allows keys that are not read in every case.
    pub(super) fn allow(&self, keys: &[&str]) {
        let mut known = self.known.borrow_mut();
        known.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Reports every key that was neither read nor allowed.
    pub(super) fn finish(&self) {
        self.finish_with(|_| None);
    }

    /// Reports every key that was neither read nor allowed, with the hint of `hint` if it has
    /// one.
    pub(super) fn finish_with(&self, hint: impl Fn(&str) -> Option<String>) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref();
            if !known.iter().any(|known| known == name) {
                let hint = match hint(name) {
                    Some(hint) => format!(": {hint}"),
                    None => nearest(name, known.iter().map(String::as_str)),
                };
                let at = key.span().start;
                match self.report.variable_at(at) {
                    Some(_) => {
                        self.warn_at(at, name, &format!("unknown key, and has no effect{hint}"));
                    }
                    None => self.invalid_at(at, name, &format!("unknown key{hint}")),
                }
            }
        }
    }
}

/// Returns a number that is written without a fraction if it has none.
fn number(number: f64) -> Value {
    match number.fract() == 0.0 {
        true => json!(number as i64),
        false => json!(number),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
