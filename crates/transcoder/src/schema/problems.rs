//! The problems of messages and enums. Those of types that no served rpc uses do not end the
//! start.

use std::collections::HashSet;

use super::{Diagnostic, EnumId, Kind, MessageId, Schema};

/// The problems of the messages and enums of a descriptor set, by their index.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub messages: Vec<Vec<Diagnostic>>,
    pub enums: Vec<Vec<Diagnostic>>,
}

/// A message or an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Type {
    Message(MessageId),
    Enum(EnumId),
}

impl Problems {
    /// Returns all problems, each once.
    pub(super) fn all(self) -> Vec<Diagnostic> {
        let mut all = Vec::new();
        let types = self.messages.into_iter().chain(self.enums);
        types.for_each(|problems| add(&mut all, &problems));
        all
    }

    /// Returns the problems of the types that these messages use, each once.
    pub fn used_by(&self, schema: &Schema, roots: &[MessageId]) -> Vec<Diagnostic> {
        let mut all = Vec::new();
        let mut pending: Vec<Type> = roots.iter().rev().map(|id| Type::Message(*id)).collect();
        let mut seen = HashSet::new();
        while let Some(one) = pending.pop() {
            if seen.insert(one) {
                add(&mut all, self.of(one));
                pending.extend(used_types(schema, one));
            }
        }
        all
    }

    fn of(&self, one: Type) -> &[Diagnostic] {
        match one {
            Type::Message(id) => &self.messages[id.0 as usize],
            Type::Enum(id) => &self.enums[id.0 as usize],
        }
    }

    /// Removes the names of messages that use a type with a problem, so that no `Any` is one of
    /// them.
    pub fn hide(&self, schema: &mut Schema) {
        let problems = self.messages.iter().chain(&self.enums);
        if problems.clone().all(Vec::is_empty) {
            return;
        }
        let messages = || (0..schema.messages.len() as u32).map(|id| Type::Message(MessageId(id)));
        let enums = (0..schema.enums.len() as u32).map(|id| Type::Enum(EnumId(id)));
        let mut hidden: HashSet<Type> = messages()
            .chain(enums)
            .filter(|one| !self.of(*one).is_empty())
            .collect();
        let mut before = 0;
        while before < hidden.len() {
            before = hidden.len();
            for one in messages() {
                if used_types(schema, one).any(|used| hidden.contains(&used)) {
                    hidden.insert(one);
                }
            }
        }
        schema
            .by_name
            .retain(|_, id| !hidden.contains(&Type::Message(*id)));
    }
}

fn add(all: &mut Vec<Diagnostic>, problems: &[Diagnostic]) {
    for problem in problems {
        if !all.contains(problem) {
            all.push(problem.clone());
        }
    }
}

/// Returns the types of a message's fields, and the messages whose fields they name.
fn used_types(schema: &Schema, one: Type) -> impl Iterator<Item = Type> {
    let fields = match one {
        Type::Message(id) => &schema.message(id).fields[..],
        Type::Enum(_) => &[],
    };
    fields.iter().flat_map(|field| {
        let kind = match field.kind {
            Kind::Message(id) => Some(Type::Message(id)),
            Kind::Enum(id) => Some(Type::Enum(id)),
            _ => None,
        };
        let named = field.names.as_ref().map(|rule| Type::Message(rule.message));
        kind.into_iter().chain(named)
    })
}
