//! The messages and enums of a descriptor set as tables. Binding and JSON conversion
//! read these instead of descriptors.

mod build;
mod lookup;
mod mask_names;
mod problems;
mod url_pattern;

use std::collections::HashMap;
use std::fmt;

use prost_reflect::DescriptorPool;

pub(crate) use self::mask_names::{MaskNames, snake_case};
pub(crate) use self::url_pattern::{Segment, UrlPattern};

pub(crate) use problems::Problems;

pub(crate) use lookup::{Names, Numbers, Tag};

/// Why a descriptor set cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The proto file.
    pub file: String,
    /// The full name of the rpc, message, field or enum value. Empty for a file.
    pub element: String,
    /// The invalid option: `google.api.http`, `(drawbridge.v1.method).watch.poll`.
    /// Empty for an element.
    pub option: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.file, &self.element, &self.option] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
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
    /// Whether JSON is the canonical one of protobuf: text of clients, which is read strictly.
    pub(crate) canonical: bool,
    /// The field names in a field mask whose message is not known.
    pub(crate) mask_names: MaskNames,
}

/// One message type.
#[derive(Debug)]
pub struct Message {
    /// Full name: `openstack.orchestration.v1.SoftwareDeployment`.
    pub name: Box<str>,
    /// Its form in JSON.
    pub shape: Shape,
    /// The fields, in the order of the proto file.
    pub fields: Vec<Field>,
    /// `MessageRules.unwrap`.
    pub unwrap: Option<Box<str>>,
    /// `MessageRules.bare_array`, or `as_array`: index of the field.
    pub bare_array: Option<FieldIndex>,
    /// Whether `MessageRules.as_array` is set: the message is written as an array, too.
    pub as_array: bool,
    /// The field with additional properties.
    pub additional_properties: Option<FieldIndex>,
    /// `MessageRules.bare_text`: index of the field.
    pub bare_text: Option<FieldIndex>,
    /// `MessageRules.text_is_error`.
    pub text_is_error: bool,
    /// Fields by number, for decoding protobuf.
    pub(crate) numbers: Numbers,
    /// Fields by name and alias, for decoding JSON.
    pub(crate) names: Names,
    /// Fields that are written even when empty.
    pub(crate) emit_empty: Box<[FieldIndex]>,
    /// Raw fields, each with the text of another field.
    pub(crate) raws: Box<[FieldIndex]>,
}

/// The form of a message in JSON.
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
    /// `google.protobuf.StringValue` and the other wrappers: the value of the field.
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
    /// The name in JSON and in query parameters.
    pub wire_name: Box<str>,
    /// Further names that are accepted in JSON.
    pub aliases: Vec<Box<str>>,
    /// The type of one value.
    pub kind: Kind,
    /// Cardinality and presence.
    pub cardinality: Cardinality,
    /// How a value is written in JSON.
    pub form: Form,
    /// The field whose text this raw field has.
    pub raw_of: Option<FieldIndex>,
    /// The raw field that has the text of this field.
    pub raw: Option<FieldIndex>,
    /// The field whose URLs this field has.
    pub urls_of: Option<FieldIndex>,
    /// The fields that have the URLs of this field.
    pub url_fields: Vec<FieldIndex>,
    /// `FieldRules.url_pattern`.
    pub(crate) url_pattern: Option<Box<UrlPattern>>,
    /// Index of the oneof that contains it; none for `optional`.
    pub oneof: Option<u16>,
    /// Sent as a query parameter even though the body is `*`.
    pub query: bool,
    /// Never sent.
    pub gateway_only: bool,
    /// Written even when empty.
    pub emit_empty: bool,
    /// A `null` list is an empty one, where a response must have the list.
    pub null_is_empty: bool,
    /// Whether it has the additional properties.
    pub additional_properties: bool,
    /// REQUIRED by `google.api.field_behavior`.
    pub required: bool,
    /// OUTPUT_ONLY by `google.api.field_behavior`.
    pub output_only: bool,
    /// Dialects in which it is required.
    pub required_in: Vec<Box<str>>,
    /// Dialects in which it is not sent.
    pub absent_in: Vec<Box<str>>,
    /// `FieldRules.upstream_value`: empty, it is the upstream's project id.
    pub project_id: bool,
    /// `FieldRules.minimum`.
    pub minimum: Option<i64>,
    /// The condition that the field is in an expression.
    pub condition: Option<Box<Condition>>,
    /// Set where its values are names of fields.
    pub names: Option<Box<NameRule>>,
    /// The field names in a field mask.
    pub(crate) mask_names: Option<Box<MaskNames>>,
    /// The tag of a single value on the wire.
    pub(crate) tag: Tag,
    /// The tag of a packed list on the wire.
    pub(crate) packed_tag: Tag,
    /// The name in JSON before a value: `"status":`.
    pub(crate) member: Box<str>,
    /// The same after another member: `,"status":`.
    pub(crate) next_member: Box<str>,
}

/// A compiled `drawbridge.v1.Condition`.
#[derive(Debug)]
pub struct Condition {
    /// The member that is compared.
    pub member: Box<str>,
    /// The operator.
    pub operator: Box<str>,
}

/// A compiled `drawbridge.v1.FieldNames`.
#[derive(Debug)]
pub struct NameRule {
    /// The message whose fields are named.
    pub message: MessageId,
    /// Words that can follow a name.
    pub suffixes: Vec<Box<str>>,
}

/// Cardinality and presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One value without presence: the default is not encoded.
    Implicit,
    /// One value with presence (`optional`, messages, oneof members).
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

/// How a value is written in JSON. See `drawbridge.v1.Form`.
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
    /// A field mask whose paths are lowerCamel: the naming of its file.
    CamelMask,
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
    /// Values by the letters of text and alias, in lower case, where the enum is
    /// `lenient`.
    pub(crate) lenient: Option<Names>,
    /// Whether it is `google.protobuf.NullValue`, which is `null` in JSON.
    pub(crate) null: bool,
}

/// One value of an enum.
#[derive(Debug)]
pub struct EnumValue {
    /// The number.
    pub number: i32,
    /// The REST text.
    pub text: Box<str>,
    /// Further texts that are accepted in JSON.
    pub aliases: Vec<Box<str>>,
}

impl Schema {
    /// Builds the tables of all messages and enums of the pool. Reports contradictory
    /// rules and unknown names.
    pub fn build(pool: &DescriptorPool) -> Result<Self, Vec<Diagnostic>> {
        let (schema, problems) = build::build(pool);
        match problems.all() {
            problems if problems.is_empty() => Ok(schema),
            problems => Err(problems),
        }
    }

    /// Builds the tables, and returns the problems of each type.
    pub(crate) fn with_problems(pool: &DescriptorPool) -> (Self, Problems) {
        build::build(pool)
    }

    /// Builds the tables of the JSON mapping of protobuf, <https://protobuf.dev/programming-guides/json>,
    /// for texts of clients: no rule of Drawbridge applies to them.
    pub(crate) fn canonical(pool: &DescriptorPool) -> Self {
        build::canonical(pool)
    }

    /// Returns the message of this id.
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    /// Returns the enum of this id.
    pub fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0 as usize]
    }

    /// Returns whether two fields have the same type. Each map field has an entry type
    /// of its own, so keys and values are compared.
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

    /// Returns the id of the message of this full name.
    pub fn message_id(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }
}

impl Message {
    /// Returns the field of this name.
    pub fn field(&self, name: &str) -> Option<(FieldIndex, &Field)> {
        let index = self.fields.iter().position(|f| &*f.name == name)?;
        Some((index as FieldIndex, &self.fields[index]))
    }

    /// Returns the field of this number.
    pub fn by_number(&self, number: u32) -> Option<(FieldIndex, &Field)> {
        let index = self.numbers.get(number)?;
        Some((index, &self.fields[usize::from(index)]))
    }
}

impl Enum {
    /// Returns the REST text of this number; the first one if several values have the
    /// number.
    pub fn text(&self, number: i32) -> Option<&str> {
        // Most enums number their values from 0, in order.
        let guess = usize::try_from(number)
            .ok()
            .and_then(|i| self.values.get(i));
        guess
            .filter(|value| value.number == number)
            .or_else(|| self.values.iter().find(|value| value.number == number))
            .map(|value| &*value.text)
    }

    /// Returns the number of this REST text or alias.
    pub fn number(&self, text: &str) -> Option<i32> {
        let index = self.texts.get(text.as_bytes()).or_else(|| {
            let lenient = self.lenient.as_ref()?;
            let letters = Some(letters(text)).filter(|letters| !letters.is_empty())?;
            lenient.get(letters.as_bytes())
        })?;
        Some(self.values[usize::from(index)].number)
    }
}

/// Returns the letters of a text in lower case.
fn letters(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphabetic())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns whether the dialect is not in `absent_in`.
#[inline]
pub(crate) fn is_in(absent_in: &[Box<str>], dialect: &str) -> bool {
    !absent_in.iter().any(|absent| **absent == *dialect)
}

impl Field {
    /// Returns whether the field holds a single value, neither a list nor a map.
    pub(crate) fn is_single(&self) -> bool {
        matches!(
            self.cardinality,
            Cardinality::Implicit | Cardinality::Explicit
        )
    }

    /// Returns whether the field has a member of its own in JSON.
    pub(crate) fn is_member(&self) -> bool {
        self.raw_of.is_none() && self.urls_of.is_none() && !self.additional_properties
    }

    /// Returns whether the field can identify an item.
    pub(crate) fn is_key(&self) -> bool {
        let kind = matches!(
            self.kind,
            Kind::String | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
        );
        kind && self.is_single()
    }

    /// Returns whether the dialect has the field.
    #[inline]
    pub(crate) fn is_in(&self, dialect: &str) -> bool {
        is_in(&self.absent_in, dialect)
    }

    /// Returns the name in JSON: `"status"`.
    #[inline]
    pub(crate) fn quoted(&self) -> &[u8] {
        &self.member.as_bytes()[..self.member.len() - 1]
    }
}

impl Kind {
    /// Returns whether it is an integer that a double may not hold.
    pub(crate) fn is_64_bit_integer(self) -> bool {
        matches!(
            self,
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64
        )
    }

    /// Returns whether lists of it are packed on the wire.
    pub(crate) fn is_packable(self) -> bool {
        !matches!(self, Kind::String | Kind::Bytes | Kind::Message(_))
    }
}
