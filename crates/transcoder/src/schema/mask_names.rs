//! Field names in the JSON form of a `google.protobuf.FieldMask`, which has no type: the
//! message that its paths belong to is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

/// The proto names of JSON names, where they are not the JSON name in snake_case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MaskNames(BTreeMap<Box<str>, Box<str>>);

impl MaskNames {
    /// Returns the proto name of this JSON name; none where it is the name in snake_case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|name| &**name)
    }

    /// Returns whether a field has exactly this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name) == Some(name)
    }

    /// Adds names that take precedence over those so far. A field of exactly the name takes
    /// precedence over one with that JSON name.
    fn add(&mut self, fields: &[FieldDescriptor]) {
        for field in fields {
            self.set(field.json_name(), field.name());
        }
        for field in fields {
            self.set(field.name(), field.name());
        }
    }

    fn set(&mut self, json: &str, name: &str) {
        match snake_case(json) == name {
            true => self.0.remove(json),
            false => self.0.insert(json.into(), name.into()),
        };
    }
}

/// The names of a descriptor set.
pub(super) struct NamesOfSet {
    /// Of all messages.
    pub all: MaskNames,
    /// The fields of all messages of a file, by its name.
    by_file: HashMap<String, Vec<FieldDescriptor>>,
}

impl NamesOfSet {
    pub fn new(pool: &DescriptorPool) -> Self {
        let mut by_file: HashMap<String, Vec<FieldDescriptor>> = HashMap::new();
        for message in pool.all_messages() {
            let file = message.parent_file().name().to_owned();
            by_file.entry(file).or_default().extend(message.fields());
        }
        let mut all = MaskNames::default();
        all.add(&by_file.values().flatten().cloned().collect::<Vec<_>>());
        Self { all, by_file }
    }

    /// Returns the names for a mask in `holder`: those of the messages that `holder` contains
    /// take precedence over those of its file, and these over all others.
    pub fn within(&self, holder: &MessageDescriptor) -> MaskNames {
        let mut names = self.all.clone();
        if let Some(file) = self.by_file.get(holder.parent_file().name()) {
            names.add(file);
        }
        let mut seen = BTreeSet::new();
        let mut messages = vec![holder.clone()];
        let mut fields = Vec::new();
        while let Some(message) = messages.pop() {
            if !seen.insert(message.full_name().to_owned()) {
                continue;
            }
            fields.extend(message.fields());
            messages.extend(message.fields().filter_map(|field| match field.kind() {
                Kind::Message(inner) => Some(inner),
                _ => None,
            }));
        }
        names.add(&fields);
        names
    }
}

/// Returns a lowerCamel name in snake_case.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
