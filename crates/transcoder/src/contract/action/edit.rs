//! Edits of an action's document.

use crate::api::drawbridge::v1 as rules;
use crate::contract::diagnostics::{Diagnostics, check_json};
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema, Shape};

/// A compiled `drawbridge.v1.Edit`.
#[derive(Debug)]
pub struct Edit {
    /// The field's name, for errors.
    pub name: Box<str>,
    /// The member of the document whose objects are edited. None: the document itself
    /// is the object.
    pub within: Option<Box<str>>,
    /// Prefixes of the members that mark an object to edit; empty: every object.
    pub marked_by: Vec<Box<str>>,
    /// The target of the value.
    pub place: Place,
    /// Whether the value is written as a string.
    pub as_text: bool,
    /// Members that are set together with it, as JSON.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// The field of the request that has the value.
    pub field: FieldIndex,
}

/// The target of an edit's value.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// The members of the value become members of the object.
    Members,
    /// The entries of the value replace members of the object.
    Entries,
    /// Each entry of the value becomes this member of the object whose marker member
    /// contains the entry's key.
    Keyed(Box<str>),
    /// The value becomes this member.
    Member(Box<str>),
    /// The value replaces that of the marker member.
    Marker,
}

/// Compiles the edits of an action.
pub(super) fn compile(
    edits: &[rules::Edit],
    schema: &Schema,
    input: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<Edit> {
    edits
        .iter()
        .filter_map(|rule| {
            one(rule, schema, input)
                .map_err(|problem| {
                    let problem = format!("`{}`: {problem}", rule.field);
                    diagnostics.report_rule("action.edits", problem);
                })
                .ok()
        })
        .collect()
}

fn one(rule: &rules::Edit, schema: &Schema, input: MessageId) -> Result<Edit, String> {
    let request = schema.message(input);
    let Some((index, field)) = request.field(&rule.field) else {
        return Err(format!("{} has no such field", request.name));
    };
    if field.gateway_only || field.output_only || field.query {
        return Err(
            "is `gateway_only`, OUTPUT_ONLY or a query parameter, so the document cannot \
                    contain it"
                .into(),
        );
    }
    let object =
        matches!(field.kind, Kind::Message(id) if schema.message(id).shape == Shape::Object);
    let marked = !rule.member_prefixes.is_empty();
    let sets = || rule.target_member.as_str().into();
    let to = match field.cardinality {
        Cardinality::Map if rule.keyed && marked && !rule.target_member.is_empty() => {
            Place::Keyed(sets())
        }
        _ if rule.keyed => {
            return Err(
                "`keyed` is for a map, and needs `member_prefixes` and `target_member`".into(),
            );
        }
        _ if !rule.target_member.is_empty() => Place::Member(sets()),
        Cardinality::Map => Place::Entries,
        Cardinality::Explicit if object => Place::Members,
        _ if marked => Place::Marker,
        _ => return Err("has no target: set `target_member`".into()),
    };
    if rule.as_text && matches!(to, Place::Members) {
        return Err("a message cannot be written as a text".into());
    }
    if rule.member_prefixes.iter().any(String::is_empty) {
        return Err("`member_prefixes` is empty".into());
    }
    let mut members = Vec::new();
    for (name, json) in &rule.members {
        check_json(json).map_err(|problem| format!("member `{name}`: {problem}"))?;
        members.push((name.as_str().into(), json.as_str().into()));
    }
    members.sort();
    Ok(Edit {
        name: field.name.clone(),
        within: (!rule.parent_member.is_empty()).then(|| rule.parent_member.as_str().into()),
        marked_by: rule
            .member_prefixes
            .iter()
            .map(|m| m.as_str().into())
            .collect(),
        place: to,
        as_text: rule.as_text,
        members,
        field: index,
    })
}
