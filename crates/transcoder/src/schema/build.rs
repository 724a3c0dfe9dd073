//! Builds the tables from descriptors. Every contradiction is a diagnostic of its message or enum.

mod enumeration;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, FileDescriptor,
    Kind as ProtoKind, MessageDescriptor, Value,
};

use self::link::{link_raw_field, link_url_field};
use super::mask_names::NamesOfSet;
use super::problems::Problems;
use super::*;
use crate::api::drawbridge::v1 as rules;

/// Most fields of a message: fields and oneofs together are counted in 16 bits.
const MAX_FIELDS: usize = 30_000;

pub(super) fn build(pool: &DescriptorPool) -> (Schema, Problems) {
    tables(pool, Options::of(pool), false)
}

/// Builds the tables of protobuf's own JSON mapping.
pub(super) fn canonical(pool: &DescriptorPool) -> Schema {
    tables(pool, Options::default(), true).0
}

fn tables(pool: &DescriptorPool, options: Options, canonical: bool) -> (Schema, Problems) {
    let mut builder = Builder {
        options,
        canonical,
        mask_names: NamesOfSet::new(pool),
        message_ids: (0..)
            .zip(pool.all_messages())
            .map(|(i, m)| (m.full_name().into(), MessageId(i)))
            .collect(),
        enum_ids: (0..)
            .zip(pool.all_enums())
            .map(|(i, e)| (e.full_name().into(), EnumId(i)))
            .collect(),
        diagnostics: Vec::new(),
    };
    let mut problems = Problems::default();
    let messages = pool
        .all_messages()
        .map(|message| {
            let table = builder.message(&message);
            problems
                .messages
                .push(std::mem::take(&mut builder.diagnostics));
            table
        })
        .collect();
    let enums = pool
        .all_enums()
        .map(|descriptor| {
            let table = builder.enumeration(&descriptor);
            problems
                .enums
                .push(std::mem::take(&mut builder.diagnostics));
            table
        })
        .collect();
    let schema = Schema {
        mask_names: builder.mask_names.all,
        messages,
        enums,
        by_name: builder.message_ids,
        canonical,
    };
    (schema, problems)
}

/// The extensions with the rules; none where the set does not import them.
#[derive(Default)]
struct Options {
    file: Option<ExtensionDescriptor>,
    message: Option<ExtensionDescriptor>,
    field: Option<ExtensionDescriptor>,
    enumeration: Option<ExtensionDescriptor>,
    enum_value: Option<ExtensionDescriptor>,
    behavior: Option<ExtensionDescriptor>,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Self {
        let named = |name| pool.get_extension_by_name(name);
        Self {
            file: named("drawbridge.v1.file"),
            message: named("drawbridge.v1.message"),
            field: named("drawbridge.v1.field"),
            enumeration: named("drawbridge.v1.enum_type"),
            enum_value: named("drawbridge.v1.enum_value"),
            behavior: named("google.api.field_behavior"),
        }
    }
}

/// Reads the rules in an element's options.
fn read<T: prost::Message + Default>(
    options: &DynamicMessage,
    extension: Option<&ExtensionDescriptor>,
) -> Result<T, String> {
    let Some(extension) = extension.filter(|e| options.has_extension(e)) else {
        return Ok(T::default());
    };
    match &*options.get_extension(extension) {
        Value::Message(message) => message
            .transcode_to()
            .map_err(|e| format!("cannot be read: {e}")),
        _ => Err("is not a message".into()),
    }
}

struct Builder {
    options: Options,
    /// Whether the tables are those of protobuf's own JSON mapping.
    canonical: bool,
    mask_names: NamesOfSet,
    message_ids: HashMap<Box<str>, MessageId>,
    enum_ids: HashMap<Box<str>, EnumId>,
    /// The problems of the message or enum that is being built.
    diagnostics: Vec<Diagnostic>,
}

impl Builder {
    fn report(&mut self, file: &FileDescriptor, element: &str, option: &str, problem: String) {
        self.diagnostics.push(Diagnostic {
            file: file.name().to_owned(),
            element: element.to_owned(),
            option: option.to_owned(),
            problem,
        });
    }

    /// Returns the rules of an element, or reports that they are unreadable.
    fn rules<T: prost::Message + Default>(
        &mut self,
        file: &FileDescriptor,
        element: &str,
        option: &str,
        rules: Result<T, String>,
    ) -> T {
        rules.unwrap_or_else(|problem| {
            self.report(file, element, option, problem);
            T::default()
        })
    }

    fn message(&mut self, message: &MessageDescriptor) -> Message {
        let file = message.parent_file();
        let name = message.full_name();
        let of_file = read(&file.options(), self.options.file.as_ref());
        let of_file: rules::FileRules =
            self.rules(&file, file.name(), "(drawbridge.v1.file)", of_file);
        let of_message = read(&message.options(), self.options.message.as_ref());
        let of_message: rules::MessageRules =
            self.rules(&file, name, "(drawbridge.v1.message)", of_message);
        if rules::Naming::try_from(of_file.naming).is_err() {
            let problem = format!("{} is not a naming", of_file.naming);
            self.report(&file, file.name(), "(drawbridge.v1.file).naming", problem);
        }

        let naming = match self.canonical {
            true => rules::Naming::JsonNames,
            false => of_file.naming(),
        };
        // `Message::fields` is in the order of the proto file.
        let mut descriptors: Vec<FieldDescriptor> = message.fields().collect();
        descriptors.sort_by_key(|f| f.path().last().copied());
        if descriptors.len() > MAX_FIELDS {
            self.report(&file, name, "fields", "too many fields".into());
            descriptors.truncate(MAX_FIELDS);
        }
        let of_fields: Vec<rules::FieldRules> = descriptors
            .iter()
            .map(|field| {
                let rules = read(&field.options(), self.options.field.as_ref());
                self.rules(&file, field.full_name(), "(drawbridge.v1.field)", rules)
            })
            .collect();
        let mut fields: Vec<Field> = descriptors
            .iter()
            .zip(&of_fields)
            .map(|(field, rules)| self.field(field, rules, naming))
            .collect();
        for (index, rules) in of_fields.iter().enumerate() {
            if !rules.raw_of.is_empty()
                && let Err(problem) = link_raw_field(&mut fields, index, &rules.raw_of)
            {
                let element = descriptors[index].full_name();
                self.report(&file, element, "(drawbridge.v1.field).raw_of", problem);
            }
            if !rules.urls_of.is_empty()
                && let Err(problem) = link_url_field(&mut fields, index, &rules.urls_of)
            {
                let element = descriptors[index].full_name();
                self.report(&file, element, "(drawbridge.v1.field).urls_of", problem);
            }
        }

        let shape = shape(name);
        let special = shape != Shape::Object;
        if special && of_message != rules::MessageRules::default() {
            let problem = "well-known types cannot have rules".into();
            self.report(&file, name, "(drawbridge.v1.message)", problem);
        }
        let mut bare_array = None;
        for (option, array_field) in [
            ("bare_array", &of_message.bare_array),
            ("as_array", &of_message.as_array),
        ] {
            if array_field.is_empty() {
                continue;
            }
            let found = fields.iter().position(|f| *f.name == **array_field);
            let found = found.filter(|&i| fields[i].cardinality == Cardinality::Repeated);
            let problem = match found {
                None => format!("`{array_field}` is not a repeated field of this message"),
                Some(_) if bare_array.is_some() => "cannot be combined with `bare_array`".into(),
                Some(index) => {
                    bare_array = Some(index as FieldIndex);
                    continue;
                }
            };
            let option = format!("(drawbridge.v1.message).{option}");
            self.report(&file, name, &option, problem);
        }
        let additional_properties = fields.iter().position(|f| f.additional_properties);
        if let Some(second) = fields
            .iter()
            .rposition(|f| f.additional_properties)
            .filter(|i| Some(*i) != additional_properties)
        {
            let element = descriptors[second].full_name();
            let problem = "another field already has this option".into();
            self.report(
                &file,
                element,
                "(drawbridge.v1.field).additional_properties",
                problem,
            );
        }

        let mut bare_text = None;
        if !of_message.bare_text.is_empty() {
            let found = fields.iter().position(|f| *f.name == *of_message.bare_text);
            let is_text = |field: &Field| {
                field.kind == Kind::String && field.raw_of.is_none() && field.is_single()
            };
            match found.filter(|&i| is_text(&fields[i])) {
                Some(index) => bare_text = Some(index as FieldIndex),
                None => {
                    let problem = format!(
                        "`{}` is not a single string field of this message",
                        of_message.bare_text
                    );
                    self.report(&file, name, "(drawbridge.v1.message).bare_text", problem);
                }
            }
            if of_message.text_is_error {
                let problem = "cannot be combined with `bare_text`: remove one of them".into();
                self.report(
                    &file,
                    name,
                    "(drawbridge.v1.message).text_is_error",
                    problem,
                );
            }
        }

        // Raw fields, those with URLs and additional properties have no name of their own in JSON.
        let mut known: BTreeMap<&str, &Field> = BTreeMap::new();
        let mut names: Vec<(&str, u16)> = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            if !field.is_member() || message.is_map_entry() {
                continue;
            }
            let all = std::iter::once(&field.wire_name).chain(&field.aliases);
            for text in all.map(|text| &**text) {
                match known.insert(text, field) {
                    // At most one member of a oneof is set: the first one is decoded.
                    Some(other) if other.oneof.is_some() && other.oneof == field.oneof => {}
                    Some(other) => {
                        let other = &other.name;
                        let problem =
                            format!("the name `{text}` is also the name of the field `{other}`");
                        let element = descriptors[index].full_name();
                        self.report(&file, element, "(drawbridge.v1.field).name", problem);
                    }
                    None => names.push((text, index as u16)),
                }
            }
        }
        if names.len() >= usize::from(u16::MAX) {
            self.report(&file, name, "fields", "too many names".into());
            names.clear();
        }
        let names = Names::new(names);
        Message {
            name: name.into(),
            shape,
            unwrap: Some(of_message.unwrap)
                .filter(|member| !member.is_empty())
                .map(Into::into),
            bare_array,
            as_array: !of_message.as_array.is_empty(),
            additional_properties: additional_properties.map(|index| index as FieldIndex),
            bare_text,
            text_is_error: of_message.text_is_error,
            numbers: Numbers::new(fields.iter().map(|f| f.number)),
            names,
            emit_empty: indexes(&fields, |f| f.emit_empty),
            raws: indexes(&fields, |f| f.raw_of.is_some()),
            fields,
        }
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        rules: &rules::FieldRules,
        naming: rules::Naming,
    ) -> Field {
        let file = field.parent_message().parent_file();
        let name = field.full_name();
        let kind = self.kind(field.kind());
        let cardinality = if field.is_map() {
            Cardinality::Map
        } else if field.is_list() {
            Cardinality::Repeated
        } else if field.supports_presence() {
            Cardinality::Explicit
        } else {
            Cardinality::Implicit
        };
        let many = matches!(cardinality, Cardinality::Repeated | Cardinality::Map);
        let mut report = |option: &str, problem: &str| {
            let option = format!("(drawbridge.v1.field).{option}");
            self.report(&file, name, &option, problem.into());
        };
        if field.is_group() {
            report("form", "groups are not supported");
        }
        let element = match cardinality {
            Cardinality::Map => match field.kind() {
                ProtoKind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            },
            _ => field.kind(),
        };
        let form = match rules::Form::try_from(rules.form) {
            Ok(rules::Form::Unspecified) => Form::Plain,
            Ok(rules::Form::String) => Form::String,
            Ok(rules::Form::EpochMillis) => Form::EpochMillis,
            Ok(rules::Form::CommaList) => Form::CommaList,
            Ok(rules::Form::JsonText) => Form::JsonText,
            Ok(rules::Form::Flag) => Form::Flag,
            Ok(rules::Form::OffsetTime) => Form::OffsetTime,
            Ok(rules::Form::Expression) => Form::Expression,
            Err(_) => {
                report("form", "is not a known form");
                Form::Plain
            }
        };
        if let Err(problem) = check_form(form, &element, cardinality) {
            report("form", problem);
        }
        let is_mask = element.as_message().map(|m| shape(m.full_name())) == Some(Shape::FieldMask);
        let form = match form {
            Form::Plain if is_mask && naming == rules::Naming::JsonNames => Form::CamelMask,
            form => form,
        };
        if rules.emit_empty && !many {
            report(
                "emit_empty",
                "only for a repeated field or a map: use `optional`",
            );
        }
        if rules.null_is_empty && cardinality != Cardinality::Repeated {
            report("null_is_empty", "only for a repeated field");
        }
        if rules.query && rules.gateway_only {
            report("gateway_only", "cannot be combined with `query`");
        }
        if rules.additional_properties {
            let object = element.as_message().map(|m| shape(m.full_name())) == Some(Shape::Struct);
            if !object || many || form != Form::Plain {
                report(
                    "additional_properties",
                    "only for a single google.protobuf.Struct",
                );
            }
            if rules.query
                || rules.gateway_only
                || !rules.name.is_empty()
                || !rules.aliases.is_empty()
            {
                report(
                    "additional_properties",
                    "cannot be combined with `name`, `aliases`, `query` or `gateway_only`",
                );
            }
        }
        let project_id = rules.upstream_value == "project_id";
        if !project_id && !rules.upstream_value.is_empty() {
            report("upstream_value", "must be `project_id`");
        }
        if project_id && (kind != Kind::String || many) {
            report("upstream_value", "only for a single string");
        }
        let is_integer = !matches!(
            kind,
            Kind::Double
                | Kind::Float
                | Kind::Bool
                | Kind::String
                | Kind::Bytes
                | Kind::Enum(_)
                | Kind::Message(_)
        );
        if rules.minimum.is_some() && !is_integer {
            report("minimum", "only for integers");
        }
        if rules.aliases.iter().any(String::is_empty) {
            report("aliases", "an alias is empty");
        }

        let explicit = field.json_name() != lower_camel(field.name());
        let wire_name = if !rules.name.is_empty() {
            &rules.name
        } else if explicit || naming == rules::Naming::JsonNames {
            field.json_name()
        } else {
            field.name()
        };
        let aliases = match self.canonical {
            true if wire_name != field.name() => vec![field.name().into()],
            true => Vec::new(),
            false => rules.aliases.iter().map(|a| a.as_str().into()).collect(),
        };
        let quoted = serde_json::Value::from(wire_name);
        let behavior = self.behavior(field);
        let many_values = cardinality == Cardinality::Repeated;
        let condition = rules
            .condition
            .as_ref()
            .map(|rule| Box::new(condition(rule, wire_name, many_values)));
        if let Some(condition) = &condition {
            let problem = match (element, cardinality) {
                (_, Cardinality::Map) => Some("a map cannot be a condition"),
                (ProtoKind::Double | ProtoKind::Float | ProtoKind::Bytes, _) => {
                    Some("fractions and bytes cannot be part of an expression")
                }
                (ProtoKind::Message(m), _) if shape(m.full_name()) != Shape::Timestamp => {
                    Some("a condition is a scalar, an enum or a Timestamp, not a message")
                }
                _ if !is_bare_text(&condition.member) || !is_bare_text(&condition.operator) => {
                    Some(
                        "`member` and `operator` must be printable ASCII without quotes and \
                          brackets",
                    )
                }
                _ => None,
            };
            if let Some(problem) = problem {
                self.report(
                    &file,
                    name,
                    "(drawbridge.v1.field).condition",
                    problem.into(),
                );
            }
        }
        let names = rules
            .field_names
            .as_ref()
            .and_then(|rule| self.names(field, rule).map(Box::new));
        Field {
            name: field.name().into(),
            number: field.number(),
            wire_name: wire_name.into(),
            aliases,
            kind,
            cardinality,
            form,
            raw_of: None,
            raw: None,
            urls_of: None,
            url_fields: Vec::new(),
            url_pattern: self.url_pattern(field, rules).map(Box::new),
            oneof: field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic())
                .and_then(|oneof| oneof.path().last().map(|&i| i as u16)),
            query: rules.query,
            gateway_only: rules.gateway_only,
            emit_empty: rules.emit_empty,
            null_is_empty: rules.null_is_empty,
            additional_properties: rules.additional_properties,
            required: behavior.contains(&2),
            output_only: behavior.contains(&3),
            required_in: rules
                .required_in
                .iter()
                .map(|d| d.as_str().into())
                .collect(),
            absent_in: rules.absent_in.iter().map(|d| d.as_str().into()).collect(),
            project_id,
            minimum: rules.minimum,
            condition,
            names,
            mask_names: is_mask.then(|| Box::new(self.mask_names.within(field.parent_message()))),
            tag: Tag::new(field.number(), Tag::wire_type(kind)),
            packed_tag: Tag::new(field.number(), 2),
            member: format!("{quoted}:").into(),
            next_member: format!(",{quoted}:").into(),
        }
    }

    /// Compiles `FieldRules.url_pattern`.
    fn url_pattern(
        &mut self,
        field: &FieldDescriptor,
        rules: &rules::FieldRules,
    ) -> Option<UrlPattern> {
        if rules.urls_of.is_empty() && rules.url_pattern.is_empty() {
            return None;
        }
        let file = field.parent_message().parent_file();
        let name = field.full_name();
        let kind = field.kind();
        let problem = match (kind.as_message(), &*rules.url_pattern) {
            (_, "") if kind == ProtoKind::String => return None,
            (Some(message), pattern) if !rules.urls_of.is_empty() => {
                match UrlPattern::compile(pattern, message) {
                    Ok(pattern) => return Some(pattern),
                    Err(problem) => problem,
                }
            }
            _ => "is for a repeated message with `urls_of`".into(),
        };
        self.report(&file, name, "(drawbridge.v1.field).url_pattern", problem);
        None
    }

    /// Compiles `FieldRules.field_names`.
    fn names(&mut self, field: &FieldDescriptor, rule: &rules::FieldNames) -> Option<NameRule> {
        let file = field.parent_message().parent_file();
        let option = "(drawbridge.v1.field).field_names";
        if !matches!(field.kind(), ProtoKind::String) || field.is_map() {
            let problem = "only for strings".into();
            self.report(&file, field.full_name(), option, problem);
            return None;
        }
        let local = format!("{}.{}", file.package_name(), rule.message);
        let found = [&*local, &*rule.message]
            .iter()
            .find_map(|name| self.message_ids.get(*name).copied());
        let Some(message) = found else {
            let problem = format!("there is no message `{}`", rule.message);
            self.report(&file, field.full_name(), option, problem);
            return None;
        };
        Some(NameRule {
            message,
            suffixes: rule.suffixes.iter().map(|s| s.as_str().into()).collect(),
        })
    }

    /// Returns the values of `google.api.field_behavior`: 2 is REQUIRED, 3 OUTPUT_ONLY.
    fn behavior(&self, field: &FieldDescriptor) -> Vec<i32> {
        let Some(extension) = &self.options.behavior else {
            return Vec::new();
        };
        match &*field.options().get_extension(extension) {
            Value::List(list) => list.iter().filter_map(Value::as_enum_number).collect(),
            _ => Vec::new(),
        }
    }

    fn kind(&self, kind: ProtoKind) -> Kind {
        match kind {
            ProtoKind::Double => Kind::Double,
            ProtoKind::Float => Kind::Float,
            ProtoKind::Int32 => Kind::Int32,
            ProtoKind::Int64 => Kind::Int64,
            ProtoKind::Uint32 => Kind::Uint32,
            ProtoKind::Uint64 => Kind::Uint64,
            ProtoKind::Sint32 => Kind::Sint32,
            ProtoKind::Sint64 => Kind::Sint64,
            ProtoKind::Fixed32 => Kind::Fixed32,
            ProtoKind::Fixed64 => Kind::Fixed64,
            ProtoKind::Sfixed32 => Kind::Sfixed32,
            ProtoKind::Sfixed64 => Kind::Sfixed64,
            ProtoKind::Bool => Kind::Bool,
            ProtoKind::String => Kind::String,
            ProtoKind::Bytes => Kind::Bytes,
            // A pool contains all types that its fields refer to.
            ProtoKind::Message(message) => Kind::Message(self.message_ids[message.full_name()]),
            ProtoKind::Enum(e) => Kind::Enum(self.enum_ids[e.full_name()]),
        }
    }
}

/// Compiles a condition.
fn condition(rule: &rules::Condition, wire_name: &str, many: bool) -> Condition {
    let or = |text: &str, default: &str| match text {
        "" => default.into(),
        text => text.into(),
    };
    Condition {
        member: or(&rule.member, wire_name),
        operator: or(&rule.operator, if many { "in" } else { "eq" }),
    }
}

/// Returns whether the text needs no quotes in an expression.
fn is_bare_text(text: &str) -> bool {
    let fine = |c: char| (c == ' ' || c.is_ascii_graphic()) && !"'\"()[]".contains(c);
    !text.is_empty() && text.chars().all(fine)
}

fn indexes(fields: &[Field], wanted: impl Fn(&Field) -> bool) -> Box<[FieldIndex]> {
    let all = (0..).zip(fields).filter(|(_, f)| wanted(f));
    all.map(|(index, _)| index).collect()
}

/// Checks that values of this type have the form.
fn check_form(
    form: Form,
    element: &ProtoKind,
    cardinality: Cardinality,
) -> Result<(), &'static str> {
    let message = element.as_message().map(|m| shape(m.full_name()));
    let number = match element {
        ProtoKind::String | ProtoKind::Bytes | ProtoKind::Enum(_) => false,
        ProtoKind::Message(_) => message == Some(Shape::Wrapper),
        _ => true,
    };
    let single = matches!(cardinality, Cardinality::Implicit | Cardinality::Explicit);
    match form {
        Form::Plain => Ok(()),
        Form::String if number => Ok(()),
        Form::String => Err("STRING is for numbers and bools"),
        Form::EpochMillis if message == Some(Shape::Timestamp) => Ok(()),
        Form::EpochMillis => Err("EPOCH_MILLIS is for google.protobuf.Timestamp"),
        Form::CommaList if cardinality == Cardinality::Repeated && message.is_none() => Ok(()),
        Form::CommaList => Err("COMMA_LIST is for repeated strings, numbers and enums"),
        Form::JsonText if message.is_some() && cardinality != Cardinality::Map => Ok(()),
        Form::JsonText => Err("JSON_TEXT is for messages"),
        Form::Flag if single && matches!(element, ProtoKind::Bool) => Ok(()),
        Form::Flag => Err("FLAG is for a single bool"),
        Form::OffsetTime if message == Some(Shape::Timestamp) => Ok(()),
        Form::OffsetTime => Err("OFFSET_TIME is for google.protobuf.Timestamp"),
        Form::Expression if message == Some(Shape::Object) && single => Ok(()),
        Form::Expression => Err("EXPRESSION is for a single message"),
        // Derived from the naming of the file.
        Form::CamelMask => Ok(()),
    }
}

fn shape(full_name: &str) -> Shape {
    match full_name.strip_prefix("google.protobuf.") {
        Some("Struct") => Shape::Struct,
        Some("Value") => Shape::Value,
        Some("ListValue") => Shape::ListValue,
        Some("Timestamp") => Shape::Timestamp,
        Some("Duration") => Shape::Duration,
        Some("FieldMask") => Shape::FieldMask,
        Some("Any") => Shape::Any,
        Some(
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue",
        ) => Shape::Wrapper,
        _ => Shape::Object,
    }
}

/// Returns the JSON name that protobuf derives from a field's name.
fn lower_camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        match c {
            '_' => up = true,
            _ if up => {
                camel.push(c.to_ascii_uppercase());
                up = false;
            }
            _ => camel.push(c),
        }
    }
    camel
}
