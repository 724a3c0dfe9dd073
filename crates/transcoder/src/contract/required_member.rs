//! What the body of a successful reply must hold to be the requested resource: the list of
//! a list, the wrapper of a single resource, or at least one known member.

use std::borrow::Cow;

use http::Method as Verb;

use crate::Error;
use crate::family::Evidence;
use crate::json::{self, Found, wire};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, Message, Schema, Shape};

use super::Method;

/// Integers of a list response, next to the list.
const TOTALS: &[&str] = &["count", "total", "total_count", "total_size"];

/// What a body must hold.
pub(super) struct Required<'a> {
    schema: &'a Schema,
    rule: Rule<'a>,
}

enum Rule<'a> {
    /// Nothing: it is arbitrary JSON, or decoded as a map or a scalar.
    Nothing,
    /// A list without a member of its own.
    BareList(&'a Field),
    /// This member.
    Member(&'a Message, FieldIndex),
    /// At least one member that has a field.
    AnyMember(&'a Message),
}

impl<'a> Required<'a> {
    /// Returns what the reply to `method` must hold when it is decoded into the field
    /// `chosen`, or into the response itself.
    pub fn of(method: &'a Method, chosen: Option<FieldIndex>) -> Self {
        let schema = &*method.schema;
        let response = schema.message(method.output);
        let rule = match chosen.or(method.response_body) {
            None if response.fields.is_empty() => Rule::Nothing,
            None => match response.shape {
                Shape::Object => method.of_response(response),
                _ => Rule::Nothing,
            },
            Some(index) => {
                let field = &response.fields[usize::from(index)];
                match (field.kind, field.cardinality) {
                    (_, Cardinality::Map) => Rule::Nothing,
                    (_, Cardinality::Repeated) => Rule::BareList(field),
                    (Kind::Message(id), _) => of_resource(schema.message(id)),
                    _ => Rule::AnyMember(response),
                }
            }
        };
        Self { schema, rule }
    }

    /// Says what is missing in the body, which was decoded to `wire`; none if it is the
    /// requested resource. `found` is none for a body that is not decoded as a message.
    pub fn missing(&self, found: Option<&Found>, body: &[u8], wire: &[u8]) -> Option<String> {
        let found = found?;
        match self.rule {
            Rule::Nothing | Rule::BareList(_) => None,
            Rule::Member(message, index) => {
                let field = &message.fields[usize::from(index)];
                let is_null = found.has(index) && !found.has_value(index);
                if is_null && !null_is_a_value(field) {
                    return Some(format!("`{}` is null", field.wire_name));
                }
                match (self.holds(found, index, field), found.has(index)) {
                    (true, _) => self.missing_in_wrapper(message, index, body, wire),
                    (false, true) => Some(format!("`{}` is null", field.wire_name)),
                    (false, false) => Some(is_missing(&field.wire_name)),
                }
            }
            Rule::AnyMember(message) => {
                let is_open = found.unknown && has_undescribed_form(message);
                (!is_open && !self.holds_any(found, message)).then(|| missing_any(message))
            }
        }
    }

    /// Says what is missing in the object of a wrapper: it must have a known member, too.
    fn missing_in_wrapper(
        &self,
        message: &Message,
        index: FieldIndex,
        body: &[u8],
        wire: &[u8],
    ) -> Option<String> {
        let field = &message.fields[usize::from(index)];
        let Kind::Message(id) = field.kind else {
            return None;
        };
        let inner = self.schema.message(id);
        let is_plain = inner.unwrap.is_none() && inner.additional_properties.is_none();
        if !field.is_single()
            || inner.shape != Shape::Object
            || !is_plain
            || known(inner).next().is_none()
        {
            return None;
        }
        // A member that decodes to bytes is there. Otherwise all are absent, `null` or zero.
        let last = wire::last(wire, field.number).ok().flatten();
        if last.is_some_and(|value| !value.bytes().is_empty()) {
            return None;
        }
        let is_known = |(name, value): (Cow<'_, [u8]>, &[u8])| {
            inner.names.get(&name).is_some() && value != b"null"
        };
        let mut wrappers =
            json::members(body).filter(|(name, _)| message.names.get(name) == Some(index));
        let is_there = wrappers.any(|(_, value)| {
            // A list or a text in place of the object is an option of the message.
            !value.starts_with(b"{") || json::members(value).any(is_known)
        });
        (!is_there).then(|| format!("in `{}`, {}", field.wire_name, missing_any(inner)))
    }

    /// Returns the HTTP status of a body that could be the requested resource, but is an
    /// error of the family.
    pub fn error_status(&self, method: &Method, found: Option<&Found>, body: &[u8]) -> Option<u16> {
        let declaring = match self.rule {
            Rule::BareList(_) => return None,
            Rule::Nothing => None,
            // Next to an error, `null` is no value.
            Rule::Member(_, index)
                if found.is_some_and(|found| found.unknown && !found.has_content(index)) =>
            {
                return method.error_status(body, Evidence::NotTheResource);
            }
            // Error bodies have no object or list of that name.
            Rule::Member(message, index) => match message.fields[usize::from(index)] {
                Field {
                    kind: Kind::Message(_),
                    ..
                }
                | Field {
                    cardinality: Cardinality::Repeated | Cardinality::Map,
                    ..
                } => return None,
                _ => Some(message),
            },
            Rule::AnyMember(message) => Some(message),
        };
        if declaring.is_none() {
            return method.error_status(body, Evidence::MayBeTheResource(&|_| false));
        }
        // A body with no other members than those of the response is the response.
        let (Some(message), true) = (declaring, found.is_none_or(|found| found.unknown)) else {
            return None;
        };
        let declares = |name: &str| message.names.get(name.as_bytes()).is_some();
        let has_known =
            found.is_none_or(|found| known(message).any(|(index, _)| found.has_content(index)));
        let evidence = match has_known {
            true => Evidence::MayBeTheResource(&declares),
            // Nothing but members without a field.
            false => Evidence::NotTheResource,
        };
        method.error_status(body, evidence)
    }

    /// Returns the error of an empty body or `null`. The reply to a DELETE may be empty:
    /// the resource is gone.
    pub fn missing_in_empty(&self, verb: &Verb, body: &[u8]) -> Option<Error> {
        let is_null = body == b"null";
        let missing = match self.rule {
            Rule::Nothing => None,
            _ if *verb == Verb::DELETE => None,
            Rule::BareList(field) if is_null && null_is_a_value(field) => None,
            Rule::BareList(_) => Some("the list is missing".to_owned()),
            Rule::Member(message, index)
                if is_null
                    && message.bare_array == Some(index)
                    && null_is_a_value(&message.fields[usize::from(index)]) =>
            {
                None
            }
            Rule::Member(message, index) => {
                Some(is_missing(&message.fields[usize::from(index)].wire_name))
            }
            Rule::AnyMember(message) => Some(missing_any(message)),
        };
        let missing = missing?;
        Some(Error::not_the_resource(format!(
            "expected a response body, found none: {missing}"
        )))
    }

    /// Returns whether the object holds at least one of the fields. One that is `null` does
    /// not count, unless each of them could be `null` and empty.
    fn holds_any(&self, found: &Found, message: &Message) -> bool {
        known(message).any(|(index, _)| found.has_content(index))
            || known(message).all(|(_, field)| self.may_be_null(field))
                && known(message).any(|(index, _)| found.has(index))
    }

    /// Returns whether the object holds the field. One that is `null` is absent, unless it
    /// is a list, a map or arbitrary JSON, which are then there and empty.
    fn holds(&self, found: &Found, index: FieldIndex, field: &Field) -> bool {
        match self.may_be_null(field) {
            true => found.has(index),
            false => found.has_value(index),
        }
    }

    fn may_be_null(&self, field: &Field) -> bool {
        match (field.kind, field.cardinality) {
            (_, Cardinality::Repeated | Cardinality::Map) => true,
            (Kind::Message(id), _) => matches!(
                self.schema.message(id).shape,
                Shape::Struct | Shape::Value | Shape::ListValue
            ),
            _ => false,
        }
    }
}

impl Method {
    fn of_response<'a>(&'a self, response: &'a Message) -> Rule<'a> {
        let by_number = |number| response.by_number(number).map(|(index, _)| index);
        let paged = self.paging.as_ref().and_then(|p| by_number(p.items));
        let standard = || match self.name.starts_with("List") {
            // AIP-132.
            true => only_list(response),
            false => None,
        };
        let watched = || self.watched_member.get().copied();
        match paged.or_else(standard).or_else(watched) {
            Some(index) => Rule::Member(response, index),
            None => of_resource(response),
        }
    }
}

fn of_resource(message: &Message) -> Rule<'_> {
    if message.shape != Shape::Object {
        return Rule::Nothing;
    }
    if message.additional_properties.is_some() {
        return match known(message).next() {
            Some(_) => Rule::AnyMember(message),
            None => Rule::Nothing,
        };
    }
    let mut fields = known(message);
    match (fields.next(), fields.next()) {
        (None, _) => Rule::Nothing,
        (Some((index, _)), None) if message.unwrap.is_none() => Rule::Member(message, index),
        _ => match counted_list(message) {
            Some(index) => Rule::Member(message, index),
            None => Rule::AnyMember(message),
        },
    }
}

/// Returns whether `null` is the field's value, and not its absence. Of a list only where its
/// rule says so: `null` may also mean that the list could not be read.
fn null_is_a_value(field: &Field) -> bool {
    field.cardinality != Cardinality::Repeated || field.null_is_empty
}

/// Returns the fields that a body can have.
fn known(message: &Message) -> impl Iterator<Item = (FieldIndex, &Field)> {
    let fields = (0..).zip(&message.fields);
    fields.filter(|(_, field)| !field.gateway_only && field.is_member())
}

/// Returns the list of a message with a single list.
fn only_list(message: &Message) -> Option<FieldIndex> {
    let mut lists = known(message).filter(|(_, field)| field.cardinality == Cardinality::Repeated);
    match (lists.next(), lists.next()) {
        (Some((index, _)), None) => Some(index),
        _ => None,
    }
}

/// Returns the list of a message that has nothing else but totals.
fn counted_list(message: &Message) -> Option<FieldIndex> {
    let list = only_list(message)?;
    let mut others = known(message).filter(|(index, _)| *index != list);
    others
        .all(|(_, field)| TOTALS.contains(&&*field.name))
        .then_some(list)
}

/// Returns whether a message takes all members, and describes at most one: what a response
/// has is then not known, and its other members can be all of it.
fn has_undescribed_form(message: &Message) -> bool {
    message.additional_properties.is_some() && known(message).nth(1).is_none()
}

fn is_missing(name: &str) -> String {
    format!("`{name}` is missing")
}

fn missing_any(message: &Message) -> String {
    const SHOWN: usize = 3;
    if let Some(unwrap) = &message.unwrap {
        return is_missing(unwrap);
    }
    let mut names: Vec<_> = known(message)
        .take(SHOWN + 1)
        .map(|(_, field)| format!("`{}`", field.wire_name))
        .collect();
    if names.len() > SHOWN {
        names[SHOWN] = "…".to_owned();
    }
    let names = names.join(", ");
    format!("none of the members {names} is there")
}
