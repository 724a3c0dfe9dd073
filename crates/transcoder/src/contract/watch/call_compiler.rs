//! Compiles what the options of all further calls of a watch have in common.

use std::sync::Arc;

use super::field_path::Part;
use super::request_template::Types;
use super::state::State;
use crate::contract::Method;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::rpc_lookup::RpcLookup;
use crate::schema::{Cardinality, Field, Kind, MessageId, Schema};

/// Compiles the further calls of one watch: `start`, `side_read`, `fallback`.
pub(super) struct CallCompiler<'a> {
    pub schema: &'a Schema,
    pub rpcs: &'a RpcLookup<'a>,
    pub method: &'a Method,
    pub poll: &'a Method,
    pub item: MessageId,
    pub state: Option<&'a State>,
}

impl CallCompiler<'_> {
    /// Finds the rpc of `call`, or reports that there is none.
    pub fn rpc(
        &self,
        name: &str,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Arc<Method>> {
        let found = self.rpcs.find(name);
        if found.is_none() {
            diagnostics.report_rule(&format!("{option}.call"), self.rpcs.unknown("call", name));
        }
        found.cloned()
    }

    /// Finds the rpc of a `call` that is repeated, which an action must not be.
    pub fn read(
        &self,
        name: &str,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Arc<Method>> {
        let rpc = self.rpc(name, option, diagnostics)?;
        if rpc.action.is_some() {
            let problem = format!("`{name}` is an action, which must not be repeated");
            diagnostics.report_rule(&format!("{option}.call"), problem);
        }
        Some(rpc)
    }

    /// Returns the number of the field of the stream's messages that holds the result.
    pub fn stream_field(
        &self,
        name: &str,
        fits: impl Fn(&Field) -> bool,
        what: &str,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<u32> {
        let message = self.schema.message(self.method.output);
        match message.field(name) {
            Some((_, field)) if fits(field) => Some(field.number),
            Some(_) => {
                let problem = format!("`{name}` of {} must be {what}", message.name);
                diagnostics.report_rule(&format!("{option}.field"), problem);
                None
            }
            None => {
                let problem = format!("{} has no field `{name}`", message.name);
                diagnostics.report_rule(&format!("{option}.field"), problem);
                None
            }
        }
    }

    /// Returns whether a field of the stream's messages can hold this part.
    pub fn fits(part: Part, item: MessageId) -> impl Fn(&Field) -> bool {
        let cardinality = match part {
            Part::List(_) => Cardinality::Repeated,
            _ => Cardinality::Explicit,
        };
        move |field| (field.kind, field.cardinality) == (Kind::Message(item), cardinality)
    }

    /// Returns the types of the messages that a further call is built from.
    pub fn types(&self) -> Types {
        Types {
            item: Some(self.item),
            poll: Some(self.poll.input),
            request: self.method.input,
            copied: self.poll.input,
        }
    }
}
