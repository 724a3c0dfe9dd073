//! `check`: compares values of a request with definitions that another rpc lists.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::diagnostics::Diagnostics;
use super::{Action, LeftOut, Method};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::family::{Checker, FamilyRules};
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema};

/// A compiled `drawbridge.v1.Check`.
#[derive(Debug)]
pub struct Check {
    /// Compares the values with the definitions.
    pub checker: Checker,
    /// The gRPC path of the rpc that lists the definitions. The rpc itself is set when
    /// all methods are compiled.
    path: Box<str>,
    definitions: OnceLock<Arc<Method>>,
    /// The field with the values.
    pub field: FieldIndex,
    /// The name of that field.
    pub name: Box<str>,
    /// Number of the field that is sent as the `argument` of the definitions.
    id: u32,
    argument: Box<str>,
    page: Box<str>,
    page_size: Box<str>,
}

impl Check {
    /// Definitions per page.
    pub const PAGE_SIZE: usize = 100;

    /// Compiles the `check` of a two-step call.
    pub(super) fn compile(
        rule: &rules::Check,
        schema: &Schema,
        input: MessageId,
        of_family: (&str, FamilyRules),
        action: Option<&Action>,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let request = schema.message(input);
        let mut report = |problem: String| {
            diagnostics.report_rule("check", problem);
            None
        };
        if action.is_none() {
            return report("is for a two-step call: it has no `action`".into());
        }
        let (of_family, family_rules) = of_family;
        let checkers = family_rules.checkers;
        let Some((_, checker)) = checkers.iter().find(|(name, _)| *name == rule.checker) else {
            return report(format!(
                "the family {of_family} has no checker `{}`",
                rule.checker
            ));
        };
        let Some((field, of)) = request.field(&rule.field) else {
            return report(format!("{} has no field `{}`", request.name, rule.field));
        };
        if of.cardinality != Cardinality::Map {
            return report(format!("`{}` is not a map", rule.field));
        }
        let Some((_, id)) = request.field(&rule.id_field) else {
            return report(format!("{} has no field `{}`", request.name, rule.id_field));
        };
        Some(Self {
            checker: *checker,
            path: format!("/{}", rule.definitions).into(),
            definitions: OnceLock::new(),
            field,
            name: of.name.clone(),
            id: id.number,
            argument: rule.argument.as_str().into(),
            page: rule.page.as_str().into(),
            page_size: rule.page_size.as_str().into(),
        })
    }

    /// Returns the rpc that lists the definitions.
    pub fn definitions(&self) -> Option<&Method> {
        self.definitions.get().map(|method| &**method)
    }

    /// Finds the rpc of the definitions and checks that it is suitable.
    pub(super) fn definitions_in(
        &self,
        methods: &HashMap<Box<str>, Arc<Method>>,
        left_out: &BTreeMap<Box<str>, LeftOut>,
    ) -> Result<(), String> {
        let Some(method) = methods.get(&self.path) else {
            return Err(match left_out.get(&self.path) {
                Some(rpc) => rpc.to_string(),
                None => format!("there is no rpc `{}`", &self.path[1..]),
            });
        };
        let request = method.schema.message(method.input);
        for name in [&self.argument, &self.page, &self.page_size] {
            match request.field(name) {
                Some((_, field)) if !matches!(field.kind, Kind::Message(_)) => {}
                _ => return Err(format!("{} has no field `{name}`", request.name)),
            }
        }
        match items(method) {
            Some(_) => {
                self.definitions.get_or_init(|| method.clone());
                Ok(())
            }
            None => Err(format!("`{}` does not return a list", &self.path[1..])),
        }
    }

    /// Returns the request for one page of the definitions; pages count from 1.
    pub fn page(&self, definitions: &Method, request: &[u8], page: u32) -> Result<Bytes, Error> {
        let message = definitions.schema.message(definitions.input);
        let mut out = Vec::new();
        let mut put = |name: &str, value: Value<'_>| {
            let Some((_, field)) = message.field(name) else {
                return;
            };
            match value {
                Value::Varint(value) if field.kind == Kind::String => {
                    wire::write_bytes(&mut out, field.number, value.to_string().as_bytes());
                }
                Value::Varint(value) => wire::write_uint(&mut out, field.number, value),
                Value::Bytes(value) => wire::write_bytes(&mut out, field.number, value),
                Value::Fixed32(_) | Value::Fixed64(_) => {}
            }
        };
        if let Some(id) = wire::last(request, self.id).map_err(Error::malformed)? {
            put(&self.argument, id);
        }
        put(&self.page, Value::Varint(page.into()));
        put(&self.page_size, Value::Varint(Self::PAGE_SIZE as u64));
        Ok(out.into())
    }

    /// Returns the number of definitions in the response of a page.
    pub fn count(&self, definitions: &Method, response: &[u8]) -> u64 {
        let number = items(definitions);
        let counted = number.map(|number| wire::count(response, number));
        counted.and_then(Result::ok).map_or(0, |(count, _)| count)
    }

    /// Returns the definitions in the response of a page, without a copy.
    pub fn items(&self, definitions: &Method, response: &Bytes) -> Result<Vec<Bytes>, Error> {
        let Some(number) = items(definitions) else {
            return Ok(Vec::new());
        };
        let items = wire::all(response, number).map_err(Error::malformed)?;
        Ok(items
            .into_iter()
            .map(|item| response.slice_ref(item))
            .collect())
    }
}

/// Returns the number of the first repeated message field.
fn items(method: &Method) -> Option<u32> {
    let message = method.schema.message(method.output);
    let is_list = |field: &&crate::schema::Field| {
        field.cardinality == Cardinality::Repeated && matches!(field.kind, Kind::Message(_))
    };
    message
        .fields
        .iter()
        .find(is_list)
        .map(|field| field.number)
}
