//! What rpcs say of each other, once all are compiled by themselves.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use super::diagnostics::Diagnostics;
use super::rpc_lookup::RpcLookup;
use super::{Diagnostic, Method, paging, resolve, watch};
use crate::api::drawbridge::v1::MethodRules;
use crate::schema::Schema;

/// An rpc that names another one, compiled but for that.
pub(super) struct Unlinked {
    pub rpc: MethodDescriptor,
    pub method: Method,
    pub rules: MethodRules,
}

impl Unlinked {
    /// Whether an rpc with these rules names another one.
    pub fn is(rules: &MethodRules) -> bool {
        !rules.resolve.is_empty() || is_stream(rules)
    }
}

fn is_stream(rules: &MethodRules) -> bool {
    rules.watch.is_some() || !rules.pages.is_empty()
}

/// Links the rpcs of one descriptor set to those of it in `methods`, and puts
/// them there. An rpc that cannot be linked is reported.
pub(super) fn link(
    unlinked: Vec<Unlinked>,
    schema: &Arc<Schema>,
    methods: &mut HashMap<Box<str>, Arc<Method>>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    // Streams are made of the others' calls, and a log names a watch.
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
            method.resolve = find_out(&rules.resolve, &method, &rpcs, &mut diagnostics);
        }
        let called =
            if let Some(rule) = rules.watch.as_ref().filter(|rule| watch::log::is_log(rule)) {
                method.log = watch::log::compile(rule, &method, &rpcs, &mut diagnostics);
                method.log.as_ref().map(|log| &log.poll)
            } else if let Some(rule) = &rules.watch {
                method.watch = watch::compile(rule, &method, &rpcs, &mut diagnostics);
                // Its calls are the polls, or the one that it begins with.
                method
                    .watch
                    .as_ref()
                    .map(|watch| watch.start.as_ref().map_or(&watch.poll, |start| &start.rpc))
            } else if !rules.pages.is_empty() {
                method.pages = paging::pages(&rules.pages, &method, &rpcs, &mut diagnostics);
                method.pages.as_ref().map(|pages| &pages.list)
            } else {
                None
            };
        if let Some(idempotency) = called.map(|called| called.idempotency) {
            method.idempotency = idempotency;
            method.binding.idempotency = idempotency;
        }
        method
    }
}

fn find_out(
    name: &str,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<super::Resolve> {
    let Some(finder) = rpcs.find(name).filter(|f| f.family == method.family) else {
        let problem = format!(
            "`{name}` is not a unary rpc of this service or package that can be served, or it is \
             to be found out itself"
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
    resolve::resolve(
        finder.clone(),
        &method.schema,
        method.input,
        &in_path,
        diagnostics,
    )
}
