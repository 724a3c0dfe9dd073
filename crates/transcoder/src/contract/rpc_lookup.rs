//! Finds the rpcs that annotations name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Method;
use super::diagnostics::Diagnostics;
use super::left_out::LeftOut;

/// The rpcs that an rpc can name in its annotations.
pub(super) struct RpcLookup<'a> {
    /// The full name of the service of the rpc.
    pub service: &'a str,
    /// The compiled rpcs of its descriptor set, by gRPC path.
    pub methods: &'a HashMap<Box<str>, Arc<Method>>,
    /// The rpcs of the descriptor set that are not served, by gRPC path.
    pub left_out: &'a BTreeMap<Box<str>, LeftOut>,
}

impl RpcLookup<'_> {
    /// Returns the unary rpc `GetJob` of the same service, or `JobService.GetJob` of
    /// the same package.
    pub fn find(&self, name: &str) -> Option<&Arc<Method>> {
        self.named(name)
            .filter(|rpc| !rpc.is_stream() && rpc.upload.is_none())
    }

    /// Returns the watch of this name; see [`RpcLookup::find`].
    pub fn watch(&self, name: &str) -> Option<&Arc<Method>> {
        self.named(name).filter(|rpc| rpc.watch.is_some())
    }

    fn named(&self, name: &str) -> Option<&Arc<Method>> {
        self.methods.get(&*self.path(name))
    }

    fn path(&self, name: &str) -> String {
        match name.split_once('.') {
            None => format!("/{}/{name}", self.service),
            Some((service, name)) => match self.service.rsplit_once('.') {
                Some((package, _)) => format!("/{package}.{service}/{name}"),
                None => format!("/{service}/{name}"),
            },
        }
    }

    /// Returns the problem of an option that names no rpc to `purpose`.
    pub fn unknown(&self, purpose: &str, name: &str) -> String {
        if name.is_empty() {
            return format!("is missing: name the rpc to {purpose}");
        }
        self.left_out_or(name, || {
            format!("`{name}` is not a unary rpc of this service or package, or is itself invalid")
        })
    }

    /// Returns that the rpc of this name is not served, or else the other problem.
    pub fn left_out_or(&self, name: &str, other: impl FnOnce() -> String) -> String {
        match self.left_out.get(&*self.path(name)) {
            Some(rpc) => rpc.to_string(),
            None => other(),
        }
    }
}

/// Reports where a stream and the rpc `other` differ: the stream's request makes the
/// calls of `other`, so they need the same route and fields.
pub(super) fn check_same_call(
    method: &Method,
    other: &Method,
    option: &str,
    diagnostics: &mut Diagnostics<'_>,
) {
    if (&method.verb, &method.template) != (&other.verb, &other.template) {
        let problem = format!(
            "`{}` is {} {}, the stream is {} {}: the routes must be the same",
            other.name, other.verb, other.template, method.verb, method.template
        );
        diagnostics.report_rule(option, problem);
        return;
    }
    let schema = &*method.schema;
    let (ours, theirs) = (schema.message(method.input), schema.message(other.input));
    for field in ours.fields.iter().filter(|field| !field.gateway_only) {
        let same = theirs.field(&field.name).is_some_and(|(_, known)| {
            schema.alike(known, field) && known.wire_name == field.wire_name
        });
        if !same {
            let problem = format!(
                "the field `{}` of {} is not one of {}: use the same name and type, or mark it \
                 `gateway_only`",
                field.name, ours.name, theirs.name
            );
            diagnostics.report_rule(option, problem);
        }
    }
    for field in theirs.fields.iter().filter(|field| field.required) {
        if ours
            .field(&field.name)
            .is_none_or(|(_, known)| !known.required)
        {
            let problem = format!(
                "the field `{}` is REQUIRED in {} and must be so in {}",
                field.name, theirs.name, ours.name
            );
            diagnostics.report_rule(option, problem);
        }
    }
}
