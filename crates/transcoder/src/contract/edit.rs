//! What of a request is put into an action's document.

use super::diagnostics::{Diagnostics, check_json};
use crate::api::drawbridge::v1 as rules;
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema, Shape};

/// A compiled `drawbridge.v1.Edit`.
#[derive(Debug)]
pub struct Edit {
    /// The field's name, for errors.
    pub name: Box<str>,
    /// The member of the document in which objects are looked for. None: the
    /// document itself is the object.
    pub within: Option<Box<str>>,
    /// How names of members begin that mark an object; none: every object.
    pub marked_by: Vec<Box<str>>,
    /// Where the value goes.
    pub place: Place,
    /// The value is written as a text.
    pub as_text: bool,
    /// Members that are set along with it, as JSON texts.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// The field of the request that has the value.
    pub field: FieldIndex,
}

/// Where the value of an edit goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// Its members become members of the object.
    Members,
    /// Its entries replace members of the object.
    Entries,
    /// Each entry goes to this member of the object whose marker holds its key.
    Keyed(Box<str>),
    /// It becomes this member.
    Member(Box<str>),
    /// It takes the place of the marker's value.
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
        return Err("is local, OUTPUT_ONLY or a query parameter".into());
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
        _ => return Err("has no place: name it in `target_member`".into()),
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
