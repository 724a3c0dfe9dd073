//! Messages and enums as tables, from descriptors. What transcoding walks.

mod build;
mod lookup;

use std::collections::HashMap;
use std::fmt;

use prost_reflect::DescriptorPool;

pub(crate) use lookup::{Names, Numbers, Tag};

/// Why a descriptor set cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The proto file.
    pub file: String,
    /// The rpc, message, field or enum value: its full name. Empty for a file as
    /// a whole.
    pub element: String,
    /// The option at fault: `google.api.http`, `(drawbridge.v1.method).watch.poll`.
    /// Empty for an element as a whole.
    pub option: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [&self.file, &self.element, &self.option] {
            if !place.is_empty() {
                write!(f, "{place}: ")?;
            }
        }
        f.write_str(&self.problem)
    }
}

/// Index of a message in [`Schema::messages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub u32);

/// Index of an enum in [`Schema::enums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnumId(pub u32);

/// Index of a field in [`Message::fields`].
pub type FieldIndex = u16;

/// All messages and enums of one descriptor set.
#[derive(Debug)]
pub struct Schema {
    /// The messages.
    pub messages: Vec<Message>,
    /// The enums.
    pub enums: Vec<Enum>,
    by_name: HashMap<Box<str>, MessageId>,
}

/// One message type.
#[derive(Debug)]
pub struct Message {
    /// Full name: `openstack.orchestration.v1.SoftwareDeployment`.
    pub name: Box<str>,
    /// How it stands in JSON.
    pub shape: Shape,
    /// The fields, in the order of the proto file.
    pub fields: Vec<Field>,
    /// `MessageRules.unwrap`.
    pub unwrap: Option<Box<str>>,
    /// `MessageRules.bare_array`, or `as_array`: index of the field.
    pub bare_array: Option<FieldIndex>,
    /// `MessageRules.as_array`: the field of `bare_array` is written bare, too.
    pub as_array: bool,
    /// The field that takes the members of no other field.
    pub extras: Option<FieldIndex>,
    /// `MessageRules.bare_text`: index of the field.
    pub bare_text: Option<FieldIndex>,
    /// `MessageRules.text_is_error`.
    pub text_is_error: bool,
    /// Fields by number, for reading the wire.
    pub(crate) numbers: Numbers,
    /// Fields by name and alias, for reading JSON.
    pub(crate) names: Names,
    /// Fields that are written even when empty.
    pub(crate) emit_empty: Box<[FieldIndex]>,
    /// Fields that keep the text of another one.
    pub(crate) raws: Box<[FieldIndex]>,
}

/// How a message stands in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object of its fields.
    Object,
    /// `google.protobuf.Struct`.
    Struct,
    /// `google.protobuf.Value`.
    Value,
    /// `google.protobuf.ListValue`.
    ListValue,
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// `google.protobuf.Duration`.
    Duration,
    /// `google.protobuf.FieldMask`.
    FieldMask,
    /// `google.protobuf.StringValue` and its kin: the one field's value.
    Wrapper,
    /// `google.protobuf.Any`.
    Any,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// The name in the proto.
    pub name: Box<str>,
    /// The field number.
    pub number: u32,
    /// The name in JSON and in queries.
    pub wire_name: Box<str>,
    /// Further names accepted when reading.
    pub aliases: Vec<Box<str>>,
    /// The type of one value.
    pub kind: Kind,
    /// How many values, and whether absence can be told.
    pub cardinality: Cardinality,
    /// How the value is written.
    pub form: Form,
    /// This field keeps the text of that one.
    pub raw_of: Option<FieldIndex>,
    /// That field keeps the text of this one.
    pub raw: Option<FieldIndex>,
    /// Index of the oneof, if it is in one (not for `optional`).
    pub oneof: Option<u16>,
    /// Sent as a query parameter even though the body is `*`.
    pub query: bool,
    /// Never sent.
    pub gateway_only: bool,
    /// Written even when empty.
    pub emit_empty: bool,
    /// Takes the members of no other field.
    pub extras: bool,
    /// REQUIRED by `google.api.field_behavior`.
    pub required: bool,
    /// OUTPUT_ONLY by `google.api.field_behavior`.
    pub output_only: bool,
    /// Dialects in which it is required.
    pub required_in: Vec<Box<str>>,
    /// Dialects in which it is not sent.
    pub absent_in: Vec<Box<str>>,
    /// `FieldRules.upstream_value`: the upstream's project id stands in.
    pub project_id: bool,
    /// The condition that it is in an expression.
    pub condition: Option<Box<Condition>>,
    /// Its values are names of fields.
    pub names: Option<Box<NameRule>>,
    /// The tag of one value on the wire.
    pub(crate) tag: Tag,
    /// The tag of a packed list on the wire.
    pub(crate) packed_tag: Tag,
    /// The name as JSON has it before a value: `"status":`.
    pub(crate) member: Box<str>,
    /// The same behind another value: `,"status":`.
    pub(crate) next_member: Box<str>,
}

/// A compiled `drawbridge.v1.Condition`.
#[derive(Debug)]
pub struct Condition {
    /// The member.
    pub member: Box<str>,
    /// The operator.
    pub operator: Box<str>,
}

/// A compiled `drawbridge.v1.Names`.
#[derive(Debug)]
pub struct NameRule {
    /// The message whose fields are named.
    pub message: MessageId,
    /// Words that may follow a name.
    pub suffixes: Vec<Box<str>>,
}

/// How many values, and whether absence can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One value; the default is not written.
    Implicit,
    /// One value; absence can be told (`optional`, messages, oneof members).
    Explicit,
    /// A list.
    Repeated,
    /// A map: the entry message has `key` (number 1) and `value` (number 2).
    Map,
}

/// The type of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

/// How a value is written. See `drawbridge.v1.Form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Form {
    Plain,
    String,
    EpochMillis,
    CommaList,
    JsonText,
    Flag,
    OffsetTime,
    Expression,
}

/// One enum type.
#[derive(Debug)]
pub struct Enum {
    /// Full name.
    pub name: Box<str>,
    /// The values: number, REST text, further texts accepted when reading.
    pub values: Vec<EnumValue>,
    /// Values by text and alias, for reading JSON.
    pub(crate) texts: Names,
    /// The same by their letters alone, in lower case, where the enum is `lenient`.
    pub(crate) loose: Option<Names>,
    /// `google.protobuf.NullValue`, which is `null` in JSON.
    pub(crate) null: bool,
}

/// One value of an enum.
#[derive(Debug)]
pub struct EnumValue {
    /// The number.
    pub number: i32,
    /// The REST text.
    pub text: Box<str>,
    /// Further texts accepted when reading.
    pub aliases: Vec<Box<str>>,
}

impl Schema {
    /// Makes the tables of all messages and enums of the pool. Reports rules that
    /// contradict each other or name what is not there.
    pub fn build(pool: &DescriptorPool) -> Result<Self, Vec<Diagnostic>> {
        build::build(pool)
    }

    /// The message of this id.
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    /// The enum of this id.
    pub fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0 as usize]
    }

    /// Whether two fields have the same type. Each map has an entry type of its
    /// own: there it is keys and values that count.
    pub fn alike(&self, one: &Field, other: &Field) -> bool {
        let entry = |field: &Field| match field.kind {
            Kind::Message(id) if field.cardinality == Cardinality::Map => {
                Some(self.message(id).fields.iter().map(|f| f.kind))
            }
            _ => None,
        };
        one.cardinality == other.cardinality
            && match (entry(one), entry(other)) {
                (Some(one), Some(other)) => one.eq(other),
                _ => one.kind == other.kind,
            }
    }

    /// The id of the message of this full name.
    pub fn message_id(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }
}

impl Message {
    /// The field of this proto name.
    pub fn field(&self, name: &str) -> Option<(FieldIndex, &Field)> {
        let index = self.fields.iter().position(|f| &*f.name == name)?;
        Some((index as FieldIndex, &self.fields[index]))
    }

    /// The field of this number.
    pub fn by_number(&self, number: u32) -> Option<(FieldIndex, &Field)> {
        let index = self.numbers.get(number)?;
        Some((index, &self.fields[usize::from(index)]))
    }
}

impl Enum {
    /// The REST text of this number; the first one where several values share it.
    pub fn text(&self, number: i32) -> Option<&str> {
        // Values mostly stand in the order of their numbers, from 0.
        let guess = usize::try_from(number)
            .ok()
            .and_then(|i| self.values.get(i));
        guess
            .filter(|value| value.number == number)
            .or_else(|| self.values.iter().find(|value| value.number == number))
            .map(|value| &*value.text)
    }

    /// The number of this REST text or alias.
    pub fn number(&self, text: &str) -> Option<i32> {
        let index = self.texts.get(text.as_bytes()).or_else(|| {
            let loose = self.loose.as_ref()?;
            loose.get(letters(text).as_bytes())
        })?;
        Some(self.values[usize::from(index)].number)
    }
}

/// The letters of a text, in lower case.
fn letters(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphabetic())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether a dialect is none of those that lack something.
#[inline]
pub(crate) fn is_in(absent_in: &[Box<str>], dialect: &str) -> bool {
    !absent_in.iter().any(|absent| **absent == *dialect)
}

impl Field {
    /// Whether the field holds a single value, neither a list nor a map.
    pub(crate) fn is_single(&self) -> bool {
        matches!(
            self.cardinality,
            Cardinality::Implicit | Cardinality::Explicit
        )
    }

    /// Whether the field can hold the identity of an item.
    pub(crate) fn is_key(&self) -> bool {
        let kind = matches!(
            self.kind,
            Kind::String | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
        );
        kind && self.is_single()
    }

    /// Whether the dialect has the field.
    #[inline]
    pub(crate) fn is_in(&self, dialect: &str) -> bool {
        is_in(&self.absent_in, dialect)
    }

    /// The name as JSON has it: `"status"`.
    #[inline]
    pub(crate) fn quoted(&self) -> &[u8] {
        &self.member.as_bytes()[..self.member.len() - 1]
    }
}

impl Kind {
    /// Whether lists of it are packed on the wire.
    pub(crate) fn is_packable(self) -> bool {
        !matches!(self, Kind::String | Kind::Bytes | Kind::Message(_))
    }
}
