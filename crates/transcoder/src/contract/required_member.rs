//! What the body of a successful reply must hold to be the requested resource: the list of
//! a list, the wrapper of a single resource, or at least one known member.

use std::borrow::Cow;

use http::Method as Verb;

use crate::Error;
use crate::family::{Evidence, Members};
use crate::json::{self, Found, wire};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, Message, Schema, Shape};

use super::Method;

/// Integers of a list response, next to the list.
const TOTALS: &[&str] = &["count", "total", "total_count", "total_size"];

const LIST_IS_MISSING: &str = "the list is missing";
const NULL_ITEM: &str = "an item is null";

/// What a body must hold.
pub(super) struct Required<'a> {
    schema: &'a Schema,
    rule: Rule<'a>,
    /// The number of the member into which the body is decoded.
    within: Option<u32>,
}

enum Rule<'a> {
    /// Nothing: it is arbitrary JSON, or decoded as a map or a scalar.
    Nothing,
    /// A value other than `null`, of this type.
    Value(&'a Message),
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
                _ => of_resource(response),
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
        let within = chosen.or(method.response_body).and_then(|index| {
            let field = &response.fields[usize::from(index)];
            let is_object = field.is_single() && matches!(field.kind, Kind::Message(_));
            is_object.then_some(field.number)
        });
        Self {
            schema,
            rule,
            within,
        }
    }

    /// Says what is missing in the body, which was decoded to `wire`; none if it is the
    /// requested resource. `found` is none for a body that is not decoded as a message.
    pub fn missing(&self, found: Option<&Found>, body: &[u8], wire: &[u8]) -> Option<String> {
        let found = found?;
        let wire = match self.within {
            Some(number) => match wire::last(wire, number) {
                Ok(Some(inner)) => inner.bytes(),
                _ => &[],
            },
            None => wire,
        };
        match self.rule {
            Rule::Nothing | Rule::Value(_) => None,
            Rule::BareList(_) => found.has_null_item.then(|| NULL_ITEM.to_owned()),
            Rule::Member(message, index) => {
                let field = &message.fields[usize::from(index)];
                let is_null = found.has(index) && !found.has_value(index);
                if is_null && !null_is_a_value(field) {
                    return Some(format!("`{}` is null", field.wire_name));
                }
                if found.has_null_item && field.cardinality == Cardinality::Repeated {
                    return Some(format!("in `{}`, {NULL_ITEM}", field.wire_name));
                }
                match (self.holds(found, index, field), found.has(index)) {
                    (true, _) => self.missing_in_wrapper(message, index, body, wire),
                    (false, true) => Some(format!("`{}` is null", field.wire_name)),
                    (false, false) => Some(is_missing(&field.wire_name)),
                }
            }
            Rule::AnyMember(message) => {
                let is_open = found.unknown.any() && has_undescribed_form(message);
                match is_open || self.holds_any(found, message) {
                    true => self.missing_in_resources(found, message, body, wire),
                    false => Some(missing_any(message)),
                }
            }
        }
    }

    /// Says what is missing where nothing but empty resources and lists is there:
    /// `{"api":{},"engine":{}}`. The resource of a response that has nothing else but lists
    /// and totals must not be empty at all.
    fn missing_in_resources(
        &self,
        found: &Found,
        message: &Message,
        body: &[u8],
        wire: &[u8],
    ) -> Option<String> {
        if found.unknown.any() && message.additional_properties.is_some() {
            return None;
        }
        let mut missing = None;
        let is_counted = self.has_counted_resource(message);
        for (index, field) in known(message).filter(|(index, _)| found.has_content(*index)) {
            let is_there = match field.cardinality {
                Cardinality::Repeated | Cardinality::Map => {
                    matches!(wire::last(wire, field.number), Ok(Some(_)))
                }
                _ if self.is_resource(field) => {
                    let problem = self.missing_in_wrapper(message, index, body, wire);
                    let is_there = problem.is_none();
                    missing = missing.or(problem);
                    is_there
                }
                _ => true,
            };
            if is_there && !is_counted {
                return None;
            }
        }
        missing
    }

    /// Returns whether a message has one resource, and nothing else but lists and totals.
    fn has_counted_resource(&self, message: &Message) -> bool {
        let mut resources = 0;
        let is_of_it = known(message).all(|(_, field)| {
            if self.is_resource(field) {
                resources += 1;
                return true;
            }
            field.cardinality == Cardinality::Repeated
                || TOTALS.contains(&&*field.name)
                || field.name.ends_with("_count")
        });
        is_of_it && resources == 1
    }

    /// Returns whether the field is an object with members.
    fn is_resource(&self, field: &Field) -> bool {
        match field.kind {
            Kind::Message(id) if field.is_single() => {
                self.schema.message(id).shape == Shape::Object
            }
            _ => false,
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
        // An API may leave out lists that are empty: then nothing is left of such an object.
        let may_be_empty = known(inner).all(|(_, field)| self.may_be_null(field));
        let mut wrappers =
            json::members(body).filter(|(name, _)| message.names.get(name) == Some(index));
        let is_there = wrappers.any(|(_, value)| {
            // A list or a text in place of the object is an option of the message.
            !value.starts_with(b"{")
                || json::members(value).any(is_known)
                || may_be_empty && json::members(value).all(|(_, value)| value == b"null")
        });
        (!is_there).then(|| format!("in `{}`, {}", field.wire_name, missing_any(inner)))
    }

    /// Returns the HTTP status of a body that could be the requested resource, and was decoded
    /// to `wire`, but is an error of the family.
    pub fn error_status(
        &self,
        method: &Method,
        found: Option<&Found>,
        body: &[u8],
        wire: &[u8],
    ) -> Option<u16> {
        let of_any = || method.error_status(body, Evidence::MayBeTheResource(&[]));
        let message = match self.rule {
            Rule::BareList(_) => return None,
            Rule::Nothing | Rule::Value(_) => return of_any(),
            Rule::Member(message, _) | Rule::AnyMember(message) => message,
        };
        let Some(found) = found else {
            return of_any();
        };
        // A body with no other members than those of the response is the response.
        if !found.unknown.any() {
            return None;
        }
        let unknown_error =
            || method.error_status(&found.unknown.object(body), Evidence::NotTheResource);
        if let Rule::Member(_, index) = self.rule {
            let field = &message.fields[usize::from(index)];
            let is_object = matches!(field.kind, Kind::Message(_));
            return match field.cardinality {
                // Next to an error, `null` is not a value.
                _ if !found.has_content(index) => {
                    method.error_status(body, Evidence::NotTheResource)
                }
                // A list next to an error is not all of the list.
                Cardinality::Repeated => unknown_error(),
                Cardinality::Map => unknown_error().filter(|_| wire.is_empty()),
                // Error bodies have no object of that name.
                _ if is_object => None,
                _ => method.error_status(body, may_be(message)),
            };
        }
        let has_known = known(message).any(|(index, _)| found.has_content(index));
        match has_known {
            // Nothing but empty lists and zeros.
            true if wire.is_empty() => unknown_error(),
            true => None,
            // Nothing but members without a field.
            false => method.error_status(body, Evidence::NotTheResource),
        }
        .or_else(|| method.error_status(body, may_be(message)))
    }

    /// Returns the error of an empty body or `null`. The reply to a DELETE may be empty:
    /// the resource is gone.
    pub fn missing_in_empty(&self, verb: &Verb, body: &[u8]) -> Option<Error> {
        let is_null = body == b"null";
        let missing = match self.rule {
            Rule::Nothing => None,
            _ if *verb == Verb::DELETE => None,
            Rule::BareList(field) if is_null && null_is_a_value(field) => None,
            Rule::BareList(_) => Some(LIST_IS_MISSING.to_owned()),
            Rule::Value(message) => Some(match message.shape {
                Shape::ListValue => LIST_IS_MISSING.to_owned(),
                _ => format!("the value ({}) is missing", message.name),
            }),
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
    match message.shape {
        Shape::Object => {}
        Shape::Struct | Shape::Value => return Rule::Nothing,
        _ => return Rule::Value(message),
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

fn may_be(message: &Message) -> Evidence<'_> {
    Evidence::MayBeTheResource(message)
}

impl Members for Message {
    fn has(&self, name: &str) -> bool {
        self.names.get(name.as_bytes()).is_some()
    }

    fn any(&self, accepts: &dyn Fn(&str) -> bool) -> bool {
        known(self).any(|(_, field)| accepts(&field.wire_name))
    }
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
    if let [name] = &names[..] {
        return format!("{name} is missing");
    }
    if names.len() > SHOWN {
        names[SHOWN] = "…".to_owned();
    }
    let names = names.join(", ");
    format!("none of the members {names} is there")
}
