//! A YAML or JSON file as openstacksdk reads it: PyYAML's types of plain scalars, merge keys,
//! and the last one of several equal keys. Each value has its place.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

/// Limit of the values of a file, aliases resolved: a short file can contain billions.
const MAX_VALUES: usize = 100_000;

/// Limit of the nesting of values.
const MAX_DEPTH: usize = 64;

/// A file and a line.
#[derive(Clone, PartialEq)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    /// Counted from 1; 0 if there is none.
    pub(super) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A value. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
    /// Whether the text is a number that Python writes in another way than the file: `0123` is
    /// 83.
    pub(super) is_rewritten: bool,
}

impl Node {
    /// Returns a value that is as in the file.
    pub(super) fn new(value: Value, place: Place) -> Self {
        Self {
            value,
            place,
            is_rewritten: false,
        }
    }
}

#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A text, or a number as Python writes it.
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping, in the order of the file; each key once.
#[derive(Clone, Default)]
pub(super) struct Map(Vec<(String, Node)>);

impl Map {
    /// Returns the value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let found = self.0.iter().find(|(found, _)| found == key);
        found.map(|(_, node)| node)
    }

    /// Returns a mapping of a key.
    pub(super) fn map(&self, key: &str) -> Option<&Map> {
        match &self.get(key)?.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// Sets a key. Returns its former value.
    pub(super) fn insert(&mut self, key: String, node: Node) -> Option<Node> {
        match self.0.iter_mut().find(|(found, _)| *found == key) {
            Some((_, old)) => Some(std::mem::replace(old, node)),
            None => {
                self.0.push((key, node));
                None
            }
        }
    }

    /// Takes over the values of `other`, at every depth.
    pub(super) fn merge(&mut self, other: Map) {
        for (key, node) in other.0 {
            let old = self.0.iter_mut().find(|(found, _)| *found == key);
            match (old.map(|(_, old)| &mut old.value), node.value) {
                (Some(Value::Map(old)), Value::Map(new)) => old.merge(new),
                (_, value) => {
                    self.insert(key, Node { value, ..node });
                }
            }
        }
    }

    /// Takes over the values of `other`; of the mapping `auth`, its values.
    pub(super) fn update(&mut self, other: &Map) {
        for (key, node) in other.iter() {
            let old = self.0.iter_mut().find(|(found, _)| found == key);
            match (key, old.map(|(_, old)| &mut old.value), &node.value) {
                ("auth", Some(Value::Map(old)), Value::Map(new)) => {
                    for (key, node) in new.iter() {
                        old.insert(key.to_owned(), node.clone());
                    }
                }
                _ => {
                    self.insert(key.to_owned(), node.clone());
                }
            }
        }
    }

    /// Writes the names of keys with `_` for `-`, at every depth. The last one applies.
    pub(super) fn with_underscores(self) -> Map {
        let mut map = Map::default();
        for (key, mut node) in self.0 {
            if let Value::Map(inner) = node.value {
                node.value = Value::Map(inner.with_underscores());
            }
            map.insert(key.replace('-', "_"), node);
        }
        map
    }
}

/// A key that a mapping has twice.
pub(super) struct Duplicate {
    /// The keys of the mappings around it.
    pub(super) path: Vec<String>,
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) first_line: usize,
}

/// Parses a file. Fails with place and problem, which has no text of the file.
pub(super) fn parse(file: &str, text: &str) -> Result<(Node, Vec<Duplicate>), (Place, String)> {
    // PyYAML and JSON parsers ignore a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        file: Arc::from(file),
        anchors: HashMap::new(),
        values: 0,
        path: Vec::new(),
        duplicates: Vec::new(),
    };
    let root = reader.document().map_err(|(place, problem)| {
        let problem = match hint(text, place.line) {
            Some(hint) => format!("{problem}: {hint}"),
            None => problem,
        };
        (place, problem)
    })?;
    Ok((root, reader.duplicates))
}

/// Returns what to do about a file that is invalid at this line. The cause may be in a line
/// next to it, where a value begins or continues.
fn hint(text: &str, line: usize) -> Option<&'static str> {
    let near: Vec<&str> = [line, line.saturating_sub(1), line + 1]
        .into_iter()
        .filter_map(|line| text.lines().nth(line.checked_sub(1)?))
        .collect();
    let is_indented_by_tab = |line: &&str| {
        let mut indentation = line.chars().take_while(|c| c.is_whitespace());
        indentation.any(|c| c == '\t')
    };
    if near.iter().any(is_indented_by_tab) {
        return Some("indent with blanks instead of tabs");
    }
    if near
        .iter()
        .any(|line| line.contains("{{") || line.contains("{%"))
    {
        return Some("it is a template: render it first");
    }
    let needs_quotes = |line: &&str| {
        let value = line.split_once(": ").map(|(_, value)| value.trim());
        value.is_some_and(|value| {
            value.starts_with([
                '@', '`', '%', '*', '&', '{', '[', '!', '|', '>', ']', '}', ',',
            ]) || !value.starts_with(['"', '\'']) && value.contains(": ")
                || value.starts_with(['"', '\'']) && is_quoted_in_part(value)
        })
    };
    // The end of `{` or `[` is missed some lines after it.
    let is_open = |line: &str| {
        let value = line.split_once(": ").map(|(_, value)| value.trim());
        value.is_some_and(|value| {
            value.starts_with('{') && !value.contains('}')
                || value.starts_with('[') && !value.contains(']')
        })
    };
    let mut before = text.lines().take(line);
    (near.iter().any(needs_quotes) || before.any(is_open))
        .then_some("put the value in quotes, a single quote in it twice")
}

/// Returns whether something follows the quoted text at the beginning.
fn is_quoted_in_part(value: &str) -> bool {
    let quote = value.chars().next().unwrap_or_default();
    let rest = value[1..].split_once(quote).map(|(_, rest)| rest.trim());
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('#'))
}

/// Returns the parser's reason, without the character of the file that it may contain.
fn reason(error: &ScanError) -> &str {
    let info = error.info();
    match info.starts_with("unexpected character") {
        true => "unexpected character",
        false => info,
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: Arc<str>,
    anchors: HashMap<usize, Node>,
    values: usize,
    path: Vec<String>,
    duplicates: Vec<Duplicate>,
}

type Fault = (Place, String);

impl<'t> Reader<'t> {
    fn place(&self, line: usize) -> Place {
        Place {
            file: self.file.clone(),
            line,
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, usize), Fault> {
        let error = match self.parser.next() {
            Some(Ok((event, Span { start, .. }))) => return Ok((event, start.line())),
            Some(Err(error)) => error,
            None => return Err((self.place(0), "this is not YAML".to_owned())),
        };
        let (marker, reason) = (error.marker(), reason(&error));
        let problem = format!("this is not YAML: column {}: {reason}", marker.col() + 1);
        Err((self.place(marker.line()), problem))
    }

    fn document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    let problem = "there is a second document: write one".to_owned();
                    return Err((self.place(line), problem));
                }
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                event => root = Some(self.node(event, line, 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| Node::new(Value::Null, self.place(0))))
    }

    fn node(&mut self, event: Event<'t>, line: usize, depth: usize) -> Result<Node, Fault> {
        let place = self.place(line);
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err((place, "has too many values".to_owned()));
        }
        let mut is_rewritten = false;
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err((place, "is part of what its anchor names".to_owned()));
                };
                self.values += count(&node.value);
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                is_rewritten = matches!(&value, Value::Text(read) if *read != *text);
                (value, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (Value::Map(self.map(depth)?), anchor),
            _ => return Err((place, "this is not YAML".to_owned())),
        };
        let node = Node {
            value,
            place,
            is_rewritten,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, line) => items.push(self.node(event, line, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Map, Fault> {
        let mut merged = Map::default();
        let mut own = Map::default();
        loop {
            let (event, line) = self.next()?;
            let is_merge = match &event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => text == "<<" && *style == ScalarStyle::Plain,
                _ => false,
            };
            let key = match self.node(event, line, depth + 1)?.value {
                Value::Text(text) => text,
                Value::Bool(true) => "true".to_owned(),
                Value::Bool(false) => "false".to_owned(),
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    return Err((self.place(line), "a key must be a text".to_owned()));
                }
            };
            self.path.push(key);
            let (event, value_line) = self.next()?;
            let node = self.node(event, value_line, depth + 1)?;
            let key = self.path.pop().unwrap_or_default();
            if is_merge {
                self.merge(&mut merged, node)?;
                continue;
            }
            let node = Node {
                // A mapping's first line is the one of its key.
                place: self.place(line),
                ..node
            };
            if let Some(first) = own.insert(key.clone(), node) {
                self.duplicates.push(Duplicate {
                    path: self.path.clone(),
                    key,
                    place: self.place(line),
                    first_line: first.place.line,
                });
            }
        }
        for (key, node) in own.0 {
            merged.insert(key, node);
        }
        Ok(merged)
    }

    /// Takes over the value of a merge key: a mapping, or a list of mappings of which the
    /// first one takes precedence.
    fn merge(&self, into: &mut Map, node: Node) -> Result<(), Fault> {
        let maps = match node.value {
            Value::List(items) => items,
            value => vec![Node { value, ..node }],
        };
        for node in maps.into_iter().rev() {
            let Value::Map(map) = node.value else {
                let problem = "`<<` must name a mapping, or a list of mappings".to_owned();
                return Err((node.place, problem));
            };
            for (key, node) in map.0 {
                into.insert(key, node);
            }
        }
        Ok(())
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::List(items) => items.iter().map(|item| 1 + count(&item.value)).sum(),
        Value::Map(map) => map.iter().map(|(_, node)| 1 + count(&node.value)).sum(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str") {
        return Value::Text(text.to_owned());
    }
    // Source: PyYAML, `resolver.py`; YAML 1.1, "Language-Independent Types".
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => {
            let number = integer(text).map(|n| n.to_string());
            let number = number.or_else(|| float(text).map(|n| format!("{n:?}")));
            Value::Text(number.unwrap_or_else(|| text.to_owned()))
        }
    }
}

/// Reads an integer of YAML 1.1: `0o17` is none, `017` is 15, and `1:30` is 90.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let starts = |prefix: &str| {
        digits
            .strip_prefix(prefix)
            .map(|rest| rest.replace('_', ""))
    };
    let value = if let Some(rest) = starts("0b") {
        i128::from_str_radix(&rest, 2).ok()?
    } else if let Some(rest) = starts("0x") {
        i128::from_str_radix(&rest, 16).ok()?
    } else if let Some(rest) = starts("0").filter(|rest| !rest.is_empty()) {
        rest.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
        i128::from_str_radix(&rest, 8).ok()?
    } else {
        let mut parts = digits.split(':');
        let first = parts.next()?;
        let is_number = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        };
        is_number(first).then_some(())?;
        let mut value: i128 = first.replace('_', "").parse().ok()?;
        for part in parts {
            let is_sixtieth = (1..=2).contains(&part.len()) && is_number(part);
            let sixtieth = part.parse().ok().filter(|n| is_sixtieth && *n < 60)?;
            value = value.checked_mul(60)?.checked_add(sixtieth)?;
        }
        value
    };
    Some(sign * value)
}

/// Reads a float of YAML 1.1, which has a point and a sign in its exponent.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let (before, after) = mantissa.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let begins = match before {
        "" => after.starts_with(|c: char| c.is_ascii_digit()),
        before => before.starts_with(|c: char| c.is_ascii_digit()),
    };
    let fits = exponent_fits && begins && digits(before) && digits(after);
    fits.then(|| text.replace('_', "").parse().ok()).flatten()
}
