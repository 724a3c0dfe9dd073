//! Builds the tables of an enum.

use std::collections::BTreeMap;

use prost_reflect::EnumDescriptor;

use super::super::{Enum, EnumValue, Names, letters};
use super::{Builder, read};
use crate::api::drawbridge::v1 as rules;

impl Builder {
    pub(super) fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Enum {
        let file = descriptor.parent_file();
        let of_file = read(&file.options(), self.options.file.as_ref());
        let of_file: rules::FileRules =
            self.rules(&file, file.name(), "(drawbridge.v1.file)", of_file);
        if rules::EnumNames::try_from(of_file.enum_names).is_err() {
            let problem = format!("{} is not a naming of enum values", of_file.enum_names);
            let option = "(drawbridge.v1.file).enum_names";
            self.report(&file, file.name(), option, problem);
        }
        let is_full = self.canonical || of_file.enum_names() == rules::EnumNames::Full;
        let mut values = Vec::new();
        // Names that are read, too, where no value has them as its text or alias.
        let mut further: Vec<(String, u16)> = Vec::new();
        for (index, value) in descriptor.values().enumerate().take(usize::from(u16::MAX)) {
            let rules = read(&value.options(), self.options.enum_value.as_ref());
            let option = "(drawbridge.v1.enum_value)";
            let rules: rules::EnumValueRules = self.rules(&file, value.full_name(), option, rules);
            let short = without_prefix(descriptor.name(), value.name());
            let text = match &*rules.name {
                "" if is_full => value.name(),
                "" => short,
                name => name,
            };
            further.push((value.name().to_owned(), index as u16));
            if rules.name.is_empty() && !self.canonical {
                further.push((short.to_owned(), index as u16));
            }
            values.push(EnumValue {
                number: value.number(),
                text: text.into(),
                aliases: rules.aliases.iter().map(|a| a.as_str().into()).collect(),
            });
        }
        let mut known: BTreeMap<&str, &EnumValue> = BTreeMap::new();
        let mut texts: Vec<(&str, u16)> = Vec::new();
        for (index, value) in values.iter().enumerate().take(usize::from(u16::MAX) - 1) {
            for text in std::iter::once(&value.text).chain(&value.aliases) {
                match known.insert(text, value) {
                    None => texts.push((text, index as u16)),
                    Some(other) if other.number == value.number => {}
                    Some(other) => {
                        let problem =
                            format!("the text `{text}` is also the text of {}", other.number);
                        let option = "(drawbridge.v1.enum_value).name";
                        self.report(&file, descriptor.full_name(), option, problem);
                    }
                }
            }
        }
        further.retain(|(text, _)| !known.contains_key(&**text));
        let of_enum = read(&descriptor.options(), self.options.enumeration.as_ref());
        let of_enum: rules::EnumRules = self.rules(
            &file,
            descriptor.full_name(),
            "(drawbridge.v1.enum_type)",
            of_enum,
        );
        let mut lenient: Vec<(String, u16)> = texts
            .iter()
            .filter(|_| of_enum.lenient)
            .map(|(text, index)| (letters(text), *index))
            // A text without letters is compared exactly.
            .filter(|(letters, _)| !letters.is_empty())
            .collect();
        let mut first: BTreeMap<&str, i32> = BTreeMap::new();
        for (text, index) in &lenient {
            let number = values[usize::from(*index)].number;
            if *first.entry(text).or_insert(number) != number {
                let problem = format!(
                    "compared by letters only, `{text}` is the text of two \
                                       values"
                );
                let option = "(drawbridge.v1.enum_type).lenient";
                self.report(&file, descriptor.full_name(), option, problem);
            }
        }
        let further_letters = further.iter().map(|(text, index)| (letters(text), *index));
        let further_letters = further_letters.filter(|(letters, _)| !letters.is_empty());
        lenient.extend(further_letters.filter(|_| of_enum.lenient));
        texts.extend(further.iter().map(|(text, index)| (&**text, *index)));
        let lenient = of_enum
            .lenient
            .then(|| Names::new(lenient.iter().map(|(text, i)| (&**text, *i)).collect()));
        if texts.len() >= usize::from(u16::MAX) {
            let problem = "too many values".into();
            self.report(&file, descriptor.full_name(), "values", problem);
            texts.clear();
        }
        Enum {
            name: descriptor.full_name().into(),
            texts: Names::new(texts),
            lenient,
            null: descriptor.full_name() == "google.protobuf.NullValue",
            values,
        }
    }
}

/// Removes the enum's name from that of a value: `IN_PROGRESS` for
/// `DEPLOYMENT_STATUS_IN_PROGRESS` of `DeploymentStatus`. Underscores are ignored: both
/// `Jp1Status` and `JP1Status` have the prefix `JP1_STATUS_`.
pub(super) fn without_prefix<'a>(of: &str, value: &'a str) -> &'a str {
    let mut rest = value;
    for c in of.chars().filter(|&c| c != '_') {
        rest = rest.trim_start_matches('_');
        match rest.strip_prefix(c.to_ascii_uppercase()) {
            Some(after) => rest = after,
            None => return value,
        }
    }
    match rest.strip_prefix('_') {
        Some(text) if !text.is_empty() => text,
        _ => value,
    }
}
