//! Paths of fields in a message, such as `job.execution_status`.

use bytes::Bytes;

use super::fields::{broken, member};
use crate::contract::view::descend;
use crate::json;
use crate::schema::{Cardinality, Field, FieldIndex, Kind, MessageId, Schema};

/// The path of a field: indices of the messages that contain it, and its own.
#[derive(Debug)]
pub(super) struct FieldPath {
    pub root: MessageId,
    pub steps: Vec<FieldIndex>,
    /// The message that directly contains the field.
    pub message: MessageId,
    pub index: FieldIndex,
}

impl FieldPath {
    /// Finds a field by its dotted path from the message `root`. The messages in
    /// between must be single.
    pub fn find(schema: &Schema, root: MessageId, path: &str) -> Result<Self, String> {
        let mut message = root;
        let mut steps = Vec::new();
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let table = schema.message(message);
            let Some((index, field)) = table.field(name) else {
                return Err(format!("`{path}`: {} has no field `{name}`", table.name));
            };
            if names.peek().is_none() {
                return Ok(Self {
                    root,
                    steps,
                    message,
                    index,
                });
            }
            match field.kind {
                Kind::Message(below) if field.is_single() => {
                    steps.push(index);
                    message = below;
                }
                _ => return Err(format!("`{path}`: `{name}` is not a single message")),
            }
        }
        Err(format!("`{path}` names no field"))
    }

    /// Returns the table of the field.
    pub fn field<'s>(&self, schema: &'s Schema) -> &'s Field {
        &schema.message(self.message).fields[usize::from(self.index)]
    }

    /// Returns the numbers of the messages that contain the field, and its own.
    pub fn numbers(&self, schema: &Schema) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(self.steps.len() + 1);
        let mut message = self.root;
        for step in self.steps.iter().chain([&self.index]) {
            let field = &schema.message(message).fields[usize::from(*step)];
            numbers.push(field.number);
            if let Kind::Message(below) = field.kind {
                message = below;
            }
        }
        numbers
    }

    /// Returns the REST text of a single value; none when it is unset or unreadable.
    pub fn text(&self, schema: &Schema, wire: &[u8]) -> Option<String> {
        let (id, wire) = descend(schema, self.root, wire, &self.steps).ok()??;
        let mut texts = json::texts(schema, id, self.index, &wire).ok()?;
        texts.pop().filter(|text| !text.is_empty())
    }

    /// Returns all strings in the field, from lists and arbitrary JSON too, in order.
    pub fn texts(&self, schema: &Schema, wire: &[u8]) -> Vec<String> {
        let Ok(Some((id, wire))) = descend(schema, self.root, wire, &self.steps) else {
            return Vec::new();
        };
        let mut json = Vec::new();
        match json::field_to_json(schema, id, self.index, &wire, "", &mut json) {
            Ok(true) => {}
            _ => return Vec::new(),
        }
        let mut texts = Vec::new();
        if let Ok(value) = serde_json::from_slice(&json) {
            collect(value, &mut texts);
        }
        texts
    }
}

fn collect(value: serde_json::Value, texts: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => texts.push(text),
        serde_json::Value::Array(values) => {
            values.into_iter().for_each(|value| collect(value, texts));
        }
        serde_json::Value::Object(members) => {
            members
                .into_iter()
                .for_each(|(_, value)| collect(value, texts));
        }
        _ => {}
    }
}

/// A message in a response, or a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The response itself.
    Response,
    /// The message in this field.
    One(FieldIndex),
    /// Each message of this list.
    List(FieldIndex),
}

impl Part {
    /// Finds the field of this name, and the type of its items. An empty name is the
    /// response itself.
    pub fn find(
        schema: &Schema,
        output: MessageId,
        name: &str,
    ) -> Result<(Self, MessageId), String> {
        if name.is_empty() {
            return Ok((Self::Response, output));
        }
        let message = schema.message(output);
        let Some((index, field)) = message.field(name) else {
            return Err(format!("{} has no field `{name}`", message.name));
        };
        match (field.kind, field.cardinality) {
            (Kind::Message(id), Cardinality::Repeated) => Ok((Self::List(index), id)),
            (Kind::Message(id), Cardinality::Explicit) => Ok((Self::One(index), id)),
            _ => Err(format!("`{name}` must be a message or a list of messages")),
        }
    }

    /// Returns the number of items in a response: what [`Part::items`] will return at most.
    pub fn count(self, schema: &Schema, output: MessageId, response: &[u8]) -> u64 {
        match self {
            Self::Response | Self::One(_) => 1,
            Self::List(index) => {
                let field = &schema.message(output).fields[usize::from(index)];
                json::wire::count(response, field.number).map_or(0, |(count, _)| count)
            }
        }
    }

    /// Returns the items in a response, as slices without a copy. None: a single
    /// message that is unset.
    pub fn items(
        self,
        schema: &Schema,
        output: MessageId,
        response: &Bytes,
    ) -> Result<Option<Vec<Bytes>>, crate::Error> {
        let field = |index: FieldIndex| &schema.message(output).fields[usize::from(index)];
        match self {
            Self::Response => Ok(Some(vec![response.clone()])),
            Self::List(index) => {
                let field = field(index);
                let items = json::wire::all(response, field.number)
                    .map_err(|problem| broken(field, problem))?;
                let slice = |item| response.slice_ref(item);
                Ok(Some(items.into_iter().map(slice).collect()))
            }
            Self::One(index) => Ok(member(response, field(index))?.map(|item| vec![item])),
        }
    }
}
