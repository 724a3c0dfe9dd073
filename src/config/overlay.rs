//! Keys of the configuration that come from the environment:
//! `DRAWBRIDGE__SERVER__DRAIN_TIMEOUT_SECS=5` is the key `server.drain_timeout_secs`.
//!
//! The variables become values of the parsed file, whose readers check them as they check the
//! file. Their places are behind the end of its text: a problem there names the variable.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::reader::Report;

/// The beginning of the names of such variables.
pub(super) const PREFIX: &str = "DRAWBRIDGE__";

/// What separates tables and keys in their names.
const SEPARATOR: &str = "__";

/// Arrays of tables: entries are named by their `name`, or else by their number.
const ARRAYS: [&str; 2] = ["upstream", "descriptors"];

/// The variables of the process that are keys of the configuration, sorted by name. An empty
/// one counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Overlay(Vec<(String, String)>);

impl Overlay {
    /// Returns those among these variables.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_key = |(name, value): &(String, String)| {
            name.starts_with(PREFIX) && name.len() > PREFIX.len() && !value.is_empty()
        };
        let mut variables: Vec<_> = variables.into_iter().filter(is_key).collect();
        variables.sort();
        Self(variables)
    }

    /// Returns those of the process.
    pub fn of_process() -> Self {
        let text = |part: std::ffi::OsString| part.into_string().ok();
        let variables = std::env::vars_os();
        Self::new(variables.filter_map(|(name, value)| Some((text(name)?, text(value)?))))
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a key such as `server.worker_threads`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let name = format!("{PREFIX}{}", key.to_uppercase().replace('.', SEPARATOR));
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| &**value)
    }

    /// Returns the names of the variables, by the number of their place.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Writes names and values, for a digest.
    pub(super) fn text(&self) -> String {
        format!("{:?}", self.0)
    }

    /// Sets the keys in the table of a file. Reports names that cannot be those of a key.
    pub(super) fn apply<'t>(&'t self, table: &mut DeTable<'t>, report: &Report) {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let at = report.place_of_variable(number);
            let path: Vec<&str> = name[PREFIX.len()..].split(SEPARATOR).collect();
            if path.iter().any(|part| part.is_empty()) {
                report.warn_at(at, "", "names no key, and has no effect: write TABLE__KEY");
                continue;
            }
            if let Err(problem) = set(table, &path, value, at) {
                report.add_at(at, "", &problem);
            }
        }
    }
}

fn spanned<T>(value: T, at: usize) -> Spanned<T> {
    Spanned::new(at..at, value)
}

/// Sets one key, and creates its tables.
fn set<'t>(
    table: &mut DeTable<'t>,
    path: &[&str],
    value: &'t str,
    at: usize,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(());
    };
    let key = first.to_lowercase();
    if rest.is_empty() {
        let value = DeValue::String(Cow::Borrowed(value));
        // The key of the file would keep its place.
        table.remove(&*key);
        table.insert(spanned(Cow::Owned(key), at), spanned(value, at));
        return Ok(());
    }
    if ARRAYS.contains(&&*key) {
        let array = || DeValue::Array(DeArray::new());
        return match child(table, &key, at, array).get_mut() {
            DeValue::Array(entries) => set_in_entry(entries, &key, rest, value, at),
            _ => Err(format!("{key} is no array of tables in the file")),
        };
    }
    match child(table, &key, at, || DeValue::Table(DeTable::new())).get_mut() {
        DeValue::Table(below) => set(below, rest, value, at),
        _ => Err(format!("{key} is no table in the file")),
    }
}

/// Returns the value of a key, which is created if it is absent.
fn child<'a, 't>(
    table: &'a mut DeTable<'t>,
    key: &str,
    at: usize,
    new: impl FnOnce() -> DeValue<'t>,
) -> &'a mut Spanned<DeValue<'t>> {
    table
        .entry(spanned(Cow::Owned(key.to_owned()), at))
        .or_insert_with(|| spanned(new(), at))
}

/// Sets a key of the entry that the first part of `path` names. An upstream that the file does
/// not have is added.
fn set_in_entry<'t>(
    entries: &mut DeArray<'t>,
    array: &str,
    path: &[&str],
    value: &'t str,
    at: usize,
) -> Result<(), String> {
    let Some((wanted, rest)) = path.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(format!(
            "names no key of an entry: write {PREFIX}{}__NAME__KEY",
            array.to_uppercase()
        ));
    };
    let names = entries.iter().map(|entry| entry_name(entry.get_ref()));
    let names: Vec<Option<String>> = names.collect();
    let is_wanted =
        |name: &Option<String>| name.as_deref().is_some_and(|one| form(one) == form(wanted));
    let number = wanted.parse::<usize>().ok();
    let found = names
        .iter()
        .position(is_wanted)
        .or(number.filter(|n| *n < names.len()));
    let index = match found {
        Some(index) => index,
        None if number.is_some_and(|number| number != names.len()) => {
            let count = names.len();
            return Err(format!("{array} has {count} entries, counted from 0"));
        }
        None => {
            let mut table = DeTable::new();
            if number.is_none() {
                let name = DeValue::String(Cow::Owned(wanted.to_lowercase()));
                table.insert(spanned(Cow::Borrowed("name"), at), spanned(name, at));
            }
            entries.push(spanned(DeValue::Table(table), at));
            entries.len() - 1
        }
    };
    match entries.get_mut(index).map(Spanned::get_mut) {
        Some(DeValue::Table(entry)) => set(entry, rest, value, at),
        _ => Err(format!("{array} is no array of tables in the file")),
    }
}

fn entry_name(entry: &DeValue<'_>) -> Option<String> {
    let name = entry.get("name")?;
    name.get_ref().as_str().map(str::to_owned)
}

/// Returns how a variable names an entry: in upper case, with `_` instead of `-` and `.`.
fn form(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const FILE: &str = "[server]\ndrain_timeout_secs = 3\n[[upstream]]\nname = 'north-1.a'\n\
        family = 'heat'\nendpoint = 'https://a'\nauth = { kind = 'none' }\n";

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let variables = variables
            .iter()
            .map(|(name, value)| (format!("DRAWBRIDGE__{name}"), (*value).to_owned()));
        let defaults = Config {
            overlay: Overlay::new(variables),
            ..Config::empty()
        };
        let config = Config::parse("d.toml", text, Path::new(""), defaults, &|_| None);
        config.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_are_keys_of_every_type() {
        let config = parse(
            FILE,
            &[
                ("SERVER__DRAIN_TIMEOUT_SECS", "1.5"),
                ("SERVER__MAX_CONNECTIONS", "7"),
                ("ADMIN__PAGE", "true"),
                ("LISTEN__GRPC", "127.0.0.1:7"),
                (
                    "LISTEN__WEB__ALLOWED_ORIGINS",
                    "https://a.example, https://b.example",
                ),
                ("LOG__LEVEL", "warn"),
                ("UPSTREAM__NORTH_1_A__MAX_ATTEMPTS", "2"),
                ("UPSTREAM__NORTH_1_A__ENDPOINT", "https://b"),
                ("UPSTREAM__0__PROJECT_ID", "0123"),
                ("UPSTREAM__SOUTH__FAMILY", "heat"),
                ("UPSTREAM__SOUTH__ENDPOINT", "https://c"),
                ("UPSTREAM__SOUTH__DEFAULT", "true"),
                ("UPSTREAM__SOUTH__AUTH__KIND", "passthrough"),
                ("WATCH__MAX_ITEMS", ""),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.server.drain_timeout.as_secs_f64(), 1.5);
        assert_eq!(config.server.max_connections, 7);
        assert_eq!(config.admin_page, Some(true));
        assert_eq!(config.listen.to_string(), "127.0.0.1:7");
        assert_eq!(config.log.level, "warn");
        assert_eq!(
            config.watch.max_items, 100_000,
            "an empty one counts as unset"
        );
        let [north, south] = &config.upstreams[..] else {
            panic!("{:?}", config.upstreams);
        };
        assert_eq!(north.name, "north-1.a");
        assert_eq!(north.max_attempts, 2);
        assert_eq!(north.endpoint.as_ref().unwrap().as_str(), "https://b/");
        assert_eq!(
            north.project_id.as_deref(),
            Some("0123"),
            "text where a key is text"
        );
        assert_eq!((&*south.name, south.is_default), ("south", true));
        assert_eq!(south.auth.kind(), "passthrough");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        // Without a file.
        let alone = [
            ("UPSTREAM__A__FAMILY", "heat"),
            ("UPSTREAM__A__ENDPOINT", "https://c"),
            ("UPSTREAM__A__AUTH__KIND", "none"),
        ];
        assert_eq!(parse("", &alone).unwrap().upstreams[0].name, "a");
    }

    #[test]
    fn problems_name_the_variable() {
        for (name, value, want) in [
            (
                "SERVER__DRAIN_TIMEOUT_SECS",
                "5s",
                "must be a number of seconds, is a string",
            ),
            ("SERVER__MAX_CONNECTIONS", "0", "must be from 1 to 1048576"),
            (
                "SERVER__MAX_CONNECTIONS",
                "many",
                "must be an integer, is a string",
            ),
            ("ADMIN__PAGE", "yes", "must be true or false, is a string"),
            (
                "LISTEN__GRPC",
                "here",
                "must be an IP address and a port, like 127.0.0.1:50051",
            ),
            (
                "LOG__FORMAT",
                "jsn",
                "must be one of text, json, did you mean json?",
            ),
            ("UPSTREAM__NORTH_1_A__AUTH__PASSWORD", "x", "unknown key"),
            (
                "UPSTREAM__NRTH__ENDPOINT",
                "https://b",
                "upstream.family: is missing",
            ),
            (
                "UPSTREAM__7__ENDPOINT",
                "https://b",
                "upstream has 1 entries, counted from 0",
            ),
            (
                "UPSTREAM__NORTH_1_A",
                "x",
                "names no key of an entry: write DRAWBRIDGE__UPSTREAM__NAME__KEY",
            ),
            (
                "UPSTREAM__NORTH_1_A__NAME__X",
                "x",
                "name is no table in the file",
            ),
        ] {
            let problems = match parse(FILE, &[(name, value)]) {
                Err(problems) => problems,
                Ok(config) => config.warnings.iter().map(ToString::to_string).collect(),
            };
            let start = format!("environment: DRAWBRIDGE__{name}: ");
            assert!(
                problems
                    .iter()
                    .any(|one| one.starts_with(&start) && one.contains(want)),
                "{name}: {problems:?}"
            );
        }
    }

    #[test]
    fn unknown_key_is_a_warning_with_a_suggestion() {
        for (name, want) in [
            (
                "SERVER__DRAIN_SECS",
                "unknown key, and has no effect, did you mean",
            ),
            (
                "SERVR__MAX_CONNECTIONS",
                "unknown key, and has no effect, did you mean server?",
            ),
            ("SERVER____X", "names no key, and has no effect"),
        ] {
            let config = parse(FILE, &[(name, "1")]).unwrap();
            let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
            let start = format!("environment: DRAWBRIDGE__{name}: ");
            assert!(warnings[0].starts_with(&start), "{warnings:?}");
            assert!(warnings[0].contains(want), "{warnings:?}");
        }
    }
}
