//! `[[policy]]`: what each identity may do.

use super::reader::{Found, Section};
use crate::policy::{Pattern, Rule, ValuePattern};

/// Reads one rule, the `number`th.
pub(super) fn read(section: &Section<'_>, number: usize) -> Option<Rule> {
    let name = section.text("name");
    let identities = patterns(section, "identities");
    section.describe_required("identities");
    match &identities {
        None => section.invalid(
            "identities",
            "is missing: name the clients, or \"*\" for all",
        ),
        Some(names) if names.is_empty() => {
            section.invalid("identities", "is empty: name the clients, or \"*\" for all");
        }
        Some(_) => {}
    }
    let [upstreams, services, methods] = ["upstreams", "services", "methods"].map(|key| {
        let found = patterns(section, key);
        if found.as_ref().is_some_and(Vec::is_empty) {
            section.invalid(key, "allows nothing: name one, or remove the key for all");
        }
        found.unwrap_or_default()
    });
    let mut read_only = false;
    section.flag_into("read_only", &mut read_only);
    let fields = fields(section);
    let rule = Rule {
        name: name.map_or_else(|| format!("policy {number}"), |found| found.value),
        place: section.place(),
        identities: identities?,
        upstreams,
        services,
        methods,
        read_only,
        fields: fields?,
    };
    section.finish();
    Some(rule)
}

fn patterns(section: &Section<'_>, key: &str) -> Option<Vec<Pattern>> {
    let found = section.texts(key)?.into_iter();
    Some(found.map(|one| Pattern::new(&one.value)).collect())
}

/// Reads the fields, each with a pattern or a list of them.
fn fields(section: &Section<'_>) -> Option<Vec<(String, Vec<ValuePattern>)>> {
    let found = section.text_map("fields")?.into_iter();
    Some(
        found
            .map(|(field, values): (String, Vec<Found<String>>)| {
                let patterns = values.into_iter().map(|one| ValuePattern::new(&one.value));
                (field, patterns.collect())
            })
            .collect(),
    )
}
