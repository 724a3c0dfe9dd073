//! Writes the query of a call.

use std::borrow::Cow;

use super::super::expression::expression;
use super::super::path_template::encode;
use super::super::plan::{Param, What};
use super::super::view::View;
use super::{Binding, text};
use crate::Error;
use crate::json::Problem;
use crate::json::wire::Value;
use crate::schema::Field;

impl Binding {
    /// Writes the parameters of the fields that are set.
    pub(super) fn query(
        &self,
        params: &[Param],
        view: &View<'_>,
        out: &mut String,
    ) -> Result<(), Error> {
        for param in params {
            let field = view.field(param.index);
            let fault = |problem: Problem| Error::Binding {
                field: param.path.to_string(),
                problem: problem.problem,
            };
            match &param.what {
                What::Message(id, params) => {
                    if let Some(bytes) = view.message(param.index) {
                        let below = View::of(&self.schema, *id, bytes).map_err(Error::malformed)?;
                        self.query(params, &below, out)?;
                    }
                }
                What::Expression(id) => {
                    if let Some(bytes) = view.message(param.index) {
                        let text = expression(&self.schema, *id, bytes, &param.path)?;
                        if !text.is_empty() {
                            param.write(&text, out);
                        }
                    }
                }
                What::Flag => {
                    if matches!(view.value(param.index), Some(Value::Varint(set)) if set != 0) {
                        separate(out);
                        out.push_str(&param.name);
                    }
                }
                What::Value => {
                    if let Some(value) = self.text(view, param.index).map_err(fault)? {
                        let value = self.name(field, value, &param.path)?;
                        param.write(&value, out);
                    }
                }
                What::Each => {
                    for value in view.elements(param.index) {
                        let value = value.map_err(Error::malformed)?;
                        let value = text(&self.schema, field, value).map_err(fault)?;
                        let value = self.name(field, value, &param.path)?;
                        param.write(&value, out);
                    }
                }
                What::CommaList => {
                    let mut list = String::new();
                    for (at, value) in view.elements(param.index).enumerate() {
                        let value = value.map_err(Error::malformed)?;
                        let value = text(&self.schema, field, value).map_err(fault)?;
                        if value.contains(',') {
                            return Err(Error::Binding {
                                field: format!("{}[{at}]", param.path),
                                problem: "must not contain a comma: the API separates the \
                                          elements by commas"
                                    .into(),
                            });
                        }
                        let path = format!("{}[{at}]", param.path);
                        let value = self.name(field, value, &path)?;
                        if at > 0 {
                            list.push(',');
                        }
                        list.push_str(&value);
                    }
                    if view.is_set(param.index) {
                        param.write(&list, out);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the REST name of the field that the value names, where the field has
    /// `field_names`; any other value unchanged.
    fn name<'v>(
        &self,
        field: &Field,
        value: Cow<'v, str>,
        path: &str,
    ) -> Result<Cow<'v, str>, Error> {
        let Some(rule) = &field.names else {
            return Ok(value);
        };
        let (name, suffix) = match value.trim().split_once(' ') {
            Some((name, suffix)) => (name, Some(suffix.trim())),
            None => (value.trim(), None),
        };
        let message = self.schema.message(rule.message);
        let by_name = message.field(name).map(|(index, _)| index);
        let found = by_name
            .or_else(|| message.names.get(name.as_bytes()))
            .map(|index| &message.fields[usize::from(index)])
            .map(|field| match field.raw_of {
                Some(of) => &message.fields[usize::from(of)],
                None => field,
            })
            .filter(|field| !field.additional_properties);
        let suffix = suffix.map(|suffix| {
            let mut known = rule.suffixes.iter();
            known.find(|known| known.eq_ignore_ascii_case(suffix))
        });
        match (found, suffix) {
            (Some(field), None) => Ok(field.wire_name.to_string().into()),
            (Some(field), Some(Some(suffix))) => Ok(format!("{} {suffix}", field.wire_name).into()),
            (found, _) => Err(Error::Binding {
                field: path.to_owned(),
                problem: match found {
                    None => format!("is not the name of a field of {}", message.name),
                    Some(_) if rule.suffixes.is_empty() => "must be a field name only".to_owned(),
                    Some(_) => format!(
                        "must be a field name, optionally followed by one of: {}",
                        rule.suffixes.join(", ")
                    ),
                },
            }),
        }
    }
}

impl Param {
    fn write(&self, value: &str, out: &mut String) {
        separate(out);
        out.push_str(&self.name);
        out.push('=');
        encode(value, out);
    }
}

/// Begins a further parameter.
pub(super) fn separate(query: &mut String) {
    if !query.is_empty() {
        query.push('&');
    }
}
