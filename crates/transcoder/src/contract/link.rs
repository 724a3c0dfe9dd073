//! Compiles the options that name other rpcs, once all rpcs are compiled.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use super::diagnostics::Diagnostics;
use super::rpc_lookup::RpcLookup;
use super::{Diagnostic, Method, pages, resolve, watch};
use crate::api::drawbridge::v1::MethodRules;
use crate::schema::Schema;

/// An rpc whose options name other rpcs, compiled except for those options.
pub(super) struct Unlinked {
    pub rpc: MethodDescriptor,
    pub method: Method,
    pub rules: MethodRules,
}

impl Unlinked {
    /// Returns whether these options name another rpc.
    pub fn is(rules: &MethodRules) -> bool {
        !rules.resolve.is_empty() || is_stream(rules)
    }
}

fn is_stream(rules: &MethodRules) -> bool {
    rules.watch.is_some() || !rules.pages.is_empty()
}

/// Links the rpcs of one descriptor set to each other, and adds them to `methods`. An
/// rpc that cannot be linked is reported.
pub(super) fn link(
    unlinked: Vec<Unlinked>,
    schema: &Arc<Schema>,
    methods: &mut HashMap<Box<str>, Arc<Method>>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    // Streams call unary rpcs, and a log names a watch: this is their order.
    let (streams, unary): (Vec<_>, Vec<_>) =
        unlinked.into_iter().partition(|one| is_stream(&one.rules));
    let (logs, streams): (Vec<_>, Vec<_>) = streams
        .into_iter()
        .partition(|one| one.rules.watch.as_ref().is_some_and(watch::log::is_log));
    for group in [unary, streams, logs] {
        let linked: Vec<_> = group
            .into_iter()
            .map(|one| Arc::new(one.link(schema, methods, diagnostics)))
            .collect();
        methods.extend(linked.into_iter().map(|m| (m.path.clone(), m)));
    }
}

impl Unlinked {
    fn link(
        self,
        schema: &Arc<Schema>,
        methods: &HashMap<Box<str>, Arc<Method>>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Method {
        let Self {
            rpc,
            mut method,
            rules,
        } = self;
        let mut diagnostics = Diagnostics::of_rpc(&rpc, diagnostics);
        let service = method.service.clone();
        let rpcs = RpcLookup {
            service: &service,
            methods,
            schema,
        };
        if !rules.resolve.is_empty() {
            method.resolve = compile_resolve(&rules.resolve, &method, &rpcs, &mut diagnostics);
        }
        let called =
            if let Some(rule) = rules.watch.as_ref().filter(|rule| watch::log::is_log(rule)) {
                method.log = watch::log::compile(rule, &method, &rpcs, &mut diagnostics);
                method.log.as_ref().map(|log| &log.poll)
            } else if let Some(rule) = &rules.watch {
                method.watch = watch::compile(rule, &method, &rpcs, &mut diagnostics);
                // Repeated calls of a watch are its polls, or the call of `start`.
                method
                    .watch
                    .as_ref()
                    .map(|watch| watch.start.as_ref().map_or(&watch.poll, |start| &start.rpc))
            } else if !rules.pages.is_empty() {
                method.pages = pages::compile(&rules.pages, &method, &rpcs, &mut diagnostics);
                method.pages.as_ref().map(|pages| &pages.list)
            } else {
                None
            };
        if let Some(idempotency) = called.map(|called| called.idempotency) {
            method.idempotency = idempotency;
            method.binding.idempotency = idempotency;
            for binding in &mut method.binding.additional {
                binding.idempotency = idempotency;
            }
        }
        method
    }
}

fn compile_resolve(
    name: &str,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<super::Resolve> {
    let Some(lookup) = rpcs.find(name).filter(|f| f.family == method.family) else {
        let problem = format!(
            "`{name}` is not a unary rpc of this service or package, is itself invalid, or has a \
             `resolve` of its own"
        );
        diagnostics.report_rule("resolve", problem);
        return None;
    };
    let in_path: Vec<&str> = method
        .binding
        .path_fields()
        .filter(|(steps, _)| steps.is_empty())
        .map(|(_, field)| &*field.name)
        .collect();
    resolve::compile(
        lookup.clone(),
        &method.schema,
        method.input,
        &in_path,
        diagnostics,
    )
}
