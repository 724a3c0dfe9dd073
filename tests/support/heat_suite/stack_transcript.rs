//! The stack part of the transcript: the requests of `tests/fixtures/heat_stacks.script`,
//! whose first lines describe its syntax.
//!
//! Placeholders replace everything that differs between runs: ids, random suffixes of
//! names, times. Lists without a defined order in real Heat are sorted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Rest;

/// Maximum number of polls of one `await`.
const TRIES: usize = 2_400;
/// Time between two polls.
const PAUSE: Duration = Duration::from_millis(50);

struct Script {
    users: BTreeMap<&'static str, Rest>,
    /// Ids by the names that the script gives them.
    names: BTreeMap<String, String>,
    /// Fragments of bodies by name.
    fragments: BTreeMap<String, String>,
    transcript: Vec<Value>,
}

/// Runs the script as the given users.
pub async fn transcript(users: BTreeMap<&'static str, Rest>) -> Vec<Value> {
    let text = include_str!("../../fixtures/heat_stacks.script");
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match line.chars().next() {
            None | Some('#') => {}
            Some(' ') => lines.last_mut().unwrap().push_str(line),
            Some(_) => lines.push(line.to_owned()),
        }
    }
    let project = users["demo"].project.clone();
    let mut script = Script {
        users,
        names: BTreeMap::from([("demo_project".to_owned(), project)]),
        fragments: BTreeMap::new(),
        transcript: Vec::new(),
    };
    for line in &lines {
        script.line(line).await;
    }
    script.transcript
}

impl Script {
    async fn line(&mut self, line: &str) {
        if let Some(fragment) = line.strip_prefix("= ") {
            let (name, body) = fragment.split_once(' ').unwrap();
            self.fragments.insert(name.to_owned(), body.to_owned());
        } else if let Some(awaited) = line.strip_prefix("await ") {
            self.wait_until(awaited).await;
        } else {
            self.send(line).await;
        }
    }

    /// Replaces `<name>` with the id of that name.
    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, id)| {
            text.replace(&format!("<{name}>"), id)
        })
    }

    async fn wait_until(&mut self, awaited: &str) {
        let parts: Vec<&str> = awaited.splitn(4, ' ').collect();
        let [user, path, pointer, want] = parts[..] else {
            panic!("{awaited}");
        };
        let mut last = Value::Null;
        for _ in 0..TRIES {
            let (_, _, response) = self.users[user].send("GET", &self.fill(path), None).await;
            let found = response.pointer(pointer);
            let as_json = found.map(Value::to_string);
            if found.is_some_and(|found| found == want) || as_json.as_deref() == Some(want) {
                return;
            }
            last = response;
            tokio::time::sleep(PAUSE).await;
        }
        // Real Heat's transcript has no entry here, so the comparison fails.
        self.transcript
            .push(json!({"request": format!("await {awaited}"), "never": last}));
    }

    async fn send(&mut self, line: &str) {
        let (line, keep) = match line.rsplit_once(" > ") {
            Some((line, keep)) => (line, Some(keep)),
            None => (line, None),
        };
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let (user, verb, path) = (parts[0], parts[1], parts[2]);
        // Longer names first: one may begin like another.
        let body = parts.get(3).map(|body| {
            let fragments = self.fragments.iter().rev();
            let body = fragments.fold((*body).to_owned(), |body, (name, fragment)| {
                body.replace(&format!("@{name}"), fragment)
            });
            self.fill(&body)
        });
        let user = &self.users[user];
        let (status, headers, response) = user.send(verb, &self.fill(path), body.as_deref()).await;
        if let Some(keep) = keep {
            let (name, pointer) = keep.split_once('=').unwrap_or((keep, ""));
            let id = match pointer {
                "" => response.get("id").or_else(|| response.pointer("/stack/id")),
                pointer => response.pointer(pointer),
            };
            let id = id.and_then(Value::as_str);
            let id = id.unwrap_or_else(|| panic!("{line}: no id in {response}"));
            self.names.insert(name.to_owned(), id.to_owned());
        }
        let words = path.starts_with("/resource_types") || path.starts_with("/template_versions");
        let mut entry =
            json!({"request": line, "status": status, "answer": self.normalize(&response, words)});
        for header in ["location", "allow"] {
            if let Some(value) = headers.get(header) {
                entry[header] = json!(self.with_placeholders(value.to_str().unwrap()));
            }
        }
        assert!(
            headers.contains_key("x-openstack-request-id") || path == "//healthcheck",
            "{line}"
        );
        self.transcript.push(entry);
    }

    /// Replaces variable parts with placeholders. With `words` set, only the presence of
    /// descriptions is compared, not their text.
    fn normalize(&self, value: &Value, words: bool) -> Value {
        match value {
            Value::String(text) => json!(self.with_placeholders(text)),
            Value::Array(items) => items
                .iter()
                .map(|item| self.normalize(item, words))
                .collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| {
                    let description = name.eq_ignore_ascii_case("description");
                    let tidied = match member {
                        Value::String(text) if words && description && !text.is_empty() => {
                            json!("<words>")
                        }
                        // The script's random strings are of twelve characters.
                        Value::String(text)
                            if name.ends_with("value")
                                && text.len() == 12
                                && text.bytes().all(|b| b.is_ascii_alphanumeric()) =>
                        {
                            json!("<random>")
                        }
                        member => sorted(name, self.normalize(member, words)),
                    };
                    (self.with_placeholders(name), tidied)
                })
                .collect(),
            other => other.clone(),
        }
    }

    /// Replaces everything in the text that differs between runs.
    fn with_placeholders(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, id) in &self.names {
            text = text.replace(id, &format!("<{name}>"));
        }
        text = text.replace(&self.users["other"].project, "<project of other>");
        text = text.replace(&self.users["demo"].heat, "<heat>");
        // The message of a YAML parser is specific to it; the position is not.
        if let (Some(from), Some(to)) = (text.find("while parsing"), text.find("in \"<unicode")) {
            text.replace_range(from..to, "<why> ");
            text.truncate(text.find(", line").unwrap_or(text.len()));
        }
        if let Some(at) = text.find("Circular Dependency Found: ") {
            text.truncate(at);
            text.push_str("Circular Dependency Found");
        }
        replace_random_parts(&text)
    }
}

/// Sorts lists without a defined order.
fn sorted(name: &str, mut value: Value) -> Value {
    let lists = [
        "resources",
        "unchanged",
        "updated",
        "replaced",
        "added",
        "deleted",
        "outputs",
        "required_by",
        "template_functions",
    ];
    if let Value::Array(items) = &mut value
        && lists.contains(&name)
    {
        // Resources of nested stacks are nested lists.
        for item in items.iter_mut().filter(|item| item.is_array()) {
            *item = sorted(name, item.take());
        }
        items.sort_by_key(|item| {
            let first = |item: &Value| match item.get(0) {
                Some(inner) => inner.clone(),
                None => item.clone(),
            };
            let item = first(item);
            let name = [
                "resource_name",
                "output_key",
                "functions",
                "parent_resource",
            ]
            .iter()
            .find_map(|key| item.get(*key).cloned());
            (name.unwrap_or(item.clone()).to_string(), item.to_string())
        });
    }
    value
}

/// Replaces ids, times and random suffixes of names with placeholders.
fn replace_random_parts(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let gateway_settings = at
            .checked_sub(1)
            .map(|gateway_settings| bytes[gateway_settings]);
        let starts = !gateway_settings.is_some_and(|b| b.is_ascii_alphanumeric());
        let is = |pattern: &str| {
            rest.len() >= pattern.len()
                && pattern.bytes().zip(rest).all(|(p, b)| match p {
                    b'h' => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
                    b'9' => b.is_ascii_digit(),
                    b'a' => matches!(b, b'2'..=b'7' | b'a'..=b'z'),
                    p => *b == p,
                })
                && !rest
                    .get(pattern.len())
                    .is_some_and(|b| b.is_ascii_alphanumeric())
        };
        let found = [
            ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "<uuid>"),
            ("hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh", "<hex>"),
            ("9999-99-99T99:99:99Z", "<time>"),
            ("0xhhhhhhhhhhhh", "<address>"),
        ];
        let found = found.iter().find(|(pattern, _)| starts && is(pattern));
        let tail = ("aaaaaaaaaaaa", "<tail>");
        match found.or(Some(&tail).filter(|(tail, _)| gateway_settings == Some(b'-') && is(tail))) {
            Some((pattern, word)) => {
                out.push_str(word);
                at += pattern.len();
            }
            None => {
                let c = text[at..].chars().next().unwrap();
                out.push(c);
                at += c.len_utf8();
            }
        }
    }
    out
}
