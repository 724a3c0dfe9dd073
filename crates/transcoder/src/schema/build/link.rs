//! Links fields of a message to each other.

use crate::schema::{Cardinality, Field, FieldIndex, Kind};

/// Links the field at `index` to the field whose URLs it has.
pub(super) fn link_url_field(
    fields: &mut [Field],
    index: usize,
    target: &str,
) -> Result<(), String> {
    let Some(of) = fields.iter().position(|f| *f.name == *target) else {
        return Err(format!("there is no field `{target}`"));
    };
    let field = &fields[index];
    let is_list = field.cardinality == Cardinality::Repeated;
    if !is_list || !matches!(field.kind, Kind::String | Kind::Message(_)) || !field.output_only {
        return Err("is for OUTPUT_ONLY repeated strings and messages".into());
    }
    if of == index || !fields[of].is_member() {
        return Err(format!("`{target}` is not read from a member of its own"));
    }
    fields[index].urls_of = Some(of as FieldIndex);
    fields[of].url_fields.push(index as FieldIndex);
    Ok(())
}

/// Links the raw field at `index` to the field whose text it has.
pub(super) fn link_raw_field(
    fields: &mut [Field],
    index: usize,
    target: &str,
) -> Result<(), String> {
    let raw = &fields[index];
    let Some(of) = fields.iter().position(|f| *f.name == *target) else {
        return Err(format!("there is no field `{target}`"));
    };
    let other = &fields[of];
    let lists = [raw, other].map(|f| f.cardinality == Cardinality::Repeated);
    if of == index || other.raw_of.is_some() {
        return Err("a raw field cannot have a raw field itself".into());
    }
    if raw.kind != Kind::String || raw.cardinality == Cardinality::Map {
        return Err("only a string can be a raw field".into());
    }
    if raw.oneof.is_some() || other.oneof.is_some() {
        return Err("members of a oneof cannot have a raw field".into());
    }
    if lists[0] != lists[1] || other.cardinality == Cardinality::Map {
        return Err(format!(
            "`{target}` and this field must both be single, or both repeated"
        ));
    }
    if other.raw.is_some() {
        return Err(format!("`{target}` already has a raw field"));
    }
    fields[index].raw_of = Some(of as FieldIndex);
    fields[of].raw = Some(index as FieldIndex);
    Ok(())
}
