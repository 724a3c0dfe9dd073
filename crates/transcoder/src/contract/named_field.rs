//! Fields of a request that name the resource of a call, which a policy can restrict.

use std::borrow::Cow;

use super::Method;
use super::bind::{Binding, Body, Piece};
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, MessageId, Schema};

/// A field of an rpc's request. If it is set, and nothing else names the resource, the call is
/// for the resource of this name.
#[derive(Debug)]
pub struct NamedField {
    /// The path of the field, as in the proto.
    pub path: Box<str>,
    /// The messages that contain it, and itself.
    steps: Vec<Step>,
    kind: Kind,
    /// Fields by which the resource could be named instead, with their names: outermost.
    others: Vec<(u32, Box<str>)>,
}

/// One level of a field's path.
#[derive(Debug)]
struct Step {
    number: u32,
    /// What must not be set as well: the other members of its oneof, its raw field, additional
    /// properties.
    rivals: Vec<u32>,
}

/// Why a request does not name its resource by a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// The field is unset, or empty.
    Unset,
    /// The field, or a message that contains it, occurs more than once, or with another field
    /// that could replace it.
    Ambiguous,
    /// This field is set, too.
    Other(Box<str>),
}

impl Method {
    /// Returns the field at this path, if it names the resource of each call of the rpc. `also`
    /// are the paths of further fields that are restricted, too.
    ///
    /// # Errors
    ///
    /// Returns why the field does not name the resource: a rule about it allows no call of this
    /// rpc.
    pub fn named_field(&self, path: &str, also: &[&str]) -> Result<NamedField, &'static str> {
        let (indices, field) = find(&self.schema, self.input, path).ok_or("has no such field")?;
        check_kind(field)?;
        // The rpc whose REST call is made first.
        let called = match self.watch.as_ref().and_then(|watch| watch.start.as_ref()) {
            Some(start) => &*start.rpc,
            None => self.called_rpc().unwrap_or(self),
        };
        let (their_indices, theirs) =
            find(&called.schema, called.input, path).ok_or("is not part of the call")?;
        check_kind(theirs)?;
        let others: Vec<Vec<FieldIndex>> = also
            .iter()
            .filter_map(|path| Some(find(&called.schema, called.input, path)?.0))
            .collect();
        let is_list = called.paging.is_some()
            || called.merge_pages.is_some()
            || self.pages.is_some()
            || self.watch.as_ref().is_some_and(|watch| watch.list);
        let all = std::iter::once(&called.binding).chain(&called.binding.additional);
        let mut is_in_path = true;
        for binding in all {
            is_in_path &= binding.is_named_by(&their_indices, &others, is_list)?;
        }
        let mut named = NamedField {
            path: path.into(),
            steps: steps(&self.schema, self.input, &indices, !is_in_path),
            kind: field.kind,
            others: Vec::new(),
        };
        let restricted: Vec<&str> = also.iter().copied().chain([path]).collect();
        for rpc in [self, called] {
            let looked_up = rpc.resolve.iter().flat_map(|resolve| resolve.path_fields());
            let looked_up: Vec<&str> = looked_up.collect();
            if looked_up.contains(&path) {
                let other = looked_up.iter().filter(|name| !restricted.contains(name));
                named.add_others(&self.schema, self.input, other.copied());
            }
        }
        Ok(named)
    }
}

impl Binding {
    /// Fails unless the field names the resource of the call: it is part of each path, or the
    /// paths name no other resource and the field is sent. A filter of a list names nothing.
    /// Returns whether it is part of each path.
    fn is_named_by(
        &self,
        field: &[FieldIndex],
        also: &[Vec<FieldIndex>],
        is_list: bool,
    ) -> Result<bool, &'static str> {
        let mut is_in_each = true;
        let others = self.other_paths.iter().map(|(_, pieces)| pieces);
        for pieces in std::iter::once(&self.path).chain(others) {
            let mut in_path = pieces.iter().filter_map(|piece| match piece {
                Piece::Literal(_) => None,
                Piece::Field(field) => {
                    let path = [&field.steps[..], &[field.index]].concat();
                    Some((path, field.project_id))
                }
            });
            let is = |path: &[FieldIndex]| path == field;
            if in_path.clone().any(|(path, _)| is(&path)) {
                continue;
            }
            is_in_each = false;
            if is_list {
                return Err("only selects items of a list");
            }
            if in_path.any(|(path, is_project)| !is_project && !also.contains(&path)) {
                return Err("does not name the resource: the path does");
            }
            if !self.sends(field) {
                return Err("is not sent");
            }
        }
        Ok(is_in_each)
    }

    /// Returns whether a field outside the path is sent to all dialects.
    fn sends(&self, field: &[FieldIndex]) -> bool {
        let Some(first) = field.first() else {
            return false;
        };
        let mut id = self.input;
        for index in field {
            let field = &self.schema.message(id).fields[usize::from(*index)];
            if field.gateway_only || field.output_only || !field.absent_in.is_empty() {
                return false;
            }
            if let Kind::Message(below) = field.kind {
                id = below;
            }
        }
        self.plans.iter().all(|(_, plan)| {
            let in_query = plan.query.iter().any(|param| param.index == *first);
            in_query
                || match &self.body {
                    Body::Fields => !plan.skip[usize::from(*first)],
                    Body::Field { index } => index == first,
                    Body::None | Body::Constant(_) | Body::Raw(_) => false,
                }
        })
    }
}

impl NamedField {
    fn add_others<'a>(
        &mut self,
        schema: &Schema,
        input: MessageId,
        names: impl Iterator<Item = &'a str>,
    ) {
        for name in names {
            let field = schema.message(input).field(name);
            if let Some((_, field)) = field
                && !self
                    .others
                    .iter()
                    .any(|(number, _)| *number == field.number)
            {
                self.others.push((field.number, name.into()));
            }
        }
    }

    /// Returns the name of the resource in a request of the client.
    ///
    /// # Errors
    ///
    /// Returns why the request does not name its resource by this field alone.
    pub fn of<'a>(&self, request: &'a [u8]) -> Result<Cow<'a, str>, Unnamed> {
        for (number, name) in &self.others {
            if wire::last(request, *number)
                .map_err(|_| Unnamed::Ambiguous)?
                .is_some()
            {
                return Err(Unnamed::Other(name.clone()));
            }
        }
        let mut message = request;
        let mut steps = self.steps.iter().peekable();
        while let Some(step) = steps.next() {
            let mut only = None;
            for item in wire::fields(message) {
                let (number, value) = item.map_err(|_| Unnamed::Ambiguous)?;
                let is_second = number == step.number && only.replace(value).is_some();
                if is_second || step.rivals.contains(&number) {
                    return Err(Unnamed::Ambiguous);
                }
            }
            match (only, steps.peek()) {
                (Some(Value::Bytes(below)), Some(_)) => message = below,
                (None, _) => return Err(Unnamed::Unset),
                (Some(_), Some(_)) => return Err(Unnamed::Ambiguous),
                (Some(value), None) => return self.text(value),
            }
        }
        Err(Unnamed::Unset)
    }

    /// Returns the name of the resource in a request to which a name lookup has added what it
    /// has found.
    ///
    /// # Errors
    ///
    /// Fails for a request without a name.
    pub fn of_found<'a>(&self, request: &'a [u8]) -> Result<Cow<'a, str>, Unnamed> {
        match &*self.steps {
            // Only outermost fields are looked up; the last occurrence counts.
            [step] => match wire::last(request, step.number) {
                Ok(Some(value)) => self.text(value),
                Ok(None) => Err(Unnamed::Unset),
                Err(_) => Err(Unnamed::Ambiguous),
            },
            _ => self.of(request),
        }
    }

    fn text<'a>(&self, value: Value<'a>) -> Result<Cow<'a, str>, Unnamed> {
        match value {
            Value::Bytes(b"") => Err(Unnamed::Unset),
            Value::Bytes(text) if self.kind == Kind::String => {
                let text = std::str::from_utf8(text).map_err(|_| Unnamed::Ambiguous)?;
                Ok(Cow::Borrowed(text))
            }
            value => match wire::integer(self.kind, value) {
                Some(0) => Err(Unnamed::Unset),
                Some(number) => Ok(Cow::Owned(number.to_string())),
                None => Err(Unnamed::Ambiguous),
            },
        }
    }
}

/// Fails for a field that does not have one text or one integer.
fn check_kind(field: &Field) -> Result<(), &'static str> {
    let is_integer = || {
        matches!(
            field.kind,
            Kind::Int32
                | Kind::Int64
                | Kind::Uint32
                | Kind::Uint64
                | Kind::Sint32
                | Kind::Sint64
                | Kind::Fixed32
                | Kind::Fixed64
                | Kind::Sfixed32
                | Kind::Sfixed64
        )
    };
    match (field.cardinality, field.kind) {
        (Cardinality::Repeated | Cardinality::Map, _) => Err("has several values"),
        (_, Kind::String) => Ok(()),
        _ if is_integer() => Ok(()),
        _ => Err("is no text and no integer"),
    }
}

/// Returns the indices that lead to a field, and the field; none if a message on the way is
/// missing or has several values.
fn find<'s>(
    schema: &'s Schema,
    input: MessageId,
    path: &str,
) -> Option<(Vec<FieldIndex>, &'s Field)> {
    let mut id = Some(input);
    let mut indices = Vec::new();
    let mut found = None;
    for name in path.split('.') {
        let (index, field) = schema.message(id?).field(name)?;
        indices.push(index);
        id = match field.kind {
            Kind::Message(below) if field.is_single() => Some(below),
            _ => None,
        };
        found = Some(field);
    }
    Some((indices, found?))
}

/// Returns the levels of a path. With `in_body`, additional properties could have a member of the
/// same name.
fn steps(schema: &Schema, input: MessageId, indices: &[FieldIndex], in_body: bool) -> Vec<Step> {
    let mut id = input;
    let mut steps = Vec::new();
    for index in indices {
        let message = schema.message(id);
        let field = &message.fields[usize::from(*index)];
        let in_oneof = message.fields.iter().filter(|other| {
            field.oneof.is_some() && other.oneof == field.oneof && other.number != field.number
        });
        let any = message.additional_properties.filter(|_| in_body);
        let beside = [field.raw, any].into_iter().flatten();
        let beside = beside.map(|index| &message.fields[usize::from(index)]);
        steps.push(Step {
            number: field.number,
            rivals: in_oneof.chain(beside).map(|other| other.number).collect(),
        });
        if let Kind::Message(below) = field.kind {
            id = below;
        }
    }
    steps
}
